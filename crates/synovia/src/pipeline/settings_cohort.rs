//! `[cohort]`: who is in it, when predictions are made, and who is trained on.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use synovia_cohort::{Bounds, Criterion, Division, EventKind, EventPattern, Fractions, Index, Modality, Sex, Time, Validating, Which};

use synovia_prediction::Anchor;
pub use synovia_prediction::Unit;

use super::span::TimeSpan;

/// `[cohort]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cohort {
    /// What one example is. Default `study` with images, `patient` without.
    pub unit: Unit,
    /// The event that prediction times are counted from, where it is no imaging study.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexEvent>,
    /// When the prediction is made. Default `at index`.
    #[serde(skip_serializing_if = "Offset::is_none")]
    pub prediction: Offset,
    /// With [`Cohort::index`], how long before the prediction the patient's image may have been taken. Default: any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_within: Option<TimeSpan>,
    /// Time between the prediction and the beginning of the labels' windows. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<TimeSpan>,
    /// What a label is when the record ends before its window does. Default `unknown`.
    #[serde(skip_serializing_if = "Unheard::is_unknown")]
    pub censored: Unheard,
    /// What can happen first, so that the outcome can't be seen any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub competing: Vec<Competing>,
    /// Whom all of this must be true of, at the prediction time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<Rule>,
    /// Whom none of this may be true of, at the prediction time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Rule>,
    /// Folds of a cross-validation, each the test set once; `None` for one split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
    /// Who trains, who validates, who is tested on.
    pub split: SplitSettings,
}

/// Kinds of event that a rule or an index may name, with the key that names them.
pub const EVENT_KEYS: [(&str, EventKind); 9] = [
    ("condition", EventKind::Condition),
    ("observation", EventKind::Observation),
    ("medication", EventKind::Medication),
    ("procedure", EventKind::Procedure),
    ("encounter", EventKind::Encounter),
    ("report", EventKind::Report),
    ("imaging", EventKind::Imaging),
    ("allergy", EventKind::Allergy),
    ("family_history", EventKind::FamilyHistory),
];

/// Events by kind and code. Written `condition = "system|code"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events(pub EventPattern);

impl Events {
    fn key(&self) -> &'static str {
        EVENT_KEYS.iter().find(|(_, kind)| *kind == self.0.kind).map_or("death", |(key, _)| key)
    }
}

impl Serialize for Events {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self.0.kind {
            EventKind::Death => map.serialize_entry("death", &true)?,
            _ => map.serialize_entry(self.key(), &self.0.code)?,
        }
        map.end()
    }
}

/// `[cohort] index`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IndexEvent {
    /// Which events.
    #[serde(flatten)]
    pub event: Events,
    /// Which of a patient's. Default `first`.
    pub which: Which,
}

impl IndexEvent {
    /// In words: `a first encounter …`.
    pub fn described(&self) -> String {
        let which = match self.which {
            Which::First | Which::Last => format!("{:?} ", self.which).to_lowercase(),
            Which::Every => String::new(),
        };
        format!("{which}{}", described_events(&self.event).replacen("any ", "", 1))
    }
}

/// When the prediction is made. Written `at index`, `24h after index`, `7d before index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// At the index event.
    At,
    /// So long after it.
    After(TimeSpan),
    /// So long before it.
    Before(TimeSpan),
}

impl Offset {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_none(&self) -> bool {
        *self == Self::At
    }

    /// Days after the index event; less than 0 before it.
    pub fn days(self) -> f64 {
        match self {
            Self::At => 0.0,
            Self::After(span) => span.days(),
            Self::Before(span) => -span.days(),
        }
    }

    /// Reads what [`Display`](fmt::Display) writes; `index` may be left out.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_suffix("index").unwrap_or(text).trim_end();
        if text == "at" {
            return Some(Self::At);
        }
        let (span, word) = text.rsplit_once(' ')?;
        let span = span.parse().ok()?;
        match word {
            "after" => Some(Self::After(span)),
            "before" => Some(Self::Before(span)),
            _ => None,
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At => f.write_str("at index"),
            Self::After(span) => write!(f, "{span} after index"),
            Self::Before(span) => write!(f, "{span} before index"),
        }
    }
}

impl Serialize for Offset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is said of a patient of whom nothing more is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unheard {
    /// The label is unknown.
    Unknown,
    /// The outcome did not happen.
    Negative,
}

impl Unheard {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

/// `[[cohort.competing]]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Competing {
    /// What it is: a death, or events.
    #[serde(flatten)]
    pub event: Events,
    /// What the label is when it comes first. Default `unknown`.
    pub counts_as: Unheard,
}

impl Competing {
    /// As counted: `death`, `condition http://…|…`.
    pub fn described(&self) -> String {
        described_events(&self.event)
    }
}

/// `[[cohort.include]]` or `[[cohort.exclude]]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// What the report calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is asked.
    #[serde(flatten)]
    pub question: Question,
}

/// What a rule asks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Question {
    /// The age in years.
    Age {
        /// Its bounds.
        age: Bounds,
    },
    /// Administrative sex.
    Sex {
        /// Which.
        sex: Sex,
    },
    /// A modality that must be there.
    Has {
        /// Which.
        has: Modality,
    },
    /// How long before the prediction the record must begin.
    History {
        /// At least so long.
        history: TimeSpan,
    },
    /// A column of a table.
    Column {
        /// Its name.
        column: String,
        /// What its number must be.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Bounds>,
        /// What its text must be.
        #[serde(skip_serializing_if = "Option::is_none")]
        equals: Option<String>,
    },
    /// Events up to the prediction time.
    Events {
        /// Which.
        #[serde(flatten)]
        events: Events,
        /// What the number of each must be.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Bounds>,
        /// What the coded answer of each must be.
        #[serde(skip_serializing_if = "Option::is_none")]
        equals: Option<String>,
        /// How far back they count. Default: the whole record.
        #[serde(skip_serializing_if = "Option::is_none")]
        within: Option<TimeSpan>,
        /// How many there must be. Default 1.
        #[serde(skip_serializing_if = "is_one")]
        times: usize,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(times: &usize) -> bool {
    *times == 1
}

impl Rule {
    /// The question in the cohort's words.
    pub fn criterion(&self) -> Criterion {
        match &self.question {
            Question::Age { age } => Criterion::Age(*age),
            Question::Sex { sex } => Criterion::Sex(*sex),
            Question::Has { has } => Criterion::Has(*has),
            Question::History { history } => Criterion::History { days: history.days() },
            Question::Column { column, value, equals } => {
                Criterion::Fact { name: column.clone(), value: value.unwrap_or_default(), equals: equals.clone() }
            }
            Question::Events { events, value, equals, within, times } => Criterion::Events {
                pattern: events.0.clone(),
                value: *value,
                equals: equals.clone(),
                within_days: within.map(TimeSpan::days),
                times: *times,
            },
        }
    }

    /// Its name, or what it asks: `age at least 18`.
    pub fn described(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let bounded = |what: &str, value: Option<Bounds>, equals: Option<&String>| {
            let value = value.map(|bounds| format!(" {}", described_bounds(bounds))).unwrap_or_default();
            format!("{what}{value}{}", equals.map(|text| format!(" {text}")).unwrap_or_default())
        };
        match &self.question {
            Question::Age { age } => format!("age {}", described_bounds(*age)),
            Question::Sex { sex } => format!("{sex:?}").to_lowercase(),
            Question::Has { has: Modality::Image } => "with an image".to_owned(),
            Question::Has { has: Modality::Record } => "with a record".to_owned(),
            Question::History { history } => format!("a record of at least {history}"),
            Question::Column { column, value, equals } => bounded(column, *value, equals.as_ref()),
            Question::Events { events, value, equals, within, times } => {
                let within = within.map(|span| format!(" in the {span} before")).unwrap_or_default();
                let times = if *times > 1 { format!("{times} times ") } else { String::new() };
                format!("{times}{}{within}", bounded(&described_events(events), *value, equals.as_ref()))
            }
        }
    }
}

fn described_events(events: &Events) -> String {
    match (events.key(), events.0.code.as_str()) {
        ("death", _) => "death".to_owned(),
        (key, synovia_cohort::ANY_CODE) => format!("any {key}"),
        (key, code) => format!("{key} {code}"),
    }
}

fn described_bounds(bounds: Bounds) -> String {
    let words = [("at least", bounds.at_least), ("above", bounds.above), ("at most", bounds.at_most), ("below", bounds.below)];
    let said: Vec<String> = words.into_iter().filter_map(|(word, bound)| Some(format!("{word} {}", bound?))).collect();
    said.join(" and ")
}

/// Where a patient's household or site is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Named {
    /// In a column of a table.
    Column {
        /// Its name.
        column: String,
    },
    /// In one of the patient's identifiers.
    Identifier {
        /// How that identifier begins.
        identifier: String,
    },
    /// In the coded answer or text of an observation, the first that there is.
    Observation {
        /// `system|code`.
        observation: String,
    },
}

/// `[cohort] split`
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum SplitSettings {
    /// By shares of the patients.
    Patient {
        /// The shares. With [`Cohort::folds`], those of the patients outside the fold that is tested on, and `test` is 0.
        /// Default 0.7, 0.1, 0.2; with folds 0.85, 0.15.
        #[serde(flatten)]
        shares: Fractions,
        /// Whether shares are met for each label of the first task. Default: with folds. Without strata a new patient never
        /// moves an old one.
        stratify: bool,
        /// What keeps patients together.
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<Named>,
    },
    /// Tested on are patients whose first prediction is late.
    Time {
        /// When the test split begins.
        test_from: Date,
        /// When the validation split begins.
        #[serde(skip_serializing_if = "Option::is_none")]
        validation_from: Option<Date>,
        /// Where there is no such time, the share of the earlier patients that validates. Default 0.125.
        #[serde(skip_serializing_if = "Option::is_none")]
        validation: Option<f64>,
        /// What keeps patients together.
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<Named>,
    },
    /// Tested on are patients of some sites.
    Site {
        /// Where a patient's site is written.
        site: Named,
        /// The sites that are tested on.
        test_sites: Vec<String>,
        /// The sites that validate.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        validation_sites: Vec<String>,
        /// Where there are none, the share of the other patients that validates. Default 0.125.
        #[serde(skip_serializing_if = "Option::is_none")]
        validation: Option<f64>,
        /// What keeps patients together.
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<Named>,
    },
}

/// A date as written; its first moment counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Date {
    /// As written.
    pub text: String,
    /// Its first moment, UTC.
    pub start: Time,
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl SplitSettings {
    /// The division of one fold, or of the one split.
    pub fn division(&self, folds: Option<usize>, fold: Option<usize>) -> Division {
        let share = |validation: &Option<f64>| Validating::Share(validation.unwrap_or(0.0));
        match self {
            Self::Patient { shares, stratify, .. } => match (folds, fold) {
                (Some(folds), Some(fold)) => Division::Fold { folds, fold, fractions: *shares, stratified: *stratify },
                _ => Division::Shares { fractions: *shares, stratified: *stratify },
            },
            Self::Time { test_from, validation_from, validation, .. } => Division::Time {
                validation: validation_from.as_ref().map_or_else(|| share(validation), |from| Validating::From(from.start)),
                test_from: test_from.start,
            },
            Self::Site { test_sites, validation_sites, validation, .. } => Division::Sites {
                validation: if validation_sites.is_empty() { share(validation) } else { Validating::Sites(validation_sites.clone()) },
                test: test_sites.clone(),
            },
        }
    }

    /// What keeps patients together.
    pub fn group(&self) -> Option<&Named> {
        match self {
            Self::Patient { group, .. } | Self::Time { group, .. } | Self::Site { group, .. } => group.as_ref(),
        }
    }

    /// Where a patient's site is written.
    pub fn site(&self) -> Option<&Named> {
        match self {
            Self::Site { site, .. } => Some(site),
            _ => None,
        }
    }
}

impl Cohort {
    /// The index event, where it is no imaging study.
    pub fn index(&self) -> Option<Index> {
        let any = || EventPattern { kind: EventKind::Encounter, code: synovia_cohort::ANY_CODE.to_owned() };
        match (&self.index, self.unit) {
            (Some(index), _) => Some(Index { event: index.event.0.clone(), which: index.which }),
            (None, Unit::Encounter) => Some(Index { event: any(), which: Which::Every }),
            (None, _) => None,
        }
    }

    /// What predictions are made at.
    pub fn anchor(&self) -> Anchor {
        Anchor {
            unit: self.unit,
            index: self.index(),
            prediction_days: self.prediction.days(),
            image_within_days: self.image_within.map(TimeSpan::days),
        }
    }

    /// Columns of a table that rules, groups and sites are read from.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let of_rules = self.include.iter().chain(&self.exclude).filter_map(|rule| match &rule.question {
            Question::Column { column, .. } => Some(column.as_str()),
            _ => None,
        });
        let named = [self.split.group(), self.split.site()].into_iter().flatten().filter_map(|named| match named {
            Named::Column { column } => Some(column.as_str()),
            _ => None,
        });
        of_rules.chain(named)
    }

    /// Those of [`Cohort::columns`] that are compared as texts.
    pub fn text_columns(&self) -> impl Iterator<Item = &str> {
        self.columns().filter(|name| {
            let is_number = |rule: &Rule| matches!(&rule.question, Question::Column { column, value: Some(_), .. } if column == name);
            !self.include.iter().chain(&self.exclude).any(is_number)
        })
    }
}
