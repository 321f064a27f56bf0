//! From an image, or a volume of slices, to the image modality's embedding.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use synovia_encoders::{ImageEncoder, ImageEncoderKind, SlicePool, Traced};

/// An encoder of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTower {
    /// Which.
    pub kind: ImageEncoderKind,
    /// Channels of what it looks at: of an image, or of one slice; of a network over volumes, the slices.
    pub channels: usize,
    /// Slices of a volume that it looks at one by one, to be put together by attention ([`SlicePool`]); 1 where it looks at a whole image.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slices: usize,
    /// Channels of the first stage, or of a head of attention.
    pub width: usize,
}

const fn one() -> usize {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_one(slices: &usize) -> bool {
    *slices == 1
}

/// The image tower of a model with what puts slices together, where there are some.
#[derive(Clone, Copy, Debug)]
pub struct ImagePath<'a> {
    pub(crate) tower: &'a ImageEncoder,
    pub(crate) slices: Option<&'a SlicePool>,
}

impl ImagePath<'_> {
    /// # Shapes
    /// - image: `[batch, channels or slices, height, width]`, values in [0, 1]
    /// - returns `[batch, width of the tower's embedding]`
    pub fn forward(&self, image: Tensor<4>) -> Tensor<2> {
        self.together(self.tower.forward(self.apart(image)))
    }

    /// A pass of a trained tower that can be asked for gradients ([`ImageEncoder::trace`]), for [`ImagePath::together`]; `None` where there
    /// is none, and gradients go through burn's operations.
    pub fn trace(&self, image: Tensor<4>) -> Option<Traced> {
        self.tower.trace(self.apart(image))
    }

    /// [`ImageEncoder::relevance`]
    pub fn relevance(&self, traced: Traced, gradient: &Tensor<2>, stage: usize) -> Option<Tensor<3>> {
        self.tower.relevance(traced, gradient, stage)
    }

    /// Feature maps after a stage, as [`ImageEncoder::maps`].
    ///
    /// # Shapes
    /// - image: `[batch, channels or slices, height, width]`, values in [0, 1]
    /// - returns `[batch, channels of the stage, rows, columns]`; of volumes `[batch × slices, …]`, the slices of one after the other
    pub fn maps(&self, image: Tensor<4>, stage: usize) -> Tensor<4> {
        self.tower.maps(self.apart(image), stage)
    }

    /// The embedding of [`ImagePath::maps`] of the same stage.
    ///
    /// # Shapes
    /// - maps: as [`ImagePath::maps`] returns them
    /// - returns `[batch, width of the tower's embedding]`
    pub fn embed(&self, maps: Tensor<4>, stage: usize) -> Tensor<2> {
        self.together(self.tower.embed(maps, stage))
    }

    /// [`ImageEncoder::field`]
    pub fn field(&self, stage: usize) -> f64 {
        self.tower.field(stage)
    }

    /// [`ImageEncoder::first`]
    pub const fn first(&self, stage: usize) -> f64 {
        self.tower.first(stage)
    }

    /// [`ImageEncoder::stride`]
    pub const fn stride(&self, stage: usize) -> usize {
        self.tower.stride(stage)
    }

    fn apart(&self, image: Tensor<4>) -> Tensor<4> {
        match self.slices {
            Some(pool) => pool.apart(image),
            None => image,
        }
    }

    /// What [`ImagePath::forward`] makes of the embeddings of all that the tower looked at.
    pub fn together(&self, embedding: Tensor<2>) -> Tensor<2> {
        match self.slices {
            Some(pool) => pool.forward(embedding),
            None => embedding,
        }
    }
}
