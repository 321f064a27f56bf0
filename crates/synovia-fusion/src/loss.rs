//! Losses that count known labels only.

use burn::tensor::{Tensor, activation};

/// Mean over the examples whose label is known; 0 when none is. `[1]`
pub(crate) fn masked_mean(losses: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    let total = weight.clone().sum().clamp_min(1e-6);
    (losses * weight).sum() / total
}

/// Binary cross-entropy with logits: `max(z, 0) − z·y + ln(1 + e^−|z|)`, which no logit overflows.
///
/// # Shapes
/// - logits: `[batch, 1]`
/// - labels: `[batch, 1]`, 0 or 1 (anything finite where unknown)
/// - weight: `[batch, 1]`, 0 where the label is unknown
/// - returns `[1]`, the mean over the known labels
pub fn binary_loss(logits: Tensor<2>, labels: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    masked_mean(binary_losses(logits, labels), weight)
}

/// The same of each logit.
pub(crate) fn binary_losses(logits: Tensor<2>, labels: Tensor<2>) -> Tensor<2> {
    let softplus = (logits.clone().abs().neg().exp() + 1.0).log();
    logits.clone().clamp_min(0.0) - logits * labels + softplus
}

/// Cross-entropy with logits.
///
/// # Shapes
/// - logits: `[batch, n_classes]`
/// - one_hot: `[batch, n_classes]`
/// - weight: `[batch, 1]`, 0 where the label is unknown
/// - returns `[1]`, the mean over the known labels
pub fn multiclass_loss(logits: Tensor<2>, one_hot: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    masked_mean(multiclass_losses(logits, one_hot), weight)
}

fn multiclass_losses(logits: Tensor<2>, one_hot: Tensor<2>) -> Tensor<2> {
    (activation::log_softmax(logits, 1) * one_hot).sum_dim(1).neg()
}

/// [`binary_loss`] of which each example counts by (1 − p)², p the probability of its label (Lin et al. 2017, "Focal Loss for Dense Object
/// Detection", γ = 2).
pub fn focal_binary_loss(logits: Tensor<2>, labels: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    masked_mean(focal(binary_losses(logits, labels)), weight)
}

/// [`multiclass_loss`] by the same.
pub fn focal_multiclass_loss(logits: Tensor<2>, one_hot: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    masked_mean(focal(multiclass_losses(logits, one_hot)), weight)
}

/// Of −ln p: (1 − p)² · −ln p.
fn focal(losses: Tensor<2>) -> Tensor<2> {
    let missed = losses.clone().neg().exp().neg().add_scalar(1.0);
    missed.square() * losses
}

/// Cross-entropy of classes that stand in an order: the mean, over the places between two of them, of the binary cross-entropy of lying
/// below (the ranked logarithmic score: Tödter & Ahrens 2012, "Generalization of the ignorance score"). It is least where all probabilities
/// are right, as [`multiclass_loss`] is, but an error by two classes costs more than one by a class.
///
/// # Shapes
/// - as those of [`multiclass_loss`], of two classes or more
pub fn ordinal_loss(logits: &Tensor<2>, one_hot: &Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    let n_classes = logits.dims()[1];
    let places = n_classes - 1;
    // Sums of probabilities by their logarithms: an example that is surely wrong still has a slope.
    let highest = logits.clone().max_dim(1).detach();
    let log_sum = |from: usize, to: usize| {
        let part = logits.clone().narrow(1, from, to - from);
        let highest = part.clone().max_dim(1).detach();
        (part - highest.clone()).exp().sum_dim(1).log() + highest
    };
    let all = (logits.clone() - highest.clone()).exp().sum_dim(1).log() + highest;
    let of_place = |k: usize| {
        let below = one_hot.clone().narrow(1, 0, k).sum_dim(1);
        let above = one_hot.clone().narrow(1, k, n_classes - k).sum_dim(1);
        below * log_sum(0, k) + above * log_sum(k, n_classes) - all.clone()
    };
    let sum = (1..n_classes).map(of_place).reduce(|a, b| a + b).unwrap_or_else(|| all.zeros_like());
    masked_mean(sum.div_scalar(-(places.max(1) as f64)), weight)
}

/// Probabilities of classes: of `[batch, 1]` logits those of no and yes, else by softmax. `[batch, n_classes]`
fn log_probabilities(logits: Tensor<2>) -> Tensor<2> {
    let logits = if logits.dims()[1] == 1 { Tensor::cat(vec![logits.clone() * 0.0, logits], 1) } else { logits };
    activation::log_softmax(logits, 1)
}

/// Kullback-Leibler divergence in nats of a student's probabilities from a teacher's: `Σ p ln(p / q)`, the mean over the
/// examples that count (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", at temperature 1). No gradient
/// reaches the teacher.
///
/// # Shapes
/// - teacher, student: logits `[batch, n_logits]`
/// - weight: `[batch, 1]`, 0 for an example that does not count
/// - returns `[1]`
pub fn divergence(teacher: Tensor<2>, student: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    let (log_p, log_q) = (log_probabilities(teacher.detach()), log_probabilities(student));
    masked_mean((log_p.clone().exp() * (log_p - log_q)).sum_dim(1), weight)
}

/// Jensen-Shannon divergence in nats of two probabilities from each other, the mean over the examples that count: of each from the mean of
/// both, halved (Lin 1991, "Divergence measures based on the Shannon entropy"). Both are drawn together. At most ln 2.
///
/// # Shapes
/// - first, second: logits `[batch, n]`
/// - weight: `[batch, 1]`, 0 for an example that does not count
/// - returns `[1]`
pub fn jensen_shannon(first: Tensor<2>, second: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    let (first, second) = (log_probabilities(first), log_probabilities(second));
    let middle = ((first.clone().exp() + second.clone().exp()) * 0.5).clamp_min(1e-30).log();
    let from_middle = |log_p: Tensor<2>| (log_p.clone().exp() * (log_p - middle.clone())).sum_dim(1);
    masked_mean((from_middle(first) + from_middle(second)) * 0.5, weight)
}

/// Subtracted from the similarity to an example that does not count: its share is 0 in single precision.
const NOT_THERE: f32 = 1e4;

/// Symmetric cross-entropy of a matrix of similarities whose pairs lie on the diagonal, in nats: InfoNCE (van den Oord et al.
/// 2018) in both directions (Radford et al. 2021, "CLIP").
///
/// # Shapes
/// - similarities: `[batch, batch]`, divided by the temperature
/// - weight: `[batch, 1]`, 0 for a pair that is not complete: neither it nor its parts count
/// - returns `[1]`, 0 with less than two pairs
pub fn contrast(similarities: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    let batch = similarities.dims()[0];
    let away = (weight.clone() - 1.0) * NOT_THERE;
    let similarities = similarities + away.clone() + away.transpose();
    let diagonal = Tensor::<2>::eye(batch, &similarities.device());
    let one_way = |similarities: Tensor<2>| (activation::log_softmax(similarities, 1) * diagonal.clone()).sum_dim(1).neg();
    let losses = (one_way(similarities.clone()) + one_way(similarities.transpose())) * 0.5;
    masked_mean(losses, weight)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn column(values: &[f32]) -> Tensor<2> {
        Tensor::<1>::from_floats(values, &Device::flex()).reshape([values.len(), 1])
    }

    #[test]
    fn what_is_answered_well_counts_less() {
        // Of p = .5 and of p = .9: .25 · ln 2 = .173287 and .01 · .105361 = .001054.
        let (half, sure) = (0.25 * 2f64.ln(), -0.01 * 0.9f64.ln());
        let of_binary = |z: f32, label| f64::from(focal_binary_loss(column(&[z]), column(&[label]), column(&[1.0])).into_scalar::<f32>());
        assert!((of_binary(0.0, 1.0) - half).abs() < 1e-6 && (of_binary(-(9f32.ln()), 0.0) - sure).abs() < 1e-6);
        let classes = Tensor::<2>::from_floats([[18f32.ln(), 0.0, 0.0], [2f32.ln(), 0.0, 0.0]], &Device::flex());
        let first = Tensor::<2>::from_floats([[1.0, 0.0, 0.0]; 2], &Device::flex());
        let mean = focal_multiclass_loss(classes, first, column(&[1.0, 1.0])).into_scalar::<f32>();
        assert!((f64::from(mean) - f64::midpoint(half, sure)).abs() < 1e-6, "{mean}");
    }

    #[test]
    fn divergences_are_those_by_hand() {
        let logs = |p: [f32; 3]| Tensor::<2>::from_floats([p.map(f32::ln), [0.0; 3]], &Device::flex());
        let (p, q, first) = (|| logs([0.7, 0.2, 0.1]), || logs([0.5, 0.3, 0.2]), || column(&[1.0, 0.0]));
        let close = |value: Tensor<1>, expected: f64| assert!((f64::from(value.into_scalar::<f32>()) - expected).abs() < 1e-6);
        close(divergence(p(), q(), first()), 0.085_122_825_957_221_6);
        close(jensen_shannon(p(), q(), first()), 0.021_901_178_968_493_9);
        close(jensen_shannon(q(), p(), first()), 0.021_901_178_968_493_9);
        // Of what has nothing in common, ln 2; of what is the same, nothing.
        let sure =
            |k: usize| Tensor::<2>::from_floats([std::array::from_fn::<f32, 3, _>(|i| if i == k { 200.0 } else { 0.0 })], &Device::flex());
        close(jensen_shannon(sure(0), sure(1), column(&[1.0])), std::f64::consts::LN_2);
        close(jensen_shannon(p(), p(), first()), 0.0);
    }

    #[test]
    fn unknown_labels_do_not_count_and_nothing_overflows() {
        let loss = binary_loss(column(&[0.0, 1000.0, -3.0]), column(&[1.0, 0.0, 0.0]), column(&[1.0, 0.0, 1.0])).into_scalar::<f32>();
        let expected = f32::midpoint(2f32.ln(), (1.0 + (-3f32).exp()).ln());
        assert!((loss - expected).abs() < 1e-6, "{loss} instead of {expected}");
        let none = binary_loss(column(&[1.0]), column(&[0.0]), column(&[0.0])).into_scalar::<f32>();
        assert_eq!(none, 0.0);
        let huge = binary_loss(column(&[-1e4]), column(&[1.0]), column(&[1.0])).into_scalar::<f32>();
        assert!((huge - 1e4).abs() < 1.0);
    }

    #[test]
    fn cross_entropy_of_the_uniform_guess() {
        let device = Device::flex();
        let one_hot = Tensor::<2>::from_floats([[0.0, 1.0, 0.0, 0.0]], &device);
        let loss = multiclass_loss(Tensor::zeros([1, 4], &device), one_hot, column(&[1.0])).into_scalar::<f32>();
        assert!((loss - 4f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn of_classes_in_an_order_the_near_one_is_less_wrong() {
        let device = Device::flex();
        let of = |shares: [f32; 3], label: usize| {
            let one_hot: [f32; 3] = std::array::from_fn(|k| f32::from(u8::from(k == label)));
            let logits = Tensor::<2>::from_floats([shares.map(f32::ln)], &device);
            ordinal_loss(&logits, &Tensor::from_floats([one_hot], &device), column(&[1.0])).into_scalar::<f32>()
        };
        // Below the first place .7, below the second .9.
        assert!((of([0.7, 0.2, 0.1], 0) - -(0.7f32.ln() + 0.9f32.ln()) / 2.0).abs() < 1e-6);
        assert!((of([0.7, 0.2, 0.1], 1) - -(0.3f32.ln() + 0.9f32.ln()) / 2.0).abs() < 1e-6);
        assert!((of([0.7, 0.2, 0.1], 2) - -(0.3f32.ln() + 0.1f32.ln()) / 2.0).abs() < 1e-6);
        // The same probability of the right class, and the rest next to it or far from it.
        assert!(of([0.3, 0.6, 0.1], 0) < of([0.3, 0.1, 0.6], 0));
        // Among all guesses, right probabilities cost least on the average.
        let cost = |guess: [f32; 3]| 0.5 * of(guess, 0) + 0.3 * of(guess, 1) + 0.2 * of(guess, 2);
        for other in [[0.55, 0.25, 0.2], [0.45, 0.3, 0.25], [0.5, 0.35, 0.15], [0.6, 0.1, 0.3]] {
            assert!(cost([0.5, 0.3, 0.2]) < cost(other), "{other:?}");
        }
        // Of two classes it is the cross-entropy, also where the model is surely wrong, and has its slope there.
        let device = Device::flex().autodiff();
        let logits = Tensor::<2>::from_floats([[200.0, 0.0]], &device).require_grad();
        let one_hot = Tensor::from_floats([[0.0, 1.0]], &device);
        let loss = ordinal_loss(&logits, &one_hot, Tensor::ones([1, 1], &device));
        assert_eq!(loss.clone().into_scalar::<f32>(), 200.0);
        let slope: Vec<f32> = logits.grad(&loss.backward()).unwrap().into_data().try_to_vec().unwrap();
        assert_eq!(slope, [1.0, -1.0]);
    }

    #[test]
    fn a_student_is_as_far_from_its_teacher_as_worked_by_hand() {
        let device = Device::flex();
        let logits = |shares: [f32; 3]| Tensor::<2>::from_floats([shares.map(f32::ln)], &device);
        let of = |p, q| divergence(logits(p), logits(q), column(&[1.0])).into_scalar::<f32>();
        // .7 ln(.7 / .5) + .2 ln(.2 / .3) + .1 ln(.1 / .2)
        assert!((of([0.7, 0.2, 0.1], [0.5, 0.3, 0.2]) - 0.085_122_83).abs() < 1e-6);
        // One logit is two classes: .8 ln(.8 / .5) + .2 ln(.2 / .5)
        let binary = divergence(column(&[4f32.ln(), 9.0]), column(&[0.0, -9.0]), column(&[1.0, 0.0])).into_scalar::<f32>();
        assert!((binary - 0.192_745_24).abs() < 1e-6, "{binary}");
    }

    #[test]
    fn contrast_of_pairs_worked_by_hand() {
        let device = Device::flex();
        // Rows: ln(1 + e⁻²), ln(1 + e⁻²); columns: ln(1 + e⁻¹), ln(1 + e⁻³).
        let loss = contrast(Tensor::from_floats([[2.0, 0.0], [1.0, 3.0]], &device), column(&[1.0, 1.0])).into_scalar::<f32>();
        assert!((loss - 0.153_926).abs() < 1e-6, "{loss}");
        let rows = [[2.0, 50.0, 0.0], [-7.0, 80.0, 3.0], [1.0, -20.0, 3.0]];
        let with_another = contrast(Tensor::from_floats(rows, &device), column(&[1.0, 0.0, 1.0])).into_scalar::<f32>();
        assert!((with_another - loss).abs() < 1e-6, "a pair that is not complete does not count: {with_another}");
        let alone = contrast(Tensor::from_floats(rows, &device), column(&[0.0, 0.0, 1.0])).into_scalar::<f32>();
        assert_eq!(alone, 0.0);
    }
}
