//! The tasks' losses in a step, and the one that is descended on.

use burn::tensor::{Device, Tensor};
use synovia_cohort::{Task, TaskKind};
use synovia_fusion::{
    EndpointHead, JointModel, binary_loss, divergence, focal_binary_loss, focal_multiclass_loss, multiclass_loss, ordinal_loss,
};

use crate::Balance;
use crate::balance::gramian;
use crate::batch::Batch;
use crate::checkpoint::CheckpointProgress;
use crate::fit::EpochReport;
use crate::imbalance::Adjustment;

/// Whose loss it is.
#[derive(Clone, Copy)]
pub(crate) enum LossKind<'a> {
    /// With what is done about its rare classes.
    Task(TaskKind, Option<&'a Adjustment>),
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

fn plain(kind: TaskKind, logits: Tensor<2>, target: &Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    match kind {
        TaskKind::Binary => binary_loss(logits, target.clone(), weight),
        TaskKind::Multiclass => multiclass_loss(logits, target.clone(), weight),
        TaskKind::Ordinal => ordinal_loss(&logits, target, weight),
    }
}

impl LossKind<'_> {
    pub(crate) fn loss(self, logits: Tensor<2>, target: &Tensor<2>, weight: &Tensor<2>) -> Tensor<1> {
        match self {
            Self::Task(kind, adjustment) => {
                let Some(adjustment) = adjustment else { return plain(kind, logits, target, weight.clone()) };
                let weighed = adjustment.weigh(target, weight.clone());
                // The mean is over the labels that are known, not over their weights: in a batch of one class these would cancel.
                let share = weighed.clone().sum() / weight.clone().sum().clamp_min(1e-6);
                let logits = adjustment.shifted(logits);
                let loss = match (kind, adjustment.focal) {
                    (TaskKind::Binary, true) => focal_binary_loss(logits, target.clone(), weighed),
                    (TaskKind::Multiclass, true) => focal_multiclass_loss(logits, target.clone(), weighed),
                    _ => plain(kind, logits, target, weighed),
                };
                loss * share
            }
            Self::Endpoint(head) => head.loss(logits, target, weight),
        }
    }

    /// How far a student's answer is from a teacher's, whom no gradient reaches.
    pub(crate) fn distance(self, teacher: Tensor<2>, student: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
        match self {
            Self::Task(..) => divergence(teacher, student, weight),
            Self::Endpoint(head) => head.distance(teacher, student, weight),
        }
    }
}

/// The losses of tasks and endpoints, and what they came from. Tasks without an adjustment, and all in validation, have their plain loss.
pub(crate) fn forward<'a>(
    model: &JointModel,
    batch: Batch,
    tasks: &[Task],
    endpoints: &'a [EndpointHead],
    adjustments: &'a [Adjustment],
    device: &Device,
) -> Forwarded<'a> {
    let outputs = model.forward(batch.inputs, batch.n, device);
    let kinds = tasks
        .iter()
        .enumerate()
        .map(|(k, task)| LossKind::Task(task.kind, adjustments.get(k)))
        .chain(endpoints.iter().map(LossKind::Endpoint));
    let losses = outputs.logits.iter().cloned().zip(batch.targets).zip(kinds).map(|((logits, (target, weight)), kind)| {
        let value = kind.loss(logits, &target, &weight);
        TaskLoss { value, kind, target, weight }
    });
    Forwarded { losses: losses.collect(), logits: outputs.logits, shared: outputs.dropped, modalities: outputs.modalities }
}

/// What a step descends on: the tasks' losses, each the mean over its `known` labels and in units of that of an uninformed guess, by the
/// weights of `balance`. `None` without any task.
///
/// Where weights come from gradients, each task's loss is made again from a copy of the embedding that is cut off from the
/// towers: its gradient there is that task's alone. The towers are given the combination, the heads their own loss each.
pub(crate) fn balanced(
    model: &JointModel,
    losses: &[TaskLoss<'_>],
    known: &[f64],
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
        let weights = balance.weights(&values, known, &epochs, &[], &mut state.balance);
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
    let weights = balance.weights(&values, known, &epochs, &gramian(&rows?), &mut state.balance);
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

/// For each task the loss, in nats, of guessing each class by its share of the labels.
///
/// # Shapes
/// - counts: for each task the labels of each class
pub fn uninformed_losses(tasks: &[Task], counts: &[Vec<u64>]) -> Vec<f64> {
    tasks.iter().zip(counts).map(|(task, counts)| uninformed_loss(task, counts)).collect()
}

/// Of one task.
pub(crate) fn uninformed_loss(task: &Task, counts: &[u64]) -> f64 {
    let n = counts.iter().sum::<u64>() as f64;
    let present = counts.iter().filter(|count| **count > 0).map(|&count| count as f64);
    if task.kind == TaskKind::Ordinal {
        let below = counts.iter().scan(0.0, |sum, &count| {
            *sum += count as f64 / n;
            Some(*sum)
        });
        let places = counts.len().saturating_sub(1);
        let nats: f64 = below.take(places).filter(|p| *p > 0.0 && *p < 1.0).map(|p| -p * p.ln() - (1.0 - p) * (1.0 - p).ln()).sum();
        return (nats / places.max(1) as f64).max(LEAST_UNINFORMED * std::f64::consts::LN_2);
    }
    let nats: f64 = present.map(|count| -count / n * (count / n).ln()).sum();
    nats.max(LEAST_UNINFORMED * (task.n_logits().max(2) as f64).ln())
}

/// Mean over the tasks of their loss in units of that of an uninformed guess.
pub fn relative(losses: impl Iterator<Item = f64>, uninformed: &[f64]) -> f64 {
    losses.zip(uninformed).map(|(loss, base)| loss / base).sum::<f64>() / uninformed.len() as f64
}

/// Labels under which no temperature is fitted, as in calibration.
const LEAST_CALIBRATED: f64 = 30.0;

/// What logits are divided by where a validation loss is measured: half octaves about the temperatures that calibration finds.
const TEMPERATURES: [f64; 11] = [
    1.0,
    0.5,
    std::f64::consts::FRAC_1_SQRT_2,
    std::f64::consts::SQRT_2,
    2.0,
    2.0 * std::f64::consts::SQRT_2,
    4.0,
    4.0 * std::f64::consts::SQRT_2,
    8.0,
    8.0 * std::f64::consts::SQRT_2,
    16.0,
];

/// A task's loss over validation examples, as sums, which those of several places add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValidationSum {
    /// Known labels.
    pub n: f64,
    /// Sum of the losses as the model has them; of a task, then those of its logits divided by each of some temperatures.
    pub sums: Vec<f64>,
}

impl ValidationSum {
    /// Takes in more. What is not of the same temperatures makes no sum: NaN.
    pub fn add(&mut self, other: &Self) {
        self.n += other.n;
        if self.sums.is_empty() {
            self.sums.clone_from(&other.sums);
        } else if self.sums.len() == other.sums.len() {
            self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| *sum += more);
        } else {
            self.sums = vec![f64::NAN];
        }
    }

    /// Mean loss; 0 without any label.
    pub fn mean(&self) -> f64 {
        self.sums.first().map_or(0.0, |sum| sum / self.n.max(1.0))
    }

    /// Mean loss at the temperature that suits best. Networks grow too sure of themselves long before they stop to rank better (Guo et al.
    /// 2017, "On calibration of modern neural networks"), and calibration takes that out of the model that is kept: which one that is shall
    /// not be decided by it, or a task of few labels ends the training of all. With labels too few to calibrate by it is [`Self::mean`]; NaN
    /// where a loss is not finite.
    pub fn calibrated(&self) -> f64 {
        if !self.n.is_finite() || self.sums.iter().any(|sum| !sum.is_finite()) {
            return f64::NAN;
        }
        if self.n < LEAST_CALIBRATED {
            return self.mean();
        }
        self.sums.iter().copied().reduce(f64::min).map_or(0.0, |least| least / self.n)
    }
}

impl TaskLoss<'_> {
    /// Of `n` known labels, of which `self` is the mean.
    pub(crate) fn validation(self, logits: &Tensor<2>, n: f64) -> ValidationSum {
        let TaskLoss { value, kind, target, weight } = self;
        let at = |temperature: f64| kind.loss(logits.clone().div_scalar(temperature), &target, &weight);
        let others: &[f64] = if matches!(kind, LossKind::Task(..)) { &TEMPERATURES[1..] } else { &[] };
        let losses = std::iter::once(value).chain(others.iter().map(|&temperature| at(temperature)));
        ValidationSum { n, sums: losses.map(|loss| f64::from(loss.into_scalar::<f32>()) * n).collect() }
    }
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

    /// Means over all known labels; 0 for a task without any.
    pub(crate) fn means(&self) -> Vec<f64> {
        self.0.iter().map(|(sum, n)| sum / n.max(1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The weights of a batch of one class do not cancel: over all batches of an epoch, both classes then count the same.
    #[test]
    fn a_class_weighs_the_same_in_every_batch() {
        let task = Task { name: "t".into(), kind: TaskKind::Binary, classes: vec!["t".into()] };
        let adjustment = Adjustment::new(crate::Imbalance::Weights, &task, &[90, 10], 0.3);
        let column = |values: [f32; 3]| Tensor::<1>::from_floats(values, &Device::flex()).reshape([3, 1]);
        let loss = |labels: [f32; 3], known: [f32; 3]| {
            let kind = LossKind::Task(TaskKind::Binary, Some(&adjustment));
            f64::from(kind.loss(column([0.0; 3]), &column(labels), &column(known)).into_scalar::<f32>())
        };
        // Each example costs ln 2, times 100 / 180 or 100 / 20; the third label is not known.
        let (negative, positive) = (2f64.ln() / 1.8, 2f64.ln() * 5.0);
        for (labels, expected) in
            [([0.0, 0.0, 1.0], negative), ([1.0, 1.0, 0.0], positive), ([0.0, 1.0, 1.0], f64::midpoint(negative, positive))]
        {
            let got = loss(labels, [1.0, 1.0, 0.0]);
            assert!((got - expected).abs() < 1e-5, "{labels:?}: {got} instead of {expected}");
        }
        assert_eq!(loss([1.0; 3], [0.0; 3]), 0.0);
    }

    #[test]
    fn being_too_sure_does_not_decide_which_epoch_is_kept() {
        let column = |values: [f32; 4]| Tensor::<1>::from_floats(values, &Device::flex()).reshape([4, 1]);
        let sum = |logits: Tensor<2>| {
            let (kind, target, weight) = (LossKind::Task(TaskKind::Binary, None), column([1.0, 0.0, 1.0, 0.0]), column([1.0; 4]));
            let value = kind.loss(logits.clone(), &target, &weight);
            TaskLoss { value, kind, target, weight }.validation(&logits, 40.0)
        };
        // One of four is on the wrong side: eight times as sure, the loss is worse, and what calibration makes of it is not.
        let (modest, sure) = (sum(column([1.0, -1.0, 1.0, 1.0])), sum(column([8.0, -8.0, 8.0, 8.0])));
        let of = |z: f64| 0.25 * (3.0 * (1.0 + (-z).exp()).ln() + (1.0 + z.exp()).ln());
        assert!((modest.mean() - of(1.0)).abs() < 1e-6 && (sure.mean() - of(8.0)).abs() < 1e-6);
        // The best logit is ln 3 = 1.10; of the temperatures 1 is nearest to it for the one, 8 for the other.
        assert!((modest.calibrated() - of(1.0)).abs() < 1e-6 && (sure.calibrated() - of(1.0)).abs() < 1e-6);
        let mut both = modest.clone();
        both.add(&sure);
        assert_eq!((both.n, both.sums.len()), (80.0, TEMPERATURES.len()));
        assert!((both.mean() - f64::midpoint(modest.mean(), sure.mean())).abs() < 1e-12, "places add up");
        assert!(both.calibrated() > modest.calibrated() + 0.01, "one temperature has to suit all places");
        assert_eq!(ValidationSum::default().calibrated(), 0.0);
        let few = ValidationSum { n: 4.0, sums: sure.sums.iter().map(|sum| sum / 10.0).collect() };
        assert_eq!(few.calibrated(), few.mean(), "four labels are calibrated by nobody");
        let mut unlike = sure.clone();
        unlike.add(&ValidationSum { n: 1.0, sums: vec![1.0, 2.0] });
        let infinite = ValidationSum { n: 40.0, sums: vec![f64::INFINITY, 1.0] };
        assert!(unlike.calibrated().is_nan() && infinite.calibrated().is_nan());
    }

    #[test]
    fn guesses_by_shares_worked_by_hand() {
        let task = |kind| Task { name: "stage".into(), kind, classes: ["I", "II", "III"].map(String::from).to_vec() };
        let nats = |kind, counts: [u64; 3]| uninformed_losses(&[task(kind)], &[counts.to_vec()])[0];
        let entropy = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        // Half lie below the first place, eight of ten below the second.
        assert!((nats(TaskKind::Ordinal, [5, 3, 2]) - f64::midpoint(entropy(0.5), entropy(0.8))).abs() < 1e-12);
        assert!((nats(TaskKind::Ordinal, [5, 0, 5]) - 2f64.ln()).abs() < 1e-12, "a class without examples");
        let multiclass = -(0.5f64 * 0.5f64.ln() + 0.3 * 0.3f64.ln() + 0.2 * 0.2f64.ln());
        assert!((nats(TaskKind::Multiclass, [5, 3, 2]) - multiclass).abs() < 1e-12);
    }
}
