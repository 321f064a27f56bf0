//! What is uploaded to be predicted on: parts of a form, or one thing alone.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use multer::{Constraints, Multipart, SizeLimit};

use crate::app::App;
use crate::body::{self, Held};
use crate::error::Refusal;

const NEEDED: &str = "send a form (multipart/form-data) with fields `images` and `records`, or one body of application/dicom, \
                      application/fhir+json, application/fhir+ndjson or text/csv";
/// Parts of a form.
const MAX_PARTS: usize = 4096;

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Records,
}

/// A part, as it came. Its file name is dropped: it may be a patient's.
pub(super) struct Part {
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

/// The parts, held as long as the second value is.
pub(super) async fn parts(app: &App, headers: &HeaderMap, body: Body) -> Result<(Vec<Part>, Held), Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let kind = match essence.as_str() {
        "multipart/form-data" => return form(app, headers, content_type, body).await,
        "application/dicom" => Kind::Image,
        "application/fhir+json" | "application/fhir+ndjson" | "application/x-ndjson" | "application/json" | "text/csv" => Kind::Records,
        _ => return Err(Refusal::Media(NEEDED.to_owned())),
    };
    let (bytes, held) = body::read(app, headers, body).await?;
    Ok((vec![Part { kind, bytes: bytes.into() }], held))
}

async fn form(app: &App, headers: &HeaderMap, content_type: &str, body: Body) -> Result<(Vec<Part>, Held), Refusal> {
    let limit = app.settings.max_body_bytes;
    if body::claimed_length(headers).is_some_and(|n| n > limit) {
        return Err(Refusal::TooLarge { limit });
    }
    let boundary = multer::parse_boundary(content_type).map_err(|_| Refusal::bad("the form's Content-Type has no boundary"))?;
    let constraints = Constraints::new().size_limit(SizeLimit::new().whole_stream(limit as u64));
    let mut form = Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    let wrong = |error: multer::Error| match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => Refusal::TooLarge { limit },
        _ => Refusal::bad("the form can't be read: it ends before its end, or is not multipart/form-data"),
    };
    let mut held = app.hold();
    let mut parts = Vec::new();
    while let Some(mut field) = form.next_field().await.map_err(wrong)? {
        let kind = match field.name() {
            Some("images" | "image") => Kind::Image,
            Some("records" | "record") => Kind::Records,
            _ => return Err(Refusal::bad("a field of the form is neither `images` nor `records`")),
        };
        if parts.len() == MAX_PARTS {
            return Err(Refusal::bad(format!("the form has more than {MAX_PARTS} files")));
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = field.chunk().await.map_err(wrong)? {
            held.add(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        parts.push(Part { kind, bytes: bytes.into() });
    }
    if parts.is_empty() {
        return Err(Refusal::bad(NEEDED));
    }
    Ok((parts, held))
}
