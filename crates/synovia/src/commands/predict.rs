//! `synovia predict`: an exported file, images and records to a JSON line an example. Uses nothing but the file.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use synovia_cohort::{Example, ExampleId, PatientId, PatientRecord, RejectedLog, Study, Task, Time};
use synovia_evaluation::{ConformalSets, ModalityPattern, label_names};
use synovia_images::{Preparation, scan};
use synovia_onnx::{Session, presence_input};
use synovia_records::{FeaturePlan, FormatConfig};

use super::Context;
use crate::cli::PredictArgs;
use crate::stages::export::{Exported, METADATA};

/// One example's inputs.
struct Prepared {
    id: ExampleId,
    image: Option<Vec<f32>>,
    record: Option<Vec<f32>>,
}

/// Prints a JSON line an example; what was not taken goes to stderr, and what is wrong with all of it is an error.
pub fn predict(args: &PredictArgs, context: &Context) -> anyhow::Result<()> {
    context.use_threads(None)?;
    let bytes = std::fs::read(&args.model).with_context(|| args.model.display().to_string())?;
    let hash = hex::encode(Sha256::digest(&bytes));
    let mut session = Session::from_bytes(&bytes, context.global.threads).with_context(|| args.model.display().to_string())?;
    let metadata: HashMap<String, String> = session.metadata()?.into_iter().collect();
    let text = metadata
        .get(METADATA)
        .with_context(|| format!("{}: not exported by synovia: its metadata has no `{METADATA}`", args.model.display()))?;
    let exported: Exported = serde_json::from_str(text).with_context(|| format!("{}: metadata `{METADATA}`", args.model.display()))?;

    let log = RejectedLog::to_writer(Box::new(std::io::stderr()));
    let studies = match (&args.images, exported.preparation.as_ref()) {
        (Some(path), Some(preparation)) => images(path, preparation, &exported, &log)?,
        (Some(_), None) => bail!("this model looks at records only; leave --images out"),
        _ => Vec::new(),
    };
    let records = match (&args.records, exported.features.as_ref()) {
        (Some(path), Some(_)) => records(path, &log)?,
        (Some(_), None) => bail!("this model looks at images only; leave --records out"),
        _ => Vec::new(),
    };
    let prepared = prepare(&studies, &records, &exported);
    if prepared.is_empty() {
        bail!("no image and no record that could be read; the reasons are above");
    }
    for example in prepared {
        let line = infer(&mut session, &exported, &example, &hash)?;
        println!("{line}");
    }
    Ok(())
}

fn images(path: &Path, preparation: &Preparation, exported: &Exported, log: &RejectedLog) -> anyhow::Result<Vec<(Study, Vec<f32>)>> {
    let kind = exported.image_kind.context("the model's metadata does not say what its images are")?.into();
    if path.is_file() {
        return Ok(match synovia_images::load_file(path, kind, preparation) {
            Ok(loaded) => vec![(loaded.study, loaded.pixels)],
            Err(rejected) => {
                log.push(&rejected);
                Vec::new()
            }
        });
    }
    let index = scan(path, kind, log, &|_| ())?;
    let mut out = Vec::new();
    for study in index.studies {
        match synovia_images::load(path, &study, preparation) {
            Ok(pixels) => out.push((study, pixels)),
            Err(rejected) => log.push(&rejected),
        }
    }
    Ok(out)
}

fn records(path: &Path, log: &RejectedLog) -> anyhow::Result<Vec<PatientRecord>> {
    let spill = tempfile::tempdir().context("a temporary folder")?;
    let store = synovia_records::ingest(path, &FormatConfig::fhir(), &spill.path().join("records"), log, &|_| ())?;
    let mut out = Vec::new();
    for partition in 0..store.n_partitions() {
        out.extend(store.load(partition)?);
    }
    Ok(out)
}

/// Studies with the records that are theirs, by study UID or identifier; records without a study at their last event.
fn prepare(studies: &[(Study, Vec<f32>)], records: &[PatientRecord], exported: &Exported) -> Vec<Prepared> {
    let mut owner: HashMap<&str, usize> = HashMap::new();
    for (k, record) in records.iter().enumerate() {
        for link in &record.studies {
            owner.insert(&link.study_instance_uid, k);
        }
        for name in record.patient.identifiers.iter().map(String::as_str).chain([record.id.reveal()]) {
            owner.entry(name).or_insert(k);
        }
    }
    let mut used = vec![false; records.len()];
    let mut out = Vec::new();
    for (study, pixels) in studies {
        let record = owner.get(study.study_instance_uid.as_str()).or_else(|| owner.get(study.patient.as_str())).copied();
        let known = record.map(|k| &records[k]);
        let charted = known.and_then(|r| r.studies.iter().find(|link| link.study_instance_uid == study.study_instance_uid)?.started);
        let time = study.time.or(charted);
        if let Some(k) = record {
            used[k] = true;
        }
        let features = match (known, time) {
            (Some(record), Some(time)) => features(record, time, exported),
            _ => None,
        };
        out.push(Prepared { id: ExampleId::of_study(&study.study_instance_uid), image: Some(pixels.clone()), record: features });
    }
    for (record, _) in records.iter().zip(used).filter(|(_, used)| !used) {
        if let Some(time) = record.events.last().map(|event| event.time)
            && let Some(row) = features(record, time, exported)
        {
            out.push(Prepared { id: ExampleId::of_patient(&record.id, time), image: None, record: Some(row) });
        }
    }
    out
}

fn features(record: &PatientRecord, time: Time, exported: &Exported) -> Option<Vec<f32>> {
    let plan: &FeaturePlan = exported.features.as_ref()?;
    let patient: PatientId = record.id.clone();
    let id = ExampleId::of_patient(&patient, time);
    let example = Example::new(id, patient, time, None, Some(record), exported.history_days).ok()?;
    let mut row = vec![f32::NAN; plan.features.len()];
    plan.row(&example, &record.patient, &mut row).then_some(row)
}

fn infer(session: &mut Session, exported: &Exported, example: &Prepared, hash: &str) -> anyhow::Result<serde_json::Value> {
    let mut inputs: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    if let Some(p) = &exported.preparation {
        let values = example.image.clone().unwrap_or_else(|| vec![0.0; p.n_values()]);
        inputs.push(("image".to_owned(), vec![1, p.channels, p.size, p.size], values));
        inputs.push((presence_input("image"), vec![1, 1], vec![f32::from(u8::from(example.image.is_some()))]));
    }
    if let Some(plan) = &exported.features {
        let n = plan.features.len();
        let values = example.record.clone().unwrap_or_else(|| vec![f32::NAN; n]);
        inputs.push(("record".to_owned(), vec![1, n], values));
        inputs.push((presence_input("record"), vec![1, 1], vec![f32::from(u8::from(example.record.is_some()))]));
    }
    let views: Vec<_> = inputs.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice())).collect();
    let outputs = session.run(&views)?;
    let of_task = |task: &Task| {
        let values = outputs.iter().find(|(name, ..)| *name == task.name).map(|(_, _, values)| values)?;
        let by_class: serde_json::Map<String, serde_json::Value> =
            task.classes.iter().zip(values).map(|(class, p)| (class.clone(), json!(p))).collect();
        Some((task.name.clone(), serde_json::Value::Object(by_class)))
    };
    let tasks: serde_json::Map<String, serde_json::Value> = exported.tasks.iter().filter_map(of_task).collect();
    let sets: serde_json::Map<String, serde_json::Value> = exported
        .tasks
        .iter()
        .zip(&exported.conformal)
        .filter_map(|(task, sets)| prediction_set(task, sets.as_ref()?, &outputs, example))
        .collect();
    Ok(json!({
        "example": example.id.as_str(),
        "present": { "image": example.image.is_some(), "record": example.record.is_some() },
        "probabilities": tasks,
        "prediction_sets": sets,
        "model": hash,
    }))
}

/// The classes that are not excluded at the set's coverage: by the quantile of all classes for what the example has, and by a
/// quantile a class.
fn prediction_set(
    task: &Task,
    sets: &ConformalSets,
    outputs: &[synovia_onnx::OutputArray],
    example: &Prepared,
) -> Option<(String, serde_json::Value)> {
    let probabilities = outputs.iter().find(|(name, ..)| *name == task.name).map(|(_, _, values)| values)?;
    let pattern = ModalityPattern::of(example.image.is_some(), example.record.is_some())?;
    let names = label_names(task);
    let named = |class_conditional| -> Vec<&String> {
        sets.set(probabilities, pattern, class_conditional).into_iter().filter_map(|class| names.get(class)).collect()
    };
    let n = sets.patterns.iter().find(|q| q.pattern == pattern).map_or(0, |q| q.n);
    let set = json!({
        "coverage": sets.coverage,
        "classes": named(false),
        "classes_by_class": named(true),
        "pattern": pattern.as_str(),
        "calibrated_on": n,
    });
    Some((task.name.clone(), set))
}
