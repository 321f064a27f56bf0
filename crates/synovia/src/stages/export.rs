//! The trained model to `model.onnx`, held against it before it is written.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use synovia_cohort::{CohortReader, Geometry, Task};
use synovia_evaluation::{ConformalSets, Metrics, Variant};
use synovia_fusion::{Inputs, JointModel, JointModelConfig, Modality, apply_state};
use synovia_images::{Preparation, Selection};
use synovia_onnx::{InputArray, ModalityInput, OutputArray, TOLERANCE, TraceError, Tracer, Verification, presence_input, trace, verify};
use synovia_records::{FeaturePlan, FormatConfig};
use synovia_training::{Weights, encode_weights};

use super::atomic::atomic_file;
use super::cache::Stage;
use super::ingest::read_json;
use super::link::Anchor;
use super::place::Place;
use super::train::open_model;
use super::{StageError, run_stage};
use crate::commands::Work;
use crate::pipeline::ImageKind;

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 3;
/// Key of the file's metadata under which [`Exported`] stands.
pub const METADATA: &str = "synovia";
/// Examples that the file and the model are compared on.
const N_CHECKED: usize = 16;

/// What the exported file says of itself: all that prediction needs besides the graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exported {
    /// The pipeline's name.
    pub name: String,
    /// Version of the program that wrote it.
    pub version: String,
    /// Commit of the source that trained it, with `-dirty` where it was changed since, or `unknown`.
    pub commit: String,
    /// Seed of the training.
    pub seed: u64,
    /// SHA-256 of the weights.
    pub weights: String,
    /// SHA-256 of the cohort that the model was trained on: its examples, pixels and features.
    pub cohort: String,
    /// The tasks, in the order of the outputs.
    pub tasks: Vec<Task>,
    /// How an image is prepared; `None` for a model without images.
    pub preparation: Option<Preparation>,
    /// What the images are.
    pub image_kind: Option<ImageKind>,
    /// Which images are taken at all.
    #[serde(default)]
    pub selection: Selection,
    /// What a prediction is made at.
    #[serde(flatten)]
    pub anchor: Anchor,
    /// How records are read: the format, and the columns of a table less those of the labels.
    pub records: Option<FormatConfig>,
    /// How a record becomes features; `None` for a model without records.
    pub features: Option<FeaturePlan>,
    /// How far back the record counts, days.
    pub history_days: Option<f64>,
    /// Temperatures, a task each; they are in the graph.
    pub temperatures: Vec<f32>,
    /// Prediction sets, a task each, fitted on the validation split; `None` where it had no labels.
    #[serde(default)]
    pub conformal: Vec<Option<ConformalSets>>,
    /// Measures on the test split.
    pub metrics: serde_json::Value,
    /// What it is for.
    pub intended_use: String,
}

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

fn forward(model: &JointModel, inputs: Inputs, batch: usize, device: &Device, temperatures: &[f32]) -> (Vec<Tensor<2>>, Tensor<2>) {
    let outputs = model.forward(inputs, batch, device);
    (JointModel::probabilities(outputs.logits, temperatures), outputs.embedding)
}

fn export(work: &Work, place: &Place) -> anyhow::Result<()> {
    let reader = CohortReader::open(&place.path(&work.run, "cohort"))?;
    let (settings, mut weights) = open_model(work, place)?;
    let (variant, of_variant) =
        settings.variants.get_key_value(&Variant::Joint).or_else(|| settings.variants.iter().next()).context("no trained model")?;
    let weights = weights.remove(variant).context("no weights")?;
    let config = &of_variant.model;
    let temperatures: Vec<f32> = of_variant.temperatures.iter().map(|t| t.value).collect();
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
        let (probabilities, embedding) = forward(&model, inputs, batch, &device, &temperatures);
        for (task, probability) in tasks.iter().zip(probabilities) {
            tracer.output(&task.name, probability);
        }
        tracer.output("embedding", embedding);
        Ok(())
    })?;

    let mut metrics: Metrics = read_json(&work.run.join("metrics.json"))?;
    // What a reader of the file needs is the measures; the curves are in the report.
    metrics.tasks.values_mut().for_each(|task| task.decision.clear());
    let sets_of = |task: &Task| {
        let conformal = metrics.tasks.get(&task.name)?.conformal.as_ref()?;
        conformal.sets.get(place.fold().unwrap_or(0)).filter(|sets| sets.variant == *variant).cloned()
    };
    let features: FeaturePlan = read_json(&place.path(&work.run, "model").join("features.json"))?;
    let exported = Exported {
        name: work.pipeline.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: settings.commit.clone(),
        seed: work.pipeline.seed,
        weights: hex::encode(Sha256::digest(encode_weights(&weights, variant.as_str())?)),
        cohort: hash_of_files(&place.path(&work.run, "cohort"))?,
        tasks: tasks.clone(),
        preparation: work.pipeline.images.as_ref().filter(|_| geometry.is_some()).map(crate::pipeline::Images::preparation),
        image_kind: work.pipeline.images.as_ref().filter(|_| geometry.is_some()).map(|images| images.kind),
        selection: work.pipeline.images.as_ref().map(|images| images.selection.clone()).unwrap_or_default(),
        anchor: Anchor::of(&work.pipeline.cohort),
        records: n_features.map(|_| work.pipeline.input_format_config()),
        features: n_features.map(|_| features),
        history_days: work.pipeline.records.history_days(),
        temperatures: temperatures.clone(),
        conformal: tasks.iter().map(sets_of).collect(),
        metrics: serde_json::to_value(&metrics)?,
        intended_use: "Research. Not a medical device.".to_owned(),
    };
    let bytes = graph.to_bytes(&[(METADATA.to_owned(), serde_json::to_string(&exported)?)]);
    let verification = check(&bytes, config, &weights, &temperatures, &reader, geometry, n_features)?;
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

/// The file against the model on real examples of the cohort.
fn check(
    bytes: &[u8],
    config: &JointModelConfig,
    weights: &Weights,
    temperatures: &[f32],
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
    let tasks = &reader.manifest().tasks;
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
        let (probabilities, embedding) = forward(&model, inputs, batch, &device, temperatures);
        let names = tasks.iter().map(|task| task.name.clone()).chain(["embedding".to_owned()]);
        names
            .zip(probabilities.into_iter().chain([embedding]))
            .map(|(name, tensor)| {
                let shape = tensor.dims().to_vec();
                Ok((name, shape, tensor.into_data().convert::<f32>().try_to_vec().map_err(|error| anyhow::anyhow!("{error:?}"))?))
            })
            .collect()
    };
    Ok(verify(bytes, expected, &examples)?)
}
