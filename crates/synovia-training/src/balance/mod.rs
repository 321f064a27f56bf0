//! How the tasks share one model: what each one's loss, or its gradient, counts for in a step.
//!
//! Losses come in here in units of an uninformed guess, so that 1 each is a fair start. Methods that look at the tasks'
//! gradients do so at the joint embedding, which all tasks share: one small backward pass a head and one through the towers,
//! where gradients of all parameters would need one through the towers a task (Sener & Koltun 2018, "Multi-Task Learning as
//! Multi-Objective Optimization", section 3.3: it bounds theirs). It knows no tensors.

mod progress;
mod surgery;
#[cfg(test)]
mod tests;

pub use progress::{average, grad_norm, uncertainty};
pub use surgery::{cagrad, gramian, mgda, pcgrad, upgrad};

use serde::{Deserialize, Serialize};

/// How tasks are balanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// Each counts the same.
    #[default]
    Fixed,
    /// By the square root of how many of its labels a batch has: a mean over n labels is off by 1/√n, so that what chance adds to each
    /// task's gradient is of one size.
    Labels,
    /// By learnt uncertainty (Kendall et al. 2018).
    Uncertainty,
    /// By how fast each loss fell over the last two epochs: Dynamic Weight Average (Liu et al. 2019).
    Dwa,
    /// So that gradients are of like norms (Chen et al. 2018, `GradNorm`).
    GradNorm,
    /// Conflicting parts of gradients taken out (Yu et al. 2020, `PCGrad`).
    PcGrad,
    /// Near the mean gradient, best for the task that gains least (Liu et al. 2021, `CAGrad`).
    CaGrad,
    /// Mean of the gradients projected to where no task loses (Quinton & Rey 2024, `UPGrad`).
    UpGrad,
    /// The shortest convex combination of gradients (Désidéri 2012).
    Mgda,
}

/// What a method remembers from step to step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BalanceState {
    /// A number a task: the logarithm of its variance, or its weight.
    numbers: Vec<f64>,
    /// The first losses.
    first: Vec<f64>,
}

/// Distance from the mean gradient within which [`cagrad`] looks, as a share of its norm; the paper's.
const CAGRAD_RADIUS: f64 = 0.5;

impl Balance {
    /// Whether [`Balance::weights`] wants the tasks' gradients.
    pub const fn wants_gradients(self) -> bool {
        matches!(self, Self::GradNorm | Self::PcGrad | Self::CaGrad | Self::UpGrad | Self::Mgda)
    }

    /// What each task's gradient at the embedding is multiplied with in this step; `1 / n` each where tasks do not conflict.
    /// A task without any known label in the batch gets 0 from [`Balance::Labels`] and from methods that look at gradients.
    ///
    /// # Shapes
    /// - losses: of this step, a number a task
    /// - known: for each task the labels that the batch has of it
    /// - epochs: mean training losses of the epochs before, the last one last
    /// - gram: inner products of the tasks' gradients, empty where none were asked for
    pub fn weights(self, losses: &[f64], known: &[f64], epochs: &[Vec<f64>], gram: &[Vec<f64>], state: &mut BalanceState) -> Vec<f64> {
        let n = losses.len();
        let even = vec![1.0 / n as f64; n];
        match self {
            Self::Fixed => even,
            Self::Labels => {
                let all: f64 = known.iter().map(|n| n.sqrt()).sum();
                if all > 0.0 { known.iter().map(|n| n.sqrt() / all).collect() } else { even }
            }
            Self::Uncertainty => {
                state.numbers.resize(n, 0.0);
                let weights = state.numbers.iter().map(|log_variance| (-log_variance).exp() / n as f64).collect();
                let (_, slopes) = uncertainty(losses, &state.numbers);
                for ((number, slope), _) in state.numbers.iter_mut().zip(slopes).zip(losses).filter(|(_, loss)| **loss > 0.0) {
                    // A tenth in fifty steps at most.
                    *number -= 0.002 * slope.clamp(-1.0, 1.0);
                }
                weights
            }
            Self::Dwa => average(epochs, n).into_iter().map(|weight| weight / n as f64).collect(),
            _ => {
                let known: Vec<usize> = (0..n).filter(|&k| gram[k][k] > 0.0).collect();
                if known.is_empty() {
                    return even;
                }
                let part: Vec<Vec<f64>> = known.iter().map(|&i| known.iter().map(|&j| gram[i][j]).collect()).collect();
                let of_known = match self {
                    Self::PcGrad => pcgrad(&part).into_iter().map(|weight| weight / known.len() as f64).collect(),
                    Self::CaGrad => cagrad(&part, CAGRAD_RADIUS),
                    Self::UpGrad => upgrad(&part),
                    Self::Mgda => mgda(&part),
                    _ => {
                        state.numbers.resize(n, 1.0);
                        if state.first.is_empty() && known.len() == n {
                            state.first = losses.to_vec();
                        }
                        let norms: Vec<f64> = (0..n).map(|k| gram[k][k].sqrt()).collect();
                        if known.len() == n {
                            grad_norm(&mut state.numbers, &norms, losses, &state.first);
                        }
                        known.iter().map(|&k| state.numbers[k] / n as f64).collect()
                    }
                };
                let mut weights = vec![0.0; n];
                known.into_iter().zip(of_known).for_each(|(k, weight)| weights[k] = weight);
                weights
            }
        }
    }
}
