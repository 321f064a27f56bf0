//! Which image stands for a study, and what is said of the others.

use std::fmt::Write;
use std::path::Path;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use expect_test::{Expect, expect};
use synovia_cohort::RejectedLog;

use super::Object;
use crate::{ImageKind, Preparation, Selection, StudyIndex, load, scan, scan_into};

/// The index and the rejections of a folder, as text.
fn described(root: &Path, kind: ImageKind) -> (StudyIndex, String) {
    let log_path = root.with_extension("jsonl");
    let log = RejectedLog::create(&log_path).unwrap();
    let index = scan(root, kind, &log, &|_| ()).unwrap();
    log.finish().unwrap();
    let mut text = String::new();
    for study in &index.studies {
        let time = study.time.map_or_else(|| "no time".to_owned(), |time| time.to_string());
        writeln!(text, "{} {} {}#{} of {} at {time}", study.study_instance_uid, study.modality, study.file, study.frame, study.n_images)
            .unwrap();
    }
    for line in std::fs::read_to_string(log_path).unwrap().lines() {
        let rejected: synovia_cohort::Rejected = serde_json::from_str(line).unwrap();
        writeln!(text, "- {} {}: {}", rejected.source, rejected.position, rejected.reason).unwrap();
    }
    (index, text)
}

#[track_caller]
fn check(files: Vec<(&str, Object)>, expected: &Expect) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    let mut taken = 0;
    for (name, object) in files {
        taken += 1;
        // Distinct SOP Instance UIDs, unless the test is about them.
        let object = if name.starts_with("same") { object } else { object.text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.9{taken}")) };
        object.write(&root.join(name));
    }
    let (index, text) = described(&root, ImageKind::Dicom);
    expected.assert_eq(&text);
    assert_eq!(index.n_files, taken);
    assert!(!text.contains("SECRET") && !text.contains("Secret"), "{text}");
    for study in &index.studies {
        assert_eq!(load(&root, study, &Preparation::grey(4)).unwrap().len(), 16);
    }
}

fn view(view: &str) -> Object {
    Object::new().text(tags::VIEW_POSITION, VR::CS, view)
}

fn slice(series: u16, number: i32, z: Option<f64>) -> Object {
    let object = Object::new()
        .text(tags::MODALITY, VR::CS, "CT")
        .text(tags::SERIES_INSTANCE_UID, VR::UI, &format!("2.25.7{series}"))
        .text(tags::SERIES_NUMBER, VR::IS, &series.to_string())
        .text(tags::INSTANCE_NUMBER, VR::IS, &number.to_string());
    match z {
        Some(z) => object.text(tags::IMAGE_POSITION_PATIENT, VR::DS, &format!("-10\\-20\\{z}")).text(
            tags::IMAGE_ORIENTATION_PATIENT,
            VR::DS,
            "1\\0\\0\\0\\1\\0",
        ),
        None => object,
    }
}

#[test]
fn a_radiograph_from_the_front() {
    check(
        vec![("a", view("LL")), ("b", view("AP")), ("c", view("PA")), ("d", view(""))],
        &expect![[r#"
            2.25.2 DX c#0 of 4 at no time
        "#]],
    );
    check(
        vec![("a", view("LATERAL")), ("b", view("RLO"))],
        &expect![[r#"
            2.25.2 DX b#0 of 2 at no time
        "#]],
    );
}

#[test]
fn only_what_is_selected() {
    let dir = tempfile::tempdir().unwrap();
    let mammogram = |k: u8, view: &str, side: &str| {
        Object::new().text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.9{k}")).text(tags::VIEW_POSITION, VR::CS, view).text(
            tags::IMAGE_LATERALITY,
            VR::CS,
            side,
        )
    };
    for (k, (view, side)) in [("CC", "L"), ("MLO", "L"), ("MLO", "R"), ("", "")].into_iter().enumerate() {
        mammogram(k as u8, view, side).write(&dir.path().join(k.to_string()));
    }
    let of = |views: &[&str], laterality: Option<&str>| {
        let selection = Selection {
            views: views.iter().map(|&view| view.to_owned()).collect(),
            laterality: laterality.map(str::to_owned),
            ..Selection::default()
        };
        let log = RejectedLog::counting();
        let mut files = Vec::new();
        let counts = scan_into(dir.path(), ImageKind::Dicom, &selection, &std::env::temp_dir(), &log, &|_| (), &mut |study| {
            files.push(study.file);
            Ok(())
        });
        (counts.unwrap().n_images, files, log.finish().unwrap().into_keys().collect::<Vec<_>>())
    };
    assert_eq!(of(&[], None).0, 4);
    let (n, files, reasons) = of(&["MLO"], Some("R"));
    assert_eq!((n, files), (1, vec!["2".to_owned()]));
    assert_eq!(reasons, ["not of the laterality that the pipeline selects", "not of the view that the pipeline selects"]);
    assert_eq!(of(&["CC", "MLO"], None).0, 3);
}

#[test]
fn the_middle_frame_along_the_normal() {
    // By hand: frames at 8, 0, 4, 2 and 6 mm; along the normal 1, 3, 2, 4, 0: the middle one is the third, at 4 mm.
    let place = |z: f64| {
        let position = Object::item().text(tags::IMAGE_POSITION_PATIENT, VR::DS, &format!("0\\0\\{z}"));
        Object::item().sequence(tags::PLANE_POSITION_SEQUENCE, vec![position])
    };
    let orientation = Object::item().text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0");
    let shared = Object::item().sequence(tags::PLANE_ORIENTATION_SEQUENCE, vec![orientation]);
    let enhanced = Object::new()
        .text(tags::MODALITY, VR::CS, "MR")
        .text(tags::NUMBER_OF_FRAMES, VR::IS, "5")
        .bytes(tags::PIXEL_DATA, VR::OB, &[0; 20])
        .sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared])
        .sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, [8.0, 0.0, 4.0, 2.0, 6.0].map(place).to_vec());
    check(
        vec![("a", enhanced.clone())],
        &expect![[r#"
            2.25.2 MR a#2 of 1 at no time
        "#]],
    );
    // Two frames a position: the middle of three positions, at 2 mm, by its first frame.
    let film = enhanced
        .text(tags::NUMBER_OF_FRAMES, VR::IS, "6")
        .bytes(tags::PIXEL_DATA, VR::OB, &[0; 24])
        .sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, [4.0, 4.0, 2.0, 2.0, 0.0, 0.0].map(place).to_vec());
    check(
        vec![("a", film)],
        &expect![[r#"
            2.25.2 MR a#2 of 1 at no time
        "#]],
    );
}

#[test]
fn a_turned_slice_does_not_stand_for_a_series() {
    let turned = slice(1, 0, Some(0.0)).text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "0\\1\\0\\0\\0\\-1");
    check(
        vec![("a", turned), ("b", slice(1, 1, Some(0.0))), ("c", slice(1, 2, Some(0.0))), ("d", slice(1, 3, Some(5.0)))],
        // Along the normal b (with c at its place) and d.
        &expect![[r#"
            2.25.2 CT d#0 of 4 at no time
        "#]],
    );
}

#[test]
fn for_presentation_before_for_processing_before_secondary() {
    let intent = |intent: &str| view("PA").text(tags::PRESENTATION_INTENT_TYPE, VR::CS, intent);
    check(
        vec![("a", intent("FOR PROCESSING")), ("b", intent("FOR PRESENTATION"))],
        &expect![[r#"
            2.25.2 DX b#0 of 2 at no time
        "#]],
    );
    let captured = Object::new().text(tags::SOP_CLASS_UID, VR::UI, uids::SECONDARY_CAPTURE_IMAGE_STORAGE).text(
        tags::BURNED_IN_ANNOTATION,
        VR::CS,
        "NO",
    );
    check(
        vec![("a", captured.clone()), ("b", intent("FOR PROCESSING"))],
        &expect![[r#"
            2.25.2 DX b#0 of 2 at no time
        "#]],
    );
    check(
        vec![("a", captured)],
        &expect![[r#"
            2.25.2 DX a#0 of 1 at no time
        "#]],
    );
}

#[test]
fn the_middle_slice_of_the_largest_series() {
    // Numbers run against positions, names against both; series 1 is smaller.
    check(
        vec![
            ("a", slice(2, 3, Some(-30.0))),
            ("b", slice(2, 1, Some(10.0))),
            ("c", slice(2, 5, Some(-5.0))),
            ("d", slice(2, 2, Some(40.0))),
            ("e", slice(2, 4, Some(7.5))),
            ("f", slice(1, 1, Some(0.0))),
        ],
        &expect![[r#"
            2.25.2 CT e#0 of 6 at no time
        "#]],
    );
    // Without a position of each, numbers.
    check(
        vec![("a", slice(2, 3, None)), ("b", slice(2, 1, Some(10.0))), ("c", slice(2, 2, None))],
        &expect![[r#"
            2.25.2 CT c#0 of 3 at no time
        "#]],
    );
}

#[test]
fn localizers_do_not_stand_for_a_study() {
    let scout = || slice(1, 1, None).text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER");
    check(
        vec![("a", scout()), ("b", slice(2, 1, None))],
        &expect![[r#"
            2.25.2 CT b#0 of 2 at no time
        "#]],
    );
    check(
        vec![("a", scout())],
        &expect![[r#"
            - a (0008,0008): a localizer alone does not stand for a study
        "#]],
    );
}

#[test]
fn duplicates_and_two_patients() {
    check(
        vec![("same-1", Object::new()), ("same-2", Object::new())],
        &expect![[r#"
            2.25.2 DX same-1#0 of 1 at no time
            - same-2 (0008,0018): the same SOP Instance UID was already taken from another file; keep one of the two
        "#]],
    );
    let of = |patient: &str| Object::new().text(tags::PATIENT_ID, VR::LO, patient);
    check(
        vec![("a", of("SECRET-A")), ("b", of("SECRET-B")), ("c", of("SECRET-B")), ("d", of(""))],
        &expect![[r#"
            2.25.2 DX b#0 of 3 at no time
            - a (0010,0020): the study holds instances of more than one Patient ID; those of the less frequent are not taken
        "#]],
    );
}

#[test]
fn an_accession_number_of_the_patient_who_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    for (k, (patient, accession)) in [("SECRET-A", "A0"), ("SECRET-B", ""), ("SECRET-B", "A1")].into_iter().enumerate() {
        let object = Object::new().text(tags::PATIENT_ID, VR::LO, patient).text(tags::ACCESSION_NUMBER, VR::SH, accession);
        object.text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.3{k}")).write(&root.join(k.to_string()));
    }
    let (index, _) = described(&root, ImageKind::Dicom);
    assert_eq!((index.studies[0].accession.as_str(), index.n_images), ("A1", 2));
}

#[test]
fn times_frames_and_results() {
    let timed = Object::new().text(tags::ACQUISITION_DATE, VR::DA, "20200229").text(tags::ACQUISITION_TIME, VR::TM, "101500.5");
    let frames = timed.text(tags::NUMBER_OF_FRAMES, VR::IS, "5").bytes(tags::PIXEL_DATA, VR::OB, &[0; 20]);
    let segmentation = Object::new().text(tags::SOP_CLASS_UID, VR::UI, uids::SEGMENTATION_STORAGE);
    check(
        vec![("a", frames), ("b", segmentation), ("c", Object::new().without(tags::STUDY_INSTANCE_UID))],
        &expect![[r#"
            2.25.2 DX a#2 of 1 at 2020-02-29T10:15:00Z
            - b (0008,0016): a Segmentation holds a result, not an acquired image
            - c (0020,000D): Study Instance UID is missing
        "#]],
    );
}

#[test]
fn pictures_are_named_by_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    for folder in ["a", "b"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        image::GrayImage::from_raw(1, 1, vec![7]).unwrap().save(root.join(folder).join("one.png")).unwrap();
    }
    std::fs::write(root.join("notes.txt"), "text").unwrap();
    std::fs::write(root.join("cut.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    std::fs::write(root.join("empty"), b"").unwrap();
    let (index, text) = described(&root, ImageKind::Picture);
    expect![[r#"
        one  a/one.png#0 of 1 at no time
        - cut.png : the PNG file is damaged or over the size limit
        - empty : empty file
        - notes.txt : not a PNG, JPEG or TIFF file
        - b/one.png : another picture has the same name in a different folder; give each picture its own name
    "#]]
    .assert_eq(&text);
    assert_eq!((index.n_files, index.n_images), (5, 1));
}

#[test]
fn the_same_index_for_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    for k in 0..60u16 {
        let object = slice(k % 3, k.into(), Some(f64::from(k * 7 % 11)))
            .text(tags::STUDY_INSTANCE_UID, VR::UI, &format!("2.25.{}", 100 + k % 7))
            .text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.8{}", k % 50));
        object.write(&root.join(format!("{}/{k}", k % 4)));
    }
    let of = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| described(&root, ImageKind::Dicom));
    let (index, text) = of(1);
    assert_eq!(index.n_images, 50);
    assert_eq!((index, text), of(4));
}

#[test]
fn a_folder_that_is_not_there() {
    let error = scan(Path::new("/nowhere/at/all"), ImageKind::Dicom, &RejectedLog::counting(), &|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the image folder /nowhere/at/all: "), "{error}");
}

/// A slice of one value, `grey` of 255.
fn grey_slice(number: i32, z: f64, grey: u8) -> Object {
    slice(1, number, Some(z)).window("127.5", "255").text(tags::VOILUT_FUNCTION, VR::CS, "LINEAR_EXACT").bytes(
        tags::PIXEL_DATA,
        VR::OB,
        &[grey; 4],
    )
}

/// First value of each channel, in 255ths, of slices evenly over the volume.
fn channels(root: &Path, n: usize) -> Vec<u8> {
    spaced_channels(root, n, None).unwrap()
}

/// First value of each channel, in 255ths; an error where a study is rejected.
fn spaced_channels(root: &Path, n: usize, slice_spacing: Option<f64>) -> Result<Vec<u8>, String> {
    let selection = Selection { slices: n, slice_spacing_mm: slice_spacing, ..Selection::default() };
    let log = RejectedLog::counting();
    let mut studies = Vec::new();
    let take = &mut |study| {
        studies.push(study);
        Ok(())
    };
    scan_into(root, ImageKind::Dicom, &selection, &std::env::temp_dir(), &log, &|_| (), take).unwrap();
    let preparation = Preparation { channels: n, slices: n, slice_spacing_mm: slice_spacing, ..Preparation::grey(2) };
    let study = studies.first().ok_or("rejected")?;
    let values = load(root, study, &preparation).map_err(|rejected| rejected.reason)?;
    assert_eq!(values.len(), n * 4);
    Ok(values.chunks(4).map(|channel| (channel[0] * 255.0).round() as u8).collect())
}

#[test]
fn slices_evenly_along_the_normal() {
    let dir = tempfile::tempdir().unwrap();
    // Shuffled, with a scout that is turned and one slice twice: by hand, along z the greys are 10, 20, 30, 40, 50, 60.
    let slices = [(1, 5.0, 60), (2, 1.0, 20), (3, 3.0, 40), (4, 0.0, 10), (5, 2.0, 30), (6, 4.0, 50), (7, 4.0, 99)];
    for (number, z, grey) in slices {
        grey_slice(number, z, grey)
            .text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.8{number}"))
            .write(&dir.path().join(number.to_string()));
    }
    let turned = grey_slice(8, 2.5, 99).text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "0\\1\\0\\0\\0\\-1");
    turned.text(tags::SOP_INSTANCE_UID, VR::UI, "2.25.88").write(&dir.path().join("8"));
    // Centers of n equal parts of six places.
    assert_eq!(channels(dir.path(), 2), [20, 50]);
    assert_eq!(channels(dir.path(), 3), [20, 40, 60]);
    assert_eq!(channels(dir.path(), 6), [10, 20, 30, 40, 50, 60]);
    assert_eq!(channels(dir.path(), 12), [10, 10, 20, 20, 30, 30, 40, 40, 50, 50, 60, 60]);
    // About the middle, 2.5 mm: 1.0, 2.5 (as near to 2 as to 3: the upper) and 4.0; beyond the ends the last slice.
    assert_eq!(spaced_channels(dir.path(), 3, Some(1.5)).unwrap(), [20, 40, 50]);
    assert_eq!(spaced_channels(dir.path(), 4, Some(3.0)).unwrap(), [10, 20, 50, 60]);
    // Without a place of one of them nobody knows how far apart they are.
    grey_slice(9, 0.0, 99)
        .without(tags::IMAGE_POSITION_PATIENT)
        .text(tags::SOP_INSTANCE_UID, VR::UI, "2.25.89")
        .write(&dir.path().join("9"));
    assert_eq!(spaced_channels(dir.path(), 3, Some(1.5)), Err("rejected".to_owned()));
}

#[test]
fn slices_of_frames_and_of_no_volume() {
    let dir = tempfile::tempdir().unwrap();
    grey_slice(1, 0.0, 70).text(tags::MODALITY, VR::CS, "DX").write(&dir.path().join("one"));
    assert_eq!(channels(dir.path(), 3), [70, 70, 70]);
    std::fs::remove_file(dir.path().join("one")).unwrap();
    // Four frames from head to feet in the file, so that they come the other way round.
    let place = |z: f64| {
        let position = Object::item().text(tags::IMAGE_POSITION_PATIENT, VR::DS, &format!("0\\0\\{z}"));
        Object::item().sequence(tags::PLANE_POSITION_SEQUENCE, vec![position])
    };
    let orientation = Object::item().text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0");
    let shared = Object::item().sequence(tags::PLANE_ORIENTATION_SEQUENCE, vec![orientation]);
    let pixels: Vec<u8> = [80, 60, 40, 20].into_iter().flat_map(|grey| [grey; 4]).collect();
    let film = || {
        let object = slice(1, 1, None).window("127.5", "255").text(tags::VOILUT_FUNCTION, VR::CS, "LINEAR_EXACT");
        object.text(tags::NUMBER_OF_FRAMES, VR::IS, "4").bytes(tags::PIXEL_DATA, VR::OB, &pixels)
    };
    film()
        .sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared])
        .sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, [30.0, 20.0, 10.0, 0.0].map(place).to_vec())
        .write(&dir.path().join("many"));
    assert_eq!(channels(dir.path(), 2), [40, 80]);
    assert_eq!(channels(dir.path(), 4), [20, 40, 60, 80]);
    // 5 and 25 mm lie in the middle of two frames: the upper.
    assert_eq!(spaced_channels(dir.path(), 3, Some(10.0)).unwrap(), [40, 60, 80]);
    std::fs::remove_file(dir.path().join("many")).unwrap();
    film().write(&dir.path().join("film"));
    assert!(spaced_channels(dir.path(), 3, Some(10.0)).unwrap_err().contains("no positions in space"));
}

#[test]
fn pixels_that_may_show_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let burned = |k: u8, answer: &str| {
        let object = view("PA").text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.6{k}"));
        if answer.is_empty() { object } else { object.text(tags::BURNED_IN_ANNOTATION, VR::CS, answer) }
    };
    let capture = |k: u8| burned(k, "").text(tags::SOP_CLASS_UID, VR::UI, uids::SECONDARY_CAPTURE_IMAGE_STORAGE);
    burned(0, "YES").write(&dir.path().join("yes"));
    burned(1, "NO").write(&dir.path().join("no"));
    burned(2, "").write(&dir.path().join("unsaid"));
    capture(3).write(&dir.path().join("capture"));
    let taken = |burned_in| {
        let selection = Selection { burned_in, ..Selection::default() };
        let log = RejectedLog::counting();
        let counts = scan_into(dir.path(), ImageKind::Dicom, &selection, &std::env::temp_dir(), &log, &|_| (), &mut |_| Ok(())).unwrap();
        (counts.n_images, log.finish().unwrap().into_iter().map(|(reason, n)| format!("{n} {reason}")).collect::<Vec<_>>().join("; "))
    };
    let (n, reasons) = taken(crate::BurnedIn::Refuse);
    assert_eq!(n, 2);
    assert!(reasons.starts_with("2 the pixels may show who the patient is") && reasons.contains("burned_in = \"accept\""), "{reasons}");
    assert_eq!(taken(crate::BurnedIn::Accept), (4, String::new()));
}
