use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synovia_cohort::{ExampleId, Split};

use super::simulated::{binary, logistic, normal};
use crate::{Conformal, EvaluationOptions, ModalityPattern, Prediction, Variant, conformal_quantile, evaluate};

/// A joint model whose probability is right for what it is shown; a third of patients lack the image, a third the record.
fn draw(n: usize, split: Split, rng: &mut ChaCha8Rng, out: &mut Vec<Prediction>) {
    let task = binary();
    for k in 0..n {
        let (a, b) = (1.5 * normal(rng), 0.7 * normal(rng));
        let label = f32::from(u8::from(rng.random::<f32>() < logistic(a + b)));
        let id = ExampleId::from_digest(&format!("{}{k}", split.as_str()));
        let patient: Arc<str> = id.as_str().into();
        let (image, record) = [(true, true), (true, false), (false, true)][k % 3];
        let mut add =
            |variant, score: f64| out.extend(Prediction::rows(&id, &patient, split, &task, Some(label), &[logistic(score)], variant));
        add(Variant::Joint, if image { a } else { 0.0 } + if record { b } else { 0.0 });
        if image {
            add(Variant::JointImage, a);
        }
        if record {
            add(Variant::JointRecord, b);
        }
    }
}

fn conformal(seed: u64, n: usize) -> Conformal {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut predictions = Vec::new();
    draw(n, Split::Validation, &mut rng, &mut predictions);
    draw(3000, Split::Test, &mut rng, &mut predictions);
    let options = EvaluationOptions { n_bootstrap: 0, ..EvaluationOptions::default() };
    evaluate(&predictions, &[binary()], &options).unwrap().tasks.remove("malignant").unwrap().conformal.unwrap()
}

#[test]
fn the_quantile_is_the_next_rank_up() {
    // ⌈(n + 1) · 0.9⌉: the 9th of 9, the 10th of 10, the 18th of 19; 8 are too few.
    let ranked = |n: usize| conformal_quantile(&mut (1..=n).rev().map(|k| k as f64).collect::<Vec<_>>(), 0.9);
    assert_eq!((ranked(8), ranked(9), ranked(10), ranked(19)), (None, Some(9.0), Some(10.0), Some(18.0)));
    assert_eq!(conformal_quantile(&mut [], 0.9), None);
}

#[test]
fn sets_hold_the_truth_in_every_pattern_and_class() {
    let found = conformal(1, 3000);
    assert_eq!(found.test.len(), 2 + 4 + 4);
    for row in &found.test {
        // Of 1,000 sets or more, with quantiles of 1,000 scores or more: a standard deviation of 0.013.
        let covered = row.covered.unwrap();
        assert!((covered - 0.9).abs() < 0.045, "{row:?}");
        assert!(row.low.unwrap() <= covered && covered <= row.high.unwrap());
        if row.class_conditional {
            assert!(row.by_class.iter().all(|class| (class.covered.unwrap() - 0.9).abs() < 0.06), "{row:?}");
        }
    }
    // Less is known, more is in the set.
    let size = |pattern| found.test.iter().find(|r| r.pattern == pattern && r.natural && !r.class_conditional).unwrap().mean_size.unwrap();
    assert!(size(ModalityPattern::Both) < size(ModalityPattern::Image) && size(ModalityPattern::Image) < size(ModalityPattern::Record));
}

#[test]
fn sets_are_those_of_the_quantiles() {
    let found = conformal(2, 600);
    let sets = &found.sets[0];
    let q = sets.patterns.iter().find(|q| q.pattern == ModalityPattern::Both).unwrap().quantile.unwrap();
    for p in [0.01f32, 0.3, 0.5, 0.7, 0.99] {
        let set = sets.set(&[p], ModalityPattern::Both, false);
        assert_eq!(set.contains(&1), 1.0 - f64::from(p) <= q, "{p}");
        assert_eq!(set.contains(&0), f64::from(p) <= q, "{p}");
    }
    let json = serde_json::to_value(sets).unwrap();
    assert_eq!(serde_json::from_value::<crate::ConformalSets>(json).unwrap(), *sets);
}

#[test]
fn too_few_examples_leave_every_class_in() {
    let found = conformal(3, 12);
    assert!(found.sets[0].patterns.iter().all(|q| q.n == 4 && q.quantile.is_none() || q.n == 8), "{:?}", found.sets[0]);
    assert_eq!(found.sets[0].set(&[0.999], ModalityPattern::Both, false), [0, 1]);
    assert!(found.test.iter().all(|row| row.covered == Some(1.0)));
}

#[test]
fn without_validation_there_are_no_sets() {
    let mut predictions = Vec::new();
    draw(90, Split::Test, &mut ChaCha8Rng::seed_from_u64(4), &mut predictions);
    let options = EvaluationOptions { n_bootstrap: 0, ..EvaluationOptions::default() };
    let metrics = evaluate(&predictions, &[binary()], &options).unwrap();
    let task = &metrics.tasks["malignant"];
    assert!(task.conformal.is_none() && task.variants[&Variant::Joint].operating.is_empty());
}
