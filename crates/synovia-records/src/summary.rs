//! What an ingest took and what it left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts of an ingest. `resources`, `skipped_types` and what was rejected as unreadable are together all that was there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Files read.
    pub n_files: u64,
    /// Their size on disk, bytes.
    pub n_bytes: u64,
    /// Patients.
    pub n_patients: u64,
    /// Events, all patients together.
    pub n_events: u64,
    /// Imaging studies that the chart names.
    pub n_studies: u64,
    /// Patients without any event.
    pub n_patients_without_events: u64,
    /// Rejections logged.
    pub n_rejected: u64,
    /// Resources (CSV: rows) that were understood, by type, whether or not all that they say was taken.
    pub resources: BTreeMap<String, u64>,
    /// Resources of types that hold no clinical event that is read (Claim, Organization, …), by type.
    pub skipped_types: BTreeMap<String, u64>,
}

/// Types beyond this many are counted together: the names come from the input.
const MAX_TYPES: usize = 200;

impl Summary {
    /// Adds the counts of another part.
    pub(crate) fn add(&mut self, other: &Self) {
        self.n_files += other.n_files;
        self.n_bytes += other.n_bytes;
        self.n_patients += other.n_patients;
        self.n_events += other.n_events;
        self.n_studies += other.n_studies;
        self.n_patients_without_events += other.n_patients_without_events;
        self.n_rejected += other.n_rejected;
        for (kind, n) in &other.resources {
            count(&mut self.resources, kind, *n);
        }
        for (kind, n) in &other.skipped_types {
            count(&mut self.skipped_types, kind, *n);
        }
    }
}

/// Adds `n` to a type's count.
pub(crate) fn count(counts: &mut BTreeMap<String, u64>, kind: &str, n: u64) {
    if let Some(found) = counts.get_mut(kind) {
        *found += n;
    } else {
        let name = if counts.len() < MAX_TYPES { kind } else { "other types" };
        *counts.entry(name.to_owned()).or_default() += n;
    }
}
