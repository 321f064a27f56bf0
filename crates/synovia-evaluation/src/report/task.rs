//! What the report says of each task: the verdict, the measures, the curves.

use synovia_cohort::{Split, Task, TaskKind};

use super::Report;
use super::chart::{Histogram, Line, Plot, sample, whisker};
use super::html::{escape, estimate_cell, heads, interval_text, marks, notes, number, percent, table};
use crate::gain::signed;
use crate::{Measure, TaskMetrics, Variant, VariantMetrics, Verdict, precision_recall_curve, reliability, roc_curve};

/// Variants whose curves are drawn: the masked joint model and the forest are in the tables, but would crowd the plots.
pub(super) const DRAWN: [Variant; 5] = [Variant::Joint, Variant::Image, Variant::Record, Variant::LogisticRecord, Variant::LateFusion];

/// Class of a variant in the style sheet.
pub(super) fn class_of(variant: Variant) -> &'static str {
    match variant {
        Variant::Joint => "v-joint",
        Variant::Image => "v-image",
        Variant::Record => "v-record",
        Variant::JointImage => "v-joint-image",
        Variant::JointRecord => "v-joint-record",
        Variant::LogisticImage => "v-logistic-image",
        Variant::LogisticRecord => "v-logistic",
        Variant::ForestRecord => "v-forest",
        Variant::LateFusion => "v-late",
    }
}

/// A card a task: what a reader came for.
pub(super) fn summary(report: &Report) -> String {
    let cards: String = report.measured().enumerate().map(|(k, (task, measured))| card(k, task, measured)).collect();
    let cards = cards + &super::endpoint::cards(report);
    if cards.is_empty() { String::new() } else { format!("<div class=\"cards\">{cards}</div>") }
}

fn card(k: usize, task: &Task, measured: &TaskMetrics) -> String {
    let what = if task.kind == TaskKind::Binary { "AUROC" } else { "AUROC, mean over classes" };
    let said: Vec<&str> = [&measured.gain, &measured.over_baselines].into_iter().flatten().map(|gain| gain.sentence.as_str()).collect();
    let value = |variant: &Variant| measured.variants.get(variant)?.auroc.value;
    card_of(&format!("task-{k}"), &task.name, measured.gain.as_ref().map(|gain| gain.verdict), &value, what, &said)
}

/// A card of the summary: what was found of a task or an endpoint.
///
/// - value: what a model reaches
/// - said: the verdict's sentence first
pub(super) fn card_of(
    id: &str,
    name: &str,
    verdict: Option<Verdict>,
    value: &dyn Fn(&Variant) -> Option<f64>,
    what: &str,
    said: &[&str],
) -> String {
    let class = match verdict {
        Some(Verdict::Better) => "better",
        Some(Verdict::Worse) => "worse",
        Some(Verdict::NoEvidence) | None => "none",
    };
    let nothing = ["There is no joint model beside a single one to compare."];
    let said = if verdict.is_some() { said } else { &nothing };
    let figures: String = [Variant::Joint, Variant::Image, Variant::Record]
        .into_iter()
        .filter_map(|variant| value(&variant).map(|value| (variant, value)))
        .map(|(variant, value)| format!("<div>{}<dt>{variant}</dt><dd>{value:.3}</dd></div>", sample(class_of(variant))))
        .collect();
    format!(
        "<article class=\"card {class}\"><h2><a href=\"#{id}\">{}</a></h2><p class=\"verdict\">{}</p><dl>{figures}</dl>\
         <p class=\"what\">{}</p>{}</article>",
        escape(name),
        escape(&verdict.map_or_else(|| "no comparison".to_owned(), |verdict| verdict.to_string())),
        escape(what),
        said.iter().map(|sentence| format!("<p>{}</p>", escape(sentence))).collect::<String>()
    )
}

/// The section of one task.
pub(super) fn section(report: &Report, k: usize, task: &Task, measured: &TaskMetrics) -> String {
    let classes: Vec<String> =
        measured.classes.iter().map(|c| format!("{} {} ({})", number(c.n as u64), escape(&c.class), percent(c.n, measured.n))).collect();
    let mut out = format!(
        "<p>{} labelled test examples of {} patients: {}.{}</p>",
        number(measured.n as u64),
        number(measured.n_patients as u64),
        classes.join(", "),
        if measured.n_unlabelled > 0 {
            format!(" {} more have no known label and are left out.", number(measured.n_unlabelled as u64))
        } else {
            String::new()
        }
    );
    out.push_str(&measures(report, task, measured));
    if let Some(gain) = &measured.gain {
        out.push_str(&format!("<p class=\"sentence\">{}</p>", escape(&gain.sentence)));
        let mut more = gain.notes.clone();
        if let Some((low, high)) = gain.bootstrap {
            more.insert(0, format!("bootstrap of patients, as a check: {} to {}", signed(low), signed(high)));
        }
        let how = if gain.chosen_on == Split::Validation { "chosen on the validation split" } else { "chosen on the test split" };
        more.insert(0, format!("{} against {}, {how}; {} examples", Variant::Joint, gain.over, gain.n));
        out.push_str(&notes(&more));
    }
    if let Some(gain) = &measured.over_baselines {
        out.push_str(&format!("<p class=\"sentence\">{}</p>", escape(&gain.sentence)));
        out.push_str(&notes(&gain.notes));
    }
    out.push_str(&notes(&measured.notes));
    out.push_str(&curves(report, k, task, measured));
    out.push_str(&super::more::sections(report, k, task, measured));
    out
}

fn measures(report: &Report, task: &Task, measured: &TaskMetrics) -> String {
    let multiclass = measured.kind != TaskKind::Binary;
    let mut names = vec!["Model", "#AUROC", "Drawn", "#AUPRC", "#Brier", "#ECE", "#Log loss"];
    if multiclass {
        names.push("#Accuracy");
    }
    let lowest = measured.variants.values().filter_map(|m| m.auroc.low.or(m.auroc.value)).fold(0.5f64, f64::min);
    let scale = ((lowest * 10.0).floor() / 10.0, 1.0);
    let rows: String = measured.variants.iter().map(|(&variant, m)| measure_row(variant, m, scale, multiclass)).collect();
    let caption = format!("Test measures with {:.0} % intervals; whiskers from {:.1} to 1", report.metrics.options.level * 100.0, scale.0);
    let shown = measured
        .variants
        .values()
        .flat_map(|m| [Some(&m.auroc), Some(&m.auprc), Some(&m.brier), Some(&m.ece), Some(&m.log_loss), m.accuracy.as_ref()]);
    let foot = marks(shown.flatten());
    table(&format!("{caption}: {}", task.name), &heads(&names), &rows) + &foot
}

fn measure_row(variant: Variant, m: &VariantMetrics, scale: (f64, f64), multiclass: bool) -> String {
    let plot = m.auroc.value.map(|value| whisker(class_of(variant), value, m.auroc.low.zip(m.auroc.high), scale)).unwrap_or_default();
    let accuracy = if multiclass { estimate_cell(m.get(Measure::Accuracy)) } else { String::new() };
    let strong = if variant == Variant::Joint { " class=\"strong\"" } else { "" };
    format!(
        "<tr{strong}><th scope=\"row\">{variant}<small>{}</small></th>{}<td>{plot}</td>{}{}{}{}{accuracy}</tr>",
        variant.describe(),
        estimate_cell(Some(&m.auroc)),
        estimate_cell(Some(&m.auprc)),
        estimate_cell(Some(&m.brier)),
        estimate_cell(Some(&m.ece)),
        estimate_cell(Some(&m.log_loss)),
    )
}

/// One variant's predictions of one class, or of the top label.
struct Scored {
    variant: Variant,
    scores: Vec<f32>,
    labels: Vec<bool>,
}

fn scored(report: &Report, task: &Task, class: usize) -> Vec<Scored> {
    DRAWN
        .into_iter()
        .map(|variant| {
            let wanted = report
                .predictions
                .iter()
                .filter(|p| p.split == Split::Test && p.variant == variant && *p.task == *task.name && *p.class == *task.classes[class]);
            let positive = if task.kind == TaskKind::Binary { 1.0 } else { class as f32 };
            let (scores, labels) = wanted.filter_map(|p| p.label.map(|label| (p.probability, label == positive))).unzip();
            Scored { variant, scores, labels }
        })
        .filter(|s| !s.scores.is_empty())
        .collect()
}

/// The likeliest class of each example of a multiclass task, as a prediction of being right.
fn top_labels(report: &Report, task: &Task) -> Vec<Scored> {
    DRAWN
        .into_iter()
        .map(|variant| {
            let mut top: std::collections::BTreeMap<&synovia_cohort::ExampleId, (f32, bool)> = std::collections::BTreeMap::new();
            for p in report.predictions.iter().filter(|p| p.split == Split::Test && p.variant == variant && *p.task == *task.name) {
                let (Some(label), Some(class)) = (p.label, task.classes.iter().position(|c| **c == *p.class)) else { continue };
                let entry = top.entry(&p.example).or_insert((-1.0, false));
                if p.probability > entry.0 {
                    *entry = (p.probability, class as f32 == label);
                }
            }
            let (scores, labels) = top.into_values().unzip();
            Scored { variant, scores, labels }
        })
        .filter(|s| !s.scores.is_empty())
        .collect()
}

fn curves(report: &Report, k: usize, task: &Task, measured: &TaskMetrics) -> String {
    let (mut figures, mut precision) = (String::new(), String::new());
    let n_classes = task.n_outputs();
    let mut drawn: Vec<Variant> = Vec::new();
    for class in 0..n_classes {
        let scored = scored(report, task, class);
        drawn.extend(scored.iter().map(|s| s.variant));
        let of = if n_classes > 1 { format!(": {}", task.classes[class]) } else { String::new() };
        figures.push_str(&roc(&format!("roc-{k}-{class}"), &of, &scored));
        precision.push_str(&precision_recall(&format!("pr-{k}-{class}"), &of, &scored));
    }
    figures.push_str(&precision);
    let events = if task.kind == TaskKind::Binary { scored(report, task, 0) } else { top_labels(report, task) };
    figures.push_str(&calibration(&format!("cal-{k}"), task, &events));
    if drawn.is_empty() {
        return String::new();
    }
    drawn.sort_unstable();
    drawn.dedup();
    let legend: String = drawn.iter().map(|&v| format!("<li>{}{} <small>{}</small></li>", sample(class_of(v)), v, v.describe())).collect();
    let rest = if n_classes > 1 { "<p class=\"what\">Curves are of each class against the rest.</p>" } else { "" };
    let folds = if measured.n_folds > 1 {
        "<p class=\"what\">Curves rank the predictions of all folds together; the AUROC in the table is the mean over folds.</p>"
    } else {
        ""
    };
    format!("<ul class=\"legend\">{legend}</ul><div class=\"figures\">{figures}</div>{rest}{folds}")
}

fn roc(id: &str, of: &str, all: &[Scored]) -> String {
    let lines: Vec<Line> = all
        .iter()
        .map(|s| {
            let area = crate::auroc(&s.scores, &s.labels);
            let points = roc_curve(&s.scores, &s.labels).iter().map(|p| (p.false_positive_rate, p.true_positive_rate)).collect();
            Line { class: class_of(s.variant), label: format!("{}: {}", s.variant, worded(area, "AUROC")), points, dots: Vec::new() }
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    Plot {
        id: id.to_owned(),
        title: format!("ROC{of}"),
        description: described("Sensitivity against 1 − specificity.", &lines),
        x_label: "1 − specificity",
        y_label: "sensitivity",
        x: (0.0, 1.0),
        y: (0.0, 1.0),
        reference: Some([(0.0, 0.0), (1.0, 1.0)]),
        marker: None,
        lines: in_front(lines),
        histograms: Vec::new(),
    }
    .figure()
}

fn precision_recall(id: &str, of: &str, all: &[Scored]) -> String {
    let lines: Vec<Line> = all
        .iter()
        .map(|s| {
            let area = crate::average_precision(&s.scores, &s.labels);
            let mut points = Vec::new();
            let mut recall = 0.0;
            // Steps, as average precision has them: a threshold's precision holds back to the recall of the one before.
            for p in precision_recall_curve(&s.scores, &s.labels).iter().filter(|p| p.recall > 0.0) {
                points.extend([(recall, p.precision), (p.recall, p.precision)]);
                recall = p.recall;
            }
            Line { class: class_of(s.variant), label: format!("{}: {}", s.variant, worded(area, "AUPRC")), points, dots: Vec::new() }
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    let Some(first) = all.first().filter(|_| !lines.is_empty()) else { return String::new() };
    let prevalence = first.labels.iter().filter(|&&y| y).count() as f64 / first.labels.len() as f64;
    Plot {
        id: id.to_owned(),
        title: format!("Precision and recall{of}"),
        description: described(&format!("Precision against recall; prevalence {prevalence:.3}."), &lines),
        x_label: "recall (sensitivity)",
        y_label: "precision",
        x: (0.0, 1.0),
        y: (0.0, 1.0),
        reference: Some([(0.0, prevalence), (1.0, prevalence)]),
        marker: None,
        lines: in_front(lines),
        histograms: Vec::new(),
    }
    .figure()
}

fn calibration(id: &str, task: &Task, all: &[Scored]) -> String {
    let mut lines = Vec::new();
    let mut histograms = Vec::new();
    for s in all {
        let bins = reliability(&s.scores, &s.labels);
        let ece = crate::expected_calibration_error(&s.scores, &s.labels);
        let label = format!("{}: {}", s.variant, worded(ece, "ECE"));
        let most = bins.iter().map(|b| b.n).max().unwrap_or(1) as f64;
        lines.push(Line {
            class: class_of(s.variant),
            label,
            points: bins.iter().map(|b| (b.predicted, b.observed)).collect(),
            // A dot's area grows with its examples, so that a bin of two does not shout.
            dots: bins.iter().map(|b| (4.0 * (b.n as f64 / most).sqrt()).max(1.2)).collect(),
        });
        let width = 1.0 / crate::N_BINS as f64;
        let centre = |p: f64| (crate::calibration::bin(p) as f64 + 0.5) * width;
        histograms.push(Histogram {
            class: class_of(s.variant),
            label: s.variant.to_string(),
            bins: bins.iter().map(|b| (centre(b.predicted), b.n)).collect(),
        });
    }
    if lines.is_empty() {
        return String::new();
    }
    let (x_label, y_label) = match task.kind {
        TaskKind::Binary => ("predicted probability", "observed share"),
        TaskKind::Multiclass | TaskKind::Ordinal => ("probability of the likeliest class", "share that is right"),
    };
    Plot {
        id: id.to_owned(),
        title: "Calibration, with examples per bin".to_owned(),
        description: described("Observed share against predicted probability, with the number of examples of each bin below.", &lines),
        x_label,
        y_label,
        x: (0.0, 1.0),
        y: (0.0, 1.0),
        reference: Some([(0.0, 0.0), (1.0, 1.0)]),
        marker: None,
        lines: in_front(lines),
        histograms,
    }
    .figure()
}

/// SVG paints in order: the joint model comes last, on top.
fn in_front(mut lines: Vec<Line>) -> Vec<Line> {
    lines.reverse();
    lines
}

fn worded(value: Option<f64>, name: &str) -> String {
    value.map_or_else(|| format!("{name} not defined"), |v| format!("{name} {v:.3}"))
}

pub(super) fn described(what: &str, lines: &[Line]) -> String {
    let labels: Vec<&str> = lines.iter().map(|line| line.label.as_str()).collect();
    format!("{what} {}.", labels.join("; "))
}

/// AUROC of each fold.
pub(super) fn folds(report: &Report) -> String {
    if report.folds.is_empty() {
        return String::new();
    }
    report
        .measured()
        .map(|(task, pooled)| {
            let variants: Vec<Variant> = pooled.variants.keys().copied().collect();
            let mut names = vec!["Fold".to_owned(), "#Examples".to_owned()];
            names.extend(variants.iter().map(|v| format!("#{v}")));
            names.push("#joint − single".to_owned());
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let row = |name: &str, m: &TaskMetrics| {
                let cells: String = variants.iter().map(|v| estimate_cell(m.variants.get(v).map(|m| &m.auroc))).collect();
                let gain = m.gain.as_ref().and_then(|g| g.difference.map(|d| format!("{}<small>over {}</small>", signed(d), g.over)));
                let gain = gain.unwrap_or_else(|| "–".to_owned());
                format!(
                    "<tr><th scope=\"row\">{name}</th><td class=\"n\">{}</td>{cells}<td class=\"n\">{gain}</td></tr>",
                    number(m.n as u64)
                )
            };
            let mut rows: String = report
                .folds
                .iter()
                .enumerate()
                .filter_map(|(fold, metrics)| metrics.tasks.get(&task.name).map(|m| row(&(fold + 1).to_string(), m)))
                .collect();
            rows.push_str(&row("mean", pooled).replacen("<tr>", "<tr class=\"strong\">", 1));
            table(&format!("{}: AUROC by fold", task.name), &heads(&names), &rows)
        })
        .collect()
}

/// A variant's estimate in words, for the model card.
pub(super) fn in_words(m: &VariantMetrics, measure: Measure) -> String {
    m.get(measure).map_or_else(|| "–".to_owned(), interval_text)
}
