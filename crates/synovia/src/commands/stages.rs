//! The commands that run a pipeline's stages, up to one of them.

use std::fs::File;

use anyhow::Context as _;
use synovia_evaluation::{Metrics, Variant};

use super::{Context, Work, triton};
use crate::cli::{ExportArgs, PipelineArgs};
use crate::failure::{UsageError, print};
use crate::stages::atomic::atomic_file;
use crate::stages::cache::{Freshness, Stage};
use crate::stages::cohort::shard::{self, Shard};
use crate::stages::ingest::read_json;
use crate::stages::place::Place;
use crate::stages::{cohort, evaluate, explain, export, ingest, robustness, train};

/// The last stage to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// Files to studies and records.
    Ingest,
    /// To aligned examples.
    Cohort,
    /// To trained models.
    Train,
    /// To what drives the models' answers.
    Explain,
    /// To metrics and the report.
    Evaluate,
    /// To an ONNX file.
    Export,
}

/// Runs the pipeline's stages up to `until`; those that are fresh are skipped.
pub fn run(args: &PipelineArgs, context: &Context, until: Until) -> anyhow::Result<()> {
    if until >= Until::Export {
        // Without it, hours of training would end in an error.
        synovia_onnx::find_runtime()?;
    }
    let work = Work::open(args, context)?;
    let ingested = ingest::run(&work)?;
    work.write_pipeline(&hashes(&ingested))?;
    let places = Place::all(work.pipeline.cohort.folds);
    write_rejected(&work, &ingested, &places[0])?;
    let mut trained = Vec::new();
    for place in &places {
        if until >= Until::Cohort {
            let aligned = cohort::run(&work, &ingested, place)?;
            write_rejected(&work, &ingested, place)?;
            if until >= Until::Train {
                trained.push(train::run(&work, &aligned, place)?);
            }
        }
    }
    if until >= Until::Explain {
        let explained = explain::run(&work, &trained[0], &places[0])?;
        if until == Until::Explain {
            print(work.run.join(explain::FILE).display())?;
            return Ok(());
        }
        let robust = robustness::run(&work, &trained[0], &places[0])?;
        let evaluated = evaluate::run(&work, &trained, &[explained, robust], &places)?;
        if until >= Until::Export {
            for (place, trained) in places.iter().zip(&trained) {
                export::run(&work, trained, &evaluated, place)?;
            }
        }
        print_table(&work)?;
        print(work.run.join("report.html").display())?;
    }
    Ok(())
}

/// Runs all stages, and writes the model for other servers where it is asked for.
pub fn export(args: &ExportArgs, context: &Context) -> anyhow::Result<()> {
    let pipeline = args.pipeline.read()?;
    if args.triton.is_some() && pipeline.cohort.folds.is_some() {
        let what = "folds have a model each, none of them the one to serve: take `folds` out of [cohort], or leave --triton out";
        return Err(UsageError(what.to_owned()).into());
    }
    run(&args.pipeline, context, Until::Export)?;
    match &args.triton {
        Some(dir) => triton::write(&args.pipeline.run_folder(&pipeline).join("model.onnx"), &pipeline.name, dir),
        None => Ok(()),
    }
}

/// Makes one shard of the cohort's rows, in a folder of its own.
pub fn run_shard(args: &PipelineArgs, context: &Context, part: Shard) -> anyhow::Result<()> {
    let work = Work::open_shard(args, context, part)?;
    let ingested = ingest::run(&work)?;
    for place in &Place::all(work.pipeline.cohort.folds) {
        shard::run(&work, &ingested, place, part)?;
    }
    Ok(())
}

/// Puts the shards together. What comes after goes on as if this machine had made the cohort.
pub fn merge(args: &PipelineArgs, context: &Context) -> anyhow::Result<()> {
    let work = Work::open(args, context)?;
    let ingested = ingest::run(&work)?;
    work.write_pipeline(&hashes(&ingested))?;
    for place in &Place::all(work.pipeline.cohort.folds) {
        shard::merge(&work, &ingested, place)?;
        write_rejected(&work, &ingested, place)?;
    }
    Ok(())
}

/// Fingerprints of what was read.
pub(super) fn hashes(ingested: &Stage) -> Vec<(&str, String)> {
    ingested.inputs().iter().map(|(name, hash)| (name.as_str(), hash.clone())).collect()
}

/// Writes `RUN/rejected.jsonl`: the lines of the cohort, which begin with those of ingest, else those of ingest. No stage
/// writes it, so that it is right whichever of them were skipped. All folds read the same files.
pub(super) fn write_rejected(work: &Work, ingested: &Stage, place: &Place) -> anyhow::Result<()> {
    let is_fresh = cohort::stage(work, ingested, place)?.freshness(&work.run)? == Freshness::Fresh;
    let from = if is_fresh { place.path(&work.run, "cohort") } else { work.run.join(ingest::FOLDER) }.join("rejected.jsonl");
    let to = work.run.join("rejected.jsonl");
    let mut lines = File::open(&from).with_context(|| from.display().to_string())?;
    atomic_file(&to, |out| std::io::copy(&mut lines, out).map(|_| ()).with_context(|| to.display().to_string()))
}

/// Joint against single, as the report's headline has it.
fn print_table(work: &Work) -> anyhow::Result<()> {
    let metrics: Metrics = read_json(&work.run.join("metrics.json"))?;
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    let width = metrics.tasks.keys().chain(metrics.endpoints.keys()).map(|name| name.chars().count() + 2).fold(16, usize::max);
    if !metrics.tasks.is_empty() {
        print(format_args!("{:<width$}{:<18}{:<26}AUPRC", "task", "model", "AUROC (95 %)"))?;
    }
    for (task, measured) in &metrics.tasks {
        for variant in Variant::ALL {
            if let Some(m) = measured.variants.get(&variant) {
                let auroc = format!("{} ({} to {})", shown(m.auroc.value), shown(m.auroc.low), shown(m.auroc.high));
                print(format_args!("{task:<width$}{:<18}{auroc:<26}{}", variant.as_str(), shown(m.auprc.value)))?;
            }
        }
        if let Some(gain) = &measured.gain {
            print(format_args!("{task:<width$}{}", gain.sentence))?;
        }
    }
    for (endpoint, measured) in &metrics.endpoints {
        for (variant, of) in &measured.variants {
            for (measure, m) in of {
                let value = format!("{} ({} to {})", shown(m.value), shown(m.low), shown(m.high));
                print(format_args!("{endpoint:<width$}{:<18}{value:<26}{}", variant.as_str(), measure.describe()))?;
            }
        }
        if let Some(gain) = &measured.gain {
            print(format_args!("{endpoint:<width$}{}", gain.sentence))?;
        }
    }
    Ok(())
}
