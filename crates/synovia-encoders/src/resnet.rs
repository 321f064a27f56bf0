//! ResNet-18 (He et al. 2016, "Deep Residual Learning for Image Recognition", table 1).

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::{Device, Tensor, activation};

use crate::{ConvNormAct, ConvNormActConfig, EncoderError};

/// Settings of a [`ResNet18`].
#[derive(Clone, Copy, Debug)]
pub struct ResNet18Config {
    /// Channels of the image: 1 for grey.
    pub channels: usize,
    /// Channels of the first stage; the next ones have 2, 4 and 8 times as many. 64 in the paper.
    pub width: usize,
}

/// Two 3 × 3 units and a shortcut, projected where the shape changes.
#[derive(Module, Debug)]
pub struct BasicBlock {
    first: ConvNormAct,
    second: ConvNormAct,
    shortcut: Option<ConvNormAct>,
}

/// The tower: stem, four stages of two blocks, global average.
#[derive(Module, Debug)]
pub struct ResNet18 {
    stem: ConvNormAct,
    pool: MaxPool2d,
    blocks: Vec<BasicBlock>,
}

impl ResNet18Config {
    /// Width of the embedding.
    pub const fn embedding(&self) -> usize {
        self.width * 8
    }

    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError::Zero`] for a width or a number of channels of 0.
    pub fn init(&self, device: &Device) -> Result<ResNet18, EncoderError> {
        let unit = |channels_in, channels_out, kernel, stride, relu| {
            ConvNormActConfig { channels_in, channels_out, kernel, stride, relu }.init(device)
        };
        let stem = unit(self.channels, self.width, 7, 2, true)?;
        let mut blocks = Vec::with_capacity(8);
        let mut channels_in = self.width;
        for stage in 0..4 {
            let channels_out = self.width << stage;
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let projected = stride != 1 || channels_in != channels_out;
                blocks.push(BasicBlock {
                    first: unit(channels_in, channels_out, 3, stride, true)?,
                    second: unit(channels_out, channels_out, 3, 1, false)?,
                    shortcut: if projected { Some(unit(channels_in, channels_out, 1, stride, false)?) } else { None },
                });
                channels_in = channels_out;
            }
        }
        let pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init();
        Ok(ResNet18 { stem, pool, blocks })
    }
}

impl BasicBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = self.shortcut.as_ref().map_or_else(|| x.clone(), |unit| unit.forward(x.clone()));
        activation::relu(self.second.forward(self.first.forward(x)) + shortcut)
    }
}

impl ResNet18 {
    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]
    /// - returns `[batch, 8 × width]`
    pub fn forward(&self, image: Tensor<4>) -> Tensor<2> {
        // Pixels in [0, 1] are centred; the stem's batch normalisation takes care of the scale.
        let x = self.pool.forward(self.stem.forward(image.sub_scalar(0.5)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let [batch, channels, height, width] = x.dims();
        x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_parameters_as_torchvision() {
        // torchvision.models.resnet18 has 11 689 512; without fc (512 × 1000 + 1000) and with one input channel instead of
        // three (2 × 64 × 49 fewer) 11 170 240. Running statistics (two a channel of each of the 20 norms: 9 600) are
        // buffers there and visited as parameters here.
        let model = ResNet18Config { channels: 1, width: 64 }.init(&Device::flex()).unwrap();
        assert_eq!(model.num_params(), 11_170_240 + 9_600);
    }

    #[test]
    fn odd_sizes_and_small_batches() {
        let device = Device::flex();
        let model = ResNet18Config { channels: 2, width: 4 }.init(&device).unwrap();
        for (batch, side) in [(1, 33), (3, 64)] {
            let out = model.forward(Tensor::zeros([batch, 2, side, side + 7], &device));
            assert_eq!(out.dims(), [batch, 32]);
        }
        assert_eq!(ResNet18Config { channels: 1, width: 0 }.init(&device).unwrap_err(), EncoderError::Zero { what: "channels out" });
    }
}
