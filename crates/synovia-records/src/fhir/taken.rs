//! Drugs: ordered, given, taken, and what a reference to one means.

use synovia_cohort::EventKind;

use super::convert::{At, first};
use super::element::{CodeableConcept, Reference, text};
use super::read::Where;
use super::reference::medication as medication_key;
use super::resource::{Contained, Medication, MedicationRequest, MedicationTaken};
use crate::spill::{MEDICATION_PREFIX, Origin, Said, Sink, Token, Value};

/// Keeps what the medication is, for the resources that refer to it.
pub(crate) fn medication(medication: &Medication<'_>, url_key: Option<&str>, place: &Where, sink: &mut Sink) {
    let Some((code, display)) = medication.code.as_ref().and_then(CodeableConcept::token) else {
        return sink.trouble(format!("{} Medication.code", place.place()), "no coding with a code");
    };
    for (key, is_url) in [(text(medication.id.as_ref()), false), (url_key.unwrap_or_default(), true)] {
        if !key.is_empty() {
            sink.medication(key, is_url, code.to_string(), display.to_owned());
        }
    }
}

/// Calls `take` with the drug: a code, that of a contained resource, or the key of one that may be read later.
fn drug(
    concept: Option<&CodeableConcept<'_>>,
    reference: Option<&Reference<'_>>,
    contained: &[Contained<'_>],
    at: &mut At<'_>,
    take: impl FnOnce(Token<'_>, &str, &mut At<'_>),
) {
    let reference = text(reference.and_then(|r| r.reference.as_ref()));
    if let Some(id) = reference.strip_prefix('#') {
        let contained = contained.iter().find(|m| text(m.id.as_ref()).trim_start_matches('#') == id);
        let Some((code, display)) = at.code(contained.and_then(|m| m.code.as_ref()), "contained") else { return };
        take(code, display, at);
    } else if let Some(medication) = medication_key(reference) {
        take(Token::bare(&format!("{MEDICATION_PREFIX}{medication}")), "", at);
    } else if let Some((code, display)) = at.code(concept, "medicationCodeableConcept") {
        take(code, display, at);
    }
}

pub(crate) fn medication_request(request: &MedicationRequest<'_>, at: &mut At<'_>) {
    if !at.status(request.status.as_ref(), "status", &["draft", "cancelled", "entered-in-error", "unknown"])
        || !at.status(request.intent.as_ref(), "intent", &["proposal", "plan", "option"])
    {
        return;
    }
    if request.do_not_perform == Some(true) {
        return at.trouble("doNotPerform", "a request not to give it: not an event");
    }
    let Some(key) = at.subject(request.subject.as_ref()) else { return };
    drug(request.concept.as_ref(), request.reference.as_ref(), &request.contained, at, |code, display, at| {
        let Some((time, _)) = at.known((text(request.authored.as_ref()), "authoredOn"), ("", "")) else { return };
        at.event(key, &Said { time, kind: EventKind::Medication, code, display, value: Value::None });
    });
}

pub(crate) fn medication_administration(given: &MedicationTaken<'_>, at: &mut At<'_>) {
    if at.status(given.status.as_ref(), "status", &["not-done", "entered-in-error", "unknown"]) {
        taken(given, at);
    }
}

pub(crate) fn medication_statement(statement: &MedicationTaken<'_>, at: &mut At<'_>) {
    if at.status(statement.status.as_ref(), "status", &["not-taken", "intended", "entered-in-error", "unknown"]) {
        taken(statement, at);
    }
}

/// Counts from its start, which is known as it happens, or from when it was asserted.
fn taken(taken: &MedicationTaken<'_>, at: &mut At<'_>) {
    let Some(key) = at.subject(taken.subject.as_ref()) else { return };
    drug(taken.concept.as_ref(), taken.reference.as_ref(), &taken.contained, at, |code, display, at| {
        let effective = first(&[
            (text(taken.effective.as_ref()), "effectiveDateTime"),
            (text(taken.effective_period.as_ref().and_then(|p| p.start.as_ref())), "effectivePeriod"),
        ]);
        let asserted = if at.origin == Origin::MedicationStatement { text(taken.asserted.as_ref()) } else { "" };
        let Some((time, _)) = at.known(effective, (asserted, "dateAsserted")) else { return };
        at.event(key, &Said { time, kind: EventKind::Medication, code, display, value: Value::None });
    });
}
