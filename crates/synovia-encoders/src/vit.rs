//! A small vision transformer (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"), in the plain form of Beyer et al. 2022, "Better
//! plain ViT baselines for ImageNet-1k": places are told by sines and cosines, and the embedding is the mean over places, so that
//! one model serves images of any size. At width 64 it has the size of ViT-Ti/16 (Touvron et al. 2021, "Training data-efficient image
//! transformers & distillation through attention", table 1: 192 numbers a place, three heads, twelve blocks).

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor, TensorData};

use crate::{EncoderError, at_least_one};

/// Sides of a patch.
const PATCH: usize = 16;
/// Heads of attention.
const HEADS: usize = 3;
/// Blocks of each stage; after each there are maps to look at.
const BLOCKS: usize = 3;
/// Wavelengths go from 2π to 2π times this; of Vaswani et al. 2017.
const LONGEST: f64 = 10_000.0;

/// Settings of a [`ViT`].
#[derive(Clone, Copy, Debug)]
pub struct ViTConfig {
    /// Channels of the image: 1 for grey.
    pub channels: usize,
    /// Width of each of the three heads, a multiple of 4; 64 as published.
    pub width: usize,
}

/// The tower: patches, twelve blocks of attention, normalisation, mean over places.
#[derive(Module, Debug)]
pub struct ViT {
    stem: ViTStem,
    stages: Vec<TransformerEncoder>,
    norm: LayerNorm,
}

/// What the image is cut up with; by its name it is known for what looks at the image's channels.
#[derive(Module, Debug)]
pub struct ViTStem {
    conv: Conv2d,
}

impl ViTConfig {
    /// Width of a place and of the embedding.
    pub const fn embedding(&self) -> usize {
        HEADS * self.width
    }

    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError::Zero`] for a size of 0, [`EncoderError::Width`] for a width that is no multiple of 4.
    pub fn init(&self, device: &Device) -> Result<ViT, EncoderError> {
        at_least_one(&[(self.channels, "channels"), (self.width, "width")])?;
        if !self.width.is_multiple_of(4) {
            return Err(EncoderError::Width(self.width));
        }
        let width = self.embedding();
        let stage = TransformerEncoderConfig::new(width, 4 * width, HEADS, BLOCKS).with_norm_first(true).with_dropout(0.0);
        Ok(ViT {
            stem: ViTStem { conv: Conv2dConfig::new([self.channels, width], [PATCH, PATCH]).with_stride([PATCH, PATCH]).init(device) },
            stages: (0..ViT::STAGES).map(|_| stage.init(device)).collect(),
            norm: LayerNormConfig::new(width).init(device),
        })
    }
}

impl ViT {
    /// Stages that have feature maps.
    pub const STAGES: usize = 4;
    /// Pixels from a place of its maps to the next, at every stage.
    pub const STRIDE: usize = PATCH;

    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]; what is over a multiple of 16 rows or columns is not looked at
    /// - returns `[batch, 3 × width]`
    pub fn forward(&self, image: Tensor<4>) -> Tensor<2> {
        self.embed(self.maps(image, Self::STAGES), Self::STAGES)
    }

    /// Feature maps after a stage, after the last one normalised: of what is about to be normalised at each place, size says nothing.
    ///
    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]
    /// - stage: 1 to [`ViT::STAGES`]; its maps have a 16th of the image's rows and columns
    /// - returns `[batch, 3 × width, rows, columns]`
    pub fn maps(&self, image: Tensor<4>, stage: usize) -> Tensor<4> {
        let x = self.stem.conv.forward(image.sub_scalar(0.5));
        let [_, width, rows, columns] = x.dims();
        let places = Tensor::<4>::from_data(places(width, rows, columns), &x.device());
        self.run(x + places, 0..stage)
    }

    /// The embedding of [`ViT::maps`] of the same stage.
    ///
    /// # Shapes
    /// - maps: as [`ViT::maps`] returns them
    /// - returns `[batch, 3 × width]`
    pub fn embed(&self, maps: Tensor<4>, stage: usize) -> Tensor<2> {
        let x = self.run(maps, stage..Self::STAGES);
        let [batch, width, rows, columns] = x.dims();
        x.reshape([batch, width, rows * columns]).mean_dim(2).reshape([batch, width])
    }

    /// What a place stands for by itself, in pixels: the standard deviation over its patch. That it looks at all others as well
    /// is what attention is for.
    pub fn field(_stage: usize) -> f64 {
        (((PATCH * PATCH - 1) as f64) / 12.0).sqrt()
    }

    fn run(&self, maps: Tensor<4>, stages: std::ops::Range<usize>) -> Tensor<4> {
        if stages.is_empty() {
            return maps;
        }
        let [batch, width, rows, columns] = maps.dims();
        let tokens = maps.reshape([batch, width, rows * columns]).swap_dims(1, 2);
        let last = stages.end == Self::STAGES;
        let seen = self.stages[stages].iter().fold(tokens, |x, stage| stage.forward(TransformerEncoderInput::new(x)));
        let seen = if last { self.norm.forward(seen) } else { seen };
        seen.swap_dims(1, 2).reshape([batch, width, rows, columns])
    }
}

/// What tells places from each other: a quarter of the numbers each are sines and cosines of the column and of the row, of wavelengths that
/// rise geometrically. `[1, width, rows, columns]`; numbers over a multiple of 4 are 0.
fn places(width: usize, rows: usize, columns: usize) -> TensorData {
    let quarter = width / 4;
    let mut values = vec![0f32; width * rows * columns];
    for (k, plane) in values.chunks_exact_mut(rows * columns).enumerate().take(4 * quarter) {
        let (which, k) = (k / quarter, k % quarter);
        let frequency = LONGEST.powf(-(k as f64) / (quarter.max(2) - 1) as f64);
        for (at, value) in plane.iter_mut().enumerate() {
            let place = if which < 2 { at % columns } else { at / columns } as f64;
            *value = if which % 2 == 0 { (place * frequency).sin() } else { (place * frequency).cos() } as f32;
        }
    }
    TensorData::new(values, [1, width, rows, columns])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(rows: usize, columns: usize, bright: [usize; 2]) -> Tensor<4> {
        let values = (0..rows * columns).map(|k| if [k / columns / PATCH, k % columns / PATCH] == bright { 1.0f32 } else { 0.25 });
        Tensor::from_data(TensorData::new(values.collect::<Vec<_>>(), [1, 1, rows, columns]), &Device::flex())
    }

    fn model() -> ViT {
        ViTConfig { channels: 1, width: 8 }.init(&Device::flex()).unwrap()
    }

    #[test]
    fn as_many_parameters_as_published() {
        // ViT-Ti/16 of the paper's scheme: 12 blocks of 12 w² + 13 w (attention 4 w² + 4 w, two layers 8 w² + 5 w, two norms 4 w), a
        // patch embedding of 3 · 16² · w + w, a norm of 2 w.
        let w = 192;
        let expected = 12 * (12 * w * w + 13 * w) + 768 * w + w + 2 * w;
        assert_eq!(ViTConfig { channels: 3, width: 64 }.init(&Device::flex()).unwrap().num_params(), expected);
        assert_eq!(ViTConfig { channels: 3, width: 6 }.init(&Device::flex()).err(), Some(EncoderError::Width(6)));
    }

    #[test]
    fn it_matters_where_something_is() {
        let model = model();
        let said = |bright| model.forward(image(48, 64, bright)).into_data().try_to_vec::<f32>().unwrap();
        let of: Vec<Vec<f32>> = [[0, 0], [0, 1], [1, 0], [2, 3]].map(said).to_vec();
        for a in 0..of.len() {
            for b in 0..a {
                let far = of[a].iter().zip(&of[b]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far > 1e-3, "{a} and {b}: {far}");
            }
        }
    }

    #[test]
    fn places_are_told_apart() {
        let told: Vec<f32> = places(24, 3, 5).try_to_vec().unwrap();
        let of = |at: usize| (0..24).map(|k| told[k * 15 + at]).collect::<Vec<f32>>();
        // At the first place sines are 0 and cosines 1; one column on the fastest wave is at 1 radian.
        assert_eq!(of(0), [vec![0.0; 6], vec![1.0; 6], vec![0.0; 6], vec![1.0; 6]].concat());
        assert!((of(1)[0] - 1f32.sin()).abs() < 1e-6 && of(1)[12..] == of(0)[12..]);
        assert!((of(5)[12] - 1f32.sin()).abs() < 1e-6 && of(5)[..12] == of(0)[..12]);
    }

    #[test]
    fn stages_lead_to_one_embedding() {
        let (model, image) = (model(), image(48, 64, [1, 2]));
        let whole: Vec<f32> = model.forward(image.clone()).into_data().try_to_vec().unwrap();
        for stage in 1..=ViT::STAGES {
            let maps = model.maps(image.clone(), stage);
            assert_eq!(maps.dims(), [1, 24, 3, 4]);
            assert_eq!(model.embed(maps, stage).into_data().try_to_vec::<f32>().unwrap(), whole, "stage {stage}");
        }
    }
}
