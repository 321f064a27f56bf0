//! Weights by what the tasks' gradients say of each other. Each method's direction is a linear combination of the gradients,
//! and its coefficients follow from their inner products alone.

/// Inner products of the rows.
pub fn gramian(rows: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn times(gram: &[Vec<f64>], w: &[f64]) -> Vec<f64> {
    gram.iter().map(|row| dot(row, w)).collect()
}

/// `PCGrad` (Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", algorithm 1): from each gradient goes, for each other
/// one that it points against, the part along that one; the result is their sum. The paper takes the others in random order;
/// here it is that of the tasks, starting after the gradient's own, so that the same data give the same bits.
pub fn pcgrad(gram: &[Vec<f64>]) -> Vec<f64> {
    let n = gram.len();
    let mut total = vec![0.0; n];
    for i in 0..n {
        let mut w = vec![0.0; n];
        w[i] = 1.0;
        for j in (1..n).map(|k| (i + k) % n) {
            let product = dot(&gram[j], &w);
            if product < 0.0 && gram[j][j] > 0.0 {
                w[j] -= product / gram[j][j];
            }
        }
        total.iter_mut().zip(w).for_each(|(total, w)| *total += w);
    }
    total
}

/// `UPGrad` (Quinton & Rey 2024, "Jacobian Descent for Multi-Objective Optimization"): the mean of the gradients' projections
/// to the cone of directions along which no task gets worse. The dual of a projection is the least `vᵀ G v` over `v ≥ e_i`,
/// found here one number at a time.
pub fn upgrad(gram: &[Vec<f64>]) -> Vec<f64> {
    let n = gram.len();
    let mut total = vec![0.0; n];
    for i in 0..n {
        let least = |k: usize| f64::from(u8::from(k == i));
        let mut v: Vec<f64> = (0..n).map(least).collect();
        for _ in 0..10_000 {
            let mut moved = 0.0f64;
            for k in 0..n {
                if gram[k][k] <= 0.0 {
                    continue;
                }
                let new = (v[k] - dot(&gram[k], &v) / gram[k][k]).max(least(k));
                moved = moved.max((new - v[k]).abs());
                v[k] = new;
            }
            if moved < 1e-13 {
                break;
            }
        }
        total.iter_mut().zip(v).for_each(|(total, v)| *total += v / n as f64);
    }
    total
}

/// The least of a convex function over the simplex: pairs of numbers trade, each trade by golden section.
fn over_simplex(n: usize, of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut w = vec![1.0 / n as f64; n];
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    for _ in 0..200 {
        let mut moved = 0.0f64;
        for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))) {
            let (before, both) = (w[i], w[i] + w[j]);
            let (mut low, mut high) = (0.0, both);
            let mut at = |x: f64| {
                (w[i], w[j]) = (x, both - x);
                of(&w)
            };
            for _ in 0..60 {
                let (a, b) = (high - golden * (high - low), low + golden * (high - low));
                if at(a) <= at(b) { high = b } else { low = a }
            }
            let x = f64::midpoint(low, high);
            moved = moved.max((x - before).abs());
            (w[i], w[j]) = (x, both - x);
        }
        if moved < 1e-10 || n <= 2 {
            break;
        }
    }
    w
}

/// MGDA (Désidéri 2012, "Multiple-gradient descent algorithm"): the convex combination of least norm.
pub fn mgda(gram: &[Vec<f64>]) -> Vec<f64> {
    over_simplex(gram.len(), |w| dot(w, &times(gram, w)))
}

/// `CAGrad` (Liu et al. 2021, "Conflict-Averse Gradient Descent", algorithm 1): of the directions within `radius` times the
/// mean gradient's norm of the mean gradient, the one along which the task that gains least gains most.
pub fn cagrad(gram: &[Vec<f64>], radius: f64) -> Vec<f64> {
    let n = gram.len();
    let even = vec![1.0 / n as f64; n];
    let with_mean = times(gram, &even);
    let reach = radius * dot(&even, &with_mean).max(0.0).sqrt();
    let w = over_simplex(n, |w| dot(w, &with_mean) + reach * dot(w, &times(gram, w)).max(0.0).sqrt());
    let norm = dot(&w, &times(gram, &w)).max(0.0).sqrt();
    let factor = if norm > 0.0 { reach / norm } else { 0.0 };
    even.iter().zip(w).map(|(even, w)| even + factor * w).collect()
}
