//! A stretch of a file, cut into pieces, that a worker takes in one go.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes after which a batch is handed on: large enough to keep the channel quiet, small enough that two cores share a file.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// A FHIR resource (a line of NDJSON, or a whole file).
    Resource,
    /// Lines of NDJSON, still to be cut.
    Lines,
    /// An element of `Bundle.entry`.
    Entry,
    /// A row of a table.
    Row,
    /// Rows of a row group of a Parquet file: [`Piece::line`] is its number, [`Piece::range`] the rows in it and
    /// [`Piece::place`] the number of the first of them in the file.
    Stretch,
    /// A whole JSON file, still to be cut: small enough for a worker to read in one pass.
    File,
    /// The same, still to be read by the worker: its bytes then stay with the core that parses them.
    Unread,
}

/// One line, entry or row.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// What it is.
    pub(crate) kind: PieceKind,
    /// Its line or its entry's number, from 1.
    pub(crate) place: u64,
    /// The line of the file that it starts on.
    pub(crate) line: u64,
    /// Where in [`Batch::bytes`].
    pub(crate) range: Range<usize>,
}

/// Something that could not be cut into a piece.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    /// `line 3`, `entry 7`.
    pub(crate) position: String,
    /// Why.
    pub(crate) reason: String,
}

/// Pieces of one file.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Index of the file.
    pub(crate) file: usize,
    /// Number of the batch in the whole ingest, from 0.
    pub(crate) number: u64,
    /// The bytes of all pieces; what is of no piece may be anything.
    pub(crate) bytes: Vec<u8>,
    /// The pieces, in order.
    pub(crate) pieces: Vec<Piece>,
    /// What is no piece.
    pub(crate) troubles: Vec<Trouble>,
}

impl Batch {
    /// Adds a piece.
    pub(crate) fn push(&mut self, kind: PieceKind, place: u64, line: u64, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.pieces.push(Piece { kind, place, line, range: start..self.bytes.len() });
    }

    /// Adds a trouble.
    pub(crate) fn trouble(&mut self, position: impl Into<String>, reason: impl Into<String>) {
        self.troubles.push(Trouble { position: position.into(), reason: reason.into() });
    }

    /// Whether it is time to hand it on.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.troubles.is_empty()
    }
}

/// Reads until `buffer` is full or the source ends, from `filled` on. What came before an error stays.
pub(crate) fn fill(reader: &mut impl std::io::Read, buffer: &mut [u8], filled: &mut usize) -> std::io::Result<()> {
    while *filled < buffer.len() {
        match reader.read(&mut buffer[*filled..]) {
            Ok(0) => break,
            Ok(n) => *filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Buffers that were read into before, so that the system need not give and clear new memory for each batch.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Vec<u8>>>);

/// Buffers that are kept, and how large one may be.
const MAX_POOLED: usize = 16;
const MAX_POOLED_BYTES: usize = 2 * BATCH_BYTES;

impl Pool {
    /// A buffer of at least `n` bytes that may hold anything.
    pub(crate) fn take(&self, n: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        if buffer.len() < n {
            buffer.resize(n, 0);
        }
        buffer
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, buffer: Vec<u8>) {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < MAX_POOLED && buffer.capacity() <= MAX_POOLED_BYTES {
            buffers.push(buffer);
        }
    }
}

/// Why reading a file stopped, in words without the system's own text (which may hold a path).
pub(crate) fn read_failure(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::UnexpectedEof => "the compressed data end before they are complete: what came before was taken",
        ErrorKind::InvalidInput | ErrorKind::InvalidData => "the compressed data are damaged: what came before was taken",
        ErrorKind::PermissionDenied => "not readable: permission denied",
        _ => "reading failed: what came before was taken",
    }
}
