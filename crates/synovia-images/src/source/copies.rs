//! Copies of the images that stand for studies, without what names their patients.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use synovia_cohort::Study;

use crate::deidentify::{Profile, Secret, deidentify_bytes};
use crate::error::Fault;
use crate::scan::{ImageKind, Selection};

/// What copies are named and checked by, and what their UIDs and pseudonyms follow from.
pub(super) struct Copier {
    secret: Secret,
    kind: ImageKind,
    profile: Profile,
}

impl Copier {
    /// With a secret that nobody keeps: copies are only ever read for their pixels.
    pub(super) fn new(kind: ImageKind, selection: &Selection) -> io::Result<Self> {
        let mut bytes = vec![0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let secret = Secret::new(bytes).map_err(io::Error::other)?;
        Ok(Self { secret, kind, profile: Profile { any_pixels: selection.burned_in.takes_any(), ..Profile::default() } })
    }

    /// Writes the copy of `file` to `to`, whole or not at all. A picture and a NIfTI volume have no header that names anybody
    /// but for their comments, and are copied as they are.
    pub(super) fn copy(&self, file: &Path, to: &Path) -> Result<(), Fault> {
        let bytes = std::fs::read(file)?;
        let bytes = match self.kind {
            ImageKind::Dicom => deidentify_bytes(&bytes, self.profile, &self.secret)?.bytes,
            ImageKind::Nifti | ImageKind::Picture => bytes,
        };
        Ok(write_whole(to, &bytes)?)
    }
}

/// Brings each file of a study, by its name in the source and the start of a name for its copy, and puts the name of the copy,
/// which `bring` returns, in its place.
pub(super) fn each_file<E>(study: &mut Study, bring: &mut dyn FnMut(&str, String) -> Result<String, E>) -> Result<(), E> {
    let name = name_of(&study.study_instance_uid);
    let mut known = vec![(study.file.clone(), bring(&study.file, name.clone())?)];
    for (file, _) in &mut study.slices {
        let copy = match known.iter().find(|(source, _)| source == file) {
            Some((_, copy)) => copy.clone(),
            None => bring(file, format!("{name}-{}", known.len()))?,
        };
        known.push((std::mem::replace(file, copy.clone()), copy));
    }
    study.file.clone_from(&known[0].1);
    Ok(())
}

/// Writes a file beside its place and moves it there.
pub(super) fn write_whole(to: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = tempfile::NamedTempFile::new_in(to.parent().unwrap_or(Path::new(".")))?;
    partial.write_all(bytes)?;
    partial.as_file().sync_data()?;
    partial.persist(to).map_err(|error| error.error)?;
    Ok(())
}

/// A name for a study's copy: 32 hexadecimal digits, for its UID may be any text.
pub(super) fn name_of(study_instance_uid: &str) -> String {
    hex(&Sha256::digest(study_instance_uid.as_bytes())[..16])
}

/// Hexadecimal digits of bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
