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
/// Held are the names of one folder, the names of subfolders that are still to be visited, and the targets of links that lead
/// out of `root`.
///
/// # Errors
/// `root` itself can't be listed.
pub(crate) fn walk(root: &Path, visit: impl FnMut(String), refuse: impl FnMut(&str, Fault)) -> io::Result<()> {
    let canonical = fs::canonicalize(root)?;
    let mut walker = Walker { trees: HashSet::from([canonical]), root: root.to_owned(), visit, refuse };
    let mut levels = vec![walker.folder("", false)?];
    while let Some(level) = levels.last_mut() {
        match level.folders.next() {
            None => {
                levels.pop();
            }
            Some((name, outside)) => {
                let prefix = format!("{}{name}/", level.prefix);
                match walker.folder(&prefix, outside) {
                    Ok(level) => levels.push(level),
                    Err(error) => (walker.refuse)(prefix.trim_end_matches('/'), Fault::Folder(error.kind())),
                }
            }
        }
    }
    Ok(())
}

/// A folder whose files were visited, and whose subfolders are being.
struct Level {
    prefix: String,
    /// Each with whether a link led out of the root on the way to it.
    folders: std::vec::IntoIter<(Box<str>, bool)>,
}

struct Walker<V, R> {
    root: PathBuf,
    /// The root, and each folder outside of it that a link led to.
    trees: HashSet<PathBuf>,
    visit: V,
    refuse: R,
}

impl<V: FnMut(String), R: FnMut(&str, Fault)> Walker<V, R> {
    fn folder(&mut self, prefix: &str, outside: bool) -> io::Result<Level> {
        let folder = self.root.join(prefix);
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder)? {
            match entry {
                Ok(entry) => names.push(entry.file_name()),
                Err(error) => (self.refuse)(prefix.trim_end_matches('/'), Fault::Folder(error.kind())),
            }
        }
        names.sort_unstable();
        let mut folders = Vec::new();
        for name in names {
            let path = folder.join(&name);
            let Some(text) = name.to_str() else {
                (self.refuse)(&format!("{prefix}{}", name.to_string_lossy()), Fault::Name);
                continue;
            };
            let relative = format!("{prefix}{text}");
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => {
                    let linked = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink());
                    // Within the root a folder is met once; links lead to it again, and into it from outside.
                    match if linked || outside { self.enter(&path, linked) } else { Ok(true) } {
                        Ok(true) => folders.push((text.into(), outside || linked)),
                        Ok(false) => (self.refuse)(&relative, Fault::Loop),
                        Err(error) => (self.refuse)(&relative, Fault::Folder(error.kind())),
                    }
                }
                // A pipe or a device would block for ever.
                Ok(meta) if !meta.is_file() => (self.refuse)(&relative, Fault::NotDicom),
                Ok(_) => (self.visit)(relative),
                Err(error) => (self.refuse)(&relative, Fault::Io(error)),
            }
        }
        Ok(Level { prefix: prefix.to_owned(), folders: folders.into_iter() })
    }

    /// Whether a folder that a link led to is new.
    fn enter(&mut self, path: &Path, linked: bool) -> io::Result<bool> {
        let real = fs::canonicalize(path)?;
        if linked {
            let known = real.ancestors().any(|folder| self.trees.contains(folder)) || self.trees.iter().any(|tree| tree.starts_with(&real));
            return Ok(!known && self.trees.insert(real));
        }
        // Met on the way down from a link's target: only the roots of other trees were visited before.
        Ok(!self.trees.contains(&real))
    }
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
