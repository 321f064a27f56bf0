//! Seconds to evaluate predictions of one binary task with bootstrap intervals: one JSON line, the keys of
//! `peers/evaluation_speed.py`.
//!
//!     cargo run --release -p synovia-evaluation --example evaluation_speed -- [PREDICTIONS] [RESAMPLES]

use std::sync::Arc;
use std::time::Instant;

use synovia_cohort::{ExampleId, Split, Task, TaskKind};
use synovia_evaluation::{EvaluationOptions, Prediction, Variant, evaluate};

/// The uniform numbers of the peer.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |k: usize, default: usize| std::env::args().nth(k).map_or(Ok(default), |text| text.parse());
    let (n, n_bootstrap) = (argument(1, 100_000)?, argument(2, 2000)?);
    let task = Task { name: "event".into(), kind: TaskKind::Binary, classes: vec!["yes".into()] };
    let mut uniform = Uniform(12345);
    let mut predictions = Vec::with_capacity(n);
    for k in 0..n {
        let label = uniform.next() < 0.3;
        let p = (0.15 + if label { 0.35 } else { 0.0 } + 0.5 * (uniform.next() - 0.3)).clamp(0.001, 0.999) as f32;
        let (id, patient): (_, Arc<str>) = (ExampleId::from_digest(&format!("e{k:07}")), format!("p{k:07}").into());
        predictions.extend(Prediction::rows(&id, &patient, Split::Test, &task, Some(f32::from(u8::from(label))), &[p], Variant::Joint));
    }
    let start = Instant::now();
    let metrics = evaluate(&predictions, &[task], &EvaluationOptions { n_bootstrap, ..EvaluationOptions::default() })?;
    let seconds = start.elapsed().as_secs_f64();
    let joint = &metrics.tasks["event"].variants[&Variant::Joint];
    let interval = |e: &synovia_evaluation::Estimate| (e.value, e.low, e.high);
    println!(
        "{}",
        serde_json::json!({
            "what": "evaluation", "predictions": n, "resamples": n_bootstrap, "seconds": seconds,
            "seconds_per_resample": seconds / n_bootstrap.max(1) as f64,
            "auroc": interval(&joint.auroc), "auprc": interval(&joint.auprc), "brier": interval(&joint.brier),
            "log_loss": interval(&joint.log_loss), "ece": interval(&joint.ece),
        })
    );
    Ok(())
}
