//! The store on disk: whole or refused, and the same for any number of threads.

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use synovia_cohort::RejectedLog;

use super::{Outcome, read};
use crate::{FormatConfig, RecordStore, RecordsError, ingest, input_bytes};

/// A bulk export of `n` patients, each with `per_patient` results and some that are wrong.
fn export(folder: &Path, n: usize, per_patient: usize) {
    let (mut patients, mut results) = (String::new(), String::new());
    for p in 0..n {
        writeln!(patients, "{{\"resourceType\":\"Patient\",\"id\":\"patient-{p}\"}}").unwrap();
        for k in 0..per_patient {
            let subject = if (p * per_patient + k).is_multiple_of(97) { "nobody".to_owned() } else { format!("patient-{p}") };
            let unit = if k % 31 == 7 { "furlong" } else { "mg/L" };
            // Several at one time: their order is that of the file.
            let hour = k / 3 % 24;
            writeln!(
                results,
                r#"{{"resourceType":"Observation","code":{{"coding":[{{"system":"http://loinc.org","code":"1988-5"}}]}},"subject":{{"reference":"Patient/{subject}"}},"effectiveDateTime":"2020-05-04T{hour:02}:00:00Z","valueQuantity":{{"value":{k},"code":"{unit}"}},"note":[{{"text":"{k:0>400}"}}]}}"#
            )
            .unwrap();
        }
    }
    std::fs::write(folder.join("Observation.ndjson"), results).unwrap();
    std::fs::write(folder.join("Patient.ndjson"), patients).unwrap();
}

fn with_threads(n: usize, folder: &Path) -> Outcome {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(|| read(folder))
}

#[test]
fn one_thread_and_several_give_the_same() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), 300, 90);
    let one = with_threads(1, folder.path());
    assert_eq!(one.records.len(), 300);
    for n in [2, 3] {
        let several = with_threads(n, folder.path());
        assert!(one.records == several.records, "{n} threads");
        assert!(one.log == several.log, "{n} threads");
        assert_eq!(one.store.summary(), several.store.summary());
    }
}

#[test]
fn every_event_is_taken_or_rejected() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), 50, 40);
    let outcome = read(folder.path());
    let (n_wrong_unit, n_nobody) = ((0..2000).filter(|i| i % 40 % 31 == 7).count(), (0..2000).filter(|i| i % 97 == 0).count());
    let both = (0..2000).filter(|i| i % 40 % 31 == 7 && i % 97 == 0).count();
    assert_eq!(outcome.rejected().len(), n_wrong_unit + n_nobody - both);
    assert_eq!(outcome.events().len(), 2000 - outcome.rejected().len());
    assert!(outcome.records.iter().all(|r| r.events.is_sorted_by_key(|e| e.time)));
    let summary = outcome.store.summary();
    assert_eq!((summary.n_patients, summary.resources["Observation"]), (50, 2000));
}

#[test]
fn a_store_of_many_partitions_holds_each_patient_once() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), 700, 90);
    let outcome = read(folder.path());
    assert!(outcome.store.n_partitions() >= 2, "{} bytes", outcome.store.summary().n_bytes);
    let mut ids: Vec<&str> = outcome.records.iter().map(|r| r.id.reveal()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 700);
    for k in 0..outcome.store.n_partitions() {
        let part = outcome.store.load(k).unwrap();
        assert!(!part.is_empty() && part.is_sorted_by(|a, b| a.id < b.id));
    }
}

/// Subjects that are named by another key than the patient's own lie in other partitions until all is read.
#[test]
fn subjects_by_full_url_are_found_across_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let mut entries = Vec::new();
    for p in 0..300 {
        let url = format!("urn:uuid:00000000-0000-4000-8000-{p:012}");
        entries.push(format!(r#"{{"fullUrl":"{url}","resource":{{"resourceType":"Patient","id":"patient-{p}"}}}}"#));
        for k in 0..60 {
            entries.push(format!(
                r#"{{"resource":{{"resourceType":"Observation","code":{{"coding":[{{"system":"http://loinc.org","code":"1988-5"}}]}},"subject":{{"reference":"{url}"}},"effectiveDateTime":"2020-05-04T10:00:00Z","valueQuantity":{{"value":{k},"code":"mg/L"}},"note":[{{"text":"{k:0>500}"}}]}}}}"#
            ));
        }
    }
    std::fs::write(folder.path().join("a.json"), format!(r#"{{"resourceType":"Bundle","entry":[{}]}}"#, entries.join(","))).unwrap();
    let outcome = read(folder.path());
    assert!(outcome.store.n_partitions() >= 2);
    assert_eq!(outcome.log, "");
    let counts: Vec<usize> = outcome.records.iter().map(|record| record.events.len()).collect();
    assert_eq!(counts, [60; 300]);
}

#[test]
fn progress_adds_up_to_the_input() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), 20, 20);
    let (done, format) = (AtomicU64::new(0), FormatConfig::fhir());
    let spill = tempfile::tempdir().unwrap();
    let count = |n| {
        done.fetch_add(n, Ordering::Relaxed);
    };
    ingest(folder.path(), &format, spill.path(), &RejectedLog::counting(), &count).unwrap();
    assert_eq!(done.into_inner(), input_bytes(folder.path(), &format).unwrap());
}

#[test]
fn a_store_is_whole_or_refused() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    export(folder.path(), 5, 5);
    let write = || ingest(folder.path(), &FormatConfig::fhir(), spill.path(), &RejectedLog::counting(), &|_| {}).unwrap();
    let records = write().load(0).unwrap();
    assert_eq!(RecordStore::open(spill.path()).unwrap().load(0).unwrap(), records);
    assert!(std::fs::read_dir(spill.path()).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with("raw")));

    let refused = || matches!(RecordStore::open(spill.path()), Err(RecordsError::Damaged { .. }));
    let part = spill.path().join("part-0000-0000.bin");
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, &bytes[..bytes.len() - 1]).unwrap();
    assert!(refused(), "a partition that is cut off");
    std::fs::write(&part, &bytes).unwrap();
    std::fs::remove_file(spill.path().join("records.json")).unwrap();
    assert!(refused(), "an ingest that did not end");

    // A second ingest replaces what a first left.
    std::fs::write(spill.path().join("raw-0000.bin"), b"left over").unwrap();
    write();
    assert_eq!(RecordStore::open(spill.path()).unwrap().load(0).unwrap(), records);
    // Bytes that are not ours are an error, not a panic.
    std::fs::write(&part, vec![0xff; bytes.len()]).unwrap();
    assert!(matches!(RecordStore::open(spill.path()).unwrap().load(0), Err(RecordsError::Damaged { .. })));
}

#[test]
fn a_spill_that_cannot_be_written_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), 1, 1);
    let file = folder.path().join("a-file");
    std::fs::write(&file, "x").unwrap();
    let result = ingest(folder.path(), &FormatConfig::fhir(), &file.join("spill"), &RejectedLog::counting(), &|_| {});
    let Err(RecordsError::Io { path, .. }) = result else { panic!("written into a file") };
    assert!(path.starts_with(&file));
}

#[test]
fn synthea_is_taken_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/synthea");
    if !folder.exists() {
        println!("skipped: no synthea data here");
        return;
    }
    let outcome = read(&folder);
    assert_eq!(outcome.log, "");
    let summary = outcome.store.summary();
    // Counts of the input, taken from it with another program.
    assert_eq!(
        (summary.n_patients, summary.n_studies, summary.resources["Observation"], summary.skipped_types["Claim"]),
        (100, 6, 6482, 1351)
    );
    // 614 blood pressures are two events each; every other Observation is one.
    assert_eq!(
        outcome.records.iter().flat_map(|r| &r.events).filter(|e| e.kind == synovia_cohort::EventKind::Observation).count(),
        6482 - 614 + 2 * 614
    );
}
