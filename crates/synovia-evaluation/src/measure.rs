//! A variant's measures on a panel, for any weights of its examples.

use serde::{Deserialize, Serialize};
use synovia_cohort::TaskKind;

use crate::calibration::{Loss, N_BINS, bin};
use crate::panel::{Panel, Scores};
use crate::ranking::Ranking;

/// A measure of predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Area under the ROC curve; of a multiclass task the mean over its classes, each against the rest.
    Auroc,
    /// Average precision; of a multiclass task the mean over its classes, each against the rest.
    Auprc,
    /// Brier score.
    Brier,
    /// Expected calibration error.
    Ece,
    /// Mean negative log likelihood, in nats.
    LogLoss,
    /// Share of examples whose likeliest class is right.
    Accuracy,
}

pub(crate) const N_MEASURES: usize = 6;
pub(crate) const MEASURES: [Measure; N_MEASURES] =
    [Measure::Auroc, Measure::Auprc, Measure::Brier, Measure::Ece, Measure::LogLoss, Measure::Accuracy];

/// A value a measure, in the order of [`MEASURES`]; `None` where it is not defined.
pub(crate) type Values = [Option<f64>; N_MEASURES];

/// A variant's predictions, sorted once for any number of weightings.
pub(crate) struct Prepared {
    /// Rankings, fold by fold and class by class, of the folds and classes that have both positives and negatives.
    pub rankings: Vec<Ranked>,
    /// Folds and classes that do not.
    pub n_undefined: usize,
    examples: Vec<(usize, Loss)>,
}

pub(crate) struct Ranked {
    pub fold: usize,
    pub ranking: Ranking,
}

impl Prepared {
    /// Prepares the examples that `scores` has and `keep` wants.
    pub(crate) fn new(panel: &Panel, scores: &Scores, keep: impl Fn(usize) -> bool) -> Self {
        let k = panel.n_outputs();
        let kept: Vec<usize> = (0..panel.examples.len()).filter(|&i| scores.present[i] && keep(i)).collect();
        let mut rankings = Vec::new();
        let mut n_undefined = 0;
        for fold in 0..panel.n_folds() {
            for class in 0..k {
                let in_fold = kept.iter().filter(|&&i| panel.examples[i].fold == fold);
                let ranking =
                    Ranking::new(in_fold.map(|&i| (i, scores.probability[i * k + class], panel.is_positive(panel.examples[i], class))));
                if ranking.auroc(|_| 1.0).is_some() {
                    rankings.push(Ranked { fold, ranking });
                } else {
                    n_undefined += 1;
                }
            }
        }
        let examples = kept.iter().map(|&i| (i, Loss::new(&scores.probability[i * k..(i + 1) * k], panel.examples[i].label))).collect();
        Self { rankings, n_undefined, examples }
    }

    pub(crate) fn len(&self) -> usize {
        self.examples.len()
    }

    /// Area under the ROC curve, the mean over folds of the mean over classes; see [`crate::pool_folds`] for why folds are
    /// not ranked together. `None` when a fold and class loses its positives or negatives by `weight`: another set of
    /// classes would be another quantity.
    pub(crate) fn auroc(&self, weight: impl Fn(usize) -> f64 + Copy) -> Option<f64> {
        self.mean_ranked(|ranking| ranking.auroc(weight))
    }

    fn mean_ranked(&self, measure: impl Fn(&Ranking) -> Option<f64>) -> Option<f64> {
        let (mut sum, mut n_folds) = (0.0, 0.0);
        for fold in self.rankings.chunk_by(|a, b| a.fold == b.fold) {
            let mut of_fold = 0.0;
            for ranked in fold {
                of_fold += measure(&ranked.ranking)?;
            }
            sum += of_fold / fold.len() as f64;
            n_folds += 1.0;
        }
        (n_folds > 0.0).then(|| sum / n_folds)
    }

    /// All measures with `weight` an example.
    pub(crate) fn values(&self, kind: TaskKind, weight: impl Fn(usize) -> f64 + Copy) -> Values {
        let (mut total, mut brier, mut log_loss, mut correct) = (0.0, 0.0, 0.0, 0.0);
        let mut bins = [(0.0, 0.0); N_BINS];
        for (index, loss) in &self.examples {
            let w = weight(*index);
            total += w;
            brier += w * loss.brier;
            log_loss += w * loss.surprise;
            correct += if loss.correct { w } else { 0.0 };
            let to = &mut bins[bin(loss.event.0)];
            *to = (to.0 + w * loss.event.0, to.1 + if loss.event.1 { w } else { 0.0 });
        }
        let mean = |sum: f64| (total > 0.0).then(|| sum / total);
        let gap = bins.iter().map(|(p, y)| (p - y).abs()).sum();
        // Accuracy at 0.5 says little of a rare event: a binary task does not show it.
        let accuracy = if kind == TaskKind::Multiclass { mean(correct) } else { None };
        [
            self.auroc(weight),
            self.mean_ranked(|ranking| ranking.average_precision(weight)),
            mean(brier),
            mean(gap),
            mean(log_loss),
            accuracy,
        ]
    }
}
