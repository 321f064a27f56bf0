//! A residual network of 18 layers over volumes: R3D-18 (Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action
//! Recognition", table 1), whose third direction is here from slice to slice.

use burn::module::Module;
use burn::nn::conv::{Conv3d, Conv3dConfig};
use burn::nn::{Initializer, PaddingConfig3d};
use burn::tensor::{Device, Tensor, activation};

use crate::image::torch_norm;
use crate::{EncoderError, Norm, NormKind, at_least_one};

/// Blocks of each stage.
const BLOCKS: usize = 2;

/// Settings of a [`ResNet3d`].
#[derive(Clone, Copy, Debug)]
pub struct ResNet3dConfig {
    /// Slices of a volume.
    pub slices: usize,
    /// Channels of the first stage; the next ones have 2, 4 and 8 times as many. 64 in the paper.
    pub width: usize,
    /// What activations are normalised over; the batch in the paper.
    pub norm: NormKind,
}

/// `relu(norm(conv(x)))` over volumes, by burn's own operations.
#[derive(Module, Debug)]
pub struct VolumeUnit {
    conv: Conv3d,
    norm: Norm,
    relu: bool,
}

/// Two 3 × 3 × 3 units and a shortcut, projected where the shape changes.
#[derive(Module, Debug)]
pub struct VolumeBlock {
    first: VolumeUnit,
    second: VolumeUnit,
    shortcut: Option<VolumeUnit>,
}

/// The tower: a stem of 3 × 7 × 7 that keeps all slices, four stages of blocks of which the last three halve all directions, global
/// average.
#[derive(Module, Debug)]
pub struct ResNet3d {
    stem: VolumeUnit,
    blocks: Vec<VolumeBlock>,
    slices: usize,
}

fn unit(channels: [usize; 2], kernel: [usize; 3], stride: [usize; 3], relu: bool, norm: NormKind, device: &Device) -> VolumeUnit {
    let [slices, rows, columns] = kernel.map(|side| side / 2);
    let conv = Conv3dConfig::new(channels, kernel)
        .with_stride(stride)
        .with_padding(PaddingConfig3d::Explicit(slices, rows, columns))
        .with_bias(false)
        .with_initializer(Initializer::KaimingNormal { gain: std::f64::consts::SQRT_2, fan_out_only: true });
    VolumeUnit { conv: conv.init(device), norm: Norm::new(norm, channels[1], device), relu }
}

impl ResNet3dConfig {
    /// Width of the embedding.
    pub const fn embedding(&self) -> usize {
        self.width * 8
    }

    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError::Zero`] for a size of 0.
    pub fn init(&self, device: &Device) -> Result<ResNet3d, EncoderError> {
        let Self { slices, width, norm } = *self;
        at_least_one(&[(slices, "slices"), (width, "width")])?;
        let stem = unit([1, width], [3, 7, 7], [1, 2, 2], true, norm, device);
        let mut blocks = Vec::new();
        let mut channels_in = width;
        for stage in 0..ResNet3d::STAGES {
            let channels = width << stage;
            for block in 0..BLOCKS {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let projected = stride != 1 || channels_in != channels;
                blocks.push(VolumeBlock {
                    first: unit([channels_in, channels], [3; 3], [stride; 3], true, norm, device),
                    second: unit([channels; 2], [3; 3], [1; 3], false, norm, device),
                    shortcut: projected.then(|| unit([channels_in, channels], [1; 3], [stride; 3], false, norm, device)),
                });
                channels_in = channels;
            }
        }
        Ok(ResNet3d { stem, blocks, slices })
    }
}

impl VolumeUnit {
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let x = self.norm.forward(self.conv.forward(x));
        if self.relu { activation::relu(x) } else { x }
    }
}

impl VolumeBlock {
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let shortcut = self.shortcut.as_ref().map_or_else(|| x.clone(), |unit| unit.forward(x.clone()));
        activation::relu(self.second.forward(self.first.forward(x)) + shortcut)
    }
}

impl ResNet3d {
    /// Stages that have feature maps.
    pub const STAGES: usize = 4;

    /// # Shapes
    /// - volumes: `[batch, slices, height, width]`, values in [0, 1]
    /// - returns `[batch, 8 × width]`
    pub fn forward(&self, volumes: Tensor<4>) -> Tensor<2> {
        averaged(self.blocks(self.stem(volumes), 0, Self::STAGES))
    }

    /// Feature maps after a stage.
    ///
    /// # Shapes
    /// - volumes: `[batch, slices, height, width]`, values in [0, 1]
    /// - stage: 1 to [`ResNet3d::STAGES`]; its maps have a 2^stage-th of the image's rows and columns, and a 2^(stage − 1)th of the slices
    /// - returns `[batch × slices of the stage, channels, …]`, the slices of a volume one after the other
    pub fn maps(&self, volumes: Tensor<4>, stage: usize) -> Tensor<4> {
        let x = self.blocks(self.stem(volumes), 0, stage);
        let [batch, channels, slices, height, width] = x.dims();
        x.swap_dims(1, 2).reshape([batch * slices, channels, height, width])
    }

    /// The embedding of [`ResNet3d::maps`] of the same stage.
    ///
    /// # Shapes
    /// - returns as [`ResNet3d::forward`]
    pub fn embed(&self, maps: Tensor<4>, stage: usize) -> Tensor<2> {
        let [n, channels, height, width] = maps.dims();
        let slices = (1..stage).fold(self.slices, |slices, _| slices.div_ceil(2));
        let x = maps.reshape([n / slices, slices, channels, height, width]).swap_dims(1, 2);
        averaged(self.blocks(x, stage, Self::STAGES))
    }

    /// What a unit after a stage looks at within its slice, in pixels, as [`crate::ResNet::field`].
    pub fn field(stage: usize) -> f64 {
        let convolution = |k: f64, j: f64| (k * k - 1.0) * j * j / 12.0;
        let of_stage = |s: usize| {
            let j = f64::from(1 << s);
            let first = if s == 1 { j } else { j / 2.0 };
            convolution(3.0, first) + (2 * BLOCKS - 1) as f64 * convolution(3.0, j)
        };
        (convolution(7.0, 1.0) + (1..=stage).map(of_stage).sum::<f64>()).sqrt()
    }

    /// What torchvision calls a parameter or buffer of it, in `models.video.r3d_18`.
    pub(crate) fn torch_name(name: &str) -> Option<String> {
        let part = |conv: &str, norm: &str, rest: &str| match rest.split_once('.')? {
            ("conv", "weight") => Some(format!("{conv}.weight")),
            ("norm", rest) => Some(format!("{norm}.{}", torch_norm(rest)?)),
            _ => None,
        };
        if let Some(rest) = name.strip_prefix("stem.") {
            return part("stem.0", "stem.1", rest);
        }
        let (block, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
        let block = block.parse::<usize>().ok()?;
        let (unit, rest) = rest.split_once('.')?;
        let inner = match unit {
            "first" => part("conv1.0", "conv1.1", rest)?,
            "second" => part("conv2.0", "conv2.1", rest)?,
            "shortcut" => part("downsample.0", "downsample.1", rest)?,
            _ => return None,
        };
        Some(format!("layer{}.{}.{inner}", block / BLOCKS + 1, block % BLOCKS))
    }

    fn stem(&self, volumes: Tensor<4>) -> Tensor<5> {
        let [batch, slices, height, width] = volumes.dims();
        // Pixels in [0, 1] are centred; the stem's normalisation takes care of the scale.
        self.stem.forward(volumes.sub_scalar(0.5).reshape([batch, 1, slices, height, width]))
    }

    fn blocks(&self, x: Tensor<5>, from: usize, to: usize) -> Tensor<5> {
        self.blocks[BLOCKS * from..BLOCKS * to].iter().fold(x, |x, block| block.forward(x))
    }
}

/// Means over all places.
fn averaged(x: Tensor<5>) -> Tensor<2> {
    let [batch, channels, slices, height, width] = x.dims();
    x.reshape([batch, channels, slices * height * width]).mean_dim(2).reshape([batch, channels])
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    fn volumes(slices: usize, device: &Device) -> Tensor<4> {
        let values: Vec<f32> = (0..2 * slices * 20 * 24).map(|k| (k * 37 % 101) as f32 / 101.0).collect();
        Tensor::from_data(TensorData::new(values, [2, slices, 20, 24]), device)
    }

    #[test]
    fn as_many_parameters_as_torchvision() {
        // torchvision.models.video.r3d_18 has 33 371 472; without its classifier (512 × 400 + 400) and two of the stem's three channels
        // (2 × 64 × 3 × 7 × 7). Its 20 norms of 4 800 channels have two buffers each.
        let tower = ResNet3dConfig { slices: 8, width: 64, norm: NormKind::Batch }.init(&Device::flex()).unwrap();
        let parameters = 33_371_472 - 205_200 - 18_816;
        assert_eq!(tower.num_params(), parameters + 2 * 4_800);
    }

    #[test]
    fn maps_lead_to_the_embedding_and_slices_have_an_order() {
        let device = Device::flex();
        device.seed(3);
        for slices in [1, 5, 8] {
            let tower = ResNet3dConfig { slices, width: 4, norm: NormKind::Batch }.init(&device).unwrap();
            let volumes = volumes(slices, &device);
            let values = |embedding: Tensor<2>| embedding.into_data().try_to_vec::<f32>().unwrap();
            let whole = values(tower.forward(volumes.clone()));
            let near = |other: &[f32]| whole.len() == other.len() && whole.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5);
            for stage in 1..=ResNet3d::STAGES {
                let maps = tower.maps(volumes.clone(), stage);
                let side = |n: usize| n.div_ceil(1 << stage);
                assert_eq!(maps.dims()[0], 2 * slices.div_ceil(1 << (stage - 1)));
                assert_eq!(maps.dims()[1..], [4 << (stage - 1), side(20), side(24)]);
                assert!(near(&values(tower.embed(maps, stage))), "stage {stage}");
            }
            // Unlike slices put together by attention, and unlike channels, whose neighbours are no nearer than others.
            if slices > 1 {
                assert!(!near(&values(tower.forward(volumes.flip([1])))), "{slices} slices turned around");
            }
        }
        assert_eq!(
            ResNet3dConfig { slices: 0, width: 4, norm: NormKind::Batch }.init(&device).err(),
            Some(EncoderError::Zero { what: "slices" })
        );
    }
}
