//! What Gaussian noise on sampled gradients costs in privacy: Rényi differential privacy of the sampled Gaussian mechanism
//! (Mironov, Talwar & Zhang 2019), put together over steps and turned into (ε, δ).
//!
//! It says what such a training would cost; nothing here adds noise.

/// Orders α at which the divergence is bounded, of which the best counts: 1.1, 1.2 … 10.9, 12, 13 … 63.
pub fn orders() -> impl Iterator<Item = f64> {
    (1..100).map(|x| 1.0 + f64::from(x) / 10.0).chain((12..64).map(f64::from))
}

/// ε at `delta` after `steps` steps: each takes an example by the chance `sampling` (Poisson sampling), clips its gradient to
/// a norm, and adds noise of `noise` times that norm. `None` for numbers that describe no such training; infinite without
/// noise.
///
/// From the Rényi divergence by proposition 12 of Canonne, Kamath & Steinke 2020, "The Discrete Gaussian for Differential
/// Privacy".
pub fn epsilon(sampling: f64, noise: f64, steps: u64, delta: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&sampling) || noise.is_nan() || noise < 0.0 || !(delta > 0.0 && delta < 1.0) {
        return None;
    }
    let at = |order: f64| {
        let divergence = rdp(sampling, noise, order) * steps as f64;
        divergence - (delta.ln() + order.ln()) / (order - 1.0) + ((order - 1.0) / order).ln()
    };
    let best = orders().map(at).fold(f64::INFINITY, f64::min);
    Some(if sampling == 0.0 || steps == 0 { 0.0 } else { best.max(0.0) })
}

/// Rényi divergence of order `order` > 1 of one step: `ln A_α / (α − 1)`, section 3.3 of Mironov et al.
pub fn rdp(sampling: f64, noise: f64, order: f64) -> f64 {
    if sampling == 0.0 {
        return 0.0;
    }
    if noise == 0.0 {
        return f64::INFINITY;
    }
    if sampling == 1.0 {
        return order / (2.0 * noise * noise);
    }
    let log_a = if order.fract() == 0.0 { whole(sampling, noise, order as u64) } else { fractional(sampling, noise, order) };
    log_a / (order - 1.0)
}

/// `ln Σₖ C(α, k) (1 − q)^(α−k) q^k exp((k² − k) / 2σ²)`
fn whole(q: f64, sigma: f64, order: u64) -> f64 {
    let (mut sum, mut log_binomial) = (f64::NEG_INFINITY, 0.0);
    for k in 0..=order {
        let x = k as f64;
        let term = log_binomial + x * q.ln() + (order as f64 - x) * (-q).ln_1p() + (x * x - x) / (2.0 * sigma * sigma);
        sum = log_add(sum, term);
        log_binomial += ((order - k) as f64).ln() - (x + 1.0).ln();
    }
    sum
}

/// The two series of section 3.3, of terms that alternate from some point on; they end where terms no longer count.
fn fractional(q: f64, sigma: f64, order: f64) -> f64 {
    let (mut below, mut above) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let z = sigma * sigma * (1.0 / q - 1.0).ln() + 0.5;
    let (mut log_binomial, mut positive, mut i) = (0.0, true, 0.0);
    loop {
        let j = order - i;
        let log_half_erfc = |x: f64| log_erfc(x / (std::f64::consts::SQRT_2 * sigma)) - std::f64::consts::LN_2;
        let first = log_binomial + i * q.ln() + j * (-q).ln_1p() + (i * i - i) / (2.0 * sigma * sigma) + log_half_erfc(i - z);
        let second = log_binomial + j * q.ln() + i * (-q).ln_1p() + (j * j - j) / (2.0 * sigma * sigma) + log_half_erfc(z - j);
        let add = if positive { log_add } else { log_subtract };
        (below, above) = (add(below, first), add(above, second));
        if first.max(second) < -30.0 {
            return log_add(below, above);
        }
        log_binomial += j.abs().ln() - (i + 1.0).ln();
        positive ^= j < 0.0;
        i += 1.0;
    }
}

/// `ln(eᵃ + eᵇ)`
fn log_add(a: f64, b: f64) -> f64 {
    let (large, small) = (a.max(b), a.min(b));
    if small == f64::NEG_INFINITY { large } else { large + (small - large).exp().ln_1p() }
}

/// `ln(eᵃ − eᵇ)`; of b above a, which only rounding makes it, nothing.
fn log_subtract(a: f64, b: f64) -> f64 {
    if b == f64::NEG_INFINITY {
        a
    } else if a <= b {
        f64::NEG_INFINITY
    } else {
        a + (-(b - a).exp()).ln_1p()
    }
}

/// Logarithm of the complementary error function, also where that is below every number.
fn log_erfc(x: f64) -> f64 {
    if x >= 2.0 {
        // The continued fraction, from its far end (Abramowitz & Stegun 7.1.14).
        let fraction = (1..=200).rev().fold(x, |tail, k| x + f64::from(k) / 2.0 / tail);
        return -x * x - 0.5 * std::f64::consts::PI.ln() - fraction.ln();
    }
    if x <= -2.0 {
        return std::f64::consts::LN_2 + (-0.5 * log_erfc(-x).exp()).ln_1p();
    }
    // erf(x) = 2/√π · exp(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n + 1)!! (7.1.6).
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    (1.0 - std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// opacus' accountant on the same orders; dp-accounting agrees.
    #[test]
    fn agrees_with_other_accountants() {
        for (sampling, noise, steps, delta, expected) in [
            (0.01, 1.0, 1000, 1e-5, 2.101366),
            (0.02, 1.1, 500, 1e-5, 2.575660),
            (0.1, 2.0, 50, 1e-6, 2.104492),
            (1.0, 5.0, 100, 1e-5, 10.725510),
        ] {
            let got = epsilon(sampling, noise, steps, delta).unwrap();
            assert!((got - expected).abs() < 1e-4, "q {sampling}, σ {noise}, {steps} steps: {got}, not {expected}");
        }
    }

    #[test]
    fn the_complementary_error_function() {
        // Abramowitz & Stegun, table 7.1 (1 − erf), and scipy.special.log_ndtr-like tails: ln erfc(10) = −102.879...
        for (x, expected) in [(0.0, 1.0), (0.5, 0.479_500_122), (1.0, 0.157_299_207), (2.0, 0.004_677_735), (-1.0, 1.842_700_793)] {
            assert!((log_erfc(x).exp() - expected).abs() < 1e-9, "{x}");
        }
        let by_asymptote = -100.0 - (10.0 * std::f64::consts::PI.sqrt()).ln() + (1.0f64 - 1.0 / 200.0 + 3.0 / 40000.0).ln();
        assert!((log_erfc(10.0) - by_asymptote).abs() < 1e-5);
        assert!((log_erfc(1.999_999_9) - log_erfc(2.000_000_1)).abs() < 1e-5, "both ways meet");
    }

    #[test]
    fn more_steps_and_less_noise_cost_more() {
        let of = |noise, steps| epsilon(0.01, noise, steps, 1e-5).unwrap();
        assert!(of(1.0, 2000) > of(1.0, 1000) && of(0.8, 1000) > of(1.0, 1000));
        assert_eq!(epsilon(0.0, 1.0, 1000, 1e-5), Some(0.0), "nothing is looked at");
        assert_eq!(epsilon(0.5, 0.0, 1, 1e-5), Some(f64::INFINITY), "nothing is hidden");
        for (sampling, noise, delta) in [(1.5, 1.0, 1e-5), (f64::NAN, 1.0, 1e-5), (0.1, -1.0, 1e-5), (0.1, 1.0, 0.0), (0.1, f64::NAN, 1e-5)]
        {
            assert_eq!(epsilon(sampling, noise, 1, delta), None);
        }
    }
}
