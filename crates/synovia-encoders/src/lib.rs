//! One module a modality: pixels and tables to embeddings of a common kind, `[batch, width]`.
//!
//! An encoder knows neither files nor tasks nor the other modalities; whether an example has the modality at all is the
//! business of fusion.

mod conv;
mod convnext;
mod cross;
mod densenet;
mod image;
mod norm;
mod resnet;
mod slices;
mod standardize;
mod table;
mod tokens;
mod vit;
mod volume;

use synovia_kernels::TowerError;

pub use conv::{ConvNormAct, ConvNormActConfig, NormActConv};
pub use convnext::{ConvNeXt, ConvNeXtBlock, ConvNeXtConfig, ConvNeXtPatches};
pub use cross::{CrossEncoder, CrossEncoderConfig};
pub use densenet::{DenseLayer, DenseNet, DenseNetConfig};
pub use image::{ImageEncoder, ImageEncoderKind};
pub use norm::{Norm, NormKind};
pub use resnet::{Depth, ResNet, ResNetConfig};
pub use slices::{SlicePool, SlicePoolConfig};
pub use standardize::{FeatureStatistics, Standardize};
pub use synovia_kernels::Traced;
pub use table::{LinearEncoder, LinearEncoderConfig, TableEncoder, TableEncoderConfig};
pub use tokens::{TokenEncoder, TokenEncoderConfig};
pub use vit::{ViT, ViTConfig, ViTStem};
pub use volume::{ResNet3d, ResNet3dConfig, VolumeBlock, VolumeUnit};

/// A configuration that no encoder can be made from.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncoderError {
    /// A size that must be positive is 0.
    #[error("{what} is 0: it must be at least 1")]
    Zero {
        /// The setting.
        what: &'static str,
    },
    /// Slices of several channels.
    #[error("slices of {0} channels: a volume is looked at slice by slice in grey")]
    Slices(usize),
    /// A vision transformer whose heads can't be cut into sines and cosines.
    #[error("width is {0}: a vision transformer needs a multiple of 4")]
    Width(usize),
    /// Sizes that the kernels have no tower of.
    #[error(transparent)]
    Tower(#[from] TowerError),
    /// Statistics of another number of features.
    #[error("{what}: {got} values for {expected} features")]
    Features {
        /// Which statistic.
        what: &'static str,
        /// Values given.
        got: usize,
        /// Values needed.
        expected: usize,
    },
}

/// That each of these sizes is at least 1.
///
/// # Errors
/// [`EncoderError::Zero`] for the first that is 0.
fn at_least_one(sizes: &[(usize, &'static str)]) -> Result<(), EncoderError> {
    sizes.iter().find(|(size, _)| *size == 0).map_or(Ok(()), |&(_, what)| Err(EncoderError::Zero { what }))
}
