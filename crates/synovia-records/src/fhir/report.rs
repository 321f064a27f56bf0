//! Reports, documents and imaging studies.

use synovia_cohort::{EventKind, StudyLink, Time};

use super::convert::{At, end_of, first};
use super::element::{Identifier, text};
use super::markup::{base64, plain_text};
use super::resource::{Attachment, DiagnosticReport, DocumentReference, ImagingStudy};
use crate::spill::{Body, Said, Value};

/// The words of an attachment; `None`, and a rejection, for one that is no text (what a PDF or an image says is another
/// program's business) or that can't be read. One without content has nothing to say.
fn attached(attachment: &Attachment<'_>, element: &str, at: &mut At<'_>) -> Option<String> {
    let kind = text(attachment.content_type.as_ref()).to_ascii_lowercase();
    let markup = ["text/html", "application/xhtml+xml", "text/xhtml"].iter().any(|m| kind.starts_with(m));
    if attachment.data.is_none() && attachment.url.is_none() {
        return None;
    }
    if !markup && !kind.starts_with("text/plain") {
        let reason =
            if kind.is_empty() { "no contentType: expected text/plain or text/html" } else { "an attachment that is no text: not read" };
        at.trouble(element, reason);
        return None;
    }
    if attachment.data.is_none() {
        at.trouble(element, "a text at an address: not fetched");
        return None;
    }
    let words = base64(text(attachment.data.as_ref())).and_then(|bytes| String::from_utf8(bytes).ok());
    if words.is_none() {
        at.trouble(element, "text that is not base64 of UTF-8");
    }
    words.map(|words| if markup { plain_text(&words) } else { words })
}

fn append(words: &mut String, more: &str) {
    if !words.is_empty() && !more.is_empty() {
        words.push('\n');
    }
    words.push_str(more);
}

/// A report, its text, and each coded conclusion as an event of the report's code whose value is the conclusion. The
/// narrative that a server makes of a resource is read only where there is no other text.
pub(crate) fn diagnostic_report(report: &DiagnosticReport<'_>, at: &mut At<'_>) {
    if !at.status(report.status.as_ref(), "status", &["registered", "cancelled", "entered-in-error", "unknown"]) {
        return;
    }
    let Some(key) = at.subject(report.subject.as_ref()) else { return };
    let Some((code, display)) = at.code(report.code.as_ref(), "code") else { return };
    let effective =
        first(&[(text(report.effective.as_ref()), "effectiveDateTime"), (end_of(report.effective_period.as_ref()), "effectivePeriod")]);
    let Some((time, _)) = at.known(effective, (text(report.issued.as_ref()), "issued")) else { return };
    let mut words = text(report.conclusion.as_ref()).to_owned();
    for form in &report.presented_form {
        if let Some(form) = attached(form, "presentedForm", at) {
            append(&mut words, &form);
        }
    }
    if words.is_empty()
        && let Some(narrative) = report.text.as_ref().filter(|narrative| text(narrative.status.as_ref()) != "empty")
    {
        words = plain_text(text(narrative.div.as_ref()));
    }
    let value = if words.is_empty() { Value::None } else { Value::Text(&words) };
    at.event(key, &Said { time, kind: EventKind::Report, code, display, value });
    for (k, conclusion) in report.conclusion_code.iter().enumerate() {
        let Some((conclusion, _)) = conclusion.token() else {
            at.trouble(&format!("conclusionCode[{k}]"), "no coding with a code");
            continue;
        };
        at.event(key, &Said { time, kind: EventKind::Report, code, display, value: Value::Code(conclusion) });
    }
}

/// A note: a report whose code is the document's type.
pub(crate) fn document_reference(document: &DocumentReference<'_>, at: &mut At<'_>) {
    if !at.status(document.status.as_ref(), "status", &["superseded", "entered-in-error"])
        || !at.status(document.doc_status.as_ref(), "docStatus", &["entered-in-error"])
    {
        return;
    }
    let Some(key) = at.subject(document.subject.as_ref()) else { return };
    let Some((code, display)) = at.code(document.kind.as_ref(), "type") else { return };
    let Some((time, _)) = at.known((text(document.date.as_ref()), "date"), ("", "")) else { return };
    let mut words = String::new();
    for attachment in document.content.iter().filter_map(|content| content.attachment.as_ref()) {
        if let Some(more) = attached(attachment, "content.attachment", at) {
            append(&mut words, &more);
        }
    }
    let value = if words.is_empty() { Value::None } else { Value::Text(&words) };
    at.event(key, &Said { time, kind: EventKind::Report, code, display, value });
}

/// Whether an identifier is an accession number (HL7 v2 table 0203 `ACSN`).
fn is_accession(identifier: &Identifier<'_>) -> bool {
    identifier.kind.as_ref().is_some_and(|kind| kind.has(&["ACSN"]))
}

/// A link to the images by their Study Instance UID (R4 ImagingStudy.identifier: system `urn:dicom:uid`, value `urn:oid:…`), their
/// accession number (identifier of type `ACSN`) or their time, and an event of its modality.
pub(crate) fn imaging_study(study: &ImagingStudy<'_>, at: &mut At<'_>) {
    if !at.status(study.status.as_ref(), "status", &["registered", "cancelled", "entered-in-error", "unknown"]) {
        return;
    }
    let Some(key) = at.subject(study.subject.as_ref()) else { return };
    let started = first(&[
        (text(study.started.as_ref()), "started"),
        (study.series.iter().map(|s| text(s.started.as_ref())).find(|s| !s.is_empty()).unwrap_or_default(), "series.started"),
    ]);
    let time = at.known(started, ("", "")).map(|(time, _)| time);
    // A study that began "on a day" did so at some time of it; only an exact time can be compared with the images'.
    let exact = started.0.contains('T').then_some(time).flatten();
    let uid = study.identifier.iter().find_map(|identifier| {
        let value = text(identifier.value.as_ref());
        let uid = value.strip_prefix("urn:oid:").or_else(|| (text(identifier.system.as_ref()) == "urn:dicom:uid").then_some(value))?;
        is_uid(uid).then_some(uid)
    });
    let accession = study.identifier.iter().find(|identifier| is_accession(identifier)).map_or("", |i| text(i.value.as_ref()));
    if uid.is_none() && accession.is_empty() && exact.is_none() {
        at.trouble("identifier", "no Study Instance UID (urn:oid:…), no accession number (ACSN), no exact time: no image can be linked");
    } else {
        let study_instance_uid = uid.unwrap_or_default().to_owned();
        let link = StudyLink { study_instance_uid, accession: accession.to_owned(), started: exact };
        at.sink.push(key, at.origin, &Body::Study(&link));
    }
    let Some(time) = time else { return };
    imaging_event(study, key, time, at);
}

fn imaging_event(study: &ImagingStudy<'_>, key: &str, time: Time, at: &mut At<'_>) {
    let mut codings = study.modality.iter().chain(study.series.iter().filter_map(|s| s.modality.as_ref()));
    let coding = codings.find_map(|c| Some((c.token()?, text(c.display.as_ref().or(c.code.as_ref())))));
    let Some((code, display)) = coding else {
        return at.trouble("modality", "no coding with a code");
    };
    at.event(key, &Said { time, kind: EventKind::Imaging, code, display, value: Value::None });
}

/// DICOM PS3.5 §9.1: digits and full stops, at most 64.
fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids() {
        assert!(is_uid("1.2.840.113619.2"));
        for bad in ["", "urn", "1.2.x", ".1", &"1".repeat(65)] {
            assert!(!is_uid(bad), "{bad}");
        }
    }
}
