//! What the report says of each task beyond its measures: comparisons, decisions, prediction sets, subgroups.

use synovia_cohort::{Task, TaskKind};

use super::Report;
use super::chart::{Line, Plot, sample};
use super::html::{escape, estimate_cell, heads, marks, notes, number, table};
use super::task::{DRAWN, class_of, described};
use crate::gain::{p_text, signed};
use crate::{Comparison, Estimate, Measure, Rate, TaskMetrics, Variant, Verdict};

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "<td class=\"n\">–</td>".to_owned(), |v| format!("<td class=\"n\">{v:.3}</td>"))
}

/// A difference as a cell, with its sign.
fn signed_cell(estimate: &Estimate) -> String {
    match (estimate.value, estimate.low, estimate.high) {
        (Some(v), Some(a), Some(b)) => format!("<td class=\"n\">{}<small>{} to {}</small></td>", signed(v), signed(a), signed(b)),
        (Some(v), ..) => format!("<td class=\"n\">{}</td>", signed(v)),
        _ => "<td class=\"n\">–</td>".to_owned(),
    }
}

fn p_cell(p: Option<f64>) -> String {
    p.map_or_else(|| "<td class=\"n\">–</td>".to_owned(), |p| format!("<td class=\"n\">{}</td>", escape(&p_text(p))))
}

/// All of it, in the order in which a reader asks.
pub(super) fn sections(report: &Report, k: usize, task: &Task, measured: &TaskMetrics) -> String {
    let mut out = String::new();
    out.push_str(&comparisons(task, measured));
    out.push_str(&branches(task, measured));
    out.push_str(&probabilities(task, measured));
    out.push_str(&operating(task, measured));
    out.push_str(&decision(k, task, measured));
    out.push_str(&sets(task, measured));
    out.push_str(&subgroups(report, task, measured));
    out
}

fn comparisons(task: &Task, measured: &TaskMetrics) -> String {
    if measured.comparisons.is_empty() {
        return String::new();
    }
    let rows: String = measured.comparisons.iter().map(|c| comparison(c, c.against, &c.verdict.to_string())).collect();
    let foot = "Here verdicts are by p corrected by Holm for all comparisons of this table, so that one can fall where the headline, a single comparison that was chosen beforehand, does not; intervals are not corrected. Under McNemar’s p: examples that only the joint model, and only the other, has right.";
    format!(
        "<h3>The joint model against each other</h3>{}<p class=\"what\">{foot}</p>",
        table(&format!("{}: paired differences, joint − other", task.name), &comparison_heads("Joint against"), &rows)
    )
}

fn branches(task: &Task, measured: &TaskMetrics) -> String {
    if measured.branches.is_empty() {
        return String::new();
    }
    let said = |verdict: Verdict| match verdict {
        Verdict::Better => "better than the model trained alone",
        Verdict::Worse => "worse than the model trained alone",
        Verdict::NoEvidence => "no evidence of either",
    };
    let rows: String = measured.branches.iter().map(|c| comparison(c, c.of, said(c.verdict))).collect();
    format!(
        "<h3>Whether modalities learnt from each other</h3><p class=\"what\">The joint model shown one modality alone, against the model that was trained on that modality alone.</p>{}",
        table(&format!("{}: paired differences, trained together − trained alone", task.name), &comparison_heads("Shown"), &rows)
    )
}

fn comparison_heads(first: &str) -> String {
    heads(&[first, "#Examples", "#AUROC difference", "#p", "#p, Holm", "Verdict after Holm", "#Brier difference", "#McNemar p (exact)"])
}

fn comparison(c: &Comparison, named: Variant, verdict: &str) -> String {
    let mcnemar = c.mcnemar.map_or_else(
        || "<td class=\"n\">–</td>".to_owned(),
        |m| format!("<td class=\"n\">{}<small>{} : {}</small></td>", escape(&p_text(m.p_exact)), m.only_first, m.only_second),
    );
    format!(
        "<tr><th scope=\"row\">{named}<small>{}</small></th><td class=\"n\">{}</td>{}{}{}<td>{verdict}</td>{}{mcnemar}</tr>",
        named.describe(),
        number(c.n as u64),
        signed_cell(&c.auroc),
        p_cell(c.p),
        p_cell(c.p_holm),
        signed_cell(&c.brier),
    )
}

fn probabilities(task: &Task, measured: &TaskMetrics) -> String {
    let multiclass = measured.kind != TaskKind::Binary;
    let mut names = vec![
        "Model",
        "#Calibration slope",
        "#Calibration intercept",
        "#ECE, equal mass",
        "#Reliability",
        "#Resolution",
        "#Uncertainty",
        "#Partial AUROC",
    ];
    if multiclass {
        names.extend(["#Balanced accuracy", "#Macro F1", "#Matthews", "#κ"]);
    }
    let ordinal = measured.kind == TaskKind::Ordinal;
    if ordinal {
        names.push("#Quadratic κ");
    }
    let rows: String = measured
        .variants
        .iter()
        .map(|(variant, m)| {
            let interval =
                |value: f64, (low, high): (f64, f64)| Estimate { value: Some(value), low: Some(low), high: Some(high), note: None };
            let line = m.calibration.map(|c| (interval(c.slope, c.slope_interval), interval(c.intercept, c.intercept_interval)));
            let (slope, intercept) = line.as_ref().map_or((None, None), |(a, b)| (Some(a), Some(b)));
            let mut row = format!("<tr><th scope=\"row\">{variant}</th>{}", estimate_cell(slope));
            row.push_str(&intercept.map_or_else(|| "<td class=\"n\">–</td>".to_owned(), signed_cell));
            row.push_str(&estimate_cell(m.get(Measure::EceEqualMass)));
            let parts = m.brier_parts;
            row.push_str(&[parts.map(|p| p.reliability), parts.map(|p| p.resolution), parts.map(|p| p.uncertainty)].map(shown).concat());
            row.push_str(&estimate_cell(m.get(Measure::PartialAuroc)));
            if multiclass {
                for measure in [Measure::BalancedAccuracy, Measure::MacroF1, Measure::Matthews, Measure::Kappa] {
                    row.push_str(&estimate_cell(m.get(measure)));
                }
            }
            if ordinal {
                row.push_str(&estimate_cell(m.get(Measure::QuadraticKappa)));
            }
            row.push_str("</tr>");
            row
        })
        .collect();
    let of = if multiclass { " of the likeliest class" } else { "" };
    let parts = if multiclass {
        "Reliability, resolution and uncertainty are of the likeliest class being right, and so are no parts of the Brier score above."
    } else {
        "Brier = reliability − resolution + uncertainty, and what is left within bins."
    };
    let mut out = format!(
        "<h3>Probabilities</h3>{}<p class=\"what\">A slope of 1 and an intercept of 0 are right{of}; a slope under 1 says that predictions are too extreme, an intercept under 0 that risks are overstated. {parts} Partial AUROC is up to a false positive rate of {:.1}, where 0.5 is no skill.</p>",
        table(&format!("{}: calibration and its parts", task.name), &heads(&names), &rows),
        crate::MAX_RATE
    );
    out.push_str(&marks(measured.variants.values().flat_map(|m| m.more.values())));
    for (variant, m) in &measured.variants {
        if let (Some(averages), Variant::Joint) = (&m.averages, variant) {
            let value = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
            out.push_str(&format!(
                "<p>AUROC of the joint model by other averages: one against the rest, weighted {}; one against one, macro {}, weighted {}.{}</p>",
                value(averages.one_against_rest_weighted),
                value(averages.one_against_one_macro),
                value(averages.one_against_one_weighted),
                if ordinal { String::new() } else { format!(" Quadratic κ {}.", value(averages.quadratic_kappa)) }
            ));
            let k = averages.confusion.n_classes;
            let rows: String = (0..k)
                .map(|t| {
                    let cells: String =
                        averages.confusion.counts[t * k..(t + 1) * k].iter().map(|n| format!("<td class=\"n\">{n:.0}</td>")).collect();
                    format!("<tr><th scope=\"row\">{}</th>{cells}</tr>", escape(&task.classes[t]))
                })
                .collect();
            let names: Vec<String> =
                std::iter::once("True class".to_owned()).chain(task.classes.iter().map(|c| format!("#called {c}"))).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            out.push_str(&table(
                &format!("{}: test examples of the joint model by true and likeliest class", task.name),
                &heads(&names),
                &rows,
            ));
        }
    }
    out
}

fn operating(task: &Task, measured: &TaskMetrics) -> String {
    let mut rows = String::new();
    for (variant, m) in &measured.variants {
        for point in &m.operating {
            let thresholds: Vec<String> = point.thresholds.iter().map(|t| format!("{t:.3}")).collect();
            let c = point.confusion;
            rows.push_str(&format!(
                "<tr><th scope=\"row\">{variant}<small>{}</small></th><td class=\"n\">{}</td>",
                escape(&point.rule.describe()),
                thresholds.join(", ")
            ));
            for rate in Rate::ALL {
                rows.push_str(&estimate_cell(point.rates.get(&rate)));
            }
            rows.push_str(&format!(
                "<td class=\"n\">{:.0} / {:.0}</td><td class=\"n\">{:.0} / {:.0}</td></tr>",
                c.true_positive, c.false_positive, c.false_negative, c.true_negative
            ));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut names = vec!["Model and rule".to_owned(), "#Threshold".to_owned()];
    names.extend(Rate::ALL.iter().map(|rate| format!("#{}", rate.describe())));
    names.extend(["#alerts: right / false".to_owned(), "#no alert: missed / right".to_owned()]);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!(
        "<h3>Decisions</h3>{}{}<p class=\"what\">Thresholds are chosen on the validation split; what they bring is measured on the test split.</p>",
        table(&format!("{}: decisions at thresholds chosen on validation", task.name), &heads(&names), &rows),
        marks(measured.variants.values().flat_map(|m| &m.operating).flat_map(|point| point.rates.values()))
    )
}

/// Misses that a false alarm is worth, of the table of costs.
const COSTS: [f64; 3] = [5.0, 10.0, 20.0];

fn decision(k: usize, task: &Task, measured: &TaskMetrics) -> String {
    let Some(joint) = DRAWN.iter().find_map(|v| measured.decision.get(v).map(|curve| (v, curve))) else { return String::new() };
    let (main, curve) = joint;
    let top = curve.points.iter().flat_map(|p| [p.net_benefit, p.of_all, p.high.unwrap_or(0.0)]).fold(0.01, f64::max);
    let floor = -0.25 * top;
    let mut lines: Vec<Line> = DRAWN
        .iter()
        .filter_map(|v| measured.decision.get(v).map(|c| (v, c)))
        .map(|(v, c)| Line {
            class: class_of(*v),
            label: v.to_string(),
            points: c.points.iter().map(|p| (p.threshold, p.net_benefit)).collect(),
            dots: Vec::new(),
        })
        .collect();
    for (label, pick) in [("lower end", 0), ("upper end", 1)] {
        let ends = curve.points.iter().filter_map(|p| Some((p.threshold, if pick == 0 { p.low? } else { p.high? })));
        lines.push(Line { class: "v-band", label: format!("{main}, {label} of the interval"), points: ends.collect(), dots: Vec::new() });
    }
    lines.push(Line {
        class: "v-all",
        label: "acting on everybody".to_owned(),
        points: curve.points.iter().map(|p| (p.threshold, p.of_all)).collect(),
        dots: Vec::new(),
    });
    lines.retain(|line| !line.points.is_empty());
    let legend: String = lines
        .iter()
        .filter(|line| line.class != "v-band" || line.label.ends_with("upper end of the interval"))
        .map(|line| {
            let name = if line.class == "v-band" { format!("{main}, ends of the interval") } else { line.label.clone() };
            format!("<li>{}{name}</li>", sample(line.class))
        })
        .collect();
    lines.reverse();
    let figure = Plot {
        id: format!("net-{k}"),
        title: "Net benefit".to_owned(),
        description: described("Net benefit by threshold probability; of acting on nobody it is 0.", &lines),
        x_label: "threshold probability",
        y_label: "net benefit",
        x: (0.0, 1.0),
        y: (floor, top * 1.05),
        reference: Some([(0.0, 0.0), (1.0, 0.0)]),
        marker: None,
        lines,
        histograms: Vec::new(),
    }
    .figure();
    let rows: String = curve
        .points
        .iter()
        .filter(|p| ((p.threshold * 100.0).round() as usize).is_multiple_of(10) || p.threshold < 0.11)
        .map(|p| {
            let c = p.confusion;
            let benefit = Estimate { value: Some(p.net_benefit), low: p.low, high: p.high, note: None };
            format!(
                "<tr><th scope=\"row\">{:.2}</th>{}<td class=\"n\">{}</td>{}{}{}{}{}</tr>",
                p.threshold,
                signed_cell(&benefit),
                signed(p.of_all),
                shown(c.alert_rate()),
                shown(c.number_needed_to_evaluate()),
                shown(c.sensitivity()),
                shown(c.specificity()),
                COSTS.map(|miss| shown(c.cost(miss))).concat()
            )
        })
        .collect();
    let mut names: Vec<String> =
        ["Threshold", "#Net benefit", "#Of acting on all", "#Alert rate", "#Number needed to evaluate", "#Sensitivity", "#Specificity"]
            .map(String::from)
            .to_vec();
    names.extend(COSTS.iter().map(|miss| format!("#Cost, a miss {miss:.0}")));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!(
        "<h3>Use at each threshold</h3><ul class=\"legend\">{legend}</ul><div class=\"figures\">{figure}</div>{}<p class=\"what\">Costs are per example: a false alarm costs 1, a miss what the head says. A model is of use where its net benefit is above both that of acting on everybody and 0.</p>",
        table(&format!("{}: the {main} model by threshold", task.name), &heads(&names), &rows)
    )
}

fn sets(task: &Task, measured: &TaskMetrics) -> String {
    let Some(conformal) = &measured.conformal else {
        return "<h3>Prediction sets</h3><p>None: there is no labelled validation example to fit them on.</p>".to_owned();
    };
    let wanted = conformal.sets.first().map_or(crate::COVERAGE, |s| s.coverage);
    let interval =
        |value: Option<f64>, low: Option<f64>, high: Option<f64>| estimate_cell(Some(&Estimate { value, low, high, note: None }));
    let rows: String = conformal
        .test
        .iter()
        .map(|row| {
            let classes: String = row.by_class.iter().map(|class| interval(class.covered, class.low, class.high)).collect();
            format!(
                "<tr><th scope=\"row\">{}<small>{}; {}</small></th><td class=\"n\">{}</td>{}{classes}{}{}{}</tr>",
                row.pattern.as_str(),
                if row.class_conditional { "a quantile a class" } else { "one quantile" },
                if row.natural { "as patients came" } else { "the rest hidden" },
                number(row.n as u64),
                interval(row.covered, row.low, row.high),
                shown(row.mean_size),
                shown(row.single),
                shown(row.empty)
            )
        })
        .collect();
    let mut names = vec!["Shown to the model".to_owned(), "#Examples".to_owned(), "#Covered".to_owned()];
    names.extend(crate::label_names(task).iter().map(|name| format!("#Covered: {name}")));
    names.extend(["#Mean size", "#One class", "#No class"].map(String::from));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fitted = || conformal.sets.iter().flat_map(|s| &s.patterns).filter(|q| q.n > 0);
    let few = fitted().filter(|q| q.quantile.is_none()).count();
    let few_of_a_class = fitted().filter(|q| q.by_class.iter().any(Option::is_none)).count();
    let of = if conformal.sets.len() > 1 { "of folds and patterns" } else { "of the patterns" };
    let mut more = vec!["Quantiles are of the validation split, by what the model is shown; where a modality is missing they are of examples with it hidden, and hold as far as patients who lack it are like those who do not.".to_owned()];
    if few > 0 {
        more.push(format!("{few} {of} have too few validation examples: every class is in their sets"));
    }
    if few_of_a_class > 0 {
        more.push(format!(
            "{few_of_a_class} {of} have too few validation examples of a class for a quantile of its own: with a quantile a class, it is in every set"
        ));
    }
    format!(
        "<h3>Prediction sets</h3><p>Sets are to hold the true class of {:.0} % of examples on average, for each kind of modalities that are there; not of each single kind of patient.</p>{}{}",
        100.0 * wanted,
        table(&format!("{}: how often prediction sets held the truth on the test split", task.name), &heads(&names), &rows),
        notes(&more)
    )
}

fn subgroups(report: &Report, task: &Task, measured: &TaskMetrics) -> String {
    if measured.subgroups.is_empty() {
        return String::new();
    }
    let rows: String = measured
        .subgroups
        .iter()
        .map(|g| {
            let small = g.too_small.as_ref().map(|why| format!("<small>{}</small>", escape(why))).unwrap_or_default();
            format!(
                "<tr><th scope=\"row\">{}: {}{small}</th><td class=\"n\">{}<small>{} patients</small></td>{}{}{}{}{}</tr>",
                escape(&g.column),
                escape(&g.group),
                number(g.n as u64),
                number(g.n_patients as u64),
                estimate_cell(Some(&g.auroc)),
                signed_cell(&g.calibration),
                estimate_cell(Some(&g.coverage)),
                signed_cell(&g.gap),
                p_cell(g.p_holm),
            )
        })
        .collect();
    let head = heads(&[
        "Group",
        "#Examples",
        "#AUROC",
        "#Predicted − observed",
        "#Sets that hold the truth",
        "#AUROC gap to the others",
        "#p, Holm",
    ]);
    let found = |g: &&crate::Subgroup| g.p_holm.is_some_and(|p| p < 1.0 - report.metrics.options.level);
    // The two groups of a column have one gap between them.
    let twice = |g: &&crate::Subgroup| measured.subgroups.iter().filter(|other| other.column == g.column).count() == 2;
    let all = measured.subgroups.iter().filter(found);
    let wide = all.clone().filter(|g| !twice(g)).count() + all.filter(twice).count() / 2;
    let small = measured.subgroups.iter().filter(|g| g.too_small.is_some()).count();
    let found = match wide {
        0 if measured.subgroups.iter().all(|g| g.p_holm.is_none()) => "No gap in AUROC could be tested.".to_owned(),
        0 => "No gap in AUROC is larger than chance would make it; with few patients that is no evidence that there is none.".to_owned(),
        1 => "One gap in AUROC is larger than chance would make it.".to_owned(),
        n => format!("{n} gaps in AUROC are larger than chance would make them."),
    };
    let small = if small == 0 { String::new() } else { format!(" {small} groups are too small to tell.") };
    format!(
        "<h3>Subgroups</h3><p>{found}{small}</p>{}{}",
        table(&format!("{}: parts of the test split", task.name), &head, &rows),
        marks(measured.subgroups.iter().flat_map(|g| [&g.auroc, &g.coverage]))
    )
}
