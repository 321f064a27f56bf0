//! `synovia bench ingest`: how fast files become rows of a cohort's pixel shards.
//!
//! The same work as `ingest_pydicom.py` does with pydicom, and the same keys: every file that is named as DICOM files are,
//! read, decoded, windowed, scaled to a square and written.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use rayon::prelude::*;
use synovia_cohort::{CohortWriter, FORMAT, Geometry, Manifest, RejectedLog};
use synovia_images::{AHEAD, ImageKind, Preparation, image_files, load_file, will_need};

use crate::cli::BenchIngestArgs;
use crate::failure::print;

/// What is printed, as one line of JSON.
#[derive(Debug, serde::Serialize)]
struct Measured {
    files: usize,
    images: usize,
    failed: usize,
    seconds: f64,
    images_per_s: f64,
}

/// Prepares every file of a folder and prints how long it took.
pub fn ingest(args: &BenchIngestArgs) -> anyhow::Result<()> {
    print(serde_json::to_string(&measure(&args.folder, args.size)?)?)
}

fn measure(folder: &Path, size: usize) -> anyhow::Result<Measured> {
    let files = files(folder)?;
    ensure!(!files.is_empty(), "{}: no file without an extension or named .dcm; give a folder of DICOM files", folder.display());
    // Beside the input it would be counted by the next run.
    let dir = tempfile::tempdir().context("a temporary folder for the shards")?;
    let start = Instant::now();
    let preparation = Preparation::grey(size);
    let writer = CohortWriter::create(
        dir.path(),
        Manifest {
            format: FORMAT,
            geometry: Some(Geometry { channels: 1, height: size, width: size }),
            features: Vec::new(),
            tasks: Vec::new(),
            endpoints: Vec::new(),
            n_images: files.len(),
            n_records: 0,
            n_examples: 0,
        },
    )?;
    let taken = |(row, file): (usize, &PathBuf)| {
        if let Some(later) = files.get(row + AHEAD) {
            will_need(later);
        }
        match load_file(file, ImageKind::Dicom, &preparation) {
            Ok(loaded) => writer.write_image(row, &loaded.pixels).map(|()| true),
            Err(_) => Ok(false),
        }
    };
    let results: Result<Vec<bool>, _> = files.par_iter().enumerate().map(taken).collect();
    let images = results?.into_iter().filter(|&taken| taken).count();
    let seconds = start.elapsed().as_secs_f64();
    let round = |x: f64, unit: f64| (x * unit).round() / unit;
    Ok(Measured {
        files: files.len(),
        images,
        failed: files.len() - images,
        seconds: round(seconds, 1000.0),
        images_per_s: round(images as f64 / seconds, 100.0),
    })
}

/// Files under `folder` without an extension or with `.dcm`.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    image_files(folder, &RejectedLog::counting(), &mut |file| {
        let path = folder.join(file);
        if path.extension().is_none_or(|extension| extension.eq_ignore_ascii_case("dcm")) {
            files.push(path);
        }
    })?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_read_and_what_is_not() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bad/dicom");
        let measured = measure(&fixtures, 16).unwrap();
        assert_eq!(measured.files, std::fs::read_dir(&fixtures).unwrap().count());
        // Those that the images' own tests find to be images after all.
        assert_eq!((measured.images, measured.failed), (3, measured.files - 3));
        assert!(measure(&fixtures.join("absent"), 16).is_err());
    }
}
