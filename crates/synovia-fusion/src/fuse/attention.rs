//! Fusion by attention over tokens.

use burn::module::{Module, Param};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Distribution, Tensor};

use super::Masked;

/// [`super::FusionKind::Attention`]
#[derive(Module, Debug)]
pub struct Attention {
    /// `[1, 1 + n, width]`: the example's token, then what tells one modality's token from another's.
    tokens: Param<Tensor<3>>,
    encoder: TransformerEncoder,
    norm: LayerNorm,
}

impl Attention {
    pub(super) fn new(n_modalities: usize, width: usize, device: &Device) -> Self {
        let tokens = Tensor::random([1, 1 + n_modalities, width], Distribution::Normal(0.0, 0.02), device);
        let n_heads = [4, 2, 1].into_iter().find(|n| width.is_multiple_of(*n)).unwrap_or(1);
        Self {
            tokens: Param::from_tensor(tokens),
            encoder: TransformerEncoderConfig::new(width, 2 * width, n_heads, 2).with_norm_first(true).with_dropout(0.0).init(device),
            norm: LayerNormConfig::new(width).init(device),
        }
    }

    pub(super) fn forward(&self, masked: &Masked) -> Tensor<2> {
        let [batch, width] = masked.embeddings[0].dims();
        let said: Vec<Tensor<3>> = masked.embeddings.iter().map(|embedding| embedding.clone().reshape([batch, 1, width])).collect();
        let absent = Tensor::cat(masked.present.clone(), 1).lower_elem(0.5);
        let own = Tensor::<2>::zeros([batch, 1], &absent.device()).greater_elem(0.5);
        let own_token = Tensor::<3>::zeros([batch, 1, width], &absent.device());
        let tokens = Tensor::cat([vec![own_token], said].concat(), 1) + self.tokens.val();
        let mask = Tensor::cat(vec![own, absent], 1);
        let seen = self.encoder.forward(TransformerEncoderInput::new(tokens).mask_pad(mask));
        self.norm.forward(seen.narrow(1, 0, 1).reshape([batch, width]))
    }
}
