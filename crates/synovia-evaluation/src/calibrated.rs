//! Probabilities that mean what they say: by temperature, or in another way that a pipeline asks for.

use serde::{Deserialize, Serialize};
use synovia_cohort::{Task, TaskKind};

use crate::EvaluationError;
use crate::calibrator::{CalibrationMap, Calibrator, fit_calibrator};
use crate::panel::n_labels;

/// Under this many labels, or this few of any class of a binary task, the fitted number would be mostly noise.
const FEWEST_LABELS: usize = 30;
const FEWEST_OF_A_CLASS: usize = 5;
/// 1 / T is sought between these.
const SLOPES: (f64, f64) = (0.05, 20.0);

/// How the probabilities of one task are made to mean what they say, fitted on the validation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// What becomes of logits.
    pub map: CalibrationMap,
    /// Labels that it was fitted on.
    pub n: usize,
    /// Mean negative log likelihood of the model's own probabilities, in nats; `None` without labels.
    pub log_loss_before: Option<f64>,
    /// The same afterwards, on the same labels.
    pub log_loss_after: Option<f64>,
    /// Why it is another way than was asked for, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Fits T on the logits and labels of the validation split by maximum likelihood (Guo et al., ICML 2017; of a binary task, Platt's
/// scaling without its intercept). The likelihood is concave in 1 / T, so its derivative is bisected: there is one answer and
/// no step size. T = 1, with a note, where labels are too few; also says whether they are.
fn fit_temperature(logits: &[f32], labels: &[Option<f32>], task: &Task) -> Result<(Calibration, bool), EvaluationError> {
    let k = task.n_logits();
    if logits.len() != labels.len() * k {
        return Err(EvaluationError::Shape { what: "logits", len: logits.len(), expected: labels.len() * k });
    }
    if let Some(position) = logits.iter().position(|z| !z.is_finite()) {
        return Err(EvaluationError::NotFinite { what: "logits", position });
    }
    let mut counts = vec![0; n_labels(task)];
    let mut rows = Vec::new();
    for (row, label) in logits.chunks_exact(k).zip(labels) {
        let Some(label) = *label else { continue };
        if label.fract() != 0.0 || !(0.0..counts.len() as f32).contains(&label) {
            return Err(EvaluationError::Option { what: format!("task `{}`: a label is {label}, which is no class", task.name) });
        }
        counts[label as usize] += 1;
        rows.push((row, label as usize));
    }
    let n = rows.len();
    let loss = |slope: f64| (n > 0).then(|| rows.iter().map(|(row, label)| terms(row, *label, slope).0).sum::<f64>() / n as f64);
    let fitted = |slope: f64, note: Option<&str>| Calibration {
        map: CalibrationMap::Temperature { value: (1.0 / slope) as f32 },
        n,
        log_loss_before: loss(1.0),
        log_loss_after: loss(slope),
        note: note.map(str::to_owned),
    };
    if n < FEWEST_LABELS {
        return Ok((fitted(1.0, Some("too few labels to calibrate on: probabilities are the model's own")), true));
    }
    if counts.iter().filter(|&&count| count >= FEWEST_OF_A_CLASS).count() < 2 {
        let note = "too few labels of all classes but one to calibrate on: probabilities are the model's own";
        return Ok((fitted(1.0, Some(note)), true));
    }
    let derivative = |slope: f64| rows.iter().map(|(row, label)| terms(row, *label, slope).1).sum::<f64>();
    let (mut low, mut high) = SLOPES;
    if derivative(low) >= 0.0 {
        return Ok((fitted(low, Some("logits say nothing of the label: T is at the end of its range")), false));
    }
    if derivative(high) <= 0.0 {
        return Ok((fitted(high, Some("logits separate the labels: T is at the end of its range")), false));
    }
    for _ in 0..80 {
        let middle = (low * high).sqrt();
        if derivative(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok((fitted((low * high).sqrt(), None), false))
}

/// An example's negative log likelihood at 1 / T = `slope`, and its derivative.
fn terms(logits: &[f32], label: usize, slope: f64) -> (f64, f64) {
    if let [z] = *logits {
        // As softmax over [0, z]: −ln σ(±slope · z).
        let z = if label == 1 { f64::from(z) } else { -f64::from(z) };
        let x = slope * z;
        let loss = (-x).max(0.0) + (-x.abs()).exp().ln_1p();
        return (loss, -z / (1.0 + x.exp()));
    }
    let top = logits.iter().fold(f64::NEG_INFINITY, |top, &z| top.max(f64::from(z)));
    let (mut sum, mut weighted) = (0.0, 0.0);
    for &z in logits {
        let w = (slope * (f64::from(z) - top)).exp();
        sum += w;
        weighted += w * f64::from(z);
    }
    let own = f64::from(logits[label]);
    (sum.ln() + slope * (top - own), weighted / sum - own)
}

/// Fits a way to calibrate on the logits and labels of the validation split. What has no fit (too few labels, several classes, an order
/// that would be turned around) is left to the temperature, with a note.
///
/// # Shapes
/// - logits: `[n, task.n_logits()]`
/// - labels: `[n]`, as [`synovia_cohort::ExampleRow::labels`]
///
/// # Errors
/// When shapes do not fit, a logit is not finite, or a label is no class.
pub fn fit_calibration(which: Calibrator, logits: &[f32], labels: &[Option<f32>], task: &Task) -> Result<Calibration, EvaluationError> {
    let (by_temperature, is_too_few) = fit_temperature(logits, labels, task)?;
    if which == Calibrator::Temperature || is_too_few {
        return Ok(by_temperature);
    }
    if task.kind != TaskKind::Binary {
        return Ok(Calibration { note: Some(format!("{which} is of two classes: by temperature instead")), ..by_temperature });
    }
    let known = logits.iter().zip(labels).filter_map(|(&z, label)| Some((f64::from(z), (*label)? == 1.0)));
    let (z, happened): (Vec<f64>, Vec<bool>) = known.unzip();
    let Ok(map) = fit_calibrator(which, &z, &happened) else {
        return Ok(Calibration { note: Some(format!("{which} has no fit on these labels: by temperature instead")), ..by_temperature });
    };
    let loss = |(&z, &happened): (&f64, &bool)| -> f64 {
        let p = map.of_logit(z);
        -(if happened { p } else { 1.0 - p }).max(f64::MIN_POSITIVE).ln()
    };
    let after = z.iter().zip(&happened).map(loss).sum::<f64>() / z.len() as f64;
    let note = (which == Calibrator::Isotonic).then(|| {
        "steps follow the labels on which thresholds and prediction sets are fitted too: those may be a little too sure of themselves"
            .to_owned()
    });
    Ok(Calibration { map, log_loss_after: Some(after), note, ..by_temperature })
}

/// Calibrated probabilities of logits: one of a binary task, the softmax of a multiclass one's.
///
/// # Shapes
/// - logits, result: `[n, task.n_logits()]`
pub fn probabilities(logits: &[f32], map: &CalibrationMap, task: &Task) -> Vec<f32> {
    let temperature = match map {
        CalibrationMap::Temperature { value } => *value,
        _ if task.kind == TaskKind::Binary => return logits.iter().map(|&z| map.of_logit(f64::from(z)) as f32).collect(),
        // Of several classes there is no other.
        _ => 1.0,
    };
    match task.kind {
        TaskKind::Binary => logits.iter().map(|z| 1.0 / (1.0 + (-z / temperature).exp())).collect(),
        TaskKind::Multiclass | TaskKind::Ordinal => {
            let mut out: Vec<f32> = logits.iter().map(|z| z / temperature).collect();
            for row in out.chunks_exact_mut(task.n_logits().max(1)) {
                let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                for z in row.iter_mut() {
                    *z = (*z - top).exp();
                }
                let sum: f32 = row.iter().sum();
                for p in row.iter_mut() {
                    *p /= sum;
                }
            }
            out
        }
    }
}
