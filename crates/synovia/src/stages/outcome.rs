//! A prediction's label: its window after a gap, a record that ends too early, and what may come first.

use synovia_cohort::{Event, EventKind, EventPattern, EventValue, PatientRecord, Time};
use synovia_records::{EndpointSpec, LabelOutcome, LabelSpec, Rules};

use crate::pipeline::{Cohort, TimeSpan, Unheard};

/// How labels are read.
#[derive(Clone, Debug)]
pub struct Outcomes {
    gap_days: f64,
    censored: Unheard,
    competing: Vec<Competing>,
}

#[derive(Clone, Debug)]
struct Competing {
    pattern: EventPattern,
    counts_as: Unheard,
    reason: String,
}

impl Competing {
    /// When it first happened in (`at`, `end`].
    fn first(&self, record: &PatientRecord, at: Time, end: Time) -> Option<Time> {
        let events = record.events.iter().filter(|event| self.pattern.matches(event)).map(|event| event.time);
        let death = record.patient.death.filter(|_| self.pattern.kind == EventKind::Death);
        events.chain(death).filter(|time| *time > at && *time <= end).min()
    }
}

impl Outcomes {
    /// Of a pipeline's cohort.
    pub fn of(cohort: &Cohort) -> Self {
        let competing = |event: &crate::pipeline::Competing| Competing {
            pattern: event.event.0.clone(),
            counts_as: event.counts_as,
            reason: format!("competing event before the outcome: {}", event.described()),
        };
        Self {
            gap_days: cohort.gap.map_or(0.0, TimeSpan::days),
            censored: cohort.censored,
            competing: cohort.competing.iter().map(competing).collect(),
        }
    }

    /// Days after the prediction that the longest of these labels looks at.
    pub fn longest_days(&self, specs: &[LabelSpec], endpoints: &[EndpointSpec]) -> f64 {
        let of_labels = specs.iter().filter_map(LabelSpec::within_days);
        // Who is watched for a shorter time is censored, and no less an example.
        let of_endpoints = endpoints.iter().filter(|spec| !matches!(spec, EndpointSpec::Event { .. })).filter_map(EndpointSpec::days);
        of_labels.chain(of_endpoints).map(|days| days + self.gap_days).fold(0.0, f64::max)
    }

    /// The label of a prediction at `at`, or why nobody knows it. The window begins after the gap; an outcome in the gap was
    /// there when the window began, so that the label is unknown. When a competing event comes before the outcome and before the
    /// window's end, the label is what that event counts as.
    pub fn label(&self, spec: &LabelSpec, record: &PatientRecord, at: Time) -> Result<f32, String> {
        let start = at.plus_days(self.gap_days);
        let known = |outcome| match outcome {
            LabelOutcome::Known(label) => Ok(label),
            LabelOutcome::Unknown(reason) => Err(reason.to_owned()),
        };
        let Some(within) = spec.within_days() else { return known(spec.label(record, start)) };
        let end = start.plus_days(within);
        let is_condition = matches!(spec, LabelSpec::Condition { .. });
        // What was not found yet could still have come.
        let is_open = is_condition || matches!(spec, LabelSpec::Conclusion { .. });
        let first = self.competing.iter().filter_map(|event| Some((event.first(record, at, end)?, event))).min_by_key(|(time, _)| *time);
        if let Some((time, event)) = first {
            return match spec.label(&heard_of_until(record, time, end), start) {
                LabelOutcome::Known(label) if label > 0.0 || !is_open => Ok(label),
                LabelOutcome::Unknown(reason) if is_condition => Err(reason.to_owned()),
                _ if is_open && event.counts_as == Unheard::Negative => Ok(0.0),
                _ => Err(event.reason.clone()),
            };
        }
        let label = spec.label(record, start);
        let ends_early = record.events.last().is_none_or(|last| last.time < end);
        if is_condition && ends_early && self.censored == Unheard::Negative && matches!(label, LabelOutcome::Unknown(_)) {
            let mut record = record.clone();
            record.events.push(word(end));
            return known(spec.label(&record, start));
        }
        known(label)
    }
}

impl Rules for Outcomes {
    fn label(&self, spec: &LabelSpec, record: &PatientRecord, at: Time) -> Result<f32, String> {
        self.label(spec, record, at)
    }

    fn gap_days(&self) -> f64 {
        self.gap_days
    }

    fn competes(&self, record: &PatientRecord, at: Time) -> Option<Time> {
        let end = at.plus_days(f64::from(u16::MAX));
        self.competing.iter().filter_map(|event| event.first(record, at, end)).min()
    }
}

/// The record as if nothing had happened after `until`, and the patient had been well at `end`.
fn heard_of_until(record: &PatientRecord, until: Time, end: Time) -> PatientRecord {
    let mut record = record.clone();
    record.patient.death = None;
    record.events.retain(|event| event.time <= until && event.kind != EventKind::Death);
    record.events.push(word(end));
    record
}

/// An event that says nothing but that the record goes on.
fn word(time: Time) -> Event {
    Event { time, kind: EventKind::Encounter, code: "".into(), display: "".into(), value: EventValue::None }
}

#[cfg(test)]
mod tests {
    use synovia_cohort::{Patient, PatientId};

    use super::*;

    const DAY: i64 = 86_400;

    fn outcomes(gap_days: f64, censored: Unheard, competing: &[(EventKind, Unheard)]) -> Outcomes {
        let competing = competing.iter().map(|(kind, counts_as)| Competing {
            pattern: EventPattern { kind: *kind, code: synovia_cohort::ANY_CODE.to_owned() },
            counts_as: *counts_as,
            reason: "competing".to_owned(),
        });
        Outcomes { gap_days, censored, competing: competing.collect() }
    }

    /// The label on day 0, with a window of 100 days, of a patient with a condition, a procedure and a death on these days,
    /// whose record ends on another.
    #[track_caller]
    fn check(outcomes: &Outcomes, [condition, procedure, death]: [Option<i64>; 3], last: i64, expected: &str) {
        let event = |kind, day: i64| Event {
            time: Time::from_seconds(day * DAY),
            kind,
            code: "s|c".into(),
            display: "".into(),
            value: EventValue::None,
        };
        let mut events = vec![event(EventKind::Encounter, -10), event(EventKind::Encounter, last)];
        events.extend(condition.map(|day| event(EventKind::Condition, day)));
        events.extend(procedure.map(|day| event(EventKind::Procedure, day)));
        events.sort_by_key(|event| event.time);
        let patient = Patient { death: death.map(|day| Time::from_seconds(day * DAY)), ..Patient::default() };
        let record = PatientRecord { id: PatientId::new("p"), patient, events, studies: vec![] };
        let spec = LabelSpec::Condition { code: "s|c".to_owned(), within_days: 100.0 };
        let found = match outcomes.label(&spec, &record, Time::from_seconds(0)) {
            Ok(label) => label.to_string(),
            Err(reason) => reason.split([':', ' ']).next().unwrap_or_default().to_owned(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_report_after_a_competing_event_does_not_count() {
        let report = |day: i64, value| Event {
            time: Time::from_seconds(day * DAY),
            kind: EventKind::Report,
            code: "s|xray".into(),
            display: "".into(),
            value,
        };
        let spec = LabelSpec::Conclusion { report: "s|xray".to_owned(), conclusion: "s|c".to_owned(), within_days: 100.0 };
        let check = |counts_as: Unheard, death: Option<i64>, events: Vec<Event>, expected: Result<f32, &str>| {
            let patient = Patient { death: death.map(|day| Time::from_seconds(day * DAY)), ..Patient::default() };
            let record = PatientRecord { id: PatientId::new("p"), patient, events, studies: vec![] };
            let label = outcomes(0.0, Unheard::Unknown, &[(EventKind::Death, counts_as)]).label(&spec, &record, Time::from_seconds(0));
            assert_eq!(label, expected.map_err(str::to_owned));
        };
        let (without, with) = (|day| report(day, EventValue::Text("".into())), |day| report(day, EventValue::Code("s|c".into())));
        check(Unheard::Unknown, None, vec![without(10)], Ok(0.0));
        check(Unheard::Unknown, Some(20), vec![with(10)], Ok(1.0));
        check(Unheard::Unknown, Some(20), vec![without(10)], Err("competing"));
        check(Unheard::Negative, Some(20), vec![without(10)], Ok(0.0));
        check(Unheard::Unknown, Some(20), vec![without(10), with(30)], Err("competing"));
    }

    #[test]
    fn gaps_ends_and_what_comes_first() {
        use EventKind::{Death, Procedure};
        use Unheard::{Negative, Unknown};
        let plain = outcomes(0.0, Unknown, &[]);
        check(&plain, [Some(50), None, None], 60, "1");
        check(&plain, [None, None, None], 200, "0");
        check(&plain, [None, None, None], 60, "no");
        check(&plain, [None, None, Some(50)], 50, "died");
        check(&plain, [Some(-5), None, None], 200, "prevalent");
        // With a gap of 20 days the window is (20, 120].
        let gap = outcomes(20.0, Unknown, &[]);
        check(&gap, [Some(10), None, None], 200, "prevalent");
        check(&gap, [Some(110), None, None], 110, "1");
        check(&gap, [None, None, None], 110, "no");
        let assumed = outcomes(0.0, Negative, &[]);
        check(&assumed, [None, None, None], 60, "0");
        check(&assumed, [Some(50), None, None], 60, "1");
        check(&assumed, [None, None, Some(50)], 50, "died");
        // A death that counts as no outcome.
        let death = outcomes(0.0, Unknown, &[(Death, Negative)]);
        check(&death, [None, None, Some(50)], 50, "0");
        check(&death, [Some(40), None, Some(50)], 50, "1");
        check(&death, [Some(-5), None, Some(50)], 50, "prevalent");
        check(&death, [None, None, Some(150)], 150, "0");
        // A procedure after which the outcome tells nothing.
        let procedure = outcomes(0.0, Unknown, &[(Procedure, Unknown), (Death, Negative)]);
        check(&procedure, [Some(60), Some(50), None], 200, "competing");
        check(&procedure, [Some(50), Some(60), None], 200, "1");
        check(&procedure, [None, Some(50), Some(60)], 60, "competing");
        check(&procedure, [None, Some(60), Some(50)], 60, "0");
        check(&procedure, [Some(60), Some(-5), None], 200, "1");
        check(&procedure, [Some(60), Some(150), None], 200, "1");
    }
}
