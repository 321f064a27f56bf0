//! The end-to-end training loop.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use synovia_cohort::{ExampleRow, SplitKind, Task, Train, Validation, View};
use synovia_encoders::FeatureStatistics;
use synovia_fusion::{JointModel, JointModelConfig, Modality, apply_state, collect_state};
use synovia_kernels::release_buffers;

use crate::batch::{HostBatch, TrainingChanges};
use crate::checkpoint::{Checkpoint, CheckpointProgress};
use crate::losses::{TaskSums, balanced, forward, relative, uninformed_loss};
use crate::optimizer::{AdamW, AdamWSettings};
use crate::{Average, Presence, Sampling, TrainingError, TrainingSettings, Weights, epoch_order, learning_rate};

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
}

/// A line of the training's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Training loss: the mean over the tasks of their loss in units of that of an uninformed guess, so that a task of many
    /// classes does not outweigh one of two.
    pub train_loss: f64,
    /// Validation loss in the same units, of the averaged weights; the epoch where it is lowest is kept.
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
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Trained, TrainingError> {
    let trained = run(job, train, validation, progress);
    // What comes next, a smaller model's training or none, has no use for this one's memory.
    release_buffers();
    trained
}

fn run(
    job: &Fit<'_>,
    train: &View<'_, Train>,
    validation: &View<'_, Validation>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Trained, TrainingError> {
    let settings = job.settings;
    let presence = Presence::of(job.model);
    // Modalities can learn from each other where nobody knows the answer.
    let (train_rows, validation_rows) = (usable(train, presence, settings.branches.need_no_labels()), usable(validation, presence, false));
    if train_rows.len() < 2 {
        return Err(TrainingError::EmptySplit("train"));
    }
    if validation_rows.is_empty() {
        return Err(TrainingError::EmptySplit("validation"));
    }
    let tasks = &train.manifest().tasks;
    let device = Device::flex().autodiff();
    device.seed(settings.seed);
    let mut model = job.model.init(Some(job.statistics), &device)?;
    let mut optimizer =
        AdamW::new(AdamWSettings { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: settings.weight_decay, clip: settings.clip });

    let batch = settings.batch.clamp(2, train_rows.len());
    // A last batch of less than half the size would give batch statistics of a handful of examples.
    let steps = (train_rows.len() + batch / 2) / batch;
    let (n_steps, n_warmup) = (steps * settings.epochs, (settings.warmup_epochs * steps as f64).round() as usize);
    let mut state = CheckpointProgress { key: key(job), ..Default::default() };
    let mut average = Average::new(settings.ema);
    let mut best = Weights::new();
    std::fs::create_dir_all(job.checkpoints).map_err(|source| TrainingError::Io { path: job.checkpoints.to_owned(), source })?;
    if let Some(checkpoint) = Checkpoint::load(job.checkpoints, &state.key) {
        model = apply_state(model, &checkpoint.model)?;
        optimizer = optimizer.with_state(checkpoint.progress.steps, &checkpoint.moments, &Device::flex());
        average = average.with_weights(&checkpoint.average, &Device::flex());
        state = checkpoint.progress;
        best = checkpoint.best;
    }
    progress(Progress::Start { done: state.epochs, epochs: settings.epochs, steps });

    // Tasks count the same at the start: each loss is in units of what a guess by the classes' shares would cost.
    let uninformed: Vec<f64> =
        (0..tasks.len()).map(|k| uninformed_loss(train_rows.iter().filter_map(|row| row.labels[k]), &tasks[k])).collect();
    let labels: Vec<Option<f32>> = train_rows.iter().map(|r| r.labels.first().copied().flatten()).collect();
    let prior = prior_logits(&labels, settings.sampling, &tasks[0]);
    while state.epochs < settings.epochs && !patience_is_over(&state, settings.patience) {
        let epoch = state.epochs;
        // Dropout draws from the device's generator: seeded by epoch, a resumed run draws the same.
        device.seed(settings.seed ^ ((epoch as u64 + 1) << 32));
        let started = Instant::now();
        let order = epoch_order(&labels, settings.sampling, settings.seed, epoch);
        let batches: Vec<&[usize]> = (0..steps).map(|k| &order[k * batch..((k + 1) * batch).min(order.len())]).collect();
        let read = |step: usize| {
            let rows: Vec<&ExampleRow> = batches[step].iter().map(|&k| train_rows[k]).collect();
            let changes = TrainingChanges {
                augmentation: &settings.augmentation,
                modality_dropout: settings.modality_dropout,
                seed: settings.seed,
                epoch,
                first: step * batch,
            };
            HostBatch::read(train.reader(), &rows, presence, Some(&changes))
        };
        let mut sums = TaskSums::new(tasks.len());
        let (mut n_seen, mut norms, mut rate) = (0, 0.0, 0.0);
        // The model goes in and comes out again: with one owner, the optimizer writes in place.
        let stepped = std::thread::scope(|scope| {
            let mut model = model;
            let (sender, receiver) = crossbeam_channel::bounded(3);
            scope.spawn(move || (0..steps).try_for_each(|step| sender.send(read(step)).map_err(|_| ())));
            for (step, host) in receiver.iter().enumerate() {
                let mut batch = host?.into_tensors(tasks, &device);
                if !settings.kernels {
                    // The kernels do not compute the image's own gradient, and leave it to burn where one is wanted.
                    batch.inputs.image = batch.inputs.image.map(|image| Modality { values: image.values.require_grad(), ..image });
                }
                n_seen += batch.n;
                let known = batch.known.clone();
                let seen = forward(&model, batch, tasks, &device);
                let values: Vec<f32> = seen.losses.iter().map(|loss| loss.value.clone().into_scalar::<f32>()).collect();
                let loss = relative(values.iter().map(|&value| f64::from(value)), &uninformed) as f32;
                if !loss.is_finite() {
                    return Err(diverged("the loss", loss.into(), epoch, step));
                }
                rate = learning_rate(settings.learning_rate, state.steps as usize, n_steps, n_warmup);
                let joint = balanced(&model, &seen.losses, &seen.shared, &uninformed, settings.balance, &mut state)
                    .ok_or(TrainingError::EmptySplit("train"))?;
                let total = match settings.branches.loss(&model, &seen, &uninformed) {
                    Some(between) => joint + between,
                    None => joint,
                };
                drop(seen);
                let (stepped, norm) = optimizer.step(model, total.backward(), rate);
                // The step by such a gradient has left no numbers in the model.
                if !norm.is_finite() {
                    return Err(diverged("the gradient's norm", norm, epoch, step));
                }
                model = stepped;
                state.steps += 1;
                average.add(&model, state.steps);
                sums.add(&values, &known);
                norms += norm;
                let examples_per_s = n_seen as f64 / started.elapsed().as_secs_f64();
                progress(Progress::Step { epoch: epoch + 1, step: step + 1, loss, examples_per_s });
            }
            Ok(model)
        });
        model = stepped?;
        let examples_per_s = n_seen as f64 / started.elapsed().as_secs_f64();
        let trained = sums.means();
        let mut averaged = average.weights();
        if let Some(prior) = &prior
            && let Some(bias) = averaged.get_mut("heads.0.bias")
        {
            bias.values.iter_mut().zip(prior).for_each(|(bias, prior)| *bias += prior);
        }
        let candidate = apply_state(job.model.init(None, &Device::flex())?, &averaged)?.valid();
        let validated = validation_losses(&candidate, validation, &validation_rows, presence, batch)?;
        let validation_loss = relative(validated.iter().copied(), &uninformed);
        if !validation_loss.is_finite() {
            return Err(diverged("the validation loss", validation_loss, epoch, steps - 1));
        }
        state.epochs += 1;
        let task_lines =
            tasks.iter().enumerate().map(|(k, task)| TaskLosses { task: task.name.clone(), train: trained[k], validation: validated[k] });
        state.history.push(EpochReport {
            epoch: state.epochs,
            train_loss: relative(trained.iter().copied(), &uninformed),
            validation_loss,
            tasks: task_lines.collect(),
            learning_rate: rate,
            gradient_norm: norms / steps as f64,
            seconds: started.elapsed().as_secs_f64(),
            examples_per_s,
        });
        if state.best.is_none_or(|(loss, _)| validation_loss < loss) {
            state.best = Some((validation_loss, state.epochs));
            best = averaged;
        }
        let moments = optimizer.state().1;
        let (model_now, average_now) = (collect_state(&model), average.weights());
        let checkpoint = Checkpoint { progress: state.clone(), model: model_now, average: average_now, best, moments };
        checkpoint.save(job.checkpoints)?;
        best = checkpoint.best;
        progress(Progress::Epoch(&state.history));
    }
    let best_epoch = state.best.map_or(0, |(_, epoch)| epoch);
    Ok(Trained { weights: best, best_epoch, history: state.history })
}

/// Examples that the model can see anything of and that have a label of some task, or more than one modality where labels are
/// not all that it learns from.
fn usable<'a, S: SplitKind>(view: &View<'a, S>, presence: Presence, unlabelled: bool) -> Vec<&'a ExampleRow> {
    let complete = |row: &ExampleRow| presence.image && row.image_row.is_some() && presence.record && row.record_row.is_some();
    let teaches = |row: &ExampleRow| row.labels.iter().any(Option::is_some) || (unlabelled && complete(row));
    view.rows().filter(|row| presence.sees(row) && teaches(row)).collect()
}

/// What is added to the logits of the first task after balanced sampling, which shows each class equally often: the
/// logarithm of the classes' shares among `labels`, so that probabilities are those of the cohort and not of the sampling
/// (Menon et al. 2021, "Long-tail learning via logit adjustment"). `None` for plain sampling.
fn prior_logits(labels: &[Option<f32>], sampling: Sampling, task: &Task) -> Option<Vec<f32>> {
    if sampling != Sampling::Balanced {
        return None;
    }
    let n_logits = task.n_logits();
    let mut counts = vec![0.0f64; n_logits.max(2)];
    labels.iter().flatten().for_each(|&label| counts[label as usize] += 1.0);
    let present = counts.iter().filter(|count| **count > 0.0).count() as f64;
    let n: f64 = counts.iter().sum();
    if present < 2.0 {
        return None;
    }
    // A class without examples was never shown, balanced or not.
    let log = |count: f64| if count > 0.0 { (count / n * present).ln() } else { 0.0 };
    Some(if n_logits == 1 {
        vec![(log(counts[1]) - log(counts[0])) as f32]
    } else {
        counts.iter().map(|&count| log(count) as f32).collect()
    })
}

fn patience_is_over(state: &CheckpointProgress, patience: usize) -> bool {
    state.best.is_some_and(|(_, epoch)| state.epochs >= epoch + patience)
}

fn key(job: &Fit<'_>) -> String {
    let mut hash = Sha256::new();
    for part in [
        serde_json::to_string(job.model).unwrap_or_default(),
        serde_json::to_string(job.statistics).unwrap_or_default(),
        serde_json::to_string(job.settings).unwrap_or_default(),
        job.data_key.to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// Mean loss by task over the validation examples whose label is known.
fn validation_losses(
    model: &JointModel,
    validation: &View<'_, Validation>,
    rows: &[&ExampleRow],
    presence: Presence,
    batch: usize,
) -> Result<Vec<f64>, TrainingError> {
    let device = Device::flex();
    let tasks = &validation.manifest().tasks;
    let mut sums = TaskSums::new(tasks.len());
    for rows in rows.chunks(batch) {
        let batch = HostBatch::read(validation.reader(), rows, presence, None)?.into_tensors(tasks, &device);
        let known = batch.known.clone();
        let losses = forward(model, batch, tasks, &device).losses;
        sums.add(&losses.into_iter().map(|loss| loss.value.into_scalar::<f32>()).collect::<Vec<_>>(), &known);
    }
    Ok(sums.means())
}

/// `epoch` and `step` count from 0.
fn diverged(what: &'static str, value: f64, epoch: usize, step: usize) -> TrainingError {
    TrainingError::Diverged { what, epoch: epoch + 1, step: step + 1, value }
}
