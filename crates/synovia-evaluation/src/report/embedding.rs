//! Test examples on a plane, as the model sees them.

use synovia_cohort::Task;

use super::chart::{Line, Plot, swatch};
use super::html::{escape, number};
use crate::{EmbeddingMap, EmbeddingPoint};

/// Classes of the style sheet for the classes of a task, in turn; each second one is hollow.
const CLOUDS: [&str; 6] =
    ["cloud v-joint", "cloud hollow v-image", "cloud v-record", "cloud hollow v-joint-image", "cloud v-late", "cloud hollow v-logistic"];

/// Two maps a task, folded away.
pub(super) fn figures(tasks: &[Task], map: &EmbeddingMap) -> String {
    let of_tasks: String = tasks.iter().enumerate().map(|(k, task)| of_task(k, task, map)).collect();
    format!(
        "<h3>Embeddings</h3><p class=\"what\">How the model sees {} test examples of which it has {}: near to each other is alike to it. \
         The principal axes are of {} training examples and hold {:.0} and {:.0} % of their variance; t-SNE keeps who is near to whom, and says \
         nothing by its distances between groups.</p><details><summary>Maps</summary>{of_tasks}</details>",
        number(map.points.len() as u64),
        map.pattern.as_str().replace('+', " and "),
        number(map.n_train as u64),
        100.0 * map.explained[0],
        100.0 * map.explained[1],
    )
}

fn of_task(k: usize, task: &Task, map: &EmbeddingMap) -> String {
    let labels: Vec<f32> = map.points.iter().filter_map(|point| point.labels.get(k).copied().flatten()).collect();
    let name = |label: usize| match task.classes.as_slice() {
        [only] if label == 0 => format!("not {only}"),
        [only] => only.clone(),
        several => several.get(label).cloned().unwrap_or_default(),
    };
    let classes: Vec<usize> = (0..task.classes.len().max(2)).filter(|&class| labels.iter().any(|&label| label as usize == class)).collect();
    let figure = |id: &str, what: &str, labels: [&'static str; 2], at: &dyn Fn(&EmbeddingPoint) -> Option<[f32; 2]>| {
        let points = |class: usize| {
            let is_of = |point: &&EmbeddingPoint| point.labels.get(k).copied().flatten().is_some_and(|label| label as usize == class);
            let of_class = map.points.iter().filter(is_of).filter_map(at).map(|[x, y]| (f64::from(x), f64::from(y)));
            of_class.collect::<Vec<(f64, f64)>>()
        };
        let lines: Vec<Line> = classes
            .iter()
            .map(|&class| (class, points(class)))
            .map(|(class, points)| Line { class: cloud(class), label: name(class), dots: vec![3.2; points.len()], points })
            .collect();
        let range = |of: fn(&(f64, f64)) -> f64| {
            let all = || lines.iter().flat_map(|line| &line.points).map(of);
            let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
            let margin = 0.03 * (high - low).max(1e-9);
            (low - margin, high + margin)
        };
        let (x, y) = (range(|point| point.0), range(|point| point.1));
        if lines.iter().all(|line| line.points.is_empty()) {
            return String::new();
        }
        let groups: Vec<String> = lines.iter().map(|line| format!("{} {}", line.points.len(), line.label)).collect();
        let description = format!("{what} of test examples by class: {}.", groups.join(", "));
        let (title, [x_label, y_label]) = (format!("{}: {what}", task.name), labels);
        Plot {
            id: format!("{id}-{k}"),
            title,
            description,
            x_label,
            y_label,
            x,
            y,
            reference: None,
            marker: None,
            lines,
            histograms: Vec::new(),
        }
        .figure()
    };
    let legend: String = classes.iter().map(|&class| format!("<li>{}{}</li>", swatch(cloud(class)), escape(&name(class)))).collect();
    let figures = figure("pca", "principal axes", ["first axis", "second axis"], &|point| Some(point.pca))
        + &figure("tsne", "t-SNE", ["first direction", "second direction"], &|point| point.tsne);
    if figures.is_empty() { figures } else { format!("<ul class=\"legend\">{legend}</ul><div class=\"figures\">{figures}</div>") }
}

const fn cloud(class: usize) -> &'static str {
    CLOUDS[class % CLOUDS.len()]
}
