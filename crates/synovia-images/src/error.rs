//! What can go wrong, in words that hold the place and the way out, and never an identifier.

use std::io;
use std::path::PathBuf;

use dicom_core::Tag;
use synovia_cohort::Rejected;

use crate::source::ServerError;

/// Why a folder of images can't be used at all. What is wrong with one file is a [`Rejected`] instead.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The folder can't be listed.
    #[error("cannot read the image folder {path}: {source}; give a folder that exists and may be read")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is gathered of the images can't be put aside.
    #[error("cannot put aside what was gathered of the images in {path}: {source}; give a folder with space left")]
    Scratch {
        /// The folder for it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A source other than a folder that can't be used.
    #[error("{path}: {what}")]
    Source {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// A DICOMweb server that does not give what it is asked for.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A setting of [`Preparation`](crate::Preparation) is out of range.
    #[error("image preparation: {name} is {got}, expected {expected}")]
    Preparation {
        /// The setting.
        name: &'static str,
        /// What it is.
        got: usize,
        /// What it may be.
        expected: &'static str,
    },
    /// A spacing that no image has.
    #[error("image preparation: a spacing is {0} mm, expected 0.001 to 100")]
    Spacing(f64),
    /// An image whose millimetres are asked for.
    #[error("the image has no spacing of its pixels, which `spacing` in [images] asks for")]
    NoSpacing,
}

/// Why one file, or one frame of it, is not taken.
///
/// Texts out of a file are never repeated here, but for codes whose characters were checked: any text element can hold a
/// name by accident or by malice.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot be read: {}", .0.kind())]
    Io(#[from] io::Error),
    #[error("{0}")]
    Settings(#[from] ImagesError),
    #[error("empty file")]
    Empty,
    #[error("not a DICOM file: neither the DICM prefix nor a data set that starts with group 0002 or 0008")]
    NotDicom,
    #[error("a DICOMDIR lists other files and holds no image")]
    Directory,
    #[error("the file ends inside the data set; copy it again from its source")]
    Truncated,
    #[error("the element claims {claimed} bytes but {left} are left; copy the file again from its source")]
    Overrun { tag: Tag, claimed: u64, left: u64 },
    #[error("the data set cannot be parsed: {what}")]
    Malformed { tag: Tag, what: &'static str },
    #[error("the header holds more than {limit}: not an image that this build reads")]
    HeaderTooLarge { limit: &'static str },
    #[error("{name} is missing")]
    Missing { tag: Tag, name: &'static str },
    #[error("{name} is {got}, expected {expected}")]
    Value { tag: Tag, name: &'static str, got: String, expected: &'static str },
    #[error("transfer syntax {uid} ({name}) cannot be decoded by this build; transcode the file to Explicit VR Little Endian")]
    Undecodable { uid: String, name: &'static str },
    #[error(
        "Pixel Data holds {held} bytes, {needed} are needed for {frames} frame(s) of {rows} rows, {columns} columns, {samples} sample(s) of {bits} bits"
    )]
    PixelLength { held: u64, needed: u64, frames: u32, rows: usize, columns: usize, samples: usize, bits: u32 },
    #[error("a frame of {rows} rows, {columns} columns, {samples} sample(s) is over the limit of {limit} samples")]
    FrameTooLarge { rows: usize, columns: usize, samples: usize, limit: u64 },
    #[error("there is no such frame: the image has {n_frames}")]
    NoSuchFrame { frame: u32, n_frames: u32 },
    #[error("frame {frame} cannot be told apart: {fragments} fragments for {n_frames} frames and no offset table")]
    Fragments { frame: u32, fragments: usize, n_frames: u32 },
    #[error(
        "the {codec} stream is {got_columns} x {got_rows} x {got_samples}, the header says {columns} x {rows} x {samples} (columns x rows x samples)"
    )]
    StreamSize { codec: &'static str, got_columns: usize, got_rows: usize, got_samples: usize, columns: usize, rows: usize, samples: usize },
    #[error("the {codec} stream is damaged; copy the file again from its source")]
    Codec { codec: &'static str },
    #[error("the {codec} stream is of a kind that this build does not decode ({kind}); transcode the file to Explicit VR Little Endian")]
    Kind { codec: &'static str, kind: &'static str },
    #[error("the {codec} decoder failed unexpectedly on this stream")]
    Panicked { codec: &'static str },
    #[error("{0} holds a result, not an acquired image")]
    Derived(&'static str),
    #[error("a localizer alone does not stand for a study")]
    Localizer,
    #[error("the slices have no positions in space, which `slice_spacing` in [images] asks for")]
    NoPlaces,
    #[error("not of the {0} that the pipeline selects")]
    NotSelected(&'static str),
    #[error("the same SOP Instance UID was already taken from another file; keep one of the two")]
    DuplicateInstance,
    #[error("the study holds instances of more than one Patient ID; those of the less frequent are not taken")]
    TwoPatients,
    #[error(
        "the pixels may show who the patient is (Burned In Annotation); blank them by hand, or use the option `pixels` where the file declares its regions and is not compressed"
    )]
    BurnedIn,
    #[error(
        "the pixels may show who the patient is (Burned In Annotation); look at such images, then write burned_in = \"accept\" in [images], or blank them"
    )]
    MayShowName,
    #[error("the entry is {0}")]
    Entry(&'static str),
    #[error("another entry of the archive has the same name")]
    DuplicateEntry,
    #[error("the DICOMDIR names a file outside of its folder")]
    OutsideDirectory,
    #[error("the server does not give it: {0}")]
    Web(String),
    #[error("not a NIfTI file that this build reads: {0}")]
    Nifti(&'static str),
    #[error("not a PNG, JPEG or TIFF file")]
    NotPicture,
    #[error("the {0} file is damaged or over the size limit")]
    Picture(&'static str),
    #[error("another picture has the same name in a different folder; give each picture its own name")]
    DuplicateName,
    #[error("the name is not valid Unicode; rename the file")]
    Name,
    #[error("folder cannot be listed: {0}")]
    Folder(io::ErrorKind),
    #[error("symbolic link to a folder that is already part of the scan")]
    Loop,
}

impl Fault {
    /// The tag, transfer syntax or frame that is at fault; empty for the whole file.
    pub(crate) fn position(&self) -> String {
        use dicom_dictionary_std::tags;
        let tag = match self {
            Self::Overrun { tag, .. } | Self::Malformed { tag, .. } | Self::Missing { tag, .. } | Self::Value { tag, .. } => *tag,
            Self::Undecodable { .. } => tags::TRANSFER_SYNTAX_UID,
            Self::PixelLength { .. }
            | Self::FrameTooLarge { .. }
            | Self::Fragments { .. }
            | Self::StreamSize { .. }
            | Self::Codec { .. }
            | Self::Kind { .. }
            | Self::Panicked { .. } => tags::PIXEL_DATA,
            Self::NoSuchFrame { frame, .. } => return format!("frame {frame}"),
            Self::Derived(_) => tags::SOP_CLASS_UID,
            Self::Localizer => tags::IMAGE_TYPE,
            Self::NotSelected("view") => tags::VIEW_POSITION,
            Self::NotSelected(_) => tags::IMAGE_LATERALITY,
            Self::DuplicateInstance => tags::SOP_INSTANCE_UID,
            Self::BurnedIn | Self::MayShowName => tags::BURNED_IN_ANNOTATION,
            Self::TwoPatients => tags::PATIENT_ID,
            _ => return String::new(),
        };
        tag.to_string()
    }

    pub(crate) fn into_rejected(self, source: &str) -> Rejected {
        Rejected::new(source, self.position(), self.to_string())
    }

    /// A text value as it may be shown: codes of capitals, digits, `_`, `.` and spaces up to 32 characters, else a note.
    pub(crate) fn shown(text: &str) -> String {
        let plain = text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b" _.".contains(&b));
        if plain { format!("`{text}`") } else { "a text that is not a code".to_owned() }
    }
}
