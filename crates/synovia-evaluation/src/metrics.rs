//! All measures of all tasks and variants, with their intervals: what `metrics.json` holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use synovia_cohort::{Task, TaskKind, Test, Validation};

use crate::bootstrap::{bca_interval, jackknife, percentile_interval, resample};
use crate::comparison::logit_interval;
use crate::conformal::{self, Conformal};
use crate::decision::{self, DecisionCurve};
use crate::gain::{self, Gain};
use crate::head_to_head::{Comparison, branches, comparisons};
use crate::measure::{MEASURES, Measure, Prepared, Rate, Values, rate_position};
use crate::murphy::{BrierParts, CalibrationLine, brier_parts, calibration_line};
use crate::panel::{Panel, Scores, check_patients, panels};
use crate::proportion::wilson_interval;
use crate::subgroup::Subgroup;
use crate::threshold::{ThresholdRule, thresholds};
use crate::{
    Average, ClassConfusion, Confusion, EndpointMetrics, EvaluationError, Membership, Prediction, Variant, averages, delong, membership,
};

/// Under this many patients of a class, the note says that intervals are rough.
const FEW_PATIENTS: usize = 10;

/// Most classes of which every pair is looked at: time and numbers grow with the square.
const MOST_PAIRED: usize = 32;

/// How to evaluate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationOptions {
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Bootstrap samples; 0 leaves intervals out.
    pub n_bootstrap: usize,
    /// Share of intervals that hold the true value, in (0, 1); 1 − level is the p under which a gap between subgroups is called one.
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
    /// [`Measure::PartialAuroc`], [`Measure::EceEqualMass`], and of a multiclass task the measures of its likeliest class.
    #[serde(default)]
    pub more: BTreeMap<Measure, Estimate>,
    /// DeLong's interval of AUROC, clustered by patient, on the scale of log odds: a check on the bootstrap's.
    #[serde(default)]
    pub auroc_delong: Option<(f64, f64)>,
    /// Of what the calibration error is of.
    #[serde(default)]
    pub brier_parts: Option<BrierParts>,
    /// Calibration slope and intercept of the same; `None` where they can't be fitted.
    #[serde(default)]
    pub calibration: Option<CalibrationLine>,
    /// Decisions at thresholds chosen on the validation split; binary only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operating: Vec<OperatingPoint>,
    /// Other averages over classes; multiclass without cross-validation, and of 32 classes at most, only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averages: Option<ClassAverages>,
}

/// A threshold and what its decisions are worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// How it was chosen.
    pub rule: ThresholdRule,
    /// Thresholds, a fold each.
    pub thresholds: Vec<f64>,
    /// Test examples by decision.
    pub confusion: Confusion,
    /// By rate.
    pub rates: BTreeMap<Rate, Estimate>,
}

/// AUROC of several classes as other ways of averaging have it, and decisions by the likeliest class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassAverages {
    /// Each class against the rest, by how often it occurs.
    pub one_against_rest_weighted: Option<f64>,
    /// Each pair of classes (Hand & Till 2001).
    pub one_against_one_macro: Option<f64>,
    /// Each pair of classes, by how often they occur.
    pub one_against_one_weighted: Option<f64>,
    /// Cohen's κ where a miss counts with the square of its distance: of ordered classes.
    pub quadratic_kappa: Option<f64>,
    /// Test examples by true and likeliest class.
    pub confusion: ClassConfusion,
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
            other => self.more.get(&other),
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
    /// Joint against the best baseline; `None` when one of them is not there.
    #[serde(default)]
    pub over_baselines: Option<Gain>,
    /// Joint against each other variant, corrected for their number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Comparison>,
    /// The joint model shown one modality alone against the model that was trained on it alone.
    #[serde(default)]
    pub branches: Vec<Comparison>,
    /// Prediction sets and how often they hold the truth; `None` without a validation split.
    #[serde(default)]
    pub conformal: Option<Conformal>,
    /// Decision curves by variant; binary only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub decision: BTreeMap<Variant, DecisionCurve>,
    /// Parts of the test split; empty until [`crate::add_subgroups`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subgroups: Vec<Subgroup>,
    /// What a reader must know to read the numbers right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What `metrics.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// By the task's name.
    pub tasks: BTreeMap<String, TaskMetrics>,
    /// By the endpoint's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, EndpointMetrics>,
    /// What each model gives away about who it was trained on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub membership: Vec<Membership>,
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
    let test = panels::<Test>(folds, tasks)?;
    let validation = panels::<Validation>(folds, tasks)?;
    if !tasks.is_empty() && test.iter().all(|panel| panel.examples.is_empty() && panel.n_unlabelled == 0) {
        return Err(EvaluationError::NoTestPredictions);
    }
    let of_task =
        |(panel, validation): (&Panel<Test>, &Panel<Validation>)| (panel.task.name.clone(), measure_task(panel, validation, options));
    // Of several folds each example is a member of some models and not of others: each fold has its own.
    let membership = if let [predictions] = folds { membership(predictions, tasks, options.level) } else { Vec::new() };
    let tasks = test.iter().zip(&validation).map(of_task).collect();
    Ok(Metrics { tasks, endpoints: BTreeMap::new(), membership, options: options.clone() })
}

fn measure_task(panel: &Panel<Test>, validation: &Panel<Validation>, options: &EvaluationOptions) -> TaskMetrics {
    let kind = panel.task.kind;
    let chosen = |variant: Variant| match validation.variants.get(&variant) {
        Some(scores) if kind == TaskKind::Binary => thresholds(validation, scores),
        _ => Vec::new(),
    };
    let prepared: BTreeMap<Variant, Prepared> =
        panel.variants.iter().map(|(&variant, scores)| (variant, Prepared::new(panel, scores, chosen(variant), |_| true))).collect();
    let measure = |weights: &[u16]| -> Vec<Values> { prepared.values().map(|p| p.values(weights)).collect() };
    let samples = resample(&panel.patients_by_fold, options.n_bootstrap, options.seed, measure);
    let left_out = if options.n_bootstrap == 0 { Vec::new() } else { jackknife(&panel.patients_by_fold, measure) };
    let variants = prepared
        .iter()
        .enumerate()
        .map(|(position, (&variant, prepared))| {
            let resampled = Resampled { position, samples: &samples, left_out: &left_out, values: prepared.values(&prepared.once()) };
            (variant, measure_variant(panel, &panel.variants[&variant], prepared, &resampled, options))
        })
        .collect();
    let counts = panel.counts();
    TaskMetrics {
        kind,
        n: panel.examples.len(),
        n_positive: (kind == TaskKind::Binary).then(|| counts[1]),
        classes: conformal::label_names(panel.task).into_iter().zip(&counts).map(|(class, &n)| ClassCount { class, n }).collect(),
        n_patients: panel.n_patients(),
        n_unlabelled: panel.n_unlabelled,
        n_folds: panel.n_folds(),
        variants,
        gain: gain::of_joint(panel, validation, options),
        over_baselines: gain::over_baselines(panel, validation, options),
        comparisons: comparisons(panel, &prepared, options),
        branches: branches(panel, &prepared, options),
        conformal: conformal::measure(panel, validation, options.level),
        decision: decision::curves(panel, options),
        subgroups: Vec::new(),
        notes: notes(panel, &prepared),
    }
}

/// One variant's values: on all examples, in each bootstrap sample, and with each part left out.
struct Resampled<'a> {
    position: usize,
    samples: &'a [Vec<Values>],
    left_out: &'a [Vec<Values>],
    values: Values,
}

impl Resampled<'_> {
    fn estimate(&self, at: usize, what: Option<Measure>, options: &EvaluationOptions) -> Estimate {
        let of = |all: &[Vec<Values>]| -> Vec<f64> { all.iter().filter_map(|sample| sample[self.position][at]).collect() };
        estimate(what, self.values[at], of(self.samples), &of(self.left_out), options)
    }
}

fn measure_variant(
    panel: &Panel<Test>,
    scores: &Scores,
    prepared: &Prepared,
    resampled: &Resampled<'_>,
    options: &EvaluationOptions,
) -> VariantMetrics {
    let multiclass = panel.task.kind != TaskKind::Binary;
    let of = |measure: Measure| {
        let at = MEASURES.iter().position(|m| *m == measure).unwrap_or_default();
        resampled.estimate(at, Some(measure), options)
    };
    let mut more = vec![Measure::PartialAuroc, Measure::EceEqualMass];
    if multiclass {
        more.extend([Measure::BalancedAccuracy, Measure::MacroF1, Measure::Matthews, Measure::Kappa]);
    }
    if panel.task.kind == TaskKind::Ordinal {
        more.push(Measure::QuadraticKappa);
    }
    let k = panel.n_outputs();
    let shown: Vec<usize> = (0..panel.examples.len()).filter(|&i| scores.present[i]).collect();
    let event = |&i: &usize| crate::calibration::Loss::new(&scores.probability[i * k..(i + 1) * k], panel.examples[i].label).event;
    let (probabilities, happened): (Vec<f64>, Vec<bool>) = shown.iter().map(event).unzip();
    let patients: Vec<usize> = shown.iter().map(|&i| panel.examples[i].patient).collect();
    let value = resampled.values[0];
    let error = delong::variance(panel, prepared, None).map(|v| v.max(0.0).sqrt());
    VariantMetrics {
        n: prepared.len(),
        auroc: of(Measure::Auroc),
        auprc: of(Measure::Auprc),
        brier: of(Measure::Brier),
        ece: of(Measure::Ece),
        log_loss: of(Measure::LogLoss),
        accuracy: multiclass.then(|| of(Measure::Accuracy)),
        more: more.into_iter().map(|measure| (measure, of(measure))).collect(),
        auroc_delong: value.zip(error).and_then(|(value, error)| logit_interval(value, error, options.level)),
        brier_parts: brier_parts(&probabilities, &happened),
        calibration: calibration_line(&probabilities, &happened, Some(&patients), options.level),
        operating: operating(prepared, resampled, options),
        averages: (multiclass && panel.n_folds() == 1 && k <= MOST_PAIRED).then(|| class_averages(panel, scores, prepared, &shown)),
    }
}

fn operating(prepared: &Prepared, resampled: &Resampled<'_>, options: &EvaluationOptions) -> Vec<OperatingPoint> {
    let cells = prepared.decisions.cells(&prepared.once());
    let point = |(k, rule): (usize, ThresholdRule)| {
        let confusion = prepared.decisions.confusion(&cells, k)?;
        let rate = |(r, rate): (usize, Rate)| {
            let mut estimate = resampled.estimate(rate_position(k, r), None, options);
            // Where all are decided alike the bootstrap draws the same again and again, as if that were certain.
            if let (Some(value), Some(whole)) = (estimate.value, rate.whole())
                && (value == 0.0 || value == 1.0)
            {
                let n = prepared.decisions.n_patients(k, whole);
                if let Some((low, high)) = wilson_interval(if value == 1.0 { n } else { 0 }, n, options.level) {
                    (estimate.low, estimate.high) = (Some(low), Some(high));
                    estimate.note = Some("Wilson’s interval by patients, for the bootstrap has nothing to vary".to_owned());
                }
            }
            (rate, estimate)
        };
        let thresholds = prepared.decisions.thresholds[k].iter().copied().collect::<Option<Vec<f64>>>()?;
        Some(OperatingPoint { rule, thresholds, confusion, rates: Rate::ALL.into_iter().enumerate().map(rate).collect() })
    };
    ThresholdRule::REPORTED.into_iter().enumerate().filter_map(point).collect()
}

fn class_averages(panel: &Panel<Test>, scores: &Scores, prepared: &Prepared, shown: &[usize]) -> ClassAverages {
    let k = panel.n_outputs();
    let probabilities: Vec<f64> = shown.iter().flat_map(|&i| scores.probability[i * k..(i + 1) * k].iter().copied()).collect();
    let labels: Vec<usize> = shown.iter().map(|&i| panel.examples[i].label).collect();
    let confusion = prepared.decisions.classes();
    ClassAverages {
        one_against_rest_weighted: averages::auroc_one_against_rest(&probabilities, &labels, k, Average::Weighted),
        one_against_one_macro: averages::auroc_one_against_one(&probabilities, &labels, k, Average::Macro),
        one_against_one_weighted: averages::auroc_one_against_one(&probabilities, &labels, k, Average::Weighted),
        quadratic_kappa: confusion.quadratic_kappa(),
        confusion,
    }
}

fn estimate(
    measure: Option<Measure>,
    value: Option<f64>,
    mut resampled: Vec<f64>,
    left_out: &[f64],
    options: &EvaluationOptions,
) -> Estimate {
    let Some(value) = value else {
        let note = match measure {
            Some(Measure::Auroc | Measure::Auprc | Measure::PartialAuroc) => "needs examples with and without the class",
            Some(Measure::BalancedAccuracy | Measure::MacroF1 | Measure::Matthews | Measure::Kappa | Measure::QuadraticKappa) => {
                "not defined: all are called alike"
            }
            Some(_) => "no labelled example",
            None => "no decision of this kind",
        };
        return Estimate { note: Some(note.to_owned()), ..Estimate::default() };
    };
    let mut note = None;
    if resampled.len() * 2 < options.n_bootstrap || resampled.is_empty() {
        let note = if options.n_bootstrap == 0 {
            "no bootstrap asked for"
        } else if measure.is_some() {
            "too few patients of a class for an interval"
        } else {
            "too few decisions of this kind for an interval"
        };
        return Estimate { value: Some(value), low: None, high: None, note: Some(note.to_owned()) };
    } else if resampled.len() < options.n_bootstrap {
        note = Some(format!(
            "{} of {} bootstrap samples lost {} and are left out",
            options.n_bootstrap - resampled.len(),
            options.n_bootstrap,
            if measure.is_some() { "a class" } else { "all decisions of this kind" }
        ));
    }
    let interval = if matches!(measure, Some(Measure::Ece | Measure::EceEqualMass)) {
        // Every sample lies above the value: there is no quantile of the value for BCa to start from.
        let bias = resampled.iter().sum::<f64>() / resampled.len() as f64 - value;
        percentile_interval(&mut resampled, options.level)
            .map(|(low, high)| ((low - bias).clamp(0.0, value), (high - bias).clamp(value, 1.0)))
    } else {
        bca_interval(value, &mut resampled, left_out, options.level)
    };
    if interval.is_some_and(|(low, high)| low == high) {
        note = Some("the same in every bootstrap sample, which can't show how unsure this is".to_owned());
    }
    Estimate { value: Some(value), low: interval.map(|i| i.0), high: interval.map(|i| i.1), note }
}

fn notes(panel: &Panel<Test>, prepared: &BTreeMap<Variant, Prepared>) -> Vec<String> {
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
                (TaskKind::Multiclass | TaskKind::Ordinal, k) => format!("of class `{}`", panel.task.classes[k]),
            };
            notes.push(format!("only {} patients {class}: intervals are rough", of_label.len()));
        }
    }
    if panel.n_folds() > 1 {
        notes.push(format!("AUROC and AUPRC are means over {} folds; the other measures are over all examples", panel.n_folds()));
    }
    let undefined = prepared.values().map(|p| p.n_undefined).max().unwrap_or_default();
    if undefined > 0 && (panel.n_folds() > 1 || panel.task.kind != TaskKind::Binary) {
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
