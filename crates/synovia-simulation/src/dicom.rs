//! Digital X-Ray Image Storage - For Presentation (PS3.3 §A.26): one object for each view.

use std::path::Path;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use rand::RngExt;
use synovia_cohort::{Sex, Time};

use crate::drawing::{Canvas, FRONTAL_SIZE, LATERAL_SIZE, frontal, lateral};
use crate::patient::{Patient, Site, Visit, date_of};
use crate::stream::{Purpose, stream};
use crate::{SimulationError, config::io};

/// Seconds from the frontal to the lateral exposure.
const LATERAL_DELAY_SECONDS: i64 = 95;
/// Width of the field of view of the detector.
const FIELD_MM: f64 = 400.0;

/// What sets one view apart from the other.
struct View {
    number: u32,
    position: &'static str,
    orientation: &'static str,
    /// Code value and meaning in SNOMED CT (PS3.16 CID 4010).
    code: (&'static str, &'static str),
    description: &'static str,
    size: usize,
    delay_seconds: i64,
}

const VIEWS: [View; 2] = [
    View {
        number: 1,
        position: "PA",
        orientation: "L\\F",
        code: ("272479007", "postero-anterior"),
        description: "CHEST PA",
        size: FRONTAL_SIZE,
        delay_seconds: 0,
    },
    View {
        number: 2,
        position: "LL",
        orientation: "P\\F",
        code: ("399173006", "left lateral"),
        description: "CHEST LATERAL",
        size: LATERAL_SIZE,
        delay_seconds: LATERAL_DELAY_SECONDS,
    },
];

/// What a visit left on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) n_files: u64,
    pub(crate) bytes: u64,
}

/// Writes the views of a visit into `folder`, which is made.
pub(crate) fn write_study(seed: u64, patient: &Patient, visit_index: usize, folder: &Path) -> Result<Written, SimulationError> {
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let visit = &patient.visits[visit_index];
    let mut rng = stream(seed, patient.index, Purpose::Drawing(visit_index));
    let grain = match patient.site {
        Site::A => 0.022,
        Site::B => 0.030,
    };
    let canvases = [frontal(&visit.image, grain, &mut rng), lateral(grain, &mut rng)];
    // Either view may come first in the folder: what it is, is in the object.
    let swapped = rng.random_bool(0.5);
    let transfer_syntax = match rng.random_range(0..10) {
        0 | 1 => uids::IMPLICIT_VR_LITTLE_ENDIAN,
        2 => uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        _ => uids::EXPLICIT_VR_LITTLE_ENDIAN,
    };
    let mut written = Written::default();
    for (k, (view, canvas)) in VIEWS.iter().zip(&canvases).enumerate() {
        let path = folder.join(format!("{}.dcm", if swapped { 2 - k } else { k + 1 }));
        let encode = |source: Box<dyn std::error::Error + Send + Sync>| SimulationError::Dicom { path: path.clone(), source };
        let object = object(patient, visit, view, k, canvas)
            .with_meta(FileMetaTableBuilder::new().transfer_syntax(transfer_syntax))
            .map_err(|e| encode(e.into()))?;
        let mut bytes = Vec::with_capacity(2 * view.size * view.size + 4096);
        object.write_all(&mut bytes).map_err(|e| encode(e.into()))?;
        std::fs::write(&path, &bytes).map_err(io(&path))?;
        written.n_files += 1;
        written.bytes += bytes.len() as u64;
    }
    Ok(written)
}

fn object(patient: &Patient, visit: &Visit, view: &View, k: usize, canvas: &Canvas) -> InMemDicomObject {
    let inverted = patient.site == Site::B;
    let taken = visit.time.plus_seconds(view.delay_seconds);
    let (manufacturer, model, station) = match patient.site {
        Site::A => ("Northlight Imaging", "NL-DR 400", "DX-A1"),
        Site::B => ("Karst Medical", "Clearfield 7", "DX-B3"),
    };
    let sex = match (patient.has_record, patient.identity.sex) {
        (false, _) => "",
        (_, Sex::Female) => "F",
        (_, Sex::Male) => "M",
        (_, Sex::Other) => "O",
    };
    let birth = if patient.has_record { patient.identity.birth.format("%Y%m%d").to_string() } else { String::new() };
    let spacing = format!("{}", (FIELD_MM / view.size as f64 * 1000.0).round() / 1000.0);
    let spacing = format!("{spacing}\\{spacing}");
    let mut object = InMemDicomObject::new_empty();
    let mut text = |tag: Tag, vr: VR, value: &str| {
        object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
    };
    // Patient (C.7.1.1), General Study (C.7.2.1)
    text(tags::PATIENT_NAME, VR::PN, &patient.person_name());
    text(tags::PATIENT_ID, VR::LO, &patient.mrn);
    text(tags::PATIENT_BIRTH_DATE, VR::DA, &birth);
    text(tags::PATIENT_SEX, VR::CS, sex);
    text(tags::STUDY_INSTANCE_UID, VR::UI, &visit.study_uid);
    text(tags::STUDY_DATE, VR::DA, &dicom_date(visit.time));
    text(tags::STUDY_TIME, VR::TM, &dicom_time(visit.time));
    text(tags::STUDY_ID, VR::SH, "1");
    text(tags::STUDY_DESCRIPTION, VR::LO, "XR CHEST 2 VIEWS");
    text(tags::ACCESSION_NUMBER, VR::SH, "");
    text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "");
    // General Series (C.7.3.1), DX Series (C.8.11.1), General Equipment (C.7.5.1)
    text(tags::MODALITY, VR::CS, "DX");
    text(tags::PRESENTATION_INTENT_TYPE, VR::CS, "FOR PRESENTATION");
    text(tags::SERIES_INSTANCE_UID, VR::UI, &visit.series_uids[k]);
    text(tags::SERIES_NUMBER, VR::IS, &view.number.to_string());
    text(tags::SERIES_DATE, VR::DA, &dicom_date(taken));
    text(tags::SERIES_TIME, VR::TM, &dicom_time(taken));
    text(tags::SERIES_DESCRIPTION, VR::LO, view.description);
    text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST");
    text(tags::MANUFACTURER, VR::LO, manufacturer);
    text(tags::MANUFACTURER_MODEL_NAME, VR::LO, model);
    text(tags::STATION_NAME, VR::SH, station);
    // General Image (C.7.6.1), DX Image (C.8.11.3)
    text(tags::SOP_CLASS_UID, VR::UI, uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION);
    text(tags::SOP_INSTANCE_UID, VR::UI, &visit.instance_uids[k]);
    text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100");
    text(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, "+0000");
    text(tags::INSTANCE_NUMBER, VR::IS, "1");
    text(tags::ACQUISITION_NUMBER, VR::IS, "1");
    text(tags::ACQUISITION_DATE, VR::DA, &dicom_date(taken));
    text(tags::ACQUISITION_TIME, VR::TM, &dicom_time(taken));
    text(tags::CONTENT_DATE, VR::DA, &dicom_date(taken));
    text(tags::CONTENT_TIME, VR::TM, &dicom_time(taken));
    text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY");
    text(tags::PATIENT_ORIENTATION, VR::CS, view.orientation);
    text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO");
    text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00");
    text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, if inverted { "MONOCHROME1" } else { "MONOCHROME2" });
    text(tags::PIXEL_INTENSITY_RELATIONSHIP, VR::CS, "LOG");
    text(tags::RESCALE_INTERCEPT, VR::DS, "0");
    text(tags::RESCALE_SLOPE, VR::DS, "1");
    text(tags::RESCALE_TYPE, VR::LO, "US");
    text(tags::PRESENTATION_LUT_SHAPE, VR::CS, if inverted { "INVERSE" } else { "IDENTITY" });
    text(tags::WINDOW_CENTER, VR::DS, if inverted { "2345" } else { "1750" });
    text(tags::WINDOW_WIDTH, VR::DS, "3400");
    // DX Anatomy Imaged (C.8.11.2), DX Detector (C.8.11.4), DX Positioning (C.8.11.5)
    text(tags::IMAGE_LATERALITY, VR::CS, "U");
    text(tags::IMAGER_PIXEL_SPACING, VR::DS, &spacing);
    text(tags::PIXEL_SPACING, VR::DS, &spacing);
    text(tags::DETECTOR_TYPE, VR::CS, "SCINTILLATOR");
    text(tags::POSITIONER_TYPE, VR::CS, "COLUMN");
    text(tags::VIEW_POSITION, VR::CS, view.position);
    let mut number = |tag: Tag, value: u16| {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    };
    number(tags::SAMPLES_PER_PIXEL, 1);
    number(tags::ROWS, view.size as u16);
    number(tags::COLUMNS, view.size as u16);
    number(tags::BITS_ALLOCATED, 16);
    number(tags::BITS_STORED, 12);
    number(tags::HIGH_BIT, 11);
    number(tags::PIXEL_REPRESENTATION, 0);
    // 1: lower values are less X-ray intensity, −1: higher values are (C.8.11.3.1.2).
    let sign = PrimitiveValue::from(if inverted { 1i16 } else { -1 });
    object.put(DataElement::new(tags::PIXEL_INTENSITY_RELATIONSHIP_SIGN, VR::SS, sign));
    let mut sequence = |tag: Tag, items: Vec<InMemDicomObject>| {
        object.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
    };
    sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![code("51185008", "Chest")]);
    let mut view_code = code(view.code.0, view.code.1);
    view_code.put(DataElement::new(tags::VIEW_MODIFIER_CODE_SEQUENCE, VR::SQ, DataSetSequence::from(Vec::<InMemDicomObject>::new())));
    sequence(tags::VIEW_CODE_SEQUENCE, vec![view_code]);
    sequence(tags::ACQUISITION_CONTEXT_SEQUENCE, Vec::new());
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(canvas.quantise(inverted).into())));
    object
}

/// An item of a code sequence (PS3.3 §8.8) in SNOMED CT.
fn code(value: &str, meaning: &str) -> InMemDicomObject {
    InMemDicomObject::from_element_iter([
        DataElement::new(tags::CODE_VALUE, VR::SH, PrimitiveValue::from(value)),
        DataElement::new(tags::CODING_SCHEME_DESIGNATOR, VR::SH, PrimitiveValue::from("SCT")),
        DataElement::new(tags::CODE_MEANING, VR::LO, PrimitiveValue::from(meaning)),
    ])
}

fn dicom_date(time: Time) -> String {
    date_of(time).format("%Y%m%d").to_string()
}

fn dicom_time(time: Time) -> String {
    let second = time.seconds().rem_euclid(86_400);
    format!("{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}
