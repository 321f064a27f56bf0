//! What all sites agree on before the first round.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use synovia_cohort::{FeatureSpec, Geometry, Task};
use synovia_encoders::FeatureStatistics;
use synovia_fusion::JointModelConfig;
use synovia_training::{Balance, FeatureMoments, Sampling, TrainingSettings, initial_weights, statistics_of, uninformed_losses};

use crate::message::is_statistic;
use crate::statement::check_name;
use crate::{FederationError, Global, Statement};

/// How weights are put together, and what sites add to their losses. Written `fedavg`, `fedprox:0.01`, `fedadam:0.01`, `scaffold`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Method {
    /// The mean by examples (McMahan et al. 2017).
    FedAvg,
    /// The same, with sites held near the shared weights by `mu / 2 · |w − shared|²` (Li et al. 2020).
    FedProx {
        /// Strength.
        mu: f64,
    },
    /// The mean's step taken for a gradient, with Adam at the coordinator (Reddi et al. 2021, algorithm 2).
    FedAdam {
        /// Learning rate at the coordinator.
        rate: f64,
    },
    /// The mean by examples, with each site's gradients corrected by how the sites' differ (Karimireddy et al. 2020, option I:
    /// by means of gradients, which the optimizer does not change).
    Scaffold,
}

impl Method {
    /// Strength of the pull towards the shared weights in a site's training.
    pub fn proximal(self) -> f64 {
        if let Self::FedProx { mu } = self { mu } else { 0.0 }
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').map_or((text, None), |(kind, number)| (kind, number.parse::<f64>().ok()));
        match (kind, number) {
            ("fedavg", None) if !text.contains(':') => Ok(Self::FedAvg),
            ("scaffold", None) if !text.contains(':') => Ok(Self::Scaffold),
            ("fedprox", Some(mu)) if mu.is_finite() && mu >= 0.0 => Ok(Self::FedProx { mu }),
            ("fedadam", Some(rate)) if rate.is_finite() && rate > 0.0 => Ok(Self::FedAdam { rate }),
            _ => Err("a method is fedavg, scaffold, fedprox:STRENGTH or fedadam:RATE, such as fedprox:0.01".to_owned()),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FedAvg => f.write_str("fedavg"),
            Self::Scaffold => f.write_str("scaffold"),
            Self::FedProx { mu } => write!(f, "fedprox:{mu}"),
            Self::FedAdam { rate } => write!(f, "fedadam:{rate}"),
        }
    }
}

/// What of the model stays at each site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Batch normalisation: scale, shift and running statistics (Li et al. 2021, `FedBN`).
    pub norms: bool,
    /// The tasks' heads.
    pub heads: bool,
    /// The statistics by which features are standardised: each site's own.
    #[serde(default)]
    pub statistics: bool,
}

/// What the coordinator sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Rounds.
    pub rounds: usize,
    /// Passes of a site over its examples in a round.
    pub local_epochs: usize,
    /// How weights are put together.
    pub method: Method,
    /// What stays at each site.
    pub kept: Kept,
    /// Training examples that a site must have.
    pub least_examples: u64,
    /// Updates without which a round fails.
    pub least_sites: usize,
}

/// A federation's settings, the same for all: with the first weights, all that a site needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// Passes of a site over its examples in a round.
    pub local_epochs: usize,
    /// How weights are put together.
    pub method: Method,
    /// What stays at each site.
    pub kept: Kept,
    /// Updates without which a round fails.
    pub least_sites: usize,
    /// Who takes part, by name.
    pub sites: Vec<String>,
    /// The model: a tower for each modality that some site has.
    pub model: JointModelConfig,
    /// How it is trained; `epochs` are those of all rounds.
    pub training: TrainingSettings,
    /// Columns of the feature tables.
    pub features: Vec<FeatureSpec>,
    /// Shape of the images.
    pub geometry: Option<Geometry>,
    /// Tasks.
    pub tasks: Vec<Task>,
    /// For each task the labels of each class over all sites' train splits.
    pub labels: Vec<Vec<u64>>,
    /// Statistics of the features over all sites' train splits.
    pub statistics: FeatureStatistics,
}

impl Plan {
    /// 64 hexadecimal digits that stand for it.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(serde_json::to_vec(self).unwrap_or_default()))
    }

    /// For each task what an uninformed guess costs, over all sites.
    pub fn uninformed(&self) -> Vec<f64> {
        uninformed_losses(&self.tasks, &self.labels)
    }

    /// The site's place among all.
    ///
    /// # Errors
    /// [`FederationError::UnknownSite`] for one that takes no part.
    pub fn place(&self, site: &str) -> Result<usize, FederationError> {
        let unknown = || FederationError::UnknownSite { site: site.to_owned(), known: self.sites.join(", ") };
        self.sites.iter().position(|name| name == site).ok_or_else(unknown)
    }

    /// The settings of one site's training: the first site has the seed itself, so that a federation of one is a training like
    /// any other, and each other site draws its own order, dropout and augmentation.
    ///
    /// # Errors
    /// [`FederationError::UnknownSite`] for one that takes no part.
    pub fn training_of(&self, site: &str) -> Result<TrainingSettings, FederationError> {
        let seed = self.training.seed ^ (self.place(site)? as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok(TrainingSettings { seed, ..self.training.clone() })
    }

    /// Whether a number of this name stays at its site. `is_norm` is whether it is of a batch normalisation.
    pub(crate) fn keeps(&self, name: &str, is_norm: bool) -> bool {
        (self.kept.norms && is_norm)
            || (self.kept.heads && name.strip_prefix(crate::message::AVERAGE).unwrap_or(name).starts_with("heads."))
            || (self.kept.statistics && is_statistic(name))
    }
}

/// Agrees on a plan and the first weights, whatever the order of the statements.
///
/// # Errors
/// [`FederationError`] that names the sites and what they disagree on, a site that is too small, or a setting that no
/// federation can keep.
pub fn agree(mut statements: Vec<Statement>, terms: &Terms) -> Result<(Plan, Global), FederationError> {
    statements.sort_by(|a, b| a.site.cmp(&b.site));
    let first = statements.first().ok_or(FederationError::NoSite)?.clone();
    if let Some(pair) = statements.windows(2).find(|pair| pair[0].site == pair[1].site) {
        return Err(FederationError::SiteTwice(pair[0].site.clone()));
    }
    for statement in &statements {
        check_name(&statement.site)?;
        if statement.n_train < terms.least_examples.max(2) {
            let (site, got, least) = (statement.site.clone(), statement.n_train, terms.least_examples.max(2));
            return Err(FederationError::TooSmall { site, got, least });
        }
        same(&first, statement)?;
    }
    check_settings(&first.training, terms)?;
    let image = one_of(&statements, "images of", |s| s.model.image)?;
    let record = one_of(&statements, "a table of", |s| s.model.record)?;
    let geometry = one_of(&statements, "images of", |s| s.geometry)?;
    let listed = |s: &Statement| (!s.features.is_empty()).then(|| s.features.clone());
    let features = one_of(&statements, "the features", listed)?.unwrap_or_default();
    let mut labels = first.labels.clone();
    labels.iter_mut().flatten().for_each(|count| *count = 0);
    let mut moments = vec![FeatureMoments::default(); features.len()];
    for statement in &statements {
        labels.iter_mut().zip(&statement.labels).for_each(|(sum, counts)| sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n));
        moments.iter_mut().zip(&statement.moments).for_each(|(sum, more)| *sum = sum.merged(*more));
    }
    let plan = Plan {
        rounds: terms.rounds,
        local_epochs: terms.local_epochs,
        method: terms.method,
        kept: terms.kept,
        least_sites: terms.least_sites.clamp(1, statements.len()),
        sites: statements.iter().map(|s| s.site.clone()).collect(),
        model: JointModelConfig { image, record, ..first.model },
        training: TrainingSettings { epochs: terms.rounds * terms.local_epochs, ..first.training },
        statistics: statistics_of(&features, &moments),
        features,
        geometry,
        tasks: first.tasks,
        labels,
    };
    let weights = initial_weights(&plan.model, &plan.statistics, plan.training.seed)?;
    let global = Global { plan: plan.digest(), round: 0, weights };
    Ok((plan, global))
}

/// Refuses two sites that would not train the same thing.
fn same(first: &Statement, second: &Statement) -> Result<(), FederationError> {
    let names = |s: &Statement| s.tasks.iter().map(|task| format!("{} ({})", task.name, task.classes.join(", "))).collect::<Vec<_>>();
    let disagree = |what: &str, ours: String, theirs: String| {
        let (first, second) = (first.site.clone(), second.site.clone());
        Err(FederationError::Disagree { what: what.to_owned(), first, ours, second, theirs })
    };
    if first.tasks != second.tasks {
        return disagree("the tasks", names(first).join(", "), names(second).join(", "));
    }
    // Where rounds set the number of epochs, what a pipeline says of them does not matter; nor when it would stop.
    let comparable = |s: &Statement| {
        let training = TrainingSettings { epochs: 0, patience: 0, ..s.training.clone() };
        let model = JointModelConfig { image: None, record: None, ..s.model.clone() };
        (serde_json::to_value(training).unwrap_or_default(), serde_json::to_value(model).unwrap_or_default())
    };
    let (ours, theirs) = (comparable(first), comparable(second));
    for (section, ours, theirs) in [("training", ours.0, theirs.0), ("model", ours.1, theirs.1)] {
        let keys: BTreeSet<&String> = [&ours, &theirs].into_iter().filter_map(|of| of.as_object()).flat_map(|of| of.keys()).collect();
        for key in keys {
            // What is left out is by default.
            let text = |of: &serde_json::Value| of.get(key).map_or_else(|| "the default".to_owned(), ToString::to_string);
            if ours.get(key) != theirs.get(key) {
                return disagree(&format!("{section}.{key}"), text(&ours), text(&theirs));
            }
        }
    }
    Ok(())
}

/// What those sites have that have any.
fn one_of<T: PartialEq + fmt::Debug + Clone>(
    statements: &[Statement],
    what: &str,
    get: impl Fn(&Statement) -> Option<T>,
) -> Result<Option<T>, FederationError> {
    let mut having = statements.iter().filter_map(|s| Some((s, get(s)?)));
    let Some((first, ours)) = having.next() else { return Ok(None) };
    match having.find(|(_, theirs)| *theirs != ours) {
        Some((second, theirs)) => Err(FederationError::Disagree {
            what: what.to_owned(),
            first: first.site.clone(),
            ours: format!("{ours:?}"),
            second: second.site.clone(),
            theirs: format!("{theirs:?}"),
        }),
        None => Ok(Some(ours)),
    }
}

fn check_settings(training: &TrainingSettings, terms: &Terms) -> Result<(), FederationError> {
    let refuse = |why: &str| Err(FederationError::Setting(why.to_owned()));
    if terms.rounds == 0 || terms.local_epochs == 0 {
        return refuse("a federation needs at least one round and one local epoch");
    }
    if training.sampling == Sampling::Balanced {
        return refuse("training.sampling = \"balanced\" has each site its own prior, which no mean can give back; set it to \"plain\"");
    }
    if !training.imbalance.is_none() {
        return refuse(
            "training.imbalance goes by each site's own labels, and no mean of the sites can give the cohort's shares back; leave it out",
        );
    }
    if training.swa > 0.0 {
        return refuse("training.swa averages the last steps of one training, and a site may be away for some; leave it out");
    }
    if training.balance == Balance::Dwa {
        return refuse("training.balance = \"dwa\" needs the losses of all rounds, which a site that was away lacks; choose another");
    }
    if matches!(terms.method, Method::FedAdam { .. }) && training.ema > 0.0 {
        return refuse("fedadam moves the weights and not their moving average; set training.ema = 0");
    }
    Ok(())
}
