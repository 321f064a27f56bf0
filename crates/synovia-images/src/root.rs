//! One image of an index, from where its file is.

use std::collections::BTreeMap;
use std::path::Path;

use synovia_cohort::{Rejected, Study};

use crate::dicom::{self, Held, Instance};
use crate::error::Fault;
use crate::preparation::{Picture, Preparation};
use crate::scan::{ImageKind, Selection, evenly, instance_of};
use crate::stack::nearest;
use crate::{decode, nifti, picture};

/// Where the files of an index are.
#[derive(Clone, Copy)]
pub(crate) enum Root<'a> {
    /// Below a folder.
    Folder(&'a Path),
    /// In memory, by their names: DICOM all of them.
    Memory(&'a BTreeMap<String, Held>),
}

impl Root<'_> {
    /// The image that stands for `study`, or the slices of its volume, prepared.
    pub(crate) fn load(self, study: &Study, preparation: &Preparation) -> Result<Vec<f32>, Rejected> {
        let load = || -> Result<Vec<f32>, Fault> {
            let kind = self.kind(&study.file)?;
            if preparation.slices > 1 {
                return self.volume(study, kind, preparation);
            }
            Ok(preparation.apply(self.decode(&study.file, kind, study.frame, preparation)?)?)
        };
        load().map_err(|fault| fault.into_rejected(&study.file))
    }

    /// The slices of a volume, one after another.
    pub(crate) fn volume(self, study: &Study, kind: ImageKind, preparation: &Preparation) -> Result<Vec<f32>, Fault> {
        preparation.check()?;
        let one = preparation.of_one_slice();
        let mut values = Vec::with_capacity(preparation.n_values());
        if let (Self::Folder(root), ImageKind::Nifti) = (self, kind) {
            for picture in nifti::decode_slices(&root.join(&study.file), preparation, preparation.slices)? {
                values.append(&mut one.apply(picture)?);
            }
            return Ok(values);
        }
        let mut slices = study.slices.clone();
        if slices.is_empty() && kind == ImageKind::Dicom {
            let (frames, along_mm) = self.frames_in_space(&study.file)?;
            let chosen = match preparation.slice_spacing_mm {
                Some(spacing) if frames.len() > 1 => nearest(&along_mm.ok_or(Fault::NoPlaces)?, preparation.slices, spacing),
                _ => (0..preparation.slices).map(|k| evenly(k, preparation.slices, frames.len())).collect(),
            };
            slices = chosen.into_iter().map(|k| (study.file.clone(), frames[k])).collect();
        }
        if slices.len() != preparation.slices {
            slices = vec![(study.file.clone(), study.frame); preparation.slices];
        }
        for (k, (file, frame)) in slices.iter().enumerate() {
            // A picture, and a short volume, has the same slice more than once.
            if k > 0 && slices[k - 1] == (file.clone(), *frame) {
                values.extend_from_within(values.len() - one.n_values()..);
            } else {
                values.append(&mut one.apply(self.decode(file, kind, *frame, &one)?)?);
            }
        }
        Ok(values)
    }

    /// What a file is, by its header, if it is selected.
    pub(crate) fn instance(self, file: &str, kind: ImageKind, selection: &Selection) -> Result<Instance, Fault> {
        match self {
            Self::Folder(root) => instance_of(&root.join(file), kind, selection),
            Self::Memory(files) => {
                let instance = dicom::index_file(held(files, file)?)?;
                selection.check(&instance)?;
                Ok(instance)
            }
        }
    }

    fn kind(self, file: &str) -> Result<ImageKind, Fault> {
        let Self::Folder(root) = self else { return Ok(ImageKind::Dicom) };
        let path = root.join(file);
        Ok(match () {
            () if nifti::is_nifti(&path) => ImageKind::Nifti,
            () if picture::is_picture(&path)? => ImageKind::Picture,
            () => ImageKind::Dicom,
        })
    }

    fn decode(self, file: &str, kind: ImageKind, frame: u32, preparation: &Preparation) -> Result<Picture, Fault> {
        match self {
            Self::Folder(root) => Ok(decode(&root.join(file), kind, Some(frame), preparation)?.0),
            Self::Memory(files) => {
                preparation.check()?;
                Ok(dicom::decode_file(held(files, file)?, Some(frame), preparation)?.0)
            }
        }
    }

    fn frames_in_space(self, file: &str) -> Result<(Vec<u32>, Option<Vec<f64>>), Fault> {
        match self {
            Self::Folder(root) => dicom::frames_in_space(root.join(file).as_path()),
            Self::Memory(files) => dicom::frames_in_space(held(files, file)?),
        }
    }
}

fn held<'a>(files: &'a BTreeMap<String, Held>, file: &str) -> Result<&'a Held, Fault> {
    files.get(file).ok_or_else(|| Fault::Io(std::io::ErrorKind::NotFound.into()))
}
