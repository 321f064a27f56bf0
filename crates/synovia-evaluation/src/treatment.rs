//! How good estimated effects of a treatment are, and what a policy that follows them is worth.

use serde::{Deserialize, Serialize};

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanEstimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
}

/// √ of the precision in estimating heterogeneous effects (Hill 2011): √ mean (τ̂ − τ)², where true effects are known, as in a
/// simulation. `None` without examples or where lengths differ.
///
/// # Shapes
/// - estimated, truth: `[n]`
pub fn pehe(estimated: &[f64], truth: &[f64]) -> Option<f64> {
    let n = truth.len();
    (n > 0 && estimated.len() == n).then(|| (estimated.iter().zip(truth).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / n as f64).sqrt())
}

/// |mean τ̂ − mean τ|. `None` without examples or where lengths differ.
///
/// # Shapes
/// - estimated, truth: `[n]`
pub fn average_effect_error(estimated: &[f64], truth: &[f64]) -> Option<f64> {
    let n = truth.len();
    (n > 0 && estimated.len() == n).then(|| ((estimated.iter().sum::<f64>() - truth.iter().sum::<f64>()) / n as f64).abs())
}

/// One patient under one of two treatments, with what models of the outcome and of the assignment say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Treated {
    /// What happened; more is better.
    pub outcome: f64,
    /// Whether treated.
    pub treated: bool,
    /// Modelled probability of being treated, in (0, 1).
    pub propensity: f64,
    /// Modelled outcomes without and with the treatment.
    pub modelled: [f64; 2],
}

impl Treated {
    /// The doubly robust score of the outcome under an arm (Robins, Rotnitzky & Zhao 1994): right on average where either model
    /// is.
    fn score(&self, treat: bool) -> f64 {
        let modelled = self.modelled[usize::from(treat)];
        let chance = if treat { self.propensity } else { 1.0 - self.propensity };
        modelled + if self.treated == treat { (self.outcome - modelled) / chance } else { 0.0 }
    }

    fn usable(&self) -> bool {
        self.propensity > 0.0 && self.propensity < 1.0
    }
}

/// Mean outcome if patients were treated as `policy` has it, doubly robust (Dudík, Langford & Li 2011). `None` for fewer than
/// two patients, or one who could not have been treated otherwise.
///
/// # Shapes
/// - patients, policy: `[n]`
pub fn policy_value(patients: &[Treated], policy: &[bool]) -> Option<MeanEstimate> {
    (policy.len() == patients.len()).then_some(())?;
    mean_of(patients, |k, patient| patient.score(policy[k]))
}

/// Mean effect of the treatment, doubly robust. `None` as [`policy_value`].
///
/// # Shapes
/// - patients: `[n]`
pub fn average_effect(patients: &[Treated]) -> Option<MeanEstimate> {
    mean_of(patients, |_, patient| patient.score(true) - patient.score(false))
}

fn mean_of(patients: &[Treated], score: impl Fn(usize, &Treated) -> f64) -> Option<MeanEstimate> {
    let n = patients.len() as f64;
    if patients.len() < 2 || !patients.iter().all(Treated::usable) {
        return None;
    }
    let scores: Vec<f64> = patients.iter().enumerate().map(|(k, patient)| score(k, patient)).collect();
    let value = scores.iter().sum::<f64>() / n;
    let variance = scores.iter().map(|s| (s - value).powi(2)).sum::<f64>() / (n - 1.0);
    Some(MeanEstimate { value, standard_error: (variance / n).sqrt() })
}

/// A point of a curve over the patients with the largest estimated effects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpliftPoint {
    /// How many patients.
    pub n: usize,
    /// Of a Qini curve: additional good outcomes, Yₜ − Y꜀ nₜ / n꜀ (Radcliffe 2007). Of an uplift curve: (Yₜ / nₜ − Y꜀ / n꜀) n.
    pub gain: f64,
}

/// Which curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpliftCurve {
    /// Radcliffe's, on the scale of treated patients.
    Qini,
    /// On the scale of all patients.
    Uplift,
}

/// The curve from (0, 0), a point a distinct effect; of randomised treatment, for nothing is adjusted for. Empty where lengths
/// differ.
///
/// # Shapes
/// - effect, outcome, treated: `[n]`
pub fn uplift_curve(effect: &[f64], outcome: &[f64], treated: &[bool], which: UpliftCurve) -> Vec<UpliftPoint> {
    if outcome.len() != effect.len() || treated.len() != effect.len() {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..effect.len()).collect();
    order.sort_unstable_by(|&a, &b| effect[b].total_cmp(&effect[a]));
    let mut curve = vec![UpliftPoint { n: 0, gain: 0.0 }];
    let (mut n_treated, mut n_control, mut y_treated, mut y_control) = (0.0, 0.0, 0.0, 0.0);
    for group in order.chunk_by(|&a, &b| effect[a] == effect[b]) {
        for &i in group {
            if treated[i] {
                n_treated += 1.0;
                y_treated += outcome[i];
            } else {
                n_control += 1.0;
                y_control += outcome[i];
            }
        }
        let mean = |sum: f64, n: f64| if n > 0.0 { sum / n } else { 0.0 };
        let n = n_treated + n_control;
        let gain = match which {
            UpliftCurve::Qini => y_treated - n_treated * mean(y_control, n_control),
            UpliftCurve::Uplift => (mean(y_treated, n_treated) - mean(y_control, n_control)) * n,
        };
        curve.push(UpliftPoint { n: n as usize, gain });
    }
    curve
}

/// Area between the Qini curve and the line of random choice, over that of perfect choice (Radcliffe 2007), for outcomes 0 and
/// 1. `None` where perfect choice is no better than random.
///
/// # Shapes
/// - effect, outcome, treated: `[n]`
pub fn qini_coefficient(effect: &[f64], outcome: &[f64], treated: &[bool]) -> Option<f64> {
    let area = |curve: &[UpliftPoint]| -> f64 { curve.windows(2).map(|p| (p[1].n - p[0].n) as f64 * 0.5 * (p[0].gain + p[1].gain)).sum() };
    let curve = uplift_curve(effect, outcome, treated, UpliftCurve::Qini);
    // Best first: who is treated and well; worst last: who is well without.
    let perfect: Vec<f64> = outcome.iter().zip(treated).map(|(&y, &t)| if t { y } else { -y }).collect();
    let perfect = uplift_curve(&perfect, outcome, treated, UpliftCurve::Qini);
    let random = 0.5 * effect.len() as f64 * perfect.last()?.gain;
    let best = area(&perfect) - random;
    (best > 0.0).then(|| (area(&curve) - random) / best)
}
