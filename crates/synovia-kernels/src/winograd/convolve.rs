//! The convolution, and the data gradient, which is one with turned weights: inputs transformed, multiplied, transformed back.

use std::ops::Range;

use rayon::prelude::*;

use super::rows::{Strip, transform_inputs};
use super::transforms::output_1d;
use super::weights::{Weights, transform_panel, transform_weights};
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

/// A convolution: all that its parts have in common.
struct Convolution<'a, I, F> {
    tile: Tile,
    input: I,
    finish: F,
    images: Images,
    n_tiles: usize,
    weights: Weights<'a>,
    channels_in: usize,
    channels_out: usize,
    out: Shared<f32>,
}

/// Some tiles from input to output, or a step of that way.
struct Part<'a> {
    steps: Steps,
    /// First tile of the buffers, and how many they hold.
    first: usize,
    n_tiles: usize,
    /// What of the buffers is worked on.
    tiles: Range<usize>,
    points: Range<usize>,
    panels: Range<usize>,
    /// First channel out of weights, products and sums, and how many they have.
    first_channel: usize,
    channels: usize,
    /// `[point, panel, channel in, 16]`, by [`weights_stride`].
    weights: &'a [f32],
    /// `[point, tile, channel in]` and `[point, tile, channel]`, by [`point_stride`].
    transformed: Shared<f32>,
    products: Shared<f32>,
    /// Two a channel, where the finish makes some.
    sums: &'a mut [f32],
}

struct Block<'a, I, F, const M: usize, const N: usize> {
    of: &'a Convolution<'a, I, F>,
    part: Part<'a>,
}

impl<I: Input, F: Finish, const M: usize, const N: usize> Kernel for Block<'_, I, F, M, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Convolution { input, finish, images, channels_in: n_in, channels_out: n_out, out, .. } = *self.of;
        let Part { steps, first, n_tiles, tiles, points, panels, first_channel, channels, weights, transformed, products, sums: part_sums } =
            self.part;
        let (in_stride, out_stride) = (point_stride(n_tiles, n_in), point_stride(n_tiles, channels));
        let (transformed, products) = (transformed.get(), products.get());
        let weights_stride = weights_stride(n_in, channels);
        assert!(tiles.end <= n_tiles && points.end <= N * N && panels.end * COLUMNS <= channels && first_channel + channels <= n_out);
        assert!(!F::SUMS || !matches!(steps, Steps::All | Steps::Outputs) || part_sums.len() == 2 * channels);
        assert!(panels.is_empty() || weights.len() == N * N * weights_stride);
        // SAFETY: the buffers hold N² points of `n_tiles` tiles, of which each task of a step has its own part, and each step
        // is over before the next begins. Weights hold N² points. Pixels are those of tiles inside the images,
        // which input, finish and output fit (`convolve` checks all), and different tiles share none; tasks of the same tiles have other channels.
        unsafe {
            if matches!(steps, Steps::All | Steps::Inputs) {
                let (tiles, to) = ([first + tiles.start, tiles.len()], transformed.add(tiles.start * n_in));
                transform_inputs::<V, I, M, N>(input, images, n_in, tiles, to, in_stride, &mut Strip::new());
            }
            if matches!(steps, Steps::All | Steps::Products) {
                for point in points.clone() {
                    let (from, to) = (transformed.add(point * in_stride), products.add(point * out_stride));
                    for panel in panels.clone() {
                        let weights: Source = weights.as_ptr().add(point * weights_stride + panel * COLUMNS * n_in);
                        for t in tiles.clone().step_by(ROWS) {
                            let rows = ROWS.min(tiles.end - t);
                            let (a, c) = (from.add(t * n_in).cast_const(), to.add(t * channels + panel * COLUMNS));
                            strided_times_panel::<V>(rows, [1, n_in], (a, [0, n_in]), weights, (c, channels));
                        }
                    }
                }
            }
            if matches!(steps, Steps::All | Steps::Outputs) {
                for t in tiles.clone() {
                    let place = Place::of(first + t, M, images);
                    let (rows, columns) = (M.min(images.height - place.y), M.min(images.width - place.x));
                    for c in (0..channels).step_by(8) {
                        let (from, channel) = (products.add(t * channels + c), first_channel + c);
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
                            sums = [V::load(part_sums.as_ptr().add(c)), V::load(part_sums.as_ptr().add(channels + c))];
                        }
                        // Loops of known length, which leave numbers in registers.
                        for i in 0..M {
                            if i < rows {
                                let values = output_1d::<V, M, N>(half[i]);
                                let pixel = ((place.image * images.height + place.y + i) * images.width + place.x) * n_out;
                                for j in 0..M {
                                    if j < columns {
                                        let pixel = pixel + j * n_out;
                                        let at = out.get().add(pixel + channel);
                                        finish.finish(values[j], at, pixel, channel, &mut sums).store(at);
                                    }
                                }
                            }
                        }
                        if F::SUMS {
                            sums[0].store(part_sums.as_mut_ptr().add(c));
                            sums[1].store(part_sums.as_mut_ptr().add(channels + c));
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

/// Transformed inputs, so many numbers of them at most, that are gone through once a panel of channels out: they stay in the second-level
/// cache, and a panel of weights, which is transformed where it is used, near it. The other way around all weights go through it once
/// for some tiles each.
const REREAD: usize = 210_000;

/// Panels from which on that is worth it: fewer have few weights.
const MANY_PANELS: usize = 4;

/// Tiles a task works on at a time.
fn tiles_in_block(tile: Tile, channels_in: usize, channels_out: usize, n_tiles: usize) -> usize {
    // Two transformed tensors of the block beside the weights of a point in the second-level cache; enough rows that reading
    // the weights is paid for; enough blocks to keep several cores busy.
    let budget = 110_000 / (tile.points() * (channels_in + channels_out));
    let most = (n_tiles / 16).next_multiple_of(ROWS).max(ROWS);
    (budget / ROWS * ROWS).clamp(24, 96).min(most.max(24))
}

impl<I: Input, F: Finish> Convolution<'_, I, F> {
    /// Numbers of all transformed inputs, and of all products.
    fn sizes(&self) -> [usize; 2] {
        [self.channels_in, self.channels_out].map(|channels| self.tile.points() * point_stride(self.n_tiles, channels))
    }

    /// Sums that the finish makes of so many channels.
    fn n_sums(channels: usize) -> usize {
        if F::SUMS { 2 * channels } else { 0 }
    }

    fn run(&self, part: Part<'_>) {
        match self.tile {
            Tile::Two => vectorized(Block::<I, F, 2, 4> { of: self, part }),
            Tile::Three => vectorized(Block::<I, F, 3, 5> { of: self, part }),
            Tile::Four => vectorized(Block::<I, F, 4, 6> { of: self, part }),
        }
    }

    /// Tiles of parts of all tiles, for as many cores as may come.
    fn parts(&self) -> impl IndexedParallelIterator<Item = Range<usize>> + use<I, F> {
        let (n_tiles, in_part) = (self.n_tiles, self.n_tiles.div_ceil(32));
        (0..n_tiles.div_ceil(in_part)).into_par_iter().map(move |k| k * in_part..n_tiles.min((k + 1) * in_part))
    }

    /// All inputs, transformed.
    fn inputs(&self) -> Buffer {
        let mut transformed = Buffer::new(self.sizes()[0]);
        let to = Shared::new(&mut transformed);
        self.parts().for_each(|tiles| {
            self.run(Part {
                steps: Steps::Inputs,
                first: 0,
                n_tiles: self.n_tiles,
                tiles,
                points: 0..0,
                panels: 0..0,
                first_channel: 0,
                channels: self.channels_out,
                weights: &[],
                transformed: to,
                products: to,
                sums: &mut [],
            });
        });
        transformed
    }

    /// All tiles through a panel of 16 channels out, whose weights are transformed on the spot; a panel a task.
    fn by_panels(&self) -> Vec<f32> {
        let (points, n_tiles) = (self.tile.points(), self.n_tiles);
        let stride = weights_stride(self.channels_in, COLUMNS);
        let mut inputs = self.inputs();
        let transformed = Shared::new(&mut inputs);
        let mut sums = vec![0.0; Self::n_sums(self.channels_out)];
        let of_panels = Shared::new(&mut sums);
        (0..self.channels_out / COLUMNS).into_par_iter().for_each(|panel| {
            with_scratch(points * (stride + point_stride(n_tiles, COLUMNS)), |scratch| {
                let (weights, products) = scratch.split_at_mut(points * stride);
                // SAFETY: there is room for so many points, and it is this task's own.
                unsafe { transform_panel(self.tile, self.weights, panel, stride, Shared::new(weights)) };
                let (products, mut sums) = (Shared::new(products), [0.0; 2 * COLUMNS]);
                for steps in [Steps::Products, Steps::Outputs] {
                    self.run(Part {
                        steps,
                        first: 0,
                        n_tiles,
                        tiles: 0..n_tiles,
                        points: 0..points,
                        panels: 0..1,
                        first_channel: panel * COLUMNS,
                        channels: COLUMNS,
                        weights,
                        transformed,
                        products,
                        sums: &mut sums,
                    });
                }
                if F::SUMS {
                    for (k, sums) in sums.chunks_exact(COLUMNS).enumerate() {
                        // SAFETY: each panel has its own places in each half of the sums.
                        unsafe { of_panels.part(k * self.channels_out + panel * COLUMNS, COLUMNS) }.copy_from_slice(sums);
                    }
                }
            });
        });
        sums
    }

    /// All tiles through one step after the other.
    fn by_steps(&self) -> Vec<f32> {
        let (points, n_tiles, channels) = (self.tile.points(), self.n_tiles, self.channels_out);
        let weights = &*transform_weights(self.tile, self.weights);
        let (mut inputs, mut products) = (self.inputs(), Buffer::new(self.sizes()[1]));
        let (transformed, products) = (Shared::new(&mut inputs), Shared::new(&mut products));
        let n_panels = channels / COLUMNS;
        let groups = n_panels.div_ceil(PANELS);
        (0..points * groups).into_par_iter().for_each(|k| {
            let (point, first) = (k / groups, k % groups * PANELS);
            self.run(Part {
                steps: Steps::Products,
                first: 0,
                n_tiles,
                tiles: 0..n_tiles,
                points: point..point + 1,
                panels: first..n_panels.min(first + PANELS),
                first_channel: 0,
                channels,
                weights,
                transformed,
                products,
                sums: &mut [],
            });
        });
        let parts = self.parts();
        let width = Self::n_sums(channels);
        let mut sums = vec![0.0; parts.len() * width];
        let of_parts = Shared::new(&mut sums);
        parts.enumerate().for_each(|(k, tiles)| {
            self.run(Part {
                steps: Steps::Outputs,
                first: 0,
                n_tiles,
                tiles,
                points: 0..0,
                panels: 0..0,
                first_channel: 0,
                channels,
                weights,
                transformed,
                products,
                // SAFETY: each task has its own row of sums.
                sums: unsafe { of_parts.part(k * width, width) },
            });
        });
        sums
    }

    /// Some tiles through all steps, and then the next.
    fn by_blocks(&self) -> Vec<f32> {
        let (points, channels) = (self.tile.points(), self.channels_out);
        let weights = &*transform_weights(self.tile, self.weights);
        let in_block = tiles_in_block(self.tile, self.channels_in, channels, self.n_tiles);
        let n_blocks = self.n_tiles.div_ceil(in_block);
        let width = Self::n_sums(channels);
        let mut sums = vec![0.0; n_blocks * width];
        let of_blocks = Shared::new(&mut sums);
        (0..n_blocks).into_par_iter().for_each(|block| {
            let first = block * in_block;
            let n_tiles = in_block.min(self.n_tiles - first);
            let size = points * point_stride(n_tiles, self.channels_in);
            with_scratch(size + points * point_stride(n_tiles, channels), |scratch| {
                let (transformed, products) = scratch.split_at_mut(size);
                self.run(Part {
                    steps: Steps::All,
                    first,
                    n_tiles,
                    tiles: 0..n_tiles,
                    points: 0..points,
                    panels: 0..channels / COLUMNS,
                    first_channel: 0,
                    channels,
                    weights,
                    transformed: Shared::new(transformed),
                    products: Shared::new(products),
                    // SAFETY: each task has its own row of sums.
                    sums: unsafe { of_blocks.part(block * width, width) },
                });
            });
        });
        sums
    }
}

/// 3 × 3 convolution of stride 1, padded by 1.
///
/// # Shapes
/// - input: `[batch, height, width, channels_in]`, channels padded
/// - out: `[batch, height, width, channels_out]`
/// - returns the sums that `finish` makes, in one row or several, or nothing
pub(crate) fn convolve<I: Input, F: Finish>(
    tile: Tile,
    input: I,
    finish: F,
    images: Images,
    weights: Weights<'_>,
    out: &mut [f32],
) -> Vec<f32> {
    let [channels_in, channels_out] = weights.channels();
    assert_eq!(weights.values.len(), weights.channels_in * weights.channels_out * 9);
    assert_eq!(out.len(), images.pixels() * channels_out);
    assert!(input.fits(images.pixels() * channels_in, channels_in) && finish.fits(out.len(), channels_out));
    let n_tiles = tile.count(images);
    let convolution = Convolution { tile, input, finish, images, n_tiles, weights, channels_in, channels_out, out: Shared::new(out) };
    let [inputs, products] = convolution.sizes();
    if channels_out / COLUMNS >= MANY_PANELS && inputs <= REREAD {
        convolution.by_panels()
    } else if channels_in + channels_out >= MANY_CHANNELS && inputs + products <= HELD {
        convolution.by_steps()
    } else {
        convolution.by_blocks()
    }
}
