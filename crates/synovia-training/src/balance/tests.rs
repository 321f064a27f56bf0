use super::*;

/// Two gradients that point against each other in one direction.
fn conflicting() -> Vec<Vec<f32>> {
    vec![vec![-4.0, 1.0, 1.0], vec![6.0, 1.0, 1.0]]
}

#[track_caller]
fn check(rows: &[Vec<f32>], weights: &[f64], expected: &[f64]) {
    let direction: Vec<f64> =
        (0..rows[0].len()).map(|k| rows.iter().zip(weights).map(|(row, weight)| f64::from(row[k]) * weight).sum()).collect();
    for (got, expected) in direction.iter().zip(expected) {
        assert!((got - expected).abs() < 5e-8, "{direction:?} instead of {expected}");
    }
}

#[test]
fn directions_worked_by_hand() {
    let rows = conflicting();
    let gram = gramian(&rows);
    check(&rows, &pcgrad(&gram), &[0.584_795_32, 3.801_169_59, 3.801_169_59]);
    check(&rows, &upgrad(&gram), &[0.292_397_66, 1.900_584_8, 1.900_584_8]);
    // The point of the segment nearest to 0: w = (g₂·g₂ − g₁·g₂) / |g₁ − g₂|² = 60 / 100 of the first.
    check(&rows, &mgda(&gram), &[0.0, 1.0, 1.0]);
    // g₀ = (1, 1, 1). By symmetry of the last two the optimum is where both tasks gain the same, for else the radius is spent
    // on one that is not the worst: d = g₀ + √3 / 2 · u with u = w-mean / |w-mean|, and d₁ = 0 there.
    let d = cagrad(&gram, 0.5);
    let direction: Vec<f64> = (0..3).map(|k| d[0] * f64::from(rows[0][k]) + d[1] * f64::from(rows[1][k])).collect();
    let from_mean: f64 = direction.iter().map(|x| (x - 1.0).powi(2)).sum::<f64>().sqrt();
    assert!((from_mean - 0.5 * 3f64.sqrt()).abs() < 1e-6, "on the sphere: {direction:?}");
    let gains: Vec<f64> = rows.iter().map(|row| row.iter().zip(&direction).map(|(g, d)| f64::from(*g) * d).sum()).collect();
    // Every direction of the ball in steps of a hundredth: none is better for the task that gains least.
    let worst = gains.iter().copied().fold(f64::INFINITY, f64::min);
    let steps = |k: i32| f64::from(k) / 50.0 * 0.866;
    for (a, b, c) in
        (-50..=50).step_by(2).flat_map(|a| (-50..=50).step_by(2).flat_map(move |b| (-50..=50).step_by(2).map(move |c| (a, b, c))))
    {
        let (x, y, z) = (steps(a), steps(b), steps(c));
        if x * x + y * y + z * z <= 0.75 {
            let of = |g: &[f32]| f64::from(g[0]) * (1.0 + x) + f64::from(g[1]) * (1.0 + y) + f64::from(g[2]) * (1.0 + z);
            assert!(of(&rows[0]).min(of(&rows[1])) <= worst + 1e-6, "{x} {y} {z} beats {worst}");
        }
    }
}

#[test]
fn gradients_that_agree_are_left_alone() {
    let gram = gramian(&[vec![1.0, 0.5], vec![0.5, 1.0]]);
    for (got, expected) in pcgrad(&gram).iter().chain(&upgrad(&gram)).zip([1.0, 1.0, 0.5, 0.5]) {
        assert!((got - expected).abs() < 1e-12);
    }
    let three = gramian(&[vec![1.0, 0.0, 0.0], vec![0.0, 2.0, 0.0], vec![0.0, 0.0, 4.0]]);
    // The nearest point of a right-angled triangle: weights as the inverse squares.
    for (got, expected) in mgda(&three).iter().zip([16.0 / 21.0, 4.0 / 21.0, 1.0 / 21.0]) {
        assert!((got - expected).abs() < 1e-7, "{got} instead of {expected}");
    }
}

#[test]
fn along_upgrad_no_task_loses() {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    for n in 2..6 {
        for _ in 0..50 {
            let rows: Vec<Vec<f32>> = (0..n).map(|_| (0..7).map(|_| next()).collect()).collect();
            let gram = gramian(&rows);
            let w = upgrad(&gram);
            for row in &gram {
                let gain: f64 = row.iter().zip(&w).map(|(g, w)| g * w).sum();
                assert!(gain > -1e-6, "{gain}");
            }
        }
    }
}

#[test]
fn losses_and_their_progress() {
    // exp(−0.5) · 2 + 0.25 + exp(1) · 0.5 − 0.5
    let (total, slopes) = uncertainty(&[2.0, 0.5], &[0.5, -1.0]);
    assert!((total - (2.0 * 0.606_530_659_712_633_4 + 0.25 + 0.5 * std::f64::consts::E - 0.5)).abs() < 1e-12);
    assert!((slopes[0] - (0.5 - 1.213_061_319_425_266_8)).abs() < 1e-12);
    // r = (0.5, 1): 2 · softmax(0.25, 0.5)
    let weights = average(&[vec![2.0, 1.0], vec![1.0, 1.0]], 2);
    assert!((weights[0] - 0.875_646_998_228_403_8).abs() < 1e-12 && (weights[0] + weights[1] - 2.0).abs() < 1e-12, "{weights:?}");
    assert_eq!(average(&[vec![1.0, 1.0]], 2), [1.0, 1.0]);
    // The task of the larger gradient loses weight until both are alike.
    let mut weights = vec![1.0, 1.0];
    for _ in 0..400 {
        grad_norm(&mut weights, &[3.0, 1.0], &[1.0, 1.0], &[1.0, 1.0]);
    }
    assert!((weights[0] * 3.0 - weights[1]).abs() < 0.2 && (weights[0] + weights[1] - 2.0).abs() < 1e-12, "{weights:?}");
}

#[test]
fn a_task_without_labels_has_no_say() {
    let gram = gramian(&[vec![-4.0, 1.0, 1.0], vec![0.0; 3], vec![6.0, 1.0, 1.0]]);
    for balance in [Balance::PcGrad, Balance::CaGrad, Balance::UpGrad, Balance::Mgda, Balance::GradNorm] {
        let weights = balance.weights(&[1.0, 0.0, 1.0], &[4.0, 0.0, 1.0], &[], &gram, &mut BalanceState::default());
        assert!(weights[1] == 0.0 && weights[0] > 0.0 && weights[2] > 0.0, "{balance:?}: {weights:?}");
    }
}

#[test]
fn few_labels_are_not_louder_than_they_are_sure() {
    let weights = |known: &[f64]| Balance::Labels.weights(&[1.0, 2.0, 3.0], known, &[], &[], &mut BalanceState::default());
    assert_eq!(weights(&[36.0, 4.0, 64.0]), [0.375, 0.125, 0.5]);
    assert_eq!(weights(&[0.0, 4.0, 0.0]), [0.0, 1.0, 0.0]);
    // A batch without any: what they count for is of no weight.
    assert_eq!(weights(&[0.0; 3]), [1.0 / 3.0; 3]);
    assert!(!Balance::Labels.wants_gradients());
}
