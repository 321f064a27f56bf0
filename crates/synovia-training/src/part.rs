//! A part of a training: some of its epochs, from weights that come from elsewhere, as a site's round in a federation is.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::Device;
use synovia_cohort::{CohortReader, TaskKind, Train, Validation, View};
use synovia_encoders::FeatureStatistics;
use synovia_fusion::{JointModelConfig, apply_state, collect_state};
use synovia_kernels::release_buffers;

use crate::checkpoint::Checkpoint;
use crate::course::{Course, Moving, Seen, usable, validation_sums};
use crate::draws::drawing;
use crate::fit::Progress;
use crate::losses::ValidationSum;
use crate::together::in_pool_of;
use crate::{NoiseKey, Presence, TrainingError, TrainingSettings, Weights};

/// Some epochs of a training.
pub struct Part<'a> {
    /// What is trained.
    pub model: &'a JointModelConfig,
    /// How; `epochs` are those of the whole training, which the learning rate follows.
    pub settings: &'a TrainingSettings,
    /// For each task what an uninformed guess costs, by [`crate::uninformed_losses`].
    pub uninformed: &'a [f64],
    /// Which epochs, from 0.
    pub epochs: Range<usize>,
    /// Strength of a pull towards the weights at the start (`FedProx`); 0 for none.
    pub proximal: f64,
    /// What is added to each gradient (`SCAFFOLD`); `None` for nothing.
    pub shift: Option<&'a Weights>,
    /// What noise is drawn from, where `settings` ask for privacy.
    pub noise: Option<&'a NoiseKey>,
}

/// What a part of a training leaves.
pub struct PartTrained {
    /// Where the next part goes on; weights and average are what others may put together with theirs. Its `control` are the means of
    /// the gradients without `shift`.
    pub checkpoint: Checkpoint,
    /// What went into it.
    pub seen: Seen,
    /// Mean loss a task over the known labels of the last epoch.
    pub losses: Vec<f64>,
    /// ε of all epochs so far, where training is private.
    pub epsilon: Option<f64>,
}

/// Trains some epochs from `start`: its model, average, moments and number of steps. Parts in a row give the bits of the whole
/// training by [`crate::fit`].
///
/// # Errors
/// [`TrainingError`] when there is nothing to train on, the weights do not fit, or training diverges.
pub fn train_part(
    part: &Part<'_>,
    start: Checkpoint,
    train: &View<'_, Train>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<PartTrained, TrainingError> {
    let trained = in_pool_of(rayon::current_num_threads(), || run(part, start, train, progress));
    release_buffers();
    trained
}

fn run(
    part: &Part<'_>,
    start: Checkpoint,
    train: &View<'_, Train>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<PartTrained, TrainingError> {
    let course = Course::new(part.model, part.settings, part.uninformed.to_vec(), train, part.noise)?;
    let flex = Device::flex();
    let mut model = apply_state(part.model.init(None, &course.device)?, &start.model)?;
    let optimizer = course.optimizer().with_state(start.progress.steps, &start.moments, &flex);
    let optimizer = optimizer.with_proximal(part.proximal, &start.model, &flex);
    let mut moving = Moving {
        optimizer: match part.shift {
            Some(shift) => optimizer.with_control(shift, &flex),
            None => optimizer,
        },
        average: course.average().with_weights(&start.average, &flex),
        state: start.progress,
    };
    progress(Progress::Start { done: part.epochs.start, epochs: part.settings.epochs, steps: course.steps });
    let mut seen = Seen { labels: vec![0; course.tasks.len()], ..Seen::default() };
    let mut losses = Vec::new();
    for epoch in part.epochs.clone() {
        let (stepped, sums) = course.epoch(epoch, model, &mut moving, progress)?;
        model = stepped;
        seen.examples += sums.seen.examples;
        seen.images += sums.seen.images;
        seen.records += sums.seen.records;
        seen.labels.iter_mut().zip(sums.seen.labels).for_each(|(sum, n)| *sum += n);
        losses = sums.losses;
        moving.state.epochs = epoch + 1;
    }
    let checkpoint = Checkpoint {
        model: collect_state(&model),
        average: moving.average.weights(),
        best: Weights::new(),
        moments: moving.optimizer.state().1,
        control: moving.optimizer.mean_gradients(),
        progress: moving.state,
    };
    Ok(PartTrained { checkpoint, seen, losses, epsilon: course.epsilon(part.epochs.end) })
}

/// The weights that a training by `settings` starts with.
///
/// # Errors
/// [`TrainingError::Model`] where there is no such model.
pub fn initial_weights(model: &JointModelConfig, statistics: &FeatureStatistics, seed: u64) -> Result<Weights, TrainingError> {
    let device = Device::flex().autodiff();
    drawing(&device, seed, || Ok(collect_state(&model.init(Some(statistics), &device)?)))
}

/// For each task the labels of each class among the examples that train such a model.
pub fn label_counts(model: &JointModelConfig, train: &View<'_, Train>) -> Vec<Vec<u64>> {
    let rows = usable(train, Presence::of(model), false);
    let of_task = |(k, task): (usize, &synovia_cohort::Task)| {
        let mut counts = vec![0; if task.kind == TaskKind::Binary { 2 } else { task.classes.len() }];
        rows.iter().filter_map(|row| row.labels[k]).for_each(|label| counts[label as usize] += 1);
        counts
    };
    train.manifest().tasks.iter().enumerate().map(of_task).collect()
}

/// Number of examples that train such a model.
pub fn n_usable(model: &JointModelConfig, train: &View<'_, Train>) -> usize {
    usable(train, Presence::of(model), false).len()
}

/// For each task the losses over the validation examples whose label is known, as sums: those of several sites make the loss over all.
///
/// # Errors
/// [`TrainingError`] when the weights do not fit or the cohort can't be read.
pub fn validate(
    model: &JointModelConfig,
    weights: &Weights,
    settings: &TrainingSettings,
    reader: &CohortReader,
) -> Result<Vec<ValidationSum>, TrainingError> {
    let (train, validation) = (reader.view::<Train>(), reader.view::<Validation>());
    let presence = Presence::of(model);
    // The batches of a whole training, for sums to the same bits.
    let batch = settings.batch.clamp(2, usable(&train, presence, settings.branches.need_no_labels()).len().max(2));
    let candidate = apply_state(model.init(None, &Device::flex())?, weights)?.valid();
    validation_sums(&candidate, &model.endpoints, &validation, &usable(&validation, presence, false), presence, batch)
}
