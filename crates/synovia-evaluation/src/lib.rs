//! Predictions to metrics with intervals, calibration, comparison and verdict, and to the report and the model card.
//!
//! This crate knows no model, no tensor, no training and no file: it is given numbers and texts and gives them back as
//! [`Metrics`], as one HTML page ([`report_html`]) and as a model card ([`model_card`]). Its only models are baselines that
//! others are held against ([`LogisticBaseline`], [`ForestBaseline`], [`LateFusion`]).
//!
//! What is measured, and how sure it is:
//! - Discrimination: AUROC and average precision; for a multiclass task the mean over its classes, each against the rest.
//! - Probabilities: Brier score, log loss and the expected calibration error over [`N_BINS`] bins of equal width.
//! - Intervals: 2,000 bootstrap samples of patients, never of examples, since a patient's examples are alike.
//! - Joint against the better single modality: the paired difference in AUROC with DeLong's variance clustered by patient.

mod averages;
mod baseline;
mod between_runs;
mod bootstrap;
mod calibrated;
mod calibration;
mod calibrator;
mod comparison;
mod conformal;
mod confusion;
mod decision;
mod delong;
mod embeddings;
mod endpoint;
mod error;
mod folds;
mod forest;
mod gain;
mod head_to_head;
mod late_fusion;
mod measure;
mod membership;
mod metrics;
mod murphy;
mod newton;
mod normal;
mod novelty;
mod panel;
mod prediction;
mod proportion;
mod ranking;
mod regression;
mod report;
mod robustness;
mod subgroup;
mod survival;
#[cfg(test)]
mod tests;
mod threshold;
mod treatment;

pub use averages::{Multilabel, auroc_one_against_one, auroc_one_against_rest, average_precision_one_against_rest};
pub use baseline::{LogisticBaseline, LogisticOptions, logistic_baseline};
pub use between_runs::{BetweenRuns, between_runs};
pub use calibrated::{Calibration, fit_calibration, probabilities};
pub use calibration::{N_BINS, ReliabilityBin, expected_calibration_error, reliability};
pub use calibrator::{CalibrationMap, Calibrator, fit_calibrator, isotonic};
pub use comparison::{McNemar, PairedDeLong, holm, mcnemar, paired_delong};
pub use conformal::{COVERAGE, ClassCoverage, Conformal, ConformalSets, PatternQuantiles, SetCoverage, conformal_quantile, label_names};
pub use confusion::{Average, ClassConfusion, Confusion};
pub use decision::{DecisionCurve, DecisionPoint};
pub use embeddings::{EmbeddingMap, EmbeddingPoint, PrincipalAxes, nearest, tsne};
pub use endpoint::{EndpointEstimate, EndpointFold, EndpointGain, EndpointMeasure, EndpointMetrics, OVERLAP, evaluate_endpoints};
pub use error::EvaluationError;
pub use folds::{FoldMetrics, pool_folds};
pub use forest::{ForestBaseline, ForestOptions};
pub use gain::{Gain, VERDICT, Verdict};
pub use head_to_head::Comparison;
pub use late_fusion::LateFusion;
pub use measure::{MAX_RATE, Measure, Rate};
pub use membership::{Membership, membership};
pub use metrics::{ClassAverages, ClassCount, Estimate, EvaluationOptions, Metrics, OperatingPoint, TaskMetrics, VariantMetrics, evaluate};
pub use murphy::{BrierParts, CalibrationLine, N_MASS_BINS, brier_parts, calibration_line, expected_calibration_error_equal_mass};
pub use novelty::{NOVEL, Novelty, NoveltyPattern, NoveltyScore};
pub use panel::ModalityPattern;
pub use prediction::{Prediction, Variant};
pub use proportion::wilson_interval;
pub use ranking::{
    PrecisionRecallPoint, RocPoint, auroc, average_precision, partial_auroc, precision_recall_curve, roc_curve, sensitivity_at_specificity,
    specificity_at_sensitivity,
};
pub use regression::{Regression, regression};
pub use report::{
    CalibrationRow, Case, Contribution, Curve, Epoch, Explanations, FeatureRow, FeatureWeight, FederationReport, Flow, FlowStep,
    IntegratedCheck, LabelCounts, MapCheck, ModalityShare, Neighbour, NeighbourCheck, OnnxCheck, OnnxRun, Peak, Report, SiteGain,
    SplitSummary, TaskExplanation, federation_html, model_card, report_html,
};
pub use robustness::{Robustness, RobustnessCurve, RobustnessPoint, TaskRobustness, Worsening};
pub use subgroup::{Attribute, Subgroup, add_subgroups};
pub use survival::{
    KaplanMeier, Observed, TimeDependentAuroc, harrell_concordance, integrated_survival_brier, survival_brier, time_dependent_auroc,
    uno_concordance,
};
pub use threshold::{ThresholdRule, choose_threshold};
pub use treatment::{
    MeanEstimate, Treated, UpliftCurve, UpliftPoint, average_effect, average_effect_error, pehe, policy_value, qini_coefficient,
    uplift_curve,
};
