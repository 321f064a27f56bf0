//! Deep & Cross Network, second version, in parallel (Wang et al. 2021, "DCN V2").

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

use crate::table::check_sizes;
use crate::{EncoderError, FeatureStatistics, Norm, NormKind, Standardize};

/// Crossings: features are multiplied with each other up to one time more.
const CROSSINGS: usize = 2;

/// Settings of a [`CrossEncoder`].
#[derive(Clone, Copy, Debug)]
pub struct CrossEncoderConfig {
    /// Features of the table.
    pub n_features: usize,
    /// Width of the deep layer and of the embedding.
    pub width: usize,
    /// Share of the deep layer's units dropped in training.
    pub dropout: f64,
    /// What activations are normalised over.
    pub norm: NormKind,
}

/// Standardise → crossings `x ← x₀ ⊙ (W x + b) + x` beside a dense layer → dense.
#[derive(Module, Debug)]
pub struct CrossEncoder {
    standardize: Standardize,
    crossings: Vec<Linear>,
    deep: Linear,
    deep_norm: Norm,
    dropout: Dropout,
    mix: Linear,
}

impl CrossEncoderConfig {
    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError`] for a size of 0 or statistics of another table.
    pub fn init(&self, statistics: &FeatureStatistics, device: &Device) -> Result<CrossEncoder, EncoderError> {
        check_sizes(self.n_features, self.width, statistics)?;
        let inputs = 2 * self.n_features;
        Ok(CrossEncoder {
            standardize: statistics.init(device)?,
            crossings: (0..CROSSINGS).map(|_| LinearConfig::new(inputs, inputs).init(device)).collect(),
            deep: LinearConfig::new(inputs, self.width).init(device),
            deep_norm: Norm::new(self.norm, self.width, device),
            dropout: DropoutConfig::new(self.dropout).init(),
            mix: LinearConfig::new(inputs + self.width, self.width).init(device),
        })
    }
}

impl CrossEncoder {
    /// # Shapes
    /// - record: `[batch, n_features]`, in the features' own units, NaN where missing
    /// - returns `[batch, width]`
    pub fn forward(&self, record: Tensor<2>) -> Tensor<2> {
        let given = self.standardize.forward(record);
        let crossed = self.crossings.iter().fold(given.clone(), |x, crossing| given.clone() * crossing.forward(x.clone()) + x);
        let deep = self.dropout.forward(activation::relu(self.deep_norm.forward(self.deep.forward(given))));
        activation::relu(self.mix.forward(Tensor::cat(vec![crossed, deep], 1)))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    /// By hand: two crossings of two features and their flags, each with a weight of its own, and a deep layer that is shut.
    #[test]
    fn features_are_multiplied_with_each_other() {
        let device = Device::flex();
        let statistics = FeatureStatistics::identity(2);
        let config = CrossEncoderConfig { n_features: 2, width: 4, dropout: 0.0, norm: NormKind::Batch };
        let mut model = config.init(&statistics, &device).unwrap();
        let matrix = |rows: [[f32; 4]; 4]| Tensor::<2>::from_floats(rows, &device);
        // The second feature from the first, and the other way round.
        let swap = matrix([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0; 4], [0.0; 4]]);
        for crossing in &mut model.crossings {
            crossing.weight = burn::module::Param::from_tensor(swap.clone());
            crossing.bias = Some(burn::module::Param::from_tensor(Tensor::<1>::from_floats([1.0, 0.0, 0.0, 0.0], &device)));
        }
        let mut mix = vec![0.0f32; 8 * 4];
        (0..4).for_each(|k| mix[k * 4 + k] = 1.0);
        model.mix.weight = burn::module::Param::from_tensor(Tensor::<2>::from_data(TensorData::new(mix, [8, 4]), &device));
        model.mix.bias = None;
        let out: Vec<f32> =
            model.forward(Tensor::<2>::from_floats([[2.0, 3.0], [f32::NAN, 3.0]], &device)).into_data().try_to_vec().unwrap();
        // x₀ = (2, 3): once (2 (3 + 1) + 2, 3 · 2 + 3) = (10, 9); twice (2 (9 + 1) + 10, 3 · 10 + 9) = (30, 39).
        // x₀ = (0, 3), flag 1: once (0, 0 + 3); twice (0, 3).
        let expected = [30.0, 39.0, 0.0, 0.0, 0.0, 3.0, 1.0, 0.0];
        assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{out:?}");
    }
}
