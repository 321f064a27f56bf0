//! The equations from factors to outcomes. Each takes scores, so that the same code serves the draw (true scores) and the
//! posteriors (sums over scores). Coefficients of `malignant` were tuned so that the best AUROC is about 0.94 with both
//! modalities and about 0.76 with either; a test holds them there.

use super::factors::{RecordFactors, Smoking};
use super::population::FIRST_AGE_YEARS;

/// Weights of CEA, CRP, smoking and age in the malignancy score r; their squares add to one.
const MALIGNANCY: [f64; 4] = [0.6, 0.5, 0.48, 0.4];
/// Weights of low haemoglobin and CEA in the stage score s; their squares add to one.
const STAGE: [f64; 2] = [0.8, 0.6];
/// Thresholds of the cumulative logit of stages I to IV.
const STAGE_THRESHOLDS: [f64; 3] = [-1.3, 0.3, 1.9];
/// Horizon of `deterioration`, in days.
pub(crate) const HORIZON_DAYS: f64 = 365.0;
/// Shape of the Weibull time to deterioration: the hazard rises a little.
const WEIBULL_SHAPE: f64 = 1.2;

/// 1 / (1 + e⁻ˣ).
pub(crate) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Age standardised by the uniform distribution of ages at a first study.
pub(crate) fn standardised_age(age_years: f64) -> f64 {
    let [low, high] = FIRST_AGE_YEARS;
    (age_years - f64::midpoint(low, high)) * 12f64.sqrt() / (high - low)
}

/// The part of the malignancy score r that age and smoking make.
pub(crate) fn standing_score(age_years: f64, smoking: Smoking) -> f64 {
    MALIGNANCY[2] * smoking.standardised() + MALIGNANCY[3] * standardised_age(age_years)
}

/// Variance of the part of r that the labs make.
pub(crate) fn lab_variance() -> f64 {
    MALIGNANCY[0].powi(2) + MALIGNANCY[1].powi(2)
}

/// Mean and variance of r, given what of the labs is visible.
pub(crate) fn malignancy_score(record: &RecordFactors, cea: Option<f64>, crp: Option<f64>) -> (f64, f64) {
    let (mean, variance) = combine([(MALIGNANCY[0], cea), (MALIGNANCY[1], crp)]);
    (mean + standing_score(record.age_years, record.smoking), variance)
}

/// Mean and variance of s, given what of the labs is visible.
pub(crate) fn stage_score(haemoglobin: Option<f64>, cea: Option<f64>) -> (f64, f64) {
    combine([(-STAGE[0], haemoglobin), (STAGE[1], cea)])
}

/// Σ wz over visible standard normals, and Σ w² over the others.
fn combine(terms: [(f64, Option<f64>); 2]) -> (f64, f64) {
    terms.iter().fold((0.0, 0.0), |(mean, variance), &(w, z)| match z {
        Some(z) => (mean + w * z, variance),
        None => (mean, variance + w * w),
    })
}

/// P(malignant) from diameter d, texture g = ±1 and score r. A solid lesion (g = 1) is decided by the record (slope
/// 3.9 + 3.8), a cavitated one (g = −1) hardly (3.9 − 3.8): neither modality shows which, and how far, alone.
pub(crate) fn malignant(d: f64, g: f64, r: f64) -> f64 {
    logistic(-0.45 + 2.0 * d + 1.0 * g + 3.9 * r + 3.8 * g * r)
}

/// P(stage I), …, P(stage IV): cumulative logit in diameter, texture and score s.
pub(crate) fn stage(d: f64, g: f64, s: f64) -> [f64; 4] {
    let [a, b, c] = STAGE_THRESHOLDS.map(|threshold| logistic(threshold - (1.3 * d + 0.4 * g + 1.3 * s)));
    [a, b - a, c - b, 1.0 - c]
}

/// P(effusion) from its sign (0 or 1) and NT-proBNP.
pub(crate) fn effusion(sign: f64, bnp: f64) -> f64 {
    logistic(-2.2 + 3.0 * sign + 1.3 * bnp)
}

/// P(cardiomegaly) from the heart's width and NT-proBNP.
pub(crate) fn cardiomegaly(heart_width: f64, bnp: f64) -> f64 {
    logistic(-1.2 + 1.9 * heart_width + 1.3 * bnp)
}

/// P(consolidation) from its sign (0 or 1) and CRP.
pub(crate) fn consolidation(sign: f64, crp: f64) -> f64 {
    logistic(-2.2 + 3.0 * sign + 1.3 * crp)
}

/// Cumulative hazard of deterioration up to `days`: Weibull with proportional hazards in d, r and the sign of effusion.
pub(crate) fn cumulative_hazard(days: f64, d: f64, effusion_sign: f64, r: f64) -> f64 {
    0.22 * (0.6 * d + 0.8 * r + 0.7 * effusion_sign).exp() * (days / HORIZON_DAYS).powf(WEIBULL_SHAPE)
}

/// The time at which [`cumulative_hazard`] reaches `hazard`, in days.
pub(crate) fn time_of_hazard(hazard: f64, d: f64, effusion_sign: f64, r: f64) -> f64 {
    HORIZON_DAYS * (hazard / cumulative_hazard(HORIZON_DAYS, d, effusion_sign, r)).powf(1.0 / WEIBULL_SHAPE)
}

/// P(deterioration within the horizon).
pub(crate) fn deterioration(d: f64, effusion_sign: f64, r: f64) -> f64 {
    -(-cumulative_hazard(HORIZON_DAYS, d, effusion_sign, r)).exp_m1()
}

/// P(treatment 1): the worse the patient, the more likely, so that a plain comparison of outcomes misleads.
pub(crate) fn propensity(d: f64, r: f64) -> f64 {
    logistic(0.7 * d + 0.9 * r)
}

/// P(improvement) under treatment 0 or 1. Treatment 1 helps in solid lesions and harms in some cavitated ones.
pub(crate) fn response(treatment: usize, d: f64, g: f64, r: f64) -> f64 {
    let effect = if treatment == 1 { 0.5 + 0.9 * g - 0.4 * r } else { 0.0 };
    logistic(0.3 - 0.6 * d - 0.6 * r + effect)
}
