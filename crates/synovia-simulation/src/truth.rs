//! `truth.parquet`: the label and the exact posteriors of each example, task and class.
//!
//! | column | meaning |
//! |---|---|
//! | `patient_id`, `example_id` | pseudonym of the FHIR id; digest of the Study Instance UID |
//! | `task`, `class` | class is empty for tasks of one probability |
//! | `label` | 0 or 1; true whether or not the chart came to know it |
//! | `p_joint`, `p_image`, `p_record` | P(label = 1) given what there is of both, of the image, of the record |
//! | `has_image`, `has_record` | what there is |
//! | `time_days`, `event` | `deterioration`: observed time, and whether it is the event's or the last contact's |
//! | `lesion_x`, `lesion_y`, `lesion_radius` | `malignant`: the lesion's centre and radius in the frontal image, pixels from its upper left; null without an image |
//! | `treatment`, `potential_0`, `potential_1`, `risk_0`, `risk_1` | `response`: 0 or 1 as given; the outcome under each; its probability given all factors |

use std::fs::File;
use std::path::{Path, PathBuf};

use polars::prelude::{BatchedWriter, Column, DataFrame, ParquetWriter, PolarsError};
use synovia_cohort::ExampleId;

use crate::config::io;
use crate::drawing::lesion;
use crate::patient::Patient;
use crate::stream::{Purpose, stream};
use crate::world::{ImageBelief, Population, Posterior, RecordBelief};
use crate::{Noise, SimulationConfig, SimulationError};

/// Rows of a row group: enough to compress well, few enough to hold.
const ROWS_A_GROUP: usize = 1 << 16;
const STAGES: [&str; 4] = ["I", "II", "III", "IV"];
const FINDINGS: [&str; 3] = ["effusion", "cardiomegaly", "consolidation"];

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    patient: String,
    example: ExampleId,
    task: &'static str,
    class: &'static str,
    label: bool,
    p_joint: f64,
    p_image: f64,
    p_record: f64,
    has_image: bool,
    has_record: bool,
    survival: Option<(f64, bool)>,
    response: Option<Response>,
    lesion: Option<[f32; 3]>,
}

#[derive(Clone, Copy, Debug)]
struct Response {
    treatment: usize,
    potential: [bool; 2],
    risk: [f64; 2],
}

/// Rows of all visits of a patient: 10 a visit.
pub(crate) fn rows(config: &SimulationConfig, patient: &Patient, population: &Population) -> Vec<Row> {
    let pseudonym = patient.id.pseudonym();
    let mut rows = Vec::with_capacity(10 * patient.visits.len());
    for (k, visit) in patient.visits.iter().enumerate() {
        let outcomes = &visit.outcomes;
        let tells = |modality| config.noise != Some(modality);
        let lesion = visit.has_image.then(|| lesion(&visit.image, &mut stream(config.seed, patient.index, Purpose::Drawing(k))));
        let image =
            || if visit.has_image && tells(Noise::Image) { ImageBelief::seen(&visit.image) } else { ImageBelief::unseen(population) };
        let record = || {
            if patient.has_record && tells(Noise::Record) { RecordBelief::seen(&visit.record) } else { RecordBelief::unseen(population) }
        };
        let joint = Posterior::of(&image(), &record(), outcomes.treatment);
        let alone_image = Posterior::of(&image(), &RecordBelief::unseen(population), outcomes.treatment);
        let alone_record = Posterior::of(&ImageBelief::unseen(population), &record(), outcomes.treatment);
        let posteriors = [joint, alone_image, alone_record];
        let mut add = |task, class, label, p: &dyn Fn(&Posterior) -> f64| {
            let [p_joint, p_image, p_record] = posteriors.map(|posterior| p(&posterior));
            rows.push(Row {
                patient: pseudonym.clone(),
                example: ExampleId::of_study(&visit.study_uid),
                task,
                class,
                label,
                p_joint,
                p_image,
                p_record,
                has_image: visit.has_image,
                has_record: patient.has_record,
                survival: (task == "deterioration")
                    .then(|| (outcomes.deterioration_days.min(outcomes.follow_up_days), outcomes.deterioration_observed())),
                response: (task == "response").then_some(Response {
                    treatment: outcomes.treatment,
                    potential: outcomes.potential,
                    risk: outcomes.risk,
                }),
                lesion: lesion.filter(|_| task == "malignant"),
            });
        };
        add("malignant", "", outcomes.malignant, &|p| p.malignant);
        for (k, class) in STAGES.into_iter().enumerate() {
            add("stage", class, outcomes.stage == k, &move |p| p.stage[k]);
        }
        for (k, class) in FINDINGS.into_iter().enumerate() {
            add("findings", class, outcomes.findings[k], &move |p| p.findings[k]);
        }
        add("deterioration", "", outcomes.deteriorates(), &|p| p.deterioration);
        add("response", "", outcomes.potential[outcomes.treatment], &|p| p.response);
    }
    rows
}

fn frame(rows: &[Row]) -> Result<DataFrame, PolarsError> {
    let response = |name: &str, f: &dyn Fn(&Response) -> f64| {
        Column::new(name.into(), rows.iter().map(|r| r.response.as_ref().map(f)).collect::<Vec<Option<f64>>>())
    };
    let lesion = |name: &str, k: usize| Column::new(name.into(), rows.iter().map(|r| r.lesion.map(|lesion| lesion[k])).collect::<Vec<_>>());
    DataFrame::new(
        rows.len(),
        vec![
            Column::new("patient_id".into(), rows.iter().map(|r| r.patient.as_str()).collect::<Vec<_>>()),
            Column::new("example_id".into(), rows.iter().map(|r| r.example.as_str()).collect::<Vec<_>>()),
            Column::new("task".into(), rows.iter().map(|r| r.task).collect::<Vec<_>>()),
            Column::new("class".into(), rows.iter().map(|r| r.class).collect::<Vec<_>>()),
            Column::new("label".into(), rows.iter().map(|r| f32::from(u8::from(r.label))).collect::<Vec<_>>()),
            Column::new("p_joint".into(), rows.iter().map(|r| r.p_joint).collect::<Vec<_>>()),
            Column::new("p_image".into(), rows.iter().map(|r| r.p_image).collect::<Vec<_>>()),
            Column::new("p_record".into(), rows.iter().map(|r| r.p_record).collect::<Vec<_>>()),
            Column::new("has_image".into(), rows.iter().map(|r| r.has_image).collect::<Vec<_>>()),
            Column::new("has_record".into(), rows.iter().map(|r| r.has_record).collect::<Vec<_>>()),
            Column::new("time_days".into(), rows.iter().map(|r| r.survival.map(|s| s.0)).collect::<Vec<_>>()),
            Column::new("event".into(), rows.iter().map(|r| r.survival.map(|s| s.1)).collect::<Vec<_>>()),
            Column::new("treatment".into(), rows.iter().map(|r| r.response.map(|x| x.treatment as u32)).collect::<Vec<_>>()),
            Column::new("potential_0".into(), rows.iter().map(|r| r.response.map(|x| x.potential[0])).collect::<Vec<_>>()),
            Column::new("potential_1".into(), rows.iter().map(|r| r.response.map(|x| x.potential[1])).collect::<Vec<_>>()),
            response("risk_0", &|x| x.risk[0]),
            response("risk_1", &|x| x.risk[1]),
            lesion("lesion_x", 0),
            lesion("lesion_y", 1),
            lesion("lesion_radius", 2),
        ],
    )
}

/// Writes the table in row groups, so that memory does not grow with the cohort.
pub(crate) struct TruthWriter {
    path: PathBuf,
    writer: BatchedWriter<File>,
    pending: Vec<Row>,
}

impl TruthWriter {
    pub(crate) fn create(path: &Path) -> Result<Self, SimulationError> {
        let file = File::create(path).map_err(io(path))?;
        let table = |source| SimulationError::Table { path: path.to_owned(), source };
        let writer = frame(&[]).and_then(|empty| ParquetWriter::new(file).batched(empty.schema())).map_err(table)?;
        Ok(Self { path: path.to_owned(), writer, pending: Vec::new() })
    }

    pub(crate) fn add(&mut self, rows: Vec<Row>) -> Result<(), SimulationError> {
        self.pending.extend(rows);
        if self.pending.len() >= ROWS_A_GROUP { self.flush() } else { Ok(()) }
    }

    /// Writes the rest and returns the file's size in bytes.
    pub(crate) fn finish(mut self) -> Result<u64, SimulationError> {
        self.flush()?;
        self.writer.finish().map_err(|source| SimulationError::Table { path: self.path.clone(), source })
    }

    fn flush(&mut self) -> Result<(), SimulationError> {
        let group = frame(&self.pending).and_then(|frame| self.writer.write_batch(&frame));
        self.pending.clear();
        group.map_err(|source| SimulationError::Table { path: self.path.clone(), source })
    }
}
