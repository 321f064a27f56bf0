//! The one binary: what a user types ([`cli`]), what a pipeline file says ([`pipeline`]), the commands ([`commands`]), the
//! stages with their cache ([`stages`]), and what is shown on the way ([`progress`], [`failure`]).
//!
//! This crate knows nothing of pixels, codes or tensors: it calls the crates that do, in order.

pub mod cli;
pub mod commands;
pub mod failure;
pub mod pipeline;
pub mod progress;
pub mod stages;
