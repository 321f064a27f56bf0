//! Max pooling of a normalised and activated tensor that never exists as such, and the global average.

use rayon::prelude::*;

use crate::finish::total;
use crate::gemm::COLUMNS;
use crate::images::Images;
use crate::lanes::{Kernel, Lanes, vectorized};
use crate::norm::{Backward, Norm};
use crate::shared::Shared;

/// Size after 3 × 3 pooling of stride 2, padded by 1.
pub(crate) fn pooled(images: Images) -> Images {
    let side = |n: usize| (n - 1) / 2 + 1;
    Images { batch: images.batch, height: side(images.height), width: side(images.width) }
}

struct PoolRow<'a> {
    z: &'a [f32],
    norm: &'a Norm,
    images: Images,
    image: usize,
    row: usize,
    out: &'a mut [f32],
    place: &'a mut [u8],
}

impl Kernel for PoolRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let channels = self.norm.scale.len();
        let Images { height, width, .. } = self.images;
        assert!(self.place.len() == self.out.len() && self.z.len() == self.images.pixels() * channels);
        for (x, start) in (0..self.out.len()).step_by(channels).enumerate() {
            for c in (0..channels).step_by(8) {
                // SAFETY: pixels are inside the image, channels come in multiples of 8.
                unsafe {
                    let (scale, shift) = (V::load(self.norm.scale.as_ptr().add(c)), V::load(self.norm.shift.as_ptr().add(c)));
                    let (mut best, mut at) = (V::splat(f32::NEG_INFINITY), V::splat(0.0));
                    let mut first = true;
                    for tap in 0..9 {
                        let (y, x) = (2 * self.row + tap / 3, 2 * x + tap % 3);
                        if y == 0 || x == 0 || y > height || x > width {
                            continue;
                        }
                        let pixel = ((self.image * height + y - 1) * width + x - 1) * channels;
                        let value = V::load(self.z.as_ptr().add(pixel + c)).mul_add(scale, shift);
                        // The first value is taken whatever it is, and a NaN always: nothing is larger than it.
                        let tap = V::splat(tap as f32);
                        at = if first { tap } else { value.larger_or_nan(best, tap, at) };
                        best = if first { value } else { value.larger_or_nan(best, value, best) };
                        first = false;
                    }
                    V::splat(0.0).max(best).store(self.out.as_mut_ptr().add(start + c));
                    let mut places = [0.0; 8];
                    at.store(places.as_mut_ptr());
                    for (to, place) in self.place[start + c..start + c + 8].iter_mut().zip(places) {
                        *to = place as u8;
                    }
                }
            }
        }
    }
}

/// `out = max_pool(relu(norm(z)))`, 3 × 3 of stride 2; `place` is the tap of the largest value. NaN counts as the largest.
///
/// # Shapes
/// - z: `[batch, height, width, channels]`
/// - out, place: those of [`pooled`]
pub(crate) fn max_pool(z: &[f32], norm: &Norm, images: Images, out: &mut [f32], place: &mut [u8]) {
    let channels = norm.scale.len();
    let Images { height, width, .. } = pooled(images);
    out.par_chunks_mut(width * channels).zip(place.par_chunks_mut(width * channels)).enumerate().for_each(|(k, (out, place))| {
        vectorized(PoolRow { z, norm, images, image: k / height, row: k % height, out, place });
    });
}

/// What goes back through the pooling and the ReLU.
#[derive(Clone, Copy)]
pub(crate) struct PoolGradient<'a> {
    /// Result of the pooling, its gradient, and the taps of the largest values.
    pub out: &'a [f32],
    pub gradient: &'a [f32],
    pub place: &'a [u8],
    /// Of the pooling's input.
    pub images: Images,
    pub channels: usize,
}

impl PoolGradient<'_> {
    /// Gradient at eight channels of an input pixel: the sum over the windows whose largest value it is.
    ///
    /// # Safety
    /// The place is within the input; the slices are of the shape of [`pooled`]; the processor has what `V` needs.
    #[inline(always)]
    unsafe fn at<V: Lanes>(&self, image: usize, y: usize, x: usize, channel: usize) -> V {
        let small = pooled(self.images);
        // SAFETY: windows are checked to exist.
        unsafe {
            let mut sum = V::splat(0.0);
            // Input row y is tap row y + 1 − 2·oy of output row oy, which must be 0, 1 or 2.
            for oy in y / 2..=y.div_ceil(2) {
                for ox in x / 2..=x.div_ceil(2) {
                    if oy < small.height && ox < small.width {
                        let tap = (y + 1 - 2 * oy) * 3 + (x + 1 - 2 * ox);
                        let at = ((image * small.height + oy) * small.width + ox) * self.channels + channel;
                        let gradient = V::load(self.gradient.as_ptr().add(at)).where_positive(V::load(self.out.as_ptr().add(at)));
                        sum = sum.add(gradient.where_equal(V::load_bytes(self.place.as_ptr().add(at)), V::splat(tap as f32)));
                    }
                }
            }
            sum
        }
    }
}

struct SumRow<'a> {
    pool: PoolGradient<'a>,
    z: &'a [f32],
    norm: &'a Norm,
    row: usize,
    sums: &'a mut [f32],
}

impl Kernel for SumRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let channels = self.pool.channels;
        let Images { height, width, .. } = self.pool.images;
        assert!(self.sums.len() == 2 * channels && self.z.len() >= (self.row + 1) * width * channels);
        for x in 0..width {
            for c in (0..channels).step_by(8) {
                // SAFETY: the row and the pixel are inside the image; sums and `z` were asserted.
                unsafe {
                    let gradient = self.pool.at::<V>(self.row / height, self.row % height, x, c);
                    let z = V::load(self.z.as_ptr().add((self.row * width + x) * channels + c));
                    let normal = z.sub(V::load(self.norm.mean.as_ptr().add(c))).mul(V::load(self.norm.inverse_deviation.as_ptr().add(c)));
                    let sums = self.sums.as_mut_ptr().add(c);
                    V::load(sums).add(gradient).store(sums);
                    gradient.mul_add(normal, V::load(sums.add(channels))).store(sums.add(channels));
                }
            }
        }
    }
}

/// Sums over all pixels of the gradient before the ReLU, and of it times the normalised `z`.
pub(crate) fn pool_sums(pool: PoolGradient<'_>, z: &[f32], norm: &Norm) -> [Vec<f64>; 2] {
    let (channels, rows) = (pool.channels, pool.images.batch * pool.images.height);
    check(pool);
    let mut partial = vec![0.0; rows * 2 * channels];
    partial.par_chunks_mut(2 * channels).enumerate().for_each(|(row, sums)| {
        vectorized(SumRow { pool, z, norm, row, sums });
    });
    total(&partial, channels)
}

fn check(pool: PoolGradient<'_>) {
    let len = pooled(pool.images).pixels() * pool.channels;
    assert!(pool.out.len() == len && pool.gradient.len() == len && pool.place.len() == len);
}

struct ApplyRow<'a> {
    pool: PoolGradient<'a>,
    backward: &'a Backward<'a>,
    row: usize,
    /// The whole tensor `z`, of which this row is read.
    z: &'a [f32],
    /// `[panel of 16 channels, pixel, 16]`, of which this row is written.
    out: Shared<f32>,
}

impl Kernel for ApplyRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let channels = self.pool.channels;
        let Images { height, width, .. } = self.pool.images;
        let pixels = self.pool.images.pixels();
        assert!(self.z.len() == pixels * channels);
        for x in 0..width {
            let pixel = self.row * width + x;
            for c in (0..channels).step_by(8) {
                // SAFETY: the pixel is inside the images; each task writes its own row in each panel.
                unsafe {
                    let gradient = self.pool.at::<V>(self.row / height, self.row % height, x, c);
                    let z = V::load(self.z.as_ptr().add(pixel * channels + c));
                    let to = self.out.get().add((c / COLUMNS * pixels + pixel) * COLUMNS + c % COLUMNS);
                    self.backward.at(gradient, z, c).store(to);
                }
            }
        }
    }
}

/// The gradient with respect to `z`, laid out `[panel of 16 channels, pixel, 16]` for the weight gradient.
pub(crate) fn pool_backward(pool: PoolGradient<'_>, backward: &Backward<'_>, z: &[f32], out: &mut [f32]) {
    check(pool);
    assert_eq!(z.len(), out.len());
    let out = Shared::new(out);
    (0..pool.images.batch * pool.images.height).into_par_iter().for_each(|row| {
        vectorized(ApplyRow { pool, backward, row, z, out });
    });
}

/// Mean over all pixels of each image: `[batch, height, width, padded]` to `[batch, channels]`.
pub(crate) fn average(x: &[f32], images: Images, padded: usize, channels: usize) -> Vec<f32> {
    let pixels = images.height * images.width;
    let mut out = vec![0.0; images.batch * channels];
    out.par_chunks_mut(channels).zip(x.par_chunks(pixels * padded)).for_each(|(out, x)| {
        for pixel in x.chunks_exact(padded) {
            for (sum, value) in out.iter_mut().zip(pixel) {
                *sum += value;
            }
        }
        for sum in out {
            *sum /= pixels as f32;
        }
    });
    out
}

/// The gradient of [`average`].
pub(crate) fn average_backward(gradient: &[f32], images: Images, padded: usize, channels: usize, out: &mut [f32]) {
    let pixels = images.height * images.width;
    out.par_chunks_mut(pixels * padded).zip(gradient.par_chunks(channels)).for_each(|(out, gradient)| {
        for pixel in out.chunks_exact_mut(padded) {
            for (to, g) in pixel.iter_mut().zip(gradient) {
                *to = g / pixels as f32;
            }
            pixel[channels..].fill(0.0);
        }
    });
}
