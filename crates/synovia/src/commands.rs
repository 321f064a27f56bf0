//! The commands, one module each, and what those that work on a pipeline begin with.

pub mod audit;
pub mod bench;
pub mod compare;
pub mod deidentify;
pub mod federate;
pub mod predict;
pub mod receive;
pub mod serve;
pub mod simulate;
pub mod stages;
pub mod triton;
pub mod tune;
pub mod verify_log;

use anyhow::Context as _;

use crate::cli::{Global, PipelineArgs};
use crate::pipeline::Pipeline;
use crate::progress::Progress;
use crate::stages::StageError;
use crate::stages::atomic::atomic_file;
use crate::stages::cohort::shard::{Shard, share_ingest};
use crate::stages::run_folder::RunFolder;

/// What every command is given besides its own arguments.
#[derive(Clone)]
pub struct Context {
    /// The options of every command.
    pub global: Global,
    /// Where it says how far it is.
    pub progress: Progress,
}

impl Context {
    /// Of the options.
    pub fn new(global: &Global) -> Self {
        Self { global: global.clone(), progress: Progress::new(global.quiet, global.json) }
    }

    /// Settles the number of threads, once in a process and before any work: the option, else what the pipeline says,
    /// else all cores.
    pub fn use_threads(&self, pipeline: Option<&Pipeline>) -> anyhow::Result<()> {
        let threads = self.global.threads.or_else(|| pipeline.and_then(|pipeline| pipeline.training.threads));
        let threads = threads.unwrap_or(0);
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().with_context(|| format!("starting {threads} threads"))
    }
}

/// A checked pipeline in a run folder that this process holds.
pub struct Work {
    /// What to do.
    pub pipeline: Pipeline,
    /// Where.
    pub run: RunFolder,
    /// Where stages say how far they are.
    pub progress: Progress,
}

impl Work {
    /// Reads and checks the pipeline, settles the threads, takes the run folder and writes `RUN/pipeline.toml`.
    pub fn open(args: &PipelineArgs, context: &Context) -> anyhow::Result<Self> {
        let pipeline = args.read()?;
        context.use_threads(Some(&pipeline))?;
        let run = RunFolder::open(&args.run_folder(&pipeline))?;
        let work = Self { pipeline, run, progress: context.progress.clone() };
        work.write_pipeline(&[])?;
        Ok(work)
    }

    /// As [`Work::open`], in the folder of a shard, with the ingest of the run where that is there.
    pub fn open_shard(args: &PipelineArgs, context: &Context, shard: Shard) -> anyhow::Result<Self> {
        let pipeline = args.read()?;
        context.use_threads(Some(&pipeline))?;
        let path = args.run_folder(&pipeline);
        let run = RunFolder::open_shard(&path, &shard.name())?;
        share_ingest(&path, &run)?;
        let work = Self { pipeline, run, progress: context.progress.clone() };
        work.write_pipeline(&[])?;
        Ok(work)
    }

    /// Writes `RUN/pipeline.toml`: the pipeline with every default, the program's version, and how it came to be
    /// otherwise, such as hashes of the inputs.
    pub fn write_pipeline(&self, provenance: &[(&str, String)]) -> anyhow::Result<()> {
        let version = [("synovia", env!("CARGO_PKG_VERSION").to_owned())];
        let text = self.pipeline.resolved_toml(&[&version[..], provenance].concat())?;
        let path = self.run.join("pipeline.toml");
        atomic_file(&path, |out| out.write_all(text.as_bytes()).map_err(|source| StageError::Io { path: path.clone(), source }))?;
        Ok(())
    }
}
