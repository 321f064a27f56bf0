//! A volume by its slices: one tower for all of them, and attention that says how much each counts (Ilse, Tomczak & Welling 2018,
//! "Attention-based deep multiple instance learning", the gated form, equation 9).

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

use crate::{EncoderError, at_least_one};

/// From an embedding a slice to one a volume.
#[derive(Module, Debug)]
pub struct SlicePool {
    /// Slices of a volume.
    n: usize,
    value: Linear,
    gate: Linear,
    score: Linear,
}

/// Widest layer between an embedding and its score; that of the paper.
const WIDEST: usize = 128;

/// Settings of a [`SlicePool`].
#[derive(Clone, Copy, Debug)]
pub struct SlicePoolConfig {
    /// Slices of a volume.
    pub n: usize,
    /// Width of a slice's embedding.
    pub width: usize,
}

impl SlicePoolConfig {
    /// Makes it on `device`.
    ///
    /// # Errors
    /// [`EncoderError::Zero`] for a size of 0.
    pub fn init(&self, device: &Device) -> Result<SlicePool, EncoderError> {
        let Self { n, width } = *self;
        at_least_one(&[(n, "slices"), (width, "width")])?;
        let hidden = width.min(WIDEST);
        let layer = || LinearConfig::new(width, hidden).init(device);
        Ok(SlicePool { n, value: layer(), gate: layer(), score: LinearConfig::new(hidden, 1).with_bias(false).init(device) })
    }
}

impl SlicePool {
    /// # Panics
    /// Where there is another number of slices.
    ///
    /// # Shapes
    /// - volumes: `[batch, n, height, width]`
    /// - returns `[batch × n, 1, height, width]`, the slices of a volume one after the other
    pub fn apart(&self, volumes: Tensor<4>) -> Tensor<4> {
        let [batch, _, height, width] = volumes.dims();
        volumes.reshape([batch * self.n, 1, height, width])
    }

    /// # Shapes
    /// - slices: `[batch × n, width]`
    /// - returns `[batch, width]`
    pub fn forward(&self, slices: Tensor<2>) -> Tensor<2> {
        let (embeddings, weights) = self.weighed(slices);
        let [batch, _, width] = embeddings.dims();
        (embeddings * weights).sum_dim(1).reshape([batch, width])
    }

    /// Embeddings `[batch, n, width]`, and what each counts for, `[batch, n, 1]`, together 1.
    fn weighed(&self, slices: Tensor<2>) -> (Tensor<3>, Tensor<3>) {
        let [rows, width] = slices.dims();
        let embeddings = slices.reshape([rows / self.n, self.n, width]);
        let said = self.value.forward(embeddings.clone()).tanh() * activation::sigmoid(self.gate.forward(embeddings.clone()));
        let weights = activation::softmax(self.score.forward(said), 1);
        (embeddings, weights)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, TensorData};

    use super::*;

    #[test]
    fn slices_have_no_order_and_volumes_do_not_mix() {
        let device = Device::flex();
        device.seed(4);
        let pool = SlicePoolConfig { n: 3, width: 5 }.init(&device).unwrap();
        let slices = Tensor::<2>::random([6, 5], Distribution::Normal(0.0, 1.0), &device);
        let said = |slices: Tensor<2>| pool.forward(slices).into_data().try_to_vec::<f32>().unwrap();
        let whole = said(slices.clone());
        let turned = Tensor::cat(vec![slices.clone().narrow(0, 2, 1), slices.clone().narrow(0, 0, 2), slices.clone().narrow(0, 3, 3)], 0);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(&said(turned), &whole), "another order of the first volume's slices");
        assert!(near(&said(slices.clone().narrow(0, 3, 3)), &whole[5..]), "the second volume by itself");
        // Slices that are alike count alike; what they say is what one of them says.
        let one = slices.clone().narrow(0, 1, 1);
        let alike: Vec<f32> = one.clone().into_data().try_to_vec().unwrap();
        assert!(near(&said(one.repeat_dim(0, 3)), &alike));
        let (_, weights) = pool.weighed(slices);
        let weights: Vec<f32> = weights.into_data().try_to_vec().unwrap();
        assert!(weights.chunks(3).all(|of| (of.iter().sum::<f32>() - 1.0).abs() < 1e-6), "{weights:?}");
        assert!(weights[..3].iter().any(|weight| (weight - 1.0 / 3.0).abs() > 1e-3), "{weights:?}");
    }

    #[test]
    fn slices_stay_with_their_volume() {
        let device = Device::flex();
        let values: Vec<f32> = (0..24u8).map(f32::from).collect();
        let volumes = Tensor::<4>::from_data(TensorData::new(values.clone(), [2, 3, 2, 2]), &device);
        let apart = SlicePoolConfig { n: 3, width: 4 }.init(&device).unwrap().apart(volumes);
        assert_eq!(apart.dims(), [6, 1, 2, 2]);
        assert_eq!(SlicePoolConfig { n: 0, width: 4 }.init(&device).err(), Some(EncoderError::Zero { what: "slices" }));
        assert_eq!(apart.into_data().try_to_vec::<f32>().unwrap(), values);
    }
}
