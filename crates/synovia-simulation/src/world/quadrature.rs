//! Sums that stand for the integrals over what a modality does not show.

/// Points with weights that add to one: a distribution, or a single point where the value is known.
#[derive(Clone, Debug)]
pub(crate) struct Nodes(pub(crate) Vec<(f64, f64)>);

impl Nodes {
    /// A known value.
    pub(crate) fn known(x: f64) -> Self {
        Self(vec![(x, 1.0)])
    }

    /// Points with weights, scaled to add to one.
    pub(crate) fn weighted(mut points: Vec<(f64, f64)>) -> Self {
        let total: f64 = points.iter().map(|p| p.1).sum();
        for point in &mut points {
            point.1 /= total;
        }
        Self(points)
    }

    /// 0 with probability 1 − p, 1 with probability p.
    pub(crate) fn bernoulli(p: f64) -> Self {
        Self(vec![(0.0, 1.0 - p), (1.0, p)])
    }

    /// Normal distribution, by the trapezoidal rule on ±6 standard deviations. For integrands that are analytic near the
    /// real line, as a logistic function is, its error falls exponentially with the step; here it is below 1e-6 for
    /// logistic slopes up to 10 a standard deviation.
    pub(crate) fn normal(mean: f64, variance: f64) -> Self {
        if variance <= 0.0 {
            return Self::known(mean);
        }
        let sd = variance.sqrt();
        Self::weighted((-48..=48).map(|k| f64::from(k) / 8.0).map(|z| (mean + sd * z, (-0.5 * z * z).exp())).collect())
    }

    /// Standard normal distribution cut to ±`bound`, by Gauss-Legendre: the cut ends would spoil the trapezoidal rule.
    pub(crate) fn cut_normal(bound: f64) -> Self {
        Self::weighted(gauss_legendre(24, -bound, bound).into_iter().map(|(x, w)| (x, w * (-0.5 * x * x).exp())).collect())
    }

    /// Expectation of `f`.
    pub(crate) fn mean(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.0.iter().map(|&(x, w)| w * f(x)).sum()
    }
}

/// Nodes and weights of Gauss-Legendre quadrature on [a, b] (Abramowitz & Stegun 25.4.30), roots by Newton's method.
pub(crate) fn gauss_legendre(n: usize, a: f64, b: f64) -> Vec<(f64, f64)> {
    (1..=n)
        .map(|i| {
            let mut x = (std::f64::consts::PI * (i as f64 - 0.25) / (n as f64 + 0.5)).cos();
            let mut slope = 1.0;
            for _ in 0..64 {
                let (mut p, mut previous) = (1.0, 0.0);
                for k in 0..n {
                    let k = k as f64;
                    (p, previous) = (((2.0 * k + 1.0) * x * p - k * previous) / (k + 1.0), p);
                }
                slope = n as f64 * (x * p - previous) / (x * x - 1.0);
                let step = p / slope;
                x -= step;
                if step.abs() < 1e-15 {
                    break;
                }
            }
            let weight = 2.0 / ((1.0 - x * x) * slope * slope);
            (f64::midpoint(a, b) + 0.5 * (b - a) * x, 0.5 * (b - a) * weight)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(got: f64, expect: f64) {
        assert!((got - expect).abs() < 1e-6, "got {got}, expected {expect}");
    }

    #[test]
    fn polynomials_are_exact() {
        // ∫₀² x⁷ dx = 32 needs 4 nodes: degree 2n − 1.
        check(gauss_legendre(4, 0.0, 2.0).iter().map(|(x, w)| w * x.powi(7)).sum(), 32.0);
        check(gauss_legendre(24, -1.0, 3.0).iter().map(|(_, w)| w).sum(), 4.0);
    }

    #[test]
    fn moments() {
        let normal = Nodes::normal(1.0, 4.0);
        check(normal.mean(|x| x), 1.0);
        check(normal.mean(|x| (x - 1.0).powi(2)), 4.0);
        // E[exp(tX)] = exp(μt + σ²t²/2).
        check(normal.mean(|x| (0.3 * x).exp()), (0.3f64 + 0.18).exp());
        // Variance of a standard normal cut at ±2: 1 − 2·2·φ(2) / (2Φ(2) − 1).
        let phi = (-2.0f64).exp() / (2.0 * std::f64::consts::PI).sqrt();
        check(Nodes::cut_normal(2.0).mean(|x| x * x), 1.0 - 4.0 * phi / 0.954_499_736_103_641_6);
    }
}
