//! Weights of a convolution, transformed: `G g Gᵀ`.

use rayon::prelude::*;

use super::transforms::weight_1d;
use super::{Tile, weights_stride};
use crate::finish::padded;
use crate::gemm::COLUMNS;
use crate::lanes::{Kernel, Lanes, vectorized};
use crate::shared::{Buffer, Shared};

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

/// Transformed weights: `[point, panel of 16 channels out, channel in, 16]`, points [`weights_stride`] apart.
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
        let stride = weights_stride(self.n_in, self.n_panels * COLUMNS);
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
                // N² points.
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
                            let place = (i * N + j) * stride + (self.panel * self.n_in + inner) * COLUMNS + half * 8;
                            value.store(self.out.get().add(place));
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
    let mut out = Buffer::new(tile.points() * weights_stride(n_in, n_out));
    let n_panels = n_out / COLUMNS;
    let shared = Shared::new(&mut out);
    (0..n_panels).into_par_iter().for_each(|panel| match tile {
        Tile::Two => vectorized(TransformWeights::<4> { weights, panel, n_in, n_panels, out: shared }),
        Tile::Three => vectorized(TransformWeights::<5> { weights, panel, n_in, n_panels, out: shared }),
        Tile::Four => vectorized(TransformWeights::<6> { weights, panel, n_in, n_panels, out: shared }),
    });
    out
}
