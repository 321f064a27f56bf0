//! The calls, each as its REST counterpart.

use std::time::Instant;

use axum::http::Request;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use synovia_onnx::TensorInfo;

use super::proto::{
    Choice, ConfigInput, ConfigOutput, Duration, InferBatchStatistics, InferOutput, InferStatistics, ModelConfig, ModelConfigResponse,
    ModelIndex, ModelInferRequest, ModelInferResponse, ModelMetadataResponse, ModelStatistics, ModelStatisticsResponse, Nothing, OfModel,
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelRequest, ServerMetadataResponse, TYPE_FP32, TensorMetadata, Yes,
};
use super::{Call, unary};
use crate::batch::{FP32, Given, Values, fit, shape_of, shown};
use crate::body;
use crate::error::Refusal;
use crate::model::Model;
use crate::rest::v2::{EXTENSIONS, PLATFORM, SERVER, dims_of, load_model, max_batch_size, unload_model};
use crate::statistics::Tally;

/// Calls that there are.
pub(super) const NAMES: [&str; 11] = [
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "ModelInfer",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
];

pub(super) async fn dispatch(name: &str, call: &Call, request: Request<Full<Bytes>>) -> Response {
    match name {
        "ServerLive" => unary(call, request, |_, Nothing {}| async { Ok(Yes { is: true }) }).await,
        "ServerReady" => unary(call, request, |call, Nothing {}| async move { Ok(Yes { is: call.app.is_ready() }) }).await,
        "ServerMetadata" => unary(call, request, |_, Nothing {}| async { Ok(server()) }).await,
        "ModelReady" => unary(call, request, |call, of: OfModel| async move { Ok(Yes { is: model(&call, &of).is_ok() }) }).await,
        "ModelMetadata" => unary(call, request, |call, of: OfModel| async move { Ok(metadata(&call, model(&call, &of)?.as_ref())) }).await,
        "ModelConfig" => unary(call, request, |call, of: OfModel| async move { Ok(config(model(&call, &of)?.as_ref())) }).await,
        "ModelStatistics" => unary(call, request, |call, of: OfModel| async move { statistics(&call, &of) }).await,
        "RepositoryIndex" => unary(call, request, index).await,
        "RepositoryModelLoad" => unary(call, request, load).await,
        "RepositoryModelUnload" => unary(call, request, unload).await,
        _ => unary(call, request, infer).await,
    }
}

fn server() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: SERVER.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

fn model(call: &Call, of: &OfModel) -> Result<std::sync::Arc<Model>, Refusal> {
    call.app.model(&of.name, Some(&of.version))
}

fn metadata(call: &Call, model: &Model) -> ModelMetadataResponse {
    let tensor = |info: &TensorInfo| TensorMetadata { name: info.name.clone(), datatype: FP32.to_owned(), shape: shape_of(info) };
    ModelMetadataResponse {
        name: model.name.clone(),
        versions: call.app.repository.versions(&model.name),
        platform: PLATFORM.to_owned(),
        inputs: model.inputs.iter().map(tensor).collect(),
        outputs: model.outputs.iter().map(tensor).collect(),
    }
}

fn config(model: &Model) -> ModelConfigResponse {
    let input = |info: &TensorInfo| ConfigInput { name: info.name.clone(), data_type: TYPE_FP32, dims: dims_of(model, info) };
    let output = |info: &TensorInfo| ConfigOutput { name: info.name.clone(), data_type: TYPE_FP32, dims: dims_of(model, info) };
    let config = ModelConfig {
        name: model.name.clone(),
        platform: PLATFORM.to_owned(),
        max_batch_size: max_batch_size(model) as i32,
        input: model.inputs.iter().map(input).collect(),
        output: model.outputs.iter().map(output).collect(),
        default_model_filename: "model.onnx".to_owned(),
        backend: "onnxruntime".to_owned(),
    };
    ModelConfigResponse { config: Some(config) }
}

fn statistics(call: &Call, of: &OfModel) -> Result<ModelStatisticsResponse, Refusal> {
    let models = if of.name.is_empty() { call.app.repository.loaded() } else { vec![model(call, of)?] };
    let time = |tally: Tally| Some(Duration { count: tally.count, ns: tally.ns });
    let of_model = |model: &std::sync::Arc<Model>| {
        let counts = model.statistics.counts();
        let by_batch = counts.by_batch.iter().map(|(rows, of)| InferBatchStatistics {
            batch_size: *rows as u64,
            compute_input: time(of.compute_input),
            compute_infer: time(of.compute_infer),
            compute_output: time(of.compute_output),
        });
        ModelStatistics {
            name: model.name.clone(),
            version: model.version.to_string(),
            last_inference: counts.last_inference,
            inference_count: counts.inference_count,
            execution_count: counts.execution_count,
            inference_stats: Some(InferStatistics {
                success: time(counts.success),
                fail: time(counts.fail),
                queue: time(counts.queue),
                compute_input: time(counts.compute.compute_input),
                compute_infer: time(counts.compute.compute_infer),
                compute_output: time(counts.compute.compute_output),
            }),
            batch_stats: by_batch.collect(),
        }
    };
    Ok(ModelStatisticsResponse { model_stats: models.iter().map(of_model).collect() })
}

async fn index(call: Call, asked: RepositoryIndexRequest) -> Result<RepositoryIndexResponse, Refusal> {
    let listed = body::off_thread(move || Ok(call.app.repository.index())).await?;
    let models = listed.into_iter().filter(|line| !asked.ready || line.state == "READY").map(|line| ModelIndex {
        name: line.name,
        version: line.version,
        state: line.state.to_owned(),
        reason: line.reason,
    });
    Ok(RepositoryIndexResponse { models: models.collect() })
}

async fn load(call: Call, asked: RepositoryModelRequest) -> Result<Nothing, Refusal> {
    if !asked.parameters.is_empty() {
        return Err(Refusal::bad("a model is loaded as the folder has it; leave the parameters out"));
    }
    load_model(call.app, asked.model_name, call.caller).await?;
    Ok(Nothing {})
}

async fn unload(call: Call, asked: RepositoryModelRequest) -> Result<Nothing, Refusal> {
    unload_model(&call.app, &asked.model_name, &call.caller).await?;
    Ok(Nothing {})
}

async fn infer(call: Call, request: ModelInferRequest) -> Result<ModelInferResponse, Refusal> {
    let model = call.app.model(&request.model_name, Some(&request.model_version))?;
    // A call has one model, so this is the first.
    let _ = call.served.set(std::sync::Arc::clone(&model));
    let is_raw = !request.raw_input_contents.is_empty();
    if is_raw && request.raw_input_contents.len() != request.inputs.len() {
        let (n, inputs) = (request.raw_input_contents.len(), request.inputs.len());
        return Err(Refusal::bad(format!("raw_input_contents holds {n} tensors for {inputs} inputs")));
    }
    let has_region = request.inputs.iter().any(|input| input.parameters.contains_key("shared_memory_region"))
        || request.outputs.iter().any(|output| output.parameters.contains_key("shared_memory_region"));
    if has_region {
        return Err(Refusal::bad("shared memory is not supported; send the values"));
    }
    if request.outputs.iter().any(|output| output.parameters.contains_key("classification")) {
        return Err(Refusal::bad("the extension `classification` is not supported; the output's values are probabilities"));
    }
    let mut raw = request.raw_input_contents.into_iter();
    let mut given = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        let values = match (raw.next(), input.contents) {
            (Some(bytes), None) => {
                if bytes.len() % 4 != 0 && input.datatype == FP32 {
                    let name = shown(&input.name);
                    return Err(Refusal::bad(format!("input {name} has {} bytes, which is no number of 32-bit floats", bytes.len())));
                }
                Values::Bytes(bytes)
            }
            (None, Some(contents)) => Values::Floats(contents.fp32),
            (Some(_), Some(_)) => {
                return Err(Refusal::bad(format!("input {} has contents besides raw_input_contents", shown(&input.name))));
            }
            (None, None) => return Err(Refusal::bad(format!("input {} has no values", shown(&input.name)))),
        };
        given.push(Given { name: input.name, datatype: input.datatype, shape: input.shape, values });
    }
    let inputs = fit(&model.inputs, model.is_batchable, given)?;
    let mut wanted = Vec::new();
    for output in &request.outputs {
        let place = model.outputs.iter().position(|info| info.name == output.name);
        wanted.push(place.ok_or_else(|| Refusal::bad(format!("the model has no output {}", shown(&output.name))))?);
    }
    if wanted.is_empty() {
        wanted = (0..model.outputs.len()).collect();
    }
    let micros = match request.parameters.get("timeout").and_then(|parameter| parameter.choice.as_ref()) {
        Some(Choice::Int64(n)) => u64::try_from(*n).ok(),
        Some(Choice::Uint64(n)) => Some(*n),
        _ => None,
    };
    let timeout = micros.filter(|&n| n > 0).map(std::time::Duration::from_micros);
    let deadline = timeout.map_or(call.deadline, |timeout| call.deadline.min(Instant::now() + timeout));
    let outputs = call.app.infer(&model, &call.caller, "prediction", inputs, deadline, None).await?;
    let described = |&place: &usize| InferOutput {
        name: model.outputs[place].name.clone(),
        datatype: FP32.to_owned(),
        shape: outputs[place].shape.iter().map(|&size| size as i64).collect(),
    };
    let bytes = |&place: &usize| {
        let mut bytes = Vec::new();
        outputs[place].to_bytes(&mut bytes);
        Bytes::from(bytes)
    };
    Ok(ModelInferResponse {
        model_name: model.name.clone(),
        model_version: model.version.to_string(),
        id: request.id,
        outputs: wanted.iter().map(described).collect(),
        raw_output_contents: wanted.iter().map(bytes).collect(),
    })
}
