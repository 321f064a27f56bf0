//! Trained models to predictions, metrics, the report and the model card.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use anyhow::Context as _;
use polars::prelude::{Column, DataFrame, ParquetReader, ParquetWriter, SerReader as _};
use synovia_cohort::{CohortReader, ExampleId, ExampleRow, Split, Task};
use synovia_evaluation::{
    Attribute, CalibrationRow, Curve, EndpointFold, Epoch, EvaluationOptions, FeatureRow, Flow, FlowStep, Metrics, Prediction, Report,
    SplitSummary, Variant, add_subgroups, evaluate, evaluate_endpoints, model_card, pool_folds, probabilities, report_html,
};
use synovia_training::{Presence, predict_each, spread};

use super::atomic::atomic_file;
use super::attributes::add_attributes;
use super::baselines::{baselines, of_images};
use super::cache::Stage;
use super::cohort::CohortReport;
use super::ingest::{read_json, write_json};
use super::place::Place;
use super::train::{ModelSettings, Spent, open_model};
use super::{StageError, endpoints, run_stage};
use crate::commands::Work;

/// Raised when the stage gives other outputs for the same inputs.
const VERSION: u32 = 10;

/// What models say of endpoints.
const ESTIMATES: &str = "estimates.parquet";

/// Runs the stage unless it is fresh; `trained` are the train stages of all folds, `shown` those that the report shows.
pub fn run(work: &Work, trained: &[Stage], shown: &[Stage], places: &[Place]) -> anyhow::Result<Stage> {
    let settings = serde_json::json!({
        "name": work.pipeline.name, "seed": work.pipeline.seed, "calibration": work.pipeline.training.calibration,
    });
    let mut stage = Stage::new("evaluate", VERSION, &settings)?;
    for before in trained.iter().chain(shown) {
        stage = stage.after(before);
    }
    let mut outputs = ["predictions.parquet", "metrics.json", "report.html", "model-card.md"].map(str::to_owned).to_vec();
    if !work.pipeline.tasks.endpoints.is_empty() {
        outputs.push(ESTIMATES.to_owned());
    }
    outputs.extend(places.iter().filter(|place| place.fold().is_some()).map(|place| place.relative("predictions.parquet")));
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    run_stage(&stage, &work.run, &work.progress, &outputs, || evaluate_all(work, places))?;
    Ok(stage)
}

/// What one place contributes to the report.
struct Evaluated {
    predictions: Vec<Prediction>,
    endpoints: Vec<EndpointFold>,
    settings: ModelSettings,
    report: CohortReport,
    reader: CohortReader,
}

fn evaluate_all(work: &Work, places: &[Place]) -> anyhow::Result<()> {
    let bar = work.progress.start("evaluate", None, "predictions");
    let mut all = Vec::new();
    for place in places {
        let evaluated = predict_all(work, place)?;
        bar.add(evaluated.predictions.len() as u64);
        if place.fold().is_some() {
            write_predictions(&place.path(&work.run, "predictions.parquet"), &evaluated.predictions)?;
        }
        all.push(evaluated);
    }
    let options = EvaluationOptions { seed: work.pipeline.seed, ..EvaluationOptions::default() };
    let tasks = all[0].reader.manifest().tasks.clone();
    let mut attributes = BTreeMap::new();
    for (place, evaluated) in places.iter().zip(&all) {
        add_attributes(&place.path(&work.run, "cohort"), &evaluated.reader, &mut attributes)?;
    }
    let attributes: Vec<Attribute> = attributes.into_values().collect();
    let known = all[0].reader.manifest().endpoints.clone();
    let mut of_endpoints: Vec<Vec<EndpointFold>> = vec![Vec::new(); known.len()];
    for evaluated in &mut all {
        of_endpoints.iter_mut().zip(std::mem::take(&mut evaluated.endpoints)).for_each(|(folds, fold)| folds.push(fold));
    }
    let (mut metrics, folds, predictions) = if places.len() == 1 {
        let predictions = std::mem::take(&mut all[0].predictions);
        let mut metrics = evaluate(&predictions, &tasks, &options)?;
        add_subgroups(&mut metrics, &[&predictions], &tasks, &attributes)?;
        (metrics, Vec::new(), predictions)
    } else {
        let of_folds: Vec<Vec<Prediction>> = all.iter_mut().map(|e| std::mem::take(&mut e.predictions)).collect();
        let mut pooled = pool_folds(&of_folds, &tasks, &options)?;
        let slices: Vec<&[Prediction]> = of_folds.iter().map(Vec::as_slice).collect();
        add_subgroups(&mut pooled.pooled, &slices, &tasks, &attributes)?;
        let out_of_fold = of_folds.into_iter().flatten().filter(|p| p.split == Split::Test).collect();
        (pooled.pooled, pooled.folds, out_of_fold)
    };
    metrics.endpoints = evaluate_endpoints(&known, &of_endpoints, &options);
    if !known.is_empty() {
        endpoints::write(&work.run.join(ESTIMATES), &known, &of_endpoints)?;
    }
    write_predictions(&work.run.join("predictions.parquet"), &predictions)?;
    write_json(&work.run.join("metrics.json"), &metrics)?;
    let report = report(work, &all, &tasks, &metrics, &folds, &predictions)?;
    write_text(work, "report.html", &report_html(&report))?;
    write_text(work, "model-card.md", &model_card(&report))?;
    bar.finish("");
    Ok(())
}

/// What the served model may tell of the patients that it was trained on.
fn privacy_limits(evaluated: &Evaluated, metrics: &Metrics) -> Vec<String> {
    let Some((variant, settings)) = evaluated.settings.variants.iter().next() else { return Vec::new() };
    let mut limits = Vec::new();
    if let Some(spent) = settings.spent() {
        let Spent { epsilon, delta, noise, clip } = spent;
        limits.push(format!(
            "Its {variant} model is differentially private a patient: ε = {epsilon:.3} at δ = {delta:e} (noise {noise}, clip {clip}, all epochs). \
             Statistics of the features and of numbers that are predicted, counts of labels and what the validation split decided have no noise."
        ));
    }
    for attack in metrics.membership.iter().filter(|attack| attack.variant == *variant) {
        let interval = attack.low.zip(attack.high).map(|(low, high)| format!(" (95 % interval {low:.3} to {high:.3})")).unwrap_or_default();
        limits.push(format!(
            "Who was trained on: by the loss on {}, an attacker tells patients of the train split from those of the test split with an AUROC \
             of {:.3}{interval}; 0.5 gives nothing away.",
            attack.task, attack.auroc
        ));
    }
    limits
}

fn write_text(work: &Work, name: &str, text: &str) -> anyhow::Result<()> {
    let path = work.run.join(name);
    atomic_file(&path, |out| out.write_all(text.as_bytes()).map_err(|source| StageError::Io { path: path.clone(), source }))?;
    Ok(())
}

fn predict_all(work: &Work, place: &Place) -> anyhow::Result<Evaluated> {
    let reader = CohortReader::open(&place.path(&work.run, "cohort"))?;
    let (settings, weights) = open_model(work, place)?;
    let rows: Vec<&ExampleRow> = reader.rows().iter().collect();
    let patients: Vec<Arc<str>> = rows.iter().map(|row| row.patient.as_str().into()).collect();
    let tasks = &reader.manifest().tasks;
    let mut predictions = Vec::new();
    // All variants have the same heads.
    let mut of_endpoints = settings.variants.values().next().map_or_else(Vec::new, |first| endpoints::empty(&first.model.endpoints));
    let shown_of = |variant: Variant, own: Presence| {
        let mut shown = vec![(variant, own)];
        if variant == Variant::Joint {
            shown.push((Variant::JointImage, Presence { image: true, record: false }));
            shown.push((Variant::JointRecord, Presence { image: false, record: true }));
        }
        shown
    };
    let models: Vec<_> = settings.variants.iter().map(|(v, of)| (*v, of, shown_of(*v, Presence::of(&of.model)))).collect();
    let all_predicted = spread(&models, |(variant, of_variant, shown)| {
        let presences: Vec<Presence> = shown.iter().map(|(_, presence)| *presence).collect();
        predict_each(&of_variant.model, &weights[variant], &reader, &rows, &presences, *variant == Variant::Image)
    });
    for ((variant, of_variant, shown), of_shown) in models.iter().zip(all_predicted) {
        let (of_shown, shown) = (of_shown?, shown.iter().copied());
        let calibrations = of_variant.calibrated(work.pipeline.training.calibration);
        if *variant == Variant::Image {
            predictions.extend(of_images(work, &reader, &rows, &patients, &of_shown[0]));
        }
        for ((variant, _), predicted) in shown.zip(of_shown) {
            endpoints::add(&mut of_endpoints, &of_variant.model.endpoints, &rows, &patients, &predicted, variant, tasks.len())?;
            for predicted in predicted {
                let row = rows[predicted.row];
                for (k, task) in tasks.iter().enumerate() {
                    let p = probabilities(&predicted.logits[k], &calibrations[k].map, task);
                    predictions.extend(Prediction::rows(&row.id, &patients[predicted.row], row.split, task, row.labels[k], &p, variant));
                }
            }
        }
    }
    if !reader.manifest().features.is_empty() {
        let of_models = std::mem::take(&mut predictions);
        let of_baselines = baselines(work, &reader, &rows, &patients, &of_models)?;
        predictions.extend(of_models);
        predictions.extend(of_baselines);
    }
    let report = read_json(&place.path(&work.run, "cohort").join("report.json"))?;
    Ok(Evaluated { predictions, endpoints: of_endpoints, settings, report, reader })
}

fn write_predictions(path: &std::path::Path, predictions: &[Prediction]) -> anyhow::Result<()> {
    let column = |name: &str, f: &dyn Fn(&Prediction) -> &str| Column::new(name.into(), predictions.iter().map(f).collect::<Vec<&str>>());
    let columns = vec![
        column("example_id", &|p| p.example.as_str()),
        column("patient_id", &|p| &p.patient),
        column("split", &|p| p.split.as_str()),
        column("task", &|p| &p.task),
        column("class", &|p| &p.class),
        Column::new("label".into(), predictions.iter().map(|p| p.label).collect::<Vec<_>>()),
        Column::new("probability".into(), predictions.iter().map(|p| p.probability).collect::<Vec<_>>()),
        column("variant", &|p| p.variant.as_str()),
    ];
    let mut frame = DataFrame::new(predictions.len(), columns)?;
    atomic_file(path, |out| ParquetWriter::new(out).finish(&mut frame).map(|_| ()).with_context(|| path.display().to_string()))
}

/// What [`run`] wrote to `predictions.parquet`.
///
/// # Errors
/// A file that can't be read, or is not one of these.
pub fn read_predictions(path: &std::path::Path) -> anyhow::Result<Vec<Prediction>> {
    let at = || path.display().to_string();
    let frame = ParquetReader::new(std::fs::File::open(path).with_context(at)?).finish().with_context(at)?;
    let text = |name: &str| frame.column(name).and_then(|column| column.str()).with_context(at);
    let [examples, patients, splits, tasks, classes, variants] =
        [text("example_id")?, text("patient_id")?, text("split")?, text("task")?, text("class")?, text("variant")?];
    let number = |name: &str| frame.column(name).and_then(|column| column.f32()).with_context(at);
    let (labels, probabilities) = (number("label")?, number("probability")?);
    let mut names: HashSet<Arc<str>> = HashSet::new();
    let mut name = |text: &str| {
        if let Some(known) = names.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        names.insert(Arc::clone(&new));
        new
    };
    let mut row = |k: usize| {
        Some(Prediction {
            example: ExampleId::from_digest(examples.get(k)?),
            patient: name(patients.get(k)?),
            split: Split::from_name(splits.get(k)?)?,
            task: name(tasks.get(k)?),
            class: name(classes.get(k)?),
            label: labels.get(k),
            probability: probabilities.get(k)?,
            variant: Variant::from_name(variants.get(k)?)?,
        })
    };
    (0..frame.height()).map(|k| row(k).with_context(|| format!("{}: row {} is not a prediction of synovia", at(), k + 1))).collect()
}

fn report<'a>(
    work: &'a Work,
    all: &'a [Evaluated],
    tasks: &'a [Task],
    metrics: &'a Metrics,
    folds: &'a [Metrics],
    predictions: &'a [Prediction],
) -> anyhow::Result<Report<'a>> {
    let first = &all[0];
    let mut report = Report::new(&work.pipeline.name, metrics, tasks, predictions);
    report.folds = folds;
    report.intended_use = Some(
        "Research on predicting the tasks above from an image and the record before it, in patients like those of the cohort. Not a medical device."
            .to_owned(),
    );
    report.limits = vec![
        "Measured on held-out patients of the same source; nothing is known of other hospitals, scanners or populations.".to_owned(),
        "A probability is calibrated for the prevalence of this cohort.".to_owned(),
    ];
    report.limits.extend(privacy_limits(first, metrics));
    if let Some(checkpoint) = &first.settings.pretrained {
        report.limits.push(format!(
            "Its image towers began with {} tensors of a checkpoint (SHA-256 {}): what that was trained on is part of this model.",
            checkpoint.taken, checkpoint.sha256
        ));
    }
    let steps = first.report.steps.iter().map(|(name, count)| FlowStep { name: name.clone(), count: *count, note: None });
    report.flow = Some(Flow {
        steps: steps.collect(),
        failed_links: first.report.failed_links.iter().map(|(reason, n)| (reason.clone(), *n)).collect(),
    });
    report.participants.clone_from(&first.report.flow);
    report.rejected = Some(first.report.rejected.clone());
    report.refused = Some(first.report.refused);
    if all.len() == 1 {
        report.splits = SplitSummary::of_rows(first.reader.rows(), tasks);
        report.sides.clone_from(&first.report.sides);
    }
    for (fold, evaluated) in all.iter().enumerate() {
        for (variant, settings) in &evaluated.settings.variants {
            let name = if all.len() == 1 { variant.to_string() } else { format!("{variant}, fold {}", fold + 1) };
            let epochs = settings.history.iter().map(|e| Epoch {
                epoch: e.epoch,
                train_loss: e.train_loss,
                validation_loss: Some(e.validation_loss),
            });
            report.training.push(Curve { name, epochs: epochs.collect(), best_epoch: Some(settings.best_epoch) });
            if all.len() == 1 {
                let calibrations = settings.calibrated(work.pipeline.training.calibration);
                report.calibrations.extend(tasks.iter().zip(calibrations).map(|(task, calibration)| CalibrationRow {
                    task: task.name.clone(),
                    variant: *variant,
                    calibration,
                }));
            }
        }
    }
    let features = first.reader.manifest().features.iter().zip(&first.report.coverage);
    report.features = features.map(|(spec, coverage)| FeatureRow { spec: spec.clone(), coverage: *coverage }).collect();
    report.explanations = Some(read_json(&work.run.join(super::explain::FILE))?);
    report.robustness = Some(read_json(&work.run.join(super::robustness::FILE))?);
    report.settings = Some(work.pipeline.resolved_toml(&[])?);
    report.seed = Some(work.pipeline.seed);
    Ok(report)
}
