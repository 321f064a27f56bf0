//! The files under a folder, in one order on every machine, each folder once.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Fault;

/// Calls `visit` with the path of each file under `root`, relative to it with `/` between its parts, sorted by name within
/// its folder, files of a folder before its subfolders; and `refuse` with what can't be visited. Symbolic links are
/// followed, but a folder is visited only once, so that a loop of links ends. Hidden files (`.DS_Store`) are visited too:
/// it is for the reader to say that they are no images.
///
/// Only one folder's names are held at a time, besides the folders that are still to be visited.
///
/// # Errors
/// `root` itself can't be listed.
pub(crate) fn walk(root: &Path, mut visit: impl FnMut(String), mut refuse: impl FnMut(&str, Fault)) -> io::Result<()> {
    let mut seen = HashSet::new();
    seen.insert(fs::canonicalize(root)?);
    let mut pending: Vec<(PathBuf, String)> = vec![(root.to_owned(), String::new())];
    let mut first = true;
    while let Some((folder, prefix)) = pending.pop() {
        let listing = match fs::read_dir(&folder) {
            Ok(listing) => listing,
            Err(error) if first => return Err(error),
            Err(error) => {
                refuse(prefix.trim_end_matches('/'), Fault::Folder(error.kind()));
                continue;
            }
        };
        first = false;
        let mut names: Vec<_> = listing.filter_map(|entry| entry.ok().map(|entry| entry.file_name())).collect();
        names.sort_unstable();
        let mut folders = Vec::new();
        for name in names {
            let path = folder.join(&name);
            let Some(text) = name.to_str() else {
                refuse(&format!("{prefix}{}", name.to_string_lossy()), Fault::Name);
                continue;
            };
            let relative = format!("{prefix}{text}");
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => match fs::canonicalize(&path) {
                    Ok(real) if !seen.contains(&real) => {
                        seen.insert(real);
                        folders.push((path, format!("{relative}/")));
                    }
                    Ok(_) => refuse(&relative, Fault::Loop),
                    Err(error) => refuse(&relative, Fault::Folder(error.kind())),
                },
                // A pipe or a device would block for ever.
                Ok(meta) if !meta.is_file() => refuse(&relative, Fault::NotDicom),
                Ok(_) => visit(relative),
                Err(error) => refuse(&relative, Fault::Io(error)),
            }
        }
        pending.extend(folders.into_iter().rev());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_without_loops() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::create_dir_all(root.join("a")).unwrap();
        for file in ["z", "b/2", "b/10", "b/c/1", "a/1"] {
            fs::write(root.join(file), b"x").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(root, root.join("b/c/up")).unwrap();
        let (mut files, mut refused) = (Vec::new(), Vec::new());
        walk(root, |file| files.push(file), |file, fault| refused.push(format!("{file}: {fault}"))).unwrap();
        assert_eq!(files, ["z", "a/1", "b/10", "b/2", "b/c/1"]);
        #[cfg(unix)]
        assert_eq!(refused, ["b/c/up: symbolic link to a folder that is already part of the scan"]);
        assert!(walk(&root.join("absent"), |_| (), |_, _| ()).is_err());
    }
}
