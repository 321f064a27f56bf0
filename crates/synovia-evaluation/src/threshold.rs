//! The threshold over which a binary task's probability is an alert, chosen on the validation split.

use serde::{Deserialize, Serialize};
use synovia_cohort::Validation;

use crate::panel::{Panel, Scores};
use crate::roc_curve;

/// What a threshold is to bring.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdRule {
    /// The largest sensitivity + specificity (Youden 1950).
    Youden,
    /// The largest specificity with at least this sensitivity.
    Sensitivity(f64),
    /// The largest sensitivity with at least this specificity.
    Specificity(f64),
}

impl ThresholdRule {
    /// The rules of the report; comparisons of decisions are by the first.
    pub const REPORTED: [Self; 3] = [Self::Youden, Self::Sensitivity(0.9), Self::Specificity(0.9)];

    /// In words for a reader of the report.
    pub fn describe(self) -> String {
        match self {
            Self::Youden => "largest sensitivity + specificity".to_owned(),
            Self::Sensitivity(s) => format!("sensitivity of {:.0} %", 100.0 * s),
            Self::Specificity(s) => format!("specificity of {:.0} %", 100.0 * s),
        }
    }
}

/// The threshold t of the decisions `score ≥ t` that fits `rule` best, a score that occurs; of equal ones the highest. `None`
/// unless both classes occur.
///
/// # Shapes
/// - scores, labels: `[n]`
pub fn choose_threshold<S: Copy + Into<f64>>(scores: &[S], labels: &[bool], rule: ThresholdRule) -> Option<f64> {
    let mut distinct: Vec<f64> = scores.iter().map(|&s| s.into()).collect();
    distinct.sort_unstable_by(|a, b| b.total_cmp(a));
    distinct.dedup();
    // The curve's first point is above all scores.
    let curve = roc_curve(scores, labels);
    let mut best: Option<(f64, f64)> = None;
    for (point, threshold) in curve.iter().skip(1).zip(distinct) {
        let (sensitivity, specificity) = (point.true_positive_rate, 1.0 - point.false_positive_rate);
        let worth = match rule {
            ThresholdRule::Youden => sensitivity + specificity,
            ThresholdRule::Sensitivity(least) if sensitivity >= least - 1e-12 => specificity,
            ThresholdRule::Specificity(least) if specificity >= least - 1e-12 => sensitivity,
            _ => continue,
        };
        if best.is_none_or(|(most, _)| worth > most + 1e-12) {
            best = Some((worth, threshold));
        }
    }
    best.map(|(_, threshold)| threshold)
}

/// Fewest positives, and negatives, of validation that a threshold is chosen on.
const FEWEST: usize = 5;

/// A threshold a rule of [`ThresholdRule::REPORTED`] and fold; `None` of a task that is not binary, or with too few of a class.
pub(crate) fn thresholds(panel: &Panel<Validation>, scores: &Scores) -> Vec<Vec<Option<f64>>> {
    let of_fold = |fold: usize| -> (Vec<f64>, Vec<bool>) {
        let here = (0..panel.examples.len()).filter(|&i| scores.present[i] && panel.examples[i].fold == fold);
        here.map(|i| (scores.probability[i], panel.examples[i].label == 1)).unzip()
    };
    let folds: Vec<(Vec<f64>, Vec<bool>)> = (0..panel.n_folds()).map(of_fold).collect();
    let choose = |rule: ThresholdRule| {
        let in_fold = |(scores, labels): &(Vec<f64>, Vec<bool>)| {
            let positive = labels.iter().filter(|&&y| y).count();
            (positive.min(labels.len() - positive) >= FEWEST).then(|| choose_threshold(scores, labels, rule)).flatten()
        };
        folds.iter().map(in_fold).collect()
    };
    ThresholdRule::REPORTED.into_iter().map(choose).collect()
}
