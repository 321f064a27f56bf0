//! Resampling of patients: the same draws for any number of threads.

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::normal;

/// How often a patient was drawn.
pub(crate) type Weight = u16;

/// Groups of the delete-a-group jackknife: more would not change the acceleration by what anybody sees.
const MOST_GROUPS: usize = 200;

/// Calls `measure` with the weight of each patient in `n` bootstrap samples, in parallel, and returns the results in
/// order of the sample.
///
/// A sample draws patients with replacement, as many as there are, within each fold; all examples of a drawn patient come
/// along (cluster bootstrap: Field & Welsh 2007), so that several examples of one patient do not pass for independent ones.
/// Sample k draws from stream k of one ChaCha8 key: which thread draws it does not matter.
pub(crate) fn resample<T: Send>(patients_by_fold: &[usize], n: usize, seed: u64, measure: impl Fn(&[Weight]) -> T + Sync) -> Vec<T> {
    let n_patients: usize = patients_by_fold.iter().sum();
    (0..n as u64)
        .into_par_iter()
        .map_init(
            || vec![0; n_patients],
            |weights: &mut Vec<Weight>, sample| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(sample);
                weights.fill(0);
                let mut rest = weights.as_mut_slice();
                for &n_patients in patients_by_fold {
                    let (of_fold, others) = rest.split_at_mut(n_patients);
                    for _ in 0..n_patients {
                        let drawn = &mut of_fold[rng.random_range(0..n_patients as u32) as usize];
                        *drawn = drawn.saturating_add(1);
                    }
                    rest = others;
                }
                measure(weights)
            },
        )
        .collect()
}

/// Calls `measure` with each group of patients left out in turn: each patient, or where there are many, each of
/// [`MOST_GROUPS`] groups of them. Groups of one size leave the acceleration as it is (Efron & Tibshirani 1993, 11.5).
pub(crate) fn jackknife<T: Send>(patients_by_fold: &[usize], measure: impl Fn(&[Weight]) -> T + Sync) -> Vec<T> {
    let n_patients: usize = patients_by_fold.iter().sum();
    let n_groups = n_patients.min(MOST_GROUPS);
    let left_out = |group: usize| -> T {
        let weights: Vec<Weight> = (0..n_patients).map(|patient| Weight::from(patient % n_groups != group)).collect();
        measure(&weights)
    };
    (0..n_groups).into_par_iter().map(left_out).collect()
}

/// The bias-corrected and accelerated interval (Efron, JASA 1987) of `value` from its bootstrap `samples` and its values with
/// parts `left_out`; samples equal to the value count by half. Where the value lies outside all samples there is nothing to
/// correct by, and it is the percentile interval. `None` without samples.
pub(crate) fn bca_interval(value: f64, samples: &mut [f64], left_out: &[f64], level: f64) -> Option<(f64, f64)> {
    let n = samples.len() as f64;
    let below = samples.iter().map(|s| if *s < value { 1.0 } else { 0.5 * f64::from(u8::from(*s == value)) }).sum::<f64>();
    let bias = normal::quantile(below / n);
    let mean = left_out.iter().sum::<f64>() / left_out.len().max(1) as f64;
    let power = |k: i32| left_out.iter().map(|x| (mean - x).powi(k)).sum::<f64>();
    let (squares, cubes) = (power(2), power(3));
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 };
    let moved = |z: f64| normal::cdf(bias + (bias + z) / (1.0 - acceleration * (bias + z)));
    let z = normal::two_sided_z(level);
    let (low, high) = if bias.is_finite() { (moved(-z), moved(z)) } else { (0.5 * (1.0 - level), 0.5 * (1.0 + level)) };
    samples.sort_unstable_by(f64::total_cmp);
    Some((quantile(samples, low)?, quantile(samples, high)?))
}

/// A quantile of sorted values by linear interpolation between order statistics; `None` without values.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q.clamp(0.0, 1.0) * last as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (at - below as f64) * (sorted[above] - sorted[below]))
}

/// The central interval that holds `level` of `values` (percentile method, Efron 1979), by linear interpolation between
/// order statistics; `None` without values.
pub(crate) fn percentile_interval(values: &mut [f64], level: f64) -> Option<(f64, f64)> {
    values.sort_unstable_by(f64::total_cmp);
    Some((quantile(values, 0.5 * (1.0 - level))?, quantile(values, 0.5 * (1.0 + level))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_agree_with_numpy() {
        // numpy: np.quantile([3.0, 1.0, 2.0, 10.0, 4.0], [0.025, 0.975])
        let (low, high) = percentile_interval(&mut [3.0, 1.0, 2.0, 10.0, 4.0], 0.95).unwrap();
        assert!((low - 1.1).abs() < 1e-12 && (high - 9.4).abs() < 1e-12);
        assert_eq!(percentile_interval(&mut [], 0.95), None);
    }

    #[test]
    fn each_fold_keeps_its_size() {
        for weights in resample(&[3, 0, 5], 50, 7, <[Weight]>::to_vec) {
            assert_eq!((weights[..3].iter().sum::<Weight>(), weights[3..].iter().sum::<Weight>()), (3, 5));
        }
    }

    #[test]
    fn draws_have_the_mean_and_variance_of_a_bootstrap() {
        // A patient's weight is Binomial(n, 1/n): mean 1, variance 1 − 1/n.
        let n = 20;
        let all = resample(&[n], 4000, 3, |weights| f64::from(weights[0]));
        let mean = all.iter().sum::<f64>() / 4000.0;
        let variance = all.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / 4000.0;
        assert!((mean - 1.0).abs() < 0.06 && (variance - 0.95).abs() < 0.12, "{mean} {variance}");
    }
}
