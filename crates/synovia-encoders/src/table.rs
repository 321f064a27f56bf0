//! A table's row to an embedding: standardisation and two dense layers.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

use crate::{EncoderError, FeatureStatistics, Standardize};

/// Settings of a [`TableEncoder`].
#[derive(Clone, Copy, Debug)]
pub struct TableEncoderConfig {
    /// Features of the table.
    pub n_features: usize,
    /// Width of both layers and of the embedding.
    pub width: usize,
    /// Share of the first layer's units dropped in training.
    pub dropout: f64,
}

/// Standardise → (dense, batch normalisation, ReLU) × 2.
#[derive(Module, Debug)]
pub struct TableEncoder {
    standardize: Standardize,
    first: Linear,
    first_norm: BatchNorm,
    dropout: Dropout,
    second: Linear,
    second_norm: BatchNorm,
}

impl TableEncoderConfig {
    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError`] for a size of 0 or statistics of another table.
    pub fn init(&self, statistics: &FeatureStatistics, device: &Device) -> Result<TableEncoder, EncoderError> {
        for (size, what) in [(self.n_features, "the number of features"), (self.width, "the record's width")] {
            if size == 0 {
                return Err(EncoderError::Zero { what });
            }
        }
        if statistics.mean.len() != self.n_features {
            return Err(EncoderError::Features { what: "mean", got: statistics.mean.len(), expected: self.n_features });
        }
        Ok(TableEncoder {
            standardize: statistics.init(device)?,
            first: LinearConfig::new(2 * self.n_features, self.width).init(device),
            first_norm: BatchNormConfig::new(self.width).init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
            second: LinearConfig::new(self.width, self.width).init(device),
            second_norm: BatchNormConfig::new(self.width).init(device),
        })
    }
}

impl TableEncoder {
    /// # Shapes
    /// - record: `[batch, n_features]`, in the features' own units, NaN where missing
    /// - returns `[batch, width]`
    pub fn forward(&self, record: Tensor<2>) -> Tensor<2> {
        let x = self.standardize.forward(record);
        let x = self.dropout.forward(activation::relu(self.first_norm.forward(self.first.forward(x))));
        activation::relu(self.second_norm.forward(self.second.forward(x)))
    }
}
