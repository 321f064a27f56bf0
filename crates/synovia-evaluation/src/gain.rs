//! Whether joining helps: the joint model against the better single modality, and against the best baseline, on the same
//! examples.

use std::fmt;

use serde::{Deserialize, Serialize};
use synovia_cohort::{Split, Test, Validation};

use crate::bootstrap::{percentile_interval, resample};
use crate::measure::{Measure, Prepared};
use crate::metrics::EvaluationOptions;
use crate::normal::{two_sided_p, two_sided_z};
use crate::panel::Panel;
use crate::{Variant, delong};

/// What the difference says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The joint model's AUROC is higher by more than chance would make it.
    #[serde(rename = "joint is better")]
    Better,
    /// It is lower by more than chance would make it.
    #[serde(rename = "joint is worse")]
    Worse,
    /// The data does not tell; which is not evidence that there is no gain.
    #[serde(rename = "no evidence of gain")]
    NoEvidence,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Better => "joint is better",
            Self::Worse => "joint is worse",
            Self::NoEvidence => "no evidence of gain",
        })
    }
}

/// The paired difference joint − another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// What the joint model is held against: a single modality trained alone, or a baseline.
    pub over: Variant,
    /// What the difference is of.
    pub measure: Measure,
    /// Joint − other.
    pub difference: Option<f64>,
    /// Lower end of its interval: normal, with DeLong's variance clustered by patient (Obuchowski 1997).
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Two-sided p of no difference, of the same normal deviate: interval and p never disagree, and unlike a bootstrap's, which
    /// can't be under 1 / (samples + 1), it may be as small as the data makes it.
    pub p: Option<f64>,
    /// In words.
    pub verdict: Verdict,
    /// In a sentence, with the numbers.
    pub sentence: String,
    /// Percentile interval of the patient bootstrap, a check on `low` and `high` that assumes no normal distribution.
    pub bootstrap: Option<(f64, f64)>,
    /// Labelled examples that both predicted.
    pub n: usize,
    /// The split on which what it is held against was chosen.
    pub chosen_on: Split,
    /// What a reader must know to read it right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The gain of a panel's joint model over the better single modality; `None` without it or without a single modality.
pub(crate) fn of_joint(panel: &Panel<Test>, validation: &Panel<Validation>, options: &EvaluationOptions) -> Option<Gain> {
    panel.variants.get(&Variant::Joint)?;
    let (over, chosen_on, notes) = best_of(panel, validation, &[Variant::Image, Variant::Record])?;
    against(panel, over, chosen_on, notes, options)
}

/// The gain over the best baseline; `None` without a joint model or a baseline.
pub(crate) fn over_baselines(panel: &Panel<Test>, validation: &Panel<Validation>, options: &EvaluationOptions) -> Option<Gain> {
    panel.variants.get(&Variant::Joint)?;
    let (over, chosen_on, mut notes) = best_of(panel, validation, &Variant::BASELINES)?;
    if over == Variant::LateFusion && chosen_on == Split::Validation {
        notes.push(
            "late fusion has its weights from the validation split on which it was chosen, which favours it there a little".to_owned(),
        );
    }
    against(panel, over, chosen_on, notes, options)
}

fn against(panel: &Panel<Test>, over: Variant, chosen_on: Split, mut notes: Vec<String>, options: &EvaluationOptions) -> Option<Gain> {
    let (joint, single) = pair(panel, Variant::Joint, over)?;
    if joint.len() < panel.examples.len() {
        notes.push(format!("on the {} of {} examples that both models predicted", joint.len(), panel.examples.len()));
    }
    let Difference { difference, interval, p } = Difference::of(panel, &joint, &single, options.level);
    if p.is_none() {
        let why = if interval.is_some() {
            "no pair of patients varies: there is nothing to test by"
        } else {
            "too few patients of a class to tell chance from difference"
        };
        notes.push(why.to_owned());
    }
    let verdict = verdict(difference, p);
    let samples = resample(&panel.patients_by_fold, options.n_bootstrap, options.seed, |weights| {
        joint.auroc(weights).zip(single.auroc(weights)).map(|(a, b)| a - b)
    });
    let mut samples: Vec<f64> = samples.into_iter().flatten().collect();
    let bootstrap = if samples.len() * 2 < options.n_bootstrap { None } else { percentile_interval(&mut samples, options.level) };
    let (low, high) = (interval.map(|i| i.0), interval.map(|i| i.1));
    let sentence = sentence(verdict, over, difference, interval, p, options.level);
    Some(Gain { over, measure: Measure::Auroc, difference, low, high, p, verdict, sentence, bootstrap, n: joint.len(), chosen_on, notes })
}

/// One model and another on the examples that both predicted.
pub(crate) fn pair<S>(panel: &Panel<S>, first: Variant, other: Variant) -> Option<(Prepared, Prepared)> {
    let (first, other) = (panel.variants.get(&first)?, panel.variants.get(&other)?);
    let both = |i: usize| first.present[i] && other.present[i];
    Some((Prepared::new(panel, first, Vec::new(), both), Prepared::new(panel, other, Vec::new(), both)))
}

/// A paired difference of AUROCs by DeLong's variance.
pub(crate) struct Difference {
    pub difference: Option<f64>,
    pub interval: Option<(f64, f64)>,
    pub p: Option<f64>,
}

impl Difference {
    pub(crate) fn of<S>(panel: &Panel<S>, first: &Prepared, second: &Prepared, level: f64) -> Self {
        let once = first.once();
        let difference = first.auroc(&once).zip(second.auroc(&once)).map(|(a, b)| a - b);
        let error = difference.and_then(|_| delong::variance(panel, first, Some(second))).map(|v| v.max(0.0).sqrt());
        let p = match difference.zip(error) {
            Some((d, e)) if e > 0.0 => Some(two_sided_p(d / e)),
            // Both rank every pair alike.
            Some((0.0, _)) => Some(1.0),
            _ => None,
        };
        let z = two_sided_z(level);
        let interval = difference.zip(error).filter(|(_, e)| e.is_finite()).map(|(d, e)| ((d - z * e).max(-1.0), (d + z * e).min(1.0)));
        Self { difference, interval, p }
    }
}

/// p under which a difference between two trained models is called one. Tests know of other patients, and not of other trainings: two
/// models of the same inputs that were trained from other random numbers differ as well, so that of simulated cohorts in which there is
/// nothing to gain a tenth had p under 0.05 (docs/evaluation.md).
pub const VERDICT: f64 = 0.01;

pub(crate) fn verdict(difference: Option<f64>, p: Option<f64>) -> Verdict {
    match (p, difference) {
        (Some(p), Some(d)) if p < VERDICT => {
            if d > 0.0 {
                Verdict::Better
            } else {
                Verdict::Worse
            }
        }
        _ => Verdict::NoEvidence,
    }
}

/// Of `candidates` the one with the highest AUROC on validation, or failing that on test: choosing on test favours what the joint
/// model is held against and so never makes up a gain. The first of equal ones.
fn best_of(panel: &Panel<Test>, validation: &Panel<Validation>, candidates: &[Variant]) -> Option<(Variant, Split, Vec<String>)> {
    let there: Vec<Variant> = candidates.iter().copied().filter(|v| panel.variants.contains_key(v)).collect();
    if let [only] = there[..] {
        return Some((only, Split::Validation, vec![format!("{only} is the only one there")]));
    }
    let &first = there.first()?;
    if let Some(best) = highest(validation, &there) {
        return Some((best, Split::Validation, Vec::new()));
    }
    let note = "what the joint model is held against was chosen on the test split, which favours it".to_owned();
    Some((highest(panel, &there).unwrap_or(first), Split::Test, vec![note]))
}

/// The variant with the highest AUROC; `None` unless each has one.
fn highest<S>(panel: &Panel<S>, candidates: &[Variant]) -> Option<Variant> {
    let mut best: Option<(f64, Variant)> = None;
    for &variant in candidates {
        let prepared = Prepared::new(panel, panel.variants.get(&variant)?, Vec::new(), |_| true);
        let area = prepared.auroc(&prepared.once())?;
        if best.is_none_or(|(most, _)| area > most) {
            best = Some((area, variant));
        }
    }
    best.map(|(_, variant)| variant)
}

/// How a sentence names what the joint model is held against.
fn named(over: Variant) -> String {
    match over {
        Variant::Image | Variant::Record => format!("the {over} alone"),
        Variant::LateFusion => "late fusion of an image model and a record baseline".to_owned(),
        Variant::ForestRecord => "a forest of trees on the record".to_owned(),
        other => other.describe().to_owned(),
    }
}

/// p as a reader wants it: never `p = 0`.
pub(crate) fn p_text(p: f64) -> String {
    match p {
        p if p < 0.001 => "p < 0.001".to_owned(),
        p if p < 0.1 => format!("p = {p:.3}"),
        p => format!("p = {p:.2}"),
    }
}

fn sentence(verdict: Verdict, over: Variant, difference: Option<f64>, interval: Option<(f64, f64)>, p: Option<f64>, level: f64) -> String {
    let against = match verdict {
        Verdict::Better => format!("The joint model is better than {}", named(over)),
        Verdict::Worse => format!("The joint model is worse than {}", named(over)),
        Verdict::NoEvidence => format!("There is no evidence of gain over {}", named(over)),
    };
    match (difference, interval, p) {
        (Some(d), Some((low, high)), Some(p)) => format!(
            "{against}: AUROC differs by {} ({:.0} % interval {} to {}, {}{}).",
            signed(d),
            level * 100.0,
            signed(low),
            signed(high),
            p_text(p),
            if p >= VERDICT && (low > 0.0 || high < 0.0) {
                format!("; it takes p < {VERDICT}, since trainings differ too")
            } else {
                String::new()
            }
        ),
        (Some(d), ..) => format!("{against}: AUROC differs by {}, but its interval can't be computed.", signed(d)),
        _ => format!("{against}: the difference can't be measured."),
    }
}

/// A difference with its sign, a true minus among them.
pub(crate) fn signed(x: f64) -> String {
    format!("{x:+.3}").replace('-', "\u{2212}")
}
