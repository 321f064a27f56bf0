//! What can be wrong with what is to be evaluated.

use synovia_cohort::{ExampleId, Split};

use crate::Variant;

/// Why predictions can't be evaluated, or a calibration or baseline can't be fitted.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// There is no prediction of the split that is measured.
    #[error("no prediction is of the test split: nothing to measure")]
    NoTestPredictions,
    /// A prediction names a task that the pipeline does not have.
    #[error("example {example}: task `{task}` is not one of the pipeline's")]
    UnknownTask {
        /// Which example.
        example: ExampleId,
        /// The task as the prediction names it.
        task: String,
    },
    /// A prediction names a class that its task does not have.
    #[error("example {example}, task `{task}`: class `{class}` is not one of the task's")]
    UnknownClass {
        /// Which example.
        example: ExampleId,
        /// Which task.
        task: String,
        /// The class as the prediction names it.
        class: String,
    },
    /// A probability is NaN or outside [0, 1].
    #[error("example {example}, task `{task}`, {variant}: probability {probability} is not in [0, 1]; the model diverged")]
    Probability {
        /// Which example.
        example: ExampleId,
        /// Which task.
        task: String,
        /// Which model.
        variant: Variant,
        /// What was predicted.
        probability: f32,
    },
    /// Probabilities of a multiclass task do not sum to 1.
    #[error("example {example}, task `{task}`, {variant}: probabilities sum to {sum} instead of 1")]
    ProbabilitySum {
        /// Which example.
        example: ExampleId,
        /// Which task.
        task: String,
        /// Which model.
        variant: Variant,
        /// Their sum.
        sum: f64,
    },
    /// A label is neither 0 nor 1 (binary), or no class's index (multiclass).
    #[error("example {example}, task `{task}`: label {label} is not a class: expected a whole number from 0 to {last}")]
    Label {
        /// Which example.
        example: ExampleId,
        /// Which task.
        task: String,
        /// What was found.
        label: f32,
        /// The last class's index.
        last: usize,
    },
    /// Two predictions give one example different labels.
    #[error("example {example}, task `{task}`: its predictions disagree about its label")]
    LabelConflict {
        /// Which example.
        example: ExampleId,
        /// Which task.
        task: String,
    },
    /// One example and class was predicted twice by one variant.
    #[error("example {example}, task `{task}`, {variant}: predicted twice")]
    Duplicate {
        /// Which example.
        example: ExampleId,
        /// Which task.
        task: String,
        /// Which model.
        variant: Variant,
    },
    /// A multiclass example lacks the probability of some class.
    #[error("example {example}, task `{task}`, {variant}: no probability for class `{class}`")]
    MissingClass {
        /// Which example.
        example: ExampleId,
        /// Which task.
        task: String,
        /// Which model.
        variant: Variant,
        /// The class without one.
        class: String,
    },
    /// Predictions of one example name two patients.
    #[error("example {example}: its predictions name two patients")]
    PatientConflict {
        /// Which example.
        example: ExampleId,
    },
    /// A patient is in two splits, so a measure on the test split is no measure of new patients.
    #[error("patient {patient} is in the {first} split and in the {second} split: a leak; run `synovia audit`")]
    PatientInTwoSplits {
        /// The patient's pseudonym.
        patient: String,
        /// One split.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A patient is tested in two folds, so that the folds are not independent.
    #[error("patient {patient} is tested in folds {first} and {second}: folds must divide the patients")]
    PatientInTwoFolds {
        /// The patient's pseudonym.
        patient: String,
        /// One fold, from 1.
        first: usize,
        /// The other.
        second: usize,
    },
    /// An option is out of range.
    #[error("{what}")]
    Option {
        /// Which, and what it may be.
        what: String,
    },
    /// An array's length does not fit its shape.
    #[error("{what}: {len} values where {expected} were expected")]
    Shape {
        /// Which array.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The length that its shape asks for.
        expected: usize,
    },
    /// A logit or a feature is infinite, or a logit NaN.
    #[error("{what}: value {position} (from 0) is not a finite number")]
    NotFinite {
        /// Which array.
        what: &'static str,
        /// Where in it.
        position: usize,
    },
    /// Labels of the training split have too few classes for a classifier.
    #[error("task `{task}`: {found} of {expected} classes occur among the labels of the {} split; a baseline needs each of them", Split::Train.as_str())]
    Classes {
        /// Which task.
        task: String,
        /// Classes that occur.
        found: usize,
        /// Classes of the task.
        expected: usize,
    },
    /// The solver of the baseline gave up.
    #[error("logistic baseline: {0}")]
    Solver(#[from] linfa_logistic::error::Error),
}
