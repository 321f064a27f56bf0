//! Examples of a cohort as a model sees them.

use std::collections::BTreeSet;

use synovia_cohort::{CohortReader, ExampleRow, Split};
use synovia_evaluation::ModalityPattern;
use synovia_training::{Asked, Given, Presence, spread};

use super::explain::read;

/// Examples that are held in memory.
const BATCH: usize = 64;

/// Some examples and their embeddings.
pub struct Embedded<'r> {
    /// Which.
    pub rows: Vec<&'r ExampleRow>,
    /// Shape: `[n][d]`.
    pub values: Vec<Vec<f32>>,
}

impl<'r> Embedded<'r> {
    /// Of each pattern that a model of `own` can be shown at most `most` examples of a split, evenly over the cohort, that are wanted and
    /// have all of it, whatever else they have. An image is looked at once, however many patterns it is shown in.
    pub fn of_patterns(
        reader: &'r CohortReader,
        asked: &Asked,
        own: Presence,
        split: Split,
        most: usize,
        is_wanted: fn(&ExampleRow) -> bool,
    ) -> anyhow::Result<Vec<(ModalityPattern, Self)>> {
        let all = reader.rows();
        let chosen = |(pattern, shown): (ModalityPattern, Presence)| {
            let has = |row: &ExampleRow| (!shown.image || row.image_row.is_some()) && (!shown.record || row.record_row.is_some());
            let rows: Vec<usize> = (0..all.len()).filter(|&k| all[k].split == split && has(&all[k]) && is_wanted(&all[k])).collect();
            let step = rows.len().div_ceil(most).max(1);
            (pattern, shown, rows.into_iter().step_by(step).collect::<BTreeSet<usize>>())
        };
        let chosen: Vec<(ModalityPattern, Presence, BTreeSet<usize>)> = patterns(own).map(chosen).collect();
        let rows: BTreeSet<usize> = chosen.iter().flat_map(|(.., rows)| rows).copied().collect();
        let parts: Vec<Vec<usize>> = rows.into_iter().collect::<Vec<_>>().chunks(BATCH).map(<[usize]>::to_vec).collect();
        let embed = |part: &Vec<usize>| -> anyhow::Result<Vec<Vec<(usize, Vec<f32>)>>> {
            let given = part.iter().map(|&k| read(reader, &all[k], own)).collect::<anyhow::Result<Vec<Given>>>()?;
            let made = asked.embed(&given.iter().collect::<Vec<_>>());
            let of_pattern = |(_, shown, rows): &(ModalityPattern, Presence, BTreeSet<usize>)| {
                let of: Vec<usize> = (0..part.len()).filter(|&i| rows.contains(&part[i])).collect();
                let records: Vec<Given> =
                    of.iter().map(|&i| Given { image: None, record: given[i].record.clone().filter(|_| shown.record) }).collect();
                let images: Vec<Option<&[f32]>> = of.iter().map(|&i| made[i].as_deref().filter(|_| shown.image)).collect();
                let told = asked.ask_embedded(&records.iter().collect::<Vec<_>>(), &images);
                of.into_iter().zip(told).map(|(i, told)| (part[i], told.embedding)).collect()
            };
            Ok(chosen.iter().map(of_pattern).collect())
        };
        let mut out: Vec<(ModalityPattern, Self)> =
            chosen.iter().map(|(pattern, ..)| (*pattern, Self { rows: Vec::new(), values: Vec::new() })).collect();
        for part in spread(&parts, embed) {
            for ((_, embedded), of_pattern) in out.iter_mut().zip(part?) {
                for (k, value) in of_pattern {
                    embedded.rows.push(&all[k]);
                    embedded.values.push(value);
                }
            }
        }
        Ok(out)
    }

    /// The embeddings, to be looked at.
    pub fn views(&self) -> Vec<&[f32]> {
        self.values.iter().map(Vec::as_slice).collect()
    }
}

/// What a model of `own` can be shown, all of it first.
fn patterns(own: Presence) -> impl Iterator<Item = (ModalityPattern, Presence)> {
    let shown = |pattern| match pattern {
        ModalityPattern::Both => Presence { image: true, record: true },
        ModalityPattern::Image => Presence { image: true, record: false },
        ModalityPattern::Record => Presence { image: false, record: true },
    };
    let pairs = ModalityPattern::ALL.into_iter().map(move |pattern| (pattern, shown(pattern)));
    pairs.filter(move |(_, shown)| (own.image || !shown.image) && (own.record || !shown.record))
}
