//! Updates of a round to what all share after it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use synovia_fusion::NamedTensor;
use synovia_training::Weights;

use crate::message::{AVERAGE, CONTROL, is_buffer, is_model, norms};
use crate::{FederationError, Global, Method, Plan, Update};

/// An update as it came in.
#[derive(Clone, Debug)]
pub struct Unmerged {
    /// Where from, in words for a refusal: a file, a node.
    pub from: String,
    /// What [`Update::encode`] made.
    pub bytes: Vec<u8>,
}

/// An update that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Where it came from.
    pub from: String,
    /// Why.
    pub reason: String,
}

/// One site's part of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Who.
    pub site: String,
    /// Examples that trained the most trained number.
    pub examples: u64,
    /// Bytes of its update.
    pub bytes: u64,
    /// Euclidean distance of its parameters from the shared ones before the round.
    pub norm: f64,
    /// That over the median of the sites': an outlier has a large one.
    pub norm_over_median: f64,
    /// Mean training loss a task; none where training is private.
    pub losses: Vec<f64>,
    /// ε that the site has spent so far, where training is private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
}

/// What happened in a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundReport {
    /// Which, from 1.
    pub round: usize,
    /// Digits of what all share after it.
    pub hash: String,
    /// Sites whose updates count, by name.
    pub sites: Vec<SiteReport>,
    /// Updates that do not.
    pub refused: Vec<Refusal>,
    /// Sites that no update counts of.
    pub absent: Vec<String>,
    /// Bytes that went to sites and came from them.
    pub bytes: u64,
}

/// What the coordinator remembers from round to round besides the weights: nothing but for [`Method::FedAdam`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerState {
    /// `mean/…` and `square/…` of the steps.
    pub moments: Weights,
}

/// Constants of algorithm 2 of Reddi et al. 2021, "Adaptive Federated Optimization".
const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.99;
const TAU: f64 = 1e-3;

/// Puts the updates of the round after `global` together. For each number the mean of the sites that trained it, by how many
/// examples of theirs did; what nobody trained stays as it is. Sums are in double precision and in the order of the sites' names:
/// the same bits for any order of arrival.
///
/// Updates that are damaged, of another plan, round or model, not finite, of nobody, or two of one site that differ, are left out
/// and reported.
///
/// # Errors
/// [`FederationError::TooFew`] when fewer updates are left than the plan asks for.
pub fn aggregate(
    plan: &Plan,
    global: &Global,
    updates: &[Unmerged],
    server: &mut ServerState,
) -> Result<(Global, RoundReport), FederationError> {
    let digest = plan.digest();
    if global.plan != digest {
        return Err(FederationError::OtherPlan { got: global.plan.clone(), expected: digest });
    }
    if global.round >= plan.rounds {
        return Err(FederationError::Finished(plan.rounds));
    }
    let round = global.round + 1;
    let (accepted, mut refused) = sift(plan, global, updates);
    refused.sort_by(|a, b| (&a.from, &a.reason).cmp(&(&b.from, &b.reason)));
    if accepted.len() < plan.least_sites {
        let refused = refused.into_iter().map(|r| format!("{}: {}", r.from, r.reason)).collect();
        return Err(FederationError::TooFew { round, got: accepted.len(), least: plan.least_sites, refused });
    }
    let updates: Vec<&Update> = accepted.values().map(|(update, _)| update).collect();
    let names: BTreeSet<&String> = global.weights.keys().chain(updates.iter().flat_map(|update| update.weights.keys())).collect();
    let mut weights = Weights::new();
    for name in names {
        // The moving average is there after the first round only.
        let before = global.weights.get(name);
        if name.starts_with(CONTROL) {
            weights.extend(control(name, before, &updates, plan.sites.len()).map(|after| (name.clone(), after)));
            continue;
        }
        let mean = mean(name, &updates).or_else(|| before.cloned());
        let after = match (plan.method, before, mean) {
            (Method::FedAdam { rate }, Some(before), Some(mean)) if !is_buffer(name) => adam(name, before, &mean, rate, server),
            (_, _, Some(mean)) => mean,
            // An average that nobody trained is the model's number.
            (_, _, None) => match updates.iter().find_map(|update| update.weights.get(name)) {
                Some(tensor) => tensor.clone(),
                None => continue,
            },
        };
        weights.insert(name.clone(), after);
    }
    let after = Global { plan: digest, round, weights };
    let absent = plan.sites.iter().filter(|site| !accepted.contains_key(*site)).cloned().collect();
    let down = global.encode()?.len() as u64 * plan.sites.len() as u64;
    let up: u64 = accepted.values().map(|(_, bytes)| bytes).sum();
    let sites = site_reports(global, &accepted);
    let report = RoundReport { round, hash: after.hash(), sites, refused, absent, bytes: down + up };
    Ok((after, report))
}

/// Updates that count, by site, with their bytes; and the others.
fn sift(plan: &Plan, global: &Global, updates: &[Unmerged]) -> (BTreeMap<String, (Update, u64)>, Vec<Refusal>) {
    let mut refused = Vec::new();
    let mut by_site: BTreeMap<String, Vec<(&Unmerged, Update)>> = BTreeMap::new();
    let norms = norms(&global.weights);
    for unmerged in updates {
        let checked = Update::decode(&unmerged.bytes)
            .map_err(|error| error.to_string())
            .and_then(|update| fault(plan, global, &norms, &update).map_or(Ok(update), Err));
        match checked {
            Ok(update) => by_site.entry(update.site.clone()).or_default().push((unmerged, update)),
            Err(reason) => refused.push(Refusal { from: unmerged.from.clone(), reason }),
        }
    }
    let mut accepted = BTreeMap::new();
    for (site, mut of_site) in by_site {
        let same = of_site.iter().all(|(unmerged, _)| unmerged.bytes == of_site[0].0.bytes);
        of_site.sort_by(|a, b| a.0.from.cmp(&b.0.from));
        let mut of_site = of_site.into_iter();
        if same && let Some((unmerged, update)) = of_site.next() {
            accepted.insert(site.clone(), (update, unmerged.bytes.len() as u64));
        }
        // Which of two that differ is the site's own nobody knows.
        let reason = if same {
            format!("site `{site}` sent this update twice; it counts once")
        } else {
            format!("site `{site}` sent two updates that differ; none of them counts")
        };
        refused.extend(of_site.map(|(unmerged, _)| Refusal { from: unmerged.from.clone(), reason: reason.clone() }));
    }
    (accepted, refused)
}

/// Why an update does not count; `None` where it does.
fn fault(plan: &Plan, global: &Global, norms: &BTreeSet<String>, update: &Update) -> Option<String> {
    let site = &update.site;
    if update.plan != global.plan {
        return Some(format!("site `{site}` sent weights of another federation (plan {})", update.plan));
    }
    if let Err(error) = plan.place(site) {
        return Some(error.to_string());
    }
    if update.round != global.round + 1 {
        return Some(format!("site `{site}` sent an update of round {} in round {}", update.round, global.round + 1));
    }
    // The average has the model's names and shapes.
    let expected: BTreeMap<String, &NamedTensor> = global
        .weights
        .iter()
        .filter(|(name, _)| is_model(name) && !plan.keeps(name, norms.contains(*name)))
        .flat_map(|(name, tensor)| {
            let average = (plan.training.ema > 0.0).then(|| (format!("{AVERAGE}{name}"), tensor));
            let control = (plan.method == Method::Scaffold && !is_buffer(name)).then(|| (format!("{CONTROL}{name}"), tensor));
            average.into_iter().chain(control).chain([(name.clone(), tensor)])
        })
        .collect();
    if let Some(name) = expected.keys().find(|name| !update.weights.contains_key(*name)) {
        return Some(format!("site `{site}` sent weights of another model: there is no `{name}`"));
    }
    for (name, tensor) in &update.weights {
        let Some(expected) = expected.get(name) else {
            return Some(format!("site `{site}` sent weights of another model: `{name}` is not in this one"));
        };
        if tensor.shape != expected.shape {
            let (got, expected) = (&tensor.shape, &expected.shape);
            return Some(format!("site `{site}` sent weights of another model: `{name}` has shape {got:?}, not {expected:?}"));
        }
        if let Some(value) = tensor.values.iter().find(|x| !x.is_finite()) {
            return Some(format!("site `{site}` sent {value} in `{name}`: its training has diverged"));
        }
        if !update.examples.contains_key(name) {
            return Some(format!("site `{site}` does not say how many examples trained `{name}`"));
        }
    }
    None
}

/// The mean by examples; `None` where nobody trained it.
fn mean(name: &str, updates: &[&Update]) -> Option<NamedTensor> {
    let parts: Vec<(f64, &NamedTensor)> = updates
        .iter()
        .filter_map(|update| Some((update.examples.get(name).copied()? as f64, update.weights.get(name)?)))
        .filter(|(n, _)| *n > 0.0)
        .collect();
    let n: f64 = parts.iter().map(|(n, _)| n).sum();
    let (_, first) = parts.first()?;
    let value = |k: usize| (parts.iter().map(|(n, tensor)| n * f64::from(tensor.values[k])).sum::<f64>() / n) as f32;
    Some(NamedTensor { shape: first.shape.clone(), values: (0..first.values.len()).map(value).collect() })
}

/// The mean of the sites' gradients after their changes: of those that trained the number, and by how many of all sites are there.
fn control(name: &str, before: Option<&NamedTensor>, updates: &[&Update], n_sites: usize) -> Option<NamedTensor> {
    let is_trained = |update: &&&Update| update.examples.get(name).is_some_and(|n| *n > 0);
    let changes: Vec<&NamedTensor> = updates.iter().filter(is_trained).filter_map(|update| update.weights.get(name)).collect();
    let Some(first) = changes.first() else { return before.cloned() };
    let share = updates.len() as f64 / n_sites.max(1) as f64 / changes.len() as f64;
    let value = |k: usize| {
        let change: f64 = changes.iter().map(|change| f64::from(change.values[k])).sum();
        (before.map_or(0.0, |before| f64::from(before.values[k])) + share * change) as f32
    };
    Some(NamedTensor { shape: first.shape.clone(), values: (0..first.values.len()).map(value).collect() })
}

/// A step of Adam, with the mean's step for the gradient's opposite.
fn adam(name: &str, before: &NamedTensor, mean: &NamedTensor, rate: f64, server: &mut ServerState) -> NamedTensor {
    let of = |value: f32| NamedTensor { shape: before.shape.clone(), values: vec![value; before.values.len()] };
    let mut take = |kind: &str, start: f64| server.moments.remove(&format!("{kind}/{name}")).unwrap_or_else(|| of(start as f32));
    let (mut first, mut second) = (take("mean", 0.0), take("square", TAU * TAU));
    let mut after = before.clone();
    for (k, value) in after.values.iter_mut().enumerate() {
        let step = f64::from(mean.values[k]) - f64::from(*value);
        let m = BETA_1 * f64::from(first.values[k]) + (1.0 - BETA_1) * step;
        let v = BETA_2 * f64::from(second.values[k]) + (1.0 - BETA_2) * step * step;
        (first.values[k], second.values[k]) = (m as f32, v as f32);
        *value = (f64::from(*value) + rate * m / (v.sqrt() + TAU)) as f32;
    }
    server.moments.insert(format!("mean/{name}"), first);
    server.moments.insert(format!("square/{name}"), second);
    after
}

fn site_reports(global: &Global, accepted: &BTreeMap<String, (Update, u64)>) -> Vec<SiteReport> {
    let distance = |update: &Update| {
        let parameters = update.weights.iter().filter(|(name, _)| !is_buffer(name) && is_model(name));
        let squares = parameters.filter_map(|(name, tensor)| {
            let before = global.weights.get(name)?;
            Some(tensor.values.iter().zip(&before.values).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>())
        });
        squares.sum::<f64>().sqrt()
    };
    let norms: Vec<f64> = accepted.values().map(|(update, _)| distance(update)).collect();
    let mut sorted = norms.clone();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let median = if n == 0 { 0.0 } else { f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]) };
    let report = |((update, bytes), norm): (&(Update, u64), f64)| SiteReport {
        site: update.site.clone(),
        examples: update.examples.values().copied().max().unwrap_or_default(),
        bytes: *bytes,
        norm,
        norm_over_median: if median > 0.0 { norm / median } else { 1.0 },
        losses: update.losses.clone(),
        epsilon: update.epsilon,
    };
    accepted.values().zip(norms).map(report).collect()
}
