//! The server without a socket, but where the socket is what is tested, on models small enough to be worked out by hand.

mod audit;
mod clinical;
mod document;
mod faults;
mod models;
mod protocol;
mod repository;

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{App, Settings, rest};

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Refused with this code, in words that have these.
    #[track_caller]
    fn refused(&self, status: u16, words: &[&str]) {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        let error = self.json()["error"].as_str().map_or_else(|| panic!("{text}"), str::to_owned);
        for word in words {
            assert!(error.contains(word), "no `{word}` in: {error}");
        }
    }
}

/// Settings of a folder, with a log that says nothing.
fn settings(folder: &Path) -> Settings {
    Settings { quiet: true, threads: Some(1), ..Settings::new(folder) }
}

/// A server of a folder whose models are loaded.
fn app(settings: Settings) -> Arc<App> {
    let app = App::new(settings);
    app.load().unwrap();
    app
}

async fn send(app: &Arc<App>, request: Request<Body>) -> Answer {
    let response = rest(Arc::clone(app)).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes().to_vec() }
}

async fn get(app: &Arc<App>, path: &str) -> Answer {
    send(app, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(app: &Arc<App>, path: &str, body: impl Into<Body>) -> Answer {
    send(app, Request::post(path).body(body.into()).unwrap()).await
}
