//! Weights by what the losses did.

/// The loss under learnt uncertainty and its slope by each logarithm of a variance:
/// `Σ exp(−s) L + s / 2` (Kendall et al. 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses", equation 10 for
/// classification, with `s = ln σ²`).
pub fn uncertainty(losses: &[f64], log_variances: &[f64]) -> (f64, Vec<f64>) {
    let weighted = |(loss, s): (&f64, &f64)| (-s).exp() * loss;
    let total = losses.iter().zip(log_variances).map(|pair| weighted(pair) + pair.1 / 2.0).sum();
    (total, losses.iter().zip(log_variances).map(|pair| 0.5 - weighted(pair)).collect())
}

/// Dynamic Weight Average (Liu et al. 2019, "End-to-End Multi-Task Learning with Attention", equation 7, temperature 2):
/// `n · softmax(r / 2)` with `r` a task's last loss over the one before. 1 each before there are two epochs.
pub fn average(epochs: &[Vec<f64>], n: usize) -> Vec<f64> {
    let [.., before, last] = epochs else { return vec![1.0; n] };
    let powers: Vec<f64> = last.iter().zip(before).map(|(last, before)| (last / before.max(1e-12) / 2.0).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.iter().map(|power| n as f64 * power / total).collect()
}

/// How strongly tasks that learn more slowly are favoured; the paper's value for tasks that differ much.
const ASYMMETRY: f64 = 1.5;

/// One step of `GradNorm` (Chen et al. 2018, algorithm 1) on the weights, whose sum stays the number of tasks: each weighted
/// norm moves toward the mean norm times the task's relative inverse training rate.
///
/// # Shapes
/// All of one length; `norms` are those of the unweighted gradients, `first` the losses of the first step.
pub fn grad_norm(weights: &mut [f64], norms: &[f64], losses: &[f64], first: &[f64]) {
    let n = weights.len() as f64;
    let mean_norm = weights.iter().zip(norms).map(|(w, norm)| w * norm).sum::<f64>() / n;
    let left: Vec<f64> = losses.iter().zip(first).map(|(loss, first)| loss / first.max(1e-12)).collect();
    let mean_left = left.iter().sum::<f64>() / n;
    for ((weight, norm), left) in weights.iter_mut().zip(norms).zip(left) {
        let target = mean_norm * (left / mean_left.max(1e-12)).powf(ASYMMETRY);
        let excess = *weight * norm - target;
        // The slope of |excess| by the weight is ± norm, here in units of the mean norm.
        *weight = (*weight - 0.025 * excess.signum() * norm / mean_norm.max(1e-30)).max(0.01);
    }
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight *= n / total);
}
