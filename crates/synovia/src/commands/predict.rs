//! `synovia predict`: an exported file, images and records to a JSON line an example. Uses nothing but the file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use synovia_cohort::{Example, ExampleId, PatientId, PatientRecord, Rejected, RejectedLog, Study, Task, Time};
use synovia_evaluation::{ConformalSets, ModalityPattern, label_names};
use synovia_images::{ImagesError, Login, Places, Preparation, Server, Source};
use synovia_onnx::{Session, presence_input};
use synovia_records::{FeaturePlan, FormatConfig, RecordStore};

use super::Context;
use crate::cli::PredictArgs;
use crate::failure::{UsageError, print};
use crate::pipeline::address;
use crate::stages::export::{Exported, METADATA};
use crate::stages::link::{self, Links};

/// One example's inputs.
struct Prepared {
    id: ExampleId,
    image: Option<Vec<f32>>,
    record: Option<Vec<f32>>,
}

/// Prints a JSON line an example; what was not taken goes to stderr, and what is wrong with all of it is an error.
pub fn predict(args: &PredictArgs, context: &Context) -> anyhow::Result<()> {
    context.use_threads(None)?;
    let bytes =
        std::fs::read(&args.model).with_context(|| format!("{}: give a model.onnx that `synovia export` wrote", args.model.display()))?;
    let hash = hex::encode(Sha256::digest(&bytes));
    let mut session = Session::from_bytes(&bytes, context.global.threads).with_context(|| args.model.display().to_string())?;
    let metadata: HashMap<String, String> = session.metadata()?.into_iter().collect();
    let text = metadata
        .get(METADATA)
        .with_context(|| format!("{}: not exported by synovia: its metadata has no `{METADATA}`", args.model.display()))?;
    let exported: Exported = serde_json::from_str(text).with_context(|| format!("{}: metadata `{METADATA}`", args.model.display()))?;

    let log = RejectedLog::to_writer(Box::new(std::io::stderr()));
    let scratch = tempfile::tempdir().context("a temporary folder")?;
    let pictures = match (&args.images, exported.preparation.as_ref()) {
        (Some(path), Some(preparation)) => Pictures::find(path, preparation, &exported, scratch.path(), &log)?,
        (Some(_), None) => return Err(UsageError("this model looks at records only; leave --images out".to_owned()).into()),
        _ => Pictures::default(),
    };
    let store = match (&args.records, exported.records.as_ref()) {
        (Some(path), Some(format)) => Some(records(path, format, args.images.is_some(), scratch.path(), &log)?),
        (Some(_), None) => return Err(UsageError("this model looks at images only; leave --records out".to_owned()).into()),
        _ => None,
    };
    let mut n_examples = 0;
    for_each_example(&pictures, store.as_ref(), &exported, &log, context, &mut |example| {
        n_examples += 1;
        print(infer(&mut session, &exported, &example, &hash)?)
    })?;
    if n_examples == 0 {
        bail!("no image and no record that could be read; the reasons are above");
    }
    Ok(())
}

/// The studies to predict on. Their pixels are read one study at a time.
#[derive(Default)]
struct Pictures<'a> {
    root: PathBuf,
    studies: Vec<Study>,
    preparation: Option<&'a Preparation>,
}

impl<'a> Pictures<'a> {
    /// Of a folder, or of a file: what a file is taken for does not depend on how it is given.
    fn find(path: &Path, preparation: &'a Preparation, exported: &Exported, scratch: &Path, log: &RejectedLog) -> anyhow::Result<Self> {
        let kind = exported.image_kind.context("the model's metadata does not say what its images are")?.into();
        let copies = scratch.join("copies");
        let source = match address(path) {
            Some(url) => Source::server(Server::new(url, Login::None, Vec::new()).map_err(ImagesError::Server)?),
            // A file that is no DICOMDIR and no archive is an image.
            None if path.is_file() => match Source::open(path) {
                Ok(source) => source,
                Err(_) => Source::open(&folder_of_one(path, scratch)?)?,
            },
            None => Source::open(path)?,
        };
        let mut studies = Vec::new();
        source.scan_into(kind, &exported.selection, Places { copies: &copies, scratch }, log, &|_| (), &mut |study| {
            studies.push(study);
            Ok(())
        })?;
        let root = source.root(&copies).to_owned();
        Ok(Self { root, studies, preparation: Some(preparation) })
    }

    fn load(&self, study: usize, log: &RejectedLog) -> Option<Vec<f32>> {
        synovia_images::load(&self.root, &self.studies[study], self.preparation?).map_err(|rejected| log.push(&rejected)).ok()
    }
}

/// A folder in which there is a link to the file and nothing else.
fn folder_of_one(file: &Path, scratch: &Path) -> anyhow::Result<PathBuf> {
    let folder = scratch.join("image");
    let link = || {
        std::fs::create_dir(&folder)?;
        std::os::unix::fs::symlink(file.canonicalize()?, folder.join(file.file_name().unwrap_or_default()))
    };
    link().with_context(|| file.display().to_string())?;
    Ok(folder)
}

/// The records in `path`. A table needs the column that names the pictures only when there are pictures.
fn records(path: &Path, format: &FormatConfig, with_images: bool, spill: &Path, log: &RejectedLog) -> anyhow::Result<RecordStore> {
    let mut format = format.clone();
    if let Some(layout) = format.csv.as_mut().filter(|_| !with_images) {
        layout.image = None;
    }
    Ok(synovia_records::ingest(path, &format, &spill.join("records"), log, &|_| ())?)
}

/// Calls `f` with the examples that the cohort stage would make; then with each image alone that no record is of. A record
/// that knows of no study comes at its last event. What gives no example goes to `log`.
fn for_each_example(
    pictures: &Pictures<'_>,
    store: Option<&RecordStore>,
    exported: &Exported,
    log: &RejectedLog,
    context: &Context,
    f: &mut dyn FnMut(Prepared) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut alone: Vec<usize> = (0..pictures.studies.len()).collect();
    if let Some(store) = store {
        let links: Links = link::link(&pictures.studies, store)?;
        for (reason, n) in &links.failed {
            context.progress.note("predict", &format!("{n} studies are not linked to a record: {reason}"));
        }
        alone.retain(|&k| links.owners[k].is_none());
        let by_patient = links.by_patient();
        let timeless = exported.records.as_ref().is_some_and(FormatConfig::is_timeless);
        for partition in 0..store.n_partitions() {
            for record in store.load(partition)? {
                let of_patient = by_patient.get(&record.id).map_or(&[][..], Vec::as_slice);
                let moments = exported.anchor.moments(&links, &record, of_patient, &pictures.studies, timeless);
                let left = of_patient.iter().filter(|&&k| !moments.iter().any(|(_, _, study)| *study == Some(k)));
                if moments.is_empty() || (exported.anchor.is_study() && !timeless) {
                    // An image whose time nobody knows can't be put beside a history.
                    alone.extend(left);
                } else {
                    let reason = "the model's examples of this patient are not on this image";
                    left.for_each(|&k| log.push(&Rejected::new(&pictures.studies[k].file, "", reason)));
                }
                let last = record.events.last().filter(|_| moments.is_empty()).map(|event| event.time);
                let last = last.map(|time| (ExampleId::of_patient(&record.id, time), time, None));
                let mut is_answered = !of_patient.is_empty() && moments.is_empty();
                for (id, time, study) in moments.into_iter().chain(last) {
                    let row = features(&record, time, exported);
                    let image = study.and_then(|k| pictures.load(k, log));
                    if image.is_some() || row.is_some() {
                        is_answered = true;
                        f(Prepared { id, image, record: row })?;
                    }
                }
                if !is_answered {
                    let patient = format!("patient {}", record.id.pseudonym());
                    log.push(&Rejected::new("records", patient, "nothing is known of the patient at the prediction time"));
                }
            }
        }
    }
    for k in alone {
        if let Some(image) = pictures.load(k, log) {
            f(Prepared { id: ExampleId::of_study(&pictures.studies[k].study_instance_uid), image: Some(image), record: None })?;
        }
    }
    Ok(())
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
