//! What a Brier score is made of, and how calibrated probabilities are on the whole.

use serde::{Deserialize, Serialize};

use crate::calibration::{N_BINS, bin};
use crate::newton::logistic;
use crate::normal::two_sided_z;

/// Murphy's decomposition (1973) over bins of equal width: Brier = reliability − resolution + uncertainty + within bins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrierParts {
    /// Σ n_b (mean p − observed share)² / n: miscalibration; 0 is best.
    pub reliability: f64,
    /// Σ n_b (observed share − prevalence)² / n: how far bins lie apart; more is better.
    pub resolution: f64,
    /// Prevalence · (1 − prevalence): what the world leaves unsure.
    pub uncertainty: f64,
    /// What is left since probabilities differ within bins (Stephenson, Coelho & Jolliffe 2008).
    pub within_bins: f64,
}

/// The decomposition; `None` without examples.
///
/// # Shapes
/// - probabilities, happened: `[n]`
pub fn brier_parts<S: Copy + Into<f64>>(probabilities: &[S], happened: &[bool]) -> Option<BrierParts> {
    let n = probabilities.len() as f64;
    if probabilities.is_empty() || happened.len() != probabilities.len() {
        return None;
    }
    let mut bins = [(0.0, 0.0, 0.0); N_BINS];
    let mut brier = 0.0;
    for (&p, &y) in probabilities.iter().zip(happened) {
        let (p, y): (f64, f64) = (p.into(), f64::from(u8::from(y)));
        let to = &mut bins[bin(p)];
        *to = (to.0 + p, to.1 + y, to.2 + 1.0);
        brier += (p - y).powi(2) / n;
    }
    let prevalence = bins.iter().map(|b| b.1).sum::<f64>() / n;
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        bins.iter().filter(|b| b.2 > 0.0).map(|&(p, y, m)| m * f(p / m, y / m).powi(2)).sum::<f64>() / n
    };
    let reliability = sum(&|p, y| p - y);
    let resolution = sum(&|_, y| y - prevalence);
    let uncertainty = prevalence * (1.0 - prevalence);
    Some(BrierParts { reliability, resolution, uncertainty, within_bins: brier - reliability + resolution - uncertainty })
}

/// Bins of [`expected_calibration_error_equal_mass`].
pub const N_MASS_BINS: usize = 10;

/// Ends of `n_bins` parts of `n` sorted examples that differ by one at most, the larger first.
pub(crate) fn mass_ends(n: usize, n_bins: usize) -> impl Iterator<Item = usize> {
    let (size, larger) = (n / n_bins, n % n_bins);
    (1..=n_bins).map(move |k| k * size + k.min(larger))
}

/// Expected calibration error over [`N_MASS_BINS`] bins of equally many examples by rising probability (Nguyen & O'Connor 2015);
/// examples of equal probability stay in the order in which they came. `None` without examples.
///
/// # Shapes
/// - probabilities, happened: `[n]`
pub fn expected_calibration_error_equal_mass<S: Copy + Into<f64>>(probabilities: &[S], happened: &[bool]) -> Option<f64> {
    let n = probabilities.len();
    if n == 0 || happened.len() != n {
        return None;
    }
    let mut sorted: Vec<(f64, bool)> = probabilities.iter().map(|&p| p.into()).zip(happened.iter().copied()).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut start, mut sum) = (0, 0.0);
    for end in mass_ends(n, N_MASS_BINS) {
        sum += sorted[start..end].iter().map(|(p, y)| p - f64::from(u8::from(*y))).sum::<f64>().abs();
        start = end;
    }
    Some(sum / n as f64)
}

/// Cox's recalibration (1958): how log odds would have to be changed to be right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationLine {
    /// Factor of the log odds: under 1, predictions are too extreme.
    pub slope: f64,
    /// Its interval.
    pub slope_interval: (f64, f64),
    /// What must be added to the log odds at a slope of 1 (calibration in the large): under 0, risks are overstated.
    pub intercept: f64,
    /// Its interval.
    pub intercept_interval: (f64, f64),
}

/// Log odds, bounded at the resolution of an `f32`.
pub(crate) fn log_odds(p: f64) -> f64 {
    const SMALLEST: f64 = f32::EPSILON as f64;
    let p = p.clamp(SMALLEST, 1.0 - SMALLEST);
    (p / (1.0 - p)).ln()
}

/// Slope and intercept by maximum likelihood with Wald intervals at `level`; with `clusters`, those of patients, by the sandwich
/// of sums over each patient (Liang & Zeger 1986), for a patient's examples are no independent evidence. `None` where they can't
/// be fitted: one class only, or log odds that separate the classes.
///
/// # Shapes
/// - probabilities, happened, clusters: `[n]`
pub fn calibration_line<S: Copy + Into<f64>>(
    probabilities: &[S],
    happened: &[bool],
    clusters: Option<&[usize]>,
    level: f64,
) -> Option<CalibrationLine> {
    let z: Vec<f64> = probabilities.iter().map(|&p| log_odds(p.into())).collect();
    let y: Vec<f64> = happened.iter().map(|&y| f64::from(u8::from(y))).collect();
    if y.len() != z.len() || clusters.is_some_and(|c| c.len() != z.len()) {
        return None;
    }
    let with_slope: Vec<f64> = z.iter().flat_map(|&z| [1.0, z]).collect();
    let line = logistic(&with_slope, 2, &y, None)?;
    let ones = vec![1.0; z.len()];
    let large = logistic(&ones, 1, &y, Some(&z))?;
    let error = |x: &[f64], fit: &crate::newton::LogisticFit, offset: Option<&[f64]>, which: usize| match clusters {
        Some(clusters) => sandwich(x, &y, offset, fit, clusters, which),
        None => fit.covariance[which * fit.coefficients.len() + which].sqrt(),
    };
    let quantile = two_sided_z(level);
    let around = |value: f64, error: f64| (value - quantile * error, value + quantile * error);
    let (slope, intercept) = (line.coefficients[1], large.coefficients[0]);
    let (of_slope, of_intercept) = (error(&with_slope, &line, None, 1), error(&ones, &large, Some(&z), 0));
    (of_slope.is_finite() && of_intercept.is_finite()).then(|| CalibrationLine {
        slope,
        slope_interval: around(slope, of_slope),
        intercept,
        intercept_interval: around(intercept, of_intercept),
    })
}

fn sandwich(x: &[f64], y: &[f64], offset: Option<&[f64]>, fit: &crate::newton::LogisticFit, clusters: &[usize], which: usize) -> f64 {
    let k = fit.coefficients.len();
    let n_clusters = clusters.iter().max().map_or(0, |c| c + 1);
    let mut scores = vec![0.0; n_clusters];
    let mut seen = vec![false; n_clusters];
    for (i, ((row, &happened), &cluster)) in x.chunks_exact(k).zip(y).zip(clusters).enumerate() {
        let eta = row.iter().zip(&fit.coefficients).map(|(a, b)| a * b).sum::<f64>() + offset.map_or(0.0, |o| o[i]);
        let residual = happened - crate::newton::sigmoid(eta);
        // The influence of this example on the wanted coefficient.
        let influence: f64 = row.iter().zip(&fit.covariance[which * k..(which + 1) * k]).map(|(a, b)| a * b).sum();
        scores[cluster] += residual * influence;
        seen[cluster] = true;
    }
    let m = seen.iter().filter(|s| **s).count() as f64;
    (scores.iter().map(|s| s * s).sum::<f64>() * if m > 1.0 { m / (m - 1.0) } else { f64::INFINITY }).sqrt()
}
