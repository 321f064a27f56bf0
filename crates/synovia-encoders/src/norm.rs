//! Normalisation of activations: over the batch, or within each example.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// What activations are normalised over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// The batch, and running statistics afterwards (Ioffe & Szegedy 2015).
    #[default]
    Batch,
    /// Groups of channels within each example (Wu & He 2018): no example has a part in what becomes of another, so that
    /// gradients can be made private, and sites of a federation share no statistics.
    Group,
}

/// Channels of a group, where they divide into such.
const GROUP: usize = 16;

/// One normalisation with scale and shift.
#[derive(Module, Debug)]
pub struct Norm {
    batch: Option<BatchNorm>,
    group: Option<GroupNorm>,
}

impl Norm {
    pub(crate) fn new(kind: NormKind, channels: usize, device: &Device) -> Self {
        match kind {
            NormKind::Batch => Self { batch: Some(BatchNormConfig::new(channels).init(device)), group: None },
            NormKind::Group => {
                let groups = if channels.is_multiple_of(GROUP) { channels / GROUP } else { 1 };
                Self { batch: None, group: Some(GroupNormConfig::new(groups, channels).init(device)) }
            }
        }
    }

    /// # Shapes
    /// - x: `[batch, channels, …]`
    /// - returns the same
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match (&self.batch, &self.group) {
            (Some(norm), _) => norm.forward(x),
            (None, Some(norm)) => norm.forward(x),
            (None, None) => x,
        }
    }

    /// The normalisation over the batch, where it is one.
    pub(crate) const fn batch(&self) -> Option<&BatchNorm> {
        self.batch.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, TensorData};

    use super::*;

    #[test]
    fn group_normalisation_looks_at_each_example_alone() {
        let device = Device::flex();
        let norm = Norm::new(NormKind::Group, 32, &device);
        let x = Tensor::<3>::random([4, 32, 5], Distribution::Normal(3.0, 2.0), &device);
        let all: Vec<f32> = norm.forward(x.clone()).into_data().try_to_vec().unwrap();
        let third: Vec<f32> = norm.forward(x.narrow(0, 2, 1)).into_data().try_to_vec().unwrap();
        assert_eq!(all[2 * 160..3 * 160], third[..]);
        // Two groups of 16 channels of 5 values: each of mean 0 and variance 1.
        for group in all.chunks(80) {
            let mean = group.iter().sum::<f32>() / 80.0;
            let variance = group.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 80.0;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-3, "{mean}, {variance}");
        }
        let one = Norm::new(NormKind::Group, 6, &device);
        let row = Tensor::<2>::from_data(TensorData::new(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [1, 6]), &device);
        let of_row: Vec<f32> = one.forward(row).into_data().try_to_vec().unwrap();
        assert!((of_row[0] + 2.5 / 2.916_666_7f32.sqrt()).abs() < 1e-4, "{of_row:?}");
    }
}
