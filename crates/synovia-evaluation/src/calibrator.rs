//! Ways to make a binary probability mean what it says, by name, fitted on validation, and each plain enough to be a few nodes
//! of an exported graph.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::EvaluationError;
use crate::newton::{logistic, sigmoid, softplus};

/// A way to calibrate, by the name that a pipeline gives it.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Calibrator {
    /// Log odds, or the logits of several classes, divided by a number (Guo et al. 2017).
    #[default]
    Temperature,
    /// A line over log odds (Platt 1999), with his targets, which keep a separable sample from infinite slopes.
    Platt,
    /// The best rising step function, by pooling adjacent violators (Zadrozny & Elkan 2002).
    Isotonic,
    /// A line over ln p and ln (1 − p) (Kull, Silva Filho & Flach 2017).
    Beta,
}

impl Calibrator {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Temperature, Self::Platt, Self::Isotonic, Self::Beta];

    /// Its name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::Platt => "platt",
            Self::Isotonic => "isotonic",
            Self::Beta => "beta",
        }
    }

    /// The calibrator of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == name)
    }
}

impl fmt::Display for Calibrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a fitted calibrator does to a probability, as data: everything that an exported graph needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CalibrationMap {
    /// σ(logit / T), or the softmax of several logits / T.
    Temperature {
        /// T.
        value: f32,
    },
    /// σ(slope · logit + intercept): a Mul, an Add and a Sigmoid on the model's logit.
    LogitLine {
        /// Factor of the logit.
        slope: f64,
        /// What is added.
        intercept: f64,
    },
    /// σ(a ln p − b ln (1 − p) + c), with ln p = −softplus(−z) and −ln (1 − p) = softplus(z) of the logit z: two Softplus, two
    /// Mul, an Add and a Sigmoid.
    Beta {
        /// Factor of ln p, not under 0.
        a: f64,
        /// Factor of −ln (1 − p), not under 0.
        b: f64,
        /// What is added.
        c: f64,
    },
    /// first + Σ rise · clip((logit − start) / width, 0, 1): a Sub, a Mul, a Clip, a `MatMul` with the rises, and an Add. Each term lies
    /// between 0 and its rise and none is steeper than [`STEEPEST`], so that the graph's single precision is enough.
    Steps {
        /// Probability before the first step.
        first: f64,
        /// Start, width and rise of each, logits and probability.
        steps: Vec<[f64; 3]>,
    },
}

/// Probability that a step may rise a logit. A sigmoid rises by a quarter.
pub const STEEPEST: f64 = 2.0;

impl CalibrationMap {
    /// The calibrated probability of a logit.
    pub fn of_logit(&self, z: f64) -> f64 {
        match self {
            Self::Temperature { value } => sigmoid(z / f64::from(*value)),
            Self::LogitLine { slope, intercept } => sigmoid(slope * z + intercept),
            Self::Beta { a, b, c } => sigmoid(b * softplus(z) - a * softplus(-z) + c),
            Self::Steps { first, steps } => {
                let step = |[start, width, rise]: &[f64; 3]| rise * ((z - start) / width).clamp(0.0, 1.0);
                first + steps.iter().map(step).sum::<f64>()
            }
        }
    }
}

/// Fits a calibrator on logits and labels of the validation split, by maximum likelihood (isotonic: least squares).
///
/// # Shapes
/// - logits, happened: `[n]`
///
/// # Errors
/// When shapes do not fit, a logit is not finite, or the sample has no fit: one class only, (temperature, beta) classes that logits
/// separate, or (all but isotonic) logits that fall where the event is more frequent.
pub fn fit_calibrator(which: Calibrator, logits: &[f64], happened: &[bool]) -> Result<CalibrationMap, EvaluationError> {
    if happened.len() != logits.len() {
        return Err(EvaluationError::Shape { what: "labels", len: happened.len(), expected: logits.len() });
    }
    if let Some(position) = logits.iter().position(|z| !z.is_finite()) {
        return Err(EvaluationError::NotFinite { what: "logits", position });
    }
    let n_positive = happened.iter().filter(|&&y| y).count();
    let none = || EvaluationError::Option {
        what: format!("{which} calibration has no fit on {n_positive} positive labels of {}", happened.len()),
    };
    if n_positive == 0 || n_positive == happened.len() {
        return Err(none());
    }
    let y: Vec<f64> = happened.iter().map(|&y| f64::from(u8::from(y))).collect();
    match which {
        Calibrator::Temperature => {
            let fit = logistic(logits, 1, &y, None).filter(|fit| fit.coefficients[0] > 0.0).ok_or_else(none)?;
            Ok(CalibrationMap::Temperature { value: (1.0 / fit.coefficients[0]) as f32 })
        }
        Calibrator::Platt => {
            let (m, n) = (n_positive as f64, (happened.len() - n_positive) as f64);
            let targets: Vec<f64> = happened.iter().map(|&y| if y { (m + 1.0) / (m + 2.0) } else { 1.0 / (n + 2.0) }).collect();
            let x: Vec<f64> = logits.iter().flat_map(|&z| [1.0, z]).collect();
            let fit = logistic(&x, 2, &targets, None).filter(|fit| fit.coefficients[1] > 0.0).ok_or_else(none)?;
            Ok(CalibrationMap::LogitLine { slope: fit.coefficients[1], intercept: fit.coefficients[0] })
        }
        Calibrator::Beta => beta(logits, &y).ok_or_else(none),
        Calibrator::Isotonic => {
            let (x, y) = isotonic(logits, &y);
            Ok(steps(&x, &y, happened.len()))
        }
    }
}

/// The three-parameter fit; a factor under 0 would turn the order around, and is left out as Kull et al. have it.
fn beta(logits: &[f64], y: &[f64]) -> Option<CalibrationMap> {
    // ln p and −ln (1 − p).
    let terms: Vec<(f64, f64)> = logits.iter().map(|&z| (-softplus(-z), softplus(z))).collect();
    let full: Vec<f64> = terms.iter().flat_map(|(a, b)| [1.0, *a, *b]).collect();
    let fit = logistic(&full, 3, y, None)?.coefficients;
    if fit[1] >= 0.0 && fit[2] >= 0.0 {
        return Some(CalibrationMap::Beta { c: fit[0], a: fit[1], b: fit[2] });
    }
    let keep_b = fit[1] < 0.0;
    let x: Vec<f64> = terms.iter().flat_map(|(a, b)| [1.0, if keep_b { *b } else { *a }]).collect();
    let fit = logistic(&x, 2, y, None)?.coefficients;
    // Both count against themselves: no rising map is better than the prevalence alone.
    let (c, factor) = if fit[1] > 0.0 { (fit[0], fit[1]) } else { return None };
    Some(if keep_b { CalibrationMap::Beta { c, a: 0.0, b: factor } } else { CalibrationMap::Beta { c, a: factor, b: 0.0 } })
}

/// Lines between the points of a rising step function, widened about their middle to [`STEEPEST`], and as far from 0 and 1 as n labels
/// can tell: a step at 0 that is wrong once would be infinitely wrong.
fn steps(x: &[f64], y: &[f64], n: usize) -> CalibrationMap {
    let least = 1.0 / (n as f64 + 2.0);
    let y: Vec<f64> = y.iter().map(|y| y.clamp(least, 1.0 - least)).collect();
    let step = |k: usize| {
        let (middle, rise) = (f64::midpoint(x[k - 1], x[k]), y[k] - y[k - 1]);
        let width = (x[k] - x[k - 1]).max(rise / STEEPEST);
        [middle - width / 2.0, width, rise]
    };
    CalibrationMap::Steps { first: y.first().copied().unwrap_or(0.5), steps: (1..x.len()).filter(|&k| y[k] > y[k - 1]).map(step).collect() }
}

/// The rising step function nearest to `targets` by squares (Ayer et al. 1955), as the points where its steps begin and end.
///
/// # Shapes
/// - values, targets: `[n]`
pub fn isotonic(values: &[f64], targets: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let mut order: Vec<usize> = (0..values.len().min(targets.len())).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    // Blocks: sum of targets, number, first and last value.
    let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let x = values[group[0]];
        let mut block = (group.iter().map(|&i| targets[i]).sum::<f64>(), group.len() as f64, x, x);
        while let Some(last) = blocks.last().filter(|last| last.0 / last.1 >= block.0 / block.1) {
            block = (last.0 + block.0, last.1 + block.1, last.2, block.3);
            blocks.pop();
        }
        blocks.push(block);
    }
    let mut points: Vec<(f64, f64)> = blocks.iter().flat_map(|b| [(b.2, b.0 / b.1), (b.3, b.0 / b.1)]).collect();
    points.dedup();
    points.into_iter().unzip()
}
