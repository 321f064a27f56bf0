//! Ways to make a binary probability mean what it says, by name, fitted on validation, and each plain enough to be a few nodes
//! of an exported graph.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::EvaluationError;
use crate::murphy::log_odds;
use crate::newton::{logistic, sigmoid};

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
    /// Lines between points, level outside: see [`CalibrationMap::hinges`].
    PiecewiseLinear {
        /// Probabilities, rising.
        x: Vec<f64>,
        /// What becomes of them, not falling.
        y: Vec<f64>,
    },
}

/// A piecewise-linear map as first value + Σ rise · clip((p − start) / width, 0, 1): a Sub, a Mul, a Clip, a `MatMul` with the rises,
/// and an Add. Each term lies between 0 and its rise, so that single precision is enough however steep a step is.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// Value at and under the first start.
    pub first: f64,
    /// Where steps begin.
    pub starts: Vec<f64>,
    /// How wide they are, above 0.
    pub widths: Vec<f64>,
    /// How high.
    pub rises: Vec<f64>,
}

impl CalibrationMap {
    /// The calibrated probability of a probability.
    pub fn apply(&self, p: f64) -> f64 {
        match self {
            Self::PiecewiseLinear { x, y } => interpolate(x, y, p),
            _ => self.of_logit(log_odds(p)),
        }
    }

    /// The calibrated probability of a logit.
    pub fn of_logit(&self, z: f64) -> f64 {
        match self {
            Self::Temperature { value } => sigmoid(z / f64::from(*value)),
            Self::LogitLine { slope, intercept } => sigmoid(slope * z + intercept),
            Self::Beta { a, b, c } => sigmoid(b * softplus(z) - a * softplus(-z) + c),
            Self::PiecewiseLinear { x, y } => interpolate(x, y, sigmoid(z)),
        }
    }

    /// A piecewise-linear map by its steps; `None` of the others.
    pub fn steps(&self) -> Option<Steps> {
        let Self::PiecewiseLinear { x, y } = self else { return None };
        let mut steps = Steps { first: *y.first()?, starts: Vec::new(), widths: Vec::new(), rises: Vec::new() };
        for k in (1..x.len()).filter(|&k| x[k] > x[k - 1] && y[k] > y[k - 1]) {
            steps.starts.push(x[k - 1]);
            steps.widths.push(x[k] - x[k - 1]);
            steps.rises.push(y[k] - y[k - 1]);
        }
        Some(steps)
    }
}

impl Steps {
    /// The value at `p`.
    pub fn apply(&self, p: f64) -> f64 {
        let step = |k: usize| self.rises[k] * ((p - self.starts[k]) / self.widths[k]).clamp(0.0, 1.0);
        self.first + (0..self.starts.len()).map(step).sum::<f64>()
    }
}

fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

fn bounded(p: f64) -> f64 {
    const SMALLEST: f64 = f32::EPSILON as f64;
    p.clamp(SMALLEST, 1.0 - SMALLEST)
}

fn interpolate(x: &[f64], y: &[f64], p: f64) -> f64 {
    match x.partition_point(|knot| *knot <= p) {
        0 => y.first().copied().unwrap_or(p),
        k if k == x.len() => y[k - 1],
        k => y[k - 1] + (p - x[k - 1]) / (x[k] - x[k - 1]) * (y[k] - y[k - 1]),
    }
}

/// Fits a calibrator on probabilities and labels of the validation split, by maximum likelihood (isotonic: least squares).
///
/// # Shapes
/// - probabilities, happened: `[n]`
///
/// # Errors
/// When shapes do not fit, a probability is none, or the sample has no fit: one class only, (temperature, beta) classes that
/// probabilities separate, or (all but isotonic) probabilities that fall where the event is more frequent.
pub fn fit_calibrator(which: Calibrator, probabilities: &[f64], happened: &[bool]) -> Result<CalibrationMap, EvaluationError> {
    if happened.len() != probabilities.len() {
        return Err(EvaluationError::Shape { what: "labels", len: happened.len(), expected: probabilities.len() });
    }
    if let Some(position) = probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
        return Err(EvaluationError::NotFinite { what: "probabilities", position });
    }
    let n_positive = happened.iter().filter(|&&y| y).count();
    let none = || EvaluationError::Option {
        what: format!("{which} calibration has no fit on {n_positive} positive labels of {}", happened.len()),
    };
    if n_positive == 0 || n_positive == happened.len() {
        return Err(none());
    }
    let z: Vec<f64> = probabilities.iter().map(|&p| log_odds(p)).collect();
    let y: Vec<f64> = happened.iter().map(|&y| f64::from(u8::from(y))).collect();
    match which {
        Calibrator::Temperature => {
            let fit = logistic(&z, 1, &y, None).filter(|fit| fit.coefficients[0] > 0.0).ok_or_else(none)?;
            Ok(CalibrationMap::Temperature { value: (1.0 / fit.coefficients[0]) as f32 })
        }
        Calibrator::Platt => {
            let (m, n) = (n_positive as f64, (happened.len() - n_positive) as f64);
            let targets: Vec<f64> = happened.iter().map(|&y| if y { (m + 1.0) / (m + 2.0) } else { 1.0 / (n + 2.0) }).collect();
            let x: Vec<f64> = z.iter().flat_map(|&z| [1.0, z]).collect();
            let fit = logistic(&x, 2, &targets, None).filter(|fit| fit.coefficients[1] > 0.0).ok_or_else(none)?;
            Ok(CalibrationMap::LogitLine { slope: fit.coefficients[1], intercept: fit.coefficients[0] })
        }
        Calibrator::Beta => beta(probabilities, &y).ok_or_else(none),
        Calibrator::Isotonic => {
            let (x, y) = isotonic(probabilities, &y);
            Ok(CalibrationMap::PiecewiseLinear { x, y })
        }
    }
}

/// The three-parameter fit; a factor under 0 would turn the order around, and is left out as Kull et al. have it.
fn beta(probabilities: &[f64], y: &[f64]) -> Option<CalibrationMap> {
    let terms: Vec<(f64, f64)> = probabilities.iter().map(|&p| bounded(p)).map(|p| (p.ln(), -(-p).ln_1p())).collect();
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
