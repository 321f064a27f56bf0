//! Inference on tensors: JSON, and JSON with binary tensors behind it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::v2::place;
use super::{Served, Target, api};
use crate::app::App;
use crate::batch::{FP32, Fitting, Given, Output, Values, fit, shown};
use crate::body;
use crate::client::Caller;
use crate::error::Refusal;
use crate::model::Model;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// A body of more bytes is read aside, so that it does not keep others waiting.
const ASIDE_BYTES: usize = 64 << 10;

/// Tensors, and which are wanted.
#[derive(Deserialize, ToSchema)]
#[schema(as = InferenceRequest)]
pub(super) struct Request {
    /// Comes back with the answer.
    id: Option<String>,
    #[serde(default)]
    parameters: OfRequest,
    inputs: Vec<Input>,
    /// All where none is named.
    #[serde(default)]
    outputs: Vec<Wanted>,
}

/// Of a request.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = RequestParameters)]
struct OfRequest {
    /// Tensors behind the JSON instead of in it.
    #[serde(default)]
    binary_data_output: bool,
    /// Microseconds.
    timeout: Option<u64>,
}

/// A tensor.
#[derive(Deserialize, ToSchema)]
#[schema(as = InputTensor)]
struct Input {
    name: String,
    /// FP32.
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: OfTensor,
    /// The values, where they are not behind the JSON.
    #[schema(value_type = Option<api::Numbers>)]
    data: Option<Numbers>,
}

/// An output that is wanted.
#[derive(Deserialize, ToSchema)]
#[schema(as = WantedTensor)]
struct Wanted {
    name: String,
    #[serde(default)]
    parameters: OfTensor,
}

/// Of a tensor.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = TensorParameters)]
struct OfTensor {
    /// Bytes behind the JSON that are this one's.
    binary_data_size: Option<usize>,
    /// Whether this output comes behind the JSON.
    binary_data: Option<bool>,
    /// Not supported.
    shared_memory_region: Option<String>,
    /// Not supported.
    classification: Option<u64>,
}

impl OfTensor {
    fn check(&self) -> Result<(), Refusal> {
        if self.shared_memory_region.is_some() {
            return Err(Refusal::bad("shared memory is not supported; send the values"));
        }
        if self.classification.is_some() {
            return Err(Refusal::bad("the extension `classification` is not supported; the output's values are probabilities"));
        }
        Ok(())
    }
}

/// Numbers, flat or in lists of lists as deep as the shape; `null` is a missing one (NaN), which JSON has no number for.
struct Numbers(Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = Vec::new();
        Append(&mut values).deserialize(deserializer)?;
        Ok(Self(values))
    }
}

struct Append<'a>(&'a mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Append<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, null for a missing one, or lists of them")
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.push(value as f32);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.push(value as f32);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.push(value as f32);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(f32::NAN);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Append(self.0))?.is_some() {}
        Ok(())
    }

    // Of other elements than the model's: said by the check of the datatype.
    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push(f32::from(u8::from(value)));
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom("a text"))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("an object"))
    }
}

/// What is asked for, found to fit the model.
struct Asked {
    inputs: Fitting,
    id: Option<String>,
    /// Places among the model's outputs, and whether each is to be binary.
    outputs: Vec<(usize, bool)>,
    timeout: Option<Duration>,
}

/// - json_length: bytes of JSON at the beginning of the body; the rest are tensors
fn parse(model: &Model, body: &Bytes, json_length: Option<usize>) -> Result<Asked, Refusal> {
    let n = json_length.unwrap_or(body.len());
    if n > body.len() {
        return Err(Refusal::bad(format!("the JSON is said to be {n} bytes, the body has {}", body.len())));
    }
    let request: Request = serde_json::from_slice(&body[..n])
        .map_err(|error| Refusal::bad(format!("the body is not a request of the Open Inference Protocol: {}", place(&error))))?;
    let mut at = n;
    let mut given = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        input.parameters.check()?;
        let name = shown(&input.name);
        let values = match (input.data, input.parameters.binary_data_size) {
            (Some(Numbers(values)), None) => Values::Floats(values),
            (None, Some(size)) => {
                let Some(end) = at.checked_add(size).filter(|end| *end <= body.len()) else {
                    let left = body.len() - at;
                    return Err(Refusal::bad(format!("input {name} is said to be {size} bytes, the body has {left} left")));
                };
                // A size that is no number of floats is told by the datatype first.
                if size % 4 != 0 && input.datatype == FP32 {
                    return Err(Refusal::bad(format!("input {name} has {size} bytes, which is no number of 32-bit floats")));
                }
                let bytes = body.slice(at..end);
                at = end;
                Values::Bytes(bytes)
            }
            _ => return Err(Refusal::bad(format!("input {name} needs either `data` or the parameter `binary_data_size`"))),
        };
        given.push(Given { name: input.name, datatype: input.datatype, shape: input.shape, values });
    }
    if at != body.len() {
        return Err(Refusal::bad(format!("{} bytes follow the last tensor", body.len() - at)));
    }
    let inputs = fit(&model.inputs, model.is_batchable, given)?;
    let binary = request.parameters.binary_data_output;
    let mut outputs = Vec::new();
    for wanted in &request.outputs {
        wanted.parameters.check()?;
        let place = model.outputs.iter().position(|output| output.name == wanted.name).ok_or_else(|| {
            let names: Vec<&str> = model.outputs.iter().map(|output| output.name.as_str()).collect();
            Refusal::bad(format!("the model has no output {}; its outputs are {}", shown(&wanted.name), names.join(", ")))
        })?;
        outputs.push((place, wanted.parameters.binary_data.unwrap_or(binary)));
    }
    if outputs.is_empty() {
        outputs = (0..model.outputs.len()).map(|place| (place, binary)).collect();
    }
    Ok(Asked { inputs, id: request.id, outputs, timeout: request.parameters.timeout.filter(|&t| t > 0).map(Duration::from_micros) })
}

/// The outputs.
#[derive(Serialize, ToSchema)]
#[schema(as = InferenceResponse)]
pub(super) struct Answer<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<Answered<'a>>,
}

/// An output.
#[derive(Serialize, ToSchema)]
#[schema(as = OutputTensor)]
struct Answered<'a> {
    name: &'a str,
    datatype: &'static str,
    #[schema(value_type = Vec<usize>)]
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<api::Numbers>)]
    data: Option<&'a [f32]>,
}

/// How long an output behind the JSON is.
#[derive(Serialize, ToSchema)]
#[schema(as = OutputSize)]
struct Size {
    binary_data_size: usize,
}

/// - wanted: places among the outputs, and whether each is to be binary
fn respond(model: &Model, id: Option<String>, wanted: &[(usize, bool)], outputs: &[Output]) -> Result<Response, Refusal> {
    let answered = |&(place, binary): &(usize, bool)| {
        let output = &outputs[place];
        Answered {
            name: &model.outputs[place].name,
            datatype: FP32,
            shape: &output.shape,
            parameters: binary.then(|| Size { binary_data_size: output.values.len() * 4 }),
            data: (!binary).then_some(output.values.as_slice()),
        }
    };
    let answer =
        Answer { model_name: &model.name, model_version: model.version.to_string(), id, outputs: wanted.iter().map(answered).collect() };
    let mut body = serde_json::to_vec(&answer).map_err(|_| Refusal::Failed)?;
    if wanted.iter().all(|(_, binary)| !binary) {
        return Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response());
    }
    let json_length = body.len().to_string();
    wanted.iter().filter(|(_, binary)| *binary).for_each(|(place, _)| outputs[*place].to_bytes(&mut body));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (JSON_LENGTH, json_length)], body).into_response())
}

pub(super) async fn infer(
    State(app): State<Arc<App>>,
    Target(model): Target,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let deadline = app.deadline();
    // Before the body is read: what finds no place later costs nothing now.
    if !model.queue.has_room() {
        return Err(Refusal::Busy);
    }
    let json_length = match headers.get(JSON_LENGTH).map(|value| value.to_str().ok().and_then(|text| text.parse().ok())) {
        Some(None) => return Err(Refusal::bad("Inference-Header-Content-Length is not a number")),
        length => length.flatten(),
    };
    let arriving = model.queue.arriving();
    let (bytes, held) = body::read(&app, &headers, body).await?;
    let asked = if bytes.len() > ASIDE_BYTES {
        let model = Arc::clone(&model);
        body::off_thread(move || parse(&model, &bytes, json_length)).await?
    } else {
        parse(&model, &bytes, json_length)?
    };
    let deadline = asked.timeout.map_or(deadline, |timeout| deadline.min(Instant::now() + timeout));
    let outputs = app.infer(&model, &caller, "prediction", asked.inputs, deadline, Some(arriving)).await?;
    drop(held);
    let mut response = respond(&model, asked.id, &asked.outputs, &outputs)?;
    response.extensions_mut().insert(Served(model));
    Ok(response)
}
