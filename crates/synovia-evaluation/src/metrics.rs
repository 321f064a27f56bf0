//! All measures of all tasks and variants, with their intervals: what `metrics.json` holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use synovia_cohort::{Split, Task, TaskKind};

use crate::bootstrap::{percentile_interval, resample};
use crate::gain::{self, Gain};
use crate::measure::{MEASURES, Measure, Prepared, Values};
use crate::panel::{Panel, check_patients, panels};
use crate::{EvaluationError, Prediction, Variant};

/// Under this many patients of a class, the note says that intervals are rough.
const FEW_PATIENTS: usize = 10;

/// How to evaluate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationOptions {
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Bootstrap samples; 0 leaves intervals out.
    pub n_bootstrap: usize,
    /// Share of intervals that hold the true value, in (0, 1); 1 − level is the p under which a difference is called one.
    pub level: f64,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self { seed: 0, n_bootstrap: 2000, level: 0.95 }
    }
}

/// A value with its interval. Where it can't be measured it is `None`, and the note says why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// On all examples.
    pub value: Option<f64>,
    /// Lower end of the interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Why something is missing, or should not be leant on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How well one variant predicts one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantMetrics {
    /// Labelled examples that it predicted.
    pub n: usize,
    /// [`Measure::Auroc`].
    pub auroc: Estimate,
    /// [`Measure::Auprc`].
    pub auprc: Estimate,
    /// [`Measure::Brier`].
    pub brier: Estimate,
    /// [`Measure::Ece`]. Resampling adds noise that this measure takes for miscalibration, so its interval is that of the
    /// bootstrap shifted by the bootstrap's bias, and cut at 0.
    pub ece: Estimate,
    /// [`Measure::LogLoss`].
    pub log_loss: Estimate,
    /// [`Measure::Accuracy`]; multiclass only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Estimate>,
}

impl VariantMetrics {
    /// The estimate of a measure, where there is one.
    pub fn get(&self, measure: Measure) -> Option<&Estimate> {
        match measure {
            Measure::Auroc => Some(&self.auroc),
            Measure::Auprc => Some(&self.auprc),
            Measure::Brier => Some(&self.brier),
            Measure::Ece => Some(&self.ece),
            Measure::LogLoss => Some(&self.log_loss),
            Measure::Accuracy => self.accuracy.as_ref(),
        }
    }
}

/// Labelled examples of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// The class; of a binary task the positive one's name, or `not ` and that.
    pub class: String,
    /// Labelled test examples of it.
    pub n: usize,
}

/// All of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskMetrics {
    /// Kind of task.
    pub kind: TaskKind,
    /// Labelled test examples.
    pub n: usize,
    /// Those that are positive; binary only.
    pub n_positive: Option<usize>,
    /// Labelled test examples by class.
    pub classes: Vec<ClassCount>,
    /// Patients that they are of.
    pub n_patients: usize,
    /// Test examples left out since their label is unknown.
    pub n_unlabelled: usize,
    /// Folds that AUROC and average precision are means over; 1 without cross-validation.
    pub n_folds: usize,
    /// By variant.
    pub variants: BTreeMap<Variant, VariantMetrics>,
    /// Joint against the better single modality; `None` when one of them is not there.
    pub gain: Option<Gain>,
    /// What a reader must know to read the numbers right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What `metrics.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// By the task's name.
    pub tasks: BTreeMap<String, TaskMetrics>,
    /// How they were computed.
    pub options: EvaluationOptions,
}

/// Measures `predictions` of the test split.
///
/// Those of the validation split, where given, choose which single modality the joint model is held against; others are
/// not looked at but for the check that no patient is in two splits.
///
/// # Errors
/// When there is nothing to measure, or the predictions contradict themselves or the tasks.
pub fn evaluate(predictions: &[Prediction], tasks: &[Task], options: &EvaluationOptions) -> Result<Metrics, EvaluationError> {
    measure_folds(&[predictions], tasks, options)
}

pub(crate) fn measure_folds(folds: &[&[Prediction]], tasks: &[Task], options: &EvaluationOptions) -> Result<Metrics, EvaluationError> {
    if !(options.level > 0.0 && options.level < 1.0) {
        return Err(EvaluationError::Option { what: format!("level of the intervals is {}: it must be between 0 and 1", options.level) });
    }
    check_patients(folds)?;
    let test = panels(folds, tasks, Split::Test)?;
    let validation = panels(folds, tasks, Split::Validation)?;
    if test.iter().all(|panel| panel.examples.is_empty() && panel.n_unlabelled == 0) {
        return Err(EvaluationError::NoTestPredictions);
    }
    let of_task = |(panel, validation): (&Panel, &Panel)| (panel.task.name.clone(), measure_task(panel, validation, options));
    Ok(Metrics { tasks: test.iter().zip(&validation).map(of_task).collect(), options: options.clone() })
}

fn measure_task(panel: &Panel, validation: &Panel, options: &EvaluationOptions) -> TaskMetrics {
    let kind = panel.task.kind;
    let prepared: BTreeMap<Variant, Prepared> =
        panel.variants.iter().map(|(&variant, scores)| (variant, Prepared::new(panel, scores, |_| true))).collect();
    let samples: Vec<Vec<Values>> = resample(&panel.patients_by_fold, options.n_bootstrap, options.seed, |weights| {
        prepared.values().map(|p| p.values(kind, |i| weights[panel.examples[i].patient])).collect()
    });
    let variants = prepared
        .iter()
        .enumerate()
        .map(|(position, (&variant, prepared))| {
            let values = prepared.values(kind, |_| 1.0);
            let mut estimates = (0..MEASURES.len()).map(|m| {
                let resampled = samples.iter().filter_map(|sample| sample[position][m]).collect();
                estimate(MEASURES[m], values[m], resampled, options)
            });
            let mut next = || estimates.next().unwrap_or_default();
            let (auroc, auprc, brier, ece, log_loss, accuracy) = (next(), next(), next(), next(), next(), next());
            let accuracy = (kind == TaskKind::Multiclass).then_some(accuracy);
            (variant, VariantMetrics { n: prepared.len(), auroc, auprc, brier, ece, log_loss, accuracy })
        })
        .collect();
    let counts = panel.counts();
    let names: Vec<String> = match kind {
        TaskKind::Binary => panel.task.classes.iter().flat_map(|class| [format!("not {class}"), class.clone()]).collect(),
        TaskKind::Multiclass => panel.task.classes.clone(),
    };
    TaskMetrics {
        kind,
        n: panel.examples.len(),
        n_positive: (kind == TaskKind::Binary).then(|| counts[1]),
        classes: names.into_iter().zip(&counts).map(|(class, &n)| ClassCount { class, n }).collect(),
        n_patients: panel.n_patients(),
        n_unlabelled: panel.n_unlabelled,
        n_folds: panel.n_folds(),
        variants,
        gain: gain::of_joint(panel, validation, options),
        notes: notes(panel, &prepared),
    }
}

fn estimate(measure: Measure, value: Option<f64>, mut resampled: Vec<f64>, options: &EvaluationOptions) -> Estimate {
    let Some(value) = value else {
        let note = match measure {
            Measure::Auroc | Measure::Auprc => "needs examples with and without the class",
            _ => "no labelled example",
        };
        return Estimate { note: Some(note.to_owned()), ..Estimate::default() };
    };
    let mut note = None;
    if resampled.len() * 2 < options.n_bootstrap || resampled.is_empty() {
        let note = if options.n_bootstrap == 0 { "no bootstrap asked for" } else { "too few patients of a class for an interval" };
        return Estimate { value: Some(value), low: None, high: None, note: Some(note.to_owned()) };
    } else if resampled.len() < options.n_bootstrap {
        note = Some(format!(
            "{} of {} bootstrap samples lost a class and are left out",
            options.n_bootstrap - resampled.len(),
            options.n_bootstrap
        ));
    }
    let mean = resampled.iter().sum::<f64>() / resampled.len() as f64;
    let mut interval = percentile_interval(&mut resampled, options.level);
    if measure == Measure::Ece {
        let bias = mean - value;
        interval = interval.map(|(low, high)| ((low - bias).clamp(0.0, value), (high - bias).clamp(value, 1.0)));
    }
    if matches!(measure, Measure::Auroc) && (value == 0.0 || value == 1.0) {
        note = Some("every pair is ranked alike: the bootstrap can't show how unsure this is".to_owned());
    }
    Estimate { value: Some(value), low: interval.map(|i| i.0), high: interval.map(|i| i.1), note }
}

fn notes(panel: &Panel, prepared: &BTreeMap<Variant, Prepared>) -> Vec<String> {
    let mut notes = Vec::new();
    if panel.examples.is_empty() {
        notes.push("no labelled test example".to_owned());
        return notes;
    }
    let mut patients: Vec<Vec<usize>> = vec![Vec::new(); panel.counts().len()];
    for example in &panel.examples {
        patients[example.label].push(example.patient);
    }
    for (label, mut of_label) in patients.into_iter().enumerate() {
        of_label.sort_unstable();
        of_label.dedup();
        if of_label.len() < FEW_PATIENTS {
            let class = match (panel.task.kind, label) {
                (TaskKind::Binary, 0) => format!("without `{}`", panel.task.classes[0]),
                (TaskKind::Binary, _) => format!("with `{}`", panel.task.classes[0]),
                (TaskKind::Multiclass, k) => format!("of class `{}`", panel.task.classes[k]),
            };
            notes.push(format!("only {} patients {class}: intervals are rough", of_label.len()));
        }
    }
    if panel.n_folds() > 1 {
        notes.push(format!("AUROC and AUPRC are means over {} folds; the other measures are over all examples", panel.n_folds()));
    }
    let undefined = prepared.values().map(|p| p.n_undefined).max().unwrap_or_default();
    if undefined > 0 && (panel.n_folds() > 1 || panel.task.kind == TaskKind::Multiclass) {
        notes.push(format!(
            "{undefined} of the folds and classes lack examples with or without the class and are left out of AUROC and AUPRC"
        ));
    }
    if let (Some(fewest), Some(most)) = (prepared.values().map(Prepared::len).min(), prepared.values().map(Prepared::len).max())
        && fewest != most
    {
        notes.push("variants were predicted for different examples: compare their numbers with care".to_owned());
    }
    notes
}
