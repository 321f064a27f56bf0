//! `synovia audit`: what in a run folder would make the measured performance better than it is.
//!
//! Each leak comes with its evidence, how sure it is, and what to do. Patients and examples are named by pseudonym.

mod headers;
mod images;
mod labels;
mod leak;
mod people;
mod statistics;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use polars::prelude::{Column, ParquetReader, SerReader};
use serde::{Deserialize, Serialize};
use synovia_cohort::{CohortReader, ExampleId, Split, Study};
use synovia_images::StudyIndex;
use synovia_records::RecordStore;

pub use self::leak::{Kind, Leak, Severity};
use super::Context;
use crate::cli::AuditArgs;
use crate::failure::{UsageError, print};
use crate::pipeline::{Named, TimeSpan, address};
use crate::stages;
use crate::stages::ingest::{self, read_json};
use crate::stages::run_folder::SHARDS;

/// What was looked at and what was found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Cohort folders: one, or one a fold.
    pub cohorts: usize,
    /// Examples in them.
    pub examples: usize,
    /// Images that were compared with each other.
    pub images: usize,
    /// Image files whose headers were read again.
    pub headers: usize,
    /// Patients whose records were read again.
    pub patients: usize,
    /// Rows of predictions that were compared with the cohort.
    pub predictions: usize,
    /// What was not looked at, and why.
    pub not_looked_at: BTreeSet<String>,
    /// The leaks.
    pub leaks: Vec<Leak>,
}

/// Prints the audit; an error, and so a code that is not 0, when there is a leak.
pub fn audit(args: &AuditArgs, context: &Context) -> anyhow::Result<()> {
    let audit = audit_run(&args.run)?;
    let shown = show(&audit, context);
    match audit.leaks.len() {
        0 => shown,
        // A leak is one whether or not somebody read about it.
        n => Err(anyhow!("{}: {n} leaks; what was measured on the test split does not hold", args.run.display())),
    }
}

fn show(audit: &Audit, context: &Context) -> anyhow::Result<()> {
    if context.global.json {
        return print(serde_json::to_string(audit)?);
    }
    for leak in &audit.leaks {
        print(format_args!("{}: {leak}\n    {}", leak.severity.as_str(), leak.advice))?;
    }
    for what in &audit.not_looked_at {
        print(format_args!("not looked at: {what}"))?;
    }
    let Audit { cohorts, examples, images, headers, patients, predictions, leaks, .. } = audit;
    print(format_args!(
        "{} leaks; looked at {cohorts} cohorts, {examples} examples, {images} images, {headers} image headers, {patients} patients' records and {predictions} predictions",
        leaks.len()
    ))
}

/// A cohort and what it was made from, as far as that is still there.
struct Place<'a> {
    /// Its folder, relative to the run.
    name: String,
    folder: PathBuf,
    reader: CohortReader,
    /// Study of each example that has one, by example id.
    studies: BTreeMap<String, &'a Study>,
    /// Folder that the studies' files are in.
    images: Option<PathBuf>,
    store: Option<&'a RecordStore>,
    history_days: Option<f64>,
    /// What the split was told to keep together.
    group: Option<Named>,
    /// Whether rows and pictures have no times: all is then known at once.
    timeless: bool,
}

impl Place<'_> {
    fn leak(&self, kind: Kind, evidence: impl Into<String>) -> Leak {
        Leak { place: self.name.clone(), kind, severity: kind.severity(), evidence: evidence.into(), advice: kind.advice() }
    }
}

/// Where the images of a run are: the folder of the pipeline or of its DICOMDIR, or the run's own copies.
fn image_folder(run: &Path, path: &Path) -> Option<PathBuf> {
    let copies = run.join(ingest::COPIES);
    if copies.is_dir() {
        return Some(copies);
    }
    if address(path).is_some() {
        return None;
    }
    if path.is_file() { path.parent().map(Path::to_owned) } else { Some(path.to_owned()) }
}

/// Looks for leaks in all cohorts of a run folder.
///
/// # Errors
/// When the folder holds no cohort, or one that can't be read.
pub fn audit_run(run: &Path) -> anyhow::Result<Audit> {
    let mut cohorts = Vec::new();
    find_cohorts(run, 3, &mut cohorts).with_context(|| format!("{}: give a run folder, such as runs/lung", run.display()))?;
    if cohorts.is_empty() {
        return Err(UsageError(format!("{}: no cohort in this folder; give a run folder, such as runs/lung", run.display())).into());
    }
    let ingested = run.join(ingest::FOLDER);
    let index: StudyIndex =
        if ingested.join("studies.json").is_file() { read_json(&ingested.join("studies.json"))? } else { StudyIndex::default() };
    let store = if ingested.join("records").is_dir() { Some(RecordStore::open(&ingested.join("records"))?) } else { None };
    let mut audit = Audit { cohorts: cohorts.len(), ..Audit::default() };
    if store.is_none() {
        audit.not_looked_at.insert("the patients' records: ingest/records is not there".to_owned());
    }
    for folder in cohorts {
        let relative = folder.strip_prefix(run).unwrap_or(&folder);
        let settings = settings(run, relative)?;
        let text = |section: &str, key: &str| settings.get(section)?.get(key)?.as_str().map(str::to_owned);
        let has = |section: &str, key: &str| settings.get(section).is_some_and(|section| section.get(key).is_some());
        let place = Place {
            name: relative.display().to_string(),
            reader: CohortReader::open(&folder)?,
            studies: studies(&folder, &index)?,
            images: text("images", "path").and_then(|path| image_folder(run, Path::new(&path))),
            store: store.as_ref(),
            history_days: text("records", "history").and_then(|span| span.parse::<TimeSpan>().ok()).map(TimeSpan::days),
            group: settings["cohort"]["split"].get("group").and_then(|group| Named::deserialize(group).ok()),
            timeless: text("records", "format").is_some_and(|format| format == "csv") && !has("records", "columns"),
            folder,
        };
        audit.examples += place.reader.rows().len();
        audit.splits(&place);
        images::look(&place, &mut audit)?;
        headers::look(&place, &mut audit);
        labels::features(&place, &mut audit)?;
        people::look(&place, &mut audit)?;
        let predictions = place.folder.with_file_name("predictions.parquet");
        if predictions.is_file() {
            audit.predictions(&place, &predictions).with_context(|| predictions.display().to_string())?;
        }
    }
    Ok(audit)
}

/// The settings that a cohort (its folder, relative to the run) was made with: what its stage noted, else the run's pipeline,
/// which is written anew before any stage runs; nothing where there is neither.
fn settings(run: &Path, cohort: &Path) -> anyhow::Result<serde_json::Value> {
    let fold: Option<usize> = cohort.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
    let stage = stages::place::Place::all(fold.map(|k| k + 1)).pop().map(|place| place.stage("cohort")).unwrap_or_default();
    let record = run.join(format!("stages/{stage}.json"));
    if record.is_file() {
        let mut record: serde_json::Value = read_json(&record)?;
        return Ok(record["settings"].take());
    }
    let path = run.join("pipeline.toml");
    let text = if path.is_file() { std::fs::read_to_string(&path)? } else { String::new() };
    let table: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    Ok(serde_json::to_value(table)?)
}

/// The study of each example, by example id: as the cohort stage noted it, for an example is not named by its study where it
/// is a patient's; else by the name.
fn studies<'a>(cohort: &Path, index: &'a StudyIndex) -> anyhow::Result<BTreeMap<String, &'a Study>> {
    let mut by_name: BTreeMap<String, &Study> =
        index.studies.iter().map(|study| (ExampleId::of_study(&study.study_instance_uid).as_str().to_owned(), study)).collect();
    let path = cohort.join("links.json");
    if path.is_file() {
        let links: Vec<Linked> = read_json(&path)?;
        let of_examples = links.into_iter().filter_map(|link| Some((link.example_id, *by_name.get(&link.study?)?)));
        let of_examples: Vec<(String, &Study)> = of_examples.collect();
        by_name.extend(of_examples);
    }
    Ok(by_name)
}

/// A line of `cohort/links.json`.
#[derive(Deserialize)]
struct Linked {
    example_id: String,
    #[serde(default)]
    study: Option<String>,
}

fn find_cohorts(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() && !name.to_string_lossy().starts_with('.') && name != SHARDS {
            folders.push(entry.path());
        }
    }
    folders.sort();
    for folder in folders {
        if folder.join("examples.parquet").is_file() && folder.join("manifest.json").is_file() {
            found.push(folder);
        } else if depth > 1 {
            find_cohorts(&folder, depth - 1, found)?;
        }
    }
    Ok(())
}

/// `train and test`
fn listed(splits: &BTreeSet<Split>) -> String {
    splits.iter().map(|split| split.as_str()).collect::<Vec<_>>().join(" and ")
}

impl Audit {
    /// Invariant: a patient is in one split, an example is there once.
    fn splits(&mut self, place: &Place<'_>) {
        let mut splits: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
        let mut examples = BTreeSet::new();
        for row in place.reader.rows() {
            splits.entry(&row.patient).or_default().insert(row.split);
            if !examples.insert(&row.id) {
                self.leaks.push(place.leak(Kind::ExampleTwice, format!("the example {} is there twice", row.id)));
            }
        }
        for (patient, splits) in splits.into_iter().filter(|(_, splits)| splits.len() > 1) {
            self.leaks.push(place.leak(Kind::PatientInTwoSplits, format!("the patient {patient} is in {}", listed(&splits))));
        }
    }

    /// Predictions say of each example the split that the cohort says.
    fn predictions(&mut self, place: &Place<'_>, path: &Path) -> anyhow::Result<()> {
        let splits: BTreeMap<&str, Split> = place.reader.rows().iter().map(|row| (row.id.as_str(), row.split)).collect();
        let frame = ParquetReader::new(File::open(path)?).with_columns(Some(vec!["example_id".into(), "split".into()])).finish()?;
        let text = |name: &str| frame.column(name).and_then(Column::str);
        let (ids, names) = (text("example_id")?, text("split")?);
        let mut wrong = BTreeSet::new();
        for k in 0..frame.height() {
            let (id, name) = (ids.get(k).unwrap_or_default(), names.get(k).unwrap_or_default());
            self.predictions += 1;
            let evidence = match splits.get(id) {
                Some(split) if split.as_str() == name => continue,
                Some(split) => format!("the example {id} counts as {name} but is in {}", split.as_str()),
                None => format!("the example {id} is not in the cohort"),
            };
            if wrong.insert(id) {
                let leak = place.leak(Kind::PredictionsDisagree, evidence);
                self.leaks.push(Leak { place: "predictions.parquet".to_owned(), ..leak });
            }
        }
        Ok(())
    }
}
