//! Labels at the edges of their windows.

use synovia_cohort::{EventKind, EventValue, Patient, Time};

use super::{event, record};
use crate::{LabelOutcome, LabelSpec};

const CODE: &str = "s|cancer";

/// The label at day 100 within 50 days, of a record with the condition at these (day known, days there before) and contacts
/// at these days.
fn label(conditions: &[(f64, f64)], contacts: &[f64], death: Option<f64>) -> LabelOutcome {
    let spec = LabelSpec::Condition { code: CODE.to_owned(), within_days: 50.0 };
    let day = |d: f64| Time::from_seconds(0).plus_days(d);
    let mut events: Vec<_> = contacts.iter().map(|&d| event(d, EventKind::Encounter, "AMB", EventValue::None)).collect();
    for &(known, delay) in conditions {
        let value = if delay > 0.0 { EventValue::Number { value: delay, unit: "d".into() } } else { EventValue::None };
        events.push(event(known, EventKind::Condition, CODE, value));
        events.push(event(known, EventKind::Condition, "s|other", EventValue::None));
    }
    spec.label(&record(Patient { death: death.map(day), ..Patient::default() }, events), day(100.0))
}

#[track_caller]
fn check(conditions: &[(f64, f64)], contacts: &[f64], death: Option<f64>, expect: &str) {
    let got = match label(conditions, contacts, death) {
        LabelOutcome::Known(x) => x.to_string(),
        LabelOutcome::Unknown(reason) => reason.to_owned(),
    };
    assert!(got.starts_with(expect), "{got}, not {expect}");
}

#[test]
fn a_condition_in_the_window() {
    let second = 1.0 / 86_400.0;
    check(&[(100.0 + second, 0.0)], &[], None, "1");
    check(&[(150.0, 0.0)], &[], None, "1");
    check(&[(150.0 + second, 0.0)], &[], None, "0");
    check(&[(120.0, 0.0), (140.0, 0.0)], &[10.0], None, "1");
}

#[test]
fn a_condition_that_was_there() {
    check(&[(100.0, 0.0)], &[300.0], None, "prevalent");
    check(&[(20.0, 0.0), (120.0, 0.0)], &[300.0], None, "prevalent");
    // Known in the window, there before it.
    check(&[(120.0, 20.0)], &[300.0], None, "prevalent");
    check(&[(120.0, 19.9)], &[300.0], None, "1");
    // "In 2019", written down in 2020: it may have been there.
    check(&[(425.0, 425.0)], &[500.0], None, "prevalent");
}

#[test]
fn no_condition_needs_follow_up() {
    let second = 1.0 / 86_400.0;
    check(&[], &[150.0], None, "0");
    check(&[], &[150.0 - second], None, "no follow-up");
    check(&[], &[], None, "no follow-up");
}

#[test]
fn death_competes() {
    check(&[], &[90.0], Some(140.0), "died");
    // An entry after a death before the end (a bill, a certificate) is no follow-up of the living.
    check(&[], &[160.0], Some(140.0), "died");
    check(&[], &[160.0], Some(155.0), "0");
    check(&[(130.0, 0.0)], &[], Some(140.0), "1");
}

#[test]
fn the_first_answer_in_the_window_is_the_class() {
    let spec = LabelSpec::Observation {
        code: "s|stage".to_owned(),
        within_days: 60.0,
        classes: ["s|I", "s|II", "s|III"].map(str::to_owned).to_vec(),
    };
    let label = |answers: &[(f64, &str)]| {
        let events = answers.iter().map(|&(d, a)| event(d, EventKind::Observation, "s|stage", EventValue::Code(a.into()))).collect();
        spec.label(&record(Patient::default(), events), Time::from_seconds(0).plus_days(100.0))
    };
    assert_eq!(label(&[(90.0, "s|I"), (110.0, "s|III"), (120.0, "s|II")]), LabelOutcome::Known(2.0));
    assert_eq!(label(&[(160.0, "s|II")]), LabelOutcome::Known(1.0));
    assert_eq!(label(&[(100.0, "s|II"), (160.1, "s|II")]), LabelOutcome::Unknown("no answer in the window"));
    assert_eq!(label(&[(110.0, "s|IV")]), LabelOutcome::Unknown("the answer is none of the classes"));
}

#[test]
fn a_report_concludes_or_does_not() {
    let spec = LabelSpec::Conclusion { report: "s|xray".to_owned(), conclusion: "s|effusion".to_owned(), within_days: 2.0 };
    let said = |conclusion: &str| EventValue::Code(conclusion.into());
    let text = || EventValue::Text("No effusion.".into());
    let check = |events: &[(f64, EventKind, &str, EventValue)], expected: LabelOutcome| {
        let events = events.iter().map(|(day, kind, code, value)| event(*day, *kind, code, value.clone())).collect();
        assert_eq!(spec.label(&record(Patient::default(), events), Time::from_seconds(0).plus_days(100.0)), expected);
    };
    let none = LabelOutcome::Unknown("no report in the window");
    check(&[(101.0, EventKind::Report, "s|xray", text())], LabelOutcome::Known(0.0));
    let both = [
        (101.0, EventKind::Report, "s|xray", text()),
        (101.0, EventKind::Report, "s|xray", said("s|fracture")),
        (101.0, EventKind::Report, "s|xray", said("s|effusion")),
    ];
    check(&both, LabelOutcome::Known(1.0));
    check(&both[..2], LabelOutcome::Known(0.0));
    // Another kind of report, an observation of the report's code, and what lies outside the window are none.
    check(&[(101.0, EventKind::Report, "s|ct", said("s|effusion"))], none);
    check(&[(101.0, EventKind::Observation, "s|xray", said("s|effusion"))], none);
    check(&[(100.0, EventKind::Report, "s|xray", said("s|effusion")), (102.1, EventKind::Report, "s|xray", text())], none);
}

#[test]
fn columns() {
    let number = |value| EventValue::Number { value, unit: "".into() };
    let patient = Patient { facts: vec![("CDR".into(), number(0.5)), ("sex".into(), EventValue::Code("F".into()))], ..Patient::default() };
    let record = record(patient, Vec::new());
    let label = |spec: &LabelSpec| spec.label(&record, Time::from_seconds(0));
    let column =
        |name: &str, above, equals: Option<&str>| LabelSpec::Column { name: name.to_owned(), above, equals: equals.map(str::to_owned) };
    assert_eq!(label(&column("CDR", Some(0.0), None)), LabelOutcome::Known(1.0));
    assert_eq!(label(&column("CDR", Some(0.5), None)), LabelOutcome::Known(0.0));
    assert_eq!(label(&column("sex", None, Some("F"))), LabelOutcome::Known(1.0));
    assert_eq!(label(&column("sex", None, Some("M"))), LabelOutcome::Known(0.0));
    assert_eq!(label(&column("MMSE", Some(0.0), None)), LabelOutcome::Unknown("the column is empty"));
    assert_eq!(label(&column("sex", Some(0.0), None)), LabelOutcome::Unknown("the column's value can't be compared"));
    let category = LabelSpec::Category { name: "CDR".to_owned(), classes: vec!["0".to_owned(), "0.5".to_owned()] };
    assert_eq!(label(&category), LabelOutcome::Known(1.0));
}

#[test]
fn a_label_is_written_as_it_is_read() {
    let spec = LabelSpec::Condition { code: CODE.to_owned(), within_days: 180.0 };
    let text = serde_json::to_string(&spec).unwrap();
    assert_eq!(text, r#"{"condition":{"code":"s|cancer","within_days":180.0}}"#);
    assert_eq!(serde_json::from_str::<LabelSpec>(&text).unwrap(), spec);
}
