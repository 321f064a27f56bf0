//! Resampling of patients: the same draws for any number of threads.

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Calls `measure` with the weight of each patient in `n` bootstrap samples, in parallel, and returns the results in
/// order of the sample.
///
/// A sample draws patients with replacement, as many as there are, within each fold; all examples of a drawn patient come
/// along (cluster bootstrap: Field & Welsh 2007), so that several examples of one patient do not pass for independent ones.
/// Sample k draws from stream k of one ChaCha8 key: which thread draws it does not matter.
pub(crate) fn resample<T: Send>(patients_by_fold: &[usize], n: usize, seed: u64, measure: impl Fn(&[f64]) -> T + Sync) -> Vec<T> {
    (0..n as u64)
        .into_par_iter()
        .map(|sample| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(sample);
            let mut weights = vec![0.0; patients_by_fold.iter().sum()];
            let mut start = 0;
            for &n_patients in patients_by_fold {
                for _ in 0..n_patients {
                    weights[start + rng.random_range(0..n_patients as u64) as usize] += 1.0;
                }
                start += n_patients;
            }
            measure(&weights)
        })
        .collect()
}

/// The central interval that holds `level` of `values` (percentile method, Efron 1979), by linear interpolation between
/// order statistics; `None` without values.
pub(crate) fn percentile_interval(values: &mut [f64], level: f64) -> Option<(f64, f64)> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let quantile = |q: f64| {
        let at = q * last as f64;
        let below = at.floor() as usize;
        let above = (below + 1).min(last);
        values[below] + (at - below as f64) * (values[above] - values[below])
    };
    Some((quantile(0.5 * (1.0 - level)), quantile(0.5 * (1.0 + level))))
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
        for weights in resample(&[3, 0, 5], 50, 7, <[f64]>::to_vec) {
            assert_eq!((weights[..3].iter().sum::<f64>(), weights[3..].iter().sum::<f64>()), (3.0, 5.0));
        }
    }

    #[test]
    fn draws_have_the_mean_and_variance_of_a_bootstrap() {
        // A patient's weight is Binomial(n, 1/n): mean 1, variance 1 − 1/n.
        let n = 20;
        let all = resample(&[n], 4000, 3, |weights| weights[0]);
        let mean = all.iter().sum::<f64>() / 4000.0;
        let variance = all.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / 4000.0;
        assert!((mean - 1.0).abs() < 0.06 && (variance - 0.95).abs() < 0.12, "{mean} {variance}");
    }
}
