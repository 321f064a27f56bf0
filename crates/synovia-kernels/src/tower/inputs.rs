//! What a trained tower's embedding owes to its image: gradients by known statistics, of the image and of the maps on the way.

use rayon::prelude::*;

use super::{Forward, Saved, TowerError, TowerShape, Unit, UnitStatistics, check_statistics};
use crate::pool::{pool_sums, pooled};

impl TowerShape {
    /// The forward pass by known statistics, and what the gradients of its inputs need.
    ///
    /// # Shapes
    /// As [`TowerShape::forward`]; `statistics` come back as they are.
    ///
    /// # Errors
    /// [`TowerError::Length`] where something is of another shape.
    pub fn forward_traced(
        &self,
        image: &[f32],
        shape: [usize; 4],
        units: &[Unit<'_>],
        statistics: &[UnitStatistics],
    ) -> Result<Forward, TowerError> {
        self.check(image, shape, units)?;
        check_statistics(units, statistics)?;
        Ok(self.forward_saving(image, shape, units, Some(statistics)))
    }

    /// The gradient with respect to the image.
    ///
    /// # Shapes
    /// - gradient: `[batch, width]`, of the embedding
    /// - returns `[batch, channels, height, width]`
    ///
    /// # Errors
    /// As [`TowerShape::backward`].
    pub fn image_gradient(&self, saved: Saved, units: &[Unit<'_>], gradient: &[f32]) -> Result<Vec<f32>, TowerError> {
        let (saved, mut grad) = self.down_to(0, saved, units, gradient, None)?;
        let [sums, products] = pool_sums(&saved.pooled, &saved.largest, &saved.stem_norm, &mut grad);
        let pool = saved.through_pool(&grad, &sums, &products);
        Ok(saved.stem.data_gradient(&|row, out| pool.row(row, out), units[0].weight))
    }

    /// Each place of the maps after the first `n` blocks times its gradient, summed over the channels.
    ///
    /// # Shapes
    /// - gradient: `[batch, width]`, of the embedding
    /// - returns `[batch, height, width]` of the maps, and their height and width
    ///
    /// # Errors
    /// As [`TowerShape::backward`], and where there are not so many blocks.
    pub fn relevance(&self, n: usize, saved: Saved, units: &[Unit<'_>], gradient: &[f32]) -> Result<(Vec<f32>, [usize; 2]), TowerError> {
        if n > self.blocks.len() {
            return Err(TowerError::Blocks { got: self.blocks.len(), asked: n });
        }
        let (saved, grad) = self.down_to(n, saved, units, gradient, None)?;
        let (maps, images): (&[f32], _) = match saved.blocks.last() {
            Some(block) => (&block.y, block.output),
            None => (&saved.pooled, pooled(saved.stem.output())),
        };
        let channels = maps.len() / images.pixels();
        let places = maps.par_chunks_exact(channels).zip(grad.par_chunks_exact(channels));
        let values = places.map(|(map, gradient)| map.iter().zip(gradient).map(|(x, g)| x * g).sum()).collect();
        Ok((values, [images.height, images.width]))
    }
}
