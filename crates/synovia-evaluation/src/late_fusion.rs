//! Late fusion: the probabilities of two models that never saw each other, pooled by weights fitted on validation.

use synovia_cohort::{Task, TaskKind};

use crate::EvaluationError;
use crate::murphy::log_odds;
use crate::newton::{logistic, sigmoid};

/// Weights of a logarithmic pool (Genest & Zidek 1986): log probabilities are added with a weight each and made to sum to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct LateFusion {
    weights: [f64; 2],
    intercept: f64,
    binary: bool,
}

/// Fewest labelled examples that weights are fitted on; under it both models count by half.
const FEWEST: usize = 30;

impl LateFusion {
    /// Fits on examples of the validation split that both models predicted. Of a binary task by maximum likelihood, with an
    /// intercept; of a multiclass one by the likelihood on a grid of weights. Where there is no maximum, or labels are too few,
    /// both count by half.
    ///
    /// # Shapes
    /// - first, second: `[n, task.n_outputs()]`
    /// - labels: `[n]`
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn fit(first: &[f32], second: &[f32], labels: &[Option<f32>], task: &Task) -> Result<Self, EvaluationError> {
        let k = task.n_outputs();
        for len in [first.len(), second.len()] {
            if len != labels.len() * k {
                return Err(EvaluationError::Shape { what: "probabilities", len, expected: labels.len() * k });
            }
        }
        let binary = task.kind == TaskKind::Binary;
        let half = Self { weights: [0.5, 0.5], intercept: 0.0, binary };
        let known: Vec<usize> = (0..labels.len()).filter(|&i| labels[i].is_some()).collect();
        if known.len() < FEWEST {
            return Ok(half);
        }
        if binary {
            let x: Vec<f64> = known.iter().flat_map(|&i| [1.0, log_odds(first[i].into()), log_odds(second[i].into())]).collect();
            let y: Vec<f64> = known.iter().filter_map(|&i| labels[i].map(f64::from)).collect();
            return Ok(match logistic(&x, 3, &y, None) {
                // A model that counts against itself has been fitted to noise.
                Some(fit) if fit.coefficients[1] >= 0.0 && fit.coefficients[2] >= 0.0 => {
                    Self { weights: [fit.coefficients[1], fit.coefficients[2]], intercept: fit.coefficients[0], binary }
                }
                _ => half,
            });
        }
        let loss = |pool: &Self| -> f64 {
            known
                .iter()
                .map(|&i| {
                    let pooled = pool.row(&first[i * k..(i + 1) * k], &second[i * k..(i + 1) * k]);
                    let given = labels[i].and_then(|label| pooled.get(label as usize).copied()).unwrap_or(1.0);
                    -f64::from(given).max(1e-12).ln()
                })
                .sum()
        };
        let mut best = (loss(&half), half.clone());
        for a in 0..=24 {
            for b in 0..=24 {
                let pool = Self { weights: [f64::from(a) / 8.0, f64::from(b) / 8.0], ..half.clone() };
                let reached = loss(&pool);
                if reached < best.0 {
                    best = (reached, pool);
                }
            }
        }
        Ok(best.1)
    }

    /// The pooled probabilities of one example.
    ///
    /// # Shapes
    /// - first, second, result: `[task.n_outputs()]`
    pub fn row(&self, first: &[f32], second: &[f32]) -> Vec<f32> {
        if self.binary {
            let pooled = |(a, b): (&f32, &f32)| {
                let odds = self.weights[0] * log_odds(f64::from(*a)) + self.weights[1] * log_odds(f64::from(*b));
                sigmoid(odds + self.intercept) as f32
            };
            return first.iter().zip(second).map(pooled).collect();
        }
        let log = |p: f32| f64::from(p).max(1e-12).ln();
        let pooled: Vec<f64> = first.iter().zip(second).map(|(a, b)| self.weights[0] * log(*a) + self.weights[1] * log(*b)).collect();
        let top = pooled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = pooled.iter().map(|z| (z - top).exp()).sum();
        pooled.iter().map(|z| ((z - top).exp() / sum) as f32).collect()
    }
}
