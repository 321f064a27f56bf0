//! Tiles to transformed tiles, a row of tiles at a time: down each column of pixels once, for all tiles that share it, then across each
//! tile. What lies outside the image is found out once a row and once a column, and not for each pixel of each tile.

use std::mem::MaybeUninit;

use super::Place;
use super::transforms::{input_1d, output_gradient_1d};
use crate::finish::Input;
use crate::images::Images;
use crate::lanes::Lanes;
use crate::shared::{Source, Target};

/// Tiles of a row that are taken at a time.
const TILES: usize = 16;

/// Columns of pixels that so many see.
const COLUMNS_SEEN: usize = 4 * TILES + 2;

/// Of six rows of transformed columns, eight channels: they stay in the first-level cache. What is read was written before: setting it all
/// to 0 first would cost as much as the transforms of a few tiles.
#[repr(align(64))]
pub(super) struct Strip([[[MaybeUninit<f32>; 8]; COLUMNS_SEEN]; 6]);

impl Strip {
    pub(super) const fn new() -> Self {
        Self([const { [const { [MaybeUninit::uninit(); 8] }; COLUMNS_SEEN] }; 6])
    }

    fn at(&mut self, row: usize, column: usize) -> Target {
        self.0[row][column].as_mut_ptr().cast()
    }
}

/// Parts of `count` tiles from `first` on that lie side by side: how many there are before each, and its own number. An iterator and no
/// function that is called back, which would be compiled without the processor's features.
fn side_by_side(side: usize, images: Images, [first, count]: [usize; 2]) -> impl Iterator<Item = (usize, usize)> {
    let in_row = images.width.div_ceil(side);
    let mut done = 0;
    std::iter::from_fn(move || {
        let n = (in_row - (first + done) % in_row).min(TILES).min(count - done);
        done += n;
        (n > 0).then_some((done - n, n))
    })
}

/// Transforms tiles of inputs (the first, and how many) and stores point `p`, channel `c` of the `t`th of them at
/// `to + p · point_stride + t · channels + c`.
///
/// # Safety
/// `input` is of shape `images × channels` and the tiles are tiles of it; `to` has room for what is stored; the processor has what `V`
/// needs.
#[inline(always)]
pub(super) unsafe fn transform_inputs<V: Lanes, I: Input, const M: usize, const N: usize>(
    input: I,
    images: Images,
    channels: usize,
    tiles: [usize; 2],
    to: Target,
    point_stride: usize,
    strip: &mut Strip,
) {
    let Images { height, width, .. } = images;
    for (done, n) in side_by_side(M, images, tiles) {
        let place = Place::of(tiles[0] + done, M, images);
        // One row and column of padding on each side: output (y, x) sees inputs from (y − 1, x − 1).
        let inside: [bool; N] = std::array::from_fn(|i| (1..=height).contains(&(place.y + i)));
        let whole = inside.iter().all(|inside| *inside);
        let row = width * channels;
        // Of the row above, which may not be there: only what is inside is read.
        let above = ((place.image * height + place.y) * width * channels).wrapping_sub(row);
        for c in (0..channels).step_by(8) {
            for column in 0..M * n + 2 {
                let x = place.x + column;
                // SAFETY: the caller vouches for the processor.
                let mut values = unsafe { [V::splat(0.0); N] };
                if (1..=width).contains(&x) {
                    let pixel = above.wrapping_add((x - 1) * channels);
                    // SAFETY: the column is inside the images, and so is each row that is read.
                    unsafe {
                        if whole {
                            for i in 0..N {
                                values[i] = input.load::<V>(pixel.wrapping_add(i * row), c);
                            }
                        } else {
                            for i in 0..N {
                                if inside[i] {
                                    values[i] = input.load::<V>(pixel.wrapping_add(i * row), c);
                                }
                            }
                        }
                        values = input_1d::<V, N>(values);
                    }
                }
                for i in 0..N {
                    // SAFETY: a strip has eight numbers there.
                    unsafe { values[i].store(strip.at(i, column)) };
                }
            }
            for t in 0..n {
                for i in 0..N {
                    // SAFETY: the columns of the tile are in the strip; the caller vouches for the target.
                    unsafe {
                        let mut values = [V::splat(0.0); N];
                        for j in 0..N {
                            values[j] = V::load(strip.at(i, M * t + j));
                        }
                        let values = input_1d::<V, N>(values);
                        let to = to.add(i * N * point_stride + (done + t) * channels + c);
                        for j in 0..N {
                            values[j].store(to.add(j * point_stride));
                        }
                    }
                }
            }
        }
    }
}

/// Transforms tiles of output gradients (the first, and how many) and stores point `p`, channel `c` of the `t`th of them at
/// `to(t, c) + p · point_stride`.
///
/// # Safety
/// `gradient` is of shape `images × channels` and the tiles are tiles of it; there is room for what is stored; the processor has what `V`
/// needs.
#[inline(always)]
pub(super) unsafe fn transform_gradients<V: Lanes, const M: usize, const N: usize>(
    gradient: Source,
    images: Images,
    channels: usize,
    tiles: [usize; 2],
    to: impl Fn(usize, usize) -> Target,
    point_stride: usize,
    strip: &mut Strip,
) {
    let Images { height, width, .. } = images;
    for (done, n) in side_by_side(M, images, tiles) {
        let place = Place::of(tiles[0] + done, M, images);
        let (rows, row) = (M.min(height - place.y), width * channels);
        // SAFETY: pixels that are read are inside the images, the rest is as above.
        unsafe {
            let start = gradient.add(((place.image * height + place.y) * width + place.x) * channels);
            for c in (0..channels).step_by(8) {
                for column in 0..M * n {
                    let mut values = [V::splat(0.0); M];
                    if place.x + column < width {
                        let from = start.add(column * channels + c);
                        if rows == M {
                            for i in 0..M {
                                values[i] = V::load(from.add(i * row));
                            }
                        } else {
                            for i in 0..M {
                                if i < rows {
                                    values[i] = V::load(from.add(i * row));
                                }
                            }
                        }
                    }
                    let values = output_gradient_1d::<V, M, N>(values);
                    for i in 0..N {
                        values[i].store(strip.at(i, column));
                    }
                }
                for t in 0..n {
                    let to = to(done + t, c);
                    for i in 0..N {
                        let mut values = [V::splat(0.0); M];
                        for j in 0..M {
                            values[j] = V::load(strip.at(i, M * t + j));
                        }
                        let values = output_gradient_1d::<V, M, N>(values);
                        for j in 0..N {
                            values[j].store(to.add((i * N + j) * point_stride));
                        }
                    }
                }
            }
        }
    }
}
