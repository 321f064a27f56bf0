//! The report of a run: one HTML file that opens offline, and the model card.
#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    reason = "a page is written once: code that reads like its HTML is worth more than an allocation a row"
)]

mod card;
mod chart;
mod checklist;
mod cohort;
mod consort;
mod embedding;
mod endpoint;
mod explanation;
mod federation;
mod html;
mod more;
mod robustness;
mod run;
mod task;

use std::collections::BTreeMap;

use synovia_cohort::{ExampleRow, FeatureSpec, FlowCounts, Refused, Split, Task, TaskKind};

pub use card::model_card;
pub use explanation::{
    Case, Explanations, FeatureWeight, IntegratedCheck, MapCheck, ModalityShare, Neighbour, NeighbourCheck, Peak, TaskExplanation,
};
pub use federation::{Contribution, FederationReport, SiteGain, federation_html};

use crate::{Calibration, ClassCount, Metrics, Prediction, Robustness, Variant};
use html::{escape, number};

/// All that the report and the model card show. [`Report::new`] has what they need; a section without data is left out.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The pipeline's name.
    pub name: &'a str,
    /// Measures; of a cross-validation the pooled ones.
    pub metrics: &'a Metrics,
    /// The tasks, in the order in which they are shown.
    pub tasks: &'a [Task],
    /// Predictions, for the curves: only those of the test split are drawn.
    pub predictions: &'a [Prediction],
    /// Measures of each fold.
    pub folds: &'a [Metrics],
    /// What the model is for, and for whom.
    pub intended_use: Option<String>,
    /// What it must not be used for, and where it is not known to work.
    pub limits: Vec<String>,
    /// From files to examples.
    pub flow: Option<Flow>,
    /// Patients and examples at each step from the records to the splits.
    pub participants: Vec<FlowCounts>,
    /// The splits at the end of it.
    pub sides: Vec<FlowCounts>,
    /// Things that ingest did not take, by reason.
    pub rejected: Option<BTreeMap<String, u64>>,
    /// What the prediction time kept out.
    pub refused: Option<Refused>,
    /// The splits.
    pub splits: Vec<SplitSummary>,
    /// Losses over training, a curve a model.
    pub training: Vec<Curve>,
    /// Calibration of each task and variant.
    pub calibrations: Vec<CalibrationRow>,
    /// What drove the answers.
    pub explanations: Option<Explanations>,
    /// What models keep of their skill as inputs get worse.
    pub robustness: Option<Robustness>,
    /// Columns of the feature table.
    pub features: Vec<FeatureRow>,
    /// How the exported model agreed with the trained one.
    pub onnx: Option<OnnxCheck>,
    /// The resolved pipeline, as text.
    pub settings: Option<String>,
    /// The run's seed.
    pub seed: Option<u64>,
    /// Versions and hashes: what, and its value.
    pub provenance: Vec<(String, String)>,
}

/// Counts from files to examples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    /// The steps, in order.
    pub steps: Vec<FlowStep>,
    /// Links between image and record that failed: why, and how many.
    pub failed_links: Vec<(String, u64)>,
}

/// One step from files to examples.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowStep {
    /// What is counted: `DICOM files read`.
    pub name: String,
    /// How many.
    pub count: u64,
    /// What became of the rest.
    pub note: Option<String>,
}

/// One split of the cohort.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitSummary {
    /// Which.
    pub split: Split,
    /// Patients.
    pub n_patients: usize,
    /// Examples.
    pub n_examples: usize,
    /// Examples with an image.
    pub n_image: usize,
    /// Examples with a record.
    pub n_record: usize,
    /// Examples with both.
    pub n_both: usize,
    /// Labels, a task each.
    pub labels: Vec<LabelCounts>,
}

/// Labels of one task in one split.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelCounts {
    /// The task's name.
    pub task: String,
    /// Examples by class.
    pub classes: Vec<ClassCount>,
    /// Examples whose label is unknown.
    pub n_unlabelled: usize,
}

impl SplitSummary {
    /// The splits that `rows` have examples of, in the order train, validation, test.
    pub fn of_rows(rows: &[ExampleRow], tasks: &[Task]) -> Vec<Self> {
        [Split::Train, Split::Validation, Split::Test]
            .into_iter()
            .map(|split| {
                let rows: Vec<&ExampleRow> = rows.iter().filter(|row| row.split == split).collect();
                let count = |wanted: fn(&ExampleRow) -> bool| rows.iter().filter(|row| wanted(row)).count();
                Self {
                    split,
                    n_patients: rows.iter().map(|row| &row.patient).collect::<std::collections::HashSet<_>>().len(),
                    n_examples: rows.len(),
                    n_image: count(|row| row.image_row.is_some()),
                    n_record: count(|row| row.record_row.is_some()),
                    n_both: count(|row| row.image_row.is_some() && row.record_row.is_some()),
                    labels: tasks.iter().enumerate().map(|(k, task)| LabelCounts::of_rows(&rows, k, task)).collect(),
                }
            })
            .filter(|summary| summary.n_examples > 0)
            .collect()
    }
}

impl LabelCounts {
    fn of_rows(rows: &[&ExampleRow], position: usize, task: &Task) -> Self {
        let labels: Vec<f32> = rows.iter().filter_map(|row| row.labels.get(position).copied().flatten()).collect();
        let class =
            |name: String, value: usize| ClassCount { class: name, n: labels.iter().filter(|&&label| label == value as f32).count() };
        let classes = match task.kind {
            TaskKind::Binary => task.classes.iter().flat_map(|c| [class(format!("not {c}"), 0), class(c.clone(), 1)]).collect(),
            TaskKind::Multiclass | TaskKind::Ordinal => task.classes.iter().enumerate().map(|(k, c)| class(c.clone(), k)).collect(),
        };
        Self { task: task.name.clone(), classes, n_unlabelled: rows.len() - labels.len() }
    }
}

/// Losses over the training of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Which model; of a cross-validation with the fold.
    pub name: String,
    /// Its epochs, in order.
    pub epochs: Vec<Epoch>,
    /// The epoch whose weights were kept.
    pub best_epoch: Option<usize>,
}

/// Losses of one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Mean loss on the training split.
    pub train_loss: f64,
    /// Mean loss on the validation split.
    pub validation_loss: Option<f64>,
}

/// The calibration of one task and variant.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationRow {
    /// The task's name.
    pub task: String,
    /// Which model.
    pub variant: Variant,
    /// The fit.
    pub calibration: Calibration,
}

/// One column of the feature table.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureRow {
    /// Its name, code and unit.
    pub spec: FeatureSpec,
    /// Share of the training split's records that have it, in [0, 1].
    pub coverage: f64,
}

/// How the exported model was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxCheck {
    /// Opset of the file.
    pub opset: u32,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Largest difference that is let pass.
    pub tolerance: f64,
    /// Each run of ONNX Runtime.
    pub runs: Vec<OnnxRun>,
}

/// One run of the exported model against the trained one.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxRun {
    /// Modalities that were present: `image + record`.
    pub modalities: String,
    /// Examples in the batch.
    pub batch: usize,
    /// Largest absolute difference of any output.
    pub max_difference: f64,
}

impl<'a> Report<'a> {
    /// A report of measures alone; fill in the other fields for the other sections.
    pub fn new(name: &'a str, metrics: &'a Metrics, tasks: &'a [Task], predictions: &'a [Prediction]) -> Self {
        Self {
            name,
            metrics,
            tasks,
            predictions,
            folds: &[],
            intended_use: None,
            limits: Vec::new(),
            flow: None,
            participants: Vec::new(),
            sides: Vec::new(),
            rejected: None,
            refused: None,
            splits: Vec::new(),
            training: Vec::new(),
            calibrations: Vec::new(),
            explanations: None,
            robustness: None,
            features: Vec::new(),
            onnx: None,
            settings: None,
            seed: None,
            provenance: Vec::new(),
        }
    }

    /// Tasks with their measures, in the pipeline's order.
    fn measured(&self) -> impl Iterator<Item = (&'a Task, &'a crate::TaskMetrics)> + '_ {
        self.tasks.iter().filter_map(|task| self.metrics.tasks.get(&task.name).map(|measured| (task, measured)))
    }
}

/// A section's anchor, its name in the table of contents, and its HTML; without HTML it is left out.
struct Section {
    id: String,
    name: String,
    body: String,
}

/// The report as one HTML page: styles and plots are in it, and its own policy lets it load nothing.
pub fn report_html(report: &Report) -> String {
    let mut sections: Vec<Section> = report
        .measured()
        .enumerate()
        .map(|(k, (task, measured))| Section {
            id: format!("task-{k}"),
            name: task.name.clone(),
            body: task::section(report, k, task, measured),
        })
        .collect();
    sections.extend(report.metrics.endpoints.iter().enumerate().map(|(k, (name, measured))| Section {
        id: format!("endpoint-{k}"),
        name: name.clone(),
        body: endpoint::section(report, name, measured),
    }));
    let mut add = |id: &str, name: &str, body: String| sections.push(Section { id: id.to_owned(), name: name.to_owned(), body });
    add("explanation", "Explanation", explanation::section(report));
    add("robustness", "Robustness", robustness::section(report));
    add("folds", "Folds", task::folds(report));
    add("cohort", "Cohort", cohort::section(report));
    add("training", "Training", run::training(report));
    add("calibration", "Calibration", run::calibration(report));
    add("features", "Features", run::features(report));
    add("export", "Exported model", run::export(report));
    add("use", "Use and limits", run::intended_use(report));
    add("tripod", "TRIPOD+AI", checklist::section(report));
    add("methods", "Methods", run::methods(report));
    add("reproduce", "Reproduce", run::reproduce(report));
    page("Joint model report", report.name, &lead(report), &task::summary(report), sections)
}

/// A page by itself: nothing is loaded from anywhere.
///
/// - lead, summary: already in HTML
fn page(kind: &str, name: &str, lead: &str, summary: &str, mut sections: Vec<Section>) -> String {
    sections.retain(|section| !section.body.is_empty());
    let (kind, name) = (escape(kind), escape(name));
    let contents: String = sections.iter().map(|s| format!("<li><a href=\"#{}\">{}</a></li>", s.id, escape(&s.name))).collect();
    let bodies: String = sections
        .iter()
        .map(|s| {
            format!(
                "<section id=\"{0}\" aria-labelledby=\"{0}-title\"><h2 id=\"{0}-title\">{1}</h2>{2}</section>\n",
                s.id,
                escape(&s.name),
                s.body
            )
        })
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"generator\" content=\"synovia {version}\">\
         <title>{name}: {title}</title>\n<style>{style}</style></head>\n<body>\
         <header><p class=\"kicker\">{kind}</p><h1>{name}</h1><p class=\"lead\">{lead}</p></header>\n\
         <nav aria-label=\"Sections\"><ul>{contents}</ul></nav>\n<main>{summary}{bodies}</main>\n\
         <footer>Written by synovia {version}. For research; not a medical device.</footer></body></html>\n",
        version = env!("CARGO_PKG_VERSION"),
        style = include_str!("style.css"),
        title = kind.to_lowercase(),
    )
}

fn lead(report: &Report) -> String {
    let endpoints = || report.metrics.endpoints.values();
    let n_tasks = report.measured().count() + endpoints().count();
    let n_patients = report.measured().map(|(_, m)| m.n_patients).chain(endpoints().map(|m| m.n_patients)).max().unwrap_or_default();
    let n_examples = report.measured().map(|(_, m)| m.n).chain(endpoints().map(|m| m.n)).max().unwrap_or_default();
    let how = match report.folds.len() {
        0 => "held out for testing".to_owned(),
        k => format!("predicted out of fold in {k} folds"),
    };
    format!(
        "{n_tasks} task{}, measured on {} labelled examples of {} patients {how}.",
        if n_tasks == 1 { "" } else { "s" },
        number(n_examples as u64),
        number(n_patients as u64)
    )
}
