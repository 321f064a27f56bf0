//! Tests of two models on the same examples, and of several comparisons at once.

use serde::{Deserialize, Serialize};

use crate::normal::{two_sided_p, two_sided_z};
use crate::ranking::Ranking;

/// Two AUROCs on the same examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDeLong {
    /// AUROC of the first − that of the second.
    pub difference: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Difference over standard error.
    pub z: f64,
    /// Two-sided.
    pub p: f64,
}

/// The paired test of DeLong, DeLong & Clarke-Pearson (Biometrics 1988), for independent examples, by sorting (Sun & Xu 2014).
/// `None` with fewer than two positives or negatives, where lengths differ, or where no placement varies and there is nothing to
/// test a difference by.
///
/// # Shapes
/// - first, second, labels: `[n]`
pub fn paired_delong<S: Copy + Into<f64>>(first: &[S], second: &[S], labels: &[bool]) -> Option<PairedDeLong> {
    if first.len() != labels.len() || second.len() != labels.len() {
        return None;
    }
    let shares = |scores: &[S]| {
        let mut out = vec![0.0; labels.len()];
        Ranking::of_slices(scores, labels).placements().into_iter().for_each(|(i, _, share)| out[i] = share);
        out
    };
    let (a, b) = (shares(first), shares(second));
    let (mut difference, mut variance) = (0.0, 0.0);
    for class in [true, false] {
        let d: Vec<f64> = (0..labels.len()).filter(|&i| labels[i] == class).map(|i| a[i] - b[i]).collect();
        let n = d.len() as f64;
        if d.len() < 2 {
            return None;
        }
        let mean = d.iter().sum::<f64>() / n;
        variance += d.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n;
        difference = mean;
    }
    let standard_error = variance.sqrt();
    if standard_error == 0.0 && difference != 0.0 {
        return None;
    }
    let z = if difference == 0.0 { 0.0 } else { difference / standard_error };
    Some(PairedDeLong { difference, standard_error, z, p: two_sided_p(z) })
}

/// DeLong's interval of one AUROC on the scale of log odds, which keeps it in [0, 1] and near its level for high AUROCs and
/// small samples (Qin & Hotilovac 2008); from a value and its standard error.
pub(crate) fn logit_interval(value: f64, standard_error: f64, level: f64) -> Option<(f64, f64)> {
    if !(value > 0.0 && value < 1.0 && standard_error.is_finite()) {
        return None;
    }
    let half = two_sided_z(level) * standard_error / (value * (1.0 - value));
    let middle = (value / (1.0 - value)).ln();
    let back = |x: f64| 1.0 / (1.0 + (-x).exp());
    Some((back(middle - half), back(middle + half)))
}

/// McNemar's test (1947) of two classifiers' decisions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Examples that only the first has right.
    pub only_first: usize,
    /// Examples that only the second has right.
    pub only_second: usize,
    /// Two-sided p, by the binomial distribution.
    pub p_exact: f64,
    /// Two-sided p, by χ² with Edwards' correction for continuity (1948).
    pub p_chi2: f64,
}

/// McNemar's test of `only_first` against `only_second`.
pub fn mcnemar(only_first: usize, only_second: usize) -> McNemar {
    let (n, few) = (only_first + only_second, only_first.min(only_second));
    // Σ_{k ≤ few} C(n, k) / 2ⁿ, twice; by logarithms, for 2ⁿ overflows.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for k in 1..=few {
        log_term += ((n - k + 1) as f64 / k as f64).ln();
        tail += log_term.exp();
    }
    let chi = if n == 0 { 0.0 } else { ((only_first.abs_diff(only_second) as f64 - 1.0).max(0.0)).powi(2) / n as f64 };
    McNemar { only_first, only_second, p_exact: (2.0 * tail).min(1.0), p_chi2: two_sided_p(chi.sqrt()) }
}

/// Holm's correction (1979): p values that hold together, in the order in which they came; what was not tested stays `None` and
/// does not count.
pub fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&k| p[k].is_some()).collect();
    order.sort_by(|&a, &b| p[a].unwrap_or(1.0).total_cmp(&p[b].unwrap_or(1.0)));
    let m = order.len();
    let mut out = vec![None; p.len()];
    let mut largest = 0.0f64;
    for (rank, &k) in order.iter().enumerate() {
        largest = largest.max((m - rank) as f64 * p[k].unwrap_or(1.0)).min(1.0);
        out[k] = Some(largest);
    }
    out
}
