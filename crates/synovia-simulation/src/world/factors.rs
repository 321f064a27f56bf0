//! What is true of a patient at a visit: what the image shows, and what the record shows.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use synovia_cohort::Sex;

/// Bound of the standardised diameter and heart width, in standard deviations of the normal that is cut there.
pub(crate) const CUT: f64 = 2.0;
/// Probability of a sign of effusion in the image.
pub(crate) const P_EFFUSION_SIGN: f64 = 0.25;
/// Probability of a sign of consolidation in the image.
pub(crate) const P_CONSOLIDATION_SIGN: f64 = 0.25;
/// Probabilities of never, former and current smoking.
pub(crate) const P_SMOKING: [f64; 3] = [0.40, 0.35, 0.25];
/// Probability that an informative lab was not measured.
const P_LAB_MISSING: f64 = 0.10;
/// Probability that a lab has a unit from which its value can't be known.
const P_LAB_UNUSABLE: f64 = 0.01;

/// Texture of the lesion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Texture {
    /// A filled disc, g = +1.
    Solid,
    /// A bright rim round a dark centre, g = −1.
    Cavitated,
}

impl Texture {
    /// g in the risk equations.
    pub(crate) fn sign(self) -> f64 {
        if self == Self::Solid { 1.0 } else { -1.0 }
    }
}

/// What a radiograph shows, independent of the record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageFactors {
    /// Diameter of the lesion: standard normal cut to ±2.
    pub(crate) diameter: f64,
    /// Texture of the lesion, either with probability ½.
    pub(crate) texture: Texture,
    /// Sign of pleural effusion: a blunted, bright lung base.
    pub(crate) effusion: bool,
    /// Sign of consolidation: a cloudy patch.
    pub(crate) consolidation: bool,
    /// Width of the heart: standard normal cut to ±2.
    pub(crate) heart_width: f64,
}

impl ImageFactors {
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            diameter: cut_normal(rng),
            texture: if rng.random_bool(0.5) { Texture::Solid } else { Texture::Cavitated },
            effusion: rng.random_bool(P_EFFUSION_SIGN),
            consolidation: rng.random_bool(P_CONSOLIDATION_SIGN),
            heart_width: cut_normal(rng),
        }
    }
}

fn cut_normal(rng: &mut ChaCha8Rng) -> f64 {
    loop {
        let x: f64 = rng.sample(StandardNormal);
        if x.abs() <= CUT {
            return x;
        }
    }
}

/// Smoking status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Smoking {
    /// Never smoked.
    Never,
    /// Stopped.
    Former,
    /// Smokes.
    Current,
}

impl Smoking {
    pub(crate) const ALL: [Self; 3] = [Self::Never, Self::Former, Self::Current];

    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let u: f64 = rng.random();
        if u < P_SMOKING[0] {
            Self::Never
        } else if u < P_SMOKING[0] + P_SMOKING[1] {
            Self::Former
        } else {
            Self::Current
        }
    }

    /// 0, 1 or 2 standardised to mean 0 and variance 1 among patients.
    pub(crate) fn standardised(self) -> f64 {
        let [_, former, current] = P_SMOKING;
        let mean = former + 2.0 * current;
        let variance = former + 4.0 * current - mean * mean;
        (f64::from(self as u8) - mean) / variance.sqrt()
    }
}

/// Whether a lab's value can be known from the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabState {
    /// Measured.
    Measured,
    /// Not measured.
    Missing,
    /// In the chart with an unusable unit and a number that has nothing to do with the value.
    Unusable,
}

/// A lab whose standardised value is drawn anew at each visit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lab {
    /// Standard normal.
    pub(crate) z: f64,
    /// Whether it can be known.
    pub(crate) state: LabState,
}

impl Lab {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let z = rng.sample(StandardNormal);
        let u: f64 = rng.random();
        let state = if u < P_LAB_MISSING {
            LabState::Missing
        } else if u < P_LAB_MISSING + P_LAB_UNUSABLE {
            LabState::Unusable
        } else {
            LabState::Measured
        };
        Self { z, state }
    }

    /// The value, if the chart tells it.
    pub(crate) fn visible(self) -> Option<f64> {
        (self.state == LabState::Measured).then_some(self.z)
    }
}

/// What a record shows, independent of the image. Age, sex and smoking are the patient's and always recorded; the labs are
/// the visit's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordFactors {
    /// Age at the study.
    pub(crate) age_years: f64,
    /// Sex: shifts haemoglobin and nothing else.
    pub(crate) sex: Sex,
    /// Smoking status.
    pub(crate) smoking: Smoking,
    /// Carcinoembryonic antigen.
    pub(crate) cea: Lab,
    /// C-reactive protein.
    pub(crate) crp: Lab,
    /// Haemoglobin, relative to the patient's sex.
    pub(crate) haemoglobin: Lab,
    /// NT-proBNP.
    pub(crate) bnp: Lab,
}

impl RecordFactors {
    pub(crate) fn draw(age_years: f64, sex: Sex, smoking: Smoking, rng: &mut ChaCha8Rng) -> Self {
        let [cea, crp, haemoglobin, bnp] = std::array::from_fn(|_| Lab::draw(rng));
        Self { age_years, sex, smoking, cea, crp, haemoglobin, bnp }
    }
}
