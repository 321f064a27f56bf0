//! The end-to-end training loop.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use synovia_cohort::{Task, Train, Validation, View};
use synovia_encoders::FeatureStatistics;
use synovia_fusion::{JointModel, JointModelConfig, StateError, apply_state, collect_state};

use crate::checkpoint::{Checkpoint, CheckpointProgress};
use crate::course::{Course, Moving, diverged, usable, validation_sums};
use crate::draws::drawing;
use crate::imbalance::prior_logits;
use crate::losses::{ValidationSum, relative, uninformed_losses};
use crate::part::{initial_weights, label_counts};
use crate::together::{Running, in_pool_of};
use crate::{NoiseKey, Sampling, Together, TrainingError, TrainingSettings, Weights};

/// One model to be trained.
pub struct Fit<'a> {
    /// What it is made of; its towers decide what it sees.
    pub model: &'a JointModelConfig,
    /// Statistics of the features, by [`crate::fit_statistics`].
    pub statistics: &'a FeatureStatistics,
    /// How it is trained.
    pub settings: &'a TrainingSettings,
    /// Where its checkpoints are kept; a folder of its own.
    pub checkpoints: &'a Path,
    /// Digest of the data; a checkpoint made from other data is not resumed from.
    pub data_key: &'a str,
    /// What noise is drawn from, where `settings` ask for privacy.
    pub noise: Option<&'a NoiseKey>,
    /// Weights by name to begin with instead of those that are drawn: of towers that were trained before.
    pub start: Option<&'a Weights>,
    /// What it shares with trainings that run meanwhile.
    pub together: &'a Together,
}

impl Fit<'_> {
    /// The model with these weights; what burn draws for them first is not looked at, but is drawn in a turn of its own.
    fn with_weights(&self, weights: &Weights, device: &Device) -> Result<JointModel, TrainingError> {
        drawing(device, 0, || Ok(apply_state(self.model.init(None, device)?, weights)?))
    }
}

/// A line of the training's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Training loss: the mean over the tasks of their loss in units of that of an uninformed guess, so that a task of many
    /// classes does not outweigh one of two.
    pub train_loss: f64,
    /// Validation loss in the same units, of the averaged weights, each task's at the temperature that suits it best
    /// ([`crate::ValidationSum::calibrated`]); the epoch where it is lowest is kept.
    pub validation_loss: f64,
    /// Training and validation loss by task.
    pub tasks: Vec<TaskLosses>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Training examples a second, validation not counted.
    pub examples_per_s: f64,
    /// ε of all epochs so far, where training is private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
}

/// One task's losses in an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskLosses {
    /// The task.
    pub task: String,
    /// Training loss, the mean over the known labels.
    pub train: f64,
    /// Validation loss.
    pub validation: f64,
    /// The same at the temperature that suits best.
    #[serde(default)]
    pub calibrated: f64,
}

/// What the caller is told while training goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Training starts, or goes on after this many of so many epochs.
    Start {
        /// Epochs done before.
        done: usize,
        /// Epochs at most.
        epochs: usize,
        /// Steps in an epoch.
        steps: usize,
    },
    /// A step is done.
    Step {
        /// Epoch, from 1.
        epoch: usize,
        /// Step in it, from 1.
        step: usize,
        /// Loss of the batch.
        loss: f32,
        /// Examples a second in this epoch so far.
        examples_per_s: f64,
    },
    /// An epoch is done and its checkpoint is on disk.
    Epoch(&'a [EpochReport]),
}

/// A trained model.
pub struct Trained {
    /// Weights of the epoch with the lowest validation loss.
    pub weights: Weights,
    /// That epoch, from 1.
    pub best_epoch: usize,
    /// A line an epoch.
    pub history: Vec<EpochReport>,
}

/// Trains a model end to end; resumes from the last checkpoint of the very same run, to the same bits.
///
/// # Errors
/// [`TrainingError`]; checkpoints made so far stay.
pub fn fit(
    job: &Fit<'_>,
    train: &View<'_, Train>,
    validation: &View<'_, Validation>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Trained, TrainingError> {
    let running = job.together.enter();
    let trained = run(job, &running, train, validation, progress);
    // The others are of no use without this one.
    if trained.is_err() {
        job.together.stop();
    }
    trained
}

fn run(
    job: &Fit<'_>,
    running: &Running<'_>,
    train: &View<'_, Train>,
    validation: &View<'_, Validation>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Trained, TrainingError> {
    let settings = job.settings;
    // Tasks count the same at the start: each loss is in units of what a guess by the classes' shares would cost.
    let tasks = &train.manifest().tasks;
    let counts = label_counts(job.model, train);
    let mut uninformed = uninformed_losses(tasks, &counts);
    uninformed.extend(job.model.endpoints.iter().map(|head| head.base));
    let key = key(job);
    // A key that was left by a training with other settings or data gives other noise here.
    let noise = job.noise.map(|noise| noise.of(&key));
    let course = Course::new(job.model, settings, uninformed, train, noise.as_ref())?;
    let validation_rows = usable(validation, course.presence, false);
    if validation_rows.is_empty() {
        return Err(TrainingError::EmptySplit("validation"));
    }
    // All at once: burn makes each number when it is first looked at, between whatever else is drawn in the first step.
    let mut start = initial_weights(job.model, job.statistics, settings.seed)?;
    for (name, trained) in job.start.into_iter().flatten() {
        *start.get_mut(name).ok_or_else(|| StateError::Unknown(name.clone()))? = trained.clone();
    }
    let mut weights = start;
    let mut moving = Moving {
        optimizer: course.optimizer().with_slower(job.start.into_iter().flat_map(Weights::keys).cloned().collect(), settings.tower_rate),
        average: course.average(),
        state: CheckpointProgress { key, ..Default::default() },
    };
    let mut best = Weights::new();
    std::fs::create_dir_all(job.checkpoints).map_err(|source| TrainingError::Io { path: job.checkpoints.to_owned(), source })?;
    if let Some(checkpoint) = Checkpoint::load(job.checkpoints, &moving.state.key) {
        weights = checkpoint.model;
        moving.optimizer = moving.optimizer.with_state(checkpoint.progress.steps, &checkpoint.moments, &Device::flex());
        moving.average = moving.average.with_weights(&checkpoint.average, &Device::flex());
        moving.state = checkpoint.progress;
        best = checkpoint.best;
    }
    progress(Progress::Start { done: moving.state.epochs, epochs: settings.epochs, steps: course.steps });

    // What makes a head that saw all classes as often, or weighed them so, answer as the cohort is. Sampling knows of the first task alone.
    let is_even = |k: usize| settings.imbalance.evens_classes() || (k == 0 && settings.sampling == Sampling::Balanced);
    let prior_of = |(k, (task, counts)): (usize, (&Task, &Vec<u64>))| {
        is_even(k).then(|| prior_logits(task, counts)).flatten().map(|prior| (format!("heads.{k}.bias"), prior))
    };
    let priors: Vec<(String, Vec<f32>)> = tasks.iter().zip(&counts).enumerate().filter_map(prior_of).collect();
    // Whoever asks for an average of the last steps is to have them.
    let patience = if settings.swa > 0.0 { settings.epochs } else { settings.patience };
    let is_over = |state: &CheckpointProgress| state.epochs >= settings.epochs || patience_is_over(state, patience);
    while !is_over(&moving.state) {
        let share = running.share();
        in_pool_of(share, || {
            let mut model = job.with_weights(&weights, &course.device)?;
            let mut candidate = job.with_weights(&weights, &Device::flex())?;
            while !is_over(&moving.state) && running.share() == share {
                if job.together.is_stopped() {
                    return Err(TrainingError::Stopped);
                }
                let epoch = moving.state.epochs;
                let started = Instant::now();
                let (stepped, sums) = course.epoch(epoch, model, &mut moving, progress)?;
                model = stepped;
                let Moving { optimizer, average, state } = &mut moving;
                let mut averaged = average.weights();
                for (name, prior) in &priors {
                    if let Some(bias) = averaged.get_mut(name) {
                        bias.values.iter_mut().zip(prior).for_each(|(bias, prior)| *bias += prior);
                    }
                }
                candidate = apply_state(candidate, &averaged)?;
                let validated =
                    validation_sums(&candidate.valid(), course.endpoints, validation, &validation_rows, course.presence, course.batch)?;
                let validation_loss = relative(validated.iter().map(ValidationSum::calibrated), &course.uninformed);
                if !validation_loss.is_finite() {
                    return Err(diverged("the validation loss", validation_loss, epoch, course.steps - 1));
                }
                state.epochs += 1;
                let names = tasks.iter().map(|task| &task.name).chain(course.endpoints.iter().map(|head| &head.endpoint));
                let task_lines = names.zip(sums.losses.iter().zip(&validated)).map(|(name, (&train, sum))| TaskLosses {
                    task: name.clone(),
                    train,
                    validation: sum.mean(),
                    calibrated: sum.calibrated(),
                });
                state.history.push(EpochReport {
                    epoch: state.epochs,
                    train_loss: relative(sums.losses.iter().copied(), &course.trained_on),
                    validation_loss,
                    tasks: task_lines.collect(),
                    learning_rate: sums.rate,
                    gradient_norm: sums.gradient_norm,
                    seconds: started.elapsed().as_secs_f64(),
                    examples_per_s: sums.examples_per_s,
                    epsilon: course.epsilon(state.epochs),
                });
                if state.best.is_none_or(|(loss, _)| validation_loss < loss) {
                    state.best = Some((validation_loss, state.epochs));
                    best = averaged;
                }
                let moments = optimizer.state().1;
                let (model_now, average_now) = (collect_state(&model), average.weights());
                let taken = std::mem::take(&mut best);
                let checkpoint = Checkpoint {
                    progress: state.clone(),
                    model: model_now,
                    average: average_now,
                    best: taken,
                    moments,
                    ..Checkpoint::default()
                };
                checkpoint.save(job.checkpoints)?;
                (weights, best) = (checkpoint.model, checkpoint.best);
                progress(Progress::Epoch(&state.history));
            }
            Ok(())
        })?;
    }
    let state = moving.state;
    let best_epoch = state.best.map_or(0, |(_, epoch)| epoch);
    Ok(Trained { weights: best, best_epoch, history: state.history })
}

fn patience_is_over(state: &CheckpointProgress, patience: usize) -> bool {
    state.best.is_some_and(|(_, epoch)| state.epochs >= epoch + patience)
}

fn digest(weights: &Weights) -> String {
    let mut hash = Sha256::new();
    for (name, tensor) in weights {
        hash.update(name);
        tensor.values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    hex::encode(hash.finalize())
}

fn key(job: &Fit<'_>) -> String {
    let mut hash = Sha256::new();
    for part in [
        serde_json::to_string(job.model).unwrap_or_default(),
        serde_json::to_string(job.statistics).unwrap_or_default(),
        serde_json::to_string(job.settings).unwrap_or_default(),
        job.data_key.to_owned(),
        job.start.map(digest).unwrap_or_default(),
        env!("CARGO_PKG_VERSION").to_owned(),
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}
