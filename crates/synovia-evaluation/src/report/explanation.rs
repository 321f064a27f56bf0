//! What drove the model's answers, and whether the explanations hold.

use serde::{Deserialize, Serialize};

use super::Report;
use super::html::{escape, estimate_cell, heads, notes, number, table};
use crate::gain::signed;
use crate::{EmbeddingMap, Estimate, Variant};

/// Explanations of a model on test examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanations {
    /// The model.
    pub model: Variant,
    /// The fold whose model and test examples these are, from 1; none without folds.
    #[serde(default)]
    pub fold: Option<usize>,
    /// Test examples on a plane; none where nothing may be told of the training's.
    #[serde(default)]
    pub embedding: Option<EmbeddingMap>,
    /// A task each.
    pub tasks: Vec<TaskExplanation>,
}

/// Explanations of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskExplanation {
    /// Its name.
    pub task: String,
    /// Test examples that were explained.
    pub n: usize,
    /// What each modality adds to the explained class's probability.
    pub modalities: Vec<ModalityShare>,
    /// Features by what they add to its score, the strongest first.
    pub features: Vec<FeatureWeight>,
    /// Whether Grad-CAM points at what the model looks at; none without images.
    pub grad_cam: Option<MapCheck>,
    /// Whether the parts of integrated gradients add up.
    pub integrated: IntegratedCheck,
    /// Whether examples of one class lie together in the model's eyes; none where nothing may be told of the training's.
    #[serde(default)]
    pub neighbours: Option<NeighbourCheck>,
    /// Examples, shown one by one.
    pub cases: Vec<Case>,
    /// Where Grad-CAM is highest, an example each that has an image.
    pub peaks: Vec<Peak>,
}

/// A modality's part in the answers: exact Shapley values over masked passes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModalityShare {
    /// `image` or `record`.
    pub modality: String,
    /// Mean of the share's size.
    pub size: Estimate,
    /// Examples in which it has the larger part, of those that have both.
    pub leads: usize,
    /// Examples that have both.
    pub n_both: usize,
}

/// A feature's part in the answers: integrated gradients from the training mean, in units of the class's logit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureWeight {
    /// Its name.
    pub feature: String,
    /// Mean of its part's size, over the examples that have it.
    pub size: f64,
    /// Examples that have it, of those that integrated gradients were taken of.
    pub n: usize,
}

/// What becomes of the answer when the image loses or gains what a map points at, against the same map moved elsewhere at random: areas
/// under how far the probability is from that of the whole image, over the share of pixels (Petsiuk et al. 2018 have the probability,
/// which says it of a class that it is high for).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapCheck {
    /// Examples.
    pub n: usize,
    /// Map − maps moved elsewhere when pixels are taken away, most important first: above 0 where the map points at what
    /// matters.
    pub deletion: Estimate,
    /// Those − map when pixels are added.
    pub insertion: Estimate,
    /// Mean rank correlation of the map with that of a model whose weights are shuffled: near 0 where it is about what was learnt.
    pub shuffled: Estimate,
}

/// Of what class the training examples are that lie nearest to test examples, by their embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighbourCheck {
    /// Test examples.
    pub n: usize,
    /// Neighbours of each.
    pub neighbours: usize,
    /// Share of the same class that anybody's neighbours would have: that of the class in the train split, mean over the examples.
    pub chance: f64,
    /// By how much more of them are of the same class.
    pub more: Estimate,
}

/// A training example that lies near.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its pseudonym.
    pub example: String,
    /// What was true of it.
    pub label: String,
    /// How far its embedding is (Euclid).
    pub distance: f64,
}

/// Completeness of integrated gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntegratedCheck {
    /// Examples.
    pub n: usize,
    /// Median of the error, as a share of the difference in scores.
    pub median: f64,
    /// The largest.
    pub worst: f64,
}

/// One example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Its pseudonym.
    pub example: String,
    /// Why it is shown.
    pub why: String,
    /// The class that is explained.
    pub class: String,
    /// Its calibrated probability.
    pub probability: f64,
    /// What was true.
    pub label: String,
    /// Shares of the modalities and the probability without either: `image`, `record`, `neither`.
    pub shares: Vec<(String, f64)>,
    /// The strongest features: name, value with unit, part.
    pub features: Vec<(String, String, f64)>,
    /// What the image adds to the score by integrated gradients.
    pub image: Option<f64>,
    /// Error of its integrated gradients.
    pub error: f64,
    /// Training examples that the model sees most alike, the nearest first.
    #[serde(default)]
    pub neighbours: Vec<Neighbour>,
    /// The image as the model sees it, PNG in base64.
    pub image_png: Option<String>,
    /// The same with Grad-CAM, PNG in base64.
    pub overlay_png: Option<String>,
}

/// Where a map is highest. x and y in `[0, 1]` from the upper left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// The example.
    pub example: String,
    /// Its label.
    pub label: f32,
    /// The class that is explained.
    pub class: usize,
    /// The trained model's; none where nothing does.
    pub peak: Option<(f64, f64)>,
    /// That of the model with shuffled weights.
    pub shuffled: Option<(f64, f64)>,
}

/// The section.
pub(super) fn section(report: &Report) -> String {
    let Some(explanations) = &report.explanations else { return String::new() };
    if explanations.tasks.is_empty() && explanations.embedding.is_none() {
        return String::new();
    }
    let intro = format!(
        "<p>What the {} model’s answers on test examples owe to each part of their input. It is said of the model, not of the patients: a \
         part may matter to the model and be no cause of anything. Cases show images and values of test patients: with them this page \
         is as confidential as they are.{}</p>",
        explanations.model,
        explanations.fold.map(|fold| format!(" Here the model and the test examples are those of fold {fold}.")).unwrap_or_default()
    );
    let tasks: String = explanations.tasks.iter().map(task_section).collect();
    let map = explanations.embedding.as_ref().map(|map| super::embedding::figures(report.tasks, map)).unwrap_or_default();
    intro + &tasks + &map
}

fn task_section(task: &TaskExplanation) -> String {
    let mut out = format!("<h3>{}</h3>", escape(&task.task));
    if !task.modalities.is_empty() {
        let rows: String = task
            .modalities
            .iter()
            .map(|share| {
                format!(
                    "<tr><th scope=\"row\">{}</th>{}<td class=\"n\">{} of {}</td></tr>",
                    escape(&share.modality),
                    estimate_cell(Some(&share.size)),
                    number(share.leads as u64),
                    number(share.n_both as u64)
                )
            })
            .collect();
        let n = task.modalities.first().map_or(0, |share| share.n_both);
        let caption =
            format!("{}: what each modality adds to the probability, {} test examples that have both", task.task, number(n as u64));
        out.push_str(&table(&caption, &heads(&["Modality", "#Mean size of its share", "#Has the larger share"]), &rows));
    }
    if !task.features.is_empty() {
        let most = task.features.iter().map(|f| f.size).fold(f64::MIN_POSITIVE, f64::max);
        let rows: String = task
            .features
            .iter()
            .map(|f| {
                format!(
                    "<tr><th scope=\"row\">{}</th><td class=\"n\">{:.3}</td><td><span class=\"bar\" style=\"width:{:.1}%\"></span></td><td class=\"n\">{}</td></tr>",
                    escape(&f.feature),
                    f.size,
                    100.0 * f.size / most,
                    number(f.n as u64)
                )
            })
            .collect();
        let caption =
            format!("{}: features that move the score most in a few test examples, integrated gradients from the training mean", task.task);
        out.push_str(&table(&caption, &heads(&["Feature", "#Mean size, logits", "Drawn", "#Examples"]), &rows));
    }
    out.push_str(&checks(task));
    let cases: String = task.cases.iter().map(case).collect();
    if !cases.is_empty() {
        out.push_str(&format!(
            "<p class=\"what\">Over the image: red is where the answer hangs on the image, for the class or against it, each map on a scale of its own (Grad-CAM with each place’s own gradient, its size, spread over what a place looks at).</p><div class=\"cases\">{cases}</div>"
        ));
    }
    out
}

fn checks(task: &TaskExplanation) -> String {
    let mut said = vec![format!(
        "integrated gradients add up to the difference in scores within {:.2} % (median; at worst {:.2} %, {} examples)",
        100.0 * task.integrated.median,
        100.0 * task.integrated.worst,
        task.integrated.n
    )];
    let interval = |estimate: &Estimate| match (estimate.value, estimate.low, estimate.high) {
        (Some(value), Some(low), Some(high)) => format!("{} (95 % interval {} to {})", signed(value), signed(low), signed(high)),
        (Some(value), ..) => signed(value),
        _ => "–".to_owned(),
    };
    if let Some(check) = &task.grad_cam {
        let verdict = |estimate: &Estimate, holds: &str, fails: &str| match (estimate.low, estimate.high) {
            (Some(low), _) if low > 0.0 => holds.to_owned(),
            (_, Some(high)) if high < 0.0 => fails.to_owned(),
            _ => "no evidence either way".to_owned(),
        };
        said.push(format!(
            "Grad-CAM, taking away what it marks: the probability moves by {} more, on average over shares of the image, than where the \
             map is moved elsewhere at random: {}",
            interval(&check.deletion),
            verdict(&check.deletion, "the model needs what it marks more than other places", "it needs other places more")
        ));
        said.push(format!(
            "adding what it marks to a level image: the probability comes nearer to that of the whole image by {} more: {}; {} examples",
            interval(&check.insertion),
            verdict(&check.insertion, "the model tells more by what it marks than by other places", "it tells more by other places"),
            check.n
        ));
        said.push(format!(
            "rank correlation of the map with that of the same model with its weights shuffled once: {} (near 0: the map is about what was learnt)",
            interval(&check.shuffled)
        ));
    }
    if let Some(check) = &task.neighbours {
        let verdict = match (check.more.low, check.more.high) {
            (Some(low), _) if low > 0.0 => "examples of one class lie together in the model’s eyes",
            (_, Some(high)) if high < 0.0 => "they lie apart",
            _ => "no evidence that examples of one class lie together",
        };
        said.push(format!(
            "of the {} training examples whose embeddings are nearest, the share of the same class is greater by {} than the {:.3} that \
             chance gives: {verdict}; {} examples",
            check.neighbours,
            interval(&check.more),
            check.chance,
            check.n
        ));
    }
    notes(&said)
}

fn case(case: &Case) -> String {
    let picture = |png: &Option<String>, alt: &str| {
        png.as_ref()
            .map(|png| format!("<img alt=\"{}\" src=\"data:image/png;base64,{png}\" width=\"256\" height=\"256\">", escape(alt)))
            .unwrap_or_default()
    };
    let shares: Vec<String> = case.shares.iter().map(|(name, share)| format!("{} {}", escape(name), signed(*share))).collect();
    let features: String = case
        .features
        .iter()
        .map(|(name, value, part)| {
            format!(
                "<tr><th scope=\"row\">{}<small>{}</small></th><td class=\"n\">{}</td></tr>",
                escape(name),
                escape(value),
                signed(*part)
            )
        })
        .collect();
    let features = if features.is_empty() {
        String::new()
    } else {
        format!(
            "<details><summary>What the record adds</summary><table><thead><tr>{}</tr></thead><tbody>{features}</tbody></table></details>",
            heads(&["Feature", "#Logits"])
        )
    };
    let neighbours: Vec<String> = case
        .neighbours
        .iter()
        .map(|n| format!("<li>{} <small>{}, {:.2} away</small></li>", escape(&n.label), escape(&short(&n.example)), n.distance))
        .collect();
    let neighbours = if neighbours.is_empty() {
        String::new()
    } else {
        format!("<details><summary>Training examples most alike</summary><ol>{}</ol></details>", neighbours.concat())
    };
    let image = case.image.map(|part| format!("<p class=\"what\">The image adds {} to the logit.</p>", signed(part))).unwrap_or_default();
    format!(
        "<article class=\"case\"><h4>{why}</h4><p><strong>{class} {probability:.1} %</strong>; true: {label}</p>\
         <div class=\"pictures\">{}{}</div><p class=\"what\">Shares of the probability: {}.</p>{image}{features}{neighbours}\
         <p class=\"what\">Example {example}</p></article>",
        picture(&case.image_png, "The image as the model sees it"),
        picture(&case.overlay_png, "The same: red where the answer hangs on it"),
        shares.join(", "),
        why = escape(&case.why),
        class = escape(&case.class),
        probability = 100.0 * case.probability,
        label = escape(&case.label),
        example = escape(&short(&case.example)),
    )
}

/// The beginning of a pseudonym.
fn short(example: &str) -> String {
    example.chars().take(12).collect()
}
