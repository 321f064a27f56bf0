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
    let outcome =
        read("ID\twhen\thr\nA\t2020-05-05 10:00:00\t70\nA\t2020-05-04\t60\nA\tsoon\t60\n", CsvLayout { delimiter: Some('\t'), ..layout })
            .unwrap();
    assert_eq!(
        outcome.events(),
        ["2020-05-04T23:59:59Z Observation column|hr = 60.000000 ", "2020-05-05T10:00:00Z Observation column|hr = 70.000000 "]
    );
    assert_eq!(outcome.rejected(), ["line 4 column 2: not a time: expected YYYY-MM-DD or YYYY-MM-DDThh:mm:ss"]);
}

#[test]
fn a_column_that_is_not_there() {
    let Err(error) = read("ID,M/F,Age\nA,F,60\n", layout()) else { panic!("taken") };
    assert!(error.to_string().contains("no column `SES` in the header; it has: ID, M/F, Age"), "{error}");
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
