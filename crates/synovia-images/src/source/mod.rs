//! Where images come from: a folder, the files that a DICOMDIR lists, a zip archive, a DICOMweb server, or files in memory.
//!
//! A folder and a DICOMDIR's files are read where they are. Of an archive and of a server only the image that stands for each
//! study is copied, de-identified on the way: what is kept of it is pixels and what it takes to show them.

mod archive;
mod copies;
mod multipart;
mod web;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use synovia_cohort::{Rejected, RejectedLog, Study};

pub use web::{Login, Server, ServerError};

use crate::dicom::Held;
use crate::error::{Fault, ImagesError};
use crate::preparation::Preparation;
use crate::root::Root;
use crate::scan::{ImageKind, ScanCounts, Selection};
use crate::{dicom, scan};
use archive::Archive;

/// Bytes of one file of an archive or a server: over the largest multi-frame objects that a frame is taken of.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Where images come from.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Folder,
    /// Files by the components of their names, relative to the DICOMDIR's folder.
    Directory(Vec<Vec<String>>),
    Archive,
    Server(Server),
    /// DICOM files by their names.
    Memory(BTreeMap<String, Held>),
}

/// Where a scan puts things.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// A folder that stays: copies of the images that stand for studies, where the source is no folder. What is there already
    /// from the same server is not fetched again.
    pub copies: &'a Path,
    /// A folder for unnamed files.
    pub scratch: &'a Path,
}

impl Source {
    /// Looks what `path` is: a folder; a DICOMDIR or a zip archive, by content and not by name.
    ///
    /// # Errors
    /// [`ImagesError::Source`] for a file that is neither, [`ImagesError::Folder`] for what can't be read.
    pub fn open(path: &Path) -> Result<Self, ImagesError> {
        let failed = |source| ImagesError::Folder { path: path.to_owned(), source };
        let kind = if std::fs::metadata(path).map_err(failed)?.is_dir() {
            Kind::Folder
        } else if starts_as_zip(path).map_err(failed)? {
            Kind::Archive
        } else {
            let refused = |what: String| ImagesError::Source { path: path.to_owned(), what };
            match dicom::directory_files(path).map_err(|fault| refused(fault.to_string()))? {
                Some(files) => Kind::Directory(files),
                None => return Err(refused("neither a DICOMDIR nor a zip archive; give a folder, or one of them".to_owned())),
            }
        };
        Ok(Self { path: path.to_owned(), kind })
    }

    /// A DICOMweb server.
    pub fn server(server: Server) -> Self {
        Self { path: PathBuf::from(server.url()), kind: Kind::Server(server) }
    }

    /// DICOM files in memory, each with a name for the index and for what is said of it.
    pub fn memory(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let files = files.into_iter().map(|(name, bytes)| (name, Held::new(bytes))).collect();
        Self { path: PathBuf::new(), kind: Kind::Memory(files) }
    }

    /// [`load`](crate::load) of an image of the index that [`Source::scan_into`] made with the same `copies`.
    ///
    /// # Errors
    /// As there.
    pub fn load(&self, copies: &Path, study: &Study, preparation: &Preparation) -> Result<Vec<f32>, Rejected> {
        match &self.kind {
            Kind::Memory(files) => Root::Memory(files).load(study, preparation),
            _ => crate::load(self.root(copies), study, preparation),
        }
    }

    /// The folder that the index's files are relative to, for [`load`](crate::load); none for files in memory.
    pub fn root<'a>(&'a self, copies: &'a Path) -> &'a Path {
        match &self.kind {
            Kind::Folder | Kind::Memory(_) => &self.path,
            Kind::Directory(_) => folder_of(&self.path),
            Kind::Archive | Kind::Server(_) => copies,
        }
    }

    /// [`scan_into`](crate::scan_into) of any source. What is in an archive or on a server is told by the name of the entry, or by
    /// `STUDY/SERIES/INSTANCE`, in `rejected`.
    ///
    /// # Errors
    /// As there, and what is wrong with an archive or a server as a whole.
    pub fn scan_into(
        &self,
        kind: ImageKind,
        selection: &Selection,
        places: Places<'_>,
        rejected: &RejectedLog,
        progress: &(dyn Fn(u64) + Sync),
        take: &mut dyn FnMut(Study) -> io::Result<()>,
    ) -> Result<ScanCounts, ImagesError> {
        match &self.kind {
            Kind::Folder => scan::scan_into(&self.path, kind, selection, places.scratch, rejected, progress, take),
            Kind::Directory(files) => {
                let root = folder_of(&self.path);
                let mut list = |visit: &mut dyn FnMut(String)| {
                    for file in files {
                        match on_disk(root, file) {
                            Some(path) => visit(path),
                            None => rejected.push(&Fault::OutsideDirectory.into_rejected(&file.join("/"))),
                        }
                    }
                    Ok(())
                };
                let read = |file: &str| Root::Folder(root).instance(file, kind, selection);
                scan::scan_files(&mut list, &read, kind, selection, places.scratch, rejected, progress, take)
            }
            Kind::Archive => Archive::open(&self.path)?.scan_into(kind, selection, places, rejected, progress, take),
            Kind::Memory(files) => {
                if kind != ImageKind::Dicom {
                    let what = "files in memory are read as DICOM alone; put them into a folder".to_owned();
                    return Err(ImagesError::Source { path: PathBuf::new(), what });
                }
                let mut list = |visit: &mut dyn FnMut(String)| {
                    files.keys().cloned().for_each(visit);
                    Ok(())
                };
                let read = |file: &str| Root::Memory(files).instance(file, kind, selection);
                scan::scan_files(&mut list, &read, kind, selection, places.scratch, rejected, progress, take)
            }
            Kind::Server(server) => server.scan_into(kind, selection, places, rejected, progress, take),
        }
    }

    /// What the source holds now, if it takes more than the times of files to tell: of a server a digest of its studies and how
    /// many instances each has.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn state(&self) -> Result<Option<String>, ImagesError> {
        match &self.kind {
            Kind::Server(server) => server.state().map(Some),
            _ => Ok(None),
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A listed file, relative to the DICOMDIR's folder: as it is written there or, as many systems copy a disk, in lower case.
/// `None` for a name that leads out of the folder. One that is not there stays as written.
fn on_disk(root: &Path, parts: &[String]) -> Option<String> {
    let written = parts.join("/");
    let inside = |path: &str| !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside(&written) || parts.iter().any(|part| part.contains('/')) {
        return None;
    }
    let lower = written.to_lowercase();
    Some(if !root.join(&written).exists() && root.join(&lower).exists() { lower } else { written })
}

fn starts_as_zip(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    std::fs::File::open(path)?.take(4).read_to_end(&mut start)?;
    Ok(matches!(start[..], [b'P', b'K', 3, 4] | [b'P', b'K', 5, 6]))
}
