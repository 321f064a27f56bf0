//! What is predicted: `[[task]]`.

use serde::{Serialize, Serializer};
use synovia_cohort::{Endpoint, EndpointKind, Task, TaskKind};

use super::settings_cohort::Events;
use super::span::TimeSpan;

/// All of `[[task]]`: those with classes, and those whose answer is a number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tasks {
    /// Binary and multiclass ones.
    pub classes: Vec<TaskSettings>,
    /// Regression, survival and treatment.
    pub endpoints: Vec<EndpointSettings>,
}

impl Serialize for Tasks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Either<'a> {
            Classes(&'a TaskSettings),
            Endpoint(&'a EndpointSettings),
        }
        let (classes, endpoints) = (self.classes.iter().map(Either::Classes), self.endpoints.iter().map(Either::Endpoint));
        serializer.collect_seq(classes.chain(endpoints))
    }
}

/// `[[task]]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskSettings {
    /// A column, an output of the exported model, a key in the metrics: letters, digits, `_` and `-`.
    pub name: String,
    /// What kind.
    pub kind: TaskKind,
    /// Where its label comes from.
    pub label: Label,
    /// Share of the training patients whose labels are used, above 0 to 1: to learn what labels are worth. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labelled: Option<f64>,
}

/// Where a label comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Label {
    /// Whether a condition is first seen in a window after the prediction time. Binary.
    Condition {
        /// `system|code`
        condition: String,
        /// The window's length.
        within: TimeSpan,
    },
    /// The coded answer of the first observation in a window after the prediction time.
    Observation {
        /// `system|code`
        observation: String,
        /// The window's length.
        within: TimeSpan,
        /// Answers and what they are called.
        #[serde(flatten)]
        answers: Classes,
    },
    /// Whether a report in a window after the prediction time has a coded conclusion. Binary.
    Conclusion {
        /// `system|code` of the report.
        report: String,
        /// `system|code`
        conclusion: String,
        /// The window's length.
        within: TimeSpan,
    },
    /// A column of a CSV.
    Column {
        /// Its name.
        column: String,
        /// How its cells become labels.
        #[serde(flatten)]
        rule: ColumnRule,
    },
}

/// How a cell becomes a label.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ColumnRule {
    /// 1 where the number is above this, 0 otherwise. Binary.
    Above {
        /// The bound, itself not above.
        above: f64,
    },
    /// 1 where the text is this, 0 otherwise. Binary.
    Equals {
        /// The text.
        equals: String,
    },
    /// The position of the text among these.
    Classes(Classes),
}

/// Coded answers or texts, in the order of the classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Classes {
    /// As the source has them: two for a binary task (negative, positive), two or more otherwise.
    pub classes: Vec<String>,
    /// What reports and the exported model call them; as the source does when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
}

impl Classes {
    fn names(&self) -> &[String] {
        self.names.as_deref().unwrap_or(&self.classes)
    }
}

impl TaskSettings {
    /// The task with its classes settled. A binary task's class is its positive one.
    pub fn task(&self) -> Task {
        let names: Vec<String> = match &self.label {
            Label::Condition { .. } | Label::Conclusion { .. } => vec![self.name.clone()],
            Label::Column { column, rule: ColumnRule::Above { above } } => vec![format!("{column} > {above}")],
            Label::Column { column, rule: ColumnRule::Equals { equals } } => vec![format!("{column} = {equals}")],
            Label::Observation { answers: classes, .. } | Label::Column { rule: ColumnRule::Classes(classes), .. } => {
                classes.names().to_vec()
            }
        };
        let classes = match self.kind {
            TaskKind::Binary => names.last().cloned().into_iter().collect(),
            TaskKind::Multiclass | TaskKind::Ordinal => names,
        };
        Task { name: self.name.clone(), kind: self.kind, classes }
    }
}

/// `[[task]]` of an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointSettings {
    /// As of a [`TaskSettings`].
    pub name: String,
    /// What kind.
    #[serde(serialize_with = "as_word")]
    pub kind: EndpointKind,
    /// Where its numbers come from.
    pub label: EndpointLabel,
    /// As of a [`TaskSettings`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labelled: Option<f64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn as_word<S: Serializer>(kind: &EndpointKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

/// Where the numbers of an endpoint come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EndpointLabel {
    /// A number: what an observation in a window after the prediction time says first.
    Observation {
        /// `system|code`
        observation: String,
        /// UCUM unit that it is wanted in; empty for numbers without one.
        unit: String,
        /// The window's length.
        within: TimeSpan,
    },
    /// The time to the first of these events.
    Event {
        /// Which.
        #[serde(flatten)]
        event: Events,
        /// Who is watched for longer is watched for so long.
        within: TimeSpan,
    },
    /// Columns of a CSV: days, and 1 where they ended with the event.
    Columns {
        /// Column of the days.
        column: String,
        /// Column of 0 and 1.
        event: String,
    },
    /// An outcome after one of two treatments.
    Treated {
        /// The outcome, whose window begins with the treatment.
        #[serde(flatten)]
        outcome: OutcomeLabel,
        /// `system|code` of each, medication or procedure.
        treatment: [String; 2],
        /// Within which time after the prediction it begins.
        started: TimeSpan,
        /// Which outcome is the better one. Default `higher`.
        better: Better,
    },
    /// A column of a CSV with the outcome, and one with the treatment.
    TreatedColumn {
        /// The outcome.
        #[serde(flatten)]
        outcome: OutcomeLabel,
        /// Column of 0 and 1.
        treatment: String,
        /// Which outcome is the better one. Default `higher`.
        better: Better,
    },
    /// A column of a CSV: a number.
    Column {
        /// Its name.
        column: String,
    },
}

/// Which outcome of a treatment is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The higher one.
    Higher,
    /// The lower one.
    Lower,
}

/// The outcome of a treatment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OutcomeLabel {
    /// Yes or no.
    Binary(Label),
    /// A number of an observation.
    Observation {
        /// `system|code`
        observation: String,
        /// As of [`EndpointLabel::Observation`].
        unit: String,
        /// The window's length.
        within: TimeSpan,
    },
    /// A column's number.
    Column {
        /// Its name.
        column: String,
    },
}

impl EndpointSettings {
    /// What it is.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { name: self.name.clone(), kind: self.kind }
    }
}
