//! Heads whose answer is a number: of regression, of the time to an event, of the outcome under each of two treatments.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::loss::{binary_losses, masked_mean};

/// An endpoint's head, with what was fitted for it on the train split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointHead {
    /// The endpoint's name.
    pub endpoint: String,
    /// How it is estimated.
    pub estimator: Estimator,
    /// Loss of a guess that knows no more than means.
    pub base: f64,
}

/// How an endpoint is estimated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Estimator {
    /// A number, learnt in units of its standard deviation from its mean.
    Regression(Scale),
    /// The chance that the event comes in an interval of those that it has not come to before, interval by interval: discrete-time survival
    /// (Gensheimer & Narasimhan 2019, "A scalable discrete-time survival model for neural networks").
    Survival {
        /// Ends of the intervals, days, in order; the first begins at 0.
        edges: Vec<f64>,
    },
    /// The outcome under each of two treatments, by layers of its own after the joint embedding (`TARNet`: Shalit, Johansson & Sontag 2017,
    /// "Estimating individual treatment effect"), and the chance of the second treatment, so that the embedding keeps what treatments were
    /// chosen by (`DragonNet`: Shi, Blei & Veitch 2019, "Adapting neural networks for the estimation of treatment effects").
    Treatment {
        /// Of an outcome that is a number; `None` of one that is 0 or 1.
        scale: Option<Scale>,
        /// Share of the training examples that had the second treatment: the rarer one counts for as much as the other.
        treated: f64,
    },
}

/// Mean and standard deviation of a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, above 0.
    pub deviation: f64,
}

impl Scale {
    /// In units of the standard deviation from the mean.
    pub fn standard(self, x: f32) -> f32 {
        ((f64::from(x) - self.mean) / self.deviation) as f32
    }
}

/// Layers of a head.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has a handful of them")]
pub enum EndpointLayers {
    /// One, of regression and survival.
    One(Linear),
    /// Those of a treatment.
    Arms(Arms),
}

/// Layers of a treatment: of the outcome under each, and of which is chosen.
#[derive(Module, Debug)]
pub struct Arms {
    first: Vec<Linear>,
    second: Vec<Linear>,
    propensity: Linear,
}

fn square(x: Tensor<2>) -> Tensor<2> {
    x.clone() * x
}

/// Hidden layers of an arm.
const N_HIDDEN: usize = 2;

/// What which treatment was given counts for beside its outcome. As much as that, the layers would learn the choices of a few hundred
/// patients by heart before they have learnt outcomes, and validation would end the training there.
pub const PROPENSITY: f64 = 0.1;

impl EndpointHead {
    /// Number of values that its layers give.
    pub fn n_raw(&self) -> usize {
        match &self.estimator {
            Estimator::Regression(_) => 1,
            Estimator::Survival { edges } => edges.len(),
            Estimator::Treatment { .. } => 3,
        }
    }

    pub(crate) fn init(&self, embedding: usize, device: &Device) -> EndpointLayers {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let arm = || (0..N_HIDDEN).map(|_| linear(embedding, embedding)).chain([linear(embedding, 1)]).collect();
        match &self.estimator {
            Estimator::Treatment { .. } => EndpointLayers::Arms(Arms { first: arm(), second: arm(), propensity: linear(embedding, 1) }),
            _ => EndpointLayers::One(linear(embedding, self.n_raw())),
        }
    }

    /// Values of a target: of regression the number, in standard units; of survival for each interval which part of it was watched (all of
    /// it where the event came), and then whether the event came; of a treatment the outcome, in standard units where it is a number, and 1 where the second was given.
    pub fn n_targets(&self) -> usize {
        match &self.estimator {
            Estimator::Regression(_) => 1,
            Estimator::Survival { edges } => 2 * edges.len(),
            Estimator::Treatment { .. } => 2,
        }
    }

    /// Writes the target of an example's two numbers.
    ///
    /// # Shapes
    /// - target: `[n_targets]`, zeros
    pub fn write_target(&self, [first, second]: [f32; 2], target: &mut [f32]) {
        match &self.estimator {
            Estimator::Regression(scale) => target[0] = scale.standard(first),
            Estimator::Survival { edges } => {
                let (at_risk, events) = target.split_at_mut(edges.len());
                let days = f64::from(first);
                let begins = std::iter::once(0.0).chain(edges.iter().copied());
                for (k, (begin, &end)) in begins.zip(edges).enumerate() {
                    let ends_here = days <= end && (days > begin || k == 0);
                    let is_event = ends_here && second > 0.0;
                    // Who was last seen within an interval counts for the part of it that was watched: left out, all who have the event
                    // would count, and of the others only some.
                    at_risk[k] = match (ends_here, is_event) {
                        (true, false) => ((days - begin) / (end - begin)) as f32,
                        _ => 1.0,
                    };
                    events[k] = f32::from(u8::from(is_event));
                    if ends_here {
                        break;
                    }
                }
            }
            Estimator::Treatment { scale, .. } => {
                target[0] = scale.map_or(first, |scale| scale.standard(first));
                target[1] = second;
            }
        }
    }

    /// Loss over the examples whose numbers are known: the mean square in units of the variance; the negative log-likelihood; and of a
    /// treatment that of the outcome as it was, plus [`PROPENSITY`] times that of the treatment. `[1]`
    ///
    /// # Shapes
    /// - raw: `[batch, n_raw]`
    /// - target: `[batch, n_targets]`
    /// - weight: `[batch, 1]`, 0 where the numbers are not known
    pub fn loss(&self, raw: Tensor<2>, target: &Tensor<2>, weight: &Tensor<2>) -> Tensor<1> {
        match &self.estimator {
            Estimator::Regression(_) => masked_mean(square(raw - target.clone()), weight.clone()),
            Estimator::Survival { edges } => {
                let k = edges.len();
                let (at_risk, events) = (target.clone().narrow(1, 0, k), target.clone().narrow(1, k, k));
                masked_mean((binary_losses(raw, events) * at_risk).sum_dim(1), weight.clone())
            }
            Estimator::Treatment { scale, treated } => {
                let column = |of: &Tensor<2>, k| of.clone().narrow(1, k, 1);
                let (outcome, second) = (column(target, 0), column(target, 1));
                let first = second.clone().neg().add_scalar(1.0);
                let factual = column(&raw, 0) * first.clone() + column(&raw, 1) * second.clone();
                let losses = match scale {
                    Some(_) => square(factual - outcome),
                    None => binary_losses(factual, outcome),
                };
                let even = second.clone().mul_scalar(0.5 / treated) + first.mul_scalar(0.5 / (1.0 - treated));
                let chosen = binary_losses(column(&raw, 2), second).mul_scalar(PROPENSITY);
                masked_mean(losses * even + chosen, weight.clone())
            }
        }
    }

    /// How far a student's answer is from a teacher's, whom no gradient reaches: the mean square, in the units of the layers. `[1]`
    ///
    /// # Shapes
    /// - teacher, student: `[batch, n_raw]`
    /// - weight: `[batch, 1]`
    pub fn distance(&self, teacher: Tensor<2>, student: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
        masked_mean(square(student - teacher.detach()).mean_dim(1), weight)
    }

    /// What the values mean, in the endpoint's own units: of regression the number; of survival the chance that the event has not come by each
    /// edge; of a treatment the outcome under the first, under the second, the effect (second less first) and the chance of the second.
    ///
    /// # Shapes
    /// - raw: `[batch, n_raw]`
    /// - result: `[batch, n_quantities]`
    pub fn estimates(&self, raw: Tensor<2>) -> Tensor<2> {
        match &self.estimator {
            Estimator::Regression(scale) => raw.mul_scalar(scale.deviation).add_scalar(scale.mean),
            Estimator::Survival { edges } => {
                let k = edges.len();
                // Sums over the intervals up to each, as a product with a triangle of ones.
                let triangle: Vec<f32> = (0..k * k).map(|i| f32::from(u8::from(i / k <= i % k))).collect();
                let triangle = Tensor::<2>::from_data(TensorData::new(triangle, [k, k]), &raw.device());
                activation::log_sigmoid(raw.neg()).matmul(triangle).exp()
            }
            Estimator::Treatment { scale, .. } => {
                let (outcomes, propensity) = (raw.clone().narrow(1, 0, 2), activation::sigmoid(raw.narrow(1, 2, 1)));
                let outcomes = match scale {
                    Some(scale) => outcomes.mul_scalar(scale.deviation),
                    None => activation::sigmoid(outcomes),
                };
                // Before the mean is added, beside which a small effect would lose its digits.
                let effect = outcomes.clone().narrow(1, 1, 1) - outcomes.clone().narrow(1, 0, 1);
                let mean = scale.map_or(0.0, |scale| scale.mean);
                Tensor::cat(vec![outcomes.add_scalar(mean), effect, propensity], 1)
            }
        }
    }

    /// How large its numbers are: what rounding is measured by.
    pub fn magnitude(&self) -> f64 {
        match &self.estimator {
            Estimator::Regression(scale) | Estimator::Treatment { scale: Some(scale), .. } => scale.mean.abs() + scale.deviation,
            _ => 1.0,
        }
    }

    /// What each value of [`EndpointHead::estimates`] is.
    pub fn quantities(&self) -> Vec<String> {
        match &self.estimator {
            Estimator::Regression(_) => vec!["value".to_owned()],
            Estimator::Survival { edges } => {
                let named = |digits: f64| edges.iter().map(|edge| format!("survival_{}d", (edge * digits).round() / digits)).collect();
                let short: Vec<String> = named(10.0);
                // Edges rise, so that equal names stand side by side.
                if short.windows(2).any(|pair| pair[0] == pair[1]) { named(1e6) } else { short }
            }
            Estimator::Treatment { .. } => ["outcome_0", "outcome_1", "effect", "propensity"].map(str::to_owned).to_vec(),
        }
    }
}

impl EndpointLayers {
    /// # Shapes
    /// - embedding: `[batch, embedding]`
    /// - result: `[batch, n_raw]`
    pub(crate) fn forward(&self, embedding: Tensor<2>) -> Tensor<2> {
        match self {
            Self::One(layer) => layer.forward(embedding),
            Self::Arms(arms) => {
                let through = |layers: &[Linear]| {
                    let last = layers.len().saturating_sub(1);
                    layers.iter().enumerate().fold(embedding.clone(), |x, (k, layer)| {
                        let x = layer.forward(x);
                        if k < last { activation::relu(x) } else { x }
                    })
                };
                Tensor::cat(vec![through(&arms.first), through(&arms.second), arms.propensity.forward(embedding.clone())], 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[&[f32]]) -> Tensor<2> {
        let flat: Vec<f32> = values.iter().flat_map(|row| row.iter().copied()).collect();
        Tensor::from_data(TensorData::new(flat, [values.len(), values[0].len()]), &Device::flex())
    }

    fn head(estimator: Estimator) -> EndpointHead {
        EndpointHead { endpoint: "e".into(), estimator, base: 1.0 }
    }

    fn target(head: &EndpointHead, numbers: [f32; 2]) -> Vec<f32> {
        let mut target = vec![0.0; head.n_targets()];
        head.write_target(numbers, &mut target);
        target
    }

    fn loss(head: &EndpointHead, raw: &[f32], numbers: [f32; 2]) -> f32 {
        head.loss(rows(&[raw]), &rows(&[&target(head, numbers)]), &rows(&[&[1.0]])).into_scalar()
    }

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn survival_counts_the_intervals_that_were_watched() {
        let head = head(Estimator::Survival { edges: vec![10.0, 20.0, 30.0] });
        let check = |numbers: [f32; 2], expected: [f32; 6]| assert_eq!(target(&head, numbers), expected, "{numbers:?}");
        check([25.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
        check([25.0, 0.0], [1.0, 1.0, 0.5, 0.0, 0.0, 0.0]);
        check([20.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        check([20.0, 1.0], [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
        check([40.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        check([0.0, 1.0], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        // Hazards ½, ⅓, ⅕: of an event in the third interval −ln(½ · ⅔ · ⅕).
        let logits = [0.0, (0.5f32).ln(), (0.25f32).ln()];
        assert!((loss(&head, &logits, [25.0, 1.0]) - 15f32.ln()).abs() < 1e-6);
        // Half of the third interval was watched: −ln(½ · ⅔) − ½ ln ⅘.
        assert!((loss(&head, &logits, [25.0, 0.0]) - (3f32.ln() + 0.5 * 1.25f32.ln())).abs() < 1e-6);
        for (a, b) in values(head.estimates(rows(&[&logits]))).into_iter().zip([0.5, 1.0 / 3.0, 4.0 / 15.0]) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn a_treatment_is_judged_by_what_was_given() {
        let scale = Some(Scale { mean: 5.0, deviation: 2.0 });
        let head = head(Estimator::Treatment { scale, treated: 0.25 });
        // Outcomes of 3 and 9 where 7 was seen: (1 − −1)² / 2 / .75 under the first, (1 − 2)² / 2 / .25 under the second; a tenth of ln 2 for an even chance.
        let raw = [-1.0, 2.0, 0.0];
        assert!((loss(&head, &raw, [7.0, 0.0]) - (4.0 / 1.5 + 0.1 * 2f32.ln())).abs() < 1e-5);
        assert!((loss(&head, &raw, [7.0, 1.0]) - (2.0 + 0.1 * 2f32.ln())).abs() < 1e-5);
        assert_eq!(values(head.estimates(rows(&[&raw]))), [3.0, 9.0, 6.0, 0.5]);
        let binary = EndpointHead { estimator: Estimator::Treatment { scale: None, treated: 0.5 }, ..head };
        assert!((loss(&binary, &[3f32.ln(), 0.0, 0.0], [1.0, 0.0]) - ((4f32 / 3.0).ln() + 0.1 * 2f32.ln())).abs() < 1e-6);
        let said = values(binary.estimates(rows(&[&[3f32.ln(), 0.0, 0.0]])));
        assert!((said[0] - 0.75).abs() < 1e-6 && (said[2] + 0.25).abs() < 1e-6, "{said:?}");
    }

    #[test]
    fn a_number_is_in_its_own_units() {
        let head = head(Estimator::Regression(Scale { mean: 10.0, deviation: 4.0 }));
        assert!((loss(&head, &[1.0], [18.0, 0.0]) - 1.0).abs() < 1e-6);
        assert_eq!(values(head.estimates(rows(&[&[0.5]]))), [12.0]);
    }
}
