//! Training as a whole: it learns what can be learnt, and a run that was stopped goes on to the same bits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synovia_cohort::{
    CohortReader, CohortWriter, ExampleId, ExampleRow, FORMAT, FeatureKind, FeatureSpec, Geometry, Manifest, PatientId, Split, Task,
    TaskKind, Time, Train, Validation,
};
use synovia_encoders::{ImageEncoderKind, NormKind};
use synovia_fusion::{Absent, FusionKind, Head, ImageTower, JointModelConfig, NamedTensor, RecordTower, apply_state, jensen_shannon};

use crate::batch::HostBatch;
use crate::{
    Augmentation, Balance, Branches, EpochReport, Fit, Imbalance, Presence, Progress, Sampling, Together, Trained, TrainingError,
    TrainingSettings, Unlabelled, Weights, fit, fit_statistics, initial_weights, learn_images, predict, predict_each,
};

const SIDE: usize = 16;

/// burn's generator is the device's, and so the process's: two trainings at once would draw from each other's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Holds all other users of the generator off.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cohort in which image and record each say nothing, and both together all: the label is whether a bright picture goes
/// with a high value. One example in ten lacks its image, another one its record, another one its label.
pub(crate) fn cohort(dir: &Path, n: usize, share_positive: f64) -> CohortReader {
    cohort_of(dir, n, share_positive, &["match"], 1, 1)
}

/// As [`cohort`], with more tasks: whether the record's value is high, which one example in `every` says.
fn cohort_of_tasks(dir: &Path, n: usize, share_positive: f64, tasks: &[&str], every: usize) -> CohortReader {
    cohort_of(dir, n, share_positive, tasks, every, 1)
}

/// The same of volumes: of a bright one a single slice is bright, and any may be.
fn cohort_of(dir: &Path, n: usize, share_positive: f64, tasks: &[&str], every: usize, slices: usize) -> CohortReader {
    let geometry = Geometry { channels: slices, height: SIDE, width: SIDE };
    let spec = |name: &str| FeatureSpec { name: name.into(), kind: FeatureKind::Number, code: String::new(), unit: String::new() };
    let task = |name: &&str| Task { name: (*name).to_owned(), kind: TaskKind::Binary, classes: vec![(*name).to_owned()] };
    let manifest = Manifest {
        format: FORMAT,
        geometry: Some(geometry),
        features: vec![spec("value"), spec("noise")],
        tasks: tasks.iter().map(task).collect(),
        endpoints: Vec::new(),
        n_images: n,
        n_records: n,
        n_examples: n,
    };
    std::fs::create_dir(dir).unwrap();
    let writer = CohortWriter::create(dir, manifest).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut rows = Vec::new();
    for k in 0..n {
        let bright: bool = rng.random();
        let label = rng.random_bool(share_positive);
        let high = bright == label;
        let slice = if slices > 1 { rng.random_range(0..slices) } else { 0 };
        let is_bright = |at: usize| f32::from(u8::from(bright && at / (SIDE * SIDE) == slice));
        let image: Vec<f32> = (0..slices * SIDE * SIDE).map(|at| 0.35 + 0.3 * is_bright(at) + 0.2 * (rng.random::<f32>() - 0.5)).collect();
        let value = if high { 1.0 } else { -1.0 } + 0.4 * (rng.random::<f32>() - 0.5);
        writer.write_image(k, &image).unwrap();
        writer.write_record(k, &[value, rng.random()]).unwrap();
        let patient = PatientId::new(&format!("p{k}"));
        let time = Time::from_seconds(0);
        rows.push(ExampleRow {
            id: ExampleId::of_patient(&patient, time),
            patient: patient.pseudonym(),
            split: [Split::Train, Split::Train, Split::Train, Split::Validation, Split::Test][k % 5],
            prediction_time: time,
            image_row: (k % 10 != 1).then_some(k as u32),
            record_row: (k % 10 != 2).then_some(k as u32),
            endpoints: Vec::new(),
            labels: (0..tasks.len())
                .map(|task| if task == 0 { (k % 10 != 5, label) } else { (k % every == 0, high) })
                .map(|(known, label)| known.then_some(f32::from(u8::from(label))))
                .collect(),
        });
    }
    writer.finish(&rows).unwrap();
    CohortReader::open(dir).unwrap()
}

/// Facts of [`facts`].
pub(crate) const N_FACTS: usize = 12;

/// A cohort of records alone, an example a patient, whose labels have nothing to do with them. Half of it is the train split, the
/// rest but for ten examples the test split.
pub(crate) fn facts(dir: &Path, n: usize) -> CohortReader {
    let spec = |k: usize| FeatureSpec { name: format!("fact {k}"), kind: FeatureKind::Number, code: String::new(), unit: String::new() };
    let manifest = Manifest {
        format: FORMAT,
        geometry: None,
        features: (0..N_FACTS).map(spec).collect(),
        tasks: vec![Task { name: "match".into(), kind: TaskKind::Binary, classes: vec!["match".into()] }],
        endpoints: Vec::new(),
        n_images: 0,
        n_records: n,
        n_examples: n,
    };
    std::fs::create_dir(dir).unwrap();
    let writer = CohortWriter::create(dir, manifest).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut rows = Vec::new();
    for k in 0..n {
        writer.write_record(k, &std::array::from_fn::<f32, N_FACTS, _>(|_| rng.random::<f32>() - 0.5)).unwrap();
        let patient = PatientId::new(&format!("p{k}"));
        rows.push(ExampleRow {
            id: ExampleId::of_patient(&patient, Time::from_seconds(0)),
            patient: patient.pseudonym(),
            split: if k < 10 { Split::Validation } else { [Split::Train, Split::Test][k % 2] },
            prediction_time: Time::from_seconds(0),
            image_row: None,
            record_row: Some(k as u32),
            labels: vec![Some(f32::from(u8::from(rng.random::<bool>())))],
            endpoints: Vec::new(),
        });
    }
    writer.finish(&rows).unwrap();
    CohortReader::open(dir).unwrap()
}

pub(crate) fn model(image: bool, record: bool) -> JointModelConfig {
    JointModelConfig {
        image: image.then_some(ImageTower { kind: ImageEncoderKind::ResNet18, channels: 1, slices: 1, width: 4 }),
        record: record.then_some(RecordTower::Table { n_features: 2, width: 16, dropout: 0.1 }),
        fusion: FusionKind::Gated,
        absent: Absent::Mask,
        embedding: 16,
        dropout: 0.1,
        norm: NormKind::Batch,
        heads: vec![Head { task: "match".into(), n_logits: 1 }],
        endpoints: Vec::new(),
    }
}

pub(crate) fn settings(epochs: usize, sampling: Sampling) -> TrainingSettings {
    TrainingSettings {
        epochs,
        tower_rate: 1.0,
        batch: 16,
        learning_rate: 5e-3,
        weight_decay: 0.01,
        warmup_epochs: 1.0,
        clip: 1.0,
        ema: 0.99,
        balance: Balance::Fixed,
        branches: Branches::default(),
        accumulate: 1,
        swa: 0.0,
        imbalance: Imbalance::None,
        kernels: true,
        privacy: None,
        patience: epochs,
        sampling,
        modality_dropout: 0.1,
        augmentation: Augmentation { noise: 0.01, shift: 0.05, ..Augmentation::NONE },
        seed: 3,
    }
}

fn train(
    reader: &CohortReader,
    model: &JointModelConfig,
    settings: &TrainingSettings,
    checkpoints: &Path,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Trained, TrainingError> {
    let _alone = alone();
    let (train, validation) = (reader.view::<Train>(), reader.view::<Validation>());
    let statistics = fit_statistics(&train).unwrap();
    fit(
        &Fit { model, statistics: &statistics, settings, checkpoints, data_key: "k", noise: None, start: None, together: &Together::new() },
        &train,
        &validation,
        progress,
    )
}

/// Logits and labels of the test examples that have all.
fn tested(reader: &CohortReader, model: &JointModelConfig, trained: &Trained) -> Vec<(f32, bool)> {
    // A model is made before its weights are put in, and making one draws.
    let _alone = alone();
    let complete = |row: &&ExampleRow| row.split == Split::Test && row.image_row.is_some() && row.record_row.is_some();
    let rows: Vec<&ExampleRow> = reader.rows().iter().filter(complete).filter(|row| row.labels[0].is_some()).collect();
    let predicted = predict(model, &trained.weights, reader, &rows, Presence::of(model)).unwrap();
    predicted.iter().map(|p| (p.logits[0][0], rows[p.row].labels[0] == Some(1.0))).collect()
}

fn auroc(scores: &[(f32, bool)]) -> f64 {
    let pairs = scores.iter().filter(|s| s.1).flat_map(|p| scores.iter().filter(|s| !s.1).map(move |n| (p.0, n.0)));
    let (won, all) = pairs.fold((0.0, 0.0), |(won, all), (p, n)| (won + if p > n { 1.0 } else { f64::from(p == n) / 2.0 }, all + 1.0));
    won / all
}

#[test]
fn the_joint_model_learns_what_neither_modality_shows() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), 600, 0.5);
    let measure = |image, record| {
        let model = model(image, record);
        let checkpoints = dir.path().join(format!("{image}{record}"));
        let trained = train(&reader, &model, &settings(12, Sampling::Plain), &checkpoints, &mut |_| ()).unwrap();
        auroc(&tested(&reader, &model, &trained))
    };
    let (joint, image, record) = (measure(true, true), measure(true, false), measure(false, true));
    assert!(joint > 0.95, "joint {joint}");
    assert!(image < 0.75 && record < 0.75, "image {image}, record {record}");
}

#[test]
fn of_a_volume_the_slice_that_matters_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let slices = 3;
    let reader = cohort_of(&dir.path().join("cohort"), 600, 0.5, &["match"], 1, slices);
    let tower = ImageTower { kind: ImageEncoderKind::ResNet18, channels: 1, slices, width: 4 };
    let model = JointModelConfig { image: Some(tower), ..model(true, true) };
    let trained = train(&reader, &model, &settings(16, Sampling::Plain), &dir.path().join("once"), &mut |_| ()).unwrap();
    let joint = auroc(&tested(&reader, &model, &trained));
    assert!(joint > 0.9, "{joint}");
    // What learns without labels fits the same tower, slice by slice.
    let unlabelled = Unlabelled { epochs: 1, batch: 32, learning_rate: 1e-3, augmentation: Augmentation::NONE, seed: 1 };
    let _alone = alone();
    let learnt = learn_images(tower, model.norm, &unlabelled, &reader.view::<Train>(), &mut |_, _, _| ()).unwrap();
    assert!(learnt.iter().all(|(name, tensor)| trained.weights[name].shape == tensor.shape) && learnt.len() > 20);
}

#[test]
fn a_training_begins_with_the_weights_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), 120, 0.5);
    let single = train(&reader, &model(true, false), &settings(2, Sampling::Plain), &dir.path().join("alone"), &mut |_| ()).unwrap();
    let towers: Weights = single.weights.into_iter().filter(|(name, _)| name.starts_with("image")).collect();
    assert!(towers.len() > 20, "{:?}", towers.keys());
    let _alone = alone();
    let (train, validation) = (reader.view::<Train>(), reader.view::<Validation>());
    let (statistics, model) = (fit_statistics(&train).unwrap(), model(true, true));
    // So slow that the weights stay where they begin; without noise that wanders.
    let settings = TrainingSettings { learning_rate: 1e-12, epochs: 1, ema: 0.0, ..settings(1, Sampling::Plain) };
    let fitted = |start: Option<&Weights>| {
        // One folder for all: what begins elsewhere is another training.
        let job = Fit {
            model: &model,
            statistics: &statistics,
            settings: &settings,
            checkpoints: dir.path(),
            data_key: "k",
            noise: None,
            start,
            together: &Together::new(),
        };
        fit(&job, &train, &validation, &mut |_| ()).map(|trained| trained.weights)
    };
    let (drawn, begun) = (fitted(None).unwrap(), fitted(Some(&towers)).unwrap());
    let far = |a: &NamedTensor, b: &NamedTensor| a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    for (name, tensor) in &begun {
        let is_running = name.contains("running");
        let from = towers.get(name).unwrap_or(&drawn[name]);
        assert!(is_running || far(tensor, from) < 1e-6, "{name} is {} from where it should begin", far(tensor, from));
    }
    // At a rate of nothing they stay to the bit, while all else learns.
    let frozen = TrainingSettings { tower_rate: 0.0, learning_rate: 1e-2, ..settings.clone() };
    let job = Fit {
        model: &model,
        statistics: &statistics,
        settings: &frozen,
        checkpoints: dir.path(),
        data_key: "k",
        noise: None,
        start: Some(&towers),
        together: &Together::new(),
    };
    let frozen = fit(&job, &train, &validation, &mut |_| ()).unwrap().weights;
    for (name, tensor) in frozen.iter().filter(|(name, _)| !name.contains("running")) {
        let moved = far(tensor, &begun[name]);
        assert!(if towers.contains_key(name) { moved < 1e-6 } else { moved > 1e-4 || name.contains("standardize") }, "{name}: {moved}");
    }
    assert!(far(&begun["image_projection.weight"], &drawn["image_projection.weight"]) > 1e-3);
    let unknown = Weights::from([("nowhere".to_owned(), begun["heads.0.bias"].clone())]);
    assert!(fitted(Some(&unknown)).unwrap_err().to_string().contains("nowhere"));
    let wide = Weights::from([("heads.0.bias".to_owned(), begun["heads.0.weight"].clone())]);
    assert!(fitted(Some(&wide)).unwrap_err().to_string().contains("heads.0.bias"));
}

#[test]
fn a_stopped_run_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), 120, 0.5);
    let (model, settings) = (model(true, true), settings(4, Sampling::Plain));
    let undisturbed = train(&reader, &model, &settings, &dir.path().join("a"), &mut |_| ()).unwrap();
    let checkpoints = dir.path().join("b");
    for stop in [1, 3] {
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            train(&reader, &model, &settings, &checkpoints, &mut |told| {
                assert!(!matches!(told, Progress::Epoch(history) if history.len() == stop), "stopped on purpose");
            })
        }));
        assert!(stopped.is_err());
    }
    let mut begun = None;
    let resumed = train(&reader, &model, &settings, &checkpoints, &mut |told| {
        if let Progress::Start { done, .. } = told {
            begun = Some(done);
        }
    })
    .unwrap();
    assert_eq!(begun, Some(3), "epochs that were done are not done again");
    assert_eq!(resumed.best_epoch, undisturbed.best_epoch);
    assert!(resumed.weights == undisturbed.weights, "bit for bit");
}

#[test]
fn probabilities_after_classes_were_evened_are_those_of_the_cohort() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), 600, 0.1);
    // The record alone says nothing here, so that its probability must be the share of positives.
    let model = model(false, true);
    let check = |sampling: Sampling, imbalance: Imbalance| {
        let settings = TrainingSettings { imbalance, ..settings(6, sampling) };
        let trained = train(&reader, &model, &settings, &dir.path().join(format!("{sampling:?}{imbalance:?}")), &mut |_| ()).unwrap();
        let scores = tested(&reader, &model, &trained);
        let mean = scores.iter().map(|(z, _)| 1.0 / (1.0 + (-f64::from(*z)).exp())).sum::<f64>() / scores.len() as f64;
        assert!((0.04..0.2).contains(&mean), "mean probability {mean} where one in ten is positive: {sampling:?}, {imbalance:?}");
    };
    check(Sampling::Balanced, Imbalance::None);
    check(Sampling::Plain, Imbalance::Weights);
    check(Sampling::Plain, Imbalance::Logits);
}

/// A model in which no example changes what becomes of another, and its training without anything that is drawn but the order.
fn plain_facts(epochs: usize) -> (JointModelConfig, TrainingSettings) {
    let record = Some(RecordTower::Table { n_features: N_FACTS, width: 16, dropout: 0.0 });
    let model = JointModelConfig { record, dropout: 0.0, norm: NormKind::Group, ..model(false, true) };
    (model, TrainingSettings { ema: 0.0, augmentation: Augmentation::NONE, ..settings(epochs, Sampling::Plain) })
}

#[test]
fn batches_gathered_are_one_large_batch() {
    let dir = tempfile::tempdir().unwrap();
    let reader = facts(&dir.path().join("cohort"), 138);
    let (model, settings) = plain_facts(3);
    let with = |batch, accumulate| {
        let settings = TrainingSettings { batch, accumulate, ..settings.clone() };
        train(&reader, &model, &settings, &dir.path().join(format!("{batch}")), &mut |_| ()).unwrap()
    };
    let (large, gathered, small) = (with(32, 1), with(8, 4), with(8, 1));
    let far = |other: &Trained| {
        let pairs = large.weights.iter().flat_map(|(name, a)| a.values.iter().zip(&other.weights[name].values));
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(far(&gathered) < 1e-4, "{}", far(&gathered));
    assert!(far(&small) > 1e-2, "as many steps as batches: {}", far(&small));
    assert_eq!(gathered.history[2].learning_rate, large.history[2].learning_rate);
}

#[test]
fn weights_are_averaged_at_a_rate_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    let reader = facts(&dir.path().join("cohort"), 138);
    let (model, settings) = plain_facts(8);
    let with = |swa: f64| {
        let settings = TrainingSettings { swa, ..settings.clone() };
        train(&reader, &model, &settings, &dir.path().join(format!("{swa}")), &mut |_| ()).unwrap().history
    };
    let (plain, averaged) = (with(0.0), with(0.5));
    let rates: Vec<f64> = averaged.iter().map(|epoch| epoch.learning_rate).collect();
    assert!(rates[2] > rates[4] && rates[4..].iter().all(|rate| *rate == rates[7]), "{rates:?}");
    let losses = |of: &[EpochReport]| of.iter().map(|epoch| (epoch.train_loss, epoch.validation_loss)).collect::<Vec<_>>();
    assert_eq!(losses(&plain[..4]), losses(&averaged[..4]));
    assert_ne!(losses(&plain[4..]), losses(&averaged[4..]));
}

#[test]
fn an_image_tower_learns_without_labels() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), 200, 0.5);
    let model = model(true, false);
    let augmentation = Augmentation { shift: 0.1, noise: 0.05, ..Augmentation::NONE };
    let settings = Unlabelled { epochs: 40, batch: 32, learning_rate: 0.01, augmentation, seed: 4 };
    let learn = || {
        let mut losses = Vec::new();
        let view = reader.view::<Train>();
        let weights = learn_images(model.image.unwrap(), model.norm, &settings, &view, &mut |_, _, loss| losses.push(loss)).unwrap();
        (weights, losses)
    };
    let _alone = alone();
    let (weights, losses) = learn();
    assert!(losses.len() == 40 && losses[39] < 0.9 * losses[0], "{losses:?}");
    // The pictures differ in little but how bright they are, so that most directions stay narrow.
    // It is a tower of the model's, whole, and the same each time.
    let statistics = fit_statistics(&reader.view()).unwrap();
    let whole = initial_weights(&model, &statistics, 1).unwrap();
    let names = |weights: &Weights| weights.keys().filter(|name| name.starts_with("image.")).cloned().collect::<Vec<_>>();
    assert_eq!(names(&weights), names(&whole));
    assert!(learn().0 == weights, "bit for bit");
}

#[test]
fn a_task_of_few_labels_is_measured_by_those() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort_of_tasks(&dir.path().join("cohort"), 400, 0.5, &["match", "high"], 20);
    let head = |task: &str| Head { task: task.into(), n_logits: 1 };
    let model = JointModelConfig { heads: vec![head("match"), head("high")], ..model(false, true) };
    // Weights as they are drawn: a guess, which costs ln 2 or a little more an example.
    let settings = TrainingSettings { learning_rate: 0.0, batch: 4, ..settings(1, Sampling::Plain) };
    let trained = train(&reader, &model, &settings, &dir.path().join("c"), &mut |_| ()).unwrap();
    for losses in &trained.history[0].tasks {
        assert!((0.5..1.2).contains(&losses.train), "{losses:?}");
    }
}

#[test]
fn a_gradient_beyond_all_numbers_ends_the_training() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), 120, 0.5);
    // A first step so large that the loss of the next one is finite and the squares of its gradient are not.
    let settings = TrainingSettings { learning_rate: 1e7, warmup_epochs: 0.0, weight_decay: 0.0, ..settings(2, Sampling::Plain) };
    let checkpoints = dir.path().join("c");
    let error = train(&reader, &model(false, true), &settings, &checkpoints, &mut |_| ()).err().unwrap();
    assert_eq!(error.to_string(), "the gradient's norm became inf in epoch 1, step 2; lower training.learning_rate or training.clip");
    assert_eq!(std::fs::read_dir(&checkpoints).unwrap().count(), 0, "nothing of it is kept");
}

/// The trained weights, one long row.
fn weights_by(reader: &CohortReader, model: &JointModelConfig, balance: Balance, checkpoints: &Path) -> Vec<f32> {
    let settings = TrainingSettings { balance, ..settings(2, Sampling::Plain) };
    let trained = train(reader, model, &settings, checkpoints, &mut |_| ()).unwrap();
    trained.weights.into_values().flat_map(|tensor| tensor.values).collect()
}

#[test]
fn surgery_on_one_task_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), 120, 0.5);
    let model = JointModelConfig { dropout: 0.0, ..model(true, true) };
    let fixed = weights_by(&reader, &model, Balance::Fixed, &dir.path().join("fixed"));
    for balance in [Balance::Labels, Balance::Dwa, Balance::PcGrad, Balance::UpGrad, Balance::Mgda] {
        let other = weights_by(&reader, &model, balance, &dir.path().join(format!("{balance:?}")));
        let far = fixed.iter().zip(&other).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let norm = fixed.iter().map(|a| a.powi(2)).sum::<f32>().sqrt();
        assert!(far < 1e-3 * norm, "{balance:?}: {far} of {norm}");
    }
}

#[test]
fn every_balance_of_two_tasks_learns_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort_of_tasks(&dir.path().join("cohort"), 300, 0.5, &["match", "high"], 4);
    let head = |task: &str| Head { task: task.into(), n_logits: 1 };
    let model = JointModelConfig { heads: vec![head("match"), head("high")], ..model(true, true) };
    let mut all: Vec<(Balance, Vec<f32>)> = Vec::new();
    let mut balances = vec![Balance::Fixed, Balance::Uncertainty, Balance::Dwa, Balance::GradNorm];
    balances.extend([Balance::Labels, Balance::PcGrad, Balance::CaGrad, Balance::UpGrad, Balance::Mgda]);
    for balance in balances {
        let settings = TrainingSettings { balance, ..settings(12, Sampling::Plain) };
        let undisturbed = train(&reader, &model, &settings, &dir.path().join(format!("{balance:?}")), &mut |_| ()).unwrap();
        let checkpoints = dir.path().join(format!("{balance:?} stopped"));
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            train(&reader, &model, &settings, &checkpoints, &mut |told| {
                assert!(!matches!(told, Progress::Epoch(history) if history.len() == 1), "stopped on purpose");
            })
        }));
        assert!(stopped.is_err());
        let resumed = train(&reader, &model, &settings, &checkpoints, &mut |_| ()).unwrap();
        assert!(resumed.weights == undisturbed.weights, "{balance:?} resumes to the same bits");
        let losses: Vec<f64> = undisturbed.history.iter().map(|line| line.tasks[1].train).collect();
        assert!(losses[11] < 0.8 * losses[0], "{balance:?}: {losses:?}");
        all.push((balance, undisturbed.weights.into_values().flat_map(|tensor| tensor.values).collect()));
    }
    // Of two tasks PCGrad and UPGrad make the same projections.
    all.retain(|(balance, _)| *balance != Balance::UpGrad);
    for (k, (balance, weights)) in all.iter().enumerate() {
        assert!(all[..k].iter().all(|(_, other)| other != weights), "{balance:?} is another one");
    }
}

/// How far what the model says of the record alone is from what it says of both, in nats a test example.
fn distance_of_the_record_alone(reader: &CohortReader, model: &JointModelConfig, trained: &Trained) -> f64 {
    let _alone = alone();
    let complete = |row: &&ExampleRow| row.split == Split::Test && row.image_row.is_some() && row.record_row.is_some();
    let rows: Vec<&ExampleRow> = reader.rows().iter().filter(complete).collect();
    let shown = [Presence { image: true, record: true }, Presence { image: false, record: true }];
    let [both, record] = predict_each(model, &trained.weights, reader, &rows, &shown, false).unwrap().try_into().unwrap();
    // Hidden after the towers or not read at all: the same.
    let alone = predict(model, &trained.weights, reader, &rows, shown[1]).unwrap();
    for (hidden, alone) in record.iter().zip(&alone) {
        assert!(hidden.row == alone.row && (hidden.logits[1][0] - alone.logits[1][0]).abs() < 1e-5, "{hidden:?} and {alone:?}");
    }
    let share = |logit: f32| 1.0 / (1.0 + (-f64::from(logit)).exp());
    let nats = |p: f64, q: f64| p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
    both.iter().zip(&record).map(|(both, record)| nats(share(both.logits[1][0]), share(record.logits[1][0]))).sum::<f64>()
        / rows.len() as f64
}

#[test]
fn a_branch_learns_from_the_joint_model() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort_of_tasks(&dir.path().join("cohort"), 300, 0.5, &["match", "high"], 4);
    let head = |task: &str| Head { task: task.into(), n_logits: 1 };
    let model = JointModelConfig { heads: vec![head("match"), head("high")], ..model(true, true) };
    let of = |branches: Branches, name: &str| {
        let settings = TrainingSettings { branches, modality_dropout: 0.0, ..settings(10, Sampling::Plain) };
        train(&reader, &model, &settings, &dir.path().join(name), &mut |_| ()).unwrap()
    };
    let alone = of(Branches::default(), "alone");
    let taught = of(Branches { joint: 1.0, ..Branches::default() }, "taught");
    let own = of(Branches { own: 1.0, ..Branches::default() }, "own");
    let [alone, taught, own] = [&alone, &taught, &own].map(|trained| distance_of_the_record_alone(&reader, &model, trained));
    assert!(taught < 0.7 * alone, "{taught} of {alone}");
    assert!(own < 0.7 * alone, "{own} of {alone}");
}

#[test]
fn common_terms_are_held_together() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), 200, 0.5);
    let model = JointModelConfig { fusion: FusionKind::SharedPrivate, ..model(true, true) };
    let apart = |shared: f64| {
        let settings = TrainingSettings { branches: Branches { shared, ..Branches::default() }, ..settings(8, Sampling::Plain) };
        let trained = train(&reader, &model, &settings, &dir.path().join(format!("{shared}")), &mut |_| ()).unwrap();
        let _alone = alone();
        let device = Device::flex();
        let model = apply_state(model.init(None, &device).unwrap(), &trained.weights).unwrap().valid();
        let rows: Vec<&ExampleRow> = reader.rows().iter().filter(|row| row.image_row.is_some() && row.record_row.is_some()).collect();
        let batch = HostBatch::read(&reader, &rows, Presence { image: true, record: true }, None).unwrap();
        let batch = batch.into_tensors(&reader.manifest().tasks, &[], &device);
        let outputs = model.forward(batch.inputs, rows.len(), &device);
        let [image, record]: [Tensor<2>; 2] = model.common(&outputs.modalities).unwrap().try_into().unwrap();
        jensen_shannon(image, record, Tensor::ones([rows.len(), 1], &device)).into_scalar::<f32>()
    };
    let (held, free) = (apart(2.0), apart(0.0));
    assert!(held < 0.5 * free, "{held} of {free} nats");
}

#[test]
fn modalities_of_an_example_find_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let reader = cohort(&dir.path().join("cohort"), 120, 0.5);
    let all = Branches { own: 0.3, joint: 0.3, pairs: 0.3, shared: 0.0 };
    let settings = TrainingSettings { branches: all, ..settings(2, Sampling::Plain) };
    let checkpoints = dir.path().join("stopped");
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        train(&reader, &model(true, true), &settings, &checkpoints, &mut |told| {
            assert!(!matches!(told, Progress::Epoch(_)), "stopped on purpose");
        })
    }));
    assert!(stopped.is_err());
    let resumed = train(&reader, &model(true, true), &settings, &checkpoints, &mut |_| ()).unwrap();
    let undisturbed = train(&reader, &model(true, true), &settings, &dir.path().join("undisturbed"), &mut |_| ()).unwrap();
    assert!(resumed.weights == undisturbed.weights, "bit for bit");
    // A model of one modality has nobody to learn from.
    let plain = TrainingSettings { branches: Branches::default(), ..settings.clone() };
    let [taught, plain] = [&settings, &plain].map(|settings| {
        let name = format!("{}", settings.branches.own);
        train(&reader, &model(true, false), settings, &dir.path().join(name), &mut |_| ()).unwrap().weights
    });
    assert!(taught == plain);
}
