//! Presence masks, fusion of the modalities' embeddings, heads, losses, and the joint model that they make.
//!
//! This crate knows no files. An absent modality is a mask, from the input to the loss: never a zero that means something.

mod calibrated;
mod endpoint;
mod fuse;
mod image;
mod loss;
mod model;
mod state;

pub use calibrated::Calibrated;
pub use endpoint::{EndpointHead, EndpointLayers, Estimator, PROPENSITY, Scale};
pub use fuse::{Absent, Fill, Fusion, FusionKind};
pub use image::{ImagePath, ImageTower};
pub use loss::{
    binary_loss, contrast, divergence, focal_binary_loss, focal_multiclass_loss, jensen_shannon, multiclass_loss, ordinal_loss,
};
pub use model::{Head, Inputs, JointModel, JointModelConfig, Modality, ModelError, Outputs, RecordEncoder, RecordTower};
pub use state::{NamedTensor, StateError, apply_state, collect_state, visit_state};
