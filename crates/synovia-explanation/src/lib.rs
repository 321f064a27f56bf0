//! What drove a prediction, found by asking the model again with parts taken away: modalities ([`shapley`]), features, and places of the
//! image ([`Variant`]); and whether a map over an image points at what the model looks at ([`deleted`], [`inserted`]).
//!
//! This crate knows numbers: an image's values, a record's, and the probabilities that came of them. It knows no model and no way to run
//! one, no file and no request. It says what the model does with this input, and nothing of what is true of the patient.

mod map;
mod overlay;
mod plan;
mod shapley;
mod worse;

pub use map::{Map, STEPS, area, deleted, inserted, rank_correlation};
pub use overlay::{overlay, overlay_of, picture};
pub use plan::{Explanation, FeatureChange, GRID, ImageChange, ImageShape, Modalities, Plan, Variant};
pub use shapley::shapley;
pub use worse::{coarser, flatter, noisy, sparser};
