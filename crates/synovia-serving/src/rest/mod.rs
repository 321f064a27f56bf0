//! REST: the routes, and what holds for all of them.

mod clinical;
mod infer;
mod multipart;
pub(crate) mod v2;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Path, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use crate::app::App;
use crate::error::Refusal;
use crate::metrics;
use crate::model::Model;

/// The routes of REST.
pub fn rest(app: Arc<App>) -> Router {
    let model = "/v2/models/{model}";
    let version = "/v2/models/{model}/versions/{version}";
    let mut router = Router::new()
        .route("/v2", get(v2::server))
        .route("/v2/", get(v2::server))
        .route("/v2/health/live", get(v2::live))
        .route("/v2/health/ready", get(v2::ready))
        .route("/v2/models/stats", get(v2::all_statistics))
        .route("/v2/repository/index", post(v2::index))
        .route("/v2/repository/models/{model}/load", post(v2::load))
        .route("/v2/repository/models/{model}/unload", post(v2::unload))
        .route("/metrics", get(exposition));
    for of in [model, version] {
        router = router
            .route(of, get(v2::model))
            .route(&format!("{of}/ready"), get(v2::model_ready))
            .route(&format!("{of}/config"), get(v2::config))
            .route(&format!("{of}/stats"), get(v2::statistics))
            .route(&format!("{of}/infer"), post(infer::infer));
        let clinical = of.replace("/v2/", "/v1/");
        router = router.route(&clinical, get(clinical::describe)).route(&format!("{clinical}/predict"), post(clinical::predict));
    }
    router
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
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let authorization = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes().to_vec());
    let response = if !app.admits(authorization.as_deref()) {
        Refusal::Unauthorized.into_response()
    } else if route.starts_with("/v2/repository/") {
        // Loading takes as long as it takes.
        next.run(request).await
    } else {
        tokio::time::timeout(app.settings.timeout, next.run(request)).await.unwrap_or_else(|_| Refusal::Late.into_response())
    };
    let (status, time) = (response.status().as_u16(), started.elapsed());
    app.metrics.request("rest", route, status, time);
    let served = response.extensions().get::<Served>().map(|served| served.0.name.as_str());
    app.log.request("rest", route, served, status, time);
    response
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
