//! Any encoder of images.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use synovia_kernels::Traced;

use crate::{
    ConvNeXt, ConvNeXtConfig, DenseNet, DenseNetConfig, Depth, EncoderError, NormKind, ResNet, ResNet3d, ResNet3dConfig, ResNetConfig, ViT,
    ViTConfig,
};

/// Which encoder of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageEncoderKind {
    /// [`ResNet`] of 18 layers.
    #[default]
    ResNet18,
    /// [`ResNet`] of 34 layers.
    ResNet34,
    /// [`ResNet`] of 50 layers.
    ResNet50,
    /// [`DenseNet`] of 121 layers.
    DenseNet121,
    /// [`ConvNeXt`], the tiny one.
    #[serde(rename = "convnext-tiny")]
    ConvNeXtTiny,
    /// [`ViT`], the tiny one.
    #[serde(rename = "vit-tiny")]
    ViTTiny,
    /// [`ResNet3d`], of 18 layers: the channels are a volume's slices.
    #[serde(rename = "resnet18-3d")]
    ResNet18Volume,
}

impl ImageEncoderKind {
    /// Its name in pipelines and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
            Self::DenseNet121 => "densenet121",
            Self::ConvNeXtTiny => "convnext-tiny",
            Self::ViTTiny => "vit-tiny",
            Self::ResNet18Volume => "resnet18-3d",
        }
    }

    /// What torchvision calls a parameter or buffer of [`ImageEncoder`]; `None` of what it has none of.
    pub fn torch_name(self, name: &str) -> Option<String> {
        match self {
            Self::ResNet18 => Depth::Eighteen.torch_name(name.strip_prefix("ResNet.")?),
            Self::ResNet34 => Depth::ThirtyFour.torch_name(name.strip_prefix("ResNet.")?),
            Self::ResNet50 => Depth::Fifty.torch_name(name.strip_prefix("ResNet.")?),
            Self::DenseNet121 => DenseNet::torch_name(name.strip_prefix("DenseNet.")?),
            Self::ConvNeXtTiny => ConvNeXt::torch_name(name.strip_prefix("ConvNeXt.")?),
            // torchvision's has a table of places for images of one size, and a token of its own.
            Self::ViTTiny => None,
            Self::ResNet18Volume => ResNet3d::torch_name(name.strip_prefix("ResNet3d.")?),
        }
    }

    /// Channels that its first convolution is over, of an image of so many: a volume's slices are none.
    pub const fn stem_channels(self, channels: usize) -> usize {
        match self {
            Self::ResNet18Volume => 1,
            _ => channels,
        }
    }

    /// Whether it is the convolution that looks at the image.
    pub fn is_stem(self, name: &str) -> bool {
        name.ends_with(".stem.conv.weight")
    }

    /// Whether it is a matrix that torchvision has the other way round: rows are outputs there, inputs here.
    pub fn is_transposed(self, name: &str) -> bool {
        self == Self::ConvNeXtTiny && ConvNeXt::is_transposed(name)
    }

    /// The least side of an image, in pixels, that it sees anything of.
    pub const fn least_side(self) -> usize {
        match self {
            Self::DenseNet121 | Self::ConvNeXtTiny => 32,
            Self::ViTTiny => ViT::STRIDE,
            _ => 1,
        }
    }

    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::ResNet18, Self::ResNet34, Self::ResNet50, Self::DenseNet121, Self::ConvNeXtTiny, Self::ViTTiny, Self::ResNet18Volume];

    /// Makes one on `device`, with the width of its embedding.
    ///
    /// - channels: of the image; of a network over volumes its slices
    /// - width: of its first stage (64 as published, of `ConvNeXt` 96), or of each head of attention (64)
    /// - norm: of those that have a choice; `ConvNeXt` and vision transformers normalise within each place
    ///
    /// # Errors
    /// [`EncoderError`] for a size that there can't be one of.
    pub fn init(self, channels: usize, width: usize, norm: NormKind, device: &Device) -> Result<(ImageEncoder, usize), EncoderError> {
        let resnet = |depth| {
            let config = ResNetConfig { depth, channels, width, norm };
            Ok((ImageEncoder::ResNet(config.init(device)?), config.embedding()))
        };
        match self {
            Self::ResNet18 => resnet(Depth::Eighteen),
            Self::ResNet34 => resnet(Depth::ThirtyFour),
            Self::ResNet50 => resnet(Depth::Fifty),
            Self::DenseNet121 => {
                let config = DenseNetConfig { channels, width, norm };
                Ok((ImageEncoder::DenseNet(config.init(device)?), config.embedding()))
            }
            Self::ConvNeXtTiny => {
                let config = ConvNeXtConfig { channels, width };
                Ok((ImageEncoder::ConvNeXt(config.init(device)?), config.embedding()))
            }
            Self::ViTTiny => {
                let config = ViTConfig { channels, width };
                Ok((ImageEncoder::ViT(config.init(device)?), config.embedding()))
            }
            Self::ResNet18Volume => {
                let config = ResNet3dConfig { slices: channels, width, norm };
                Ok((ImageEncoder::ResNet3d(config.init(device)?), config.embedding()))
            }
        }
    }
}

/// What torch calls a number of a normalisation over the batch; `None` of one within examples, which torchvision's are not.
pub(crate) fn torch_norm(name: &str) -> Option<&'static str> {
    Some(match name {
        "batch.gamma" => "weight",
        "batch.beta" => "bias",
        "batch.running_mean" => "running_mean",
        "batch.running_var" => "running_var",
        _ => return None,
    })
}

/// An encoder of images.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has one of it")]
pub enum ImageEncoder {
    /// A residual network.
    ResNet(ResNet),
    /// A densely connected one.
    DenseNet(DenseNet),
    /// A convolutional one in the ways of transformers.
    ConvNeXt(ConvNeXt),
    /// A vision transformer.
    ViT(ViT),
    /// A residual network over volumes.
    ResNet3d(ResNet3d),
}

impl ImageEncoder {
    /// Stages that have feature maps.
    pub const STAGES: usize = 4;

    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]
    /// - returns `[batch, width of the embedding]`
    pub fn forward(&self, image: Tensor<4>) -> Tensor<2> {
        match self {
            Self::ResNet(tower) => tower.forward(image),
            Self::DenseNet(tower) => tower.forward(image),
            Self::ConvNeXt(tower) => tower.forward(image),
            Self::ViT(tower) => tower.forward(image),
            Self::ResNet3d(tower) => tower.forward(image),
        }
    }

    /// [`ResNet::trace`], of those that have it.
    pub fn trace(&self, image: Tensor<4>) -> Option<Traced> {
        match self {
            Self::ResNet(tower) => tower.trace(image),
            Self::DenseNet(_) | Self::ConvNeXt(_) | Self::ViT(_) | Self::ResNet3d(_) => None,
        }
    }

    /// [`ResNet::relevance`], of those that have it.
    pub fn relevance(&self, traced: Traced, gradient: &Tensor<2>, stage: usize) -> Option<Tensor<3>> {
        match self {
            Self::ResNet(tower) => tower.relevance(traced, gradient, stage),
            Self::DenseNet(_) | Self::ConvNeXt(_) | Self::ViT(_) | Self::ResNet3d(_) => None,
        }
    }

    /// Feature maps after a stage.
    ///
    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]
    /// - stage: 1 to [`ImageEncoder::STAGES`]; its maps have a row for each [`ImageEncoder::stride`] rows of the image
    /// - returns `[batch, channels of the stage, …]`; of a network over volumes `[batch × slices of the stage, …]`
    pub fn maps(&self, image: Tensor<4>, stage: usize) -> Tensor<4> {
        match self {
            Self::ResNet(tower) => tower.maps(image, stage),
            Self::DenseNet(tower) => tower.maps(image, stage),
            Self::ConvNeXt(tower) => tower.maps(image, stage),
            Self::ViT(tower) => tower.maps(image, stage),
            Self::ResNet3d(tower) => tower.maps(image, stage),
        }
    }

    /// The embedding of [`ImageEncoder::maps`] of the same stage.
    pub fn embed(&self, maps: Tensor<4>, stage: usize) -> Tensor<2> {
        match self {
            Self::ResNet(tower) => tower.embed(maps, stage),
            Self::DenseNet(tower) => tower.embed(maps, stage),
            Self::ConvNeXt(tower) => tower.embed(maps, stage),
            Self::ViT(tower) => tower.embed(maps, stage),
            Self::ResNet3d(tower) => tower.embed(maps, stage),
        }
    }

    /// What a unit after a stage looks at, in pixels ([`ResNet::field`]).
    pub fn field(&self, stage: usize) -> f64 {
        match self {
            Self::ResNet(tower) => tower.field(stage),
            Self::DenseNet(_) => DenseNet::field(stage),
            Self::ConvNeXt(_) => ConvNeXt::field(stage),
            Self::ViT(_) => ViT::field(stage),
            Self::ResNet3d(_) => ResNet3d::field(stage),
        }
    }

    /// Where the first unit after a stage looks, in pixels from the first one: padded convolutions look around where they stand,
    /// patches at their middle.
    pub const fn first(&self, stage: usize) -> f64 {
        match self {
            Self::ResNet(_) | Self::DenseNet(_) | Self::ResNet3d(_) => 0.0,
            Self::ConvNeXt(_) | Self::ViT(_) => (self.stride(stage) - 1) as f64 / 2.0,
        }
    }

    /// Pixels from a unit after a stage to the next.
    pub const fn stride(&self, stage: usize) -> usize {
        match self {
            Self::ViT(_) => ViT::STRIDE,
            Self::ResNet3d(_) => 1 << stage,
            _ => 2 << stage,
        }
    }
}
