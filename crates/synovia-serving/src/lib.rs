//! Exported models behind HTTP: the Open Inference Protocol v2 (REST with the binary tensor extension, and gRPC) for tensors, and
//! [`POST /v1/models/{model}/predict`](rest) for DICOM and FHIR as they are.
//!
//! Requests are read on few threads that never wait for a model. A model has a bounded queue, from which a thread of its own takes
//! what is there as one batch; a queue that is full says 429. Models are loaded and warmed up beside those that answer, and take
//! their place at once.
//!
//! This crate knows no training, no pipeline and no evaluation, and keeps nothing of a request: what is uploaded lies in a
//! temporary folder until it is answered. An audit log that the operator asks for has digests of inputs, and what was answered. Of
//! an image archive it knows what its operator says: where it is. Neither logs nor metrics hold anything that a client sent but for
//! the names of loaded models.

mod app;
mod audit;
mod batch;
mod body;
mod client;
mod error;
mod grpc;
mod load;
mod log;
mod metrics;
mod model;
mod queue;
mod repository;
mod rest;
mod scratch;
mod serve;
mod settings;
mod statistics;
#[cfg(test)]
mod tests;
mod tls;
mod trace;

pub use app::App;
pub use audit::{AuditError, Chain, verify};
pub use client::{Client, Role};
pub use error::{LoadError, ServingError};
pub use grpc::grpc;
pub use rest::rest;
pub use serve::{Listening, run, serve};
pub use settings::{Pacs, Settings};
pub use tls::{TlsError, TlsFiles, tls_config};
