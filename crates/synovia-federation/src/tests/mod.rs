//! Federations of small cohorts.

mod aggregation;
mod learning;
mod partitions;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synovia_cohort::{
    CohortReader, CohortWriter, ExampleId, ExampleRow, FORMAT, FeatureKind, FeatureSpec, Geometry, Manifest, PatientId, Split, Task,
    TaskKind, Time,
};
use synovia_encoders::{ImageEncoderKind, NormKind};
use synovia_fusion::{Absent, FusionKind, Head, ImageTower, JointModelConfig, RecordTower};
use synovia_training::{Augmentation, Balance, Branches, Imbalance, Sampling, TrainingSettings};

use crate::{Kept, Method, Terms};

const SIDE: usize = 16;

/// burn's generator is the process's: two trainings at once would draw from each other's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a site has.
#[derive(Clone, Copy)]
struct Has {
    n: usize,
    image: bool,
    record: bool,
    label: bool,
    seed: u64,
}

impl Has {
    const ALL: Self = Self { n: 120, image: true, record: true, label: true, seed: 1 };
}

/// A cohort whose first task is whether a bright picture goes with a high value, and whose second is whether the value is high.
fn cohort(dir: &Path, has: Has) -> CohortReader {
    let geometry = Geometry { channels: 1, height: SIDE, width: SIDE };
    let spec = |name: &str| FeatureSpec { name: name.into(), kind: FeatureKind::Number, code: String::new(), unit: String::new() };
    let task = |name: &str| Task { name: name.to_owned(), kind: TaskKind::Binary, classes: vec![name.to_owned()] };
    let n = has.n;
    let manifest = Manifest {
        format: FORMAT,
        geometry: Some(geometry),
        features: vec![spec("value"), spec("noise")],
        tasks: vec![task("match"), task("high")],
        endpoints: Vec::new(),
        n_images: n,
        n_records: n,
        n_examples: n,
    };
    std::fs::create_dir_all(dir).unwrap();
    let writer = CohortWriter::create(dir, manifest).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(has.seed);
    let rows: Vec<ExampleRow> = (0..n)
        .map(|k| {
            let (bright, label): (bool, bool) = (rng.random(), rng.random());
            let high = bright == label;
            let image: Vec<f32> =
                (0..SIDE * SIDE).map(|_| 0.35 + 0.3 * f32::from(u8::from(bright)) + 0.2 * (rng.random::<f32>() - 0.5)).collect();
            writer.write_image(k, &image).unwrap();
            writer.write_record(k, &[if high { 1.0 } else { -1.0 } + 0.4 * (rng.random::<f32>() - 0.5), rng.random()]).unwrap();
            let patient = PatientId::new(&format!("{} {k}", has.seed));
            let time = Time::from_seconds(0);
            let known = |label: bool| Some(f32::from(u8::from(label)));
            ExampleRow {
                id: ExampleId::of_patient(&patient, time),
                patient: patient.pseudonym(),
                split: [Split::Train, Split::Train, Split::Train, Split::Validation, Split::Test][k % 5],
                prediction_time: time,
                image_row: has.image.then_some(k as u32),
                record_row: has.record.then_some(k as u32),
                endpoints: Vec::new(),
                labels: vec![known(label).filter(|_| has.label), known(high)],
            }
        })
        .collect();
    writer.finish(&rows).unwrap();
    CohortReader::open(dir).unwrap()
}

fn model() -> JointModelConfig {
    let head = |task: &str| Head { task: task.into(), n_logits: 1 };
    JointModelConfig {
        image: Some(ImageTower { kind: ImageEncoderKind::ResNet18, channels: 1, slices: 1, width: 4 }),
        record: Some(RecordTower::Table { n_features: 2, width: 16, dropout: 0.1 }),
        fusion: FusionKind::Gated,
        absent: Absent::Mask,
        embedding: 16,
        dropout: 0.1,
        norm: NormKind::Batch,
        heads: vec![head("match"), head("high")],
        endpoints: Vec::new(),
    }
}

fn training(ema: f64) -> TrainingSettings {
    TrainingSettings {
        tower_rate: 1.0,
        epochs: 1,
        batch: 16,
        learning_rate: 5e-3,
        weight_decay: 0.01,
        warmup_epochs: 1.0,
        clip: 1.0,
        ema,
        balance: Balance::Fixed,
        branches: Branches::default(),
        accumulate: 1,
        swa: 0.0,
        imbalance: Imbalance::None,
        kernels: true,
        privacy: None,
        patience: 1,
        sampling: Sampling::Plain,
        modality_dropout: 0.1,
        augmentation: Augmentation { noise: 0.01, shift: 0.05, ..Augmentation::NONE },
        seed: 3,
    }
}

fn terms(rounds: usize, method: Method) -> Terms {
    Terms { rounds, local_epochs: 1, method, kept: Kept::default(), least_examples: 2, least_sites: 1 }
}
