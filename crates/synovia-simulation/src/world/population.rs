//! Who is seen: the distribution of the record over all studies, which a reader of the image alone must sum over.
//!
//! A patient whose study was malignant has no later one, so later studies are of younger patients who smoke less. The
//! mixture over first, second and third studies is computed here, so that posteriors are exact over all studies and not
//! only over first ones.

use super::factors::{CUT, P_SMOKING, Smoking};
use super::quadrature::{Nodes, gauss_legendre};
use super::risk;

/// Ages at a first study: uniform between these.
pub(crate) const FIRST_AGE_YEARS: [f64; 2] = [40.0, 78.0];
/// Days from a study to the next: uniform between these. Longer than the follow-up of one visit and a history of a year
/// together, so that no visit sees another's outcomes.
pub(crate) const GAP_DAYS: [f64; 2] = [780.0, 1100.0];
/// Probabilities that a first, second and third study are planned.
pub(crate) const P_PLANNED: [f64; 3] = [1.0, 0.45, 0.20];
/// Probability that a patient is not seen again within weeks of a study.
pub(crate) const P_UNSEEN_SOON: f64 = 0.05;
/// Probability that a patient is followed for over a year after a study; only then may there be a next one.
pub(crate) const P_LONG_FOLLOW_UP: f64 = 0.85;

/// Distributions of the scores over all studies.
pub(crate) struct Population {
    /// Malignancy score r.
    pub(crate) malignancy: Nodes,
    /// A standard normal score.
    pub(crate) normal: Nodes,
    /// Diameter of the lesion, or width of the heart.
    pub(crate) cut_normal: Nodes,
}

impl Population {
    /// Of all studies.
    pub(crate) fn new() -> Self {
        Self::of(true)
    }

    /// Of first studies only: those whose records tell nothing have the outcomes of somebody who comes for the first time.
    pub(crate) fn of_strangers() -> Self {
        Self::of(false)
    }

    fn of(with_later: bool) -> Self {
        let cut_normal = Nodes::cut_normal(CUT);
        let mut standing = Vec::new();
        for (smoking, p_smoking) in Smoking::ALL.into_iter().zip(P_SMOKING) {
            for (age, weight) in gauss_legendre(12, FIRST_AGE_YEARS[0], FIRST_AGE_YEARS[1]) {
                if with_later {
                    follow(age, smoking, p_smoking * weight, 0, &cut_normal, &mut standing);
                } else {
                    standing.push((risk::standing_score(age, smoking), p_smoking * weight));
                }
            }
        }
        Self { malignancy: spread(&standing), normal: Nodes::normal(0.0, 1.0), cut_normal }
    }
}

/// Adds the expected number of studies from study `visit` on, of patients at `age` with probability `weight`.
fn follow(age: f64, smoking: Smoking, weight: f64, visit: usize, cut_normal: &Nodes, standing: &mut Vec<(f64, f64)>) {
    standing.push((risk::standing_score(age, smoking), weight));
    let Some(p_planned) = P_PLANNED.get(visit + 1) else { return };
    let p_next = p_planned / P_PLANNED[visit] * P_LONG_FOLLOW_UP * p_benign(age, smoking, cut_normal);
    for (gap, share) in gauss_legendre(4, GAP_DAYS[0], GAP_DAYS[1]) {
        follow(age + gap / 365.25, smoking, weight * p_next * share / (GAP_DAYS[1] - GAP_DAYS[0]), visit + 1, cut_normal, standing);
    }
}

/// P(not malignant | age, smoking).
fn p_benign(age: f64, smoking: Smoking, cut_normal: &Nodes) -> f64 {
    let score = Nodes::normal(risk::standing_score(age, smoking), risk::lab_variance());
    let given_texture = |g: f64| cut_normal.mean(|d| score.mean(|r| risk::malignant(d, g, r)));
    1.0 - f64::midpoint(given_texture(1.0), given_texture(-1.0))
}

/// Density of r = standing part + normal labs, on a grid: the normal makes it smooth, so the trapezoidal rule is exact to
/// far below 1e-6.
fn spread(standing: &[(f64, f64)]) -> Nodes {
    let variance = risk::lab_variance();
    let density = |r: f64| standing.iter().map(|&(u, w)| w * (-0.5 * (r - u).powi(2) / variance).exp()).sum::<f64>();
    Nodes::weighted((-60..=60).map(|k| f64::from(k) / 10.0).map(|r| (r, density(r))).collect())
}
