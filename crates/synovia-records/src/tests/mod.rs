//! Tests from outside: files in, patients out.

mod csv;
mod endpoints;
mod features;
mod fhir;
mod formats;
mod hostile;
mod labels;
mod oracle;
mod store;

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use synovia_cohort::{Event, EventKind, EventValue, Patient, PatientId, PatientRecord, Rejected, RejectedLog, Time};

use crate::{FormatConfig, RecordStore, RecordsError, ingest};

/// A writer whose bytes the test can see.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What an ingest gave.
pub(crate) struct Outcome {
    pub(crate) store: RecordStore,
    pub(crate) records: Vec<PatientRecord>,
    /// The rejection log, as written.
    pub(crate) log: String,
    _spill: tempfile::TempDir,
}

impl Outcome {
    /// Rejections as `position: reason`.
    pub(crate) fn rejected(&self) -> Vec<String> {
        let parse = |line: &str| serde_json::from_str::<Rejected>(line).unwrap();
        self.log.lines().map(parse).map(|r| format!("{}: {}", r.position, r.reason)).collect()
    }

    /// All events, a line each: time, kind, code, value.
    pub(crate) fn events(&self) -> Vec<String> {
        self.records.iter().flat_map(|record| record.events.iter().map(shown)).collect()
    }
}

pub(crate) fn shown(event: &Event) -> String {
    let value = match &event.value {
        EventValue::None => String::new(),
        EventValue::Number { value, unit } => format!(" = {value:.6} {unit}"),
        EventValue::Code(code) => format!(" = {code}"),
        EventValue::Text(text) => format!(" = “{text}”"),
    };
    format!("{} {:?} {}{value}", event.time, event.kind, event.code)
}

pub(crate) fn try_read(path: &Path, format: &FormatConfig) -> Result<Outcome, RecordsError> {
    let spill = tempfile::tempdir().unwrap();
    let seen = Shared::default();
    let log = RejectedLog::to_writer(Box::new(seen.clone()));
    let store = ingest(path, format, spill.path(), &log, &|_| {})?;
    let records = (0..store.n_partitions()).flat_map(|k| store.load(k).unwrap()).collect();
    log.finish().unwrap();
    let log = String::from_utf8(seen.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().count() as u64, store.summary().n_rejected);
    Ok(Outcome { store, records, log, _spill: spill })
}

pub(crate) fn read(path: &Path) -> Outcome {
    try_read(path, &FormatConfig::fhir()).unwrap()
}

/// Ingests one file of this name and text.
pub(crate) fn read_text(name: &str, text: &[u8]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    read(folder.path())
}

pub(crate) const PATIENT: &str =
    r#"{"resourceType":"Patient","id":"p1","identifier":[{"value":"MRN-1"}],"gender":"female","birthDate":"1961-02-03"}"#;

/// An event of a record made by hand, at a day since 1970.
pub(crate) fn event(day: f64, kind: EventKind, code: &str, value: EventValue) -> Event {
    Event { time: Time::from_seconds(0).plus_days(day), kind, code: code.into(), display: code.into(), value }
}

pub(crate) fn record(patient: Patient, mut events: Vec<Event>) -> PatientRecord {
    events.sort_by_key(|e| e.time);
    PatientRecord { id: PatientId::new("p"), patient, events, studies: Vec::new() }
}
