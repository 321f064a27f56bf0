//! Discrimination of several classes, and of several labels that may be true together, as one number.

use crate::confusion::{Average, Confusion, mean_f1};
use crate::ranking::{auroc, average_precision};

/// A measure of scores against one yes or no.
type Ranked = fn(&[f64], &[bool]) -> Option<f64>;

/// Mean over the columns of a measure of each; `None` where one of them is not defined.
fn mean(columns: &[(Vec<f64>, Vec<bool>)], average: Average, measure: Ranked) -> Option<f64> {
    if average == Average::Micro {
        let (scores, labels): (Vec<&[f64]>, Vec<&[bool]>) = columns.iter().map(|(s, l)| (s.as_slice(), l.as_slice())).unzip();
        return measure(&scores.concat(), &labels.concat());
    }
    let (mut sum, mut total) = (0.0, 0.0);
    for (scores, labels) in columns {
        let w = if average == Average::Macro { 1.0 } else { labels.iter().filter(|&&y| y).count() as f64 };
        sum += w * measure(scores, labels)?;
        total += w;
    }
    (total > 0.0).then(|| sum / total)
}

fn against_rest(probabilities: &[f64], labels: &[usize], n_classes: usize) -> Vec<(Vec<f64>, Vec<bool>)> {
    let column = |class: usize| {
        let scores = probabilities.iter().skip(class).step_by(n_classes).copied().collect();
        (scores, labels.iter().map(|&y| y == class).collect())
    };
    (0..n_classes).map(column).collect()
}

/// AUROC of each class against the rest; `None` unless every class occurs.
///
/// # Shapes
/// - probabilities: `[n, n_classes]`
/// - labels: `[n]`
pub fn auroc_one_against_rest(probabilities: &[f64], labels: &[usize], n_classes: usize, average: Average) -> Option<f64> {
    mean(&against_rest(probabilities, labels, n_classes), average, auroc)
}

/// Average precision of each class against the rest; `None` unless every class occurs.
///
/// # Shapes
/// - probabilities: `[n, n_classes]`
/// - labels: `[n]`
pub fn average_precision_one_against_rest(probabilities: &[f64], labels: &[usize], n_classes: usize, average: Average) -> Option<f64> {
    mean(&against_rest(probabilities, labels, n_classes), average, average_precision)
}

/// AUROC of each pair of classes, in both directions (Hand & Till 2001): [`Average::Macro`] counts pairs alike,
/// [`Average::Weighted`] by how many examples they have. `None` unless every class occurs, and for [`Average::Micro`], which
/// has no meaning here, or where shapes differ.
///
/// # Shapes
/// - probabilities: `[n, n_classes]`
/// - labels: `[n]`
pub fn auroc_one_against_one(probabilities: &[f64], labels: &[usize], n_classes: usize, average: Average) -> Option<f64> {
    if average == Average::Micro || probabilities.len() != labels.len() * n_classes {
        return None;
    }
    let (mut sum, mut total) = (0.0, 0.0);
    for a in 0..n_classes {
        for b in a + 1..n_classes {
            let of: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == a || labels[i] == b).collect();
            let area = |class: usize| {
                let scores: Vec<f64> = of.iter().map(|&i| probabilities[i * n_classes + class]).collect();
                let positive: Vec<bool> = of.iter().map(|&i| labels[i] == class).collect();
                auroc(&scores, &positive)
            };
            let w = if average == Average::Macro { 1.0 } else { of.len() as f64 };
            sum += w * 0.5 * (area(a)? + area(b)?);
            total += w;
        }
    }
    (total > 0.0).then(|| sum / total)
}

/// Several labels that may be true together; a label that nobody knows takes no part.
#[derive(Clone, Debug, PartialEq)]
pub struct Multilabel {
    columns: Vec<(Vec<f64>, Vec<bool>)>,
    /// Decisions at ½ of each example, for the measures of whole examples: right ones, and known ones.
    examples: Vec<(usize, usize)>,
}

impl Multilabel {
    /// # Shapes
    /// - probabilities, labels: `[n, n_labels]`
    pub fn new(probabilities: &[f64], labels: &[Option<bool>], n_labels: usize) -> Self {
        let mut columns = vec![(Vec::new(), Vec::new()); n_labels];
        let width = n_labels.max(1);
        let mut examples = Vec::new();
        for (row, truth) in probabilities.chunks_exact(width).zip(labels.chunks_exact(width)) {
            let (mut right, mut known) = (0, 0);
            for (k, (&p, label)) in row.iter().zip(truth).enumerate() {
                let Some(label) = *label else { continue };
                columns[k].0.push(p);
                columns[k].1.push(label);
                known += 1;
                right += usize::from((p >= 0.5) == label);
            }
            examples.push((right, known));
        }
        Self { columns, examples }
    }

    /// AUROC; `None` where a label has no positive or no negative.
    pub fn auroc(&self, average: Average) -> Option<f64> {
        mean(&self.columns, average, auroc)
    }

    /// Average precision; `None` where a label has no positive or no negative.
    pub fn average_precision(&self, average: Average) -> Option<f64> {
        mean(&self.columns, average, average_precision)
    }

    /// F1 of the decisions at `threshold`.
    pub fn f1(&self, threshold: f64, average: Average) -> Option<f64> {
        mean_f1(self.columns.iter().map(|(scores, labels)| Confusion::at(scores, labels, threshold)), average)
    }

    /// Share of decisions at ½ that are wrong.
    pub fn hamming_loss(&self) -> Option<f64> {
        let (right, known) = self.examples.iter().fold((0, 0), |(a, b), (right, known)| (a + right, b + known));
        (known > 0).then(|| 1.0 - right as f64 / known as f64)
    }

    /// Share of examples all of whose known labels are decided right at ½.
    pub fn subset_accuracy(&self) -> Option<f64> {
        let all = self.examples.iter().filter(|(_, known)| *known > 0);
        let n = all.clone().count();
        (n > 0).then(|| all.filter(|(right, known)| right == known).count() as f64 / n as f64)
    }
}
