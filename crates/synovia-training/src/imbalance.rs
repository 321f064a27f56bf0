//! What a training loss does about classes that are rare.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use synovia_cohort::{Task, TaskKind};

use crate::losses::uninformed_loss;

/// What the training loss of each task does about its rare classes; endpoints and validation know nothing of it. Of a model that learnt to
/// take all classes for as frequent (weights, logits) the heads' biases are moved back, so that probabilities are those of the cohort; what
/// the focal loss bends is left to calibration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Imbalance {
    /// Nothing.
    #[default]
    None,
    /// All classes weigh the same: an example counts by the inverse of its class's share (King & Zeng 2001, "Logistic Regression in Rare
    /// Events Data").
    Weights,
    /// What is answered well already counts less: by (1 − p)², p the probability of what is true (Lin et al. 2017, "Focal Loss for Dense
    /// Object Detection", γ = 2). Of a task whose classes have an order nothing changes.
    Focal,
    /// The logarithms of the classes' shares are added to the logits (Menon et al. 2021, "Long-tail learning via logit adjustment"), so that
    /// the model need not learn them.
    Logits,
}

impl Imbalance {
    /// Whether it is the plain way.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether a model that was trained so answers as if all classes were as frequent.
    pub(crate) fn evens_classes(self) -> bool {
        matches!(self, Self::Weights | Self::Logits)
    }
}

/// An [`Imbalance`] of one task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Adjustment {
    /// What an example of each class counts for; of a binary task no, then yes.
    weights: Option<Vec<f32>>,
    /// What is added to the logits.
    shift: Option<Vec<f32>>,
    /// Whether the loss is focal.
    pub(crate) focal: bool,
    /// What a guess by the classes' shares costs in this loss; of weights, one that takes all for as frequent.
    pub(crate) uninformed: f64,
}

impl Adjustment {
    /// - counts: labels of each class among the training examples
    /// - uninformed: what a guess by them costs in the plain loss
    pub(crate) fn new(imbalance: Imbalance, task: &Task, counts: &[u64], uninformed: f64) -> Self {
        let plain = Self { weights: None, shift: None, focal: false, uninformed };
        let n = counts.iter().sum::<u64>() as f64;
        let present = counts.iter().filter(|count| **count > 0).count() as f64;
        match imbalance {
            Imbalance::Weights if present > 1.0 => {
                // A class without examples weighs nothing anywhere.
                let weight = |&count: &u64| if count > 0 { (n / (present * count as f64)) as f32 } else { 0.0 };
                let even: Vec<u64> = counts.iter().map(|&count| u64::from(count > 0)).collect();
                Self { weights: Some(counts.iter().map(weight).collect()), uninformed: uninformed_loss(task, &even), ..plain }
            }
            Imbalance::Logits => Self { shift: prior_logits(task, counts), ..plain },
            Imbalance::Focal if task.kind != TaskKind::Ordinal && n > 0.0 => {
                let shares = counts.iter().filter(|count| **count > 0).map(|&count| count as f64 / n);
                let (focal, whole) = shares.fold((0.0, 0.0), |(focal, whole), p| {
                    let nats = -p * p.ln();
                    (focal + (1.0 - p).powi(2) * nats, whole + nats)
                });
                let share = if whole > 0.0 { focal / whole } else { 1.0 };
                Self { focal: true, uninformed: uninformed * share, ..plain }
            }
            _ => plain,
        }
    }

    /// What examples count for.
    ///
    /// # Shapes
    /// - target: `[batch, n_logits]`, of a binary task 0 or 1, else one-hot
    /// - weight: `[batch, 1]`, 0 where the label is unknown
    /// - returns `[batch, 1]`
    pub(crate) fn weigh(&self, target: &Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        let Some(weights) = &self.weights else { return weight };
        let of_class = if target.dims()[1] == 1 {
            target.clone().mul_scalar(weights[1] - weights[0]).add_scalar(weights[0])
        } else {
            (target.clone() * row(weights, target)).sum_dim(1)
        };
        weight * of_class
    }

    /// The logits that the loss is of. `[batch, n_logits]`
    pub(crate) fn shifted(&self, logits: Tensor<2>) -> Tensor<2> {
        match &self.shift {
            Some(shift) => {
                let shift = row(shift, &logits);
                logits + shift
            }
            None => logits,
        }
    }
}

/// `[1, n]`, where `like` is.
fn row(values: &[f32], like: &Tensor<2>) -> Tensor<2> {
    Tensor::<1>::from_floats(values, &like.device()).reshape([1, values.len()])
}

/// What is added to the logits of a model to which all classes came up equally often, so that its probabilities are those of a cohort with so
/// many labels of each: the logarithms of the classes' shares (Menon et al. 2021); of a binary task the logarithm of the odds. `None` where
/// there are less than two classes.
pub(crate) fn prior_logits(task: &Task, counts: &[u64]) -> Option<Vec<f32>> {
    let n = counts.iter().sum::<u64>() as f64;
    let present = counts.iter().filter(|count| **count > 0).count() as f64;
    if present < 2.0 {
        return None;
    }
    // A class without examples was never shown, balanced or not.
    let log = |count: u64| if count > 0 { (count as f64 / n * present).ln() } else { 0.0 };
    Some(if task.n_logits() == 1 {
        vec![(log(counts[1]) - log(counts[0])) as f32]
    } else {
        counts.iter().map(|&count| log(count) as f32).collect()
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn task(kind: TaskKind, classes: &[&str]) -> Task {
        Task { name: "t".into(), kind, classes: classes.iter().map(|&class| class.into()).collect() }
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn all_classes_weigh_the_same() {
        let of = task(TaskKind::Multiclass, &["a", "b", "c"]);
        let adjusted = Adjustment::new(Imbalance::Weights, &of, &[60, 30, 10], 0.9);
        let one_hot = Tensor::<2>::from_floats([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], &Device::flex());
        let known = Tensor::<2>::from_floats([[1.0], [1.0], [1.0], [0.0]], &Device::flex());
        let weights = values(adjusted.weigh(&one_hot, known));
        for (weight, expected) in weights.iter().zip([100.0 / 180.0, 100.0 / 90.0, 100.0 / 30.0, 0.0]) {
            assert!((weight - expected).abs() < 1e-5, "{weights:?}");
        }
        assert!((adjusted.uninformed - 3f64.ln()).abs() < 1e-12);
        // Of two: 0.25 positive, so 2/3 and 2.
        let adjusted = Adjustment::new(Imbalance::Weights, &task(TaskKind::Binary, &[]), &[75, 25], 0.5);
        let labels = Tensor::<2>::from_floats([[0.0], [1.0]], &Device::flex());
        let weights = values(adjusted.weigh(&labels, Tensor::ones([2, 1], &Device::flex())));
        assert!((weights[0] - 2.0 / 3.0).abs() < 1e-6 && (weights[1] - 2.0).abs() < 1e-6, "{weights:?}");
        assert!((adjusted.uninformed - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn logits_of_nothing_are_the_shares() {
        let of = task(TaskKind::Multiclass, &["a", "b", "c"]);
        let shifted = Adjustment::new(Imbalance::Logits, &of, &[60, 0, 20], 0.9).shifted(Tensor::zeros([1, 3], &Device::flex()));
        let shifted = values(shifted);
        assert!((shifted[0] - shifted[2] - 3f32.ln()).abs() < 1e-6 && shifted[1] == 0.0, "{shifted:?}");
        let binary = task(TaskKind::Binary, &[]);
        let shifted = Adjustment::new(Imbalance::Logits, &binary, &[90, 10], 0.3).shifted(Tensor::zeros([1, 1], &Device::flex()));
        assert!((values(shifted)[0] + 9f32.ln()).abs() < 1e-6);
        assert_eq!(prior_logits(&binary, &[5, 0]), None, "one class has no odds");
    }

    #[test]
    fn a_focal_guess_costs_less() {
        // Σ p (1 − p)² (−ln p) of .8 and .2 by hand.
        let plain = -0.8 * 0.8f64.ln() - 0.2 * 0.2f64.ln();
        let focal = -0.8 * 0.04 * 0.8f64.ln() - 0.2 * 0.64 * 0.2f64.ln();
        let adjusted = Adjustment::new(Imbalance::Focal, &task(TaskKind::Binary, &[]), &[80, 20], plain);
        assert!(adjusted.focal && (adjusted.uninformed - focal).abs() < 1e-12);
        let of = task(TaskKind::Ordinal, &["a", "b", "c"]);
        assert_eq!(Adjustment::new(Imbalance::Focal, &of, &[8, 1, 1], 0.4), Adjustment::new(Imbalance::None, &of, &[8, 1, 1], 0.4));
    }
}
