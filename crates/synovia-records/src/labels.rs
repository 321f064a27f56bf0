//! Outcomes read from what the record says after the prediction time, or why there is none.

use serde::{Deserialize, Serialize};
use synovia_cohort::{Event, EventKind, EventValue, PatientRecord, Time};

/// How a task's label is read from a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelSpec {
    /// 1 when the condition is first known in (at, at + within], 0 when the record goes on to the end of that window without
    /// it.
    Condition {
        /// `system|code`.
        code: String,
        /// Length of the window, days.
        within_days: f64,
    },
    /// The first coded answer in (at, at + within], as the index of its class.
    Observation {
        /// `system|code` of the question.
        code: String,
        /// Length of the window, days.
        within_days: f64,
        /// `system|code` of the answers, in the order of the classes.
        classes: Vec<String>,
    },
    /// 1 when a report in (at, at + within] has the conclusion, 0 when there are such reports and none has it.
    Conclusion {
        /// `system|code` of the report.
        report: String,
        /// `system|code` of the conclusion.
        conclusion: String,
        /// Length of the window, days.
        within_days: f64,
    },
    /// 1 or 0 from a fact. Exactly one of `above` and `equals` is to be given; `above` is tried first.
    Column {
        /// Name of the fact.
        name: String,
        /// 1 when the number is greater.
        #[serde(default)]
        above: Option<f64>,
        /// 1 when the category is this one.
        #[serde(default)]
        equals: Option<String>,
    },
    /// The index of a fact's category.
    Category {
        /// Name of the fact.
        name: String,
        /// The categories, in the order of the classes.
        classes: Vec<String>,
    },
}

/// A label, or why nobody knows it: it is then masked, never guessed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LabelOutcome {
    /// 0 or 1, or the index of a class.
    Known(f32),
    /// Why not.
    Unknown(&'static str),
}

/// The condition was there, known or not, before the prediction, or may have been (an onset "in 2020").
const PREVALENT: &str = "prevalent: the condition was there at the prediction time";
const NO_FOLLOW_UP: &str = "no follow-up to the end of the window";
const DIED: &str = "died before the end of the window without the condition";
const NO_ANSWER: &str = "no answer in the window";
const NO_REPORT: &str = "no report in the window";
const NO_CLASS: &str = "the answer is none of the classes";
const NO_FACT: &str = "the column is empty";
const NOT_COMPARABLE: &str = "the column's value can't be compared";

impl LabelSpec {
    /// Length of its window, days; `None` where it has none.
    pub fn within_days(&self) -> Option<f64> {
        match self {
            Self::Condition { within_days, .. } | Self::Observation { within_days, .. } | Self::Conclusion { within_days, .. } => {
                Some(*within_days)
            }
            Self::Column { .. } | Self::Category { .. } => None,
        }
    }

    /// The label of a prediction at `at`.
    pub fn label(&self, record: &PatientRecord, at: Time) -> LabelOutcome {
        match self {
            Self::Condition { code, within_days } => condition(record, code, at, at.plus_days(*within_days)),
            Self::Observation { code, within_days, classes } => observation(record, code, classes, at, at.plus_days(*within_days)),
            Self::Conclusion { report, conclusion, within_days } => concluded(record, report, conclusion, at, at.plus_days(*within_days)),
            Self::Column { name, above, equals } => column(fact(record, name), *above, equals.as_deref()),
            Self::Category { name, classes } => match fact(record, name) {
                None | Some(EventValue::None) => LabelOutcome::Unknown(NO_FACT),
                Some(value) => class_of(&text_of(value), classes),
            },
        }
    }
}

/// When a condition began, at the earliest: when it was known less the days that it may have been there before.
pub(crate) fn onset(event: &Event) -> Time {
    match event.value {
        EventValue::Number { value, .. } => event.time.plus_days(-value),
        _ => event.time,
    }
}

fn condition(record: &PatientRecord, code: &str, at: Time, end: Time) -> LabelOutcome {
    let mut found = record.events.iter().filter(|e| e.kind == EventKind::Condition && *e.code == *code);
    if found.clone().any(|e| e.time <= at || onset(e) <= at) {
        return LabelOutcome::Unknown(PREVALENT);
    }
    if found.any(|e| e.time <= end) {
        return LabelOutcome::Known(1.0);
    }
    let died = record.patient.death.or_else(|| record.events.iter().find(|e| e.kind == EventKind::Death).map(|e| e.time));
    if died.is_some_and(|death| death < end) {
        return LabelOutcome::Unknown(DIED);
    }
    if record.events.last().is_some_and(|e| e.time >= end) { LabelOutcome::Known(0.0) } else { LabelOutcome::Unknown(NO_FOLLOW_UP) }
}

/// What is in (at, end].
pub(crate) fn window(record: &PatientRecord, at: Time, end: Time) -> impl Iterator<Item = &Event> {
    let start = record.events.partition_point(|e| e.time <= at);
    record.events[start..].iter().take_while(move |e| e.time <= end)
}

fn concluded(record: &PatientRecord, report: &str, conclusion: &str, at: Time, end: Time) -> LabelOutcome {
    let mut reports = window(record, at, end).filter(|e| e.kind == EventKind::Report && *e.code == *report).peekable();
    if reports.peek().is_none() {
        return LabelOutcome::Unknown(NO_REPORT);
    }
    let is_said = reports.any(|e| matches!(&e.value, EventValue::Code(said) if **said == *conclusion));
    LabelOutcome::Known(if is_said { 1.0 } else { 0.0 })
}

fn observation(record: &PatientRecord, code: &str, classes: &[String], at: Time, end: Time) -> LabelOutcome {
    let answer = window(record, at, end)
        .filter(|e| matches!(e.kind, EventKind::Observation | EventKind::Report) && *e.code == *code)
        .find_map(|e| match &e.value {
            EventValue::Code(answer) => Some(answer),
            _ => None,
        });
    answer.map_or(LabelOutcome::Unknown(NO_ANSWER), |answer| class_of(answer, classes))
}

fn class_of(answer: &str, classes: &[String]) -> LabelOutcome {
    classes.iter().position(|class| class == answer).map_or(LabelOutcome::Unknown(NO_CLASS), |k| LabelOutcome::Known(k as f32))
}

pub(crate) fn fact<'r>(record: &'r PatientRecord, name: &str) -> Option<&'r EventValue> {
    record.patient.facts.iter().find(|(n, _)| **n == *name).map(|(_, value)| value)
}

/// A fact as a table shows it: `1`, not `1.0`.
fn text_of(value: &EventValue) -> String {
    match value {
        EventValue::None => String::new(),
        EventValue::Number { value, .. } => value.to_string(),
        EventValue::Code(text) | EventValue::Text(text) => text.to_string(),
    }
}

fn column(value: Option<&EventValue>, above: Option<f64>, equals: Option<&str>) -> LabelOutcome {
    let known = |yes: bool| LabelOutcome::Known(if yes { 1.0 } else { 0.0 });
    match (value, above, equals) {
        (None | Some(EventValue::None), ..) => LabelOutcome::Unknown(NO_FACT),
        (Some(EventValue::Number { value, .. }), Some(above), _) => known(*value > above),
        (Some(value), None, Some(equals)) => known(text_of(value) == equals),
        (Some(_), ..) => LabelOutcome::Unknown(NOT_COMPARABLE),
    }
}
