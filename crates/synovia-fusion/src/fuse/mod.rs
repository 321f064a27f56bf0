//! From one embedding a modality to one embedding an example.
//!
//! A strategy is a module of its own; each sees embeddings that are 0 where the modality is absent, and the masks beside them; or, where
//! [`Absent`] says so, what stands in for them.

mod absent;
mod attention;
mod dense;
mod multiplicative;
mod shared;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use absent::{Absent, Fill};
pub use attention::{Attention, Bottleneck};
pub use dense::{Average, Concat, Experts, Gated};
pub use multiplicative::{Film, LowRank};
pub use shared::SharedPrivate;

/// How the modalities are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FusionKind {
    /// Side by side, then a dense layer.
    Concat,
    /// Each scaled by a gate that sees all of them (Arevalo et al. 2017, "Gated Multimodal Units").
    Gated,
    /// The mean of those that are present: with linear heads, the mean of what each would say alone.
    Late,
    /// As `Late`, by learnt weights.
    LateWeighted,
    /// The first, scaled and shifted by each of the others (Perez et al. 2018, "FiLM"; Pölsterl et al. 2021, "DAFT").
    Film,
    /// Their outer product, by factors of low rank (Liu et al. 2018, "Low-rank Multimodal Fusion").
    LowRank,
    /// A transformer over a token a modality and one for the example (Vaswani et al. 2017).
    Attention,
    /// Experts, mixed by what is present and what it says (Shazeer et al. 2017; by patterns of presence: Han et al. 2024,
    /// "FuseMoE").
    Experts,
    /// Transformers of one modality each that talk through a few tokens alone (Nagrani et al. 2021, "Attention Bottlenecks for
    /// Multimodal Fusion").
    Bottleneck,
    /// What all modalities say in common terms, averaged over those that are present, beside what each has for itself (Yao et al. 2024,
    /// "DrFuse"); the common terms can be held together ([`crate::jensen_shannon`]).
    SharedPrivate,
}

impl FusionKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Concat,
        Self::Gated,
        Self::Late,
        Self::LateWeighted,
        Self::Film,
        Self::LowRank,
        Self::Attention,
        Self::Experts,
        Self::Bottleneck,
        Self::SharedPrivate,
    ];
}

/// Fusion of any number of embeddings of one width, under presence masks.
#[derive(Module, Debug)]
pub enum Fusion {
    /// [`FusionKind::Concat`], and what any kind but the late ones is with a single modality.
    Concat(Concat),
    /// [`FusionKind::Gated`]
    Gated(Gated),
    /// [`FusionKind::Late`] and [`FusionKind::LateWeighted`]
    Late(Average),
    /// [`FusionKind::Film`]
    Film(Film),
    /// [`FusionKind::LowRank`]
    LowRank(LowRank),
    /// [`FusionKind::Attention`]
    Attention(Attention),
    /// [`FusionKind::Experts`]
    Experts(Experts),
    /// [`FusionKind::Bottleneck`]
    Bottleneck(Bottleneck),
    /// [`FusionKind::SharedPrivate`]
    SharedPrivate(SharedPrivate),
}

/// The modalities of a batch, those that are absent set to 0.
pub struct Masked {
    /// `[batch, width]` each.
    embeddings: Vec<Tensor<2>>,
    /// `[batch, 1]` each, 1 or 0.
    present: Vec<Tensor<2>>,
}

impl Masked {
    fn new(modalities: Vec<(Tensor<2>, Tensor<2>)>) -> Self {
        let (embeddings, present) = modalities.into_iter().map(|(embedding, present)| (embedding * present.clone(), present)).unzip();
        Self { embeddings, present }
    }

    /// The same with modality `m` hidden.
    fn without(&self, m: usize) -> Self {
        let hide = |all: &[Tensor<2>]| all.iter().enumerate().map(|(k, x)| if k == m { x.zeros_like() } else { x.clone() }).collect();
        Self { embeddings: hide(&self.embeddings), present: hide(&self.present) }
    }

    /// Embeddings and masks side by side: a layer must be able to tell "absent" from "all zero". `[batch, n × (width + 1)]`
    fn all(&self) -> Tensor<2> {
        let parts = self.embeddings.iter().zip(&self.present).flat_map(|(embedding, present)| [embedding.clone(), present.clone()]);
        Tensor::cat(parts.collect(), 1)
    }
}

/// Width of [`Masked::all`].
const fn width_of_all(n_modalities: usize, width: usize) -> usize {
    n_modalities * (width + 1)
}

impl Fusion {
    /// For `n_modalities` embeddings of `width`.
    pub fn new(kind: FusionKind, n_modalities: usize, width: usize, device: &Device) -> Self {
        if n_modalities < 2 && !matches!(kind, FusionKind::Late | FusionKind::LateWeighted) {
            return Self::Concat(Concat::new(n_modalities, width, device));
        }
        match kind {
            FusionKind::Concat => Self::Concat(Concat::new(n_modalities, width, device)),
            FusionKind::Gated => Self::Gated(Gated::new(n_modalities, width, device)),
            FusionKind::Late => Self::Late(Average::even()),
            FusionKind::LateWeighted => Self::Late(Average::learnt(n_modalities, device)),
            FusionKind::Film => Self::Film(Film::new(n_modalities, width, device)),
            FusionKind::LowRank => Self::LowRank(LowRank::new(n_modalities, width, device)),
            FusionKind::Attention => Self::Attention(Attention::new(n_modalities, width, device)),
            FusionKind::Experts => Self::Experts(Experts::new(n_modalities, width, device)),
            FusionKind::Bottleneck => Self::Bottleneck(Bottleneck::new(n_modalities, width, device)),
            FusionKind::SharedPrivate => Self::SharedPrivate(SharedPrivate::new(n_modalities, width, device)),
        }
    }

    /// # Shapes
    /// - modalities: for each, its embedding `[batch, width]` and its presence `[batch, 1]`, 1 or 0
    /// - returns `[batch, width]`
    pub fn forward(&self, modalities: Vec<(Tensor<2>, Tensor<2>)>) -> Tensor<2> {
        let masked = Masked::new(modalities);
        match self {
            Self::Concat(fusion) => fusion.forward(&masked),
            Self::Gated(fusion) => fusion.forward(&masked),
            Self::Late(fusion) => fusion.forward(&masked),
            Self::Film(fusion) => fusion.forward(&masked),
            Self::LowRank(fusion) => fusion.forward(&masked),
            Self::Attention(fusion) => fusion.forward(&masked),
            Self::Experts(fusion) => fusion.forward(&masked),
            Self::Bottleneck(fusion) => fusion.forward(&masked),
            Self::SharedPrivate(fusion) => fusion.forward(&masked),
        }
    }

    /// What each modality says in the terms that all share; `None` of a kind that has no such terms.
    ///
    /// # Shapes
    /// - modalities: as in [`Fusion::forward`]
    /// - returns `[batch, width]` a modality
    pub fn common(&self, modalities: Vec<(Tensor<2>, Tensor<2>)>) -> Option<Vec<Tensor<2>>> {
        match self {
            Self::SharedPrivate(fusion) => Some(fusion.common(&Masked::new(modalities))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    /// Three modalities of two examples; `absent` is what stands where a modality is absent.
    fn run(fusion: &Fusion, embeddings: &[Tensor<2>], present: [[f32; 2]; 3], absent: f32) -> Vec<f32> {
        let device = Device::flex();
        let modalities = embeddings.iter().zip(present).map(|(embedding, present)| {
            let present = Tensor::<1>::from_floats(present, &device).reshape([2, 1]);
            (embedding.clone() * present.clone() + (present.clone().neg() + 1.0) * absent, present)
        });
        fusion.forward(modalities.collect()).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn any_number_of_modalities_and_none() {
        let device = Device::flex();
        let embeddings: Vec<Tensor<2>> = (0..3).map(|_| Tensor::random([2, 8], Distribution::Uniform(0.5, 1.0), &device)).collect();
        for kind in FusionKind::ALL {
            let fusion = Fusion::new(kind, 3, 8, &device);
            let all = run(&fusion, &embeddings, [[1.0; 2]; 3], 0.0);
            assert_eq!(all.len(), 16);
            for k in 0..3 {
                let mut present = [[1.0; 2]; 3];
                present[k][0] = 0.0;
                let without = run(&fusion, &embeddings, present, 0.0);
                assert_eq!(without, run(&fusion, &embeddings, present, 9.0), "{kind:?}: what is absent has no influence");
                assert_ne!(without[..8], all[..8], "{kind:?}: modality {k} has an influence");
                assert_eq!(without[8..], all[8..], "{kind:?}: examples do not see each other");
            }
            let none = run(&fusion, &embeddings, [[0.0, 1.0]; 3], 5.0);
            assert!(none.iter().all(|value| value.is_finite()), "{kind:?}: {none:?}");
        }
    }

    #[test]
    fn late_is_the_mean_of_who_is_there() {
        let device = Device::flex();
        let of = |value: f32| Tensor::<2>::full([2, 1], value, &device);
        let embeddings = [of(1.0), of(2.0), of(6.0)];
        let late = Fusion::new(FusionKind::Late, 3, 1, &device);
        assert_eq!(run(&late, &embeddings, [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]], 0.0), [3.0, 3.5]);
        // Learnt weights start even.
        let weighted = Fusion::new(FusionKind::LateWeighted, 3, 1, &device);
        assert_eq!(run(&weighted, &embeddings, [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]], 0.0), [3.0, 3.5]);
    }
}
