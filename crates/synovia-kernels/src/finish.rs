//! How a convolution reads its input and what happens to each result before it is written: the passes over memory that
//! batch normalisation, activation and masks would cost on their own.

use crate::gemm::COLUMNS;
use crate::lanes::Lanes;
use crate::shared::{Source, Target};

/// Channels are stored in multiples of this; what is beyond the real ones is zero throughout.
pub(crate) const CHANNEL_BLOCK: usize = 16;

// Channels come in whole panels.
const _: () = assert!(CHANNEL_BLOCK.is_multiple_of(COLUMNS));

/// The number of stored channels for `channels` real ones.
pub(crate) const fn padded(channels: usize) -> usize {
    channels.div_ceil(CHANNEL_BLOCK) * CHANNEL_BLOCK
}

/// What a convolution reads.
///
/// # Safety
/// Where `fits` says so, `load` reads within its slices at all places of a tensor of that size.
pub(crate) unsafe trait Input: Copy + Sync + Send {
    /// Whether it is a tensor of so many numbers, `channels` a pixel.
    fn fits(&self, numbers: usize, channels: usize) -> bool;

    /// The numbers themselves, if they are what is read.
    fn plain(&self) -> Option<&[f32]>;

    /// Eight channels from `channel` of the pixel whose numbers begin at `pixel`.
    ///
    /// # Safety
    /// `pixel + channel + 8` is within a tensor that it fits, and the processor has what `V` needs.
    unsafe fn load<V: Lanes>(self, pixel: usize, channel: usize) -> V;
}

/// The numbers as they are.
#[derive(Clone, Copy)]
pub(crate) struct Plain<'a>(pub &'a [f32]);

// SAFETY: its slice is the tensor.
unsafe impl Input for Plain<'_> {
    fn fits(&self, numbers: usize, _: usize) -> bool {
        self.0.len() == numbers
    }

    fn plain(&self) -> Option<&[f32]> {
        Some(self.0)
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(self, pixel: usize, channel: usize) -> V {
        // SAFETY: the caller keeps the place within the tensor.
        unsafe { V::load(self.0.as_ptr().add(pixel + channel)) }
    }
}

/// `relu(z · scale + shift)`, a factor and a term a channel: normalised and activated on the way in, so that the activated
/// tensor need not exist.
#[derive(Clone, Copy)]
pub(crate) struct Activated<'a> {
    pub z: &'a [f32],
    pub scale: &'a [f32],
    pub shift: &'a [f32],
}

// SAFETY: `z` is the tensor, and `scale` and `shift` have a number a channel.
unsafe impl Input for Activated<'_> {
    fn fits(&self, numbers: usize, channels: usize) -> bool {
        self.z.len() == numbers && self.scale.len() == channels && self.shift.len() == channels
    }

    fn plain(&self) -> Option<&[f32]> {
        None
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(self, pixel: usize, channel: usize) -> V {
        // SAFETY: the caller keeps the place, and with it the channel, within the tensor.
        unsafe {
            let z = V::load(self.z.as_ptr().add(pixel + channel));
            let (scale, shift) = (V::load(self.scale.as_ptr().add(channel)), V::load(self.shift.as_ptr().add(channel)));
            V::splat(0.0).max(z.mul_add(scale, shift))
        }
    }
}

/// What happens to a convolution's result on its way out.
///
/// # Safety
/// Where `fits` says so, `finish` reads within its slices at all places of an output of that size.
pub(crate) unsafe trait Finish: Copy + Sync + Send {
    /// Whether sums are wanted.
    const SUMS: bool;

    /// Whether it is made for an output of so many numbers, `channels` a pixel.
    fn fits(&self, numbers: usize, channels: usize) -> bool;

    /// Takes `value`, eight channels from `channel` of the pixel at `pixel`, which will be written at `at`; adds to two sums a
    /// channel; returns what is written.
    ///
    /// # Safety
    /// `pixel + channel + 8` is within an output that it fits, `at` is that place of it, and the processor has what `V` needs.
    unsafe fn finish<V: Lanes>(self, value: V, at: Source, pixel: usize, channel: usize, sums: &mut [V; 2]) -> V;
}

/// Nothing.
#[derive(Clone, Copy)]
pub(crate) struct AsIs;

// SAFETY: it reads nothing.
unsafe impl Finish for AsIs {
    const SUMS: bool = false;

    fn fits(&self, _: usize, _: usize) -> bool {
        true
    }

    #[inline(always)]
    unsafe fn finish<V: Lanes>(self, value: V, _: Source, _: usize, _: usize, _: &mut [V; 2]) -> V {
        value
    }
}

/// Sums of the values and of their squares: what batch statistics are made of.
#[derive(Clone, Copy)]
pub(crate) struct Statistics;

// SAFETY: it reads nothing.
unsafe impl Finish for Statistics {
    const SUMS: bool = true;

    fn fits(&self, _: usize, _: usize) -> bool {
        true
    }

    #[inline(always)]
    unsafe fn finish<V: Lanes>(self, value: V, _: Source, _: usize, _: usize, sums: &mut [V; 2]) -> V {
        // SAFETY: the caller vouches for the processor.
        unsafe {
            sums[0] = sums[0].add(value);
            sums[1] = value.mul_add(value, sums[1]);
        }
        value
    }
}

/// `value · scale + shift (+ residual)`, then a ReLU if wanted: a whole unit with known statistics.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub residual: Option<&'a [f32]>,
    pub relu: bool,
}

// SAFETY: `residual` is of the output's size, `scale` and `shift` have a number a channel.
unsafe impl Finish for Affine<'_> {
    const SUMS: bool = false;

    fn fits(&self, numbers: usize, channels: usize) -> bool {
        let of_channels = [self.scale, self.shift].iter().all(|values| values.len() == channels);
        of_channels && self.residual.is_none_or(|residual| residual.len() == numbers)
    }

    #[inline(always)]
    unsafe fn finish<V: Lanes>(self, value: V, _: Source, pixel: usize, channel: usize, _: &mut [V; 2]) -> V {
        // SAFETY: the place is within the output, and so within the residual.
        unsafe {
            let mut value = value.mul_add(V::load(self.scale.as_ptr().add(channel)), V::load(self.shift.as_ptr().add(channel)));
            if let Some(residual) = self.residual {
                value = value.add(V::load(residual.as_ptr().add(pixel + channel)));
            }
            if self.relu { V::splat(0.0).max(value) } else { value }
        }
    }
}

/// The gradient of `relu(z · scale + shift)` passed on to `z · scale + shift`: 0 where the ReLU was closed. Sums of it, and of
/// it times the normalised `z`: what the normalisation's own backward pass needs.
#[derive(Clone, Copy)]
pub(crate) struct ThroughActivation<'a> {
    pub z: &'a [f32],
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub mean: &'a [f32],
    pub inverse_deviation: &'a [f32],
}

// SAFETY: `z` is of the output's size, the others have a number a channel.
unsafe impl Finish for ThroughActivation<'_> {
    const SUMS: bool = true;

    fn fits(&self, numbers: usize, channels: usize) -> bool {
        let of_channels = [self.scale, self.shift, self.mean, self.inverse_deviation].iter().all(|values| values.len() == channels);
        of_channels && self.z.len() == numbers
    }

    #[inline(always)]
    unsafe fn finish<V: Lanes>(self, value: V, _: Source, pixel: usize, channel: usize, sums: &mut [V; 2]) -> V {
        // SAFETY: the place is within the output, and so within `z`.
        unsafe {
            let z = V::load(self.z.as_ptr().add(pixel + channel));
            let of_channel = |values: &[f32]| V::load(values.as_ptr().add(channel));
            let gradient = value.where_positive(z.mul_add(of_channel(self.scale), of_channel(self.shift)));
            let normalised = z.sub(of_channel(self.mean)).mul(of_channel(self.inverse_deviation));
            sums[0] = sums[0].add(gradient);
            sums[1] = gradient.mul_add(normalised, sums[1]);
            gradient
        }
    }
}

/// Added to what is there already.
#[derive(Clone, Copy)]
pub(crate) struct AddTo;

// SAFETY: it reads the output at the place that is written.
unsafe impl Finish for AddTo {
    const SUMS: bool = false;

    fn fits(&self, _: usize, _: usize) -> bool {
        true
    }

    #[inline(always)]
    unsafe fn finish<V: Lanes>(self, value: V, at: Source, _: usize, _: usize, _: &mut [V; 2]) -> V {
        // SAFETY: the caller vouches for the place.
        unsafe { value.add(V::load(at)) }
    }
}

/// Writes results to the places that their pixels' numbers begin at, and adds to the sums of each channel in the order of the pixels.
///
/// # Safety
/// `results` has `n_out` numbers for each pixel, which lie in an output at `out` that `finish` fits; nobody else writes them meanwhile; the
/// processor has what `V` needs.
#[inline(always)]
pub(crate) unsafe fn write_out<V: Lanes, F: Finish>(
    finish: F,
    results: Source,
    pixels: &(impl Iterator<Item = usize> + Clone),
    n_out: usize,
    out: Target,
    sums: &mut [f32],
) {
    assert!(!F::SUMS || sums.len() == 2 * n_out);
    for c in (0..n_out).step_by(8) {
        // SAFETY: channels come in multiples of 8, sums were asserted, and the caller vouches for the rest.
        unsafe {
            let mut of_channels = [V::splat(0.0); 2];
            if F::SUMS {
                of_channels = [V::load(sums.as_ptr().add(c)), V::load(sums.as_ptr().add(n_out + c))];
            }
            for (p, pixel) in pixels.clone().enumerate() {
                let (value, at) = (V::load(results.add(p * n_out + c)), out.add(pixel + c));
                finish.finish(value, at, pixel, c, &mut of_channels).store(at);
            }
            if F::SUMS {
                of_channels[0].store(sums.as_mut_ptr().add(c));
                of_channels[1].store(sums.as_mut_ptr().add(n_out + c));
            }
        }
    }
}

/// Some sums a channel, a row a task, summed in the tasks' order: the same bits whichever thread ran which task.
pub(crate) fn total<const N: usize>(partial: &[f32], channels: usize) -> [Vec<f64>; N] {
    let mut sums = std::array::from_fn(|_| vec![0.0; channels]);
    for row in partial.chunks_exact(N * channels) {
        for (sum, part) in sums.iter_mut().zip(row.chunks_exact(channels)) {
            for (s, p) in sum.iter_mut().zip(part) {
                *s += f64::from(*p);
            }
        }
    }
    sums
}
