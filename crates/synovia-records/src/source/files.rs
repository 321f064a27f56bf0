//! Which files there are, and their bytes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use crate::config::Format;
use crate::error::{RecordsError, io};
use crate::rows::{in_meds, table_of};

/// How a file is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A resource a line.
    Lines,
    /// A Bundle, or one resource.
    Json,
    /// A table of text.
    Table,
    /// A table in Parquet.
    Parquet,
}

/// A file to read. There may be one a patient, so it is small.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    folder: Arc<Path>,
    /// Its name in rejections: relative to the folder that is ingested.
    pub(crate) name: Box<str>,
    /// How it is cut.
    pub(crate) layout: Layout,
    /// Whether it is compressed.
    pub(crate) gzip: bool,
    /// Size on disk.
    pub(crate) n_bytes: u64,
}

impl Source {
    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(&*self.name)
    }
}

impl Format {
    /// Endings that are read.
    pub(crate) const fn endings(self) -> &'static str {
        match self {
            Self::Fhir => ".ndjson, .jsonl or .json (each also .gz)",
            Self::Meds => ".parquet under data or metadata",
            Self::Omop => "table of OMOP CDM 5.4 that is read (.csv, .tsv, each also .gz, or .parquet)",
            Self::Csv => ".csv or .tsv (each also .gz)",
        }
    }

    /// A file that belongs to the format, though nothing of it is read.
    fn knows(self, name: &str) -> bool {
        self == Self::Meds && in_meds(name) == Some(false)
    }

    fn layout(self, name: &str) -> Option<(Layout, bool)> {
        let read = match self {
            Self::Meds => in_meds(name) == Some(true),
            Self::Omop => table_of(name).is_some(),
            Self::Fhir | Self::Csv => true,
        };
        if !read {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let (stem, gzip) = name.strip_suffix(".gz").map_or((name.as_str(), false), |stem| (stem, true));
        let layout = match (self, stem.rsplit_once('.')?.1) {
            (Self::Fhir, "ndjson" | "jsonl") => Layout::Lines,
            (Self::Fhir, "json") => Layout::Json,
            (Self::Csv | Self::Omop, "csv" | "tsv") => Layout::Table,
            (Self::Meds | Self::Omop, "parquet") if !gzip => Layout::Parquet,
            _ => return None,
        };
        Some((layout, gzip))
    }
}

/// Names that say what a file holds and of nobody: types of resources, of which bulk exports have a file each.
const NEUTRAL: [&str; 36] = [
    "AllergyIntolerance",
    "Bundle",
    "CarePlan",
    "CareTeam",
    "Claim",
    "Condition",
    "Coverage",
    "Device",
    "DiagnosticReport",
    "DocumentReference",
    "Encounter",
    "ExplanationOfBenefit",
    "FamilyMemberHistory",
    "Goal",
    "Group",
    "ImagingStudy",
    "Immunization",
    "Location",
    "Medication",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationRequest",
    "MedicationStatement",
    "Observation",
    "Organization",
    "Patient",
    "Practitioner",
    "PractitionerRole",
    "Procedure",
    "Provenance",
    "QuestionnaireResponse",
    "RelatedPerson",
    "ServiceRequest",
    "Specimen",
    "SupplyDelivery",
    "SupplyRequest",
];
/// A number of more digits may be a patient's.
const MAX_NUMBER_DIGITS: usize = 3;
/// Files of many patients by their format, so that their names are seldom one's.
const OF_MANY: [&str; 5] = [".ndjson", ".jsonl", ".csv", ".tsv", ".parquet"];
/// Folders of MEDS, which name nobody.
const MEDS_FOLDERS: [&str; 6] = ["data/", "metadata/", "train/", "tuning/", "held_out/", "test/"];

/// What the `k`-th (from 0) of `n` files (`what` they are) is called in a log: its name where that is a resource's type with a
/// short number or none (`Bundle-12.json`), or of a format that holds many patients (`part-3.ndjson`) and without a long number or
/// a folder; else its place in the order of the names, for a file or folder of one patient is often named by them.
pub(crate) fn sayable(name: &str, what: &str, k: usize, n: usize) -> String {
    let lower = name.to_ascii_lowercase();
    let stem = lower.strip_suffix(".gz").unwrap_or(&lower);
    let of_many = OF_MANY.iter().find_map(|ending| stem.strip_suffix(ending));
    let of_many = of_many.map(|stem| MEDS_FOLDERS.iter().fold(stem, |stem, folder| stem.strip_prefix(folder).unwrap_or(stem)));
    let stem = of_many.or_else(|| stem.strip_suffix(".json")).unwrap_or(stem);
    let short = !stem.as_bytes().windows(MAX_NUMBER_DIGITS + 1).any(|window| window.iter().all(u8::is_ascii_digit));
    let (word, number) = stem.split_at(stem.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(stem.len()));
    let digits = number.trim_start_matches(['-', '_', '.']);
    let a_type = digits.bytes().all(|b| b.is_ascii_digit()) && NEUTRAL.iter().any(|neutral| neutral.eq_ignore_ascii_case(word));
    if short && (a_type || (of_many.is_some() && !stem.contains(['/', '\\']))) {
        name.to_owned()
    } else {
        format!("{what} {} of {n}", k + 1)
    }
}

/// The files of a format under `path` in the order of their names, and the names of others.
///
/// Links to folders are not followed, so that a link to a parent cannot loop.
pub(crate) fn find(path: &Path, format: Format) -> Result<(Vec<Source>, Vec<String>), RecordsError> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    let metadata = std::fs::metadata(path).map_err(io(path))?;
    if metadata.is_file() {
        let name: Box<str> = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().into();
        if let Some((layout, gzip)) = format.layout(&name) {
            let folder = path.parent().unwrap_or(Path::new("")).into();
            found.push(Source { folder, name, layout, gzip, n_bytes: metadata.len() });
        }
    } else {
        let root: Arc<Path> = path.into();
        let mut folders = vec![path.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(io(&folder))? {
                let entry = entry.map_err(io(&folder))?;
                let (file, kind) = (entry.path(), entry.file_type().map_err(io(&folder))?);
                if kind.is_dir() {
                    folders.push(file);
                    continue;
                }
                let name = file.strip_prefix(path).unwrap_or(&file);
                let hidden = entry.file_name().to_string_lossy().starts_with('.');
                match name.to_str().and_then(|name| Some((name, format.layout(name)?))) {
                    Some((name, (layout, gzip))) if !hidden => {
                        let n_bytes = std::fs::metadata(&file).map_or(0, |m| m.len());
                        found.push(Source { folder: root.clone(), name: name.into(), layout, gzip, n_bytes });
                    }
                    _ if name.to_str().is_some_and(|name| format.knows(name)) => {}
                    _ => others.push(name.to_string_lossy().into_owned()),
                }
            }
        }
    }
    if found.is_empty() {
        return Err(RecordsError::NothingToRead { path: path.to_owned(), expected: format.endings() });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    others.sort();
    Ok((found, others))
}

/// Reports what was read from disk.
struct Counted<'a> {
    file: File,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        (self.progress)(n as u64);
        Ok(n)
    }
}

/// A read buffer: large enough that a system call costs nothing beside what it brings.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// The decompressed bytes of a file.
pub(crate) fn open<'a>(source: &Source, progress: &'a (dyn Fn(u64) + Sync)) -> std::io::Result<Box<dyn Read + 'a>> {
    let raw = Counted { file: File::open(source.path())?, progress };
    Ok(if source.gzip { Box::new(MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, raw))) } else { Box::new(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_may_be_a_patients_is_not_said() {
        for name in [
            "data/train/0.parquet",
            "Observation.ndjson",
            "Observation-3.ndjson.gz",
            "Observation.000.ndjson",
            "bundle.json",
            "patient_12.csv",
            "part-a.ndjson",
        ] {
            assert_eq!(sayable(name, "file", 4, 9), name);
        }
        for name in
            ["Doe.json", "Patient-12345678.json", "part-0042.ndjson", "Observation_Doe.json", "Doe/part.ndjson", "notes.txt", "", "é.json"]
        {
            assert_eq!(sayable(name, "file", 4, 9), "file 5 of 9", "{name}");
        }
    }
}
