//! The nouns of synovia and what holds them together: who ([`PatientId`]), when ([`Time`]), what was seen ([`Study`],
//! [`Event`]), what is learnt from it ([`Example`], [`Task`]), how it is divided ([`Split`]), and the aligned cohort on
//! disk that training streams from.
//!
//! This crate knows no file format of others (no DICOM, no FHIR), no tensor, no model and no HTTP.

mod criteria;
mod division;
mod endpoint;
mod event;
mod example;
mod flow;
mod identity;
mod rejected;
mod split;
mod store;
mod task;
mod time;

pub use criteria::{ANY_CODE, Asked, Bounds, Criterion, EventPattern, Index, Modality, Which};
pub use division::{Candidate, Division, Validating};
pub use endpoint::{Endpoint, EndpointKind, EndpointValue};
pub use event::{Event, EventKind, EventValue, Patient, PatientRecord, Sex, Study, StudyLink};
pub use example::{Example, ExampleError, Refused};
pub use flow::{FlowCounts, LeftOut};
pub use identity::{ExampleId, PatientId, name_digest};
pub use rejected::{Rejected, RejectedLog};
pub use split::{Fractions, Split, SplitError, assign, assign_folds, is_labelled};
pub use store::{
    CohortReader, CohortWriter, ExampleRow, FORMAT, FeatureKind, FeatureSpec, Geometry, Manifest, SplitKind, StoreError, Test, Train,
    Validation, View,
};
pub use task::{Task, TaskKind};
pub use time::{Time, TimeError};
