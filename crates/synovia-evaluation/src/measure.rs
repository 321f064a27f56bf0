//! A variant's measures on a panel, for any weights of its patients: sorted once, then a few passes a weighting.

use serde::{Deserialize, Serialize};
use synovia_cohort::TaskKind;

use crate::bootstrap::Weight;
use crate::calibration::{Loss, N_BINS, bin, likeliest};
use crate::confusion::{Average, ClassConfusion, Confusion, Margins};
use crate::murphy::{N_MASS_BINS, mass_ends};
use crate::panel::{Panel, Scores, n_labels};
use crate::ranking::{Ranking, area_up_to, mc_clish};
use crate::threshold::ThresholdRule;

/// A measure of predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Area under the ROC curve; of a multiclass task the mean over its classes, each against the rest.
    Auroc,
    /// Average precision; of a multiclass task the mean over its classes, each against the rest.
    Auprc,
    /// Brier score.
    Brier,
    /// Expected calibration error over bins of equal width.
    Ece,
    /// Mean negative log likelihood, in nats.
    LogLoss,
    /// Share of examples whose likeliest class is right.
    Accuracy,
    /// AUROC over false positive rates up to [`MAX_RATE`], on McClish's scale; averaged as AUROC.
    PartialAuroc,
    /// Expected calibration error over bins of equal numbers of examples.
    EceEqualMass,
    /// Mean sensitivity over the classes, of the likeliest class.
    BalancedAccuracy,
    /// Mean F1 over the classes, of the likeliest class.
    MacroF1,
    /// Matthews' correlation coefficient, of the likeliest class.
    Matthews,
    /// Cohen's κ, of the likeliest class.
    Kappa,
    /// Cohen's κ where a miss counts with the square of its distance, of the likeliest class of a task whose classes stand in an order.
    QuadraticKappa,
}

/// The highest false positive rate of [`Measure::PartialAuroc`].
pub const MAX_RATE: f64 = 0.1;

pub(crate) const N_MEASURES: usize = 13;
pub(crate) const MEASURES: [Measure; N_MEASURES] = [
    Measure::Auroc,
    Measure::Auprc,
    Measure::Brier,
    Measure::Ece,
    Measure::LogLoss,
    Measure::Accuracy,
    Measure::PartialAuroc,
    Measure::EceEqualMass,
    Measure::BalancedAccuracy,
    Measure::MacroF1,
    Measure::Matthews,
    Measure::Kappa,
    Measure::QuadraticKappa,
];

/// What a decision at a threshold is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// [`Confusion::sensitivity`]
    Sensitivity,
    /// [`Confusion::specificity`]
    Specificity,
    /// [`Confusion::positive_predictive_value`]
    PositivePredictiveValue,
    /// [`Confusion::negative_predictive_value`]
    NegativePredictiveValue,
    /// [`Confusion::alert_rate`]
    AlertRate,
    /// [`Confusion::number_needed_to_evaluate`]
    NumberNeededToEvaluate,
    /// [`Confusion::f1`]
    F1,
    /// [`Confusion::matthews`]
    Matthews,
    /// [`Confusion::kappa`]
    Kappa,
    /// [`Confusion::balanced_accuracy`]
    BalancedAccuracy,
}

impl Rate {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 10] = [
        Self::Sensitivity,
        Self::Specificity,
        Self::PositivePredictiveValue,
        Self::NegativePredictiveValue,
        Self::AlertRate,
        Self::NumberNeededToEvaluate,
        Self::F1,
        Self::Matthews,
        Self::Kappa,
        Self::BalancedAccuracy,
    ];

    /// Of a decision.
    pub fn of(self, confusion: &Confusion) -> Option<f64> {
        match self {
            Self::Sensitivity => confusion.sensitivity(),
            Self::Specificity => confusion.specificity(),
            Self::PositivePredictiveValue => confusion.positive_predictive_value(),
            Self::NegativePredictiveValue => confusion.negative_predictive_value(),
            Self::AlertRate => confusion.alert_rate(),
            Self::NumberNeededToEvaluate => confusion.number_needed_to_evaluate(),
            Self::F1 => confusion.f1(),
            Self::Matthews => confusion.matthews(),
            Self::Kappa => confusion.kappa(),
            Self::BalancedAccuracy => confusion.balanced_accuracy(),
        }
    }

    /// In words for a reader of the report.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Sensitivity => "sensitivity",
            Self::Specificity => "specificity",
            Self::PositivePredictiveValue => "positive predictive value",
            Self::NegativePredictiveValue => "negative predictive value",
            Self::AlertRate => "alert rate",
            Self::NumberNeededToEvaluate => "number needed to evaluate",
            Self::F1 => "F1",
            Self::Matthews => "Matthews’ correlation",
            Self::Kappa => "Cohen’s κ",
            Self::BalancedAccuracy => "balanced accuracy",
        }
    }

    /// The decisions that it is a share of, as (positive, called positive) with `None` for either; `None` of what is no share.
    pub(crate) const fn whole(self) -> Option<(Option<bool>, Option<bool>)> {
        match self {
            Self::Sensitivity => Some((Some(true), None)),
            Self::Specificity => Some((Some(false), None)),
            Self::PositivePredictiveValue => Some((None, Some(true))),
            Self::NegativePredictiveValue => Some((None, Some(false))),
            Self::AlertRate => Some((None, None)),
            _ => None,
        }
    }
}

/// A value a measure of [`MEASURES`], then [`Rate::ALL`] for each rule of [`ThresholdRule::REPORTED`]; `None` where it is not
/// defined.
pub(crate) type Values = Vec<Option<f64>>;

/// Where the value of a rule's rate stands in [`Values`].
pub(crate) fn rate_position(rule: usize, rate: usize) -> usize {
    N_MEASURES + rule * Rate::ALL.len() + rate
}

/// A variant's predictions, sorted once for any number of weightings.
pub(crate) struct Prepared {
    /// Rankings, fold by fold and class by class, of the folds and classes that have both positives and negatives.
    pub rankings: Vec<Ranked>,
    /// Folds and classes that do not.
    pub n_undefined: usize,
    pub decisions: Decisions,
    kind: TaskKind,
    n_examples: usize,
    n_patients: usize,
    /// Sums over each patient's examples: number, Brier, log loss, right ones.
    losses: Vec<[f64; 4]>,
    events: Events,
}

pub(crate) struct Ranked {
    pub fold: usize,
    pub ranking: Ranking,
    /// From the highest score down: patient, positive (bit 1), last of its group (bit 0).
    codes: Vec<u32>,
}

/// Examples by rising probability of what the calibration error is of.
struct Events {
    patient: Vec<u32>,
    /// Probability − whether it happened.
    error: Vec<f64>,
    /// One past the last of each segment, with its bin of equal width and of equal mass.
    segments: Vec<(usize, usize, usize)>,
}

/// Examples by what was true and what was decided.
pub(crate) struct Decisions {
    patient: Vec<u32>,
    /// Of a binary task the label, 0 or 1; of others the class.
    label: Vec<u16>,
    /// Of a binary task a bit for each rule whose threshold is reached; of others the likeliest class.
    called: Vec<u16>,
    n_labels: usize,
    /// Thresholds by rule and fold, where chosen.
    pub thresholds: Vec<Vec<Option<f64>>>,
}

/// The mean over weights of one ranking: area, area up to [`MAX_RATE`], average precision.
struct Areas {
    auroc: f64,
    partial: f64,
    precision: f64,
}

impl Prepared {
    /// Prepares the examples that `scores` has and `keep` wants. `thresholds`, by rule and fold, are empty or of validation.
    pub(crate) fn new<S>(panel: &Panel<S>, scores: &Scores, thresholds: Vec<Vec<Option<f64>>>, keep: impl Fn(usize) -> bool) -> Self {
        let k = panel.n_outputs();
        let kept: Vec<usize> = (0..panel.examples.len()).filter(|&i| scores.present[i] && keep(i)).collect();
        let mut rankings = Vec::new();
        let mut n_undefined = 0;
        for fold in 0..panel.n_folds() {
            for class in 0..k {
                let in_fold = kept.iter().filter(|&&i| panel.examples[i].fold == fold);
                let ranking =
                    Ranking::new(in_fold.map(|&i| (i, scores.probability[i * k + class], panel.is_positive(panel.examples[i], class))));
                if ranking.auroc(|_| 1.0).is_some() {
                    let code = |(i, positive, last): (usize, bool, bool)| {
                        ((panel.examples[i].patient as u32) << 2) | (u32::from(positive) << 1) | u32::from(last)
                    };
                    let codes = ranking.sequence().map(code).collect();
                    rankings.push(Ranked { fold, ranking, codes });
                } else {
                    n_undefined += 1;
                }
            }
        }
        let mut losses = vec![[0.0; 4]; panel.n_patients()];
        let mut events = Vec::with_capacity(kept.len());
        for &i in &kept {
            let loss = Loss::new(&scores.probability[i * k..(i + 1) * k], panel.examples[i].label);
            let patient = panel.examples[i].patient;
            let adds = [1.0, loss.brier, loss.surprise, f64::from(u8::from(loss.correct))];
            losses[patient].iter_mut().zip(adds).for_each(|(to, x)| *to += x);
            events.push((loss.event, patient as u32));
        }
        Self {
            rankings,
            n_undefined,
            decisions: Decisions::new(panel, scores, thresholds, &kept),
            kind: panel.task.kind,
            n_examples: kept.len(),
            n_patients: panel.n_patients(),
            losses,
            events: Events::new(events),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.n_examples
    }

    /// Each patient once.
    pub(crate) fn once(&self) -> Vec<Weight> {
        vec![1; self.n_patients]
    }

    /// Area under the ROC curve, the mean over folds of the mean over classes; see [`crate::pool_folds`] for why folds are
    /// not ranked together. `None` when a fold and class loses its positives or negatives by `weights`: another set of
    /// classes would be another quantity.
    pub(crate) fn auroc(&self, weights: &[Weight]) -> Option<f64> {
        self.areas(weights).map(|areas| areas.auroc)
    }

    fn areas(&self, weights: &[Weight]) -> Option<Areas> {
        let mut all = Areas { auroc: 0.0, partial: 0.0, precision: 0.0 };
        let mut n_folds = 0.0;
        for fold in self.rankings.chunk_by(|a, b| a.fold == b.fold) {
            for ranked in fold {
                let areas = ranked.areas(weights)?;
                let share = 1.0 / fold.len() as f64;
                all.auroc += share * areas.auroc;
                all.partial += share * areas.partial;
                all.precision += share * areas.precision;
            }
            n_folds += 1.0;
        }
        (n_folds > 0.0).then(|| Areas { auroc: all.auroc / n_folds, partial: all.partial / n_folds, precision: all.precision / n_folds })
    }

    /// Mean Brier score.
    pub(crate) fn brier(&self, weights: &[Weight]) -> Option<f64> {
        self.means(weights).map(|means| means[0])
    }

    /// Means of Brier, log loss and right ones.
    fn means(&self, weights: &[Weight]) -> Option<[f64; 3]> {
        let mut sums = [0.0; 4];
        for (losses, &w) in self.losses.iter().zip(weights) {
            let w = f64::from(w);
            for (sum, loss) in sums.iter_mut().zip(losses) {
                *sum += w * loss;
            }
        }
        (sums[0] > 0.0).then(|| [sums[1] / sums[0], sums[2] / sums[0], sums[3] / sums[0]])
    }

    /// All measures with `weights` a patient.
    pub(crate) fn values(&self, weights: &[Weight]) -> Values {
        let multiclass = self.kind != TaskKind::Binary;
        let areas = self.areas(weights);
        let means = self.means(weights);
        let gaps = self.events.gaps(weights);
        // Accuracy at 0.5 says little of a rare event: a binary task has thresholds of its own.
        let classes = multiclass.then(|| self.decisions.margins(weights));
        let mut out = vec![
            areas.as_ref().map(|a| a.auroc),
            areas.as_ref().map(|a| a.precision),
            means.map(|m| m[0]),
            gaps.map(|g| g.0),
            means.map(|m| m[1]),
            means.filter(|_| multiclass).map(|m| m[2]),
            areas.as_ref().map(|a| a.partial),
            gaps.map(|g| g.1),
            classes.as_ref().and_then(Margins::balanced_accuracy),
            classes.as_ref().and_then(|c| c.f1(Average::Macro)),
            classes.as_ref().and_then(Margins::matthews),
            classes.as_ref().and_then(Margins::kappa),
            classes.as_ref().filter(|_| self.kind == TaskKind::Ordinal).and_then(Margins::quadratic_kappa),
        ];
        let cells = self.decisions.cells(weights);
        for rule in 0..ThresholdRule::REPORTED.len() {
            let confusion = self.decisions.confusion(&cells, rule);
            out.extend(Rate::ALL.iter().map(|rate| confusion.as_ref().and_then(|c| rate.of(c))));
        }
        out
    }
}

impl Ranked {
    /// Weights of the positives and negatives of each group of equal scores, from the highest down.
    fn groups<'a>(&'a self, weights: &'a [Weight]) -> impl Iterator<Item = (f64, f64)> + 'a {
        let mut codes = self.codes.iter();
        std::iter::from_fn(move || {
            let (mut p, mut n) = (0.0, 0.0);
            for &code in codes.by_ref() {
                let w = f64::from(weights[(code >> 2) as usize]);
                let positive = f64::from((code >> 1) & 1);
                p += w * positive;
                n += w * (1.0 - positive);
                if code & 1 == 1 {
                    return Some((p, n));
                }
            }
            None
        })
    }

    fn areas(&self, weights: &[Weight]) -> Option<Areas> {
        let (mut positives, mut negatives, mut area, mut precision) = (0.0, 0.0, 0.0, 0.0);
        for (p, n) in self.groups(weights) {
            area += n * (positives + 0.5 * p);
            positives += p;
            negatives += n;
            if p > 0.0 {
                precision += p * positives / (positives + negatives);
            }
        }
        if positives == 0.0 || negatives == 0.0 {
            return None;
        }
        let partial = mc_clish(area_up_to(self.groups(weights), MAX_RATE * negatives) / (positives * negatives), MAX_RATE);
        Some(Areas { auroc: area / (positives * negatives), partial, precision: precision / positives })
    }
}

impl Events {
    fn new(mut events: Vec<((f64, bool), u32)>) -> Self {
        events.sort_by(|a, b| a.0.0.total_cmp(&b.0.0));
        let n = events.len();
        let mut segments = Vec::new();
        let ends: Vec<usize> = mass_ends(n, N_MASS_BINS).collect();
        let mut mass = 0;
        for (k, ((p, _), _)) in events.iter().enumerate() {
            while ends[mass] <= k {
                mass += 1;
            }
            let here = (bin(*p), mass);
            match segments.last_mut() {
                Some((end, width, m)) if (*width, *m) == here => *end = k + 1,
                _ => segments.push((k + 1, here.0, here.1)),
            }
        }
        let error = |((p, happened), _): &((f64, bool), u32)| p - f64::from(u8::from(*happened));
        Self { patient: events.iter().map(|e| e.1).collect(), error: events.iter().map(error).collect(), segments }
    }

    /// Expected calibration error over bins of equal width, and over those of equal mass of the whole panel.
    fn gaps(&self, weights: &[Weight]) -> Option<(f64, f64)> {
        let (mut by_width, mut by_mass, mut total) = ([0.0f64; N_BINS], [0.0f64; N_MASS_BINS], 0.0);
        let mut start = 0;
        for &(end, width, mass) in &self.segments {
            let mut sum = 0.0;
            for (&patient, &error) in self.patient[start..end].iter().zip(&self.error[start..end]) {
                let w = f64::from(weights[patient as usize]);
                sum += w * error;
                total += w;
            }
            by_width[width] += sum;
            by_mass[mass] += sum;
            start = end;
        }
        let gap = |bins: &[f64]| bins.iter().map(|b| b.abs()).sum::<f64>() / total;
        (total > 0.0).then(|| (gap(&by_width), gap(&by_mass)))
    }
}

impl Decisions {
    fn new<S>(panel: &Panel<S>, scores: &Scores, thresholds: Vec<Vec<Option<f64>>>, kept: &[usize]) -> Self {
        let k = panel.n_outputs();
        let binary = panel.task.kind == TaskKind::Binary;
        let called = |&i: &usize| {
            if binary {
                let reached = |(rule, of_rule): (usize, &Vec<Option<f64>>)| {
                    let over = of_rule.get(panel.examples[i].fold).copied().flatten().is_some_and(|t| scores.probability[i] >= t);
                    u16::from(over) << rule
                };
                return thresholds.iter().enumerate().map(reached).sum();
            }
            likeliest(&scores.probability[i * k..(i + 1) * k]) as u16
        };
        Self {
            patient: kept.iter().map(|&i| panel.examples[i].patient as u32).collect(),
            label: kept.iter().map(|&i| panel.examples[i].label as u16).collect(),
            called: kept.iter().map(called).collect(),
            n_labels: n_labels(panel.task),
            thresholds,
        }
    }

    /// Of a binary task: weights by label (bit 0) and the rules whose thresholds are reached (the bits over it). Empty without
    /// thresholds.
    pub(crate) fn cells(&self, weights: &[Weight]) -> Vec<f64> {
        if self.thresholds.is_empty() {
            return Vec::new();
        }
        let mut cells = vec![0.0; 2 << self.thresholds.len()];
        for ((&patient, &label), &called) in self.patient.iter().zip(&self.label).zip(&self.called) {
            cells[usize::from(label | (called << 1))] += f64::from(weights[patient as usize]);
        }
        cells
    }

    /// Of a binary task at the thresholds of a rule, from its [`Decisions::cells`]; `None` unless every fold has a threshold.
    pub(crate) fn confusion(&self, cells: &[f64], rule: usize) -> Option<Confusion> {
        let of_rule = self.thresholds.get(rule)?;
        if of_rule.is_empty() || of_rule.iter().any(Option::is_none) {
            return None;
        }
        let mut confusion = Confusion::default();
        for (cell, &w) in cells.iter().enumerate() {
            *match (cell & 1 == 1, (cell >> (rule + 1)) & 1 == 1) {
                (true, true) => &mut confusion.true_positive,
                (false, true) => &mut confusion.false_positive,
                (true, false) => &mut confusion.false_negative,
                (false, false) => &mut confusion.true_negative,
            } += w;
        }
        Some(confusion)
    }

    /// Of a multiclass task, by the likeliest class.
    fn margins(&self, weights: &[Weight]) -> Margins {
        let mut margins = Margins::new(self.n_labels);
        for ((&patient, &label), &called) in self.patient.iter().zip(&self.label).zip(&self.called) {
            margins.add(label.into(), called.into(), f64::from(weights[patient as usize]));
        }
        margins
    }

    /// Of a multiclass task, examples by class and likeliest class.
    pub(crate) fn classes(&self) -> ClassConfusion {
        let wide = |all: &[u16]| -> Vec<usize> { all.iter().map(|&class| class.into()).collect() };
        ClassConfusion::new(self.n_labels, &wide(&self.label), &wide(&self.called))
    }

    /// Patients with a decision that a share is of.
    pub(crate) fn n_patients(&self, rule: usize, (positive, called): (Option<bool>, Option<bool>)) -> usize {
        let fits = |label: u16, reached: u16| {
            positive.is_none_or(|wanted| wanted == (label == 1)) && called.is_none_or(|wanted| wanted == ((reached >> rule) & 1 == 1))
        };
        let decided = self.label.iter().zip(&self.called);
        let mut patients: Vec<u32> =
            self.patient.iter().zip(decided).filter(|(_, (label, reached))| fits(**label, **reached)).map(|(p, _)| *p).collect();
        patients.sort_unstable();
        patients.dedup();
        patients.len()
    }
}
