//! What can be asked for, and what can go wrong.

use std::path::{Path, PathBuf};

/// Most patients that identifiers of fixed width can tell apart.
const MAX_PATIENTS: usize = 100_000_000;

/// A cohort to be drawn. The same settings give the same bytes, for any number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulationConfig {
    /// Number of patients, 1 to 100,000,000.
    pub n_patients: usize,
    /// Seed; patient `k` depends on it and on `k` alone.
    pub seed: u64,
    /// Probability that a study has a chart entry and a report but no DICOM file.
    pub missing_image: f64,
    /// Probability that a patient has no birth date, no gender and no history before any study.
    pub missing_record: f64,
    /// The modality that tells nothing: outcomes are those of a patient whom it does not show.
    pub noise: Option<Noise>,
}

/// A modality that is drawn as ever and has nothing to do with the outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// Images.
    Image,
    /// Records.
    Record,
}

impl SimulationConfig {
    pub(crate) fn validate(&self) -> Result<(), SimulationError> {
        if self.n_patients == 0 || self.n_patients > MAX_PATIENTS {
            let (setting, got) = ("patients", self.n_patients.to_string());
            return Err(SimulationError::Setting { setting, got, expected: "a number from 1 to 100000000" });
        }
        for (setting, p) in [("missing-image", self.missing_image), ("missing-record", self.missing_record)] {
            if !(0.0..=1.0).contains(&p) {
                return Err(SimulationError::Setting { setting, got: p.to_string(), expected: "a probability from 0 to 1" });
            }
        }
        Ok(())
    }
}

/// Why no cohort was written. Nothing is left at the output path.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// A setting outside its range.
    #[error("{setting}: got {got}, expected {expected}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// Its value.
        got: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The output folder holds something, which would be mixed with the cohort or lost.
    #[error("{}: is not empty; choose another output folder or remove it first", path.display())]
    NotEmpty {
        /// The output folder.
        path: PathBuf,
    },
    /// Reading or writing the file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was being written.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A DICOM object could not be encoded.
    #[error("{}: the DICOM object could not be encoded: {source}", path.display())]
    Dicom {
        /// What was being written.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A FHIR resource could not be encoded.
    #[error("a FHIR {resource} could not be encoded: {source}")]
    Fhir {
        /// Resource type.
        resource: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
    /// The table of truth could not be written.
    #[error("{}: {source}", path.display())]
    Table {
        /// What was being written.
        path: PathBuf,
        /// The cause.
        source: polars::prelude::PolarsError,
    },
}

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SimulationError + '_ {
    move |source| SimulationError::Io { path: path.to_owned(), source }
}
