//! How answers hold as inputs get worse.

use super::Report;
use super::chart::{Line, Plot, sample};
use super::html::{escape, estimate_cell, heads, number, table};
use super::task::{class_of, described};
use crate::gain::signed;
use crate::{RobustnessCurve, RobustnessPoint, TaskRobustness, Variant};

/// The section.
pub(super) fn section(report: &Report) -> String {
    let Some(robustness) = &report.robustness else { return String::new() };
    if robustness.tasks.iter().all(|task| task.curves.is_empty()) {
        return String::new();
    }
    let fold = robustness.fold.map(|fold| format!(" of fold {fold}")).unwrap_or_default();
    let intro = format!(
        "<p>What is left of the AUROC on {} test examples{fold} when inputs are made worse on purpose; training saw nothing of it. Relative \
         robustness is the mean height of the curve, effective robustness how much more of its AUROC a model keeps, on average over levels, \
         than late fusion of the two models of one modality (the mean of their log odds). Both as MultiBench has them (Liang et al. 2021). An example is called novel where its embedding is further from those of the training \
         than 99 in 100 of the validation split: a server says so with its answer.</p>",
        number(robustness.n as u64)
    );
    intro + &robustness.tasks.iter().enumerate().map(|(k, task)| of_task(k, task)).collect::<String>()
}

fn of_task(k: usize, task: &TaskRobustness) -> String {
    let Some(first) = task.curves.first().and_then(|curve| curve.points.first()) else { return String::new() };
    let variants: Vec<Variant> = first.auroc.keys().copied().collect();
    let rows: String = task.curves.iter().map(|curve| row(curve, &variants)).collect();
    let mut names = vec!["Worse by".to_owned()];
    names.extend(variants.iter().map(|variant| format!("#{variant}, at worst")));
    names.push("#Relative robustness".to_owned());
    names.push("#Effective robustness".to_owned());
    names.push("#Called novel, before and at worst".to_owned());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let caption = format!("{}: AUROC at the worst level, and robustness of the {} model", task.task, leading(&variants));
    let legend: String = variants.iter().map(|variant| format!("<li>{}{variant}</li>", sample(class_of(*variant)))).collect();
    let figures: String = task.curves.iter().enumerate().map(|(at, curve)| figure(&format!("worse-{k}-{at}"), curve, &variants)).collect();
    format!(
        "<h3>{}</h3>{}<details><summary>Curves</summary><ul class=\"legend\">{legend}</ul><div class=\"figures\">{figures}</div></details>",
        escape(&task.task),
        table(&caption, &heads(&names), &rows)
    )
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
        "<tr><th scope=\"row\">{}<small>{} {}</small></th>{cells}{}{}{}</tr>",
        curve.what.describe(),
        worst.map_or(0.0, |point| point.level),
        curve.what.level(),
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
            Line { class: class_of(variant), label: variant.to_string(), dots: vec![2.5; points.len()], points }
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    lines.reverse();
    let lowest = lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.5, f64::min);
    Plot {
        id: id.to_owned(),
        title: curve.what.describe().to_owned(),
        description: described("AUROC by how much worse inputs are.", &lines),
        x_label: curve.what.level(),
        y_label: "AUROC",
        x: (0.0, curve.points.last().map_or(1.0, |point| point.level)),
        y: ((lowest - 0.02).max(0.0), 1.0),
        reference: Some([(0.0, 0.5), (1.0, 0.5)]),
        marker: None,
        lines,
        histograms: Vec::new(),
    }
    .figure()
}
