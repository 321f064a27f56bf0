//! The cohort to three trained and calibrated models: joint, image alone, record alone, with the same number of epochs behind each
//! tower: where the joint model begins with the towers of the others, the others too are trained on from theirs.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use synovia_cohort::{CohortReader, ExampleRow, Split, Task, Train, Validation};
use synovia_encoders::FeatureStatistics;
use synovia_evaluation::{Calibration, CalibrationMap, Calibrator, EvaluationError, Variant, fit_calibration};
use synovia_fusion::{Head, ImageTower, JointModelConfig, RecordTower};
use synovia_training::{
    Augmentation, EpochReport, Fit, NoiseKey, Presence, Pretrained, Privacy, Progress as Told, Sampling, Together, Trained, TrainingError,
    TrainingSettings, Unlabelled, Weights, decode_weights, encode_weights, fit, fit_endpoints, fit_statistics, learn_images, predict,
    read_pretrained, spread,
};

use super::atomic::{atomic_dir, atomic_file};
use super::cache::Stage;
use super::cohort::CohortReport;
use super::ingest::{read_json, write_json};
use super::place::Place;
use super::{StageError, run_stage};
use crate::commands::Work;
use crate::pipeline::{self, Pipeline};

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 11;
/// Images a step where there are no labels: variances and covariances are of a batch.
const UNLABELLED_BATCH: usize = 128;

/// What `model/settings.json` holds: with the weights, all that is needed to make the models again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelSettings {
    /// Commit of the source that trained them, with `-dirty` where it was changed since, or `unknown`.
    pub commit: String,
    /// Statistics of the features, fitted on the train split.
    pub statistics: FeatureStatistics,
    /// What the image towers began with, where it is a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<Checkpoint>,
    /// The models.
    pub variants: BTreeMap<Variant, VariantSettings>,
}

/// A checkpoint that image towers began with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// SHA-256 of the file.
    pub sha256: String,
    /// Tensors that were taken.
    pub taken: usize,
    /// Parameters of the tower that it lacks.
    pub absent: Vec<String>,
    /// Its tensors that the tower has no place for.
    pub unused: Vec<String>,
    /// Channels of its images, where those here have another number.
    pub adapted: Option<usize>,
}

/// One trained model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VariantSettings {
    /// What it is made of.
    pub model: JointModelConfig,
    /// How it was trained.
    pub training: TrainingSettings,
    /// The epoch whose weights were kept, from 1.
    pub best_epoch: usize,
    /// A line an epoch; where a model of one modality was trained on, of both its trainings.
    pub history: Vec<EpochReport>,
    /// Each way to calibrate, a task each, fitted on the validation split: the pipeline says which is used.
    pub calibrations: Vec<BTreeMap<Calibrator, Calibration>>,
}

/// What a private training has spent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spent {
    /// ε of all epochs that were trained, a patient.
    pub epsilon: f64,
    /// Chance with which it may not hold.
    pub delta: f64,
    /// Noise, in units of `clip`.
    pub noise: f64,
    /// Norm of a patient's gradient.
    pub clip: f64,
}

impl VariantSettings {
    /// How each task is calibrated.
    pub fn calibrated(&self, which: Calibrator) -> Vec<Calibration> {
        let none = || Calibration {
            map: CalibrationMap::Temperature { value: 1.0 },
            n: 0,
            log_loss_before: None,
            log_loss_after: None,
            note: Some("not calibrated".to_owned()),
        };
        self.calibrations.iter().map(|of_task| of_task.get(&which).cloned().unwrap_or_else(none)).collect()
    }

    /// `None` where training was not private.
    pub fn spent(&self) -> Option<Spent> {
        let Privacy { noise, clip, delta } = self.training.privacy?;
        Some(Spent { epsilon: self.history.last()?.epsilon?, delta, noise, clip })
    }
}

/// Runs the stage unless it is fresh.
pub fn run(work: &Work, cohort: &Stage, place: &Place) -> anyhow::Result<Stage> {
    let p = &work.pipeline;
    let settings = serde_json::json!({ "seed": p.seed, "model": p.model, "training": p.training.for_key() });
    let mut stage = Stage::new(&place.stage("train"), VERSION, &settings)?.after(cohort);
    if let Some(path) = &p.model.image_weights {
        stage = stage.reads("image_weights", path)?;
    }
    let outputs = [place.relative("model"), place.relative("history.jsonl")];
    run_stage(&stage, &work.run, &work.progress, &[&outputs[0], &outputs[1]], || train(work, &stage, place))?;
    // The checkpoints have served: the stage is done. Until it was, a kill would have cost the training.
    remove_checkpoints(work, place, "")?;
    Ok(stage)
}

/// The models that the pipeline has towers for, the joint one first.
///
/// # Errors
/// [`synovia_training::TrainingError::Endpoint`]
pub fn variants(pipeline: &Pipeline, reader: &CohortReader) -> anyhow::Result<Vec<(Variant, JointModelConfig)>> {
    let model = &pipeline.model;
    let manifest = reader.manifest();
    let image = manifest.geometry.zip(model.image.kind()).map(|(g, kind)| {
        let (channels, slices) = if model.slices.is_channels() { (g.channels, 1) } else { (1, g.channels) };
        ImageTower { kind, channels, slices, width: model.width }
    });
    let n_features = manifest.features.len();
    let record = (n_features > 0).then_some(match model.record {
        pipeline::RecordEncoder::Linear => RecordTower::Linear { n_features, width: model.embedding },
        pipeline::RecordEncoder::Transformer => RecordTower::Transformer { n_features, width: model.embedding, dropout: model.dropout },
        pipeline::RecordEncoder::Cross => RecordTower::Cross { n_features, width: model.embedding, dropout: model.dropout },
        _ => RecordTower::Table { n_features, width: model.embedding, dropout: model.dropout },
    });
    let endpoints = fit_endpoints(&reader.view::<Train>())?;
    let config = |image, record| JointModelConfig {
        image,
        record,
        fusion: model.fusion,
        absent: model.absent,
        embedding: model.embedding,
        dropout: model.dropout,
        norm: model.norm,
        heads: manifest.tasks.iter().map(|t| Head { task: t.name.clone(), n_logits: t.n_logits() }).collect(),
        endpoints: endpoints.clone(),
    };
    Ok(match (image, record) {
        (Some(_), Some(_)) => {
            let joint = (Variant::Joint, config(image, record));
            if pipeline.training.singles {
                vec![joint, (Variant::Image, config(image, None)), (Variant::Record, config(None, record))]
            } else {
                vec![joint]
            }
        }
        (Some(_), None) => vec![(Variant::Image, config(image, None))],
        _ => vec![(Variant::Record, config(None, record))],
    })
}

/// How the pipeline's models are trained.
pub fn training_settings(pipeline: &Pipeline) -> TrainingSettings {
    let t = &pipeline.training;
    let a = &t.augmentation;
    TrainingSettings {
        epochs: t.epochs,
        tower_rate: t.tower_rate,
        batch: t.batch,
        learning_rate: t.learning_rate,
        weight_decay: t.weight_decay,
        warmup_epochs: t.warmup_epochs,
        clip: t.clip,
        ema: t.ema,
        patience: if t.patience == 0 { t.epochs } else { t.patience },
        sampling: match t.sampling {
            pipeline::Sampling::Plain => Sampling::Plain,
            pipeline::Sampling::Balanced => Sampling::Balanced,
        },
        modality_dropout: pipeline.model.modality_dropout,
        augmentation: Augmentation {
            shift: a.shift as f32,
            rotate: a.rotate as f32,
            scale: a.scale as f32,
            noise: a.noise as f32,
            brightness: a.brightness as f32,
            flip: a.flip,
        },
        balance: t.balance,
        accumulate: t.accumulate,
        swa: t.swa,
        imbalance: t.imbalance,
        branches: t.branches,
        kernels: t.kernels,
        privacy: t.privacy,
        seed: pipeline.seed,
    }
}

fn train(work: &Work, stage: &Stage, place: &Place) -> anyhow::Result<()> {
    let reader = CohortReader::open(&place.path(&work.run, "cohort"))?;
    check_cohort(work, place, &reader)?;
    let statistics = fit_statistics(&reader.view::<Train>())?;
    let training = training_settings(&work.pipeline);
    let mut variants = variants(&work.pipeline, &reader)?;
    let asked = work.pipeline.training.start == pipeline::Start::Alone;
    let begins_with_others = asked && variants.len() > 1;
    if asked && !begins_with_others {
        work.progress.note("train", "training.start = \"alone\" changes nothing: there is one modality");
    }
    if !work.pipeline.training.singles && variants[0].0 != Variant::Joint {
        work.progress.note("train", "training.singles = false changes nothing: there is one modality");
    }
    if begins_with_others {
        variants.sort_by_key(|(variant, _)| *variant == Variant::Joint);
    }
    let with_images = variants.iter().find(|(_, model)| model.image.is_some());
    let of_file = match with_images {
        Some((_, model)) => image_weights(work, &work.pipeline, model)?,
        None => None,
    };
    let of_images = match with_images {
        Some((_, model)) => from_images_alone(work, place, &work.pipeline, model, &reader, stage.key().as_str())?,
        None => None,
    };
    // The stage's key has the cohort's in it, and the version of this code.
    let data_key = stage.key();
    let course = Course { work, place, data_key: data_key.as_str(), settings: &training, statistics: &statistics, reader: &reader };
    let mut trained: BTreeMap<Variant, Trained> = BTreeMap::new();
    let learnt = of_file.as_ref().map(|(weights, _)| weights).or(of_images.as_ref());
    let starts = |variant: &Variant| if *variant == Variant::Record { None } else { learnt.cloned() };
    let waits = |variant: &Variant| begins_with_others && *variant == Variant::Joint;
    let first: Vec<_> = variants.iter().filter(|(variant, _)| !waits(variant)).collect();
    let jobs = first.iter().map(|(variant, model)| Job { name: variant.to_string(), model, start: starts(variant) });
    trained.extend(first.iter().map(|(variant, _)| *variant).zip(course.fit_all(&jobs.collect::<Vec<_>>())?));
    if begins_with_others {
        let job = |(variant, model)| match trained.get(variant) {
            None => Job { name: variant.to_string(), model, start: Some(towers(&trained)) },
            Some(Trained { weights, .. }) => Job { name: format!("{variant}-again"), model, start: Some(tower(*variant, weights)) },
        };
        let jobs: Vec<Job<'_>> = variants.iter().map(|(variant, model)| job((variant, model))).collect();
        for ((variant, _), second) in variants.iter().zip(course.fit_all(&jobs)?) {
            let both = match trained.remove(variant) {
                Some(first) => best_of(first, second),
                None => second,
            };
            trained.insert(*variant, both);
        }
    }
    let mut weights: BTreeMap<Variant, Weights> = BTreeMap::new();
    let mut of_variants = BTreeMap::new();
    let known: Vec<_> = variants.iter().filter_map(|(variant, model)| Some((model, &trained.get(variant)?.weights))).collect();
    let calibrated = spread(&known, |(model, weights)| calibrate(model, weights, &reader, training.privacy.is_some()));
    for ((variant, model), calibrations) in variants.into_iter().zip(calibrated) {
        let Some(Trained { weights: of_variant, best_epoch, history }) = trained.remove(&variant) else { continue };
        let calibrations = calibrations?;
        of_variants.insert(variant, VariantSettings { model, training: training.clone(), best_epoch, history, calibrations });
        weights.insert(variant, of_variant);
    }
    let commit = env!("SYNOVIA_COMMIT").to_owned();
    let settings = ModelSettings { commit, statistics, pretrained: of_file.map(|(_, checkpoint)| checkpoint), variants: of_variants };
    let dir = atomic_dir(&place.path(&work.run, "model"))?;
    for (variant, weights) in &weights {
        let path = dir.path().join(format!("{variant}.safetensors"));
        std::fs::write(&path, encode_weights(weights, variant.as_str())?).with_context(|| path.display().to_string())?;
    }
    let copy =
        |name: &str| std::fs::copy(place.path(&work.run, "cohort").join(name), dir.path().join(name)).with_context(|| name.to_owned());
    copy("features.json")?;
    copy("preparation.json")?;
    write_json(&dir.path().join("settings.json"), &settings)?;
    let history_path = place.path(&work.run, "history.jsonl");
    atomic_file(&history_path, |out| -> anyhow::Result<()> {
        for (variant, of_variant) in &settings.variants {
            for epoch in &of_variant.history {
                let mut line = serde_json::to_value(epoch)?;
                line["variant"] = variant.as_str().into();
                writeln!(out, "{line}").map_err(|source| StageError::Io { path: history_path.clone(), source })?;
            }
        }
        Ok(())
    })?;
    dir.commit()?;
    Ok(())
}

/// What the trainings of a stage have in common.
pub struct Course<'a> {
    /// Where checkpoints are kept.
    pub work: &'a Work,
    /// The fold.
    pub place: &'a Place,
    /// Digest of the cohort.
    pub data_key: &'a str,
    /// How is trained.
    pub settings: &'a TrainingSettings,
    /// Statistics of the features.
    pub statistics: &'a FeatureStatistics,
    /// The cohort.
    pub reader: &'a CohortReader,
}

/// A model to train.
pub struct Job<'a> {
    /// Its name in what is told and among the checkpoints.
    pub name: String,
    /// What it is made of.
    pub model: &'a JointModelConfig,
    /// What it begins with.
    pub start: Option<Weights>,
}

impl Course<'_> {
    /// Trains several models, each as [`Course::fit`] does, to the same bits: at once, since the step of one leaves cores idle, with more
    /// than one thread and where nothing is private.
    ///
    /// # Errors
    /// The first of them; the other trainings end after their epoch, and go on from there the next time.
    pub fn fit_all(&self, jobs: &[Job<'_>]) -> anyhow::Result<Vec<Trained>> {
        let together = Together::new();
        if together.threads() == 1 || self.settings.privacy.is_some() {
            return jobs.iter().map(|job| self.fit(&job.name, job.model, job.start.as_ref(), &together)).collect();
        }
        let run = |job: &Job<'_>| self.fit(&job.name, job.model, job.start.as_ref(), &together);
        let ended: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = jobs.iter().map(|job| scope.spawn(|| run(job))).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let was_stopped = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(TrainingError::Stopped));
        // What failed, and not those that were stopped for it.
        let (stopped, ended): (Vec<_>, Vec<_>) = ended.into_iter().partition(|trained| trained.as_ref().is_err_and(was_stopped));
        ended.into_iter().chain(stopped).collect()
    }

    /// Trains a model that begins with `start`, as `name` in what is told and among the checkpoints, beside others.
    ///
    /// # Errors
    /// [`synovia_training::TrainingError`]
    pub fn fit(&self, name: &str, model: &JointModelConfig, start: Option<&Weights>, together: &Together) -> anyhow::Result<Trained> {
        let Self { work, place, data_key, settings, statistics, reader } = *self;
        let checkpoints = work.run.join(format!(".training/{}", place.relative(name)));
        // It is gone with the checkpoints when the stage is done: nobody can take the noise off afterwards.
        let noise = settings.privacy.map(|_| NoiseKey::open(&checkpoints.join("noise.key"))).transpose()?;
        let job = Fit { model, statistics, settings, checkpoints: &checkpoints, data_key, noise: noise.as_ref(), start, together };
        let bar = work.progress.start(&place.stage(&format!("train-{name}")), None, "steps");
        let (mut steps, mut validated) = (0, String::new());
        let trained = fit(&job, &reader.view::<Train>(), &reader.view::<Validation>(), &mut |told| match told {
            Told::Start { done, epochs, steps: of_epoch } => {
                steps = of_epoch;
                bar.set_total((epochs * steps) as u64);
                bar.set((done * steps) as u64);
            }
            Told::Step { epoch, step, loss, examples_per_s } => {
                bar.set(((epoch - 1) * steps + step) as u64);
                bar.message(format!("epoch {epoch}, loss {loss:.3}, {examples_per_s:.0} examples/s{validated}"));
            }
            Told::Epoch(history) => {
                if let Some(last) = history.last() {
                    let spent = last.epsilon.map(|epsilon| format!(", ε {epsilon:.2}")).unwrap_or_default();
                    validated = format!(", validation {:.3}{spent}", last.validation_loss);
                }
            }
        })?;
        bar.finish(&format!("best epoch {}, validation loss {:.4}", trained.best_epoch, lowest_loss(&trained)));
        Ok(trained)
    }
}

/// Removes the checkpoints of a training that [`Course::fit`] knows by this name.
///
/// # Errors
/// What the system says.
pub fn remove_checkpoints(work: &Work, place: &Place, name: &str) -> anyhow::Result<()> {
    let checkpoints = work.run.join(format!(".training/{}", place.relative(name)));
    match std::fs::remove_dir_all(&checkpoints) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| checkpoints.display().to_string()),
        _ => Ok(()),
    }
}

/// Validation loss of the epoch that was kept.
pub fn lowest_loss(trained: &Trained) -> f64 {
    trained.history.get(trained.best_epoch.wrapping_sub(1)).map_or(f64::NAN, |best| best.validation_loss)
}

/// A model's two trainings, the second from the tower of the first, as one: the better weights, and the epochs of both.
fn best_of(first: Trained, second: Trained) -> Trained {
    let before = first.history.len();
    let (weights, best_epoch) = if lowest_loss(&second) < lowest_loss(&first) {
        (second.weights, before + second.best_epoch)
    } else {
        (first.weights, first.best_epoch)
    };
    let later = second.history.into_iter().map(|line| EpochReport { epoch: before + line.epoch, ..line });
    Trained { weights, best_epoch, history: first.history.into_iter().chain(later).collect() }
}

/// The weights of the pipeline's checkpoint for the image tower of `model`, where there are both; says what does not match.
///
/// # Errors
/// A file that can't be read, or holds another tower.
pub fn image_weights(work: &Work, pipeline: &Pipeline, model: &JointModelConfig) -> anyhow::Result<Option<(Weights, Checkpoint)>> {
    let (Some(path), Some(tower)) = (&pipeline.model.image_weights, model.image) else { return Ok(None) };
    let Pretrained { weights, absent, unused, adapted, prefix } = read_pretrained(path, tower, model.norm)?;
    let some = |names: &[String]| match names {
        [] => "none".to_owned(),
        [first, _, _, _, .., last] => format!("{} ({first} … {last})", names.len()),
        few => few.join(", "),
    };
    let stem = adapted
        .map(|n| format!("; its stem for {n} channels made one for {}", tower.kind.stem_channels(tower.channels)))
        .unwrap_or_default();
    let named = if prefix.is_empty() { String::new() } else { format!(" (those named {prefix}…)") };
    let what = format!(
        "{} tensors from {}{named}; as if not given: {}; of the file not used: {}{stem}",
        weights.len(),
        path.display(),
        some(&absent),
        some(&unused)
    );
    work.progress.note("train", &what);
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let checkpoint = Checkpoint { sha256: hex::encode(Sha256::digest(bytes)), taken: weights.len(), absent, unused, adapted };
    Ok(Some((weights, checkpoint)))
}

/// How an image tower learns without labels: from views that are shifted, turned, lit otherwise and noisy, but of one size, which may mean
/// something.
fn unlabelled(pipeline: &Pipeline) -> Unlabelled {
    let t = &pipeline.training;
    let least = |value: f64, least: f32| (value as f32).max(least);
    let augmentation = Augmentation {
        shift: least(t.augmentation.shift, 0.15),
        rotate: least(t.augmentation.rotate, 10.0),
        scale: 0.0,
        noise: least(t.augmentation.noise, 0.03),
        brightness: least(t.augmentation.brightness, 0.15),
        flip: t.augmentation.flip,
    };
    Unlabelled { epochs: t.unlabelled, batch: UNLABELLED_BATCH, learning_rate: t.learning_rate, augmentation, seed: pipeline.seed }
}

/// Weights of an image tower that learnt from the training images alone, where the pipeline asks for it. They are kept until the stage is
/// done; an interruption before they are there begins with them again, to the same bits.
///
/// # Errors
/// [`synovia_training::TrainingError`]
pub fn from_images_alone(
    work: &Work,
    place: &Place,
    pipeline: &Pipeline,
    model: &JointModelConfig,
    reader: &CohortReader,
    key: &str,
) -> anyhow::Result<Option<Weights>> {
    let (settings, Some(tower)) = (unlabelled(pipeline), model.image) else { return Ok(None) };
    if settings.epochs == 0 {
        return Ok(None);
    }
    let dir = work.run.join(format!(".training/{}", place.relative("unlabelled")));
    let asked = format!("{settings:?} {tower:?} {:?} {key} {}", model.norm, env!("SYNOVIA_COMMIT"));
    let path = dir.join(format!("{}.safetensors", hex::encode(&Sha256::digest(asked)[..8])));
    if let Ok(bytes) = std::fs::read(&path) {
        return Ok(Some(decode_weights(&bytes).with_context(|| path.display().to_string())?.0));
    }
    let bar = work.progress.start(&place.stage("train-unlabelled"), Some(settings.epochs as u64), "epochs");
    let mut last = f64::NAN;
    let weights = learn_images(tower, model.norm, &settings, &reader.view::<Train>(), &mut |epoch, _, loss| {
        last = loss;
        bar.set(epoch as u64);
        bar.message(format!("loss {loss:.3}"));
    })?;
    bar.finish(&format!("loss {last:.3}"));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let bytes = encode_weights(&weights, "unlabelled")?;
    atomic_file(&path, |out| out.write_all(&bytes).map_err(|source| StageError::Io { path: path.clone(), source }))?;
    Ok(Some(weights))
}

/// The towers of the models of one modality.
fn towers(trained: &BTreeMap<Variant, Trained>) -> Weights {
    trained.iter().flat_map(|(variant, trained)| tower(*variant, &trained.weights)).collect()
}

/// The tower of a model of one modality, with what puts slices together and the layer that brings it to the width of the joint embedding.
fn tower(variant: Variant, weights: &Weights) -> Weights {
    let mut parts = vec![format!("{variant}."), format!("{variant}_projection.")];
    if variant == Variant::Image {
        parts.push("slices.".to_owned());
    }
    let is_tower = |name: &str| parts.iter().any(|part| name.starts_with(part));
    weights.iter().filter(|(name, _)| is_tower(name)).map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}

/// That there is something to learn in the cohort of a fold.
///
/// # Errors
/// Says of which task there is not.
pub fn check_cohort(work: &Work, place: &Place, reader: &CohortReader) -> anyhow::Result<()> {
    check_labels(reader, &read_json(&place.path(&work.run, "cohort").join("report.json"))?)
}

/// That there is something to learn. A site of a federation may have labels of one class alone; a training may not.
fn check_labels(reader: &CohortReader, report: &CohortReport) -> anyhow::Result<()> {
    let rows = reader.rows();
    for (k, task) in reader.manifest().tasks.iter().enumerate() {
        let mut known = rows.iter().filter(|row| row.split == Split::Train).filter_map(|row| row.labels[k]);
        let first = known.next();
        if first.is_none() || known.all(|label| Some(label) == first) {
            let n = rows.iter().filter(|row| row.labels[k].is_some()).count();
            let unknown = report.unknown_labels.get(&task.name).into_iter().flatten();
            let unknown: Vec<String> = unknown.map(|(reason, n)| format!("{n} unknown, {reason}")).collect();
            bail!(
                "task `{}`: the train split has labels of no more than one class; check its label in the pipeline ({})",
                task.name,
                [vec![format!("{n} of {} examples have one", rows.len())], unknown].concat().join("; ")
            );
        }
    }
    Ok(())
}

/// Each way to calibrate, a task each, on the validation split: to choose another is not to train again.
fn calibrate(
    model: &JointModelConfig,
    weights: &Weights,
    reader: &CohortReader,
    is_private: bool,
) -> anyhow::Result<Vec<BTreeMap<Calibrator, Calibration>>> {
    let rows: Vec<&ExampleRow> = reader.rows().iter().filter(|row| row.split == Split::Validation).collect();
    let predicted = predict(model, weights, reader, &rows, Presence::of(model))?;
    let of_task = |(k, task): (usize, &Task)| {
        let logits: Vec<f32> = predicted.iter().flat_map(|p| p.logits[k].iter().copied()).collect();
        let labels: Vec<Option<f32>> = predicted.iter().map(|p| rows[p.row].labels[k]).collect();
        let fitted = |which: Calibrator| -> Result<(Calibrator, Calibration), EvaluationError> {
            // Steps stand at what the model said of single patients.
            if is_private && which == Calibrator::Isotonic {
                let note = Some("isotonic would tell of single patients of a private training: by temperature instead".to_owned());
                return Ok((which, Calibration { note, ..fit_calibration(Calibrator::Temperature, &logits, &labels, task)? }));
            }
            Ok((which, fit_calibration(which, &logits, &labels, task)?))
        };
        Calibrator::ALL.into_iter().map(fitted).collect()
    };
    Ok(reader.manifest().tasks.iter().enumerate().map(of_task).collect::<Result<_, EvaluationError>>()?)
}

/// The settings and weights that a finished train stage left.
pub fn open_model(work: &Work, place: &Place) -> anyhow::Result<(ModelSettings, BTreeMap<Variant, Weights>)> {
    let dir = place.path(&work.run, "model");
    let settings: ModelSettings = read_json(&dir.join("settings.json"))?;
    let mut weights = BTreeMap::new();
    for variant in settings.variants.keys() {
        let path = dir.join(format!("{variant}.safetensors"));
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        weights.insert(*variant, decode_weights(&bytes).with_context(|| path.display().to_string())?.0);
    }
    Ok((settings, weights))
}
