use rayon::ThreadPoolBuilder;
use synovia_cohort::Test;

use super::simulated::{Simulation, binary};
use crate::measure::Prepared;
use crate::panel::{Panel, panels};
use crate::{EvaluationOptions, Measure, Prediction, Variant, delong, evaluate, pool_folds};

/// AUROC of two normals of unit variance whose means are 1 apart: Φ(1/√2).
const TRUE_AUROC: f64 = 0.7602499389065233;

#[test]
fn intervals_are_the_same_bits_on_any_number_of_threads() {
    let predictions = Simulation::new(60, &[(Variant::Joint, 1.5), (Variant::Image, 1.0), (Variant::Record, 1.0)]).draw(1);
    let options = EvaluationOptions { n_bootstrap: 300, ..EvaluationOptions::default() };
    let with = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        serde_json::to_string(&pool.install(|| evaluate(&predictions, &[binary()], &options).unwrap())).unwrap()
    };
    assert_eq!(with(1), with(2));
    let other = EvaluationOptions { seed: 1, ..options.clone() };
    assert_ne!(with(1), serde_json::to_string(&evaluate(&predictions, &[binary()], &other).unwrap()).unwrap());
}

/// Share of 95 % intervals of AUROC that hold the true value.
fn coverage(simulation: &Simulation, n: u64, cut_clusters: bool) -> f64 {
    let options = EvaluationOptions { n_bootstrap: 300, ..EvaluationOptions::default() };
    let held = (0..n).filter(|&seed| {
        let mut predictions = simulation.draw(seed);
        if cut_clusters {
            for prediction in &mut predictions {
                prediction.patient = prediction.example.as_str().into();
            }
        }
        let metrics = evaluate(&predictions, &[binary()], &options).unwrap();
        let auroc = &metrics.tasks["malignant"].variants[&Variant::Joint].auroc;
        auroc.low.unwrap() <= TRUE_AUROC && TRUE_AUROC <= auroc.high.unwrap()
    });
    held.count() as f64 / n as f64
}

#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    // 300 draws: the share has a standard deviation of 0.0126 at 0.95.
    let share = coverage(&Simulation::new(120, &[(Variant::Joint, 1.0)]), 300, false);
    assert!((0.90..=0.985).contains(&share), "{share}");
}

#[test]
fn intervals_hold_the_truth_when_patients_have_several_examples() {
    let clustered = Simulation { examples_a_patient: 4, ..Simulation::new(100, &[(Variant::Joint, 1.0)]) };
    let share = coverage(&clustered, 200, false);
    assert!((0.89..=0.99).contains(&share), "{share}");
    // Drawing examples instead of patients would be far too sure of itself.
    let naive = coverage(&clustered, 200, true);
    assert!(naive < 0.85, "{naive}");
}

fn prepared<'a>(tasks: &'a [synovia_cohort::Task], folds: &[&[Prediction]], variants: &[Variant]) -> (Panel<'a, Test>, Vec<Prepared>) {
    let panel = panels::<Test>(folds, tasks).unwrap().remove(0);
    let prepared = variants.iter().map(|v| Prepared::new(&panel, &panel.variants[v], Vec::new(), |_| true)).collect();
    (panel, prepared)
}

/// DeLong, DeLong & Clarke-Pearson (1988), equations 4 to 6, by pairs: variance of the difference of two AUROCs.
fn delong_by_pairs(positives: &[[f64; 2]], negatives: &[[f64; 2]]) -> f64 {
    let psi = |x: f64, y: f64| if x > y { 1.0 } else { f64::from(u8::from(x == y)) / 2.0 };
    let (m, n) = (positives.len() as f64, negatives.len() as f64);
    let v10: Vec<f64> = positives.iter().map(|x| negatives.iter().map(|y| psi(x[0], y[0]) - psi(x[1], y[1])).sum::<f64>() / n).collect();
    let v01: Vec<f64> = negatives.iter().map(|y| positives.iter().map(|x| psi(x[0], y[0]) - psi(x[1], y[1])).sum::<f64>() / m).collect();
    let sample_variance = |v: &[f64]| {
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (v.len() as f64 - 1.0)
    };
    sample_variance(&v10) / m + sample_variance(&v01) / n
}

#[test]
fn with_one_example_a_patient_the_variance_is_delongs() {
    let tasks = [binary()];
    for seed in 0..20 {
        let mut predictions = Simulation::new(40, &[(Variant::Joint, 1.5), (Variant::Image, 0.7)]).draw(seed);
        // Rounded, so that there are ties.
        for prediction in &mut predictions {
            prediction.probability = (prediction.probability * 12.0).round() / 12.0;
        }
        let (panel, both) = prepared(&tasks, &[&predictions], &[Variant::Joint, Variant::Image]);
        let pairs = |label: usize| -> Vec<[f64; 2]> {
            let of = |i: usize| [Variant::Joint, Variant::Image].map(|v| panel.variants[&v].probability[i]);
            (0..panel.examples.len()).filter(|&i| panel.examples[i].label == label).map(of).collect()
        };
        let expected = delong_by_pairs(&pairs(1), &pairs(0));
        let got = delong::variance(&panel, &both[0], Some(&both[1])).unwrap();
        assert!((got / expected - 1.0).abs() < 1e-10, "{got} instead of {expected}");
    }
}

#[test]
fn examples_seen_twice_are_no_new_evidence() {
    // A copy of every example in the same patient changes neither AUROC nor its variance; as a patient of its own it
    // would make the variance about half.
    let tasks = [binary()];
    let once = Simulation::new(50, &[(Variant::Joint, 1.0)]).draw(3);
    let copies = |patient: fn(&str) -> String| -> Vec<Prediction> {
        let copy = |p: &Prediction| Prediction {
            example: synovia_cohort::ExampleId::from_digest(&format!("{}+", p.example)),
            patient: patient(&p.patient).into(),
            ..p.clone()
        };
        once.iter().cloned().chain(once.iter().map(copy)).collect()
    };
    let variance = |predictions: &[Prediction]| {
        let (panel, of) = prepared(&tasks, &[predictions], &[Variant::Joint]);
        delong::variance(&panel, &of[0], None).unwrap()
    };
    let (single, same, other) = (variance(&once), variance(&copies(str::to_owned)), variance(&copies(|p| format!("{p}+"))));
    assert!((same / single - 1.0).abs() < 1e-10, "{same} {single}");
    assert!((0.45..0.55).contains(&(other / single)), "{other} {single}");
}

#[test]
fn delongs_variance_is_that_of_repeated_draws() {
    let tasks = [binary()];
    let simulation = Simulation { examples_a_patient: 3, ..Simulation::new(90, &[(Variant::Joint, 1.2), (Variant::Image, 0.8)]) };
    let (mut differences, mut variances) = (Vec::new(), Vec::new());
    for seed in 0..400 {
        let predictions = simulation.draw(seed);
        let (panel, both) = prepared(&tasks, &[&predictions], &[Variant::Joint, Variant::Image]);
        differences.push(both[0].auroc(&both[0].once()).unwrap() - both[1].auroc(&both[1].once()).unwrap());
        variances.push(delong::variance(&panel, &both[0], Some(&both[1])).unwrap());
    }
    let mean = differences.iter().sum::<f64>() / 400.0;
    let observed = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 399.0;
    let ratio = variances.iter().sum::<f64>() / 400.0 / observed;
    // The standard deviation of a variance from 400 draws is 7 %.
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
}

#[test]
fn a_perfect_ranking_is_noted() {
    let metrics = evaluate(&Simulation::new(60, &[(Variant::Joint, 90.0)]).draw(1), &[binary()], &EvaluationOptions::default()).unwrap();
    let auroc = &metrics.tasks["malignant"].variants[&Variant::Joint].auroc;
    assert_eq!(auroc.value, Some(1.0));
    assert!(auroc.note.is_some());
}

#[test]
fn ece_of_a_calibrated_model_is_not_excluded_by_its_interval() {
    for seed in 0..10 {
        let metrics =
            evaluate(&Simulation::new(200, &[(Variant::Joint, 1.0)]).draw(seed), &[binary()], &EvaluationOptions::default()).unwrap();
        let ece = metrics.tasks["malignant"].variants[&Variant::Joint].get(Measure::Ece).unwrap();
        let (value, low, high) = (ece.value.unwrap(), ece.low.unwrap(), ece.high.unwrap());
        assert!(0.0 <= low && low <= value && value <= high && high <= 1.0, "{ece:?}");
    }
}

#[test]
fn folds_of_another_scale_do_not_spoil_auroc() {
    let prefixes = ["a", "b", "c", "d", "e"];
    let simulate = |prefix| Simulation { prefix, ..Simulation::new(60, &[(Variant::Joint, 1.0), (Variant::Image, 0.5)]) };
    let mut folds: Vec<Vec<Prediction>> = prefixes.iter().zip(0..).map(|(prefix, seed)| simulate(prefix).draw(seed)).collect();
    let options = EvaluationOptions { n_bootstrap: 200, ..EvaluationOptions::default() };
    let before = pool_folds(&folds, &[binary()], &options).unwrap();
    let value = |metrics: &crate::Metrics| metrics.tasks["malignant"].variants[&Variant::Joint].auroc.value.unwrap();
    let mean = before.folds.iter().map(value).sum::<f64>() / 5.0;
    assert!((value(&before.pooled) - mean).abs() < 1e-12, "pooled AUROC is the mean over folds");
    // The average of five independent estimates: a fifth of the mean variance, so an interval narrower than any fold's.
    let width = |m: &crate::Metrics| {
        let e = &m.tasks["malignant"].variants[&Variant::Joint].auroc;
        e.high.unwrap() - e.low.unwrap()
    };
    assert!(before.folds.iter().all(|fold| width(&before.pooled) < 0.7 * width(fold)));
    // A fold whose model shouts: ranked together with the others, AUROC would change.
    for prediction in &mut folds[0] {
        prediction.probability = 0.9 + 0.1 * prediction.probability;
    }
    let after = pool_folds(&folds, &[binary()], &options).unwrap();
    assert!((value(&after.pooled) - value(&before.pooled)).abs() < 1e-12);
    let together: Vec<&Prediction> = folds.iter().flatten().filter(|p| p.variant == Variant::Joint).collect();
    let (scores, labels): (Vec<f32>, Vec<bool>) = together.iter().map(|p| (p.probability, p.label == Some(1.0))).unzip();
    assert!(crate::auroc(&scores, &labels).unwrap() < value(&after.pooled) - 0.02);
    let task = &after.pooled.tasks["malignant"];
    assert_eq!((task.n, task.n_patients, task.n_folds), (300, 300, 5));
    assert_eq!(task.gain.as_ref().unwrap().n, 300);
}
