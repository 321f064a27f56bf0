//! A table's row to an embedding: standardisation, and two dense layers or one.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};

use crate::{EncoderError, FeatureStatistics, Norm, NormKind, Standardize, at_least_one};

/// Settings of a [`TableEncoder`].
#[derive(Clone, Copy, Debug)]
pub struct TableEncoderConfig {
    /// Features of the table.
    pub n_features: usize,
    /// Width of both layers and of the embedding.
    pub width: usize,
    /// Share of the first layer's units dropped in training.
    pub dropout: f64,
    /// What activations are normalised over.
    pub norm: NormKind,
}

/// Standardise → (dense, normalisation, ReLU) × 2.
#[derive(Module, Debug)]
pub struct TableEncoder {
    standardize: Standardize,
    first: Linear,
    first_norm: Norm,
    dropout: Dropout,
    second: Linear,
    second_norm: Norm,
}

impl TableEncoderConfig {
    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError`] for a size of 0 or statistics of another table.
    pub fn init(&self, statistics: &FeatureStatistics, device: &Device) -> Result<TableEncoder, EncoderError> {
        check_sizes(self.n_features, self.width, statistics)?;
        Ok(TableEncoder {
            standardize: statistics.init(device)?,
            first: LinearConfig::new(2 * self.n_features, self.width).init(device),
            first_norm: Norm::new(self.norm, self.width, device),
            dropout: DropoutConfig::new(self.dropout).init(),
            second: LinearConfig::new(self.width, self.width).init(device),
            second_norm: Norm::new(self.norm, self.width, device),
        })
    }
}

/// Settings of a [`LinearEncoder`].
#[derive(Clone, Copy, Debug)]
pub struct LinearEncoderConfig {
    /// Features of the table.
    pub n_features: usize,
    /// Width of the embedding.
    pub width: usize,
}

/// Standardise → dense: with late fusion and heads that are dense too, a logistic regression.
#[derive(Module, Debug)]
pub struct LinearEncoder {
    standardize: Standardize,
    dense: Linear,
}

impl LinearEncoderConfig {
    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError`] for a size of 0 or statistics of another table.
    pub fn init(&self, statistics: &FeatureStatistics, device: &Device) -> Result<LinearEncoder, EncoderError> {
        check_sizes(self.n_features, self.width, statistics)?;
        Ok(LinearEncoder { standardize: statistics.init(device)?, dense: LinearConfig::new(2 * self.n_features, self.width).init(device) })
    }
}

impl LinearEncoder {
    /// # Shapes
    /// - record: `[batch, n_features]`, in the features' own units, NaN where missing
    /// - returns `[batch, width]`
    pub fn forward(&self, record: Tensor<2>) -> Tensor<2> {
        self.dense.forward(self.standardize.forward(record))
    }
}

pub(crate) fn check_sizes(n_features: usize, width: usize, statistics: &FeatureStatistics) -> Result<(), EncoderError> {
    at_least_one(&[(n_features, "the number of features"), (width, "the record's width")])?;
    let got = statistics.mean.len();
    if got == n_features { Ok(()) } else { Err(EncoderError::Features { what: "mean", got, expected: n_features }) }
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
