//! The tasks' losses in a step, and the one that is descended on.

use burn::tensor::{Device, Tensor};
use synovia_cohort::{Task, TaskKind};
use synovia_fusion::{EndpointHead, JointModel, binary_loss, divergence, multiclass_loss};

use crate::Balance;
use crate::balance::gramian;
use crate::batch::Batch;
use crate::checkpoint::CheckpointProgress;
use crate::fit::EpochReport;

/// Whose loss it is.
#[derive(Clone, Copy)]
pub(crate) enum LossKind<'a> {
    Task(TaskKind),
    Endpoint(&'a EndpointHead),
}

/// The loss of a task or an endpoint, and what it takes to make it again from other logits.
pub(crate) struct TaskLoss<'a> {
    pub(crate) value: Tensor<1>,
    pub(crate) kind: LossKind<'a>,
    pub(crate) target: Tensor<2>,
    pub(crate) weight: Tensor<2>,
}

/// What a forward pass leaves for the step.
pub(crate) struct Forwarded<'a> {
    /// Of the tasks, then of the endpoints.
    pub(crate) losses: Vec<TaskLoss<'a>>,
    /// A tensor each.
    pub(crate) logits: Vec<Tensor<2>>,
    /// The embedding that the heads saw.
    pub(crate) shared: Tensor<2>,
    /// Each modality's embedding and presence.
    pub(crate) modalities: Vec<(Tensor<2>, Tensor<2>)>,
}

impl LossKind<'_> {
    pub(crate) fn loss(self, logits: Tensor<2>, target: &Tensor<2>, weight: &Tensor<2>) -> Tensor<1> {
        match self {
            Self::Task(TaskKind::Binary) => binary_loss(logits, target.clone(), weight.clone()),
            Self::Task(TaskKind::Multiclass) => multiclass_loss(logits, target.clone(), weight.clone()),
            Self::Endpoint(head) => head.loss(logits, target, weight),
        }
    }

    /// How far a student's answer is from a teacher's, whom no gradient reaches.
    pub(crate) fn distance(self, teacher: Tensor<2>, student: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
        match self {
            Self::Task(_) => divergence(teacher, student, weight),
            Self::Endpoint(head) => head.distance(teacher, student, weight),
        }
    }
}

/// The losses of tasks and endpoints, and what they came from.
pub(crate) fn forward<'a>(
    model: &JointModel,
    batch: Batch,
    tasks: &[Task],
    endpoints: &'a [EndpointHead],
    device: &Device,
) -> Forwarded<'a> {
    let outputs = model.forward(batch.inputs, batch.n, device);
    let kinds = tasks.iter().map(|task| LossKind::Task(task.kind)).chain(endpoints.iter().map(LossKind::Endpoint));
    let losses = outputs.logits.iter().cloned().zip(batch.targets).zip(kinds).map(|((logits, (target, weight)), kind)| {
        let value = kind.loss(logits, &target, &weight);
        TaskLoss { value, kind, target, weight }
    });
    Forwarded { losses: losses.collect(), logits: outputs.logits, shared: outputs.dropped, modalities: outputs.modalities }
}

/// What a step descends on: the tasks' losses, in units of that of an uninformed guess, by the weights of `balance`. `None`
/// without any task.
///
/// Where weights come from gradients, each task's loss is made again from a copy of the embedding that is cut off from the
/// towers: its gradient there is that task's alone. The towers are given the combination, the heads their own loss each.
pub(crate) fn balanced(
    model: &JointModel,
    losses: &[TaskLoss<'_>],
    shared: &Tensor<2>,
    uninformed: &[f64],
    balance: Balance,
    state: &mut CheckpointProgress,
) -> Option<Tensor<1>> {
    let values: Vec<f64> =
        losses.iter().zip(uninformed).map(|(loss, base)| f64::from(loss.value.clone().into_scalar::<f32>()) / base).collect();
    let by_epoch = |report: &EpochReport| report.tasks.iter().zip(uninformed).map(|(task, base)| task.train / base).collect::<Vec<f64>>();
    let epochs: Vec<Vec<f64>> = state.history.iter().rev().take(2).rev().map(by_epoch).collect();
    if !balance.wants_gradients() {
        let weights = balance.weights(&values, &epochs, &[], &mut state.balance);
        let parts = losses.iter().zip(uninformed).zip(weights).map(|((loss, base), weight)| loss.value.clone().div_scalar(base / weight));
        return parts.reduce(|a, b| a + b);
    }
    let cut = shared.clone().detach();
    let again = |k: usize, loss: &TaskLoss<'_>, embedding: Tensor<2>| {
        let logits = model.head(k, embedding)?;
        Some(loss.kind.loss(logits, &loss.target, &loss.weight).div_scalar(uninformed[k]))
    };
    let mut gradients = Vec::with_capacity(losses.len());
    for (k, loss) in losses.iter().enumerate() {
        let leaf = cut.clone().require_grad();
        let gradient = leaf.grad(&again(k, loss, leaf.clone())?.backward())?;
        gradients.push(gradient);
    }
    let rows: Option<Vec<Vec<f32>>> = gradients.iter().map(|gradient| gradient.clone().into_data().try_to_vec().ok()).collect();
    let weights = balance.weights(&values, &epochs, &gramian(&rows?), &mut state.balance);
    let combined = gradients.into_iter().zip(weights).map(|(gradient, weight)| gradient.mul_scalar(weight)).reduce(|a, b| a + b)?;
    // The slope of this by the embedding is the combination.
    let mut total = (shared.clone() * Tensor::from_inner(combined)).sum();
    for (k, loss) in losses.iter().enumerate() {
        total = total + again(k, loss, cut.clone())?.div_scalar(losses.len() as f64);
    }
    Some(total)
}

/// Share of the loss of the even guess below which an uninformed guess is not said to cost: a task of rare events would
/// otherwise outweigh all others.
pub(crate) const LEAST_UNINFORMED: f64 = 0.3;

/// For each task the cross-entropy, in nats, of guessing each class by its share of the labels.
///
/// # Shapes
/// - counts: for each task the labels of each class
pub fn uninformed_losses(tasks: &[Task], counts: &[Vec<u64>]) -> Vec<f64> {
    let of_task = |(task, counts): (&Task, &Vec<u64>)| {
        let n = counts.iter().sum::<u64>() as f64;
        let present = counts.iter().filter(|count| **count > 0).map(|&count| count as f64);
        let nats: f64 = present.map(|count| -count / n * (count / n).ln()).sum();
        nats.max(LEAST_UNINFORMED * (task.n_logits().max(2) as f64).ln())
    };
    tasks.iter().zip(counts).map(of_task).collect()
}

/// Mean over the tasks of their loss in units of that of an uninformed guess.
pub fn relative(losses: impl Iterator<Item = f64>, uninformed: &[f64]) -> f64 {
    losses.zip(uninformed).map(|(loss, base)| loss / base).sum::<f64>() / uninformed.len() as f64
}

/// Running sums of the tasks' losses.
pub(crate) struct TaskSums(Vec<(f64, f64)>);

impl TaskSums {
    pub(crate) fn new(n: usize) -> Self {
        Self(vec![(0.0, 0.0); n])
    }

    /// Takes in a batch's losses, each the mean over its `known` labels.
    pub(crate) fn add(&mut self, losses: &[f32], known: &[f64]) {
        for ((sum, n), (loss, known)) in self.0.iter_mut().zip(losses.iter().zip(known)) {
            *sum += f64::from(*loss) * known;
            *n += known;
        }
    }

    /// For each task the sum over the known labels, and their number.
    pub(crate) fn sums(&self) -> &[(f64, f64)] {
        &self.0
    }

    /// Means over all known labels; 0 for a task without any.
    pub(crate) fn means(&self) -> Vec<f64> {
        self.0.iter().map(|(sum, n)| sum / n.max(1.0)).collect()
    }
}
