//! What each resource says of its patient: statuses respected, times as the chart could have known them.

use synovia_cohort::{EventKind, Patient as Who, Sex, Time, name_digest};

use super::element::{CodeableConcept, Period, Reference, Text, text};
use super::read::Where;
use super::reference::{Subject, subject};
use super::resource::{AllergyIntolerance, Condition, Encounter, FamilyMemberHistory, Patient, Procedure};
use crate::spill::{Body, Origin, Said, Sink, Token, Value};
use crate::time::chart_time;

/// A resource's place, its type, and where what it says goes to.
pub(crate) struct At<'a> {
    pub(crate) place: &'a Where,
    pub(crate) origin: Origin,
    pub(crate) sink: &'a mut Sink,
}

impl At<'_> {
    /// `element` is a path within the resource.
    pub(crate) fn trouble(&mut self, element: &str, reason: impl Into<String>) {
        self.sink.trouble(format!("{} {}.{element}", self.place.place(), self.origin.name()), reason);
    }

    /// The key of the patient, or a rejection.
    pub(crate) fn subject<'r>(&mut self, reference: Option<&'r Reference<'_>>) -> Option<&'r str> {
        match subject(text(reference.and_then(|r| r.reference.as_ref()))) {
            Subject::Key(key) => Some(key),
            Subject::Not(reason) => {
                self.trouble(self.origin.subject(), reason);
                None
            }
        }
    }

    /// Whether the status lets the resource be an event. `not` are the statuses that do not.
    pub(crate) fn status(&mut self, status: Option<&Text<'_>>, element: &str, not: &[&'static str]) -> bool {
        let status = text(status);
        match not.iter().find(|s| **s == status) {
            None => true,
            Some(status) => {
                self.trouble(element, format!("status {status}: not an event"));
                false
            }
        }
    }

    /// As [`At::status`], for a coded status.
    fn verified(&mut self, verification: Option<&CodeableConcept<'_>>, not: &[&'static str]) -> bool {
        let Some(status) = not.iter().find(|s| verification.is_some_and(|v| v.has(&[s]))) else { return true };
        self.trouble("verificationStatus", format!("status {status}: not an event"));
        false
    }

    /// The code and its name, or a rejection.
    pub(crate) fn code<'c>(&mut self, concept: Option<&'c CodeableConcept<'_>>, element: &str) -> Option<(Token<'c>, &'c str)> {
        let token = concept.and_then(CodeableConcept::token);
        if token.is_none() {
            self.trouble(element, "no coding with a code");
        }
        token
    }

    fn date(&mut self, text: &str, element: &str) -> Option<Time> {
        let time = chart_time(text);
        if time.is_none() {
            self.trouble(element, "not a date that a chart can have: expected YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss+zz:zz");
        }
        time
    }

    /// When the chart could first tell of it (see the crate's documentation), at the latest; and when it happened, at the
    /// earliest: what was there in some part of a partial date may have been there in all of it.
    ///
    /// Where the record was made within a partial date ("in 2020", recorded in March), it was known at the record.
    pub(crate) fn known(&mut self, happened: (&str, &str), available: (&str, &str)) -> Option<(Time, Option<Time>)> {
        let last = if happened.0.is_empty() { None } else { Some(self.date(happened.0, happened.1)?) };
        let made = if available.0.is_empty() { None } else { Some(self.date(available.0, available.1)?) };
        let first = last.map(|last| Time::parse_birth(happened.0).unwrap_or(last));
        let time = match (last, made) {
            (None, None) => {
                self.trouble(happened.1, "no time: when it was known can't be told");
                return None;
            }
            (None, Some(made)) => made,
            (Some(_), Some(made)) if first.is_none_or(|first| made >= first) => made,
            (Some(last), _) => last,
        };
        Some((time, first))
    }

    pub(crate) fn event(&mut self, key: &str, event: &Said<'_>) {
        self.sink.push(key, self.origin, &Body::Event(event));
    }
}

/// The end of a period, or its start while it goes on.
pub(crate) fn end_of<'p>(period: Option<&'p Period<'_>>) -> &'p str {
    let end = text(period.and_then(|p| p.end.as_ref()));
    if end.is_empty() { text(period.and_then(|p| p.start.as_ref())) } else { end }
}

/// The first of several ways to give a time that is there, with the element's name.
pub(crate) fn first<'t>(ways: &[(&'t str, &'t str)]) -> (&'t str, &'t str) {
    ways.iter().copied().find(|(text, _)| !text.is_empty()).unwrap_or(("", ways.first().map_or("", |w| w.1)))
}

pub(crate) fn patient(patient: &Patient<'_>, url_key: Option<&str>, at: &mut At<'_>) {
    let id = text(patient.id.as_ref());
    let key = if id.is_empty() { url_key.unwrap_or_default() } else { id }.trim();
    if key.is_empty() {
        return at.trouble("id", "no id and no fullUrl: nothing can refer to this patient");
    }
    let mut who = Who { identifiers: vec![key.to_owned()], ..Who::default() };
    for identifier in &patient.identifier {
        let value = text(identifier.value.as_ref());
        if !value.is_empty() && !who.identifiers.iter().any(|i| i == value) {
            who.identifiers.push(value.to_owned());
        }
    }
    let birth = text(patient.birth_date.as_ref());
    if !birth.is_empty() && at.date(birth, "birthDate").is_some() {
        who.birth = Time::parse_birth(birth).ok();
    }
    let official = patient.name.iter().find(|name| text(name.kind.as_ref()) == "official").or(patient.name.first());
    who.name_digest = official.and_then(|name| {
        let family = text(name.family.as_ref());
        (!family.is_empty()).then(|| name_digest(family, text(name.given.iter().flatten().next())))
    });
    who.sex = match text(patient.gender.as_ref()) {
        "female" => Some(Sex::Female),
        "male" => Some(Sex::Male),
        "other" => Some(Sex::Other),
        _ => None,
    };
    let deceased = text(patient.deceased.as_ref());
    if !deceased.is_empty() {
        who.death = at.date(deceased, "deceasedDateTime");
    } else if patient.is_deceased == Some(true) {
        at.trouble("deceasedBoolean", "dead, but when is not said: the death is no event");
    }
    at.sink.push(key, Origin::Patient, &Body::Patient(&who));
    if let Some(time) = who.death {
        let code = Token::new("http://snomed.info/sct", "419620001");
        at.event(key, &Said { time, kind: EventKind::Death, code, display: "Death", value: Value::None });
    }
    if let Some(url_key) = url_key.filter(|k| *k != key) {
        at.sink.push(url_key, Origin::Patient, &Body::Alias(key));
    }
}

/// Counts from its start: that a patient came is known as they come.
pub(crate) fn encounter(encounter: &Encounter<'_>, at: &mut At<'_>) {
    if !at.status(encounter.status.as_ref(), "status", &["planned", "cancelled", "entered-in-error"]) {
        return;
    }
    let Some(key) = at.subject(encounter.subject.as_ref()) else { return };
    let class = encounter.class.as_ref().and_then(|c| Some((c.token()?, text(c.display.as_ref().or(c.code.as_ref())))));
    let Some((code, display)) = class.or_else(|| encounter.kind.iter().find_map(CodeableConcept::token)) else {
        return at.trouble("class", "no coding with a code");
    };
    let start = text(encounter.period.as_ref().and_then(|p| p.start.as_ref()));
    let Some((time, _)) = at.known((start, "period"), ("", "")) else { return };
    at.event(key, &Said { time, kind: EventKind::Encounter, code, display, value: Value::None });
}

/// Days from what began at `onset`, at the earliest, to when it was known, as a value: a label can then tell what is new from
/// what was there, or may have been, and was not yet written down.
fn delay(time: Time, onset: Option<Time>) -> Value<'static> {
    let delay = onset.map_or(0.0, |onset| time.days_since(onset));
    if delay > 0.0 { Value::Number { value: delay, unit: "d" } } else { Value::None }
}

/// Known at its recording, if that is later than its onset. When it abated is not read: at its onset nobody knew.
pub(crate) fn condition(condition: &Condition<'_>, at: &mut At<'_>) {
    if !at.verified(condition.verification.as_ref(), &["refuted", "entered-in-error", "differential"]) {
        return;
    }
    let Some(key) = at.subject(condition.subject.as_ref()) else { return };
    let Some((code, display)) = at.code(condition.code.as_ref(), "code") else { return };
    let onset = first(&[
        (text(condition.onset.as_ref()), "onsetDateTime"),
        (text(condition.onset_period.as_ref().and_then(|p| p.start.as_ref())), "onsetPeriod"),
    ]);
    let Some((time, onset)) = at.known(onset, (text(condition.recorded.as_ref()), "recordedDate")) else { return };
    at.event(key, &Said { time, kind: EventKind::Condition, code, display, value: delay(time, onset) });
}

/// As a condition: known at its recording.
pub(crate) fn allergy(allergy: &AllergyIntolerance<'_>, at: &mut At<'_>) {
    if !at.verified(allergy.verification.as_ref(), &["refuted", "entered-in-error"]) {
        return;
    }
    let Some(key) = at.subject(allergy.patient.as_ref()) else { return };
    let Some((code, display)) = at.code(allergy.code.as_ref(), "code") else { return };
    let onset = first(&[
        (text(allergy.onset.as_ref()), "onsetDateTime"),
        (text(allergy.onset_period.as_ref().and_then(|p| p.start.as_ref())), "onsetPeriod"),
    ]);
    let Some((time, onset)) = at.known(onset, (text(allergy.recorded.as_ref()), "recordedDate")) else { return };
    at.event(key, &Said { time, kind: EventKind::Allergy, code, display, value: delay(time, onset) });
}

/// An event a disease of the relative, its value who the relative is.
pub(crate) fn family_history(history: &FamilyMemberHistory<'_>, at: &mut At<'_>) {
    if !at.status(history.status.as_ref(), "status", &["entered-in-error", "health-unknown"]) {
        return;
    }
    let Some(key) = at.subject(history.patient.as_ref()) else { return };
    let Some((time, _)) = at.known((text(history.date.as_ref()), "date"), ("", "")) else { return };
    let value = history.relationship.as_ref().and_then(CodeableConcept::token).map_or(Value::None, |(code, _)| Value::Code(code));
    for (k, condition) in history.condition.iter().enumerate() {
        let Some((code, display)) = at.code(condition.code.as_ref(), &format!("condition[{k}].code")) else { continue };
        at.event(key, &Said { time, kind: EventKind::FamilyHistory, code, display, value });
    }
}

pub(crate) fn procedure(procedure: &Procedure<'_>, at: &mut At<'_>) {
    if !at.status(procedure.status.as_ref(), "status", &["preparation", "not-done", "entered-in-error", "unknown"]) {
        return;
    }
    let Some(key) = at.subject(procedure.subject.as_ref()) else { return };
    let Some((code, display)) = at.code(procedure.code.as_ref(), "code") else { return };
    let performed = first(&[
        (text(procedure.performed.as_ref()), "performedDateTime"),
        (end_of(procedure.performed_period.as_ref()), "performedPeriod"),
    ]);
    let Some((time, _)) = at.known(performed, ("", "")) else { return };
    at.event(key, &Said { time, kind: EventKind::Procedure, code, display, value: Value::None });
}
