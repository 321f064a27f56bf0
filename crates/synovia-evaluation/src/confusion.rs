//! Decisions at a threshold against what was true.

use serde::{Deserialize, Serialize};

/// Counts (or weights) of a binary decision. A rate whose denominator is 0 is `None`, where other libraries say 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    /// Positive and called so.
    pub true_positive: f64,
    /// Negative and called positive.
    pub false_positive: f64,
    /// Positive and called negative.
    pub false_negative: f64,
    /// Negative and called so.
    pub true_negative: f64,
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

impl Confusion {
    /// Of the decisions `score ≥ threshold`.
    ///
    /// # Shapes
    /// - scores, labels: `[n]`
    pub fn at<S: Copy + Into<f64>>(scores: &[S], labels: &[bool], threshold: f64) -> Self {
        let mut all = Self::default();
        for (&score, &label) in scores.iter().zip(labels) {
            *match (label, score.into() >= threshold) {
                (true, true) => &mut all.true_positive,
                (false, true) => &mut all.false_positive,
                (true, false) => &mut all.false_negative,
                (false, false) => &mut all.true_negative,
            } += 1.0;
        }
        all
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        self.true_positive + self.false_positive + self.false_negative + self.true_negative
    }

    /// TP / (TP + FN).
    pub fn sensitivity(&self) -> Option<f64> {
        share(self.true_positive, self.true_positive + self.false_negative)
    }

    /// TN / (TN + FP).
    pub fn specificity(&self) -> Option<f64> {
        share(self.true_negative, self.true_negative + self.false_positive)
    }

    /// TP / (TP + FP): of those called positive, the share that is.
    pub fn positive_predictive_value(&self) -> Option<f64> {
        share(self.true_positive, self.true_positive + self.false_positive)
    }

    /// TN / (TN + FN).
    pub fn negative_predictive_value(&self) -> Option<f64> {
        share(self.true_negative, self.true_negative + self.false_negative)
    }

    /// (TP + FP) / n: how many of all are called positive.
    pub fn alert_rate(&self) -> Option<f64> {
        share(self.true_positive + self.false_positive, self.total())
    }

    /// (TP + FP) / TP: how many alerts are looked at for each one that is right.
    pub fn number_needed_to_evaluate(&self) -> Option<f64> {
        share(self.true_positive + self.false_positive, self.true_positive)
    }

    /// (TP + TN) / n.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.true_positive + self.true_negative, self.total())
    }

    /// Mean of sensitivity and specificity.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        self.sensitivity().zip(self.specificity()).map(|(a, b)| 0.5 * (a + b))
    }

    /// 2 TP / (2 TP + FP + FN).
    pub fn f1(&self) -> Option<f64> {
        share(2.0 * self.true_positive, 2.0 * self.true_positive + self.false_positive + self.false_negative)
    }

    /// Matthews' correlation coefficient (1975).
    pub fn matthews(&self) -> Option<f64> {
        let Self { true_positive: tp, false_positive: fp, false_negative: fneg, true_negative: tn } = *self;
        let product = (tp + fp) * (tp + fneg) * (tn + fp) * (tn + fneg);
        share(tp * tn - fp * fneg, product.sqrt())
    }

    /// Cohen's κ (1960): agreement beyond chance.
    pub fn kappa(&self) -> Option<f64> {
        self.as_classes().kappa()
    }

    /// Cost of a decision: `miss` for each positive that is missed and 1 for each false alarm, per example.
    pub fn cost(&self, miss: f64) -> Option<f64> {
        share(miss * self.false_negative + self.false_positive, self.total())
    }

    fn as_classes(self) -> ClassConfusion {
        ClassConfusion { n_classes: 2, counts: vec![self.true_negative, self.false_positive, self.false_negative, self.true_positive] }
    }
}

/// How the values of several classes or labels become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Average {
    /// Each class counts alike.
    Macro,
    /// Each class counts as often as it occurs.
    Weighted,
    /// All decisions count alike, whatever their class.
    Micro,
}

/// Counts of examples by true class and called class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassConfusion {
    /// Number of classes.
    pub n_classes: usize,
    /// `[true class, called class]`
    pub counts: Vec<f64>,
}

impl ClassConfusion {
    /// Of true and called classes; what is no class is left out.
    pub fn new(n_classes: usize, truth: &[usize], called: &[usize]) -> Self {
        let mut counts = vec![0.0; n_classes * n_classes];
        for (&t, &c) in truth.iter().zip(called).filter(|(t, c)| **t < n_classes && **c < n_classes) {
            counts[t * n_classes + c] += 1.0;
        }
        Self { n_classes, counts }
    }

    fn margins(&self) -> Margins {
        let mut margins = Margins::new(self.n_classes);
        for (t, row) in self.counts.chunks_exact(self.n_classes.max(1)).enumerate() {
            for (c, &n) in row.iter().enumerate() {
                margins.add(t, c, n);
            }
        }
        margins
    }

    /// One class against the rest.
    pub fn one_against_rest(&self, class: usize) -> Confusion {
        let margins = self.margins();
        margins.one_against_rest(class, margins.total())
    }

    /// Share that is called right.
    pub fn accuracy(&self) -> Option<f64> {
        let margins = self.margins();
        share(margins.right.iter().sum(), margins.total())
    }

    /// Mean sensitivity over the classes that occur.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        self.margins().balanced_accuracy()
    }

    /// F1 over the classes that occur or are called.
    pub fn f1(&self, average: Average) -> Option<f64> {
        self.margins().f1(average)
    }

    /// Cohen's κ (1960): agreement beyond chance.
    pub fn kappa(&self) -> Option<f64> {
        self.margins().kappa()
    }

    /// Cohen's weighted κ (1968) for ordered classes: a miss counts with the square of its distance;
    /// 1 − Σ observed disagreement / Σ expected disagreement.
    pub fn quadratic_kappa(&self) -> Option<f64> {
        self.margins().quadratic_kappa()
    }

    /// Matthews' correlation coefficient of several classes (Gorodkin 2004).
    pub fn matthews(&self) -> Option<f64> {
        self.margins().matthews()
    }
}

/// Sums of a [`ClassConfusion`]: all that most of its measures need, and small where classes are many.
pub(crate) struct Margins {
    /// How often each class is true, is called, and is both.
    truth: Vec<f64>,
    called: Vec<f64>,
    right: Vec<f64>,
    /// Sum of the squared distances of what is called from what is true, in classes.
    misses: f64,
}

impl Margins {
    pub(crate) fn new(n_classes: usize) -> Self {
        Self { truth: vec![0.0; n_classes], called: vec![0.0; n_classes], right: vec![0.0; n_classes], misses: 0.0 }
    }

    pub(crate) fn add(&mut self, truth: usize, called: usize, weight: f64) {
        self.truth[truth] += weight;
        self.called[called] += weight;
        if truth == called {
            self.right[truth] += weight;
        }
        self.misses += weight * (truth as f64 - called as f64).powi(2);
    }

    fn total(&self) -> f64 {
        self.truth.iter().sum()
    }

    fn one_against_rest(&self, class: usize, total: f64) -> Confusion {
        let (tp, row, column) = (self.right[class], self.truth[class], self.called[class]);
        Confusion { true_positive: tp, false_positive: column - tp, false_negative: row - tp, true_negative: total - row - column + tp }
    }

    pub(crate) fn balanced_accuracy(&self) -> Option<f64> {
        let all: Vec<f64> = self.right.iter().zip(&self.truth).filter_map(|(right, n)| share(*right, *n)).collect();
        share(all.iter().sum(), all.len() as f64)
    }

    pub(crate) fn f1(&self, average: Average) -> Option<f64> {
        let total = self.total();
        mean_f1((0..self.truth.len()).map(|k| self.one_against_rest(k, total)), average)
    }

    /// (observed − expected agreement) / (1 − expected agreement).
    pub(crate) fn kappa(&self) -> Option<f64> {
        let n = self.total();
        let right: f64 = self.right.iter().sum();
        let by_chance: f64 = self.truth.iter().zip(&self.called).map(|(t, c)| t * c / n).sum();
        share(right - by_chance, n - by_chance)
    }

    /// 1 − observed / expected sum of squared distances.
    pub(crate) fn quadratic_kappa(&self) -> Option<f64> {
        let moment = |counts: &[f64], power: i32| counts.iter().enumerate().map(|(k, n)| n * (k as f64).powi(power)).sum::<f64>();
        let n = self.total();
        let (truth, called) = (&self.truth, &self.called);
        // (t − c)² = t² + c² − 2tc, and truth and call are independent by chance.
        let expected = moment(truth, 2) + moment(called, 2) - 2.0 * moment(truth, 1) * moment(called, 1) / n;
        share(expected - self.misses, expected)
    }

    pub(crate) fn matthews(&self) -> Option<f64> {
        let n = self.total();
        let right: f64 = self.right.iter().sum();
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let both = sum(&self.truth, &self.called);
        let (rows, columns) = (sum(&self.truth, &self.truth), sum(&self.called, &self.called));
        share(right * n - both, ((n * n - rows) * (n * n - columns)).sqrt())
    }
}

/// F1 of several binary decisions as one number.
pub(crate) fn mean_f1(each: impl Iterator<Item = Confusion>, average: Average) -> Option<f64> {
    let each: Vec<Confusion> = each.collect();
    if average == Average::Micro {
        let mut all = Confusion::default();
        for c in &each {
            all.true_positive += c.true_positive;
            all.false_positive += c.false_positive;
            all.false_negative += c.false_negative;
        }
        return all.f1();
    }
    let (mut sum, mut total) = (0.0, 0.0);
    for c in &each {
        let Some(f1) = c.f1() else { continue };
        let w = if average == Average::Macro { 1.0 } else { c.true_positive + c.false_negative };
        sum += w * f1;
        total += w;
    }
    share(sum, total)
}
