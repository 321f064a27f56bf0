//! Files that are damaged, by accident or on purpose: a reason for each, no panic, bounded memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dicom_dictionary_std::{tags, uids};
use expect_test::expect;
use proptest::prelude::*;
use synovia_cohort::RejectedLog;

use super::{Object, with_file};
use crate::dicom::WrittenJpeg;
use crate::{ImageKind, Preparation, Profile, Secret, deidentify, load, load_file, scan};

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bad/dicom")
}

/// The reason for each file: of the scan, or else of loading it.
fn reasons(root: &Path) -> String {
    let log_path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let log = RejectedLog::create(&log_path).unwrap();
    let index = scan(root, ImageKind::Dicom, &log, &|_| ()).unwrap();
    for study in &index.studies {
        match load(root, study, &Preparation::grey(8)) {
            Ok(pixels) => {
                assert!(pixels.iter().all(|x| (0.0..=1.0).contains(x)), "{}", study.file);
                let time = study.time.map_or_else(|| "no time".to_owned(), |time| time.to_string());
                log.push(&synovia_cohort::Rejected::new(&study.file, "", format!("an image, at {time}")));
            }
            Err(rejected) => log.push(&rejected),
        }
    }
    log.finish().unwrap();
    let text = fs::read_to_string(log_path).unwrap();
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let rejected: synovia_cohort::Rejected = serde_json::from_str(line).unwrap();
            format!("{} {}: {}\n", rejected.source, rejected.position, rejected.reason)
        })
        .collect();
    lines.sort_unstable();
    lines.concat()
}

#[test]
fn bad_fixtures_have_their_reasons() {
    let text = reasons(&fixtures());
    expect![[r#"
        absurd-dimensions.dcm (7FE0,0010): a frame of 65535 rows, 65535 columns, 1 sample(s) is over the limit of 67108864 samples
        absurd-frames.dcm (7FE0,0010): Pixel Data holds 128 bytes, 274877906816 are needed for 2147483647 frame(s) of 8 rows, 8 columns, 1 sample(s) of 16 bits
        deflate-cut.dcm (7FE0,0010): Pixel Data holds 60 bytes, 128 are needed for 1 frame(s) of 8 rows, 8 columns, 1 sample(s) of 16 bits
        empty.dcm : empty file
        jpeg-garbage.dcm (7FE0,0010): the JPEG stream is damaged; copy the file again from its source
        jpeg-size.dcm (7FE0,0010): the JPEG stream is 65535 x 65535 x 1, the header says 8 x 8 x 1 (columns x rows x samples)
        jpeg2000-size.dcm (7FE0,0010): the JPEG 2000 stream is 4294967295 x 4294967295 x 1, the header says 8 x 8 x 1 (columns x rows x samples)
        nan-slope.dcm (0028,1053): Rescale Slope is not a finite number, expected a number other than 0
        nan-window.dcm : an image, at 2020-01-31T10:15:00Z
        narrow-window.dcm : an image, at 2020-01-31T10:15:00Z
        nested-sequences.dcm (0028,3000): the data set cannot be parsed: sequences are nested more than 32 deep
        no-fragments.dcm : the file ends inside the data set; copy it again from its source
        no-pixel-data.dcm (7FE0,0010): Pixel Data is missing
        not-dicom.dcm : not a DICOM file: neither the DICM prefix nor a data set that starts with group 0002 or 0008
        not-encapsulated.dcm (7FE0,0010): the data set cannot be parsed: Pixel Data is not encapsulated, as its transfer syntax demands
        rle-segments.dcm (7FE0,0010): the RLE stream is damaged; copy the file again from its source
        truncated-header.dcm (7FE0,0010): Pixel Data is missing
        truncated.dcm (7FE0,0010): Pixel Data holds 78 bytes, 128 are needed for 1 frame(s) of 8 rows, 8 columns, 1 sample(s) of 16 bits
        unknown-syntax.dcm (0002,0010): transfer syntax `1.2.840.10008.1.2.4.999` (not known) cannot be decoded by this build; transcode the file to Explicit VR Little Endian
        video-syntax.dcm (0002,0010): transfer syntax 1.2.840.10008.1.2.4.102 (MPEG-4 AVC/H.264) cannot be decoded by this build; transcode the file to Explicit VR Little Endian
        wrong-length.dcm (0029,1010): the element claims 4294967280 bytes but 148 are left; copy the file again from its source
        zero-dates.dcm : an image, at no time
        zero-rows.dcm (0028,0010): Rows is 0, expected at least 1
        zero-slope.dcm (0028,1053): Rescale Slope is 0, expected a number other than 0
    "#]].assert_eq(&text);
    assert!(!text.to_lowercase().contains("secret"), "{text}");
}

#[test]
fn a_file_of_gigabytes_costs_its_header_and_one_frame() {
    // 4 GB in a sparse file: 65535 frames of 256 x 256.
    let object = Object::new().size(256, 256).text(tags::NUMBER_OF_FRAMES, dicom_core::VR::IS, "65535").without(tags::PIXEL_DATA);
    let mut bytes = object.encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let length = 65_535u32 * 65_536;
    bytes.extend([0xE0, 0x7F, 0x10, 0x00, b'O', b'B', 0, 0]);
    bytes.extend(length.to_le_bytes());
    with_file(&bytes, |path| {
        let Ok(()) = fs::File::options().write(true).open(path).unwrap().set_len(bytes.len() as u64 + u64::from(length)) else {
            println!("skipped: no sparse files here");
            return;
        };
        let start = Instant::now();
        let root = path.parent().unwrap();
        let index = scan(root, ImageKind::Dicom, &RejectedLog::counting(), &|_| ()).unwrap();
        assert_eq!(index.studies[0].frame, 32_767);
        assert_eq!(load(root, &index.studies[0], &Preparation::grey(8)).unwrap(), [0.0; 64]);
        assert!(start.elapsed() < Duration::from_secs(5), "read more than it had to: {:?}", start.elapsed());
    });
}

#[test]
fn a_deflate_bomb_is_bounded() {
    use std::io::Write;
    // A header and then 4 GB of zeros in 4 MB.
    let header = Object::new().without(tags::PIXEL_DATA).encoded(uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN);
    let plain = Object::new().without(tags::PIXEL_DATA).encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let meta = |bytes: &[u8]| 144 + u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
    let mut bytes = header[..meta(&header)].to_vec();
    let mut deflate = flate2::write::DeflateEncoder::new(&mut bytes, flate2::Compression::fast());
    deflate.write_all(&plain[meta(&plain)..]).unwrap();
    deflate.write_all(&[0xE0, 0x7F, 0x10, 0x00, b'O', b'W', 0, 0, 0xFE, 0xFF, 0xFF, 0x7F]).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..700 {
        deflate.write_all(&zeros).unwrap();
    }
    deflate.finish().unwrap();
    with_file(&bytes, |path| {
        let start = Instant::now();
        let root = path.parent().unwrap();
        // Only the pixels that the header asks for are taken.
        let index = scan(root, ImageKind::Dicom, &RejectedLog::counting(), &|_| ()).unwrap();
        assert_eq!(index.studies.len(), 1);
        assert!(load(root, &index.studies[0], &Preparation::grey(2)).is_ok());
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    });
}

#[test]
fn pictures_and_meta_information_of_any_size() {
    let reason = |bytes: &[u8], kind| with_file(bytes, |path| load_file(path, kind, &Preparation::grey(2))).unwrap_err().reason;
    // 256 million pixels, by the frame header of a JPEG of four.
    let mut jpeg = super::pixels::jpeg(&[3, 90, 200, 7], 2, 2, image::ExtendedColorType::L8);
    let at = jpeg.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap() + 5;
    jpeg[at..at + 4].copy_from_slice(&[0x3E, 0x80, 0x3E, 0x80]);
    assert_eq!(reason(&jpeg, ImageKind::Picture), "the JPEG file is damaged or over the size limit");
    let mut meta = vec![0; 128];
    meta.extend(b"DICM");
    for _ in 0..3 {
        meta.extend([0x02, 0x00, 0x02, 0x01, b'O', b'B', 0, 0, 0, 0x80, 0, 0]);
        meta.resize(meta.len() + 0x8000, 0);
    }
    let expected = "the header holds more than 64 KiB of file meta information: not an image that this build reads";
    assert_eq!(reason(&meta, ImageKind::Dicom), expected);
}

fn seeds() -> Vec<Vec<u8>> {
    let lut = || Object::table([4, 0, 16], &[0, 10, 20, 30]);
    let mut rle = vec![1, 0, 0, 0, 64, 0, 0, 0];
    rle.resize(64, 0);
    rle.extend([3, 0, 1, 2, 3, 0x80]);
    let lossless = WrittenJpeg { columns: 2, samples: 1, precision: 12, selection: 7, restart_rows: 1 }.encode(&[1, 900, 4000, 7]);
    let baseline = super::pixels::jpeg(&[3, 90, 200, 7], 2, 2, image::ExtendedColorType::L8);
    let long = |item: Object, (tag, at): (dicom_core::Tag, u32)| item.put(tag, dicom_core::VR::UL, dicom_core::PrimitiveValue::from(at));
    let corners = [
        (tags::REGION_LOCATION_MIN_X0, 1),
        (tags::REGION_LOCATION_MIN_Y0, 0),
        (tags::REGION_LOCATION_MAX_X1, 1),
        (tags::REGION_LOCATION_MAX_Y1, 1),
    ];
    let region = corners.into_iter().fold(Object::item(), long);
    let ultrasound = Object::new()
        .text(tags::MODALITY, dicom_core::VR::CS, "US")
        .short(dicom_core::Tag(0x6000, 0x0102), 8)
        .sequence(tags::SEQUENCE_OF_ULTRASOUND_REGIONS, vec![region]);
    // 2 x 2 x 2 bytes, behind the least header.
    let mut nifti = vec![0u8; 352];
    for (at, value) in [(0, 348i16), (40, 3), (42, 2), (44, 2), (46, 2), (70, 2)] {
        nifti[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    nifti[108..112].copy_from_slice(&352f32.to_le_bytes());
    nifti[344..347].copy_from_slice(b"n+1");
    nifti.extend(0..8);
    let encoded = |stream: Vec<u8>, syntax: &str| Object::new().bits(16, 12).fragments(vec![0], vec![stream]).encoded(syntax);
    vec![
        encoded(lossless, "1.2.840.10008.1.2.4.70"),
        Object::new().fragments(vec![0], vec![baseline]).encoded("1.2.840.10008.1.2.4.50"),
        Object::new().window("1", "2").rescale("1", "0").encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN),
        Object::new()
            .sequence(tags::MODALITY_LUT_SEQUENCE, vec![lut()])
            .sequence(tags::VOILUT_SEQUENCE, vec![lut(), lut()])
            .encoded(uids::IMPLICIT_VR_LITTLE_ENDIAN),
        Object::new().bits(16, 12).words(&[1, 2, 3, 4]).encoded("1.2.840.10008.1.2.2"),
        Object::new().fragments(vec![0], vec![rle]).encoded("1.2.840.10008.1.2.5"),
        Object::new().encoded(uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
        ultrasound.encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN),
        nifti,
    ]
}

/// Reads a file in every way; a panic outside of a guarded decoder fails the test.
fn read_every_way(bytes: &[u8]) {
    with_file(bytes, |path| {
        let preparation = Preparation::grey(4);
        for kind in [ImageKind::Dicom, ImageKind::Picture, ImageKind::Nifti] {
            match load_file(path, kind, &preparation) {
                Ok(loaded) => assert!(loaded.pixels.len() == 16 && loaded.pixels.iter().all(|x| (0.0..=1.0).contains(x))),
                Err(rejected) => {
                    assert!(!rejected.reason.is_empty());
                    assert!(!rejected.reason.contains("SECRET") && !rejected.reason.contains("Secret^"), "{}", rejected.reason);
                }
            }
        }
        let every = "basic+pixels+descriptors+dates+device+uids+private".parse().unwrap();
        for profile in [Profile::default(), every] {
            if let Err(rejected) = deidentify(path, profile, &Secret::new([7; 16]).unwrap()) {
                assert!(!rejected.reason.contains("SECRET") && !rejected.reason.contains("Secret^"), "{}", rejected.reason);
            }
        }
        let log = RejectedLog::counting();
        let index = scan(path.parent().unwrap(), ImageKind::Dicom, &log, &|_| ()).unwrap();
        assert_eq!(index.n_images + log.total(), 1, "taken or rejected");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutations_never_panic(seed in 0usize..9, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), cut in any::<Option<prop::sample::Index>>()) {
        let mut bytes = seeds().swap_remove(seed);
        for (at, value) in changes {
            // After the preamble: what is changed there changes nothing.
            let preamble = if bytes.get(128..132) == Some(b"DICM") { 128 } else { 0 };
            let n = bytes.len() - preamble;
            bytes[preamble + at.index(n)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_every_way(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(prefix in 0usize..4, bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut file = match prefix {
            0 => vec![],
            1 => vec![0; 128],
            2 => vec![0x08, 0x00, 0x05, 0x00, b'C', b'S'],
            _ => b"\x89PNG\r\n\x1a\n".to_vec(),
        };
        if prefix == 1 {
            file.extend(b"DICM");
        }
        file.extend(bytes);
        read_every_way(&file);
    }
}

#[test]
fn every_cut_of_a_file_is_an_image_or_a_reason() {
    for bytes in seeds() {
        for n in 0..=bytes.len() {
            read_every_way(&bytes[..n]);
        }
    }
}

#[test]
fn real_files_give_an_image_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/dicom");
    let Ok(files) = fs::read_dir(&root) else {
        println!("skipped: {} is not here", root.display());
        return;
    };
    let (mut images, mut refused) = (0, Vec::new());
    for file in files {
        let path = file.unwrap().path();
        match load_file(&path, ImageKind::Dicom, &Preparation::default()) {
            Ok(loaded) => {
                assert!(loaded.pixels.iter().all(|x| (0.0..=1.0).contains(x)));
                images += 1;
            }
            Err(rejected) => refused.push(format!("{}: {}", rejected.source, rejected.reason)),
        }
    }
    assert!(refused.is_empty(), "{images} images, but {refused:#?}");
    let log = RejectedLog::counting();
    let index = scan(&root, ImageKind::Dicom, &log, &|_| ()).unwrap();
    assert_eq!(index.n_images + log.total(), index.n_files);
}
