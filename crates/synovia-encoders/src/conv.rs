//! Convolution, batch normalisation and activation as one unit.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor, activation};

use crate::EncoderError;

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
}

/// `relu(batch_norm(conv(x)))`: the one unit that image towers are built of, so that a fused kernel can take its place.
///
/// The convolution has no bias (batch normalisation has one) and starts from He et al. (2015), normal, by fan out.
#[derive(Module, Debug)]
pub struct ConvNormAct {
    conv: Conv2d,
    norm: BatchNorm,
    relu: bool,
}

impl ConvNormActConfig {
    /// Makes the unit on `device`.
    ///
    /// # Errors
    /// [`EncoderError::Zero`] for a size of 0.
    pub fn init(&self, device: &Device) -> Result<ConvNormAct, EncoderError> {
        for (size, what) in
            [(self.channels_in, "channels in"), (self.channels_out, "channels out"), (self.kernel, "kernel"), (self.stride, "stride")]
        {
            if size == 0 {
                return Err(EncoderError::Zero { what });
            }
        }
        let pad = self.kernel / 2;
        let conv = Conv2dConfig::new([self.channels_in, self.channels_out], [self.kernel; 2])
            .with_stride([self.stride; 2])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .with_initializer(Initializer::KaimingNormal { gain: std::f64::consts::SQRT_2, fan_out_only: true })
            .init(device);
        Ok(ConvNormAct { conv, norm: BatchNormConfig::new(self.channels_out).init(device), relu: self.relu })
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
}
