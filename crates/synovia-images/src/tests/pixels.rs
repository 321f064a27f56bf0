//! Known stored values through every photometric interpretation, bit depth, transformation and encoding.

use std::io::Write;

use dicom_core::{PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};

use super::{Object, with_file};
use crate::{ImageKind, Preparation, decode_frame, load_file};

#[track_caller]
fn check_encoded(object: Object, transfer_syntax: &str, frame: u32, expected: &[f64]) {
    let (values, columns, rows) =
        with_file(&object.encoded(transfer_syntax), |path| decode_frame(path, ImageKind::Dicom, frame)).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(values.len(), columns * rows);
    assert_eq!(values.len(), expected.len());
    for (k, (&got, &expected)) in values.iter().zip(expected).enumerate() {
        assert!((f64::from(got) - expected).abs() < 1e-6, "pixel {k} is {got}, not {expected}: {values:?}");
    }
}

#[track_caller]
fn check(object: Object, expected: &[f64]) {
    check_encoded(object, uids::EXPLICIT_VR_LITTLE_ENDIAN, 0, expected);
}

#[track_caller]
fn check_refused(object: Object, position: &str, reason: &str) {
    let rejected =
        with_file(&object.encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN), |path| decode_frame(path, ImageKind::Dicom, 0)).expect_err("refused");
    assert_eq!((rejected.position.as_str(), rejected.reason.as_str()), (position, reason));
}

fn grey16(values: [u16; 4], stored: u16) -> Object {
    Object::new().bits(16, stored).words(&values)
}

fn signed(values: [i16; 4]) -> Object {
    grey16(values.map(i16::cast_unsigned), 16).short(tags::PIXEL_REPRESENTATION, 1)
}

const THIRDS: [f64; 4] = [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0];
const REVERSED: [f64; 4] = [1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0];

#[test]
fn without_a_window_the_range_of_the_image() {
    check(Object::new(), &THIRDS);
    check(grey16([100, 400, 700, 1000], 16), &THIRDS);
    check(signed([-150, -50, 50, 150]), &THIRDS);
    check(grey16([5; 4], 16), &[0.0; 4]);
}

#[test]
fn monochrome1_is_inverted() {
    let inverted = |object: Object| object.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1");
    check(inverted(Object::new()), &REVERSED);
    check(inverted(grey16([0, 1000, 2000, 4095], 12)).window("2048", "4096"), &[1.0, 1.0 - 1000.0 / 4095.0, 1.0 - 2000.0 / 4095.0, 0.0]);
}

#[test]
fn windows_apply_to_rescaled_values() {
    // A CT in the abdominal window: HU = stored - 1024; c = 40, w = 400 shows -160 to 239.
    let ct = |values| grey16(values, 12).rescale("1", "-1024").window("40", "400");
    check(ct([0, 864, 1263, 4095]), &[0.0, 0.0, 1.0, 1.0]);
    check(ct([1024, 1064, 1124, 1224]), &[0.0, 40.0, 100.0, 200.0].map(|hu| (hu - 39.5) / 399.0 + 0.5));
    check(signed([-1000, 0, 10, 20]).rescale("2", "5").window("25", "41"), &[0.0, 0.5 / 40.0, 0.5 + 0.5 / 40.0, 1.0]);
    check(grey16([0, 1, 2, 3], 16).rescale("-1", "0"), &REVERSED);
    let exact = grey16([0, 1024, 2048, 4096], 16).window("2048", "4096").text(tags::VOILUT_FUNCTION, VR::CS, "LINEAR_EXACT");
    check(exact, &[0.0, 0.25, 0.5, 1.0]);
    let sigmoid = grey16([0, 50, 100, 150], 16).window("50", "100").text(tags::VOILUT_FUNCTION, VR::CS, "SIGMOID");
    check(sigmoid, &[0.0, 50.0, 100.0, 150.0].map(|x: f64| 1.0 / (1.0 + (-4.0 * (x - 50.0) / 100.0).exp())));
    // The first of several alternatives.
    check(grey16([0, 1000, 2000, 4095], 12).window("2048\\1", "4096\\2"), &[0.0, 1000.0 / 4095.0, 2000.0 / 4095.0, 1.0]);
}

#[test]
fn a_window_that_is_none_gives_the_range() {
    for (center, width) in [("NaN", "400"), ("40", "nan"), ("40", "inf"), ("40", "0.5"), ("40", "-3"), ("words", "1"), ("40", "")] {
        check(Object::new().window(center, width), &THIRDS);
    }
}

#[test]
fn a_rescale_that_is_none_is_refused() {
    check_refused(Object::new().rescale("0", "0"), "(0028,1053)", "Rescale Slope is 0, expected a number other than 0");
    check_refused(Object::new().rescale("NaN", "0"), "(0028,1053)", "Rescale Slope is not a finite number, expected a number other than 0");
    check_refused(Object::new().rescale("1", "inf"), "(0028,1052)", "Rescale Intercept is not a finite number, expected a number");
}

#[test]
fn what_lies_outside_of_bits_stored_is_not_the_image() {
    // Overlay bits above, then a value that sits at the top of its cell.
    check(grey16([0xF000, 0x8001, 0x4002, 0x1003], 12), &THIRDS);
    check(grey16([0x0008, 0x0017, 0x0020, 0x003F], 12).short(tags::HIGH_BIT, 15), &THIRDS);
    // 12-bit two's complement: -1 is 0xFFF.
    let values = grey16([0xFFF, 0x000, 0x001, 0x002], 12).short(tags::PIXEL_REPRESENTATION, 1);
    check(values, &THIRDS);
}

#[test]
fn padding_is_black_and_not_part_of_the_range() {
    let padded = |values| signed(values).put(tags::PIXEL_PADDING_VALUE, VR::SS, PrimitiveValue::from(-2000i16));
    check(padded([-2000, 0, 50, 100]), &[0.0, 0.0, 0.5, 1.0]);
    check(padded([-2000, 0, 50, 100]).text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1"), &[0.0, 1.0, 0.5, 0.0]);
    check(
        padded([-2000, -1900, 0, 100]).put(tags::PIXEL_PADDING_RANGE_LIMIT, VR::SS, PrimitiveValue::from(-1500i16)),
        &[0.0, 0.0, 0.0, 1.0],
    );
    check(padded([-2000; 4]), &[0.0; 4]);
}

#[test]
fn look_up_tables() {
    // Modality: stored 10, 11, 12 to 0, 300, 900; below and above the table its ends.
    let modality = |object: Object| object.sequence(tags::MODALITY_LUT_SEQUENCE, vec![Object::table([3, 10, 16], &[0, 300, 900])]);
    check(modality(grey16([9, 10, 11, 13], 16)), &[0.0, 0.0, 1.0 / 3.0, 1.0]);
    // VOI: an output of 12 bits is over 4095.
    let voi = |first: u16| Object::table([4, first, 12], &[0, 4095, 1000, 2000]);
    let expected = [0.0, 1.0, 1000.0 / 4095.0, 2000.0 / 4095.0];
    check(grey16([7, 8, 9, 10], 16).sequence(tags::VOILUT_SEQUENCE, vec![voi(7)]), &expected);
    // The first input value is signed when the modality's output can be.
    let ct = grey16([23, 24, 25, 26], 16).rescale("1", "-24").sequence(tags::VOILUT_SEQUENCE, vec![voi(u16::MAX)]);
    check(ct, &expected);
    // A table goes before a window.
    check(grey16([7, 8, 9, 10], 16).window("1", "2").sequence(tags::VOILUT_SEQUENCE, vec![voi(7)]), &expected);
    // Entries of a byte each.
    let bytes = Object::item().shorts(tags::LUT_DESCRIPTOR, VR::US, &[4, 0, 8]).bytes(tags::LUT_DATA, VR::OW, &[255, 0, 51, 102]);
    check(Object::new().sequence(tags::VOILUT_SEQUENCE, vec![bytes]), &[1.0, 0.0, 0.2, 0.4]);
    // Half of the words are no bytes.
    check_refused(
        Object::new().sequence(tags::VOILUT_SEQUENCE, vec![Object::table([4, 0, 16], &[1, 2])]),
        "(0028,3002)",
        "the data set cannot be parsed: LUT Data does not have the entries that the LUT Descriptor says",
    );
    check_refused(
        Object::new().sequence(tags::VOILUT_SEQUENCE, vec![Object::table([9, 0, 8], &[1])]),
        "(0028,3002)",
        "the data set cannot be parsed: LUT Data does not have the entries that the LUT Descriptor says",
    );
}

#[test]
fn colour_becomes_luma() {
    let luma = [0.299, 0.587, 0.114, 1.0];
    let rgb = Object::new().colour("RGB").bytes(tags::PIXEL_DATA, VR::OB, &[255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]);
    check(rgb.clone(), &luma);
    let planes = [255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255];
    check(rgb.short(tags::PLANAR_CONFIGURATION, 1).bytes(tags::PIXEL_DATA, VR::OB, &planes), &luma);
    let wide = Object::new().colour("RGB").bits(16, 16).words(&[65535, 0, 0, 0, 65535, 0, 0, 0, 65535, 65535, 65535, 65535]);
    check(wide, &luma);
    let ybr = Object::new().colour("YBR_FULL").bytes(tags::PIXEL_DATA, VR::OB, &[0, 128, 128, 51, 9, 200, 102, 128, 128, 255, 0, 0]);
    check(ybr, &[0.0, 0.2, 0.4, 1.0]);
    let ybr422 = Object::new().colour("YBR_FULL_422").bytes(tags::PIXEL_DATA, VR::OB, &[0, 51, 128, 128, 102, 255, 9, 200]);
    check(ybr422, &[0.0, 0.2, 0.4, 1.0]);
}

#[test]
fn three_channels_keep_colour() {
    let preparation = Preparation { channels: 3, ..Preparation::grey(2) };
    let colours = |object: Object| {
        with_file(&object.encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN), |path| load_file(path, ImageKind::Dicom, &preparation)).unwrap().pixels
    };
    let rgb = colours(Object::new().colour("RGB").bytes(tags::PIXEL_DATA, VR::OB, &[255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]));
    assert_eq!(rgb, [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    // PS3.3 C.7.6.3.1.2: red is Y 76.2, Cb 85.0, Cr 255.5.
    let ybr = colours(Object::new().colour("YBR_FULL").bytes(tags::PIXEL_DATA, VR::OB, &[76, 85, 255].repeat(4)));
    for (k, value) in ybr.iter().enumerate() {
        assert!((value - if k < 4 { 1.0 } else { 0.0 }).abs() < 0.01, "{ybr:?}");
    }
}

#[test]
fn palettes() {
    let palette = |bits: u16, tables: [&[u16]; 3]| {
        let mut object = Object::new().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR");
        for (k, table) in tables.into_iter().enumerate() {
            let (descriptor, data) = (dicom_core::Tag(0x0028, 0x1101 + k as u16), dicom_core::Tag(0x0028, 0x1201 + k as u16));
            object = object.shorts(descriptor, VR::US, &[table.len() as u16, 0, bits]).shorts(data, VR::OW, table);
        }
        object
    };
    let luma = [0.299, 0.587, 0.114, 1.0];
    check(palette(16, [&[65535, 0, 0, 65535], &[0, 65535, 0, 65535], &[0, 0, 65535, 65535]]), &luma);
    check(palette(8, [&[255, 0, 0, 255], &[0, 255, 0, 255], &[0, 0, 255, 255]]), &luma);
    check_refused(
        Object::new().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR"),
        "(0028,1101)",
        "Palette Color Lookup Table Descriptor is missing",
    );
}

#[test]
fn bits_words_and_reals() {
    // Least significant bit first; the second frame of 2 x 3 starts at bit 6.
    let bits = Object::new().bits(1, 1).size(2, 3).text(tags::NUMBER_OF_FRAMES, VR::IS, "2").bytes(
        tags::PIXEL_DATA,
        VR::OB,
        &[0b1101_0001, 0b0000_0110],
    );
    check(bits.clone(), &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    check_encoded(bits, uids::EXPLICIT_VR_LITTLE_ENDIAN, 1, &[1.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    let long = Object::new().bits(32, 32).put(
        tags::PIXEL_DATA,
        VR::OW,
        PrimitiveValue::U32(vec![0, 1_000_000_000, 2_000_000_000, 3_000_000_000].into()),
    );
    check(long, &THIRDS);
    let without = || Object::new().without(tags::PIXEL_DATA);
    let float = without().short(tags::BITS_ALLOCATED, 32).put(
        tags::FLOAT_PIXEL_DATA,
        VR::OF,
        PrimitiveValue::F32(vec![-1.5, 0.0, f32::NAN, 3.0].into()),
    );
    check(float, &[0.0, 1.0 / 3.0, 0.0, 1.0]);
    let double = without().short(tags::BITS_ALLOCATED, 64).put(
        tags::DOUBLE_FLOAT_PIXEL_DATA,
        VR::OD,
        PrimitiveValue::F64(vec![0.0, 1.0, 2.0, 3.0].into()),
    );
    check(double, &THIRDS);
    check_refused(
        Object::new().short(tags::BITS_ALLOCATED, 12),
        "(0028,0100)",
        "Bits Allocated is 12, expected 1, 8, 16 or 32 (Pixel Data), 32 (Float), 64 (Double Float)",
    );
}

#[test]
fn every_native_encoding_gives_the_same() {
    let object = || {
        grey16([1000, 1010, 1020, 1030], 12)
            .rescale("1", "-1024")
            .sequence(tags::MODALITY_LUT_SEQUENCE, vec![Object::table([4, 1000, 16], &[0, 300, 600, 900])])
            .window("450", "901")
    };
    let expected = [0.0, 0.0, 0.0, 0.0].map(|_: f64| 900.0 / 900.0);
    for syntax in
        [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.2", uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN]
    {
        check_encoded(object().words(&[1003; 4]), syntax, 0, &expected);
        check_encoded(
            object().words(&[1000, 1001, 1002, 1003]),
            syntax,
            0,
            &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0].map(|x: f64| (x * 900.0 - 449.5) / 900.0 + 0.5).map(|x| x.clamp(0.0, 1.0)),
        );
    }
}

#[test]
fn frames_and_their_functional_groups() {
    let frames =
        Object::new().text(tags::NUMBER_OF_FRAMES, VR::IS, "3").bytes(tags::PIXEL_DATA, VR::OB, &[0, 1, 2, 3, 3, 2, 1, 0, 0, 0, 3, 3]);
    check_encoded(frames.clone(), uids::EXPLICIT_VR_LITTLE_ENDIAN, 1, &REVERSED);
    check_encoded(frames.clone(), uids::EXPLICIT_VR_LITTLE_ENDIAN, 2, &[0.0, 0.0, 1.0, 1.0]);
    let rejected =
        with_file(&frames.clone().encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN), |path| decode_frame(path, ImageKind::Dicom, 3)).unwrap_err();
    assert_eq!((rejected.position.as_str(), rejected.reason.as_str()), ("frame 3", "there is no such frame: the image has 3"));
    let window = |center: &str| Object::item().sequence(tags::FRAME_VOILUT_SEQUENCE, vec![Object::item().window(center, "2")]);
    let grouped = frames
        .sequence(
            tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
            vec![Object::item().sequence(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, vec![Object::item().rescale("10", "0")])],
        )
        .sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, vec![window("5"), window("15"), window("25")]);
    for syntax in [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN] {
        check_encoded(grouped.clone(), syntax, 0, &[0.0, 1.0, 1.0, 1.0]);
        check_encoded(grouped.clone(), syntax, 1, &[1.0, 1.0, 0.0, 0.0]);
    }
}

const RLE: &str = "1.2.840.10008.1.2.5";
const JPEG: &str = "1.2.840.10008.1.2.4.50";

/// One segment that holds `bytes` as they are.
fn run_length(segments: &[&[u8]]) -> Vec<u8> {
    let mut words = vec![segments.len() as u32];
    let mut data = Vec::new();
    for segment in segments {
        words.push(64 + data.len() as u32);
        data.push(segment.len() as u8 - 1);
        data.extend_from_slice(segment);
        data.resize(data.len().next_multiple_of(2), 0x80);
    }
    words.resize(16, 0);
    words.into_iter().flat_map(u32::to_le_bytes).chain(data).collect()
}

#[test]
fn run_length_encoded() {
    check_encoded(Object::new().fragments(vec![], vec![run_length(&[&[0, 1, 2, 3]])]), RLE, 0, &THIRDS);
    let wide = grey16([0; 4], 16).fragments(vec![], vec![run_length(&[&[0, 1, 2, 3], &[0, 0, 0, 0]])]);
    check_encoded(wide, RLE, 0, &THIRDS);
    let rgb = Object::new().colour("RGB").fragments(vec![], vec![run_length(&[&[255, 0, 0, 255], &[0, 255, 0, 255], &[0, 0, 255, 255]])]);
    check_encoded(rgb, RLE, 0, &[0.299, 0.587, 0.114, 1.0]);
}

#[test]
fn fragments_are_found_by_count_and_by_offset() {
    let frames = |offsets, fragments| Object::new().text(tags::NUMBER_OF_FRAMES, VR::IS, "2").fragments(offsets, fragments);
    let (first, second) = (run_length(&[&[0, 1, 2, 3]]), run_length(&[&[3, 2, 1, 0]]));
    check_encoded(frames(vec![], vec![first.clone(), second.clone()]), RLE, 1, &REVERSED);
    // The first frame in two fragments.
    let (head, tail) = (first[..64].to_vec(), first[64..].to_vec());
    let offset = (head.len() + tail.len() + 16) as u32;
    let split = frames(vec![0, offset], vec![head.clone(), tail.clone(), second.clone()]);
    check_encoded(split.clone(), RLE, 0, &THIRDS);
    check_encoded(split, RLE, 1, &REVERSED);
    let rejected =
        with_file(&frames(vec![], vec![head, tail, second]).encoded(RLE), |path| decode_frame(path, ImageKind::Dicom, 1)).unwrap_err();
    assert_eq!(rejected.reason, "frame 1 cannot be told apart: 3 fragments for 2 frames and no offset table");
}

pub(super) fn jpeg(values: &[u8], columns: u32, rows: u32, colour: image::ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100).encode(values, columns, rows, colour).unwrap();
    bytes
}

#[test]
fn jpeg_streams() {
    let ramp: Vec<u8> = (0..64).map(|k| (k / 8 * 30 + k % 8) as u8).collect();
    let object = || Object::new().size(8, 8).window("128", "256");
    let grey = object().fragments(vec![], vec![jpeg(&ramp, 8, 8, image::ExtendedColorType::L8)]);
    let rgb: Vec<u8> = ramp.iter().flat_map(|&x| [x; 3]).collect();
    let colour = object().colour("YBR_FULL_422").fragments(vec![], vec![jpeg(&rgb, 8, 8, image::ExtendedColorType::Rgb8)]);
    for object in [grey, colour] {
        let (values, ..) = with_file(&object.encoded(JPEG), |path| decode_frame(path, ImageKind::Dicom, 0)).unwrap();
        for (got, &x) in values.iter().zip(&ramp) {
            assert!((got - f32::from(x) / 255.0).abs() < 0.015, "{got} is not {x} / 255");
        }
    }
    let other = object().size(8, 16).fragments(vec![], vec![jpeg(&ramp, 8, 8, image::ExtendedColorType::L8)]);
    let rejected = with_file(&other.encoded(JPEG), |path| decode_frame(path, ImageKind::Dicom, 0)).unwrap_err();
    assert_eq!(rejected.reason, "the JPEG stream is 8 x 8 x 1, the header says 16 x 8 x 1 (columns x rows x samples)");
}

#[test]
fn deflated_frames_and_encapsulated_ones() {
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflate.write_all(&[0, 1, 2, 3]).unwrap();
    let mut stream = deflate.finish().unwrap();
    stream.resize(stream.len().next_multiple_of(2), 0);
    let with_syntax = |object: Object, from: &str, to: &str| {
        // dicom-object refuses to write syntaxes that it doesn't know how to encode: the UID is put in afterwards.
        let bytes = object.encoded(from);
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = bytes;
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    for (syntax, fragment) in [("1.2.840.10008.1.2.8.1\0", stream), ("1.2.840.10008.1.2.1.98", vec![0, 1, 2, 3])] {
        let bytes = with_syntax(Object::new().fragments(vec![], vec![fragment]), "1.2.840.10008.1.2.4.50", syntax);
        let (values, ..) = with_file(&bytes, |path| decode_frame(path, ImageKind::Dicom, 0)).unwrap();
        assert_eq!(values, THIRDS.map(|x| x as f32));
    }
}

#[test]
fn pixels_that_are_not_square() {
    let wide =
        Object::new().size(2, 1).bytes(tags::PIXEL_DATA, VR::OB, &[0, 255]).window("128", "256").text(tags::PIXEL_SPACING, VR::DS, "1\\2");
    let prepared =
        with_file(&wide.encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN), |path| load_file(path, ImageKind::Dicom, &Preparation::grey(2))).unwrap();
    assert_eq!(prepared.pixels, [0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn millimetres_of_a_pixel() {
    // Four columns of 2 mm: at 4 mm two pixels, each the mean of two, in the middle of a square of four.
    let of = |object: Object| {
        let object = object.size(2, 4).bytes(tags::PIXEL_DATA, VR::OB, &[0, 255, 255, 255, 0, 255, 255, 255]).window("127.5", "255");
        let bytes = object.text(tags::VOILUT_FUNCTION, VR::CS, "LINEAR_EXACT").encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        let preparation = Preparation { spacing_mm: Some(4.0), ..Preparation::grey(4) };
        with_file(&bytes, |path| load_file(path, ImageKind::Dicom, &preparation)).map(|loaded| loaded.pixels[4..8].to_vec())
    };
    let known = of(Object::new().text(tags::PIXEL_SPACING, VR::DS, "2\\2")).unwrap();
    assert!(known[0] == 0.0 && known[3] == 0.0 && (0.3..0.6).contains(&known[1]) && known[2] > 0.9, "{known:?}");
    // Of a projection that of the detector; of both the patient's.
    assert_eq!(of(Object::new().text(tags::IMAGER_PIXEL_SPACING, VR::DS, "2\\2")).unwrap(), known);
    let both = Object::new().text(tags::IMAGER_PIXEL_SPACING, VR::DS, "7\\7").text(tags::PIXEL_SPACING, VR::DS, "2\\2");
    assert_eq!(of(both).unwrap(), known);
    // Of an Enhanced object that of the frame, else that of all.
    let group = |spacing: &str| {
        let measures = Object::item().text(tags::PIXEL_SPACING, VR::DS, spacing);
        vec![Object::item().sequence(tags::PIXEL_MEASURES_SEQUENCE, vec![measures])]
    };
    let shared = || Object::new().sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, group("2\\2"));
    assert_eq!(of(shared()).unwrap(), known);
    let of_frame = Object::new().sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, group("7\\7"));
    assert_eq!(of(of_frame.sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, group("2\\2"))).unwrap(), known);
    for unknown in [
        Object::new(),
        Object::new().text(tags::PIXEL_SPACING, VR::DS, "0\\0"),
        Object::new().text(tags::PIXEL_ASPECT_RATIO, VR::IS, "1\\1"),
    ] {
        assert!(of(unknown).unwrap_err().reason.contains("no spacing of its pixels"));
    }
}

#[test]
fn png_jpeg_and_tiff_files() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, preparation: &Preparation, expected: &[f32]| {
        let loaded = load_file(&dir.path().join(name), ImageKind::Picture, preparation).unwrap();
        for (got, expected) in loaded.pixels.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5, "{name}: {:?}", loaded.pixels);
        }
        assert_eq!(loaded.study.study_instance_uid, name.split('.').next().unwrap());
        assert_eq!((loaded.study.patient.as_str(), loaded.study.time), ("", None));
    };
    image::GrayImage::from_raw(2, 1, vec![0, 51]).unwrap().save(dir.path().join("grey.png")).unwrap();
    check("grey.png", &Preparation { fit: crate::Fit::Stretch, ..Preparation::grey(1) }, &[0.1]);
    image::ImageBuffer::<image::Luma<u16>, _>::from_raw(1, 1, vec![6_553u16]).unwrap().save(dir.path().join("deep.png")).unwrap();
    check("deep.png", &Preparation::grey(1), &[6_553.0 / 65_535.0]);
    image::RgbImage::from_raw(1, 1, vec![255, 0, 0]).unwrap().save(dir.path().join("red.png")).unwrap();
    check("red.png", &Preparation::grey(1), &[0.299]);
    check("red.png", &Preparation { channels: 3, ..Preparation::grey(1) }, &[1.0, 0.0, 0.0]);
    std::fs::write(dir.path().join("ramp.jpg"), jpeg(&[200; 64], 8, 8, image::ExtendedColorType::L8)).unwrap();
    check("ramp.jpg", &Preparation::grey(1), &[200.0 / 255.0]);
    image::GrayImage::from_raw(1, 1, vec![51]).unwrap().save(dir.path().join("grey.tif")).unwrap();
    check("grey.tif", &Preparation::grey(1), &[0.2]);
    image::ImageBuffer::<image::Luma<u16>, _>::from_raw(1, 1, vec![6_553u16]).unwrap().save(dir.path().join("deep.tiff")).unwrap();
    check("deep.tiff", &Preparation::grey(1), &[6_553.0 / 65_535.0]);
}
