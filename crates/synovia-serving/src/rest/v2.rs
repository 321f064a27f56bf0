//! The Open Inference Protocol but for inference: server, models, repository.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use synovia_onnx::TensorInfo;

use super::{Name, Target};
use crate::app::App;
use crate::batch::{FP32, shape_of};
use crate::body;
use crate::error::{LoadError, Refusal};
use crate::model::Model;

/// What the server calls itself.
pub(crate) const SERVER: &str = "synovia";
/// Parts of the protocol beyond its core.
pub(crate) const EXTENSIONS: [&str; 4] = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];
/// What runs the models, by the protocol's name.
pub(crate) const PLATFORM: &str = "onnxruntime_onnx";

pub(super) async fn server() -> Json<Value> {
    Json(json!({ "name": SERVER, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS }))
}

pub(super) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let is_ready = app.is_ready();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": is_ready }))).into_response()
}

pub(super) async fn model(State(app): State<Arc<App>>, Target(model): Target) -> Json<Value> {
    let tensor = |info: &TensorInfo| json!({ "name": info.name, "datatype": FP32, "shape": shape_of(info) });
    let tensors = |infos: &[TensorInfo]| infos.iter().map(tensor).collect::<Vec<_>>();
    Json(json!({
        "name": model.name, "versions": app.repository.versions(&model.name), "platform": PLATFORM,
        "inputs": tensors(&model.inputs), "outputs": tensors(&model.outputs),
    }))
}

pub(super) async fn model_ready(Target(model): Target) -> Json<Value> {
    Json(json!({ "name": model.name, "ready": true }))
}

/// The largest batch, as a configuration says it: 0 for none, and then sizes hold the first one too.
pub(crate) fn max_batch_size(model: &Model) -> usize {
    if model.is_batchable { model.max_batch } else { 0 }
}

/// Sizes of a tensor as a configuration says them.
pub(crate) fn dims_of(model: &Model, info: &TensorInfo) -> Vec<i64> {
    shape_of(info).split_off(usize::from(model.is_batchable))
}

pub(super) async fn config(Target(model): Target) -> Json<Value> {
    let tensor = |info: &TensorInfo| json!({ "name": info.name, "data_type": "TYPE_FP32", "dims": dims_of(&model, info) });
    let tensors = |infos: &[TensorInfo]| infos.iter().map(tensor).collect::<Vec<_>>();
    Json(json!({
        "name": model.name, "platform": PLATFORM, "backend": "onnxruntime", "max_batch_size": max_batch_size(&model),
        "input": tensors(&model.inputs), "output": tensors(&model.outputs), "default_model_filename": "model.onnx",
    }))
}

fn statistics_of(model: &Model) -> Value {
    let counts = model.statistics.counts();
    let none = json!({ "count": 0, "ns": 0 });
    let by_batch = counts.by_batch.iter().map(|(rows, of)| {
        json!({ "batch_size": rows, "compute_input": of.compute_input, "compute_infer": of.compute_infer, "compute_output": of.compute_output })
    });
    json!({
        "name": model.name, "version": model.version.to_string(), "last_inference": counts.last_inference,
        "inference_count": counts.inference_count, "execution_count": counts.execution_count,
        "inference_stats": {
            "success": counts.success, "fail": counts.fail, "queue": counts.queue, "compute_input": counts.compute.compute_input,
            "compute_infer": counts.compute.compute_infer, "compute_output": counts.compute.compute_output,
            "cache_hit": none, "cache_miss": none,
        },
        "batch_stats": by_batch.collect::<Vec<_>>(),
    })
}

pub(super) async fn statistics(Target(model): Target) -> Json<Value> {
    Json(json!({ "model_stats": [statistics_of(&model)] }))
}

pub(super) async fn all_statistics(State(app): State<Arc<App>>) -> Json<Value> {
    let all: Vec<Value> = app.repository.loaded().iter().map(|model| statistics_of(model)).collect();
    Json(json!({ "model_stats": all }))
}

#[derive(Default, Deserialize)]
struct Asked {
    #[serde(default)]
    ready: bool,
    #[serde(default)]
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

pub(super) async fn index(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Refusal> {
    let asked = asked(&app, &headers, body).await?;
    let mut listed = body::off_thread(move || Ok(app.repository.index())).await?;
    listed.retain(|line| !asked.ready || line.state == "READY");
    Ok(Json(json!(listed)))
}

/// Loads a model, and says how it went.
pub(crate) async fn load_model(app: Arc<App>, name: String) -> Result<(), Refusal> {
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
pub(crate) fn unload_model(app: &App, name: &str) -> Result<(), Refusal> {
    app.repository.unload(name)?;
    app.log.event("unload", json!({ "model": name }));
    Ok(())
}

pub(super) async fn load(State(app): State<Arc<App>>, Name(name): Name, headers: HeaderMap, body: Body) -> Result<Json<Value>, Refusal> {
    if !asked(&app, &headers, body).await?.parameters.is_empty() {
        return Err(Refusal::bad("a model is loaded as the folder has it; leave the parameters out"));
    }
    load_model(app, name).await?;
    Ok(Json(json!({})))
}

pub(super) async fn unload(State(app): State<Arc<App>>, Name(name): Name) -> Result<Json<Value>, Refusal> {
    unload_model(&app, &name)?;
    Ok(Json(json!({})))
}
