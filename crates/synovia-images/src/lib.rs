//! Medical pictures on disk (DICOM, NIfTI, PNG, JPEG, TIFF) to one prepared array a study: which instance stands for the study, its
//! stored values through modality and VOI transformation to grey in `[0, 1]`, resized with antialiasing.
//!
//! This crate knows no health record, no label, no prediction time and no model. It writes no file, it has no network,
//! it never shows a patient's identifier: a [`Rejected`](synovia_cohort::Rejected) names the file, the tag and what to do.
//!
//! Two steps: [`scan`] reads headers only and returns a [`StudyIndex`]; [`load`] decodes the one image of a study.
//! Every file is hostile until shown otherwise: sizes are checked against what the file holds before anything is
//! allocated, and a third-party decoder that panics costs a rejection, not the run.

mod deidentify;
mod dicom;
mod error;
mod nifti;
mod picture;
mod preparation;
mod quiet;
mod recycle;
mod scan;
mod sort;
mod stack;
#[cfg(test)]
mod tests;
mod walk;
mod window;

use std::fmt;
use std::path::Path;

use synovia_cohort::{Rejected, RejectedLog, Study};

pub use deidentify::{Clean, Profile, ProfileError, Secret, deidentify};
pub use error::ImagesError;
pub use preparation::{Fit, Preparation};
pub use scan::{ImageKind, ScanCounts, Selection, StudyIndex, scan, scan_into};
pub use stack::{Plane, Stack, stack};
pub use window::{Window, WindowError};

use error::Fault;
use preparation::Picture;

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
    let path = root.join(&study.file);
    let decode = || -> Result<Vec<f32>, Fault> {
        let kind = match () {
            () if nifti::is_nifti(&path) => ImageKind::Nifti,
            () if picture::is_picture(&path)? => ImageKind::Picture,
            () => ImageKind::Dicom,
        };
        Ok(preparation.apply(decode(&path, kind, Some(study.frame), preparation)?.0)?)
    };
    decode().map_err(|fault| fault.into_rejected(&study.file))
}

/// Reads one file by itself, as prediction does: the same preparation as [`load`], and the identifiers that the file has.
/// Of a file with several frames the middle one is taken, as [`scan`] does.
///
/// # Errors
/// A [`Rejected`] whose source is the file's name.
pub fn load_file(path: &Path, kind: ImageKind, preparation: &Preparation) -> Result<Loaded, Rejected> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let decode = || -> Result<Loaded, Fault> {
        let (picture, mut study) = decode(path, kind, None, preparation)?;
        study.file.clone_from(&name);
        Ok(Loaded { pixels: preparation.apply(picture)?, study })
    };
    decode().map_err(|fault| fault.into_rejected(&name))
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
