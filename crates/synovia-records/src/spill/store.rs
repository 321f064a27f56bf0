//! The folder that an ingest writes and the cohort stage reads.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use synovia_cohort::{PatientId, PatientRecord};

use super::codec::{Corrupt, Cursor, Interner, get_event, get_patient, get_study};
use crate::error::{RecordsError, io};
use crate::summary::Summary;

/// Version of the layout.
const VERSION: u32 = 2;
/// Written last: without it the folder is not a store.
pub(crate) const MARKER: &str = "records.json";

/// A settled partition: which raw file it came of, which piece of that it is, and what its bytes must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartInfo {
    pub(crate) of: usize,
    pub(crate) piece: usize,
    /// A shorter or longer file is damaged,
    pub(crate) n_bytes: u64,
    /// and so is one whose bytes are others: what a machine that lost its power left behind.
    pub(crate) checksum: u64,
}

impl PartInfo {
    /// Its file.
    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("part-{:04}-{:04}.bin", self.of, self.piece))
    }
}

/// What the marker says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Marker {
    version: u32,
    parts: Vec<PartInfo>,
    summary: Summary,
}

pub(crate) fn marker(parts: Vec<PartInfo>, summary: Summary) -> Marker {
    Marker { version: VERSION, parts, summary }
}

/// A 64-bit digest against damage, not against intent: a word at a time, multiplied by the constant of FNV-1a.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| step(hash, u64::from_le_bytes(*word)));
    step(rest.iter().fold(hash, |hash, byte| step(hash, u64::from(*byte))), bytes.len() as u64)
}

/// Writes a file under a temporary name and gives it its own. Nothing waits until it is on disk.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> Result<(), RecordsError> {
    let temporary = path.with_extension("tmp");
    let write = || {
        std::fs::write(&temporary, bytes)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(io(path))
}

/// Bytes of items that wait in memory, of all partitions together: what a hospital's day brings never sees the disk twice.
#[cfg(not(test))]
const HELD_BYTES: usize = 64 << 20;
#[cfg(test)]
const HELD_BYTES: usize = 1 << 20;
/// Once there are more, a partition's are written that has at least so many: few writes.
const WRITE_BYTES: usize = 16 << 10;

/// Items wait in pieces of this size: nothing is moved when more come.
const CHUNK_BYTES: usize = 32 << 10;

/// Items of a partition.
#[derive(Default)]
struct RawPart {
    /// What came before.
    file: Option<File>,
    /// Whole items each.
    waiting: Vec<Vec<u8>>,
    /// Bytes that wait.
    n_bytes: usize,
}

/// Items by partition as they come: in memory as long as there is room, then in a file each.
pub(crate) struct Raw {
    folder: PathBuf,
    parts: Vec<Mutex<RawPart>>,
    /// Bytes that were allocated for what waits in all of them.
    held: AtomicUsize,
}

impl Raw {
    /// None yet, for files in `folder`, which is made where it is missing. A store that was there is one no longer.
    pub(crate) fn create(folder: &Path, n_partitions: usize) -> Result<Self, RecordsError> {
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let marker = folder.join(MARKER);
        if marker.exists() {
            std::fs::remove_file(&marker).map_err(io(&marker))?;
        }
        for entry in std::fs::read_dir(folder).map_err(io(folder))? {
            let entry = entry.map_err(io(folder))?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|n| n.starts_with("part-") || n.starts_with("raw-")) {
                std::fs::remove_file(entry.path()).map_err(io(&entry.path()))?;
            }
        }
        let parts = (0..n_partitions).map(|_| Mutex::default()).collect();
        Ok(Self { folder: folder.to_owned(), parts, held: AtomicUsize::new(0) })
    }

    /// Number of partitions.
    pub(crate) fn n_partitions(&self) -> usize {
        self.parts.len()
    }

    /// File of a partition.
    pub(crate) fn path(folder: &Path, k: usize) -> PathBuf {
        folder.join(format!("raw-{k:04}.bin"))
    }

    fn part(&self, k: usize) -> MutexGuard<'_, RawPart> {
        self.parts[k].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends items.
    pub(crate) fn append(&self, k: usize, items: &[u8]) -> Result<(), RecordsError> {
        let mut part = self.part(k);
        match part.waiting.last_mut() {
            Some(chunk) if chunk.capacity() - chunk.len() >= items.len() => chunk.extend_from_slice(items),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES.max(items.len()));
                chunk.extend_from_slice(items);
                self.held.fetch_add(chunk.capacity(), Ordering::Relaxed);
                part.waiting.push(chunk);
            }
        }
        part.n_bytes += items.len();
        if self.held.load(Ordering::Relaxed) > HELD_BYTES && part.n_bytes >= WRITE_BYTES {
            self.write(k, &mut part)?;
        }
        Ok(())
    }

    fn write(&self, k: usize, part: &mut RawPart) -> Result<(), RecordsError> {
        let path = Self::path(&self.folder, k);
        let RawPart { file, waiting, n_bytes } = part;
        let file = match file {
            Some(file) => file,
            // Appended, since items under another name of a patient are moved in the end.
            None => file.insert(File::options().append(true).create_new(true).open(&path).map_err(io(&path))?),
        };
        for chunk in waiting.drain(..) {
            file.write_all(&chunk).map_err(io(&path))?;
            self.held.fetch_sub(chunk.capacity(), Ordering::Relaxed);
        }
        *n_bytes = 0;
        Ok(())
    }

    /// Writes what still waits; to be called before the files are read.
    pub(crate) fn flush(&self) -> Result<(), RecordsError> {
        (0..self.parts.len()).try_for_each(|k| self.write(k, &mut self.part(k)))
    }

    /// The items of a partition, if they are `max_bytes` at the most and none was written; else `None`, and all are in its file.
    pub(crate) fn take(&self, k: usize, max_bytes: u64) -> Result<Option<Vec<Vec<u8>>>, RecordsError> {
        let mut part = self.part(k);
        if part.file.is_some() || part.n_bytes as u64 > max_bytes {
            self.write(k, &mut part)?;
            return Ok(None);
        }
        self.held.fetch_sub(part.waiting.iter().map(Vec::capacity).sum(), Ordering::Relaxed);
        part.n_bytes = 0;
        Ok(Some(std::mem::take(&mut part.waiting)))
    }
}

/// As [`io`], but a file that is not there is one that the ingest stage would make again.
fn absent(path: &Path) -> impl FnOnce(std::io::Error) -> RecordsError + '_ {
    move |error| match error.kind() {
        std::io::ErrorKind::NotFound => RecordsError::Damaged { path: path.to_owned(), what: "no such file".to_owned() },
        _ => io(path)(error),
    }
}

/// Patients on disk, in partitions that fit in memory.
#[derive(Debug)]
pub struct RecordStore {
    folder: PathBuf,
    parts: Vec<PartInfo>,
    summary: Summary,
}

impl RecordStore {
    /// The file that says what the others must be. With it on disk, a store that a machine without power left behind is found to be
    /// whole or damaged; who keeps one waits for that, and who reads it once need not.
    pub fn marker(&self) -> PathBuf {
        self.folder.join(MARKER)
    }

    /// Opens what [`crate::ingest`] wrote.
    ///
    /// # Errors
    /// [`RecordsError::Damaged`] when the ingest did not end, or a partition is not there or not as long as it was;
    /// [`RecordsError::Io`] when one can't be looked at.
    pub fn open(folder: &Path) -> Result<Self, RecordsError> {
        let path = folder.join(MARKER);
        let damaged = |what: &str| RecordsError::Damaged { path: path.clone(), what: what.to_owned() };
        if !path.exists() {
            return Err(damaged("no such file: the ingest did not end"));
        }
        let text = std::fs::read(&path).map_err(io(&path))?;
        let marker: Marker = serde_json::from_slice(&text).map_err(|_| damaged("not a marker of an ingest"))?;
        if marker.version != VERSION {
            return Err(damaged(&format!("layout version {} where {VERSION} is expected", marker.version)));
        }
        for part in &marker.parts {
            let path = part.path(folder);
            let (found, expected) = (std::fs::metadata(&path).map_err(absent(&path))?.len(), part.n_bytes);
            if found != expected {
                return Err(RecordsError::Damaged { path, what: format!("{found} bytes instead of {expected}") });
            }
        }
        Ok(Self { folder: folder.to_owned(), parts: marker.parts, summary: marker.summary })
    }

    /// Number of partitions. A patient is in exactly one.
    pub fn n_partitions(&self) -> usize {
        self.parts.len()
    }

    /// What was read.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The patients of partition `k`, sorted by id, each with its events sorted by time.
    ///
    /// # Errors
    /// [`RecordsError::Damaged`] for a partition that is not there or not what was written; [`RecordsError::Io`] for one that
    /// can't be read.
    pub fn load(&self, k: usize) -> Result<Vec<PatientRecord>, RecordsError> {
        let Some(part) = self.parts.get(k) else {
            return Err(RecordsError::Damaged { path: self.folder.clone(), what: format!("no partition {k}") });
        };
        let path = part.path(&self.folder);
        let damaged = |what: &str| RecordsError::Damaged { path: path.clone(), what: what.to_owned() };
        let bytes = std::fs::read(&path).map_err(absent(&path))?;
        if checksum(&bytes) != part.checksum {
            return Err(damaged("not the bytes that were written"));
        }
        decode(&bytes).map_err(|Corrupt| damaged("not what was written"))
    }
}

fn decode(bytes: &[u8]) -> Result<Vec<PatientRecord>, Corrupt> {
    let mut from = Cursor(bytes);
    let mut names = Interner::default();
    let mut records = Vec::new();
    while !from.is_empty() {
        let id = PatientId::new(from.text()?);
        let patient = get_patient(&mut from, &mut names)?;
        let events = (0..from.u64()?).map(|_| get_event(&mut from, &mut names)).collect::<Result<_, _>>()?;
        let studies = (0..from.u64()?).map(|_| get_study(&mut from)).collect::<Result<_, _>>()?;
        records.push(PatientRecord { id, patient, events, studies });
    }
    Ok(records)
}
