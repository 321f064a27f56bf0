//! Convolution, normalisation and activation as one unit.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData, activation};
use synovia_kernels::{Parameters, UnitShape, UnitStatistics};

use crate::{EncoderError, Norm, NormKind, at_least_one};

/// Settings of a [`ConvNormAct`].
#[derive(Clone, Copy, Debug)]
pub struct ConvNormActConfig {
    /// Channels in.
    pub channels_in: usize,
    /// Channels out.
    pub channels_out: usize,
    /// Side of the square kernel; it is padded by `kernel / 2`.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Whether a ReLU follows.
    pub relu: bool,
    /// What activations are normalised over.
    pub norm: NormKind,
}

/// `relu(norm(conv(x)))`: the one unit that image towers are built of.
///
/// [`ConvNormAct::forward`] is burn's own operations. A tower of batch normalisations whose units are on the CPU is computed as a
/// whole by `synovia-kernels`, from the same parameters.
///
/// The convolution has no bias (the normalisation has one) and starts from He et al. (2015), normal, by fan out.
#[derive(Module, Debug)]
pub struct ConvNormAct {
    conv: Conv2d,
    norm: Norm,
    relu: bool,
}

impl ConvNormActConfig {
    /// Makes the unit on `device`.
    ///
    /// # Errors
    /// [`EncoderError::Zero`] for a size of 0.
    pub fn init(&self, device: &Device) -> Result<ConvNormAct, EncoderError> {
        at_least_one(&[
            (self.channels_in, "channels in"),
            (self.channels_out, "channels out"),
            (self.kernel, "kernel"),
            (self.stride, "stride"),
        ])?;
        let conv = convolution(self.channels_in, self.channels_out, self.kernel, self.stride, device);
        Ok(ConvNormAct { conv, norm: Norm::new(self.norm, self.channels_out, device), relu: self.relu })
    }
}

fn convolution(channels_in: usize, channels_out: usize, kernel: usize, stride: usize, device: &Device) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new([channels_in, channels_out], [kernel; 2])
        .with_stride([stride; 2])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .with_initializer(Initializer::KaimingNormal { gain: std::f64::consts::SQRT_2, fan_out_only: true })
        .init(device)
}

/// Settings of a [`NormActConv`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormActConvConfig {
    pub channels_in: usize,
    pub channels_out: usize,
    /// Side of the square kernel; it is padded by `kernel / 2`.
    pub kernel: usize,
    pub norm: NormKind,
}

/// `conv(relu(norm(x)))`: the order of densely connected networks. By burn's own operations.
#[derive(Module, Debug)]
pub struct NormActConv {
    norm: Norm,
    conv: Conv2d,
}

impl NormActConvConfig {
    /// # Errors
    /// [`EncoderError::Zero`] for a size of 0.
    pub fn init(&self, device: &Device) -> Result<NormActConv, EncoderError> {
        at_least_one(&[(self.channels_in, "channels in"), (self.channels_out, "channels out"), (self.kernel, "kernel")])?;
        let conv = convolution(self.channels_in, self.channels_out, self.kernel, 1, device);
        Ok(NormActConv { norm: Norm::new(self.norm, self.channels_in, device), conv })
    }
}

impl NormActConv {
    /// # Shapes
    /// - x: `[batch, channels_in, height, width]`
    /// - returns `[batch, channels_out, height, width]`
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(activation::relu(self.norm.forward(x)))
    }
}

impl ConvNormAct {
    /// # Shapes
    /// - x: `[batch, channels_in, height, width]`
    /// - returns `[batch, channels_out, ceil(height / stride), ceil(width / stride)]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.norm.forward(self.conv.forward(x));
        if self.relu { activation::relu(x) } else { x }
    }

    /// Its sizes.
    pub(crate) fn shape(&self) -> UnitShape {
        let [channels_out, channels_in, kernel, _] = self.conv.weight.dims();
        UnitShape { channels_in, channels_out, kernel, stride: self.conv.stride[0] }
    }

    /// Its tensors, for the kernels; `None` where it does not normalise over the batch, which they are not made for.
    pub(crate) fn parameters(&self) -> Option<Parameters> {
        let BatchNorm { gamma, beta, epsilon, .. } = self.norm.batch()?;
        Some(Parameters { weight: self.conv.weight.val(), gamma: gamma.val(), beta: beta.val(), epsilon: *epsilon })
    }

    /// Whether it takes part in training, and so normalises by the batch.
    pub(crate) fn is_trained(&self) -> bool {
        self.norm.batch().is_some_and(|norm| norm.training.is_enabled())
    }

    /// Running mean and variance.
    pub(crate) fn running(&self) -> Option<[Tensor<1>; 2]> {
        let norm = self.norm.batch()?;
        Some([norm.running_mean.value(), norm.running_var.value()])
    }

    /// Moves the running statistics towards a batch's, as [`BatchNorm::forward`] does.
    pub(crate) fn update_running(&self, batch: &UnitStatistics, device: &Device) {
        let Some(norm) = self.norm.batch() else { return };
        let momentum = norm.momentum as f32;
        for (state, batch) in [(&norm.running_mean, &batch.mean), (&norm.running_var, &batch.variance)] {
            let mut values = state.value_sync().into_data().convert::<f32>().try_to_vec::<f32>().unwrap_or_default();
            for (value, batch) in values.iter_mut().zip(batch) {
                *value = *value * (1.0 - momentum) + batch * momentum;
            }
            let shape = [values.len()];
            state.update(Tensor::from_data(TensorData::new(values, shape), device));
        }
    }
}
