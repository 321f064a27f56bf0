//! One module a modality: pixels and tables to embeddings of a common kind, `[batch, width]`.
//!
//! An encoder knows neither files nor tasks nor the other modalities; whether an example has the modality at all is the
//! business of fusion.

mod conv;
mod norm;
mod resnet;
mod standardize;
mod table;

use synovia_kernels::TowerError;

pub use conv::{ConvNormAct, ConvNormActConfig};
pub use norm::{Norm, NormKind};
pub use resnet::{ResNet18, ResNet18Config};
pub use standardize::{FeatureStatistics, Standardize};
pub use table::{LinearEncoder, LinearEncoderConfig, TableEncoder, TableEncoderConfig};

/// A configuration that no encoder can be made from.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncoderError {
    /// A size that must be positive is 0.
    #[error("{what} is 0: it must be at least 1")]
    Zero {
        /// The setting.
        what: &'static str,
    },
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
