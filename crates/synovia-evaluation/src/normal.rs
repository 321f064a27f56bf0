//! The normal distribution's tails.

use std::f64::consts::PI;

/// Two-sided p of a standard normal deviate: P(|Z| ≥ |z|) = erfc(|z| / √2).
///
/// The series of erf (Abramowitz & Stegun 7.1.6) near 0 and the continued fraction of erfc (7.1.14) in the tail keep
/// the relative error under 1e-12, which a p of 1e-30 needs as much as one of 0.5.
pub(crate) fn two_sided_p(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    if x < 2.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        1.0 - 2.0 / PI.sqrt() * (-x * x).exp() * sum
    } else {
        // erfc(x) = e^(−x²)/√π · 1/(x + ½/(x + 1/(x + 3⁄2/(x + …)))), from the far end.
        let tail = (1..=120).rev().fold(x, |below, k| x + 0.5 * f64::from(k) / below);
        (-x * x).exp() / PI.sqrt() / tail
    }
}

/// The deviate z with P(|Z| ≤ z) = `level`, by bisection on the tail.
pub(crate) fn two_sided_z(level: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if two_sided_p(middle) > 1.0 - level {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// P(Z ≤ z) of a standard normal deviate.
pub(crate) fn cdf(z: f64) -> f64 {
    let tail = 0.5 * two_sided_p(z);
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// The deviate z with P(Z ≤ z) = `p`; infinite at 0 and 1. Small p keep their relative precision.
pub(crate) fn quantile(p: f64) -> f64 {
    if p.is_nan() || p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if two_sided_p(middle) > 2.0 * p {
            low = middle;
        } else {
            high = middle;
        }
    }
    -0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_agree_with_scipy() {
        // scipy 1.17.1: scipy.special.erfc(z / np.sqrt(2))
        for (z, p) in SCIPY {
            assert!((two_sided_p(z) / p - 1.0).abs() < 1e-11, "{z}: {} instead of {p}", two_sided_p(z));
            assert_eq!(two_sided_p(-z), two_sided_p(z));
        }
        assert!((two_sided_z(0.95) - 1.959963984540054).abs() < 1e-12);
        assert!((two_sided_z(0.5) - 0.6744897501960817).abs() < 1e-12);
    }

    #[test]
    fn cdf_and_quantile_agree_with_scipy() {
        // scipy 1.17.1: scipy.special.ndtr, scipy.special.ndtri
        for (z, p) in [(-6.0, 9.865876450376946e-10), (-1.0, 0.15865525393145707), (0.3, 0.6179114221889526), (2.5, 0.9937903346742238)] {
            assert!((cdf(z) / p - 1.0).abs() < 1e-11);
        }
        for (p, z) in [(1e-10, -6.361340902404056), (0.025, -1.9599639845400545), (0.3, -0.5244005127080409), (0.975, 1.959963984540054)] {
            assert!((quantile(p) - z).abs() < 1e-10, "{p}: {}", quantile(p));
        }
        assert_eq!((quantile(0.0), quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
    }

    const SCIPY: [(f64, f64); 8] = [
        (0.0, 1.0),
        (0.1, 0.920344325445942),
        (1.0, 0.31731050786291415),
        (1.959963984540054, 0.050000000000000024),
        (2.8, 0.005110260660855875),
        (2.9, 0.003731626600768075),
        (6.0, 1.9731752900754036e-09),
        (20.0, 5.5072482372126244e-89),
    ];
}
