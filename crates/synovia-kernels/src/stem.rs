//! The first convolution of a tower, whose input has a few channels: a row of the kernel is one tap, since its pixels lie side by side.
//! The input is kept with its border of zeros, so that everything that a row of outputs sees is a fixed way from where it begins.

use std::ops::Range;

use rayon::prelude::*;

use crate::direct::add_up;
use crate::finish::{Finish, padded, write_out};
use crate::gemm::{COLUMNS, ROWS, balanced_rows, columns_times_panel, strided_times_panel};
use crate::images::{Images, UnitShape};
use crate::lanes::{Kernel, Lanes, vectorized};
use crate::shared::{Buffer, Shared, with_scratch};

/// Rows of outputs of a task, and outputs that it has at most where a row has no more: sums of them are in single precision.
const AT_ONCE: usize = 4;
const SUMMED: usize = 512;

/// Numbers that a tap of a stem reads.
pub(crate) const fn stem_row(shape: UnitShape) -> usize {
    shape.kernel * shape.channels_in
}

/// The first convolution of a tower, over its images.
#[derive(Clone, Debug)]
pub(crate) struct Stem {
    shape: UnitShape,
    input: Images,
    output: Images,
    bordered: Buffer,
}

impl Stem {
    /// Of images `[batch, channels, height, width]`.
    pub(crate) fn new(shape: UnitShape, image: &[f32], images: Images) -> Self {
        let Images { batch, height, width } = images;
        let (channels, pad) = (shape.channels_in, shape.kernel / 2);
        let input = Images { batch, height: height + 2 * pad, width: width + 2 * pad };
        let mut bordered = Buffer::new(input.pixels() * channels);
        bordered.par_chunks_mut(input.height * input.width * channels).enumerate().for_each(|(n, to)| {
            let row = input.width * channels;
            to[..pad * row].fill(0.0);
            to[(pad + height) * row..].fill(0.0);
            for (y, to) in to[pad * row..(pad + height) * row].chunks_exact_mut(row).enumerate() {
                to[..pad * channels].fill(0.0);
                to[(pad + width) * channels..].fill(0.0);
                for c in 0..channels {
                    let from = &image[((n * channels + c) * height + y) * width..][..width];
                    for (to, value) in to[pad * channels + c..].iter_mut().step_by(channels).zip(from) {
                        *to = *value;
                    }
                }
            }
        });
        Self { shape, input, output: shape.output(images), bordered }
    }

    /// Size of the result.
    pub(crate) fn output(&self) -> Images {
        self.output
    }

    /// Rows of outputs, of all images.
    fn n_rows(&self) -> usize {
        self.output.batch * self.output.height
    }

    /// Numbers from a row of the bordered input to the next, and between what two neighbouring outputs see.
    fn strides(&self) -> [usize; 2] {
        [self.input.width * self.shape.channels_in, self.shape.stride * self.shape.channels_in]
    }

    /// Where what a row of outputs sees begins. All of it is in the bordered input: the output's size sees to it.
    fn start(&self, row: usize) -> usize {
        let (image, y) = (row / self.output.height, row % self.output.height);
        (image * self.input.height + y * self.shape.stride) * self.strides()[0]
    }

    /// The convolution.
    ///
    /// # Shapes
    /// - weights: `[channels_out, channels_in, kernel, kernel]`
    /// - out: `[batch, height', width', padded(channels_out)]`
    /// - returns the sums that `finish` makes, a row a task
    pub(crate) fn convolve<F: Finish>(&self, weights: &[f32], finish: F, out: &mut [f32]) -> Vec<f32> {
        let (n_out, width) = (padded(self.shape.channels_out), self.output.width);
        assert_eq!(out.len(), self.output.pixels() * n_out);
        assert!(finish.fits(out.len(), n_out));
        let weights = self.packed(weights);
        let at_once = (SUMMED / width).clamp(1, AT_ONCE);
        let n_tasks = self.n_rows().div_ceil(at_once);
        let n_sums = if F::SUMS { 2 * n_out } else { 0 };
        let mut partial = vec![0.0; n_tasks * n_sums];
        let (out, sums) = (Shared::new(out), Shared::new(&mut partial));
        (0..n_tasks).into_par_iter().for_each(|task| {
            let rows = task * at_once..self.n_rows().min((task + 1) * at_once);
            with_scratch(width * n_out, |results| {
                // SAFETY: each task has its own row of sums.
                let sums = unsafe { sums.part(task * n_sums, n_sums) };
                vectorized(Outputs { stem: self, weights: &weights, n_out, finish, rows, out, sums, results });
            });
        });
        partial
    }

    /// `[panel of 16 channels out, row of the kernel, number in it, 16]`
    fn packed(&self, weights: &[f32]) -> Vec<f32> {
        let UnitShape { channels_in, channels_out, kernel, .. } = self.shape;
        let k = stem_row(self.shape);
        let mut packed = vec![0.0; kernel * k * padded(channels_out)];
        for (place, to) in packed.iter_mut().enumerate() {
            let (outer, place) = (place / (kernel * k * COLUMNS) * COLUMNS + place % COLUMNS, place / COLUMNS % (kernel * k));
            let (dy, dx, inner) = (place / k, place % k / channels_in, place % channels_in);
            if outer < channels_out {
                *to = weights[((outer * channels_in + inner) * kernel + dy) * kernel + dx];
            }
        }
        packed
    }

    /// The gradient with respect to the weights.
    ///
    /// # Shapes
    /// - gradient: writes that of a row of outputs, of all images' rows: `[panel of 16 channels, pixel, 16]`
    /// - out: `[channels_out, channels_in, kernel, kernel]`
    pub(crate) fn weight_gradient(&self, gradient: &(impl Fn(usize, &mut [f32]) + Sync), out: &mut [f32]) {
        let UnitShape { channels_in, channels_out, kernel, .. } = self.shape;
        let (k, n_out) = (stem_row(self.shape), padded(channels_out));
        assert_eq!(out.len(), self.shape.n_weights());
        let size = kernel * k * n_out;
        // Enough tasks for several cores; their sums are added up in order afterwards.
        let per_task = self.n_rows().div_ceil(32);
        let n_tasks = self.n_rows().div_ceil(per_task);
        let mut sums = Buffer::zeros(n_tasks * size);
        let shared = Shared::new(&mut sums);
        (0..n_tasks).into_par_iter().for_each(|task| {
            let rows = task * per_task..self.n_rows().min((task + 1) * per_task);
            // SAFETY: each task has its own part.
            let out = unsafe { shared.part(task * size, size) };
            with_scratch(self.output.width * n_out, |of_row| {
                for row in rows {
                    gradient(row, of_row);
                    vectorized(WeightsBack { stem: self, gradient: of_row, n_out, row, out });
                }
            });
        });
        add_up(&mut sums, size);
        for (place, to) in out.iter_mut().enumerate() {
            let (outer, inner) = (place / (channels_in * kernel * kernel), place / (kernel * kernel) % channels_in);
            let (dy, dx) = (place / kernel % kernel, place % kernel);
            *to = sums[(dy * k + dx * channels_in + inner) * n_out + outer];
        }
    }

    /// The gradient with respect to the images, `[batch, channels, height, width]`.
    ///
    /// # Shapes
    /// - gradient: as [`Stem::weight_gradient`]
    /// - weights: `[channels_out, channels_in, kernel, kernel]`
    pub(crate) fn data_gradient(&self, gradient: &(impl Fn(usize, &mut [f32]) + Sync), weights: &[f32]) -> Vec<f32> {
        let UnitShape { channels_in, channels_out, kernel, .. } = self.shape;
        let (k, n_out, pad) = (stem_row(self.shape), padded(channels_out), kernel / 2);
        assert_eq!(weights.len(), self.shape.n_weights());
        // [channel out, row of the kernel, number in it, padded to whole vectors]
        let k_padded = k.next_multiple_of(8);
        let mut turned = vec![0.0; n_out * kernel * k_padded];
        for (place, weight) in weights.iter().enumerate() {
            let (outer, inner) = (place / (channels_in * kernel * kernel), place / (kernel * kernel) % channels_in);
            let (dy, dx) = (place / kernel % kernel, place % kernel);
            turned[(outer * kernel + dy) * k_padded + dx * channels_in + inner] = *weight;
        }
        let (height, width) = (self.input.height - 2 * pad, self.input.width - 2 * pad);
        let mut out = vec![0.0; self.output.batch * channels_in * height * width];
        out.par_chunks_exact_mut(channels_in * height * width).enumerate().for_each(|(image, out)| {
            let mut bordered = vec![0.0; self.input.height * self.strides()[0]];
            with_scratch(self.output.width * n_out, |of_row| {
                for y in 0..self.output.height {
                    gradient(image * self.output.height + y, of_row);
                    vectorized(ImageBack { stem: self, gradient: of_row, weights: &turned, y, out: &mut bordered });
                }
            });
            for (place, to) in out.iter_mut().enumerate() {
                let (c, y, x) = (place / (height * width), place / width % height, place % width);
                *to = bordered[((y + pad) * self.input.width + x + pad) * channels_in + c];
            }
        });
        out
    }
}

/// What a row of outputs adds to the gradient with respect to its bordered image.
struct ImageBack<'a> {
    stem: &'a Stem,
    /// `[panel of 16 channels, pixel of the row, 16]`
    gradient: &'a [f32],
    /// `[channel out, row of the kernel, number in it, padded to a multiple of 8]`
    weights: &'a [f32],
    /// Which row of the image.
    y: usize,
    out: &'a mut [f32],
}

impl Kernel for ImageBack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (stem, width) = (self.stem, self.stem.output.width);
        let (kernel, n_out) = (stem.shape.kernel, padded(stem.shape.channels_out));
        let ([row_stride, step], k_padded) = (stem.strides(), stem_row(stem.shape).next_multiple_of(8));
        assert!(self.weights.len() == n_out * kernel * k_padded && self.gradient.len() == width * n_out);
        let k = stem_row(stem.shape);
        for x in 0..width {
            for (dy, i) in (0..kernel).flat_map(|dy| (0..k_padded).step_by(8).map(move |i| (dy, i))) {
                // What is beyond a row of the kernel is not added: zero times infinity is not 0.
                let to = &mut self.out[(self.y * stem.shape.stride + dy) * row_stride + x * step + i..][..8.min(k - i)];
                let mut added = [0.0f32; 8];
                // SAFETY: gradient and weights were asserted, and `added` has eight numbers.
                unsafe {
                    let mut sum = V::splat(0.0);
                    for outer in 0..n_out {
                        let at = (outer / COLUMNS * width + x) * COLUMNS + outer % COLUMNS;
                        let weights = V::load(self.weights.as_ptr().add((outer * kernel + dy) * k_padded + i));
                        sum = V::splat(*self.gradient.as_ptr().add(at)).mul_add(weights, sum);
                    }
                    sum.store(added.as_mut_ptr());
                }
                to.iter_mut().zip(added).for_each(|(to, added)| *to += added);
            }
        }
    }
}

/// Some rows of outputs.
struct Outputs<'a, F> {
    stem: &'a Stem,
    weights: &'a [f32],
    n_out: usize,
    finish: F,
    rows: Range<usize>,
    out: Shared<f32>,
    sums: &'a mut [f32],
    /// `[pixel of a row, n_out]`
    results: &'a mut [f32],
}

impl<F: Finish> Kernel for Outputs<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (stem, n_out, width) = (self.stem, self.n_out, self.stem.output.width);
        let of_kernel = [stem.shape.kernel, stem_row(stem.shape)];
        let strides = stem.strides();
        assert!(self.results.len() >= width * n_out && self.weights.len() == of_kernel[0] * of_kernel[1] * n_out);
        let results = self.results.as_mut_ptr();
        for row in self.rows {
            // SAFETY: a row of outputs sees what is in the bordered input from its start on; results and weights were asserted; the output
            // and `finish` are of the output's shape (`convolve` checks both), each task has its own rows of it.
            unsafe {
                let a = stem.bordered.as_ptr().add(stem.start(row));
                for panel in 0..n_out / COLUMNS {
                    let b = self.weights.as_ptr().add(panel * of_kernel[0] * of_kernel[1] * COLUMNS);
                    for x in (0..width).step_by(ROWS) {
                        let (a, c) = (a.add(x * strides[1]), results.add(x * n_out + panel * COLUMNS));
                        strided_times_panel::<V>(ROWS.min(width - x), of_kernel, (a, strides), b, (c, n_out));
                    }
                }
                let pixels = (0..width).map(|x| (row * width + x) * n_out);
                write_out::<V, F>(self.finish, results, &pixels, n_out, self.out.get(), self.sums);
            }
        }
    }
}

/// What a row of outputs adds to the gradient of the weights.
struct WeightsBack<'a> {
    stem: &'a Stem,
    /// `[panel of 16 channels, pixel of the row, 16]`
    gradient: &'a [f32],
    n_out: usize,
    row: usize,
    /// `[row of the kernel, number in it, n_out]`
    out: &'a mut [f32],
}

impl Kernel for WeightsBack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (stem, n_out, width) = (self.stem, self.n_out, self.stem.output.width);
        let (kernel, k) = (stem.shape.kernel, stem_row(stem.shape));
        let [row_stride, step] = stem.strides();
        assert!(self.row < stem.n_rows() && self.gradient.len() == width * n_out && self.out.len() == kernel * k * n_out);
        let at_once = balanced_rows(k);
        for (dy, i) in (0..kernel).flat_map(|dy| (0..k).step_by(at_once).map(move |i| (dy, i))) {
            for panel in 0..n_out / COLUMNS {
                // SAFETY: as in `Outputs`; gradient and sums were asserted.
                unsafe {
                    let a = stem.bordered.as_ptr().add(stem.start(self.row) + dy * row_stride + i);
                    let b = self.gradient.as_ptr().add(panel * width * COLUMNS);
                    let c = self.out.as_mut_ptr().add((dy * k + i) * n_out + panel * COLUMNS);
                    columns_times_panel::<V>(at_once.min(k - i), width, a, step, b, c, n_out);
                }
            }
        }
    }
}
