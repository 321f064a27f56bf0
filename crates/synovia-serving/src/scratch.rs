//! Where an upload lies while it is read.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

/// A file system in memory.
const MEMORY: &str = "/dev/shm";
/// Uploads up to which memory is used: a body of more is held in memory already.
const MAX_BYTES: u64 = 64 << 20;
/// What is left free there, as a multiple of an upload: copies, and what a chart is sorted in.
const TIMES: u64 = 8;
const MORE: u64 = 16 << 20;
/// What folders in memory are called, before the process's number.
const PREFIX: &str = "synovia-upload-";

/// Bytes that folders in memory may come to need.
static RESERVED: AtomicU64 = AtomicU64::new(0);

/// A folder that is removed when it is dropped.
pub(crate) struct Scratch {
    folder: TempDir,
    reserved: u64,
}

impl Scratch {
    /// In memory for an upload that is small enough, if there is room, else, and where `TMPDIR` says where, below that.
    ///
    /// - n_bytes: what will lie there; `None` where nobody knows, which is never put in memory
    pub(crate) fn new(n_bytes: Option<usize>) -> io::Result<Self> {
        let n_bytes = n_bytes.map(|n| n as u64).filter(|&n| n <= MAX_BYTES && std::env::var_os("TMPDIR").is_none());
        if let Some(n_bytes) = n_bytes {
            let needed = TIMES * n_bytes + MORE;
            let reserved = RESERVED.fetch_add(needed, Ordering::Relaxed) + needed;
            let prefix = format!("{PREFIX}{}-", std::process::id());
            let folder = (room(Path::new(MEMORY)) >= reserved).then(|| tempfile::Builder::new().prefix(&prefix).tempdir_in(MEMORY));
            if let Some(Ok(folder)) = folder {
                return Ok(Self { folder, reserved: needed });
            }
            RESERVED.fetch_sub(needed, Ordering::Relaxed);
        }
        Ok(Self { folder: tempfile::tempdir()?, reserved: 0 })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

/// Removes what servers left in memory that were killed.
pub(crate) fn sweep() {
    for entry in std::fs::read_dir(MEMORY).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            // Another user's is another user's to remove.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Bytes that may be written there.
fn room(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |there| there.f_bavail.saturating_mul(there.f_frsize))
}
