//! The gradient of the weights: inputs and output gradients transformed, multiplied over all tiles, transformed back.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::rows::{Strip, transform_gradients, transform_inputs};
use super::transforms::weight_gradient_1d;
use super::{Tile, point_stride, weights_stride};
use crate::finish::{Input, padded};
use crate::gemm::{COLUMNS, PACKED, balanced_rows, columns_times_panel, pack_rows};
use crate::images::Images;
use crate::lanes::{Kernel, Lanes, vectorized};
use crate::shared::{Buffer, Shared, Target};

/// Transforms of some tiles for the weight gradient.
struct TransformBoth<'a, I, const M: usize, const N: usize> {
    input: I,
    gradient: &'a [f32],
    images: Images,
    channels_in: usize,
    channels_out: usize,
    /// First tile of all, and of these in the group.
    first: usize,
    start: usize,
    count: usize,
    /// Tiles in the group.
    n_tiles: usize,
    inputs: Shared<f32>,
    gradients: Shared<f32>,
}

impl<I: Input, const M: usize, const N: usize> Kernel for TransformBoth<'_, I, M, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (n_in, n_out) = (self.channels_in, self.channels_out);
        let (in_stride, out_stride) = (point_stride(self.n_tiles, n_in), point_stride(self.n_tiles, n_out));
        let (tiles, start, mut strip) = ([self.first + self.start, self.count], self.start, Strip::new());
        // SAFETY: each task writes the places of its own tiles in buffers of N² points; what is read lies inside the images,
        // which input and gradient fit (`weight_gradient` checks both).
        unsafe {
            let to = self.inputs.get().add(start * n_in);
            transform_inputs::<V, I, M, N>(self.input, self.images, n_in, tiles, to, in_stride, &mut strip);
            // [point, panel, tile, 16]
            let to = |t: usize, c: usize| self.gradients.get().add((c / COLUMNS * self.n_tiles + start + t) * COLUMNS + c % COLUMNS);
            transform_gradients::<V, M, N>(self.gradient.as_ptr(), self.images, n_out, tiles, to, out_stride, &mut strip);
        }
    }
}

/// Tiles whose products are summed in registers: a panel of them and the packed inputs stay in the first-level cache.
const REDUCED: usize = 192;

/// Channels up to which tiles are close enough together to be read where they are, in the few panels that there are.
const NARROW: usize = 32;

/// Adds a group's products to some rows of one point of the transformed weight gradient.
struct Accumulate<'a> {
    inputs: &'a [f32],
    gradients: &'a [f32],
    n_tiles: usize,
    channels_in: usize,
    channels_out: usize,
    rows: Range<usize>,
    /// `[channels_in, channels_out]`
    out: Shared<f32>,
}

impl Kernel for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (n_in, n_out, n_tiles) = (self.channels_in, self.channels_out, self.n_tiles);
        assert!(self.inputs.len() >= n_tiles * n_in && self.gradients.len() >= n_tiles * n_out);
        // Rows are written before they are read.
        let mut packed = [MaybeUninit::<f32>::uninit(); REDUCED * PACKED];
        let packed: Target = packed.as_mut_ptr().cast();
        let at_once = balanced_rows(self.rows.len());
        for first in (0..n_tiles).step_by(REDUCED) {
            let count = REDUCED.min(n_tiles - first);
            for i in self.rows.clone().step_by(at_once) {
                let rows = at_once.min(self.rows.end - i);
                // SAFETY: rows and panels are within both inputs, as asserted; each task adds to its own rows of `out`.
                unsafe {
                    let inputs = self.inputs.as_ptr();
                    if n_in > NARROW {
                        pack_rows::<V>((first..first + count).map(|t| inputs.add(t * n_in + i)), rows, i + PACKED <= n_in, packed);
                    }
                    let (a, a_stride) = if n_in <= NARROW { (inputs.add(first * n_in + i), n_in) } else { (packed.cast_const(), PACKED) };
                    for panel in 0..n_out / COLUMNS {
                        let b = self.gradients.as_ptr().add((panel * n_tiles + first) * COLUMNS);
                        let c = self.out.get().add(i * n_out + panel * COLUMNS);
                        columns_times_panel::<V>(rows, count, a, a_stride, b, c, n_out);
                    }
                }
            }
        }
    }
}

/// Transformed weight gradient back to `[channels_out, channels_in, 3, 3]`.
struct WeightsBack<'a, const N: usize> {
    transformed: &'a [f32],
    channels_in: usize,
    channels_out: usize,
    /// Real channels.
    real_in: usize,
    real_out: usize,
    /// First of eight channels out.
    first: usize,
    out: Shared<f32>,
}

impl<const N: usize> Kernel for WeightsBack<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let point = weights_stride(self.channels_in, self.channels_out);
        for inner in 0..self.real_in {
            let mut values = [[0.0f32; 8]; 9];
            // SAFETY: there are N² points; `values` holds eight a tap.
            unsafe {
                let from = self.transformed.as_ptr().add(inner * self.channels_out + self.first);
                let mut half = [[V::splat(0.0); N]; 3];
                for j in 0..N {
                    let column = weight_gradient_1d::<V, N>(std::array::from_fn(|i| V::load(from.add((i * N + j) * point))));
                    for i in 0..3 {
                        half[i][j] = column[i];
                    }
                }
                for i in 0..3 {
                    for (j, value) in weight_gradient_1d::<V, N>(half[i]).into_iter().enumerate() {
                        value.store(values[3 * i + j].as_mut_ptr());
                    }
                }
            }
            for lane in 0..8.min(self.real_out.saturating_sub(self.first)) {
                let place = ((self.first + lane) * self.real_in + inner) * 9;
                // SAFETY: each task has its own channels out, and `out` has 9 numbers for each pair of real channels.
                let to = unsafe { self.out.part(place, 9) };
                for tap in 0..9 {
                    to[tap] = values[tap][lane];
                }
            }
        }
    }
}

/// Numbers of transformed tensors held at a time for the weight gradient, so that they stay in the second-level cache; of many channels
/// more, since as many tiles are worth reading the gradients for.
const GROUP: usize = 160_000;

/// Gradient of the weights of a 3 × 3 convolution of stride 1, padded by 1.
///
/// # Shapes
/// - input: `[batch, height, width, padded(real_in)]`
/// - gradient: `[batch, height, width, padded(real_out)]`
/// - out: `[real_out, real_in, 3, 3]`
pub(crate) fn weight_gradient<I: Input>(
    tile: Tile,
    input: I,
    gradient: &[f32],
    images: Images,
    [real_in, real_out]: [usize; 2],
    out: &mut [f32],
) {
    let (channels_in, channels_out) = (padded(real_in), padded(real_out));
    assert_eq!(gradient.len(), images.pixels() * channels_out);
    assert!(input.fits(images.pixels() * channels_in, channels_in));
    assert_eq!(out.len(), real_in * real_out * 9);
    let all = tile.count(images);
    let points = tile.points();
    // Whole rows of tiles: those of a row share columns of pixels.
    let in_row = images.width.div_ceil(tile.side());
    let in_group = (GROUP / (points * (channels_in + channels_out))).max(64).next_multiple_of(in_row).min(all);
    let mut inputs = Buffer::new(points * point_stride(in_group, channels_in));
    let mut gradients = Buffer::new(points * point_stride(in_group, channels_out));
    let mut transformed = Buffer::zeros(points * weights_stride(channels_in, channels_out));
    for first in (0..all).step_by(in_group) {
        let n_tiles = in_group.min(all - first);
        let (to_inputs, to_gradients) = (Shared::new(&mut inputs), Shared::new(&mut gradients));
        let at_once = n_tiles.div_ceil(32).next_multiple_of(in_row).min(n_tiles);
        (0..n_tiles.div_ceil(at_once)).into_par_iter().for_each(|k| {
            let start = k * at_once;
            let count = at_once.min(n_tiles - start);
            macro_rules! run {
                ($m:literal, $n:literal) => {
                    vectorized(TransformBoth::<I, $m, $n> {
                        input,
                        gradient,
                        images,
                        channels_in,
                        channels_out,
                        first,
                        start,
                        count,
                        n_tiles,
                        inputs: to_inputs,
                        gradients: to_gradients,
                    })
                };
            }
            match tile {
                Tile::Two => run!(2, 4),
                Tile::Three => run!(3, 5),
                Tile::Four => run!(4, 6),
            }
        });
        // A multiple of the rows in registers.
        let rows_at_once = channels_in.min(96);
        let row_blocks = channels_in.div_ceil(rows_at_once);
        let (stride_in, stride_out) = (point_stride(n_tiles, channels_in), point_stride(n_tiles, channels_out));
        let shared = Shared::new(&mut transformed);
        (0..points * row_blocks).into_par_iter().for_each(|k| {
            let (point, start) = (k / row_blocks, k % row_blocks * rows_at_once);
            // SAFETY: the begin of the point's part of the buffer; each task adds to its own rows there.
            let of_point = unsafe { shared.from(point * weights_stride(channels_in, channels_out)) };
            vectorized(Accumulate {
                inputs: &inputs[point * stride_in..],
                gradients: &gradients[point * stride_out..],
                n_tiles,
                channels_in,
                channels_out,
                rows: start..channels_in.min(start + rows_at_once),
                out: of_point,
            });
        });
    }
    let out = Shared::new(out);
    (0..channels_out / 8).into_par_iter().for_each(|k| {
        let transformed = &transformed[..];
        let first = 8 * k;
        match tile {
            Tile::Two => vectorized(WeightsBack::<4> { transformed, channels_in, channels_out, real_in, real_out, first, out }),
            Tile::Three => vectorized(WeightsBack::<5> { transformed, channels_in, channels_out, real_in, real_out, first, out }),
            Tile::Four => vectorized(WeightsBack::<6> { transformed, channels_in, channels_out, real_in, real_out, first, out }),
        }
    });
}
