//! Files and folders that are there whole or not at all, whenever the process or the machine stops.
//!
//! Both are written beside their place as `.NAME.partial`, brought to disk, and renamed. What a killed process leaves is
//! removed by [`RunFolder::open`](super::run_folder::RunFolder::open).

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{StageError, at};

/// Ending of what is not finished.
const PARTIAL: &str = ".partial";

/// Writes a file whole: to `.NAME.partial` beside it, to disk, then renamed over it.
///
/// # Errors
/// That of `write`, or of the file system; `target` is then as it was.
pub fn atomic_file<E: From<StageError>>(target: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<(), E> {
    let partial = beside(target, PARTIAL);
    let written = write_file(target, &partial, write);
    if written.is_err() {
        // The error that is returned says more than one of the cleaning up would.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

fn write_file<E: From<StageError>>(target: &Path, partial: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<(), E> {
    let mut out = BufWriter::new(File::create(partial).map_err(at(target))?);
    write(&mut out)?;
    let file = out.into_inner().map_err(|error| at(target)(error.into_error()))?;
    file.sync_all().map_err(at(target))?;
    std::fs::rename(partial, target).map_err(at(target))?;
    Ok(sync_parent(target)?)
}

/// Starts a folder that appears at `target` only when it is [committed](PartialDir::commit).
pub fn atomic_dir(target: &Path) -> Result<PartialDir, StageError> {
    let path = beside(target, PARTIAL);
    remove(&path)?;
    std::fs::create_dir_all(&path).map_err(at(&path))?;
    Ok(PartialDir { path, target: target.to_owned() })
}

/// A folder being written. Dropped without a commit, it is removed.
#[derive(Debug)]
pub struct PartialDir {
    path: PathBuf,
    target: PathBuf,
}

impl PartialDir {
    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Brings all files to disk and puts the folder in its place; what was there before is removed.
    ///
    /// Two renames replace a folder that is not empty, so a kill between them leaves none: a stage takes its old outputs
    /// for gone from its start on ([`Stage::begin`](super::cache::Stage::begin)).
    pub fn commit(self) -> Result<(), StageError> {
        sync_tree(&self.path)?;
        let old = beside(&self.target, ".old.partial");
        remove(&old)?;
        if self.target.symlink_metadata().is_ok() {
            std::fs::rename(&self.target, &old).map_err(at(&self.target))?;
        }
        std::fs::rename(&self.path, &self.target).map_err(at(&self.target))?;
        sync_parent(&self.target)?;
        remove(&old)
    }
}

impl Drop for PartialDir {
    fn drop(&mut self) {
        // After a commit there is nothing at the path. A failure here leaves a partial folder, which the next run removes.
        let _ = remove(&self.path);
    }
}

/// Whether a file name is one of something unfinished.
pub(super) fn is_partial(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') && name.ends_with(PARTIAL)
}

/// Removes a file or a folder with all in it; nothing there is no error.
pub fn remove(path: &Path) -> Result<(), StageError> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn beside(target: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(ending);
    target.with_file_name(name)
}

fn sync_parent(path: &Path) -> Result<(), StageError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(at(parent))
}

fn sync_tree(dir: &Path) -> Result<(), StageError> {
    for entry in std::fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(at(dir))?);
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            File::open(&path).and_then(|file| file.sync_all()).map_err(at(&path))?;
        }
    }
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(at(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("metrics.json");
        let put = |text: &'static [u8], fail: bool| {
            atomic_file(&target, |out| {
                out.write_all(text).map_err(at(&target))?;
                if fail { Err(at(&target)(std::io::Error::from(std::io::ErrorKind::StorageFull))) } else { Ok(()) }
            })
        };
        put(b"first", false).unwrap();
        assert!(put(b"sec", true).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"first");
        put(b"second", false).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"second");
        assert_eq!(names(dir.path()), ["metrics.json"]);
    }

    #[test]
    fn a_full_disk_is_an_error_with_the_file() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            // Past the capture of a passing test's output.
            std::io::stderr().write_all(b"skipped: this system has no /dev/full\n").unwrap();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("big");
        std::os::unix::fs::symlink(full, beside(&target, PARTIAL)).unwrap();
        let error = atomic_file(&target, |out| out.write_all(&vec![0; 1 << 20]).map_err(at(&target))).unwrap_err().to_string();
        assert!(error.contains("big") && error.contains("No space left"), "{error}");
        assert!(names(dir.path()).is_empty(), "nothing half-written is left");
    }

    #[test]
    fn a_folder_appears_at_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("cohort");
        let fill = |text: &str| {
            let partial = atomic_dir(&target).unwrap();
            std::fs::create_dir(partial.path().join("deep")).unwrap();
            std::fs::write(partial.path().join("deep/a"), text).unwrap();
            partial
        };
        drop(fill("dropped"));
        assert!(names(dir.path()).is_empty());
        let partial = fill("one");
        assert_eq!(names(dir.path()), [".cohort.partial"]);
        partial.commit().unwrap();
        std::fs::write(target.join("extra"), "").unwrap();
        fill("two").commit().unwrap();
        assert_eq!(names(dir.path()), ["cohort"]);
        assert_eq!(names(&target), ["deep"], "files of the folder before are gone");
        assert_eq!(std::fs::read_to_string(target.join("deep/a")).unwrap(), "two");
    }
}
