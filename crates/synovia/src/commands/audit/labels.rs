//! What tells the label by itself: a feature, or a category that should have nothing to do with it.

use std::collections::{BTreeMap, BTreeSet};

use synovia_cohort::{EndpointKind, ExampleRow, Task, TaskKind};

use super::statistics::{auroc, z_of};
use super::{Audit, Kind, Place};

/// A single input better than this has seen the answer.
const TELLS: f64 = 0.98;
/// Examples of either class below which an AUROC is no evidence.
const AT_LEAST: usize = 20;
/// A category is looked at when so many examples have it; others are one category.
const CATEGORY_AT_LEAST: usize = 10;
/// What a site, a scanner or a format must reach to be named, and how many standard errors from chance.
const CATEGORY_TELLS: f64 = 0.75;
const CATEGORY_Z: f64 = 4.0;

/// The yes-or-no questions of a task: its class and the label of an example with regard to it.
pub(super) fn questions(task: &Task) -> impl Iterator<Item = (usize, &str)> {
    let first = usize::from(task.kind == TaskKind::Binary);
    task.classes.iter().enumerate().map(move |(k, class)| (k + first, class.as_str()))
}

/// Whether the label of task `k` is `class`; `None` where nobody knows.
pub(super) fn answer(row: &ExampleRow, k: usize, class: usize) -> Option<bool> {
    row.labels[k].map(|label| label as usize == class)
}

/// Each feature, and its being missing, against each label.
pub(super) fn features(place: &Place<'_>, audit: &mut Audit) -> anyhow::Result<()> {
    let manifest = place.reader.manifest();
    let n = manifest.features.len();
    let mut table = Vec::new();
    let mut features = vec![0.0f32; n];
    for row in place.reader.rows() {
        if place.reader.read_record(row, &mut features)? {
            table.push((row, features.clone()));
        }
    }
    let mut tells = |of: &str, answer: &dyn Fn(&ExampleRow) -> Option<bool>| {
        for (j, feature) in manifest.features.iter().enumerate() {
            let labelled = || table.iter().filter_map(|(row, x)| Some((x[j], answer(row)?)));
            let values: Vec<(f32, bool)> = labelled().filter(|(x, _)| x.is_finite()).collect();
            let missing: Vec<(f32, bool)> = labelled().map(|(x, label)| (f32::from(u8::from(x.is_nan())), label)).collect();
            for (what, scored) in [("", &values), (" being missing", &missing)] {
                let Some(area) = auroc(scored, AT_LEAST).filter(|area| area.max(1.0 - area) > TELLS) else { continue };
                let evidence =
                    format!("the feature `{}`{what} alone tells {of}: AUROC {area:.3} over {} examples", feature.name, scored.len());
                audit.leaks.push(place.leak(Kind::FeatureTellsLabel, evidence));
            }
        }
    };
    for (k, task) in manifest.tasks.iter().enumerate() {
        for (class, name) in questions(task) {
            tells(&format!("`{}` ({name})", task.name), &|row| answer(row, k, class));
        }
    }
    for (k, endpoint) in manifest.endpoints.iter().enumerate() {
        // Of a number, whether it is in the upper half.
        let mut firsts: Vec<f32> = place.reader.rows().iter().filter_map(|row| row.endpoints[k].map(|[first, _]| first)).collect();
        firsts.sort_unstable_by(f32::total_cmp);
        let median = firsts.get(firsts.len() / 2).copied().unwrap_or_default();
        let is_high = |row: &ExampleRow| row.endpoints[k].map(|[first, _]| first >= median);
        match endpoint.kind {
            EndpointKind::Survival => {
                tells(&format!("`{}` (the event)", endpoint.name), &|row| row.endpoints[k].map(|[_, event]| event > 0.0));
            }
            _ => tells(&format!("`{}` (half and half)", endpoint.name), &is_high),
        }
    }
    Ok(())
}

/// A category of each example against each label. A category's score is its share of positives among the patients of the
/// other half, so that many small categories do not tell the label by being counted on themselves.
pub(super) fn categories(place: &Place<'_>, kind: Kind, what: &str, of: &[(&ExampleRow, &str)], audit: &mut Audit) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    of.iter().for_each(|(_, category)| *counts.entry(category).or_default() += 1);
    let known = |category: &str| counts.get(category).is_some_and(|n| *n >= CATEGORY_AT_LEAST);
    let names: BTreeSet<&str> = of.iter().map(|(_, c)| if known(c) { *c } else { "others" }).collect();
    if names.len() < 2 {
        return;
    }
    let half =
        |row: &ExampleRow| row.patient.bytes().fold(0u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b))).count_ones() as usize % 2;
    for (k, task) in place.reader.manifest().tasks.iter().enumerate() {
        for (class, name) in questions(task) {
            let mut shares: [BTreeMap<&str, (u32, u32)>; 2] = Default::default();
            let labelled: Vec<(&ExampleRow, &str, bool)> =
                of.iter().filter_map(|(row, c)| Some((*row, if known(c) { *c } else { "others" }, answer(row, k, class)?))).collect();
            for (row, category, label) in &labelled {
                let share = shares[half(row)].entry(category).or_default();
                *share = (share.0 + u32::from(*label), share.1 + 1);
            }
            let score = |row: &ExampleRow, category: &str| {
                shares[1 - half(row)].get(category).map_or(0.5, |(yes, all)| (*yes as f32 + 0.5) / (*all as f32 + 1.0))
            };
            let scored: Vec<(f32, bool)> = labelled.iter().map(|(row, category, label)| (score(row, category), *label)).collect();
            let n_positive = scored.iter().filter(|(_, label)| *label).count();
            let n_negative = scored.len() - n_positive;
            let Some(area) = auroc(&scored, AT_LEAST) else { continue };
            if area >= CATEGORY_TELLS && z_of(area, n_positive, n_negative) >= CATEGORY_Z {
                let evidence =
                    format!("the {what} of the image alone tells `{}` ({name}): AUROC {area:.3} over {} examples", task.name, scored.len());
                audit.leaks.push(place.leak(kind, evidence));
            }
        }
    }
}

/// How often a word is there with the label and without.
#[derive(Default)]
pub(super) struct Words {
    counts: BTreeMap<String, [u32; 2]>,
    totals: [u32; 2],
}

/// Words beyond this many are not looked at: those that many texts have come early.
const MAX_WORDS: usize = 200_000;

impl Words {
    /// Adds the words of an example's texts.
    pub(super) fn add(&mut self, words: &BTreeSet<String>, label: bool) {
        self.totals[usize::from(label)] += 1;
        for word in words {
            if let Some(count) = self.counts.get_mut(word) {
                count[usize::from(label)] += 1;
            } else if self.counts.len() < MAX_WORDS {
                self.counts.entry(word.clone()).or_default()[usize::from(label)] += 1;
            }
        }
    }

    /// The word that tells the label best, if it tells it, with its AUROC and the number of texts.
    pub(super) fn telling(&self) -> Option<(&str, f64, u32)> {
        let [without, with] = self.totals.map(f64::from);
        if self.totals.iter().any(|n| (*n as usize) < AT_LEAST) {
            return None;
        }
        // Of a word that is there or not, the AUROC is the mean of its sensitivity and its specificity.
        let area = |[no, yes]: &[u32; 2]| f64::midpoint(f64::from(*yes) / with, 1.0 - f64::from(*no) / without);
        let areas = self.counts.iter().map(|(word, counts)| (word.as_str(), area(counts)));
        let best = areas.max_by(|a, b| (a.1 - 0.5).abs().total_cmp(&(b.1 - 0.5).abs()))?;
        (best.1.max(1.0 - best.1) > TELLS).then_some((best.0, best.1, self.totals[0] + self.totals[1]))
    }
}
