//! Wide tables.

use std::fmt::Write;
use std::path::Path;

use synovia_cohort::EventValue;

use super::{Outcome, try_read};
use crate::{CsvLayout, FormatConfig, RecordsError};

fn layout() -> CsvLayout {
    let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    CsvLayout { id: "ID".to_owned(), features: names(&["Age", "M/F", "SES"]), labels: names(&["CDR"]), ..CsvLayout::default() }
}

fn read(text: &str, layout: CsvLayout) -> Result<Outcome, RecordsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    std::fs::write(&path, text).unwrap();
    try_read(&path, &FormatConfig::csv(layout))
}

/// Each patient's id and facts.
#[track_caller]
fn check(text: &str, layout: CsvLayout, patients: &[&str], rejected: &[&str]) {
    let outcome = read(text, layout).unwrap();
    let shown = |value: &EventValue| match value {
        EventValue::Number { value, .. } => value.to_string(),
        EventValue::Code(code) => format!("‘{code}’"),
        other => format!("{other:?}"),
    };
    let got: Vec<String> = outcome
        .records
        .iter()
        .map(|r| {
            format!("{}: {}", r.id.reveal(), r.patient.facts.iter().map(|(n, v)| format!("{n}={}", shown(v))).collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(got, patients);
    assert_eq!(outcome.rejected(), rejected);
}

#[test]
fn a_row_is_a_patients_facts() {
    check(
        "ID,M/F,Age,SES,CDR,nWBV\nA,F,60,1,0,0.8\nB,M,61,,0.5,0.7\nC,F,NA,?,0,0.7\n",
        layout(),
        &["A: Age=60 M/F=‘F’ SES=1 CDR=0", "B: Age=61 M/F=‘M’ CDR=0.5", "C: M/F=‘F’ CDR=0"],
        &[],
    );
}

#[test]
fn numbers_may_be_names() {
    let layout = CsvLayout { categories: vec!["SES".to_owned()], ..layout() };
    check("ID,M/F,Age,SES,CDR\nA,F,60,1,0\n", layout, &["A: Age=60 M/F=‘F’ SES=‘1’ CDR=0"], &[]);
}

#[test]
fn a_bad_row_or_cell_costs_only_itself() {
    let mut text = "ID,M/F,Age,SES,CDR\nA,F\n,F,60,1,0\nB,F,inf,1,0\nC,F,6O,1,0\n".to_owned();
    let mut patients = vec!["B: M/F=‘F’ SES=1 CDR=0".to_owned(), "C: M/F=‘F’ SES=1 CDR=0".to_owned()];
    for k in 10..50 {
        writeln!(text, "D{k},M,{k},1,0").unwrap();
        patients.push(format!("D{k}: Age={k} M/F=‘M’ SES=1 CDR=0"));
    }
    let patients: Vec<&str> = patients.iter().map(String::as_str).collect();
    check(
        &text,
        layout(),
        &patients,
        &[
            "line 2: 2 fields where the header has 5",
            "line 3: no patient in the id column",
            "line 4 column 3: not a finite number in a column of numbers",
            "line 5 column 3: not a finite number in a column of numbers",
        ],
    );
}

#[test]
fn nothing_after_a_carriage_return_is_lost_in_silence() {
    check(
        "ID,M/F,Age,SES,CDR\r\nA,F,60,1,0\rB,F,61,1,0\r\nC,F,62,1,0\r\n",
        layout(),
        &["C: Age=62 M/F=‘F’ SES=1 CDR=0"],
        &["line 2: a carriage return within the line: lines are to end with \\n or \\r\\n"],
    );
}

#[test]
fn a_column_is_of_numbers_in_all_files_or_in_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "ID,M/F,Age,SES,CDR\nA,F,60,1,0\n").unwrap();
    std::fs::write(folder.path().join("b.csv"), "ID,M/F,Age,SES,CDR\nB,F,61,low,0\nC,F,62,high,0\n").unwrap();
    let outcome = try_read(folder.path(), &FormatConfig::csv(layout())).unwrap();
    let ses: Vec<&EventValue> =
        outcome.records.iter().flat_map(|r| &r.patient.facts).filter(|(n, _)| &**n == "SES").map(|(_, value)| value).collect();
    assert_eq!(ses, ["1", "low", "high"].map(|level| EventValue::Code(level.into())).iter().collect::<Vec<_>>());
}

#[test]
fn two_rows_of_a_patient_must_agree() {
    check(
        "ID,M/F,Age,SES,CDR\nA,F,60,1,\nA,F,60,1,0\nA,F,70,1,0\n",
        layout(),
        &["A: Age=60 M/F=‘F’ SES=1 CDR=0"],
        &["line 4: another description of the same patient says otherwise: the first was taken"],
    );
}

#[test]
fn pictures_are_linked_by_their_stem() {
    let layout = CsvLayout { image: Some("ID".to_owned()), image_names: vec!["{}_a".to_owned(), "{}_c".to_owned()], ..layout() };
    let outcome = read("ID,M/F,Age,SES,CDR\nscan.1,F,60,1,0\n", layout.clone()).unwrap();
    let names = |outcome: &Outcome| outcome.records[0].studies.iter().map(|s| s.study_instance_uid.clone()).collect::<Vec<_>>();
    assert_eq!(names(&outcome), ["scan.1_a", "scan.1_c"]);
    let layout = CsvLayout { image: Some("M/F".to_owned()), image_names: vec![], ..layout };
    let outcome = read("ID,M/F,Age,SES,CDR\nA,img/x.y.PNG,60,1,0\n", layout).unwrap();
    assert_eq!(names(&outcome), ["x.y"]);
}

#[test]
fn a_time_column_makes_events() {
    let layout = CsvLayout { time: Some("when".to_owned()), features: vec!["hr".to_owned()], labels: vec![], ..layout() };
    let outcome = read(
        "ID\twhen\thr\nA\t2020-05-05 10:00:00\t70\nA\t2020-05-04\t60\nA\tsoon\t60\nA\t9999-12-31\t60\n",
        CsvLayout { delimiter: Some('\t'), ..layout },
    )
    .unwrap();
    assert_eq!(
        outcome.events(),
        ["2020-05-04T23:59:59Z Observation column|hr = 60.000000 ", "2020-05-05T10:00:00Z Observation column|hr = 70.000000 "]
    );
    let reason = "not a time that a chart can have: expected YYYY-MM-DD or YYYY-MM-DDThh:mm:ss";
    assert_eq!(outcome.rejected(), [4, 5].map(|line| format!("line {line} column 2: {reason}")));
}

/// Cells are smaller than the events that they become: a partition of more than it may have is cut and nothing is lost.
#[test]
fn a_partition_that_is_too_large_is_cut_by_patients() {
    let names: Vec<String> = (0..500).map(|k| format!("x{k}")).collect();
    let mut text = format!("ID,when,{}\n", names.join(","));
    for p in 0..300 {
        writeln!(text, "patient-{p},2020-05-04{}", ",1".repeat(names.len())).unwrap();
    }
    let layout = CsvLayout { id: "ID".to_owned(), time: Some("when".to_owned()), features: names, ..CsvLayout::default() };
    let outcome = read(&text, layout).unwrap();
    assert!(outcome.store.n_partitions() > 1);
    assert_eq!((outcome.records.len(), outcome.rejected().len()), (300, 0));
    assert!(outcome.records.iter().all(|r| r.events.len() == 500));
}

#[test]
fn a_column_that_is_not_there() {
    let Err(error) = read("ID,M/F,Age\nA,F,60\n", layout()) else { panic!("taken") };
    assert!(error.to_string().ends_with("no column `SES` among the 3 of the header"), "{error}");
    let Err(error) = read("ID,M/F,Age,Ses,CDR\nA,F,60,1,0\n", layout()) else { panic!("taken") };
    assert!(error.to_string().ends_with("among the 5 of the header; did you mean `Ses`?"), "{error}");
    // Without a header the first line is a patient: nothing of it is said.
    let Err(error) = read("MRN-778,F,60,1,0\n", layout()) else { panic!("taken") };
    assert!(!error.to_string().contains("778"), "{error}");
    let Err(error) = read("ID,M/F\rA,F\r", layout()) else { panic!("taken") };
    assert!(error.to_string().contains("the header can't be read: a carriage return"), "{error}");
    assert!(matches!(read("", layout()), Err(RecordsError::MissingColumn { .. })));
}

#[test]
fn oasis() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/oasis1");
    if !folder.exists() {
        println!("skipped: no oasis1 data here");
        return;
    }
    let layout = CsvLayout { image: Some("ID".to_owned()), image_names: vec!["{}_a".to_owned()], ..layout() };
    let outcome = try_read(&folder.join("oasis_cross-sectional.csv"), &FormatConfig::csv(layout)).unwrap();
    assert_eq!((outcome.records.len(), outcome.rejected().len()), (196, 0));
    let demented = |record: &&synovia_cohort::PatientRecord| {
        record.patient.facts.iter().any(|(n, v)| &**n == "CDR" && matches!(v, EventValue::Number { value, .. } if *value > 0.0))
    };
    assert_eq!(outcome.records.iter().filter(demented).count(), 98);
    assert!(outcome.records.iter().all(|r| folder.join("axial").join(format!("{}.jpg", r.studies[0].study_instance_uid)).exists()));
}
