//! DenseNet-121 (Huang et al. 2017, "Densely Connected Convolutional Networks", table 1).

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::{Device, Tensor, activation};

use crate::conv::{NormActConv, NormActConvConfig};
use crate::image::torch_norm;
use crate::{ConvNormAct, ConvNormActConfig, EncoderError, Norm, NormKind};

/// Layers of each dense block.
const LAYERS: [usize; 4] = [6, 12, 24, 16];

/// Settings of a [`DenseNet`].
#[derive(Clone, Copy, Debug)]
pub struct DenseNetConfig {
    /// Channels of the image: 1 for grey.
    pub channels: usize,
    /// Channels of the stem, even; each layer adds half as many. 64 in the paper.
    pub width: usize,
    /// What activations are normalised over; the batch in the paper.
    pub norm: NormKind,
}

/// What a layer adds to what it was given.
#[derive(Module, Debug)]
pub struct DenseLayer {
    first: NormActConv,
    second: NormActConv,
}

/// The tower: stem, four dense blocks with transitions between them, normalisation, global average.
#[derive(Module, Debug)]
pub struct DenseNet {
    stem: ConvNormAct,
    pool: MaxPool2d,
    layers: Vec<DenseLayer>,
    transitions: Vec<NormActConv>,
    norm: Norm,
}

impl DenseNetConfig {
    /// Width of the embedding.
    pub fn embedding(&self) -> usize {
        let added = |layers: usize| layers * (self.width / 2);
        let before_last = LAYERS[..3].iter().fold(self.width, |channels, &layers| (channels + added(layers)) >> 1);
        before_last + added(LAYERS[3])
    }

    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError::Zero`] for a width under 2 or a number of channels of 0.
    pub fn init(&self, device: &Device) -> Result<DenseNet, EncoderError> {
        let growth = self.width / 2;
        let unit =
            |channels_in, channels_out, kernel| NormActConvConfig { channels_in, channels_out, kernel, norm: self.norm }.init(device);
        let stem =
            ConvNormActConfig { channels_in: self.channels, channels_out: self.width, kernel: 7, stride: 2, relu: true, norm: self.norm };
        let (mut layers, mut transitions, mut channels) = (Vec::new(), Vec::new(), self.width);
        for (block, n) in LAYERS.into_iter().enumerate() {
            for _ in 0..n {
                layers.push(DenseLayer { first: unit(channels, 4 * growth, 1)?, second: unit(4 * growth, growth, 3)? });
                channels += growth;
            }
            if block + 1 < LAYERS.len() {
                transitions.push(unit(channels, channels / 2, 1)?);
                channels /= 2;
            }
        }
        let pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init();
        Ok(DenseNet { stem: stem.init(device)?, pool, layers, transitions, norm: Norm::new(self.norm, channels, device) })
    }
}

impl DenseNet {
    /// Stages that have feature maps: the dense blocks.
    pub const STAGES: usize = LAYERS.len();

    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]; at least 32 rows and columns
    /// - returns `[batch, 16 × width]`
    pub fn forward(&self, image: Tensor<4>) -> Tensor<2> {
        self.embed(self.maps(image, Self::STAGES), Self::STAGES)
    }

    /// Feature maps after a dense block.
    ///
    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]
    /// - stage: 1 to [`DenseNet::STAGES`]; its maps have a 2^(stage + 1)th of the image's rows and columns
    pub fn maps(&self, image: Tensor<4>, stage: usize) -> Tensor<4> {
        let x = self.pool.forward(self.stem.forward(image.sub_scalar(0.5)));
        (0..stage).fold(x, |x, block| self.block(x, block))
    }

    /// The embedding of [`DenseNet::maps`] of the same stage.
    ///
    /// # Shapes
    /// - returns `[batch, 16 × width]`
    pub fn embed(&self, maps: Tensor<4>, stage: usize) -> Tensor<2> {
        let x = activation::relu(self.norm.forward((stage..Self::STAGES).fold(maps, |x, block| self.block(x, block))));
        let [batch, channels, height, width] = x.dims();
        x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels])
    }

    /// What a unit after a dense block looks at, in pixels: the standard deviation of the field of its deepest path where all weights
    /// are alike, as [`crate::ResNet::field`].
    pub fn field(stage: usize) -> f64 {
        let convolution = |k: f64, j: f64| (k * k - 1.0) * j * j / 12.0;
        let of_block = |s: usize| {
            let j = (2 << s) as f64;
            let transition = if s > 1 { convolution(2.0, j / 2.0) } else { 0.0 };
            transition + LAYERS[s - 1] as f64 * convolution(3.0, j)
        };
        (convolution(7.0, 1.0) + convolution(3.0, 2.0) + (1..=stage).map(of_block).sum::<f64>()).sqrt()
    }

    /// What torchvision calls a parameter or buffer of it.
    pub(crate) fn torch_name(name: &str) -> Option<String> {
        let (part, rest) = name.split_once('.')?;
        let numbered = |rest: &str| {
            let (k, rest) = rest.split_once('.')?;
            Some((k.parse::<usize>().ok()?, rest.to_owned()))
        };
        let inner = match part {
            "stem" => match rest.split_once('.')? {
                ("conv", "weight") => "conv0.weight".to_owned(),
                ("norm", rest) => format!("norm0.{}", torch_norm(rest)?),
                _ => return None,
            },
            "norm" => format!("norm5.{}", torch_norm(rest)?),
            "transitions" => {
                let (k, rest) = numbered(rest)?;
                let inner = match rest.split_once('.')? {
                    ("conv", "weight") => "conv.weight".to_owned(),
                    ("norm", rest) => format!("norm.{}", torch_norm(rest)?),
                    _ => return None,
                };
                format!("transition{}.{inner}", k + 1)
            }
            "layers" => {
                let (mut k, rest) = numbered(rest)?;
                let mut block = 0;
                while k >= *LAYERS.get(block)? {
                    k -= LAYERS[block];
                    block += 1;
                }
                let (unit, rest) = rest.split_once('.')?;
                let unit = match unit {
                    "first" => 1,
                    "second" => 2,
                    _ => return None,
                };
                let inner = match rest.split_once('.')? {
                    ("conv", "weight") => format!("conv{unit}.weight"),
                    ("norm", rest) => format!("norm{unit}.{}", torch_norm(rest)?),
                    _ => return None,
                };
                format!("denseblock{}.denselayer{}.{inner}", block + 1, k + 1)
            }
            _ => return None,
        };
        Some(format!("features.{inner}"))
    }

    /// The transition before a dense block, where there is one, and the block.
    fn block(&self, x: Tensor<4>, block: usize) -> Tensor<4> {
        let x = match block.checked_sub(1).and_then(|before| self.transitions.get(before)) {
            Some(transition) => halved(transition.forward(x)),
            None => x,
        };
        let first = LAYERS[..block].iter().sum::<usize>();
        self.layers.iter().skip(first).take(LAYERS[block]).fold(x, |x, layer| {
            let added = layer.second.forward(layer.first.forward(x.clone()));
            Tensor::cat(vec![x, added], 1)
        })
    }
}

/// Means of 2 × 2 places; a last row or column of its own is left out.
fn halved(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let [rows, columns] = [height / 2, width / 2];
    let x = x.narrow(2, 0, 2 * rows).narrow(3, 0, 2 * columns).reshape([batch, channels * rows, 2, columns, 2]);
    x.mean_dim(4).mean_dim(2).reshape([batch, channels, rows, columns])
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn as_many_parameters_as_torchvision() {
        // torchvision.models.densenet121 has 7 978 856; without classifier (1024 × 1000 + 1000) 6 953 856; 121 norms of 41 824 channels
        // have two buffers each.
        let config = DenseNetConfig { channels: 3, width: 64, norm: NormKind::Batch };
        assert_eq!(config.embedding(), 1024);
        assert_eq!(config.init(&Device::flex()).unwrap().num_params(), 6_953_856 + 83_648);
    }

    #[test]
    fn halves_are_means() {
        let device = Device::flex();
        let x = Tensor::<4>::from_data(TensorData::new((0..30u8).map(f32::from).collect::<Vec<_>>(), [1, 2, 3, 5]), &device);
        let halved = halved(x);
        assert_eq!(halved.dims(), [1, 2, 1, 2]);
        assert_eq!(halved.into_data().try_to_vec::<f32>().unwrap(), [3.0, 5.0, 18.0, 20.0]);
    }

    #[test]
    fn stages_lead_to_one_embedding() {
        let device = Device::flex();
        let model = DenseNetConfig { channels: 1, width: 8, norm: NormKind::Batch }.init(&device).unwrap();
        let values: Vec<f32> = (0..2 * 64 * 48).map(|k| (k * 37 % 101) as f32 / 101.0).collect();
        let image = Tensor::<4>::from_data(TensorData::new(values, [2, 1, 64, 48]), &device);
        let whole: Vec<f32> = model.forward(image.clone()).into_data().try_to_vec().unwrap();
        assert_eq!(whole.len(), 2 * 128);
        for stage in 1..=DenseNet::STAGES {
            let maps = model.maps(image.clone(), stage);
            assert_eq!(maps.dims()[2..], [64 >> (stage + 1), 48 >> (stage + 1)]);
            let again: Vec<f32> = model.embed(maps, stage).into_data().try_to_vec().unwrap();
            assert_eq!(again, whole, "stage {stage}");
        }
    }
}
