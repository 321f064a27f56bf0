//! Fusion of what the modalities have in common and of what each has for itself.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

use super::{Masked, dense};

/// [`super::FusionKind::SharedPrivate`]
#[derive(Module, Debug)]
pub struct SharedPrivate {
    shared: Vec<Linear>,
    private: Vec<Linear>,
    mix: Linear,
}

impl SharedPrivate {
    pub(super) fn new(n_modalities: usize, width: usize, device: &Device) -> Self {
        let each = || (0..n_modalities).map(|_| LinearConfig::new(width, width).init(device)).collect();
        let (shared, private) = (each(), each());
        Self { shared, private, mix: LinearConfig::new((1 + n_modalities) * width + n_modalities, width).init(device) }
    }

    /// What each modality says in the terms that all share; of one that is absent it means nothing. `[batch, width]` each
    pub(super) fn common(&self, masked: &Masked) -> Vec<Tensor<2>> {
        self.shared.iter().zip(&masked.embeddings).map(|(layer, embedding)| layer.forward(embedding.clone())).collect()
    }

    pub(super) fn forward(&self, masked: &Masked) -> Tensor<2> {
        let there = || masked.present.iter().cloned();
        // Whoever is there speaks for all: the mean does not change where they agree.
        let n_there = dense::sum(there()).clamp_min(1.0);
        let common =
            dense::sum(self.common(masked).into_iter().zip(there()).map(|(said, present)| activation::relu(said) * present)) / n_there;
        let own = self.private.iter().zip(&masked.embeddings).zip(there());
        let own = own.map(|((layer, embedding), present)| activation::relu(layer.forward(embedding.clone())) * present);
        activation::relu(self.mix.forward(Tensor::cat(std::iter::once(common).chain(own).chain(there()).collect(), 1)))
    }
}
