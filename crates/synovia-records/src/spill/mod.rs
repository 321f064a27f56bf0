//! Events on disk between reading and use: first as they come, by hash of the patient, then settled patient by patient.

mod codec;
mod item;
mod medications;
mod said;
mod settle;
mod store;

pub(crate) use item::{Body, MEDICATION_PREFIX, Origin, Sink};
pub(crate) use medications::Medications;
pub(crate) use said::{Said, Token, Value};
pub(crate) use settle::{Context, settle};
pub use store::RecordStore;
pub(crate) use store::{MARKER, Raw, marker, publish};
