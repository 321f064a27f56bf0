//! The joint model against each other variant, and each of its branches against the model of that modality that was trained alone,
//! corrected for how many there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use synovia_cohort::{TaskKind, Test};

use crate::bootstrap::{percentile_interval, resample};
use crate::calibration::likeliest;
use crate::comparison::{McNemar, holm, mcnemar};
use crate::gain::{Difference, pair, verdict};
use crate::measure::Prepared;
use crate::metrics::EvaluationOptions;
use crate::panel::Panel;
use crate::{Estimate, Variant, Verdict};

/// A model against one other, on the examples that both predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The model.
    #[serde(default = "joint")]
    pub of: Variant,
    /// The other.
    pub against: Variant,
    /// Examples.
    pub n: usize,
    /// AUROC of the model − that of the other, with DeLong's interval clustered by patient.
    pub auroc: Estimate,
    /// Two-sided p of no difference in AUROC.
    pub p: Option<f64>,
    /// The same, corrected by Holm for the comparisons of the task.
    pub p_holm: Option<f64>,
    /// What `p_holm` says, of `of` as of a joint model.
    pub verdict: Verdict,
    /// Brier score of the model − that of the other, with the interval of the paired bootstrap of patients; under 0 is
    /// better.
    pub brier: Estimate,
    /// Decisions: at each model's threshold of largest sensitivity + specificity on validation, or by the likeliest class.
    /// Examples count one by one; where patients have several, p is too small.
    pub mcnemar: Option<McNemar>,
}

/// Against every other variant that is there.
pub(crate) fn comparisons(panel: &Panel<Test>, prepared: &BTreeMap<Variant, Prepared>, options: &EvaluationOptions) -> Vec<Comparison> {
    let others = prepared.keys().copied().filter(|v| *v != Variant::Joint);
    corrected(others.filter_map(|other| compare(panel, prepared, [Variant::Joint, other], options)).collect())
}

/// Whether a modality gained from having been trained with the other: the joint model shown it alone, against the model that was trained
/// on it alone.
pub(crate) fn branches(panel: &Panel<Test>, prepared: &BTreeMap<Variant, Prepared>, options: &EvaluationOptions) -> Vec<Comparison> {
    let pairs = [[Variant::JointImage, Variant::Image], [Variant::JointRecord, Variant::Record]];
    corrected(pairs.into_iter().filter_map(|pair| compare(panel, prepared, pair, options)).collect())
}

const fn joint() -> Variant {
    Variant::Joint
}

fn corrected(mut all: Vec<Comparison>) -> Vec<Comparison> {
    let corrected = holm(&all.iter().map(|c| c.p).collect::<Vec<_>>());
    for (comparison, p) in all.iter_mut().zip(corrected) {
        comparison.p_holm = p;
        comparison.verdict = verdict(comparison.auroc.value, p);
    }
    all
}

fn compare(
    panel: &Panel<Test>,
    prepared: &BTreeMap<Variant, Prepared>,
    [of, against]: [Variant; 2],
    options: &EvaluationOptions,
) -> Option<Comparison> {
    let (first, other) = pair(panel, of, against)?;
    let found = Difference::of(panel, &first, &other, options.level);
    let once = first.once();
    let brier = |weights: &[u16]| first.brier(weights).zip(other.brier(weights)).map(|(a, b)| a - b);
    let mut samples: Vec<f64> = resample(&panel.patients_by_fold, options.n_bootstrap, options.seed, brier).into_iter().flatten().collect();
    let interval = percentile_interval(&mut samples, options.level);
    Some(Comparison {
        of,
        against,
        n: first.len(),
        auroc: Estimate { value: found.difference, low: found.interval.map(|i| i.0), high: found.interval.map(|i| i.1), note: None },
        p: found.p,
        p_holm: None,
        verdict: Verdict::NoEvidence,
        brier: Estimate { value: brier(&once), low: interval.map(|i| i.0), high: interval.map(|i| i.1), note: None },
        mcnemar: decisions(panel, prepared, [of, against]),
    })
}

fn decisions(panel: &Panel<Test>, prepared: &BTreeMap<Variant, Prepared>, [of, against]: [Variant; 2]) -> Option<McNemar> {
    let right = |variant: Variant| -> Option<Vec<Option<bool>>> {
        let (scores, prepared) = (panel.variants.get(&variant)?, prepared.get(&variant)?);
        let k = panel.n_outputs();
        let of = |i: usize| {
            let (row, example) = (&scores.probability[i * k..(i + 1) * k], panel.examples[i]);
            if !scores.present[i] {
                return Some(None);
            }
            if panel.task.kind == TaskKind::Binary {
                let threshold = prepared.decisions.thresholds.first()?.get(example.fold).copied().flatten()?;
                return Some(Some((row[0] >= threshold) == (example.label == 1)));
            }
            Some(Some(likeliest(row) == example.label))
        };
        (0..panel.examples.len()).map(of).collect()
    };
    let (first, other) = (right(of)?, right(against)?);
    let count = |wanted: (bool, bool)| first.iter().zip(&other).filter(|(a, b)| a.zip(**b) == Some(wanted)).count();
    Some(mcnemar(count((true, false)), count((false, true))))
}
