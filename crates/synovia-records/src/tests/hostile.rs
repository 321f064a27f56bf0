//! Files that are wrong, cut off or built to hurt.

use std::path::PathBuf;

use proptest::prelude::*;

use super::{Outcome, PATIENT, read, read_text, try_read};
use crate::{FormatConfig, RecordsError};

fn fixture(name: &str) -> Outcome {
    read(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bad/fhir").join(name))
}

/// The fixture's rejections, and that its one good Observation was taken all the same.
#[track_caller]
fn check(name: &str, rejected: &[&str]) {
    let outcome = fixture(name);
    assert_eq!(outcome.rejected(), rejected);
    assert_eq!(outcome.events(), ["2020-05-04T10:00:00Z Observation http://loinc.org|1988-5 = 5.500000 mg/L"]);
}

const NO_DATE: &str = "not a date that a chart can have: expected YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss+zz:zz";

#[test]
fn broken_json() {
    check("broken.ndjson", &["line 2 column 66: not JSON", "line 4 column 1: not JSON"]);
}

#[test]
fn numbers_that_are_none() {
    check(
        "nan.ndjson",
        &[
            "line 2 column 249: not JSON",
            "line 3 Observation.valueQuantity.value: not a finite number",
            "line 4 column 253: not JSON",
            "line 5 Observation.valueQuantity.value: not a finite number",
        ],
    );
}

#[test]
fn dates_that_are_none() {
    check(
        "zero-date.ndjson",
        &[
            &format!("line 2 Observation.effectiveDateTime: {NO_DATE}"),
            &format!("line 3 Observation.effectiveDateTime: {NO_DATE}"),
            &format!("line 4 Observation.effectiveDateTime: {NO_DATE}"),
            "line 5 Observation.effectiveDateTime: no time: when it was known can't be told",
        ],
    );
}

#[test]
fn subjects_that_nobody_defines() {
    check(
        "unknown-subject.ndjson",
        &[
            "line 3 Observation.subject: the subject is not a patient",
            "line 4 Observation.subject: no reference to a subject",
            "line 2 Observation.subject: the subject is not among the Patient resources",
        ],
    );
}

#[test]
fn brackets_deeper_than_a_stack() {
    let outcome = fixture("deep.ndjson");
    // The second is JSON all the same: its depth is in an element that is not read.
    assert_eq!(
        outcome.rejected(),
        ["line 2 column 1: not as FHIR R4 defines this element", "line 3 Observation.subject: no reference to a subject"]
    );
    assert_eq!(outcome.events().len(), 1);
}

#[test]
fn a_bundle_in_itself_and_references_that_go_round() {
    let outcome = fixture("cycle.json");
    assert_eq!(outcome.events().len(), 1);
    let rejected = outcome.rejected();
    assert!(rejected.contains(&"entry 4: a Bundle in a Bundle, too deep to follow".to_owned()), "{rejected:?}");
    assert!(rejected.contains(&"entry 3 Medication.code: no coding with a code".to_owned()), "{rejected:?}");
    assert!(
        rejected.contains(&"entry 2 MedicationRequest.subject: the subject is not among the Patient resources".to_owned()),
        "{rejected:?}"
    );
    assert_eq!(rejected.len(), 3);
}

#[test]
fn a_bundle_that_is_cut_off_gives_what_came_before() {
    check("truncated.json", &["line 4: the JSON ends before it is closed: the entries before were taken"]);
}

#[test]
fn a_gzip_that_is_cut_off_gives_what_came_before() {
    let outcome = fixture("truncated.ndjson.gz");
    let n_events = outcome.events().len();
    assert!((500..2000).contains(&n_events), "{n_events}");
    // The line that the end fell into is the one that is lost: the patient's, the events', and then this.
    assert_eq!(
        outcome.rejected(),
        [format!("line {}: the compressed data end before they are complete: what came before was taken", n_events + 2)]
    );
}

#[test]
fn no_rejection_holds_an_identifier() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bad/fhir");
    let log = read(&folder).log;
    assert!(log.lines().count() >= 10);
    for identifier in ["fixture-patient", "MRN-FIXTURE", "Fixtureson", "fixture-nobody", "1961-02-03"] {
        assert!(!log.contains(identifier), "{identifier} in {log}");
    }
}

#[test]
fn a_file_that_may_be_named_for_its_patient_is_not_named() {
    let source = |name: &str| {
        let outcome = read_text(name, format!("{PATIENT}\nhello\n").as_bytes());
        serde_json::from_str::<synovia_cohort::Rejected>(outcome.log.trim()).unwrap().source
    };
    assert_eq!(source("Fixtureson.json"), "file 1 of 1");
    assert_eq!(source("Patient-12345.ndjson"), "file 1 of 1");
    assert_eq!(source("Patient-2.ndjson"), "Patient-2.ndjson");
    // What is not read at all is not named either.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Patient.ndjson"), PATIENT).unwrap();
    std::fs::write(folder.path().join("Fixtureson.pdf"), "x").unwrap();
    let log = read(folder.path()).log;
    assert!(log.contains("other file 1 of 1") && !log.contains("Fixtureson"), "{log}");
}

#[test]
fn a_line_over_the_limit_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!(r#"{{"resourceType":"Patient","id":"{}"}}"#, "x".repeat(3000));
    std::fs::write(folder.path().join("a.ndjson"), format!("{PATIENT}\n{long}\n{}\n", PATIENT.replace("p1", "p2"))).unwrap();
    let outcome = try_read(folder.path(), &FormatConfig { max_resource_bytes: 1000, ..FormatConfig::fhir() }).unwrap();
    assert_eq!(outcome.rejected(), ["line 2: a line longer than 1000 bytes"]);
    assert_eq!(outcome.records.len(), 2);
}

#[test]
fn a_folder_without_files_of_the_format() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
    assert!(matches!(try_read(folder.path(), &FormatConfig::fhir()), Err(RecordsError::NothingToRead { .. })));
    assert!(matches!(try_read(&folder.path().join("none"), &FormatConfig::fhir()), Err(RecordsError::Io { .. })));
    std::fs::write(folder.path().join("a.ndjson"), PATIENT).unwrap();
    assert_eq!(read(folder.path()).rejected(), [": not read: expected .ndjson, .jsonl or .json (each also .gz)"]);
}

const SEEDS: [&str; 3] = [
    r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"1988-5"}]},"subject":{"reference":"Patient/p1"},"effectiveDateTime":"2020-05-04","valueQuantity":{"value":5.5,"code":"mg/L"},"component":[{"code":{"coding":[]},"valueInteger":3}]}"#,
    r#"{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","id":"p1","birthDate":"1960"}},{"resource":{"resourceType":"Condition","subject":{"reference":"urn:uuid:1"},"code":{"coding":[{"code":"x"}]},"onsetDateTime":"2020"}}]}"#,
    r#"{"resourceType":"DiagnosticReport","code":{"coding":[{"code":"r"}]},"subject":{"reference":"Patient/p1"},"issued":"2020-05-05T08:00:00Z","presentedForm":[{"contentType":"text/plain","data":"Zm9vYmFy"}]}"#,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done to a file, it is read or rejected, no line is lost, and the good line after it is read.
    #[test]
    fn mutated_json_never_panics(seed in 0..SEEDS.len(), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..8)) {
        let mut bytes = SEEDS[seed].as_bytes().to_vec();
        for (at, byte, what) in edits {
            let k = at.index(bytes.len().max(1));
            match what {
                0 if k < bytes.len() => bytes[k] = byte,
                1 if k < bytes.len() => { bytes.remove(k); }
                _ => bytes.insert(k, byte),
            }
        }
        read_text("a.json", &bytes);
        let line: Vec<u8> = bytes.iter().copied().filter(|&b| b != b'\n').collect();
        let text = [line.as_slice(), b"\n", PATIENT.replace("p1", "the-last").as_bytes()].concat();
        let outcome = read_text("a.ndjson", &text);
        prop_assert!(outcome.records.iter().any(|r| r.id.reveal() == "the-last"));
        let summary = outcome.store.summary();
        let n_taken: u64 = summary.resources.values().chain(summary.skipped_types.values()).sum();
        let n_lines = 1 + u64::from(!line.iter().all(u8::is_ascii_whitespace));
        prop_assert!(n_taken + summary.n_rejected >= n_lines, "{n_taken} taken and {} rejected of {n_lines} lines", summary.n_rejected);
    }
}
