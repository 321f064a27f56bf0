use synovia_cohort::{ExampleId, Split};

use super::simulated::{Simulation, binary, stage};
use crate::{EvaluationError, EvaluationOptions, Gain, Prediction, Variant, Verdict, between_runs, evaluate};

const NO_BOOTSTRAP: EvaluationOptions = EvaluationOptions { seed: 0, n_bootstrap: 0, level: 0.95 };

fn gain(predictions: &[Prediction]) -> Gain {
    evaluate(predictions, &[binary()], &NO_BOOTSTRAP).unwrap().tasks.remove("malignant").unwrap().gain.unwrap()
}

#[track_caller]
fn check(joint: f64, image: f64, n: usize, verdict: Verdict) {
    let gain = gain(&Simulation::new(n, &[(Variant::Joint, joint), (Variant::Image, image), (Variant::Record, 0.2)]).draw(11));
    assert_eq!(gain.verdict, verdict, "{gain:?}");
    assert_eq!(gain.over, Variant::Image);
}

#[test]
fn verdicts() {
    check(2.0, 1.0, 600, Verdict::Better);
    check(0.8, 2.0, 600, Verdict::Worse);
    check(1.0, 1.0, 600, Verdict::NoEvidence);
    check(1.2, 1.0, 30, Verdict::NoEvidence);
}

#[test]
fn a_great_gain_has_a_p_smaller_than_any_bootstrap_could_give() {
    let gain = gain(&Simulation::new(600, &[(Variant::Joint, 2.0), (Variant::Image, 1.0)]).draw(11));
    assert!(gain.p.unwrap() < 1e-6 && gain.p.unwrap() > 0.0, "{gain:?}");
    assert!(gain.sentence.contains("p < 0.001"), "{}", gain.sentence);
}

#[test]
fn the_null_is_rejected_as_rarely_as_it_should_be() {
    // 400 draws of two models of equal quality: 5 % with a standard deviation of 1.1 %.
    for examples_a_patient in [1, 3] {
        let separations = [(Variant::Joint, 1.0), (Variant::Image, 1.0)];
        let simulation = Simulation { examples_a_patient, ..Simulation::new(200, &separations) };
        let gains: Vec<Gain> = (0..400).map(|seed| gain(&simulation.draw(seed))).collect();
        let wrong = gains.iter().filter(|gain| gain.p.unwrap() < 0.05).count();
        assert!((6..=34).contains(&wrong), "{wrong} of 400 with {examples_a_patient} examples a patient");
        // A verdict takes more: 1 % with a standard deviation of a half.
        let said = gains.iter().filter(|gain| gain.verdict != Verdict::NoEvidence).count();
        assert!(said <= 12, "{said} of 400 with {examples_a_patient} examples a patient");
    }
}

#[test]
fn interval_p_and_verdict_never_disagree() {
    for seed in 0..100 {
        let gain = gain(&Simulation::new(150, &[(Variant::Joint, 1.3), (Variant::Image, 1.0)]).draw(seed));
        let (low, high, p) = (gain.low.unwrap(), gain.high.unwrap(), gain.p.unwrap());
        assert_eq!(p < 0.05, low > 0.0 || high < 0.0, "{gain:?}");
        assert_eq!(gain.verdict != Verdict::NoEvidence, p < 0.01, "{gain:?}");
        assert_eq!(gain.sentence.contains("trainings differ too"), (0.01..0.05).contains(&p), "{gain:?}");
    }
}

#[test]
fn the_bootstrap_agrees_with_the_formula() {
    let predictions = Simulation { examples_a_patient: 2, ..Simulation::new(300, &[(Variant::Joint, 1.5), (Variant::Image, 1.0)]) }.draw(5);
    let metrics = evaluate(&predictions, &[binary()], &EvaluationOptions::default()).unwrap();
    let gain = metrics.tasks["malignant"].gain.as_ref().unwrap();
    let (low, high) = gain.bootstrap.unwrap();
    assert!((low - gain.low.unwrap()).abs() < 0.01 && (high - gain.high.unwrap()).abs() < 0.01, "{gain:?}");
}

#[test]
fn the_single_modality_is_chosen_on_validation() {
    let separations = |image, record| [(Variant::Joint, 2.0), (Variant::Image, image), (Variant::Record, record)];
    let mut predictions = Simulation::new(300, &separations(1.0, 0.5)).draw(1);
    let on_test = gain(&predictions);
    assert_eq!((on_test.over, on_test.chosen_on, on_test.notes.len()), (Variant::Image, Split::Test, 1));
    // On validation the record looks better; test must not be asked.
    predictions.extend(Simulation { split: Split::Validation, prefix: "v", ..Simulation::new(300, &separations(0.2, 1.5)) }.draw(2));
    let on_validation = gain(&predictions);
    assert_eq!((on_validation.over, on_validation.chosen_on, on_validation.notes.len()), (Variant::Record, Split::Validation, 0));
}

#[test]
fn only_examples_that_both_predicted_are_compared() {
    let mut predictions = Simulation::new(200, &[(Variant::Joint, 1.0), (Variant::Image, 1.0)]).draw(1);
    let both = gain(&predictions);
    let extra = Simulation { prefix: "x", ..Simulation::new(50, &[(Variant::Joint, -3.0)]) }.draw(2);
    predictions.extend(extra);
    let gain = gain(&predictions);
    assert_eq!((gain.n, gain.difference), (200, both.difference));
    assert!(gain.notes.iter().any(|note| note.contains("200 of 250")), "{:?}", gain.notes);
}

#[test]
fn identical_models_differ_by_nothing() {
    let mut predictions = Simulation::new(60, &[(Variant::Joint, 1.0)]).draw(1);
    let image: Vec<Prediction> = predictions.iter().map(|p| Prediction { variant: Variant::Image, ..p.clone() }).collect();
    predictions.extend(image);
    let gain = gain(&predictions);
    assert_eq!((gain.difference, gain.p, gain.verdict), (Some(0.0), Some(1.0), Verdict::NoEvidence));
}

#[test]
fn without_positives_there_is_no_p() {
    let mut predictions = Simulation::new(60, &[(Variant::Joint, 1.0), (Variant::Image, 1.0)]).draw(1);
    for prediction in &mut predictions {
        prediction.label = Some(0.0);
    }
    let none = gain(&predictions);
    assert_eq!((none.difference, none.p, none.verdict), (None, None, Verdict::NoEvidence));
    // One positive: an AUROC, but no idea of its variance.
    predictions.iter_mut().filter(|p| &*p.patient == "p7").for_each(|p| p.label = Some(1.0));
    let one = gain(&predictions);
    assert!(one.difference.is_some() && one.p.is_none() && one.low.is_none(), "{one:?}");
}

#[test]
fn a_multiclass_null_is_rejected_as_rarely_as_it_should_be() {
    let task = stage();
    let draw = |seed: u64| -> Vec<Prediction> {
        use rand::SeedableRng;
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut out = Vec::new();
        for k in 0..150 {
            let (id, patient) = (ExampleId::from_digest(&k.to_string()), format!("p{k}").into());
            for variant in [Variant::Joint, Variant::Image] {
                let logits: Vec<f32> =
                    (0..3).map(|c| super::simulated::normal(&mut rng) as f32 + f32::from(u8::from(c == k % 3))).collect();
                let row = crate::probabilities(&logits, &crate::CalibrationMap::Temperature { value: 1.0 }, &task);
                out.extend(Prediction::rows(&id, &patient, Split::Test, &task, Some((k % 3) as f32), &row, variant));
            }
        }
        out
    };
    let wrong = (0..300)
        .filter(|&seed| {
            let metrics = evaluate(&draw(seed), &[stage()], &NO_BOOTSTRAP).unwrap();
            metrics.tasks["stage"].gain.as_ref().unwrap().p.unwrap() < 0.05
        })
        .count();
    // 5 % of 300 with a standard deviation of 3.8.
    assert!((3..=27).contains(&wrong), "{wrong} of 300");
}

#[test]
fn each_comparison_has_its_sign_and_its_corrected_verdict() {
    let separations = [(Variant::Joint, 1.5), (Variant::Image, 0.5), (Variant::Record, 1.4), (Variant::LogisticRecord, 2.5)];
    let predictions = Simulation::new(600, &separations).draw(3);
    let metrics = evaluate(&predictions, &[binary()], &NO_BOOTSTRAP).unwrap();
    let task = &metrics.tasks["malignant"];
    let area = |v: Variant| task.variants[&v].auroc.value.unwrap();
    assert_eq!(task.comparisons.iter().map(|c| c.against).collect::<Vec<_>>(), [Variant::Image, Variant::Record, Variant::LogisticRecord]);
    for comparison in &task.comparisons {
        assert!((comparison.auroc.value.unwrap() - (area(Variant::Joint) - area(comparison.against))).abs() < 1e-12);
        let expected = match comparison.against {
            Variant::Image => Verdict::Better,
            Variant::LogisticRecord => Verdict::Worse,
            _ => Verdict::NoEvidence,
        };
        assert_eq!(comparison.verdict, expected, "{comparison:?}");
    }
    // Three tests: Holm multiplies the smallest p by 3 and leaves the largest.
    let mut p: Vec<(f64, f64)> = task.comparisons.iter().map(|c| (c.p.unwrap(), c.p_holm.unwrap())).collect();
    p.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!((p[0].1 - 3.0 * p[0].0).abs() < 1e-15 && (p[2].1 - p[2].0).abs() < 1e-15, "{p:?}");
}

#[test]
fn branches_are_held_against_models_of_their_modality() {
    let separations =
        [(Variant::Joint, 1.5), (Variant::Image, 0.5), (Variant::Record, 1.4), (Variant::JointImage, 1.4), (Variant::JointRecord, 1.4)];
    let metrics = evaluate(&Simulation::new(600, &separations).draw(3), &[binary()], &NO_BOOTSTRAP).unwrap();
    let branches = &metrics.tasks["malignant"].branches;
    let pairs: Vec<[Variant; 2]> = branches.iter().map(|c| [c.of, c.against]).collect();
    assert_eq!(pairs, [[Variant::JointImage, Variant::Image], [Variant::JointRecord, Variant::Record]]);
    assert_eq!(branches.iter().map(|c| c.verdict).collect::<Vec<_>>(), [Verdict::Better, Verdict::NoEvidence]);
    for branch in branches {
        let area = |v: Variant| metrics.tasks["malignant"].variants[&v].auroc.value.unwrap();
        assert!((branch.auroc.value.unwrap() - (area(branch.of) - area(branch.against))).abs() < 1e-12, "{branch:?}");
    }
    // Two tests: Holm doubles the smaller p.
    assert!((branches[0].p_holm.unwrap() - 2.0 * branches[0].p.unwrap()).abs() < 1e-15);
    let none = evaluate(&Simulation::new(90, &[(Variant::Joint, 1.5), (Variant::Image, 0.5)]).draw(3), &[binary()], &NO_BOOTSTRAP).unwrap();
    assert!(none.tasks["malignant"].branches.is_empty());
}

#[test]
fn a_difference_that_nothing_varies_by_is_said_so() {
    let labels: Vec<f32> = (0..40).map(|k| (k % 2) as f32).collect();
    let mut predictions = super::simulated::listed(&labels, &labels, Variant::Joint);
    predictions.extend(super::simulated::listed(&labels, &[0.5; 40], Variant::Image));
    let gain = gain(&predictions);
    assert_eq!((gain.difference, gain.p, gain.verdict), (Some(0.5), None, Verdict::NoEvidence));
    assert!(gain.notes.iter().any(|note| note.contains("nothing to test by")), "{gain:?}");
}

#[test]
fn two_runs_differ_as_two_models_of_one_run_do() {
    let all = Simulation::new(300, &[(Variant::Joint, 2.0), (Variant::Image, 1.0)]).draw(11);
    let within = gain(&all);
    let one: Vec<Prediction> = all.iter().filter(|p| p.variant == Variant::Joint).cloned().collect();
    // In another run the other model has the same name.
    let renamed = all.iter().filter(|p| p.variant == Variant::Image).map(|p| Prediction { variant: Variant::Joint, ..p.clone() });
    let other: Vec<Prediction> = renamed.collect();
    let of = |first, second| between_runs(&binary(), first, second, 0.95);
    let found = of((&one, Variant::Joint), (&other, Variant::Joint)).unwrap().unwrap();
    assert_eq!((found.n, found.auroc.value, found.auroc.low, found.p), (within.n, within.difference, within.low, within.p));
    // On the examples of both alone.
    let half = of((&one[..150], Variant::Joint), (&other, Variant::Joint)).unwrap().unwrap();
    assert_eq!(half.n, 150);
    assert_eq!(of((&one, Variant::Joint), (&other, Variant::Record)).unwrap(), None, "no such model");
    let mut wrong = other.clone();
    wrong[0].label = wrong[0].label.map(|label| 1.0 - label);
    let refused = of((&one, Variant::Joint), (&wrong, Variant::Joint));
    assert!(matches!(refused, Err(EvaluationError::LabelConflict { .. })), "{refused:?}");
}
