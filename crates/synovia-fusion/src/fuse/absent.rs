//! What stands where a modality is absent.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Masked, width_of_all};

/// What stands where a modality is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// Nothing: its embedding is 0, and fusion is told that it is absent.
    #[default]
    Mask,
    /// A learnt embedding, the same for all.
    Token,
    /// An embedding that a dense layer makes of those that are there (as in Wang et al. 2023, "ShaSpec").
    Reconstruct,
}

impl Absent {
    /// Whether it is [`Absent::Mask`].
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub fn is_mask(&self) -> bool {
        *self == Self::Mask
    }
}

/// Puts something in the place of modalities that are absent; fusion takes it for what was there.
#[derive(Module, Debug)]
pub struct Fill {
    /// A modality each.
    tokens: Vec<Param<Tensor<1>>>,
    /// A modality each: from all, itself hidden.
    layers: Vec<Linear>,
}

impl Fill {
    /// For `n_modalities` embeddings of `width`; `None` where nothing is filled.
    pub fn new(absent: Absent, n_modalities: usize, width: usize, device: &Device) -> Option<Self> {
        if n_modalities < 2 {
            return None;
        }
        let layer = |_| LinearConfig::new(width_of_all(n_modalities, width), width).init(device);
        match absent {
            Absent::Mask => None,
            Absent::Token => {
                let token = |_| Param::from_tensor(Tensor::zeros([width], device));
                Some(Self { tokens: (0..n_modalities).map(token).collect(), layers: Vec::new() })
            }
            Absent::Reconstruct => Some(Self { tokens: Vec::new(), layers: (0..n_modalities).map(layer).collect() }),
        }
    }

    /// # Shapes
    /// - modalities: for each, its embedding `[batch, width]` and its presence `[batch, 1]`, 1 or 0
    /// - returns the same, all of them present
    pub fn forward(&self, modalities: Vec<(Tensor<2>, Tensor<2>)>) -> Vec<(Tensor<2>, Tensor<2>)> {
        let masked = Masked::new(modalities);
        let filled = |m: usize| {
            let (embedding, present) = (masked.embeddings[m].clone(), masked.present[m].clone());
            let missing = present.clone().neg() + 1.0;
            let stand_in = match self.tokens.get(m) {
                Some(token) => missing.matmul(token.val().unsqueeze()),
                None => self.layers[m].forward(masked.without(m).all()) * missing,
            };
            (embedding + stand_in, present.ones_like())
        };
        (0..masked.embeddings.len()).map(filled).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_and_what_is_not_is_filled() {
        let device = Device::flex();
        let column = |values: [f32; 2]| Tensor::<1>::from_floats(values, &device).reshape([2, 1]);
        let values = |x: &Tensor<2>| -> Vec<f32> { x.clone().into_data().try_to_vec().unwrap() };
        for absent in [Absent::Token, Absent::Reconstruct] {
            device.seed(5);
            let mut fill = Fill::new(absent, 2, 3, &device).unwrap();
            for token in &mut fill.tokens {
                *token = Param::from_tensor(Tensor::from_floats([1.0, 2.0, 3.0], &device));
            }
            // The second example has no record, whatever stands there.
            let of = |record: f32, image: f32| {
                let image = (Tensor::<2>::full([2, 3], image, &device), column([1.0, 1.0]));
                fill.forward(vec![image, (Tensor::full([2, 3], record, &device), column([1.0, 0.0]))])
            };
            let filled = of(7.0, 0.5);
            assert_eq!(values(&filled[0].0), [0.5; 6]);
            assert_eq!(values(&filled[1].0)[..3], [7.0; 3]);
            let second = &values(&filled[1].0)[3..];
            assert!(filled.iter().all(|(_, present)| values(present) == [1.0, 1.0]));
            assert_eq!(&values(&of(9.0, 0.5)[1].0)[3..], second, "{absent:?}: what is absent has no influence");
            let from_others = values(&of(7.0, -0.5)[1].0)[3..] != *second;
            assert_eq!(from_others, absent == Absent::Reconstruct);
            if absent == Absent::Token {
                assert_eq!(second, [1.0, 2.0, 3.0]);
            }
        }
        assert!(Fill::new(Absent::Mask, 2, 3, &device).is_none() && Fill::new(Absent::Token, 1, 3, &device).is_none());
    }
}
