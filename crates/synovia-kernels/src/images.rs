//! Sizes: of a batch of images, and of the convolution that makes another one of it.

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

/// A convolution without bias, padded by half its kernel, and its batch normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitShape {
    /// Channels in.
    pub channels_in: usize,
    /// Channels out.
    pub channels_out: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
}

impl UnitShape {
    /// Numbers of its weights.
    pub fn n_weights(self) -> usize {
        self.channels_in * self.channels_out * self.kernel * self.kernel
    }

    pub(crate) fn output(self, images: Images) -> Images {
        let side = |n: usize| (n + 2 * (self.kernel / 2) - self.kernel) / self.stride + 1;
        Images { batch: images.batch, height: side(images.height), width: side(images.width) }
    }
}
