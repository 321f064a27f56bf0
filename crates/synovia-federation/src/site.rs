//! A site's part of a round.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use synovia_cohort::{CohortReader, Train};
use synovia_fusion::NamedTensor;
use synovia_training::{
    Checkpoint, CheckpointProgress, FeatureMoments, NoiseKey, Part, Progress, TrainingError, ValidationSum, Weights, initial_weights,
    relative, statistics_of, train_part, validate,
};

use crate::message::{AVERAGE, CONTROL, examples_of, is_buffer, is_statistic, norms, weights_hash};
use crate::{FederationError, Global, Method, Plan, Update};

/// Trains the site's part of the round after `global`. `state` is what the site kept from its last round, by this function;
/// without it the optimizer has no history, and what would stay at the site begins as what is shared. `noise` is the site's own,
/// where the plan asks for privacy.
///
/// Returns what the site gives and what it keeps. The same inputs give the same bits, so that a round that was cut off can be
/// done again.
///
/// # Errors
/// [`FederationError`] for weights of another plan or model, a round after the last, or a training that fails.
pub fn fit_round(
    plan: &Plan,
    site: &str,
    global: &Global,
    state: Option<&Checkpoint>,
    reader: &CohortReader,
    noise: Option<&NoiseKey>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<(Update, Checkpoint), FederationError> {
    let settings = plan.training_of(site)?;
    let of_site = |source: TrainingError| FederationError::Site { site: site.to_owned(), source };
    let digest = check(plan, global)?;
    if global.round >= plan.rounds {
        return Err(FederationError::Finished(plan.rounds));
    }
    let start = at_site(plan, global, state, &digest, reader).map_err(of_site)?;
    let (of_all, own) = (global.control(), start.control.clone());
    let shift = difference(&of_all, &own);
    // From other weights the gradients are others, and so must the noise be.
    let noise = noise.map(|noise| noise.of(&format!("{} {}", global.round, weights_hash(&start.model))));
    let part = Part {
        model: &plan.model,
        settings: &settings,
        uninformed: &plan.uninformed(),
        epochs: global.round * plan.local_epochs..(global.round + 1) * plan.local_epochs,
        proximal: plan.method.proximal(),
        shift: (plan.method == Method::Scaffold).then_some(&shift),
        noise: noise.as_ref(),
    };
    let trained = train_part(&part, start, &reader.view::<Train>(), progress).map_err(of_site)?;
    let checkpoint = trained.checkpoint;
    let norms = norms(&checkpoint.model);
    let shared = |(name, tensor): (&String, _)| (!plan.keeps(name, norms.contains(name))).then(|| (name.clone(), tensor));
    let mut weights: Weights = checkpoint.model.iter().filter_map(shared).map(|(name, t)| (name, t.clone())).collect();
    if settings.ema > 0.0 {
        weights.extend(checkpoint.average.iter().filter_map(shared).map(|(name, t)| (format!("{AVERAGE}{name}"), t.clone())));
    }
    if plan.method == Method::Scaffold {
        let changes = difference(&checkpoint.control, &own);
        for (name, tensor) in checkpoint.model.iter().filter(|(name, _)| !is_buffer(name) && !plan.keeps(name, norms.contains(*name))) {
            // What the site does not train has not changed.
            let none = || NamedTensor { shape: tensor.shape.clone(), values: vec![0.0; tensor.values.len()] };
            let change = changes.get(name).map(|change| NamedTensor { shape: tensor.shape.clone(), values: change.values.clone() });
            weights.insert(format!("{CONTROL}{name}"), change.unwrap_or_else(none));
        }
    }
    let examples =
        weights.keys().map(|name| (name.clone(), examples_of(name, &trained.seen, &plan.model, plan.training.branches))).collect();
    // Means of losses have no noise.
    let losses = if settings.privacy.is_some() { Vec::new() } else { trained.losses };
    let epsilon = trained.epsilon;
    let update = Update { plan: digest, round: global.round + 1, site: site.to_owned(), examples, losses, epsilon, weights };
    Ok((update, checkpoint))
}

/// `a − b` by name; what one of them lacks is 0.
fn difference(a: &Weights, b: &Weights) -> Weights {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let of_name = |name: &String| {
        let minus = |x: &NamedTensor, y: &[f32]| x.values.iter().zip(y).map(|(x, y)| x - y).collect();
        match (a.get(name), b.get(name)) {
            (Some(a), Some(b)) => Some(NamedTensor { shape: a.shape.clone(), values: minus(a, &b.values) }),
            (Some(a), None) => Some(a.clone()),
            (None, Some(b)) => Some(NamedTensor { shape: b.shape.clone(), values: b.values.iter().map(|x| -x).collect() }),
            (None, None) => None,
        }
    };
    names.into_iter().filter_map(|name| Some((name.clone(), of_name(name)?))).collect()
}

fn check(plan: &Plan, global: &Global) -> Result<String, FederationError> {
    let digest = plan.digest();
    if global.plan != digest {
        return Err(FederationError::OtherPlan { got: global.plan.clone(), expected: digest });
    }
    Ok(digest)
}

/// The shared weights with what stays at the site, and its optimizer.
fn at_site(
    plan: &Plan,
    global: &Global,
    state: Option<&Checkpoint>,
    digest: &str,
    reader: &CohortReader,
) -> Result<Checkpoint, TrainingError> {
    let fresh = || Checkpoint { progress: CheckpointProgress { key: digest.to_owned(), ..Default::default() }, ..Default::default() };
    let mut start = state.filter(|state| state.progress.key == digest).cloned().unwrap_or_else(fresh);
    let (mut model, mut average) = (global.model(), global.average());
    // What stays at sites is not in what is shared after a round by another strategy.
    let norms: BTreeSet<String> = norms(&model).into_iter().chain(norms(&start.model)).collect();
    for (shared, own) in [(&mut model, &start.model), (&mut average, &start.average)] {
        for (name, tensor) in own.iter().filter(|(name, _)| plan.keeps(name, norms.contains(*name))) {
            shared.insert(name.clone(), tensor.clone());
        }
    }
    if !average.is_empty() {
        // A site without what it kept has no average of it either.
        for (name, tensor) in &model {
            average.entry(name.clone()).or_insert_with(|| tensor.clone());
        }
    }
    if plan.kept.statistics && plan.model.record.is_some() && !reader.manifest().features.is_empty() {
        let statistics = statistics_of(&plan.features, &FeatureMoments::of(&reader.view::<Train>())?);
        for (name, tensor) in
            initial_weights(&plan.model, &statistics, plan.training.seed)?.into_iter().filter(|(name, _)| is_statistic(name))
        {
            if !average.is_empty() {
                average.insert(name.clone(), tensor.clone());
            }
            model.insert(name, tensor);
        }
    }
    start.model = model;
    start.average = average;
    Ok(start)
}

/// Losses over validation examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ValidationSums(
    /// For each task the number of known labels, then its sums ([`ValidationSum`]). Texts: numbers of JSON would not always come back to the
    /// last bit.
    Vec<Vec<String>>,
);

impl ValidationSums {
    fn new(sums: &[ValidationSum]) -> Self {
        let texts = |sum: &ValidationSum| std::iter::once(&sum.n).chain(&sum.sums).map(|x| format!("{x:?}")).collect();
        Self(sums.iter().map(texts).collect())
    }

    fn get(&self, task: usize) -> ValidationSum {
        let mut numbers = self.0.get(task).into_iter().flatten().map(|text| text.parse().unwrap_or(f64::NAN));
        ValidationSum { n: numbers.next().unwrap_or_default(), sums: numbers.collect() }
    }

    /// The loss over the validation examples of all sites, in units of that of an uninformed guess; `sites` are in the order of
    /// the plan's.
    pub fn loss(plan: &Plan, sites: &[&Self]) -> f64 {
        let of_task = |task: usize| {
            let mut all = ValidationSum::default();
            sites.iter().for_each(|sums| all.add(&sums.get(task)));
            all.calibrated()
        };
        relative((0..plan.tasks.len()).map(of_task), &plan.uninformed())
    }
}

/// What a site says of the shared weights.
pub struct Validated {
    /// The weights at the site: with what stays there.
    pub weights: Weights,
    /// Its losses.
    pub sums: ValidationSums,
}

/// Measures the shared weights on the site's validation split.
///
/// # Errors
/// [`FederationError`] for weights of another plan or model, or a cohort that can't be read.
pub fn validate_round(
    plan: &Plan,
    site: &str,
    global: &Global,
    state: Option<&Checkpoint>,
    reader: &CohortReader,
) -> Result<Validated, FederationError> {
    let settings = plan.training_of(site)?;
    let digest = check(plan, global)?;
    let of_site = |source: TrainingError| FederationError::Site { site: site.to_owned(), source };
    let here = at_site(plan, global, state, &digest, reader).map_err(of_site)?;
    let weights = if here.average.is_empty() { here.model } else { here.average };
    let sums = validate(&plan.model, &weights, &settings, reader).map_err(of_site)?;
    Ok(Validated { weights, sums: ValidationSums::new(&sums) })
}
