//! AdamW (Loshchilov & Hutter 2019) in one pass over parameters, gradients and moments, and averages of weights.

use rayon::prelude::*;

use crate::lanes::{Kernel, Lanes, vectorized};

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Factor of the gradient: below 1 where its norm is clipped.
    pub scale: f64,
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// What is added to the root of the second moment.
    pub epsilon: f64,
    /// Learning rate.
    pub rate: f64,
    /// Decoupled weight decay.
    pub decay: f64,
    /// Which step it is, from 1.
    pub step: u64,
}

struct Chunk<'a> {
    by: AdamWStep,
    value: &'a mut [f32],
    gradient: &'a [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
}

impl Kernel for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let AdamWStep { scale, beta_1, beta_2, epsilon, rate, decay, step } = self.by;
        let t = step as f64;
        let (correct_1, correct_2) = (1.0 - beta_1.powf(t), 1.0 - beta_2.powf(t));
        // m̂ / (√v̂ + ε) · rate = m · (rate / c₁) / (√v / √c₂ + ε)
        let numbers = [
            beta_1,
            (1.0 - beta_1) * scale,
            beta_2,
            (1.0 - beta_2) * scale * scale,
            -rate / correct_1,
            1.0 / correct_2.sqrt(),
            epsilon,
            1.0 - rate * decay,
        ]
        .map(|x| x as f32);
        let len = self.value.len();
        let whole = len / 8 * 8;
        assert!(self.gradient.len() == len && self.mean.len() == len && self.square.len() == len);
        // SAFETY: places below `whole` have eight numbers in all four slices.
        unsafe {
            let [b1, g1, b2, g2, factor, root, epsilon, keep] = numbers.map(|x| V::splat(x));
            for k in (0..whole).step_by(8) {
                let (value, mean, square) =
                    (self.value.as_mut_ptr().add(k), self.mean.as_mut_ptr().add(k), self.square.as_mut_ptr().add(k));
                let gradient = V::load(self.gradient.as_ptr().add(k));
                let m = gradient.mul_add(g1, V::load(mean).mul(b1));
                let v = gradient.mul(gradient).mul_add(g2, V::load(square).mul(b2));
                m.store(mean);
                v.store(square);
                let change = m.mul(factor).div(v.sqrt().mul_add(root, epsilon));
                V::load(value).mul_add(keep, change).store(value);
            }
        }
        let [b1, g1, b2, g2, factor, root, epsilon, keep] = numbers;
        for k in whole..len {
            let gradient = self.gradient[k];
            self.mean[k] = gradient * g1 + self.mean[k] * b1;
            self.square[k] = gradient * gradient * g2 + self.square[k] * b2;
            self.value[k] = self.value[k] * keep + self.mean[k] * factor / (self.square[k].sqrt() * root + epsilon);
        }
    }
}

/// Numbers of a task.
const CHUNK: usize = 1 << 15;

/// One step, in place; all slices are of one length.
pub(crate) fn step_slices(by: AdamWStep, value: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
    value
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)))
        .for_each(|((value, gradient), (mean, square))| vectorized(Chunk { by, value, gradient, mean, square }));
}

struct Blend<'a> {
    mean: &'a mut [f32],
    value: &'a [f32],
    keep: f32,
    take: f32,
}

impl Kernel for Blend<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let len = self.mean.len();
        let whole = len / 8 * 8;
        assert_eq!(self.value.len(), len);
        // SAFETY: places below `whole` have eight numbers in both slices.
        unsafe {
            let (keep, take) = (V::splat(self.keep), V::splat(self.take));
            for k in (0..whole).step_by(8) {
                let mean = self.mean.as_mut_ptr().add(k);
                V::load(self.value.as_ptr().add(k)).mul_add(take, V::load(mean).mul(keep)).store(mean);
            }
        }
        for (mean, value) in self.mean[whole..].iter_mut().zip(&self.value[whole..]) {
            *mean = value * self.take + *mean * self.keep;
        }
    }
}

/// `mean = keep · mean + (1 − keep) · value`; both are of one length.
pub(crate) fn blend_slices(keep: f64, mean: &mut [f32], value: &[f32]) {
    let take = (1.0 - keep) as f32;
    mean.par_chunks_mut(CHUNK).zip(value.par_chunks(CHUNK)).for_each(|(mean, value)| {
        vectorized(Blend { mean, value, keep: keep as f32, take });
    });
}

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> f64 {
        let mut total = 0.0;
        // Short sums in single precision, their sum in double.
        for block in self.0.chunks(1024) {
            let whole = block.len() / 8 * 8;
            let mut lanes = [0.0f32; 8];
            // SAFETY: places below `whole` have eight numbers.
            unsafe {
                let mut sum = V::splat(0.0);
                for k in (0..whole).step_by(8) {
                    let x = V::load(block.as_ptr().add(k));
                    sum = x.mul_add(x, sum);
                }
                sum.store(lanes.as_mut_ptr());
            }
            let rest = block[whole..].iter().map(|x| x * x);
            total += lanes.into_iter().chain(rest).map(f64::from).sum::<f64>();
        }
        total
    }
}

/// Sum of squares, for the gradient's norm.
pub(crate) fn sum_of_squares_slice(values: &[f32]) -> f64 {
    let parts: Vec<f64> = values.par_chunks(CHUNK).map(|chunk| vectorized(Squares(chunk))).collect();
    parts.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_steps_of_any_length() {
        for len in [0, 1, 7, 8, 1030, 70_001] {
            let numbers: Vec<f32> = (0..len).map(|k| ((k * 7919) % 1009) as f32 / 1009.0 - 0.4).collect();
            let expected: f64 = numbers.iter().map(|x| f64::from(*x).powi(2)).sum();
            assert!((sum_of_squares_slice(&numbers) - expected).abs() <= 1e-5 * expected);
            let by = AdamWStep { scale: 0.5, beta_1: 0.9, beta_2: 0.99, epsilon: 1e-6, rate: 0.1, decay: 0.01, step: 3 };
            let (mut value, mut mean, mut square) = (numbers.clone(), vec![0.1; len], vec![0.2; len]);
            step_slices(by, &mut value, &numbers, &mut mean, &mut square);
            for (k, x) in numbers.iter().enumerate() {
                let g = f64::from(*x) * 0.5;
                let (m, v) = (0.1 * 0.9 + 0.1 * g, 0.2 * 0.99 + 0.01 * g * g);
                let change = m / (1.0 - 0.9f64.powi(3)) / ((v / (1.0 - 0.99f64.powi(3))).sqrt() + 1e-6);
                let expected = f64::from(*x) * (1.0 - 0.1 * 0.01) - 0.1 * change;
                assert!((f64::from(value[k]) - expected).abs() < 1e-6, "{len}: {} instead of {expected}", value[k]);
                assert!((f64::from(mean[k]) - m).abs() < 1e-6 && (f64::from(square[k]) - v).abs() < 1e-6);
            }
            let before = mean.clone();
            blend_slices(0.9, &mut mean, &numbers);
            let expected = |k: usize| 0.9 * f64::from(before[k]) + 0.1 * f64::from(numbers[k]);
            assert!((0..len).all(|k| (f64::from(mean[k]) - expected(k)).abs() < 1e-6), "{len}");
        }
    }
}
