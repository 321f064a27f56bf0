//! Raw features to numbers a network can use; fitted on the train split and part of the model from there on.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::EncoderError;

/// What is fitted for one table, a value a feature, in the features' own units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureStatistics {
    /// 1 where the logarithm is standardised instead of the value itself (positive, right-skewed features), else 0.
    pub log: Vec<f32>,
    /// Smallest value whose logarithm is taken: a power of two, at most half the smallest value seen in training and more than a
    /// quarter of it.
    pub floor: Vec<f32>,
    /// Mean, after the logarithm where it is taken. It is also what a missing value is replaced by.
    pub mean: Vec<f32>,
    /// Standard deviation (1 where the feature is constant).
    pub std: Vec<f32>,
}

/// `(transform(x) − mean) / std`, clamped to ± 8; a missing value (NaN) becomes 0 and sets its flag.
#[derive(Module, Debug)]
pub struct Standardize {
    log: Param<Tensor<2>>,
    floor: Param<Tensor<2>>,
    mean: Param<Tensor<2>>,
    std: Param<Tensor<2>>,
}

/// Standard deviations beyond which a value says no more than "very high".
const LIMIT: f32 = 8.0;

impl FeatureStatistics {
    /// Identity statistics, for a model whose real ones are loaded afterwards.
    pub fn identity(n_features: usize) -> Self {
        Self { log: vec![0.0; n_features], floor: vec![1.0; n_features], mean: vec![0.0; n_features], std: vec![1.0; n_features] }
    }

    /// Makes the module on `device`; its numbers are never trained.
    ///
    /// # Errors
    /// [`EncoderError::Features`] when the statistics are not of one length.
    pub fn init(&self, device: &Device) -> Result<Standardize, EncoderError> {
        let expected = self.mean.len();
        for (what, values) in [("log", &self.log), ("floor", &self.floor), ("std", &self.std)] {
            if values.len() != expected {
                return Err(EncoderError::Features { what, got: values.len(), expected });
            }
        }
        let row = |values: &[f32]| {
            let tensor = Tensor::<2>::from_data(TensorData::new(values.to_vec(), [1, expected]), device);
            Param::from_tensor(tensor).set_require_grad(false)
        };
        Ok(Standardize { log: row(&self.log), floor: row(&self.floor), mean: row(&self.mean), std: row(&self.std) })
    }
}

impl Standardize {
    /// # Shapes
    /// - record: `[batch, n_features]`, NaN where missing
    /// - returns `[batch, 2 × n_features]`: the standardised values, then 1 where the value is missing and 0 where it is known
    pub fn forward(&self, record: Tensor<2>) -> Tensor<2> {
        let missing = record.clone().is_nan();
        let flag = missing.clone().float();
        // Any finite number does: the place is overwritten below. NaN × 0 would stay NaN.
        let value = record.mask_fill(missing.clone(), 1.0);
        let log = self.log.val();
        // max(value, floor) without an operation of two tensors that ONNX and burn name differently.
        let floor = self.floor.val();
        let above = (value.clone() - floor.clone()).clamp_min(0.0) + floor;
        let value = above.log() * log.clone() + value * (log.neg() + 1.0);
        let standard = ((value - self.mean.val()) / self.std.val()).clamp(-LIMIT, LIMIT).mask_fill(missing, 0.0);
        Tensor::cat(vec![standard, flag], 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_logarithms_limits_and_absence() {
        let device = Device::flex();
        let statistics = FeatureStatistics { log: vec![0.0, 1.0], floor: vec![1.0, 0.5], mean: vec![10.0, 1.0], std: vec![2.0, 0.5] };
        let e = std::f32::consts::E;
        let rows = [[14.0, e * e], [f32::NAN, 0.0], [1e9, f32::NAN], [-3.0, -7.0]];
        let out =
            statistics.init(&device).unwrap().forward(Tensor::<2>::from_floats(rows, &device)).into_data().try_to_vec::<f32>().unwrap();
        let low = (0.5f32.ln() - 1.0) / 0.5;
        let expected = [[2.0, 2.0, 0.0, 0.0], [0.0, low, 1.0, 0.0], [8.0, 0.0, 0.0, 1.0], [-6.5, low, 0.0, 0.0]];
        for (got, expected) in out.iter().zip(expected.as_flattened()) {
            assert!((got - expected).abs() < 1e-5, "{got} instead of {expected}");
        }
    }
}
