//! Health records to events: FHIR R4 (NDJSON, Bundles, gzip), MEDS, OMOP CDM and CSV are read once, streamed, into a [`RecordStore`] on disk
//! that gives [`synovia_cohort::PatientRecord`]s back a partition at a time; units are settled here; a [`FeaturePlan`] fitted
//! on train examples turns a history into a row of numbers, and a [`LabelSpec`] reads an outcome from what came later.
//!
//! This crate knows nothing of images, models or splits, and nothing of terminologies beyond the codes in its unit table:
//! it does not map codes between systems, and follows a hierarchy only where the code itself carries it (ICD-10).
//!
//! # When an event was known
//! An event's time is when the chart could first have told of it, never when it began, so that a prediction made in between
//! does not see it: the later of what happened (`effective…`, `onset…`, `performed…`) and when it was made available
//! (`issued`, `recordedDate`), where both are there. A period counts from its end, a partial date from its last moment.

mod config;
mod csv;
mod endpoints;
mod error;
mod features;
mod fhir;
mod ingest;
mod json;
mod labels;
mod rows;
mod source;
mod spill;
mod summary;
#[cfg(test)]
mod tests;
mod time;
mod units;

pub use config::{CsvLayout, Format, FormatConfig, LongLayout};
pub use endpoints::{EndpointSpec, Outcome, Rules};
pub use error::RecordsError;
pub use features::{Feature, FeatureConfig, FeaturePlan, FeatureSource, PlanBuilder, Statistic};
pub use ingest::{ingest, input_bytes};
pub use labels::{LabelOutcome, LabelSpec};
pub use spill::RecordStore;
pub use summary::Summary;
pub use units::{UnitError, canonical_unit, convert};
