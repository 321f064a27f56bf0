//! Numbers, times and treatments at the edges of their windows.

use synovia_cohort::{EventKind, EventPattern, EventValue, Patient, PatientRecord, Time};

use super::{event, record};
use crate::{EndpointSpec, LabelOutcome, LabelSpec, Outcome, Rules};

/// Rules of a cohort: labels as they are, a gap, and a competing event on a day.
#[derive(Clone, Copy, Default)]
struct Plain {
    gap: f64,
    competes: Option<f64>,
}

fn day(d: f64) -> Time {
    Time::from_seconds(0).plus_days(d)
}

impl Rules for Plain {
    fn label(&self, spec: &LabelSpec, record: &PatientRecord, at: Time) -> Result<f32, String> {
        match spec.label(record, at) {
            LabelOutcome::Known(label) => Ok(label),
            LabelOutcome::Unknown(reason) => Err(reason.to_owned()),
        }
    }

    fn gap_days(&self) -> f64 {
        self.gap
    }

    fn competes(&self, _: &PatientRecord, at: Time) -> Option<Time> {
        self.competes.map(day).filter(|time| *time > at)
    }
}

fn number(value: f64) -> EventValue {
    EventValue::Number { value, unit: "g/dL".into() }
}

/// What a spec gives at day 100: two numbers, or the first words of why not.
#[track_caller]
fn check(spec: &EndpointSpec, rules: Plain, record: &PatientRecord, expect: Result<[f32; 2], &str>) {
    match (spec.value(record, day(100.0), &rules), expect) {
        (Ok(got), Ok(expected)) => assert_eq!(got, expected),
        (Err(why), Err(expected)) => assert!(why.starts_with(expected), "{why}, not {expected}"),
        (got, expected) => panic!("{got:?}, not {expected:?}"),
    }
}

#[test]
fn a_number_is_the_first_after_the_gap() {
    let spec = EndpointSpec::Observation { code: "s|hb".to_owned(), within_days: 30.0, unit: "g/dL".to_owned() };
    let of = |days: &[(f64, f64)]| {
        record(Patient::default(), days.iter().map(|&(d, x)| event(d, EventKind::Observation, "s|hb", number(x))).collect())
    };
    let plain = Plain::default();
    check(&spec, plain, &of(&[(100.0, 9.0), (110.0, 11.0), (120.0, 12.0)]), Ok([11.0, 0.0]));
    check(&spec, Plain { gap: 15.0, ..plain }, &of(&[(110.0, 11.0), (120.0, 12.0)]), Ok([12.0, 0.0]));
    check(&spec, plain, &of(&[(100.0, 9.0), (131.0, 13.0)]), Err("no number"));
    // What has another unit is converted, or passed over.
    let in_units = |units: &[&str]| {
        let number = |unit: &str| EventValue::Number { value: 120.0, unit: unit.into() };
        let events = units.iter().enumerate().map(|(k, unit)| event(110.0 + k as f64, EventKind::Observation, "s|hb", number(unit)));
        record(Patient::default(), events.collect())
    };
    check(&spec, plain, &in_units(&["g/L"]), Ok([12.0, 0.0]));
    check(&spec, plain, &in_units(&["mm", "g/L"]), Ok([12.0, 0.0]));
    check(&spec, plain, &in_units(&["mm"]), Err("no number"));
}

#[test]
fn time_to_an_event_or_to_the_end_of_what_is_known() {
    let spec = |kind| EndpointSpec::Event { pattern: EventPattern { kind, code: "s|c".to_owned() }, within_days: 50.0 };
    let of = |kind, events: &[f64], last: f64, death: Option<f64>| {
        let mut all: Vec<_> = events.iter().map(|&d| event(d, kind, "s|c", EventValue::None)).collect();
        all.push(event(last, EventKind::Observation, "s|other", EventValue::None));
        record(Patient { death: death.map(day), ..Patient::default() }, all)
    };
    let (plain, stay) = (Plain::default(), EventKind::Encounter);
    check(&spec(stay), plain, &of(stay, &[90.0, 120.0, 130.0], 140.0, None), Ok([20.0, 1.0]));
    check(&spec(stay), plain, &of(stay, &[151.0], 200.0, None), Ok([50.0, 0.0]));
    check(&spec(stay), plain, &of(stay, &[], 130.0, None), Ok([30.0, 0.0]));
    check(&spec(stay), plain, &of(stay, &[], 90.0, None), Err("nothing is known"));
    // A death ends what can be seen, and so does a competing event; at the same moment the event counts.
    check(&spec(stay), plain, &of(stay, &[], 120.0, Some(110.0)), Ok([10.0, 0.0]));
    check(&spec(stay), Plain { competes: Some(115.0), ..plain }, &of(stay, &[120.0], 140.0, None), Ok([15.0, 0.0]));
    check(&spec(stay), Plain { competes: Some(120.0), ..plain }, &of(stay, &[120.0], 140.0, None), Ok([20.0, 1.0]));
    // Nothing counts in the gap, and nothing that stops the watching there.
    let gap = Plain { gap: 15.0, ..plain };
    check(&spec(stay), gap, &of(stay, &[110.0, 120.0], 140.0, None), Ok([5.0, 1.0]));
    check(&spec(stay), Plain { competes: Some(110.0), ..gap }, &of(stay, &[120.0], 140.0, None), Err("a competing event in the gap"));
    // Known in the window, there before it.
    let known_late = event(120.0, EventKind::Condition, "s|c", EventValue::Number { value: 30.0, unit: "d".into() });
    check(&spec(EventKind::Condition), plain, &record(Patient::default(), vec![known_late]), Err("the event was there"));
    // A condition comes once.
    let condition = EventKind::Condition;
    check(&spec(condition), plain, &of(condition, &[90.0, 120.0], 140.0, None), Err("the event was there"));
    check(&spec(condition), plain, &of(condition, &[120.0], 140.0, None), Ok([20.0, 1.0]));
    // Death itself, by the patient's own entry; who dies later was alive until then.
    let death = EventKind::Death;
    check(&spec(death), plain, &of(stay, &[], 90.0, Some(130.0)), Ok([30.0, 1.0]));
    check(&spec(death), plain, &of(stay, &[], 90.0, Some(400.0)), Ok([50.0, 0.0]));
    check(&spec(death), plain, &of(stay, &[], 120.0, None), Ok([20.0, 0.0]));
}

#[test]
fn an_outcome_is_counted_from_its_treatment_on() {
    let outcome =
        LabelSpec::Observation { code: "s|q".to_owned(), within_days: 60.0, classes: vec!["s|no".to_owned(), "s|yes".to_owned()] };
    let spec = EndpointSpec::Treated { outcome: Outcome::Binary(outcome), arms: ["s|a".to_owned(), "s|b".to_owned()], within_days: 20.0 };
    assert_eq!(spec.days(), Some(80.0));
    let answer = |d: f64, code: &str| event(d, EventKind::Observation, "s|q", EventValue::Code(code.into()));
    let drug = |d: f64, code: &str| event(d, EventKind::Medication, code, EventValue::None);
    let plain = Plain::default();
    let of = |events: Vec<_>| record(Patient::default(), events);
    check(&spec, plain, &of(vec![drug(105.0, "s|a"), answer(150.0, "s|yes")]), Ok([1.0, 0.0]));
    check(&spec, plain, &of(vec![drug(105.0, "s|b"), answer(150.0, "s|no")]), Ok([0.0, 1.0]));
    // What was said before the treatment is not its outcome.
    check(&spec, plain, &of(vec![answer(102.0, "s|no"), drug(105.0, "s|b"), answer(165.0, "s|yes")]), Ok([1.0, 1.0]));
    check(&spec, plain, &of(vec![drug(105.0, "s|b"), answer(166.0, "s|yes")]), Err("no answer"));
    // Who changes is of the treatment that was begun.
    check(&spec, plain, &of(vec![drug(105.0, "s|a"), drug(110.0, "s|b"), answer(150.0, "s|yes")]), Ok([1.0, 0.0]));
    check(&spec, plain, &of(vec![drug(105.0, "s|a"), drug(105.0, "s|b"), answer(150.0, "s|yes")]), Err("both"));
    check(&spec, plain, &of(vec![drug(90.0, "s|a"), drug(121.0, "s|b"), answer(150.0, "s|yes")]), Err("neither"));
}

#[test]
fn columns_of_a_table() {
    let of = |facts: &[(&str, EventValue)]| {
        let facts = facts.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        record(Patient { facts, ..Patient::default() }, Vec::new())
    };
    let plain = Plain::default();
    let days = EndpointSpec::Columns { days: "days".to_owned(), event: "died".to_owned() };
    check(&days, plain, &of(&[("days", number(12.5)), ("died", number(1.0))]), Ok([12.5, 1.0]));
    check(&days, plain, &of(&[("days", number(-1.0)), ("died", number(1.0))]), Err("days below 0"));
    check(&days, plain, &of(&[("days", number(12.5)), ("died", number(2.0))]), Err("the column is neither"));
    check(&days, plain, &of(&[("days", number(12.5))]), Err("the column is empty"));
    // A column that another task compares as a text.
    check(&days, plain, &of(&[("days", number(12.5)), ("died", EventValue::Code("1".into()))]), Ok([12.5, 1.0]));
    let outcome = Outcome::Number(Box::new(EndpointSpec::Column { name: "y".to_owned() }));
    let treated = EndpointSpec::TreatedFact { outcome, treatment: "t".to_owned() };
    check(&treated, plain, &of(&[("y", number(3.5)), ("t", number(0.0))]), Ok([3.5, 0.0]));
    check(&treated, plain, &of(&[("y", EventValue::Code("x".into())), ("t", number(0.0))]), Err("the column's value"));
}
