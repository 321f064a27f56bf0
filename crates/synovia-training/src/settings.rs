//! How a model is trained.

use serde::{Deserialize, Serialize};

use crate::{Augmentation, Balance, Branches, Imbalance, Privacy};

/// How an epoch's examples are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// Each example once, in random order.
    Plain,
    /// With replacement, so that the classes of the first task come up equally often.
    Balanced,
}

/// Everything that decides what comes out of training, but for the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingSettings {
    /// Passes over the train split, at most.
    pub epochs: usize,
    /// Learning rate of what begins with trained weights, as a share of the others'.
    #[serde(default = "all")]
    pub tower_rate: f64,
    /// Examples in a batch.
    pub batch: usize,
    /// Batches to a step, which goes by the mean of their gradients: nearly what a larger batch would give that memory has no room for. Batch
    /// normalisation, contrast and the balance of tasks see the small ones, and a task counts in those that have its labels.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub accumulate: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay of matrices and kernels.
    pub weight_decay: f64,
    /// Epochs over which the learning rate rises linearly; a cosine to 0 follows.
    pub warmup_epochs: f64,
    /// Largest global norm of the gradient.
    pub clip: f64,
    /// Decay a step of the weights' moving average, which is what is validated and kept; 0 for the weights themselves.
    pub ema: f64,
    /// Share of the steps, the last ones, over which the weights are averaged evenly while the learning rate stays where it is (stochastic
    /// weight averaging: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", of every step instead of
    /// every epoch, running statistics included); `ema` is for the steps before. 0 for no such end.
    #[serde(default, skip_serializing_if = "is_none")]
    pub swa: f64,
    /// Epochs without a better validation loss after which training stops.
    pub patience: usize,
    /// How examples are drawn.
    pub sampling: Sampling,
    /// What is done about rare classes.
    #[serde(default, skip_serializing_if = "Imbalance::is_none")]
    pub imbalance: Imbalance,
    /// Chance that an example with all modalities is shown with one of them hidden.
    pub modality_dropout: f64,
    /// Random changes of the images.
    pub augmentation: Augmentation,
    /// What each task counts for.
    pub balance: Balance,
    /// What the modalities learn from each other beside the joint loss.
    pub branches: Branches,
    /// Whether image towers go through `synovia-kernels`; else through burn's own operations, several times slower, to hold the
    /// kernels against.
    pub kernels: bool,
    /// How private it is; `None` for not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<Privacy>,
    /// Seed of weights, order, augmentation and dropout.
    pub seed: u64,
}

const fn all() -> f64 {
    1.0
}

const fn one() -> usize {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_one(n: &usize) -> bool {
    *n == 1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(share: &f64) -> bool {
    *share == 0.0
}

impl TrainingSettings {
    /// The step, of `n_steps`, after which the weights are averaged evenly.
    pub(crate) fn swa_from(&self, n_steps: usize) -> usize {
        ((1.0 - self.swa) * n_steps as f64).round() as usize
    }
}

/// Learning rate of `step` (from 0) of `n_steps`: linear warm-up, then half a cosine (Loshchilov & Hutter 2017, without
/// restarts).
pub fn learning_rate(peak: f64, step: usize, n_steps: usize, n_warmup: usize) -> f64 {
    if step < n_warmup {
        return peak * (step + 1) as f64 / n_warmup as f64;
    }
    let done = (step - n_warmup) as f64 / (n_steps.saturating_sub(n_warmup)).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls() {
        let at = |step| learning_rate(1.0, step, 110, 10);
        assert!((at(0) - 0.1).abs() < 1e-12 && (at(9) - 1.0).abs() < 1e-12 && (at(10) - 1.0).abs() < 1e-12);
        assert!((at(60) - 0.5).abs() < 1e-12, "half way down the cosine");
        assert!(at(109) < 1e-3);
        assert_eq!(learning_rate(1.0, 0, 1, 0), 1.0);
    }
}
