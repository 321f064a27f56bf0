//! FT-Transformer: a token a feature (Gorishniy et al. 2021, "Revisiting Deep Learning Models for Tabular Data").

use burn::module::{Module, Param};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Distribution, Tensor};

use crate::table::check_sizes;
use crate::{EncoderError, FeatureStatistics, Standardize};

/// Blocks of the transformer.
const LAYERS: usize = 2;

/// Settings of a [`TokenEncoder`].
#[derive(Clone, Copy, Debug)]
pub struct TokenEncoderConfig {
    /// Features of the table.
    pub n_features: usize,
    /// Width of a token and of the embedding.
    pub width: usize,
    /// Share of activations dropped in training.
    pub dropout: f64,
}

/// Standardise → tokens → transformer → what the example's own token has gathered.
#[derive(Module, Debug)]
pub struct TokenEncoder {
    standardize: Standardize,
    /// `[1, n_features, width]`: what a feature's token is at its mean, what a standard deviation adds, and what it being missing does.
    level: Param<Tensor<3>>,
    slope: Param<Tensor<3>>,
    missing: Param<Tensor<3>>,
    /// `[1, 1, width]`: the example's token.
    own: Param<Tensor<3>>,
    encoder: TransformerEncoder,
    norm: LayerNorm,
}

impl TokenEncoderConfig {
    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError`] for a size of 0 or statistics of another table.
    pub fn init(&self, statistics: &FeatureStatistics, device: &Device) -> Result<TokenEncoder, EncoderError> {
        let Self { n_features, width, dropout } = *self;
        check_sizes(n_features, width, statistics)?;
        // As in the paper, uniform within 1 / √width.
        let limit = 1.0 / (width as f64).sqrt();
        let tokens = |n| Param::from_tensor(Tensor::random([1, n, width], Distribution::Uniform(-limit, limit), device));
        let n_heads = [8, 4, 2, 1].into_iter().find(|n| width.is_multiple_of(*n)).unwrap_or(1);
        Ok(TokenEncoder {
            standardize: statistics.init(device)?,
            level: tokens(n_features),
            slope: tokens(n_features),
            missing: tokens(n_features),
            own: tokens(1),
            encoder: TransformerEncoderConfig::new(width, 2 * width, n_heads, LAYERS)
                .with_norm_first(true)
                .with_dropout(dropout)
                .init(device),
            norm: LayerNormConfig::new(width).init(device),
        })
    }
}

impl TokenEncoder {
    /// # Shapes
    /// - record: `[batch, n_features]`, in the features' own units, NaN where missing
    /// - returns `[batch, width]`
    pub fn forward(&self, record: Tensor<2>) -> Tensor<2> {
        let [batch, n_features] = record.dims();
        let x = self.standardize.forward(record);
        let column = |first: usize| x.clone().narrow(1, first, n_features).reshape([batch, n_features, 1]);
        let features = self.level.val() + column(0) * self.slope.val() + column(n_features) * self.missing.val();
        let width = features.dims()[2];
        let own = Tensor::<3>::zeros([batch, 1, width], &features.device()) + self.own.val();
        let seen = self.encoder.forward(TransformerEncoderInput::new(Tensor::cat(vec![own, features], 1)));
        self.norm.forward(seen.narrow(1, 0, 1).reshape([batch, width]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> TokenEncoder {
        let config = TokenEncoderConfig { n_features: 3, width: 8, dropout: 0.0 };
        config.init(&FeatureStatistics::identity(3), &Device::flex()).unwrap()
    }

    fn said(model: &TokenEncoder, rows: [[f32; 3]; 2]) -> [Vec<f32>; 2] {
        let out: Vec<f32> = model.forward(Tensor::<2>::from_floats(rows, &Device::flex())).into_data().try_to_vec().unwrap();
        [out[..8].to_vec(), out[8..].to_vec()]
    }

    #[test]
    fn each_feature_and_each_absence_has_an_influence_and_examples_have_none() {
        let model = model();
        let [plain, _] = said(&model, [[0.5, -1.0, 2.0], [0.0; 3]]);
        let [again, other] = said(&model, [[0.5, -1.0, 2.0], [f32::NAN, 1.0, 1.0]]);
        assert_eq!(plain, again, "whatever the other example is");
        assert_ne!(plain, other);
        for k in 0..3 {
            let mut changed = [[0.5, -1.0, 2.0]; 2];
            changed[0][k] += 1.0;
            changed[1][k] = f32::NAN;
            let [moved, missing] = said(&model, changed);
            assert!(moved != plain && missing != plain && moved != missing, "feature {k}");
            // Missing is not the same as being at the mean.
            let mut mean = [[0.5, -1.0, 2.0]; 2];
            mean[0][k] = 0.0;
            assert_ne!(said(&model, mean)[0], missing, "feature {k}");
        }
    }

    #[test]
    fn tokens_have_no_order() {
        let model = model();
        let turned = |tokens: &Param<Tensor<3>>| {
            let t = tokens.val();
            Param::from_tensor(Tensor::cat(vec![t.clone().narrow(1, 1, 2), t.narrow(1, 0, 1)], 1))
        };
        let mut other = model.clone();
        (other.level, other.slope, other.missing) = (turned(&model.level), turned(&model.slope), turned(&model.missing));
        let ([a, _], [b, _]) = (said(&model, [[0.5, -1.0, 2.0]; 2]), said(&other, [[-1.0, 2.0, 0.5]; 2]));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} and {b:?}");
    }
}
