//! Measures of endpoints against what the formulas give, and against truths that are known because they were made.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synovia_cohort::{Endpoint, EndpointKind, EndpointValue, ExampleId, Split};

use crate::{
    EndpointEstimate, EndpointFold, EndpointMeasure, EndpointMetrics, EvaluationOptions, KaplanMeier, Observed, Variant, Verdict,
    evaluate_endpoints, uno_concordance,
};

/// What is measured of one endpoint in one fold.
fn measured(kind: EndpointKind, edges: &[f64], rows: Vec<(Split, Variant, Option<EndpointValue>, Vec<f32>)>) -> EndpointMetrics {
    let n_variants = rows.iter().map(|row| row.1).collect::<std::collections::BTreeSet<_>>().len();
    let estimate = |(k, (split, variant, known, values)): (usize, (Split, Variant, Option<EndpointValue>, Vec<f32>))| {
        // Rows of an example come one after the other; two examples a patient.
        let example = k / n_variants;
        EndpointEstimate {
            example: ExampleId::of_study(&format!("1.{example}")),
            patient: Arc::from(format!("p{}", example / 2)),
            split,
            variant,
            known,
            values,
        }
    };
    let estimates = rows.into_iter().enumerate().map(estimate).collect();
    let fold = EndpointFold { quantities: Vec::new(), edges: edges.to_vec(), estimates };
    let endpoints = [Endpoint { name: "e".into(), kind }];
    let options = EvaluationOptions { n_bootstrap: 200, ..EvaluationOptions::default() };
    evaluate_endpoints(&endpoints, &[vec![fold]], &options).remove("e").unwrap()
}

fn value(metrics: &EndpointMetrics, variant: Variant, measure: EndpointMeasure) -> f64 {
    metrics.variants[&variant][&measure].value.unwrap()
}

#[track_caller]
fn near(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a}, not {b}");
}

#[test]
fn numbers_by_hand() {
    let row = |y: Option<f32>, said: f32| (Split::Test, Variant::Record, y.map(|y| [y, 0.0]), vec![said]);
    let metrics =
        measured(EndpointKind::Regression, &[], vec![row(Some(1.0), 2.0), row(Some(3.0), 3.0), row(Some(8.0), 5.0), row(None, 1.0)]);
    let of = |measure| value(&metrics, Variant::Record, measure);
    near(of(EndpointMeasure::RootMeanSquaredError), (10f64 / 3.0).sqrt(), 1e-9);
    near(of(EndpointMeasure::MeanAbsoluteError), 4.0 / 3.0, 1e-9);
    near(of(EndpointMeasure::R2), 1.0 - 10.0 / 26.0, 1e-9);
    near(of(EndpointMeasure::Spearman), 1.0, 1e-9);
    assert_eq!((metrics.n, metrics.n_unknown, metrics.n_patients, metrics.n_second), (3, 1, 2, None));
    assert!(metrics.gain.is_none());
}

#[test]
fn the_better_of_two_models_is_told_and_equal_ones_are_not() {
    let check = |error: f32, expected: Verdict| {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut rows = Vec::new();
        for k in 0..400 {
            let split = if k < 200 { Split::Validation } else { Split::Test };
            let y: f32 = rng.random_range(-3.0..3.0);
            let mut noise = |size: f32| size * rng.random_range(-1.0f32..1.0);
            for (variant, size) in [(Variant::Joint, error), (Variant::Image, 1.0), (Variant::Record, 2.0)] {
                rows.push((split, variant, Some([y, 0.0]), vec![y + noise(size)]));
            }
        }
        let gain = measured(EndpointKind::Regression, &[], rows).gain.unwrap();
        assert_eq!((gain.over, gain.verdict), (Variant::Image, expected), "{}", gain.sentence);
    };
    check(0.5, Verdict::Better);
    check(1.0, Verdict::NoEvidence);
    check(1.6, Verdict::Worse);
}

#[test]
fn survival_is_that_of_the_functions_it_is_made_of() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let edges = [100.0f64, 200.0, 300.0];
    let mut rows = Vec::new();
    let (mut train, mut test, mut risks) = (Vec::new(), Vec::new(), Vec::new());
    for k in 0..600 {
        let risk: f64 = rng.random();
        let time = -(1.0 - rng.random::<f64>()).ln() * 400.0 * (1.0 - 0.8 * risk);
        let last = rng.random_range(50.0..300.0);
        let (days, event) = (time.min(last) as f32, time <= last);
        let observed = Observed { time: f64::from(days), event };
        let values: Vec<f32> = edges.iter().map(|edge| (-*edge / 400.0 / (1.0 - 0.8 * risk)).exp() as f32).collect();
        if k < 300 {
            train.push(observed);
        } else {
            test.push(observed);
            risks.push(-values.iter().map(|x| f64::from(*x)).sum::<f64>());
        }
        let split = if k < 300 { Split::Train } else { Split::Test };
        rows.push((split, Variant::Record, Some([days, f32::from(u8::from(event))]), values));
    }
    let metrics = measured(EndpointKind::Survival, &edges, rows);
    let expected = uno_concordance(&KaplanMeier::of_censoring(&train), &test, &risks, Some(200.0)).unwrap();
    near(value(&metrics, Variant::Record, EndpointMeasure::Concordance), expected, 1e-12);
    assert!(expected > 0.6, "{expected}");
    let score = value(&metrics, Variant::Record, EndpointMeasure::IntegratedBrier);
    assert!(score > 0.05 && score < 0.25, "{score}");
    assert_eq!(metrics.n_second, Some(test.iter().filter(|o| o.event).count()));
}

/// Patients whose treatment follows a covariate that the outcome follows too: the true effect is `effect`, twice that where x > 0.
fn confounded(n: usize, overlap: f64, lower_is_better: bool, seed: u64) -> EndpointMetrics {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sign = if lower_is_better { -1.0 } else { 1.0 };
    let rows = (0..n).map(|_| {
        let x: f64 = rng.random_range(-1.0..1.0);
        let propensity = 0.5 + overlap * 0.5 * x;
        let treated = rng.random::<f64>() < propensity;
        // Worth it for those with x > 0 alone.
        let outcomes = [3.0 - 2.0 * x, 3.0 - 2.0 * x + sign * if x > 0.0 { 1.0 } else { -1.0 }];
        let outcome = outcomes[usize::from(treated)] + rng.random_range(-0.5..0.5);
        let values = vec![outcomes[0] as f32, outcomes[1] as f32, (outcomes[1] - outcomes[0]) as f32, propensity as f32];
        (Split::Test, Variant::Joint, Some([outcome as f32, f32::from(u8::from(treated))]), values)
    });
    measured(EndpointKind::Treatment { binary: false, lower_is_better }, &[], rows.collect())
}

#[test]
fn a_policy_is_worth_what_it_was_made_to_be() {
    for lower_is_better in [false, true] {
        let metrics = confounded(4000, 0.8, lower_is_better, 17);
        let of = |measure| value(&metrics, Variant::Joint, measure);
        let sign = if lower_is_better { -1.0 } else { 1.0 };
        near(of(EndpointMeasure::AverageEffect), 0.0, 0.06);
        near(of(EndpointMeasure::PolicyValue), 3.0 + sign * 0.5, 0.08);
        near(of(EndpointMeasure::ValueOfFirst), 3.0, 0.08);
        near(of(EndpointMeasure::ValueOfSecond), 3.0, 0.08);
        near(of(EndpointMeasure::ShareOfSecond), 0.5, 0.03);
        near(of(EndpointMeasure::OutcomeError), (1.0f64 / 12.0).sqrt(), 0.01);
        assert!(!metrics.variants[&Variant::Joint].contains_key(&EndpointMeasure::OutcomeAuroc), "an outcome that is a number has none");
        assert!(!metrics.notes.iter().any(|note| note.contains("hardly ever")), "{:?}", metrics.notes);
    }
}

#[test]
fn intervals_of_an_effect_hold_it_as_often_as_they_say() {
    let holds = |seed: u64| {
        let metrics = confounded(300, 0.8, false, seed);
        let effect = &metrics.variants[&Variant::Joint][&EndpointMeasure::AverageEffect];
        effect.low.unwrap() < 0.0 && effect.high.unwrap() > 0.0
    };
    let n = (100..200).filter(|seed| holds(*seed)).count();
    assert!((88..=99).contains(&n), "{n} of 100 at 95 %");
}

#[test]
fn who_is_never_treated_is_warned_of() {
    let metrics = confounded(2000, 1.0, false, 17);
    near(value(&metrics, Variant::Joint, EndpointMeasure::Overlap), 0.9, 0.03);
    assert!(metrics.notes.iter().any(|note| note.contains("hardly ever")), "{:?}", metrics.notes);
}
