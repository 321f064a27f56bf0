//! `synovia audit`: what training or a comparison on the test split should not have seen.
//!
//! Reads the cohort and the predictions as they lie in the run folder, and trusts nothing of the stages that wrote them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use polars::prelude::{Column, ParquetReader, SerReader};
use serde::Serialize;
use sha2::{Digest, Sha256};
use synovia_cohort::{CohortReader, Split};

use super::Context;
use crate::cli::AuditArgs;
use crate::failure::UsageError;

/// What was looked at and what was found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Cohort folders: one, or one a fold.
    pub cohorts: usize,
    /// Examples in them.
    pub examples: usize,
    /// Images that were compared with each other.
    pub images: usize,
    /// Rows of predictions that were compared with the cohort.
    pub predictions: usize,
    /// Leaks, one line each; patients and examples by pseudonym.
    pub leaks: Vec<String>,
}

/// Prints the audit; an error, and so a code that is not 0, when there is a leak.
pub fn audit(args: &AuditArgs, context: &Context) -> anyhow::Result<()> {
    let audit = audit_run(&args.run)?;
    if context.global.json {
        println!("{}", serde_json::to_string(&audit)?);
    } else {
        for leak in &audit.leaks {
            println!("leak: {leak}");
        }
        if !context.global.quiet {
            let Audit { cohorts, examples, images, predictions, leaks } = &audit;
            println!(
                "{} leaks; looked at {cohorts} cohorts, {examples} examples, {images} images and {predictions} predictions",
                leaks.len()
            );
        }
    }
    match audit.leaks.len() {
        0 => Ok(()),
        n => Err(anyhow!("{}: {n} leaks; what was measured on the test split does not hold", args.run.display())),
    }
}

/// Looks for leaks in all cohorts of a run folder.
pub fn audit_run(run: &Path) -> anyhow::Result<Audit> {
    let mut cohorts = Vec::new();
    find_cohorts(run, 3, &mut cohorts).with_context(|| run.display().to_string())?;
    if cohorts.is_empty() {
        return Err(UsageError(format!("{}: no cohort in this folder; give a run folder, such as runs/lung", run.display())).into());
    }
    let mut audit = Audit { cohorts: cohorts.len(), ..Audit::default() };
    for cohort in cohorts {
        let reader = CohortReader::open(&cohort)?;
        let place = cohort.strip_prefix(run).unwrap_or(&cohort).display().to_string();
        audit.examples += reader.rows().len();
        audit.patients(&reader, &place);
        audit.images(&reader, &place)?;
        let predictions = cohort.with_file_name("predictions.parquet");
        if predictions.is_file() {
            audit.predictions(&reader, &predictions).with_context(|| predictions.display().to_string())?;
        }
    }
    Ok(audit)
}

fn find_cohorts(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
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
    fn patients(&mut self, reader: &CohortReader, place: &str) {
        let mut splits: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
        let mut examples = BTreeSet::new();
        for row in reader.rows() {
            splits.entry(&row.patient).or_default().insert(row.split);
            if !examples.insert(&row.id) {
                self.leaks.push(format!("{place}: the example {} is there twice", row.id));
            }
        }
        for (patient, splits) in splits.into_iter().filter(|(_, splits)| splits.len() > 1) {
            self.leaks.push(format!("{place}: the patient {patient} is in {}", listed(&splits)));
        }
    }

    /// The same pixels under two names: a copy of a training image in the test split.
    fn images(&mut self, reader: &CohortReader, place: &str) -> anyhow::Result<()> {
        let Some(geometry) = reader.manifest().geometry else { return Ok(()) };
        let mut image = vec![0.0f32; geometry.len()];
        let mut seen: BTreeMap<[u8; 16], (BTreeSet<Split>, usize, u32)> = BTreeMap::new();
        for (k, row) in reader.rows().iter().enumerate() {
            if !reader.read_image(row, &mut image)? {
                continue;
            }
            self.images += 1;
            let mut hash = Sha256::new();
            for pixel in &image {
                hash.update(pixel.to_bits().to_le_bytes());
            }
            let mut short = [0; 16];
            short.copy_from_slice(&hash.finalize()[..16]);
            // Two examples of one patient may share an image; an image of one grey level tells nothing.
            if image.iter().all(|pixel| *pixel == image[0]) {
                continue;
            }
            let (splits, _, count) = seen.entry(short).or_insert_with(|| (BTreeSet::new(), k, 0));
            splits.insert(row.split);
            *count += 1;
        }
        for (splits, first, count) in seen.into_values().filter(|(splits, ..)| splits.len() > 1) {
            let first = &reader.rows()[first].id;
            self.leaks.push(format!("{place}: one image is in {}, under {count} examples, the first {first}", listed(&splits)));
        }
        Ok(())
    }

    /// Predictions say of each example the split that the cohort says.
    fn predictions(&mut self, reader: &CohortReader, path: &Path) -> anyhow::Result<()> {
        let splits: BTreeMap<&str, Split> = reader.rows().iter().map(|row| (row.id.as_str(), row.split)).collect();
        let frame = ParquetReader::new(File::open(path)?).with_columns(Some(vec!["example_id".into(), "split".into()])).finish()?;
        let text = |name: &str| frame.column(name).and_then(Column::str);
        let (ids, names) = (text("example_id")?, text("split")?);
        let mut wrong = BTreeSet::new();
        for k in 0..frame.height() {
            let (id, name) = (ids.get(k).unwrap_or_default(), names.get(k).unwrap_or_default());
            self.predictions += 1;
            match splits.get(id) {
                Some(split) if split.as_str() == name => {}
                Some(split) if wrong.insert(id) => {
                    self.leaks.push(format!("predictions.parquet: the example {id} counts as {name} but is in {}", split.as_str()));
                }
                None if wrong.insert(id) => self.leaks.push(format!("predictions.parquet: the example {id} is not in the cohort")),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use polars::prelude::{DataFrame, ParquetWriter};
    use synovia_cohort::{CohortWriter, ExampleId, ExampleRow, FORMAT, FeatureKind, FeatureSpec, Geometry, Manifest, Task, TaskKind, Time};

    use super::*;

    /// Example, patient, split, pixels.
    type Row<'a> = (&'a str, &'a str, Split, [f32; 2]);

    const SOUND: [Row<'static>; 4] = [
        ("e1", "p1", Split::Train, [0.0, 1.0]),
        ("e2", "p1", Split::Train, [0.0, 1.0]),
        ("e3", "p2", Split::Validation, [0.0, 0.5]),
        ("e4", "p3", Split::Test, [0.5, 0.5]),
    ];

    fn write(run: &Path, rows: &[Row<'_>], predictions: &[(&str, &str)]) {
        let manifest = Manifest {
            format: FORMAT,
            geometry: Some(Geometry { channels: 1, height: 1, width: 2 }),
            features: vec![FeatureSpec { name: "age".into(), kind: FeatureKind::Number, code: String::new(), unit: "a".into() }],
            tasks: vec![Task { name: "malignant".into(), kind: TaskKind::Binary, classes: vec!["malignant".into()] }],
            n_images: rows.len(),
            n_records: 0,
            n_examples: rows.len(),
        };
        let cohort = run.join("cohort");
        std::fs::create_dir_all(&cohort).unwrap();
        let writer = CohortWriter::create(&cohort, manifest).unwrap();
        let mut table = Vec::new();
        for (k, (id, patient, split, image)) in rows.iter().enumerate() {
            writer.write_image(k, image).unwrap();
            table.push(ExampleRow {
                id: ExampleId::from_digest(id),
                patient: (*patient).to_owned(),
                split: *split,
                prediction_time: Time::from_seconds(0),
                image_row: Some(k as u32),
                record_row: None,
                labels: vec![None],
            });
        }
        writer.finish(&table).unwrap();
        let column = |name: &str, of: fn(&(&str, &str)) -> String| Column::new(name.into(), predictions.iter().map(of).collect::<Vec<_>>());
        let columns = vec![column("example_id", |p| p.0.to_owned()), column("split", |p| p.1.to_owned())];
        let mut frame = DataFrame::new(predictions.len(), columns).unwrap();
        ParquetWriter::new(File::create(run.join("predictions.parquet")).unwrap()).finish(&mut frame).unwrap();
    }

    #[track_caller]
    fn check(rows: &[Row<'_>], predictions: &[(&str, &str)], leaks: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), rows, predictions);
        let audit = audit_run(dir.path()).unwrap();
        assert_eq!(audit.leaks, leaks);
        assert_eq!((audit.cohorts, audit.examples, audit.images, audit.predictions), (1, rows.len(), rows.len(), predictions.len()));
    }

    fn changed(k: usize, row: Row<'static>) -> [Row<'static>; 4] {
        let mut rows = SOUND;
        rows[k] = row;
        rows
    }

    #[test]
    fn leaks() {
        check(&SOUND, &[("e4", "test"), ("e4", "test"), ("e1", "train")], &[]);
        check(&changed(1, ("e2", "p1", Split::Test, [0.0, 0.25])), &[], &["cohort: the patient p1 is in train and test"]);
        check(&changed(1, ("e1", "p1", Split::Train, [0.0, 0.25])), &[], &["cohort: the example e1 is there twice"]);
        let copied = changed(3, ("e4", "p3", Split::Test, [0.0, 1.0]));
        check(&copied, &[], &["cohort: one image is in train and test, under 3 examples, the first e1"]);
        let blank = [("e1", "p1", Split::Train, [0.0, 0.0]), ("e2", "p2", Split::Test, [0.0, 0.0])];
        check(&blank, &[], &[]);
        check(&SOUND, &[("e1", "test"), ("e1", "test")], &["predictions.parquet: the example e1 counts as test but is in train"]);
        check(&SOUND, &[("e9", "test")], &["predictions.parquet: the example e9 is not in the cohort"]);
    }

    #[test]
    fn a_cohort_a_fold() {
        let dir = tempfile::tempdir().unwrap();
        for fold in ["folds/0", "folds/1"] {
            std::fs::create_dir_all(dir.path().join(fold)).unwrap();
            write(&dir.path().join(fold), &SOUND, &[]);
        }
        assert_eq!(audit_run(dir.path()).unwrap().cohorts, 2);
    }

    #[test]
    fn no_cohort_is_wrong_usage() {
        let dir = tempfile::tempdir().unwrap();
        let failure: crate::failure::Failure = audit_run(dir.path()).unwrap_err().into();
        assert_eq!(failure.code(), 2);
        let failure: crate::failure::Failure = audit_run(&dir.path().join("none")).unwrap_err().into();
        assert_eq!(failure.code(), 1);
    }
}
