//! The exponential moving average of a model's weights over the steps of its training.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use synovia_fusion::{NamedTensor, visit_state};
use synovia_kernels::blend;

use crate::Weights;

/// Exponential moving average of all numbers of a module, running statistics included (Polyak & Juditsky 1992; with the
/// decay of Tarvainen & Valpola 2017). It lags behind the weights by about `1 / (1 − decay)` steps and has less of the
/// noise of the last batches. From some step on it can be the plain mean.
pub struct Average {
    decay: f64,
    /// The last step before the plain mean.
    even_after: u64,
    values: BTreeMap<String, (Vec<usize>, Tensor<1>)>,
}

impl Average {
    /// Of nothing yet; `decay` is in [0, 1), 0 for the last weights alone.
    pub fn new(decay: f64) -> Self {
        Self { decay, even_after: u64::MAX, values: BTreeMap::new() }
    }

    /// After so many steps, the plain mean of the weights of all steps that follow.
    #[must_use]
    pub fn evenly_after(mut self, step: u64) -> Self {
        self.even_after = step;
        self
    }

    /// Takes in the module as it is after step `step`, from 1. The decay rises to its value over the first steps, so that
    /// the initial weights are forgotten at once.
    pub fn add<M: Module>(&mut self, module: &M, step: u64) {
        let decay = match step.checked_sub(self.even_after) {
            Some(n @ 1..) => (n - 1) as f64 / n as f64,
            _ => self.decay.min(step as f64 / (step as f64 + 10.0)),
        };
        visit_state(module, |name, shape, value| {
            let mean = match self.values.remove(&name) {
                Some((_, mut mean)) => {
                    if !blend(decay, &mut mean, &value) {
                        mean = mean.mul_scalar(decay) + value.mul_scalar(1.0 - decay);
                    }
                    mean
                }
                None => value,
            };
            self.values.insert(name, (shape, mean));
        });
    }

    /// The average by name, as [`collect_state`](synovia_fusion::collect_state) has the module's own numbers.
    pub fn weights(&self) -> Weights {
        let named =
            |(name, (shape, mean)): (&String, &(Vec<usize>, Tensor<1>))| (name.clone(), NamedTensor::new(shape.clone(), mean.clone()));
        self.values.iter().map(named).collect()
    }

    /// The average as it was in a checkpoint.
    pub fn with_weights(mut self, weights: &Weights, device: &Device) -> Self {
        for (name, tensor) in weights {
            let mean = Tensor::<1>::from_data(TensorData::new(tensor.values.clone(), [tensor.values.len()]), device);
            self.values.insert(name.clone(), (tensor.shape.clone(), mean));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use synovia_fusion::{apply_state, collect_state};

    use super::*;

    #[test]
    fn follows_the_definition_and_survives_a_restart() {
        let _alone = crate::tests::alone();
        let device = Device::flex().autodiff();
        let linear: Linear = LinearConfig::new(1, 1).with_bias(false).init(&device);
        let at = |w: f32| {
            let state = Weights::from([("weight".to_owned(), NamedTensor { shape: vec![1, 1], values: vec![w] })]);
            apply_state(linear.clone(), &state).unwrap()
        };
        let (decay, steps) = (0.25f64, [3.0f32, -1.0, 2.0, 5.0]);
        let by_hand = steps.iter().enumerate().fold(None, |mean: Option<f64>, (k, &w)| {
            let step = (k + 1) as f64;
            let d = decay.min(step / (step + 10.0));
            Some(mean.map_or(f64::from(w), |mean| d * mean + (1.0 - d) * f64::from(w)))
        });
        let mut average = Average::new(decay);
        for (k, &w) in steps.iter().enumerate() {
            average.add(&at(w), k as u64 + 1);
            average = Average::new(decay).with_weights(&average.weights(), &Device::flex());
        }
        let weights = average.weights();
        let mut even = Average::new(decay).evenly_after(1);
        for (k, &w) in steps.iter().enumerate() {
            even.add(&at(w), k as u64 + 1);
            even = Average::new(decay).evenly_after(1).with_weights(&even.weights(), &Device::flex());
        }
        assert!((even.weights()["weight"].values[0] - 2.0).abs() < 1e-6, "the mean of -1, 2 and 5");
        assert!((f64::from(weights["weight"].values[0]) - by_hand.unwrap()).abs() < 1e-6);
        assert_eq!(weights.keys().collect::<Vec<_>>(), collect_state(&linear).keys().collect::<Vec<_>>());
        assert_eq!(weights["weight"].shape, [1, 1]);
    }
}
