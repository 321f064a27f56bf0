use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::simulated::{binary, logistic, normal, stage};
use crate::{Calibration, CalibrationMap, Calibrator, EvaluationError, fit_calibration, probabilities};

fn at(value: f32) -> CalibrationMap {
    CalibrationMap::Temperature { value }
}

fn fit_temperature(logits: &[f32], labels: &[Option<f32>], task: &synovia_cohort::Task) -> Result<Calibration, EvaluationError> {
    fit_calibration(Calibrator::Temperature, logits, labels, task)
}

/// T of a fit by temperature.
fn value(fitted: &Calibration) -> f32 {
    let CalibrationMap::Temperature { value } = fitted.map else { panic!("{fitted:?}") };
    value
}

/// Logits that are `t` times too large, and labels drawn from the true ones.
fn overconfident(n: usize, t: f64, seed: u64) -> (Vec<f32>, Vec<Option<f32>>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |_| {
        let z = 1.5 * normal(&mut rng);
        let label = rng.random::<f32>() < logistic(z);
        ((t * z) as f32, Some(f32::from(u8::from(label))))
    };
    (0..n).map(draw).unzip()
}

#[test]
fn a_known_temperature_is_found() {
    for t in [0.5, 1.0, 2.0, 4.0] {
        let (logits, labels) = overconfident(20_000, t, 1);
        let fitted = fit_temperature(&logits, &labels, &binary()).unwrap();
        assert!((f64::from(value(&fitted)) / t - 1.0).abs() < 0.06, "{} instead of {t}", value(&fitted));
        assert!(fitted.log_loss_after <= fitted.log_loss_before && fitted.note.is_none());
    }
}

#[test]
fn a_known_temperature_of_three_classes_is_found() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        let z: Vec<f32> = (0..3).map(|_| normal(&mut rng) as f32).collect();
        let p = probabilities(&z, &at(1.0), &stage());
        let u: f32 = rng.random();
        labels.push(Some(if u < p[0] { 0.0 } else { f32::from(u8::from(u >= p[0] + p[1])) + 1.0 }));
        logits.extend(z.iter().map(|z| 3.0 * z));
    }
    let fitted = fit_temperature(&logits, &labels, &stage()).unwrap();
    assert!((value(&fitted) / 3.0 - 1.0).abs() < 0.06, "{}", value(&fitted));
}

#[test]
fn two_classes_are_a_binary_task() {
    // softmax([0, z]) is sigmoid(z).
    let (logits, labels) = overconfident(500, 2.0, 3);
    let two = synovia_cohort::Task { classes: vec!["no".into(), "yes".into()], ..stage() };
    let pairs: Vec<f32> = logits.iter().flat_map(|&z| [0.0, z]).collect();
    let (a, b) = (fit_temperature(&logits, &labels, &binary()).unwrap(), fit_temperature(&pairs, &labels, &two).unwrap());
    assert!((value(&a) - value(&b)).abs() < 1e-5);
    assert!((a.log_loss_after.unwrap() - b.log_loss_after.unwrap()).abs() < 1e-9);
    let (p, q) = (probabilities(&logits, &at(value(&a)), &binary()), probabilities(&pairs, &at(value(&a)), &two));
    assert!(p.iter().zip(q.chunks(2)).all(|(p, q)| (p - q[1]).abs() < 1e-6));
}

#[test]
fn too_few_labels_leave_the_model_as_it_is() {
    let (logits, labels) = overconfident(29, 4.0, 1);
    let fitted = fit_temperature(&logits, &labels, &binary()).unwrap();
    assert!(value(&fitted) == 1.0 && fitted.note.is_some() && fitted.n == 29);
    let (logits, _) = overconfident(500, 4.0, 1);
    let all_negative = fit_temperature(&logits, &[Some(0.0); 500], &binary()).unwrap();
    assert!(value(&all_negative) == 1.0 && all_negative.note.is_some());
    let nothing = fit_temperature(&logits, &[None; 500], &binary()).unwrap();
    assert!(value(&nothing) == 1.0 && nothing.log_loss_before.is_none());
}

#[test]
fn the_ends_of_the_range_are_said() {
    let separated: Vec<f32> = (0..100).map(|k| if k % 2 == 0 { 3.0 } else { -3.0 }).collect();
    let labels: Vec<_> = (0..100).map(|k| Some(f32::from(u8::from(k % 2 == 0)))).collect();
    let sharp = fit_temperature(&separated, &labels, &binary()).unwrap();
    assert!((value(&sharp) - 0.05).abs() < 1e-6 && sharp.note.is_some());
    let reversed: Vec<f32> = separated.iter().map(|z| -z).collect();
    let flat = fit_temperature(&reversed, &labels, &binary()).unwrap();
    assert!((value(&flat) - 20.0).abs() < 1e-4 && flat.note.is_some());
}

#[test]
fn what_is_not_logits_is_refused() {
    let refused = |logits: &[f32], labels: &[Option<f32>]| fit_temperature(logits, labels, &binary()).unwrap_err().to_string();
    assert_eq!(refused(&[1.0, 2.0], &[None]), "logits: 2 values where 1 were expected");
    assert_eq!(refused(&[1.0, f32::NAN], &[None, None]), "logits: value 1 (from 0) is not a finite number");
    assert!(refused(&[1.0], &[Some(2.0)]).contains("no class"));
}

proptest! {
    #[test]
    fn the_fit_is_a_minimum_and_keeps_the_order(t in 0.3f64..5.0, seed in any::<u64>()) {
        let (logits, labels) = overconfident(200, t, seed);
        let fitted = fit_temperature(&logits, &labels, &binary()).unwrap();
        prop_assume!(fitted.note.is_none());
        let loss = |value: f32| -> f64 {
            let p = probabilities(&logits, &at(value), &binary());
            let of = |(p, y): (&f32, &Option<f32>)| if *y == Some(1.0) { -f64::from(*p).ln() } else { -(1.0 - f64::from(*p)).max(1e-7).ln() };
            p.iter().zip(&labels).map(of).sum()
        };
        let best = loss(value(&fitted));
        prop_assert!(best <= loss(value(&fitted) * 1.05) + 1e-4 && best <= loss(value(&fitted) * 0.95) + 1e-4);
        prop_assert!(fitted.log_loss_after.unwrap() <= fitted.log_loss_before.unwrap() + 1e-12);
    }
}

/// Each way by name, in a model whose probabilities are those of twice the log odds and one too many: with that much to learn from a line
/// finds it, and no other makes the likelihood worse.
#[test]
fn each_way_is_fitted_by_name() {
    let n = 20_000;
    let z: Vec<f32> = (0..n).map(|k| (k as f32 / n as f32 - 0.5) * 6.0).collect();
    let mut s = 12345_u64;
    let mut uniform = || {
        s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (s >> 11) as f64 / (1_u64 << 53) as f64
    };
    let labels: Vec<Option<f32>> = z.iter().map(|z| Some(f32::from(u8::from(uniform() < 1.0 / (1.0 + (-f64::from(*z)).exp()))))).collect();
    let logits: Vec<f32> = z.iter().map(|z| 2.0 * z + 1.0).collect();
    for which in Calibrator::ALL {
        let fitted = fit_calibration(which, &logits, &labels, &binary()).unwrap();
        assert!(fitted.note.is_none() == (which != Calibrator::Isotonic) && fitted.log_loss_after < fitted.log_loss_before, "{fitted:?}");
        match (&fitted.map, which) {
            (CalibrationMap::Temperature { value }, Calibrator::Temperature) => assert!(*value > 1.5, "{value}"),
            (CalibrationMap::LogitLine { slope, intercept }, Calibrator::Platt) => {
                assert!((slope - 0.5).abs() < 0.02 && (intercept + 0.5).abs() < 0.04, "{slope}, {intercept}");
            }
            (CalibrationMap::Beta { a, b, .. }, Calibrator::Beta) => assert!((a - 0.5).abs() < 0.1 && (b - 0.5).abs() < 0.1, "{a}, {b}"),
            (CalibrationMap::Steps { .. }, Calibrator::Isotonic) => {}
            other => panic!("{other:?}"),
        }
        let p = probabilities(&logits, &fitted.map, &binary());
        assert!(p.is_sorted() && p.iter().all(|p| (0.0..=1.0).contains(p)), "{which}");
    }
    // A model that is far from the prevalence: T is at the end of its range, and a line is right.
    let (mut shifted, mut rare) = (Vec::new(), Vec::new());
    for k in 0..4000_u16 {
        let happened = k % 10 == 0;
        shifted.push(if happened { 1.5 } else { 1.0 } + ((uniform() - 0.5) * 2.0) as f32);
        rare.push(Some(f32::from(u8::from(happened))));
    }
    assert!(fit_temperature(&shifted, &rare, &binary()).unwrap().note.is_some());
    let line = fit_calibration(Calibrator::Platt, &shifted, &rare, &binary()).unwrap();
    let p = probabilities(&shifted, &line.map, &binary());
    let mean = p.iter().map(|&p| f64::from(p)).sum::<f64>() / p.len() as f64;
    assert!(line.note.is_none() && (mean - 0.1).abs() < 0.002, "{line:?}: {mean}");
    // What has no fit is left to the temperature, and says so.
    let several = fit_calibration(Calibrator::Beta, &[0.5, 0.1, -0.2].repeat(60), &[Some(0.0), Some(1.0)].repeat(30), &stage()).unwrap();
    assert!(matches!(several.map, CalibrationMap::Temperature { .. }) && several.note.unwrap().contains("two classes"));
    let few = fit_calibration(Calibrator::Isotonic, &[0.5; 8], &[Some(1.0); 8], &binary()).unwrap();
    assert!(few.map == at(1.0) && few.note.unwrap().contains("too few"));
    let falling: Vec<f32> = z.iter().map(|z| -z).collect();
    let fallen = fit_calibration(Calibrator::Platt, &falling, &labels, &binary()).unwrap();
    assert!(matches!(fallen.map, CalibrationMap::Temperature { .. }) && fallen.note.is_some());
}
