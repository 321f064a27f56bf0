//! Convolutions of any kernel and stride by their definition: rows of input pixels, wherever a tap finds them, times panels
//! of packed weights. Nothing is copied into columns; a pixel outside the image is a row of zeros.
//!
//! A data gradient is the same thing with other taps: for stride `s`, the pixels of each of the `s²` phases see the taps of
//! their own parity.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::finish::{Finish, padded, write_out};
use crate::gemm::{COLUMNS, PACKED, ROWS, balanced_rows, columns_times_panel, pack_rows, rows_times_panel};
use crate::images::{Images, UnitShape};
use crate::lanes::{Kernel, Lanes, vectorized};
use crate::shared::{Buffer, Shared, Source, Target, with_scratch};

/// A tap: where it looks, from the place that a pixel looks at.
#[derive(Clone, Copy, Debug)]
struct Tap {
    dy: isize,
    dx: isize,
}

/// Which rows of the input make which pixels of the output.
struct Gather {
    input: Images,
    /// Numbers of a pixel of the input, which a tap reads.
    k: usize,
    taps: Vec<Tap>,
    /// Input rows and columns from a pixel of the grid to the next.
    step: usize,
    /// Grid of pixels.
    grid: Images,
    /// Output: its images, the grid's first pixel in it and the distance of the next.
    output: Images,
    origin: [usize; 2],
    spread: usize,
}

/// Where a pixel of the grid is.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    y: usize,
    x: usize,
}

/// Where a pixel of the grid looks, before a tap.
#[derive(Clone, Copy)]
struct Look {
    y: isize,
    x: isize,
    /// The input's pixel.
    pixel: isize,
}

/// The least and the largest way of a tap, down and across.
#[derive(Clone, Copy)]
struct Reach {
    y: [isize; 2],
    x: [isize; 2],
}

impl Gather {
    /// Of a convolution: each pixel of the output sees the taps of the kernel around its place.
    fn of(shape: UnitShape, images: Images) -> Self {
        let (k, side, output) = (padded(shape.channels_in), shape.kernel, shape.output(images));
        let pad = (side / 2) as isize;
        let taps = (0..side * side).map(|t| Tap { dy: (t / side) as isize - pad, dx: (t % side) as isize - pad }).collect();
        let (grid, step, origin, spread) = (output, shape.stride, [0; 2], 1);
        Self { input: images, k, taps, step, grid, output, origin, spread }
    }

    /// Places from a pixel of the grid on, without a division each.
    fn places(&self, first: usize) -> impl Iterator<Item = Place> + use<> {
        let Images { height, width, .. } = self.grid;
        let mut at = Place { image: first / (height * width), y: first / width % height, x: first % width };
        std::iter::repeat_with(move || {
            let now = at;
            at.x += 1;
            if at.x == width {
                (at.x, at.y) = (0, at.y + 1);
                if at.y == height {
                    (at.y, at.image) = (0, at.image + 1);
                }
            }
            now
        })
    }

    fn look(&self, Place { image, y, x }: Place) -> Look {
        let (y, x) = (y * self.step, x * self.step);
        Look { y: y as isize, x: x as isize, pixel: ((image * self.input.height + y) * self.input.width + x) as isize }
    }

    /// Address of a tap's numbers, or of zeros.
    #[inline(always)]
    fn source(&self, base: Source, zeros: Source, look: Look, tap: Tap) -> Source {
        // As unsigned numbers, those below 0 are too large as well.
        let inside = ((look.y + tap.dy) as usize) < self.input.height && ((look.x + tap.dx) as usize) < self.input.width;
        let pixel = look.pixel + tap.dy * self.input.width as isize + tap.dx;
        // `wrapping_offset`: the address is used only where the caller has checked the input's length.
        if inside { base.wrapping_offset(pixel * self.k as isize) } else { zeros }
    }

    /// Whether all taps look inside the image.
    fn sees_all(&self, look: Look, reach: Reach) -> bool {
        let Reach { y, x } = reach;
        look.y + y[0] >= 0 && look.y + y[1] < self.input.height as isize && look.x + x[0] >= 0 && look.x + x[1] < self.input.width as isize
    }

    fn reach(&self) -> Reach {
        let of = |along: fn(&Tap) -> isize| {
            let all = || self.taps.iter().map(along);
            [all().min().unwrap_or(0), all().max().unwrap_or(0)]
        };
        Reach { y: of(|tap| tap.dy), x: of(|tap| tap.dx) }
    }

    /// How many numbers a tap is away from where a pixel looks.
    fn away(&self, tap: Tap) -> isize {
        (tap.dy * self.input.width as isize + tap.dx) * self.k as isize
    }

    fn output_pixel(&self, Place { image, y, x }: Place) -> usize {
        (image * self.output.height + self.origin[0] + y * self.spread) * self.output.width + self.origin[1] + x * self.spread
    }
}

/// Zeros for taps outside the image.
static ZEROS: [f32; 8192] = [0.0; 8192];

/// Widest pixel that a tap can read.
pub(crate) const MAX_CHANNELS: usize = ZEROS.len();

/// Pixels of a task.
const PIXELS: usize = 48;

/// Numbers of a panel that are gone through at a time: with the rows of the input it stays in the first cache levels.
const PANEL: usize = 12_288;

/// Taps that are gone through at a time.
fn taps_at_once(n_taps: usize, k: usize) -> usize {
    (PANEL / (k * COLUMNS)).clamp(1, n_taps.max(1))
}

/// Where the weights of a convolution are: of an inner and an outer channel that many numbers further, a tap's own place added.
struct WeightsOf<'a> {
    values: &'a [f32],
    taps: &'a [usize],
    /// Distance of the next inner and the next outer channel, and how many there are.
    strides: [usize; 2],
    channels: [usize; 2],
}

impl WeightsOf<'_> {
    /// For each group of taps and each panel of 16 outer channels `[tap, k, 16]`.
    fn pack(&self, k: usize, n_out: usize) -> Buffer {
        let n_taps = self.taps.len();
        let mut packed = Buffer::new(n_taps * k * n_out);
        let at_once = taps_at_once(n_taps, k);
        let shared = Shared::new(&mut packed);
        (0..n_out / COLUMNS).into_par_iter().for_each(|panel| {
            let columns = COLUMNS.min(self.channels[1].saturating_sub(panel * COLUMNS));
            for (group, taps) in self.taps.chunks(at_once).enumerate() {
                // SAFETY: each panel of a group of taps has its own part.
                let to = unsafe { shared.part(group * at_once * k * n_out + panel * taps.len() * k * COLUMNS, taps.len() * k * COLUMNS) };
                if columns < COLUMNS || self.channels[0] < k {
                    to.fill(0.0);
                }
                let mut of_pair = |inner: usize, column: usize| {
                    let from = &self.values[inner * self.strides[0] + (panel * COLUMNS + column) * self.strides[1]..];
                    for (tap, &place) in taps.iter().enumerate() {
                        to[(tap * k + inner) * COLUMNS + column] = from[place];
                    }
                };
                // In the order in which they lie in memory.
                if self.strides[0] < self.strides[1] {
                    (0..columns).for_each(|column| (0..self.channels[0]).for_each(|inner| of_pair(inner, column)));
                } else {
                    (0..self.channels[0]).for_each(|inner| (0..columns).for_each(|column| of_pair(inner, column)));
                }
            }
        });
        packed
    }
}

struct Block<'a, F> {
    gather: &'a Gather,
    input: &'a [f32],
    weights: &'a [f32],
    n_out: usize,
    finish: F,
    first: usize,
    n_pixels: usize,
    out: Shared<f32>,
    sums: &'a mut [f32],
    results: &'a mut [f32],
}

impl<F: Finish> Kernel for Block<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (gather, n_out, n_pixels) = (self.gather, self.n_out, self.n_pixels);
        let (n_taps, k) = (gather.taps.len(), gather.k);
        assert!(n_pixels <= PIXELS && self.results.len() >= n_pixels * n_out && self.weights.len() >= n_taps * k * n_out);
        let groups = n_pixels.div_ceil(ROWS);
        let mut sources = vec![[ZEROS.as_ptr(); ROWS]; groups * n_taps];
        let mut pixels = [0; PIXELS];
        let reach = gather.reach();
        for (p, (place, to)) in gather.places(self.first).zip(&mut pixels[..n_pixels]).enumerate() {
            *to = gather.output_pixel(place) * n_out;
            let look = gather.look(place);
            let of_taps = sources[p / ROWS * n_taps..][..n_taps].iter_mut().zip(&gather.taps);
            if gather.sees_all(look, reach) {
                let base = self.input.as_ptr().wrapping_offset(look.pixel * gather.k as isize);
                of_taps.for_each(|(to, &tap)| to[p % ROWS] = base.wrapping_offset(gather.away(tap)));
            } else {
                of_taps.for_each(|(to, &tap)| to[p % ROWS] = gather.source(self.input.as_ptr(), ZEROS.as_ptr(), look, tap));
            }
        }
        let at_once = taps_at_once(n_taps, k);
        let results = self.results.as_mut_ptr();
        // SAFETY: sources have `k` numbers each, inside the image or of zeros, and output and finish are of the output's shape
        // (`run` below checks all); weights and results were asserted; output pixels of different tasks differ.
        unsafe {
            for first in (0..n_taps).step_by(at_once) {
                let taps = at_once.min(n_taps - first);
                for panel in 0..n_out / COLUMNS {
                    let weights = self.weights.as_ptr().add(first * k * n_out + panel * taps * k * COLUMNS);
                    for group in 0..groups {
                        let rows = ROWS.min(n_pixels - group * ROWS);
                        let c: [Target; ROWS] =
                            std::array::from_fn(|r| results.add((group * ROWS + r.min(rows - 1)) * n_out + panel * COLUMNS));
                        let a = sources.as_ptr().add(group * n_taps + first);
                        rows_times_panel::<V>(rows, taps, k, a, weights, &c, first > 0);
                    }
                }
            }
            write_out::<V, F>(self.finish, results, &pixels[..n_pixels].iter().copied(), n_out, self.out.get(), self.sums);
        }
    }
}

fn run<F: Finish>(gather: &Gather, input: &[f32], weights: &[f32], n_out: usize, finish: F, out: &mut [f32]) -> Vec<f32> {
    assert_eq!(out.len(), gather.output.pixels() * n_out);
    assert!(finish.fits(out.len(), n_out));
    // The last tap of the last pixel ends inside the input.
    assert!(gather.k <= ZEROS.len() && input.len() >= gather.input.pixels() * gather.k);
    let pixels = gather.grid.pixels();
    let n_blocks = pixels.div_ceil(PIXELS);
    let width = if F::SUMS { 2 * n_out } else { 0 };
    let mut partial = vec![0.0; n_blocks * width];
    let (out, sums) = (Shared::new(out), Shared::new(&mut partial));
    (0..n_blocks).into_par_iter().for_each(|block| {
        let first = block * PIXELS;
        let n_pixels = PIXELS.min(pixels - first);
        with_scratch(n_pixels * n_out, |results| {
            // SAFETY: each task has its own row of sums.
            let sums = unsafe { sums.part(block * width, width) };
            vectorized(Block { gather, input, weights, n_out, finish, first, n_pixels, out, sums, results });
        });
    });
    partial
}

/// The convolution.
///
/// # Shapes
/// - input: `[batch, height, width, padded(channels_in)]`
/// - weights: `[channels_out, channels_in, kernel, kernel]`
/// - out: `[batch, height', width', padded(channels_out)]`
/// - returns the sums that `finish` makes, a row a task
pub(crate) fn convolve<F: Finish>(
    shape: UnitShape,
    input: &[f32],
    images: Images,
    weights: &[f32],
    finish: F,
    out: &mut [f32],
) -> Vec<f32> {
    let (k, n_out, side) = (padded(shape.channels_in), padded(shape.channels_out), shape.kernel);
    let gather = Gather::of(shape, images);
    let taps: Vec<usize> = (0..side * side).collect();
    let strides = [side * side, shape.channels_in * side * side];
    let packed = WeightsOf { values: weights, taps: &taps, strides, channels: [shape.channels_in, shape.channels_out] }.pack(k, n_out);
    run(&gather, input, &packed, n_out, finish, out)
}

/// Gradient with respect to the input. `finish` is given what each phase computes; pixels that no tap sees are not visited,
/// so `out` must hold what they shall have.
///
/// # Shapes
/// As [`convolve`], with `gradient` of the output's shape and `out` of the input's.
pub(crate) fn data_gradient<F: Finish>(
    shape: UnitShape,
    gradient: &[f32],
    images: Images,
    weights: &[f32],
    finish: F,
    out: &mut [f32],
) -> Vec<f32> {
    let (k, n_out, side, stride) = (padded(shape.channels_out), padded(shape.channels_in), shape.kernel, shape.stride);
    let pad = side / 2;
    let input = shape.output(images);
    let mut sums = Vec::new();
    for phase in 0..stride * stride {
        let (py, px) = (phase / stride, phase % stride);
        if py >= images.height || px >= images.width {
            continue;
        }
        // Output row y sees input row stride · y + tap − pad: input row py + stride · i is seen from i + (py + pad − tap) / stride.
        let seen = |p: usize| (0..side).filter(|tap| (p + pad + stride * side - tap).is_multiple_of(stride)).collect::<Vec<_>>();
        let at = |p: usize, tap: usize| ((p + pad) as isize - tap as isize) / stride as isize;
        let pairs: Vec<(usize, usize)> = seen(py).into_iter().flat_map(|ty| seen(px).into_iter().map(move |tx| (ty, tx))).collect();
        if pairs.is_empty() {
            continue;
        }
        let taps: Vec<Tap> = pairs.iter().map(|&(ty, tx)| Tap { dy: at(py, ty), dx: at(px, tx) }).collect();
        let places: Vec<usize> = pairs.iter().map(|(ty, tx)| ty * side + tx).collect();
        let strides = [shape.channels_in * side * side, side * side];
        let of = WeightsOf { values: weights, taps: &places, strides, channels: [shape.channels_out, shape.channels_in] };
        let packed = of.pack(k, n_out);
        let count = |n: usize, p: usize| (n - p).div_ceil(stride);
        let grid = Images { batch: images.batch, height: count(images.height, py), width: count(images.width, px) };
        let gather = Gather { input, k, taps, step: 1, grid, output: images, origin: [py, px], spread: stride };
        sums.extend(run(&gather, gradient, &packed, n_out, finish, out));
    }
    sums
}

/// A gradient laid out for [`weight_gradient`]: `[panel of 16 channels, pixel, 16]`.
fn panels(gradient: &[f32], n_pixels: usize, n_out: usize) -> Buffer {
    let mut out = Buffer::new(n_pixels * n_out);
    let shared = Shared::new(&mut out);
    let at_once = 256;
    (0..n_pixels.div_ceil(at_once)).into_par_iter().for_each(|block| {
        let first = block * at_once;
        for pixel in first..n_pixels.min(first + at_once) {
            for panel in 0..n_out / COLUMNS {
                // SAFETY: each pixel of a panel has its own place, and each task its own pixels.
                let to = unsafe { shared.part((panel * n_pixels + pixel) * COLUMNS, COLUMNS) };
                to.copy_from_slice(&gradient[pixel * n_out + panel * COLUMNS..][..COLUMNS]);
            }
        }
    });
    out
}

/// Pixels that a weight gradient goes through at a time, so that a panel of them and a slice of the inputs stay in the
/// first-level cache.
const REDUCED: usize = 160;

/// Part of a weight gradient: some taps, some inner channels, some pixels.
struct Reduce<'a> {
    gather: &'a Gather,
    input: &'a [f32],
    panels: &'a [f32],
    n_out: usize,
    taps: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
    pixels: std::ops::Range<usize>,
    /// `[tap, k, n_out]`, of this part.
    out: Shared<f32>,
}

impl Kernel for Reduce<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (gather, n_out, n_pixels) = (self.gather, self.n_out, self.gather.grid.pixels());
        assert!(self.panels.len() == n_pixels * n_out && self.rows.end <= gather.k && self.pixels.end <= n_pixels);
        let mut looks = [Look { y: 0, x: 0, pixel: 0 }; REDUCED];
        let mut sources = [ZEROS.as_ptr(); REDUCED];
        // Rows are written before they are read.
        let mut packed = [MaybeUninit::<f32>::uninit(); REDUCED * PACKED];
        let packed: Target = packed.as_mut_ptr().cast();
        let at_once = balanced_rows(self.rows.len());
        for first in self.pixels.clone().step_by(REDUCED) {
            let count = REDUCED.min(self.pixels.end - first);
            looks[..count].iter_mut().zip(gather.places(first)).for_each(|(look, place)| *look = gather.look(place));
            for tap in self.taps.clone() {
                let at = gather.taps[tap];
                for (source, &look) in sources[..count].iter_mut().zip(&looks) {
                    *source = gather.source(self.input.as_ptr(), ZEROS.as_ptr(), look, at);
                }
                for i in self.rows.clone().step_by(at_once) {
                    let rows = at_once.min(self.rows.end - i);
                    // SAFETY: sources have `k` numbers each (`reduce` checks it), panels were asserted, and `out` is this task's own.
                    unsafe {
                        pack_rows::<V>(sources[..count].iter().map(|s| s.add(i)), rows, i + PACKED <= gather.k, packed);
                        for panel in 0..n_out / COLUMNS {
                            let b = self.panels.as_ptr().add((panel * n_pixels + first) * COLUMNS);
                            let c = self.out.get().add((tap * gather.k + i) * n_out + panel * COLUMNS);
                            columns_times_panel::<V>(rows, count, packed.cast_const(), PACKED, b, c, n_out);
                        }
                    }
                }
            }
        }
    }
}

/// Weights up to which all taps of a part are one task, so that the gradients are read once.
const SMALL: usize = 100_000;

/// `[tap, k, padded(channels_out)]`: sums over all pixels of the grid of input times gradient, the latter by [`panels`].
fn reduce(gather: &Gather, input: &[f32], panels: &[f32], n_out: usize) -> Buffer {
    let (n_taps, k, n_pixels) = (gather.taps.len(), gather.k, gather.grid.pixels());
    assert!(k <= ZEROS.len() && input.len() >= gather.input.pixels() * gather.k);
    assert!(panels.len() == n_pixels * n_out);
    let size = n_taps * k * n_out;
    let taps_at_once = if size <= SMALL { n_taps } else { 1 };
    let tap_blocks = n_taps.div_ceil(taps_at_once);
    let rows_at_once = if k <= 96 { k } else { 96 };
    let row_blocks = k.div_ceil(rows_at_once);
    // Enough tasks for several cores; their sums are added up in order afterwards.
    let parts = 32usize.div_ceil(tap_blocks * row_blocks).min(n_pixels.div_ceil(2 * REDUCED));
    let per_part = n_pixels.div_ceil(parts).next_multiple_of(REDUCED);
    let mut out = Buffer::zeros(parts * size);
    let shared = Shared::new(&mut out);
    (0..parts * tap_blocks * row_blocks).into_par_iter().for_each(|task| {
        let (part, block, tap_block) = (task / (tap_blocks * row_blocks), task / tap_blocks % row_blocks, task % tap_blocks);
        let taps = tap_block * taps_at_once..n_taps.min((tap_block + 1) * taps_at_once);
        let rows = block * rows_at_once..k.min((block + 1) * rows_at_once);
        let pixels = (part * per_part).min(n_pixels)..n_pixels.min((part + 1) * per_part);
        // SAFETY: the part begins there; each task writes its own taps and rows.
        let out = unsafe { shared.from(part * size) };
        vectorized(Reduce { gather, input, panels, n_out, taps, rows, pixels, out });
    });
    add_up(&mut out, size);
    out
}

/// Adds all other parts of `size` to the first, in order.
pub(crate) fn add_up(parts: &mut [f32], size: usize) {
    let (sum, rest) = parts.split_at_mut(size);
    let at_once = 4096;
    sum.par_chunks_mut(at_once).enumerate().for_each(|(block, sum)| {
        for part in rest.chunks_exact(size) {
            for (s, x) in sum.iter_mut().zip(&part[block * at_once..]) {
                *s += x;
            }
        }
    });
}

/// Channels out whose weight gradients are written together.
const TOGETHER: usize = COLUMNS;

/// Gradient with respect to the weights.
///
/// # Shapes
/// As [`convolve`], with `gradient` of the output's shape and `out` of the weights'.
pub(crate) fn weight_gradient(shape: UnitShape, input: &[f32], images: Images, gradient: &[f32], out: &mut [f32]) {
    let (k, n_out, side) = (padded(shape.channels_in), padded(shape.channels_out), shape.kernel);
    assert_eq!(out.len(), shape.n_weights());
    let gather = Gather::of(shape, images);
    let n_pixels = gather.output.pixels();
    assert_eq!(gradient.len(), n_pixels * n_out);
    let sums = reduce(&gather, input, &panels(gradient, n_pixels, n_out), n_out);
    let n_taps = side * side;
    let per_channel = shape.channels_in * n_taps;
    // Some channels at a time: their sums lie side by side.
    out.par_chunks_mut(TOGETHER * per_channel).enumerate().for_each(|(k_out, out)| {
        for place in 0..per_channel {
            let (inner, tap) = (place / n_taps, place % n_taps);
            let from = &sums[(tap * k + inner) * n_out + k_out * TOGETHER..];
            for (to, sum) in out[place..].iter_mut().step_by(per_channel).zip(from) {
                *to = *sum;
            }
        }
    });
}
