//! The studies to predict on.

use std::path::{Path, PathBuf};

use synovia_cohort::{RejectedLog, Study};
use synovia_images::{Places, Preparation, Source};

use crate::{Exported, PredictionError};

/// The studies to predict on. Their pixels are read one study at a time.
#[derive(Default)]
pub struct Pictures<'a> {
    /// Where they come from, where copies of them lie, and how they are prepared.
    from: Option<(Source, PathBuf, &'a Preparation)>,
    /// The studies, in the order of their UIDs.
    pub studies: Vec<Study>,
}

impl<'a> Pictures<'a> {
    /// Of a folder, or of a file: what a file is taken for does not depend on how it is given. None for a model that looks at no
    /// images.
    ///
    /// # Errors
    /// When the path, or the folder for what is put aside, can't be used.
    pub fn find(path: &Path, exported: &'a Exported, scratch: &Path, log: &RejectedLog) -> Result<Self, PredictionError> {
        let source = match Source::open(path) {
            // A file that is no DICOMDIR and no archive is an image.
            Err(_) if path.is_file() => Source::open(&folder_of_one(path, scratch)?)?,
            source => source?,
        };
        Self::of(source, exported, scratch, log)
    }

    /// Of any source.
    ///
    /// # Errors
    /// As [`Pictures::find`].
    pub fn of(source: Source, exported: &'a Exported, scratch: &Path, log: &RejectedLog) -> Result<Self, PredictionError> {
        let Some(preparation) = exported.preparation.as_ref() else { return Ok(Self::default()) };
        let kind = exported.image_kind.ok_or(PredictionError::NoImageKind)?;
        let copies = scratch.join("copies");
        let mut studies = Vec::new();
        source.scan_into(kind, &exported.selection, Places { copies: &copies, scratch }, log, &|_| (), &mut |study| {
            studies.push(study);
            Ok(())
        })?;
        Ok(Self { from: Some((source, copies, preparation)), studies })
    }

    /// Whether images were given at all; that none of them could be used does not matter.
    pub const fn are_some(&self) -> bool {
        self.from.is_some()
    }

    /// The pixels of a study; `None` where they can't be had, which goes to `log`.
    pub(crate) fn load(&self, study: usize, log: &RejectedLog) -> Option<Vec<f32>> {
        let (source, copies, preparation) = self.from.as_ref()?;
        source.load(copies, &self.studies[study], preparation).map_err(|rejected| log.push(&rejected)).ok()
    }
}

/// A folder in which there is a link to the file and nothing else.
fn folder_of_one(file: &Path, scratch: &Path) -> Result<PathBuf, PredictionError> {
    let folder = scratch.join("image");
    let link = || {
        std::fs::create_dir(&folder)?;
        std::os::unix::fs::symlink(file.canonicalize()?, folder.join(file.file_name().unwrap_or_default()))
    };
    link().map_err(|source| PredictionError::Io { path: file.to_owned(), source })?;
    Ok(folder)
}
