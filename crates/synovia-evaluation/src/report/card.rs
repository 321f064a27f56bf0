//! The model card (Mitchell et al., FAT* 2019), as Markdown.

use std::fmt::Write;

use synovia_cohort::TaskKind;

use super::Report;
use super::html::interval_text;
use super::task::in_words;
use crate::{EndpointMeasure, Measure};

/// The run's model card: intended use, data, measures with intervals, limits, and how to get the model again.
pub fn model_card(report: &Report) -> String {
    let mut out = format!("# {}\n", text(report.name));
    let _ = writeln!(out, "\n## Intended use\n\n{}", text(report.intended_use.as_deref().unwrap_or("Not stated. Do not use it for care.")));
    tasks(report, &mut out);
    data(report, &mut out);
    measures(report, &mut out);
    if !report.limits.is_empty() {
        out.push_str("\n## Limits\n\n");
        for limit in &report.limits {
            let _ = writeln!(out, "- {}", text(limit));
        }
    }
    if !report.features.is_empty() {
        out.push_str("\n## Inputs from the record\n\n| feature | unit | code | in training records |\n|---|---|---|--:|\n");
        for feature in &report.features {
            let spec = &feature.spec;
            let _ =
                writeln!(out, "| {} | {} | {} | {:.1} % |", text(&spec.name), text(&spec.unit), text(&spec.code), 100.0 * feature.coverage);
        }
    }
    out.push_str("\n## Reproduce\n\n| what | value |\n|---|---|\n");
    if let Some(seed) = report.seed {
        let _ = writeln!(out, "| seed | {seed} |");
    }
    let _ = writeln!(out, "| seed of the bootstrap | {} |", report.metrics.options.seed);
    for (name, value) in &report.provenance {
        let _ = writeln!(out, "| {} | {} |", text(name), text(value));
    }
    if let Some(check) = &report.onnx {
        let worst = check.runs.iter().map(|run| run.max_difference).fold(0.0f64, f64::max);
        let _ = writeln!(
            out,
            "| exported against trained | {} runs, largest difference {worst:.1e}, tolerance {:.0e} |",
            check.runs.len(),
            check.tolerance
        );
    }
    out
}

fn tasks(report: &Report, out: &mut String) {
    out.push_str("\n## Tasks\n\n");
    for task in report.tasks {
        let kind = match task.kind {
            TaskKind::Binary => "binary",
            TaskKind::Multiclass => "multiclass",
            TaskKind::Ordinal => "ordinal",
        };
        let classes: Vec<String> = task.classes.iter().map(|class| text(class)).collect();
        let _ = writeln!(out, "- {} ({kind}): {}", text(&task.name), classes.join(", "));
    }
    for (name, measured) in &report.metrics.endpoints {
        let _ = writeln!(out, "- {} ({})", text(name), measured.kind.as_str());
    }
}

fn data(report: &Report, out: &mut String) {
    if report.splits.is_empty() {
        return;
    }
    out.push_str("\n## Data\n\nA patient is in one split; no image or event after the prediction time is an input.\n\n");
    out.push_str("| split | patients | examples | with image | with record | with both |\n|---|--:|--:|--:|--:|--:|\n");
    for s in &report.splits {
        let split = s.split.as_str();
        let _ = writeln!(out, "| {split} | {} | {} | {} | {} | {} |", s.n_patients, s.n_examples, s.n_image, s.n_record, s.n_both);
    }
    out.push_str("\n| task | split | labels | unknown |\n|---|---|---|--:|\n");
    for s in &report.splits {
        for labels in &s.labels {
            let classes: Vec<String> = labels.classes.iter().map(|c| format!("{} {}", c.n, text(&c.class))).collect();
            let _ = writeln!(out, "| {} | {} | {} | {} |", text(&labels.task), s.split.as_str(), classes.join(", "), labels.n_unlabelled);
        }
    }
}

fn measures(report: &Report, out: &mut String) {
    let level = report.metrics.options.level * 100.0;
    let _ = writeln!(out, "\n## Measures\n\nOn the test split, with {level:.0} % intervals by bootstrap of patients.");
    for (task, measured) in report.measured() {
        let _ = writeln!(out, "\n### {}\n\n{} examples of {} patients.\n", text(&task.name), measured.n, measured.n_patients);
        out.push_str("| model | AUROC | AUPRC | Brier | ECE |\n|---|---|---|---|---|\n");
        for (variant, m) in &measured.variants {
            let cell = |measure| in_words(m, measure);
            let _ = writeln!(
                out,
                "| {variant} ({}) | {} | {} | {} | {} |",
                variant.describe(),
                cell(Measure::Auroc),
                cell(Measure::Auprc),
                cell(Measure::Brier),
                cell(Measure::Ece)
            );
        }
        if let Some(gain) = &measured.gain {
            let _ = writeln!(out, "\n{}", gain.sentence);
        }
        if let Some(gain) = &measured.over_baselines {
            let _ = writeln!(out, "\n{}", gain.sentence);
        }
        for note in &measured.notes {
            let _ = writeln!(out, "\n- {}", text(note));
        }
    }
    for (name, measured) in &report.metrics.endpoints {
        let _ = writeln!(out, "\n### {}\n\n{} examples of {} patients.\n", text(name), measured.n, measured.n_patients);
        let all = EndpointMeasure::of(measured.kind);
        let names: Vec<&str> = all.iter().map(|measure| measure.describe()).collect();
        let _ = writeln!(out, "| model | {} |\n|---|{}", names.join(" | "), "---|".repeat(all.len()));
        for (variant, of) in &measured.variants {
            let cells: Vec<String> = all.iter().map(|measure| of.get(measure).map_or_else(|| "–".to_owned(), interval_text)).collect();
            let _ = writeln!(out, "| {variant} ({}) | {} |", variant.describe(), cells.join(" | "));
        }
        for said in measured.gain.iter().map(|gain| &gain.sentence).chain(&measured.notes) {
            let _ = writeln!(out, "\n{}", text(said));
        }
    }
}

/// Text on one line, with what Markdown or HTML would take for its own escaped.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
