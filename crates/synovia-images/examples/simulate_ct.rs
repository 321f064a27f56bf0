//! Writes simulated CT slices of 512 x 512, Explicit VR Little Endian, for measuring ingest: a body with lungs and a spine
//! in noise, 12 bits stored, in the abdominal window. Same arguments, same bytes but for the UIDs' root.
//!
//! `cargo run --release --example simulate_ct -p synovia-images -- FOLDER N`

use std::path::PathBuf;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

const SIDE: usize = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: simulate_ct FOLDER N")?);
    let n: usize = arguments.next().and_then(|n| n.to_str()?.parse().ok()).ok_or("usage: simulate_ct FOLDER N")?;
    std::fs::create_dir_all(&folder)?;
    for slice in 0..n {
        let object = slice_of(slice).with_meta(FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN))?;
        object.write_to_file(folder.join(format!("{slice:05}.dcm")))?;
    }
    Ok(())
}

/// Hounsfield units of a slice of a body; `z` is from 0 to 1 along it.
fn tissue(x: f64, y: f64, z: f64) -> f64 {
    let within = |cx: f64, cy: f64, rx: f64, ry: f64| ((x - cx) / rx).powi(2) + ((y - cy) / ry).powi(2) < 1.0;
    let lung = 0.30 + 0.05 * (z * 9.0).sin();
    if !within(0.0, 0.0, 0.88, 0.62) {
        -1000.0
    } else if !within(0.0, 0.0, 0.84, 0.58) {
        -90.0
    } else if within(0.0, 0.36, 0.11, 0.12) {
        550.0
    } else if within(-0.42, -0.03, lung, 0.42) || within(0.42, -0.03, lung, 0.42) {
        -820.0 + 60.0 * (40.0 * x).sin() * (37.0 * y + 20.0 * z).sin()
    } else {
        45.0
    }
}

fn slice_of(slice: usize) -> InMemDicomObject {
    let mut state = slice as u64 * 0x9E37_79B9_7F4A_7C15 + 1;
    // The sum of four uniform numbers, from an xorshift: near enough to noise of a detector, 12 HU wide.
    let mut noise = || {
        let mut sum = 0.0;
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            sum += (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5;
        }
        sum * 12.0 * 3f64.sqrt()
    };
    let z = slice as f64 / 200.0;
    let place = |k: usize| (k as f64 + 0.5) / SIDE as f64 * 2.0 - 1.0;
    let mut before = 0.0;
    let pixels: Vec<u16> = (0..SIDE * SIDE)
        .map(|k| {
            // Reconstruction makes neighbours' noise alike.
            before = 0.5 * before + 0.75 * noise();
            let hu = tissue(place(k % SIDE), place(k / SIDE), z) + before;
            (hu + 1024.0).round().clamp(0.0, 4095.0) as u16
        })
        .collect();
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let short = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    InMemDicomObject::from_element_iter([
        text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL"),
        text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
        text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.1.{slice}")),
        text(tags::STUDY_INSTANCE_UID, VR::UI, &format!("2.25.2.{}", slice / 200)),
        text(tags::SERIES_INSTANCE_UID, VR::UI, &format!("2.25.3.{}", slice / 200)),
        text(tags::STUDY_DATE, VR::DA, "20200102"),
        text(tags::STUDY_TIME, VR::TM, "030405"),
        text(tags::MODALITY, VR::CS, "CT"),
        text(tags::PATIENT_NAME, VR::PN, "Simulated"),
        text(tags::PATIENT_ID, VR::LO, &format!("SIM-{}", slice / 200)),
        text(tags::PATIENT_BIRTH_DATE, VR::DA, ""),
        text(tags::PATIENT_SEX, VR::CS, ""),
        text(tags::INSTANCE_NUMBER, VR::IS, &(slice % 200 + 1).to_string()),
        text(tags::IMAGE_POSITION_PATIENT, VR::DS, &format!("-180\\-180\\{}", slice % 200)),
        text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0"),
        text(tags::PIXEL_SPACING, VR::DS, "0.703125\\0.703125"),
        text(tags::SLICE_THICKNESS, VR::DS, "1"),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        text(tags::WINDOW_CENTER, VR::DS, "40"),
        text(tags::WINDOW_WIDTH, VR::DS, "400"),
        text(tags::RESCALE_INTERCEPT, VR::DS, "-1024"),
        text(tags::RESCALE_SLOPE, VR::DS, "1"),
        short(tags::SAMPLES_PER_PIXEL, 1),
        short(tags::ROWS, SIDE as u16),
        short(tags::COLUMNS, SIDE as u16),
        short(tags::BITS_ALLOCATED, 16),
        short(tags::BITS_STORED, 12),
        short(tags::HIGH_BIT, 11),
        short(tags::PIXEL_REPRESENTATION, 0),
        DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())),
    ])
}
