//! What the report says of the run: training, calibration, inputs, the exported file, and how to get it all again.

use super::chart::{Line, Plot, sample};
use super::html::{escape, heads, number, table};
use super::{Curve, Report};
use crate::gain::signed;
use crate::{CalibrationMap, VERDICT};

pub(super) fn training(report: &Report) -> String {
    let figures: String = report.training.iter().enumerate().map(|(k, curve)| losses(k, curve)).collect();
    if figures.is_empty() {
        return String::new();
    }
    let legend = format!("<li>{}training</li><li>{}validation</li>", sample("v-image"), sample("v-joint"));
    format!("<ul class=\"legend\">{legend}</ul><div class=\"figures\">{figures}</div>")
}

fn losses(k: usize, curve: &Curve) -> String {
    let of = |value: fn(&super::Epoch) -> Option<f64>| -> Vec<(f64, f64)> {
        curve.epochs.iter().filter_map(|e| value(e).filter(|v| v.is_finite()).map(|v| (e.epoch as f64, v))).collect()
    };
    let (train, validation) = (of(|e| Some(e.train_loss)), of(|e| e.validation_loss));
    let all = || train.iter().chain(&validation);
    let Some(first) = all().next() else { return String::new() };
    let range = |pick: fn(&(f64, f64)) -> f64| all().map(pick).fold((pick(first), pick(first)), |(a, b), v| (a.min(v), b.max(v)));
    let (x, (low, high)) = (range(|p| p.0), range(|p| p.1));
    let margin = 0.05 * (high - low).max(1e-6);
    let describe = |name: &str, points: &[(f64, f64)]| match (points.first(), points.last()) {
        (Some(first), Some(last)) => format!("{name} loss from {:.3} to {:.3}", first.1, last.1),
        _ => format!("no {name} loss"),
    };
    let dots = |points: &[(f64, f64)]| if points.len() < 40 { vec![2.4; points.len()] } else { Vec::new() };
    let (about_train, about_validation) = (describe("training", &train), describe("validation", &validation));
    Plot {
        id: format!("loss-{k}"),
        title: curve.name.clone(),
        description: format!("Loss by epoch: {about_train}; {about_validation}."),
        x_label: "epoch",
        y_label: "loss",
        x,
        y: ((low - margin).max(0.0), high + margin),
        reference: None,
        marker: curve.best_epoch.map(|epoch| (epoch as f64, format!("kept: epoch {epoch}"))),
        lines: vec![
            Line { class: "v-image", label: about_train, dots: dots(&train), points: train },
            Line { class: "v-joint", label: about_validation, dots: dots(&validation), points: validation },
        ],
        histograms: Vec::new(),
    }
    .figure()
}

pub(super) fn calibration(report: &Report) -> String {
    if report.calibrations.is_empty() {
        return String::new();
    }
    let loss = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"));
    let rows: String = report
        .calibrations
        .iter()
        .map(|row| {
            let t = &row.calibration;
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"wide\">{}</td></tr>",
                escape(&row.task),
                row.variant,
                map_text(&t.map),
                number(t.n as u64),
                loss(t.log_loss_before),
                loss(t.log_loss_after),
                escape(t.note.as_deref().unwrap_or_default())
            )
        })
        .collect();
    let head = heads(&["Task", "Model", "Logits z become", "#Labels", "#Log loss before", "#After", "Note"]);
    table("Calibration, fitted on the validation split and part of the exported model", &head, &rows)
}

fn map_text(map: &CalibrationMap) -> String {
    match map {
        CalibrationMap::Temperature { value } => format!("z / {value:.3}"),
        CalibrationMap::LogitLine { slope, intercept } => format!("{slope:.3} z {}", signed(*intercept)),
        CalibrationMap::Beta { a, b, c } => format!("{a:.3} ln p − {b:.3} ln (1 − p) {}", signed(*c)),
        CalibrationMap::Steps { steps, .. } => format!("a line that rises in {} steps", steps.len()),
    }
}

pub(super) fn features(report: &Report) -> String {
    if report.features.is_empty() {
        return String::new();
    }
    let rows: String = report
        .features
        .iter()
        .map(|feature| {
            let share = (100.0 * feature.coverage).clamp(0.0, 100.0);
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"code\">{}</td><td class=\"n\">{share:.1} %\
                 <svg class=\"share\" viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
                 <path class=\"floor\" d=\"M0 2H100\"/><path d=\"M0 2H{share:.1}\"/></svg></td></tr>",
                escape(&feature.spec.name),
                escape(&feature.spec.unit),
                escape(&feature.spec.code)
            )
        })
        .collect();
    let table = table(
        "Inputs from the record, and the share of training records that have them",
        &heads(&["Feature", "Unit", "Code", "#Coverage"]),
        &rows,
    );
    format!(
        "<details{}><summary>{} features</summary>{table}</details>",
        if report.features.len() <= 12 { " open" } else { "" },
        report.features.len()
    )
}

pub(super) fn export(report: &Report) -> String {
    let Some(check) = &report.onnx else { return String::new() };
    let worst = check.runs.iter().map(|run| run.max_difference).fold(0.0f64, f64::max);
    // A NaN difference is no agreement; the comparison is written so that it fails.
    let passed = !check.runs.is_empty() && check.runs.iter().all(|run| run.max_difference <= check.tolerance);
    let rows: String = check
        .runs
        .iter()
        .map(|run| {
            format!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.1e}</td></tr>",
                escape(&run.modalities),
                run.batch,
                run.max_difference
            )
        })
        .collect();
    format!(
        "<p>ONNX, opset {}, {:.1} MB. ONNX Runtime and the trained model {} to within {:.0e} in {} runs; the largest difference is {worst:.1e}.</p>{}",
        check.opset,
        check.bytes as f64 / 1e6,
        if passed { "agree" } else { "<strong>do not agree</strong>" },
        check.tolerance,
        check.runs.len(),
        table("Exported against trained", &heads(&["Present", "#Batch", "#Largest difference"]), &rows)
    )
}

pub(super) fn intended_use(report: &Report) -> String {
    let mut out = report.intended_use.as_ref().map(|text| format!("<p>{}</p>", escape(text))).unwrap_or_default();
    if !report.limits.is_empty() {
        let items: String = report.limits.iter().map(|limit| format!("<li>{}</li>", escape(limit))).collect();
        out.push_str(&format!("<h3>Limits</h3><ul>{items}</ul>"));
    }
    out
}

pub(super) fn methods(report: &Report) -> String {
    let options = &report.metrics.options;
    let multiclass = report.tasks.iter().any(|task| task.kind != synovia_cohort::TaskKind::Binary);
    let mut items = vec![
        format!(
            "Intervals of measures hold {:.0} % and are bias-corrected and accelerated (BCa, Efron 1987), of {} bootstrap samples of patients{}. A patient's examples are drawn together.",
            options.level * 100.0,
            number(options.n_bootstrap as u64),
            if report.folds.is_empty() { "" } else { " within folds" }
        ),
        "AUROC counts ties by half. AUPRC is average precision, without interpolation; its value without any skill is the prevalence."
            .to_owned(),
        format!(
            "ECE is over {} bins of equal width. Its interval is shifted by the bootstrap's bias, for resampling alone raises it.",
            crate::N_BINS
        ),
        format!(
            "The gain is the paired difference in AUROC with DeLong’s variance clustered by patient (Obuchowski 1997), two-sided; a verdict takes p < {VERDICT}, since two trainings of one model differ as well, of which no test on one set of patients knows.",
        ),
        "Calibrations, thresholds, quantiles of prediction sets and the weights of late fusion are fitted on the validation split; nothing is fitted on the test split.".to_owned(),
        "Prediction sets are split conformal with 1 − probability as the score, by modality pattern, with one quantile and with one a class. Intervals of coverage are Wilson’s by patients.".to_owned(),
        "Subgroups have DeLong’s intervals on the scale of log odds, clustered by patient; a group needs 10 patients of each class. Gaps are against the other groups of the column, corrected by Holm.".to_owned(),
    ];
    if multiclass {
        items.push("Of a multiclass task, AUROC and AUPRC are means over classes, each against the rest; Brier is the sum over classes; ECE is of the likeliest class.".to_owned());
    }
    if !report.metrics.endpoints.is_empty() {
        items.push("Measures of numbers, times and treatments have percentile intervals of at most 500 bootstrap samples of patients; their gain is the paired difference on examples that both models predicted, and its verdict takes an interval at 99 % without 0. Survival is weighed by the train split’s chance of being watched for so long. Values of choices are doubly robust (Robins, Rotnitzky & Zhao 1994; Dudík, Langford & Li 2011), with chances of a treatment taken to be 1 % at least.".to_owned());
    }
    if report.measured().count() + report.metrics.endpoints.len() > 1 {
        items.push("Verdicts of several tasks are not corrected for there being several.".to_owned());
    }
    let items: String = items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect();
    format!("<ul>{items}</ul>")
}

pub(super) fn reproduce(report: &Report) -> String {
    let mut rows = String::new();
    let mut add = |name: &str, value: &str| {
        rows.push_str(&format!("<tr><th scope=\"row\">{}</th><td class=\"code\">{}</td></tr>", escape(name), escape(value)));
    };
    if let Some(seed) = report.seed {
        add("seed", &seed.to_string());
    }
    add("seed of the bootstrap", &report.metrics.options.seed.to_string());
    report.provenance.iter().for_each(|(name, value)| add(name, value));
    let mut out = table("Seeds, versions and hashes", &heads(&["What", "Value"]), &rows);
    if let Some(settings) = &report.settings {
        out.push_str(&format!("<details><summary>Settings</summary><pre tabindex=\"0\">{}</pre></details>", escape(settings)));
    }
    out
}
