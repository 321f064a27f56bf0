//! How often intervals hold the truth, and sets the true class, over many simulated test sets whose truth is known.
//!
//!     cargo run --release -p synovia-evaluation --example coverage_study -- [TEST_SETS]

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use synovia_cohort::{ExampleId, Split, Task, TaskKind};
use synovia_evaluation::{EvaluationOptions, Metrics, Prediction, Variant, evaluate};

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

fn logistic(z: f64) -> f32 {
    (1.0 / (1.0 + (-z).exp())) as f32
}

fn task() -> Task {
    Task { name: "event".into(), kind: TaskKind::Binary, classes: vec!["yes".into()] }
}

/// Φ(d / √2): the AUROC of two normals whose means are d apart.
const TRUE_AUROC: [(f64, f64); 3] = [(0.5, 0.6381631950841185), (1.0, 0.7602499389065233), (2.0, 0.9213503964748575)];

/// `n` patients with one example each, 30 % positive, scores of a known AUROC.
fn test_set(n: usize, separation: f64, seed: u64) -> Vec<Prediction> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let task = task();
    let mut out = Vec::new();
    for k in 0..n {
        let label = rng.random::<f64>() < 0.3;
        let score = normal(&mut rng) + if label { separation } else { 0.0 };
        let (id, patient): (_, Arc<str>) = (ExampleId::from_digest(&k.to_string()), k.to_string().into());
        let label = Some(f32::from(u8::from(label)));
        out.extend(Prediction::rows(&id, &patient, Split::Test, &task, label, &[logistic(score)], Variant::Joint));
    }
    out
}

/// Patients of whom a fifth lack the image and a fifth the record, by a model that is right for what it is shown.
fn patients(n: usize, split: Split, rng: &mut ChaCha8Rng, out: &mut Vec<Prediction>) {
    let task = task();
    for k in 0..n {
        let (a, b) = (1.2 * normal(rng), 0.8 * normal(rng));
        let label = Some(f32::from(u8::from(rng.random::<f32>() < logistic(a + b))));
        let id = ExampleId::from_digest(&format!("{}{k}", split.as_str()));
        let patient: Arc<str> = id.as_str().into();
        let (image, record) = match rng.random_range(0..5u32) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let mut add = |variant, score: f64| out.extend(Prediction::rows(&id, &patient, split, &task, label, &[logistic(score)], variant));
        add(Variant::Joint, if image { a } else { 0.0 } + if record { b } else { 0.0 });
        if image {
            add(Variant::JointImage, a);
        }
        if record {
            add(Variant::JointRecord, b);
        }
    }
}

fn measured(predictions: &[Prediction], n_bootstrap: usize) -> Result<Metrics, synovia_evaluation::EvaluationError> {
    evaluate(predictions, &[task()], &EvaluationOptions { n_bootstrap, ..EvaluationOptions::default() })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n_sets: u64 = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    println!("| AUROC | n | test sets | BCa bootstrap covers | DeLong, log odds, covers |\n|--:|--:|--:|--:|--:|");
    for (separation, truth) in TRUE_AUROC {
        let held: Vec<(bool, bool)> = (0..n_sets)
            .into_par_iter()
            .map(|seed| {
                let metrics = measured(&test_set(300, separation, seed), 1000)?;
                let joint = &metrics.tasks["event"].variants[&Variant::Joint];
                let holds = |low: Option<f64>, high: Option<f64>| low.zip(high).is_some_and(|(a, b)| a <= truth && truth <= b);
                Ok((holds(joint.auroc.low, joint.auroc.high), holds(joint.auroc_delong.map(|i| i.0), joint.auroc_delong.map(|i| i.1))))
            })
            .collect::<Result<_, synovia_evaluation::EvaluationError>>()?;
        let share = |pick: fn(&(bool, bool)) -> bool| 100.0 * held.iter().filter(|h| pick(h)).count() as f64 / n_sets as f64;
        println!("| {truth:.3} | 300 | {n_sets} | {:.1} % | {:.1} % |", share(|h| h.0), share(|h| h.1));
    }
    println!("\n| modalities | shown | quantiles | draws | sets | hold the truth |\n|---|---|---|--:|--:|--:|");
    let n_draws = n_sets.div_ceil(10);
    let mut totals: BTreeMap<(String, bool, bool), (f64, usize)> = BTreeMap::new();
    for seed in 0..n_draws {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut predictions = Vec::new();
        patients(300, Split::Validation, &mut rng, &mut predictions);
        patients(1000, Split::Test, &mut rng, &mut predictions);
        let metrics = measured(&predictions, 0)?;
        for row in metrics.tasks["event"].conformal.iter().flat_map(|c| &c.test) {
            let to = totals.entry((row.pattern.as_str().to_owned(), row.natural, row.class_conditional)).or_default();
            *to = (to.0 + row.covered.unwrap_or(0.0) * row.n as f64, to.1 + row.n);
        }
    }
    for ((pattern, natural, class_conditional), (held, n)) in totals {
        println!(
            "| {pattern} | {} | {} | {n_draws} | {n} | {:.1} % |",
            if natural { "as patients came" } else { "the rest hidden" },
            if class_conditional { "one a class" } else { "one" },
            100.0 * held / n as f64
        );
    }
    Ok(())
}
