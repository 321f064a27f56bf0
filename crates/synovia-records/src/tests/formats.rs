//! One simulated cohort in four formats, as `oracle/four_formats.py` wrote it: the same patients, features and labels from each,
//! bit for bit, and as pandas has them.

// expect-test writes its raw strings with hashes, needed or not.
#![allow(clippy::needless_raw_string_hashes)]

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use synovia_cohort::{EventKind, EventValue, Example, ExampleId, FeatureKind, FeatureSpec, PatientRecord, Sex, Time};

use super::{Outcome, try_read};
use crate::{
    Feature, FeatureConfig, FeaturePlan, FeatureSource, FormatConfig, LabelOutcome, LabelSpec, LongLayout, PlanBuilder, Statistic,
    canonical_unit,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/cohort")
}

pub(super) fn layout() -> LongLayout {
    let column = |name: &str| Some(name.to_owned());
    LongLayout {
        patient: "pid".to_owned(),
        time: "when".to_owned(),
        code: "code".to_owned(),
        system: column("vocabulary"),
        name: column("name"),
        kind: column("kind"),
        value: column("value"),
        unit: column("unit"),
        text: column("note"),
        delimiter: None,
    }
}

/// The formats with the folder of each.
fn formats() -> [(&'static str, FormatConfig); 4] {
    [("fhir", FormatConfig::fhir()), ("meds", FormatConfig::meds()), ("omop", FormatConfig::omop()), ("csv", FormatConfig::long(layout()))]
}

fn read(name: &str, format: &FormatConfig) -> Outcome {
    let mut outcome = try_read(&folder().join(name), format).unwrap();
    outcome.records.sort_by(|a, b| a.id.cmp(&b.id));
    outcome
}

/// The examples of a cohort: a patient at each study.
fn examples(records: &[PatientRecord]) -> Vec<(&PatientRecord, Time)> {
    records.iter().flat_map(|record| record.studies.iter().filter_map(move |study| Some((record, study.started?)))).collect()
}

fn example(record: &PatientRecord, at: Time) -> Example<'_> {
    Example::new(ExampleId::of_patient(&record.id, at), record.id.clone(), at, None, Some(record), None).unwrap()
}

fn rows(plan: &FeaturePlan, records: &[PatientRecord]) -> Vec<Vec<u32>> {
    let row = |(record, at): (&PatientRecord, Time)| {
        let mut row = vec![0.0; plan.features.len()];
        plan.row(&example(record, at), &record.patient, &mut row);
        row.into_iter().map(f32::to_bits).collect()
    };
    examples(records).into_iter().map(row).collect()
}

/// Everything that a model would see of a cohort.
fn seen(records: &[PatientRecord]) -> (FeaturePlan, Vec<Vec<u32>>, Vec<String>, Vec<LabelOutcome>) {
    let config = FeatureConfig {
        min_share: 0.02,
        max_features: 400,
        statistics: Statistic::ALL.to_vec(),
        windows_days: vec![30.0, 365.0],
        ..FeatureConfig::default()
    };
    let mut builder = PlanBuilder::new(config);
    examples(records).into_iter().for_each(|(record, at)| builder.observe(&example(record, at), &record.patient));
    let plan = builder.finish();
    let labels = [
        LabelSpec::Condition { code: "http://snomed.info/sct|363358000".to_owned(), within_days: 180.0 },
        LabelSpec::Observation {
            code: "http://loinc.org|21908-9".to_owned(),
            within_days: 90.0,
            classes: ["258215001", "258219007", "258224005", "258228008"].map(|c| format!("http://snomed.info/sct|{c}")).to_vec(),
        },
    ];
    let rows = rows(&plan, records);
    let who = |(record, at): (&PatientRecord, Time)| {
        let mut identifiers = record.patient.identifiers.clone();
        identifiers.sort();
        format!(
            "{} {identifiers:?} {:?} {:?} {:?} {at}",
            record.id.reveal(),
            record.patient.birth,
            record.patient.sex,
            record.patient.death
        )
    };
    let who = examples(records).into_iter().map(who).collect();
    let labels =
        examples(records).into_iter().flat_map(|(record, at)| labels.iter().map(move |label| label.label(record, at)).collect::<Vec<_>>());
    (plan, rows, who, labels.collect())
}

#[test]
fn four_formats_give_the_same_bits() {
    let read = formats().map(|(name, format)| (name, read(name, &format).records));
    let (plan, rows, who, labels) = seen(&read[0].1);
    assert_eq!((read[0].1.len(), rows.len()), (40, 51));
    assert!(plan.features.len() > 100, "{} features", plan.features.len());
    assert!(labels.iter().any(|label| matches!(label, LabelOutcome::Known(x) if *x > 0.0)));
    for (name, records) in &read[1..] {
        let (other_plan, other_rows, other_who, other_labels) = seen(records);
        assert_eq!(other_who, who, "{name}");
        let names = |plan: &FeaturePlan| plan.features.iter().map(|f| format!("{:?} {:?}", f.spec, f.source)).collect::<Vec<_>>();
        assert_eq!(names(&other_plan), names(&plan), "{name}");
        assert!(other_rows == rows, "{name}");
        assert_eq!(other_labels, labels, "{name}");
    }
    // Reports have their words in each.
    let words = |records: &[PatientRecord]| {
        let of = |record: &PatientRecord| {
            record
                .events
                .iter()
                .filter(|e| e.kind == EventKind::Report && matches!(e.value, EventValue::Text(_)))
                .map(super::shown)
                .collect::<Vec<_>>()
        };
        records.iter().flat_map(of).collect::<Vec<_>>()
    };
    assert!(read.iter().all(|(_, records)| words(records) == words(&read[0].1)));
}

/// What is bad costs itself alone, and says where it is.
#[test]
fn bad_rows_are_named() {
    let said = |name: &str| {
        let (_, format) = formats().into_iter().find(|(n, _)| *n == name).unwrap();
        let mut log: Vec<String> = read(name, &format)
            .log
            .lines()
            .map(|line| {
                let rejected: synovia_cohort::Rejected = serde_json::from_str(line).unwrap();
                format!("{} {}: {}", rejected.source, rejected.position, rejected.reason)
            })
            .filter(|line| !line.contains("entered-in-error") && !line.contains("not among the Patient"))
            .collect();
        log.sort();
        log.join("\n")
    };
    expect_test::expect![[r#"
        Observation.ndjson.gz line 1 Observation.valueQuantity.code: http://loinc.org|2160-0: the unit is not one that is known; expected one like mg/dL
        Observation.ndjson.gz line 2 column 30: the JSON ends before it is closed
        Observation.ndjson.gz line 245 Observation.valueQuantity.code: http://loinc.org|718-7: the unit measures something else (`kg`); expected one like g/dL
        Observation.ndjson.gz line 416 Observation.valueQuantity.code: http://loinc.org|718-7: the unit measures something else (`kg`); expected one like g/dL
        Observation.ndjson.gz line 481 Observation.valueQuantity.code: http://loinc.org|2039-6: no unit where one is needed; expected one like ng/mL

        data/train/0.parquet row 417: http://loinc.org|718-7: the unit measures something else (`kg`); expected one like g/dL
        data/train/0.parquet row 731: http://loinc.org|718-7: the unit measures something else (`kg`); expected one like g/dL
        data/train/0.parquet row 852: http://loinc.org|2039-6: no unit where one is needed; expected one like ng/mL
        data/train/0.parquet row 973: not a time that a chart can have: expected YYYY-MM-DD or YYYY-MM-DDThh:mm:ss
        data/train/0.parquet row 974: http://loinc.org|2160-0: the unit is not one that is known; expected one like mg/dL
        data/train/0.parquet row 975: not a finite number

        CONDITION_OCCURRENCE.csv.gz line 56: the person is not in the table of persons
        CONDITION_OCCURRENCE.csv.gz line 57: not a time that a chart can have: expected YYYY-MM-DD or YYYY-MM-DD hh:mm:ss
        CONDITION_OCCURRENCE.csv.gz line 58: no person_id that is a whole number
        measurement.parquet row 210: http://loinc.org|718-7: the unit measures something else (`kg`); expected one like g/dL
        measurement.parquet row 363: http://loinc.org|718-7: the unit measures something else (`kg`); expected one like g/dL
        measurement.parquet row 418: http://loinc.org|2039-6: no unit where one is needed; expected one like ng/mL
        measurement.parquet row 617: http://loinc.org|2160-0: the unit is not one that is known; expected one like mg/dL

        events.csv.gz line 1018: http://loinc.org|2039-6: no unit where one is needed; expected one like ng/mL
        events.csv.gz line 1266: http://loinc.org|2160-0: the unit is not one that is known; expected one like mg/dL
        events.csv.gz line 1267: not a time that a chart can have: expected YYYY-MM-DD or YYYY-MM-DDThh:mm:ss
        events.csv.gz line 1268: no patient
        events.csv.gz line 1269: 2 fields where the header has 9
        events.csv.gz line 767: http://loinc.org|718-7: the unit measures something else (`kg`); expected one like g/dL
        events.csv.gz line 949: http://loinc.org|718-7: the unit measures something else (`kg`); expected one like g/dL"#]].assert_eq(&["fhir", "meds", "omop", "csv"].map(said).join("\n\n"));
}

/// The source of a column of the oracle's table.
fn source(column: &str) -> Option<FeatureSource> {
    match column {
        "age" => return Some(FeatureSource::Age),
        "female" => return Some(FeatureSource::Sex(Sex::Female)),
        "patient" | "at" => return None,
        _ => {}
    }
    let (first, rest) = column.split_once('/').unwrap();
    let flag = |kind| Some(FeatureSource::Flag { kind, code: rest.to_owned() });
    match first {
        "condition" => flag(EventKind::Condition),
        "medication" => flag(EventKind::Medication),
        "answer" => {
            let (code, value) = rest.split_once('=').unwrap();
            Some(FeatureSource::Answer { kind: EventKind::Observation, code: code.to_owned(), value: value.to_owned() })
        }
        code => {
            let (window, statistic) = rest.split_once('/').unwrap();
            let statistic = Statistic::ALL.into_iter().find(|s| s.as_str() == statistic).unwrap();
            let code = format!("http://loinc.org|{code}");
            Some(FeatureSource::Value { code, statistic, window_days: Some(window.parse().unwrap()) })
        }
    }
}

#[test]
fn four_formats_as_pandas_has_them() {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(folder().join("features.csv.gz")).unwrap()).read_to_string(&mut text).unwrap();
    let mut table = csv::Reader::from_reader(text.as_bytes());
    let header = table.headers().unwrap().clone();
    let feature = |name: &str| {
        let source = source(name)?;
        let unit = match &source {
            FeatureSource::Value { code, statistic: Statistic::Slope, .. } => format!("{}/d", canonical_unit(code)?),
            FeatureSource::Value { code, .. } => canonical_unit(code)?.to_owned(),
            _ => String::new(),
        };
        Some(Feature { spec: FeatureSpec { name: name.to_owned(), kind: FeatureKind::Number, code: String::new(), unit }, source })
    };
    let columns: Vec<(usize, Feature)> = header.iter().enumerate().filter_map(|(k, name)| Some((k, feature(name)?))).collect();
    let plan = FeaturePlan { features: columns.iter().map(|(_, feature)| feature.clone()).collect(), ..FeaturePlan::default() };
    let expected: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    for (name, format) in formats() {
        let outcome = read(name, &format);
        let records: HashMap<&str, &PatientRecord> = outcome.records.iter().map(|record| (record.id.reveal(), record)).collect();
        let mut n_numbers = 0;
        for row in &expected {
            let (record, at) = (records[&row[0]], Time::from_seconds(row[1].parse().unwrap()));
            let mut got = vec![0.0f32; plan.features.len()];
            plan.row(&example(record, at), &record.patient, &mut got);
            for ((k, feature), got) in columns.iter().zip(got) {
                let what = &feature.spec.name;
                if row[*k].is_empty() {
                    assert!(got.is_nan(), "{name} {what}: {got} where there is none");
                    continue;
                }
                let expected: f32 = row[*k].parse().unwrap();
                // Sums in another order, and molar masses divided in another order; the slope, of values in a few days.
                let tolerance = if what.ends_with("slope") { 2e-5 } else { 2e-6 };
                assert!((got - expected).abs() <= tolerance * expected.abs().max(1e-3), "{name} {what}: {got}, not {expected}");
                n_numbers += 1;
            }
        }
        assert_eq!(expected.len(), 51);
        assert!(n_numbers > 2000, "{name}: {n_numbers}");
    }
}
