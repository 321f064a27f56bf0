use synovia_cohort::{ExampleId, Split};

use super::simulated::{binary, listed, stage};
use crate::{EvaluationOptions, Prediction, Variant, evaluate, pool_folds};

#[track_caller]
fn check(change: impl Fn(&mut Vec<Prediction>), expected: &str) {
    let mut predictions = listed(&[0.0, 1.0, 0.0, 1.0], &[0.1, 0.2, 0.3, 0.4], Variant::Joint);
    change(&mut predictions);
    let options = EvaluationOptions { n_bootstrap: 10, ..EvaluationOptions::default() };
    let error = evaluate(&predictions, &[binary(), stage()], &options).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn contradictions_are_refused() {
    check(Vec::clear, "no prediction is of the test split: nothing to measure");
    check(|p| p[0].task = "x".into(), "example e000: task `x` is not one of the pipeline's");
    check(|p| p[0].class = "x".into(), "example e000, task `malignant`: class `x` is not one of the task's");
    check(|p| p[1].probability = f32::NAN, "example e001, task `malignant`, joint: probability NaN is not in [0, 1]; the model diverged");
    check(|p| p[1].probability = 1.5, "example e001, task `malignant`, joint: probability 1.5 is not in [0, 1]; the model diverged");
    check(|p| p[2].label = Some(2.0), "example e002, task `malignant`: label 2 is not a class: expected a whole number from 0 to 1");
    check(|p| p[2].label = Some(f32::NAN), "example e002, task `malignant`: label NaN is not a class: expected a whole number from 0 to 1");
    check(|p| p.push(p[3].clone()), "example e003, task `malignant`, joint: predicted twice");
    check(
        |p| p.push(Prediction { variant: Variant::Image, label: None, ..p[3].clone() }),
        "example e003, task `malignant`: its predictions disagree about its label",
    );
    check(
        |p| p.push(Prediction { variant: Variant::Image, patient: "p000".into(), ..p[3].clone() }),
        "example e003: its predictions name two patients",
    );
    check(
        |p| p.push(Prediction { example: ExampleId::from_digest("v"), split: Split::Train, ..p[3].clone() }),
        "patient p003 is in the test split and in the train split: a leak; run `synovia audit`",
    );
    let stage = |p: &mut Vec<Prediction>, row: &[f32]| {
        p.extend(Prediction::rows(&ExampleId::from_digest("s"), &"p9".into(), Split::Test, &stage(), Some(1.0), row, Variant::Joint));
    };
    check(|p| stage(p, &[0.5, 0.5]), "example s, task `stage`, joint: no probability for class `III`");
    check(|p| stage(p, &[0.5, 0.5, 0.5]), "example s, task `stage`, joint: probabilities sum to 1.5 instead of 1");
}

#[test]
fn a_patient_is_tested_in_one_fold() {
    let fold = listed(&[0.0, 1.0], &[0.1, 0.2], Variant::Joint);
    let error = pool_folds(&[fold.clone(), fold], &[binary()], &EvaluationOptions::default()).unwrap_err().to_string();
    assert_eq!(error, "patient p000 is tested in folds 1 and 2: folds must divide the patients");
}

#[test]
fn a_level_is_a_share() {
    let options = EvaluationOptions { level: 95.0, ..EvaluationOptions::default() };
    assert!(evaluate(&listed(&[0.0, 1.0], &[0.1, 0.2], Variant::Joint), &[binary()], &options).is_err());
}

#[test]
fn variants_have_one_name() {
    for variant in Variant::ALL {
        assert_eq!(Variant::from_name(variant.as_str()), Some(variant));
        assert_eq!(serde_json::to_value(variant).unwrap(), variant.as_str());
    }
    assert_eq!(Variant::from_name("both"), None);
}
