use super::references::{check, data};
use crate::{CalibrationMap, Calibrator, fit_calibrator, isotonic};

fn sample() -> (Vec<f64>, Vec<bool>) {
    let data = data();
    (data.p2.iter().map(|p| p.clamp(0.01, 0.99)).collect(), data.y)
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
    let map = fit_calibrator(Calibrator::Isotonic, &data.p2, &data.y).unwrap();
    let expected = [0.0, 0.0, 0.0, 0.3163265306122449, 0.3163265306122449, 0.3163265306122449, 0.5714285714285714, 1.0];
    for (p, expected) in [0.0, 0.1, 0.2, 0.3, 0.33, 0.45, 0.6, 1.0].into_iter().zip(expected) {
        check(map.apply(p), expected);
        check(map.steps().unwrap().apply(p), expected);
    }
    // Given with the task
    let (x, y) = isotonic(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 3.0, 2.0, 4.0, 3.5, 6.0]);
    let line = CalibrationMap::PiecewiseLinear { x, y };
    for (k, expected) in [1.0, 2.5, 2.5, 3.75, 3.75, 6.0].into_iter().enumerate() {
        check(line.apply(k as f64), expected);
    }
}

#[test]
fn no_calibrator_turns_the_order_around_or_makes_the_likelihood_worse() {
    let (p, y) = sample();
    let loss = |map: Option<&CalibrationMap>| -> f64 {
        let of = |p: f64, y: bool| -(if y { p } else { 1.0 - p }).max(1e-9).ln();
        p.iter().zip(&y).map(|(&p, &y)| of(map.map_or(p, |m| m.apply(p)), y)).sum()
    };
    for which in Calibrator::ALL {
        let map = fit_calibrator(which, &p, &y).unwrap();
        let all: Vec<f64> = (0..=100).map(|k| map.apply(f64::from(k) / 100.0)).collect();
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
    let (p, y) = ([0.1, 0.2, 0.8, 0.9], [false, false, true, true]);
    assert!(refused(&p, &y, Calibrator::Beta).contains("beta calibration"));
    assert!(fit_calibrator(Calibrator::Platt, &p, &y).unwrap().apply(0.9) < 0.9);
}

#[test]
fn what_falls_where_the_event_is_more_frequent_is_refused() {
    // P(y | p) = 1 − p
    let (mut p, mut y) = (Vec::new(), Vec::new());
    for k in 1..40 {
        for draw in 0..40 {
            p.push(f64::from(k) / 40.0);
            y.push(draw >= k);
        }
    }
    for which in [Calibrator::Temperature, Calibrator::Platt, Calibrator::Beta] {
        assert!(fit_calibrator(which, &p, &y).unwrap_err().to_string().contains("no fit on 780 positive labels of 1560"), "{which}");
    }
    // The best rising function of it is level.
    let level = fit_calibrator(Calibrator::Isotonic, &p, &y).unwrap();
    check(level.apply(0.1), 0.5);
    check(level.apply(0.9), 0.5);
}
