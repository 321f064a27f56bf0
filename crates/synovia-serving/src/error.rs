//! Why the server, a model or a request does not get what it asked for.

use std::path::PathBuf;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use synovia_onnx::RuntimeError;
use synovia_prediction::PredictionError;
use tonic::{Code, Status};

use crate::audit::AuditError;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// An address that can't be listened on.
    #[error("{address}: cannot listen there: {source}; give another address, or end what listens there")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// No model at all.
    #[error("{}: no model could be loaded: {reason}; it should hold NAME/VERSION/model.onnx or NAME.onnx, as `synovia export` writes", folder.display())]
    NoModel {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with the first one.
        reason: String,
    },
    /// The audit log.
    #[error("audit log {}: {source}; a broken one is kept for whoever looks into it: give the server a new file", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: AuditError,
    },
    /// HTTPS.
    #[error("TLS: {0}")]
    Tls(#[from] crate::tls::TlsError),
    /// The operating system.
    #[error("{what}: {source}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// Why a model can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A name that no file may have.
    #[error("a model's name is made of letters, digits, `_`, `-` and `.`, and begins with none of the last two")]
    Name,
    /// Nothing of that name.
    #[error("no model of that name in the folder of models")]
    Absent,
    /// A file or folder that can't be read.
    #[error("version {version}: {source}")]
    Io {
        /// The version.
        version: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no model, or fails when it is run.
    #[error("version {version}: {source}")]
    Runtime {
        /// The version.
        version: u64,
        /// Why.
        source: RuntimeError,
    },
    /// Tensors of other elements than the server speaks.
    #[error("version {version}: `{tensor}` is not of 32-bit floats, which is all that is served")]
    Element {
        /// The version.
        version: u64,
        /// The input or output.
        tensor: String,
    },
    /// Metadata that can't be read.
    #[error("version {version}: {source}")]
    Metadata {
        /// The version.
        version: u64,
        /// Why.
        source: PredictionError,
    },
}

/// Why a request is not answered. The text goes to the client alone, never to the log.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Bad(String),
    #[error("a bearer token is needed: send `Authorization: Bearer …` with the server's token")]
    Unauthorized,
    #[error("this client may predict, and may not change the server; ask with an admin's token")]
    Forbidden,
    #[error("a page of another site may not ask here")]
    OtherSite,
    #[error("{0}")]
    NotFound(String),
    #[error("the address has no such method")]
    Method,
    #[error("the body is longer than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{0}")]
    Media(String),
    #[error("{0}")]
    Precondition(&'static str),
    #[error("as many requests wait as may; try again in a second")]
    Busy,
    #[error("this client asks more often than it may; try again in {seconds} s")]
    TooOften { seconds: u64 },
    #[error("no answer in the time that the request has")]
    Late,
    #[error("{0}")]
    Unavailable(String),
    #[error("the model failed on this input")]
    Failed,
}

impl Refusal {
    pub(crate) fn bad(what: impl Into<String>) -> Self {
        Self::Bad(what.into())
    }

    /// Why not is in the log.
    pub(crate) fn archive() -> Self {
        Self::Unavailable("the image archive does not do what it is asked for; try again later".to_owned())
    }

    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::OtherSite => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Media(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Precondition(_) => StatusCode::PRECONDITION_FAILED,
            Self::Busy | Self::TooOften { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Late | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer, with `more` beside the error.
    pub(crate) fn response(&self, more: Option<(&str, serde_json::Value)>) -> Response {
        let mut body = serde_json::json!({ "error": self.to_string() });
        if let Some((key, value)) = more {
            body[key] = value;
        }
        let mut response = (self.status(), axum::Json(body)).into_response();
        if matches!(self, Self::Busy | Self::Late | Self::Unavailable(_)) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::TooOften { seconds } = self {
            response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
        }
        if matches!(self, Self::Unauthorized) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.response(None)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Bad(_) | Refusal::Media(_) => Code::InvalidArgument,
            Refusal::Precondition(_) => Code::FailedPrecondition,
            Refusal::Unauthorized => Code::Unauthenticated,
            Refusal::Forbidden | Refusal::OtherSite => Code::PermissionDenied,
            Refusal::NotFound(_) => Code::NotFound,
            Refusal::Method => Code::Unimplemented,
            Refusal::TooLarge { .. } | Refusal::Busy | Refusal::TooOften { .. } => Code::ResourceExhausted,
            Refusal::Late => Code::DeadlineExceeded,
            Refusal::Unavailable(_) => Code::Unavailable,
            Refusal::Failed => Code::Internal,
        };
        Self::new(code, refusal.to_string())
    }
}
