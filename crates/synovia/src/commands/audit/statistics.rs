//! How well one thing tells another.

/// Area under the ROC curve of a score for a yes-or-no label, ties counting half: the share of pairs (a positive, a negative)
/// in which the positive has the greater score. `None` where either class has fewer than `at_least`.
pub(super) fn auroc(scored: &mut [(f32, bool)], at_least: usize) -> Option<f64> {
    let n_positive = scored.iter().filter(|(_, label)| *label).count();
    let n_negative = scored.len() - n_positive;
    if n_positive < at_least.max(1) || n_negative < at_least.max(1) {
        return None;
    }
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0, 0.0);
    for tied in scored.chunk_by(|a, b| a.0 == b.0) {
        let positives = tied.iter().filter(|(_, label)| *label).count() as f64;
        let negatives = tied.len() as f64 - positives;
        wins += positives * (below + negatives / 2.0);
        below += negatives;
    }
    Some(wins / (n_positive as f64 * n_negative as f64))
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
    fn areas() {
        let of =
            |scores: &[f32], labels: &[u8]| auroc(&mut scores.iter().copied().zip(labels.iter().map(|l| *l == 1)).collect::<Vec<_>>(), 1);
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0], &[0, 0, 1, 1]), Some(1.0));
        assert_eq!(of(&[4.0, 3.0, 2.0, 1.0], &[0, 0, 1, 1]), Some(0.0));
        assert_eq!(of(&[1.0, 1.0, 1.0, 1.0], &[0, 1, 0, 1]), Some(0.5));
        // Of the four pairs three are right, and one is a tie.
        assert_eq!(of(&[1.0, 2.0, 2.0, 3.0], &[0, 0, 1, 1]), Some(0.875));
        assert_eq!(of(&[1.0, 2.0], &[1, 1]), None);
    }
}
