//! Numbers, times to events and outcomes of treatments, read from what the record says after the prediction time.

use serde::{Deserialize, Serialize};
use synovia_cohort::{EndpointValue, EventKind, EventPattern, EventValue, PatientRecord, Time};

use crate::LabelSpec;
use crate::features::number_in;
use crate::labels::{fact, onset, window};

/// How an endpoint is read from a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointSpec {
    /// A number: the first of an observation in (at, at + within].
    Observation {
        /// `system|code`.
        code: String,
        /// Length of the window, days.
        within_days: f64,
        /// UCUM unit that it is wanted in; what can't be had in it is passed over. Empty for numbers without one.
        unit: String,
    },
    /// A number: a fact.
    Column {
        /// Name of the fact.
        name: String,
    },
    /// Days from the prediction, or from the end of the gap after it, to the first of these events, or to the end of what is known, or of the window.
    Event {
        /// Which events.
        pattern: EventPattern,
        /// Length of the window, days.
        within_days: f64,
    },
    /// Days and whether the event came, as facts.
    Columns {
        /// Fact with the days.
        days: String,
        /// Fact that is 1 where the event came, 0 where that is not known.
        event: String,
    },
    /// An outcome after one of two treatments, both read from events.
    Treated {
        /// The outcome, whose window begins with the treatment.
        outcome: Outcome,
        /// What each treatment is seen by: a medication or a procedure.
        arms: [String; 2],
        /// Within how many days after the prediction it begins.
        within_days: f64,
    },
    /// An outcome and the treatment before it, as facts.
    TreatedFact {
        /// The outcome.
        outcome: Outcome,
        /// Fact that is 0 or 1.
        treatment: String,
    },
}

/// An outcome of a treatment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 0 or 1.
    Binary(LabelSpec),
    /// A number.
    Number(Box<EndpointSpec>),
}

const NO_NUMBER: &str = "no number in the window";
const NO_FACT: &str = "the column is empty";
const NO_FACT_NUMBER: &str = "the column's value is no number";
const NO_BIT: &str = "the column is neither 0 nor 1";
const BEFORE: &str = "the event was there before the prediction time";
const NEGATIVE: &str = "days below 0";
const NOT_FOLLOWED: &str = "nothing is known after the prediction time";
const UNTREATED: &str = "neither treatment in the window";
const BOTH: &str = "both treatments at the same time";
const STOPPED: &str = "a competing event in the gap";

/// What the rules of a cohort say besides the record: labels, and when somebody is no longer watched.
pub trait Rules {
    /// A label of a prediction at a time, or why nobody knows it.
    ///
    /// # Errors
    /// Why.
    fn label(&self, spec: &LabelSpec, record: &PatientRecord, at: Time) -> Result<f32, String>;
    /// Days after a prediction that are not looked at.
    fn gap_days(&self) -> f64;
    /// The first event after `at` that keeps the awaited one from being seen.
    fn competes(&self, record: &PatientRecord, at: Time) -> Option<Time>;
}

impl EndpointSpec {
    /// The two numbers of a prediction at `at`, as [`synovia_cohort::EndpointKind`] has them.
    ///
    /// # Errors
    /// Why nobody knows them.
    pub fn value(&self, record: &PatientRecord, at: Time, rules: &dyn Rules) -> Result<EndpointValue, String> {
        match self {
            Self::Observation { code, within_days, unit } => {
                let start = at.plus_days(rules.gap_days());
                let mut found = window(record, start, start.plus_days(*within_days))
                    .filter(|event| event.kind == EventKind::Observation && *event.code == **code);
                let number = found.find_map(|event| number_in(event, unit).map(|x| x as f32).filter(|x| x.is_finite()));
                number.map(|number| [number, 0.0]).ok_or_else(|| NO_NUMBER.to_owned())
            }
            Self::Column { name } => number(record, name).map(|number| [number, 0.0]),
            Self::Event { pattern, within_days } => {
                let start = at.plus_days(rules.gap_days());
                if rules.competes(record, at).is_some_and(|time| time <= start) {
                    return Err(STOPPED.to_owned());
                }
                time_to(record, pattern, start, start.plus_days(*within_days), rules)
            }
            Self::Columns { days, event } => {
                let (days, event) = (number(record, days)?, bit(record, event)?);
                if days < 0.0 { Err(NEGATIVE.to_owned()) } else { Ok([days, event]) }
            }
            Self::Treated { outcome, arms, within_days } => {
                let given = |arm: &String| {
                    let is_it = |kind| matches!(kind, EventKind::Medication | EventKind::Procedure);
                    window(record, at, at.plus_days(*within_days)).find(|event| is_it(event.kind) && *event.code == **arm)
                };
                let (arm, start) = match [given(&arms[0]), given(&arms[1])] {
                    [None, None] => return Err(UNTREATED.to_owned()),
                    [Some(a), Some(b)] if a.time == b.time => return Err(BOTH.to_owned()),
                    // As begun: whether a treatment is changed later may be for how it went.
                    [Some(a), Some(b)] => {
                        if a.time < b.time {
                            (0.0, a.time)
                        } else {
                            (1.0, b.time)
                        }
                    }
                    [Some(event), None] => (0.0, event.time),
                    [None, Some(event)] => (1.0, event.time),
                };
                Ok([outcome.value(record, start, rules)?, arm])
            }
            Self::TreatedFact { outcome, treatment } => Ok([outcome.value(record, at, rules)?, bit(record, treatment)?]),
        }
    }

    /// Days after the prediction that it looks at.
    pub fn days(&self) -> Option<f64> {
        match self {
            Self::Observation { within_days, .. } | Self::Event { within_days, .. } => Some(*within_days),
            Self::Treated { outcome, within_days, .. } => {
                let of_outcome = match outcome {
                    Outcome::Binary(spec) => spec.within_days(),
                    Outcome::Number(spec) => spec.days(),
                };
                Some(within_days + of_outcome.unwrap_or(0.0))
            }
            Self::Column { .. } | Self::Columns { .. } | Self::TreatedFact { .. } => None,
        }
    }
}

impl Outcome {
    fn value(&self, record: &PatientRecord, at: Time, rules: &dyn Rules) -> Result<f32, String> {
        match self {
            Self::Binary(spec) => rules.label(spec, record, at),
            Self::Number(spec) => Ok(spec.value(record, at, rules)?[0]),
        }
    }
}

fn number(record: &PatientRecord, name: &str) -> Result<f32, String> {
    match fact(record, name) {
        None | Some(EventValue::None) => Err(NO_FACT.to_owned()),
        Some(EventValue::Number { value, .. }) if (*value as f32).is_finite() => Ok(*value as f32),
        // A column that another task compares as a text.
        Some(EventValue::Code(text) | EventValue::Text(text)) => {
            text.parse::<f32>().ok().filter(|x| x.is_finite()).ok_or_else(|| NO_FACT_NUMBER.to_owned())
        }
        Some(EventValue::Number { .. }) => Err(NO_FACT_NUMBER.to_owned()),
    }
}

fn bit(record: &PatientRecord, name: &str) -> Result<f32, String> {
    let bit = number(record, name)?;
    if bit == 0.0 || bit == 1.0 { Ok(bit) } else { Err(NO_BIT.to_owned()) }
}

/// To the first of the events in (at, end]; else to whatever comes first of the end of the record, a death or another competing event, and
/// `end`. Who had a condition before does not get it.
fn time_to(record: &PatientRecord, pattern: &EventPattern, at: Time, end: Time, rules: &dyn Rules) -> Result<EndpointValue, String> {
    let days = |time: Time| (time.seconds() - at.seconds()) as f32 / 86_400.0;
    let is_death = pattern.kind == EventKind::Death;
    let was_there = |event: &synovia_cohort::Event| pattern.matches(event) && (event.time <= at || onset(event) <= at);
    if pattern.kind == EventKind::Condition && record.events.iter().any(was_there) {
        return Err(BEFORE.to_owned());
    }
    let death = record.patient.death.or_else(|| record.events.iter().find(|event| event.kind == EventKind::Death).map(|event| event.time));
    let death = death.filter(|time| *time > at);
    let awaited = window(record, at, end).find(|event| pattern.matches(event)).map(|event| event.time);
    let awaited = awaited.into_iter().chain(death.filter(|time| is_death && *time <= end)).min();
    let stopped = rules.competes(record, at).into_iter().chain(death.filter(|_| !is_death)).min();
    if let Some(event) = awaited.filter(|event| stopped.is_none_or(|stopped| *event <= stopped)) {
        return Ok([days(event), 1.0]);
    }
    let last = record.events.last().map(|event| event.time).into_iter().chain(death.filter(|_| is_death)).max().filter(|last| *last > at);
    match stopped.into_iter().chain(last).min() {
        Some(known) => Ok([days(known.min(end)), 0.0]),
        None => Err(NOT_FOLLOWED.to_owned()),
    }
}
