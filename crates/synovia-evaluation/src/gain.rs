//! Whether joining helps: the joint model against the better single modality, on the same examples.

use std::fmt;

use serde::{Deserialize, Serialize};
use synovia_cohort::Split;

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

/// The paired difference joint − best single modality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// The single modality, trained alone, that the joint model is held against.
    pub over: Variant,
    /// What the difference is of.
    pub measure: Measure,
    /// Joint − single.
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
    /// The split on which the better single modality was chosen.
    pub chosen_on: Split,
    /// What a reader must know to read it right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The gain of a panel's joint model; `None` without it or without a single modality.
pub(crate) fn of_joint(panel: &Panel, validation: &Panel, options: &EvaluationOptions) -> Option<Gain> {
    let joint = panel.variants.get(&Variant::Joint)?;
    let (over, chosen_on, mut notes) = best_single(panel, validation)?;
    let single = panel.variants.get(&over)?;
    let both = |i: usize| joint.present[i] && single.present[i];
    let (joint, single) = (Prepared::new(panel, joint, both), Prepared::new(panel, single, both));
    if joint.len() < panel.examples.len() {
        notes.push(format!("on the {} of {} examples that both models predicted", joint.len(), panel.examples.len()));
    }
    let difference = joint.auroc(|_| 1.0).zip(single.auroc(|_| 1.0)).map(|(a, b)| a - b);
    let error = difference.and_then(|_| delong::variance(panel, &joint, Some(&single))).map(|v| v.max(0.0).sqrt());
    let p = match difference.zip(error) {
        Some((d, e)) if e > 0.0 => Some(two_sided_p(d / e)),
        // Both rank every pair alike.
        Some((0.0, _)) => Some(1.0),
        _ => {
            notes.push("too few patients of a class to tell chance from difference".to_owned());
            None
        }
    };
    let z = two_sided_z(options.level);
    let interval = p.and_then(|_| difference.zip(error)).map(|(d, e)| ((d - z * e).max(-1.0), (d + z * e).min(1.0)));
    let verdict = match (p, difference) {
        (Some(p), Some(d)) if p < 1.0 - options.level => {
            if d > 0.0 {
                Verdict::Better
            } else {
                Verdict::Worse
            }
        }
        _ => Verdict::NoEvidence,
    };
    let samples = resample(&panel.patients_by_fold, options.n_bootstrap, options.seed, |weights| {
        let weight = |i: usize| weights[panel.examples[i].patient];
        joint.auroc(weight).zip(single.auroc(weight)).map(|(a, b)| a - b)
    });
    let mut samples: Vec<f64> = samples.into_iter().flatten().collect();
    let bootstrap = if samples.len() * 2 < options.n_bootstrap { None } else { percentile_interval(&mut samples, options.level) };
    let (low, high) = (interval.map(|i| i.0), interval.map(|i| i.1));
    let sentence = sentence(verdict, over, difference, interval, p, options.level);
    Some(Gain { over, measure: Measure::Auroc, difference, low, high, p, verdict, sentence, bootstrap, n: joint.len(), chosen_on, notes })
}

/// The single modality with the higher AUROC on validation, or failing that on test: choosing on test favours the single
/// modality and so never makes up a gain.
fn best_single(panel: &Panel, validation: &Panel) -> Option<(Variant, Split, Vec<String>)> {
    let there: Vec<Variant> = [Variant::Image, Variant::Record].into_iter().filter(|v| panel.variants.contains_key(v)).collect();
    let [first, second] = there[..] else {
        return there.first().map(|&only| (only, Split::Validation, vec![format!("{only} is the only single modality")]));
    };
    let score = |panel: &Panel, variant| panel.variants.get(&variant).and_then(|s| Prepared::new(panel, s, |_| true).auroc(|_| 1.0));
    let better = |panel: &Panel| {
        let (a, b) = (score(panel, first)?, score(panel, second)?);
        Some(if b > a { second } else { first })
    };
    if let Some(best) = better(validation) {
        return Some((best, Split::Validation, Vec::new()));
    }
    let note = "the better single modality was chosen on the test split, which favours it".to_owned();
    Some((better(panel).unwrap_or(first), Split::Test, vec![note]))
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
        Verdict::Better => format!("The joint model is better than the {over} alone"),
        Verdict::Worse => format!("The joint model is worse than the {over} alone"),
        Verdict::NoEvidence => format!("There is no evidence of gain over the {over} alone"),
    };
    match (difference, interval, p) {
        (Some(d), Some((low, high)), Some(p)) => format!(
            "{against}: AUROC differs by {} ({:.0} % interval {} to {}, {}).",
            signed(d),
            level * 100.0,
            signed(low),
            signed(high),
            p_text(p)
        ),
        (Some(d), ..) => format!("{against}: AUROC differs by {}, but its interval can't be computed.", signed(d)),
        _ => format!("{against}: the difference can't be measured."),
    }
}

/// A difference with its sign, a true minus among them.
pub(crate) fn signed(x: f64) -> String {
    format!("{x:+.3}").replace('-', "\u{2212}")
}
