//! What one row of a long table says, and how its code is read.

use std::collections::HashMap;
use std::sync::Arc;

use synovia_cohort::{EventKind, EventValue, Patient, StudyLink, Time};

use super::vocabulary::{as_written, kind, vocabulary};
use crate::spill::{Body, Origin, Said, Sink, Token, Value};
use crate::units;

/// A row that says something of a patient at a time.
pub(super) struct Statement<'a> {
    pub(super) patient: &'a str,
    pub(super) time: Time,
    pub(super) kind: EventKind,
    pub(super) code: Token<'a>,
    pub(super) display: &'a str,
    pub(super) number: Option<f64>,
    pub(super) unit: &'a str,
    pub(super) text: &'a str,
}

impl Statement<'_> {
    /// Sends it to its patient, or says in `sink` why not. `position` is of the row.
    pub(super) fn say(&self, position: impl Fn() -> String, sink: &mut Sink) {
        let answer;
        let value = match self.number {
            Some(number) if !number.is_finite() => return sink.trouble(position(), "not a finite number"),
            Some(value) if self.kind != EventKind::Observation => Value::Number { value, unit: self.unit },
            Some(number) => match units::settle(self.code, number, self.unit) {
                Ok((value, unit)) => Value::Number { value, unit },
                Err(error) => return sink.trouble(position(), units::refusal(self.code, error, self.unit)),
            },
            None if self.text.is_empty() => Value::None,
            None => {
                answer = coded(self.text);
                answer.as_ref().map_or(Value::Text(self.text), |(system, code)| Value::Code(Token::new(system, code)))
            }
        };
        let said = Said { time: self.time, kind: self.kind, code: self.code, display: self.display, value };
        sink.push(self.patient, Origin::Row, &Body::Event(&said));
    }
}

/// A text that is a code and no more: `system|code` or `VOCABULARY//code`.
pub(super) fn coded(text: &str) -> Option<(String, String)> {
    if text.contains(char::is_whitespace) {
        return None;
    }
    if let Some((system, code)) = text.split_once('|') {
        let system = vocabulary(system).map_or(system, |v| v.system);
        return (!system.is_empty() && !code.is_empty() && !code.contains('|')).then(|| (system.to_owned(), as_written(system, code)));
    }
    let (name, code) = text.split_once("//")?;
    let system = vocabulary(name)?.system;
    (!code.is_empty() && !code.contains("//")).then(|| (system.to_owned(), as_written(system, code)))
}

/// What a code of a long table means.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    Birth,
    Death,
    /// The sex that the code itself says, or empty where the row's value does.
    Sex(String),
    /// Another identifier of the patient, by the row's value.
    Identifier,
    /// A study of images, by the row's value (its UID).
    Study,
    Code {
        system: String,
        code: String,
        /// What the code says of its kind, where it does.
        kind: Option<EventKind>,
        /// The unit that the code says; empty where it does not.
        unit: String,
    },
}

/// The part of a code that names an ICD's version, as MIMIC's converter writes it: `ICD//10//C3411`.
fn icd(version: &str, kind: Option<EventKind>) -> Option<&'static str> {
    let name = match (version, kind) {
        ("10", Some(EventKind::Procedure)) => "ICD10PCS",
        ("9", Some(EventKind::Procedure)) => "ICD9PROC",
        ("10", _) => "ICD10CM",
        ("9", _) => "ICD9CM",
        _ => return None,
    };
    vocabulary(name).map(|v| v.system)
}

impl Meaning {
    /// Reads a code: `system|code`, `VOCABULARY//code[//unit]` or `VOCABULARY/code`, each after a word for its kind and `//` or
    /// without one; reserved words; and any other text, which is a code of `default_system`.
    pub(super) fn of(text: &str, default_system: &str) -> Self {
        let reserved = text.split_once("//").map_or(text, |(first, _)| first);
        let rest = text.split_once("//").map_or("", |(_, rest)| rest);
        match reserved.to_ascii_uppercase().as_str() {
            "MEDS_BIRTH" => return Self::Birth,
            "BIRTH" if rest.is_empty() => return Self::Birth,
            "MEDS_DEATH" => return Self::Death,
            "DEATH" if rest.is_empty() => return Self::Death,
            "SEX" | "GENDER" => return Self::Sex(rest.to_owned()),
            "IDENTIFIER" if rest.is_empty() => return Self::Identifier,
            "STUDY" if rest.is_empty() => return Self::Study,
            _ => {}
        }
        if let Some(("Gender" | "Sex", sex)) = text.split_once('/') {
            return Self::Sex(sex.to_owned());
        }
        let (kind, bare) = match kind(reserved).filter(|_| !rest.is_empty()) {
            Some(kind) => (Some(kind), rest),
            None => (None, text),
        };
        let code = |system: &str, code: &str, unit: &str| Self::Code {
            system: system.to_owned(),
            code: as_written(system, code),
            kind,
            unit: unit.to_owned(),
        };
        if let Some((system, rest)) = bare.split_once('|') {
            let system = vocabulary(system).map_or(system, |v| v.system);
            if !system.is_empty() && !rest.is_empty() {
                return code(system, rest, "");
            }
        }
        let segments: Vec<&str> = bare.split("//").collect();
        match segments[..] {
            ["ICD", version, c] if !c.is_empty() && icd(version, kind).is_some() => {
                return code(icd(version, kind).unwrap_or_default(), c, "");
            }
            [name, c] | [name, c, "" | "UNK"] if !c.is_empty() && vocabulary(name).is_some() => {
                return code(vocabulary(name).map_or("", |v| v.system), c, "");
            }
            [name, c, unit] if !c.is_empty() && vocabulary(name).is_some() => {
                return code(vocabulary(name).map_or("", |v| v.system), c, unit);
            }
            [one] => {
                if let Some((name, c)) = one.split_once('/')
                    && let Some(found) = vocabulary(name).filter(|_| !c.is_empty())
                {
                    return code(found.system, c, "");
                }
            }
            _ => {}
        }
        let unit = match segments[..] {
            [_, unit] if kind == Some(EventKind::Observation) && units::is_plain_unit(unit) => unit,
            _ => "",
        };
        Self::Code { system: default_system.to_owned(), code: text.to_owned(), kind, unit: unit.to_owned() }
    }
}

/// What is remembered from row to row of a stretch, since rows of a patient and of a code come again and again.
#[derive(Default)]
pub(crate) struct Remembered {
    patient: Option<String>,
    meanings: HashMap<String, Arc<Meaning>>,
}

/// Codes that are remembered: the others are read again.
const MAX_REMEMBERED: usize = 50_000;

impl Remembered {
    /// Says once in a row that there is this patient.
    pub(super) fn patient(&mut self, patient: &str, sink: &mut Sink) {
        if self.patient.as_deref() != Some(patient) {
            sink.push(patient, Origin::Row, &Body::Patient(&known_as(patient)));
            self.patient = Some(patient.to_owned());
        }
    }

    /// The meaning of a code, read by `read` the first time.
    pub(super) fn meaning(&mut self, code: &str, read: impl FnOnce() -> Meaning) -> Arc<Meaning> {
        if let Some(found) = self.meanings.get(code) {
            return found.clone();
        }
        let meaning = Arc::new(read());
        if self.meanings.len() < MAX_REMEMBERED {
            self.meanings.insert(code.to_owned(), meaning.clone());
        }
        meaning
    }
}

/// A patient of whom nothing but the id is known.
pub(super) fn known_as(patient: &str) -> Patient {
    Patient { identifiers: vec![patient.to_owned()], ..Patient::default() }
}

/// Says that a patient died.
pub(super) fn died(patient: &str, time: Time, sink: &mut Sink) {
    sink.push(patient, Origin::Row, &Body::Patient(&Patient { death: Some(time), ..known_as(patient) }));
    let code = Token::new("http://snomed.info/sct", "419620001");
    let said = Said { time, kind: EventKind::Death, code, display: "Death", value: Value::None };
    sink.push(patient, Origin::Row, &Body::Event(&said));
}

/// Says something of a patient that holds at any time.
pub(super) fn fact(patient: &str, name: &str, value: EventValue, sink: &mut Sink) {
    sink.push(patient, Origin::Row, &Body::Patient(&Patient { facts: vec![(name.into(), value)], ..known_as(patient) }));
}

/// Links a patient to a study of images. `uid` may have the `urn:oid:` before it that FHIR has.
pub(super) fn study(patient: &str, uid: &str, started: Option<Time>, sink: &mut Sink) {
    let uid = uid.strip_prefix("urn:oid:").unwrap_or(uid);
    let link = StudyLink { study_instance_uid: uid.to_owned(), accession: String::new(), started };
    sink.push(patient, Origin::Row, &Body::Study(&link));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, system: &str, code: &str, kind: Option<EventKind>, unit: &str) {
        let expected = Meaning::Code { system: system.to_owned(), code: code.to_owned(), kind, unit: unit.to_owned() };
        assert_eq!(Meaning::of(text, "meds"), expected, "{text}");
    }

    #[test]
    fn codes_that_say_what_they_are() {
        check("LOINC//2339-0//mg/dL", "http://loinc.org", "2339-0", None, "mg/dL");
        check("LOINC/2339-0", "http://loinc.org", "2339-0", None, "");
        check("LAB//LOINC//2339-0//mmol/L", "http://loinc.org", "2339-0", Some(EventKind::Observation), "mmol/L");
        check("LAB//LOINC//2339-0//UNK", "http://loinc.org", "2339-0", Some(EventKind::Observation), "");
        check("DIAGNOSIS//ICD//10//C3411", "http://hl7.org/fhir/sid/icd-10-cm", "C34.11", Some(EventKind::Condition), "");
        check("PROCEDURE//ICD//10//0BJ08ZZ", "http://www.cms.gov/Medicare/Coding/ICD10", "0BJ08ZZ", Some(EventKind::Procedure), "");
        check("CONDITION//SNOMED//38341003", "http://snomed.info/sct", "38341003", Some(EventKind::Condition), "");
        check("http://loinc.org|2339-0", "http://loinc.org", "2339-0", None, "");
        check("ENCOUNTER//http://x.y/z|AMB", "http://x.y/z", "AMB", Some(EventKind::Encounter), "");
        check("SNOMED|38341003", "http://snomed.info/sct", "38341003", None, "");
    }

    #[test]
    fn codes_that_do_not_are_kept_whole() {
        check("LAB//50912//mg/dL", "meds", "LAB//50912//mg/dL", Some(EventKind::Observation), "mg/dL");
        for (text, kind) in [
            ("LAB//50912//UNK", Some(EventKind::Observation)),
            ("LOINC//", None),
            ("LOINC//a//b//c", None),
            ("HOSPITAL_ADMISSION//EW EMER.", Some(EventKind::Encounter)),
            ("ICD//11//C34", None),
            ("x/y", None),
            ("|x", None),
            ("", None),
        ] {
            check(text, "meds", text, kind, "");
        }
    }

    #[test]
    fn reserved_codes() {
        for (text, expected) in [
            ("MEDS_BIRTH", Meaning::Birth),
            ("birth", Meaning::Birth),
            ("MEDS_DEATH//x", Meaning::Death),
            ("GENDER//F", Meaning::Sex("F".to_owned())),
            ("Gender/M", Meaning::Sex("M".to_owned())),
            ("sex", Meaning::Sex(String::new())),
        ] {
            assert_eq!(Meaning::of(text, "meds"), expected, "{text}");
        }
    }

    #[test]
    fn answers() {
        let code = |system: &str, code: &str| Some((system.to_owned(), code.to_owned()));
        assert_eq!(coded("http://snomed.info/sct|8517006"), code("http://snomed.info/sct", "8517006"));
        assert_eq!(coded("SNOMED//8517006"), code("http://snomed.info/sct", "8517006"));
        for words in ["positive", "a | b", "|x", "x//y", "SNOMED//", "1|2|3"] {
            assert_eq!(coded(words), None, "{words}");
        }
    }
}
