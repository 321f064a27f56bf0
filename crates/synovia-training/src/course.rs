//! An epoch of training: what a whole training and a part of one have in common.

use std::time::Instant;

use burn::tensor::Device;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use synovia_cohort::{CohortReader, ExampleRow, SplitKind, Task, Train, Validation, View};
use synovia_fusion::{EndpointHead, JointModel, JointModelConfig, Modality};

use crate::batch::{HostBatch, TrainingChanges, generator};
use crate::checkpoint::CheckpointProgress;
use crate::draws::drawing;
use crate::fit::Progress;
use crate::imbalance::Adjustment;
use crate::losses::{TaskSums, ValidationSum, balanced, forward, relative};
use crate::optimizer::{AdamW, AdamWSettings, Gathered, gradients};
use crate::part::label_counts;
use crate::private::{NoiseKey, Private};
use crate::{Average, Presence, TrainingError, TrainingSettings, epoch_order, learning_rate};

/// Examples that a training went through, each as often as it did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// All.
    pub examples: u64,
    /// Those that showed an image.
    pub images: u64,
    /// Those that showed a record.
    pub records: u64,
    /// For each task those whose label is known.
    pub labels: Vec<u64>,
}

/// What changes from step to step besides the model.
pub(crate) struct Moving {
    pub optimizer: AdamW,
    pub average: Average,
    pub state: CheckpointProgress,
}

/// What came out of an epoch.
pub(crate) struct EpochSums {
    /// Mean loss a task over the known labels.
    pub losses: Vec<f64>,
    /// Learning rate of the last step.
    pub rate: f64,
    /// Mean norm of the gradient before clipping.
    pub gradient_norm: f64,
    pub examples_per_s: f64,
    pub seen: Seen,
}

/// The fixed part of a training: which examples, in which batches, by which schedule.
pub(crate) struct Course<'a, 'v> {
    train: &'a View<'v, Train>,
    pub settings: &'a TrainingSettings,
    pub tasks: &'v [Task],
    pub endpoints: &'a [EndpointHead],
    pub presence: Presence,
    pub rows: Vec<&'v ExampleRow>,
    /// Labels of the first task.
    pub labels: Vec<Option<f32>>,
    /// For each task, then each endpoint, what an uninformed guess costs.
    pub uninformed: Vec<f64>,
    /// The same of the losses that are trained on.
    pub trained_on: Vec<f64>,
    /// What is done about each task's rare classes.
    pub adjustments: Vec<Adjustment>,
    pub device: Device,
    /// Examples in a batch.
    pub batch: usize,
    /// Steps in an epoch.
    pub steps: usize,
    /// What keeps patients private, where they are.
    private: Option<Private>,
}

impl<'a, 'v> Course<'a, 'v> {
    pub fn new(
        model: &'a JointModelConfig,
        settings: &'a TrainingSettings,
        uninformed: Vec<f64>,
        train: &'a View<'v, Train>,
        noise: Option<&NoiseKey>,
    ) -> Result<Self, TrainingError> {
        let presence = Presence::of(model);
        // Modalities can learn from each other where nobody knows the answer.
        let rows = usable(train, presence, settings.branches.need_no_labels());
        if rows.len() < 2 {
            return Err(TrainingError::EmptySplit("train"));
        }
        let private = match (settings.privacy, noise) {
            (Some(privacy), Some(key)) => {
                privacy.check(settings, model)?;
                Some(Private::new(privacy, key.clone(), &rows))
            }
            (Some(_), None) => return Err(TrainingError::Privacy("noise needs a key of its own")),
            (None, _) => None,
        };
        let drawn = private.as_ref().map_or(rows.len(), Private::n_patients);
        let batch = settings.batch.clamp(2, rows.len()).min(drawn);
        // A last batch of less than half the size would give batch statistics of a handful of examples.
        let steps = (drawn + batch / 2) / batch;
        let labels = rows.iter().map(|row| row.labels.first().copied().flatten()).collect();
        let tasks = &train.manifest().tasks;
        let imbalance = settings.imbalance;
        let adjustments: Vec<Adjustment> = if imbalance.is_none() {
            Vec::new()
        } else {
            let counts = label_counts(model, train);
            let of_task = |((task, counts), &base): ((&Task, &Vec<u64>), &f64)| Adjustment::new(imbalance, task, counts, base);
            tasks.iter().zip(&counts).zip(&uninformed).map(of_task).collect()
        };
        let mut trained_on = uninformed.clone();
        trained_on.iter_mut().zip(&adjustments).for_each(|(base, adjustment)| *base = adjustment.uninformed);
        let (endpoints, device) = (model.endpoints.as_slice(), Device::flex().autodiff());
        Ok(Self {
            train,
            settings,
            tasks,
            endpoints,
            presence,
            rows,
            labels,
            uninformed,
            trained_on,
            adjustments,
            device,
            batch,
            steps,
            private,
        })
    }

    /// An optimizer without any history.
    pub fn optimizer(&self) -> AdamW {
        let TrainingSettings { weight_decay, clip, .. } = *self.settings;
        AdamW::new(AdamWSettings { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay, clip })
    }

    /// Steps of the optimizer in an epoch.
    fn updates(&self) -> usize {
        self.steps.div_ceil(self.settings.accumulate)
    }

    /// Learning rate of the optimizer's step `update` of epoch `epoch`, both from 0.
    pub fn rate(&self, epoch: usize, update: usize) -> f64 {
        let n = self.updates() * self.settings.epochs;
        let n_warmup = (self.settings.warmup_epochs * self.updates() as f64).round() as usize;
        learning_rate(self.settings.learning_rate, (epoch * self.updates() + update).min(self.settings.swa_from(n)), n, n_warmup)
    }

    /// The average of the weights before the first step.
    pub fn average(&self) -> Average {
        let n = self.updates() * self.settings.epochs;
        let average = Average::new(self.settings.ema);
        if self.settings.swa > 0.0 { average.evenly_after(self.settings.swa_from(n) as u64) } else { average }
    }

    /// Where the examples are.
    pub fn reader(&self) -> &CohortReader {
        self.train.reader()
    }

    /// ε after so many epochs; `None` where nothing is private.
    pub fn epsilon(&self, epochs: usize) -> Option<f64> {
        let (privacy, private) = (self.settings.privacy?, self.private.as_ref()?);
        Some(privacy.epsilon(self.batch, private.n_patients(), (epochs * self.steps) as u64))
    }

    /// Trains through all examples once; `epoch` counts from 0.
    pub fn epoch(
        &self,
        epoch: usize,
        model: JointModel,
        moving: &mut Moving,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<(JointModel, EpochSums), TrainingError> {
        let Self { settings, tasks, endpoints, presence, batch, steps, device, uninformed, trained_on, adjustments, .. } = self;
        if let Some(private) = &self.private {
            // Dropout draws from burn's generator: seeded by epoch, a resumed run draws the same.
            device.seed(settings.seed ^ ((epoch as u64 + 1) << 32));
            return self.private_epoch(private, epoch, model, moving, progress);
        }
        let started = Instant::now();
        let order = epoch_order(&self.labels, settings.sampling, settings.seed, epoch);
        let batches: Vec<&[usize]> = (0..*steps).map(|k| &order[k * batch..((k + 1) * batch).min(order.len())]).collect();
        let read = |step: usize| {
            let rows: Vec<&ExampleRow> = batches[step].iter().map(|&k| self.rows[k]).collect();
            let changes = TrainingChanges {
                augmentation: &settings.augmentation,
                modality_dropout: settings.modality_dropout,
                seed: settings.seed,
                epoch,
                first: step * batch,
            };
            HostBatch::read(self.train.reader(), &rows, *presence, Some(&changes))
        };
        let mut sums = TaskSums::new(uninformed.len());
        let mut seen = Seen { labels: vec![0; tasks.len()], ..Seen::default() };
        let (mut norms, mut n_norms, mut rate) = (0.0, 0, 0.0);
        let mut gathered = Gathered::default();
        // The model goes in and comes out again: with one owner, the optimizer writes in place.
        let model = std::thread::scope(|scope| {
            let mut model = model;
            let (sender, receiver) = crossbeam_channel::bounded(3);
            scope.spawn(move || (0..*steps).try_for_each(|step| sender.send(read(step)).map_err(|_| ())));
            for (step, host) in receiver.iter().enumerate() {
                let host = host?;
                seen.images += host.n_images_shown();
                seen.records += host.n_records_shown();
                let mut batch = host.into_tensors(tasks, endpoints, device);
                if !settings.kernels {
                    // The kernels do not compute the image's own gradient, and leave it to burn where one is wanted.
                    batch.inputs.image = batch.inputs.image.map(|image| Modality { values: image.values.require_grad(), ..image });
                }
                seen.examples += batch.n as u64;
                let known = batch.known.clone();
                seen.labels.iter_mut().zip(&known).for_each(|(sum, n)| *sum += *n as u64);
                // Dropout draws from burn's generator: seeded by step, a resumed run draws the same.
                let seed = generator(settings.seed, 4, epoch as u64, step as u64).random();
                let (forwarded, between) = drawing(device, seed, || {
                    let forwarded = forward(&model, batch, tasks, endpoints, adjustments, device);
                    let between = settings.branches.loss(&model, &forwarded, trained_on);
                    (forwarded, between)
                });
                let values: Vec<f32> = forwarded.losses.iter().map(|loss| loss.value.clone().into_scalar::<f32>()).collect();
                let loss = relative(values.iter().map(|&value| f64::from(value)), trained_on) as f32;
                if !loss.is_finite() {
                    return Err(diverged("the loss", loss.into(), epoch, step));
                }
                rate = self.rate(epoch, step / settings.accumulate);
                let joint = balanced(&model, &forwarded.losses, &known, &forwarded.shared, trained_on, settings.balance, &mut moving.state)
                    .ok_or(TrainingError::EmptySplit("train"))?;
                let total = match between {
                    Some(between) => joint + between,
                    None => joint,
                };
                drop(forwarded);
                sums.add(&values, &known);
                gathered.add(gradients(&model, &mut total.backward()));
                let examples_per_s = seen.examples as f64 / started.elapsed().as_secs_f64();
                progress(Progress::Step { epoch: epoch + 1, step: step + 1, loss, examples_per_s });
                if gathered.n() < settings.accumulate && step + 1 < *steps {
                    continue;
                }
                let (stepped, norm) = moving.optimizer.apply(model, std::mem::take(&mut gathered).mean(), rate);
                // The step by such a gradient has left no numbers in the model.
                if !norm.is_finite() {
                    return Err(diverged("the gradient's norm", norm, epoch, step));
                }
                model = stepped;
                moving.state.steps += 1;
                moving.average.add(&model, moving.state.steps);
                norms += norm;
                n_norms += 1;
            }
            Ok(model)
        })?;
        let examples_per_s = seen.examples as f64 / started.elapsed().as_secs_f64();
        Ok((model, EpochSums { losses: sums.means(), rate, gradient_norm: norms / f64::from(n_norms.max(1)), examples_per_s, seen }))
    }
}

/// Examples that the model can see anything of and that have a label of some task, or more than one modality where labels are
/// not all that it learns from.
pub(crate) fn usable<'a, S: SplitKind>(view: &View<'a, S>, presence: Presence, unlabelled: bool) -> Vec<&'a ExampleRow> {
    let complete = |row: &ExampleRow| presence.image && row.image_row.is_some() && presence.record && row.record_row.is_some();
    let teaches = |row: &ExampleRow| row.is_labelled() || (unlabelled && complete(row));
    view.rows().filter(|row| presence.sees(row) && teaches(row)).collect()
}

/// Losses by task, then by endpoint, over the validation examples whose label is known.
pub(crate) fn validation_sums(
    model: &JointModel,
    endpoints: &[EndpointHead],
    validation: &View<'_, Validation>,
    rows: &[&ExampleRow],
    presence: Presence,
    batch: usize,
) -> Result<Vec<ValidationSum>, TrainingError> {
    let device = Device::flex();
    let tasks = &validation.manifest().tasks;
    let mut sums = vec![ValidationSum::default(); tasks.len() + endpoints.len()];
    for rows in rows.chunks(batch) {
        let batch = HostBatch::read(validation.reader(), rows, presence, None)?.into_tensors(tasks, endpoints, &device);
        let known = batch.known.clone();
        let forwarded = forward(model, batch, tasks, endpoints, &[], &device);
        for ((sum, loss), (logits, n)) in sums.iter_mut().zip(forwarded.losses).zip(forwarded.logits.iter().zip(known)) {
            sum.add(&loss.validation(logits, n));
        }
    }
    Ok(sums)
}

/// `epoch` and `step` count from 0.
pub(crate) fn diverged(what: &'static str, value: f64, epoch: usize, step: usize) -> TrainingError {
    TrainingError::Diverged { what, epoch: epoch + 1, step: step + 1, value }
}
