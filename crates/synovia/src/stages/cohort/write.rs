//! From drafts to the cohort's files: rows of features and pixels, made here or by shards, and what is told of them.

use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use rayon::prelude::*;
use synovia_cohort::{CohortWriter, ExampleId, ExampleRow, FORMAT, FeatureSpec, Geometry, Manifest, Rejected, RejectedLog, Split};
use synovia_images::{AHEAD, Preparation, will_need};
use synovia_records::FeaturePlan;

use super::dictionary::Described;
use super::shard::Made;
use super::{Builder, Draft, Place, ingest};
use crate::pipeline::Images;
use crate::stages::atomic::{atomic_dir, atomic_file};
use crate::stages::ingest::write_json;

/// Images that are prepared together.
const BATCH: usize = 256;

impl Builder<'_> {
    /// How images are prepared, where they are an input.
    fn preparation(&self) -> Option<Preparation> {
        self.work.pipeline.images.as_ref().filter(|_| self.work.pipeline.uses_images()).map(Images::preparation)
    }

    pub(super) fn manifest(&self, plan: &FeaturePlan, drafts: &[Draft]) -> Manifest {
        Manifest {
            format: FORMAT,
            geometry: self.preparation().map(|p| Geometry { channels: p.channels, height: p.size, width: p.size }),
            features: plan.specs(),
            tasks: self.tasks.clone(),
            endpoints: self.endpoints.clone(),
            n_images: drafts.iter().filter(|draft| draft.study.is_some()).count(),
            n_records: drafts.len(),
            n_examples: drafts.len(),
        }
    }

    /// Calls `take` with the features of each draft of a range that has a record, in the order of the partitions.
    pub(super) fn make_features(
        &self,
        drafts: &[Draft],
        range: Range<usize>,
        plan: &FeaturePlan,
        take: &mut dyn FnMut(usize, &[f32]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut features = vec![f32::NAN; plan.features.len()];
        self.for_each_example(drafts, range, |k, example, record| {
            features.fill(f32::NAN);
            if plan.row(example, &record.patient, &mut features) { take(k, &features) } else { Ok(()) }
        })
    }

    /// Prepares the images of these drafts and calls `take` with each: its place in `wanted`, and its pixels or why there are
    /// none. From any thread; refusals come in order.
    pub(super) fn make_images(
        &self,
        drafts: &[Draft],
        wanted: &[usize],
        place: &Place,
        write: &(dyn Fn(usize, &[f32]) -> anyhow::Result<()> + Sync),
        refuse: &mut dyn FnMut(usize, Option<Rejected>),
    ) -> anyhow::Result<()> {
        let (Some(images), Some(preparation)) = (&self.work.pipeline.images, self.preparation()) else { return Ok(()) };
        let bar = self.work.progress.start(&place.stage("pixels"), Some(wanted.len() as u64), "images");
        let (source, copies) = (images.source()?, self.work.run.join(ingest::COPIES));
        let root = source.root(&copies);
        let study = |k: usize| drafts[k].study.map(|study| &self.index.studies[study]);
        // In batches, so that rejections come in the order of the examples whatever thread was first.
        for (n, batch) in wanted.chunks(BATCH).enumerate() {
            let load = |(i, &k): (usize, &usize)| -> anyhow::Result<Option<Rejected>> {
                if let Some(later) = wanted.get(n * BATCH + i + AHEAD).and_then(|&k| study(k)) {
                    will_need(&root.join(&later.file));
                }
                let Some(study) = study(k) else { return Ok(None) };
                match synovia_images::load(root, study, &preparation) {
                    Err(rejected) => Ok(Some(rejected)),
                    Ok(pixels) => write(n * BATCH + i, &pixels).map(|()| None),
                }
            };
            let loaded: Vec<_> = batch.par_iter().enumerate().map(load).collect();
            for (i, result) in loaded.into_iter().enumerate() {
                refuse(n * BATCH + i, result?);
            }
            bar.add(batch.len() as u64);
        }
        bar.finish("");
        Ok(())
    }

    /// Writes which study each example is on and what linked it, line by line.
    fn write_links(&self, path: &Path, drafts: &[Draft]) -> anyhow::Result<()> {
        // A study is named as its example would be: its file's name may be a patient's.
        let link = |draft: &Draft| {
            let study = ExampleId::of_study(&self.index.studies[draft.study?].study_instance_uid);
            Some(serde_json::json!({ "example_id": draft.row.id, "link": self.links.kinds[draft.study?]?, "study": study }))
        };
        atomic_file(path, |out| -> anyhow::Result<()> {
            out.write_all(b"[")?;
            let mut between = "\n";
            for link in drafts.iter().filter_map(link) {
                out.write_all(between.as_bytes())?;
                serde_json::to_writer(&mut *out, &link)?;
                between = ",\n";
            }
            Ok(out.write_all(b"\n]\n")?)
        })
    }

    /// Writes the cohort; its rows are those that shards made, where there are shards.
    pub(super) fn write(mut self, mut drafts: Vec<Draft>, plan: &FeaturePlan, place: &Place, made: Option<&Made>) -> anyhow::Result<()> {
        let work = self.work;
        let target = place.path(&work.run, "cohort");
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        let dir = atomic_dir(&target)?;
        let specs: Vec<FeatureSpec> = plan.specs();
        let with_image: Vec<usize> = (0..drafts.len()).filter(|&k| drafts[k].study.is_some()).collect();
        let writer = CohortWriter::create(dir.path(), self.manifest(plan, &drafts))?;

        let mut rows = vec![None; drafts.len()];
        let mut coverage = vec![0u64; specs.len()];
        let mut n_train = 0u64;
        let mut take = |k: usize, features: &[f32]| -> anyhow::Result<()> {
            writer.write_record(k, features)?;
            rows[k] = Some(k as u32);
            if drafts[k].row.split == Split::Train {
                n_train += 1;
                coverage.iter_mut().zip(features).for_each(|(n, x)| *n += u64::from(x.is_finite()));
            }
            Ok(())
        };
        match made {
            None => self.make_features(&drafts, 0..drafts.len(), plan, &mut take)?,
            Some(made) => made.for_each_record(&mut take)?,
        }
        self.report.coverage = coverage.iter().map(|&n| n as f64 / n_train.max(1) as f64).collect();
        write_json(&dir.path().join("dictionary.json"), &Described::all(plan, &self.report.coverage, &drafts, &rows, &writer)?)?;
        self.write_links(&dir.path().join("links.json"), &drafts)?;
        for (draft, row) in drafts.iter_mut().zip(rows) {
            draft.row.record_row = row;
        }

        let log_path = dir.path().join("rejected.jsonl");
        std::fs::copy(work.run.join(ingest::FOLDER).join("rejected.jsonl"), &log_path).with_context(|| log_path.display().to_string())?;
        let file = std::fs::OpenOptions::new().append(true).open(&log_path).with_context(|| log_path.display().to_string())?;
        let log = RejectedLog::to_writer(Box::new(std::io::BufWriter::new(file)));
        let mut taken = vec![false; with_image.len()];
        match made {
            None => {
                let write = |n: usize, pixels: &[f32]| -> anyhow::Result<()> { Ok(writer.write_image(n, pixels)?) };
                self.make_images(&drafts, &with_image, place, &write, &mut |n, refused| match refused {
                    Some(rejected) => log.push(&rejected),
                    None => taken[n] = true,
                })?;
            }
            Some(made) => {
                made.for_each_image(&mut |n, pixels| {
                    taken[n] = true;
                    Ok(writer.write_image(n, pixels)?)
                })?;
                made.rejected()?.iter().for_each(|rejected| log.push(rejected));
            }
        }
        for (n, &k) in with_image.iter().enumerate().filter(|(n, _)| taken[*n]) {
            drafts[k].row.image_row = Some(n as u32);
        }
        for (reason, n) in log.finish().with_context(|| log_path.display().to_string())? {
            *self.report.rejected.entry(reason).or_default() += n;
        }
        let rows: Vec<ExampleRow> = drafts.into_iter().map(|draft| draft.row).collect();
        let count = |f: fn(&ExampleRow) -> bool| rows.iter().filter(|row| f(row)).count() as u64;
        self.report.steps.push(("examples with an image".to_owned(), count(|r| r.image_row.is_some())));
        self.report.steps.push(("examples with a record".to_owned(), count(|r| r.record_row.is_some())));
        self.report.steps.push(("examples with both".to_owned(), count(|r| r.image_row.is_some() && r.record_row.is_some())));
        writer.finish(&rows)?;
        write_json(&dir.path().join("features.json"), plan)?;
        write_json(&dir.path().join("preparation.json"), &self.preparation())?;
        write_json(&dir.path().join("report.json"), &self.report)?;
        dir.commit()?;
        work.progress.note(&place.stage("cohort"), &format!("{} examples", rows.len()));
        Ok(())
    }
}
