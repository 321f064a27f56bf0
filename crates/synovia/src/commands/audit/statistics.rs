//! How well one thing tells another.

/// Area under the ROC curve of a score for a yes-or-no label; `None` where either class has fewer than `at_least`.
pub(super) fn auroc(scored: &[(f32, bool)], at_least: usize) -> Option<f64> {
    let n_positive = scored.iter().filter(|(_, label)| *label).count();
    let is_enough = n_positive.min(scored.len() - n_positive) >= at_least;
    let (scores, labels): (Vec<f32>, Vec<bool>) = scored.iter().copied().unzip();
    is_enough.then(|| synovia_evaluation::auroc(&scores, &labels)).flatten()
}

/// How many standard errors an AUROC is from one half, were there no relation (Mann and Whitney 1947).
pub(super) fn z_of(auroc: f64, n_positive: usize, n_negative: usize) -> f64 {
    let (p, n) = (n_positive as f64, n_negative as f64);
    (auroc - 0.5) / ((p + n + 1.0) / (12.0 * p * n)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_a_class_are_no_evidence() {
        let scored = [(1.0, false), (2.0, false), (2.0, true), (3.0, true)];
        // Of the four pairs three are right, and one is a tie.
        assert_eq!(auroc(&scored, 2), Some(0.875));
        assert_eq!(auroc(&scored, 3), None);
        assert_eq!(auroc(&scored[..3], 2), None);
    }
}
