//! Losses that count known labels only.

use burn::tensor::{Tensor, activation};

/// Mean over the examples whose label is known; 0 when none is. `[1]`
fn masked_mean(losses: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
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
    let softplus = (logits.clone().abs().neg().exp() + 1.0).log();
    masked_mean(logits.clone().clamp_min(0.0) - logits * labels + softplus, weight)
}

/// Cross-entropy with logits.
///
/// # Shapes
/// - logits: `[batch, n_classes]`
/// - one_hot: `[batch, n_classes]`
/// - weight: `[batch, 1]`, 0 where the label is unknown
/// - returns `[1]`, the mean over the known labels
pub fn multiclass_loss(logits: Tensor<2>, one_hot: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    let losses = (activation::log_softmax(logits, 1) * one_hot).sum_dim(1).neg();
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
}
