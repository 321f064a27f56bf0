//! `synovia compare`: the measures of several runs side by side.

use anyhow::Context as _;
use synovia_cohort::EndpointKind;
use synovia_evaluation::{EndpointMeasure, Estimate, Metrics, Variant};

use crate::cli::CompareArgs;
use crate::failure::print;

/// Prints a table: a line a task, model and measure, a column a run.
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
    print(table(&runs).trim_end())
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
