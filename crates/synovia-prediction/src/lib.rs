//! From an exported model's own metadata ([`Exported`]) and new images and records to the model's inputs, and from its outputs to
//! an answer: the one way to it, for the command line and for the server.
//!
//! Which patient a study is of, and when predictions are made ([`link`], [`Anchor`]), is here too, so that prediction makes the
//! examples that training made.
//!
//! This crate knows no pipeline file, no run folder, no training and no HTTP; it runs no model.

mod answer;
mod error;
mod examples;
mod exported;
mod link;
mod pictures;

pub use answer::{Answer, InputValues, OutOfRange, PredictionSet, Present, Unlike};
pub use error::PredictionError;
pub use examples::{Prepared, for_each_example, records};
pub use exported::{Exported, ExportedEndpoint, METADATA};
pub use link::{AT_ONCE, Anchor, Links, Moment, Unit, link};
pub use pictures::Pictures;
