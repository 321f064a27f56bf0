//! Who belongs to a cohort and what a prediction is made at, as questions to a record. Nothing here looks past the moment that
//! it is asked about.

use serde::{Deserialize, Serialize};

use crate::{Event, EventKind, EventValue, PatientRecord, Sex, Time};

/// Events of a kind with a code: `system|code`, all codes that begin so (`system|C34*`), or `any`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPattern {
    /// The kind.
    pub kind: EventKind,
    /// The code.
    pub code: String,
}

/// The code of a pattern that takes events of any code.
pub const ANY_CODE: &str = "any";

impl EventPattern {
    /// Whether an event is one of these. Deaths have no code.
    pub fn matches(&self, event: &Event) -> bool {
        let is_code = || match self.code.strip_suffix('*') {
            Some(start) => event.code.starts_with(start),
            None => self.code == ANY_CODE || *event.code == *self.code,
        };
        event.kind == self.kind && (event.kind == EventKind::Death || is_code())
    }
}

/// Numbers between bounds; a bound that is absent does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// This or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// More than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// This or less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Less than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
}

impl Bounds {
    /// Whether a number is within.
    pub fn contains(&self, x: f64) -> bool {
        self.at_least.is_none_or(|bound| x >= bound)
            && self.above.is_none_or(|bound| x > bound)
            && self.at_most.is_none_or(|bound| x <= bound)
            && self.below.is_none_or(|bound| x < bound)
    }

    /// Whether some number can be within.
    pub fn is_satisfiable(&self) -> bool {
        let low = self.at_least.into_iter().chain(self.above).fold(f64::NEG_INFINITY, f64::max);
        let high = self.at_most.into_iter().chain(self.below).fold(f64::INFINITY, f64::min);
        low < high || (low == high && self.contains(low))
    }
}

/// A modality that an example may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// An image that existed at the prediction time.
    Image,
    /// At least one event in the history window.
    Record,
}

/// A yes-or-no question about a patient at a prediction time. What is not known is answered no.
#[derive(Clone, Debug, PartialEq)]
pub enum Criterion {
    /// Age in years of 365.25 days.
    Age(Bounds),
    /// Administrative sex.
    Sex(Sex),
    /// The example has this modality.
    Has(Modality),
    /// The record begins at least so many days before the prediction.
    History {
        /// The days.
        days: f64,
    },
    /// A fact of a table without times.
    Fact {
        /// Its column.
        name: String,
        /// What its number must be.
        value: Bounds,
        /// What its text must be.
        equals: Option<String>,
    },
    /// Events up to the prediction time.
    Events {
        /// Which.
        pattern: EventPattern,
        /// What the number of each must be; without bounds a number is not asked for.
        value: Option<Bounds>,
        /// What the coded answer (or text) of each must be.
        equals: Option<String>,
        /// How far back they count, days; `None` for the whole record.
        within_days: Option<f64>,
        /// How many there must be.
        times: usize,
    },
}

/// What a criterion is asked about.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The patient.
    pub record: &'a PatientRecord,
    /// The prediction time.
    pub at: Time,
    /// Whether the example has an image.
    pub has_image: bool,
    /// Whether it has an event in its history window.
    pub has_record: bool,
}

impl Criterion {
    /// The answer. Events after the prediction time are not looked at.
    pub fn holds(&self, asked: Asked<'_>) -> bool {
        let Asked { record, at, .. } = asked;
        let past = &record.events[..record.events.partition_point(|event| event.time <= at)];
        match self {
            Self::Age(bounds) => record.patient.birth.is_some_and(|birth| bounds.contains(at.years_since(birth))),
            Self::Sex(sex) => record.patient.sex == Some(*sex),
            Self::Has(Modality::Image) => asked.has_image,
            Self::Has(Modality::Record) => asked.has_record,
            Self::History { days } => past.first().is_some_and(|first| first.time <= at.plus_days(-days)),
            Self::Fact { name, value, equals } => {
                let fact = record.patient.facts.iter().find(|(fact, _)| **fact == **name);
                fact.is_some_and(|(_, fact)| satisfies(fact, Some(*value).filter(|v| *v != Bounds::default()), equals.as_deref()))
            }
            Self::Events { pattern, value, equals, within_days, times } => {
                let earliest = within_days.map(|days| at.plus_days(-days));
                let recent = past.iter().rev().take_while(|event| earliest.is_none_or(|earliest| event.time > earliest));
                let found = recent.filter(|event| pattern.matches(event) && satisfies(&event.value, *value, equals.as_deref()));
                found.take(*times).count() == *times
            }
        }
    }
}

fn satisfies(found: &EventValue, value: Option<Bounds>, equals: Option<&str>) -> bool {
    let is_number = |bounds: Bounds| matches!(found, EventValue::Number { value, .. } if bounds.contains(*value));
    let is_text = |wanted: &str| match found {
        EventValue::Code(text) | EventValue::Text(text) => **text == *wanted,
        EventValue::Number { value, .. } => value.to_string() == wanted,
        EventValue::None => false,
    };
    value.is_none_or(is_number) && equals.is_none_or(is_text)
}

/// Which of a patient's events are predicted at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The first.
    First,
    /// The last.
    Last,
    /// Each.
    Every,
}

/// The event that a prediction time is counted from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Which events can be one.
    pub event: EventPattern,
    /// Which of a patient's are.
    pub which: Which,
}

impl Index {
    /// Times of a patient's index events, each once, in order.
    pub fn times(&self, record: &PatientRecord) -> Vec<Time> {
        let mut times: Vec<Time> = record.events.iter().filter(|event| self.event.matches(event)).map(|event| event.time).collect();
        times.dedup();
        match self.which {
            Which::First => times.truncate(1),
            Which::Last => drop(times.drain(..times.len().saturating_sub(1))),
            Which::Every => {}
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Patient, PatientId};

    const DAY: i64 = 86_400;

    /// A woman born on day −3652.5 × 5 (50 years before day 0), with these events: day, kind, code, number (NaN for none).
    fn record(events: &[(i64, EventKind, &str, f64)]) -> PatientRecord {
        let event = |(day, kind, code, value): &(i64, EventKind, &str, f64)| Event {
            time: Time::from_seconds(day * DAY),
            kind: *kind,
            code: (*code).into(),
            display: "".into(),
            value: if value.is_nan() { EventValue::None } else { EventValue::Number { value: *value, unit: "mg/dL".into() } },
        };
        let mut events: Vec<Event> = events.iter().map(event).collect();
        events.sort_by_key(|event| event.time);
        let patient = Patient {
            birth: Some(Time::from_seconds(0).plus_days(-365.25 * 50.0)),
            sex: Some(Sex::Female),
            facts: vec![
                ("Site".into(), EventValue::Code("North".into())),
                ("Age".into(), EventValue::Number { value: 71.0, unit: "".into() }),
            ],
            ..Patient::default()
        };
        PatientRecord { id: PatientId::new("p"), patient, events, studies: vec![] }
    }

    fn chart() -> PatientRecord {
        record(&[
            (-400, EventKind::Encounter, "v|AMB", f64::NAN),
            (-40, EventKind::Observation, "l|creatinine", 1.4),
            (-10, EventKind::Observation, "l|creatinine", 1.9),
            (-5, EventKind::Condition, "icd|C34.11", 3.0),
            (5, EventKind::Condition, "icd|E11.9", 0.0),
            (5, EventKind::Observation, "l|creatinine", 9.0),
        ])
    }

    fn events(kind: EventKind, code: &str) -> Criterion {
        Criterion::Events { pattern: EventPattern { kind, code: code.to_owned() }, value: None, equals: None, within_days: None, times: 1 }
    }

    /// The answer on day 0 for an example with an image.
    #[track_caller]
    fn check(criterion: &Criterion, expected: bool) {
        let record = chart();
        let asked = Asked { record: &record, at: Time::from_seconds(0), has_image: true, has_record: false };
        assert_eq!(criterion.holds(asked), expected, "{criterion:?}");
    }

    #[test]
    fn questions() {
        let bounds = |at_least: Option<f64>, below: Option<f64>| Bounds { at_least, below, ..Bounds::default() };
        check(&Criterion::Age(bounds(Some(50.0), Some(51.0))), true);
        check(&Criterion::Age(bounds(None, Some(50.0))), false);
        check(&Criterion::Sex(Sex::Female), true);
        check(&Criterion::Sex(Sex::Male), false);
        check(&Criterion::Has(Modality::Image), true);
        check(&Criterion::Has(Modality::Record), false);
        check(&Criterion::History { days: 400.0 }, true);
        check(&Criterion::History { days: 401.0 }, false);
        check(&events(EventKind::Condition, "icd|C34.11"), true);
        check(&events(EventKind::Condition, "icd|C34*"), true);
        check(&events(EventKind::Condition, "icd|C3"), false);
        check(&events(EventKind::Observation, "icd|C34*"), false);
        check(&events(EventKind::Encounter, ANY_CODE), true);
        // What comes later is not known.
        check(&events(EventKind::Condition, "icd|E11.9"), false);
        let creatinine = |above: f64, within_days: Option<f64>, times: usize| Criterion::Events {
            pattern: EventPattern { kind: EventKind::Observation, code: "l|creatinine".to_owned() },
            value: Some(Bounds { above: Some(above), ..Bounds::default() }),
            equals: None,
            within_days,
            times,
        };
        check(&creatinine(1.5, Some(30.0), 1), true);
        check(&creatinine(1.9, Some(30.0), 1), false);
        check(&creatinine(1.0, None, 2), true);
        check(&creatinine(1.0, Some(30.0), 2), false);
        check(&creatinine(5.0, None, 1), false);
        let fact = |name: &str, value: Bounds, equals: Option<&str>| Criterion::Fact {
            name: name.to_owned(),
            value,
            equals: equals.map(str::to_owned),
        };
        check(&fact("Site", Bounds::default(), Some("North")), true);
        check(&fact("Site", Bounds::default(), Some("South")), false);
        check(&fact("Age", bounds(Some(71.0), None), None), true);
        check(&fact("Age", bounds(None, Some(71.0)), None), false);
        check(&fact("Weight", Bounds::default(), None), false);
    }

    #[test]
    fn index_events() {
        let check = |which, expected: &[i64]| {
            let index = Index { event: EventPattern { kind: EventKind::Observation, code: "l|*".to_owned() }, which };
            let days: Vec<i64> = index.times(&chart()).iter().map(|time| time.seconds() / DAY).collect();
            assert_eq!(days, expected, "{which:?}");
        };
        check(Which::First, &[-40]);
        check(Which::Last, &[5]);
        check(Which::Every, &[-40, -10, 5]);
        let none = Index { event: EventPattern { kind: EventKind::Procedure, code: ANY_CODE.to_owned() }, which: Which::Last };
        assert!(none.times(&chart()).is_empty());
    }

    #[test]
    fn bounds_that_nothing_meets() {
        let bounds = |at_least: Option<f64>, above: Option<f64>, at_most: Option<f64>, below: Option<f64>| {
            Bounds { at_least, above, at_most, below }.is_satisfiable()
        };
        assert!(bounds(Some(1.0), None, Some(1.0), None) && bounds(None, None, None, None) && bounds(None, Some(1.0), None, Some(1.1)));
        assert!(
            !bounds(Some(1.0), None, None, Some(1.0))
                && !bounds(None, Some(1.0), Some(1.0), None)
                && !bounds(Some(2.0), None, Some(1.0), None)
        );
    }

    proptest! {
        /// An answer depends on nothing that comes later.
        #[test]
        fn no_answer_is_from_the_future(days in proptest::collection::vec((-300i64..300, 0usize..3, -3.0f64..3.0), 0..20),
                                        at in -300i64..300, within in proptest::option::of(1.0f64..200.0), times in 1usize..3,
                                        above in -3.0f64..3.0) {
            let kinds = [EventKind::Observation, EventKind::Condition, EventKind::Encounter];
            let all: Vec<(i64, EventKind, &str, f64)> = days.iter().map(|(day, kind, x)| (*day, kinds[*kind], "s|c", *x)).collect();
            let past: Vec<_> = all.iter().copied().filter(|(day, ..)| *day <= at).collect();
            let criteria = [
                Criterion::History { days: 20.0 },
                events(EventKind::Condition, "s|c"),
                Criterion::Events {
                    pattern: EventPattern { kind: EventKind::Observation, code: ANY_CODE.to_owned() },
                    value: Some(Bounds { above: Some(above), ..Bounds::default() }),
                    equals: None, within_days: within, times,
                },
            ];
            for criterion in criteria {
                let answer = |events: &[(i64, EventKind, &str, f64)]| {
                    let record = record(events);
                    criterion.holds(Asked { record: &record, at: Time::from_seconds(at * DAY), has_image: false, has_record: false })
                };
                prop_assert_eq!(answer(&all), answer(&past));
            }
        }
    }
}
