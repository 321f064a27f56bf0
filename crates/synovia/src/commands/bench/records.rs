//! `synovia bench records`: FHIR to one feature row a patient, timed, with the columns of the Python that it is compared with:
//! age at the last measurement, sex, last value, mean and count of the 50 most frequent measurements, and whether each of the
//! 100 most frequent diagnoses and prescriptions is there.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use polars::prelude::{Column, DataFrame, ParquetWriter};
use rayon::prelude::*;
use serde::Serialize;
use synovia_cohort::{EventKind, EventValue, PatientRecord, RejectedLog, Sex};
use synovia_records::{FormatConfig, RecordStore, ingest};

use crate::cli::BenchRecordsArgs;
use crate::failure::print;

/// Measurements and codes that become columns.
const N_MEASURED: usize = 50;
const N_CODES: usize = 100;
const DAY: i64 = 86_400;

/// The line that is printed.
#[derive(Debug, Serialize)]
#[allow(non_snake_case)] // The keys of the peer.
struct Line {
    patients: usize,
    events: u64,
    features: usize,
    MB: f64,
    seconds: f64,
    MB_per_s: f64,
}

/// Of one measurement of one patient.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    last: f64,
    sum: f64,
    count: u64,
}

/// What a row is made of.
#[derive(Debug)]
struct Row {
    id: String,
    sex: Option<Sex>,
    birth: Option<i64>,
    last: Option<i64>,
    measured: HashMap<Arc<str>, Measured>,
    has: HashMap<Arc<str>, u64>,
}

/// Reads the folder, writes the table, prints the line.
pub fn records(args: &BenchRecordsArgs) -> anyhow::Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(args.jobs).build_global().context("starting threads")?;
    let start = Instant::now();
    let spill = tempfile::tempdir()?;
    let store = ingest(&args.folder, &FormatConfig::fhir(), spill.path(), &RejectedLog::counting(), &|_| {})?;
    let out = args.out.clone().unwrap_or_else(|| spill.path().join("features.parquet"));
    let (patients, events, features) = table(&store, &out)?;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = store.summary().n_bytes as f64 / 1e6;
    let round = |x: f64, scale: f64| (x * scale).round() / scale;
    let line = Line {
        patients,
        events,
        features,
        MB: round(megabytes, 10.0),
        seconds: round(seconds, 1e3),
        MB_per_s: round(megabytes / seconds, 1e2),
    };
    print(serde_json::to_string(&line)?)
}

/// Patients, events and columns of the table that is written.
fn table(store: &RecordStore, out: &Path) -> anyhow::Result<(usize, u64, usize)> {
    let partitions = (0..store.n_partitions()).into_par_iter().map(|k| Ok(store.load(k)?.iter().map(row).collect::<Vec<_>>()));
    let mut rows: Vec<Row> = partitions.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    let (mut measured, mut codes): (HashMap<Arc<str>, u64>, HashMap<Arc<str>, u64>) = (HashMap::new(), HashMap::new());
    for row in &rows {
        row.measured.iter().for_each(|(code, m)| *measured.entry(code.clone()).or_default() += m.count);
        row.has.iter().for_each(|(code, n)| *codes.entry(code.clone()).or_default() += n);
    }
    let events = rows.len() as u64 + measured.values().sum::<u64>() + codes.values().sum::<u64>();
    let sex = |row: &Row| {
        row.sex.map(|sex| match sex {
            Sex::Female => "female",
            Sex::Male => "male",
            Sex::Other => "other",
        })
    };
    let age = |row: &Row| Some((row.last? - row.birth?).div_euclid(DAY) as f64 / 365.25);
    let mut columns = vec![
        Column::new("patient".into(), rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>()),
        Column::new("sex".into(), rows.iter().map(sex).collect::<Vec<_>>()),
        Column::new("birth".into(), rows.iter().map(|row| row.birth).collect::<Vec<_>>()),
    ];
    let (measured, codes) = (most_frequent(measured, N_MEASURED), most_frequent(codes, N_CODES));
    let place = |codes: &[Arc<str>]| codes.iter().enumerate().map(|(k, code)| (code.clone(), k)).collect::<HashMap<_, _>>();
    let (of_measured, of_codes) = (place(&measured), place(&codes));
    // A row at a time: it lies together, the same code of all rows does not.
    let mut values: Vec<Vec<Option<Measured>>> = vec![vec![None; rows.len()]; measured.len()];
    let mut has: Vec<Vec<f64>> = vec![vec![0.0; rows.len()]; codes.len()];
    for (k, row) in rows.iter().enumerate() {
        row.measured.iter().for_each(|(code, m)| of_measured.get(code).into_iter().for_each(|&column| values[column][k] = Some(*m)));
        row.has.keys().for_each(|code| of_codes.get(code).into_iter().for_each(|&column| has[column][k] = 1.0));
    }
    let statistics: [(&str, fn(&Measured) -> f64); 3] =
        [("last", |m| m.last), ("mean", |m| m.sum / m.count as f64), ("count", |m| m.count as f64)];
    for (name, of) in statistics {
        for (code, values) in measured.iter().zip(&values) {
            let values: Vec<Option<f64>> = values.iter().map(|m| m.as_ref().map(of)).collect();
            columns.push(Column::new(format!("{code}_{name}").as_str().into(), values));
        }
    }
    for (code, has) in codes.iter().zip(has) {
        columns.push(Column::new(format!("has_{code}").as_str().into(), has));
    }
    columns.push(Column::new("age".into(), rows.iter().map(age).collect::<Vec<_>>()));
    // The peer's index, the patient, is no column of it.
    let n_features = columns.len() - 1;
    let mut frame = DataFrame::new(rows.len(), columns)?;
    ParquetWriter::new(File::create(out).with_context(|| out.display().to_string())?).finish(&mut frame)?;
    Ok((rows.len(), events, n_features))
}

/// The code without its system, as the peer has it.
fn bare(code: &str) -> &str {
    code.rsplit_once('|').map_or(code, |(_, code)| code)
}

fn row(record: &PatientRecord) -> Row {
    let mut measured: HashMap<&str, Measured> = HashMap::new();
    let mut has: HashMap<&str, u64> = HashMap::new();
    let mut last = None;
    for event in &record.events {
        match (event.kind, &event.value) {
            (EventKind::Observation, EventValue::Number { value, .. }) => {
                let found = measured.entry(bare(&event.code)).or_default();
                *found = Measured { last: *value, sum: found.sum + value, count: found.count + 1 };
                last = Some(event.time.seconds());
            }
            (EventKind::Condition | EventKind::Medication, _) => *has.entry(bare(&event.code)).or_default() += 1,
            _ => {}
        }
    }
    Row {
        id: record.id.reveal().to_owned(),
        sex: record.patient.sex,
        birth: record.patient.birth.map(synovia_cohort::Time::seconds),
        last,
        measured: measured.into_iter().map(|(code, m)| (code.into(), m)).collect(),
        has: has.into_iter().map(|(code, n)| (code.into(), n)).collect(),
    }
}

fn most_frequent(counts: HashMap<Arc<str>, u64>, n: usize) -> Vec<Arc<str>> {
    let mut counts: Vec<(Arc<str>, u64)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.into_iter().take(n).map(|(code, _)| code).collect()
}

#[cfg(test)]
mod tests {
    use polars::prelude::{ParquetReader, SerReader};

    use super::*;

    const CHART: &str = r#"{"resourceType":"Patient","id":"p1","gender":"female","birthDate":"2000-01-01"}
{"resourceType":"Observation","code":{"coding":[{"system":"s","code":"a"}]},"subject":{"reference":"Patient/p1"},"effectiveDateTime":"2020-01-02T00:00:00Z","valueQuantity":{"value":3}}
{"resourceType":"Observation","code":{"coding":[{"system":"s","code":"a"}]},"subject":{"reference":"Patient/p1"},"effectiveDateTime":"2020-01-01T00:00:00Z","valueQuantity":{"value":5}}
{"resourceType":"Condition","code":{"coding":[{"system":"s","code":"c"}]},"subject":{"reference":"Patient/p1"},"onsetDateTime":"2020-01-01"}
{"resourceType":"Patient","id":"p2"}
"#;

    #[test]
    fn the_table_of_a_small_chart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.ndjson"), CHART).unwrap();
        let store = ingest(dir.path(), &FormatConfig::fhir(), &dir.path().join("spill"), &RejectedLog::counting(), &|_| {}).unwrap();
        let out = dir.path().join("out.parquet");
        assert_eq!(table(&store, &out).unwrap(), (2, 5, 7));
        let frame = ParquetReader::new(File::open(out).unwrap()).finish().unwrap();
        let values = |name: &str| frame.column(name).unwrap().f64().unwrap().iter().collect::<Vec<_>>();
        assert_eq!(values("a_last"), [Some(3.0), None]);
        assert_eq!(values("a_mean"), [Some(4.0), None]);
        assert_eq!(values("a_count"), [Some(2.0), None]);
        assert_eq!(values("has_c"), [Some(1.0), Some(0.0)]);
        assert_eq!(values("age"), [Some(7306.0 / 365.25), None]);
    }
}
