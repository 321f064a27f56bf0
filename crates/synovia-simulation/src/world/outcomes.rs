//! What becomes of a patient after a study.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;

use super::factors::{ImageFactors, RecordFactors};
use super::population::{P_LONG_FOLLOW_UP, P_UNSEEN_SOON};
use super::risk;

/// Every label of a visit, drawn given the true factors.
#[derive(Clone, Debug)]
pub(crate) struct Outcomes {
    /// Malignant.
    pub(crate) malignant: bool,
    /// Stage, 0 to 3 for I to IV.
    pub(crate) stage: usize,
    /// Effusion, cardiomegaly, consolidation.
    pub(crate) findings: [bool; 3],
    /// True time of deterioration in days, observed or not.
    pub(crate) deterioration_days: f64,
    /// Last contact in days, independent of all else.
    pub(crate) follow_up_days: f64,
    /// Treatment given, 0 or 1.
    pub(crate) treatment: usize,
    /// Improvement under treatment 0 and under treatment 1.
    pub(crate) potential: [bool; 2],
    /// Its probability under each.
    pub(crate) risk: [f64; 2],
}

impl Outcomes {
    pub(crate) fn draw(image: &ImageFactors, record: &RecordFactors, rng: &mut ChaCha8Rng) -> Self {
        let (d, g, effusion_sign) = (image.diameter, image.texture.sign(), f64::from(image.effusion));
        let (r, _) = risk::malignancy_score(record, Some(record.cea.z), Some(record.crp.z));
        let (s, _) = risk::stage_score(Some(record.haemoglobin.z), Some(record.cea.z));
        let mut happens = |p: f64| rng.random::<f64>() < p;
        let malignant = happens(risk::malignant(d, g, r));
        let findings = [
            happens(risk::effusion(effusion_sign, record.bnp.z)),
            happens(risk::cardiomegaly(image.heart_width, record.bnp.z)),
            happens(risk::consolidation(f64::from(image.consolidation), record.crp.z)),
        ];
        let treatment = usize::from(happens(risk::propensity(d, r)));
        let risk = [0, 1].map(|treatment| risk::response(treatment, d, g, r));
        let potential = risk.map(happens);
        let stage = {
            let u: f64 = rng.random();
            let [first, second, third, _] = risk::stage(d, g, s);
            [first, first + second, first + second + third].iter().filter(|&&bound| u >= bound).count()
        };
        let deterioration_days = risk::time_of_hazard(rng.sample(Exp1), d, effusion_sign, r);
        let follow_up_days = {
            let u: f64 = rng.random();
            if u < P_UNSEEN_SOON {
                rng.random_range(1.0..19.0)
            } else if u < 1.0 - P_LONG_FOLLOW_UP {
                rng.random_range(200.0..365.0)
            } else {
                rng.random_range(366.0..398.0)
            }
        };
        Self { malignant, stage, findings, deterioration_days, follow_up_days, treatment, potential, risk }
    }

    /// Whether the patient comes to the next study, if one is planned.
    pub(crate) fn stays(&self) -> bool {
        !self.malignant && self.follow_up_days >= risk::HORIZON_DAYS
    }

    /// Deterioration within the horizon, by its true time.
    pub(crate) fn deteriorates(&self) -> bool {
        self.deterioration_days <= risk::HORIZON_DAYS
    }

    /// Deterioration before the last contact.
    pub(crate) fn deterioration_observed(&self) -> bool {
        self.deterioration_days <= self.follow_up_days
    }
}
