//! The cohort on disk: patients in parallel, files in order, whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::chart::{Chart, ResourceType, chart};
use crate::config::{Noise, SimulationConfig, SimulationError, io};
use crate::dicom::{Written, write_study};
use crate::patient::Patient;
use crate::truth::{Row, TruthWriter, rows};
use crate::world::Population;

/// Patients that are in memory at a time.
const BATCH: usize = 256;
/// Files of a resource type are flushed to disk in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Patients.
    pub n_patients: u64,
    /// Imaging studies, each an example, with or without DICOM files.
    pub n_studies: u64,
    /// DICOM files: two for each study that has an image.
    pub n_dicom_files: u64,
    /// FHIR resources.
    pub n_resources: u64,
    /// FHIR resources by type.
    pub resources: BTreeMap<&'static str, u64>,
    /// Size of all files.
    pub bytes: u64,
    /// Studies without DICOM files.
    pub n_missing_images: u64,
    /// Patients without birth date, gender and history.
    pub n_missing_records: u64,
    /// Trap: observations of a patient whom nobody knows.
    pub n_unknown_subjects: u64,
    /// Trap: imaging studies of a patient whom nobody knows.
    pub n_unknown_study_subjects: u64,
    /// Trap: labs in a unit from which no value can be had.
    pub n_unusable_units: u64,
    /// Trap: observations with the status `entered-in-error`.
    pub n_entered_in_error: u64,
}

/// What one patient comes to, apart from the DICOM files, which are on disk by then.
struct Drawn {
    chart: Chart,
    truth: Vec<Row>,
    written: Written,
    n_studies: u64,
    n_missing_images: u64,
    has_record: bool,
}

/// Writes a cohort to `out`, which must be empty or not exist: `dicom/<folder>/<study>/<n>.dcm`, `fhir/<Type>.ndjson`,
/// `truth.parquet`.
///
/// It is written beside `out` under a temporary name and renamed when it is whole. `progress` is called with the number
/// of patients done so far, from any thread. Works on the current rayon pool; the bytes do not depend on its size.
///
/// # Errors
/// A setting out of range, an `out` that is not empty, or a failure to write; nothing is left at `out` then.
pub fn simulate(config: &SimulationConfig, out: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<Summary, SimulationError> {
    config.validate()?;
    if out.exists() && std::fs::read_dir(out).map_err(io(out))?.next().is_some() {
        return Err(SimulationError::NotEmpty { path: out.to_owned() });
    }
    // A folder that can't be replaced, such as a mount point, is better found out about now than after the work.
    if out.exists() {
        std::fs::remove_dir(out).map_err(io(out))?;
    }
    let partial = Partial::create(out)?;
    let summary = write(config, &partial.path, progress)?;
    partial.publish(out)?;
    Ok(summary)
}

fn write(config: &SimulationConfig, dir: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<Summary, SimulationError> {
    let population = if config.noise == Some(Noise::Record) { Population::of_strangers() } else { Population::new() };
    let dicom = dir.join("dicom");
    let fhir = dir.join("fhir");
    for folder in [&dicom, &fhir] {
        std::fs::create_dir(folder).map_err(io(folder))?;
    }
    let mut files = Vec::new();
    for kind in ResourceType::ALL {
        let path = fhir.join(format!("{}.ndjson", kind.name()));
        let file = File::create(&path).map_err(io(&path))?;
        files.push((path, BufWriter::with_capacity(BUFFER_BYTES, file)));
    }
    let mut truth = TruthWriter::create(&dir.join("truth.parquet"))?;
    let mut summary = Summary { n_patients: config.n_patients as u64, ..Summary::default() };
    let done = std::sync::atomic::AtomicU64::new(0);
    for start in (0..config.n_patients).step_by(BATCH) {
        let batch: Vec<Drawn> = (start..config.n_patients.min(start + BATCH))
            .into_par_iter()
            .map(|index| {
                let drawn = draw(config, index, &dicom, &population)?;
                progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1);
                Ok(drawn)
            })
            .collect::<Result<_, SimulationError>>()?;
        for drawn in batch {
            for ((path, file), lines) in files.iter_mut().zip(&drawn.chart.lines) {
                file.write_all(lines).map_err(io(path))?;
            }
            summary.add(&drawn);
            truth.add(drawn.truth)?;
        }
    }
    for (path, file) in files {
        file.into_inner().map_err(|e| io(&path)(e.into_error()))?.sync_all().map_err(io(&path))?;
    }
    summary.bytes += truth.finish()?;
    Ok(summary)
}

fn draw(config: &SimulationConfig, index: usize, dicom: &Path, population: &Population) -> Result<Drawn, SimulationError> {
    let patient = Patient::draw(config, index);
    let mut written = Written::default();
    for (k, _) in patient.visits.iter().enumerate().filter(|(_, visit)| visit.has_image) {
        let folder = dicom.join(&patient.folder).join((k + 1).to_string());
        let study = write_study(config.seed, &patient, k, &folder)?;
        written.n_files += study.n_files;
        written.bytes += study.bytes;
    }
    Ok(Drawn {
        chart: chart(config.seed, &patient)?,
        truth: rows(config, &patient, population),
        written,
        n_studies: patient.visits.len() as u64,
        n_missing_images: patient.visits.iter().filter(|visit| !visit.has_image).count() as u64,
        has_record: patient.has_record,
    })
}

impl Summary {
    fn add(&mut self, drawn: &Drawn) {
        self.n_studies += drawn.n_studies;
        self.n_dicom_files += drawn.written.n_files;
        self.n_missing_images += drawn.n_missing_images;
        self.n_missing_records += u64::from(!drawn.has_record);
        self.bytes += drawn.written.bytes + drawn.chart.lines.iter().map(|lines| lines.len() as u64).sum::<u64>();
        for (kind, count) in ResourceType::ALL.iter().zip(drawn.chart.counts) {
            *self.resources.entry(kind.name()).or_default() += count;
            self.n_resources += count;
        }
        let traps = &drawn.chart.traps;
        self.n_unknown_subjects += traps.unknown_subjects;
        self.n_unknown_study_subjects += traps.unknown_study_subjects;
        self.n_unusable_units += traps.unusable_units;
        self.n_entered_in_error += traps.entered_in_error;
    }
}

/// A folder beside the output that is removed unless it is published.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(out: &Path) -> Result<Self, SimulationError> {
        let absolute = std::path::absolute(out).map_err(io(out))?;
        let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = absolute.with_file_name(format!(".{name}.partial-{}", std::process::id()));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io(parent))?;
        }
        // Left by a killed process of the same number, as containers have them: nobody else writes there.
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(io(&path))?;
        }
        std::fs::create_dir(&path).map_err(io(&path))?;
        Ok(Self { path })
    }

    fn publish(mut self, out: &Path) -> Result<(), SimulationError> {
        std::fs::rename(&self.path, out).map_err(io(out))?;
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // Best effort: the error that led here is the one to report.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
