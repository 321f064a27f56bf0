//! 3 × 3 convolutions of stride 1 with few multiplications (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural
//! Networks"): F(4 × 4, 3 × 3) with 36 products where the definition has 144, F(2 × 2, 3 × 3) with 16 where it has 36.
//!
//! `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` a tile; the products of all channels are matrix products, one a point of the transformed
//! tile. The weight gradient is the adjoint: `dg = Gᵀ [Σ (Bᵀ d B) ⊙ (A dy Aᵀ)] G`.

use std::ops::Range;

use rayon::prelude::*;

use crate::finish::{Finish, Input, padded};
use crate::gemm::{COLUMNS, PACKED, ROWS, balanced_rows, columns_times_panel, pack_rows, rows_times_panel};
use crate::lanes::{Kernel, Lanes, vectorized};
use crate::shared::{Buffer, Shared, Source, Target, with_scratch};

/// A batch of images: `[batch, height, width, channels]`, channels padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Images {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
}

impl Images {
    pub(crate) fn pixels(self) -> usize {
        self.batch * self.height * self.width
    }
}

/// Side of a tile of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tile {
    /// F(2 × 2, 3 × 3).
    Two,
    /// F(4 × 4, 3 × 3).
    Four,
}

impl Tile {
    /// The side that does fewer multiplications for images of this size.
    pub(crate) fn for_size(height: usize, width: usize) -> Self {
        let products = |side: usize| height.div_ceil(side) * width.div_ceil(side) * (side + 2) * (side + 2);
        if products(4) <= products(2) { Self::Four } else { Self::Two }
    }

    const fn side(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Points of a transformed tile.
    const fn points(self) -> usize {
        (self.side() + 2) * (self.side() + 2)
    }

    fn count(self, images: Images) -> usize {
        images.batch * images.height.div_ceil(self.side()) * images.width.div_ceil(self.side())
    }
}

/// `Bᵀ d`
#[inline(always)]
unsafe fn input_1d<V: Lanes, const N: usize>(d: [V; N]) -> [V; N] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let mut out = d;
        if N == 6 {
            let (four, five, two) = (V::splat(4.0), V::splat(-5.0), V::splat(2.0));
            // 4 d0 − 5 d2 + d4, 4 d1 − 5 d3 + d5
            out[0] = d[0].mul_add(four, d[2].mul_add(five, d[4]));
            out[5] = d[1].mul_add(four, d[3].mul_add(five, d[5]));
            let (even, odd) = (d[2].mul_add(V::splat(-4.0), d[4]), d[1].mul_add(V::splat(-4.0), d[3]));
            out[1] = even.add(odd);
            out[2] = even.sub(odd);
            let (even, odd) = (d[4].sub(d[2]), d[3].sub(d[1]).mul(two));
            out[3] = even.add(odd);
            out[4] = even.sub(odd);
        } else {
            out[0] = d[0].sub(d[2]);
            out[1] = d[1].add(d[2]);
            out[2] = d[2].sub(d[1]);
            out[3] = d[1].sub(d[3]);
        }
        out
    }
}

/// `Aᵀ m`
#[inline(always)]
unsafe fn output_1d<V: Lanes, const M: usize, const N: usize>(m: [V; N]) -> [V; M] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let mut out = [m[0]; M];
        if M == 4 {
            let (sum_1, difference_1) = (m[1].add(m[2]), m[1].sub(m[2]));
            let (sum_2, difference_2) = (m[3].add(m[4]), m[3].sub(m[4]));
            out[0] = m[0].add(sum_1).add(sum_2);
            out[1] = difference_2.mul_add(V::splat(2.0), difference_1);
            out[2] = sum_2.mul_add(V::splat(4.0), sum_1);
            out[3] = difference_2.mul_add(V::splat(8.0), difference_1).add(m[5]);
        } else {
            out[0] = m[0].add(m[1]).add(m[2]);
            out[1] = m[1].sub(m[2]).sub(m[3]);
        }
        out
    }
}

/// `A y`
#[inline(always)]
unsafe fn output_gradient_1d<V: Lanes, const M: usize, const N: usize>(y: [V; M]) -> [V; N] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let mut out = [y[0]; N];
        if M == 4 {
            let (even, odd) = (y[0].add(y[2]), y[1].add(y[3]));
            out[1] = even.add(odd);
            out[2] = even.sub(odd);
            let (even, odd) = (y[2].mul_add(V::splat(4.0), y[0]), y[3].mul_add(V::splat(4.0), y[1]).mul(V::splat(2.0)));
            out[3] = even.add(odd);
            out[4] = even.sub(odd);
            out[5] = y[3];
        } else {
            out[1] = y[0].add(y[1]);
            out[2] = y[0].sub(y[1]);
            out[3] = V::splat(0.0).sub(y[1]);
        }
        out
    }
}

/// `G g`
#[inline(always)]
unsafe fn weight_1d<V: Lanes, const N: usize>(g: [V; 3]) -> [V; N] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let mut out = [g[0]; N];
        if N == 6 {
            out[0] = g[0].mul(V::splat(0.25));
            let (even, odd) = (g[0].add(g[2]).mul(V::splat(-1.0 / 6.0)), g[1].mul(V::splat(-1.0 / 6.0)));
            out[1] = even.add(odd);
            out[2] = even.sub(odd);
            let even = g[2].mul_add(V::splat(4.0), g[0]).mul(V::splat(1.0 / 24.0));
            let odd = g[1].mul(V::splat(1.0 / 12.0));
            out[3] = even.add(odd);
            out[4] = even.sub(odd);
            out[5] = g[2];
        } else {
            let (even, odd) = (g[0].add(g[2]).mul(V::splat(0.5)), g[1].mul(V::splat(0.5)));
            out[1] = even.add(odd);
            out[2] = even.sub(odd);
            out[3] = g[2];
        }
        out
    }
}

/// `Gᵀ u`
#[inline(always)]
unsafe fn weight_gradient_1d<V: Lanes, const N: usize>(u: [V; N]) -> [V; 3] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let (sum_1, difference_1) = (u[1].add(u[2]), u[1].sub(u[2]));
        if N == 6 {
            let (sum_1, difference_1) = (sum_1.mul(V::splat(-1.0 / 6.0)), difference_1.mul(V::splat(-1.0 / 6.0)));
            let (sum_2, difference_2) = (u[3].add(u[4]), u[3].sub(u[4]));
            [
                u[0].mul_add(V::splat(0.25), sum_2.mul_add(V::splat(1.0 / 24.0), sum_1)),
                difference_2.mul_add(V::splat(1.0 / 12.0), difference_1),
                sum_2.mul_add(V::splat(1.0 / 6.0), sum_1).add(u[5]),
            ]
        } else {
            let half = V::splat(0.5);
            [sum_1.mul_add(half, u[0]), difference_1.mul(half), sum_1.mul_add(half, u[3])]
        }
    }
}

/// Where the weights of the transformed kernel come from: `[channels_out, channels_in, 3, 3]` of the forward convolution.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub values: &'a [f32],
    /// Channels of the forward convolution.
    pub channels_in: usize,
    pub channels_out: usize,
    /// Whether to take them for the data gradient: channels exchanged, kernel turned by 180°.
    pub adjoint: bool,
}

/// Transformed weights: `[point, panel of 16 channels out, channel in, 16]`.
struct TransformWeights<'a, const N: usize> {
    weights: Weights<'a>,
    panel: usize,
    /// Inner channel, padded number of them, and of panels.
    n_in: usize,
    n_panels: usize,
    out: Shared<f32>,
}

impl<const N: usize> Kernel for TransformWeights<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let w = self.weights;
        let (real_out, real_in) = if w.adjoint { (w.channels_in, w.channels_out) } else { (w.channels_out, w.channels_in) };
        let (stride_out, stride_in) = if w.adjoint { (9, 9 * w.channels_in) } else { (9 * w.channels_in, 9) };
        for inner in 0..self.n_in {
            for half in 0..2 {
                let mut gathered = [[0.0f32; 8]; 9];
                let first = self.panel * COLUMNS + half * 8;
                if inner < real_in {
                    for lane in 0..8.min(real_out.saturating_sub(first)) {
                        let from = &w.values[(first + lane) * stride_out + inner * stride_in..][..9];
                        for tap in 0..9 {
                            gathered[if w.adjoint { 8 - tap } else { tap }][lane] = from[tap];
                        }
                    }
                }
                // SAFETY: `gathered` has eight numbers a tap. Each task writes its own panel of `out`, which has
                // N² · n_panels · n_in · 16 numbers.
                unsafe {
                    let mut rows = [[V::splat(0.0); 3]; N];
                    for j in 0..3 {
                        let column = weight_1d::<V, N>(std::array::from_fn(|i| V::load(gathered[3 * i + j].as_ptr())));
                        for i in 0..N {
                            rows[i][j] = column[i];
                        }
                    }
                    for (i, row) in rows.into_iter().enumerate() {
                        for (j, value) in weight_1d::<V, N>(row).into_iter().enumerate() {
                            let place = ((i * N + j) * self.n_panels + self.panel) * self.n_in + inner;
                            value.store(self.out.get().add(place * COLUMNS + half * 8));
                        }
                    }
                }
            }
        }
    }
}

/// Transformed weights for [`convolve`].
pub(crate) fn transform_weights(tile: Tile, weights: Weights<'_>) -> Buffer {
    let (n_in, n_out) = (padded(weights.channels_in), padded(weights.channels_out));
    let (n_in, n_out) = if weights.adjoint { (n_out, n_in) } else { (n_in, n_out) };
    let mut out = Buffer::new(tile.points() * n_in * n_out);
    let n_panels = n_out / COLUMNS;
    let shared = Shared::new(&mut out);
    (0..n_panels).into_par_iter().for_each(|panel| match tile {
        Tile::Two => vectorized(TransformWeights::<4> { weights, panel, n_in, n_panels, out: shared }),
        Tile::Four => vectorized(TransformWeights::<6> { weights, panel, n_in, n_panels, out: shared }),
    });
    out
}

/// Place of a tile: image, and its first row and column of outputs.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    y: usize,
    x: usize,
}

impl Place {
    fn of(tile: usize, side: usize, images: Images) -> Self {
        let (rows, columns) = (images.height.div_ceil(side), images.width.div_ceil(side));
        Self { image: tile / (rows * columns), y: tile / columns % rows * side, x: tile % columns * side }
    }
}

/// Transforms one tile of inputs and stores point `p`, channel `c` at `to + p · point_stride + c`.
///
/// # Safety
/// `input` is of shape `images × channels`; `to` has room for what is stored; the processor has what `V` needs.
#[inline(always)]
unsafe fn transform_input<V: Lanes, I: Input, const M: usize, const N: usize>(
    input: I,
    images: Images,
    channels: usize,
    place: Place,
    to: Target,
    point_stride: usize,
) {
    let Images { height, width, .. } = images;
    let mut pixels = [[usize::MAX; N]; N];
    let mut inside = true;
    for (i, row) in pixels.iter_mut().enumerate() {
        for (j, pixel) in row.iter_mut().enumerate() {
            // One row and column of padding on each side: output (y, x) sees inputs from (y − 1, x − 1).
            let (y, x) = (place.y + i, place.x + j);
            if y >= 1 && y <= height && x >= 1 && x <= width {
                *pixel = ((place.image * height + y - 1) * width + x - 1) * channels;
            } else {
                inside = false;
            }
        }
    }
    // SAFETY: every pixel that is loaded was found inside the image; the caller vouches for the rest.
    unsafe {
        for c in (0..channels).step_by(8) {
            let mut rows = [[V::splat(0.0); N]; N];
            for j in 0..N {
                let column: [V; N] = if inside {
                    std::array::from_fn(|i| input.load::<V>(pixels[i][j], c))
                } else {
                    std::array::from_fn(|i| if pixels[i][j] == usize::MAX { V::splat(0.0) } else { input.load::<V>(pixels[i][j], c) })
                };
                let column = input_1d::<V, N>(column);
                for i in 0..N {
                    rows[i][j] = column[i];
                }
            }
            for (i, row) in rows.into_iter().enumerate() {
                for (j, value) in input_1d::<V, N>(row).into_iter().enumerate() {
                    value.store(to.add((i * N + j) * point_stride + c));
                }
            }
        }
    }
}

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

/// Distance of two points' numbers in scratch space. An odd number of cache lines: points at a power of two apart would
/// compete for the same places of the cache.
const fn point_stride(n_tiles: usize, channels: usize) -> usize {
    n_tiles * channels + COLUMNS
}

impl<I: Input, F: Finish, const M: usize, const N: usize> Kernel for Block<'_, I, F, M, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (n_in, n_out, n_tiles) = (self.channels_in, self.channels_out, self.n_tiles);
        let (in_stride, out_stride) = (point_stride(n_tiles, n_in), point_stride(n_tiles, n_out));
        let (transformed, products) = (self.transformed.get(), self.products.get());
        assert!(self.tiles.end <= n_tiles && self.points.end <= N * N && self.panels.end * COLUMNS <= n_out);
        // SAFETY: the buffers hold N² points of `n_tiles` tiles, of which each task of a step has its own part, and each step
        // is over before the next begins. Weights hold N² · n_in · n_out numbers. Pixels are those of tiles inside the images,
        // and different tiles share none.
        unsafe {
            if matches!(self.steps, Steps::All | Steps::Inputs) {
                for t in self.tiles.clone() {
                    let place = Place::of(self.first + t, M, self.images);
                    transform_input::<V, I, M, N>(self.input, self.images, n_in, place, transformed.add(t * n_in), in_stride);
                }
            }
            if matches!(self.steps, Steps::All | Steps::Products) {
                for point in self.points.clone() {
                    let (from, to) = (transformed.add(point * in_stride), products.add(point * out_stride));
                    for panel in self.panels.clone() {
                        let weights: Source = self.weights.as_ptr().add((point * n_out + panel * COLUMNS) * n_in);
                        for t in self.tiles.clone().step_by(ROWS) {
                            let rows = ROWS.min(self.tiles.end - t);
                            let a: [Source; ROWS] = std::array::from_fn(|r| from.add((t + r.min(rows - 1)) * n_in).cast_const());
                            let c: [Target; ROWS] = std::array::from_fn(|r| to.add((t + r.min(rows - 1)) * n_out + panel * COLUMNS));
                            rows_times_panel::<V>(rows, 1, n_in, &raw const a, weights, &c, false);
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
                            let column = output_1d::<V, M, N>(std::array::from_fn(|i| V::load(from.add((i * N + j) * out_stride))));
                            for i in 0..M {
                                half[i][j] = column[i];
                            }
                        }
                        let mut sums = [V::splat(0.0); 2];
                        if F::SUMS {
                            sums = [V::load(self.sums.as_ptr().add(c)), V::load(self.sums.as_ptr().add(n_out + c))];
                        }
                        for i in 0..rows {
                            let values = output_1d::<V, M, N>(half[i]);
                            let pixel = ((place.image * self.images.height + place.y + i) * self.images.width + place.x) * n_out;
                            for j in 0..columns {
                                let pixel = pixel + j * n_out;
                                let at = self.out.get().add(pixel + c);
                                self.finish.finish(values[j], at, pixel, c, &mut sums).store(at);
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
    assert_eq!(weights.len(), tile.points() * channels_in * channels_out);
    assert_eq!(out.len(), images.pixels() * channels_out);
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
        let Images { height, width, .. } = self.images;
        for t in self.start..self.start + self.count {
            let place = Place::of(self.first + t, M, self.images);
            // SAFETY: each task writes the places of its own tiles in buffers of N² points; what is read lies inside the images.
            unsafe {
                transform_input::<V, I, M, N>(self.input, self.images, n_in, place, self.inputs.get().add(t * n_in), in_stride);
                for c in (0..n_out).step_by(8) {
                    let mut half = [[V::splat(0.0); M]; N];
                    for j in 0..M {
                        let column: [V; M] = std::array::from_fn(|i| {
                            if place.y + i < height && place.x + j < width {
                                let pixel = (place.image * height + place.y + i) * width + place.x + j;
                                V::load(self.gradient.as_ptr().add(pixel * n_out + c))
                            } else {
                                V::splat(0.0)
                            }
                        });
                        let column = output_gradient_1d::<V, M, N>(column);
                        for i in 0..N {
                            half[i][j] = column[i];
                        }
                    }
                    // [point, panel, tile, 16]
                    let to = self.gradients.get().add((c / COLUMNS * self.n_tiles + t) * COLUMNS + c % COLUMNS);
                    for (i, row) in half.into_iter().enumerate() {
                        for (j, value) in output_gradient_1d::<V, M, N>(row).into_iter().enumerate() {
                            value.store(to.add((i * N + j) * out_stride));
                        }
                    }
                }
            }
        }
    }
}

/// Tiles whose products are summed in registers: a panel of them and the packed inputs stay in the first-level cache.
const REDUCED: usize = 192;

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
        let mut packed = [0.0f32; REDUCED * PACKED];
        let at_once = balanced_rows(self.rows.len());
        for first in (0..n_tiles).step_by(REDUCED) {
            let count = REDUCED.min(n_tiles - first);
            for i in self.rows.clone().step_by(at_once) {
                let rows = at_once.min(self.rows.end - i);
                // SAFETY: rows and panels are within both inputs, as asserted; each task adds to its own rows of `out`.
                unsafe {
                    let inputs = self.inputs.as_ptr();
                    pack_rows::<V>((first..first + count).map(|t| inputs.add(t * n_in + i)), rows, i + PACKED <= n_in, packed.as_mut_ptr());
                    for panel in 0..n_out / COLUMNS {
                        let b = self.gradients.as_ptr().add((panel * n_tiles + first) * COLUMNS);
                        columns_times_panel::<V>(rows, count, packed.as_ptr(), b, self.out.get().add(i * n_out + panel * COLUMNS), n_out);
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
        let point = self.channels_in * self.channels_out;
        for inner in 0..self.real_in {
            let mut values = [[0.0f32; 8]; 9];
            // SAFETY: there are N² points of channels_in · channels_out numbers; `values` holds eight a tap.
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

/// Numbers of transformed tensors held at a time for the weight gradient: about a third of a usual last-level cache.
const GROUP: usize = 2_500_000;

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
    assert_eq!(out.len(), real_in * real_out * 9);
    let all = tile.count(images);
    let points = tile.points();
    let in_group = (GROUP / (points * (channels_in + channels_out))).clamp(64, all.max(64)).min(all);
    let mut inputs = Buffer::new(points * point_stride(in_group, channels_in));
    let mut gradients = Buffer::new(points * point_stride(in_group, channels_out));
    let mut transformed = Buffer::zeros(points * channels_in * channels_out);
    for first in (0..all).step_by(in_group) {
        let n_tiles = in_group.min(all - first);
        let (to_inputs, to_gradients) = (Shared::new(&mut inputs), Shared::new(&mut gradients));
        let at_once = n_tiles.div_ceil(32);
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
            let of_point = unsafe { shared.from(point * channels_in * channels_out) };
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
            Tile::Four => vectorized(WeightsBack::<6> { transformed, channels_in, channels_out, real_in, real_out, first, out }),
        }
    });
}
