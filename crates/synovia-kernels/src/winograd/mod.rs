//! 3 × 3 convolutions of stride 1 with few multiplications (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural
//! Networks"): F(4 × 4, 3 × 3) with 36 products where the definition has 144, F(2 × 2, 3 × 3) with 16 where it has 36.
//!
//! `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` a tile; the products of all channels are matrix products, one a point of the transformed
//! tile. The weight gradient is the adjoint: `dg = Gᵀ [Σ (Bᵀ d B) ⊙ (A dy Aᵀ)] G`.

mod convolve;
mod gradient;
mod transforms;
mod weights;

pub(crate) use convolve::convolve;
pub(crate) use gradient::weight_gradient;
pub(crate) use weights::{Weights, transform_weights};

use crate::finish::Input;
use crate::gemm::COLUMNS;
use crate::images::Images;
use crate::lanes::Lanes;
use crate::shared::Target;
use transforms::input_1d;

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
    // One row and column of padding on each side: output (y, x) sees inputs from (y − 1, x − 1).
    let rows: [Option<usize>; N] = std::array::from_fn(|i| {
        let y = place.y + i;
        (y >= 1 && y <= height).then(|| (place.image * height + y - 1) * width * channels)
    });
    let columns: [Option<usize>; N] = std::array::from_fn(|j| {
        let x = place.x + j;
        (x >= 1 && x <= width).then(|| (x - 1) * channels)
    });
    let pixels: [[usize; N]; N] =
        rows.map(|row| columns.map(|column| if let (Some(row), Some(column)) = (row, column) { row + column } else { usize::MAX }));
    let inside = rows.iter().chain(&columns).all(Option::is_some);
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

/// As [`point_stride`], of weights or their gradient.
const fn weights_stride(channels_in: usize, channels_out: usize) -> usize {
    channels_in * channels_out + COLUMNS
}

/// Distance of two points' numbers in scratch space. An odd number of cache lines: points at a power of two apart would
/// compete for the same places of the cache.
const fn point_stride(n_tiles: usize, channels: usize) -> usize {
    n_tiles * channels + COLUMNS
}
