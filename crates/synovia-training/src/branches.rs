//! What the modalities of a joint model learn from each other beside the joint loss.
//!
//! A branch is the joint model when it is shown one modality alone. Its towers have run for the joint loss already: a branch
//! costs a fusion and the heads. It knows no files and no balance of tasks.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use synovia_fusion::{JointModel, contrast, jensen_shannon};

use crate::losses::Forwarded;

/// What each part counts for beside the joint loss, which counts 1; 0 leaves it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Branches {
    /// Each branch's own loss on the known labels.
    pub own: f64,
    /// How far each branch is from what the joint model says of the same example, labelled or not: the joint model, which sees
    /// more, teaches each branch what its modality can know (Hinton et al. 2015; of modalities: Lopez-Paz et al. 2016,
    /// "Unifying distillation and privileged information").
    pub joint: f64,
    /// How badly the modalities of an example find each other among those of the batch ([`contrast`], by cosines).
    pub pairs: f64,
    /// How far apart the modalities of an example are in the terms that they share, where the fusion has such terms ([`jensen_shannon`]).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(weight: &f64) -> bool {
    *weight == 0.0
}

/// What cosines are divided by before the softmax; that of CLIP at its start.
const TEMPERATURE: f64 = 0.07;

impl Branches {
    /// Whether nothing is asked for.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an example without any label teaches something.
    pub(crate) const fn need_no_labels(&self) -> bool {
        self.joint > 0.0 || self.pairs > 0.0 || self.shared > 0.0
    }

    /// What is added to the joint loss, in the same units; `None` where nothing is.
    pub(crate) fn loss(&self, model: &JointModel, seen: &Forwarded<'_>, uninformed: &[f64]) -> Option<Tensor<1>> {
        let modalities = &seen.modalities;
        if self.is_none() || modalities.len() < 2 {
            return None;
        }
        let mut parts = Vec::new();
        if self.own > 0.0 || self.joint > 0.0 {
            let share = 1.0 / (modalities.len() * seen.losses.len()) as f64;
            for (m, (_, present)) in modalities.iter().enumerate() {
                let alone: Vec<bool> = (0..modalities.len()).map(|k| k == m).collect();
                for (k, logits) in model.shown(modalities, &alone).into_iter().enumerate() {
                    let (loss, share) = (&seen.losses[k], share / uninformed[k]);
                    if self.own > 0.0 {
                        let weight = loss.weight.clone() * present.clone();
                        parts.push(loss.kind.loss(logits.clone(), &loss.target, &weight).mul_scalar(self.own * share));
                    }
                    if self.joint > 0.0 {
                        let more = seen_with_others(modalities, m);
                        parts.push(loss.kind.distance(seen.logits[k].clone(), logits, more).mul_scalar(self.joint * share));
                    }
                }
            }
        }
        let pairs: Vec<(usize, usize)> = (0..modalities.len()).flat_map(|a| (0..a).map(move |b| (b, a))).collect();
        if self.shared > 0.0
            && let Some(common) = model.common(modalities)
        {
            for &(a, b) in &pairs {
                let both = modalities[a].1.clone() * modalities[b].1.clone();
                let loss = jensen_shannon(common[a].clone(), common[b].clone(), both);
                parts.push(loss.mul_scalar(self.shared / pairs.len() as f64));
            }
        }
        if self.pairs > 0.0 {
            for (a, b) in &pairs {
                let [(a, has_a), (b, has_b)] = [&modalities[*a], &modalities[*b]];
                let cosines = unit_rows(a.clone()).matmul(unit_rows(b.clone()).transpose());
                let loss = contrast(cosines.div_scalar(TEMPERATURE), has_a.clone() * has_b.clone());
                parts.push(loss.mul_scalar(self.pairs / pairs.len() as f64));
            }
        }
        parts.into_iter().reduce(|a, b| a + b)
    }
}

/// 1 where the example shows modality `m` and another one: where the joint model saw more than the branch. `[batch, 1]`
fn seen_with_others(modalities: &[(Tensor<2>, Tensor<2>)], m: usize) -> Tensor<2> {
    let others = modalities.iter().enumerate().filter(|(k, _)| *k != m).map(|(_, (_, present))| present.clone());
    let none = others.map(|present| present.neg() + 1.0).reduce(|a, b| a * b);
    let own = modalities[m].1.clone();
    match none {
        Some(none) => own * (none.neg() + 1.0),
        None => own.zeros_like(),
    }
}

/// Each row divided by its length.
fn unit_rows(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().powi_scalar(2).sum_dim(1).clamp_min(1e-12).sqrt();
    x / length
}
