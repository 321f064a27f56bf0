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

impl Weights<'_> {
    /// Padded channels, in and out, of the convolution that they are transformed for.
    pub(super) fn channels(&self) -> [usize; 2] {
        let (n_in, n_out) = (padded(self.channels_in), padded(self.channels_out));
        if self.adjoint { [n_out, n_in] } else { [n_in, n_out] }
    }
}

/// A panel of 16 channels out of the transformed weights: `[point, channel in, 16]`, points `stride` apart.
struct TransformPanel<'a, const N: usize> {
    weights: Weights<'a>,
    panel: usize,
    stride: usize,
    out: Shared<f32>,
}

/// Channels in ahead of the one that is transformed whose weights are asked for: they lie in more streams than a processor foresees.
const AHEAD: usize = 8;

impl<const N: usize> Kernel for TransformPanel<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (w, [n_in, _]) = (self.weights, self.weights.channels());
        let (real_out, real_in) = if w.adjoint { (w.channels_in, w.channels_out) } else { (w.channels_out, w.channels_in) };
        let (stride_out, stride_in) = if w.adjoint { (9, 9 * w.channels_in) } else { (9 * w.channels_in, 9) };
        for inner in 0..n_in {
            for half in 0..2 {
                let mut gathered = [[0.0f32; 8]; 9];
                let first = self.panel * COLUMNS + half * 8;
                if inner < real_in {
                    for lane in 0..8.min(real_out.saturating_sub(first)) {
                        let from = &w.values[(first + lane) * stride_out + inner * stride_in..][..9];
                        // SAFETY: it is a hint, of any address; the caller vouches for the processor.
                        unsafe { V::prefetch(from.as_ptr().wrapping_add(AHEAD * stride_in)) };
                        for tap in 0..9 {
                            gathered[if w.adjoint { 8 - tap } else { tap }][lane] = from[tap];
                        }
                    }
                }
                // SAFETY: `gathered` has eight numbers a tap. The caller of [`transform_panel`] vouches for the target.
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
                            let place = (i * N + j) * self.stride + inner * COLUMNS + half * 8;
                            value.store(self.out.get().add(place));
                        }
                    }
                }
            }
        }
    }
}

/// Transforms a panel of 16 channels out to `out`: `[point, channel in, 16]`, points `stride` apart.
///
/// # Safety
/// `out` has room for what is written, and no other task uses it meanwhile.
pub(super) unsafe fn transform_panel(tile: Tile, weights: Weights<'_>, panel: usize, stride: usize, out: Shared<f32>) {
    match tile {
        Tile::Two => vectorized(TransformPanel::<4> { weights, panel, stride, out }),
        Tile::Three => vectorized(TransformPanel::<5> { weights, panel, stride, out }),
        Tile::Four => vectorized(TransformPanel::<6> { weights, panel, stride, out }),
    }
}

/// All transformed weights: `[point, panel of 16 channels out, channel in, 16]`, points [`weights_stride`] apart.
pub(super) fn transform_weights(tile: Tile, weights: Weights<'_>) -> Buffer {
    let [n_in, n_out] = weights.channels();
    let stride = weights_stride(n_in, n_out);
    let mut out = Buffer::new(tile.points() * stride);
    let shared = Shared::new(&mut out);
    (0..n_out / COLUMNS).into_par_iter().for_each(|panel| {
        // SAFETY: each panel has its own place in each point.
        unsafe { transform_panel(tile, weights, panel, stride, shared.from(panel * n_in * COLUMNS)) };
    });
    out
}
