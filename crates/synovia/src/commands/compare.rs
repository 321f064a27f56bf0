//! `synovia compare`: the measures of several runs side by side, and of two models the difference on the patients of both.

use std::path::Path;

use anyhow::{Context as _, bail};
use synovia_cohort::{EndpointKind, Task};
use synovia_evaluation::{BetweenRuns, EndpointMeasure, Estimate, EvaluationOptions, Metrics, Prediction, Variant, between_runs};

use crate::cli::CompareArgs;
use crate::failure::{UsageError, print};
use crate::stages::evaluate::read_predictions;

/// Prints a table: a line a task, model and measure, a column a run; or, between two models, their difference.
pub fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let runs: Vec<(String, Metrics)> = args
        .runs
        .iter()
        .map(|run| {
            let path = run.join("metrics.json");
            let text =
                std::fs::read(&path).with_context(|| format!("{}: not an evaluated run; run `synovia evaluate` first", path.display()))?;
            let metrics = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
            Ok((run.display().to_string(), metrics))
        })
        .collect::<anyhow::Result<_>>()?;
    match (&args.between[..], &args.runs[..]) {
        ([], _) => print(table(&runs).trim_end()),
        ([of_first, of_second], [first, second]) => {
            let models = [model(of_first)?, model(of_second)?];
            print(differences([first, second], models, [&runs[0].1, &runs[1].1])?.join("\n"))
        }
        _ => {
            let advice = "give two runs, and two models, as in `--between joint-image,image`";
            Err(UsageError(format!("--between compares a model of one run with a model of another: {advice}")).into())
        }
    }
}

fn model(name: &str) -> anyhow::Result<Variant> {
    let known = || Variant::ALL.map(Variant::as_str).join(", ");
    Variant::from_name(name).ok_or_else(|| UsageError(format!("`{name}` is no model; models are {}", known())).into())
}

/// A line of JSON a task that both runs have.
fn differences(runs: [&Path; 2], models: [Variant; 2], metrics: [&Metrics; 2]) -> anyhow::Result<Vec<String>> {
    let read = |run: &Path| -> anyhow::Result<Vec<Prediction>> {
        if run.join("folds").exists() {
            bail!("{}: a run of folds, whose models are several; --between is for runs of one split", run.display());
        }
        read_predictions(&run.join("predictions.parquet"))
    };
    let [first, second] = [read(runs[0])?, read(runs[1])?];
    let mut lines = Vec::new();
    for (name, measured) in metrics[0].tasks.iter().filter(|(name, _)| metrics[1].tasks.contains_key(*name)) {
        let mut classes: Vec<String> = Vec::new();
        for row in first.iter().filter(|row| *row.task == **name) {
            if !classes.iter().any(|class| **class == *row.class) {
                classes.push(row.class.to_string());
            }
        }
        let task = Task { name: name.clone(), kind: measured.kind, classes };
        let level = EvaluationOptions::default().level;
        let found = between_runs(&task, (&first, models[0]), (&second, models[1]), level)
            .with_context(|| format!("{} and {} are not of the same data", runs[0].display(), runs[1].display()))?;
        let Some(BetweenRuns { n, auroc, p }) = found else { continue };
        let line = serde_json::json!({
            "task": name, "first": models[0].as_str(), "second": models[1].as_str(), "n": n,
            "auroc": { "difference": auroc.value, "low": auroc.low, "high": auroc.high }, "p": p,
        });
        lines.push(line.to_string());
    }
    if lines.is_empty() {
        bail!(
            "no task of classes has test examples that both `{}` of the first run and `{}` of the second predicted",
            models[0],
            models[1]
        );
    }
    Ok(lines)
}

fn cell(estimate: Option<&Estimate>) -> String {
    match estimate.map(|e| (e.value, e.low, e.high)) {
        Some((Some(value), Some(low), Some(high))) => format!("{value:.3} ({low:.3} to {high:.3})"),
        Some((Some(value), ..)) => format!("{value:.3}"),
        _ => "–".to_owned(),
    }
}

fn table(runs: &[(String, Metrics)]) -> String {
    let mut rows: Vec<Vec<String>> =
        vec![["task", "model", "measure"].into_iter().map(String::from).chain(runs.iter().map(|r| r.0.clone())).collect()];
    let mut tasks: Vec<&String> = runs.iter().flat_map(|(_, metrics)| metrics.tasks.keys()).collect();
    tasks.sort();
    tasks.dedup();
    for task in tasks {
        for variant in Variant::ALL {
            let of: Vec<_> = runs.iter().map(|(_, metrics)| metrics.tasks.get(task).and_then(|t| t.variants.get(&variant))).collect();
            if of.iter().all(Option::is_none) {
                continue;
            }
            let mut add = |measure: &str, cells: Vec<String>| {
                rows.push([task.clone(), variant.to_string(), measure.to_owned()].into_iter().chain(cells).collect());
            };
            add("AUROC", of.iter().map(|m| cell(m.map(|m| &m.auroc))).collect());
            add("AUPRC", of.iter().map(|m| cell(m.map(|m| &m.auprc))).collect());
            add("Brier", of.iter().map(|m| cell(m.map(|m| &m.brier))).collect());
            add("ECE", of.iter().map(|m| cell(m.map(|m| &m.ece))).collect());
        }
        let verdict = |(_, metrics): &(String, Metrics)| {
            let gain = metrics.tasks.get(task).and_then(|t| t.gain.as_ref());
            gain.map_or_else(|| "–".to_owned(), |gain| format!("{} (over {})", gain.verdict, gain.over))
        };
        rows.push([task.clone(), "joint".into(), "verdict".into()].into_iter().chain(runs.iter().map(verdict)).collect());
    }
    let mut endpoints: Vec<(&String, EndpointKind)> =
        runs.iter().flat_map(|(_, metrics)| metrics.endpoints.iter().map(|(name, measured)| (name, measured.kind))).collect();
    endpoints.sort_by_key(|(name, _)| *name);
    endpoints.dedup_by_key(|(name, _)| *name);
    for (name, kind) in endpoints {
        for variant in Variant::ALL {
            for measure in EndpointMeasure::of(kind) {
                let of = |(_, metrics): &(String, Metrics)| {
                    metrics.endpoints.get(name).and_then(|measured| measured.variants.get(&variant)?.get(measure).cloned())
                };
                let cells: Vec<Option<Estimate>> = runs.iter().map(of).collect();
                if cells.iter().any(Option::is_some) {
                    let cells = cells.iter().map(|estimate| cell(estimate.as_ref()));
                    rows.push([name.clone(), variant.to_string(), measure.describe().to_owned()].into_iter().chain(cells).collect());
                }
            }
        }
        let verdict = |(_, metrics): &(String, Metrics)| {
            let gain = metrics.endpoints.get(name).and_then(|measured| measured.gain.as_ref());
            gain.map_or_else(|| "–".to_owned(), |gain| format!("{} (over {})", gain.verdict, gain.over))
        };
        rows.push([name.clone(), "joint".into(), "verdict".into()].into_iter().chain(runs.iter().map(verdict)).collect());
    }
    let width = |k: usize| rows.iter().map(|row| row[k].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use synovia_cohort::{ExampleId, Split, Task, TaskKind};
    use synovia_evaluation::{EvaluationOptions, Prediction, evaluate};

    use super::*;

    #[test]
    fn runs_stand_side_by_side() {
        let task = Task { name: "malignant".into(), kind: TaskKind::Binary, classes: vec!["yes".into()] };
        let run = |scores: [f32; 4]| {
            let row = |(k, p): (usize, &f32)| {
                let (id, patient): (_, Arc<str>) = (ExampleId::from_digest(&k.to_string()), k.to_string().into());
                let label = Some(f32::from(u8::from(k > 1)));
                Prediction::rows(&id, &patient, Split::Test, &task, label, &[*p], Variant::Joint).collect::<Vec<_>>()
            };
            let predictions: Vec<Prediction> = scores.iter().enumerate().flat_map(row).collect();
            evaluate(&predictions, std::slice::from_ref(&task), &EvaluationOptions { n_bootstrap: 0, ..EvaluationOptions::default() })
                .unwrap()
        };
        let text = table(&[("a".into(), run([0.1, 0.2, 0.3, 0.4])), ("b".into(), run([0.4, 0.1, 0.3, 0.2]))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["task", "model", "measure", "a", "b"]);
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["malignant", "joint", "AUROC", "1.000", "0.500"]);
    }
}
