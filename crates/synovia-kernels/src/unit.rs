//! A unit's convolution and its gradients, each by the algorithm that is faster for its shape.

use crate::direct;
use crate::finish::{Finish, Input, Plain};
use crate::images::{Images, UnitShape};
use crate::winograd::{self, Tile, Weights};

impl UnitShape {
    /// The tile of the fast algorithm, where it applies.
    fn tile(self, images: Images) -> Option<Tile> {
        (self.kernel == 3 && self.stride == 1).then(|| Tile::for_size(images.height, images.width))
    }

    /// Weights for the fast algorithm; `adjoint` for its data gradient.
    fn weights(self, values: &[f32], adjoint: bool) -> Weights<'_> {
        Weights { values, channels_in: self.channels_in, channels_out: self.channels_out, adjoint }
    }
}

/// The numbers themselves, for convolutions by the definition.
fn plain<I: Input>(input: &I) -> &[f32] {
    input.plain().expect("only a block's second unit reads what is activated on the way in, and that is 3 × 3 of stride 1")
}

/// The convolution of what `input` reads.
pub(crate) fn convolve<I: Input, F: Finish>(
    shape: UnitShape,
    input: I,
    images: Images,
    weight: &[f32],
    finish: F,
    out: &mut [f32],
) -> Vec<f32> {
    match shape.tile(images) {
        Some(tile) => winograd::convolve(tile, input, finish, images, shape.weights(weight, false), out),
        None => direct::convolve(shape, plain(&input), images, weight, finish, out),
    }
}

/// The gradient with respect to the input.
pub(crate) fn data_gradient<F: Finish>(
    shape: UnitShape,
    gradient: &[f32],
    images: Images,
    weight: &[f32],
    finish: F,
    out: &mut [f32],
) -> Vec<f32> {
    match shape.tile(images) {
        Some(tile) => winograd::convolve(tile, Plain(gradient), finish, images, shape.weights(weight, true), out),
        None => direct::data_gradient(shape, gradient, images, weight, finish, out),
    }
}

/// The gradient with respect to the weights.
pub(crate) fn weight_gradient<I: Input>(shape: UnitShape, input: I, images: Images, gradient: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; shape.n_weights()];
    match shape.tile(images) {
        Some(tile) => winograd::weight_gradient(tile, input, gradient, images, [shape.channels_in, shape.channels_out], &mut out),
        None => direct::weight_gradient(shape, plain(&input), images, gradient, &mut out),
    }
    out
}
