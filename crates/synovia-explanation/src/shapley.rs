//! The share of each player in what all of them reach together.

/// Shapley values (Shapley 1953), exactly, from the value of each set of players.
///
/// # Shapes
/// - values: `2^n`, at each place that of the set whose players are the bits of the place
/// - result: `n`; their sum is the value of all less that of none
///
/// # Panics
/// Where the number of values is no power of two.
pub fn shapley(values: &[f64]) -> Vec<f64> {
    assert!(values.len().is_power_of_two(), "{} values are of no number of players", values.len());
    let n = values.len().trailing_zeros() as usize;
    // |S|! (n − |S| − 1)! / n!, by the size of S.
    let mut weights = vec![1.0 / n.max(1) as f64; n];
    for size in 1..n {
        weights[size] = weights[size - 1] * size as f64 / (n - size) as f64;
    }
    let share = |player: usize| {
        let without = (0..values.len()).filter(|set| set & (1 << player) == 0);
        without.map(|set| weights[set.count_ones() as usize] * (values[set | 1 << player] - values[set])).sum()
    };
    (0..n).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::shapley;

    #[track_caller]
    fn check(values: &[f64], expected: &[f64]) {
        let found = shapley(values);
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}, not {expected:?}");
        let (all, none) = (values[values.len() - 1], values[0]);
        assert!((found.iter().sum::<f64>() - (all - none)).abs() < 1e-12, "they do not add up");
    }

    #[test]
    fn by_hand() {
        check(&[0.3], &[]);
        check(&[0.5, 0.7], &[0.2]);
        // ½ (.7 − .5) + ½ (.78 − .65), and the rest.
        check(&[0.5, 0.7, 0.65, 0.78], &[0.165, 0.115]);
        // {}, a, b, ab, c, ac, bc, abc
        check(&[0.5, 0.7, 0.65, 0.78, 0.6, 0.74, 0.70, 0.82], &[0.151_666_666_7, 0.106_666_666_7, 0.061_666_666_7]);
        // A glove game: one left hand, two right ones.
        check(&[0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0], &[2.0 / 3.0, 1.0 / 6.0, 1.0 / 6.0]);
    }

    #[test]
    fn who_adds_nothing_has_nothing_and_equals_have_the_same() {
        // Four players; the value is the number of the first two that are there, squared.
        let values: Vec<f64> = (0..16).map(|set: u32| f64::from((set & 3).count_ones().pow(2))).collect();
        check(&values, &[2.0, 2.0, 0.0, 0.0]);
    }
}
