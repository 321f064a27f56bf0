//! gRPC: `inference.GRPCInferenceService`, its calls of one request and one answer.

mod calls;
mod proto;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use http_body_util::Full;
use prost::Message;
use serde_json::json;
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use crate::app::App;
use crate::body;
use crate::client::{Caller, Role, Shown};
use crate::error::Refusal;
use crate::model::Model;
use crate::trace::TRACEPARENT;

/// The routes of gRPC, for HTTP/2.
pub fn grpc(app: Arc<App>) -> Router {
    Router::new()
        .route("/inference.GRPCInferenceService/{call}", post(call))
        .fallback(|| async { respond(Refusal::NotFound("the server has one service, inference.GRPCInferenceService".to_owned())) })
        .with_state(app)
}

fn respond(refusal: Refusal) -> Response {
    // What the service does not have is unimplemented, as gRPC calls it.
    let status = match refusal {
        Refusal::NotFound(text) => Status::unimplemented(text),
        refusal => refusal.into(),
    };
    status.into_http::<tonic::body::Body>().map(Body::new)
}

/// `grpc-timeout`: a number of up to 8 digits, and its unit.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// What a call is given besides its message.
#[derive(Clone)]
struct Call {
    app: Arc<App>,
    deadline: Instant,
    /// Who asks.
    caller: Caller,
    /// Whom it asked, for the log.
    served: Arc<std::sync::OnceLock<Arc<Model>>>,
}

async fn call(State(app): State<Arc<App>>, Path(name): Path<String>, request: Request) -> Response {
    let started = Instant::now();
    let Some(route) = calls::NAMES.into_iter().find(|known| *known == name) else {
        return respond(Refusal::NotFound("the service has no such call, or not yet".to_owned()));
    };
    let (parts, body) = request.into_parts();
    let deadline = timeout_of(&parts.headers).map_or(app.deadline(), |timeout| app.deadline().min(started + timeout));
    let loads = matches!(route, "RepositoryModelLoad");
    let needs = if loads || matches!(route, "RepositoryModelUnload") { Role::Admin } else { Role::Predict };
    let runs = loads || matches!(route, "ModelInfer");
    let span = app.traces.begin(parts.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()));
    let caller = app.caller(&Shown::by(&parts.headers, &parts.extensions), needs, "grpc", runs);
    let served: Arc<std::sync::OnceLock<Arc<Model>>> = Arc::default();
    let of = Arc::clone(&served);
    let answer = async {
        // What a browser sends without asking first is of other types.
        if !parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            return Err(Refusal::Media("gRPC's Content-Type is application/grpc".to_owned()));
        }
        let call = Call { app: Arc::clone(&app), deadline, caller: Caller { span, ..caller? }, served: of };
        if Instant::now() >= deadline {
            return Err(Refusal::Late);
        }
        let (bytes, held) = body::read(&app, &parts.headers, body).await?;
        let request = axum::http::Request::from_parts(parts, Full::new(bytes));
        let response = calls::dispatch(route, &call, request).await;
        drop(held);
        Ok(response)
    };
    let outcome = if loads { answer.await } else { tokio::time::timeout_at(deadline.into(), answer).await.unwrap_or(Err(Refusal::Late)) };
    let response = outcome.unwrap_or_else(respond);
    // The status is in the headers only where there is no message.
    let code = response.headers().get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    app.metrics.request("grpc", route, code, started.elapsed());
    let served = served.get().map(|model| model.name.as_str());
    app.log.request("grpc", route, served, code, started.elapsed());
    let told = [("rpc.method", json!(route)), ("rpc.grpc.status_code", json!(code)), ("synovia.model", json!(served.unwrap_or_default()))];
    // Of the codes, these are the server's fault: internal, unavailable, data loss.
    app.traces.end(span, route, true, matches!(code, 13..=15), &told);
    response
}

/// One message in, one out.
async fn unary<Q, A, F, W>(call: &Call, request: axum::http::Request<Full<bytes::Bytes>>, work: F) -> Response
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
    F: Fn(Call, Q) -> W + Send + 'static,
    W: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    let limit = call.app.settings.max_body_bytes;
    let call = call.clone();
    let service = tower::service_fn(move |request: tonic::Request<Q>| {
        let work = work(call.clone(), request.into_inner());
        async move { work.await.map(tonic::Response::new).map_err(Status::from) }
    });
    let mut server = Grpc::new(ProstCodec::<A, Q>::default()).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX);
    server.unary(service, request).await.map(Body::new)
}
