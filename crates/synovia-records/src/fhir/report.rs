//! Reports and imaging studies.

use synovia_cohort::{Event, EventKind, EventValue, StudyLink, Time};

use super::convert::{At, end_of, first};
use super::element::{CodeableConcept, text};
use super::resource::{DiagnosticReport, ImagingStudy};
use crate::spill::{Body, Origin};

/// A report, its text, and each coded conclusion as an event of the report's code whose value is the conclusion.
pub(crate) fn diagnostic_report(report: &DiagnosticReport<'_>, at: &mut At<'_>) {
    at.sink.taken("DiagnosticReport");
    if !at.status(report.status.as_ref(), "DiagnosticReport.status", &["registered", "cancelled", "entered-in-error", "unknown"]) {
        return;
    }
    let Some(key) = at.subject(report.subject.as_ref(), Origin::DiagnosticReport) else { return };
    let Some((code, display)) = at.code(report.code.as_ref(), "DiagnosticReport.code") else { return };
    let effective = first(&[
        (text(report.effective.as_ref()), "DiagnosticReport.effectiveDateTime"),
        (end_of(report.effective_period.as_ref()), "DiagnosticReport.effectivePeriod"),
    ]);
    let Some((time, _)) = at.known(effective, (text(report.issued.as_ref()), "DiagnosticReport.issued")) else { return };
    let mut words = text(report.conclusion.as_ref()).to_owned();
    for form in &report.presented_form {
        // Only plain text: what a PDF or an image says is another program's business, and the report is an event without it.
        if !text(form.content_type.as_ref()).starts_with("text/plain") || form.data.is_none() {
            continue;
        }
        match base64(text(form.data.as_ref())).and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(form) if words.is_empty() => words = form,
            Some(form) => {
                words.push('\n');
                words.push_str(&form);
            }
            None => at.trouble("DiagnosticReport.presentedForm", "text that is not base64 of UTF-8"),
        }
    }
    let value = if words.is_empty() { EventValue::None } else { EventValue::Text(words.into()) };
    let mut event = Event { time, kind: EventKind::Report, code: code.into(), display: display.into(), value };
    at.event(key, Origin::DiagnosticReport, &event);
    for (conclusion, _) in report.conclusion_code.iter().filter_map(CodeableConcept::token) {
        event.value = EventValue::Code(conclusion.into());
        at.event(key, Origin::DiagnosticReport, &event);
    }
}

/// A link to the images by their Study Instance UID (R4 ImagingStudy.identifier: system `urn:dicom:uid`, value `urn:oid:…`),
/// and an event of its modality.
pub(crate) fn imaging_study(study: &ImagingStudy<'_>, at: &mut At<'_>) {
    at.sink.taken("ImagingStudy");
    if !at.status(study.status.as_ref(), "ImagingStudy.status", &["registered", "cancelled", "entered-in-error", "unknown"]) {
        return;
    }
    let Some(key) = at.subject(study.subject.as_ref(), Origin::ImagingStudy) else { return };
    let started = first(&[
        (text(study.started.as_ref()), "ImagingStudy.started"),
        (study.series.iter().map(|s| text(s.started.as_ref())).find(|s| !s.is_empty()).unwrap_or_default(), "ImagingStudy.series.started"),
    ]);
    let time = at.known(started, ("", "")).map(|(time, _)| time);
    // A study that began "on a day" did so at some time of it; only an exact time can be compared with the images'.
    let exact = started.0.contains('T').then_some(time).flatten();
    let uid = study.identifier.iter().find_map(|identifier| {
        let value = text(identifier.value.as_ref());
        let uid = value.strip_prefix("urn:oid:").or_else(|| (text(identifier.system.as_ref()) == "urn:dicom:uid").then_some(value))?;
        is_uid(uid).then_some(uid)
    });
    match uid {
        Some(uid) => {
            let link = StudyLink { study_instance_uid: uid.to_owned(), started: exact };
            at.sink.push(key, Origin::ImagingStudy, &Body::Study(&link));
        }
        None => at.trouble("ImagingStudy.identifier", "no Study Instance UID (urn:oid:…): no image can be linked"),
    }
    let Some(time) = time else { return };
    imaging_event(study, key, time, at);
}

fn imaging_event(study: &ImagingStudy<'_>, key: &str, time: Time, at: &mut At<'_>) {
    let mut codings = study.modality.iter().chain(study.series.iter().filter_map(|s| s.modality.as_ref()));
    let coding = codings.find_map(|c| Some((c.token()?, text(c.display.as_ref().or(c.code.as_ref())))));
    let Some((code, display)) = coding else {
        return at.trouble("ImagingStudy.modality", "no coding with a code");
    };
    let event = Event { time, kind: EventKind::Imaging, code: code.into(), display: display.into(), value: EventValue::None };
    at.event(key, Origin::ImagingStudy, &event);
}

/// DICOM PS3.5 §9.1: digits and full stops, at most 64.
fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.starts_with(|c: char| c.is_ascii_digit())
}

/// RFC 4648 §4, white space passed over; `None` for anything else.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut n_bits) = (0u32, 0);
    let mut padding = false;
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let digit = match byte {
            b'=' => {
                padding = true;
                continue;
            }
            _ if padding => return None,
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            out.push((bits >> n_bits) as u8);
            bits &= (1 << n_bits) - 1;
        }
    }
    // Fewer than six bits may be left over, and they are zero.
    (n_bits < 6 && bits == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        // RFC 4648 §10.
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(coded).as_deref(), Some(plain.as_bytes()), "{coded}");
        }
        for bad in ["Zg=x", "Z", "Zm9v!", "Zh=="] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn uids() {
        assert!(is_uid("1.2.840.113619.2"));
        for bad in ["", "urn", "1.2.x", ".1", &"1".repeat(65)] {
            assert!(!is_uid(bad), "{bad}");
        }
    }
}
