//! A fitted plan and its application.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use synovia_cohort::{Event, EventKind, EventValue, Example, FeatureSpec, Patient, Sex};

use super::statistic::{Point, Statistic};
use crate::units::convert;

/// Where a feature's number comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSource {
    /// Years of 365.25 days from birth to the prediction time.
    Age,
    /// Whether the administrative sex is this one; NaN where it is not known.
    Sex(Sex),
    /// A statistic of the numbers of an Observation, in the feature's unit.
    Value {
        /// `system|code`.
        code: String,
        /// Which statistic.
        statistic: Statistic,
        /// How far back from the prediction time, days; `None` for the whole history.
        #[serde(default)]
        window_days: Option<f64>,
    },
    /// Whether the last coded answer of an Observation, or conclusion of a Report, is this one; NaN where there is none.
    Answer {
        /// [`EventKind::Observation`] or [`EventKind::Report`].
        #[serde(default = "observation")]
        kind: EventKind,
        /// `system|code` of the question.
        code: String,
        /// `system|code` of the answer.
        value: String,
    },
    /// Whether the history has an event of this kind and code; NaN where it has no clinical event at all.
    Flag {
        /// The kind.
        kind: EventKind,
        /// `system|code`.
        code: String,
    },
    /// Whether the history has an event of this kind whose ICD-10 code is this category or below it; NaN as [`Self::Flag`].
    FlagUnder {
        /// The kind.
        kind: EventKind,
        /// `system|category`, a category being what stands before the full stop: `C34` of `C34.11`.
        category: String,
    },
    /// A fact that is a number.
    Fact {
        /// Its name.
        name: String,
    },
    /// Whether a fact is this category; NaN where it is not known.
    FactIs {
        /// Its name.
        name: String,
        /// The category.
        value: String,
    },
}

const fn observation() -> EventKind {
    EventKind::Observation
}

/// A column of the table and its source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// What a reader of the table sees.
    pub spec: FeatureSpec,
    /// Where its numbers come from.
    pub source: FeatureSource,
}

/// The columns of the feature table, fitted on train examples by a [`crate::PlanBuilder`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeaturePlan {
    /// The columns, in order.
    pub features: Vec<Feature>,
    /// How many train examples have numbers in a unit that could not be had in the feature's, by code.
    #[serde(default)]
    pub unconverted: std::collections::BTreeMap<String, u64>,
}

/// Kinds whose absence says that somebody looked. An encounter or a picture alone does not: a chart that holds only the order
/// for the image is no record of health.
pub(super) fn is_clinical(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Encounter | EventKind::Imaging | EventKind::Death)
}

/// What a history says, by code, the latest last.
struct Seen<'a> {
    numbers: HashMap<&'a str, Vec<&'a Event>>,
    answers: HashMap<(EventKind, &'a str), &'a str>,
    flags: std::collections::HashSet<(EventKind, &'a str)>,
    clinical: bool,
}

impl<'a> Seen<'a> {
    fn new(history: &'a [Event]) -> Self {
        let mut seen = Self { numbers: HashMap::new(), answers: HashMap::new(), flags: std::collections::HashSet::new(), clinical: false };
        for event in history {
            seen.clinical |= is_clinical(event.kind);
            match (event.kind, &event.value) {
                (EventKind::Observation, EventValue::Number { .. }) => seen.numbers.entry(&event.code).or_default().push(event),
                (EventKind::Observation | EventKind::Report, EventValue::Code(answer)) => {
                    seen.answers.insert((event.kind, &event.code), answer);
                }
                _ => {
                    seen.flags.insert((event.kind, &event.code));
                }
            }
        }
        seen
    }
}

/// The ICD-10 category that a code `system|code` is of: all before its full stop; `None` for a code of another system.
pub(super) fn category_of(code: &str) -> Option<&str> {
    let (system, _) = code.split_once('|')?;
    let is_icd10 = system.starts_with("http://hl7.org/fhir/sid/icd-10") || system == "urn:oid:2.16.840.1.113883.6.90";
    is_icd10.then(|| code[system.len()..].find('.').map_or(code, |at| &code[..system.len() + at]))
}

/// An event's number in the unit that it has.
fn number_of(event: &Event) -> Option<f64> {
    if let EventValue::Number { value, .. } = &event.value { Some(*value) } else { None }
}

/// An event's number in `unit`, if it can be had.
pub(crate) fn number_in(event: &Event, unit: &str) -> Option<f64> {
    let EventValue::Number { value, unit: from } = &event.value else { return None };
    convert(*value, from, unit, &event.code).ok()
}

const fn flag(is: bool) -> f32 {
    if is { 1.0 } else { 0.0 }
}

impl FeaturePlan {
    /// The columns as the cohort's manifest and the exported model have them.
    pub fn specs(&self) -> Vec<FeatureSpec> {
        self.features.iter().map(|feature| feature.spec.clone()).collect()
    }

    /// Fills `out` with an example's row, NaN where a feature is missing; whether anything is known. A row of which nothing is
    /// known is no record: the caller masks the modality.
    ///
    /// Reads only [`Example::history`], so nothing from after the prediction time, and facts, which hold at any time.
    ///
    /// # Shapes
    /// - out: `[n_features]`; what is longer is left alone, what is shorter is filled as far as it goes
    pub fn row(&self, example: &Example<'_>, patient: &Patient, out: &mut [f32]) -> bool {
        let seen = Seen::new(example.history());
        let mut known = false;
        for (feature, out) in self.features.iter().zip(out) {
            let value = Self::value(feature, &seen, example, patient).filter(|x| x.is_finite());
            known |= value.is_some();
            *out = value.unwrap_or(f32::NAN);
        }
        known
    }

    fn value(feature: &Feature, seen: &Seen<'_>, example: &Example<'_>, patient: &Patient) -> Option<f32> {
        let fact = |name: &str| patient.facts.iter().find(|(n, _)| **n == *name).map(|(_, value)| value);
        match &feature.source {
            FeatureSource::Age => {
                // Before birth nobody has an age: such a date is an error of the chart.
                patient.birth.map(|birth| example.prediction_time().years_since(birth) as f32).filter(|age| *age >= 0.0)
            }
            FeatureSource::Sex(sex) => patient.sex.map(|s| flag(s == *sex)),
            FeatureSource::Value { code, statistic, window_days } => {
                let at = example.prediction_time();
                let since = window_days.map(|days| at.plus_days(-days));
                let unit = statistic.unit_of_values(&feature.spec.unit);
                let events = seen.numbers.get(code.as_str()).map_or(&[][..], Vec::as_slice);
                let in_window = events.iter().filter(|event| since.is_none_or(|since| event.time > since));
                let points: Vec<Point> = in_window
                    .filter_map(|event| {
                        let value = unit.map_or_else(|| number_of(event), |unit| number_in(event, unit))?;
                        Some(Point { days: at.days_since(event.time), value })
                    })
                    .collect();
                match statistic.of(&points) {
                    // Nothing was measured: that is 0 times, if there is a chart at all.
                    None if *statistic == Statistic::Count => seen.clinical.then_some(0.0),
                    value => value.map(|x| x as f32),
                }
            }
            FeatureSource::Answer { kind, code, value } => seen.answers.get(&(*kind, code.as_str())).map(|answer| flag(answer == value)),
            FeatureSource::Flag { kind, code } => seen.clinical.then(|| flag(seen.flags.contains(&(*kind, code.as_str())))),
            FeatureSource::FlagUnder { kind, category } => {
                seen.clinical.then(|| flag(seen.flags.iter().any(|(k, code)| k == kind && category_of(code) == Some(category.as_str()))))
            }
            FeatureSource::Fact { name } => match fact(name)? {
                EventValue::Number { value, .. } => Some(*value as f32),
                _ => None,
            },
            FeatureSource::FactIs { name, value } => match fact(name)? {
                EventValue::Code(found) | EventValue::Text(found) => Some(flag(**found == **value)),
                _ => None,
            },
        }
    }
}
