//! The folder that an ingest writes and the cohort stage reads.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use synovia_cohort::{PatientId, PatientRecord};

use super::codec::{Corrupt, Cursor, Interner, get_event, get_patient, get_study};
use crate::error::{RecordsError, io};
use crate::summary::Summary;

/// Version of the layout.
const VERSION: u32 = 1;
/// Written last: without it the folder is not a store.
pub(crate) const MARKER: &str = "records.json";

/// What the marker says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Marker {
    version: u32,
    /// Length of each partition, bytes: a shorter file is damaged.
    n_bytes: Vec<u64>,
    summary: Summary,
}

pub(crate) fn marker(n_bytes: Vec<u64>, summary: Summary) -> Marker {
    Marker { version: VERSION, n_bytes, summary }
}

/// File of a settled partition.
pub(crate) fn part_path(folder: &Path, k: usize) -> PathBuf {
    folder.join(format!("part-{k:04}.bin"))
}

/// Writes a file under a temporary name, waits until it is on disk, and gives it its own name.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> Result<(), RecordsError> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(io(path))
}

/// Files that items are appended to as they come, one a partition.
pub(crate) struct Raw {
    folder: PathBuf,
    files: Vec<Mutex<File>>,
}

impl Raw {
    /// Empty files in `folder`, which is made where it is missing. A store that was there is one no longer.
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
        let files = (0..n_partitions)
            .map(|k| {
                let path = Self::path(folder, k);
                // Appended, since items under another name of a patient are moved in the end.
                File::options().append(true).create_new(true).open(&path).map(Mutex::new).map_err(io(&path))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { folder: folder.to_owned(), files })
    }

    /// Number of partitions.
    pub(crate) fn n_partitions(&self) -> usize {
        self.files.len()
    }

    /// File of a partition.
    pub(crate) fn path(folder: &Path, k: usize) -> PathBuf {
        folder.join(format!("raw-{k:04}.bin"))
    }

    /// Appends items.
    pub(crate) fn append(&self, k: usize, items: &[u8]) -> Result<(), RecordsError> {
        if items.is_empty() {
            return Ok(());
        }
        let mut file = self.files[k].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(items).map_err(io(&Self::path(&self.folder, k)))
    }
}

/// Patients on disk, in partitions that fit in memory.
#[derive(Debug)]
pub struct RecordStore {
    folder: PathBuf,
    n_bytes: Vec<u64>,
    summary: Summary,
}

impl RecordStore {
    /// Opens what [`crate::ingest`] wrote.
    ///
    /// # Errors
    /// [`RecordsError::Damaged`] when the ingest did not end or a partition is not as long as it was.
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
        for (k, &expected) in marker.n_bytes.iter().enumerate() {
            let path = part_path(folder, k);
            let found = std::fs::metadata(&path).map_err(io(&path))?.len();
            if found != expected {
                return Err(RecordsError::Damaged { path, what: format!("{found} bytes instead of {expected}") });
            }
        }
        Ok(Self { folder: folder.to_owned(), n_bytes: marker.n_bytes, summary: marker.summary })
    }

    /// Number of partitions. A patient is in exactly one.
    pub fn n_partitions(&self) -> usize {
        self.n_bytes.len()
    }

    /// What was read.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The patients of partition `k`, sorted by id, each with its events sorted by time.
    ///
    /// # Errors
    /// [`RecordsError::Damaged`] for a partition that is not there or not readable.
    pub fn load(&self, k: usize) -> Result<Vec<PatientRecord>, RecordsError> {
        let path = part_path(&self.folder, k);
        let damaged = |what: &str| RecordsError::Damaged { path: path.clone(), what: what.to_owned() };
        if k >= self.n_bytes.len() {
            return Err(damaged("no such partition"));
        }
        let bytes = std::fs::read(&path).map_err(io(&path))?;
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
