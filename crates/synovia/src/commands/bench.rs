//! `synovia bench`: speed, as one JSON line.

mod ingest;
mod train;

use super::Context;
use crate::cli::{BenchArgs, BenchCommand};

/// Measures and prints.
pub fn bench(args: &BenchArgs, context: &Context) -> anyhow::Result<()> {
    context.use_threads(None)?;
    match &args.what {
        BenchCommand::Train(args) => train::train(args),
        BenchCommand::Ingest(args) => ingest::ingest(args),
    }
}
