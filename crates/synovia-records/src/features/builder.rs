//! Fitting a plan.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use synovia_cohort::{EventKind, EventValue, Example, FeatureKind, FeatureSpec, Patient, Sex};

use super::plan::{Feature, FeaturePlan, FeatureSource, category_of};
use super::statistic::Statistic;
use crate::units::convert;

/// Which features a plan may have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeatureConfig {
    /// A code becomes a feature when at least this share of the train examples has it.
    pub min_share: f64,
    /// Features from codes, at most: those that most examples have.
    pub max_features: usize,
    /// Only these codes (`system|code`) become features, whatever their share; `None` for all.
    pub codes: Option<Vec<String>>,
    /// Columns of each measurement.
    pub statistics: Vec<Statistic>,
    /// Windows before the prediction time, days: each statistic is taken in each. Empty stands for the whole history.
    pub windows_days: Vec<f64>,
    /// Whether ICD-10 codes count for their categories (`C34.11` for `C34`) as well.
    pub roll_up: bool,
    /// Whether the age at the prediction is a feature.
    pub age: bool,
    /// Whether the sex is.
    pub sex: bool,
    /// Facts that are inputs. A fact has no time, so nothing but this list says that it was known at the prediction: none is
    /// taken that is not in it.
    pub facts: Vec<String>,
}

impl Default for FeatureConfig {
    fn default() -> Self {
        Self {
            min_share: 0.05,
            max_features: 128,
            codes: None,
            statistics: vec![Statistic::Last],
            windows_days: Vec::new(),
            roll_up: false,
            age: true,
            sex: true,
            facts: Vec::new(),
        }
    }
}

/// What a code is, as a feature.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Candidate {
    Number(String),
    Answer(EventKind, String),
    Flag(u8, String),
    Under(u8, String),
}

const FLAG_KINDS: [EventKind; 5] =
    [EventKind::Condition, EventKind::Medication, EventKind::Procedure, EventKind::Allergy, EventKind::FamilyHistory];

#[derive(Default)]
struct Stats {
    n_examples: u64,
    display: String,
    /// Units (of numbers) or answers, with how many examples have them.
    variants: BTreeMap<String, u64>,
}

/// Names of a category of a fact, of an answer: more than this many are free text.
const MAX_LEVELS: usize = 32;

/// Learns which columns the feature table has. Memory grows with the number of codes, not of examples.
pub struct PlanBuilder {
    config: FeatureConfig,
    n_examples: u64,
    n_with_birth: u64,
    sexes: BTreeMap<u8, u64>,
    candidates: BTreeMap<Candidate, Stats>,
    numbers: BTreeSet<String>,
    categories: BTreeMap<String, BTreeMap<String, u64>>,
}

const SEXES: [(Sex, &str); 3] = [(Sex::Female, "female"), (Sex::Male, "male"), (Sex::Other, "other")];

impl PlanBuilder {
    /// Nothing seen yet.
    pub fn new(config: FeatureConfig) -> Self {
        Self {
            config,
            n_examples: 0,
            n_with_birth: 0,
            sexes: BTreeMap::new(),
            candidates: BTreeMap::new(),
            numbers: BTreeSet::new(),
            categories: BTreeMap::new(),
        }
    }

    /// Sees an example, which must be of the train split: the plan is part of what is fitted. The order does not matter.
    pub fn observe(&mut self, example: &Example<'_>, patient: &Patient) {
        self.n_examples += 1;
        self.n_with_birth += u64::from(patient.birth.is_some());
        if let Some(k) = patient.sex.and_then(|sex| SEXES.iter().position(|(s, _)| *s == sex)) {
            *self.sexes.entry(k as u8).or_default() += 1;
        }
        for (name, value) in patient.facts.iter().filter(|(name, _)| self.config.facts.iter().any(|f| **f == **name)) {
            match value {
                EventValue::Number { .. } => {
                    self.numbers.insert(name.to_string());
                }
                EventValue::Code(level) | EventValue::Text(level) => {
                    *self.categories.entry(name.to_string()).or_default().entry(level.to_string()).or_default() += 1;
                }
                EventValue::None => {}
            }
        }
        let mut met = BTreeSet::new();
        for event in example.history() {
            if self.config.codes.as_ref().is_some_and(|codes| !codes.iter().any(|c| **c == *event.code)) {
                continue;
            }
            let code = || event.code.to_string();
            let (candidate, variant) = match (event.kind, &event.value) {
                (EventKind::Observation, EventValue::Number { unit, .. }) => (Candidate::Number(code()), Some(unit)),
                (EventKind::Observation, EventValue::Code(answer)) => (Candidate::Answer(event.kind, code()), Some(answer)),
                // What a report concludes is often the label: only on demand.
                (EventKind::Report, EventValue::Code(answer)) if self.config.codes.is_some() => {
                    (Candidate::Answer(event.kind, code()), Some(answer))
                }
                (kind, _) => match FLAG_KINDS.iter().position(|k| *k == kind) {
                    Some(k) => (Candidate::Flag(k as u8, code()), None),
                    None => continue,
                },
            };
            if self.config.roll_up
                && let Candidate::Flag(kind, code) = &candidate
                && let Some(category) = category_of(code)
            {
                let under = Candidate::Under(*kind, category.to_owned());
                if met.insert((under.clone(), None)) {
                    let stats = self.candidates.entry(under).or_default();
                    stats.n_examples += 1;
                    category.rsplit('|').next().unwrap_or_default().clone_into(&mut stats.display);
                }
            }
            let stats = self.candidates.entry(candidate.clone()).or_default();
            // The least name of a code, so that the plan does not depend on which came first.
            if stats.display.is_empty() || *event.display < *stats.display {
                stats.display = event.display.to_string();
            }
            if met.insert((candidate.clone(), None)) {
                stats.n_examples += 1;
            }
            if let Some(variant) = variant
                && met.insert((candidate, Some(variant.clone())))
            {
                *stats.variants.entry(variant.to_string()).or_default() += 1;
            }
        }
    }

    /// The plan: age and sex, facts in the order of the configuration, then codes, those first that most examples have.
    pub fn finish(self) -> FeaturePlan {
        let mut plan = FeaturePlan::default();
        let mut push = |name: String, kind, code: &str, unit: &str, source| {
            let spec = FeatureSpec { name, kind, code: code.to_owned(), unit: unit.to_owned() };
            plan.features.push(Feature { spec, source });
        };
        if self.config.age && self.n_with_birth > 0 {
            push("age".to_owned(), FeatureKind::Number, "", "a", FeatureSource::Age);
        }
        if self.config.sex {
            for &k in self.sexes.keys() {
                let (sex, name) = SEXES[k as usize];
                push(format!("sex: {name}"), FeatureKind::Flag, "", "", FeatureSource::Sex(sex));
            }
        }
        for name in &self.config.facts {
            if self.numbers.contains(name) {
                push(name.clone(), FeatureKind::Number, "", "", FeatureSource::Fact { name: name.clone() });
            }
            let Some(levels) = self.categories.get(name) else { continue };
            for value in most_frequent(levels) {
                push(
                    format!("{name}: {value}"),
                    FeatureKind::Flag,
                    "",
                    "",
                    FeatureSource::FactIs { name: name.clone(), value: value.to_owned() },
                );
            }
        }
        let least = if self.config.codes.is_some() { 1.0 } else { (self.config.min_share * self.n_examples as f64).max(1.0) };
        let mut chosen: Vec<(&Candidate, &Stats)> = self.candidates.iter().filter(|(_, stats)| stats.n_examples as f64 >= least).collect();
        chosen.sort_by(|a, b| b.1.n_examples.cmp(&a.1.n_examples).then(a.0.cmp(b.0)));
        let mut left = self.config.max_features;
        let mut unconverted = BTreeMap::new();
        for (candidate, stats) in chosen {
            let name = |code: &str| if stats.display.is_empty() { code.to_owned() } else { stats.display.clone() };
            match candidate {
                _ if left == 0 => break,
                Candidate::Number(code) => {
                    let windows = if self.config.windows_days.is_empty() {
                        vec![None]
                    } else {
                        self.config.windows_days.iter().copied().map(Some).collect()
                    };
                    let n_columns = windows.len() * self.config.statistics.len();
                    // A flag further down may still fit.
                    if n_columns > left {
                        continue;
                    }
                    left -= n_columns;
                    let unit = most_frequent(&stats.variants).first().copied().unwrap_or_default();
                    let lost: u64 = stats.variants.iter().filter(|(from, _)| convert(1.0, from, unit, code).is_err()).map(|(_, n)| n).sum();
                    if lost > 0 {
                        unconverted.insert(code.clone(), lost);
                    }
                    for window_days in windows {
                        for &statistic in &self.config.statistics {
                            let name = match (statistic, window_days) {
                                (Statistic::Last, None) => name(code),
                                (_, None) => format!("{}: {}", name(code), statistic.as_str()),
                                (_, Some(days)) => format!("{}: {} of {days} d", name(code), statistic.as_str()),
                            };
                            let source = FeatureSource::Value { code: code.clone(), statistic, window_days };
                            push(name, FeatureKind::Number, code, &statistic.unit(unit), source);
                        }
                    }
                }
                Candidate::Under(kind, category) => {
                    left -= 1;
                    let source = FeatureSource::FlagUnder { kind: FLAG_KINDS[*kind as usize], category: category.clone() };
                    push(format!("{} and below", stats.display), FeatureKind::Flag, category, "", source);
                }
                Candidate::Answer(kind, code) => {
                    for value in most_frequent(&stats.variants) {
                        if left == 0 || (stats.variants[value] as f64) < least {
                            break;
                        }
                        left -= 1;
                        let source = FeatureSource::Answer { kind: *kind, code: code.clone(), value: value.to_owned() };
                        push(format!("{}: {value}", name(code)), FeatureKind::Flag, code, "", source);
                    }
                }
                Candidate::Flag(kind, code) => {
                    left -= 1;
                    push(
                        name(code),
                        FeatureKind::Flag,
                        code,
                        "",
                        FeatureSource::Flag { kind: FLAG_KINDS[*kind as usize], code: code.clone() },
                    );
                }
            }
        }
        FeaturePlan { unconverted, ..plan }
    }
}

/// Names by falling count, then by the alphabet, at most [`MAX_LEVELS`].
fn most_frequent(counts: &BTreeMap<String, u64>) -> Vec<&str> {
    let mut names: Vec<(&str, u64)> = counts.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    names.into_iter().take(MAX_LEVELS).map(|(name, _)| name).collect()
}
