//! Files to an index of studies and a store of records.

use std::path::Path;

use anyhow::Context as _;
use synovia_cohort::RejectedLog;
use synovia_images::{Places, ScanCounts, StudyIndex};

use super::atomic::{atomic_dir, atomic_file};
use super::cache::Stage;
use super::{StageError, run_stage};
use crate::commands::Work;
use crate::pipeline::Images;

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 6;
/// Folder of its outputs.
pub const FOLDER: &str = "ingest";
/// Folder of copies of the images that stand for studies, where the images come from an archive or a server. No output of the
/// stage: it outlives a stage that was killed, which goes on from what is there.
pub const COPIES: &str = "images";

/// The stage as it would run now.
pub fn stage(work: &Work) -> anyhow::Result<Stage> {
    let pipeline = &work.pipeline;
    let images = pipeline.images.as_ref().map(|images| (&images.path, &images.access.query, images.kind, &images.selection));
    let mut stage = Stage::new("ingest", VERSION, &serde_json::json!({ "images": images, "records": work.pipeline.format_config() }))?;
    if let Some(images) = &pipeline.images {
        let source = images.source()?;
        stage = match source.state()? {
            Some(digest) => stage.holds("images", digest),
            // Of a DICOMDIR the folder that it lists, with it.
            None if source.root(&images.path) != images.path => stage.reads("images", source.root(&images.path))?,
            None => stage.reads("images", &images.path)?,
        };
    }
    Ok(stage.reads("records", &pipeline.records.path)?)
}

/// Runs the stage unless it is fresh.
pub fn run(work: &Work) -> anyhow::Result<Stage> {
    let stage = stage(work)?;
    run_stage(&stage, &work.run, &work.progress, &[FOLDER], || ingest(work))?;
    Ok(stage)
}

fn ingest(work: &Work) -> anyhow::Result<()> {
    let dir = atomic_dir(&work.run.join(FOLDER))?;
    let log_path = dir.path().join("rejected.jsonl");
    let log = RejectedLog::create(&log_path).with_context(|| log_path.display().to_string())?;
    let studies = dir.path().join("studies.json");
    match &work.pipeline.images {
        None => write_json(&studies, &StudyIndex::default())?,
        Some(images) => {
            let bar = work.progress.start("images", None, "files");
            let places = Places { copies: &work.run.join(COPIES), scratch: dir.path() };
            let counts = scan(images, places, &studies, &log, &|n| bar.set(n))?;
            bar.finish(&format!("{} studies", counts.n_studies));
        }
    }

    let format = work.pipeline.format_config();
    let records = &work.pipeline.records.path;
    let bar = work.progress.start("records", Some(synovia_records::input_bytes(records, &format)?), "bytes");
    let spill = dir.path().join("records");
    std::fs::create_dir_all(&spill).with_context(|| spill.display().to_string())?;
    let store = synovia_records::ingest(records, &format, &spill, &log, &|n| bar.add(n))?;
    let marker = store.marker();
    std::fs::File::open(&marker).and_then(|file| file.sync_all()).with_context(|| marker.display().to_string())?;
    bar.finish(&format!("{} patients, {} events", store.summary().n_patients, store.summary().n_events));
    let counts = log.finish().with_context(|| log_path.display().to_string())?;
    let total: u64 = counts.values().sum();
    work.progress.note("ingest", &format!("{total} things were not taken; see rejected.jsonl for each"));
    write_json(&dir.path().join("rejected.json"), &counts)?;
    dir.commit()?;
    Ok(())
}

/// Scans the images and writes a [`StudyIndex`] to `path`, study by study as they come: none is held.
fn scan(
    images: &Images,
    places: Places<'_>,
    path: &Path,
    log: &RejectedLog,
    progress: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<ScanCounts> {
    let source = images.source()?;
    let mut counts = ScanCounts::default();
    atomic_file(path, |out| -> anyhow::Result<()> {
        out.write_all(b"{\"studies\": [")?;
        let mut between = "\n";
        counts = source.scan_into(images.kind.into(), &images.selection, places, log, progress, &mut |study| {
            out.write_all(between.as_bytes())?;
            serde_json::to_writer(&mut *out, &study)?;
            between = ",\n";
            Ok(())
        })?;
        writeln!(out, "\n], \"n_files\": {}, \"n_images\": {}}}", counts.n_files, counts.n_images)?;
        Ok(())
    })?;
    Ok(counts)
}

/// Writes a value as indented JSON, whole.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(value)?;
    atomic_file(path, |out| out.write_all(&text).map_err(|source| StageError::Io { path: path.to_owned(), source }))?;
    Ok(())
}

/// Reads JSON of ours.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    // Not its text at once: the index of the studies of many patients is large.
    serde_json::from_reader(std::io::BufReader::new(file))
        .with_context(|| format!("{}: not as it was written; run the stage again", path.display()))
}
