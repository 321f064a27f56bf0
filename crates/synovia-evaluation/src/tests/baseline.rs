use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::simulated::{binary, normal, stage};
use crate::{ForestBaseline, ForestOptions, LateFusion, LogisticBaseline, LogisticOptions, auroc, logistic_baseline};

const X: [[f32; 2]; 14] = [
    [-0.8, -1.3],
    [-0.2, 0.4],
    [1.1, 0.1],
    [-0.6, -0.8],
    [0.7, 1.6],
    [0.3, -1.2],
    [-1.0, 1.6],
    [0.2, -1.7],
    [-0.1, -1.2],
    [-0.6, -0.5],
    [-0.7, 0.6],
    [-0.1, -0.6],
    [0.4, 0.8],
    [-1.6, -0.3],
];
const Y: [u8; 14] = [0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0];
const Y3: [u8; 14] = [0, 1, 1, 0, 2, 0, 0, 1, 1, 0, 1, 0, 1, 0];
const NAN: f32 = f32::NAN;

fn labels(y: &[u8]) -> Vec<Option<f32>> {
    y.iter().map(|&y| Some(f32::from(y))).collect()
}

#[track_caller]
fn check(got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((f64::from(*got) - expected).abs() < 1e-4, "{got} instead of {expected}");
    }
}

#[test]
fn binary_agrees_with_scikit_learn() {
    // scikit-learn 1.9.1: LogisticRegression(C=1.0, tol=1e-12).fit((X - X.mean(0)) / X.std(0), y).predict_proba(…)[:, 1]
    let got = logistic_baseline(X.as_flattened(), &labels(&Y), &[0.5, -1.0, -1.5, 0.3, 2.0, 2.0], 2, &binary()).unwrap();
    check(&got, &[0.4705633229776649, 0.020879511089953836, 0.9883711726206277]);
}

#[test]
fn multinomial_agrees_with_scikit_learn() {
    // As above, with y3 and predict_proba(…)
    let got = logistic_baseline(X.as_flattened(), &labels(&Y3), &[0.5, -1.0, -1.5, 0.3, 2.0, 2.0], 2, &stage()).unwrap();
    let expected = [
        [0.2822339168500095, 0.6836179532460027, 0.03414812990398777],
        [0.88355083253415, 0.10739104061940888, 0.009058126846441038],
        [0.005095163396617594, 0.4015042902029822, 0.5934005464004002],
    ];
    check(&got, expected.as_flattened());
}

#[test]
fn missing_values_agree_with_median_and_indicator() {
    // As the first, with X[[1, 4, 9], 1] missing, filled with the median, and their indicator as a third, scaled column
    let mut x = X;
    for k in [1, 4, 9] {
        x[k][1] = NAN;
    }
    let got = logistic_baseline(x.as_flattened(), &labels(&Y), &[0.5, NAN, -1.5, 0.3, NAN, NAN], 2, &binary()).unwrap();
    check(&got, &[0.5696728528886407, 0.02044332090076586, 0.2355607763999549]);
}

#[test]
fn features_that_say_nothing_change_nothing() {
    let plain = logistic_baseline(X.as_flattened(), &labels(&Y), X.as_flattened(), 2, &binary()).unwrap();
    let padded: Vec<f32> = X.iter().flat_map(|x| [x[0], 41.3, x[1], NAN]).collect();
    assert_eq!(logistic_baseline(&padded, &labels(&Y), &padded, 4, &binary()).unwrap(), plain);
    // Unlabelled rows do not shift the scaling; units do not matter.
    let more: Vec<f32> = X.iter().flatten().copied().chain([1e6, -1e6]).collect();
    let mut known = labels(&Y);
    known.push(None);
    check(
        &logistic_baseline(&more, &known, X.as_flattened(), 2, &binary()).unwrap(),
        &plain.iter().map(|&p| f64::from(p)).collect::<Vec<_>>(),
    );
}

#[test]
fn missingness_itself_can_be_learnt() {
    // A value is there only for positives: the only signal is its absence.
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let rows: Vec<(f32, bool)> = (0..200).map(|k| (if k % 2 == 0 { normal(&mut rng) as f32 } else { NAN }, k % 2 == 0)).collect();
    let (x, y): (Vec<f32>, Vec<bool>) = rows.into_iter().unzip();
    let known: Vec<_> = y.iter().map(|&y| Some(f32::from(u8::from(y)))).collect();
    let p = logistic_baseline(&x, &known, &x, 1, &binary()).unwrap();
    assert_eq!(auroc(&p, &y), Some(1.0));
}

#[test]
fn what_can_not_be_fitted_is_refused() {
    let refused = |x: &[f32], n_features, y: &[Option<f32>]| {
        LogisticBaseline::fit(x, n_features, y, &binary(), &LogisticOptions::default()).err().unwrap().to_string()
    };
    assert!(refused(&[1.0, 2.0], 1, &[Some(0.0), None]).contains("1 of 2 classes"));
    assert_eq!(refused(&[1.0], 1, &[Some(0.0), Some(1.0)]), "features: 1 values where 2 were expected");
    assert!(refused(&[1.0, f32::INFINITY], 1, &[Some(0.0), Some(1.0)]).contains("value 1"));
    assert!(refused(&[], 0, &[Some(0.0), Some(1.0)]).contains("at least one feature"));
    // Features that are all missing leave the prevalence.
    let p = logistic_baseline(&[NAN; 4], &labels(&[0, 0, 0, 1]), &[NAN], 1, &binary()).unwrap();
    check(&p, &[0.25]);
}

/// Exclusive or: nothing that a line can see.
fn checkers(n: usize, seed: u64) -> (Vec<f32>, Vec<u8>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rows: Vec<([f32; 3], u8)> = (0..n)
        .map(|_| {
            let x = [0, 1, 2].map(|_| normal(&mut rng) as f32);
            (x, u8::from((x[0] > 0.0) != (x[1] > 0.0)))
        })
        .collect();
    (rows.iter().flat_map(|r| r.0).collect(), rows.iter().map(|r| r.1).collect())
}

#[test]
fn a_forest_sees_what_a_line_does_not() {
    let ((train, y), (test, truth)) = (checkers(600, 1), checkers(400, 2));
    let truth: Vec<bool> = truth.iter().map(|&y| y == 1).collect();
    // All three inputs in every tree: a pair of them is what it is about.
    let padded = |x: &[f32]| -> Vec<f32> { x.chunks(3).flat_map(|r| [r[0], r[1], r[0], r[1], r[0], r[1]]).collect() };
    let options = ForestOptions { n_trees: 60, ..ForestOptions::default() };
    let forest = ForestBaseline::fit(&padded(&train), 6, &labels(&y), &binary(), &options).unwrap();
    let line = logistic_baseline(&train, &labels(&y), &test, 3, &binary()).unwrap();
    let of_forest = auroc(&forest.probabilities(&padded(&test)).unwrap(), &truth).unwrap();
    assert!(of_forest > 0.85 && auroc(&line, &truth).unwrap() < 0.65, "{of_forest}");
    let again = ForestBaseline::fit(&padded(&train), 6, &labels(&y), &binary(), &options).unwrap();
    assert_eq!(forest.probabilities(&padded(&test)).unwrap(), again.probabilities(&padded(&test)).unwrap());
}

#[test]
fn a_forest_gives_probabilities_of_every_class_and_of_missing_values() {
    let forest = ForestBaseline::fit(X.as_flattened(), 2, &labels(&Y3), &stage(), &ForestOptions::default()).unwrap();
    for row in forest.probabilities(&[0.5, NAN, NAN, NAN]).unwrap().chunks(3) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5 && row.iter().all(|p| *p > 0.0), "{row:?}");
    }
    let refused = |x: &[f32], n, y: &[Option<f32>]| ForestBaseline::fit(x, n, y, &binary(), &ForestOptions::default()).err().unwrap();
    assert!(refused(&[1.0, 2.0], 1, &[Some(0.0), None]).to_string().contains("1 of 2 classes"));
    assert!(refused(&[], 0, &[Some(0.0)]).to_string().contains("at least one feature"));
}

#[test]
fn late_fusion_weighs_what_knows_more() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut good, mut poor, mut y, mut truth) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for k in 0..2000 {
        let label = k % 2 == 0;
        let mut score = |separation: f64| super::simulated::logistic(normal(&mut rng) + if label { separation } else { -separation });
        good.push(score(1.0));
        poor.push(score(0.3));
        y.push(Some(f32::from(u8::from(label))));
        truth.push(label);
    }
    let pool = LateFusion::fit(&good, &poor, &y, &binary()).unwrap();
    let pooled: Vec<f32> = good.iter().zip(&poor).flat_map(|(a, b)| pool.row(&[*a], &[*b])).collect();
    // Two independent normals with means ±1 and ±0.3 together: Φ(√2 · √(1 + 0.09)) = Φ(1.4765) = 0.9301.
    assert!((auroc(&pooled, &truth).unwrap() - 0.9301).abs() < 0.02);
    assert!(auroc(&pooled, &truth) > auroc(&good, &truth));
    // A model that misleads counts nothing, and takes nothing from the other.
    let misled: Vec<f32> = truth.iter().map(|&y| super::simulated::logistic(normal(&mut rng) + if y { -0.2 } else { 0.2 })).collect();
    for (first, second, alone) in [(&good, &misled, 0), (&misled, &good, 1)] {
        let weights = LateFusion::fit(first, second, &y, &binary()).unwrap().weights();
        assert!(weights[1 - alone] == 0.0 && weights[alone] > 0.5, "{weights:?}");
    }
    assert!(LateFusion::fit(&good, &good.iter().map(|p| p + 1.0).collect::<Vec<_>>(), &y, &binary()).is_err(), "no probability");
    assert!(LateFusion::fit(&good, &poor, &vec![Some(2.0); 2000], &binary()).is_err(), "no class");
    // Too few labels: both by half.
    let few = LateFusion::fit(&good[..9], &poor[..9], &y[..9], &binary()).unwrap();
    assert!((few.row(&[0.9], &[0.1])[0] - 0.5).abs() < 1e-6);
    assert!(LateFusion::fit(&good, &poor[1..], &y, &binary()).is_err());
    // Three classes, the second model knows nothing: the pool is as good as the first.
    let (mut first, mut labels) = (Vec::new(), Vec::new());
    for k in 0..300 {
        let mut row = [0.2f32; 3];
        row[if k % 5 == 0 { (k + 1) % 3 } else { k % 3 }] = 0.6;
        first.extend(row);
        labels.push(Some((k % 3) as f32));
    }
    let pool = LateFusion::fit(&first, &vec![1.0 / 3.0; 900], &labels, &stage()).unwrap();
    let row = pool.row(&[0.6, 0.2, 0.2], &[1.0 / 3.0; 3]);
    assert!((row[0] - 0.8).abs() < 0.05 && (row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
}
