//! OMOP CDM 5.4 (<https://ohdsi.github.io/CommonDataModel/cdm54.html>): the tables that are read, and their rows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use synovia_cohort::{EventKind, Patient, Sex, Time};

use super::cell::{Cell, WrongType};
use super::statement::{Statement, died, known_as, study};
use super::vocabulary::{as_written, sex, vocabulary};
use super::{Row, Wanted};
use crate::spill::{Body, Origin, Sink, Token};

/// A table with an event a row: the names of its columns, empty where it has none of that meaning.
#[derive(Debug)]
pub(crate) struct Events {
    kind: EventKind,
    concept: &'static str,
    source_concept: &'static str,
    source_value: &'static str,
    date_time: &'static str,
    date: &'static str,
    text: &'static str,
}

/// Columns of an event table, in this order.
const PERSON: usize = 0;
const CONCEPT: usize = 1;
const SOURCE_CONCEPT: usize = 2;
const SOURCE_VALUE: usize = 3;
const DATE_TIME: usize = 4;
const DATE: usize = 5;
const TEXT: usize = 6;
const NUMBER: usize = 7;
const VALUE_CONCEPT: usize = 8;
const UNIT_CONCEPT: usize = 9;
const UNIT_SOURCE: usize = 10;

/// Columns of `person`.
const GENDER: usize = 1;
const YEAR: usize = 2;
const MONTH: usize = 3;
const DAY: usize = 4;
const BIRTH: usize = 5;
const PERSON_SOURCE: usize = 6;
const GENDER_SOURCE: usize = 7;

const fn events(kind: EventKind, concept: &'static str, source: [&'static str; 2], when: [&'static str; 2], text: &'static str) -> Events {
    Events { kind, concept, source_concept: source[0], source_value: source[1], date_time: when[0], date: when[1], text }
}

/// A table that is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OmopTable {
    Person,
    Death,
    Concept,
    Events(&'static str, &'static Events),
}

const VISIT: Events = events(
    EventKind::Encounter,
    "visit_concept_id",
    ["visit_source_concept_id", "visit_source_value"],
    ["visit_start_datetime", "visit_start_date"],
    "",
);
const CONDITION: Events = events(
    EventKind::Condition,
    "condition_concept_id",
    ["condition_source_concept_id", "condition_source_value"],
    ["condition_start_datetime", "condition_start_date"],
    "",
);
const DRUG: Events = events(
    EventKind::Medication,
    "drug_concept_id",
    ["drug_source_concept_id", "drug_source_value"],
    ["drug_exposure_start_datetime", "drug_exposure_start_date"],
    "",
);
const PROCEDURE: Events = events(
    EventKind::Procedure,
    "procedure_concept_id",
    ["procedure_source_concept_id", "procedure_source_value"],
    ["procedure_datetime", "procedure_date"],
    "",
);
const MEASUREMENT: Events = events(
    EventKind::Observation,
    "measurement_concept_id",
    ["measurement_source_concept_id", "measurement_source_value"],
    ["measurement_datetime", "measurement_date"],
    "value_source_value",
);
const OBSERVATION: Events = events(
    EventKind::Observation,
    "observation_concept_id",
    ["observation_source_concept_id", "observation_source_value"],
    ["observation_datetime", "observation_date"],
    "value_as_string",
);
const NOTE: Events =
    events(EventKind::Report, "note_class_concept_id", ["note_type_concept_id", "note_title"], ["note_datetime", "note_date"], "note_text");
/// Of the imaging extension (MI-CDM), not of 5.4: the link to the images.
const IMAGE: Events = events(
    EventKind::Imaging,
    "modality_concept_id",
    ["", "modality"],
    ["image_occurrence_datetime", "image_occurrence_date"],
    "image_study_uid",
);

const TABLES: [(&str, OmopTable); 11] = [
    ("person", OmopTable::Person),
    ("death", OmopTable::Death),
    ("concept", OmopTable::Concept),
    ("visit_occurrence", OmopTable::Events("visit_occurrence", &VISIT)),
    ("condition_occurrence", OmopTable::Events("condition_occurrence", &CONDITION)),
    ("drug_exposure", OmopTable::Events("drug_exposure", &DRUG)),
    ("procedure_occurrence", OmopTable::Events("procedure_occurrence", &PROCEDURE)),
    ("measurement", OmopTable::Events("measurement", &MEASUREMENT)),
    ("observation", OmopTable::Events("observation", &OBSERVATION)),
    ("note", OmopTable::Events("note", &NOTE)),
    ("image_occurrence", OmopTable::Events("image_occurrence", &IMAGE)),
];

/// The table that a file holds, by its name (`measurement.csv`, `MEASUREMENT_3.parquet`) or that of its folder
/// (`measurement/part-0.parquet`).
pub(crate) fn table_of(name: &str) -> Option<OmopTable> {
    let lower = name.to_ascii_lowercase();
    let mut parts = lower.rsplit(['/', '\\']);
    let file = parts.next()?.split('.').next()?.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '_');
    let find = |name: &str| TABLES.iter().find(|(n, _)| *n == name).map(|(_, table)| *table);
    find(file).or_else(|| parts.next().and_then(find))
}

impl OmopTable {
    /// Columns that are read of it.
    pub(super) fn columns(self) -> Vec<Wanted> {
        let named = |names: &[&str], needed: &[&str]| names.iter().map(|name| Wanted::new(&[name], needed.contains(name))).collect();
        match self {
            Self::Person => named(
                &[
                    "person_id",
                    "gender_concept_id",
                    "year_of_birth",
                    "month_of_birth",
                    "day_of_birth",
                    "birth_datetime",
                    "person_source_value",
                    "gender_source_value",
                ],
                &["person_id"],
            ),
            Self::Death => named(&["person_id", "death_datetime", "death_date"], &["person_id"]),
            Self::Concept => {
                named(&["concept_id", "vocabulary_id", "concept_code", "concept_name"], &["concept_id", "vocabulary_id", "concept_code"])
            }
            Self::Events(_, e) => named(
                &[
                    "person_id",
                    e.concept,
                    e.source_concept,
                    e.source_value,
                    e.date_time,
                    e.date,
                    e.text,
                    "value_as_number",
                    "value_as_concept_id",
                    "unit_concept_id",
                    "unit_source_value",
                ],
                &["person_id", e.concept],
            ),
        }
    }

    /// Whether its rows name concepts.
    pub(super) const fn names_concepts(self) -> bool {
        matches!(self, Self::Events(..))
    }
}

/// A concept as FHIR has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Concept {
    /// The system's address; the name of the vocabulary where none is known.
    system: Arc<str>,
    code: Box<str>,
    name: Box<str>,
}

/// The concepts that the tables name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Concepts {
    by_id: HashMap<i64, Concept>,
    systems: HashSet<Arc<str>>,
}

impl Concepts {
    /// Adds a row of `concept`, where it is `wanted`.
    pub(super) fn add(&mut self, row: &Row<'_>, wanted: Option<&HashSet<i64>>) -> Result<(), &'static str> {
        let id = row.cell(0).integer().ok().flatten().ok_or("no concept_id")?;
        if wanted.is_some_and(|wanted| !wanted.contains(&id)) {
            return Ok(());
        }
        let (name, code) = (row.cell(1).text(), row.cell(2).text());
        if name.is_empty() || code.is_empty() {
            return Err("no vocabulary_id or no concept_code");
        }
        let system = vocabulary(&name).map_or(&*name, |v| v.system);
        let system = self.systems.get(system).cloned().unwrap_or_else(|| {
            let new: Arc<str> = system.into();
            self.systems.insert(new.clone());
            new
        });
        let code = as_written(&system, &code).into();
        self.by_id.insert(id, Concept { system, code, name: row.cell(3).text().into() });
        Ok(())
    }
}

/// Adds the concepts that a row of an event table names.
pub(super) fn note_concepts(row: &Row<'_>, wanted: &mut HashSet<i64>) {
    for column in [CONCEPT, SOURCE_CONCEPT, VALUE_CONCEPT, UNIT_CONCEPT] {
        if let Ok(Some(id)) = row.cell(column).integer() {
            wanted.insert(id);
        }
    }
}

/// System of concepts that the table of concepts does not have: their ids are OHDSI's own.
const BY_ID: &str = "omop";
/// System of codes that have no concept: the source's own words.
const OF_SOURCE: &str = "omop-source";

/// When a row says that it was: `…_datetime`, or the last moment of `…_date`. Many exports fill the first from the second with
/// midnight, which would count the event a day early: where both name the same day, midnight is no time.
fn when(row: &Row<'_>, date_time: usize, date: usize) -> Result<Option<(Time, bool)>, WrongType> {
    const A_DAY: i64 = 86_400;
    let day = row.cell(date).time()?;
    let Some((time, exact)) = row.cell(date_time).time()? else { return Ok(day) };
    if time.seconds().rem_euclid(A_DAY) == 0
        && day.is_none_or(|(day, _)| day.seconds().div_euclid(A_DAY) == time.seconds().div_euclid(A_DAY))
    {
        return Ok(Some((time.plus_seconds(A_DAY - 1), false)));
    }
    Ok(Some((time, exact)))
}

const NOT_A_TIME: &str = "not a time that a chart can have: expected YYYY-MM-DD or YYYY-MM-DD hh:mm:ss";

/// Reads one row of a table.
pub(super) fn read(table: OmopTable, concepts: &Concepts, row: &Row<'_>, sink: &mut Sink) {
    let trouble = |sink: &mut Sink, reason: &str| sink.trouble(row.position(), reason);
    let Ok(Some(person)) = row.cell(PERSON).integer() else {
        return trouble(sink, "no person_id that is a whole number");
    };
    let person = &person.to_string();
    match table {
        OmopTable::Concept => {}
        OmopTable::Person => {
            sink.taken("person");
            match self::person(person, row) {
                Ok(who) => sink.push(person, Origin::Row, &Body::Patient(&who)),
                Err((who, reason)) => {
                    sink.push(person, Origin::Row, &Body::Patient(&who));
                    trouble(sink, reason);
                }
            }
        }
        OmopTable::Death => {
            sink.taken("death");
            match when(row, 1, 2) {
                Ok(Some((time, _))) => died(person, time, sink),
                Ok(None) => trouble(sink, "dead, but when is not said: the death is no event"),
                Err(WrongType) => trouble(sink, NOT_A_TIME),
            }
        }
        OmopTable::Events(name, of) => {
            sink.taken(name);
            if let Err(reason) = event(person, of, concepts, row, sink) {
                trouble(sink, reason);
            }
        }
    }
}

/// A row of `person`; with a reason where its birth can't be read, the rest being taken.
fn person(id: &str, row: &Row<'_>) -> Result<Patient, (Patient, &'static str)> {
    let mut who = known_as(id);
    let source = row.cell(PERSON_SOURCE).text();
    if !source.is_empty() && *source != *id {
        who.identifiers.push(source.into_owned());
    }
    who.sex = match row.cell(GENDER).integer() {
        Ok(Some(8532)) => Some(Sex::Female),
        Ok(Some(8507)) => Some(Sex::Male),
        Ok(Some(8521)) => Some(Sex::Other),
        _ => sex(&row.cell(GENDER_SOURCE).text()),
    };
    let number = |column: usize| row.cell(column).integer().ok().flatten();
    let birth = match (number(YEAR), number(MONTH), number(DAY)) {
        (Some(year), Some(month), Some(day)) => Some(format!("{year:04}-{month:02}-{day:02}")),
        (Some(year), Some(month), None) if row.cell(BIRTH).is_absent() => Some(format!("{year:04}-{month:02}")),
        (Some(year), ..) if row.cell(BIRTH).is_absent() => Some(format!("{year:04}")),
        _ => None,
    };
    let birth = birth.as_deref().map_or(row.cell(BIRTH), Cell::Text).birth();
    match birth {
        Ok(birth) => {
            who.birth = birth;
            Ok(who)
        }
        Err(WrongType) => Err((who, "not a birth that a chart can have")),
    }
}

fn event(person: &str, of: &Events, concepts: &Concepts, row: &Row<'_>, sink: &mut Sink) -> Result<(), &'static str> {
    let id = |column: usize| row.cell(column).integer().map(|id| id.unwrap_or(0)).map_err(|_| "a concept id that is no whole number");
    let (time, exact) = when(row, DATE_TIME, DATE).map_err(|_| NOT_A_TIME)?.ok_or("no time: when it was known can't be told")?;
    // The standard concept, else that of the source, else the source's words.
    let standard = id(CONCEPT)?;
    let concept = if standard == 0 { id(SOURCE_CONCEPT)? } else { standard };
    let source = row.cell(SOURCE_VALUE).text();
    let by_id = concept.to_string();
    let known = concepts.by_id.get(&concept);
    let text = row.cell(TEXT).text();
    if of.kind == EventKind::Imaging && !text.is_empty() {
        study(person, &text, Some(time).filter(|_| exact), sink);
    }
    let (code, display) = match known {
        Some(concept) => (Token::new(&concept.system, &concept.code), &*concept.name),
        None if concept != 0 => (Token::new(BY_ID, &by_id), &*by_id),
        None if !source.is_empty() => (Token::new(OF_SOURCE, &source), &*source),
        None => return Err("no concept and no source value"),
    };
    let number = row.cell(NUMBER).number().map_err(|_| "value_as_number that is no number")?;
    let answer = match id(VALUE_CONCEPT)? {
        0 => String::new(),
        id => concepts.by_id.get(&id).map_or_else(|| format!("{BY_ID}|{id}"), |c| format!("{}|{}", c.system, c.code)),
    };
    let unit = match id(UNIT_CONCEPT)? {
        0 => row.cell(UNIT_SOURCE).text(),
        id => concepts.by_id.get(&id).map_or_else(|| row.cell(UNIT_SOURCE).text(), |c| (&*c.code).into()),
    };
    let text = if answer.is_empty() { &*text } else { &answer };
    let text = if of.kind == EventKind::Imaging { "" } else { text };
    let statement = Statement { patient: person, time, kind: of.kind, code, display, number, unit: &unit, text };
    statement.say(|| row.position(), sink);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_by_the_names_of_files() {
        for (name, is) in [
            ("measurement.csv", Some("measurement")),
            ("MEASUREMENT_3.parquet", Some("measurement")),
            ("cdm/measurement/part-0.parquet", Some("measurement")),
            ("condition_occurrence.csv.gz", Some("condition_occurrence")),
            ("concept_relationship.csv", None),
            ("measurements.csv", None),
        ] {
            let found = table_of(name).map(|table| if let OmopTable::Events(name, _) = table { name } else { "other" });
            assert_eq!(found, is, "{name}");
        }
    }
}
