//! Long tables, a statement a row: MEDS, and CSV of columns that a pipeline names.

use std::collections::HashMap;
use std::sync::Arc;

use synovia_cohort::{EventKind, EventValue, Patient, Time};

use super::cell::Cell;
use super::statement::{Meaning, Remembered, Statement, coded, died, fact, known_as, study};
use super::vocabulary::{kind, kind_of_system, sex, vocabulary};
use super::{Row, Wanted};
use crate::config::LongLayout;
use crate::spill::{Body, Origin, Sink, Token};

const PATIENT: usize = 0;
const TIME: usize = 1;
const CODE: usize = 2;
const VALUE: usize = 3;
const TEXT: usize = 4;
const UNIT: usize = 5;
const KIND: usize = 6;
const SYSTEM: usize = 7;
const NAME: usize = 8;

const NOT_A_TIME: &str = "not a time that a chart can have: expected YYYY-MM-DD or YYYY-MM-DDThh:mm:ss";

/// MEDS 0.3 and 0.4 (data schema), the unit and the table that converters of OMOP add, and the patient's older name.
pub(super) fn meds_columns() -> Vec<Wanted> {
    let names: [&[&str]; 7] =
        [&["subject_id", "patient_id"], &["time", "timestamp"], &["code"], &["numeric_value"], &["text_value"], &["unit"], &["table"]];
    names.into_iter().enumerate().map(|(k, names)| Wanted::new(names, k <= CODE)).collect()
}

/// Columns of a layout.
pub(super) fn columns(layout: &LongLayout) -> Vec<Wanted> {
    let needed = [&layout.patient, &layout.time, &layout.code].map(|name| Wanted::new(&[name], true));
    let others = [&layout.value, &layout.text, &layout.unit, &layout.kind, &layout.system, &layout.name];
    needed.into_iter().chain(others.map(|name| name.as_ref().map_or(Wanted::none(), |name| Wanted::new(&[name], true)))).collect()
}

/// What a dataset says of a code (`codes.parquet`).
#[derive(Clone, Debug, Default)]
pub(super) struct CodeEntry {
    pub(super) description: String,
    /// Its parent, where it has one and no more.
    pub(super) parent: String,
}

/// How the rows of a long table are read.
#[derive(Clone, Debug)]
pub(crate) struct Long {
    /// The system of codes that do not say theirs.
    pub(super) default_system: &'static str,
    /// By code.
    pub(super) codes: Arc<HashMap<String, CodeEntry>>,
}

impl Long {
    fn meaning(&self, code: &str) -> Meaning {
        let mut meaning = Meaning::of(code, self.default_system);
        if let Meaning::Code { system, code: known, .. } = &mut meaning
            && *system == self.default_system
            && let Some((of, parent)) = self.codes.get(code).and_then(|entry| parent(&entry.parent))
        {
            (*system, *known) = (of, parent);
        }
        meaning
    }

    /// Reads one row.
    pub(super) fn read(&self, row: &Row<'_>, remembered: &mut Remembered, sink: &mut Sink) {
        sink.taken("row");
        let trouble = |sink: &mut Sink, reason: &str| sink.trouble(row.position(), reason);
        let patient = row.cell(PATIENT);
        if patient.is_absent() {
            return trouble(sink, "no patient");
        }
        let patient = &*patient.text();
        let code = row.cell(CODE).text();
        let system = row.cell(SYSTEM).text();
        let code = if system.is_empty() { code } else { format!("{system}|{code}").into() };
        if code.is_empty() || code.ends_with('|') {
            return trouble(sink, "no code");
        }
        let value = row.cell(VALUE);
        let text = row.cell(TEXT).text();
        let (number, text) = match value.number() {
            Ok(number) => (number, text),
            // A value of words.
            Err(_) => (None, if text.is_empty() { value.text() } else { text }),
        };
        let number_as_text = || number.map_or_else(|| text.to_string(), |_| value.text().into_owned());
        let meaning = remembered.meaning(&code, || self.meaning(&code));
        let time = row.cell(TIME).time();
        match &*meaning {
            Meaning::Birth => match row.cell(TIME).birth() {
                Ok(Some(birth)) => sink.push(patient, Origin::Row, &Body::Patient(&Patient { birth: Some(birth), ..known_as(patient) })),
                _ => trouble(sink, NOT_A_TIME),
            },
            Meaning::Death => match time {
                Ok(Some((time, _))) => died(patient, time, sink),
                Ok(None) => trouble(sink, "dead, but when is not said: the death is no event"),
                Err(_) => trouble(sink, NOT_A_TIME),
            },
            Meaning::Sex(said) => {
                let said = if said.is_empty() { number_as_text() } else { said.clone() };
                let said = coded(&said).map_or(said, |(_, code)| code);
                if let Some(sex) = sex(&said) {
                    sink.push(patient, Origin::Row, &Body::Patient(&Patient { sex: Some(sex), ..known_as(patient) }));
                } else {
                    remembered.patient(patient, sink);
                    trouble(sink, "a sex that is none of female, male and other");
                }
            }
            Meaning::Identifier => {
                let mut who = known_as(patient);
                who.identifiers.push(number_as_text());
                sink.push(patient, Origin::Row, &Body::Patient(&who));
            }
            Meaning::Study => {
                remembered.patient(patient, sink);
                study(patient, &number_as_text(), time.ok().flatten().filter(|(_, exact)| *exact).map(|(time, _)| time), sink);
            }
            Meaning::Code { system, code: bare, kind: said, unit } => {
                remembered.patient(patient, sink);
                let time = match time {
                    Ok(Some(time)) => time,
                    Ok(None) => {
                        let value = match number {
                            Some(value) => EventValue::Number { value, unit: row.cell(UNIT).text().as_ref().into() },
                            None if text.is_empty() => EventValue::None,
                            None => EventValue::Code(text.as_ref().into()),
                        };
                        return fact(patient, &code, value, sink);
                    }
                    Err(_) => return trouble(sink, NOT_A_TIME),
                };
                let column = row.cell(UNIT).text();
                let table = row.cell(KIND).text();
                let has_value = number.is_some() || !text.is_empty();
                let kind = said.or_else(|| kind(&table)).or_else(|| kind_of_system(system)).unwrap_or(match &**system {
                    "http://snomed.info/sct" if !has_value => EventKind::Condition,
                    _ => EventKind::Observation,
                });
                let name = row.cell(NAME).text();
                let display = self.codes.get(&*code).map_or(&*name, |entry| entry.description.as_str());
                if kind == EventKind::Imaging && text.starts_with("urn:oid:") {
                    let started: Option<Time> = Some(time.0).filter(|_| time.1);
                    study(patient, &text, started, sink);
                }
                let statement = Statement {
                    patient,
                    time: time.0,
                    kind,
                    code: Token::new(system, bare),
                    display: if display.is_empty() { bare } else { display },
                    number,
                    unit: if column.is_empty() { unit } else { &column },
                    text: if kind == EventKind::Imaging { "" } else { &text },
                };
                statement.say(|| row.position(), sink);
            }
        }
    }
}

/// A parent that is a code of a vocabulary which is known.
fn parent(text: &str) -> Option<(String, String)> {
    let (name, code) = text.split_once("//").or_else(|| text.split_once('/'))?;
    let system = vocabulary(name)?.system;
    (!code.is_empty()).then(|| (system.to_owned(), super::vocabulary::as_written(system, code)))
}

/// Reads a row of `subject_splits.parquet`: which split a dataset puts a patient in becomes the fact `split`.
pub(super) fn read_split(row: &Row<'_>, sink: &mut Sink) {
    sink.taken("row");
    let (patient, split) = (row.cell(0), row.cell(1).text());
    if patient.is_absent() || split.is_empty() {
        return sink.trouble(row.position(), "no patient or no split");
    }
    fact(&patient.text(), "split", EventValue::Code(split.as_ref().into()), sink);
}

/// Columns of `subject_splits.parquet`.
pub(super) fn split_columns() -> Vec<Wanted> {
    vec![Wanted::new(&["subject_id", "patient_id"], true), Wanted::new(&["split"], true)]
}

/// Columns of `codes.parquet`.
pub(super) fn code_columns() -> Vec<Wanted> {
    vec![Wanted::new(&["code"], true), Wanted::new(&["description"], false), Wanted::new(&["parent_codes"], false)]
}

/// Adds a row of `codes.parquet`.
pub(super) fn add_code(row: &Row<'_>, codes: &mut HashMap<String, CodeEntry>) {
    let text = |cell: Cell<'_>| cell.text().into_owned();
    let entry = CodeEntry { description: text(row.cell(1)), parent: row.only_text(2).unwrap_or_default() };
    if !entry.description.is_empty() || !entry.parent.is_empty() {
        codes.insert(text(row.cell(0)), entry);
    }
}
