//! Trained model to ONNX file, and its run by ONNX Runtime.
//!
//! A burn forward pass is recorded ([`trace`]) and lowered, operation by operation, to an ONNX [`Graph`] with one symbolic
//! dimension, `batch`; [`Session`] runs the file and [`verify`] compares it with the trained model. A new encoder needs no
//! export code.
//!
//! This crate knows no training, no cohort and no particular model: it sees tensors and operations.

mod builder;
mod canonical;
mod dim;
mod error;
mod graph;
mod install;
mod lower;
mod program;
pub mod proto;
mod runtime;
mod trace;
mod verify;

#[cfg(test)]
mod tests;

pub use error::TraceError;
pub use graph::{Graph, IR_VERSION, OPSET};
pub use install::{InstallError, RUNTIME_VERSION, install_runtime};
pub use runtime::{InputArray, OutputArray, RuntimeError, Session, TensorInfo, find_runtime};
pub use trace::{Tracer, trace};
pub use verify::{BATCHES, ModalityInput, OutputDifference, TOLERANCE, Verification, VerifyError, presence_input, verify};
