//! Fusion by products.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

use super::{Masked, width_of_all};

/// [`super::FusionKind::Film`]
#[derive(Module, Debug)]
pub struct Film {
    /// For each modality but the first: scale and shift of it.
    modulators: Vec<Linear>,
    mix: Linear,
}

impl Film {
    pub(super) fn new(n_modalities: usize, width: usize, device: &Device) -> Self {
        Self {
            modulators: (1..n_modalities).map(|_| LinearConfig::new(width, 2 * width).init(device)).collect(),
            mix: LinearConfig::new(width + width_of_all(n_modalities, width), width).init(device),
        }
    }

    pub(super) fn forward(&self, masked: &Masked) -> Tensor<2> {
        let (first, width) = (&masked.embeddings[0], masked.embeddings[0].dims()[1]);
        let mut modulated = first.clone();
        for ((modulator, embedding), present) in self.modulators.iter().zip(&masked.embeddings[1..]).zip(&masked.present[1..]) {
            // An absent modality changes nothing: its layer's bias does not count either.
            let by = modulator.forward(embedding.clone()) * present.clone();
            modulated = modulated + first.clone() * by.clone().narrow(1, 0, width) + by.narrow(1, width, width);
        }
        activation::relu(self.mix.forward(Tensor::cat(vec![modulated, masked.all()], 1)))
    }
}

/// [`super::FusionKind::LowRank`]
#[derive(Module, Debug)]
pub struct LowRank {
    factors: Vec<Linear>,
    mix: Linear,
}

/// Rank of the tensor; the paper's experiments find 4 to be enough.
const RANK: usize = 4;

impl LowRank {
    pub(super) fn new(n_modalities: usize, width: usize, device: &Device) -> Self {
        Self {
            factors: (0..n_modalities).map(|_| LinearConfig::new(width, RANK * width).init(device)).collect(),
            mix: LinearConfig::new(width + n_modalities, width).init(device),
        }
    }

    pub(super) fn forward(&self, masked: &Masked) -> Tensor<2> {
        let [batch, width] = masked.embeddings[0].dims();
        // 1 + what the modality says: the paper's appended 1. An absent modality is the 1 alone.
        let factors = self
            .factors
            .iter()
            .zip(&masked.embeddings)
            .zip(&masked.present)
            .map(|((factor, embedding), present)| factor.forward(embedding.clone()) * present.clone() + 1.0);
        let product = factors.reduce(|a, b| a * b).map(|product| product.reshape([batch, RANK, width]).mean_dim(1).reshape([batch, width]));
        let parts = product.into_iter().chain(masked.present.iter().cloned()).collect();
        activation::relu(self.mix.forward(Tensor::cat(parts, 1)))
    }
}
