//! Measures of a predicted number.

use serde::{Deserialize, Serialize};

/// How near predicted numbers are to true ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// Examples.
    pub n: usize,
    /// Mean absolute error, in the target's unit.
    pub mean_absolute_error: f64,
    /// Root of the mean squared error, in the target's unit.
    pub root_mean_squared_error: f64,
    /// 1 − Σ (y − ŷ)² / Σ (y − ȳ)²; `None` where y does not vary.
    pub r2: Option<f64>,
    /// Pearson's correlation; `None` where either does not vary.
    pub pearson: Option<f64>,
    /// Spearman's correlation, ties by their mean rank.
    pub spearman: Option<f64>,
}

/// All measures of `predicted` against `truth`; `None` without examples or where lengths differ.
///
/// # Shapes
/// - truth, predicted: `[n]`, finite
pub fn regression(truth: &[f64], predicted: &[f64]) -> Option<Regression> {
    let n = truth.len();
    if n == 0 || predicted.len() != n {
        return None;
    }
    let errors = || truth.iter().zip(predicted).map(|(y, p)| y - p);
    let squares: f64 = errors().map(|e| e * e).sum();
    let mean = truth.iter().sum::<f64>() / n as f64;
    let spread: f64 = truth.iter().map(|y| (y - mean).powi(2)).sum();
    Some(Regression {
        n,
        mean_absolute_error: errors().map(f64::abs).sum::<f64>() / n as f64,
        root_mean_squared_error: (squares / n as f64).sqrt(),
        r2: (spread > 0.0).then(|| 1.0 - squares / spread),
        pearson: pearson(truth, predicted),
        spearman: pearson(&ranks(truth), &ranks(predicted)),
    })
}

fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    (aa > 0.0 && bb > 0.0).then(|| (ab / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0))
}

/// Ranks from 1, ties by their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut out = vec![0.0; values.len()];
    let mut before = 0.0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before + 0.5 * (group.len() as f64 + 1.0);
        group.iter().for_each(|&i| out[i] = rank);
        before += group.len() as f64;
    }
    out
}
