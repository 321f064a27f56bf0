//! The files: the same for any number of threads, valid, whole or absent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, open_file};
use proptest::prelude::*;
use synovia_cohort::ExampleId;

use super::{cohort, config, ndjson, numbers, texts, truth};
use crate::{Noise, SimulationConfig, SimulationError, simulate};

fn files_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn objects(dir: &Path) -> Vec<DefaultDicomObject> {
    files_below(dir).keys().filter(|path| path.starts_with("dicom")).map(|path| open_file(dir.join(path)).unwrap()).collect()
}

fn text(object: &DefaultDicomObject, tag: dicom_core::Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_end_matches(['\0', ' ']).to_owned()
}

#[test]
fn same_bytes_for_any_number_of_threads() {
    let config = SimulationConfig { missing_image: 0.1, missing_record: 0.1, ..config(300) };
    let with_threads = |n: usize| {
        let dir = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        let summary = pool.install(|| simulate(&config, dir.path(), &|_| ())).unwrap();
        (files_below(dir.path()), summary)
    };
    let (one, two) = (with_threads(1), with_threads(2));
    assert_eq!(one.1, two.1);
    assert_eq!(one.0.len() as u64, one.1.n_dicom_files + 8);
    assert_eq!(one.0.values().map(|bytes| bytes.len() as u64).sum::<u64>(), one.1.bytes);
    assert!(one.0 == two.0, "bytes differ between numbers of threads");
}

/// A patient depends on the seed and the position alone: a smaller cohort is the beginning of a larger one, another seed
/// gives other images and labels.
#[test]
fn a_patient_depends_on_seed_and_position_alone() {
    let ((small, _), (large, _)) = (cohort(&config(30)), cohort(&config(45)));
    let (small, large) = (files_below(small.path()), files_below(large.path()));
    for (path, bytes) in &small {
        match path.extension().unwrap().to_str().unwrap() {
            "dcm" => assert!(&large[path] == bytes),
            "ndjson" => assert!(large[path].starts_with(bytes)),
            _ => {}
        }
    }
    let (other, _) = cohort(&SimulationConfig { seed: 12, ..config(30) });
    let other = files_below(other.path());
    let condition = Path::new("fhir/Condition.ndjson");
    assert_ne!(other[condition], small[condition]);
    let shared = other.values().filter(|bytes| small.values().any(|b| b == *bytes)).count();
    assert_eq!(shared, 0);
}

#[test]
fn dicom_files_carry_what_their_standard_asks_for() {
    let (dir, summary) = cohort(&config(60));
    let objects = objects(dir.path());
    assert_eq!(objects.len() as u64, summary.n_dicom_files);
    let records: BTreeMap<String, serde_json::Value> =
        ndjson(dir.path(), "Patient").into_iter().map(|p| (p["identifier"][0]["value"].as_str().unwrap().to_owned(), p)).collect();
    let mut syntaxes = BTreeSet::new();
    let mut interpretations = BTreeSet::new();
    let mut instances = BTreeSet::new();
    for object in &objects {
        let view = text(object, tags::VIEW_POSITION);
        let size: u16 = if view == "PA" { 128 } else { 96 };
        assert!(["PA", "LL"].contains(&view.as_str()));
        let number = |tag| object.element(tag).unwrap().to_int::<u16>().unwrap();
        assert_eq!(
            [tags::ROWS, tags::COLUMNS, tags::BITS_ALLOCATED, tags::BITS_STORED, tags::HIGH_BIT].map(number),
            [size, size, 16, 12, 11]
        );
        let pixels: Vec<u16> = object.element(tags::PIXEL_DATA).unwrap().to_multi_int().unwrap();
        assert_eq!(pixels.len(), usize::from(size).pow(2));
        assert!(pixels.iter().all(|&p| p < 4096));
        assert_eq!(text(object, tags::MODALITY), "DX");
        assert_eq!(text(object, tags::SOP_CLASS_UID), uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION);
        for tag in [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID, tags::SOP_INSTANCE_UID] {
            let uid = text(object, tag);
            // PS3.5 §9.1: at most 64 characters, components of digits without a leading zero.
            assert!(
                uid.len() <= 64
                    && uid.split('.').all(|part| part.bytes().all(|b| b.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0')))
            );
        }
        assert!(instances.insert(text(object, tags::SOP_INSTANCE_UID)), "an instance UID twice");
        // Type 1 and 1C elements of the DX IOD that a reader may ask for.
        for tag in [
            tags::PATIENT_ORIENTATION,
            tags::IMAGE_LATERALITY,
            tags::PIXEL_SPACING,
            tags::IMAGER_PIXEL_SPACING,
            tags::RESCALE_SLOPE,
            tags::RESCALE_INTERCEPT,
            tags::RESCALE_TYPE,
            tags::WINDOW_CENTER,
            tags::WINDOW_WIDTH,
            tags::PRESENTATION_LUT_SHAPE,
            tags::ACQUISITION_DATE,
            tags::ACQUISITION_TIME,
            tags::STUDY_DATE,
            tags::STUDY_TIME,
            tags::CONTENT_DATE,
            tags::CONTENT_TIME,
            tags::BODY_PART_EXAMINED,
            tags::MANUFACTURER,
            tags::STATION_NAME,
            tags::IMAGE_TYPE,
            tags::PRESENTATION_INTENT_TYPE,
        ] {
            assert!(!text(object, tag).is_empty(), "{tag} is empty");
        }
        let inverted = text(object, tags::PHOTOMETRIC_INTERPRETATION) == "MONOCHROME1";
        assert_eq!(text(object, tags::PRESENTATION_LUT_SHAPE), if inverted { "INVERSE" } else { "IDENTITY" });
        // The corner is air: dark once shown, whatever the interpretation.
        let corner = f64::from(pixels[..4].iter().copied().sum::<u16>()) / 4.0;
        assert!(if inverted { corner > 3000.0 } else { corner < 1000.0 }, "{corner}");
        let record = &records[&text(object, tags::PATIENT_ID)];
        let name = format!("{}^{}", record["name"][0]["family"].as_str().unwrap(), record["name"][0]["given"][0].as_str().unwrap());
        assert_eq!(text(object, tags::PATIENT_NAME), name);
        assert_eq!(text(object, tags::PATIENT_BIRTH_DATE), record["birthDate"].as_str().unwrap().replace('-', ""));
        assert_ne!(record["id"], record["identifier"][0]["value"]);
        syntaxes.insert(object.meta().transfer_syntax().trim_end_matches('\0').to_owned());
        interpretations.insert(text(object, tags::PHOTOMETRIC_INTERPRETATION));
    }
    assert_eq!((syntaxes.len(), interpretations.len()), (3, 2), "{syntaxes:?}");
}

#[test]
fn a_missing_image_is_in_the_chart_but_not_on_disk() {
    let (dir, summary) = cohort(&SimulationConfig { missing_image: 1.0, ..config(25) });
    assert_eq!((summary.n_dicom_files, summary.n_missing_images), (0, summary.n_studies));
    let studies = ndjson(dir.path(), "ImagingStudy").len() as u64;
    assert_eq!(studies - summary.n_unknown_study_subjects, summary.n_studies);
    let truth = truth(dir.path());
    assert_eq!(numbers(&truth, "p_joint"), numbers(&truth, "p_record"));
    assert!(truth.column("has_image").unwrap().bool().unwrap().iter().all(|x| x == Some(false)));
}

#[test]
fn a_missing_record_leaves_images_and_outcomes() {
    let (dir, summary) = cohort(&SimulationConfig { missing_record: 1.0, ..config(40) });
    assert_eq!((summary.n_missing_records, summary.n_dicom_files), (40, 2 * summary.n_studies));
    assert!(ndjson(dir.path(), "Patient").iter().all(|p| p.get("birthDate").is_none() && p.get("gender").is_none()));
    assert!(objects(dir.path()).iter().all(|o| text(o, tags::PATIENT_BIRTH_DATE).is_empty() && text(o, tags::PATIENT_SEX).is_empty()));
    let mut first_study = BTreeMap::new();
    for study in ndjson(dir.path(), "ImagingStudy") {
        let started = study["started"].as_str().unwrap().to_owned();
        let entry = first_study.entry(study["subject"]["reference"].as_str().unwrap().to_owned()).or_insert(started.clone());
        *entry = started.min(entry.clone());
    }
    for (kind, time) in [("Observation", "effectiveDateTime"), ("Condition", "onsetDateTime"), ("MedicationRequest", "authoredOn")] {
        for resource in ndjson(dir.path(), kind) {
            if let Some(first) = first_study.get(resource["subject"]["reference"].as_str().unwrap()) {
                assert!(resource[time].as_str().unwrap() > first.as_str(), "{kind} before the first study");
            }
        }
    }
    let truth = truth(dir.path());
    assert_eq!(numbers(&truth, "p_joint"), numbers(&truth, "p_image"));
}

/// Labels of a modality that tells nothing do not depend on it, and the other tells as much as ever.
#[test]
fn a_modality_may_be_noise() {
    for (noise, other, silent) in [(Noise::Image, "p_record", "p_image"), (Noise::Record, "p_image", "p_record")] {
        let (dir, summary) = cohort(&SimulationConfig { noise: Some(noise), ..config(400) });
        assert_eq!(summary.n_dicom_files, 2 * summary.n_studies);
        let truth = truth(dir.path());
        assert_eq!(numbers(&truth, "p_joint"), numbers(&truth, other));
        let told = |column: &str| {
            let rows = texts(&truth, "task").into_iter().zip(numbers(&truth, column));
            rows.filter(|(task, _)| task == "stage").map(|(_, p)| p.unwrap()).collect::<Vec<_>>()
        };
        // Four classes a patient: the same for everybody where nothing is told.
        let (silent, other) = (told(silent), told(other));
        assert!(silent.chunks(4).all(|classes| classes == &silent[..4]));
        assert!(other.chunks(4).any(|classes| (classes[0] - other[0]).abs() > 0.05));
    }
    // What a modality told of the labels it no longer tells; what it told is in the cohort in which both tell.
    let by_example = |config: &SimulationConfig, column: &str| {
        let (dir, _) = cohort(config);
        let truth = truth(dir.path());
        let labels: Vec<f32> = truth.column("label").unwrap().f32().unwrap().iter().map(Option::unwrap).collect();
        let rows = texts(&truth, "example_id").into_iter().zip(texts(&truth, "task")).zip(labels.into_iter().zip(numbers(&truth, column)));
        let rows = rows.filter(|((_, task), _)| task == "malignant");
        rows.map(|((example, _), (label, p))| (example, (label > 0.5, p.unwrap()))).collect::<BTreeMap<_, _>>()
    };
    let both = config(800);
    for (noise, column) in [(Noise::Image, "p_image"), (Noise::Record, "p_record")] {
        let told = by_example(&both, column);
        let noisy = by_example(&SimulationConfig { noise: Some(noise), ..both.clone() }, "p_joint");
        let apart = |labels: &BTreeMap<String, (bool, f64)>| {
            let mean = |wanted: bool| {
                let of: Vec<f64> =
                    labels.iter().filter(|(_, (label, _))| *label == wanted).filter_map(|(id, _)| Some(told.get(id)?.1)).collect();
                assert!(of.len() > 200);
                of.iter().sum::<f64>() / of.len() as f64
            };
            mean(true) - mean(false)
        };
        assert!(apart(&told) > 0.08 && apart(&noisy).abs() < 0.035, "{noise:?}: {} and {}", apart(&told), apart(&noisy));
        // And the posterior is still one: what it says happens.
        for high in [true, false] {
            let of: Vec<&(bool, f64)> = noisy.values().filter(|(_, p)| (*p > 0.4) == high).collect();
            let n = of.len() as f64;
            let (said, was) = (of.iter().map(|(_, p)| p).sum::<f64>() / n, of.iter().filter(|(label, _)| *label).count() as f64 / n);
            assert!(n > 100.0 && (said - was).abs() < 0.06, "{noise:?}: {said} said, {was}");
        }
    }
    // What there is to see of a patient does not depend on it.
    let (seen, _) = cohort(&config(20));
    let (noise, _) = cohort(&SimulationConfig { noise: Some(Noise::Image), ..config(20) });
    let first = |dir: &Path| objects(dir).iter().map(|object| text(object, tags::SOP_INSTANCE_UID)).collect::<BTreeSet<_>>();
    let (seen, noise) = (first(seen.path()), first(noise.path()));
    assert!(seen.intersection(&noise).count() >= 20);
}

/// The disc that the truth names is brighter than a ring around it, in the frontal image.
#[test]
fn the_lesion_is_where_the_truth_says() {
    let (dir, _) = cohort(&config(60));
    let truth = truth(dir.path());
    let places: Vec<Vec<Option<f32>>> =
        ["lesion_x", "lesion_y", "lesion_radius"].map(|name| truth.column(name).unwrap().f32().unwrap().iter().collect()).to_vec();
    let (tasks, examples) = (texts(&truth, "task"), texts(&truth, "example_id"));
    let of: BTreeMap<&str, [f32; 3]> = (0..truth.height())
        .filter(|&k| tasks[k] == "malignant")
        .map(|k| (examples[k].as_str(), [0, 1, 2].map(|of| places[of][k].unwrap())))
        .collect();
    assert!((0..truth.height()).all(|k| places[0][k].is_some() == (tasks[k] == "malignant")));
    let (mut brighter, mut n) = (0, 0);
    for object in objects(dir.path()).iter().filter(|object| text(object, tags::VIEW_POSITION) == "PA") {
        let [x, y, radius] = of[ExampleId::of_study(&text(object, tags::STUDY_INSTANCE_UID)).as_str()];
        let pixels: Vec<u16> = object.element(tags::PIXEL_DATA).unwrap().to_multi_int().unwrap();
        let sign = if text(object, tags::PHOTOMETRIC_INTERPRETATION) == "MONOCHROME1" { -1.0 } else { 1.0 };
        let mean = |inner: f32, outer: f32| {
            let within = (0..128 * 128).filter(|k| {
                let distance = ((k % 128) as f32 - x).hypot((k / 128) as f32 - y) / radius;
                (inner..outer).contains(&distance)
            });
            let values: Vec<f32> = within.map(|k| f32::from(pixels[k])).collect();
            values.iter().sum::<f32>() / values.len() as f32
        };
        n += 1;
        brighter += usize::from(sign * (mean(0.7, 0.95) - mean(1.15, 1.4)) > 0.0);
    }
    assert!(n >= 60 && brighter * 100 >= n * 97, "{brighter} of {n}");
}

#[test]
fn truth_has_ten_rows_an_example() {
    let (dir, summary) = cohort(&config(50));
    let truth = truth(dir.path());
    assert_eq!(truth.height() as u64, 10 * summary.n_studies);
    let (tasks, labels) = (texts(&truth, "task"), truth.column("label").unwrap().f32().unwrap().iter().collect::<Vec<_>>());
    let joint = numbers(&truth, "p_joint");
    let times = numbers(&truth, "time_days");
    let events: Vec<_> = truth.column("event").unwrap().bool().unwrap().iter().collect();
    let risks = numbers(&truth, "risk_1");
    for k in 0..truth.height() {
        assert_eq!(times[k].is_some(), tasks[k] == "deterioration");
        assert_eq!(risks[k].is_some(), tasks[k] == "response");
        if let (Some(days), Some(event)) = (times[k], events[k]) {
            assert!(!event || (days <= 365.0) == (labels[k] == Some(1.0)));
        }
    }
    for k in (0..truth.height()).step_by(10) {
        let stages: f64 = joint[k + 1..k + 5].iter().flatten().sum();
        assert!((stages - 1.0).abs() < 1e-9);
        assert_eq!(labels[k + 1..k + 5].iter().flatten().sum::<f32>(), 1.0);
    }
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    let error = simulate(&config(3), dir.path(), &|_| ()).unwrap_err();
    assert!(matches!(error, SimulationError::NotEmpty { .. }));
    assert_eq!(files_below(dir.path()).len(), 1);
}

#[test]
fn a_failure_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let blocker = dir.path().join("file");
    std::fs::write(&blocker, "").unwrap();
    let error = simulate(&config(3), &blocker.join("out"), &|_| ()).unwrap_err();
    assert!(matches!(error, SimulationError::Io { .. }), "{error}");
    assert_eq!(files_below(dir.path()).len(), 1);
}

#[test]
fn progress_counts_every_patient() {
    let dir = tempfile::tempdir().unwrap();
    let seen = std::sync::Mutex::new(Vec::new());
    simulate(&config(40), &dir.path().join("new/folder"), &|done| seen.lock().unwrap().push(done)).unwrap();
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    assert_eq!(seen, (1..=40).collect::<Vec<u64>>());
    assert_eq!(std::fs::read_dir(dir.path().join("new")).unwrap().count(), 1, "the temporary folder is gone");
}

proptest! {
    #[test]
    fn settings_out_of_range_are_refused(p in prop_oneof![Just(f64::NAN), Just(-0.1), Just(f64::INFINITY), 1.0001..9.0], which in 0..3usize) {
        let mut config = config(2);
        let name = match which {
            0 => { config.missing_image = p; "missing-image" }
            1 => { config.missing_record = p; "missing-record" }
            _ => { config.n_patients = 0; "patients" }
        };
        let dir = tempfile::tempdir().unwrap();
        let error = simulate(&config, &dir.path().join("out"), &|_| ()).unwrap_err().to_string();
        prop_assert!(error.starts_with(name), "{}", error);
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
