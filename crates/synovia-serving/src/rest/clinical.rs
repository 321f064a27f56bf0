//! `POST /v1/models/{model}/predict`: images and records as they are to probabilities, by the way that `synovia predict` goes.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Value, json};
use synovia_cohort::RejectedLog;
use synovia_images::{ImageKind, ImagesError, Source};
use synovia_onnx::OutputArray;
use synovia_pacs::{Archive, ArchiveError, Said, Stored};
use synovia_prediction::{Answer, Exported, OutOfRange, Pictures, PredictionError, Prepared, for_each_example, records};
use synovia_records::{FeaturePlan, Format};
use utoipa::ToSchema;

use super::explain::Explained;
use super::multipart::{Kind, Part, Upload, upload};
use super::{Served, Target, fhir};
use crate::app::App;
use crate::batch::{Fitting, Output, Values};
use crate::body::{self, Held};
use crate::client::Caller;
use crate::error::Refusal;
use crate::log::Log;
use crate::model::Model;
use crate::scratch::Scratch;

/// Predictions of one request.
const MAX_EXAMPLES: usize = 1024;
/// Rejections that are told; of more only the number.
const MAX_TOLD: usize = 1000;

/// The model's metadata, where it is one of ours.
pub(super) fn exported(model: &Model) -> Result<&Exported, Refusal> {
    let other = || Refusal::bad("this model was not exported by synovia: only its tensors are served, at /v2/models/…/infer");
    model.exported.as_ref().ok_or_else(other)
}

/// The model that answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Who {
    pub name: String,
    pub version: String,
    /// Of the file.
    pub sha256: String,
}

impl Who {
    pub(super) fn of(model: &Model) -> Self {
        Self { name: model.name.clone(), version: model.version.to_string(), sha256: model.sha256.clone() }
    }
}

/// What a model was made of and looks at.
#[derive(Serialize, ToSchema)]
pub(super) struct Description {
    model: Who,
    pipeline: String,
    /// Of the source that trained it.
    commit: String,
    /// SHA-256 of the weights.
    weights: String,
    /// SHA-256 of the training cohort.
    cohort: String,
    tasks: Vec<Value>,
    /// Outputs that are numbers and not probabilities: name, kind, and what each value is.
    endpoints: Vec<Value>,
    /// How an image is prepared; null for a model without.
    image: Option<Value>,
    /// Features with codes and units; null for a model without records.
    record: Option<Vec<Value>>,
    intended_use: String,
}

pub(super) async fn describe(Target(model): Target) -> Result<Json<Description>, Refusal> {
    let exported = exported(&model)?;
    Ok(Json(Description {
        model: Who::of(&model),
        pipeline: exported.name.clone(),
        commit: exported.commit.clone(),
        weights: exported.weights.clone(),
        cohort: exported.cohort.clone(),
        tasks: exported.tasks.iter().map(|task| json!(task)).collect(),
        endpoints: exported.endpoints.iter().map(|endpoint| json!(endpoint)).collect(),
        image: exported.preparation.as_ref().map(|preparation| json!(preparation)),
        record: exported.features.as_ref().map(|plan| FeaturePlan::specs(plan).iter().map(|spec| json!(spec)).collect()),
        intended_use: exported.intended_use.clone(),
    }))
}

/// Predictions.
#[derive(Serialize, ToSchema)]
pub(super) struct Predicted {
    pub model: Who,
    pub predictions: Vec<Prediction>,
    /// What was not taken, where it stands and why.
    pub rejected: Vec<Value>,
    /// Studies that no record is of, by reason.
    pub unlinked: Vec<Value>,
    pub intended_use: String,
}

/// One of them.
#[derive(Serialize, ToSchema)]
pub(super) struct Prediction {
    #[serde(flatten)]
    pub answer: Answer,
    /// Features beyond the middle 98 % of the training's records; not there where the model does not know them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_range: Option<Vec<OutOfRange>>,
    /// What drove it, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explained>,
    /// The report of it in the image archive, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Report>,
}

/// A DICOM structured report beside the images.
#[derive(Serialize, ToSchema)]
pub(super) struct Report {
    study_instance_uid: String,
    series_instance_uid: String,
    pub sop_instance_uid: String,
}

/// What was read of a request.
struct Readings {
    /// What was put aside, still there: removing it may take as long as reading it did.
    scratch: Scratch,
    examples: Vec<Prepared>,
    rejected: Vec<Value>,
    unlinked: Vec<Value>,
}

/// The lines of a log, in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// The rejections, and the number of those that are not told.
    fn told(&self) -> (Vec<Value>, usize) {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = || bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
        let told: Vec<Value> = lines().take(MAX_TOLD).filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let n_untold = lines().count() - told.len();
        (told, n_untold)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The ending by which a file of records is known for what it is: NDJSON has a whole value on its first line, and more behind it.
fn ending(format: Format, bytes: &[u8]) -> Result<&'static str, Refusal> {
    match format {
        Format::Csv => Ok("csv"),
        Format::Fhir => {
            let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
            let has_more = bytes[end..].iter().any(|b| !b.is_ascii_whitespace());
            let is_whole = has_more && serde_json::from_slice::<serde::de::IgnoredAny>(&bytes[..end]).is_ok();
            Ok(if is_whole { "ndjson" } else { "json" })
        }
        Format::Meds | Format::Omop => {
            Err(Refusal::bad("this model was trained on records in MEDS or OMOP, which are not taken by upload"))
        }
    }
}

/// An archive of files, by its first bytes.
fn is_zip(part: &Part) -> bool {
    part.kind == Kind::Image && part.bytes.starts_with(b"PK\x03\x04")
}

/// Reads what was uploaded by the way of `synovia predict`, in a folder that is removed afterwards.
fn prepare(exported: &Exported, upload: Upload, archive: Option<&Archive>, server_log: Log) -> Result<Readings, Refusal> {
    let Upload { parts, study, .. } = upload;
    let broken = |_: std::io::Error| Refusal::Unavailable("there is no room for what was uploaded; try again later".to_owned());
    let has = |kind: Kind| parts.iter().any(|part| part.kind == kind);
    let is_zip = parts.iter().filter(|part| part.kind == Kind::Image).count() == 1 && parts.iter().any(is_zip);
    // What an archive sends is of any size, be it a server or a file; images are read where they are.
    let records = parts.iter().filter(|part| part.kind == Kind::Records).map(|part| part.bytes.len()).sum();
    let scratch = Scratch::new((study.is_none() && !is_zip).then_some(records)).map_err(broken)?;
    let has_images = has(Kind::Image) || study.is_some();
    if has_images && exported.preparation.is_none() {
        return Err(Refusal::bad("this model looks at records only; leave the images out"));
    }
    if has_images && exported.image_kind != Some(ImageKind::Dicom) {
        return Err(Refusal::bad("this model looks at pictures or volumes that are no DICOM; only DICOM is taken here"));
    }
    if has(Kind::Records) && exported.records.is_none() {
        return Err(Refusal::bad("this model looks at images only; leave the records out"));
    }
    let folder = scratch.path().join("records");
    let documents = has(Kind::Records).then_some(folder.as_path());
    let zip = scratch.path().join("images.zip");
    documents.map_or(Ok(()), std::fs::create_dir).map_err(broken)?;
    let (mut images, mut n_records) = (Vec::new(), 0);
    for Part { kind, bytes } in parts {
        match (kind, exported.records.as_ref()) {
            (Kind::Records, Some(format)) => {
                let ending = ending(format.format, &bytes)?;
                n_records += 1;
                std::fs::write(folder.join(format!("{n_records:04}.{ending}")), &bytes).map_err(broken)?;
            }
            _ if is_zip => std::fs::write(&zip, &bytes).map_err(broken)?,
            _ => images.push((format!("{:04}.dcm", images.len() + 1), bytes)),
        }
    }
    let images = match (&study, archive) {
        (Some(uid), Some(archive)) => Some(archive.study(uid)?),
        _ if is_zip => Some(Source::open(&zip).map_err(PredictionError::from)?),
        _ if !images.is_empty() => Some(Source::memory(images)),
        _ => None,
    };
    let lines = Lines::default();
    let log = RejectedLog::to_writer(Box::new(lines.clone()));
    let (mut examples, mut unlinked) = (Vec::new(), Vec::new());
    let pictures = images.map(|source| Pictures::of(source, exported, scratch.path(), &log)).transpose();
    let tell = |error: &PredictionError| {
        if let PredictionError::Images(ImagesError::Server(error)) = error {
            server_log.event("archive", json!({ "error": error.to_string() }));
        }
    };
    let pictures = pictures.inspect_err(tell)?.unwrap_or_default();
    predictable(exported, &pictures, documents, scratch.path(), &log, &mut examples, &mut unlinked)?;
    let (mut rejected, n_untold) = lines.told();
    if is_zip {
        // Names in an archive may be patients'.
        rejected.iter_mut().for_each(|rejection| rejection["source"] = json!("0001.zip"));
    }
    if n_untold > 0 {
        rejected.push(json!({ "source": "", "position": "", "reason": format!("and {n_untold} more") }));
    }
    Ok(Readings { scratch, examples, rejected, unlinked })
}

/// What is wrong with all of an upload.
impl From<PredictionError> for Refusal {
    fn from(error: PredictionError) -> Self {
        match error {
            // Their texts hold addresses and paths of the server.
            PredictionError::Images(ImagesError::Server(_)) => Self::archive(),
            error if error.is_full() => Self::Unavailable("there is no room for what was uploaded; try again later".to_owned()),
            PredictionError::Io { .. } | PredictionError::Images(_) | PredictionError::Records(_) => {
                Self::bad("what was uploaded can't be read as the images and records of this model")
            }
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<ArchiveError> for Refusal {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Server(_) | ArchiveError::Report(_) => Self::archive(),
            error => Self::bad(error.to_string()),
        }
    }
}

fn predictable(
    exported: &Exported,
    pictures: &Pictures<'_>,
    documents: Option<&Path>,
    scratch: &Path,
    log: &RejectedLog,
    examples: &mut Vec<Prepared>,
    unlinked: &mut Vec<Value>,
) -> Result<(), Refusal> {
    let store = match exported.records.as_ref().zip(documents) {
        Some((format, folder)) => Some(records(folder, format, pictures.are_some(), scratch, log)?),
        None => None,
    };
    let mut unlinked = |n: u64, reason: &str| unlinked.push(json!({ "studies": n, "reason": reason }));
    for_each_example(pictures, store.as_ref(), exported, log, &mut unlinked, &mut |example| {
        if examples.len() == MAX_EXAMPLES {
            return Err(Refusal::bad(format!("more than {MAX_EXAMPLES} predictions; ask for fewer at a time")));
        }
        examples.push(example);
        Ok(())
    })
}

/// All examples as one request to the model.
pub(super) fn rows(model: &Model, exported: &Exported, examples: &[Prepared]) -> Result<Fitting, Refusal> {
    let differs = || Refusal::Unavailable("the model's inputs are not those that its metadata speak of; export it again".to_owned());
    let mut values: Vec<Vec<f32>> = vec![Vec::new(); model.inputs.len()];
    let mut shapes = vec![Vec::new(); model.inputs.len()];
    for example in examples {
        let inputs = exported.inputs(example);
        if !model.is_batchable || inputs.len() != model.inputs.len() {
            return Err(differs());
        }
        for (name, shape, row) in inputs {
            let k = model.inputs.iter().position(|info| info.name == name).ok_or_else(differs)?;
            let fits = shape.len() == model.inputs[k].shape.len()
                && shape[1..].iter().zip(&model.inputs[k].shape[1..]).all(|(got, expected)| expected.is_none_or(|size| size == *got));
            if !fits {
                return Err(differs());
            }
            shapes[k] = [&[examples.len()], &shape[1..]].concat();
            values[k].extend(row);
        }
    }
    Ok(Fitting { rows: examples.len(), shapes, values: values.into_iter().map(Values::Floats).collect() })
}

/// One example's row of each output.
pub(super) fn row(model: &Model, outputs: &[Output], k: usize) -> Vec<OutputArray> {
    let of = |output: &Output| {
        let mut shape = output.shape.clone();
        let n = output.values.len() / shape.first().copied().unwrap_or(1).max(1);
        if let Some(rows) = shape.first_mut() {
            *rows = 1;
        }
        (shape, output.values[k * n..(k + 1) * n].to_vec())
    };
    model
        .outputs
        .iter()
        .zip(outputs)
        .map(|(info, output)| (of(output), info))
        .map(|((shape, values), info)| (info.name.clone(), shape, values))
        .collect()
}

/// A probability as it is said to people.
pub(super) fn percent(p: f32) -> String {
    match p {
        p if p > 0.0 && p < 0.001 => "below 0.1 %".to_owned(),
        p if p > 0.999 && p < 1.0 => "above 99.9 %".to_owned(),
        p => format!("{:.1} %", p * 100.0),
    }
}

/// What came of an upload.
pub(super) enum Outcome {
    Predicted(Box<Predicted>),
    /// Nothing of it could be used.
    Unusable(Refusal, Vec<Value>),
}

/// Predictions on what was uploaded.
pub(super) async fn answer(
    app: &Arc<App>,
    model: &Arc<Model>,
    caller: &Caller,
    upload: Upload,
    held: Held,
    deadline: Instant,
) -> Result<Outcome, Refusal> {
    // Who waits for the archive keeps nobody from work.
    let turns = if upload.study.is_some() { &app.fetching } else { &app.preparing };
    let turn = turns.clone().acquire_owned().await.map_err(|_| Refusal::Late)?;
    let (of, with) = (Arc::clone(model), Arc::clone(app));
    let (study, store, explain, has_subject) = (upload.study.clone(), upload.store, upload.explain, upload.subject.is_some());
    // The turn is over when the work is, whether somebody still waits for it or not.
    let prepared = body::off_thread(move || {
        let (_turn, _held) = (turn, held);
        prepare(exported(&of)?, upload, with.settings.pacs.as_ref().map(|pacs| &pacs.archive), with.log)
    });
    let span = caller.span.map(|span| span.within());
    let prepared = prepared.await;
    app.traces.end(span, "prepare", false, prepared.is_err(), &[]);
    let Readings { scratch, examples, rejected, unlinked } = prepared?;
    tokio::task::spawn_blocking(|| drop(scratch));
    if examples.is_empty() {
        let refusal = Refusal::bad("no image and no record of it could be used; `rejected` says why");
        return Ok(Outcome::Unusable(refusal, rejected));
    }
    // Who names a study wants to know of it, and not of the record alone.
    if study.is_some() && examples.iter().all(|example| example.image.is_none()) {
        let refusal = Refusal::bad("the image archive has no image of this study that the model could use; `rejected` says why");
        return Ok(Outcome::Unusable(refusal, rejected));
    }
    // Of several, some may be somebody else's. Before anything is stored.
    if (explain || has_subject) && examples.len() > 1 {
        return Err(Refusal::bad(format!("`explain` and `subject` are of one prediction at a time, and these are {}", examples.len())));
    }
    let exported = exported(model)?;
    let outputs = app.infer(model, caller, "prediction", rows(model, exported, &examples)?, deadline, None).await?;
    let mut predictions = Vec::with_capacity(examples.len());
    for (k, example) in examples.iter().enumerate() {
        let answer = exported.answer(example, &row(model, &outputs, k));
        let out_of_range = (!exported.feature_ranges.is_empty()).then(|| exported.out_of_range(example));
        let explanation = if explain { Some(super::explain::explain(app, model, caller, example, deadline).await?) } else { None };
        // Last: what is stored is not taken back.
        let stored = match study.as_ref().filter(|_| store && example.image.is_some()) {
            Some(uid) => Some(give_back(app, model, uid, &answer).await?),
            None => None,
        };
        predictions.push(Prediction { answer, out_of_range, explanation, stored });
    }
    let model = Who::of(model);
    Ok(Outcome::Predicted(Box::new(Predicted { model, predictions, rejected, unlinked, intended_use: exported.intended_use.clone() })))
}

pub(super) async fn predict(
    State(app): State<Arc<App>>,
    Target(model): Target,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let deadline = app.deadline();
    exported(&model)?;
    let _place = app.uploads.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
    let (upload, held) = upload(&app, &headers, body).await?;
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let in_fhir = accepts.contains(fhir::CONTENT_TYPE);
    let subject = upload.subject.clone();
    if in_fhir && upload.explain {
        return Err(Refusal::bad("an answer in FHIR has no place for an explanation: leave `explain` out, or ask for JSON"));
    }
    let predicted = match answer(&app, &model, &caller, upload, held, deadline).await? {
        Outcome::Predicted(predicted) => predicted,
        Outcome::Unusable(refusal, rejected) => return Ok(refusal.response(Some(("rejected", json!(rejected))))),
    };
    let mut response = if in_fhir {
        let bundle = fhir::bundle(&predicted, subject.as_deref());
        ([(header::CONTENT_TYPE, fhir::CONTENT_TYPE)], bundle.to_string()).into_response()
    } else {
        Json(predicted).into_response()
    };
    response.extensions_mut().insert(Served(Arc::clone(&model)));
    Ok(response)
}

/// A report of the answer into the image archive.
async fn give_back(app: &Arc<App>, model: &Arc<Model>, uid: &str, answer: &Answer) -> Result<Report, Refusal> {
    let (app, model, uid, answer) = (Arc::clone(app), Arc::clone(model), uid.to_owned(), answer.clone());
    body::off_thread(move || {
        let pacs = app.settings.pacs.as_ref().ok_or_else(Refusal::archive)?;
        let version = model.version.to_string();
        let said = Said {
            answer: &answer,
            model: &model.name,
            version: &version,
            sha256: &model.sha256,
            intended_use: &exported(&model)?.intended_use,
            at: chrono::Local::now(),
        };
        let stored =
            pacs.archive.store(&uid, &said).inspect_err(|error| app.log.event("archive", json!({ "error": error.to_string() })))?;
        let Stored { study_instance_uid, series_instance_uid, sop_instance_uid } = stored;
        Ok(Report { study_instance_uid, series_instance_uid, sop_instance_uid })
    })
    .await
}
