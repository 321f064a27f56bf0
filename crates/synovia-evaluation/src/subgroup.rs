//! Whether a model serves all: discrimination, calibration and coverage of parts of the test split.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use synovia_cohort::{ExampleId, Task, Test};

use crate::comparison::{holm, logit_interval};
use crate::conformal::ConformalSets;
use crate::measure::Prepared;
use crate::metrics::{EvaluationOptions, Metrics};
use crate::normal::{two_sided_p, two_sided_z};
use crate::panel::{Panel, Scores, panels};
use crate::proportion::wilson_interval;
use crate::{Estimate, EvaluationError, Prediction, Variant, delong};

/// Fewest patients with, and without, a class that an AUROC of a group is of.
const FEWEST: usize = 10;

/// A column that divides examples: `sex`, `age`; who has no value is in no group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attribute {
    /// What it is.
    pub name: String,
    /// The group of each example.
    pub groups: HashMap<ExampleId, String>,
}

/// One group of one column, by the joint model or, without one, the only model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subgroup {
    /// The column.
    pub column: String,
    /// The group.
    pub group: String,
    /// Whose predictions.
    pub variant: Variant,
    /// Labelled test examples.
    pub n: usize,
    /// Patients they are of.
    pub n_patients: usize,
    /// Area under the ROC curve with DeLong's interval clustered by patient.
    pub auroc: Estimate,
    /// Mean predicted probability − observed share (of a multiclass task: of the likeliest class and of being right), with an
    /// interval by patients. Over 0, the model claims too much.
    pub calibration: Estimate,
    /// Share of prediction sets that hold the truth, with Wilson's interval by patients.
    pub coverage: Estimate,
    /// AUROC in the group − AUROC in the others of the column.
    pub gap: Estimate,
    /// Two-sided p of no gap.
    pub p: Option<f64>,
    /// The same, corrected by Holm for all groups of the task.
    pub p_holm: Option<f64>,
    /// Why something is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub too_small: Option<String>,
}

/// Measures the groups of `attributes` on the test split and adds them to `metrics`, which is of the same predictions.
///
/// # Errors
/// As [`crate::evaluate`].
pub fn add_subgroups(
    metrics: &mut Metrics,
    folds: &[&[Prediction]],
    tasks: &[Task],
    attributes: &[Attribute],
) -> Result<(), EvaluationError> {
    let test = panels::<Test>(folds, tasks)?;
    let options = metrics.options.clone();
    for panel in &test {
        if let Some(of_task) = metrics.tasks.get_mut(&panel.task.name) {
            let sets = of_task.conformal.as_ref().map_or(&[][..], |conformal| &conformal.sets);
            of_task.subgroups = measure(panel, sets, attributes, &options);
        }
    }
    Ok(())
}

fn measure(panel: &Panel<Test>, sets: &[ConformalSets], attributes: &[Attribute], options: &EvaluationOptions) -> Vec<Subgroup> {
    let Some(variant) = [Variant::Joint, Variant::Image, Variant::Record].into_iter().find(|v| panel.variants.contains_key(v)) else {
        return Vec::new();
    };
    let mut out: Vec<Subgroup> = Vec::new();
    for attribute in attributes {
        let group_of: Vec<Option<&str>> = panel.ids.iter().map(|id| attribute.groups.get(id).map(String::as_str)).collect();
        let mut names: Vec<&str> = group_of.iter().copied().flatten().collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > 1 {
            out.extend(names.into_iter().map(|group| of_group(panel, sets, variant, &attribute.name, group, &group_of, options)));
        }
    }
    // The gaps of the two groups of a column are one, and count once.
    let second = |k: usize| k > 0 && out[k - 1].column == out[k].column && out.iter().filter(|g| g.column == out[k].column).count() == 2;
    let tested: Vec<Option<f64>> = (0..out.len()).map(|k| out[k].p.filter(|_| !second(k))).collect();
    let mut corrected = holm(&tested);
    for k in (0..out.len()).filter(|&k| second(k)) {
        corrected[k] = corrected[k - 1];
    }
    out.iter_mut().zip(corrected).for_each(|(group, p)| group.p_holm = p);
    out
}

fn of_group(
    panel: &Panel<Test>,
    sets: &[ConformalSets],
    variant: Variant,
    column: &str,
    group: &str,
    group_of: &[Option<&str>],
    options: &EvaluationOptions,
) -> Subgroup {
    let scores = &panel.variants[&variant];
    let inside: Vec<usize> = (0..panel.examples.len()).filter(|&i| scores.present[i] && group_of[i] == Some(group)).collect();
    let others: Vec<usize> = (0..panel.examples.len()).filter(|&i| scores.present[i] && group_of[i].is_some_and(|g| g != group)).collect();
    let (own, rest) = (area(panel, scores, &inside), area(panel, scores, &others));
    let z = two_sided_z(options.level);
    let (mut gap, mut p) = (Estimate::default(), None);
    // A patient with examples on both sides makes the two vary together.
    if let (Ok((a, va, own_ranked)), Ok((b, vb, rest_ranked))) = (&own, &rest) {
        let both = delong::covariance(panel, own_ranked, rest_ranked);
        let (difference, error) = (a - b, (va + vb - 2.0 * both).max(0.0).sqrt());
        gap = Estimate {
            value: Some(difference),
            low: Some((difference - z * error).max(-1.0)),
            high: Some((difference + z * error).min(1.0)),
            note: None,
        };
        p = (error > 0.0).then(|| two_sided_p(difference / error));
    }
    let auroc = match &own {
        Ok((value, variance, _)) => {
            let interval = logit_interval(*value, variance.sqrt(), options.level);
            Estimate { value: Some(*value), low: interval.map(|i| i.0), high: interval.map(|i| i.1), note: None }
        }
        Err(why) => Estimate { note: Some(why.clone()), ..Estimate::default() },
    };
    let n_patients = inside.iter().map(|&i| panel.examples[i].patient).collect::<std::collections::BTreeSet<_>>().len();
    Subgroup {
        column: column.to_owned(),
        group: group.to_owned(),
        variant,
        n: inside.len(),
        n_patients,
        auroc,
        calibration: calibration(panel, scores, &inside, z),
        coverage: coverage(panel, sets, variant, scores, &inside, options.level),
        gap,
        p,
        p_holm: None,
        too_small: own.err(),
    }
}

/// AUROC, its variance, and what they are of; or why there is none.
fn area(panel: &Panel<Test>, scores: &Scores, of: &[usize]) -> Result<(f64, f64, Prepared), String> {
    for label in 0..panel.counts().len() {
        let with: std::collections::BTreeSet<usize> =
            of.iter().filter(|&&i| panel.examples[i].label == label).map(|&i| panel.examples[i].patient).collect();
        if with.len() < FEWEST {
            return Err(format!("too small: {} patients of {}, {FEWEST} are needed", with.len(), crate::label_names(panel.task)[label]));
        }
    }
    let mut keep = vec![false; panel.examples.len()];
    of.iter().for_each(|&i| keep[i] = true);
    let prepared = Prepared::new(panel, scores, Vec::new(), |i| keep[i]);
    let value = prepared.auroc(&prepared.once());
    let variance = delong::variance(panel, &prepared, None);
    match value.zip(variance) {
        Some((a, v)) if v.is_finite() => Ok((a, v.max(0.0), prepared)),
        _ => Err("too small for a variance".to_owned()),
    }
}

/// Mean of predicted − happened, with the standard error of sums over patients.
fn calibration(panel: &Panel<Test>, scores: &Scores, of: &[usize], z: f64) -> Estimate {
    let k = panel.n_outputs();
    let n = of.len() as f64;
    let error = |i: usize| {
        let (p, happened) = crate::calibration::Loss::new(&scores.probability[i * k..(i + 1) * k], panel.examples[i].label).event;
        p - f64::from(u8::from(happened))
    };
    let mean = of.iter().map(|&i| error(i)).sum::<f64>() / n;
    let mut by_patient: BTreeMap<usize, f64> = BTreeMap::new();
    of.iter().for_each(|&i| *by_patient.entry(panel.examples[i].patient).or_default() += (error(i) - mean) / n);
    let m = by_patient.len() as f64;
    if m < FEWEST as f64 {
        return Estimate { note: Some(format!("too small: {m} patients, {FEWEST} are needed")), ..Estimate::default() };
    }
    let half = z * (by_patient.values().map(|x| x * x).sum::<f64>() * m / (m - 1.0)).sqrt();
    Estimate { value: Some(mean), low: Some(mean - half), high: Some(mean + half), note: None }
}

fn coverage(panel: &Panel<Test>, sets: &[ConformalSets], variant: Variant, scores: &Scores, of: &[usize], level: f64) -> Estimate {
    let k = panel.n_outputs();
    let (mut n, mut held, mut patients) = (0usize, 0usize, std::collections::BTreeSet::new());
    for &i in of {
        let example = panel.examples[i];
        let pattern = match variant {
            Variant::Image => Some(crate::ModalityPattern::Image),
            Variant::Record => Some(crate::ModalityPattern::Record),
            _ => panel.pattern(i),
        };
        let (Some(sets), Some(pattern)) = (sets.get(example.fold), pattern) else { continue };
        if !sets.patterns.iter().any(|q| q.pattern == pattern && q.n > 0) {
            continue;
        }
        let row: Vec<f32> = scores.probability[i * k..(i + 1) * k].iter().map(|&p| p as f32).collect();
        n += 1;
        held += usize::from(sets.set(&row, pattern, false).contains(&example.label));
        patients.insert(example.patient);
    }
    if patients.len() < FEWEST {
        let why = if sets.is_empty() {
            "no labelled validation example to fit sets on".to_owned()
        } else {
            format!("too small: {} patients with a set, {FEWEST} are needed", patients.len())
        };
        return Estimate { note: Some(why), ..Estimate::default() };
    }
    let share = held as f64 / n as f64;
    let interval = wilson_interval((share * patients.len() as f64).round() as usize, patients.len(), level);
    Estimate { value: Some(share), low: interval.map(|i| i.0), high: interval.map(|i| i.1), note: None }
}
