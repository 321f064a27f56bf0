//! 3 × 3 convolutions of stride 1 with few multiplications (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural
//! Networks"): F(4 × 4, 3 × 3) with 36 products where the definition has 144, F(3 × 3, 3 × 3) with 25 where
//! it has 81, F(2 × 2, 3 × 3) with 16 where it has 36.
//!
//! `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` a tile; the products of all channels are matrix products, one a point of the transformed
//! tile. The weight gradient is the adjoint: `dg = Gᵀ [Σ (Bᵀ d B) ⊙ (A dy Aᵀ)] G`.

mod convolve;
mod gradient;
mod rows;
mod transforms;
mod weights;

pub(crate) use convolve::convolve;
pub(crate) use gradient::weight_gradient;
pub(crate) use weights::Weights;

use crate::gemm::COLUMNS;
use crate::images::Images;

/// Side of a tile of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tile {
    /// F(2 × 2, 3 × 3).
    Two,
    /// F(3 × 3, 3 × 3).
    Three,
    /// F(4 × 4, 3 × 3).
    Four,
}

impl Tile {
    /// The side that does the fewest multiplications for images of this size.
    pub(crate) fn for_size(height: usize, width: usize) -> Self {
        let products = |side: usize| height.div_ceil(side) * width.div_ceil(side) * (side + 2) * (side + 2);
        let all = [(products(4), Self::Four), (products(3), Self::Three), (products(2), Self::Two)];
        // Of as many the first.
        all.into_iter().min_by_key(|(products, _)| *products).map_or(Self::Four, |(_, tile)| tile)
    }

    const fn side(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Three => 3,
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

/// As [`point_stride`], of weights or their gradient.
const fn weights_stride(channels_in: usize, channels_out: usize) -> usize {
    channels_in * channels_out + COLUMNS
}

/// Distance of two points' numbers in scratch space. An odd number of cache lines: points at a power of two apart would
/// compete for the same places of the cache.
const fn point_stride(n_tiles: usize, channels: usize) -> usize {
    n_tiles * channels + COLUMNS
}
