//! What was not taken, and why: nothing is dropped in silence.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// One thing that ingest did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The file, relative to the folder that was ingested; of records whose file may be named for a patient, its place in the
    /// order of the names (`file 3 of 12`).
    pub source: String,
    /// Where in it: `line 17`, `Observation/123`, `(0028,0010)`, `frame 3`; empty for the whole file.
    pub position: String,
    /// Why, in words that say what would make it acceptable; never with a patient's identifier or name.
    pub reason: String,
}

impl Rejected {
    /// A rejection; see the fields.
    pub fn new(source: impl Into<String>, position: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { source: source.into(), position: position.into(), reason: reason.into() }
    }
}

/// Writes rejections as they come (JSON lines) and counts them by reason: memory does not grow with their number.
pub struct RejectedLog {
    inner: Mutex<Inner>,
}

struct Inner {
    out: Box<dyn Write + Send>,
    counts: BTreeMap<String, u64>,
    failure: Option<std::io::Error>,
}

/// Reasons that carry a value (`unknown unit \`furlong\``) would make the count a second log: past this many they share a line.
const MAX_REASONS: usize = 200;

impl RejectedLog {
    /// A log that writes to `path`, replacing what is there.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        Ok(Self::to_writer(Box::new(BufWriter::new(File::create(path)?))))
    }

    /// A log that only counts.
    pub fn counting() -> Self {
        Self::to_writer(Box::new(std::io::sink()))
    }

    /// A log into any writer.
    pub fn to_writer(out: Box<dyn Write + Send>) -> Self {
        Self { inner: Mutex::new(Inner { out, counts: BTreeMap::new(), failure: None }) }
    }

    /// Takes one rejection. A write that fails (a full disk) is kept for [`RejectedLog::finish`].
    pub fn push(&self, rejected: &Rejected) {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = inner.counts.contains_key(&rejected.reason) || inner.counts.len() < MAX_REASONS;
        let key = if known { rejected.reason.as_str() } else { "other reasons" };
        *inner.counts.entry(key.to_owned()).or_default() += 1;
        let line = serde_json::to_string(rejected).unwrap_or_default();
        if let Err(error) = writeln!(inner.out, "{line}") {
            inner.failure.get_or_insert(error);
        }
    }

    /// How many were taken so far.
    pub fn total(&self) -> u64 {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).counts.values().sum()
    }

    /// Flushes and returns the counts by reason, or the first write that failed.
    pub fn finish(self) -> std::io::Result<BTreeMap<String, u64>> {
        let mut inner = self.inner.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.out.flush()?;
        match inner.failure {
            Some(error) => Err(error),
            None => Ok(inner.counts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_lines_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rejected.jsonl");
        let log = RejectedLog::create(&path).unwrap();
        for k in 0..1000 {
            log.push(&Rejected::new("a.ndjson", format!("line {k}"), format!("unknown unit `u{k}`")));
        }
        let counts = log.finish().unwrap();
        assert_eq!(counts.values().sum::<u64>(), 1000);
        assert_eq!(counts.len(), MAX_REASONS + 1);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1000);
    }
}
