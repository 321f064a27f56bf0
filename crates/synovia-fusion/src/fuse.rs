//! From one embedding a modality to one embedding an example.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};
use serde::{Deserialize, Serialize};

/// How the modalities are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FusionKind {
    /// Side by side, then a dense layer.
    Concat,
    /// Each scaled by a gate that sees all of them (Arevalo et al. 2017, "Gated Multimodal Units").
    Gated,
}

/// Fusion of any number of embeddings of one width, under presence masks.
#[derive(Module, Debug)]
pub struct Fusion {
    gates: Vec<Linear>,
    mix: Linear,
}

impl Fusion {
    /// For `n_modalities` embeddings of `width`.
    pub fn new(kind: FusionKind, n_modalities: usize, width: usize, device: &Device) -> Self {
        // Embeddings and masks side by side: a gate must be able to tell "absent" from "all zero".
        let all = n_modalities * (width + 1);
        let gates = match kind {
            FusionKind::Gated if n_modalities > 1 => (0..n_modalities).map(|_| LinearConfig::new(all, width).init(device)).collect(),
            _ => Vec::new(),
        };
        let mixed = if gates.is_empty() { all } else { width + all };
        Self { gates, mix: LinearConfig::new(mixed, width).init(device) }
    }

    /// # Shapes
    /// - modalities: for each, its embedding `[batch, width]` and its presence `[batch, 1]`, 1 or 0
    /// - returns `[batch, width]`
    pub fn forward(&self, modalities: Vec<(Tensor<2>, Tensor<2>)>) -> Tensor<2> {
        let mut parts = Vec::with_capacity(2 * modalities.len());
        let mut masked = Vec::with_capacity(modalities.len());
        for (embedding, present) in modalities {
            let embedding = embedding * present.clone();
            masked.push(embedding.clone());
            parts.push(embedding);
            parts.push(present);
        }
        let all = Tensor::cat(parts, 1);
        let mixed = if self.gates.is_empty() {
            all
        } else {
            let gated = masked
                .into_iter()
                .zip(&self.gates)
                .map(|(embedding, gate)| embedding * activation::sigmoid(gate.forward(all.clone())))
                .reduce(|a, b| a + b);
            match gated {
                Some(gated) => Tensor::cat(vec![gated, all], 1),
                None => all,
            }
        };
        activation::relu(self.mix.forward(mixed))
    }
}
