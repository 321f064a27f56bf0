//! Maximum likelihood of a logistic regression with a handful of coefficients, by Newton's method.

/// A fit and how sure it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogisticFit {
    /// `[k]`
    pub coefficients: Vec<f64>,
    /// Inverse of the information matrix, `[k, k]`.
    pub covariance: Vec<f64>,
    /// Negative log likelihood, summed.
    pub loss: f64,
}

const MAX_STEPS: usize = 100;

/// Maximises Σ tᵢ ln σ(ηᵢ) + (1 − tᵢ) ln σ(−ηᵢ) over β, η = Xβ + offset; targets may be shares. `None` where there is no
/// maximum (the classes are separated), or the columns are dependent.
///
/// # Shapes
/// - x: `[n, k]`
/// - targets, offset: `[n]`
pub(crate) fn logistic(x: &[f64], k: usize, targets: &[f64], offset: Option<&[f64]>) -> Option<LogisticFit> {
    let n = targets.len();
    if k == 0 || n == 0 || x.len() != n * k {
        return None;
    }
    let eta = |beta: &[f64], i: usize| dot(&x[i * k..(i + 1) * k], beta) + offset.map_or(0.0, |o| o[i]);
    let loss = |beta: &[f64]| (0..n).map(|i| softplus(eta(beta, i)) - targets[i] * eta(beta, i)).sum::<f64>();
    let mut beta = vec![0.0; k];
    let mut current = loss(&beta);
    for _ in 0..MAX_STEPS {
        let (mut gradient, mut information) = (vec![0.0; k], vec![0.0; k * k]);
        for (i, row) in x.chunks_exact(k).enumerate() {
            let p = sigmoid(eta(&beta, i));
            let w = p * (1.0 - p);
            for (a, (x_a, to)) in row.iter().zip(&mut gradient).enumerate() {
                *to += x_a * (targets[i] - p);
                for (x_b, to) in row.iter().zip(&mut information[a * k..(a + 1) * k]) {
                    *to += w * x_a * x_b;
                }
            }
        }
        let covariance = invert(&information, k)?;
        let step: Vec<f64> = (0..k).map(|a| dot(&covariance[a * k..(a + 1) * k], &gradient)).collect();
        let mut share = 1.0;
        let (next, reached) = loop {
            let next: Vec<f64> = beta.iter().zip(&step).map(|(b, s)| b + share * s).collect();
            let reached = loss(&next);
            // The last steps move by rounding alone.
            if reached <= current + 1e-12 * current.abs() {
                break (next, reached);
            }
            share *= 0.5;
            if share < 1e-10 {
                return None;
            }
        };
        (beta, current) = (next, reached);
        if beta.iter().any(|b| !b.is_finite() || b.abs() > 1e6) {
            return None;
        }
        if step.iter().zip(&beta).all(|(s, b)| s.abs() <= 1e-12 * (1.0 + b.abs())) {
            return Some(LogisticFit { coefficients: beta, covariance, loss: current });
        }
    }
    None
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + eˣ) without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Inverse of a matrix by Gauss-Jordan elimination with pivots; `None` where it is singular to working precision.
fn invert(matrix: &[f64], k: usize) -> Option<Vec<f64>> {
    let mut a = matrix.to_vec();
    let mut inverse = vec![0.0; k * k];
    (0..k).for_each(|i| inverse[i * k + i] = 1.0);
    let scale = matrix.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for column in 0..k {
        let pivot = (column..k).max_by(|&r, &s| a[r * k + column].abs().total_cmp(&a[s * k + column].abs()))?;
        let value = a[pivot * k + column];
        if value.is_nan() || value.abs() <= 1e-13 * scale {
            return None;
        }
        for j in 0..k {
            a.swap(pivot * k + j, column * k + j);
            inverse.swap(pivot * k + j, column * k + j);
        }
        for j in 0..k {
            a[column * k + j] /= value;
            inverse[column * k + j] /= value;
        }
        for row in (0..k).filter(|&row| row != column) {
            let factor = a[row * k + column];
            for j in 0..k {
                a[row * k + j] -= factor * a[column * k + j];
                inverse[row * k + j] -= factor * inverse[column * k + j];
            }
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separated_classes_and_dependent_columns_have_no_fit() {
        assert_eq!(logistic(&[-2.0, -1.0, 1.0, 2.0], 1, &[0.0, 0.0, 1.0, 1.0], None), None);
        assert_eq!(logistic(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 2, &[0.0, 1.0, 0.0], None), None);
        assert_eq!(logistic(&[], 1, &[], None), None);
    }

    #[test]
    fn an_intercept_alone_is_the_log_odds() {
        let fit = logistic(&[1.0; 8], 1, &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], None).unwrap();
        assert!((fit.coefficients[0] - (2.0f64 / 6.0).ln()).abs() < 1e-12);
        // 1 / (n p q) = 1 / (8 · ¼ · ¾)
        assert!((fit.covariance[0] - 1.0 / 1.5).abs() < 1e-12);
    }
}
