//! The trained model to `model.onnx`, held against it before it is written.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use sha2::{Digest, Sha256};
use synovia_cohort::{CohortReader, Geometry, Split, Task};
use synovia_evaluation::{CalibrationMap, Metrics, NoveltyScore, Variant};
use synovia_fusion::{Calibrated, Inputs, JointModel, JointModelConfig, Modality, apply_state};
use synovia_onnx::{InputArray, ModalityInput, OutputArray, TOLERANCE, TraceError, Tracer, Verification, presence_input, trace, verify};
use synovia_prediction::{Exported, ExportedEndpoint, METADATA};
use synovia_records::FeaturePlan;
use synovia_training::{Asked, Presence, Weights, encode_weights};

use super::atomic::atomic_file;
use super::cache::Stage;
use super::ingest::read_json;
use super::place::Place;
use super::train::open_model;
use super::{StageError, novelty, run_stage};
use crate::commands::Work;

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 8;
/// Examples that the file and the model are compared on.
const N_CHECKED: usize = 16;
/// Training records that the ranges of features are of, at most; evenly over the cohort.
const MAX_RANGED: usize = 10_000;

/// SHA-256 over the names and contents of a folder's files, in order of the names.
fn hash_of_files(folder: &Path) -> anyhow::Result<String> {
    let entries =
        std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        let mut of_file = Sha256::new();
        std::io::copy(&mut file, &mut of_file).with_context(|| path.display().to_string())?;
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(of_file.finalize());
    }
    Ok(hex::encode(hash.finalize()))
}

/// Where the middle 98 % of the training records lie, a feature each: 1st and 99th percentile, so that no bound is one patient's
/// where there are more than a hundred.
fn ranges(reader: &CohortReader, n_features: usize) -> anyhow::Result<Vec<Option<[f32; 2]>>> {
    let with_record: Vec<_> = reader.rows().iter().filter(|row| row.split == Split::Train && row.record_row.is_some()).collect();
    let mut columns = vec![Vec::new(); n_features];
    let mut values = vec![0.0; n_features];
    for row in with_record.iter().step_by(with_record.len().div_ceil(MAX_RANGED).max(1)) {
        reader.read_record(row, &mut values)?;
        columns.iter_mut().zip(&values).filter(|(_, value)| value.is_finite()).for_each(|(column, &value)| column.push(value));
    }
    let middle = |mut column: Vec<f32>| {
        column.sort_unstable_by(f32::total_cmp);
        let cut = column.len() / 100;
        let last = column.len().checked_sub(1 + cut)?;
        Some([column[cut], column[last]])
    };
    Ok(columns.into_iter().map(middle).collect())
}

/// Runs the stage unless it is fresh.
pub fn run(work: &Work, trained: &Stage, evaluated: &Stage, place: &Place) -> anyhow::Result<Stage> {
    let stage =
        Stage::new(&place.stage("export"), VERSION, &serde_json::json!({ "name": work.pipeline.name }))?.after(trained).after(evaluated);
    let output = place.relative("model.onnx");
    run_stage(&stage, &work.run, &work.progress, &[&output], || export(work, place))?;
    Ok(stage)
}

/// A model on the device of real numbers. Each call makes a new one: a model that is moved to the capture device is spoilt,
/// clones included.
fn fresh(config: &JointModelConfig, weights: &Weights) -> anyhow::Result<JointModel> {
    Ok(apply_state(config.init(None, &Device::flex())?, weights)?.valid())
}

/// The same as operations of the graph.
fn in_graph(map: &CalibrationMap) -> Calibrated {
    match map {
        CalibrationMap::Temperature { value } => Calibrated::Temperature(*value),
        CalibrationMap::LogitLine { slope, intercept } => Calibrated::Line { slope: *slope as f32, intercept: *intercept as f32 },
        CalibrationMap::Beta { a, b, c } => Calibrated::Beta { a: *a as f32, b: *b as f32, c: *c as f32 },
        CalibrationMap::Steps { first, steps } => {
            Calibrated::Steps { first: *first as f32, steps: steps.iter().map(|step| step.map(|value| value as f32)).collect() }
        }
    }
}

/// Probabilities of each task, estimates of each endpoint, and the embedding.
fn forward(
    model: &JointModel,
    config: &JointModelConfig,
    inputs: Inputs,
    batch: usize,
    device: &Device,
    calibrated: &[Calibrated],
) -> Vec<Tensor<2>> {
    let outputs = model.forward(inputs, batch, device);
    let mut logits = outputs.logits;
    let raw = logits.split_off(config.heads.len());
    let estimates = config.endpoints.iter().zip(raw).map(|(head, raw)| head.estimates(raw));
    JointModel::probabilities(logits, calibrated).into_iter().chain(estimates).chain([outputs.embedding]).collect()
}

/// What [`forward`] gives, by name.
fn outputs(config: &JointModelConfig) -> impl Iterator<Item = &str> {
    let names = config.heads.iter().map(|head| head.task.as_str()).chain(config.endpoints.iter().map(|head| head.endpoint.as_str()));
    names.chain(["embedding"])
}

fn export(work: &Work, place: &Place) -> anyhow::Result<()> {
    let reader = CohortReader::open(&place.path(&work.run, "cohort"))?;
    let (settings, mut weights) = open_model(work, place)?;
    let (variant, of_variant) =
        settings.variants.get_key_value(&Variant::Joint).or_else(|| settings.variants.iter().next()).context("no trained model")?;
    let weights = weights.remove(variant).context("no weights")?;
    let config = &of_variant.model;
    let calibrations: Vec<CalibrationMap> =
        of_variant.calibrated(work.pipeline.training.calibration).into_iter().map(|calibration| calibration.map).collect();
    let calibrated: Vec<Calibrated> = calibrations.iter().map(in_graph).collect();
    let manifest = reader.manifest();
    let tasks = &manifest.tasks;
    let geometry = manifest.geometry.filter(|_| config.image.is_some());
    let n_features = config.record.map(|_| manifest.features.len());

    let graph = trace(|tracer: &mut Tracer| {
        let model = fresh(config, &weights).map_err(|error| TraceError::Forward(error.into()))?.to_device(tracer.device());
        let (batch, device) = (tracer.batch(), tracer.device().clone());
        let mut inputs = Inputs::default();
        if let Some(Geometry { channels, height, width }) = geometry {
            let values = tracer.input::<4>("image", [channels, height, width]);
            inputs.image = Some(Modality { values, present: tracer.input::<2>(&presence_input("image"), [1]), rows: None });
        }
        if let Some(n) = n_features {
            let values = tracer.input::<2>("record", [n]);
            inputs.record = Some(Modality { values, present: tracer.input::<2>(&presence_input("record"), [1]), rows: None });
        }
        for (name, output) in outputs(config).zip(forward(&model, config, inputs, batch, &device, &calibrated)) {
            tracer.output(name, output);
        }
        Ok(())
    })?;

    let mut metrics: Metrics = read_json(&work.run.join("metrics.json"))?;
    // What a reader of the file needs is the measures; the curves are in the report.
    metrics.tasks.values_mut().for_each(|task| task.decision.clear());
    let sets_of = |task: &Task| {
        let conformal = metrics.tasks.get(&task.name)?.conformal.as_ref()?;
        conformal.sets.get(place.fold().unwrap_or(0)).filter(|sets| sets.variant == *variant).cloned()
    };
    let spent = of_variant.spent();
    // Also where nobody could say what it spent.
    let is_private = of_variant.training.privacy.is_some();
    let features: FeaturePlan = read_json(&place.path(&work.run, "model").join("features.json"))?;
    let exported = Exported {
        name: work.pipeline.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: settings.commit.clone(),
        seed: work.pipeline.seed,
        weights: hex::encode(Sha256::digest(encode_weights(&weights, variant.as_str())?)),
        cohort: hash_of_files(&place.path(&work.run, "cohort"))?,
        tasks: tasks.clone(),
        endpoints: (manifest.endpoints.iter().zip(&config.endpoints))
            .map(|(endpoint, head)| ExportedEndpoint { name: endpoint.name.clone(), kind: endpoint.kind, quantities: head.quantities() })
            .collect(),
        preparation: work.pipeline.images.as_ref().filter(|_| geometry.is_some()).map(crate::pipeline::Images::preparation),
        image_kind: work.pipeline.images.as_ref().filter(|_| geometry.is_some()).map(|images| images.kind.into()),
        selection: work.pipeline.images.as_ref().map(|images| images.selection.clone()).unwrap_or_default(),
        anchor: work.pipeline.cohort.anchor(),
        records: n_features.map(|_| work.pipeline.input_format_config()),
        features: n_features.map(|_| features),
        // Quantiles have no noise.
        feature_ranges: n_features.filter(|_| !is_private).map(|n| ranges(&reader, n)).transpose()?.unwrap_or_default(),
        privacy: spent.map(serde_json::to_value).transpose()?,
        history_days: work.pipeline.records.history_days(),
        calibrations,
        conformal: tasks.iter().map(sets_of).collect(),
        // Means of embeddings have no noise either.
        novelty: if is_private { None } else { Some(novelty_of(&reader, config, &weights)?) },
        metrics: serde_json::to_value(&metrics)?,
        intended_use: "Research. Not a medical device.".to_owned(),
    };
    let bytes = graph.to_bytes(&[(METADATA.to_owned(), serde_json::to_string(&exported)?)]);
    let verification = check(&bytes, config, &weights, &calibrated, &reader, geometry, n_features)?;
    let path = place.path(&work.run, "model.onnx");
    atomic_file(&path, |out| out.write_all(&bytes).map_err(|source| StageError::Io { path: path.clone(), source }))?;
    let worst = verification.outputs.iter().map(|o| o.difference).fold(0.0, f32::max);
    work.progress.note(
        &place.stage("export"),
        &format!(
            "model.onnx differs from the trained model by {worst:.1e} at most, over {} sets of modalities (allowed {TOLERANCE:.0e})",
            verification.n_patterns
        ),
    );
    Ok(())
}

/// Where the training's examples lie in the exported model's eyes.
fn novelty_of(reader: &CohortReader, config: &JointModelConfig, weights: &Weights) -> anyhow::Result<NoveltyScore> {
    let shape = reader.manifest().geometry.map_or([0; 3], |g| [g.channels, g.height, g.width]);
    novelty::fit(reader, &Asked::new(config, weights, shape)?, Presence::of(config))
}

/// The file against the model on real examples of the cohort.
fn check(
    bytes: &[u8],
    config: &JointModelConfig,
    weights: &Weights,
    calibrated: &[Calibrated],
    reader: &CohortReader,
    geometry: Option<Geometry>,
    n_features: Option<usize>,
) -> anyhow::Result<Verification> {
    let (mut images, mut records) = (Vec::new(), Vec::new());
    // Each modality by itself: no example need have both.
    if let Some(geometry) = geometry {
        for row in reader.rows().iter().filter(|row| row.image_row.is_some()).take(N_CHECKED) {
            let mut image = vec![0.0; geometry.len()];
            reader.read_image(row, &mut image)?;
            images.extend(image);
        }
    }
    if let Some(n) = n_features {
        for row in reader.rows().iter().filter(|row| row.record_row.is_some()).take(N_CHECKED) {
            let mut record = vec![0.0; n];
            reader.read_record(row, &mut record)?;
            records.extend(record);
        }
    }
    let mut examples = Vec::new();
    if let Some(Geometry { channels, height, width }) = geometry {
        examples.push(ModalityInput { modality: "image".to_owned(), shape: vec![channels, height, width], values: images });
    }
    if let Some(n) = n_features {
        examples.push(ModalityInput { modality: "record".to_owned(), shape: vec![n], values: records });
    }
    let model = fresh(config, weights)?;
    let device = Device::flex();
    let expected = |arrays: &[InputArray<'_>]| -> Result<Vec<OutputArray>, anyhow::Error> {
        let find = |name: &str| arrays.iter().find(|array| array.0 == name);
        let table = |name: &str| find(name).map(|a| Tensor::<2>::from_data(TensorData::new(a.2.to_vec(), a.1.to_vec()), &device));
        let mut inputs = Inputs::default();
        if let (Some(a), Some(present)) = (find("image"), table(&presence_input("image"))) {
            let values = Tensor::<4>::from_data(TensorData::new(a.2.to_vec(), a.1.to_vec()), &device);
            inputs.image = Some(Modality { values, present, rows: None });
        }
        if let (Some(values), Some(present)) = (table("record"), table(&presence_input("record"))) {
            inputs.record = Some(Modality { values, present, rows: None });
        }
        let batch = arrays.first().map_or(0, |a| a.1[0]);
        outputs(config)
            .zip(forward(&model, config, inputs, batch, &device, calibrated))
            .map(|(name, tensor)| {
                let shape = tensor.dims().to_vec();
                Ok((
                    name.to_owned(),
                    shape,
                    tensor.into_data().convert::<f32>().try_to_vec().map_err(|error| anyhow::anyhow!("{error:?}"))?,
                ))
            })
            .collect()
    };
    // Of an endpoint in its own units, what the units are.
    let scale = |name: &str| {
        let head = config.endpoints.iter().find(|head| head.endpoint == name);
        head.map_or(1.0, |head| head.magnitude().max(1.0) as f32)
    };
    Ok(verify(bytes, expected, &examples, scale)?)
}
