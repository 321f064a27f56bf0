//! Predictions laid out for measuring: examples by variants, labels settled, patients numbered.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use synovia_cohort::{ExampleId, Split, SplitKind, Task, TaskKind};

use crate::{EvaluationError, Prediction, Variant};

/// One task's labelled examples of split `S`, over one or more folds: what is fitted asks for a panel of validation, and can't
/// be given one of the test split.
///
/// Examples are ordered by fold and id and patients numbered in that of fold and pseudonym, so that nothing that is
/// computed depends on the order in which predictions came.
pub(crate) struct Panel<'a, S> {
    pub task: &'a Task,
    /// Labelled examples.
    pub examples: Vec<PanelExample>,
    /// Examples left out because nobody knows their label.
    pub n_unlabelled: usize,
    /// Number of patients of each fold; patients are numbered fold after fold.
    pub patients_by_fold: Vec<usize>,
    pub variants: BTreeMap<Variant, Scores>,
    /// Examples' ids, in their order.
    pub ids: Vec<ExampleId>,
    split: PhantomData<S>,
}

#[derive(Clone, Copy)]
pub(crate) struct PanelExample {
    /// Patient, from 0 over all folds.
    pub patient: usize,
    /// Fold, from 0.
    pub fold: usize,
    /// 0 or 1 of a binary task, else the class's index.
    pub label: usize,
}

/// What one variant said of a panel's examples.
pub(crate) struct Scores {
    /// `[n_examples, n_outputs]`; NaN where the variant made no prediction.
    pub probability: Vec<f64>,
    /// `[n_examples]`
    pub present: Vec<bool>,
}

struct Gathered<'p> {
    patient: &'p str,
    label: Option<f32>,
    by_variant: BTreeMap<Variant, Vec<f32>>,
}

/// Which modalities an example has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ModalityPattern {
    /// Both.
    #[serde(rename = "image+record")]
    Both,
    /// The image alone.
    #[serde(rename = "image")]
    Image,
    /// The record alone.
    #[serde(rename = "record")]
    Record,
}

impl ModalityPattern {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Both, Self::Image, Self::Record];

    /// Of what is there; `None` of nothing.
    pub const fn of(image: bool, record: bool) -> Option<Self> {
        match (image, record) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::Image),
            (false, true) => Some(Self::Record),
            (false, false) => None,
        }
    }

    /// Its name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Both => "image+record",
            Self::Image => "image",
            Self::Record => "record",
        }
    }
}

impl<S> Panel<'_, S> {
    /// What example `i` has: a model of one modality makes no prediction where it is missing.
    pub(crate) fn pattern(&self, i: usize) -> Option<ModalityPattern> {
        let any = |variants: [Variant; 2]| variants.iter().any(|v| self.variants.get(v).is_some_and(|s| s.present[i]));
        ModalityPattern::of(any([Variant::Image, Variant::JointImage]), any([Variant::Record, Variant::JointRecord]))
    }

    pub(crate) fn n_outputs(&self) -> usize {
        self.task.n_outputs()
    }

    pub(crate) fn n_patients(&self) -> usize {
        self.patients_by_fold.iter().sum()
    }

    pub(crate) fn n_folds(&self) -> usize {
        self.patients_by_fold.len()
    }

    /// Whether `class` (an output's index) is the example's label.
    pub(crate) fn is_positive(&self, example: PanelExample, class: usize) -> bool {
        match self.task.kind {
            TaskKind::Binary => example.label == 1,
            TaskKind::Multiclass | TaskKind::Ordinal => example.label == class,
        }
    }

    /// Labelled examples by label: `[negative, positive]`, or a count a class.
    pub(crate) fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; n_labels(self.task)];
        for example in &self.examples {
            counts[example.label] += 1;
        }
        counts
    }
}

/// Number of values that a label can have.
pub(crate) fn n_labels(task: &Task) -> usize {
    match task.kind {
        TaskKind::Binary => 2,
        TaskKind::Multiclass | TaskKind::Ordinal => task.classes.len(),
    }
}

/// Refuses a patient in two splits of one fold, and one tested in two folds.
pub(crate) fn check_patients(folds: &[&[Prediction]]) -> Result<(), EvaluationError> {
    let mut tested: HashMap<&str, usize> = HashMap::new();
    for (fold, predictions) in folds.iter().enumerate() {
        let mut splits: HashMap<&str, Split> = HashMap::new();
        for prediction in *predictions {
            let patient = &*prediction.patient;
            let split = *splits.entry(patient).or_insert(prediction.split);
            if split != prediction.split {
                return Err(EvaluationError::PatientInTwoSplits {
                    patient: patient.to_owned(),
                    first: split.as_str(),
                    second: prediction.split.as_str(),
                });
            }
            if prediction.split == Split::Test {
                let first = *tested.entry(patient).or_insert(fold);
                if first != fold {
                    return Err(EvaluationError::PatientInTwoFolds { patient: patient.to_owned(), first: first + 1, second: fold + 1 });
                }
            }
        }
    }
    Ok(())
}

/// A panel a task, from the predictions of split `S` (one slice a fold). A task without any prediction has an empty panel.
pub(crate) fn panels<'a, S: SplitKind>(folds: &[&[Prediction]], tasks: &'a [Task]) -> Result<Vec<Panel<'a, S>>, EvaluationError> {
    let index: HashMap<&str, usize> = tasks.iter().enumerate().map(|(k, task)| (task.name.as_str(), k)).collect();
    let mut gathered: Vec<BTreeMap<(usize, &ExampleId), Gathered>> = tasks.iter().map(|_| BTreeMap::new()).collect();
    for (fold, predictions) in folds.iter().enumerate() {
        for prediction in predictions.iter().filter(|p| p.split == S::SPLIT) {
            let unknown = || EvaluationError::UnknownTask { example: prediction.example.clone(), task: prediction.task.to_string() };
            let k = *index.get(&*prediction.task).ok_or_else(unknown)?;
            gather(&mut gathered[k], fold, &tasks[k], prediction)?;
        }
    }
    tasks.iter().zip(gathered).map(|(task, examples)| lay_out(task, examples, folds.len())).collect()
}

fn gather<'p>(
    examples: &mut BTreeMap<(usize, &'p ExampleId), Gathered<'p>>,
    fold: usize,
    task: &Task,
    prediction: &'p Prediction,
) -> Result<(), EvaluationError> {
    let place = || (prediction.example.clone(), task.name.clone());
    let Some(class) = task.classes.iter().position(|c| **c == *prediction.class) else {
        let (example, task) = place();
        return Err(EvaluationError::UnknownClass { example, task, class: prediction.class.to_string() });
    };
    if !(0.0..=1.0).contains(&prediction.probability) {
        let (example, task) = place();
        return Err(EvaluationError::Probability { example, task, variant: prediction.variant, probability: prediction.probability });
    }
    if let Some(label) = prediction.label
        && (label.fract() != 0.0 || !(0.0..n_labels(task) as f32).contains(&label))
    {
        let (example, name) = place();
        return Err(EvaluationError::Label { example, task: name, label, last: n_labels(task) - 1 });
    }
    let entry = examples.entry((fold, &prediction.example)).or_insert_with(|| Gathered {
        patient: &prediction.patient,
        label: prediction.label,
        by_variant: BTreeMap::new(),
    });
    if entry.patient != &*prediction.patient {
        return Err(EvaluationError::PatientConflict { example: prediction.example.clone() });
    }
    if entry.label != prediction.label {
        let (example, task) = place();
        return Err(EvaluationError::LabelConflict { example, task });
    }
    let row = entry.by_variant.entry(prediction.variant).or_insert_with(|| vec![f32::NAN; task.n_outputs()]);
    if !row[class].is_nan() {
        let (example, task) = place();
        return Err(EvaluationError::Duplicate { example, task, variant: prediction.variant });
    }
    row[class] = prediction.probability;
    Ok(())
}

fn lay_out<'a, S>(
    task: &'a Task,
    gathered: BTreeMap<(usize, &ExampleId), Gathered>,
    n_folds: usize,
) -> Result<Panel<'a, S>, EvaluationError> {
    let mut patients: BTreeMap<(usize, &str), usize> =
        gathered.iter().filter(|(_, g)| g.label.is_some()).map(|(&(fold, _), g)| ((fold, g.patient), 0)).collect();
    let mut patients_by_fold = vec![0; n_folds];
    for (number, (&(fold, _), slot)) in patients.iter_mut().enumerate() {
        *slot = number;
        patients_by_fold[fold] += 1;
    }
    let n_outputs = task.n_outputs();
    let n_labelled = gathered.values().filter(|g| g.label.is_some()).count();
    let n_unlabelled = gathered.len() - n_labelled;
    let (mut examples, mut ids) = (Vec::with_capacity(n_labelled), Vec::with_capacity(n_labelled));
    let mut variants = BTreeMap::new();
    for ((fold, id), found) in gathered {
        for (&variant, row) in &found.by_variant {
            check_row(task, id, variant, row)?;
        }
        let Some(label) = found.label else { continue };
        let patient = patients[&(fold, found.patient)];
        for (variant, row) in found.by_variant {
            let scores = variants
                .entry(variant)
                .or_insert_with(|| Scores { probability: vec![f64::NAN; n_labelled * n_outputs], present: vec![false; n_labelled] });
            let k = examples.len();
            scores.present[k] = true;
            scores.probability[k * n_outputs..(k + 1) * n_outputs].iter_mut().zip(row).for_each(|(to, from)| *to = f64::from(from));
        }
        examples.push(PanelExample { patient, fold, label: label as usize });
        ids.push(id.clone());
    }
    Ok(Panel { task, examples, n_unlabelled, patients_by_fold, variants, ids, split: PhantomData })
}

fn check_row(task: &Task, example: &ExampleId, variant: Variant, row: &[f32]) -> Result<(), EvaluationError> {
    if let Some(class) = row.iter().position(|p| p.is_nan()) {
        return Err(EvaluationError::MissingClass {
            example: example.clone(),
            task: task.name.clone(),
            variant,
            class: task.classes[class].clone(),
        });
    }
    let sum: f64 = row.iter().map(|&p| f64::from(p)).sum();
    if task.kind != TaskKind::Binary && (sum - 1.0).abs() > 1e-3 {
        return Err(EvaluationError::ProbabilitySum { example: example.clone(), task: task.name.clone(), variant, sum });
    }
    Ok(())
}
