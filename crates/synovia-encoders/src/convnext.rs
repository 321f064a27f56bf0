//! ConvNeXt-Tiny (Liu et al. 2022, "A ConvNet for the 2020s", section 2). Without stochastic depth: what it keeps from being learnt by
//! heart, the dropout of the embedding does here.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, activation};

use crate::{EncoderError, at_least_one};

/// Blocks of each stage.
const BLOCKS: [usize; 4] = [3, 3, 9, 3];
/// Side of a block's kernel.
const KERNEL: usize = 7;
/// What a block adds is multiplied with at first.
const FIRST_SCALE: f64 = 1e-6;

/// Settings of a [`ConvNeXt`].
#[derive(Clone, Copy, Debug)]
pub struct ConvNeXtConfig {
    /// Channels of the image: 1 for grey.
    pub channels: usize,
    /// Channels of the first stage; 96 in the paper.
    pub width: usize,
}

/// Each channel by itself, then each place by itself; added to what came in.
#[derive(Module, Debug)]
pub struct ConvNeXtBlock {
    conv: Conv2d,
    norm: LayerNorm,
    expand: Linear,
    shrink: Linear,
    /// `[channels]`: no matrix, so that nothing decays it.
    scale: Param<Tensor<1>>,
}

/// A convolution whose places do not overlap, and a normalisation: after it in the stem, before it between stages.
#[derive(Module, Debug)]
pub struct ConvNeXtPatches {
    conv: Conv2d,
    norm: LayerNorm,
}

/// The tower: stem, four stages with fewer places and more channels each, global average, normalisation.
#[derive(Module, Debug)]
pub struct ConvNeXt {
    stem: ConvNeXtPatches,
    blocks: Vec<ConvNeXtBlock>,
    downs: Vec<ConvNeXtPatches>,
    norm: LayerNorm,
}

/// Of the paper, appendix A.1 (there cut at two standard deviations; biases, which burn draws with the weights, are 0 there).
const INITIAL: Initializer = Initializer::Normal { mean: 0.0, std: 0.02 };

fn patches(channels_in: usize, channels_out: usize, side: usize, normed: usize, device: &Device) -> ConvNeXtPatches {
    let conv = Conv2dConfig::new([channels_in, channels_out], [side, side]).with_stride([side, side]).with_initializer(INITIAL);
    ConvNeXtPatches { conv: conv.init(device), norm: norm(normed, device) }
}

fn norm(channels: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(channels).with_epsilon(1e-6).init(device)
}

fn block(channels: usize, device: &Device) -> ConvNeXtBlock {
    let conv = Conv2dConfig::new([channels, channels], [KERNEL, KERNEL])
        .with_groups(channels)
        .with_padding(PaddingConfig2d::Explicit(KERNEL / 2, KERNEL / 2, KERNEL / 2, KERNEL / 2))
        .with_initializer(INITIAL);
    let linear = |from, to| LinearConfig::new(from, to).with_initializer(INITIAL).init(device);
    ConvNeXtBlock {
        conv: conv.init(device),
        norm: norm(channels, device),
        expand: linear(channels, 4 * channels),
        shrink: linear(4 * channels, channels),
        scale: Param::from_tensor(Tensor::full([channels], FIRST_SCALE, device)),
    }
}

impl ConvNeXtConfig {
    /// Width of the embedding.
    pub const fn embedding(&self) -> usize {
        self.width << (BLOCKS.len() - 1)
    }

    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError::Zero`] for a size of 0.
    pub fn init(&self, device: &Device) -> Result<ConvNeXt, EncoderError> {
        at_least_one(&[(self.channels, "channels"), (self.width, "width")])?;
        let channels = |stage: usize| self.width << stage;
        let blocks = (0..BLOCKS.len()).flat_map(|stage| (0..BLOCKS[stage]).map(move |_| stage));
        Ok(ConvNeXt {
            stem: patches(self.channels, self.width, 4, self.width, device),
            blocks: blocks.map(|stage| block(channels(stage), device)).collect(),
            downs: (1..BLOCKS.len()).map(|k| patches(channels(k - 1), channels(k), 2, channels(k - 1), device)).collect(),
            norm: norm(self.embedding(), device),
        })
    }
}

impl ConvNeXt {
    /// Stages that have feature maps.
    pub const STAGES: usize = BLOCKS.len();

    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]; at least 32 rows and columns
    /// - returns `[batch, 8 × width]`
    pub fn forward(&self, image: Tensor<4>) -> Tensor<2> {
        self.embed(self.maps(image, Self::STAGES), Self::STAGES)
    }

    /// Feature maps after a stage, normalised where that comes next: of what is about to be normalised at each place, size says nothing.
    ///
    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]
    /// - stage: 1 to [`ConvNeXt::STAGES`]; its maps have a 2^(stage + 1)th of the image's rows and columns
    /// - returns `[batch, width · 2^(stage − 1), rows, columns]`
    pub fn maps(&self, image: Tensor<4>, stage: usize) -> Tensor<4> {
        let x = of_places(&self.stem.norm, self.stem.conv.forward(image.sub_scalar(0.5)));
        (0..stage).fold(x, |x, stage| self.stage(x, stage))
    }

    /// The embedding of [`ConvNeXt::maps`] of the same stage.
    ///
    /// # Shapes
    /// - maps: as [`ConvNeXt::maps`] returns them
    /// - returns `[batch, 8 × width]`
    pub fn embed(&self, maps: Tensor<4>, stage: usize) -> Tensor<2> {
        let x = (stage..Self::STAGES).fold(maps, |x, stage| self.stage(x, stage));
        let [batch, channels, height, width] = x.dims();
        self.norm.forward(x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels]))
    }

    /// What a unit after a stage looks at, in pixels: the standard deviation of the field of its deepest path where all weights are
    /// alike, as [`crate::ResNet::field`].
    pub fn field(stage: usize) -> f64 {
        let convolution = |k: f64, j: f64| (k * k - 1.0) * j * j / 12.0;
        let of_stage = |s: usize| {
            let j = (2 << s) as f64;
            let before = if s > 1 { convolution(2.0, j / 2.0) } else { 0.0 };
            before + BLOCKS[s - 1] as f64 * convolution(KERNEL as f64, j)
        };
        (convolution(4.0, 1.0) + (1..=stage).map(of_stage).sum::<f64>()).sqrt()
    }

    /// What torchvision calls a parameter of it.
    pub(crate) fn torch_name(name: &str) -> Option<String> {
        let (part, rest) = name.split_once('.')?;
        let numbered = |rest: &str| {
            let (k, rest) = rest.split_once('.')?;
            Some((k.parse::<usize>().ok()?, rest.to_owned()))
        };
        let normed = |name: &str| match name {
            "gamma" => Some("weight"),
            "beta" => Some("bias"),
            _ => None,
        };
        let of_patches = |rest: &str, conv: usize, norm: usize| match rest.split_once('.')? {
            ("conv", name @ ("weight" | "bias")) => Some(format!("{conv}.{name}")),
            ("norm", name) => Some(format!("{norm}.{}", normed(name)?)),
            _ => None,
        };
        Some(match part {
            "stem" => format!("features.0.{}", of_patches(rest, 0, 1)?),
            "downs" => {
                let (k, rest) = numbered(rest)?;
                (k + 1 < BLOCKS.len()).then_some(())?;
                format!("features.{}.{}", 2 * k + 2, of_patches(&rest, 1, 0)?)
            }
            "norm" => format!("classifier.0.{}", normed(rest)?),
            "blocks" => {
                let (mut k, rest) = numbered(rest)?;
                let mut stage = 0;
                while k >= *BLOCKS.get(stage)? {
                    k -= BLOCKS[stage];
                    stage += 1;
                }
                let inner = match rest.split_once('.') {
                    Some(("conv", name @ ("weight" | "bias"))) => format!("block.0.{name}"),
                    Some(("norm", name)) => format!("block.2.{}", normed(name)?),
                    Some(("expand", name @ ("weight" | "bias"))) => format!("block.3.{name}"),
                    Some(("shrink", name @ ("weight" | "bias"))) => format!("block.5.{name}"),
                    None if rest == "scale" => "layer_scale".to_owned(),
                    _ => return None,
                };
                format!("features.{}.{k}.{inner}", 2 * stage + 1)
            }
            _ => return None,
        })
    }

    /// Whether a parameter is a matrix that torchvision has the other way round.
    pub(crate) fn is_transposed(name: &str) -> bool {
        name.ends_with(".expand.weight") || name.ends_with(".shrink.weight")
    }

    /// A stage: fewer places, where one came before, its blocks, and the normalisation before the next.
    fn stage(&self, x: Tensor<4>, stage: usize) -> Tensor<4> {
        let x = match stage.checked_sub(1).and_then(|before| self.downs.get(before)) {
            Some(down) => down.conv.forward(x),
            None => x,
        };
        let first = BLOCKS[..stage].iter().sum::<usize>();
        let x = self.blocks.iter().skip(first).take(BLOCKS[stage]).fold(x, |x, block| block.forward(x));
        match self.downs.get(stage) {
            Some(down) => of_places(&down.norm, x),
            None => x,
        }
    }
}

impl ConvNeXtBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let by_place = self.norm.forward(self.conv.forward(x.clone()).permute([0, 2, 3, 1]));
        let added = self.shrink.forward(activation::gelu(self.expand.forward(by_place)));
        x + (added * self.scale.val().unsqueeze::<4>()).permute([0, 3, 1, 2])
    }
}

/// A normalisation over the channels of each place.
fn of_places(norm: &LayerNorm, x: Tensor<4>) -> Tensor<4> {
    norm.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_parameters_as_torchvision() {
        // torchvision.models.convnext_tiny has 28 589 128; its last layer 768 × 1000 + 1000.
        let config = ConvNeXtConfig { channels: 3, width: 96 };
        assert_eq!(config.embedding(), 768);
        assert_eq!(config.init(&Device::flex()).unwrap().num_params(), 28_589_128 - 769_000);
        assert_eq!(ConvNeXtConfig { width: 0, ..config }.init(&Device::flex()).err(), Some(EncoderError::Zero { what: "width" }));
    }
}
