//! What can go wrong in training.

use std::path::PathBuf;

use synovia_cohort::StoreError;
use synovia_fusion::{ModelError, StateError};

/// Why a model can't be trained or used.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The cohort can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The settings describe no model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Weights of another model.
    #[error("the weights do not fit the model: {0}")]
    State(#[from] StateError),
    /// A split that must not be empty is.
    #[error("the {0} split has no example that this model can use; give it a larger share in [cohort] split")]
    EmptySplit(&'static str),
    /// An endpoint of which the train split tells nothing.
    #[error("task `{endpoint}`: the train split has {why} ({known} examples have it); check its label in the pipeline")]
    Endpoint {
        /// Which.
        endpoint: String,
        /// What there is.
        why: &'static str,
        /// Training examples whose numbers are known.
        known: usize,
    },
    /// Settings under which patients are not private.
    #[error("[training] privacy: {0}")]
    Privacy(&'static str),
    /// The loss, or the gradient, is no longer finite.
    #[error("{what} became {value} in epoch {epoch}, step {step}; lower training.learning_rate or training.clip")]
    Diverged {
        /// What of them.
        what: &'static str,
        /// Epoch, from 1.
        epoch: usize,
        /// Step in it, from 1.
        step: usize,
        /// What it was.
        value: f64,
    },
    /// Asked to end, since what the model was trained for has failed elsewhere; its checkpoint stays.
    #[error("training was stopped")]
    Stopped,
    /// No threads.
    #[error("starting threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A file can't be written or read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint of another library does not fit.
    #[error("model.image_weights: {0}")]
    Checkpoint(String),
    /// A weights file is damaged.
    #[error("the weights file is damaged: {0}")]
    Weights(String),
}
