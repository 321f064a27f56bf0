//! Whether probabilities mean what they say: reliability bins and the expected calibration error.

/// Bins of [`reliability`] and of the expected calibration error.
pub const N_BINS: usize = 15;

/// Probability under which a log loss is not told apart from 0: the resolution of an `f32` near 1.
const SMALLEST: f64 = f32::EPSILON as f64;

/// One bin of a reliability diagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReliabilityBin {
    /// Mean predicted probability of its examples.
    pub predicted: f64,
    /// Share of its examples in which the event happened.
    pub observed: f64,
    /// Number of examples.
    pub n: usize,
}

/// The bin of a probability: [`N_BINS`] of equal width over [0, 1], each closed below, the last closed above.
pub(crate) fn bin(probability: f64) -> usize {
    ((probability * N_BINS as f64) as usize).min(N_BINS - 1)
}

/// Reliability diagram of `probabilities` that an event happens, against whether it did; bins without examples are left out.
///
/// # Shapes
/// - probabilities, happened: `[n]`
pub fn reliability(probabilities: &[f32], happened: &[bool]) -> Vec<ReliabilityBin> {
    let mut bins = [(0.0, 0.0, 0usize); N_BINS];
    for (&p, &y) in probabilities.iter().zip(happened) {
        let to = &mut bins[bin(f64::from(p))];
        *to = (to.0 + f64::from(p), to.1 + f64::from(u8::from(y)), to.2 + 1);
    }
    bins.iter().filter(|bin| bin.2 > 0).map(|&(p, y, n)| ReliabilityBin { predicted: p / n as f64, observed: y / n as f64, n }).collect()
}

/// Expected calibration error Σ_b (n_b / n) |mean predicted − observed share| over [`N_BINS`] bins of equal width (Naeini, Cooper
/// & Hauskrecht 2015; Guo et al. 2017). `None` without examples.
pub fn expected_calibration_error(probabilities: &[f32], happened: &[bool]) -> Option<f64> {
    let bins = reliability(probabilities, happened);
    let n: usize = bins.iter().map(|bin| bin.n).sum();
    (n > 0).then(|| bins.iter().map(|bin| bin.n as f64 * (bin.predicted - bin.observed).abs()).sum::<f64>() / n as f64)
}

/// The class of the largest probability, the first of equal ones.
pub(crate) fn likeliest(probabilities: &[f64]) -> usize {
    probabilities.iter().enumerate().fold(0, |top, (k, &p)| if p > probabilities[top] { k } else { top })
}

/// What each example adds to the measures that are means over examples.
pub(crate) struct Loss {
    /// (p − y)² of a binary task; Σ_k (p_k − y_k)² of a multiclass one, from 0 to 2 (Brier 1950).
    pub brier: f64,
    /// −ln of the probability given to what happened, bounded at the resolution of an `f32`.
    pub surprise: f64,
    /// Whether the likeliest class is the true one; a binary task's is positive from 0.5 up.
    pub correct: bool,
    /// What the calibration error is of: of a binary task the positive class's probability and whether it is positive; of a
    /// multiclass one the likeliest class's probability and whether it is right (top-label calibration).
    pub event: (f64, bool),
}

impl Loss {
    /// From an example's probabilities (one for a binary task) and label.
    pub(crate) fn new(probabilities: &[f64], label: usize) -> Self {
        if let [p] = *probabilities {
            let y = label == 1;
            let given = if y { p } else { 1.0 - p };
            return Self { brier: (1.0 - given).powi(2), surprise: -given.max(SMALLEST).ln(), correct: (p >= 0.5) == y, event: (p, y) };
        }
        let top = likeliest(probabilities);
        let brier = probabilities.iter().enumerate().map(|(k, &p)| (p - f64::from(u8::from(k == label))).powi(2)).sum();
        Self { brier, surprise: -probabilities[label].max(SMALLEST).ln(), correct: top == label, event: (probabilities[top], top == label) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_by_hand() {
        // Bin width 1/15: 0.0 and 0.05 share the first, 0.5 is in the eighth, 1.0 in the last.
        let bins = reliability(&[0.0, 0.05, 0.5, 1.0, 0.99], &[false, true, true, true, true]);
        assert_eq!(bins.iter().map(|bin| bin.n).collect::<Vec<_>>(), [2, 1, 2]);
        assert!((bins[0].predicted - 0.025).abs() < 1e-7 && bins[0].observed == 0.5);
        // (2·|0.025 − 0.5| + 1·|0.5 − 1| + 2·|0.995 − 1|) / 5 = (0.95 + 0.5 + 0.01) / 5
        let ece = expected_calibration_error(&[0.0, 0.05, 0.5, 1.0, 0.99], &[false, true, true, true, true]).unwrap();
        assert!((ece - 0.292).abs() < 1e-7, "{ece}");
        assert_eq!(expected_calibration_error(&[], &[]), None);
    }

    #[test]
    fn losses_by_hand() {
        let loss = Loss::new(&[0.8], 1);
        assert!((loss.brier - 0.04).abs() < 1e-12 && (loss.surprise - 0.22314355131420976).abs() < 1e-12 && loss.correct);
        let loss = Loss::new(&[0.2, 0.5, 0.3], 2);
        // 0.2² + 0.5² + 0.7² = 0.78
        assert!((loss.brier - 0.78).abs() < 1e-12 && !loss.correct && loss.event == (0.5, false));
        assert!(Loss::new(&[0.0], 1).surprise.is_finite());
    }
}
