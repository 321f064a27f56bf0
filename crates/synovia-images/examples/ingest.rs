//! Times the preparation of every file of a folder, one JSON line with the keys of a peer's benchmark; with a second folder,
//! also writes each decoded frame there before its resize (`NAME.f32`: columns and rows as u32, then values, little-endian),
//! for comparison with other readers.
//!
//! `cargo run --release --example ingest -p synovia-images -- FOLDER [OUT]`

use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use synovia_images::{ImageKind, Preparation, decode_frame, load_file, scan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().ok_or("usage: ingest FOLDER [OUT]")?;
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort_unstable();
    let start = Instant::now();
    let preparation = Preparation::default();
    let results: Vec<_> = files.par_iter().map(|file| load_file(file, ImageKind::Dicom, &preparation)).collect();
    let seconds = start.elapsed().as_secs_f64();
    let images = results.iter().filter(|result| result.is_ok()).count();
    println!(
        "{{\"files\": {}, \"images\": {images}, \"failed\": {}, \"seconds\": {seconds:.4}, \"images_per_s\": {:.1}}}",
        files.len(),
        files.len() - images,
        images as f64 / seconds
    );
    let Some(out) = arguments.next() else { return Ok(()) };
    for result in &results {
        if let Err(rejected) = result {
            println!("{}\t{}\t{}", rejected.source, rejected.position, rejected.reason);
        }
    }
    std::fs::create_dir_all(&out)?;
    for file in &files {
        if let Ok((values, columns, rows)) = decode_frame(file, ImageKind::Dicom, 0) {
            let head = [columns as u32, rows as u32].into_iter().flat_map(u32::to_le_bytes);
            let bytes: Vec<u8> = head.chain(values.into_iter().flat_map(f32::to_le_bytes)).collect();
            let name = file.strip_prefix(&folder).unwrap_or(Path::new("")).to_string_lossy().replace('/', "__");
            std::fs::write(out.join(format!("{name}.f32")), bytes)?;
        }
    }
    let log = synovia_cohort::RejectedLog::to_writer(Box::new(std::io::stdout()));
    let index = scan(&folder, ImageKind::Dicom, &log, &|_| ())?;
    println!("scan: {} studies, {} files, {} images", index.studies.len(), index.n_files, index.n_images);
    Ok(())
}
