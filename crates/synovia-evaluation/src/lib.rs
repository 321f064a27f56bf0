//! Predictions to metrics with intervals, calibration, comparison and verdict, and to the report and the model card.
//!
//! This crate knows no model, no tensor, no training and no file: it is given numbers and texts and gives them back as
//! [`Metrics`], as one HTML page ([`report_html`]) and as a model card ([`model_card`]). Its only model is the baseline that
//! others are held against ([`LogisticBaseline`]).
//!
//! What is measured, and how sure it is:
//! - Discrimination: AUROC and average precision; for a multiclass task the mean over its classes, each against the rest.
//! - Probabilities: Brier score, log loss and the expected calibration error over [`N_BINS`] bins of equal width.
//! - Intervals: 2,000 bootstrap samples of patients, never of examples, since a patient's examples are alike.
//! - Joint against the better single modality: the paired difference in AUROC with DeLong's variance clustered by patient.

mod baseline;
mod bootstrap;
mod calibration;
mod delong;
mod error;
mod folds;
mod gain;
mod measure;
mod metrics;
mod normal;
mod panel;
mod prediction;
mod ranking;
mod report;
mod temperature;
#[cfg(test)]
mod tests;

pub use baseline::{LogisticBaseline, LogisticOptions, logistic_baseline};
pub use calibration::{N_BINS, ReliabilityBin, expected_calibration_error, reliability};
pub use error::EvaluationError;
pub use folds::{FoldMetrics, pool_folds};
pub use gain::{Gain, Verdict};
pub use measure::Measure;
pub use metrics::{ClassCount, Estimate, EvaluationOptions, Metrics, TaskMetrics, VariantMetrics, evaluate};
pub use prediction::{Prediction, Variant};
pub use ranking::{PrecisionRecallPoint, RocPoint, auroc, average_precision, precision_recall_curve, roc_curve};
pub use report::{
    Curve, Epoch, FeatureRow, Flow, FlowStep, LabelCounts, OnnxCheck, OnnxRun, Report, SplitSummary, TemperatureRow, model_card,
    report_html,
};
pub use temperature::{Temperature, fit_temperature, probabilities};
