//! The exact probability of each label given what a reader sees.

use super::factors::{ImageFactors, P_CONSOLIDATION_SIGN, P_EFFUSION_SIGN, RecordFactors};
use super::population::Population;
use super::quadrature::Nodes;
use super::risk;

/// What a reader knows of the image's factors.
pub(crate) struct ImageBelief {
    diameter: Nodes,
    texture: Nodes,
    effusion: Nodes,
    consolidation: Nodes,
    heart_width: Nodes,
}

impl ImageBelief {
    /// Of a reader who sees the image.
    pub(crate) fn seen(image: &ImageFactors) -> Self {
        Self {
            diameter: Nodes::known(image.diameter),
            texture: Nodes::known(image.texture.sign()),
            effusion: Nodes::known(f64::from(image.effusion)),
            consolidation: Nodes::known(f64::from(image.consolidation)),
            heart_width: Nodes::known(image.heart_width),
        }
    }

    /// Of a reader who does not.
    pub(crate) fn unseen(population: &Population) -> Self {
        Self {
            diameter: population.cut_normal.clone(),
            texture: Nodes::weighted(vec![(-1.0, 1.0), (1.0, 1.0)]),
            effusion: Nodes::bernoulli(P_EFFUSION_SIGN),
            consolidation: Nodes::bernoulli(P_CONSOLIDATION_SIGN),
            heart_width: population.cut_normal.clone(),
        }
    }
}

/// What a reader knows of the record's scores. No label depends on two of them, so their dependence through a lab that
/// is missing from both does not matter.
pub(crate) struct RecordBelief {
    malignancy: Nodes,
    stage: Nodes,
    bnp: Nodes,
    crp: Nodes,
}

impl RecordBelief {
    /// Of a reader who sees the record: sums are over the labs that are missing or unusable.
    pub(crate) fn seen(record: &RecordFactors) -> Self {
        let normal = |(mean, variance)| Nodes::normal(mean, variance);
        let single = |z: Option<f64>| z.map_or_else(|| Nodes::normal(0.0, 1.0), Nodes::known);
        let (cea, crp) = (record.cea.visible(), record.crp.visible());
        Self {
            malignancy: normal(risk::malignancy_score(record, cea, crp)),
            stage: normal(risk::stage_score(record.haemoglobin.visible(), cea)),
            bnp: single(record.bnp.visible()),
            crp: single(crp),
        }
    }

    /// Of a reader who does not.
    pub(crate) fn unseen(population: &Population) -> Self {
        Self {
            malignancy: population.malignancy.clone(),
            stage: population.normal.clone(),
            bnp: population.normal.clone(),
            crp: population.normal.clone(),
        }
    }
}

/// Probability of each label.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posterior {
    /// P(malignant).
    pub(crate) malignant: f64,
    /// P(stage I), …, P(stage IV).
    pub(crate) stage: [f64; 4],
    /// P(effusion), P(cardiomegaly), P(consolidation).
    pub(crate) findings: [f64; 3],
    /// P(deterioration within the horizon).
    pub(crate) deterioration: f64,
    /// P(improvement | the treatment that was given). The treatment was chosen by diameter and score, so to who does not
    /// see these it tells of them: mean of response × propensity, over mean of propensity.
    pub(crate) response: f64,
}

impl Posterior {
    pub(crate) fn of(image: &ImageBelief, record: &RecordBelief, treatment: usize) -> Self {
        let over_lesion = |f: &dyn Fn(f64, f64) -> f64| image.texture.mean(|g| image.diameter.mean(|d| f(d, g)));
        let mut stage = [0.0; 4];
        for &(g, weight_g) in &image.texture.0 {
            for &(d, weight_d) in &image.diameter.0 {
                for &(s, weight_s) in &record.stage.0 {
                    for (sum, p) in stage.iter_mut().zip(risk::stage(d, g, s)) {
                        *sum += weight_g * weight_d * weight_s * p;
                    }
                }
            }
        }
        let given = |d: f64, r: f64| {
            let p = risk::propensity(d, r);
            if treatment == 1 { p } else { 1.0 - p }
        };
        let improved = over_lesion(&|d, g| record.malignancy.mean(|r| risk::response(treatment, d, g, r) * given(d, r)));
        let treated = image.diameter.mean(|d| record.malignancy.mean(|r| given(d, r)));
        Self {
            malignant: over_lesion(&|d, g| record.malignancy.mean(|r| risk::malignant(d, g, r))),
            stage,
            findings: [
                image.effusion.mean(|sign| record.bnp.mean(|z| risk::effusion(sign, z))),
                image.heart_width.mean(|width| record.bnp.mean(|z| risk::cardiomegaly(width, z))),
                image.consolidation.mean(|sign| record.crp.mean(|z| risk::consolidation(sign, z))),
            ],
            deterioration: image.effusion.mean(|sign| image.diameter.mean(|d| record.malignancy.mean(|r| risk::deterioration(d, sign, r)))),
            response: improved / treated,
        }
    }
}
