//! The folder of one run, held by one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::atomic::{is_partial, remove};
use super::{StageError, at};

const LOCK: &str = ".lock";
/// Records of finished stages.
const STAGES: &str = "stages";
/// Folders of shards, each a run folder of its own.
pub const SHARDS: &str = "shards";
/// Partial outputs lie no deeper than this below the run folder.
const PARTIAL_DEPTH: usize = 3;

/// A run folder that this process holds until it is dropped.
///
/// The lock is the kernel's, on the open file `RUN/.lock`, so that one of a dead process is none; the process id in it is
/// for people.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held open: closing it gives the lock back.
    _lock: File,
}

impl RunFolder {
    /// Makes the folder if need be, locks it, and removes what a killed run left unfinished.
    ///
    /// # Errors
    /// [`StageError::Busy`] while another process holds it; [`StageError::NotARunFolder`] for a folder with other things
    /// in it, which is left alone; [`StageError::Io`] when it cannot be written.
    pub fn open(path: &Path) -> Result<Self, StageError> {
        std::fs::create_dir_all(path).map_err(at(path))?;
        let lock_path = path.join(LOCK);
        if !lock_path.exists() && std::fs::read_dir(path).map_err(at(path))?.next().is_some() {
            return Err(StageError::NotARunFolder { path: path.to_owned() });
        }
        let mut lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.read_to_string(&mut pid);
                let known = pid.trim().parse::<u32>().map(|pid| format!("process {pid}"));
                return Err(StageError::Busy { path: path.to_owned(), holder: known.unwrap_or_else(|_| "another process".to_owned()) });
            }
            Err(TryLockError::Error(error)) => return Err(at(&lock_path)(error)),
        }
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(at(&lock_path))?;
        let stages = path.join(STAGES);
        std::fs::create_dir_all(&stages).map_err(at(&stages))?;
        remove_partials(path, PARTIAL_DEPTH)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder of a shard of the run in `run`, which is made where it is not there and stays free for others.
    ///
    /// # Errors
    /// As [`RunFolder::open`].
    pub fn open_shard(run: &Path, name: &str) -> Result<Self, StageError> {
        std::fs::create_dir_all(run).map_err(at(run))?;
        let lock_path = run.join(LOCK);
        // Many shards may begin at once: what another of them has just made is no one else's.
        let is_other = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.map_or(true, |entry| entry.file_name() != SHARDS && entry.file_name() != LOCK)
        };
        if !lock_path.exists() && std::fs::read_dir(run).map_err(at(run))?.any(is_other) {
            return Err(StageError::NotARunFolder { path: run.to_owned() });
        }
        OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path).map_err(at(&lock_path))?;
        Self::open(&run.join(SHARDS).join(name))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Where a stage's record is.
    pub(super) fn record(&self, stage: &str) -> PathBuf {
        self.path.join(STAGES).join(format!("{stage}.json"))
    }
}

fn remove_partials(dir: &Path, depth: usize) -> Result<(), StageError> {
    for entry in std::fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        if is_partial(&entry.file_name()) {
            remove(&entry.path())?;
        } else if entry.file_name() == SHARDS {
            // A shard that is being made has partial outputs, and removes its own.
        } else if depth > 1 && entry.file_type().map_err(at(dir))?.is_dir() {
            remove_partials(&entry.path(), depth - 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs/lung");
        let held = RunFolder::open(&path).unwrap();
        let error = RunFolder::open(&path).unwrap_err();
        assert!(matches!(error, StageError::Busy { .. }));
        assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(held);
        RunFolder::open(&path).unwrap();
    }

    #[test]
    fn the_lock_of_a_dead_process_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK), "4194304999\n").unwrap();
        let run = RunFolder::open(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(run.join(LOCK)).unwrap().trim(), std::process::id().to_string());
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunFolder::open(dir.path()).unwrap());
        for folder in [".cohort.partial/deep", "model", "checkpoints"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in [
            ".cohort.partial/deep/x",
            ".metrics.json.partial",
            "stages/.ingest.json.partial",
            "model/.w.partial",
            "model/w",
            "checkpoints/1",
        ] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let run = RunFolder::open(dir.path()).unwrap();
        for gone in [".cohort.partial", ".metrics.json.partial", "stages/.ingest.json.partial", "model/.w.partial"] {
            assert!(!run.join(gone).exists(), "{gone}");
        }
        assert!(run.join("model/w").exists() && run.join("checkpoints/1").exists());
    }

    #[test]
    fn shards_work_beside_each_other_and_their_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let first = RunFolder::open_shard(&path, "0-of-2").unwrap();
        let second = RunFolder::open_shard(&path, "1-of-2").unwrap();
        assert!(matches!(RunFolder::open_shard(&path, "1-of-2").unwrap_err(), StageError::Busy { .. }));
        fs::create_dir(first.join(".rows.partial")).unwrap();
        let run = RunFolder::open(&path).unwrap();
        assert!(first.join(".rows.partial").exists(), "what a shard is writing stays");
        drop((run, first, second));
        fs::write(dir.path().join("thesis"), "years").unwrap();
        assert!(matches!(RunFolder::open_shard(dir.path(), "0-of-2").unwrap_err(), StageError::NotARunFolder { .. }));
    }

    #[test]
    fn a_folder_of_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".thesis.partial"), "years").unwrap();
        let error = RunFolder::open(dir.path()).unwrap_err();
        assert!(matches!(error, StageError::NotARunFolder { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_in_its_place_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::write(&path, "").unwrap();
        assert!(matches!(RunFolder::open(&path).unwrap_err(), StageError::Io { .. }));
    }
}
