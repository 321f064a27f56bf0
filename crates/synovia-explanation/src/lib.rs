//! What drove a prediction, found by asking the model again with parts taken away: modalities ([`shapley`]), features, and places of the
//! image ([`Variant`]).
//!
//! This crate knows numbers: an image's values, a record's, and the probabilities that came of them. It knows no model and no way to run
//! one, no file and no request. It says what the model does with this input, and nothing of what is true of the patient.

mod overlay;
mod plan;
mod shapley;

pub use overlay::{overlay, picture};
pub use plan::{Explanation, FeatureChange, GRID, ImageChange, ImageShape, Modalities, Plan, Variant};
pub use shapley::shapley;
