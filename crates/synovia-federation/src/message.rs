//! What goes over the wire: safetensors with a line of JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use synovia_fusion::JointModelConfig;
use synovia_training::{Branches, Seen, Weights, decode_weights, encode_weights};

use crate::FederationError;

/// What the names of the moving average's numbers begin with.
pub(crate) const AVERAGE: &str = "average/";
/// What the names of gradients' means begin with: of all sites in [`Global`], how much a site's have changed in [`Update`].
pub(crate) const CONTROL: &str = "control/";

/// What all sites share after a round: the model's numbers by name, with `average/` before it those of its moving average, and with
/// `control/` the means of the sites' gradients, where there are such.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// Digest of the plan.
    pub plan: String,
    /// The round that they come out of; 0 for the first weights.
    pub round: usize,
    /// The numbers.
    pub weights: Weights,
}

/// What a site gives in a round. Numbers as in [`Global`], but for those that stay at the site.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Digest of the plan.
    pub plan: String,
    /// The round, from 1.
    pub round: usize,
    /// Who.
    pub site: String,
    /// For each number how many examples trained it.
    pub examples: BTreeMap<String, u64>,
    /// Mean training loss a task in the last epoch; none where training is private.
    pub losses: Vec<f64>,
    /// ε that the site has spent so far, where training is private.
    pub epsilon: Option<f64>,
    /// The numbers.
    pub weights: Weights,
}

// What it does not know is not its own: an update says more.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GlobalHeader {
    plan: String,
    round: usize,
}

#[derive(Serialize, Deserialize)]
struct UpdateHeader {
    plan: String,
    round: usize,
    site: String,
    examples: BTreeMap<String, u64>,
    losses: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<(Weights, T), FederationError> {
    let damaged = |why: String| FederationError::Damaged { what, why };
    let (weights, header) = decode_weights(bytes).map_err(|error| damaged(error.to_string()))?;
    let header = serde_json::from_str(&header).map_err(|error| damaged(error.to_string()))?;
    Ok((weights, header))
}

fn encode(weights: &Weights, header: &impl Serialize) -> Result<Vec<u8>, FederationError> {
    let header = serde_json::to_string(header).map_err(|error| FederationError::Damaged { what: "a header", why: error.to_string() })?;
    Ok(encode_weights(weights, &header)?)
}

impl Global {
    /// As a safetensors file.
    ///
    /// # Errors
    /// [`FederationError::Training`] for numbers that no file can hold.
    pub fn encode(&self) -> Result<Vec<u8>, FederationError> {
        encode(&self.weights, &GlobalHeader { plan: self.plan.clone(), round: self.round })
    }

    /// What [`Global::encode`] made.
    ///
    /// # Errors
    /// [`FederationError::Damaged`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FederationError> {
        let (weights, header): (_, GlobalHeader) = decode(bytes, "the shared weights")?;
        Ok(Self { plan: header.plan, round: header.round, weights })
    }

    /// The model itself.
    pub fn model(&self) -> Weights {
        self.weights.iter().filter(|(name, _)| is_model(name)).map(|(name, t)| (name.clone(), t.clone())).collect()
    }

    /// What the sites' gradients were on the average; empty where nobody asks.
    pub(crate) fn control(&self) -> Weights {
        self.weights.iter().filter_map(|(name, t)| Some((name.strip_prefix(CONTROL)?.to_owned(), t.clone()))).collect()
    }

    /// The moving average of the model; empty where there is none.
    pub fn average(&self) -> Weights {
        self.weights.iter().filter_map(|(name, t)| Some((name.strip_prefix(AVERAGE)?.to_owned(), t.clone()))).collect()
    }

    /// What is validated and kept: the average where there is one, else the model.
    pub fn candidate(&self) -> Weights {
        let average = self.average();
        if average.is_empty() { self.model() } else { average }
    }

    /// 64 hexadecimal digits of its numbers.
    pub fn hash(&self) -> String {
        weights_hash(&self.weights)
    }
}

impl Update {
    /// As a safetensors file.
    ///
    /// # Errors
    /// [`FederationError::Training`] for numbers that no file can hold.
    pub fn encode(&self) -> Result<Vec<u8>, FederationError> {
        let Self { plan, round, site, examples, losses, epsilon, weights } = self.clone();
        encode(&weights, &UpdateHeader { plan, round, site, examples, losses, epsilon })
    }

    /// What [`Update::encode`] made.
    ///
    /// # Errors
    /// [`FederationError::Damaged`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FederationError> {
        let (weights, header): (_, UpdateHeader) = decode(bytes, "an update")?;
        let UpdateHeader { plan, round, site, examples, losses, epsilon } = header;
        Ok(Self { plan, round, site, examples, losses, epsilon, weights })
    }
}

/// 64 hexadecimal digits of names, shapes and bits.
pub fn weights_hash(weights: &Weights) -> String {
    let mut hash = Sha256::new();
    for (name, tensor) in weights {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        tensor.shape.iter().for_each(|&n| hash.update((n as u64).to_le_bytes()));
        tensor.values.iter().for_each(|x| hash.update(x.to_le_bytes()));
    }
    hex::encode(hash.finalize())
}

/// The numbers of batch normalisations: those beside a running mean.
pub(crate) fn norms(weights: &Weights) -> BTreeSet<String> {
    let stems: BTreeSet<&str> = weights.keys().filter_map(|name| name.strip_suffix(".running_mean")).collect();
    let is_norm = |name: &&String| name.rsplit_once('.').is_some_and(|(stem, _)| stems.contains(stem));
    weights.keys().filter(is_norm).cloned().collect()
}

/// Whether a name is of the model itself.
pub(crate) fn is_model(name: &str) -> bool {
    !name.starts_with(AVERAGE) && !name.starts_with(CONTROL)
}

/// Whether a number is no parameter that a gradient trains: running statistics and the features' statistics.
pub(crate) fn is_buffer(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var") || is_statistic(name)
}

/// Whether a number is of the features' statistics.
pub(crate) fn is_statistic(name: &str) -> bool {
    name.contains(".standardize.")
}

/// How many of the examples that a training went through trained the number of this name: a tower only those that showed its
/// modality, a head only those whose label is known; the features' statistics nobody.
pub(crate) fn examples_of(name: &str, seen: &Seen, model: &JointModelConfig, branches: Branches) -> u64 {
    let averaged = name.strip_prefix(AVERAGE);
    let mut parts = averaged.or_else(|| name.strip_prefix(CONTROL)).unwrap_or(name).split('.');
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok());
    if is_statistic(name) {
        // The average of a constant is not one to the last bit.
        return averaged.map_or(0, |_| seen.records);
    }
    match (parts.next(), parts.next()) {
        (Some("image" | "image_projection" | "slices"), _) => seen.images,
        (Some("record" | "record_projection"), _) => seen.records,
        (Some("fusion"), Some(kind @ ("Gated" | "SharedPrivate")))
            if matches!((kind, parts.next()), ("Gated", Some("gates")) | ("SharedPrivate", Some("shared" | "private"))) =>
        {
            // A layer for each modality that the model has, the image's first.
            let modalities = [model.image.map(|_| seen.images), model.record.map(|_| seen.records)];
            let gate = number(parts.next()).and_then(|k| modalities.into_iter().flatten().nth(k));
            gate.unwrap_or(seen.examples)
        }
        // What stands in for a modality is trained by those that do not show it, the image's first; by all where each modality is also
        // shown by itself.
        (Some("absent"), Some(_)) if branches.own == 0.0 && branches.joint == 0.0 => match number(parts.next()) {
            Some(0) => seen.examples.saturating_sub(seen.images),
            Some(1) => seen.examples.saturating_sub(seen.records),
            _ => seen.examples,
        },
        (Some("heads"), task) => number(task).and_then(|k| seen.labels.get(k).copied()).unwrap_or(seen.examples),
        _ => seen.examples,
    }
}
