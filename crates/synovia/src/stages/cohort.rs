//! Studies and records to aligned examples on disk.
//!
//! The records are gone through four times, a partition in memory at a time: to link studies to patients, to make examples
//! and labels, to fit the feature plan on the train split, and to write the rows.

mod dictionary;
mod divide;
pub mod shard;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use synovia_cohort::{
    Asked, Criterion, Endpoint, Event, EventKind, Example, ExampleId, ExampleRow, FlowCounts, LeftOut, PatientId, PatientRecord, Refused,
    Split, Study, Task, Time,
};
use synovia_images::StudyIndex;
use synovia_prediction::{AT_ONCE, Anchor, Links, Moment};
use synovia_records::{EndpointSpec, FeaturePlan, LabelSpec, PlanBuilder, RecordStore};

use super::cache::Stage;
use super::ingest::{self, read_json};
use super::outcome::Outcomes;
use super::place::Place;
use super::run_stage;
use crate::commands::Work;
use crate::pipeline::{EndpointSettings, Named, RecordFormat, TaskSettings, Unit};

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 6;

/// What `cohort/report.json` holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CohortReport {
    /// Counts from files to examples, in order.
    pub steps: Vec<(String, u64)>,
    /// Patients and examples at each step, from the records to the splits.
    #[serde(default)]
    pub flow: Vec<FlowCounts>,
    /// The splits at the end of it.
    #[serde(default)]
    pub sides: Vec<FlowCounts>,
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

/// An example before its split is known.
struct Draft {
    row: ExampleRow,
    patient: PatientId,
    study: Option<usize>,
    /// The patient's household or the like, and site, where the split asks for them.
    group: Option<Arc<str>>,
    site: Option<Arc<str>>,
}

struct Builder<'a> {
    work: &'a Work,
    store: RecordStore,
    index: StudyIndex,
    links: Links,
    labels: Vec<LabelSpec>,
    tasks: Vec<Task>,
    endpoint_specs: Vec<EndpointSpec>,
    endpoints: Vec<Endpoint>,
    anchor: Anchor,
    outcomes: Outcomes,
    /// What includes and what excludes, each with what it is called.
    rules: Vec<(bool, Criterion, String)>,
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
        let cohort = &work.pipeline.cohort;
        let rules = [(true, &cohort.include), (false, &cohort.exclude)];
        let rules = rules.into_iter().flat_map(|(includes, rules)| rules.iter().map(move |r| (includes, r.criterion(), r.described())));
        Ok(Self {
            work,
            links: Links::default(),
            store,
            index,
            labels: work.pipeline.tasks.classes.iter().map(TaskSettings::label_spec).collect(),
            tasks: work.pipeline.tasks.classes.iter().map(TaskSettings::task).collect(),
            endpoint_specs: work.pipeline.tasks.endpoints.iter().map(EndpointSettings::spec).collect(),
            endpoints: work.pipeline.tasks.endpoints.iter().map(EndpointSettings::endpoint).collect(),
            anchor: cohort.anchor(),
            outcomes: Outcomes::of(cohort),
            rules: rules.collect(),
            timeless,
            report,
        })
    }

    fn build(mut self, place: &Place) -> anyhow::Result<()> {
        let (drafts, plan) = self.drafts(place)?;
        self.write(drafts, &plan, place, None)
    }

    /// The examples with their labels and splits, and the features that they will have.
    fn drafts(&mut self, place: &Place) -> anyhow::Result<(Vec<Draft>, FeaturePlan)> {
        self.link()?;
        let mut drafts = self.examples()?;
        self.split(&mut drafts, place)?;
        let plan = self.plan(&drafts)?;
        Ok((drafts, plan))
    }

    fn link(&mut self) -> anyhow::Result<()> {
        self.links = synovia_prediction::link(&self.index.studies, &self.store)?;
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
        let moments = self.anchor.moments(&self.links, record, of_patient, &self.index.studies, self.timeless);
        if self.anchor.index.is_some() || self.anchor.unit == Unit::Study || !moments.is_empty() {
            return moments;
        }
        self.last_visit(record).map(|time| (ExampleId::of_patient(&record.id, time), time, None)).into_iter().collect()
    }

    /// The prediction at the latest encounter that still leaves the longest label window before the record ends.
    fn last_visit(&self, record: &PatientRecord) -> Option<Time> {
        let offset = self.anchor.prediction_days;
        let latest = record.events.last()?.time.plus_days(-self.outcomes.longest_days(&self.labels, &self.endpoint_specs) - offset);
        let visits = record.events.iter().filter(|event: &&Event| event.kind == EventKind::Encounter && event.time <= latest);
        visits.map(|event| event.time.plus_days(offset)).next_back()
    }

    fn example<'r>(&'r self, record: &'r PatientRecord, draft: (&ExampleId, Time, Option<usize>)) -> Option<Example<'r>> {
        let (id, time, study) = draft;
        let study: Option<&Study> = study.map(|k| &self.index.studies[k]);
        Example::new(id.clone(), record.id.clone(), time, study, Some(record), self.work.pipeline.records.history_days()).ok()
    }

    /// Whether each rule lets an example in, up to the first that does not.
    fn passes(&self, example: &Example<'_>, record: &PatientRecord) -> usize {
        let asked = Asked {
            record,
            at: example.prediction_time(),
            has_image: example.image().is_some(),
            has_record: !example.history().is_empty() || self.timeless,
        };
        self.rules.iter().take_while(|(includes, criterion, _)| criterion.holds(asked) == *includes).count()
    }

    fn examples(&mut self) -> anyhow::Result<Vec<Draft>> {
        let studies = self.links.by_patient();
        let mut drafts = Vec::new();
        let mut refused = Refused::default();
        let mut unknown: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let (mut without_label, mut untimed, mut nothing_known) = (0, 0, 0);
        // Examples and patients that pass so many rules.
        let mut passed = vec![[0u64; 2]; self.rules.len() + 1];
        let split = &self.work.pipeline.cohort.split;
        for partition in 0..self.store.n_partitions() {
            for record in self.store.load(partition)? {
                let of_patient = studies.get(&record.id).map_or(&[][..], Vec::as_slice);
                let moments = self.moments(&record, of_patient);
                if self.anchor.is_study() && !self.timeless {
                    let timed = moments.iter().filter(|(_, _, study)| study.is_some()).count();
                    untimed += (of_patient.len() - timed) as u64;
                }
                let (group, site) = (named(&record, split.group()), named(&record, split.site()));
                let mut furthest = None;
                for (id, time, study) in moments {
                    let Some(example) = self.example(&record, (&id, time, study)) else {
                        nothing_known += 1;
                        continue;
                    };
                    let n_passed = self.passes(&example, &record);
                    passed[..=n_passed].iter_mut().for_each(|[examples, _]| *examples += 1);
                    furthest = furthest.max(Some(n_passed));
                    if n_passed < self.rules.len() {
                        continue;
                    }
                    refused += example.refused();
                    let study = study.filter(|_| example.image().is_some());
                    let mut count = |name: &str, reason| {
                        *unknown.entry(name.to_owned()).or_default().entry(reason).or_default() += 1;
                    };
                    let mut label = |(spec, task): (&LabelSpec, &Task)| {
                        self.outcomes.label(spec, &record, time).map_err(|reason| count(&task.name, reason)).ok()
                    };
                    let labels = self.labels.iter().zip(&self.tasks).map(&mut label).collect();
                    let mut value = |(spec, endpoint): (&EndpointSpec, &Endpoint)| {
                        spec.value(&record, time, &self.outcomes).map_err(|reason| count(&endpoint.name, reason)).ok()
                    };
                    let endpoints = self.endpoint_specs.iter().zip(&self.endpoints).map(&mut value).collect();
                    let row = ExampleRow {
                        id,
                        patient: record.id.pseudonym(),
                        split: Split::Test,
                        prediction_time: time,
                        image_row: None,
                        record_row: None,
                        labels,
                        endpoints,
                    };
                    if !row.is_labelled() {
                        without_label += 1;
                    }
                    drafts.push(Draft {
                        row,
                        patient: record.id.clone(),
                        study: study.filter(|_| self.work.pipeline.uses_images()),
                        group: group.clone(),
                        site: site.clone(),
                    });
                }
                if let Some(n_passed) = furthest {
                    passed[..=n_passed].iter_mut().for_each(|[_, patients]| *patients += 1);
                }
            }
        }
        // The order of the partitions depends on their number, and that on the size of the input.
        drafts.sort_by(|a, b| a.row.id.cmp(&b.row.id));
        self.count_flow(&passed);
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
            let counted: Vec<String> = self.report.flow.iter().map(|step| format!("{} {}", step.patients, step.name)).collect();
            bail!(
                "no example: no prediction is left in the records, or none has a time ({}); see ingest/ and rejected.jsonl",
                counted.join(", ")
            );
        }
        Ok(drafts)
    }

    /// From the patients of the records to those that every rule lets in.
    fn count_flow(&mut self, passed: &[[u64; 2]]) {
        let n_patients = self.store.summary().n_patients;
        let what = self.index_event();
        let mut flow = vec![FlowCounts { name: "patients in the records".to_owned(), patients: n_patients, ..FlowCounts::default() }];
        let [examples, patients] = passed[0];
        let left_out = LeftOut { reason: format!("without {what}"), patients: n_patients.saturating_sub(patients), examples: None };
        flow.push(FlowCounts { name: format!("with {what}"), patients, examples: Some(examples), left_out: Some(left_out) });
        for ((includes, _, name), [examples, patients]) in self.rules.iter().zip(&passed[1..]) {
            let (kept, reason) = if *includes { (name.clone(), format!("not: {name}")) } else { (format!("not: {name}"), name.clone()) };
            let step = flow.last().map(|before| FlowCounts::after(before, kept, *patients, *examples, reason));
            flow.extend(step);
        }
        self.report.flow = flow;
    }

    /// What a prediction is made at, in words.
    fn index_event(&self) -> String {
        let cohort = &self.work.pipeline.cohort;
        match (&cohort.index, cohort.unit) {
            _ if self.timeless => "a row".to_owned(),
            (Some(index), _) => index.described(),
            (None, Unit::Study) => "an imaging study".to_owned(),
            (None, Unit::Encounter) => "an encounter".to_owned(),
            (None, Unit::Patient) => "an imaging study or a visit".to_owned(),
        }
    }

    /// Calls `f` with each example of a range of the drafts, in the order of the partitions.
    fn for_each_example(
        &self,
        drafts: &[Draft],
        range: Range<usize>,
        mut f: impl FnMut(usize, &Example<'_>, &PatientRecord) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut of_patient: HashMap<&PatientId, Vec<usize>> = HashMap::new();
        for k in range {
            of_patient.entry(&drafts[k].patient).or_default().push(k);
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
        self.for_each_example(drafts, 0..drafts.len(), |k, example, record| {
            if drafts[k].row.split == Split::Train {
                builder.observe(example, &record.patient);
            }
            Ok(())
        })?;
        Ok(builder.finish())
    }
}

/// What a patient's household or site is called.
pub fn named(record: &PatientRecord, source: Option<&Named>) -> Option<Arc<str>> {
    use synovia_cohort::EventValue;
    let text = |value: &EventValue| match value {
        EventValue::Code(text) | EventValue::Text(text) => Some(text.clone()),
        EventValue::Number { value, .. } => Some(value.to_string().into()),
        EventValue::None => None,
    };
    match source? {
        Named::Column { column } => record.patient.facts.iter().find(|(name, _)| **name == **column).and_then(|(_, value)| text(value)),
        Named::Identifier { identifier } => {
            let found = record.patient.identifiers.iter().map(String::as_str).chain([record.id.reveal()]);
            found.filter(|name| name.starts_with(identifier.as_str())).min().map(Into::into)
        }
        Named::Observation { observation } => record
            .events
            .iter()
            .filter(|event| event.kind == EventKind::Observation && *event.code == **observation)
            .find_map(|event| text(&event.value)),
    }
}
