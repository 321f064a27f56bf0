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
use synovia_images::StudyIndex;
use synovia_records::{FeaturePlan, FeatureSource, LabelOutcome, LabelSpec, PlanBuilder, RecordStore};

use super::cache::Stage;
use super::ingest::{self, read_json, write_json};
use super::place::Place;
use super::{atomic::atomic_dir, run_stage};
use crate::commands::Work;
use crate::pipeline::{Images, RecordFormat, TaskSettings, Unit};

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 2;

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

/// Runs the stage unless it is fresh.
pub fn run(work: &Work, ingested: &Stage, place: &Place) -> anyhow::Result<Stage> {
    let p = &work.pipeline;
    let settings = serde_json::json!({
        "seed": p.seed, "fold": place.fold(), "images": p.images, "records": p.records, "cohort": p.cohort, "tasks": p.tasks,
        "uses_images": p.uses_images(), "uses_records": p.uses_records(),
    });
    let stage = Stage::new(&place.stage("cohort"), VERSION, &settings)?.after(ingested);
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

/// How a study was linked, the surest first.
const BY_UID: &str = "by study UID";
const BY_TIME: &str = "by patient identifier and time";
const BY_PATIENT: &str = "by patient identifier alone";
/// A charted study without a UID of ours is the image's when it began within so many days of it.
const SAME_STUDY_DAYS: f64 = 1.0;

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
    /// Owner of each study of the index.
    owners: Vec<Option<PatientId>>,
    /// What linked each.
    link_kinds: Vec<Option<&'static str>>,
    by_uid: HashMap<String, usize>,
    labels: Vec<LabelSpec>,
    tasks: Vec<Task>,
    /// Whether rows and pictures have no times: all is then known at once.
    timeless: bool,
    report: CohortReport,
}

/// The one moment of a cohort without times.
const AT_ONCE: Time = Time::from_seconds(0);

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
        let by_uid = index.studies.iter().enumerate().map(|(k, s)| (s.study_instance_uid.clone(), k)).collect();
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
            owners: vec![None; index.studies.len()],
            link_kinds: vec![None; index.studies.len()],
            store,
            index,
            by_uid,
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

    /// Which patient each study is of: by the chart's own word (study UID), else by the identifier in the image.
    fn link(&mut self) -> anyhow::Result<()> {
        let mut by_patient: HashMap<&str, Vec<usize>> = HashMap::new();
        for (k, study) in self.index.studies.iter().enumerate().filter(|(_, study)| !study.patient.is_empty()) {
            by_patient.entry(&study.patient).or_default().push(k);
        }
        let n = self.index.studies.len();
        let (mut by_chart, mut by_image) = (vec![None::<PatientId>; n], vec![None::<PatientId>; n]);
        let mut ambiguous = vec![false; n];
        let mut near = vec![false; n];
        let mut claim = |owners: &mut Vec<Option<PatientId>>, k: usize, patient: &PatientId| match &owners[k] {
            Some(owner) if owner != patient => ambiguous[k] = true,
            _ => owners[k] = Some(patient.clone()),
        };
        for partition in 0..self.store.n_partitions() {
            for record in self.store.load(partition)? {
                for link in &record.studies {
                    if let Some(&k) = self.by_uid.get(&link.study_instance_uid) {
                        claim(&mut by_chart, k, &record.id);
                    }
                }
                let names = record.patient.identifiers.iter().map(String::as_str).chain([record.id.reveal()]);
                for k in names.filter_map(|name| by_patient.get(name)).flatten() {
                    claim(&mut by_image, *k, &record.id);
                    let taken = self.index.studies[*k].time;
                    let charted = record.studies.iter().filter(|link| !self.by_uid.contains_key(&link.study_instance_uid));
                    near[*k] |= charted
                        .filter_map(|link| link.started.zip(taken))
                        .any(|(charted, taken)| charted.days_since(taken).abs() <= SAME_STUDY_DAYS);
                }
            }
        }
        for k in 0..n {
            let failed = match (&by_chart[k], &by_image[k]) {
                _ if ambiguous[k] => Some("two patients claim the study"),
                (Some(chart), Some(image)) if chart != image => Some("the chart and the image name different patients"),
                (None, None) => Some("no patient of the records has this study"),
                _ => None,
            };
            match failed {
                Some(reason) => *self.report.failed_links.entry(reason.to_owned()).or_default() += 1,
                None => {
                    let kind = match (&by_chart[k], near[k]) {
                        (Some(_), _) => BY_UID,
                        (None, true) => BY_TIME,
                        (None, false) => BY_PATIENT,
                    };
                    *self.report.links.entry(kind.to_owned()).or_default() += 1;
                    self.link_kinds[k] = Some(kind);
                    self.owners[k] = by_chart[k].take().or_else(|| by_image[k].take());
                }
            }
        }
        let linked = self.owners.iter().flatten().count() as u64;
        self.report.steps.push(("studies linked to a patient".to_owned(), linked));
        Ok(())
    }

    /// A patient's predictions: what they are named, when they are made, and on which study of the index.
    fn moments(&self, record: &PatientRecord, of_patient: &[usize]) -> Vec<(ExampleId, Time, Option<usize>)> {
        if self.timeless {
            return vec![(ExampleId::of_patient(&record.id, AT_ONCE), AT_ONCE, of_patient.first().copied())];
        }
        let mut moments: Vec<(ExampleId, Time, Option<usize>)> = Vec::new();
        for &k in of_patient {
            let study = &self.index.studies[k];
            let charted = record.studies.iter().find(|link| link.study_instance_uid == study.study_instance_uid);
            if let Some(time) = study.time.or_else(|| charted.and_then(|link| link.started)) {
                moments.push((ExampleId::of_study(&study.study_instance_uid), time, Some(k)));
            }
        }
        for link in record.studies.iter().filter(|link| !self.by_uid.contains_key(&link.study_instance_uid)) {
            if let Some(time) = link.started {
                moments.push((ExampleId::of_study(&link.study_instance_uid), time, None));
            }
        }
        moments.sort_by_key(|(id, time, _)| (*time, id.clone()));
        moments.dedup_by(|a, b| a.0 == b.0);
        match self.work.pipeline.cohort.unit {
            Unit::Study => moments,
            Unit::Patient => match moments.pop() {
                Some(last) => vec![last],
                None => self.last_visit(record).map(|time| (ExampleId::of_patient(&record.id, time), time, None)).into_iter().collect(),
            },
        }
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

    /// The studies of each patient.
    fn studies_by_patient(&self) -> HashMap<PatientId, Vec<usize>> {
        let mut out: HashMap<PatientId, Vec<usize>> = HashMap::new();
        for (k, owner) in self.owners.iter().enumerate() {
            if let Some(owner) = owner {
                out.entry(owner.clone()).or_default().push(k);
            }
        }
        out
    }

    fn examples(&mut self) -> anyhow::Result<Vec<Draft>> {
        let studies = self.studies_by_patient();
        let mut drafts = Vec::new();
        let mut refused = Refused::default();
        let mut unknown: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let mut without_label = 0;
        for partition in 0..self.store.n_partitions() {
            for record in self.store.load(partition)? {
                let of_patient = studies.get(&record.id).map_or(&[][..], Vec::as_slice);
                for (id, time, study) in self.moments(&record, of_patient) {
                    let Some(example) = self.example(&record, (&id, time, study)) else { continue };
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
        let mut strata: BTreeMap<PatientId, String> = BTreeMap::new();
        for draft in drafts.iter() {
            let label = draft.row.labels.first().copied().flatten().map_or_else(|| "unknown".to_owned(), |label| label.to_string());
            strata.entry(draft.patient.clone()).and_modify(|known| *known = known.clone().max(label.clone())).or_insert(label);
        }
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
                bail!(
                    "task `{}`: the train split has labels of no more than one class; check its label in the pipeline, and unknown_labels in cohort/report.json",
                    task.name
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
        let links: Vec<serde_json::Value> = drafts
            .iter()
            .filter_map(|draft| Some(serde_json::json!({ "example_id": draft.row.id, "link": self.link_kinds[draft.study?]? })))
            .collect();
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
            // In batches, so that rejections come in the order of the examples whatever thread was first.
            for (n, batch) in with_image.chunks(256).enumerate() {
                let load = |(i, &k): (usize, &usize)| {
                    let Some(study) = drafts[k].study.map(|study| &self.index.studies[study]) else { return Ok(None) };
                    match synovia_images::load(&images.path, study, preparation) {
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
        std::fs::copy(&log_path, work.run.join("rejected.jsonl")).with_context(|| "rejected.jsonl".to_owned())?;
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
