//! What is uploaded to be predicted on: parts of a form, or one thing alone.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use multer::{Constraints, Multipart, SizeLimit};
use synovia_images::is_uid;

use super::fhir::is_reference;
use crate::app::App;
use crate::body::{self, Held};
use crate::error::Refusal;

const NEEDED: &str = "send a form (multipart/form-data) with fields `images` (or `study`) and `records`, or one body of \
                      application/dicom, application/zip, application/fhir+json, application/fhir+ndjson or text/csv";
/// Parts of a form.
const MAX_PARTS: usize = 4096;

/// Bytes that come at once of a part that is probably large.
const LARGE_CHUNK: usize = 8 << 10;
/// What is set aside for a part before it has come: address space, and no memory before it is written to.
const MAX_RESERVED: usize = 32 << 20;

/// Fields of a form; the two names that are one thing's are for clients that send one.
const FIELDS: [&str; 8] = ["images", "image", "records", "record", "study", "store", "explain", "subject"];

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

/// What is to be predicted on.
#[derive(Default)]
pub(super) struct Upload {
    pub parts: Vec<Part>,
    /// Study Instance UID of a study in the image archive.
    pub study: Option<String>,
    /// Whether the archive is to be given the result.
    pub store: bool,
    /// Whether it is to be said what drove the prediction.
    pub explain: bool,
    /// Who it is of, in an answer in FHIR: a reference of the client's.
    pub subject: Option<String>,
}

/// What was uploaded, held as long as the second value is.
pub(super) async fn upload(app: &App, headers: &HeaderMap, body: Body) -> Result<(Upload, Held), Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let kind = match essence.as_str() {
        "multipart/form-data" => return form(app, headers, content_type, body).await,
        "application/dicom" | "application/zip" => Kind::Image,
        "application/fhir+json" | "application/fhir+ndjson" | "application/x-ndjson" | "application/json" | "text/csv" => Kind::Records,
        _ => return Err(Refusal::Media(NEEDED.to_owned())),
    };
    let (bytes, held) = body::read(app, headers, body).await?;
    Ok((Upload { parts: vec![Part { kind, bytes: bytes.into() }], ..Upload::default() }, held))
}

async fn form(app: &App, headers: &HeaderMap, content_type: &str, body: Body) -> Result<(Upload, Held), Refusal> {
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
    let mut upload = Upload::default();
    let mut n_parts = 0;
    while let Some(mut field) = form.next_field().await.map_err(wrong)? {
        if n_parts == MAX_PARTS {
            return Err(Refusal::bad(format!("the form has more than {MAX_PARTS} parts")));
        }
        n_parts += 1;
        let name = field.name().unwrap_or_default().to_owned();
        if !FIELDS.contains(&name.as_str()) {
            return Err(Refusal::bad("a field of the form is none of `images`, `records`, `study`, `store`, `explain` and `subject`"));
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = field.chunk().await.map_err(wrong)? {
            held.add(chunk.len())?;
            if bytes.is_empty() && chunk.len() >= LARGE_CHUNK {
                // Of a large part the rest is most of what was claimed: one that grows is copied again and again.
                bytes.reserve(body::claimed_length(headers).unwrap_or(0).min(MAX_RESERVED).max(chunk.len()));
            }
            bytes.extend_from_slice(&chunk);
        }
        match name.as_str() {
            "images" | "image" => upload.parts.push(Part { kind: Kind::Image, bytes: bytes.into() }),
            "records" | "record" => upload.parts.push(Part { kind: Kind::Records, bytes: bytes.into() }),
            "study" => {
                let uid = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
                if !is_uid(uid) || upload.study.is_some() {
                    return Err(Refusal::bad("`study` is one Study Instance UID: digits and points, at most 64 of them"));
                }
                upload.study = Some(uid.to_owned());
            }
            "subject" => {
                let reference = std::str::from_utf8(&bytes).map(str::trim).ok().filter(|text| is_reference(text));
                let wrong = || Refusal::bad("`subject` is a FHIR reference such as Patient/123");
                upload.subject = Some(reference.ok_or_else(wrong)?.to_owned());
            }
            name => {
                let is_wanted = match &bytes[..] {
                    b"true" => true,
                    b"false" => false,
                    _ => return Err(Refusal::bad(format!("`{name}` is true or false"))),
                };
                *(if name == "store" { &mut upload.store } else { &mut upload.explain }) = is_wanted;
            }
        }
    }
    let has_image = upload.parts.iter().any(|part| part.kind == Kind::Image);
    match (&upload.study, &app.settings.pacs) {
        (Some(_), _) if has_image => Err(Refusal::bad("send `images`, or the UID of a `study`, and not both")),
        (Some(_), None) => {
            Err(Refusal::bad("this server knows no image archive, so send `images`; it is started with --pacs where it does"))
        }
        (Some(_), Some(pacs)) if upload.store && !pacs.stores => {
            Err(Refusal::bad("this server gives its image archive no results; it is started with --pacs-store where it does"))
        }
        (None, _) if upload.store => Err(Refusal::bad("`store` is for a `study` of the image archive")),
        (None, _) if upload.parts.is_empty() => Err(Refusal::bad(NEEDED)),
        _ => Ok((upload, held)),
    }
}
