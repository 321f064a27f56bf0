//! Fusion by sums: side by side, gated, averaged, by experts.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

use super::{Masked, width_of_all};

/// [`super::FusionKind::Concat`]
#[derive(Module, Debug)]
pub struct Concat {
    mix: Linear,
}

impl Concat {
    pub(super) fn new(n_modalities: usize, width: usize, device: &Device) -> Self {
        Self { mix: LinearConfig::new(width_of_all(n_modalities, width), width).init(device) }
    }

    pub(super) fn forward(&self, masked: &Masked) -> Tensor<2> {
        activation::relu(self.mix.forward(masked.all()))
    }
}

/// [`super::FusionKind::Gated`]
#[derive(Module, Debug)]
pub struct Gated {
    gates: Vec<Linear>,
    mix: Linear,
}

impl Gated {
    pub(super) fn new(n_modalities: usize, width: usize, device: &Device) -> Self {
        let all = width_of_all(n_modalities, width);
        Self {
            gates: (0..n_modalities).map(|_| LinearConfig::new(all, width).init(device)).collect(),
            mix: LinearConfig::new(width + all, width).init(device),
        }
    }

    pub(super) fn forward(&self, masked: &Masked) -> Tensor<2> {
        let all = masked.all();
        let gates = self.gates.iter().map(|gate| activation::sigmoid(gate.forward(all.clone())));
        let gated = masked.embeddings.iter().zip(gates).map(|(embedding, gate)| embedding.clone() * gate);
        let parts = gated.reduce(|a, b| a + b).into_iter().chain([all]).collect();
        activation::relu(self.mix.forward(Tensor::cat(parts, 1)))
    }
}

/// [`super::FusionKind::Late`] and [`super::FusionKind::LateWeighted`]
#[derive(Module, Debug)]
pub struct Average {
    /// `[1, n]`: logarithms of the weights, where they are learnt.
    weights: Option<Param<Tensor<2>>>,
}

impl Average {
    pub(super) const fn even() -> Self {
        Self { weights: None }
    }

    pub(super) fn learnt(n_modalities: usize, device: &Device) -> Self {
        Self { weights: Some(Param::from_tensor(Tensor::zeros([1, n_modalities], device))) }
    }

    pub(super) fn forward(&self, masked: &Masked) -> Tensor<2> {
        let present = Tensor::cat(masked.present.clone(), 1);
        let weights = match &self.weights {
            Some(weights) => weights.val().exp() * present,
            None => present,
        };
        // Nobody there gives 0, and not a division by it.
        let total = weights.clone().sum_dim(1).clamp_min(1e-6);
        let weighted = masked.embeddings.iter().enumerate().map(|(k, embedding)| embedding.clone() * weights.clone().narrow(1, k, 1));
        sum(weighted) / total
    }
}

/// [`super::FusionKind::Experts`]
#[derive(Module, Debug)]
pub struct Experts {
    gate: Linear,
    experts: Vec<Linear>,
}

impl Experts {
    pub(super) fn new(n_modalities: usize, width: usize, device: &Device) -> Self {
        let all = width_of_all(n_modalities, width);
        // One a pattern of presence, up to eight.
        let n = 1 << n_modalities.min(3);
        Self { gate: LinearConfig::new(all, n).init(device), experts: (0..n).map(|_| LinearConfig::new(all, width).init(device)).collect() }
    }

    pub(super) fn forward(&self, masked: &Masked) -> Tensor<2> {
        let all = masked.all();
        let gate = activation::softmax(self.gate.forward(all.clone()), 1);
        let said = self.experts.iter().enumerate();
        sum(said.map(|(k, expert)| activation::relu(expert.forward(all.clone())) * gate.clone().narrow(1, k, 1)))
    }
}

/// Of at least one.
pub(super) fn sum(tensors: impl Iterator<Item = Tensor<2>>) -> Tensor<2> {
    tensors.reduce(|a, b| a + b).expect("at least one tensor")
}
