//! An image archive (PACS) by DICOMweb (PS3.18): a study by its UID, and what a model says of it back as a structured report.
//!
//! This crate knows answers and DICOM; no model, no record, no client of a server and no request. What it is given by others is one
//! UID: where the archive is, its operator says.

mod archive;
mod identity;
mod report;

pub use archive::{Archive, ArchiveError};
pub use report::{Said, Stored};
