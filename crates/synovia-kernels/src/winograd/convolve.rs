//! The convolution, and the data gradient, which is one with turned weights: inputs transformed, multiplied, transformed back.

use std::ops::Range;

use rayon::prelude::*;

use super::rows::{Strip, transform_inputs};
use super::transforms::output_1d;
use super::{Place, Tile, point_stride, weights_stride};
use crate::finish::{Finish, Input};
use crate::gemm::{COLUMNS, ROWS, strided_times_panel};
use crate::images::Images;
use crate::lanes::{Kernel, Lanes, vectorized};
use crate::shared::{Buffer, Shared, Source, with_scratch};

/// Which steps of the algorithm.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Steps {
    /// All, one after the other.
    All,
    /// Input tiles to transformed tiles.
    Inputs,
    /// Transformed tiles times transformed weights.
    Products,
    /// Products to output tiles.
    Outputs,
}

/// Some tiles from input to output, or a step of that way.
struct Block<'a, I, F, const M: usize, const N: usize> {
    steps: Steps,
    input: I,
    finish: F,
    images: Images,
    channels_in: usize,
    channels_out: usize,
    weights: &'a [f32],
    /// First tile of the buffers, and how many they hold.
    first: usize,
    n_tiles: usize,
    /// What of the buffers is worked on.
    tiles: Range<usize>,
    points: Range<usize>,
    panels: Range<usize>,
    /// `[point, tile, channel in]` and `[point, tile, channel out]`, by [`point_stride`].
    transformed: Shared<f32>,
    products: Shared<f32>,
    out: Shared<f32>,
    sums: &'a mut [f32],
}

impl<I: Input, F: Finish, const M: usize, const N: usize> Kernel for Block<'_, I, F, M, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (n_in, n_out, n_tiles) = (self.channels_in, self.channels_out, self.n_tiles);
        let (in_stride, out_stride) = (point_stride(n_tiles, n_in), point_stride(n_tiles, n_out));
        let (transformed, products) = (self.transformed.get(), self.products.get());
        let weights_stride = weights_stride(n_in, n_out);
        assert!(self.tiles.end <= n_tiles && self.points.end <= N * N && self.panels.end * COLUMNS <= n_out);
        // SAFETY: the buffers hold N² points of `n_tiles` tiles, of which each task of a step has its own part, and each step
        // is over before the next begins. Weights hold N² points. Pixels are those of tiles inside the images,
        // which input, finish and output fit (`convolve` checks all), and different tiles share none.
        unsafe {
            if matches!(self.steps, Steps::All | Steps::Inputs) {
                let (tiles, to) = ([self.first + self.tiles.start, self.tiles.len()], transformed.add(self.tiles.start * n_in));
                transform_inputs::<V, I, M, N>(self.input, self.images, n_in, tiles, to, in_stride, &mut Strip::new());
            }
            if matches!(self.steps, Steps::All | Steps::Products) {
                for point in self.points.clone() {
                    let (from, to) = (transformed.add(point * in_stride), products.add(point * out_stride));
                    for panel in self.panels.clone() {
                        let weights: Source = self.weights.as_ptr().add(point * weights_stride + panel * COLUMNS * n_in);
                        for t in self.tiles.clone().step_by(ROWS) {
                            let rows = ROWS.min(self.tiles.end - t);
                            let (a, c) = (from.add(t * n_in).cast_const(), to.add(t * n_out + panel * COLUMNS));
                            strided_times_panel::<V>(rows, [1, n_in], (a, [0, n_in]), weights, (c, n_out));
                        }
                    }
                }
            }
            if matches!(self.steps, Steps::All | Steps::Outputs) {
                for t in self.tiles.clone() {
                    let place = Place::of(self.first + t, M, self.images);
                    let (rows, columns) = (M.min(self.images.height - place.y), M.min(self.images.width - place.x));
                    for c in (0..n_out).step_by(8) {
                        let from = products.add(t * n_out + c);
                        let mut half = [[V::splat(0.0); N]; M];
                        for j in 0..N {
                            let mut column = [V::splat(0.0); N];
                            for i in 0..N {
                                column[i] = V::load(from.add((i * N + j) * out_stride));
                            }
                            let column = output_1d::<V, M, N>(column);
                            for i in 0..M {
                                half[i][j] = column[i];
                            }
                        }
                        let mut sums = [V::splat(0.0); 2];
                        if F::SUMS {
                            sums = [V::load(self.sums.as_ptr().add(c)), V::load(self.sums.as_ptr().add(n_out + c))];
                        }
                        // Loops of known length, which leave numbers in registers.
                        for i in 0..M {
                            if i < rows {
                                let values = output_1d::<V, M, N>(half[i]);
                                let pixel = ((place.image * self.images.height + place.y + i) * self.images.width + place.x) * n_out;
                                for j in 0..M {
                                    if j < columns {
                                        let pixel = pixel + j * n_out;
                                        let at = self.out.get().add(pixel + c);
                                        self.finish.finish(values[j], at, pixel, c, &mut sums).store(at);
                                    }
                                }
                            }
                        }
                        if F::SUMS {
                            sums[0].store(self.sums.as_mut_ptr().add(c));
                            sums[1].store(self.sums.as_mut_ptr().add(n_out + c));
                        }
                    }
                }
            }
        }
    }
}

/// Channels, in and out, from which on the transformed weights are large and each should be read once: the whole batch goes
/// through one step of the algorithm at a time, if all of its tiles can be held in a usual last-level cache.
const MANY_CHANNELS: usize = 512;

/// Numbers that can.
const HELD: usize = 6_000_000;

/// Panels of a task of products.
const PANELS: usize = 4;

/// Tiles a task works on at a time.
fn tiles_in_block(tile: Tile, channels_in: usize, channels_out: usize, n_tiles: usize) -> usize {
    // Two transformed tensors of the block beside the weights of a point in the second-level cache; enough rows that reading
    // the weights is paid for; enough blocks to keep several cores busy.
    let budget = 110_000 / (tile.points() * (channels_in + channels_out));
    let most = (n_tiles / 16).next_multiple_of(ROWS).max(ROWS);
    (budget / ROWS * ROWS).clamp(24, 96).min(most.max(24))
}

/// 3 × 3 convolution of stride 1, padded by 1.
///
/// # Shapes
/// - input: `[batch, height, width, channels_in]`, channels padded
/// - weights: by [`transform_weights`]
/// - out: `[batch, height, width, channels_out]`
/// - returns the sums that `finish` makes, a row a task, or nothing
pub(crate) fn convolve<I: Input, F: Finish>(
    tile: Tile,
    input: I,
    finish: F,
    images: Images,
    [channels_in, channels_out]: [usize; 2],
    weights: &[f32],
    out: &mut [f32],
) -> Vec<f32> {
    assert_eq!(weights.len(), tile.points() * weights_stride(channels_in, channels_out));
    assert_eq!(out.len(), images.pixels() * channels_out);
    assert!(input.fits(images.pixels() * channels_in, channels_in) && finish.fits(out.len(), channels_out));
    let n_tiles = tile.count(images);
    let points = tile.points();
    let all = points * (point_stride(n_tiles, channels_in) + point_stride(n_tiles, channels_out));
    let by_steps = channels_in + channels_out >= MANY_CHANNELS && all <= HELD;
    let in_block = if by_steps { n_tiles.div_ceil(32) } else { tiles_in_block(tile, channels_in, channels_out, n_tiles) };
    let n_blocks = n_tiles.div_ceil(in_block);
    let width = if F::SUMS { 2 * channels_out } else { 0 };
    let mut partial = vec![0.0; n_blocks * width];
    let (out, sums) = (Shared::new(out), Shared::new(&mut partial));
    macro_rules! run {
        ($steps:expr, $first:expr, $n_tiles:expr, $tiles:expr, $points:expr, $panels:expr, $transformed:expr, $products:expr, $sums:expr) => {{
            macro_rules! of_tile {
                ($m:literal, $n:literal) => {
                    vectorized(Block::<I, F, $m, $n> {
                        steps: $steps,
                        input,
                        finish,
                        images,
                        channels_in,
                        channels_out,
                        weights,
                        first: $first,
                        n_tiles: $n_tiles,
                        tiles: $tiles,
                        points: $points,
                        panels: $panels,
                        transformed: $transformed,
                        products: $products,
                        out,
                        sums: $sums,
                    })
                };
            }
            match tile {
                Tile::Two => of_tile!(2, 4),
                Tile::Three => of_tile!(3, 5),
                Tile::Four => of_tile!(4, 6),
            }
        }};
    }
    let n_panels = channels_out / COLUMNS;
    if by_steps {
        let mut transformed = Buffer::new(points * point_stride(n_tiles, channels_in));
        let mut products = Buffer::new(points * point_stride(n_tiles, channels_out));
        let (transformed, products) = (Shared::new(&mut transformed), Shared::new(&mut products));
        let tiles = |block: usize| block * in_block..n_tiles.min((block + 1) * in_block);
        (0..n_blocks).into_par_iter().for_each(|block| {
            run!(Steps::Inputs, 0, n_tiles, tiles(block), 0..0, 0..0, transformed, products, &mut []);
        });
        let groups = n_panels.div_ceil(PANELS);
        (0..points * groups).into_par_iter().for_each(|k| {
            let (point, first) = (k / groups, k % groups * PANELS);
            let panels = first..n_panels.min(first + PANELS);
            run!(Steps::Products, 0, n_tiles, 0..n_tiles, point..point + 1, panels, transformed, products, &mut []);
        });
        (0..n_blocks).into_par_iter().for_each(|block| {
            // SAFETY: each task has its own row of sums.
            let sums = unsafe { sums.part(block * width, width) };
            run!(Steps::Outputs, 0, n_tiles, tiles(block), 0..0, 0..0, transformed, products, sums);
        });
        return partial;
    }
    (0..n_blocks).into_par_iter().for_each(|block| {
        let first = block * in_block;
        let n_tiles = in_block.min(n_tiles - first);
        let size = points * point_stride(n_tiles, channels_in);
        with_scratch(size + points * point_stride(n_tiles, channels_out), |scratch| {
            let (transformed, products) = scratch.split_at_mut(size);
            // SAFETY: each task has its own row of sums.
            let sums = unsafe { sums.part(block * width, width) };
            let (transformed, products) = (Shared::new(transformed), Shared::new(products));
            run!(Steps::All, first, n_tiles, 0..n_tiles, 0..points, 0..n_panels, transformed, products, sums);
        });
    });
    partial
}
