//! Predictions whose true quality is known.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synovia_cohort::{ExampleId, Split, Task, TaskKind};

use crate::{Prediction, Variant};

pub(super) fn binary() -> Task {
    Task { name: "malignant".into(), kind: TaskKind::Binary, classes: vec!["malignant".into()] }
}

pub(super) fn stage() -> Task {
    Task { name: "stage".into(), kind: TaskKind::Multiclass, classes: ["I", "II", "III"].map(String::from).to_vec() }
}

/// A standard normal deviate (Box & Muller).
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

pub(super) fn logistic(z: f64) -> f32 {
    (1.0 / (1.0 + (-z).exp())) as f32
}

/// How predictions of a binary task are drawn.
pub(super) struct Simulation {
    pub n_patients: usize,
    pub examples_a_patient: usize,
    pub split: Split,
    /// Distance between the means of positives and negatives, a variant each.
    pub separations: Vec<(Variant, f64)>,
    /// Correlation of two variants' noise, and of the noise of one patient's examples.
    pub correlation: f64,
    pub cluster_correlation: f64,
    /// In names, so that two simulations can be put together.
    pub prefix: &'static str,
}

impl Simulation {
    pub(super) fn new(n_patients: usize, separations: &[(Variant, f64)]) -> Self {
        Self {
            n_patients,
            examples_a_patient: 1,
            split: Split::Test,
            separations: separations.to_vec(),
            correlation: 0.5,
            cluster_correlation: 0.8,
            prefix: "p",
        }
    }

    /// Every third patient is positive; scores are normal with unit variance.
    pub(super) fn draw(&self, seed: u64) -> Vec<Prediction> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let task = binary();
        let mut out = Vec::new();
        let (a, b) = (self.cluster_correlation.sqrt(), (1.0 - self.cluster_correlation).sqrt());
        let (c, d) = (self.correlation.sqrt(), (1.0 - self.correlation).sqrt());
        for k in 0..self.n_patients {
            let patient: Arc<str> = format!("{}{k}", self.prefix).into();
            let label = f32::from(u8::from(k % 3 == 0));
            let of_patient: Vec<f64> = (0..=self.separations.len()).map(|_| normal(&mut rng)).collect();
            for j in 0..self.examples_a_patient {
                let id = ExampleId::from_digest(&format!("{}{k}/{j}", self.prefix));
                let mut noise = |v: usize| a * of_patient[v] + b * normal(&mut rng);
                let shared = noise(0);
                for (v, &(variant, separation)) in self.separations.iter().enumerate() {
                    let score = f64::from(label) * separation + c * shared + d * noise(v + 1);
                    out.extend(Prediction::rows(&id, &patient, self.split, &task, Some(label), &[logistic(score - 1.0)], variant));
                }
            }
        }
        out
    }
}

/// One variant's predictions of a binary task, one example a patient.
pub(super) fn listed(labels: &[f32], probabilities: &[f32], variant: Variant) -> Vec<Prediction> {
    let task = binary();
    let row = |(k, (&label, &p)): (usize, (&f32, &f32))| {
        let (id, patient) = (ExampleId::from_digest(&format!("e{k:03}")), format!("p{k:03}").into());
        Prediction::rows(&id, &patient, Split::Test, &task, Some(label), &[p], variant).collect::<Vec<_>>()
    };
    labels.iter().zip(probabilities).enumerate().flat_map(row).collect()
}
