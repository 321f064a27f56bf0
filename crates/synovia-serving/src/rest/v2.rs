//! The Open Inference Protocol but for inference: server, models, repository.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use synovia_onnx::TensorInfo;
use utoipa::ToSchema;

use super::{Name, Target};
use crate::app::App;
use crate::batch::{FP32, shape_of, shown};
use crate::body;
use crate::client::Caller;
use crate::error::{LoadError, Refusal};
use crate::model::Model;
use crate::repository::Listed;
use crate::statistics::{OfBatch, Tally};

/// What the server calls itself.
pub(crate) const SERVER: &str = "synovia";
/// Parts of the protocol beyond its core.
pub(crate) const EXTENSIONS: [&str; 4] = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];
/// What runs the models, by the protocol's name.
pub(crate) const PLATFORM: &str = "onnxruntime_onnx";

/// The server.
#[derive(Serialize, ToSchema)]
pub(super) struct Server {
    name: &'static str,
    version: &'static str,
    /// Parts of the protocol beyond its core.
    extensions: Vec<&'static str>,
}

pub(super) async fn server() -> Json<Server> {
    Json(Server { name: SERVER, version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS.to_vec() })
}

/// Whether the server runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Live {
    live: bool,
}

pub(super) async fn live() -> Json<Live> {
    Json(Live { live: true })
}

/// Whether the server should be asked.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    ready: bool,
}

pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = app.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready })).into_response()
}

/// A model.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelMetadata {
    name: String,
    /// Those that are loaded.
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

/// An input or output.
#[derive(Serialize, ToSchema)]
struct TensorMetadata {
    name: String,
    datatype: &'static str,
    /// Sizes; -1 for any.
    shape: Vec<i64>,
}

pub(super) async fn model(State(app): State<Arc<App>>, Target(model): Target) -> Json<ModelMetadata> {
    let tensor = |info: &TensorInfo| TensorMetadata { name: info.name.clone(), datatype: FP32, shape: shape_of(info) };
    Json(ModelMetadata {
        name: model.name.clone(),
        versions: app.repository.versions(&model.name),
        platform: PLATFORM,
        inputs: model.inputs.iter().map(tensor).collect(),
        outputs: model.outputs.iter().map(tensor).collect(),
    })
}

/// Whether a model answers.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelReady {
    name: String,
    ready: bool,
}

pub(super) async fn model_ready(Target(model): Target) -> Json<ModelReady> {
    Json(ModelReady { name: model.name.clone(), ready: true })
}

/// The largest batch, as a configuration says it: 0 for none, and then sizes hold the first one too.
pub(crate) fn max_batch_size(model: &Model) -> usize {
    if model.is_batchable { model.max_batch } else { 0 }
}

/// Sizes of a tensor as a configuration says them.
pub(crate) fn dims_of(model: &Model, info: &TensorInfo) -> Vec<i64> {
    shape_of(info).split_off(usize::from(model.is_batchable))
}

/// A model's configuration, as Triton has it.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelConfig {
    name: String,
    platform: &'static str,
    backend: &'static str,
    /// 0 for a model that takes no batches.
    max_batch_size: usize,
    input: Vec<TensorConfig>,
    output: Vec<TensorConfig>,
    default_model_filename: &'static str,
}

/// An input or output.
#[derive(Serialize, ToSchema)]
struct TensorConfig {
    name: String,
    data_type: &'static str,
    /// Sizes without that of the batch; -1 for any.
    dims: Vec<i64>,
}

pub(super) async fn config(Target(model): Target) -> Json<ModelConfig> {
    let tensor = |info: &TensorInfo| TensorConfig { name: info.name.clone(), data_type: "TYPE_FP32", dims: dims_of(&model, info) };
    Json(ModelConfig {
        name: model.name.clone(),
        platform: PLATFORM,
        backend: "onnxruntime",
        max_batch_size: max_batch_size(&model),
        input: model.inputs.iter().map(tensor).collect(),
        output: model.outputs.iter().map(tensor).collect(),
        default_model_filename: "model.onnx",
    })
}

/// What is counted of models.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelStatistics {
    model_stats: Vec<OfModel>,
}

/// What is counted of a model; times in nanoseconds.
#[derive(Serialize, ToSchema)]
struct OfModel {
    name: String,
    version: String,
    /// Milliseconds since 1970.
    last_inference: u64,
    /// Examples.
    inference_count: u64,
    /// Runs.
    execution_count: u64,
    inference_stats: OfRequests,
    batch_stats: Vec<OfSize>,
}

/// What is counted a request each.
#[derive(Serialize, ToSchema)]
struct OfRequests {
    success: Tally,
    fail: Tally,
    queue: Tally,
    compute_input: Tally,
    compute_infer: Tally,
    compute_output: Tally,
    cache_hit: Tally,
    cache_miss: Tally,
}

/// What is counted of batches of a size.
#[derive(Serialize, ToSchema)]
struct OfSize {
    batch_size: usize,
    #[serde(flatten)]
    of: OfBatch,
}

fn statistics_of(model: &Model) -> OfModel {
    let counts = model.statistics.counts();
    let OfBatch { compute_input, compute_infer, compute_output } = counts.compute;
    OfModel {
        name: model.name.clone(),
        version: model.version.to_string(),
        last_inference: counts.last_inference,
        inference_count: counts.inference_count,
        execution_count: counts.execution_count,
        inference_stats: OfRequests {
            success: counts.success,
            fail: counts.fail,
            queue: counts.queue,
            compute_input,
            compute_infer,
            compute_output,
            cache_hit: Tally::default(),
            cache_miss: Tally::default(),
        },
        batch_stats: counts.by_batch.iter().map(|(&batch_size, &of)| OfSize { batch_size, of }).collect(),
    }
}

pub(super) async fn statistics(Target(model): Target) -> Json<ModelStatistics> {
    Json(ModelStatistics { model_stats: vec![statistics_of(&model)] })
}

pub(super) async fn all_statistics(State(app): State<Arc<App>>) -> Json<ModelStatistics> {
    Json(ModelStatistics { model_stats: app.repository.loaded().iter().map(|model| statistics_of(model)).collect() })
}

/// What is asked of the folder of models.
#[derive(Default, Deserialize, ToSchema)]
pub(super) struct Asked {
    /// Only those that are ready.
    #[serde(default)]
    ready: bool,
    /// None are known.
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: serde_json::Map<String, Value>,
}

/// A small JSON body, or none.
async fn asked(app: &App, headers: &HeaderMap, body: Body) -> Result<Asked, Refusal> {
    let (bytes, _held) = body::read(app, headers, body).await?;
    if bytes.is_empty() {
        return Ok(Asked::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| Refusal::bad(format!("the body is not the JSON that is asked for: {}", place(&error))))
}

/// Where JSON is wrong, without a word of what it holds.
pub(super) fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a value is missing or of another kind",
        _ => "not JSON",
    };
    format!("{what}, line {} column {}", error.line(), error.column())
}

pub(super) async fn index(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Json<Vec<Listed>>, Refusal> {
    let asked = asked(&app, &headers, body).await?;
    let mut listed = body::off_thread(move || Ok(app.repository.index())).await?;
    listed.retain(|line| !asked.ready || line.state == "READY");
    Ok(Json(listed))
}

/// Loads a model, and says how it went.
pub(crate) async fn load_model(app: Arc<App>, name: String, caller: Caller) -> Result<(), Refusal> {
    app.audit(json!({ "event": "load", "client": *caller.name, "protocol": caller.protocol, "model": shown(&name) })).await?;
    body::off_thread(move || {
        let outcome = app.repository.load(&name);
        let reason = outcome.as_ref().err().map(ToString::to_string);
        // What the folder has no model of is a client's word.
        if !matches!(outcome, Err(LoadError::Name | LoadError::Absent)) {
            app.log.event("load", json!({ "model": name, "failure": reason }));
        }
        outcome.map_err(|error| match error {
            LoadError::Absent => Refusal::NotFound(error.to_string()),
            error => Refusal::bad(error.to_string()),
        })
    })
    .await
}

/// Takes a model out of service.
pub(crate) async fn unload_model(app: &Arc<App>, name: &str, caller: &Caller) -> Result<(), Refusal> {
    app.audit(json!({ "event": "unload", "client": *caller.name, "protocol": caller.protocol, "model": shown(name) })).await?;
    app.repository.unload(name)?;
    app.log.event("unload", json!({ "model": name }));
    Ok(())
}

/// That it is done.
#[derive(Serialize, ToSchema)]
pub(super) struct Nothing {}

pub(super) async fn load(
    State(app): State<Arc<App>>,
    Name(name): Name,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Nothing>, Refusal> {
    if !asked(&app, &headers, body).await?.parameters.is_empty() {
        return Err(Refusal::bad("a model is loaded as the folder has it; leave the parameters out"));
    }
    load_model(app, name, caller).await?;
    Ok(Json(Nothing {}))
}

pub(super) async fn unload(
    State(app): State<Arc<App>>,
    Name(name): Name,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Nothing>, Refusal> {
    unload_model(&app, &name, &caller).await?;
    Ok(Json(Nothing {}))
}
