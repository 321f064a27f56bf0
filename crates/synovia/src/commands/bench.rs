//! `synovia bench`: speed, as one JSON line.

mod ingest;
mod records;
mod train;

use super::Context;
use crate::cli::{BenchArgs, BenchCommand};

/// Measures and prints.
pub fn bench(args: &BenchArgs, context: &Context) -> anyhow::Result<()> {
    // The records' peer counts its threads by itself.
    if !matches!(args.what, BenchCommand::Records(_)) {
        context.use_threads(None)?;
    }
    match &args.what {
        BenchCommand::Train(args) => train::train(args),
        BenchCommand::Ingest(args) => ingest::ingest(args),
        BenchCommand::Records(args) => records::records(args),
    }
}
