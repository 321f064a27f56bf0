//! What the stages of a pipeline share: the run folder, the writing of whole files only, and the cache that skips a stage
//! whose inputs, settings and version are unchanged.

pub mod atomic;
pub mod attributes;
pub mod baselines;
pub mod cache;
pub mod cohort;
pub mod embeddings;
pub mod endpoints;
pub mod evaluate;
pub mod explain;
pub mod export;
pub mod fingerprint;
pub mod ingest;
pub mod novelty;
pub mod outcome;
pub mod place;
pub mod robustness;
pub mod run_folder;
pub mod train;

use std::path::{Path, PathBuf};

use crate::progress::Progress;
use cache::{Freshness, Stage};
use run_folder::RunFolder;

/// Why the run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Reading or writing failed: no permission, a full disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process works in the run folder.
    #[error("{}: in use by {holder}; wait until it ends, or give another folder with --run", path.display())]
    Busy {
        /// The run folder.
        path: PathBuf,
        /// `process 123`, or what is known of it.
        holder: String,
    },
    /// The folder holds something else.
    #[error("{}: is not empty and not a run folder of synovia; give a new or empty folder with --run", path.display())]
    NotARunFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A stage promised an output and did not write it.
    #[error("{}: the stage `{stage}` ended without writing it", path.display())]
    NoOutput {
        /// The stage.
        stage: String,
        /// The output.
        path: PathBuf,
    },
    /// Settings that cannot be written as JSON.
    #[error("the settings of the stage `{stage}` cannot be written: {source}")]
    Settings {
        /// The stage.
        stage: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Runs a stage's body, unless it is fresh, and notes its `outputs` (paths relative to the run folder). Says which of the
/// two, and returns whether it ran.
///
/// # Errors
/// That of the body, after which the stage counts as not done, or of the run folder.
pub fn run_stage(
    stage: &Stage,
    run: &RunFolder,
    progress: &Progress,
    outputs: &[&str],
    body: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    match stage.freshness(run)? {
        Freshness::Fresh => {
            progress.note(stage.name(), "unchanged, skipped");
            return Ok(false);
        }
        Freshness::New => {}
        Freshness::Stale(reason) => progress.note(stage.name(), &format!("again, because {reason}")),
    }
    stage.begin(run)?;
    body()?;
    stage.finish(run, outputs)?;
    Ok(true)
}

/// Adds the path to an error of the file system.
fn at(path: &Path) -> impl FnOnce(std::io::Error) -> StageError + '_ {
    move |source| StageError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::progress::Mode;

    #[test]
    fn a_stage_runs_once_and_again_when_it_must() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFolder::open(dir.path()).unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let progress = Progress::to_writer(Mode::Lines, said.clone());
        let go = |size: usize, fail: bool| {
            let stage = Stage::new("ingest", 1, &serde_json::json!({ "size": size })).unwrap();
            run_stage(&stage, &run, &progress, &["out"], || {
                std::fs::write(run.join("out"), size.to_string())?;
                if fail { Err(anyhow::anyhow!("the disk is full")) } else { Ok(()) }
            })
        };
        assert!(go(64, false).unwrap());
        assert!(!go(64, false).unwrap());
        assert!(go(32, true).is_err());
        assert!(go(64, false).unwrap(), "a stage that failed is not done, not even with the settings from before");
        std::fs::write(run.join("out"), "tampered").unwrap();
        assert!(go(64, false).unwrap());
        assert_eq!(std::fs::read_to_string(run.join("out")).unwrap(), "64");
        let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
        let expected = ["unchanged, skipped", "again, because the setting size changed", "again, because its output out was changed since"];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected.map(|what| format!("ingest: {what}")));
    }
}
