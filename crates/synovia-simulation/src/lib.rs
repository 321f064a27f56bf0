//! Paired DICOM and FHIR cohorts whose best possible AUROC is known: [`simulate()`] draws patients from a small causal
//! world, writes their radiographs and their chart, and beside them `truth.parquet`, the exact posterior of every label
//! given both modalities, the image alone and the record alone.
//!
//! The factors that a radiograph shows (a lesion's diameter and texture, the heart's width, effusion, consolidation) are
//! taken as readable from its pixels without error. They are drawn with noise, so `p_image` and `p_joint` are upper
//! bounds that a model can come near to but can beat only by chance; `p_record` is exact.
//!
//! This crate knows no model, no tensor and no reader: it writes files and never looks at how they will be read.

mod chart;
mod config;
mod dicom;
mod drawing;
mod patient;
mod simulate;
mod stream;
#[cfg(test)]
mod tests;
mod truth;
mod world;

pub use config::{Noise, SimulationConfig, SimulationError};
pub use simulate::{Summary, simulate};
