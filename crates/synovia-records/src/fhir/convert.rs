//! What each resource says of its patient: statuses respected, times as the chart could have known them, units settled.

use synovia_cohort::{Event, EventKind, EventValue, Patient as Who, Sex, Time};

use super::element::{CodeableConcept, Decimal, Period, Quantity, Reference, Text, text};
use super::reference::{Subject, medication as medication_key, subject};
use super::resource::{Component, Condition, Encounter, Medication, MedicationRequest, Observation, Patient, Procedure};
use crate::spill::{Body, MEDICATION_PREFIX, Origin, Sink};
use crate::units;

/// A resource's place, and where what it says goes to.
pub(crate) struct At<'a> {
    pub(crate) place: &'a str,
    pub(crate) sink: &'a mut Sink,
}

impl At<'_> {
    pub(crate) fn trouble(&mut self, element: &str, reason: impl Into<String>) {
        self.sink.trouble(format!("{} {element}", self.place), reason);
    }

    /// The key of the subject, or a rejection.
    pub(crate) fn subject<'r>(&mut self, reference: Option<&'r Reference<'_>>, origin: Origin) -> Option<&'r str> {
        match subject(text(reference.and_then(|r| r.reference.as_ref()))) {
            Subject::Key(key) => Some(key),
            Subject::Not(reason) => {
                self.trouble(origin.subject_path(), reason);
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

    /// The code and its name, or a rejection.
    pub(crate) fn code<'c>(&mut self, concept: Option<&'c CodeableConcept<'_>>, element: &str) -> Option<(String, &'c str)> {
        let token = concept.and_then(CodeableConcept::token);
        if token.is_none() {
            self.trouble(element, "no coding with a code");
        }
        token
    }

    fn date(&mut self, text: &str, element: &str) -> Option<Time> {
        let time = Time::parse_fhir(text).ok().filter(|t| CHART_TIMES.contains(&t.seconds()));
        if time.is_none() {
            self.trouble(element, "not a date that a chart can have: expected YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss+zz:zz");
        }
        time
    }

    /// When the chart could first tell of it (see the crate's documentation), and when it happened, both as last moments.
    ///
    /// Where the record was made within a partial date ("in 2020", recorded in March), it was known at the record.
    pub(crate) fn known(&mut self, happened: (&str, &str), available: (&str, &str)) -> Option<(Time, Option<Time>)> {
        let last = if happened.0.is_empty() { None } else { Some(self.date(happened.0, happened.1)?) };
        let made = if available.0.is_empty() { None } else { Some(self.date(available.0, available.1)?) };
        let time = match (last, made) {
            (None, None) => {
                self.trouble(happened.1, "no time: when it was known can't be told");
                return None;
            }
            (Some(last), None) => last,
            (None, Some(made)) => made,
            (Some(last), Some(made)) => {
                let first = Time::parse_birth(happened.0).unwrap_or(last);
                if made >= first { made } else { last }
            }
        };
        Some((time, last))
    }

    pub(crate) fn event(&mut self, key: &str, origin: Origin, event: &Event) {
        self.sink.push(key, origin, &Body::Event(event));
    }
}

/// 1850 to 2200: outside it a date is a placeholder or an error.
const CHART_TIMES: std::ops::Range<i64> = -3_786_825_600..7_258_118_400;

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
    at.sink.taken("Patient");
    let id = text(patient.id.as_ref());
    let key = if id.is_empty() { url_key.unwrap_or_default() } else { id }.trim();
    if key.is_empty() {
        return at.trouble("Patient.id", "no id and no fullUrl: nothing can refer to this patient");
    }
    let mut who = Who { identifiers: vec![key.to_owned()], ..Who::default() };
    for identifier in &patient.identifier {
        let value = text(identifier.value.as_ref());
        if !value.is_empty() && !who.identifiers.iter().any(|i| i == value) {
            who.identifiers.push(value.to_owned());
        }
    }
    let birth = text(patient.birth_date.as_ref());
    if !birth.is_empty() && at.date(birth, "Patient.birthDate").is_some() {
        who.birth = Time::parse_birth(birth).ok();
    }
    who.sex = match text(patient.gender.as_ref()) {
        "female" => Some(Sex::Female),
        "male" => Some(Sex::Male),
        "other" => Some(Sex::Other),
        _ => None,
    };
    let deceased = text(patient.deceased.as_ref());
    if !deceased.is_empty() {
        who.death = at.date(deceased, "Patient.deceasedDateTime");
    }
    at.sink.push(key, Origin::Patient, &Body::Patient(&who));
    if let Some(time) = who.death {
        let (code, display) = ("http://snomed.info/sct|419620001".into(), "Death".into());
        at.event(key, Origin::Patient, &Event { time, kind: EventKind::Death, code, display, value: EventValue::None });
    }
    if let Some(url_key) = url_key.filter(|k| *k != key) {
        at.sink.push(url_key, Origin::Patient, &Body::Alias(key));
    }
}

/// Counts from its start: that a patient came is known as they come.
pub(crate) fn encounter(encounter: &Encounter<'_>, at: &mut At<'_>) {
    at.sink.taken("Encounter");
    if !at.status(encounter.status.as_ref(), "Encounter.status", &["planned", "cancelled", "entered-in-error"]) {
        return;
    }
    let Some(key) = at.subject(encounter.subject.as_ref(), Origin::Encounter) else { return };
    let class = encounter.class.as_ref().and_then(|c| Some((c.token()?, text(c.display.as_ref().or(c.code.as_ref())))));
    let Some((code, display)) = class.or_else(|| encounter.kind.iter().find_map(CodeableConcept::token)) else {
        return at.trouble("Encounter.class", "no coding with a code");
    };
    let start = text(encounter.period.as_ref().and_then(|p| p.start.as_ref()));
    let Some((time, _)) = at.known((start, "Encounter.period"), ("", "")) else { return };
    let event = Event { time, kind: EventKind::Encounter, code: code.into(), display: display.into(), value: EventValue::None };
    at.event(key, Origin::Encounter, &event);
}

/// What an Observation or a component of it found, `Err` with the element and the reason where it can't be taken.
fn value(of: &Component<'_>, code: &str) -> Result<EventValue, (&'static str, String)> {
    if let Some(quantity) = &of.quantity {
        return number(quantity, code);
    }
    if let Some(integer) = of.integer {
        let Decimal::Finite(value) = integer else { return Err(("valueInteger", NOT_FINITE.to_owned())) };
        return Ok(EventValue::Number { value, unit: "".into() });
    }
    if let Some(concept) = &of.concept {
        return match concept.token() {
            Some((code, _)) => Ok(EventValue::Code(code.into())),
            None => match text(concept.text.as_ref()) {
                "" => Err(("valueCodeableConcept", "no coding with a code".to_owned())),
                text => Ok(EventValue::Text(text.into())),
            },
        };
    }
    if let Some(answer) = of.boolean {
        return Ok(EventValue::Code(if answer { "|true" } else { "|false" }.into()));
    }
    Ok(match text(of.string.as_ref()) {
        "" => EventValue::None,
        text => EventValue::Text(text.into()),
    })
}

const NOT_FINITE: &str = "not a finite number";

/// The UCUM code wins over the unit's human-readable text. A comparator (`<`, `>`) is not kept: the limit stands for what
/// could not be measured beyond it.
fn number(quantity: &Quantity<'_>, code: &str) -> Result<EventValue, (&'static str, String)> {
    let value = match quantity.value {
        Some(Decimal::Finite(value)) => value,
        Some(Decimal::NotANumber) => return Err(("valueQuantity.value", NOT_FINITE.to_owned())),
        None => return Err(("valueQuantity.value", "no number".to_owned())),
    };
    let unit = [quantity.code.as_ref(), quantity.unit.as_ref()].into_iter().map(text).find(|u| !u.is_empty()).unwrap_or_default();
    match units::settle(code, value, unit) {
        Ok((value, unit)) => Ok(EventValue::Number { value, unit: unit.into() }),
        Err(error) => {
            let expected = units::canonical_unit(code).unwrap_or_default();
            Err(("valueQuantity.code", format!("{code}: {error}{}; expected one like {expected}", shown(unit))))
        }
    }
}

/// The unit in a reason, if it looks like one: a field that holds something else may hold a name.
fn shown(unit: &str) -> String {
    let plain = unit.len() <= 16 && !unit.is_empty() && unit.bytes().all(|b| b.is_ascii_alphabetic() || b"/%[]*.{}".contains(&b));
    if plain { format!(" (`{unit}`)") } else { String::new() }
}

pub(crate) fn observation(mut o: Observation<'_>, at: &mut At<'_>) {
    at.sink.taken("Observation");
    if !at.status(o.status.as_ref(), "Observation.status", &["registered", "cancelled", "entered-in-error", "unknown"]) {
        return;
    }
    let Some(key) = at.subject(o.subject.as_ref(), Origin::Observation) else { return };
    let happened = first(&[
        (text(o.effective.as_ref()), "Observation.effectiveDateTime"),
        (text(o.effective_instant.as_ref()), "Observation.effectiveInstant"),
        (end_of(o.effective_period.as_ref()), "Observation.effectivePeriod"),
    ]);
    let Some((time, _)) = at.known(happened, (text(o.issued.as_ref()), "Observation.issued")) else { return };
    let take = |of: &Component<'_>, path: &str, needs_value: bool, at: &mut At<'_>| {
        let Some((code, display)) = at.code(of.code.as_ref(), &format!("{path}.code")) else {
            return;
        };
        match value(of, &code) {
            Ok(EventValue::None) if of.absent.is_some() => {
                at.trouble(&format!("{path}.dataAbsentReason"), "no value: the source says that it is absent");
            }
            Ok(EventValue::None) if needs_value => {}
            Ok(value) => {
                let event = Event { time, kind: EventKind::Observation, code: code.into(), display: display.into(), value };
                at.event(key, Origin::Observation, &event);
            }
            Err((element, reason)) => at.trouble(&format!("{path}.{element}"), reason),
        }
    };
    for (k, component) in o.component.iter().enumerate() {
        take(component, &format!("Observation.component[{k}]"), false, at);
    }
    // A panel is its components: an event of its own it is only when it has a value, or nothing else.
    let own = Component {
        code: o.code.take(),
        quantity: o.quantity.take(),
        concept: o.concept.take(),
        string: o.string.take(),
        integer: o.integer,
        boolean: o.boolean,
        absent: o.absent.take(),
    };
    take(&own, "Observation", !o.component.is_empty(), at);
}

/// Known at its recording, if that is later than its onset; the days between are its value, so that a label can tell a new
/// disease from one that was there and not yet written down. When it abated is not read: at its onset nobody knew.
pub(crate) fn condition(condition: &Condition<'_>, at: &mut At<'_>) {
    at.sink.taken("Condition");
    for status in ["refuted", "entered-in-error", "differential"] {
        if condition.verification.as_ref().is_some_and(|v| v.has(&[status])) {
            return at.trouble("Condition.verificationStatus", format!("status {status}: not an event"));
        }
    }
    let Some(key) = at.subject(condition.subject.as_ref(), Origin::Condition) else { return };
    let Some((code, display)) = at.code(condition.code.as_ref(), "Condition.code") else { return };
    let onset = first(&[
        (text(condition.onset.as_ref()), "Condition.onsetDateTime"),
        (text(condition.onset_period.as_ref().and_then(|p| p.start.as_ref())), "Condition.onsetPeriod"),
    ]);
    let Some((time, onset)) = at.known(onset, (text(condition.recorded.as_ref()), "Condition.recordedDate")) else { return };
    let delay = onset.map_or(0.0, |onset| time.days_since(onset));
    let value = if delay > 0.0 { EventValue::Number { value: delay, unit: "d".into() } } else { EventValue::None };
    at.event(key, Origin::Condition, &Event { time, kind: EventKind::Condition, code: code.into(), display: display.into(), value });
}

pub(crate) fn procedure(procedure: &Procedure<'_>, at: &mut At<'_>) {
    at.sink.taken("Procedure");
    if !at.status(procedure.status.as_ref(), "Procedure.status", &["preparation", "not-done", "entered-in-error", "unknown"]) {
        return;
    }
    let Some(key) = at.subject(procedure.subject.as_ref(), Origin::Procedure) else { return };
    let Some((code, display)) = at.code(procedure.code.as_ref(), "Procedure.code") else { return };
    let performed = first(&[
        (text(procedure.performed.as_ref()), "Procedure.performedDateTime"),
        (end_of(procedure.performed_period.as_ref()), "Procedure.performedPeriod"),
    ]);
    let Some((time, _)) = at.known(performed, ("", "")) else { return };
    let event = Event { time, kind: EventKind::Procedure, code: code.into(), display: display.into(), value: EventValue::None };
    at.event(key, Origin::Procedure, &event);
}

/// Keeps what the medication is, for the requests that refer to it.
pub(crate) fn medication(medication: &Medication<'_>, url_key: Option<&str>, at: &mut At<'_>) {
    at.sink.taken("Medication");
    let Some((code, display)) = at.code(medication.code.as_ref(), "Medication.code") else { return };
    for key in [Some(text(medication.id.as_ref())), url_key].into_iter().flatten().filter(|k| !k.is_empty()) {
        at.sink.medications.insert(key.to_owned(), (code.clone(), display.to_owned()));
    }
}

pub(crate) fn medication_request(request: &MedicationRequest<'_>, at: &mut At<'_>) {
    at.sink.taken("MedicationRequest");
    if !at.status(request.status.as_ref(), "MedicationRequest.status", &["draft", "cancelled", "entered-in-error", "unknown"])
        || !at.status(request.intent.as_ref(), "MedicationRequest.intent", &["proposal", "plan", "option"])
    {
        return;
    }
    if request.do_not_perform == Some(true) {
        return at.trouble("MedicationRequest.doNotPerform", "a request not to give it: not an event");
    }
    let Some(key) = at.subject(request.subject.as_ref(), Origin::MedicationRequest) else { return };
    let reference = text(request.reference.as_ref().and_then(|r| r.reference.as_ref()));
    let (code, display) = if let Some(id) = reference.strip_prefix('#') {
        let contained = request.contained.iter().find(|m| text(m.id.as_ref()).trim_start_matches('#') == id);
        let Some(found) = at.code(contained.and_then(|m| m.code.as_ref()), "MedicationRequest.contained") else { return };
        found
    } else if let Some(medication) = medication_key(reference) {
        (format!("{MEDICATION_PREFIX}{medication}"), "")
    } else {
        let Some(found) = at.code(request.concept.as_ref(), "MedicationRequest.medicationCodeableConcept") else { return };
        found
    };
    let Some((time, _)) = at.known((text(request.authored.as_ref()), "MedicationRequest.authoredOn"), ("", "")) else { return };
    let event = Event { time, kind: EventKind::Medication, code: code.into(), display: display.into(), value: EventValue::None };
    at.event(key, Origin::MedicationRequest, &event);
}
