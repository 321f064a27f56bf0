//! The web page: one form for files, and what comes of them. It is a client like others, of the addresses that all have.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::app::App;
use crate::error::Refusal;

/// Nothing but what comes from here, in no other page, and pictures out of answers.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
];

fn answer(content_type: &'static str, text: &'static str) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    (headers, text).into_response()
}

/// A refusal for want of a token, in a way that a browser asks its user for one, where it is of the page.
pub(super) fn challenged(route: &str, refusal: &Refusal, mut response: Response) -> Response {
    if matches!(refusal, Refusal::Unauthorized) && FILES.iter().any(|(path, ..)| *path == route) {
        let challenge = HeaderValue::from_static("Basic realm=\"synovia: any name, and the token as the password\"");
        response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// With the page's routes beside the others.
pub(super) fn routes(router: Router<Arc<App>>) -> Router<Arc<App>> {
    FILES
        .into_iter()
        .fold(router, |router, (path, content_type, text)| router.route(path, get(move || async move { answer(content_type, text) })))
}
