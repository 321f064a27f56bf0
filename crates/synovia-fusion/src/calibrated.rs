//! Logits to probabilities that mean what they say, as operations of the model: so they are in the exported graph.

use burn::tensor::{Tensor, TensorData, activation};

/// What becomes of a task's logits z: probabilities p that mean what they say.
#[derive(Clone, Debug, PartialEq)]
pub enum Calibrated {
    /// `sigmoid(z / T)` of one logit, `softmax(z / T)` of several.
    Temperature(f32),
    /// `sigmoid(slope · z + intercept)` of one logit.
    Line {
        /// Factor.
        slope: f32,
        /// What is added.
        intercept: f32,
    },
    /// `sigmoid(a ln p − b ln (1 − p) + c)` with `p = sigmoid(z)`, of one logit.
    Beta {
        /// Factor of ln p.
        a: f32,
        /// Factor of −ln (1 − p).
        b: f32,
        /// What is added.
        c: f32,
    },
    /// `first + Σ rise · clip((z − start) / width, 0, 1)` of one logit.
    Steps {
        /// Value before the first step.
        first: f32,
        /// Start, width and rise of each.
        steps: Vec<[f32; 3]>,
    },
}

impl Calibrated {
    /// # Shapes
    /// - logits, result: `[batch, n_logits]`
    pub(crate) fn probabilities(&self, logits: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Temperature(temperature) => {
                let logits = logits.div_scalar(*temperature);
                if logits.dims()[1] == 1 { activation::sigmoid(logits) } else { activation::softmax(logits, 1) }
            }
            Self::Line { slope, intercept } => activation::sigmoid(logits.mul_scalar(*slope).add_scalar(*intercept)),
            Self::Beta { a, b, c } => {
                let (ln_p, ln_not) = (activation::log_sigmoid(logits.clone()), activation::log_sigmoid(logits.neg()));
                activation::sigmoid(ln_p.mul_scalar(*a).sub(ln_not.mul_scalar(*b)).add_scalar(*c))
            }
            Self::Steps { first, steps } => {
                let (device, k) = (logits.device(), steps.len());
                if k == 0 {
                    return logits.clamp(0.0, 0.0).add_scalar(*first);
                }
                let column = |of: &dyn Fn(&[f32; 3]) -> f32, shape: [usize; 2]| {
                    Tensor::<2>::from_data(TensorData::new(steps.iter().map(of).collect::<Vec<f32>>(), shape), &device)
                };
                let starts = column(&|step| step[0], [1, k]);
                let per_width = column(&|step| 1.0 / step[1], [1, k]);
                let rises = column(&|step| step[2], [k, 1]);
                logits.sub(starts).mul(per_width).clamp(0.0, 1.0).matmul(rises).add_scalar(*first)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn each_is_what_its_formula_says() {
        let z = [-20.0f32, -3.0, -0.5, 0.0, 0.25, 2.0, 20.0];
        let check = |calibrated: &Calibrated, expected: &dyn Fn(f64) -> f64| {
            let logits = Tensor::<2>::from_data(TensorData::new(z.to_vec(), [z.len(), 1]), &Device::flex());
            let p: Vec<f32> = calibrated.probabilities(logits).into_data().try_to_vec().unwrap();
            for (z, p) in z.into_iter().zip(p) {
                assert!((f64::from(p) - expected(f64::from(z))).abs() < 1e-6, "{calibrated:?} of {z}: {p}, not {}", expected(f64::from(z)));
            }
        };
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        check(&Calibrated::Temperature(2.0), &|z| sigmoid(z / 2.0));
        check(&Calibrated::Line { slope: 0.5, intercept: -1.0 }, &|z| sigmoid(0.5 * z - 1.0));
        check(&Calibrated::Beta { a: 0.75, b: 1.5, c: 0.25 }, &|z| sigmoid(0.75 * sigmoid(z).ln() - 1.5 * sigmoid(-z).ln() + 0.25));
        // From .1 to .4 between −1 and 2, and on to .8 within a fifth.
        let steps = vec![[-1.0, 3.0, 0.3], [0.2, 0.2, 0.4]];
        let rising = |z: f64| 0.1 + 0.3 * ((z + 1.0) / 3.0).clamp(0.0, 1.0) + 0.4 * ((z - 0.2) / 0.2).clamp(0.0, 1.0);
        check(&Calibrated::Steps { first: 0.1, steps }, &rising);
        check(&Calibrated::Steps { first: 0.3, steps: Vec::new() }, &|_| 0.3);
    }
}
