//! Posteriors against label frequencies over tens of thousands of draws, and against brute force.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;
use synovia_cohort::Sex;

use super::config;
use crate::patient::{Patient, Visit};
use crate::world::{ImageBelief, ImageFactors, Lab, LabState, Population, Posterior, RecordBelief, RecordFactors, Smoking, Texture};

const N_PATIENTS: usize = 18_000;
const LABELS: [&str; 10] = ["malignant", "I", "II", "III", "IV", "effusion", "cardiomegaly", "consolidation", "deterioration", "response"];

/// Label and probability of joint, image and record, by [`LABELS`].
type Drawn = [(bool, [f64; 3]); 10];

fn probabilities(p: &Posterior) -> [f64; 10] {
    let [a, b, c, d] = p.stage;
    let [e, f, g] = p.findings;
    [p.malignant, a, b, c, d, e, f, g, p.deterioration, p.response]
}

fn labels(visit: &Visit) -> [bool; 10] {
    let outcomes = &visit.outcomes;
    let [a, b, c, d] = std::array::from_fn(|k| outcomes.stage == k);
    let [e, f, g] = outcomes.findings;
    [outcomes.malignant, a, b, c, d, e, f, g, outcomes.deterioration_days <= 365.0, outcomes.potential[outcomes.treatment]]
}

fn draws() -> Vec<Drawn> {
    let population = Population::new();
    let of_patient = |index: usize| -> Vec<Drawn> {
        let visit = |visit: &Visit| {
            let (image, record) = (ImageBelief::seen(&visit.image), RecordBelief::seen(&visit.record));
            let treatment = visit.outcomes.treatment;
            let joint = probabilities(&Posterior::of(&image, &record, treatment));
            let alone_image = probabilities(&Posterior::of(&image, &RecordBelief::unseen(&population), treatment));
            let alone_record = probabilities(&Posterior::of(&ImageBelief::unseen(&population), &record, treatment));
            let labels = labels(visit);
            std::array::from_fn(|k| (labels[k], [joint[k], alone_image[k], alone_record[k]]))
        };
        Patient::draw(&config(N_PATIENTS), index).visits.iter().map(visit).collect()
    };
    (0..N_PATIENTS).into_par_iter().flat_map_iter(of_patient).collect()
}

/// In each tenth of the draws by probability, labels are as frequent as promised, within 4.5 standard errors.
#[track_caller]
fn check_calibration(name: &str, mut draws: Vec<(f64, bool)>) {
    draws.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (tenth, part) in draws.chunks(draws.len().div_ceil(10)).enumerate() {
        let expected: f64 = part.iter().map(|d| d.0).sum();
        let variance: f64 = part.iter().map(|d| d.0 * (1.0 - d.0)).sum();
        let got = part.iter().filter(|d| d.1).count() as f64;
        // Where the probabilities are all but 0 or 1, a single count is not normal: allow three.
        assert!(
            (got - expected).abs() < 4.5 * variance.sqrt() + 3.0,
            "{name}, tenth {tenth}: {got} labels where {expected:.1} ± {:.1} are expected of {}",
            variance.sqrt(),
            part.len()
        );
    }
}

/// Area under the ROC curve by the rank sum of Mann and Whitney.
fn auroc(draws: impl Iterator<Item = (f64, bool)>) -> f64 {
    let mut draws: Vec<_> = draws.collect();
    draws.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = draws.iter().filter(|d| d.1).count() as f64;
    let mut ranks = 0.0;
    let mut k = 0;
    while k < draws.len() {
        let tied = draws[k..].iter().take_while(|d| d.0 == draws[k].0).count();
        let rank = k as f64 + f64::midpoint(tied as f64, 1.0);
        ranks += rank * draws[k..k + tied].iter().filter(|d| d.1).count() as f64;
        k += tied;
    }
    (ranks - positives * (positives + 1.0) / 2.0) / (positives * (draws.len() as f64 - positives))
}

#[test]
fn posteriors_are_calibrated_and_ordered() {
    let draws = draws();
    assert!(draws.len() > 20_000);
    for (k, label) in LABELS.into_iter().enumerate() {
        let variants = ["joint", "image", "record"];
        let scores: Vec<f64> = variants
            .iter()
            .enumerate()
            .map(|(v, variant)| {
                check_calibration(&format!("{label} given {variant}"), draws.iter().map(|d| (d[k].1[v], d[k].0)).collect());
                auroc(draws.iter().map(|d| (d[k].1[v], d[k].0)))
            })
            .collect();
        let gain = if matches!(label, "malignant") { 0.12 } else { 0.02 };
        assert!(scores[0] > scores[1].max(scores[2]) + gain, "{label}: {scores:.3?}");
        assert!(scores[1].min(scores[2]) > 0.53, "{label}: {scores:.3?}");
    }
    let score = |v: usize| auroc(draws.iter().map(|d| (d[0].1[v], d[0].0)));
    let prevalence = draws.iter().filter(|d| d[0].0).count() as f64 / draws.len() as f64;
    for (name, value, low, high) in [
        ("joint", score(0), 0.93, 0.95),
        ("image", score(1), 0.74, 0.78),
        ("record", score(2), 0.72, 0.78),
        ("prevalence", prevalence, 0.35, 0.45),
    ] {
        assert!((low..high).contains(&value), "{name}: {value:.4} is not in {low}..{high}");
    }
}

/// Neither the record alone nor the image alone can be added up to the joint answer: the effect of the score changes with
/// the texture.
#[test]
fn malignancy_needs_the_interaction() {
    let image = |texture| ImageFactors { diameter: 0.0, texture, effusion: false, consolidation: false, heart_width: 0.0 };
    let logit = |texture, z| {
        let p =
            Posterior::of(&ImageBelief::seen(&image(texture)), &RecordBelief::seen(&record([Some(z), Some(z), None, None])), 0).malignant;
        (p / (1.0 - p)).ln()
    };
    let slope = |texture| (logit(texture, 0.5) - logit(texture, -0.5)) / 1.1;
    assert!(slope(Texture::Solid) > 20.0 * slope(Texture::Cavitated).abs());
}

fn record(labs: [Option<f64>; 4]) -> RecordFactors {
    let [cea, crp, haemoglobin, bnp] = labs.map(|z| match z {
        Some(z) => Lab { z, state: LabState::Measured },
        // The true value must not matter.
        None => Lab { z: 3.0, state: LabState::Missing },
    });
    RecordFactors { age_years: 71.5, sex: Sex::Female, smoking: Smoking::Former, cea, crp, haemoglobin, bnp }
}

/// The posterior of a reader who sees only the image is the mean, over the records of all studies, of the one who sees
/// both: over 25,000 drawn records, within 5 standard errors.
#[test]
fn image_alone_is_the_mean_over_records() {
    let population = Population::new();
    let records: Vec<RecordFactors> = (0..N_PATIENTS)
        .into_par_iter()
        .flat_map_iter(|index| Patient::draw(&config(N_PATIENTS), index).visits.into_iter().map(|visit| visit.record).collect::<Vec<_>>())
        .collect();
    for (diameter, texture, effusion) in
        [(-1.2, Texture::Solid, false), (0.3, Texture::Cavitated, true), (1.7, Texture::Solid, true), (0.0, Texture::Cavitated, false)]
    {
        let image = ImageBelief::seen(&ImageFactors { diameter, texture, effusion, consolidation: effusion, heart_width: 0.5 * diameter });
        let alone = probabilities(&Posterior::of(&image, &RecordBelief::unseen(&population), 0));
        let joint: Vec<[f64; 10]> =
            records.par_iter().map(|record| probabilities(&Posterior::of(&image, &RecordBelief::seen(record), 0))).collect();
        // The last, response, also learns from the treatment: its mean would need weights; calibration covers it.
        for k in 0..9 {
            let n = joint.len() as f64;
            let mean = joint.iter().map(|p| p[k]).sum::<f64>() / n;
            let variance = joint.iter().map(|p| (p[k] - mean).powi(2)).sum::<f64>() / (n - 1.0);
            assert!((mean - alone[k]).abs() < 5.0 * (variance / n).sqrt() + 1e-9, "{}: {mean} over records, {} alone", LABELS[k], alone[k]);
        }
    }
}

/// With labs missing, the posterior is the mean over what they might have been.
#[test]
fn missing_labs_are_summed_over() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for labs in [[None, Some(0.4), Some(-1.0), Some(0.2)], [Some(-0.3), None, None, Some(1.0)], [None, None, None, None]] {
        let image = ImageFactors { diameter: 0.4, texture: Texture::Solid, effusion: true, consolidation: false, heart_width: -0.7 };
        let image = ImageBelief::seen(&image);
        let got = probabilities(&Posterior::of(&image, &RecordBelief::seen(&record(labs)), 1));
        let n = 40_000;
        let (mut sums, mut squares) = ([0.0; 10], [0.0; 10]);
        for _ in 0..n {
            let filled = labs.map(|lab| Some(lab.unwrap_or_else(|| rng.sample(StandardNormal))));
            let p = probabilities(&Posterior::of(&image, &RecordBelief::seen(&record(filled)), 1));
            for k in 0..10 {
                sums[k] += p[k];
                squares[k] += p[k] * p[k];
            }
        }
        for k in 0..9 {
            let mean = sums[k] / f64::from(n);
            let error = ((squares[k] / f64::from(n) - mean * mean).max(0.0) / f64::from(n)).sqrt();
            assert!((mean - got[k]).abs() < 5.0 * error + 1e-9, "{}: {mean} by brute force, {}", LABELS[k], got[k]);
        }
    }
}

/// Individual effects exist, and the plain difference of outcomes between the treated and the others is not their mean.
#[test]
fn treatment_is_confounded_and_its_effect_varies() {
    let outcomes: Vec<_> =
        (0..N_PATIENTS).into_par_iter().map(|k| Patient::draw(&config(N_PATIENTS), k).visits.remove(0).outcomes).collect();
    let mean = |x: &mut dyn Iterator<Item = f64>| {
        let (sum, n) = x.fold((0.0, 0.0), |(sum, n), x| (sum + x, n + 1.0));
        sum / n
    };
    let effect = mean(&mut outcomes.iter().map(|o| o.risk[1] - o.risk[0]));
    let drawn = mean(&mut outcomes.iter().map(|o| f64::from(u8::from(o.potential[1])) - f64::from(u8::from(o.potential[0]))));
    assert!((effect - drawn).abs() < 0.025, "{effect} {drawn}");
    let under = |t: usize| mean(&mut outcomes.iter().filter(|o| o.treatment == t).map(|o| f64::from(u8::from(o.potential[t]))));
    let naive = under(1) - under(0);
    assert!(effect - naive > 0.08, "naive {naive}, true {effect}");
    let harmed = mean(&mut outcomes.iter().map(|o| f64::from(u8::from(o.risk[1] < o.risk[0]))));
    assert!((0.2..0.6).contains(&harmed), "{harmed}");
}
