//! What an exported file says of itself.

use serde::{Deserialize, Serialize};
use synovia_cohort::{EndpointKind, Task};
use synovia_evaluation::{CalibrationMap, ConformalSets, NoveltyScore};
use synovia_images::{ImageKind, Preparation, Selection};
use synovia_onnx::Session;
use synovia_records::{FeaturePlan, FormatConfig};

use crate::{Anchor, PredictionError};

/// Key of the file's metadata under which [`Exported`] stands.
pub const METADATA: &str = "synovia";

/// What the exported file says of itself: all that prediction needs besides the graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exported {
    /// The pipeline's name.
    pub name: String,
    /// Version of the program that wrote it.
    pub version: String,
    /// Commit of the source that trained it, with `-dirty` where it was changed since, or `unknown`.
    pub commit: String,
    /// Seed of the training.
    pub seed: u64,
    /// SHA-256 of the weights.
    pub weights: String,
    /// SHA-256 of the cohort that the model was trained on: its examples, pixels and features.
    pub cohort: String,
    /// The tasks, in the order of the outputs.
    pub tasks: Vec<Task>,
    /// The endpoints, in the order of the outputs, after the tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<ExportedEndpoint>,
    /// How an image is prepared; `None` for a model without images.
    pub preparation: Option<Preparation>,
    /// What the images are.
    pub image_kind: Option<ImageKind>,
    /// Which images are taken at all.
    #[serde(default)]
    pub selection: Selection,
    /// What a prediction is made at.
    #[serde(flatten)]
    pub anchor: Anchor,
    /// How records are read: the format, and the columns of a table less those of the labels.
    pub records: Option<FormatConfig>,
    /// How a record becomes features; `None` for a model without records.
    pub features: Option<FeaturePlan>,
    /// Where the middle 98 % of the training records lie, a feature each; `None` for one that none of them has. Empty where it was
    /// not written down.
    #[serde(default)]
    pub feature_ranges: Vec<Option<[f32; 2]>>,
    /// What training spent where it was private: `epsilon`, `delta`, `noise`, `clip`, a patient each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<serde_json::Value>,
    /// How far back the record counts, days.
    pub history_days: Option<f64>,
    /// How each task is calibrated; it is in the graph.
    #[serde(default)]
    pub calibrations: Vec<CalibrationMap>,
    /// Prediction sets, a task each, fitted on the validation split; `None` where it had no labels.
    #[serde(default)]
    pub conformal: Vec<Option<ConformalSets>>,
    /// Where the training's examples lie; `None` where it was not written down, or may not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub novelty: Option<NoveltyScore>,
    /// Measures on the test split.
    pub metrics: serde_json::Value,
    /// What it is for.
    pub intended_use: String,
}

/// An output whose values are numbers and not probabilities of classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedEndpoint {
    /// The output's name.
    pub name: String,
    /// What kind.
    pub kind: EndpointKind,
    /// What each of its values is: `value` of regression; `survival_…d` of survival, the chance that the event has not come by then; of a
    /// treatment `outcome_0`, `outcome_1`, `effect` (the second less the first) and `propensity`, the chance that the second is given.
    pub quantities: Vec<String>,
}

impl Exported {
    /// Of a loaded model.
    ///
    /// # Errors
    /// [`PredictionError::NotExported`] and [`PredictionError::Metadata`] for files that this version's `export` did not write.
    pub fn of(session: &Session) -> Result<Self, PredictionError> {
        let metadata = session.metadata()?;
        let (_, text) = metadata.iter().find(|(key, _)| key == METADATA).ok_or(PredictionError::NotExported)?;
        serde_json::from_str(text).map_err(PredictionError::Metadata)
    }

    /// Whether its records are facts that hold at any time.
    pub fn is_timeless(&self) -> bool {
        self.records.as_ref().is_some_and(FormatConfig::is_timeless)
    }
}
