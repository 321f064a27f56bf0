//! What a model said of an example.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use synovia_cohort::{ExampleId, Split, Task};

/// Which model made a prediction, from which inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The joint model on all that is present.
    Joint,
    /// A model of the image alone, trained alone with the same budget.
    Image,
    /// A model of the record alone, trained alone with the same budget.
    Record,
    /// The joint model with the record masked.
    JointImage,
    /// The joint model with the image masked.
    JointRecord,
    /// Logistic regression on the first principal axes of the image model's embeddings.
    LogisticImage,
    /// Logistic regression on the record's features.
    LogisticRecord,
    /// A forest of decision trees on the record's features.
    ForestRecord,
    /// The image model and the better record baseline, put together after both were trained.
    LateFusion,
}

impl Variant {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Joint,
        Self::Image,
        Self::Record,
        Self::JointImage,
        Self::JointRecord,
        Self::LogisticImage,
        Self::LogisticRecord,
        Self::ForestRecord,
        Self::LateFusion,
    ];

    /// What needs no joint training: a joint network that does not beat the best of them earns its cost by nothing.
    pub const BASELINES: [Self; 4] = [Self::LogisticImage, Self::LogisticRecord, Self::ForestRecord, Self::LateFusion];

    /// Its name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joint => "joint",
            Self::Image => "image",
            Self::Record => "record",
            Self::JointImage => "joint-image",
            Self::JointRecord => "joint-record",
            Self::LogisticImage => "logistic-image",
            Self::LogisticRecord => "logistic-record",
            Self::ForestRecord => "forest-record",
            Self::LateFusion => "late-fusion",
        }
    }

    /// The variant of a name in a file of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == name)
    }

    /// What it is, in words for a reader of the report.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Joint => "image and record together",
            Self::Image => "image alone, trained alone",
            Self::Record => "record alone, trained alone",
            Self::JointImage => "joint model, record masked",
            Self::JointRecord => "joint model, image masked",
            Self::LogisticImage => "logistic regression on the image model’s embedding",
            Self::LogisticRecord => "logistic regression on the record",
            Self::ForestRecord => "forest of trees on the record",
            Self::LateFusion => "image model and record baseline, pooled",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The probability of one class of one task for one example, by one variant: a row of `predictions.parquet`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Which example.
    pub example: ExampleId,
    /// Its patient's pseudonym: what intervals are clustered by.
    pub patient: Arc<str>,
    /// The example's split.
    pub split: Split,
    /// [`Task::name`].
    pub task: Arc<str>,
    /// One of [`Task::classes`].
    pub class: Arc<str>,
    /// As [`synovia_cohort::ExampleRow::labels`]: 0 or 1 of a binary task; the index of the true class of a multiclass task,
    /// the same in each of the example's rows. `None` where unknown: such examples are counted and left out.
    pub label: Option<f32>,
    /// Calibrated probability of `class`, in [0, 1].
    pub probability: f32,
    /// Which model.
    pub variant: Variant,
}

impl Prediction {
    /// The rows of one example: `probabilities` in the order of the task's classes (one for a binary task).
    ///
    /// # Shapes
    /// - probabilities: `[task.n_outputs()]`
    pub fn rows<'a>(
        example: &'a ExampleId,
        patient: &Arc<str>,
        split: Split,
        task: &'a Task,
        label: Option<f32>,
        probabilities: &'a [f32],
        variant: Variant,
    ) -> impl Iterator<Item = Self> + 'a {
        let (name, patient): (Arc<str>, _) = (task.name.as_str().into(), Arc::clone(patient));
        task.classes.iter().zip(probabilities).map(move |(class, &probability)| Self {
            example: example.clone(),
            patient: Arc::clone(&patient),
            split,
            task: Arc::clone(&name),
            class: class.as_str().into(),
            label,
            probability,
            variant,
        })
    }
}
