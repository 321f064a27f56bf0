//! `synovia bench records`: FHIR to one feature row a patient, timed, with the columns of the Python that it is compared with:
//! age at the last measurement, sex, last value, mean and count of the 50 most frequent measurements, and whether each of the
//! 100 most frequent diagnoses and prescriptions is there.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use polars::prelude::{Column, DataFrame, ParquetCompression, ParquetWriter};
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

/// What a row is made of; codes are places in the list of their partition.
#[derive(Debug)]
struct Row {
    id: String,
    sex: Option<Sex>,
    birth: Option<i64>,
    last: Option<i64>,
    measured: Vec<(u32, Measured)>,
    has: Vec<(u32, u64)>,
}

/// Codes by number, in the order in which they came.
#[derive(Debug, Default)]
struct Codes {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Codes {
    fn number(&mut self, code: &str) -> u32 {
        if let Some(&number) = self.numbers.get(code) {
            return number;
        }
        let (name, number): (Arc<str>, _) = (code.into(), self.names.len() as u32);
        self.numbers.insert(name.clone(), number);
        self.names.push(name);
        number
    }
}

/// The rows of a partition.
#[derive(Debug, Default)]
struct Rows {
    codes: Codes,
    rows: Vec<Row>,
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
    let partitions = (0..store.n_partitions()).into_par_iter().map(|k| Ok(rows_of(&store.load(k)?)));
    let mut codes = Codes::default();
    let mut rows: Vec<Row> = Vec::new();
    for mut part in partitions.collect::<anyhow::Result<Vec<_>>>()? {
        let numbers: Vec<u32> = part.codes.names.iter().map(|name| codes.number(name)).collect();
        for row in &mut part.rows {
            row.measured.iter_mut().for_each(|(code, _)| *code = numbers[*code as usize]);
            row.has.iter_mut().for_each(|(code, _)| *code = numbers[*code as usize]);
        }
        rows.append(&mut part.rows);
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    let (mut n_measured, mut n_has) = (vec![0u64; codes.names.len()], vec![0u64; codes.names.len()]);
    for row in &rows {
        row.measured.iter().for_each(|(code, m)| n_measured[*code as usize] += m.count);
        row.has.iter().for_each(|(code, n)| n_has[*code as usize] += n);
    }
    let events = rows.len() as u64 + n_measured.iter().sum::<u64>() + n_has.iter().sum::<u64>();
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
    let (measured, has) = (most_frequent(&codes, &n_measured, N_MEASURED), most_frequent(&codes, &n_has, N_CODES));
    let place = |chosen: &[u32]| {
        let mut places = vec![None; codes.names.len()];
        chosen.iter().enumerate().for_each(|(column, code)| places[*code as usize] = Some(column));
        places
    };
    let (of_measured, of_has) = (place(&measured), place(&has));
    // A row at a time: it lies together, the same code of all rows does not.
    let mut values: Vec<Vec<Option<Measured>>> = vec![vec![None; rows.len()]; measured.len()];
    let mut flags: Vec<Vec<f64>> = vec![vec![0.0; rows.len()]; has.len()];
    for (k, row) in rows.iter().enumerate() {
        row.measured.iter().for_each(|(code, m)| of_measured[*code as usize].into_iter().for_each(|column| values[column][k] = Some(*m)));
        row.has.iter().for_each(|(code, _)| of_has[*code as usize].into_iter().for_each(|column| flags[column][k] = 1.0));
    }
    let statistics: [(&str, fn(&Measured) -> f64); 3] =
        [("last", |m| m.last), ("mean", |m| m.sum / m.count as f64), ("count", |m| m.count as f64)];
    for (name, of) in statistics {
        let column = |(code, values): (&u32, &Vec<Option<Measured>>)| {
            let values: Vec<Option<f64>> = values.iter().map(|m| m.as_ref().map(of)).collect();
            Column::new(format!("{}_{name}", codes.names[*code as usize]).as_str().into(), values)
        };
        columns.par_extend(measured.par_iter().zip(&values).map(column));
    }
    columns
        .extend(has.iter().zip(flags).map(|(code, has)| Column::new(format!("has_{}", codes.names[*code as usize]).as_str().into(), has)));
    columns.push(Column::new("age".into(), rows.iter().map(age).collect::<Vec<_>>()));
    // The peer's index, the patient, is no column of it.
    let n_features = columns.len() - 1;
    let mut frame = DataFrame::new(rows.len(), columns)?;
    // Compressed as pandas does.
    let file = File::create(out).with_context(|| out.display().to_string())?;
    ParquetWriter::new(file).with_compression(ParquetCompression::Snappy).finish(&mut frame)?;
    Ok((rows.len(), events, n_features))
}

/// The code without its system, as the peer has it.
fn bare(code: &str) -> &str {
    code.rsplit_once('|').map_or(code, |(_, code)| code)
}

/// What is summed up of one code of one patient, and whether there is anything.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    measured: Measured,
    has: u64,
    touched: bool,
}

fn rows_of(records: &[PatientRecord]) -> Rows {
    let mut out = Rows::default();
    let (mut slots, mut touched): (Vec<Slot>, Vec<u32>) = (Vec::new(), Vec::new());
    // A partition's events share their texts: most are known by where they lie.
    let mut last_code: Option<(&Arc<str>, u32)> = None;
    for record in records {
        let mut last = None;
        for event in &record.events {
            let is_measured = matches!((event.kind, &event.value), (EventKind::Observation, EventValue::Number { .. }));
            if !is_measured && !matches!(event.kind, EventKind::Condition | EventKind::Medication) {
                continue;
            }
            let number = match last_code {
                Some((code, number)) if Arc::ptr_eq(code, &event.code) => number,
                _ => out.codes.number(bare(&event.code)),
            };
            last_code = Some((&event.code, number));
            slots.resize(slots.len().max(number as usize + 1), Slot::default());
            let slot = &mut slots[number as usize];
            if !std::mem::replace(&mut slot.touched, true) {
                touched.push(number);
            }
            if let EventValue::Number { value, .. } = &event.value
                && is_measured
            {
                slot.measured = Measured { last: *value, sum: slot.measured.sum + value, count: slot.measured.count + 1 };
                last = Some(event.time.seconds());
            } else {
                slot.has += 1;
            }
        }
        let (mut measured, mut has) = (Vec::new(), Vec::new());
        for number in touched.drain(..) {
            let slot = std::mem::take(&mut slots[number as usize]);
            if slot.measured.count > 0 {
                measured.push((number, slot.measured));
            }
            if slot.has > 0 {
                has.push((number, slot.has));
            }
        }
        let birth = record.patient.birth.map(synovia_cohort::Time::seconds);
        out.rows.push(Row { id: record.id.reveal().to_owned(), sex: record.patient.sex, birth, last, measured, has });
    }
    out
}

/// The `n` codes that come up most often.
fn most_frequent(codes: &Codes, counts: &[u64], n: usize) -> Vec<u32> {
    let mut found: Vec<u32> = (0..counts.len() as u32).filter(|code| counts[*code as usize] > 0).collect();
    found.sort_by(|&a, &b| {
        let [a, b] = [a, b].map(|code| code as usize);
        counts[b].cmp(&counts[a]).then_with(|| codes.names[a].cmp(&codes.names[b]))
    });
    found.truncate(n);
    found
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
