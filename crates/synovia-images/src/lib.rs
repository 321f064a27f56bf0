//! Medical pictures on disk (DICOM, NIfTI, PNG, JPEG, TIFF) to one prepared array a study: which instance stands for the study, its
//! stored values through modality and VOI transformation to grey in `[0, 1]`, resized with antialiasing.
//!
//! This crate knows no health record, no label, no prediction time and no model. It never shows a patient's identifier: a
//! [`Rejected`](synovia_cohort::Rejected) names the file, the tag and what to do. Files are written by the [`Receiver`], and of a
//! [`Source`] that is no folder, where only copies that name nobody are.
//!
//! Two steps: [`scan`], or [`Source::scan_into`], reads headers only and returns a [`StudyIndex`]; [`load`] decodes the one image
//! of a study.
//! Every file is hostile until shown otherwise: sizes are checked against what the file holds before anything is
//! allocated, and a third-party decoder that panics costs a rejection, not the run.

mod deidentify;
mod dicom;
mod error;
mod nifti;
mod picture;
mod preparation;
mod quiet;
mod receive;
mod recycle;
mod root;
mod scan;
mod sort;
mod source;
mod stack;
#[cfg(test)]
mod tests;
mod walk;
mod window;

use std::fmt;
use std::path::Path;

use synovia_cohort::{Rejected, RejectedLog, Study};

pub use deidentify::{Clean, Profile, ProfileError, Secret, deidentify, is_uid};
pub use error::ImagesError;
pub use preparation::{Fit, Preparation};
pub use receive::{Receiver, Reception};
pub use scan::{BurnedIn, ImageKind, ScanCounts, Selection, StudyIndex, scan, scan_into};
pub use source::{Login, Places, Server, ServerError, Source};
pub use stack::{Plane, Stack, stack};
pub use window::{Window, WindowError};

use error::Fault;
use preparation::Picture;
use root::Root;

/// One image, prepared, and what its file says of it.
#[derive(Clone, PartialEq)]
pub struct Loaded {
    /// Values in `[0, 1]`. Shape: `[channels, size, size]`, row-major.
    pub pixels: Vec<f32>,
    /// The study that the file belongs to; identifiers are empty where the file has none.
    pub study: Study,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("n_values", &self.pixels.len()).field("modality", &self.study.modality).finish_non_exhaustive()
    }
}

/// Decodes and prepares the image that stands for `study`, an entry of the [`StudyIndex`] of `root`.
///
/// # Shapes
/// - result: `[channels, size, size]`, row-major, values in `[0, 1]`
///
/// # Errors
/// A [`Rejected`] that names the file relative to `root`, the tag or frame, and the reason.
pub fn load(root: &Path, study: &Study, preparation: &Preparation) -> Result<Vec<f32>, Rejected> {
    Root::Folder(root).load(study, preparation)
}

/// How many files ahead [`will_need`] pays: what two threads decode while a disk answers.
pub const AHEAD: usize = 8;

/// Tells the system that a file is about to be read, so that the disk works while other files are decoded. What is wrong with it
/// shows when it is read.
pub fn will_need(path: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(file) = std::fs::File::open(path) {
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::WillNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
}

/// Reads one file by itself, as prediction does: the same preparation as [`load`], and the identifiers that the file has.
/// Of a file with several frames the middle one is taken, as [`scan`] does.
///
/// # Errors
/// A [`Rejected`] whose source is the file's name.
pub fn load_file(path: &Path, kind: ImageKind, preparation: &Preparation) -> Result<Loaded, Rejected> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let decode = || -> Result<Loaded, Fault> {
        let (picture, mut study) = decode(path, kind, None, &preparation.of_one_picture())?;
        study.file.clone_from(&name);
        let folder = path.parent().unwrap_or(Path::new(""));
        let pixels =
            if preparation.slices > 1 { Root::Folder(folder).volume(&study, kind, preparation)? } else { preparation.apply(picture)? };
        Ok(Loaded { pixels, study })
    };
    decode().map_err(|fault| fault.into_rejected(&name))
}

/// The study that a file is by itself, named by the file.
pub(crate) fn study_by_name(kind: ImageKind, path: &Path) -> Study {
    match kind {
        ImageKind::Nifti => nifti::study_of(path, ""),
        _ => picture::study_of(path, ""),
    }
}

fn decode(path: &Path, kind: ImageKind, frame: Option<u32>, preparation: &Preparation) -> Result<(Picture, Study), Fault> {
    preparation.check()?;
    match kind {
        ImageKind::Dicom => dicom::decode_file(path, frame, preparation),
        ImageKind::Nifti => Ok((nifti::decode_file(path, preparation)?, nifti::study_of(path, ""))),
        ImageKind::Picture => Ok((picture::decode_file(path, preparation.channels)?, picture::study_of(path, ""))),
    }
}

/// Calls `visit` with every file under `root`, relative to it, in one order on every machine; what can't be visited goes to
/// `rejected`.
///
/// # Errors
/// [`ImagesError::Folder`] when `root` can't be listed.
pub fn image_files(root: &Path, rejected: &RejectedLog, visit: &mut dyn FnMut(String)) -> Result<(), ImagesError> {
    let refuse = |file: &str, fault: Fault| rejected.push(&fault.into_rejected(file));
    walk::walk(root, visit, refuse).map_err(|source| ImagesError::Folder { path: root.to_owned(), source })
}

/// Decodes one frame of one file and returns it as it is before the resize: grey values in `[0, 1]`, row-major, with the
/// number of columns and rows. For comparison with other implementations; training uses [`load`].
///
/// # Errors
/// As [`load_file`].
pub fn decode_frame(path: &Path, kind: ImageKind, frame: u32) -> Result<(Vec<f32>, usize, usize), Rejected> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (mut picture, _) = decode(path, kind, Some(frame), &Preparation::default()).map_err(|fault| fault.into_rejected(&name))?;
    Ok((picture.planes.remove(0), picture.width, picture.height))
}
