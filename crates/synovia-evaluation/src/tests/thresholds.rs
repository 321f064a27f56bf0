use synovia_cohort::Split;

use super::simulated::{Simulation, binary};
use crate::{EvaluationOptions, Rate, ThresholdRule, Variant, choose_threshold, evaluate};

#[test]
fn rules_by_hand() {
    let labels = [false, false, true, false, true, true];
    let scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    let chosen = |rule| choose_threshold(&scores, &labels, rule);
    // At 0.5: 2/3 + 1; at 0.3: 1 + 2/3. Of equal ones the highest.
    assert_eq!(chosen(ThresholdRule::Youden), Some(0.5));
    assert_eq!(chosen(ThresholdRule::Sensitivity(0.9)), Some(0.3));
    assert_eq!(chosen(ThresholdRule::Specificity(0.9)), Some(0.5));
    assert_eq!(choose_threshold(&[0.1], &[true], ThresholdRule::Youden), None);
}

#[test]
fn thresholds_are_of_validation_and_their_decisions_of_test() {
    let mut predictions = Simulation::new(300, &[(Variant::Joint, 1.5)]).draw(1);
    predictions.extend(Simulation { split: Split::Validation, prefix: "v", ..Simulation::new(300, &[(Variant::Joint, 1.5)]) }.draw(2));
    let options = EvaluationOptions { n_bootstrap: 200, ..EvaluationOptions::default() };
    let measured = |predictions: &[crate::Prediction]| evaluate(predictions, &[binary()], &options).unwrap().tasks["malignant"].clone();
    let before = measured(&predictions);
    let points = &before.variants[&Variant::Joint].operating;
    assert_eq!(points.len(), 3);
    let on = |split| -> (Vec<f32>, Vec<bool>) {
        predictions.iter().filter(|p| p.split == split).map(|p| (p.probability, p.label == Some(1.0))).unzip()
    };
    let ((scores, labels), (test_scores, test_labels)) = (on(Split::Validation), on(Split::Test));
    for point in points {
        let threshold = choose_threshold(&scores, &labels, point.rule).unwrap();
        assert_eq!(point.thresholds, [threshold]);
        let confusion = crate::Confusion::at(&test_scores, &test_labels, threshold);
        assert_eq!(point.confusion, confusion);
        for (rate, estimate) in &point.rates {
            assert_eq!(estimate.value, rate.of(&confusion), "{rate:?}");
            assert!(estimate.low <= estimate.value && estimate.value <= estimate.high, "{rate:?} {estimate:?}");
        }
    }
    // Test labels turned around change no threshold.
    for prediction in predictions.iter_mut().filter(|p| p.split == Split::Test) {
        prediction.label = prediction.label.map(|y| 1.0 - y);
    }
    let after = measured(&predictions);
    assert!(points.iter().zip(&after.variants[&Variant::Joint].operating).all(|(a, b)| a.thresholds == b.thresholds));
}

#[test]
fn a_rate_of_1_has_wilsons_interval() {
    let perfect = [(Variant::Joint, 90.0)];
    let mut predictions = Simulation::new(60, &perfect).draw(1);
    predictions.extend(Simulation { split: Split::Validation, prefix: "v", ..Simulation::new(60, &perfect) }.draw(2));
    let metrics = evaluate(&predictions, &[binary()], &EvaluationOptions { n_bootstrap: 50, ..EvaluationOptions::default() }).unwrap();
    let point = &metrics.tasks["malignant"].variants[&Variant::Joint].operating[0];
    let sensitivity = &point.rates[&Rate::Sensitivity];
    let (low, high) = crate::wilson_interval(20, 20, 0.95).unwrap();
    assert_eq!((sensitivity.value, sensitivity.low, sensitivity.high), (Some(1.0), Some(low), Some(high)));
}
