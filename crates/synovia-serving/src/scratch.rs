//! Where an upload lies while it is read.

use std::io;
use std::path::Path;

use tempfile::TempDir;

/// A file system in memory.
const MEMORY: &str = "/dev/shm";
/// Uploads up to which memory is used: a body of more is held in memory already.
const MAX_BYTES: u64 = 64 << 20;
/// What is left free there, as a multiple of an upload: copies, and what a chart is sorted in.
const TIMES: u64 = 8;
const MORE: u64 = 16 << 20;

/// A folder that is removed when it is dropped: in memory where the upload is small enough and there is room, else, and where
/// `TMPDIR` says where, below that.
pub(crate) fn folder(n_bytes: usize) -> io::Result<TempDir> {
    let n_bytes = n_bytes as u64;
    let fits = std::env::var_os("TMPDIR").is_none() && n_bytes <= MAX_BYTES && room(Path::new(MEMORY)) >= TIMES * n_bytes + MORE;
    match fits.then(|| tempfile::tempdir_in(MEMORY)) {
        Some(Ok(folder)) => Ok(folder),
        _ => tempfile::tempdir(),
    }
}

/// Bytes that may be written there.
fn room(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |there| there.f_bavail.saturating_mul(there.f_frsize))
}
