//! How answers hold as inputs get worse.

use std::collections::BTreeSet;

use super::Report;
use super::chart::{Line, Plot, sample};
use super::html::{escape, estimate_cell, heads, number, table};
use super::task::{class_of, described};
use crate::gain::signed;
use crate::{RobustnessCurve, RobustnessPoint, TaskRobustness, Variant};

/// The section.
pub(super) fn section(report: &Report) -> String {
    let Some(robustness) = &report.robustness else { return String::new() };
    // A task without test labels has nothing to lose.
    let known = |task: &&TaskRobustness| task.curves.iter().any(|curve| curve.points.first().is_some_and(|point| !point.auroc.is_empty()));
    let tasks: Vec<&TaskRobustness> = robustness.tasks.iter().filter(known).collect();
    if tasks.is_empty() {
        return String::new();
    }
    let fold = robustness.fold.map(|fold| format!(" of fold {fold}")).unwrap_or_default();
    let intro = format!(
        "<p>What is left of the AUROC on {} test examples{fold} when inputs are made worse on purpose; training saw nothing of it. Where images \
         or records go missing, it is on those that have both. Relative \
         robustness is the mean height of the curve, effective robustness how much more of its AUROC a model keeps, on average over levels, \
         than late fusion of the two models of one modality (the mean of their log odds). Both as MultiBench has them (Liang et al. 2021). An example is called novel where its embedding is further from those of the training \
         than 99 in 100 of the validation split: a server says so with its answer.</p>",
        number(robustness.n as u64)
    );
    intro + &tasks.into_iter().enumerate().map(|(k, task)| of_task(k, task)).collect::<String>()
}

fn of_task(k: usize, task: &TaskRobustness) -> String {
    let all = task.curves.iter().flat_map(|curve| &curve.points).flat_map(|point| point.auroc.keys().copied());
    let variants: Vec<Variant> = all.collect::<BTreeSet<Variant>>().into_iter().collect();
    let rows: String = task.curves.iter().map(|curve| row(curve, &variants)).collect();
    let mut names = vec!["Worse by".to_owned()];
    names.extend(variants.iter().map(|variant| format!("#{}", named(*variant))));
    names.push("#Relative".to_owned());
    names.push("#Effective".to_owned());
    names.push("#Novel before, at worst".to_owned());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let caption = format!(
        "{}: AUROC at the worst level; relative and effective robustness of the {} model, and how many examples it calls novel",
        task.task,
        leading(&variants)
    );
    let legend: String = variants.iter().map(|variant| format!("<li>{}{}</li>", sample(class_of(*variant)), named(*variant))).collect();
    let figures: String = task.curves.iter().enumerate().map(|(at, curve)| figure(&format!("worse-{k}-{at}"), curve, &variants)).collect();
    format!(
        "<h3>{}</h3>{}<details><summary>Curves</summary><ul class=\"legend\">{legend}</ul><div class=\"figures\">{figures}</div></details>",
        escape(&task.task),
        table(&caption, &heads(&names), &rows)
    )
}

/// Late fusion is here of the two models, and elsewhere of the image model and a baseline.
const fn named(variant: Variant) -> &'static str {
    if matches!(variant, Variant::LateFusion) { "image and record, averaged" } else { variant.as_str() }
}

/// The joint model, or the only one.
fn leading(variants: &[Variant]) -> Variant {
    variants.first().copied().unwrap_or(Variant::Joint)
}

fn row(curve: &RobustnessCurve, variants: &[Variant]) -> String {
    let worst = curve.points.last();
    let cells: String = variants.iter().map(|variant| estimate_cell(worst.and_then(|point| point.auroc.get(variant)))).collect();
    let own = leading(variants);
    let number = |value: Option<String>| format!("<td class=\"n\">{}</td>", value.unwrap_or_else(|| "–".to_owned()));
    format!(
        "<tr><th scope=\"row\">{}<small>{}</small></th>{cells}{}{}{}</tr>",
        curve.what.describe(),
        curve.what.at(worst.map_or(0.0, |point| point.level)),
        number(curve.relative.get(&own).map(|value| format!("{value:.3}"))),
        number(curve.effective.get(&own).map(|value| signed(*value))),
        number(novel(curve.points.first()).zip(novel(worst)).map(|(before, after)| format!("{before}, {after}")))
    )
}

fn novel(point: Option<&RobustnessPoint>) -> Option<String> {
    Some(format!("{:.0} %", 100.0 * point?.novel?))
}

fn figure(id: &str, curve: &RobustnessCurve, variants: &[Variant]) -> String {
    let mut lines: Vec<Line> = variants
        .iter()
        .map(|&variant| {
            let value = |point: &RobustnessPoint| Some((point.level, point.auroc.get(&variant)?.value?));
            let points: Vec<(f64, f64)> = curve.points.iter().filter_map(value).collect();
            Line { class: class_of(variant), label: named(variant).to_owned(), dots: vec![2.5; points.len()], points }
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    lines.reverse();
    let worst = curve.points.last().map_or(1.0, |point| point.level);
    let lowest = lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.5, f64::min);
    Plot {
        id: id.to_owned(),
        title: curve.what.describe().to_owned(),
        description: described("AUROC by how much worse inputs are.", &lines),
        x_label: curve.what.level(),
        y_label: "AUROC",
        x: (0.0, worst),
        y: ((lowest - 0.02).max(0.0), 1.0),
        reference: Some([(0.0, 0.5), (worst, 0.5)]),
        marker: None,
        lines,
        histograms: Vec::new(),
    }
    .figure()
}
