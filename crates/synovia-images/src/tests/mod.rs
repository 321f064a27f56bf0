//! DICOM objects with known pixels, written by dicom-object (not by our own code), read back by ours.

// expect-test writes its literals so.
#![allow(clippy::needless_raw_string_hashes)]

mod hostile;
mod jpeg_xl;
mod oracle;
mod pixels;
mod sources;
mod studies;

use std::path::Path;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

/// An object under construction: a 2 x 2 MONOCHROME2 image of 8 bits, 0 to 3, unless told otherwise.
#[derive(Clone)]
pub(crate) struct Object(InMemDicomObject);

impl Object {
    pub(crate) fn new() -> Self {
        Self(InMemDicomObject::new_empty())
            .text(tags::SOP_CLASS_UID, VR::UI, uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION)
            .text(tags::SOP_INSTANCE_UID, VR::UI, "2.25.1")
            .text(tags::STUDY_INSTANCE_UID, VR::UI, "2.25.2")
            .text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.3")
            .text(tags::PATIENT_ID, VR::LO, "SECRET-4711")
            .text(tags::PATIENT_NAME, VR::PN, "Secret^Name")
            .text(tags::PATIENT_BIRTH_DATE, VR::DA, "19611231")
            .text(tags::MODALITY, VR::CS, "DX")
            .text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2")
            .short(tags::SAMPLES_PER_PIXEL, 1)
            .short(tags::PIXEL_REPRESENTATION, 0)
            .size(2, 2)
            .bits(8, 8)
            .bytes(tags::PIXEL_DATA, VR::OB, &[0, 1, 2, 3])
    }

    pub(crate) fn put(mut self, tag: Tag, vr: VR, value: PrimitiveValue) -> Self {
        self.0.put(DataElement::new(tag, vr, value));
        self
    }

    pub(crate) fn text(self, tag: Tag, vr: VR, value: &str) -> Self {
        self.put(tag, vr, PrimitiveValue::from(value))
    }

    pub(crate) fn short(self, tag: Tag, value: u16) -> Self {
        self.put(tag, VR::US, PrimitiveValue::from(value))
    }

    pub(crate) fn shorts(self, tag: Tag, vr: VR, values: &[u16]) -> Self {
        self.put(tag, vr, PrimitiveValue::U16(values.iter().copied().collect()))
    }

    pub(crate) fn bytes(self, tag: Tag, vr: VR, values: &[u8]) -> Self {
        self.put(tag, vr, PrimitiveValue::U8(values.iter().copied().collect()))
    }

    pub(crate) fn without(mut self, tag: Tag) -> Self {
        self.0.remove_element(tag);
        self
    }

    pub(crate) fn size(self, rows: u16, columns: u16) -> Self {
        self.short(tags::ROWS, rows).short(tags::COLUMNS, columns)
    }

    pub(crate) fn bits(self, allocated: u16, stored: u16) -> Self {
        self.short(tags::BITS_ALLOCATED, allocated).short(tags::BITS_STORED, stored).short(tags::HIGH_BIT, stored - 1)
    }

    /// Pixels of 16 bits.
    pub(crate) fn words(self, values: &[u16]) -> Self {
        self.shorts(tags::PIXEL_DATA, VR::OW, values)
    }

    pub(crate) fn window(self, center: &str, width: &str) -> Self {
        self.text(tags::WINDOW_CENTER, VR::DS, center).text(tags::WINDOW_WIDTH, VR::DS, width)
    }

    pub(crate) fn rescale(self, slope: &str, intercept: &str) -> Self {
        self.text(tags::RESCALE_SLOPE, VR::DS, slope).text(tags::RESCALE_INTERCEPT, VR::DS, intercept)
    }

    pub(crate) fn colour(self, photometric: &str) -> Self {
        self.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, photometric)
            .short(tags::SAMPLES_PER_PIXEL, 3)
            .short(tags::PLANAR_CONFIGURATION, 0)
    }

    pub(crate) fn sequence(mut self, tag: Tag, items: Vec<Self>) -> Self {
        let items: Vec<InMemDicomObject> = items.into_iter().map(|item| item.0).collect();
        self.0.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
        self
    }

    /// An item of a sequence: nothing in it.
    pub(crate) fn item() -> Self {
        Self(InMemDicomObject::new_empty())
    }

    pub(crate) fn table(descriptor: [u16; 3], data: &[u16]) -> Self {
        Self::item().shorts(tags::LUT_DESCRIPTOR, VR::US, &descriptor).shorts(tags::LUT_DATA, VR::OW, data)
    }

    pub(crate) fn fragments(mut self, offsets: Vec<u32>, fragments: Vec<Vec<u8>>) -> Self {
        let value = dicom_core::value::PixelFragmentSequence::new(offsets, fragments);
        self.0.put(DataElement::new(tags::PIXEL_DATA, VR::OB, value));
        self
    }

    pub(crate) fn encoded(self, transfer_syntax: &str) -> Vec<u8> {
        let meta = FileMetaTableBuilder::new().transfer_syntax(transfer_syntax);
        let mut bytes = Vec::new();
        self.0.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn write(self, path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, self.encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN)).unwrap();
    }
}

/// Runs `f` on a file with these bytes.
pub(crate) fn with_file<T>(bytes: &[u8], f: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.dcm");
    std::fs::write(&path, bytes).unwrap();
    f(&path)
}
