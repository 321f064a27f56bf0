//! `synovia deidentify`: a folder of DICOM files to one that names no patient.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use rayon::prelude::*;
use synovia_cohort::{Rejected, RejectedLog};
use synovia_images::{Secret, deidentify, image_files};

use super::Context;
use crate::cli::DeidentifyArgs;
use crate::failure::print;
use crate::stages::atomic::atomic_file;

/// Files that are worked on together.
const BATCH: usize = 64;

/// De-identifies a folder; prints how many files were written and how many were not, by reason.
///
/// # Errors
/// When a file cannot be written, and when none was: a folder without DICOM files is a mistake, not a result.
pub fn deidentify_folder(args: &DeidentifyArgs, context: &Context) -> anyhow::Result<()> {
    context.use_threads(None)?;
    if args.out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{}: not empty; give a new folder, so that no other file is taken for a clean one", args.out.display());
    }
    let log = match &args.rejected {
        Some(path) => RejectedLog::create(path).with_context(|| path.display().to_string())?,
        None => RejectedLog::counting(),
    };
    // Before anything is made: what is given as IN may be no folder, or an empty one.
    let mut files = Vec::new();
    image_files(&args.input, &log, &mut |file| files.push(file))?;
    if files.is_empty() {
        bail!("{}: no file in it; give a folder of DICOM files", args.input.display());
    }
    let secret = secret(args.key.as_deref())?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let bar = context.progress.start("deidentify", Some(files.len() as u64), "files");
    let mut n_written = 0u64;
    let mut taken: HashSet<PathBuf> = HashSet::new();
    for batch in files.chunks(BATCH) {
        let work = |file: &String| deidentify(&args.input.join(file), args.profile, &secret);
        let results: Vec<_> = batch.par_iter().map(work).collect();
        for (result, file) in results.into_iter().zip(batch) {
            match result {
                Err(rejected) => log.push(&Rejected::new(file, rejected.position, rejected.reason)),
                Ok(clean) if !clean.path.components().all(|part| matches!(part, Component::Normal(_))) => {
                    log.push(&Rejected::new(file, "", "its UIDs are none, and would lead out of the folder that is written"));
                }
                Ok(clean) if !taken.insert(clean.path.clone()) => {
                    log.push(&Rejected::new(file, "", "the same SOP Instance UID was already taken from another file"));
                }
                Ok(clean) => {
                    let path = args.out.join(&clean.path);
                    let folder = path.parent().unwrap_or(Path::new("."));
                    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                    atomic_file(&path, |out| out.write_all(&clean.bytes).with_context(|| path.display().to_string()))?;
                    n_written += 1;
                }
            }
        }
        bar.add(batch.len() as u64);
    }
    bar.finish(&format!("{n_written} written"));
    let reasons = log.finish()?;
    let summary =
        serde_json::json!({ "files": files.len(), "written": n_written, "profile": args.profile.to_string(), "not_written": reasons });
    print(summary)?;
    if n_written == 0 {
        bail!("{}: no file was written; the reasons are above", args.input.display());
    }
    Ok(())
}

/// The secret of a file, which is made when it is not there; without a file, one for this run alone.
fn secret(path: Option<&Path>) -> anyhow::Result<Secret> {
    let random = || -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; 32];
        std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).context("random bytes for a secret")?;
        Ok(bytes)
    };
    let bytes = match path {
        None => random()?,
        Some(path) if path.exists() => std::fs::read(path).with_context(|| path.display().to_string())?,
        Some(path) => {
            let bytes = random()?;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options
                .open(path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes))
                .with_context(|| path.display().to_string())?;
            bytes
        }
    };
    Secret::new(bytes).map_err(|what| anyhow::anyhow!("{}: {what}", path.unwrap_or(Path::new("secret")).display()))
}
