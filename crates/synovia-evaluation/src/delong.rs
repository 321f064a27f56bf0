//! The variance of AUROC when a patient may have several examples, and of a paired difference.
//!
//! DeLong, DeLong & Clarke-Pearson (Biometrics 1988) for independent examples; Obuchowski (Biometrics 1997) sums their
//! structural components over each cluster, here a patient. With one example a patient the two agree exactly. The mean of
//! several AUROCs (classes of a multiclass task, folds) is linear in the components, so its variance needs no more.

use std::collections::{BTreeMap, BTreeSet};

use crate::measure::{Prepared, Ranked};
use crate::panel::Panel;

/// Sums of a patient's components, centred: of positives divided by their number, of negatives by theirs.
#[derive(Clone, Copy, Default)]
struct Component {
    positive: f64,
    negative: f64,
    has_positive: bool,
    has_negative: bool,
}

/// A fold and class: a component a patient.
type Cell = BTreeMap<usize, Component>;

/// Variance of the AUROC of `of` ([`Prepared::auroc`]), or with `minus` of the difference of the two on the same examples.
/// `None` where a fold and class has fewer than two patients with a positive, or with a negative.
pub(crate) fn variance<S>(panel: &Panel<S>, of: &Prepared, minus: Option<&Prepared>) -> Option<f64> {
    let n_folds = of.rankings.chunk_by(|a, b| a.fold == b.fold).count() as f64;
    let mut sum = 0.0;
    let mut start = 0;
    for fold in of.rankings.chunk_by(|a, b| a.fold == b.fold) {
        let mut cells: Vec<Cell> = fold.iter().map(|ranked| components(panel, ranked)).collect();
        if let Some(minus) = minus {
            let others = minus.rankings.get(start..start + fold.len())?;
            for (cell, other) in cells.iter_mut().zip(others) {
                for (patient, component) in components(panel, other) {
                    let to = cell.get_mut(&patient)?;
                    to.positive -= component.positive;
                    to.negative -= component.negative;
                }
            }
        }
        start += fold.len();
        sum += variance_of_mean(&cells)?;
    }
    // Folds test different patients, so their AUROCs are taken as independent (LeDell, Petersen & van der Laan 2015).
    (n_folds > 0.0).then(|| sum / n_folds.powi(2))
}

/// Covariance of the AUROCs of two sets of examples, of which a patient may have some in both; 0 where nobody has.
pub(crate) fn covariance<S>(panel: &Panel<S>, first: &Prepared, second: &Prepared) -> f64 {
    let (a, b) = (mean_components(panel, first), mean_components(panel, second));
    // As in the variance, of which this is the cross term: of two equal sets it is the variance.
    let n = |has: fn(&Component) -> bool| {
        let with: BTreeSet<usize> = a.iter().chain(&b).filter(|(_, c)| has(c)).map(|(patient, _)| *patient).collect();
        with.len() as f64 / (with.len() as f64 - 1.0)
    };
    let shared: Vec<(&Component, &Component)> = a.iter().filter_map(|(patient, x)| Some((x, b.get(patient)?))).collect();
    if shared.is_empty() {
        return 0.0;
    }
    let (positive, negative, all) = (n(|c| c.has_positive), n(|c| c.has_negative), n(|_| true));
    let cross = |(x, y): &(&Component, &Component)| {
        positive * x.positive * y.positive + negative * x.negative * y.negative + all * (x.positive * y.negative + x.negative * y.positive)
    };
    shared.iter().map(cross).sum()
}

/// Each patient's part in the mean over folds of the mean over classes.
fn mean_components<S>(panel: &Panel<S>, of: &Prepared) -> Cell {
    let n_folds = of.rankings.chunk_by(|a, b| a.fold == b.fold).count() as f64;
    let mut all = Cell::new();
    for fold in of.rankings.chunk_by(|a, b| a.fold == b.fold) {
        let share = 1.0 / (fold.len() as f64 * n_folds);
        for (patient, component) in fold.iter().flat_map(|ranked| components(panel, ranked)) {
            let to = all.entry(patient).or_default();
            to.positive += share * component.positive;
            to.negative += share * component.negative;
            to.has_positive |= component.has_positive;
            to.has_negative |= component.has_negative;
        }
    }
    all
}

fn components<S>(panel: &Panel<S>, ranked: &Ranked) -> Cell {
    let placements = ranked.ranking.placements();
    let m = placements.iter().filter(|(_, positive, _)| *positive).count() as f64;
    let n = placements.len() as f64 - m;
    let area = placements.iter().filter(|(_, positive, _)| *positive).map(|(_, _, share)| share).sum::<f64>() / m;
    let mut cell = Cell::new();
    for (index, positive, share) in placements {
        let to = cell.entry(panel.examples[index].patient).or_default();
        if positive {
            to.positive += (share - area) / m;
            to.has_positive = true;
        } else {
            to.negative += (share - area) / n;
            to.has_negative = true;
        }
    }
    cell
}

/// Variance of the mean of the AUROCs of one fold's classes.
fn variance_of_mean(cells: &[Cell]) -> Option<f64> {
    // I/(I − 1) for the number of patients that a sum of squares is over, as Obuchowski has it.
    let factor = |n: usize| (n > 1).then(|| n as f64 / (n as f64 - 1.0));
    let mut sum = 0.0;
    for (k, cell) in cells.iter().enumerate() {
        let all = factor(cell.len())?;
        let positive = factor(cell.values().filter(|c| c.has_positive).count())?;
        let negative = factor(cell.values().filter(|c| c.has_negative).count())?;
        sum += cell
            .values()
            .map(|c| positive * c.positive.powi(2) + negative * c.negative.powi(2) + 2.0 * all * c.positive * c.negative)
            .sum::<f64>();
        for other in &cells[k + 1..] {
            let cross = cell.iter().filter_map(|(p, a)| other.get(p).map(|b| (a.positive + a.negative) * (b.positive + b.negative)));
            sum += 2.0 * all * cross.sum::<f64>();
        }
    }
    Some(sum / (cells.len() as f64).powi(2))
}
