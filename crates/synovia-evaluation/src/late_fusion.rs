//! Late fusion: the probabilities of two models that never saw each other, pooled by weights fitted on validation.

use synovia_cohort::{Task, TaskKind};

use crate::EvaluationError;
use crate::murphy::log_odds;
use crate::newton::{logistic, sigmoid};
use crate::panel::n_labels;

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
    /// intercept, over weights not under 0: a model that would count against itself has been fitted to noise and counts nothing.
    /// Of a multiclass task by the likelihood on a grid of weights from 0. Where there is no maximum, or labels are too few, both
    /// count by half.
    ///
    /// # Shapes
    /// - first, second: `[n, task.n_outputs()]`
    /// - labels: `[n]`
    ///
    /// # Errors
    /// When shapes do not fit, a probability is none, or a label is no class.
    pub fn fit(first: &[f32], second: &[f32], labels: &[Option<f32>], task: &Task) -> Result<Self, EvaluationError> {
        let k = task.n_outputs();
        for len in [first.len(), second.len()] {
            if len != labels.len() * k {
                return Err(EvaluationError::Shape { what: "probabilities", len, expected: labels.len() * k });
            }
        }
        for probabilities in [first, second] {
            if let Some(position) = probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
                return Err(EvaluationError::NotFinite { what: "probabilities", position });
            }
        }
        let last = n_labels(task) as f32;
        if let Some(label) = labels.iter().flatten().find(|label| label.fract() != 0.0 || !(0.0..last).contains(*label)) {
            return Err(EvaluationError::Option { what: format!("task `{}`: a label is {label}, which is no class", task.name) });
        }
        let binary = task.kind == TaskKind::Binary;
        let half = Self { weights: [0.5, 0.5], intercept: 0.0, binary };
        let known: Vec<usize> = (0..labels.len()).filter(|&i| labels[i].is_some()).collect();
        if known.len() < FEWEST {
            return Ok(half);
        }
        if binary {
            let odds = known.iter().map(|&i| [log_odds(first[i].into()), log_odds(second[i].into())]).collect::<Vec<_>>();
            let y: Vec<f64> = known.iter().filter_map(|&i| labels[i].map(f64::from)).collect();
            return Ok(not_negative(&odds, &y).map_or(half, |(weights, intercept)| Self { weights, intercept, binary }));
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

    /// How much each model counts.
    pub const fn weights(&self) -> [f64; 2] {
        self.weights
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

/// Weights and intercept of the highest likelihood among weights that are not negative. The likelihood is concave: where the
/// free maximum has a negative weight, the best lies where one of the weights is 0.
fn not_negative(odds: &[[f64; 2]], y: &[f64]) -> Option<([f64; 2], f64)> {
    let free: Vec<f64> = odds.iter().flat_map(|[a, b]| [1.0, *a, *b]).collect();
    let fit = logistic(&free, 3, y, None)?;
    let [intercept, a, b] = fit.coefficients[..] else { return None };
    if a >= 0.0 && b >= 0.0 {
        return Some(([a, b], intercept));
    }
    let alone = |k: usize| {
        let x: Vec<f64> = odds.iter().flat_map(|odds| [1.0, odds[k]]).collect();
        let fit = logistic(&x, 2, y, None)?;
        let [intercept, weight] = fit.coefficients[..] else { return None };
        let weights = if k == 0 { [weight, 0.0] } else { [0.0, weight] };
        (weight > 0.0).then_some((fit.loss, weights, intercept))
    };
    [alone(0), alone(1)].into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, weights, intercept)| (weights, intercept))
}
