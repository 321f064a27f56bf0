//! Whether a file or folder is still the one it was, without reading it.
//!
//! The fingerprint is SHA-256 over the sorted list of (relative path, size, modification time in nanoseconds). It holds one
//! folder's names in memory at a time. A file that was changed in place with its size and time put back looks unchanged:
//! the price of not reading terabytes before every run. Moving a folder keeps it; copying without times does not.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{StageError, at};

/// 64 hexadecimal digits that stand for the file or folder at `path` as it is now.
///
/// Symbolic links are followed, each folder at most once on the way down, so that a loop of links ends. A link to nothing
/// counts by its name.
pub fn fingerprint(path: &Path) -> Result<String, StageError> {
    let metadata = path.metadata().map_err(at(path))?;
    let mut hash = Sha256::new();
    hash.update(b"synovia/fingerprint/1");
    if metadata.is_dir() {
        walk(path, b"", &mut vec![identity(&metadata)], &mut hash)?;
    } else {
        entry(&mut hash, b"", &metadata);
    }
    Ok(hex::encode(hash.finalize()))
}

/// Device and inode: what a folder is, under whatever name.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn walk(dir: &Path, relative: &[u8], above: &mut Vec<(u64, u64)>, hash: &mut Sha256) -> Result<(), StageError> {
    let names = std::fs::read_dir(dir).map_err(at(dir))?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<Result<Vec<_>, _>>().map_err(at(dir))?;
    names.sort_unstable();
    for name in names {
        let path = dir.join(&name);
        let mut below = relative.to_vec();
        below.push(b'/');
        below.extend_from_slice(name.as_bytes());
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                let this = identity(&metadata);
                if !above.contains(&this) {
                    above.push(this);
                    walk(&path, &below, above, hash)?;
                    above.pop();
                }
            }
            Ok(metadata) => entry(hash, &below, &metadata),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => text(hash, &below),
            Err(error) => return Err(at(&path)(error)),
        }
    }
    Ok(())
}

fn entry(hash: &mut Sha256, relative: &[u8], metadata: &Metadata) {
    text(hash, relative);
    hash.update(metadata.len().to_le_bytes());
    hash.update(metadata.mtime().to_le_bytes());
    hash.update(metadata.mtime_nsec().to_le_bytes());
}

/// Length first, so that no two lists of names run together into the same bytes.
fn text(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;

    /// The fingerprint after `change` differs from that before, or not.
    #[track_caller]
    fn check(differs: bool, change: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/one"), "1").unwrap();
        fs::write(root.join("a/b/two"), "22").unwrap();
        let before = fingerprint(&root).unwrap();
        assert_eq!(before, fingerprint(&root).unwrap());
        change(&root);
        let root = if root.exists() { root } else { dir.path().join("moved") };
        assert_eq!(fingerprint(&root).unwrap() != before, differs);
    }

    #[test]
    fn what_changes_it() {
        check(false, |_| ());
        check(false, |root| fs::rename(root, root.with_file_name("moved")).unwrap());
        check(false, |root| fs::create_dir(root.join("empty")).unwrap());
        check(true, |root| fs::write(root.join("a/one"), "12").unwrap());
        check(true, |root| File::create(root.join("a/three")).map(|_| ()).unwrap());
        check(true, |root| fs::remove_file(root.join("a/b/two")).unwrap());
        check(true, |root| fs::rename(root.join("a/one"), root.join("a/uno")).unwrap());
        check(true, |root| fs::rename(root.join("a/b/two"), root.join("a/two")).unwrap());
        check(true, |root| {
            File::options()
                .write(true)
                .open(root.join("a/one"))
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
                .unwrap();
        });
        check(true, |root| std::os::unix::fs::symlink("/nowhere/at/all", root.join("dangling")).unwrap());
    }

    #[test]
    fn a_loop_of_links_ends() {
        check(false, |root| std::os::unix::fs::symlink(root, root.join("a/b/again")).unwrap());
    }

    #[test]
    fn nothing_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(fingerprint(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
