//! Max pooling of a normalised and activated tensor that never exists as such, and the global average.

use rayon::prelude::*;

use crate::finish::total;
use crate::gemm::COLUMNS;
use crate::images::Images;
use crate::lanes::{Kernel, Lanes, vectorized};
use crate::norm::{Backward, Norm};
use crate::shared::Buffer;

/// Size after 3 × 3 pooling of stride 2, padded by 1.
pub(crate) fn pooled(images: Images) -> Images {
    let side = |n: usize| (n - 1) / 2 + 1;
    Images { batch: images.batch, height: side(images.height), width: side(images.width) }
}

/// What the backward pass of the pooling needs, as large as its result: where the largest value of each window is, and what it was before it
/// was normalised.
#[derive(Clone, Debug)]
pub(crate) struct Largest {
    pub place: Vec<u8>,
    z: Buffer,
}

struct PoolRow<'a, const KEPT: bool> {
    z: &'a [f32],
    norm: &'a Norm,
    images: Images,
    image: usize,
    row: usize,
    out: &'a mut [f32],
    /// Both of the size of `out` where they are kept, else empty.
    place: &'a mut [u8],
    largest: &'a mut [f32],
}

impl<const KEPT: bool> Kernel for PoolRow<'_, KEPT> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let channels = self.norm.scale.len();
        let Images { height, width, .. } = self.images;
        assert!(self.z.len() == self.images.pixels() * channels);
        assert!(!KEPT || (self.place.len() == self.out.len() && self.largest.len() == self.out.len()));
        // Taps that are inside the image: 1 above and left of the place, to 1 below and right of it.
        let inside = |at: usize, size: usize| usize::from(at == 0)..3.min(size + 1 - 2 * at);
        let rows = inside(self.row, height);
        for (x, start) in (0..self.out.len()).step_by(channels).enumerate() {
            let columns = inside(x, width);
            for c in (0..channels).step_by(8) {
                // SAFETY: pixels are inside the image, channels come in multiples of 8.
                unsafe {
                    let (scale, shift) = (V::load(self.norm.scale.as_ptr().add(c)), V::load(self.norm.shift.as_ptr().add(c)));
                    // The first value is taken whatever it is, and a NaN always: nothing is larger than it.
                    let (mut best, mut at, mut largest) = (V::splat(f32::NEG_INFINITY), V::splat(0.0), V::splat(0.0));
                    let mut first = true;
                    for tap_y in rows.clone() {
                        let row = (self.image * height + 2 * self.row + tap_y - 1) * width;
                        for tap_x in columns.clone() {
                            let z = V::load(self.z.as_ptr().add((row + 2 * x + tap_x - 1) * channels + c));
                            let value = z.mul_add(scale, shift);
                            if KEPT {
                                let tap = V::splat((3 * tap_y + tap_x) as f32);
                                at = if first { tap } else { value.larger_or_nan(best, tap, at) };
                                largest = if first { z } else { value.larger_or_nan(best, z, largest) };
                            }
                            best = if first { value } else { value.larger_or_nan(best, value, best) };
                            first = false;
                        }
                    }
                    V::splat(0.0).max(best).store(self.out.as_mut_ptr().add(start + c));
                    if KEPT {
                        at.store_bytes(self.place.as_mut_ptr().add(start + c));
                        largest.store(self.largest.as_mut_ptr().add(start + c));
                    }
                }
            }
        }
    }
}

/// `out = max_pool(relu(norm(z)))`, 3 × 3 of stride 2. NaN counts as the largest.
///
/// # Shapes
/// - z: `[batch, height, width, channels]`
/// - out: that of [`pooled`]
pub(crate) fn max_pool(z: &[f32], norm: &Norm, images: Images, out: &mut [f32]) {
    let channels = norm.scale.len();
    assert_eq!(out.len(), pooled(images).pixels() * channels);
    let Images { height, width, .. } = pooled(images);
    out.par_chunks_mut(width * channels).enumerate().for_each(|(k, out)| {
        let (image, row) = (k / height, k % height);
        vectorized(PoolRow::<false> { z, norm, images, image, row, out, place: &mut [], largest: &mut [] });
    });
}

/// [`max_pool`] that keeps what its backward pass needs.
pub(crate) fn max_pool_kept(z: &[f32], norm: &Norm, images: Images, out: &mut [f32]) -> Largest {
    let channels = norm.scale.len();
    assert_eq!(out.len(), pooled(images).pixels() * channels);
    let Images { height, width, .. } = pooled(images);
    let mut kept = Largest { place: vec![0; out.len()], z: Buffer::new(out.len()) };
    let at_once = width * channels;
    let kept_rows = kept.place.par_chunks_mut(at_once).zip(kept.z.par_chunks_mut(at_once));
    out.par_chunks_mut(at_once).zip(kept_rows).enumerate().for_each(|(k, (out, (place, largest)))| {
        vectorized(PoolRow::<true> { z, norm, images, image: k / height, row: k % height, out, place, largest });
    });
    kept
}

/// The way back through the pooling and the normalisation before it, a row at a time: what is made of a row is used while it is in the
/// first-level cache.
pub(crate) struct PoolBackward<'a> {
    /// Gradient of the pooling's result before the ReLU.
    gradient: &'a [f32],
    largest: &'a Largest,
    backward: Backward<'a>,
    /// What was normalised, and its size.
    z: &'a [f32],
    images: Images,
}

impl<'a> PoolBackward<'a> {
    /// - gradient: by [`pool_sums`]
    /// - z: `[batch, height, width, channels]`, of `images`
    pub(crate) fn new(gradient: &'a [f32], largest: &'a Largest, backward: Backward<'a>, z: &'a [f32], images: Images) -> Self {
        let channels = backward.factor.len();
        let len = pooled(images).pixels() * channels;
        assert!(gradient.len() == len && largest.place.len() == len && z.len() == images.pixels() * channels);
        assert!(channels.is_multiple_of(COLUMNS) && [backward.mean, &backward.slope, &backward.term].iter().all(|of| of.len() == channels));
        Self { gradient, largest, backward, z, images }
    }

    /// The gradient with respect to a row of `z`, of all images' rows: `[panel of 16 channels, pixel, 16]`.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        vectorized(BackRow { pool: self, row, out });
    }

    /// Gradient at eight channels of an input pixel: the sum over the windows whose largest value it is.
    ///
    /// # Safety
    /// The place is within the input; the slices are of the shape of [`pooled`]; the processor has what `V` needs.
    #[inline(always)]
    unsafe fn at<V: Lanes>(&self, image: usize, y: usize, x: usize, channel: usize) -> V {
        let (small, channels) = (pooled(self.images), self.backward.factor.len());
        // SAFETY: windows are checked to exist.
        unsafe {
            let mut sum = V::splat(0.0);
            // Input row y is tap row y + 1 − 2·oy of output row oy, which must be 0, 1 or 2.
            for oy in y / 2..=y.div_ceil(2) {
                for ox in x / 2..=x.div_ceil(2) {
                    if oy < small.height && ox < small.width {
                        let tap = (y + 1 - 2 * oy) * 3 + (x + 1 - 2 * ox);
                        let at = ((image * small.height + oy) * small.width + ox) * channels + channel;
                        let gradient = V::load(self.gradient.as_ptr().add(at));
                        let place = V::load_bytes(self.largest.place.as_ptr().add(at));
                        sum = sum.add(gradient.where_equal(place, V::splat(tap as f32)));
                    }
                }
            }
            sum
        }
    }
}

struct Sum<'a> {
    out: &'a [f32],
    largest: &'a [f32],
    norm: &'a Norm,
    gradient: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Kernel for Sum<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (channels, len) = (self.norm.scale.len(), self.gradient.len());
        assert!(self.out.len() == len && self.largest.len() == len && len.is_multiple_of(channels) && self.sums.len() == 2 * channels);
        for c in (0..channels).step_by(8) {
            // SAFETY: all slices have the length of `gradient`, a multiple of the channels, which are a multiple of 8; sums were asserted.
            unsafe {
                let of_channel = |values: &[f32]| V::load(values.as_ptr().add(c));
                let (mean, inverse) = (of_channel(&self.norm.mean), of_channel(&self.norm.inverse_deviation));
                let (mut sum, mut products) = (V::splat(0.0), V::splat(0.0));
                for at in (c..len).step_by(channels) {
                    let to = self.gradient.as_mut_ptr().add(at);
                    let gradient = V::load(to).where_positive(V::load(self.out.as_ptr().add(at)));
                    gradient.store(to);
                    let normal = V::load(self.largest.as_ptr().add(at)).sub(mean).mul(inverse);
                    sum = sum.add(gradient);
                    products = gradient.mul_add(normal, products);
                }
                sum.store(self.sums.as_mut_ptr().add(c));
                products.store(self.sums.as_mut_ptr().add(channels + c));
            }
        }
    }
}

/// Pixels of a task of [`pool_sums`].
const SUMMED: usize = 256;

/// Takes the gradient of the pooling's result `out` back through the ReLU, in place; returns its sums, and those of it times the normalised
/// `z`, over all pixels of the pooling's input: the gradient is where the largest values are, and nowhere else.
pub(crate) fn pool_sums(out: &[f32], largest: &Largest, norm: &Norm, gradient: &mut [f32]) -> [Vec<f64>; 2] {
    let channels = norm.scale.len();
    assert!(out.len() == gradient.len() && largest.z.len() == gradient.len());
    let at_once = SUMMED * channels;
    let mut partial = vec![0.0; gradient.len().div_ceil(at_once) * 2 * channels];
    let read = out.par_chunks(at_once).zip(largest.z.par_chunks(at_once));
    gradient.par_chunks_mut(at_once).zip(partial.par_chunks_mut(2 * channels)).zip(read).for_each(|((gradient, sums), (out, largest))| {
        vectorized(Sum { out, largest, norm, gradient, sums });
    });
    total(&partial, channels)
}

struct BackRow<'a> {
    pool: &'a PoolBackward<'a>,
    row: usize,
    out: &'a mut [f32],
}

impl Kernel for BackRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let PoolBackward { backward, z, images: Images { batch, height, width }, .. } = self.pool;
        let channels = backward.factor.len();
        assert!(self.row < batch * height && self.out.len() == width * channels);
        for x in 0..*width {
            for c in (0..channels).step_by(8) {
                // SAFETY: the pixel is inside the images, and `out` has a row of them.
                unsafe {
                    let gradient = self.pool.at::<V>(self.row / height, self.row % height, x, c);
                    let z = V::load(z.as_ptr().add((self.row * width + x) * channels + c));
                    let to = self.out.as_mut_ptr().add((c / COLUMNS * width + x) * COLUMNS + c % COLUMNS);
                    backward.at(gradient, z, c).store(to);
                }
            }
        }
    }
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
