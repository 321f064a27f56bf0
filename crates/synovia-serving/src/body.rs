//! Bodies, within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use http_body_util::BodyExt as _;
use std::io::Read as _;

use crate::app::App;
use crate::error::Refusal;

/// What is set aside for a body before it comes, at most: the length is what a client claims.
const MAX_RESERVED: usize = 1 << 20;

/// Bytes that are held of the room that all requests share.
pub(crate) struct Held {
    all: Arc<AtomicUsize>,
    limit: usize,
    mine: usize,
}

impl Held {
    pub(crate) fn new(all: Arc<AtomicUsize>, limit: usize) -> Self {
        Self { all, limit, mine: 0 }
    }

    pub(crate) fn add(&mut self, n: usize) -> Result<(), Refusal> {
        let before = self.all.fetch_add(n, Ordering::Relaxed);
        self.mine += n;
        if before + n > self.limit { Err(Refusal::Busy) } else { Ok(()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.mine, Ordering::Relaxed);
    }
}

/// The length that a client claims.
pub(crate) fn claimed_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The whole body, unpacked. It is held as long as the second value is.
pub(crate) async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<(Bytes, Held), Refusal> {
    read_up_to(app, headers, body, usize::MAX).await
}

/// The same of at most so many bytes, packed or unpacked.
pub(crate) async fn read_up_to(app: &App, headers: &HeaderMap, mut body: Body, limit: usize) -> Result<(Bytes, Held), Refusal> {
    let limit = limit.min(app.settings.max_body_bytes);
    let too_large = Refusal::TooLarge { limit };
    let claimed = claimed_length(headers);
    if claimed.is_some_and(|n| n > limit) {
        return Err(too_large);
    }
    let mut held = app.hold();
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::bad("the body ends before its end; send it again"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(too_large);
        }
        held.add(data.len())?;
        // Most bodies are one piece, which stays where it is.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(claimed.unwrap_or(0).min(MAX_RESERVED).max(first.len() + data.len()));
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    let encoding = headers.get(header::CONTENT_ENCODING).map_or("identity", |value| value.to_str().unwrap_or("?"));
    if encoding.eq_ignore_ascii_case("identity") {
        return Ok((bytes, held));
    }
    let is_gzip = encoding.eq_ignore_ascii_case("gzip");
    if !is_gzip && !encoding.eq_ignore_ascii_case("deflate") {
        return Err(Refusal::Media("the body's Content-Encoding must be gzip, deflate or none".to_owned()));
    }
    let unpack = move || -> Result<(Bytes, Held), Refusal> {
        let packed = bytes.as_ref();
        let mut reader: Box<dyn std::io::Read> =
            if is_gzip { Box::new(GzDecoder::new(packed)) } else { Box::new(ZlibDecoder::new(packed)) };
        let mut out = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        loop {
            let n = reader.read(&mut chunk).map_err(|_| Refusal::bad("the body is not of its Content-Encoding"))?;
            if n == 0 {
                return Ok((out.into(), held));
            }
            if out.len() + n > limit {
                return Err(Refusal::TooLarge { limit });
            }
            held.add(n)?;
            out.extend_from_slice(&chunk[..n]);
        }
    };
    off_thread(unpack).await
}

/// Work that would keep a thread of the server from other requests.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Refusal::Failed))
}
