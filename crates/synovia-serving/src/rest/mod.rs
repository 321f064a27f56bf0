//! REST: the routes, and what holds for all of them.

mod api;
mod cds;
mod clinical;
mod explain;
mod fhir;
mod infer;
mod multipart;
mod page;
pub(crate) mod v2;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use api::{Api, Operation, bytes, form, json_list_of, json_of, text};
use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use utoipa::openapi::schema::Type;

use crate::app::App;
use crate::client::{Caller, Role, Shown};
use crate::error::Refusal;
use crate::metrics;
use crate::model::Model;
use crate::repository::Listed;
use crate::trace::TRACEPARENT;

/// The routes of REST.
pub fn rest(app: Arc<App>) -> Router {
    let model = "/v2/models/{model}";
    let version = "/v2/models/{model}/versions/{version}";
    let simple = |summary, answer| Operation::new(summary, answer);
    let mut api = Api::new()
        .schema::<v2::Server>()
        .schema::<v2::Live>()
        .schema::<v2::Ready>()
        .schema::<v2::ModelMetadata>()
        .schema::<v2::ModelReady>()
        .schema::<v2::ModelConfig>()
        .schema::<v2::ModelStatistics>()
        .schema::<v2::Nothing>()
        .schema::<v2::Asked>()
        .schema::<Listed>()
        .schema::<infer::Request>()
        .schema::<infer::Answer<'static>>()
        .schema::<clinical::Description>()
        .schema::<clinical::Predicted>()
        .schema::<cds::Services>()
        .schema::<cds::Call>()
        .schema::<cds::Cards>()
        .schema::<cds::Feedback>()
        .get("/v2", get(v2::server), simple("The server", json_of::<v2::Server>()))
        .get("/v2/", get(v2::server), simple("The server", json_of::<v2::Server>()))
        .get("/v2/health/live", get(v2::live), simple("Whether it runs", json_of::<v2::Live>()))
        .get(
            "/v2/health/ready",
            get(v2::ready),
            simple("Whether all models are loaded and warmed up", json_of::<v2::Ready>()).unavailable(json_of::<v2::Ready>()),
        )
        .get("/v2/models/stats", get(v2::all_statistics), simple("What is counted of all models", json_of::<v2::ModelStatistics>()))
        .post(
            "/v2/repository/index",
            post(v2::index),
            simple("The models of the folder, loaded or not", json_list_of::<Listed>()).takes(json_of::<v2::Asked>()),
        )
        .post(
            "/v2/repository/models/{model}/load",
            post(v2::load),
            simple("Loads a model as the folder has it now, or loads it again", json_of::<v2::Nothing>())
                .takes(json_of::<v2::Asked>())
                .admin(),
        )
        .post(
            "/v2/repository/models/{model}/unload",
            post(v2::unload),
            simple("Takes a model out of service", json_of::<v2::Nothing>()).admin(),
        )
        .get("/cds-services", get(cds::services), simple("Models as services of CDS Hooks", json_of::<cds::Services>()))
        .post(
            "/cds-services/{model}",
            post(cds::call),
            simple("Cards for a chart, by CDS Hooks", json_of::<cds::Cards>())
                .needs(json_of::<cds::Call>())
                .runs()
                .refused(Refusal::Precondition("`prefetch` lacks what was asked for")),
        )
        .post(
            "/cds-services/{model}/feedback",
            post(cds::feedback),
            simple("What became of cards", json_of::<v2::Nothing>()).needs(json_of::<cds::Feedback>()),
        )
        .get("/metrics", get(exposition), simple("Counts for Prometheus", text("text/plain")));
    for of in [model, version] {
        let under = |end: &str| format!("{of}{end}");
        let clinical = of.replace("/v2/", "/v1/");
        let infer = simple("Runs the model on tensors", json_of::<infer::Answer<'static>>())
            .answers(bytes("application/octet-stream"))
            .needs(json_of::<infer::Request>())
            .takes(bytes("application/octet-stream"))
            .runs();
        let predict = simple("Probabilities for images and records as they are", json_of::<clinical::Predicted>())
            .answers(api::object("application/fhir+json"))
            .needs(form(
                &["images", "records"],
                &[("study", Type::String), ("store", Type::Boolean), ("explain", Type::Boolean), ("subject", Type::String)],
            ))
            .takes(bytes("application/dicom"))
            .takes(bytes("application/zip"))
            .takes(text("application/fhir+json"))
            .takes(text("application/fhir+ndjson"))
            .takes(text("text/csv"))
            .runs();
        api = api
            .get(of, get(v2::model), simple("A model", json_of::<v2::ModelMetadata>()))
            .get(&under("/ready"), get(v2::model_ready), simple("Whether a model answers", json_of::<v2::ModelReady>()))
            .get(&under("/config"), get(v2::config), simple("A model's configuration", json_of::<v2::ModelConfig>()))
            .get(&under("/stats"), get(v2::statistics), simple("What is counted of a model", json_of::<v2::ModelStatistics>()))
            .post(&under("/infer"), post(infer::infer), infer)
            .get(&clinical, get(clinical::describe), simple("What a model was made of and looks at", json_of::<clinical::Description>()))
            .post(&format!("{clinical}/predict"), post(clinical::predict), predict);
    }
    page::routes(api.finish("/openapi.json"))
        .fallback(|| async {
            Refusal::NotFound("there is nothing at this address; see docs/serving.md for those that there are".to_owned())
        })
        .method_not_allowed_fallback(|| async { Refusal::Method })
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// What a response says of the request for the log.
#[derive(Clone)]
struct Served(Arc<Model>);

/// Asks for the token, keeps to the time, counts and logs.
async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let needs = if route.starts_with("/v2/repository/models/") { Role::Admin } else { Role::Predict };
    let is_post = request.method() == Method::POST;
    let parent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    // What runs nothing is asked for often, and tells nothing.
    let span = is_post.then(|| app.traces.begin(parent)).flatten();
    let shown = Shown::by(request.headers(), request.extensions());
    let response = match app.caller(&shown, needs, "rest", is_post && costs(route)) {
        Err(refusal) => page::challenged(route, &refusal, refusal.clone().into_response()),
        // What a browser sends by itself (a password, a certificate) is no page's of another site to use.
        Ok(_) if is_post && is_of_another_site(request.headers(), app.settings.clients.is_empty() && !app.settings.without_token) => {
            Refusal::OtherSite.into_response()
        }
        Ok(caller) => {
            request.extensions_mut().insert(Caller { span, ..caller });
            if route.starts_with("/v2/repository/") {
                // Loading takes as long as it takes.
                next.run(request).await
            } else {
                tokio::time::timeout(app.settings.timeout, next.run(request)).await.unwrap_or_else(|_| Refusal::Late.into_response())
            }
        }
    };
    let (status, time) = (response.status().as_u16(), started.elapsed());
    app.metrics.request("rest", route, status, time);
    let served = response.extensions().get::<Served>().map(|served| served.0.name.as_str());
    app.log.request("rest", route, served, status, time);
    let told =
        [("http.route", json!(route)), ("http.response.status_code", json!(status)), ("synovia.model", json!(served.unwrap_or_default()))];
    app.traces.end(span, &format!("POST {route}"), true, status >= 500, &told);
    response
}

/// By what browsers say of the page that a request comes from (W3C Fetch Metadata; RFC 6454, which they also say without HTTPS).
///
/// - is_open: whether nobody has to show who they are: then a page must have come by a name that can't be somebody else's
fn is_of_another_site(headers: &HeaderMap, is_open: bool) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    let Some(origin) = text("origin") else { return false };
    let page = origin.split_once("://").map_or("", |(_, host)| host);
    let name = page.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(page, |(name, _)| name);
    let is_address = name == "localhost" || name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    // HTTP/2 has the host in the address, and browsers then send Fetch Metadata.
    text("host").is_some_and(|host| host != page) || (is_open && !is_address)
}

/// Whether an address costs more than the asking.
fn costs(route: &str) -> bool {
    ["/infer", "/predict", "/load", "/cds-services/{model}"].iter().any(|end| route.ends_with(end))
}

async fn exposition(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::exposition(&app)).into_response()
}

#[derive(Deserialize)]
struct Named {
    model: String,
    version: Option<String>,
}

/// The loaded model that the address names.
struct Target(Arc<Model>);

impl FromRequestParts<Arc<App>> for Target {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Named { model, version } = named(parts, app).await?;
        app.model(&model, version.as_deref()).map(Self)
    }
}

/// The model's name in the address, loaded or not.
struct Name(String);

impl FromRequestParts<Arc<App>> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        named(parts, app).await.map(|named| Self(named.model))
    }
}

async fn named(parts: &mut Parts, app: &Arc<App>) -> Result<Named, Refusal> {
    let path = Path::<Named>::from_request_parts(parts, app).await;
    path.map(|Path(named)| named).map_err(|_| Refusal::bad("the address is not valid UTF-8"))
}
