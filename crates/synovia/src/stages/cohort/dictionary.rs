//! `cohort/dictionary.json`: what each column is, how often it is there, and what its numbers are like.

use serde::Serialize;
use synovia_cohort::{CohortWriter, FeatureKind, FeatureSpec, Split, StoreError};
use synovia_records::{FeaturePlan, FeatureSource};

use super::Draft;

/// A column of `cohort/dictionary.json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Described {
    /// The column.
    #[serde(flatten)]
    pub(super) spec: FeatureSpec,
    /// Where its numbers come from.
    pub(super) source: FeatureSource,
    /// Share of the train split's records that have it.
    pub(super) coverage: f64,
    /// Its 5th, 25th, 50th, 75th and 95th percentiles (nearest rank) over at most 10,000 examples of the train split;
    /// empty for a flag.
    pub(super) quantiles: Vec<f32>,
}

/// Train examples that the quantiles are taken of, at most: the first by id, which is a digest and so as good as drawn.
const DESCRIBED: usize = 10_000;
const PERCENTILES: [usize; 5] = [5, 25, 50, 75, 95];
/// Columns whose values are in memory at a time.
const COLUMNS: usize = 8;

impl Described {
    /// Every column of a plan, from the rows that were written: `rows` is where the record of each draft is.
    pub(super) fn all(
        plan: &FeaturePlan,
        coverage: &[f64],
        drafts: &[Draft],
        rows: &[Option<u32>],
        writer: &CohortWriter,
    ) -> Result<Vec<Self>, StoreError> {
        let train = drafts.iter().zip(rows).filter(|(draft, _)| draft.row.split == Split::Train).take(DESCRIBED);
        let sample: Vec<usize> = train.filter_map(|(_, row)| row.map(|row| row as usize)).collect();
        let mut features = vec![0.0; plan.features.len()];
        let mut all = Vec::with_capacity(plan.features.len());
        for (n, columns) in plan.features.chunks(COLUMNS).enumerate() {
            let mut values = vec![Vec::with_capacity(sample.len()); columns.len()];
            for &row in &sample {
                writer.read_record(row, &mut features)?;
                values.iter_mut().zip(&features[n * COLUMNS..]).for_each(|(values, x)| values.push(*x));
            }
            all.extend(columns.iter().zip(&coverage[n * COLUMNS..]).zip(values).map(|((feature, coverage), values)| Self {
                spec: feature.spec.clone(),
                source: feature.source.clone(),
                coverage: *coverage,
                quantiles: if feature.spec.kind == FeatureKind::Number { quantiles(values) } else { Vec::new() },
            }));
        }
        Ok(all)
    }
}

/// Nearest ranks of values that are there.
fn quantiles(mut values: Vec<f32>) -> Vec<f32> {
    values.retain(|x| x.is_finite());
    values.sort_by(f32::total_cmp);
    let rank = |percent: usize| values[(percent * values.len()).div_ceil(100).max(1) - 1];
    if values.is_empty() { Vec::new() } else { PERCENTILES.map(rank).to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_ranks() {
        assert_eq!(quantiles((1..=100).rev().map(|x| x as f32).collect()), [5.0, 25.0, 50.0, 75.0, 95.0]);
        assert_eq!(quantiles(vec![3.0, f32::NAN]), [3.0; 5]);
        assert_eq!(quantiles(vec![f32::NAN]), [0.0f32; 0]);
    }
}
