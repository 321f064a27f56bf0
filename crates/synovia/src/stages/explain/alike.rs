//! What the model sees alike: test examples on a plane, and the training examples that lie nearest to each.

use std::collections::BTreeMap;

use synovia_cohort::{CohortReader, ExampleRow, Split};
use synovia_evaluation::{EmbeddingMap, ModalityPattern, Neighbour, NeighbourCheck, nearest};
use synovia_training::{Asked, Given, Presence};

use super::{Explained, Explainer, mean};
use crate::stages::embeddings::Embedded;

/// Training examples, evenly over the split, that an example's neighbours are looked for among, and test examples of the map.
const MOST_TRAIN: usize = 4000;
const N_MAPPED: usize = 400;
/// Neighbours by which it is checked that examples of one class lie together, and those of a case that are shown.
const N_NEIGHBOURS: usize = 15;
pub(super) const N_SHOWN: usize = 5;

/// Training examples with a label by what is shown of them, of all that a model of `own` can be shown.
pub(super) fn known<'r>(reader: &'r CohortReader, asked: &Asked, own: Presence) -> anyhow::Result<BTreeMap<ModalityPattern, Embedded<'r>>> {
    Ok(Embedded::of_patterns(reader, asked, own, Split::Train, MOST_TRAIN, is_labelled)?.into_iter().collect())
}

impl Explainer<'_> {
    /// Test examples of the fullest pattern that there are any of, on a plane; `None` where nothing may be told of the training's.
    pub(super) fn map(&self, own: Presence) -> anyhow::Result<Option<EmbeddingMap>> {
        if self.known.is_empty() {
            return Ok(None);
        }
        for (pattern, test) in Embedded::of_patterns(self.reader, &self.asked, own, Split::Test, N_MAPPED, is_labelled)? {
            let Some(train) = self.known.get(&pattern) else { continue };
            if !test.rows.is_empty() {
                let labels: Vec<&[Option<f32>]> = test.rows.iter().map(|row| row.labels.as_slice()).collect();
                return Ok(EmbeddingMap::fit(pattern, &train.views(), &test.views(), &labels));
            }
        }
        Ok(None)
    }

    /// Of each example the training examples with a label that lie nearest, where as much is seen of both.
    pub(super) fn neighbours(&self, explained: &Explained<'_>) -> Vec<Vec<Neighbour>> {
        let mut out = vec![Vec::new(); explained.given.len()];
        for (pattern, known) in &self.known {
            let is_of = |given: &Given| ModalityPattern::of(given.image.is_some(), given.record.is_some()) == Some(*pattern);
            let of_pattern: Vec<usize> = (0..out.len()).filter(|&i| is_of(explained.given[i])).collect();
            let labelled: Vec<usize> = (0..known.rows.len()).filter(|&k| known.rows[k].labels[explained.k].is_some()).collect();
            let views: Vec<&[f32]> = labelled.iter().map(|&k| known.values[k].as_slice()).collect();
            let neighbour = |(k, distance): (usize, f64)| {
                let row = known.rows[labelled[k]];
                let label = explained.label_name(row.labels[explained.k].unwrap_or_default() as usize);
                Neighbour { example: row.id.as_str().to_owned(), label, distance }
            };
            for i in of_pattern {
                out[i] = nearest(&views, &explained.embeddings[i], N_NEIGHBOURS).into_iter().map(neighbour).collect();
            }
        }
        out
    }

    pub(super) fn neighbour_check(&self, explained: &Explained<'_>, neighbours: &[Vec<Neighbour>]) -> Option<NeighbourCheck> {
        // Of a class as many as there are among those that neighbours are chosen from.
        let shares = |known: &Embedded<'_>| -> Vec<f32> { known.rows.iter().filter_map(|row| row.labels[explained.k]).collect() };
        let candidates: BTreeMap<ModalityPattern, Vec<f32>> = self.known.iter().map(|(pattern, known)| (*pattern, shares(known))).collect();
        let (mut alike, mut chance) = (Vec::new(), Vec::new());
        for (i, of) in neighbours.iter().enumerate().filter(|(_, of)| of.len() == N_NEIGHBOURS) {
            let label = explained.label(i);
            let same = of.iter().filter(|other| other.label == explained.label_name(label)).count() as f64 / of.len() as f64;
            let given = explained.given[i];
            let Some(of_pattern) = ModalityPattern::of(given.image.is_some(), given.record.is_some()).and_then(|p| candidates.get(&p))
            else {
                continue;
            };
            let share = of_pattern.iter().filter(|&&other| other as usize == label).count() as f64 / of_pattern.len() as f64;
            alike.push((i, same - share));
            chance.push(share);
        }
        (!alike.is_empty()).then(|| NeighbourCheck {
            n: alike.len(),
            neighbours: N_NEIGHBOURS,
            chance: chance.iter().sum::<f64>() / chance.len() as f64,
            more: mean(&explained.of_patients(&alike)),
        })
    }
}

/// Whether anything is known that a neighbour could be of.
fn is_labelled(row: &ExampleRow) -> bool {
    row.labels.iter().any(Option::is_some)
}
