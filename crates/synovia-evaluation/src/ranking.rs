//! Scores in descending order: all that AUROC, average precision and their curves need, sorted once.

/// One point of a receiver operating characteristic: the rates at or above a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RocPoint {
    /// 1 − specificity.
    pub false_positive_rate: f64,
    /// Sensitivity.
    pub true_positive_rate: f64,
}

/// One point of a precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecallPoint {
    /// Sensitivity.
    pub recall: f64,
    /// Positive predictive value.
    pub precision: f64,
}

/// Some examples by descending score, with the ends of the groups that are tied.
pub(crate) struct Ranking {
    /// Example's index in the panel, and whether it is positive.
    order: Vec<(usize, bool)>,
    /// One past the last of each group of equal scores.
    group_ends: Vec<usize>,
}

impl Ranking {
    /// Ranks examples given as (index, score, positive); scores must not be NaN.
    pub(crate) fn new(examples: impl Iterator<Item = (usize, f64, bool)>) -> Self {
        let mut all: Vec<_> = examples.collect();
        // The index settles ties, so that sums over a group have one order.
        all.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let group_ends = (1..=all.len()).filter(|&k| k == all.len() || all[k].1 != all[k - 1].1).collect();
        Self { order: all.into_iter().map(|(index, _, positive)| (index, positive)).collect(), group_ends }
    }

    pub(crate) fn of_slices<S: Copy + Into<f64>>(scores: &[S], labels: &[bool]) -> Self {
        Self::new(scores.iter().zip(labels).enumerate().map(|(k, (&score, &label))| (k, score.into(), label)))
    }

    /// Examples from the highest score down: index, whether positive, and whether the last of a group of equal scores.
    pub(crate) fn sequence(&self) -> impl Iterator<Item = (usize, bool, bool)> {
        self.groups().flat_map(|group| group.iter().enumerate().map(|(k, &(i, y))| (i, y, k + 1 == group.len())))
    }

    /// Groups of tied examples from the highest score to the lowest.
    fn groups(&self) -> impl Iterator<Item = &[(usize, bool)]> {
        let mut start = 0;
        self.group_ends.iter().map(move |&end| {
            let group = &self.order[start..end];
            start = end;
            group
        })
    }

    /// Weights of the positives and negatives of each group.
    fn group_weights(&self, weight: impl Fn(usize) -> f64) -> impl Iterator<Item = (f64, f64)> {
        self.groups().map(move |group| {
            group.iter().fold((0.0, 0.0), |(p, n), &(index, positive)| {
                let w = weight(index);
                if positive { (p + w, n) } else { (p, n + w) }
            })
        })
    }

    /// Area under the ROC curve: P(score of a positive > score of a negative) + ½ P(equal) (Hanley & McNeil 1982).
    /// `None` without a positive or without a negative.
    pub(crate) fn auroc(&self, weight: impl Fn(usize) -> f64) -> Option<f64> {
        let (mut positives, mut negatives, mut area) = (0.0, 0.0, 0.0);
        for (p, n) in self.group_weights(weight) {
            area += n * (positives + 0.5 * p);
            positives += p;
            negatives += n;
        }
        (positives > 0.0 && negatives > 0.0).then(|| area / (positives * negatives))
    }

    /// Average precision Σ (Rₖ − Rₖ₋₁) Pₖ over distinct thresholds, without interpolation, which would be too kind
    /// (Davis & Goadrich 2006). `None` without a positive or without a negative.
    pub(crate) fn average_precision(&self, weight: impl Fn(usize) -> f64) -> Option<f64> {
        let (mut positives, mut negatives, mut sum) = (0.0, 0.0, 0.0);
        for (p, n) in self.group_weights(weight) {
            positives += p;
            negatives += n;
            if p > 0.0 {
                sum += p * positives / (positives + negatives);
            }
        }
        (positives > 0.0 && negatives > 0.0).then(|| sum / positives)
    }

    /// Area under the part of the ROC curve with a false positive rate up to `max_rate`, on McClish's scale (1989), where ½ is no
    /// skill and 1 is perfect. `None` without a positive or without a negative, or for a rate not in (0, 1].
    pub(crate) fn partial_auroc(&self, max_rate: f64) -> Option<f64> {
        let (all_p, all_n) = self.group_weights(|_| 1.0).fold((0.0, 0.0), |(a, b), (p, n)| (a + p, b + n));
        let limit = max_rate * all_n;
        if all_p == 0.0 || all_n == 0.0 || !(max_rate > 0.0 && max_rate <= 1.0) {
            return None;
        }
        Some(mc_clish(area_up_to(self.group_weights(|_| 1.0), limit) / (all_p * all_n), max_rate))
    }

    /// The highest sensitivity at a specificity of at least `specificity`.
    fn sensitivity_at(&self, specificity: f64) -> Option<f64> {
        let curve = self.roc_curve();
        let kept = curve.iter().filter(|p| 1.0 - p.false_positive_rate >= specificity - 1e-12);
        kept.map(|p| p.true_positive_rate).max_by(f64::total_cmp)
    }

    /// The highest specificity at a sensitivity of at least `sensitivity`.
    fn specificity_at(&self, sensitivity: f64) -> Option<f64> {
        let curve = self.roc_curve();
        let kept = curve.iter().filter(|p| p.true_positive_rate >= sensitivity - 1e-12);
        kept.map(|p| 1.0 - p.false_positive_rate).max_by(f64::total_cmp)
    }

    /// DeLong's structural components (DeLong, DeLong & Clarke-Pearson 1988): for each positive the share of negatives
    /// that it outranks, for each negative the share of positives that outrank it, ties by half, as (index, positive, share).
    pub(crate) fn placements(&self) -> Vec<(usize, bool, f64)> {
        let n_positive = self.order.iter().filter(|(_, positive)| *positive).count() as f64;
        let n_negative = self.order.len() as f64 - n_positive;
        let mut out = Vec::with_capacity(self.order.len());
        let (mut positives_above, mut negatives_above) = (0.0, 0.0);
        for group in self.groups() {
            let p = group.iter().filter(|(_, positive)| *positive).count() as f64;
            let n = group.len() as f64 - p;
            for &(index, positive) in group {
                let share =
                    if positive { (n_negative - negatives_above - 0.5 * n) / n_negative } else { (positives_above + 0.5 * p) / n_positive };
                out.push((index, positive, share));
            }
            positives_above += p;
            negatives_above += n;
        }
        out
    }

    pub(crate) fn roc_curve(&self) -> Vec<RocPoint> {
        let (p, n) = self.group_weights(|_| 1.0).fold((0.0, 0.0), |(a, b), (p, n)| (a + p, b + n));
        if p == 0.0 || n == 0.0 {
            return Vec::new();
        }
        let mut at = (0.0, 0.0);
        let mut curve = vec![RocPoint { false_positive_rate: 0.0, true_positive_rate: 0.0 }];
        for (more_p, more_n) in self.group_weights(|_| 1.0) {
            at = (at.0 + more_p, at.1 + more_n);
            curve.push(RocPoint { false_positive_rate: at.1 / n, true_positive_rate: at.0 / p });
        }
        curve
    }

    pub(crate) fn precision_recall_curve(&self) -> Vec<PrecisionRecallPoint> {
        let p: f64 = self.group_weights(|_| 1.0).map(|(p, _)| p).sum();
        if p == 0.0 || p == self.order.len() as f64 {
            return Vec::new();
        }
        let mut at = (0.0, 0.0);
        self.group_weights(|_| 1.0)
            .map(|(more_p, more_n)| {
                at = (at.0 + more_p, at.1 + more_n);
                PrecisionRecallPoint { recall: at.0 / p, precision: at.0 / (at.0 + at.1) }
            })
            .collect()
    }
}

/// Area under positives' against negatives' weight, over the first `limit` of the negatives', not divided. Groups of equal scores
/// come from the highest down, as weights of positives and negatives.
pub(crate) fn area_up_to(groups: impl Iterator<Item = (f64, f64)>, limit: f64) -> f64 {
    let (mut positives, mut negatives, mut area) = (0.0, 0.0, 0.0);
    for (p, n) in groups {
        // The curve between two groups is a line; the last piece is cut at the limit.
        let share = if negatives + n > limit { (limit - negatives) / n } else { 1.0 };
        area += share * n * (positives + 0.5 * share * p);
        positives += p;
        negatives += n;
        if negatives >= limit {
            break;
        }
    }
    area
}

/// McClish's scale of an area up to a false positive rate.
pub(crate) fn mc_clish(area: f64, max_rate: f64) -> f64 {
    let least = 0.5 * max_rate * max_rate;
    0.5 * (1.0 + (area - least) / (max_rate - least))
}

/// Area under the ROC curve of `scores` for boolean `labels`, ties by half; `None` unless both classes occur.
///
/// # Shapes
/// - scores, labels: `[n]`; scores are not NaN.
pub fn auroc<S: Copy + Into<f64>>(scores: &[S], labels: &[bool]) -> Option<f64> {
    Ranking::of_slices(scores, labels).auroc(|_| 1.0)
}

/// Average precision (area under the stepwise precision-recall curve); `None` unless both classes occur.
///
/// # Shapes
/// - scores, labels: `[n]`; scores are not NaN.
pub fn average_precision<S: Copy + Into<f64>>(scores: &[S], labels: &[bool]) -> Option<f64> {
    Ranking::of_slices(scores, labels).average_precision(|_| 1.0)
}

/// Area under the ROC curve up to a false positive rate, on McClish's scale: ½ is no skill, 1 is perfect. `None` unless both
/// classes occur and `max_rate` is in (0, 1].
///
/// # Shapes
/// - scores, labels: `[n]`; scores are not NaN.
pub fn partial_auroc<S: Copy + Into<f64>>(scores: &[S], labels: &[bool], max_rate: f64) -> Option<f64> {
    Ranking::of_slices(scores, labels).partial_auroc(max_rate)
}

/// The highest sensitivity of any threshold with at least this specificity; `None` unless both classes occur.
///
/// A threshold that is chosen on the examples it is measured on flatters: this describes a curve, an operating point is
/// [`crate::OperatingPoint`].
pub fn sensitivity_at_specificity<S: Copy + Into<f64>>(scores: &[S], labels: &[bool], specificity: f64) -> Option<f64> {
    Ranking::of_slices(scores, labels).sensitivity_at(specificity)
}

/// The highest specificity of any threshold with at least this sensitivity; as [`sensitivity_at_specificity`].
pub fn specificity_at_sensitivity<S: Copy + Into<f64>>(scores: &[S], labels: &[bool], sensitivity: f64) -> Option<f64> {
    Ranking::of_slices(scores, labels).specificity_at(sensitivity)
}

/// The ROC curve from (0, 0) to (1, 1), a point a distinct score; empty unless both classes occur.
pub fn roc_curve<S: Copy + Into<f64>>(scores: &[S], labels: &[bool]) -> Vec<RocPoint> {
    Ranking::of_slices(scores, labels).roc_curve()
}

/// The precision-recall curve by rising recall, a point a distinct score; empty unless both classes occur.
pub fn precision_recall_curve<S: Copy + Into<f64>>(scores: &[S], labels: &[bool]) -> Vec<PrecisionRecallPoint> {
    Ranking::of_slices(scores, labels).precision_recall_curve()
}
