//! The audit log: a line for each prediction and each change of models, in one file that is only appended to.
//!
//! Each line holds the digest of the line before it and, at its end, its own: a line that is changed, taken out, put in or moved
//! breaks the chain. Lines cut off the end do not; against that the last digest is kept elsewhere. An answer is given when its line
//! is with the operating system; where it can't be written there is no answer.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Before a line's own digest.
const OWN: &str = ",\"sha256\":\"";
/// Bytes of a line; one of ours has a few hundred, and of many examples a few thousand.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// A log that is no chain.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another process writes to it.
    #[error("another server writes to it; give each its own")]
    InUse,
    /// The first line that does not follow.
    #[error("line {line} {what}")]
    Broken {
        /// From 1.
        line: u64,
        /// What it does not do.
        what: &'static str,
    },
}

/// A chain that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Lines.
    pub lines: u64,
    /// Digest of the last one; of none it is 64 zeros.
    pub sha256: String,
    /// Bytes of whole lines; more than these are of a line whose writer was ended, and nobody was answered by it.
    pub bytes: u64,
}

/// Goes through a log from its first line to its last, and calls `each` with their digests.
///
/// # Errors
/// The first line that was changed, or does not follow the one before it.
pub fn verify(file: impl io::Read, each: &mut dyn FnMut(&str)) -> Result<Chain, AuditError> {
    let mut chain = Chain { lines: 0, sha256: "0".repeat(64), bytes: 0 };
    let mut reader = BufReader::new(file);
    loop {
        let mut line = String::new();
        let number = chain.lines + 1;
        let broken = |what: &'static str| AuditError::Broken { line: number, what };
        let n = reader.by_ref().take(MAX_LINE_BYTES).read_line(&mut line).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => broken("is no text"),
            _ => AuditError::Io(error),
        })?;
        let Some(text) = line.strip_suffix('\n') else {
            return if n as u64 == MAX_LINE_BYTES { Err(broken("is longer than any of ours")) } else { Ok(chain) };
        };
        let at = text.rfind(OWN).ok_or_else(|| broken("has no digest"))?;
        let own = text[at + OWN.len()..].strip_suffix("\"}").ok_or_else(|| broken("has no digest at its end"))?;
        if digest(&text[..at]) != own {
            return Err(broken("is not what was written: its digest is another"));
        }
        let value: Value = serde_json::from_str(text).map_err(|_| broken("is no JSON"))?;
        if value["previous"] != chain.sha256.as_str() || value["n"] != number {
            return Err(broken("does not follow the line before it: one was taken out, put in or moved"));
        }
        each(own);
        chain = Chain { lines: number, sha256: own.to_owned(), bytes: chain.bytes + n as u64 };
    }
}

/// Of a line up to its digest.
fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// A log that is written to.
pub(crate) struct AuditLog {
    end: Mutex<(File, Chain)>,
}

impl AuditLog {
    /// A new file, or one whose chain goes on.
    pub(crate) fn open(path: &Path) -> Result<Self, AuditError> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => AuditError::InUse,
            std::fs::TryLockError::Error(error) => AuditError::Io(error),
        })?;
        let chain = verify(&file, &mut |_| ())?;
        // Half a line: nobody was answered by it.
        file.set_len(chain.bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { end: Mutex::new((file, chain)) })
    }

    /// Adds a line with what is in `event`, whose keys are others than `n`, `time`, `previous` and `sha256`.
    pub(crate) fn append(&self, event: &Value) -> io::Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, chain) = &mut *end;
        let time = chrono::DateTime::<chrono::Utc>::from(SystemTime::now()).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let mut line = json!({ "n": chain.lines + 1, "time": time, "previous": chain.sha256 });
        if let (Some(line), Some(event)) = (line.as_object_mut(), event.as_object()) {
            line.extend(event.clone());
        }
        let mut text = line.to_string();
        text.pop();
        let own = digest(&text);
        text.push_str(OWN);
        text.push_str(&own);
        text.push_str("\"}\n");
        if let Err(error) = file.write_all(text.as_bytes()) {
            // What there was room for is no line.
            file.set_len(chain.bytes)?;
            return Err(error);
        }
        *chain = Chain { lines: chain.lines + 1, sha256: own, bytes: chain.bytes + text.len() as u64 };
        Ok(())
    }
}
