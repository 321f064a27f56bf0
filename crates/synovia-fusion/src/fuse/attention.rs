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
        Self { tokens: Param::from_tensor(tokens), encoder: encoder(width, 2, device), norm: LayerNormConfig::new(width).init(device) }
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

/// Tokens through which the modalities talk to each other; the paper finds 4 to be enough.
const N_BOTTLENECK: usize = 4;
const N_LAYERS: usize = 2;

/// [`super::FusionKind::Bottleneck`]
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// `[1, n, width]`
    tokens: Param<Tensor<3>>,
    /// For each layer one a modality.
    encoders: Vec<TransformerEncoder>,
    norm: LayerNorm,
}

impl Bottleneck {
    pub(super) fn new(n_modalities: usize, width: usize, device: &Device) -> Self {
        let tokens = Tensor::random([1, N_BOTTLENECK, width], Distribution::Normal(0.0, 0.02), device);
        Self {
            tokens: Param::from_tensor(tokens),
            encoders: (0..N_LAYERS * n_modalities).map(|_| encoder(width, 1, device)).collect(),
            norm: LayerNormConfig::new(width).init(device),
        }
    }

    pub(super) fn forward(&self, masked: &Masked) -> Tensor<2> {
        let [batch, width] = masked.embeddings[0].dims();
        let n_modalities = masked.embeddings.len();
        let present = Tensor::cat(masked.present.clone(), 1);
        let n_there = present.clone().sum_dim(1);
        let shares = (present / n_there.clone().clamp_min(1.0)).reshape([batch, n_modalities, 1]);
        let nobody = (n_there.neg() + 1.0).clamp_min(0.0).reshape([batch, 1, 1]);
        let mut said: Vec<Tensor<3>> = masked.embeddings.iter().map(|embedding| embedding.clone().reshape([batch, 1, width])).collect();
        let mut between = Tensor::<3>::zeros([batch, N_BOTTLENECK, width], &shares.device()) + self.tokens.val();
        for layer in self.encoders.chunks(n_modalities) {
            // Each modality sees itself and the bottleneck; the next layer's is the mean of what those who are there made of it.
            let mut next = between.clone() * nobody.clone();
            for (m, (encoder, said)) in layer.iter().zip(&mut said).enumerate() {
                let seen = encoder.forward(TransformerEncoderInput::new(Tensor::cat(vec![said.clone(), between.clone()], 1)));
                *said = seen.clone().narrow(1, 0, 1);
                next = next + seen.narrow(1, 1, N_BOTTLENECK) * shares.clone().narrow(1, m, 1);
            }
            between = next;
        }
        self.norm.forward(between.mean_dim(1).reshape([batch, width]))
    }
}

fn encoder(width: usize, n_layers: usize, device: &Device) -> TransformerEncoder {
    let n_heads = [4, 2, 1].into_iter().find(|n| width.is_multiple_of(*n)).unwrap_or(1);
    TransformerEncoderConfig::new(width, 2 * width, n_heads, n_layers).with_norm_first(true).with_dropout(0.0).init(device)
}
