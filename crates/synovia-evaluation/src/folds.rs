//! Cross-validation: the out-of-fold predictions of several models as one measurement.

use serde::{Deserialize, Serialize};
use synovia_cohort::Task;

use crate::metrics::measure_folds;
use crate::{EvaluationError, EvaluationOptions, Metrics, Prediction, evaluate};

/// Measures over all folds and of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoldMetrics {
    /// Over all folds; what `metrics.json` holds.
    pub pooled: Metrics,
    /// Of each fold by itself.
    pub folds: Vec<Metrics>,
}

/// Measures k-fold predictions, one list a fold: its test rows are the fold's out-of-fold predictions; its validation rows,
/// where given, help to choose the single modality that the joint model is held against.
///
/// AUROC and average precision are computed in each fold and averaged: each fold has a model of its own, whose scores need not
/// be on the scale of another's, and ranking them together would measure that too (Forman & Scholz, SIGKDD Explorations 2010).
/// Their variance is the sum of the folds' own over the square of their number (LeDell, Petersen & van der Laan, Electronic
/// Journal of Statistics 2015). Brier score, log loss and ECE are over all examples. The bootstrap draws patients within
/// folds. None of these intervals holds the variation that comes of training on samples that overlap, for which there is no
/// unbiased estimator (Bengio & Grandvalet 2004).
///
/// # Errors
/// As [`evaluate`]; and when a patient is tested in two folds.
pub fn pool_folds(folds: &[Vec<Prediction>], tasks: &[Task], options: &EvaluationOptions) -> Result<FoldMetrics, EvaluationError> {
    let slices: Vec<&[Prediction]> = folds.iter().map(Vec::as_slice).collect();
    let mut pooled = measure_folds(&slices, tasks, options)?;
    for task in pooled.tasks.values_mut().filter(|task| task.n_folds > 1) {
        task.notes.push("intervals do not hold the variation that comes of training sets that overlap between folds".to_owned());
    }
    Ok(FoldMetrics { pooled, folds: folds.iter().map(|fold| evaluate(fold, tasks, options)).collect::<Result<_, _>>()? })
}
