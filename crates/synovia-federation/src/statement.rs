//! What a site says of itself before the first round.

use serde::{Deserialize, Serialize};
use synovia_cohort::{CohortReader, FeatureSpec, Geometry, Task, Train};
use synovia_fusion::JointModelConfig;
use synovia_training::{FeatureMoments, Presence, TrainingSettings, label_counts, n_usable};

use crate::FederationError;

/// Values of a feature below which a site does not tell its moments: those of a few patients would tell of each of them.
const LEAST_VALUES: f64 = 5.0;

/// What a site has: counts and sums over its train split, and its settings. No value of any patient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The site's name.
    pub site: String,
    /// The model of what it has: a tower for each modality that its train split has.
    pub model: JointModelConfig,
    /// How it is set to train.
    pub training: TrainingSettings,
    /// Columns of its feature table.
    pub features: Vec<FeatureSpec>,
    /// Shape of its images.
    pub geometry: Option<Geometry>,
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// Examples that it can train on.
    pub n_train: u64,
    /// For each task the labels of each class among them.
    pub labels: Vec<Vec<u64>>,
    /// For each feature its moments; none of fewer than five values.
    pub moments: Vec<FeatureMoments>,
}

impl Statement {
    /// Of a cohort. `model` is the one that the site would train by itself; towers of what its train split lacks are left out.
    ///
    /// # Errors
    /// [`FederationError`] for a name that is none, or where the cohort can't be read.
    pub fn of(site: &str, model: &JointModelConfig, training: &TrainingSettings, reader: &CohortReader) -> Result<Self, FederationError> {
        check_name(site)?;
        let train = reader.view::<Train>();
        let manifest = reader.manifest();
        let has = |presence: Presence| train.rows().any(|row| presence.sees(row) && row.labels.iter().any(Option::is_some));
        let model = JointModelConfig {
            image: model.image.filter(|_| has(Presence { image: true, record: false })),
            record: model.record.filter(|_| has(Presence { image: false, record: true })),
            ..model.clone()
        };
        let moments = FeatureMoments::of(&train).map_err(|source| FederationError::Site { site: site.to_owned(), source })?;
        Ok(Self {
            site: site.to_owned(),
            n_train: n_usable(&model, &train) as u64,
            labels: label_counts(&model, &train),
            model,
            training: training.clone(),
            features: manifest.features.clone(),
            geometry: manifest.geometry,
            tasks: manifest.tasks.clone(),
            moments: moments.into_iter().map(told).collect(),
        })
    }
}

/// What a site tells of a feature: nothing of few values, and nothing of logarithms where not all have one, which are then not
/// used either and might be those of a few.
pub(crate) fn told(moments: FeatureMoments) -> FeatureMoments {
    if moments.values.n() < LEAST_VALUES {
        FeatureMoments::default()
    } else if moments.logs.n() < moments.values.n() {
        FeatureMoments { values: moments.values, ..FeatureMoments::default() }
    } else {
        moments
    }
}

/// Names go into paths and messages.
pub(crate) fn check_name(site: &str) -> Result<(), FederationError> {
    let sound = (1..=64).contains(&site.len()) && site.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if sound { Ok(()) } else { Err(FederationError::SiteName(site.to_owned())) }
}
