use std::sync::Arc;

use proptest::prelude::*;
use synovia_cohort::{ExampleId, Split, Task, TaskKind};

use super::simulated::{binary, listed, stage};
use crate::{
    EvaluationOptions, Measure, Metrics, Prediction, Variant, auroc, average_precision, evaluate, precision_recall_curve, roc_curve,
};

const LABELS: [f32; 12] = [0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
const SCORES: [f32; 12] = [0.1, 0.4, 0.35, 0.8, 0.4, 0.4, 0.2, 0.9, 0.65, 0.7, 0.05, 0.4];

fn quick() -> EvaluationOptions {
    EvaluationOptions { n_bootstrap: 100, ..EvaluationOptions::default() }
}

#[track_caller]
fn check(metrics: &Metrics, task: &str, measure: Measure, expected: f64) {
    let got = metrics.tasks[task].variants[&Variant::Joint].get(measure).and_then(|e| e.value).unwrap();
    assert!((got - expected).abs() < 1e-9, "{measure:?}: {got} instead of {expected}");
}

#[test]
fn binary_measures_agree_with_scikit_learn() {
    // scikit-learn 1.9.1, y = LABELS, p = SCORES as float32
    let metrics = evaluate(&listed(&LABELS, &SCORES, Variant::Joint), &[binary()], &quick()).unwrap();
    check(&metrics, "malignant", Measure::Auroc, 0.7777777777777778); // roc_auc_score(y, p)
    check(&metrics, "malignant", Measure::Auprc, 0.7777777777777777); // average_precision_score(y, p)
    check(&metrics, "malignant", Measure::Brier, 0.18145833371207132); // brier_score_loss(y, p)
    check(&metrics, "malignant", Measure::LogLoss, 0.5205926671935971); // log_loss(y, p)
    let task = &metrics.tasks["malignant"];
    assert_eq!((task.n, task.n_positive, task.n_patients, task.n_unlabelled), (12, Some(6), 12, 0));
    assert!(task.gain.is_none() && task.variants[&Variant::Joint].accuracy.is_none());
}

#[test]
fn multiclass_measures_agree_with_scikit_learn() {
    let labels = [0.0, 1.0, 2.0, 1.0, 0.0, 2.0, 2.0, 1.0, 0.0, 1.0];
    let rows = [
        [0.7, 0.2, 0.1],
        [0.2, 0.5, 0.3],
        [0.1, 0.3, 0.6],
        [0.4, 0.4, 0.2],
        [0.5, 0.3, 0.2],
        [0.3, 0.3, 0.4],
        [0.6, 0.1, 0.3],
        [0.1, 0.8, 0.1],
        [0.3, 0.4, 0.3],
        [0.25, 0.5, 0.25],
    ];
    let mut predictions = Vec::new();
    for (k, (label, row)) in labels.iter().zip(&rows).enumerate() {
        let (id, patient) = (ExampleId::from_digest(&format!("e{k}")), format!("p{k}").into());
        predictions.extend(Prediction::rows(&id, &patient, Split::Test, &stage(), Some(*label), row, Variant::Joint));
    }
    let metrics = evaluate(&predictions, &[stage()], &quick()).unwrap();
    // scikit-learn 1.9.1, Y one-hot, P as float32
    check(&metrics, "stage", Measure::Auroc, 0.9216269841269842); // roc_auc_score(Y, P, average="macro")
    check(&metrics, "stage", Measure::Auprc, 0.8462962962962962); // average_precision_score(Y, P, average="macro")
    check(&metrics, "stage", Measure::Brier, 0.42950000229477914); // ((P - Y) ** 2).sum(1).mean()
    check(&metrics, "stage", Measure::LogLoss, 0.7410612586216079); // log_loss(y, P)
    check(&metrics, "stage", Measure::Accuracy, 0.7); // accuracy_score(y, P.argmax(1))
    // By hand: confidences by bin of 1/15 and whether right: 0.4 (F: the first of a tie is I), 0.4 T, 0.4 F | 0.5 T ×3 | 0.6 T, 0.6 F
    // | 0.7 T | 0.8 T; bins [0.4, 0.467): 1.2 against 1, [0.467, 0.533): 1.5 against 3, [0.6, 0.667): 1.2 against 1, then 0.3 and 0.2.
    check(&metrics, "stage", Measure::Ece, (0.2 + 1.5 + 0.2 + 0.3 + 0.2) / 10.0 + ECE_ROUNDING);
    assert_eq!(metrics.tasks["stage"].classes.iter().map(|c| c.n).collect::<Vec<_>>(), [3, 4, 3]);
    assert_eq!(metrics.tasks["stage"].n_positive, None);
}

/// 0.4, 0.6, 0.7 and 0.8 as `f32`, in what the sums above make of them.
const ECE_ROUNDING: f64 = {
    let (four, six) = (0.4f32 as f64 - 0.4, 0.6f32 as f64 - 0.6);
    let (seven, eight) = (0.7f32 as f64 - 0.7, 0.8f32 as f64 - 0.8);
    (3.0 * four + 2.0 * six - seven - eight) / 10.0
};

#[test]
fn unlabelled_examples_are_counted_and_left_out() {
    let mut predictions = listed(&LABELS, &SCORES, Variant::Joint);
    let with = evaluate(&predictions, &[binary()], &quick()).unwrap();
    let (id, patient): (_, Arc<str>) = (ExampleId::from_digest("none"), "p-none".into());
    predictions.extend(Prediction::rows(&id, &patient, Split::Test, &binary(), None, &[0.99], Variant::Joint));
    let metrics = evaluate(&predictions, &[binary()], &quick()).unwrap();
    assert_eq!(metrics.tasks["malignant"].n_unlabelled, 1);
    assert_eq!(metrics.tasks["malignant"].variants, with.tasks["malignant"].variants);
}

#[test]
fn without_positives_nothing_is_nan() {
    let tasks = [binary(), stage()];
    let metrics = evaluate(&listed(&[0.0; 12], &SCORES, Variant::Joint), &tasks, &quick()).unwrap();
    let json = serde_json::to_value(&metrics).unwrap();
    let joint = &json["tasks"]["malignant"]["variants"]["joint"];
    assert_eq!(joint["auroc"]["value"], serde_json::Value::Null);
    assert_eq!(joint["auroc"]["note"], "needs examples with and without the class");
    assert!(joint["brier"]["value"].is_f64());
    assert_eq!(json["tasks"]["stage"]["n"], 0, "a task without any test label is there, and says so");
    assert_eq!(serde_json::from_value::<Metrics>(json).unwrap(), metrics);
}

#[test]
fn the_curves_enclose_the_areas() {
    let labels = LABELS.map(|y| y == 1.0);
    let roc = roc_curve(&SCORES, &labels);
    let trapezia = |(a, b): (&crate::RocPoint, &crate::RocPoint)| {
        (b.false_positive_rate - a.false_positive_rate) * 0.5 * (a.true_positive_rate + b.true_positive_rate)
    };
    let area: f64 = roc.iter().zip(&roc[1..]).map(trapezia).sum();
    assert!((area - auroc(&SCORES, &labels).unwrap()).abs() < 1e-12);
    let mut recall = 0.0;
    let mut steps = 0.0;
    for point in precision_recall_curve(&SCORES, &labels) {
        steps += (point.recall - recall) * point.precision;
        recall = point.recall;
    }
    assert!((steps - average_precision(&SCORES, &labels).unwrap()).abs() < 1e-12);
}

/// P(positive outranks negative), over all pairs.
fn brute_force(scores: &[f32], labels: &[bool]) -> Option<f64> {
    let (mut wins, mut pairs) = (0.0, 0.0);
    for (a, _) in scores.iter().zip(labels).filter(|(_, y)| **y) {
        for (b, _) in scores.iter().zip(labels).filter(|(_, y)| !**y) {
            pairs += 1.0;
            wins += if a > b { 1.0 } else { f64::from(u8::from(a == b)) / 2.0 };
        }
    }
    (pairs > 0.0).then(|| wins / pairs)
}

proptest! {
    #[test]
    fn auroc_is_the_share_of_pairs(examples in proptest::collection::vec((0u8..12, any::<bool>()), 0..60)) {
        let (scores, labels): (Vec<f32>, Vec<bool>) = examples.into_iter().map(|(s, y)| (f32::from(s) / 12.0, y)).unzip();
        let (got, expected) = (auroc(&scores, &labels), brute_force(&scores, &labels));
        prop_assert_eq!(got.is_some(), expected.is_some());
        if let (Some(got), Some(expected)) = (got, expected) {
            prop_assert!((got - expected).abs() < 1e-12);
            // Only the order counts, and turning the labels around turns the area around.
            let stretched: Vec<f32> = scores.iter().map(|s| s.powi(3) * 0.5 + 0.1).collect();
            prop_assert_eq!(auroc(&stretched, &labels), Some(got));
            prop_assert_eq!(average_precision(&stretched, &labels), average_precision(&scores, &labels));
            let flipped: Vec<bool> = labels.iter().map(|y| !y).collect();
            prop_assert!((auroc(&scores, &flipped).unwrap() - (1.0 - got)).abs() < 1e-12);
        }
    }

    #[test]
    fn the_order_of_predictions_does_not_matter(seed in any::<u64>(), swaps in proptest::collection::vec((0usize..24, 0usize..24), 1..40)) {
        let mut predictions = listed(&LABELS, &SCORES, Variant::Joint);
        predictions.extend(listed(&LABELS, &SCORES.map(|p| (p * 7.0).fract()), Variant::Image));
        let options = EvaluationOptions { seed, n_bootstrap: 20, level: 0.95 };
        let before = evaluate(&predictions, &[binary()], &options).unwrap();
        for (a, b) in swaps {
            predictions.swap(a, b);
        }
        prop_assert_eq!(evaluate(&predictions, &[binary()], &options).unwrap(), before);
    }
}

#[test]
fn many_classes_are_measured_in_time() {
    let task = Task { name: "code".into(), kind: TaskKind::Multiclass, classes: (0..300).map(|k| format!("c{k}")).collect() };
    let mut predictions = Vec::new();
    for k in 0..600usize {
        // One in four is called the class after its own.
        let called = if k % 4 == 0 { (k % 300 + 1) % 300 } else { k % 300 };
        let mut row = vec![0.5 / 299.0; 300];
        row[called] = 0.5;
        let (id, patient) = (ExampleId::from_digest(&format!("e{k}")), format!("p{k}").into());
        predictions.extend(Prediction::rows(&id, &patient, Split::Test, &task, Some((k % 300) as f32), &row, Variant::Joint));
    }
    let started = std::time::Instant::now();
    let metrics = evaluate(&predictions, std::slice::from_ref(&task), &quick()).unwrap();
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    check(&metrics, "code", Measure::Accuracy, 0.75);
    check(&metrics, "code", Measure::BalancedAccuracy, 0.75);
    let joint = &metrics.tasks["code"].variants[&Variant::Joint];
    assert!((joint.more[&Measure::Kappa].value.unwrap() - 0.749).abs() < 2e-3);
    assert_eq!(joint.averages, None);
}
