//! TRIPOD+AI (Collins et al., BMJ 2024) as far as a run can fill it from facts; what it can't know, it leaves to the authors.

use super::Report;
use super::html::{escape, heads, number, table};
use crate::EndpointMeasure;

/// An item of the checklist, and what is known; `None` is for the authors.
type Item = (&'static str, &'static str, Option<String>);

pub(super) fn section(report: &Report) -> String {
    let rows: String = items(report)
        .into_iter()
        .map(|(item, what, found)| {
            let (class, text) = match found {
                Some(text) => ("wide", escape(&text)),
                None => ("wide todo", "For the authors: nothing in the run says it.".to_owned()),
            };
            format!("<tr><th scope=\"row\">{item}</th><td>{}</td><td class=\"{class}\">{text}</td></tr>", escape(what))
        })
        .collect();
    table("TRIPOD+AI, filled from the run", &heads(&["Item", "What is asked", "What the run says"]), &rows)
}

fn items(report: &Report) -> Vec<Item> {
    let endpoints = || report.metrics.endpoints.iter();
    let tasks: Vec<&str> = report.tasks.iter().map(|t| t.name.as_str()).chain(endpoints().map(|(name, _)| name.as_str())).collect();
    let options = &report.metrics.options;
    let splits = || {
        let all: Vec<String> = report
            .splits
            .iter()
            .map(|s| format!("{}: {} patients, {} examples", s.split.as_str(), number(s.n_patients as u64), number(s.n_examples as u64)))
            .collect();
        (!all.is_empty()).then(|| all.join("; "))
    };
    let steps: Vec<String> = if report.participants.is_empty() {
        report.flow.iter().flat_map(|flow| &flow.steps).map(|s| format!("{} {}", number(s.count), s.name)).collect()
    } else {
        let all = report.participants.iter().chain(&report.sides);
        all.map(|step| format!("{} patients: {}", number(step.patients), step.name)).collect()
    };
    let flow = (!steps.is_empty()).then(|| steps.join("; "));
    let missing = report.splits.first().map(|s| {
        format!(
            "Missing images ({} of {} training examples), records ({}), features and labels are masks; none is filled with 0.",
            s.n_examples - s.n_image,
            s.n_examples,
            s.n_examples - s.n_record
        )
    });
    let groups: std::collections::BTreeSet<&str> =
        report.measured().flat_map(|(_, m)| m.subgroups.iter().map(|g| g.column.as_str())).collect();
    let fairness = (!groups.is_empty())
        .then(|| format!("Measured by {} with intervals, gaps corrected by Holm.", groups.into_iter().collect::<Vec<_>>().join(", ")));
    let verdicts = report.measured().flat_map(|(task, m)| m.gain.iter().map(move |g| format!("{}: {}", task.name, g.sentence)));
    let of_endpoints = endpoints().flat_map(|(name, m)| m.gain.iter().map(move |g| format!("{name}: {}", g.sentence)));
    let verdicts: Vec<String> = verdicts.chain(of_endpoints).collect();
    let sets = report.measured().any(|(_, m)| m.conformal.is_some());
    let mut kinds: Vec<&str> = Vec::new();
    if !report.tasks.is_empty() {
        kinds.push("AUROC, AUPRC, Brier score with its parts, ECE, log loss, calibration slope and intercept, net benefit");
    }
    kinds.extend(endpoints().flat_map(|(_, m)| EndpointMeasure::of(m.kind)).map(|measure| measure.describe()));
    kinds.dedup();
    let measures = format!(
        "{}; {:.0} % intervals, {} bootstrap samples of patients.",
        kinds.join(", "),
        100.0 * options.level,
        number(options.n_bootstrap as u64)
    );
    vec![
        ("1", "Title: a study that develops or evaluates a prediction model", Some(format!("Joint model report: {}", report.name))),
        ("3", "Background: medical context, target population, intended purpose", report.intended_use.clone()),
        ("5", "Data: sources, dates, why they represent the target population", None),
        ("6", "Participants: setting, eligibility, treatments", None),
        (
            "7",
            "Data preparation, alike across groups",
            report.settings.as_ref().map(|_| "As in the settings under “Reproduce”.".to_owned()),
        ),
        (
            "8",
            "Outcome: what is predicted and over which horizon",
            (!tasks.is_empty()).then(|| format!("{}; definitions in the settings.", tasks.join(", "))),
        ),
        (
            "9",
            "Predictors",
            (!report.features.is_empty())
                .then(|| format!("{} features of the record, listed under “Features”, and images where there are.", report.features.len())),
        ),
        ("10", "Sample size and how it was arrived at", splits()),
        ("11", "Missing data", missing),
        (
            "12a",
            "How data were divided",
            (!report.splits.is_empty() || !report.folds.is_empty()).then(|| {
                if report.folds.is_empty() {
                    "By patient, once.".to_owned()
                } else {
                    format!("By patient, in {} folds.", report.folds.len())
                }
            }),
        ),
        ("12e", "Measures of performance", Some(measures)),
        ("12f", "Changes after the evaluation", None),
        ("13", "Class imbalance", Some("Counts of classes stand with each task.".to_owned())),
        ("14", "Fairness", fairness),
        (
            "15",
            "Output and thresholds",
            Some(format!(
                "Calibrated probabilities{}; thresholds are chosen on the validation split.",
                if sets { " and prediction sets" } else { "" }
            )),
        ),
        (
            "16",
            "Differences between development and evaluation data",
            Some("None but by chance: patients of one source, divided at random.".to_owned()),
        ),
        ("17", "Ethical approval", None),
        ("18", "Open science: funding, conflicts, protocol, registration, data, code", None),
        ("19", "Patient and public involvement", None),
        ("20", "Flow of participants", flow),
        ("21", "Numbers in each analysis", splits()),
        (
            "22",
            "Model specification, so that others can use it",
            report
                .onnx
                .as_ref()
                .map(|o| format!("model.onnx, opset {}, {} bytes; its metadata say what goes in.", o.opset, number(o.bytes))),
        ),
        ("23", "Performance with intervals, also of subgroups", (!verdicts.is_empty()).then(|| verdicts.join(" "))),
        ("24", "Updating of the model", None),
        ("25", "Interpretation, also of fairness", None),
        ("26", "Limitations", (!report.limits.is_empty()).then(|| report.limits.join(" "))),
        (
            "27",
            "Use in care: poor or missing input, who may act on it",
            Some("Either modality may be missing; what the model was shown is in each answer.".to_owned()),
        ),
    ]
}
