//! Sets of classes that hold the true one as often as they say, for patients like those of the validation split.
//!
//! An example's score is 1 − the probability of its true class (Sadinle, Lei & Wasserman 2019). A set holds each class whose
//! score is no higher than a quantile of validation scores: the ⌈(n + 1)(coverage)⌉-th of n, which bounds the share of misses in
//! samples of any size as long as patients are exchangeable (Vovk, Gammerman & Shafer 2005). Quantiles are of each modality
//! pattern: scores of a model that lacks its image lie higher, and one quantile for all would leave those patients uncovered.
//! Within a pattern there is one quantile for all classes (split) and one a class (class-conditional, or Mondrian: the rarer
//! class is covered as often as the others).
//!
//! The scores of a pattern that lacks a modality are those of the validation examples that have at least that pattern, the rest
//! hidden. Where patients lack a modality for reasons that bear on the task, those patients are not the same as masked ones: the
//! coverage of examples that really have the pattern is reported beside.

use serde::{Deserialize, Serialize};
use synovia_cohort::{Task, Test, Validation};

use crate::Variant;
use crate::panel::{ModalityPattern, Panel, Scores, n_labels};
use crate::proportion::wilson_interval;

/// The share of sets that hold the true class.
pub const COVERAGE: f64 = 0.9;

/// Quantiles of one model, fitted on the validation split: what turns its probabilities into sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConformalSets {
    /// Share of sets that are to hold the true class.
    pub coverage: f64,
    /// Whose probabilities.
    pub variant: Variant,
    /// Quantiles by modality pattern.
    pub patterns: Vec<PatternQuantiles>,
}

/// Quantiles of one modality pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatternQuantiles {
    /// Which modalities are there.
    pub pattern: ModalityPattern,
    /// Validation examples that the quantile is of.
    pub n: usize,
    /// Of all classes; `None` where examples are too few, and then every class is in the set.
    pub quantile: Option<f64>,
    /// Validation examples of each class.
    pub n_by_class: Vec<usize>,
    /// Of each class by itself; `None` as above.
    pub by_class: Vec<Option<f64>>,
}

impl ConformalSets {
    /// The classes (of a binary task 0 and 1) that probabilities are a set of; all of them for a pattern that was not seen.
    ///
    /// # Shapes
    /// - probabilities: `[task.n_outputs()]`
    pub fn set(&self, probabilities: &[f32], pattern: ModalityPattern, class_conditional: bool) -> Vec<usize> {
        let wide: Vec<f64> = probabilities.iter().map(|&p| f64::from(p)).collect();
        let by_class = by_class(&wide);
        match self.patterns.iter().find(|q| q.pattern == pattern) {
            Some(quantiles) => quantiles.set(&by_class, class_conditional),
            None => (0..by_class.len()).collect(),
        }
    }
}

impl PatternQuantiles {
    fn set(&self, by_class: &[f64], class_conditional: bool) -> Vec<usize> {
        let holds = |class: &usize| {
            let quantile = if class_conditional { self.by_class.get(*class).copied().flatten() } else { self.quantile };
            quantile.is_none_or(|q| 1.0 - by_class[*class] <= q)
        };
        (0..by_class.len()).filter(holds).collect()
    }
}

/// A probability a class: of a binary task also that of the negative one.
fn by_class(probabilities: &[f64]) -> Vec<f64> {
    if let [p] = *probabilities { vec![1.0 - p, p] } else { probabilities.to_vec() }
}

/// The ⌈(n + 1)·coverage⌉-th smallest score; `None` where there are fewer.
pub fn conformal_quantile(scores: &mut [f64], coverage: f64) -> Option<f64> {
    scores.sort_unstable_by(f64::total_cmp);
    let rank = ((scores.len() as f64 + 1.0) * coverage - 1e-9).ceil() as usize;
    rank.checked_sub(1).and_then(|k| scores.get(k)).copied()
}

/// Whose probabilities a pattern's examples have: of the joint model with the rest hidden, or of the model itself.
fn source(variant: Variant, pattern: ModalityPattern) -> Variant {
    match (variant, pattern) {
        (Variant::Joint, ModalityPattern::Image) => Variant::JointImage,
        (Variant::Joint, ModalityPattern::Record) => Variant::JointRecord,
        (variant, _) => variant,
    }
}

/// Examples of a fold with probabilities of a pattern: that have at least it.
fn shown<'p, S>(panel: &'p Panel<S>, variant: Variant, pattern: ModalityPattern, fold: usize) -> Option<(&'p Scores, Vec<usize>)> {
    let scores = panel.variants.get(&source(variant, pattern))?;
    let has = |i: usize| match (variant, pattern) {
        (Variant::Joint, ModalityPattern::Both) => panel.pattern(i) == Some(ModalityPattern::Both),
        _ => true,
    };
    let of = (0..panel.examples.len()).filter(|&i| panel.examples[i].fold == fold && scores.present[i] && has(i)).collect();
    Some((scores, of))
}

/// The patterns that a model can meet.
fn patterns(variant: Variant) -> Vec<ModalityPattern> {
    match variant {
        Variant::Image => vec![ModalityPattern::Image],
        Variant::Joint => ModalityPattern::ALL.to_vec(),
        _ => vec![ModalityPattern::Record],
    }
}

/// Quantiles of a variant, a fold each.
pub(crate) fn fit(panel: &Panel<Validation>, variant: Variant, coverage: f64) -> Vec<ConformalSets> {
    let of_pattern = |pattern: ModalityPattern, fold: usize| {
        let (scores, examples) = shown(panel, variant, pattern, fold)?;
        let k = panel.n_outputs();
        let mut by_label = vec![Vec::new(); n_labels(panel.task)];
        for i in examples {
            let label = panel.examples[i].label;
            by_label[label].push(1.0 - by_class(&scores.probability[i * k..(i + 1) * k])[label]);
        }
        let mut all: Vec<f64> = by_label.concat();
        Some(PatternQuantiles {
            pattern,
            n: all.len(),
            quantile: conformal_quantile(&mut all, coverage),
            n_by_class: by_label.iter().map(Vec::len).collect(),
            by_class: by_label.iter_mut().map(|scores| conformal_quantile(scores, coverage)).collect(),
        })
    };
    let in_fold = |fold: usize| ConformalSets {
        coverage,
        variant,
        patterns: patterns(variant).into_iter().filter_map(|pattern| of_pattern(pattern, fold)).collect(),
    };
    (0..panel.n_folds()).map(in_fold).collect()
}

/// How often sets of one kind held the true class on the test split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetCoverage {
    /// Which modalities the model was shown.
    pub pattern: ModalityPattern,
    /// Whether only examples that lack the rest themselves are counted; else it was also hidden from the others.
    pub natural: bool,
    /// Whether each class has a quantile of its own.
    pub class_conditional: bool,
    /// Test examples.
    pub n: usize,
    /// Share of sets that hold the true class.
    pub covered: Option<f64>,
    /// Its interval (Wilson), by the number of patients.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// The same share of each class.
    pub by_class: Vec<ClassCoverage>,
    /// Mean number of classes in a set.
    pub mean_size: Option<f64>,
    /// Share of sets of exactly one class: the answers that decide something.
    pub single: Option<f64>,
    /// Share of sets without any class: the example is like none of validation.
    pub empty: Option<f64>,
}

/// Coverage of the examples of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassCoverage {
    /// The class; of a binary task `not ` and its name, and its name.
    pub class: String,
    /// Test examples of it.
    pub n: usize,
    /// Share of their sets that hold it.
    pub covered: Option<f64>,
    /// Its interval (Wilson), by the number of patients.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// Prediction sets of one task: their quantiles, a fold each, and how often they held the truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conformal {
    /// Quantiles, a fold each; one without cross-validation.
    pub sets: Vec<ConformalSets>,
    /// Coverage on the test split.
    pub test: Vec<SetCoverage>,
}

/// Names of what a label can be: of a binary task `not ` and the class, and the class.
pub fn label_names(task: &Task) -> Vec<String> {
    match task.kind {
        synovia_cohort::TaskKind::Binary => task.classes.iter().flat_map(|class| [format!("not {class}"), class.clone()]).collect(),
        synovia_cohort::TaskKind::Multiclass | synovia_cohort::TaskKind::Ordinal => task.classes.clone(),
    }
}

/// Sets of the joint model, or failing that of the only model; `None` without either, or without a validation example.
pub(crate) fn measure(panel: &Panel<Test>, validation: &Panel<Validation>, level: f64) -> Option<Conformal> {
    let variant = [Variant::Joint, Variant::Image, Variant::Record].into_iter().find(|v| panel.variants.contains_key(v))?;
    let sets = fit(validation, variant, COVERAGE);
    if sets.iter().all(|of_fold| of_fold.patterns.iter().all(|q| q.n == 0)) {
        return None;
    }
    let mut test = Vec::new();
    for pattern in patterns(variant) {
        for class_conditional in [false, true] {
            for natural in [true, false] {
                // With everything shown, nothing is hidden from anybody.
                if (natural || (variant == Variant::Joint && pattern != ModalityPattern::Both))
                    && let Some(coverage) = covered(panel, &sets, variant, pattern, class_conditional, natural, level)
                {
                    test.push(coverage);
                }
            }
        }
    }
    Some(Conformal { sets, test })
}

fn covered(
    panel: &Panel<Test>,
    sets: &[ConformalSets],
    variant: Variant,
    pattern: ModalityPattern,
    class_conditional: bool,
    natural: bool,
    level: f64,
) -> Option<SetCoverage> {
    let k = panel.n_outputs();
    let names = label_names(panel.task);
    let (mut n, mut size, mut single, mut empty) = (0usize, 0usize, 0usize, 0usize);
    // Of each label: examples, covered ones, patients.
    let mut of_label = vec![(0usize, 0usize, std::collections::BTreeSet::new()); names.len()];
    for (fold, of_fold) in sets.iter().enumerate() {
        let Some(quantiles) = of_fold.patterns.iter().find(|q| q.pattern == pattern && q.n > 0) else { continue };
        let Some((scores, examples)) = shown(panel, variant, pattern, fold) else { continue };
        for i in examples.into_iter().filter(|&i| !natural || variant != Variant::Joint || panel.pattern(i) == Some(pattern)) {
            let example = panel.examples[i];
            let set = quantiles.set(&by_class(&scores.probability[i * k..(i + 1) * k]), class_conditional);
            n += 1;
            size += set.len();
            single += usize::from(set.len() == 1);
            empty += usize::from(set.is_empty());
            let to = &mut of_label[example.label];
            to.0 += 1;
            to.1 += usize::from(set.contains(&example.label));
            to.2.insert(example.patient);
        }
    }
    if n == 0 {
        return None;
    }
    // Several examples of a patient are no independent trials: the interval is as wide as that many patients make it.
    let interval = |held: usize, n: usize, patients: usize| {
        let effective = (held as f64 / n.max(1) as f64 * patients as f64).round() as usize;
        wilson_interval(effective.min(patients), patients, level)
    };
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    let by_class = names.into_iter().zip(&of_label).map(|(class, (n, held, patients))| {
        let interval = interval(*held, *n, patients.len());
        ClassCoverage { class, n: *n, covered: share(*held, *n), low: interval.map(|i| i.0), high: interval.map(|i| i.1) }
    });
    let by_class = by_class.collect();
    let held: usize = of_label.iter().map(|l| l.1).sum();
    let patients: std::collections::BTreeSet<usize> = of_label.iter().flat_map(|l| l.2.iter().copied()).collect();
    let all = interval(held, n, patients.len());
    Some(SetCoverage {
        pattern,
        natural,
        class_conditional,
        n,
        covered: share(held, n),
        low: all.map(|i| i.0),
        high: all.map(|i| i.1),
        by_class,
        mean_size: share(size, n),
        single: share(single, n),
        empty: share(empty, n),
    })
}
