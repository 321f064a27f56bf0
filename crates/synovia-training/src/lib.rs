//! Batches from a cohort on disk, the end-to-end training loop, checkpoints that a killed run resumes from to the same
//! bits, and prediction over a cohort.
//!
//! This crate knows no HTTP and no file format of others; only [`SplitKind`](synovia_cohort::SplitKind) tells it what may
//! be fitted on.

pub mod accountant;
mod asked;
mod attribution;
mod augment;
mod average;
pub mod balance;
mod batch;
mod bench;
mod branches;
mod checkpoint;
mod course;
mod draws;
mod endpoints;
mod error;
mod fit;
mod imbalance;
mod losses;
mod optimizer;
mod part;
mod predict;
mod pretrained;
mod private;
mod settings;
mod statistics;
#[cfg(test)]
mod tests;
mod together;
mod unlabelled;

pub use asked::{Asked, Given, Told};
pub use attribution::{Differentiable, Integrated, Map, Target, shuffled};
pub use augment::Augmentation;
pub use average::Average;
pub use balance::{Balance, BalanceState};
pub use batch::{Presence, epoch_order};
pub use bench::{BenchSettings, BenchTimes, bench};
pub use branches::Branches;
pub use checkpoint::{Checkpoint, CheckpointProgress, decode_weights, encode_weights};
pub use course::Seen;
pub use endpoints::fit_endpoints;
pub use error::TrainingError;
pub use fit::{EpochReport, Fit, Progress, Trained, fit};
pub use imbalance::Imbalance;
pub use losses::{ValidationSum, relative, uninformed_losses};
pub use optimizer::{AdamW, AdamWSettings};
pub use part::{Part, PartTrained, initial_weights, label_counts, n_usable, train_part, validate};
pub use predict::{Predicted, predict, predict_each};
pub use pretrained::{Pretrained, read_pretrained};
pub use private::{NoiseKey, Privacy};
pub use settings::{Sampling, TrainingSettings, learning_rate};
pub use statistics::{FeatureMoments, Moments, fit_statistics, statistics_of};
pub use together::{Together, spread};
pub use unlabelled::{Unlabelled, learn_images};

/// The weights of a model by name.
pub type Weights = std::collections::BTreeMap<String, synovia_fusion::NamedTensor>;
