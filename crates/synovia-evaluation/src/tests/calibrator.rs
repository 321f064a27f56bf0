use super::references::{check, data};
use crate::{CalibrationMap, Calibrator, fit_calibrator, isotonic};

/// Logits and labels.
fn sample() -> (Vec<f64>, Vec<bool>) {
    let data = data();
    (logits(&data.p2), data.y)
}

fn logits(p: &[f64]) -> Vec<f64> {
    p.iter().map(|p| p.clamp(0.01, 0.99)).map(|p| (p / (1.0 - p)).ln()).collect()
}

#[test]
fn platt_and_beta_agree_with_statsmodels() {
    let (p, y) = sample();
    // statsmodels 0.15.0: GLM(Binomial) on Platt's targets, and on [1, ln p, −ln (1 − p)]
    let CalibrationMap::LogitLine { slope, intercept } = fit_calibrator(Calibrator::Platt, &p, &y).unwrap() else { panic!() };
    check(slope, 1.2866556527893218);
    check(intercept, -0.10000179475086297);
    let CalibrationMap::Beta { a, b, c } = fit_calibrator(Calibrator::Beta, &p, &y).unwrap() else { panic!() };
    check(a, 1.145089562955824);
    check(b, 1.6181927139539785);
    check(c, -0.4261695486738616);
}

#[test]
fn isotonic_agrees_with_scikit_learn() {
    // scikit-learn 1.9.1: IsotonicRegression(out_of_bounds="clip").fit(p2, y).predict(…)
    let data = data();
    let happened: Vec<f64> = data.y.iter().map(|&y| f64::from(u8::from(y))).collect();
    let at = |(x, y): &(Vec<f64>, Vec<f64>), p: f64| {
        let k = x.partition_point(|knot| *knot <= p).clamp(1, x.len() - 1);
        y[k - 1] + ((p - x[k - 1]) / (x[k] - x[k - 1])).clamp(0.0, 1.0) * (y[k] - y[k - 1])
    };
    let line = isotonic(&data.p2, &happened);
    let expected = [0.0, 0.0, 0.0, 0.3163265306122449, 0.3163265306122449, 0.3163265306122449, 0.5714285714285714, 1.0];
    for (p, expected) in [0.0, 0.1, 0.2, 0.3, 0.33, 0.45, 0.6, 1.0].into_iter().zip(expected) {
        check(at(&line, p), expected);
    }
    // On logits, a block's middle is at its height; 0 and 1 are as far as 200 labels can tell.
    let (z, y) = sample();
    let map = fit_calibrator(Calibrator::Isotonic, &z, &y).unwrap();
    for (p, expected) in [(0.1, 1.0 / 202.0), (0.375, 0.3163265306122449), (0.99, 201.0 / 202.0)] {
        check(map.of_logit(logits(&[p])[0]), expected);
    }
    // Given with the task
    let line = isotonic(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 3.0, 2.0, 4.0, 3.5, 6.0]);
    for (k, expected) in [1.0, 2.5, 2.5, 3.75, 3.75, 6.0].into_iter().enumerate() {
        check(at(&line, k as f64), expected);
    }
}

/// Steps that stand close are no steeper than single precision bears, and rise as far.
#[test]
fn no_step_is_too_steep() {
    let z: Vec<f64> = (0..400).map(|k| f64::from(k) * 1e-6).collect();
    let happened: Vec<bool> = (0..400).map(|k| k >= 200).collect();
    let map = fit_calibrator(Calibrator::Isotonic, &z, &happened).unwrap();
    check(map.of_logit(-1.0), 1.0 / 402.0);
    check(map.of_logit(1.0), 401.0 / 402.0);
    let steep = |z: f64| (map.of_logit(z + 1e-4) - map.of_logit(z)) / 1e-4;
    assert!((-1000..1000).all(|k| (0.0..2.0 + 1e-6).contains(&steep(f64::from(k) / 1000.0))));
}

#[test]
fn no_calibrator_turns_the_order_around_or_makes_the_likelihood_worse() {
    let (z, y) = sample();
    let loss = |map: Option<&CalibrationMap>| -> f64 {
        let of = |p: f64, y: bool| -(if y { p } else { 1.0 - p }).max(1e-9).ln();
        let own = CalibrationMap::Temperature { value: 1.0 };
        z.iter().zip(&y).map(|(&z, &y)| of(map.unwrap_or(&own).of_logit(z), y)).sum()
    };
    for which in Calibrator::ALL {
        let map = fit_calibrator(which, &z, &y).unwrap();
        let all: Vec<f64> = (-100..=100).map(|k| map.of_logit(f64::from(k) / 10.0)).collect();
        assert!(all.windows(2).all(|w| w[0] <= w[1] + 1e-12) && all.iter().all(|p| (0.0..=1.0).contains(p)), "{which}");
        // Platt's targets are not the labels: a little worse is allowed there.
        assert!(loss(Some(&map)) <= loss(None) + 0.2, "{which}");
        assert_eq!(Calibrator::from_name(which.as_str()), Some(which));
        assert_eq!(serde_json::from_value::<CalibrationMap>(serde_json::to_value(&map).unwrap()).unwrap(), map);
    }
}

#[test]
fn what_has_no_fit_is_refused() {
    let refused = |p: &[f64], y: &[bool], which| fit_calibrator(which, p, y).unwrap_err().to_string();
    assert_eq!(refused(&[0.1], &[true, false], Calibrator::Beta), "labels: 2 values where 1 were expected");
    assert!(refused(&[0.1, f64::NAN], &[true, false], Calibrator::Platt).contains("value 1"));
    for which in Calibrator::ALL {
        assert!(refused(&[0.1, 0.2], &[true, true], which).contains("no fit on 2 positive labels of 2"));
    }
    // Separated: Platt's targets give an answer where the likelihood has none.
    let (p, y) = ([-2.0, -1.0, 1.0, 2.0], [false, false, true, true]);
    assert!(refused(&p, &y, Calibrator::Beta).contains("beta calibration"));
    assert!(fit_calibrator(Calibrator::Platt, &p, &y).unwrap().of_logit(2.0) < 0.9);
}

#[test]
fn what_falls_where_the_event_is_more_frequent_is_refused() {
    // P(y | p) = 1 − p
    let (mut p, mut y) = (Vec::new(), Vec::new());
    for k in 1..40 {
        for draw in 0..40 {
            p.push((f64::from(k) / f64::from(40 - k)).ln());
            y.push(draw >= k);
        }
    }
    for which in [Calibrator::Temperature, Calibrator::Platt, Calibrator::Beta] {
        assert!(fit_calibrator(which, &p, &y).unwrap_err().to_string().contains("no fit on 780 positive labels of 1560"), "{which}");
    }
    // The best rising function of it is level.
    let level = fit_calibrator(Calibrator::Isotonic, &p, &y).unwrap();
    check(level.of_logit(-2.0), 0.5);
    check(level.of_logit(2.0), 0.5);
}
