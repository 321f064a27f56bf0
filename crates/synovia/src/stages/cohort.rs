//! Studies and records to aligned examples on disk.
//!
//! The records are gone through four times, a partition in memory at a time: to link studies to patients, to make examples
//! and labels, to fit the feature plan on the train split, and to write the rows.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use synovia_cohort::{
    CohortWriter, Event, EventKind, Example, ExampleId, ExampleRow, FORMAT, FeatureKind, FeatureSpec, Geometry, Manifest, PatientId,
    PatientRecord, Refused, RejectedLog, Split, Study, Task, Time, assign, assign_folds,
};
use synovia_images::{AHEAD, StudyIndex, will_need};
use synovia_records::{FeaturePlan, FeatureSource, LabelOutcome, LabelSpec, PlanBuilder, RecordStore};

use super::cache::Stage;
use super::ingest::{self, read_json, write_json};
use super::link::{self, AT_ONCE, Links, Moment};
use super::place::Place;
use super::{atomic::atomic_dir, run_stage};
use crate::commands::Work;
use crate::pipeline::{Images, RecordFormat, TaskSettings, Unit};

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 3;

/// What `cohort/report.json` holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CohortReport {
    /// Counts from files to examples, in order.
    pub steps: Vec<(String, u64)>,
    /// Studies that were linked to a patient, by what linked them.
    #[serde(default)]
    pub links: BTreeMap<String, u64>,
    /// Studies and images that could not be linked, by reason.
    pub failed_links: BTreeMap<String, u64>,
    /// What the prediction time kept out.
    pub refused: Refused,
    /// Labels that nobody knows, by task and reason.
    pub unknown_labels: BTreeMap<String, BTreeMap<String, u64>>,
    /// Things not taken, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Share of the train split's records that have each feature.
    pub coverage: Vec<f64>,
}

/// The stage as it would run now.
pub fn stage(work: &Work, ingested: &Stage, place: &Place) -> anyhow::Result<Stage> {
    let p = &work.pipeline;
    let settings = serde_json::json!({
        "seed": p.seed, "fold": place.fold(), "images": p.images, "records": p.records, "cohort": p.cohort, "tasks": p.tasks,
        "uses_images": p.uses_images(), "uses_records": p.uses_records(),
    });
    Ok(Stage::new(&place.stage("cohort"), VERSION, &settings)?.after(ingested))
}

/// Runs the stage unless it is fresh.
pub fn run(work: &Work, ingested: &Stage, place: &Place) -> anyhow::Result<Stage> {
    let stage = stage(work, ingested, place)?;
    run_stage(&stage, &work.run, &work.progress, &[&place.relative("cohort")], || Builder::open(work)?.build(place))?;
    Ok(stage)
}

/// A column of `cohort/dictionary.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    /// The column.
    #[serde(flatten)]
    pub spec: FeatureSpec,
    /// Where its numbers come from.
    pub source: FeatureSource,
    /// Share of the train split's records that have it.
    pub coverage: f64,
    /// Its 5th, 25th, 50th, 75th and 95th percentiles (nearest rank) over at most 10,000 examples of the train split;
    /// empty for a flag.
    pub quantiles: Vec<f32>,
}

/// Train examples that the quantiles are taken of, at most: the first by id, which is a digest and so as good as drawn.
const DESCRIBED: usize = 10_000;
const PERCENTILES: [usize; 5] = [5, 25, 50, 75, 95];

/// Nearest ranks of values that are there.
fn quantiles(mut values: Vec<f32>) -> Vec<f32> {
    values.retain(|x| x.is_finite());
    values.sort_by(f32::total_cmp);
    let rank = |percent: usize| values[(percent * values.len()).div_ceil(100).max(1) - 1];
    if values.is_empty() { Vec::new() } else { PERCENTILES.map(rank).to_vec() }
}

/// An example before its split is known.
struct Draft {
    row: ExampleRow,
    patient: PatientId,
    study: Option<usize>,
}

struct Builder<'a> {
    work: &'a Work,
    store: RecordStore,
    index: StudyIndex,
    links: Links,
    labels: Vec<LabelSpec>,
    tasks: Vec<Task>,
    /// Whether rows and pictures have no times: all is then known at once.
    timeless: bool,
    report: CohortReport,
}

impl<'a> Builder<'a> {
    fn open(work: &'a Work) -> anyhow::Result<Self> {
        let folder = work.run.join(ingest::FOLDER);
        let mut index: StudyIndex = read_json(&folder.join("studies.json"))?;
        let store = RecordStore::open(&folder.join("records"))?;
        let timeless = matches!(&work.pipeline.records.format, RecordFormat::Csv { .. });
        if timeless {
            // Such a table declares its rows and their pictures to be of one moment.
            index.studies.iter_mut().for_each(|study| study.time = Some(AT_ONCE));
        }
        let mut report = CohortReport { rejected: read_json(&folder.join("rejected.json"))?, ..CohortReport::default() };
        let summary = store.summary();
        report.steps = vec![
            ("image files looked at".to_owned(), index.n_files),
            ("images taken".to_owned(), index.n_images),
            ("studies with an image".to_owned(), index.studies.len() as u64),
            ("record files read".to_owned(), summary.n_files),
            ("patients in the records".to_owned(), summary.n_patients),
            ("events in the records".to_owned(), summary.n_events),
        ];
        Ok(Self {
            work,
            links: Links::default(),
            store,
            index,
            labels: work.pipeline.tasks.iter().map(TaskSettings::label_spec).collect(),
            tasks: work.pipeline.tasks.iter().map(TaskSettings::task).collect(),
            timeless,
            report,
        })
    }

    fn build(mut self, place: &Place) -> anyhow::Result<()> {
        self.link()?;
        let mut drafts = self.examples()?;
        self.split(&mut drafts, place)?;
        let plan = self.plan(&drafts)?;
        self.write(drafts, &plan, place)
    }

    fn link(&mut self) -> anyhow::Result<()> {
        self.links = link::link(&self.index.studies, &self.store)?;
        self.report.failed_links.clone_from(&self.links.failed);
        for kind in self.links.kinds.iter().flatten() {
            *self.report.links.entry((*kind).to_owned()).or_default() += 1;
        }
        let linked = self.links.owners.iter().flatten().count() as u64;
        self.report.steps.push(("studies linked to a patient".to_owned(), linked));
        Ok(())
    }

    /// A patient's predictions: what they are named, when they are made, and on which study of the index.
    fn moments(&self, record: &PatientRecord, of_patient: &[usize]) -> Vec<Moment> {
        let unit = self.work.pipeline.cohort.unit;
        let moments = self.links.moments(record, of_patient, &self.index.studies, self.timeless, unit);
        if unit == Unit::Study || !moments.is_empty() {
            return moments;
        }
        self.last_visit(record).map(|time| (ExampleId::of_patient(&record.id, time), time, None)).into_iter().collect()
    }

    /// The latest encounter that still leaves the longest label window before the record ends.
    fn last_visit(&self, record: &PatientRecord) -> Option<Time> {
        let longest = self.labels.iter().filter_map(window_days).fold(0.0, f64::max);
        let latest = record.events.last()?.time.plus_days(-longest);
        let visits = record.events.iter().filter(|event: &&Event| event.kind == EventKind::Encounter && event.time <= latest);
        visits.map(|event| event.time).next_back()
    }

    fn example<'r>(&'r self, record: &'r PatientRecord, draft: (&ExampleId, Time, Option<usize>)) -> Option<Example<'r>> {
        let (id, time, study) = draft;
        let study: Option<&Study> = study.map(|k| &self.index.studies[k]);
        Example::new(id.clone(), record.id.clone(), time, study, Some(record), self.work.pipeline.records.history_days()).ok()
    }

    fn examples(&mut self) -> anyhow::Result<Vec<Draft>> {
        let studies = self.links.by_patient();
        let mut drafts = Vec::new();
        let mut refused = Refused::default();
        let mut unknown: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let (mut without_label, mut untimed, mut nothing_known) = (0, 0, 0);
        for partition in 0..self.store.n_partitions() {
            for record in self.store.load(partition)? {
                let of_patient = studies.get(&record.id).map_or(&[][..], Vec::as_slice);
                let moments = self.moments(&record, of_patient);
                if self.work.pipeline.cohort.unit == Unit::Study && !self.timeless {
                    let timed = moments.iter().filter(|(_, _, study)| study.is_some()).count();
                    untimed += (of_patient.len() - timed) as u64;
                }
                for (id, time, study) in moments {
                    let Some(example) = self.example(&record, (&id, time, study)) else {
                        nothing_known += 1;
                        continue;
                    };
                    refused += example.refused();
                    let study = study.filter(|_| example.image().is_some());
                    let labels: Vec<Option<f32>> = self
                        .labels
                        .iter()
                        .zip(&self.tasks)
                        .map(|(spec, task)| match spec.label(&record, time) {
                            LabelOutcome::Known(label) => Some(label),
                            LabelOutcome::Unknown(reason) => {
                                *unknown.entry(task.name.clone()).or_default().entry(reason.to_owned()).or_default() += 1;
                                None
                            }
                        })
                        .collect();
                    if labels.iter().all(Option::is_none) {
                        without_label += 1;
                    }
                    drafts.push(Draft {
                        row: ExampleRow {
                            id,
                            patient: record.id.pseudonym(),
                            split: Split::Test,
                            prediction_time: time,
                            image_row: None,
                            record_row: None,
                            labels,
                        },
                        patient: record.id.clone(),
                        study: study.filter(|_| self.work.pipeline.uses_images()),
                    });
                }
            }
        }
        // The order of the partitions depends on their number, and that on the size of the input.
        drafts.sort_by(|a, b| a.row.id.cmp(&b.row.id));
        self.report.steps.push(("examples".to_owned(), drafts.len() as u64));
        self.report.steps.push(("examples with a label".to_owned(), drafts.len() as u64 - without_label));
        for (reason, n) in [("the time of the study is not known", untimed), ("nothing is known at the prediction time", nothing_known)] {
            if n > 0 {
                *self.report.failed_links.entry(reason.to_owned()).or_default() += n;
            }
        }
        self.report.refused = refused;
        self.report.unknown_labels = unknown;
        if drafts.is_empty() {
            bail!(
                "no example: no study of the images is in the records, and none in the records has a time; see ingest/ and rejected.jsonl"
            );
        }
        Ok(drafts)
    }

    /// Patients to splits, each stratum (the first task's labels of the patient) by itself.
    fn split(&self, drafts: &mut [Draft], place: &Place) -> anyhow::Result<()> {
        let mut largest: BTreeMap<PatientId, Option<f32>> = BTreeMap::new();
        for draft in drafts.iter() {
            let label = draft.row.labels.first().copied().flatten();
            let known = largest.entry(draft.patient.clone()).or_default();
            *known = label.into_iter().chain(*known).reduce(f32::max);
        }
        let name = |label: Option<f32>| label.map_or_else(|| "unknown".to_owned(), |label| label.to_string());
        let strata: BTreeMap<PatientId, String> = largest.into_iter().map(|(patient, label)| (patient, name(label))).collect();
        let (cohort, seed) = (&self.work.pipeline.cohort, self.work.pipeline.seed);
        let splits = match (place.fold(), cohort.folds) {
            (Some(fold), Some(folds)) => {
                let of_fold = assign_folds(&strata, folds, seed)?;
                let rest = strata.iter().filter(|(patient, _)| of_fold[*patient] != fold).map(|(p, s)| (p.clone(), s.clone())).collect();
                let mut splits = assign(&rest, cohort.split, seed)?;
                splits.extend(of_fold.into_iter().filter(|(_, f)| *f == fold).map(|(patient, _)| (patient, Split::Test)));
                splits
            }
            _ => assign(&strata, cohort.split, seed)?,
        };
        for draft in drafts.iter_mut() {
            draft.row.split = splits[&draft.patient];
        }
        for (k, task) in self.tasks.iter().enumerate() {
            let mut known = drafts.iter().filter(|d| d.row.split == Split::Train).filter_map(|d| d.row.labels[k]);
            let first = known.next();
            if first.is_none() || known.all(|label| Some(label) == first) {
                let n = drafts.iter().filter(|draft| draft.row.labels[k].is_some()).count();
                let unknown = self.report.unknown_labels.get(&task.name).into_iter().flatten();
                let unknown: Vec<String> = unknown.map(|(reason, n)| format!("{n} unknown, {reason}")).collect();
                bail!(
                    "task `{}`: the train split has labels of no more than one class; check its label in the pipeline ({})",
                    task.name,
                    [vec![format!("{n} of {} examples have one", drafts.len())], unknown].concat().join("; ")
                );
            }
        }
        Ok(())
    }

    /// Calls `f` with each example of the drafts, in the order of the partitions.
    fn for_each_example(
        &self,
        drafts: &[Draft],
        mut f: impl FnMut(usize, &Example<'_>, &PatientRecord) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut of_patient: HashMap<&PatientId, Vec<usize>> = HashMap::new();
        for (k, draft) in drafts.iter().enumerate() {
            of_patient.entry(&draft.patient).or_default().push(k);
        }
        for partition in 0..self.store.n_partitions() {
            for record in self.store.load(partition)? {
                for &k in of_patient.get(&record.id).map_or(&[][..], Vec::as_slice) {
                    let draft = &drafts[k];
                    if let Some(example) = self.example(&record, (&draft.row.id, draft.row.prediction_time, draft.study)) {
                        f(k, &example, &record)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The feature plan, from examples of the train split only.
    fn plan(&self, drafts: &[Draft]) -> anyhow::Result<FeaturePlan> {
        if !self.work.pipeline.uses_records() {
            return Ok(FeaturePlan::default());
        }
        let mut builder = PlanBuilder::new(self.work.pipeline.feature_config());
        self.for_each_example(drafts, |k, example, record| {
            if drafts[k].row.split == Split::Train {
                builder.observe(example, &record.patient);
            }
            Ok(())
        })?;
        Ok(builder.finish())
    }

    fn write(mut self, mut drafts: Vec<Draft>, plan: &FeaturePlan, place: &Place) -> anyhow::Result<()> {
        let work = self.work;
        let target = place.path(&work.run, "cohort");
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        let dir = atomic_dir(&target)?;
        let specs: Vec<FeatureSpec> = plan.specs();
        let with_image: Vec<usize> = (0..drafts.len()).filter(|&k| drafts[k].study.is_some()).collect();
        let images = work.pipeline.images.as_ref().filter(|_| work.pipeline.uses_images());
        let preparation = images.map(Images::preparation);
        let manifest = Manifest {
            format: FORMAT,
            geometry: preparation.as_ref().map(|p| Geometry { channels: p.channels, height: p.size, width: p.size }),
            features: specs.clone(),
            tasks: self.tasks.clone(),
            n_images: with_image.len(),
            n_records: drafts.len(),
            n_examples: drafts.len(),
        };
        let writer = CohortWriter::create(dir.path(), manifest)?;

        let mut features = vec![f32::NAN; specs.len()];
        let mut rows = vec![None; drafts.len()];
        let mut coverage = vec![0u64; specs.len()];
        let mut n_train = 0u64;
        let mut sample = Sample::of(&drafts);
        self.for_each_example(&drafts, |k, example, record| {
            features.fill(f32::NAN);
            if plan.row(example, &record.patient, &mut features) {
                writer.write_record(k, &features)?;
                rows[k] = Some(k as u32);
                if drafts[k].row.split == Split::Train {
                    sample.take(k, &features);
                    n_train += 1;
                    coverage.iter_mut().zip(&features).for_each(|(n, x)| *n += u64::from(x.is_finite()));
                }
            }
            Ok(())
        })?;
        self.report.coverage = coverage.iter().map(|&n| n as f64 / n_train.max(1) as f64).collect();
        let described = sample.transposed(specs.len());
        let columns = plan.features.iter().zip(&self.report.coverage).zip(described).map(|((feature, coverage), values)| Described {
            spec: feature.spec.clone(),
            source: feature.source.clone(),
            coverage: *coverage,
            quantiles: if feature.spec.kind == FeatureKind::Number { quantiles(values) } else { Vec::new() },
        });
        write_json(&dir.path().join("dictionary.json"), &columns.collect::<Vec<_>>())?;
        // A study is named as its example would be: its file's name may be a patient's.
        let link = |draft: &Draft| {
            let study = ExampleId::of_study(&self.index.studies[draft.study?].study_instance_uid);
            Some(serde_json::json!({ "example_id": draft.row.id, "link": self.links.kinds[draft.study?]?, "study": study }))
        };
        let links: Vec<serde_json::Value> = drafts.iter().filter_map(link).collect();
        write_json(&dir.path().join("links.json"), &links)?;
        for (draft, row) in drafts.iter_mut().zip(rows) {
            draft.row.record_row = row;
        }

        let log_path = dir.path().join("rejected.jsonl");
        std::fs::copy(work.run.join(ingest::FOLDER).join("rejected.jsonl"), &log_path).with_context(|| log_path.display().to_string())?;
        let file = std::fs::OpenOptions::new().append(true).open(&log_path).with_context(|| log_path.display().to_string())?;
        let log = RejectedLog::to_writer(Box::new(std::io::BufWriter::new(file)));
        if let (Some(images), Some(preparation)) = (images, &preparation) {
            let bar = work.progress.start(&place.stage("pixels"), Some(with_image.len() as u64), "images");
            let (source, copies) = (images.source()?, work.run.join(ingest::COPIES));
            let root = source.root(&copies);
            // In batches, so that rejections come in the order of the examples whatever thread was first.
            for (n, batch) in with_image.chunks(256).enumerate() {
                let load = |(i, &k): (usize, &usize)| {
                    let study = |k: usize| drafts[k].study.map(|study| &self.index.studies[study]);
                    if let Some(later) = with_image.get(n * 256 + i + AHEAD).and_then(|&k| study(k)) {
                        will_need(&root.join(&later.file));
                    }
                    let Some(study) = study(k) else { return Ok(None) };
                    match synovia_images::load(root, study, preparation) {
                        Err(rejected) => Ok(Some(rejected)),
                        Ok(pixels) => writer.write_image(n * 256 + i, &pixels).map(|()| None),
                    }
                };
                let loaded: Vec<_> = batch.par_iter().enumerate().map(load).collect();
                for (i, result) in loaded.into_iter().enumerate() {
                    match result? {
                        Some(rejected) => log.push(&rejected),
                        None => drafts[batch[i]].row.image_row = Some((n * 256 + i) as u32),
                    }
                }
                bar.add(batch.len() as u64);
            }
            bar.finish("");
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
        write_json(&dir.path().join("preparation.json"), &preparation)?;
        write_json(&dir.path().join("report.json"), &self.report)?;
        dir.commit()?;
        work.progress.note(&place.stage("cohort"), &format!("{} examples", rows.len()));
        Ok(())
    }
}

/// Feature rows of some train examples, in the order of the drafts.
struct Sample {
    last: usize,
    rows: BTreeMap<usize, Vec<f32>>,
}

impl Sample {
    /// The first [`DESCRIBED`] of the train split.
    fn of(drafts: &[Draft]) -> Self {
        let mut train = drafts.iter().enumerate().filter(|(_, draft)| draft.row.split == Split::Train).map(|(k, _)| k);
        Self { last: train.nth(DESCRIBED - 1).unwrap_or(drafts.len()), rows: BTreeMap::new() }
    }

    fn take(&mut self, k: usize, row: &[f32]) {
        if k <= self.last {
            self.rows.insert(k, row.to_vec());
        }
    }

    /// The values of each column.
    fn transposed(&self, n: usize) -> Vec<Vec<f32>> {
        (0..n).map(|j| self.rows.values().map(|row| row[j]).collect()).collect()
    }
}

fn window_days(spec: &LabelSpec) -> Option<f64> {
    match spec {
        LabelSpec::Condition { within_days, .. } | LabelSpec::Observation { within_days, .. } => Some(*within_days),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_ranks() {
        assert_eq!(quantiles((1..=100).rev().map(|x| x as f32).collect()), [5.0, 25.0, 50.0, 75.0, 95.0]);
        assert_eq!(quantiles(vec![3.0, f32::NAN]), [3.0; 5]);
        assert_eq!(quantiles(vec![f32::NAN]), [0.0f32; 0]);
    }
}
