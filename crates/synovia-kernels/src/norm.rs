//! Batch normalisation (Ioffe & Szegedy 2015) with what follows it in a residual network: statistics out of sums that the
//! convolution made, the end of a block in one pass, and the backward passes.

use rayon::prelude::*;

use crate::finish::total;
use crate::lanes::{Kernel, Lanes, vectorized};

/// One normalisation, ready to be applied: `z · scale + shift`, a number a padded channel each.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub mean: Vec<f32>,
    pub variance: Vec<f32>,
    pub inverse_deviation: Vec<f32>,
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    /// Whether the statistics are the batch's own, and so depend on what is normalised.
    by_batch: bool,
}

impl Norm {
    /// By given statistics.
    pub(crate) fn new(mean: &[f32], variance: &[f32], gamma: &[f32], beta: &[f32], epsilon: f64, channels: usize) -> Self {
        let pad = |values: &[f32], rest| {
            let mut values = values.to_vec();
            values.resize(channels, rest);
            values
        };
        let (mean, variance) = (pad(mean, 0.0), pad(variance, 1.0));
        let inverse_deviation: Vec<f32> = variance.iter().map(|v| (1.0 / (f64::from(*v) + epsilon).sqrt()) as f32).collect();
        let scale: Vec<f32> = pad(gamma, 0.0).iter().zip(&inverse_deviation).map(|(g, i)| g * i).collect();
        let shift = pad(beta, 0.0).iter().zip(mean.iter().zip(&scale)).map(|(b, (m, s))| b - m * s).collect();
        Self { mean, variance, inverse_deviation, scale, shift, by_batch: false }
    }

    /// By the batch's own, from sums of values and squares over `count` pixels.
    pub(crate) fn of_batch(partial: &[f32], count: usize, gamma: &[f32], beta: &[f32], epsilon: f64, channels: usize) -> Self {
        let [sum, squares] = total(partial, channels);
        let n = count as f64;
        let mean: Vec<f64> = sum.iter().map(|s| s / n).collect();
        // `clamp` and not `max`, which would make 0 of NaN.
        let variance: Vec<f32> = squares.iter().zip(&mean).map(|(s, m)| (s / n - m * m).clamp(0.0, f64::INFINITY) as f32).collect();
        let mean: Vec<f32> = mean.iter().map(|m| *m as f32).collect();
        Self { by_batch: true, ..Self::new(&mean, &variance, gamma, beta, epsilon, channels) }
    }

    /// From sums of the gradient, and of the gradient times the normalised values, over `count` pixels.
    pub(crate) fn backward(&self, gradient: &[f64], products: &[f64], count: usize) -> Backward<'_> {
        if !self.by_batch {
            let zeros = vec![0.0; self.scale.len()];
            return Backward { factor: &self.scale, slope: zeros.clone(), mean: &self.mean, term: zeros };
        }
        let n = count as f64;
        let scale = self.scale.iter().map(|s| f64::from(*s));
        let slope = scale.clone().zip(products.iter().zip(&self.inverse_deviation)).map(|(s, (p, i))| (-s * f64::from(*i) * p / n) as f32);
        let term = scale.zip(gradient).map(|(s, g)| (-s * g / n) as f32);
        Backward { factor: &self.scale, slope: slope.collect(), mean: &self.mean, term: term.collect() }
    }
}

/// `dz = factor · g + slope · (z − mean) + term`, a number a channel each: the gradient of a normalisation by the batch's own
/// statistics, `γ/σ · (g − mean(g) − ẑ · mean(g ẑ))`; by given ones `γ/σ · g`.
pub(crate) struct Backward<'a> {
    pub factor: &'a [f32],
    pub slope: Vec<f32>,
    pub mean: &'a [f32],
    pub term: Vec<f32>,
}

impl Backward<'_> {
    /// # Safety
    /// `channel + 8` is at most the number of channels, and the processor has what `V` needs.
    #[inline(always)]
    pub(crate) unsafe fn at<V: Lanes>(&self, gradient: V, z: V, channel: usize) -> V {
        // SAFETY: the caller vouches for it.
        unsafe {
            let of_channel = |values: &[f32]| V::load(values.as_ptr().add(channel));
            let rest = z.sub(of_channel(self.mean)).mul_add(of_channel(&self.slope), of_channel(&self.term));
            gradient.mul_add(of_channel(self.factor), rest)
        }
    }
}

/// Pixels of a task in the passes here.
const PIXELS: usize = 512;

/// The shortcut of a block.
#[derive(Clone, Copy)]
pub(crate) enum Shortcut<'a> {
    /// The block's input.
    Identity(&'a [f32]),
    /// A convolution's result and its normalisation.
    Projected(&'a [f32], &'a Norm),
}

struct Join<'a> {
    z: &'a [f32],
    norm: &'a Norm,
    shortcut: Shortcut<'a>,
    start: usize,
    out: &'a mut [f32],
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let channels = self.norm.scale.len();
        let other = match self.shortcut {
            Shortcut::Identity(x) | Shortcut::Projected(x, _) => &x[self.start..self.start + self.out.len()],
        };
        let z = &self.z[self.start..self.start + self.out.len()];
        for pixel in (0..self.out.len()).step_by(channels) {
            for c in (0..channels).step_by(8) {
                // SAFETY: all slices have the length of `out`, a multiple of the channels, which are a multiple of 8.
                unsafe {
                    let affine = |values: &[f32], norm: &Norm| {
                        let value = V::load(values.as_ptr().add(pixel + c));
                        value.mul_add(V::load(norm.scale.as_ptr().add(c)), V::load(norm.shift.as_ptr().add(c)))
                    };
                    let second = match self.shortcut {
                        Shortcut::Identity(_) => V::load(other.as_ptr().add(pixel + c)),
                        Shortcut::Projected(_, norm) => affine(other, norm),
                    };
                    V::splat(0.0).max(affine(z, self.norm).add(second)).store(self.out.as_mut_ptr().add(pixel + c));
                }
            }
        }
    }
}

/// `out = relu(norm(z) + shortcut)`: the end of a block.
pub(crate) fn join(z: &[f32], norm: &Norm, shortcut: Shortcut<'_>, out: &mut [f32]) {
    assert_eq!(z.len(), out.len());
    let at_once = PIXELS * norm.scale.len();
    out.par_chunks_mut(at_once).enumerate().for_each(|(k, out)| {
        vectorized(Join { z, norm, shortcut, start: k * at_once, out });
    });
}

struct JoinBackward<'a> {
    y: &'a [f32],
    z: &'a [f32],
    norm: &'a Norm,
    projected: Option<(&'a [f32], &'a Norm)>,
    gradient: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Kernel for JoinBackward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let channels = self.norm.scale.len();
        let len = self.gradient.len();
        assert!(self.y.len() >= len && self.z.len() >= len && self.sums.len() == 3 * channels);
        assert!(self.projected.is_none_or(|(z, _)| z.len() >= len));
        for pixel in (0..len).step_by(channels) {
            for c in (0..channels).step_by(8) {
                // SAFETY: all slices are at least as long as `gradient`, a multiple of the channels; sums were asserted.
                unsafe {
                    let at = self.gradient.as_mut_ptr().add(pixel + c);
                    let gradient = V::load(at).where_positive(V::load(self.y.as_ptr().add(pixel + c)));
                    gradient.store(at);
                    let product = |z: &[f32], norm: &Norm, sum: V| {
                        let z = V::load(z.as_ptr().add(pixel + c)).sub(V::load(norm.mean.as_ptr().add(c)));
                        gradient.mul_add(z.mul(V::load(norm.inverse_deviation.as_ptr().add(c))), sum)
                    };
                    let sums = self.sums.as_mut_ptr().add(c);
                    V::load(sums).add(gradient).store(sums);
                    let second = sums.add(channels);
                    product(self.z, self.norm, V::load(second)).store(second);
                    if let Some((z, norm)) = self.projected {
                        let third = sums.add(2 * channels);
                        product(z, norm, V::load(third)).store(third);
                    }
                }
            }
        }
    }
}

/// The gradient of `y = relu(norm(z) + shortcut)` passed on to what is inside the ReLU, in place. Returns its sums, those of it
/// times the normalised `z`, and the same for a projected shortcut.
pub(crate) fn join_backward(y: &[f32], z: &[f32], norm: &Norm, projected: Option<(&[f32], &Norm)>, gradient: &mut [f32]) -> [Vec<f64>; 3] {
    let channels = norm.scale.len();
    let at_once = PIXELS * channels;
    let mut partial = vec![0.0; gradient.len().div_ceil(at_once) * 3 * channels];
    gradient.par_chunks_mut(at_once).zip(partial.par_chunks_mut(3 * channels)).enumerate().for_each(|(k, (gradient, sums))| {
        let start = k * at_once;
        let projected = projected.map(|(z, norm)| (&z[start..], norm));
        vectorized(JoinBackward { y: &y[start..], z: &z[start..], norm, projected, gradient, sums });
    });
    total(&partial, channels)
}

struct Apply<'a> {
    backward: &'a Backward<'a>,
    gradient: &'a [f32],
    z: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let channels = self.backward.factor.len();
        assert!(self.gradient.len() >= self.z.len());
        for pixel in (0..self.z.len()).step_by(channels) {
            for c in (0..channels).step_by(8) {
                // SAFETY: the length is a multiple of the channels, which are a multiple of 8.
                unsafe {
                    let z = self.z.as_mut_ptr().add(pixel + c);
                    self.backward.at(V::load(self.gradient.as_ptr().add(pixel + c)), V::load(z), c).store(z);
                }
            }
        }
    }
}

/// The gradient with respect to `z`, in its place.
pub(crate) fn apply(backward: &Backward<'_>, gradient: &[f32], z: &mut [f32]) {
    assert_eq!(gradient.len(), z.len());
    let at_once = PIXELS * backward.factor.len();
    z.par_chunks_mut(at_once).zip(gradient.par_chunks(at_once)).for_each(|(z, gradient)| {
        vectorized(Apply { backward, gradient, z });
    });
}
