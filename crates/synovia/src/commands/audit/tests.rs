//! A run made by hand in which nothing is wrong, and what is named when something is.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use polars::prelude::{DataFrame, ParquetWriter};
use synovia_cohort::{
    CohortWriter, Example, ExampleRow, FORMAT, FeatureKind, FeatureSpec, Geometry, Manifest, PatientId, RejectedLog, Task, TaskKind, Time,
};
use synovia_records::{Feature, FeaturePlan, FeatureSource, FormatConfig, Statistic};

use super::*;

const SIDE: usize = 24;
const CRP: &str = "http://loinc.org|1988-5";
/// When every prediction is made.
const AT: Time = Time::from_seconds(1_600_000_000);

/// One patient, and what the run says of them.
#[derive(Clone)]
struct Person {
    name: String,
    split: Split,
    label: bool,
    crp: f64,
    /// A number that comes after the prediction.
    later_crp: f64,
    /// Whether the features were made with it.
    knows_the_future: bool,
    report: String,
    pixels: Vec<f32>,
    sop: String,
    site: String,
    scanner: String,
    photometric: &'static str,
    /// Patient of the record, where it is another's than its own.
    record_of: Option<usize>,
    household: String,
}

/// A number in [0, 1) that looks random.
fn noise(seed: u64, k: u64) -> f64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ k.wrapping_mul(0xd1b5_4a32_d192_ed03);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn pixels(seed: u64, k: u64) -> Vec<f32> {
    // What all have in common, and what is this one's own.
    let common = |i: usize| 0.5 + 0.3 * ((i % SIDE) as f64 / SIDE as f64 - 0.5);
    (0..SIDE * SIDE).map(|i| (common(i) + 0.15 * (noise(seed ^ (k + 77), (i / SIDE / 3 * 8 + i % SIDE / 3) as u64) - 0.5)) as f32).collect()
}

/// A cohort without a leak.
fn clean(seed: u64) -> Vec<Person> {
    let of = |k: usize| {
        let draw = |what: u64| noise(seed + 1000 * what, k as u64);
        let label = draw(1) < 0.4;
        Person {
            name: format!("Person{k}"),
            split: if k % 10 < 7 { Split::Train } else { Split::Test },
            label,
            crp: 5.0 + 40.0 * draw(2) + if label { 8.0 } else { 0.0 },
            later_crp: 5.0 + 40.0 * draw(3),
            knows_the_future: false,
            report: (if draw(4) < 0.5 { "Heart not enlarged" } else { "Clear lungs, seen before" }).to_owned(),
            pixels: pixels(seed, k as u64),
            sop: format!("1.2.{seed}.{k}"),
            site: (if draw(5) < 0.5 { "North" } else { "South" }).to_owned(),
            scanner: (if draw(6) < 0.5 { "Alpha" } else { "Beta" }).to_owned(),
            photometric: if draw(7) < 0.5 { "MONOCHROME1" } else { "MONOCHROME2" },
            record_of: None,
            household: format!("HH-{k}"),
        }
    };
    (0..240).map(of).collect()
}

fn id(k: usize) -> String {
    format!("patient-{k}")
}

fn chart(people: &[Person]) -> String {
    let mut out = String::new();
    for (k, person) in people.iter().enumerate() {
        let (id, at) = (id(k), |days: f64| AT.plus_days(days));
        // Names are one's own, birth dates are not.
        let mut line = |json: serde_json::Value| writeln!(out, "{json}").unwrap();
        line(serde_json::json!({"resourceType": "Patient", "id": id, "gender": "female", "birthDate": "1960-01-01",
            "identifier": [{"value": person.household}],
            "name": [{"family": person.name, "given": ["Ada"]}]}));
        for (days, value) in [(-30.0, person.crp), (30.0, person.later_crp)] {
            line(serde_json::json!({"resourceType": "Observation", "status": "final", "subject": {"reference": format!("Patient/{id}")},
                "code": {"coding": [{"system": "http://loinc.org", "code": "1988-5"}]}, "effectiveDateTime": at(days).to_string(),
                "valueQuantity": {"value": value, "code": "mg/L"}}));
        }
        line(serde_json::json!({"resourceType": "DiagnosticReport", "status": "final", "subject": {"reference": format!("Patient/{id}")},
            "code": {"coding": [{"system": "s", "code": "report"}]}, "issued": at(-10.0).to_string(), "conclusion": person.report}));
    }
    out
}

fn plan() -> FeaturePlan {
    let number = |name: &str, code: &str, unit: &str| FeatureSpec {
        name: name.into(),
        kind: FeatureKind::Number,
        code: code.into(),
        unit: unit.into(),
    };
    let crp = FeatureSource::Value { code: CRP.into(), statistic: Statistic::Last, window_days: None };
    let features = vec![
        Feature { spec: number("crp", CRP, "mg/L"), source: crp },
        Feature { spec: number("age", "", "a"), source: FeatureSource::Age },
    ];
    FeaturePlan { features, ..FeaturePlan::default() }
}

fn write_dicom(path: &Path, person: &Person) {
    let mut object = InMemDicomObject::new_empty();
    let mut put = |tag: Tag, vr: VR, value: &str| {
        object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
    };
    put(tags::SOP_CLASS_UID, VR::UI, uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION);
    put(tags::SOP_INSTANCE_UID, VR::UI, &person.sop);
    put(tags::INSTITUTION_NAME, VR::LO, &person.site);
    put(tags::MANUFACTURER, VR::LO, &person.scanner);
    put(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, person.photometric);
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object.with_meta(meta).unwrap().write_to_file(path).unwrap();
}

/// Writes a run folder, as the stages would.
fn write(run: &Path, people: &[Person]) {
    let (data, ingested, cohort) = (run.join("data"), run.join("ingest"), run.join("cohort"));
    for folder in [&data, &ingested, &cohort] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(
        run.join("pipeline.toml"),
        format!("[images]\npath = {data:?}\n[records]\nhistory = \"365d\"\n[cohort.split.group]\nidentifier = \"HH-\"\n"),
    )
    .unwrap();
    let records = run.join("chart.ndjson");
    std::fs::write(&records, chart(people)).unwrap();
    let store =
        synovia_records::ingest(&records, &FormatConfig::fhir(), &ingested.join("records"), &RejectedLog::counting(), &|_| {}).unwrap();
    let mut index = StudyIndex::default();
    for (k, person) in people.iter().enumerate() {
        let file = format!("{k}.dcm");
        write_dicom(&data.join(&file), person);
        index.studies.push(Study {
            study_instance_uid: format!("study-{k}"),
            patient: id(k),
            accession: String::new(),
            time: Some(AT),
            modality: "DX".into(),
            file,
            frame: 0,
            n_images: 1,
            slices: Vec::new(),
        });
    }
    ingest::write_json(&ingested.join("studies.json"), &index).unwrap();

    let plan = plan();
    let manifest = Manifest {
        format: FORMAT,
        geometry: Some(Geometry { channels: 1, height: SIDE, width: SIDE }),
        features: plan.specs(),
        endpoints: Vec::new(),
        tasks: vec![Task { name: "malignant".into(), kind: TaskKind::Binary, classes: vec!["malignant".into()] }],
        n_images: people.len(),
        n_records: people.len(),
        n_examples: people.len(),
    };
    let writer = CohortWriter::create(&cohort, manifest).unwrap();
    let by_id: BTreeMap<String, _> =
        (0..store.n_partitions()).flat_map(|k| store.load(k).unwrap()).map(|record| (record.id.reveal().to_owned(), record)).collect();
    let mut rows = Vec::new();
    for (k, person) in people.iter().enumerate() {
        let record = &by_id[&id(person.record_of.unwrap_or(k))];
        let known = if person.knows_the_future { AT.plus_days(60.0) } else { AT };
        let example_id = ExampleId::of_study(&format!("study-{k}"));
        let example = Example::new(example_id.clone(), record.id.clone(), known, None, Some(record), Some(365.0)).unwrap();
        let mut features = vec![f32::NAN; plan.features.len()];
        plan.row(&example, &record.patient, &mut features);
        if person.knows_the_future {
            features[1] = AT.years_since(record.patient.birth.unwrap()) as f32;
        }
        writer.write_image(k, &person.pixels).unwrap();
        writer.write_record(k, &features).unwrap();
        rows.push(ExampleRow {
            id: example_id,
            patient: PatientId::new(&id(person.record_of.unwrap_or(k))).pseudonym(),
            split: person.split,
            prediction_time: AT,
            image_row: Some(k as u32),
            record_row: Some(k as u32),
            labels: vec![Some(f32::from(u8::from(person.label)))],
            endpoints: Vec::new(),
        });
    }
    writer.finish(&rows).unwrap();
    ingest::write_json(&cohort.join("features.json"), &plan).unwrap();
}

fn found(people: &[Person]) -> Vec<Leak> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), people);
    let audit = audit_run(dir.path()).unwrap();
    // The command ends with 1 when there is a leak, and with 0 otherwise.
    let context = Context::new(&crate::cli::Global { quiet: true, json: true, threads: None });
    let ended = super::audit(&AuditArgs { run: dir.path().to_owned() }, &context);
    let code = ended.map_or_else(|error| crate::failure::Failure::from(error).code(), |()| 0);
    assert_eq!(code, u8::from(!audit.leaks.is_empty()));
    assert_eq!((audit.examples, audit.images, audit.headers), (people.len(), people.len(), people.len()));
    assert!(audit.patients >= people.len() - 2);
    audit.leaks
}

/// The kinds that are named after a change of a clean cohort.
#[track_caller]
fn check(change: impl FnOnce(&mut Vec<Person>), kinds: &[Kind]) {
    let mut people = clean(7);
    change(&mut people);
    let leaks = found(&people);
    assert!(leaks.iter().all(|leak| !leak.evidence.is_empty() && !leak.advice.is_empty() && leak.severity == leak.kind.severity()));
    let got: BTreeSet<Kind> = leaks.iter().map(|leak| leak.kind).collect();
    assert_eq!(got, kinds.iter().copied().collect(), "{leaks:?}");
}

/// Somebody to be tested on, and somebody to be trained on.
const TEST: usize = 9;
const TRAIN: usize = 3;

#[test]
fn nothing_is_named_on_five_clean_cohorts() {
    for seed in 1..=5 {
        let leaks = found(&clean(seed));
        assert!(leaks.is_empty(), "{seed}: {leaks:?}");
    }
}

#[test]
fn each_leak_is_named() {
    check(|p| p[TEST].record_of = Some(TRAIN), &[Kind::PatientInTwoSplits]);
    check(|p| p[TEST].household = p[TRAIN].household.clone(), &[Kind::GroupInTwoSplits]);
    check(|p| p[TEST].sop = p[TRAIN].sop.clone(), &[Kind::SameInstance]);
    check(|p| p[TEST].pixels = p[TRAIN].pixels.clone(), &[Kind::SamePixels]);
    // Brighter, of more contrast, and with some noise.
    check(
        |p| p[TEST].pixels = p[TRAIN].pixels.iter().enumerate().map(|(k, x)| 0.1 + 0.8 * x + 0.005 * noise(5, k as u64) as f32).collect(),
        &[Kind::NearDuplicate],
    );
    check(|p| p[TEST].name = p[TRAIN].name.to_uppercase(), &[Kind::SamePerson]);
    check(|p| p[TEST].knows_the_future = true, &[Kind::FutureEvents]);
    check(|p| p.iter_mut().for_each(|p| p.crp = if p.label { 100.0 + p.crp } else { p.crp }), &[Kind::FeatureTellsLabel]);
    check(|p| p.iter_mut().for_each(|p| p.site = (if p.label { "Referral centre" } else { "Clinic" }).to_owned()), &[Kind::SiteTellsLabel]);
    check(|p| p.iter_mut().for_each(|p| p.scanner = (if p.label { "Gamma" } else { "Delta" }).to_owned()), &[Kind::ScannerTellsLabel]);
    check(|p| p.iter_mut().for_each(|p| p.photometric = if p.label { "MONOCHROME1" } else { "MONOCHROME2" }), &[Kind::FormatTellsLabel]);
    check(
        |p| p.iter_mut().filter(|p| p.label).for_each(|p| p.report.push_str(". Findings suspicious of carcinoma.")),
        &[Kind::TextTellsLabel],
    );
}

#[test]
fn ten_leaks_at_once_are_all_named() {
    check(
        |p| {
            p[TEST].record_of = Some(TRAIN);
            p[TEST + 10].sop = p[TRAIN].sop.clone();
            p[TEST + 20].pixels = p[TRAIN].pixels.clone();
            p[TEST + 30].pixels = p[TRAIN + 10].pixels.iter().map(|x| 0.1 + 0.8 * x).collect();
            p[TEST + 40].name = p[TRAIN + 20].name.clone();
            p[TEST + 50].knows_the_future = true;
            for p in p.iter_mut() {
                p.crp = if p.label { 100.0 + p.crp } else { p.crp };
                p.site = (if p.label { "Referral centre" } else { "Clinic" }).to_owned();
                p.scanner = (if p.label { "Gamma" } else { "Delta" }).to_owned();
                if p.label {
                    p.report.push_str(". Findings suspicious of carcinoma.");
                }
            }
        },
        &[
            Kind::PatientInTwoSplits,
            Kind::SameInstance,
            Kind::SamePixels,
            Kind::NearDuplicate,
            Kind::SamePerson,
            Kind::FutureEvents,
            Kind::FeatureTellsLabel,
            Kind::SiteTellsLabel,
            Kind::ScannerTellsLabel,
            Kind::TextTellsLabel,
        ],
    );
}

#[test]
fn evidence_names_nobody() {
    let mut people = clean(7);
    people[TEST].name = people[TRAIN].name.clone();
    people[TEST + 10].knows_the_future = true;
    for leak in found(&people) {
        let text = format!("{leak} {}", leak.kind.advice());
        assert!(!text.contains("patient-") && !text.contains("Person") && !text.contains("study-"), "{text}");
    }
}

#[test]
fn predictions_must_be_of_the_cohorts_splits() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &clean(7));
    let example = |k: usize| ExampleId::of_study(&format!("study-{k}")).as_str().to_owned();
    let check = |predictions: &[(String, &str)], expected: &[String]| {
        let column =
            |name: &str, of: fn(&(String, &str)) -> String| Column::new(name.into(), predictions.iter().map(of).collect::<Vec<_>>());
        let columns = vec![column("example_id", |p| p.0.clone()), column("split", |p| p.1.to_owned())];
        let mut frame = DataFrame::new(predictions.len(), columns).unwrap();
        ParquetWriter::new(File::create(dir.path().join("predictions.parquet")).unwrap()).finish(&mut frame).unwrap();
        let leaks: Vec<String> = audit_run(dir.path()).unwrap().leaks.iter().map(ToString::to_string).collect();
        assert_eq!(leaks, expected);
    };
    check(&[(example(TEST), "test"), (example(TRAIN), "train")], &[]);
    let wrong = format!("predictions.parquet: the example {} counts as test but is in train", example(TRAIN));
    check(&[(example(TRAIN), "test"), (example(TRAIN), "test")], &[wrong]);
    check(&[("e9".to_owned(), "test")], &["predictions.parquet: the example e9 is not in the cohort".to_owned()]);
}

#[test]
fn a_cohort_a_fold() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &clean(7));
    for fold in ["folds/0", "folds/1"] {
        std::fs::create_dir_all(dir.path().join(fold)).unwrap();
        let (from, to) = (dir.path().join("cohort"), dir.path().join(fold).join("cohort"));
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    assert_eq!(audit_run(dir.path()).unwrap().cohorts, 3);
}

#[test]
fn no_cohort_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let failure: crate::failure::Failure = audit_run(dir.path()).unwrap_err().into();
    assert_eq!(failure.code(), 2);
    let failure: crate::failure::Failure = audit_run(&dir.path().join("none")).unwrap_err().into();
    assert_eq!(failure.code(), 1);
}
