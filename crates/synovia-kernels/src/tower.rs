//! A residual tower from images to embeddings and back, channels last all the way.
//!
//! Of each unit `relu(norm(conv(x)))` only the convolution's result is kept; normalisation and activation are done where the
//! next convolution reads it. The backward pass writes gradients where the forward pass's results were.

mod inputs;

use crate::direct::MAX_CHANNELS;
use crate::finish::{Activated, AddTo, Affine, AsIs, Plain, Statistics, ThroughActivation, padded, total};
use crate::images::{Images, UnitShape};
use crate::norm::{Norm, Shortcut, apply, join, join_backward};
use crate::pool::{Largest, PoolBackward, average, average_backward, max_pool, max_pool_kept, pool_sums, pooled};
use crate::shared::Buffer;
use crate::stem::{Stem, stem_row};
use crate::unit::{convolve, data_gradient, weight_gradient};

/// A residual block of two units, by their places in the tower's list: `relu(second(relu(first(x))) + shortcut(x))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// First unit.
    pub first: usize,
    /// Second unit.
    pub second: usize,
    /// The unit that the input goes through to be added, if its shape changes.
    pub shortcut: Option<usize>,
}

/// A tower: unit 0 with ReLU, 3 × 3 max pooling of stride 2, blocks, global average.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TowerShape {
    units: Vec<UnitShape>,
    blocks: Vec<BlockShape>,
}

/// Why a tower or its inputs are not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TowerError {
    /// A size that is 0 or larger than the kernels are made for.
    #[error("unit {unit}: {what} is {size}, not within 1..={largest}")]
    Size {
        /// Place of the unit.
        unit: usize,
        /// Which of its sizes.
        what: &'static str,
        /// What it is.
        size: usize,
        /// What it may be at most.
        largest: usize,
    },
    /// Units that do not fit each other, a unit with two places or none, or a kernel of even side.
    #[error("unit {unit} does not fit: {why}")]
    Chain {
        /// Place of the unit.
        unit: usize,
        /// In what.
        why: &'static str,
    },
    /// Numbers of another shape.
    #[error("{what}: {got} numbers instead of {expected}")]
    Length {
        /// Of what.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there must be.
        expected: usize,
    },
    /// More blocks asked for than there are.
    #[error("maps after {asked} blocks of a tower that has {got}")]
    Blocks {
        /// How many there are.
        got: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// What was saved is not of this tower.
    #[error("what the forward pass saved is of another tower")]
    OtherTower,
}

/// Numbers of the stem's result in evaluation: a larger batch is taken in parts, which changes no bit of what comes out.
const EVALUATED: usize = 16_000_000;

/// A unit's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// `[channels_out, channels_in, kernel, kernel]`
    pub weight: &'a [f32],
    /// `[channels_out]`
    pub gamma: &'a [f32],
    /// `[channels_out]`
    pub beta: &'a [f32],
    /// What is added to the variance.
    pub epsilon: f64,
}

/// Mean and (biased) variance of a unit's convolution, `[channels_out]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitStatistics {
    /// Mean.
    pub mean: Vec<f32>,
    /// Variance.
    pub variance: Vec<f32>,
}

/// Gradients of a unit's parameters, of their shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitGradient {
    /// Of the convolution's weights.
    pub weight: Vec<f32>,
    /// Of the normalisation's factor.
    pub gamma: Vec<f32>,
    /// Of the normalisation's term.
    pub beta: Vec<f32>,
}

/// What a block's backward pass needs.
#[derive(Clone, Debug)]
struct SavedBlock {
    input: Images,
    output: Images,
    first: (Buffer, Norm),
    second: (Buffer, Norm),
    shortcut: Option<(Buffer, Norm)>,
    /// The block's output.
    y: Buffer,
}

/// What the backward pass of a tower needs.
#[derive(Clone, Debug)]
pub struct Saved {
    tower: TowerShape,
    stem: Stem,
    stem_z: Buffer,
    stem_norm: Norm,
    pooled: Buffer,
    largest: Largest,
    blocks: Vec<SavedBlock>,
}

impl Saved {
    /// From the gradient of the pooled maps, and its sums by [`pool_sums`], to that of the stem's convolution.
    fn through_pool<'a>(&'a self, gradient: &'a [f32], sums: &[f64], products: &[f64]) -> PoolBackward<'a> {
        let images = self.stem.output();
        PoolBackward::new(gradient, &self.largest, self.stem_norm.backward(sums, products, images.pixels()), &self.stem_z, images)
    }
}

/// Result of a forward pass that can go back.
#[derive(Debug)]
pub struct Forward {
    /// `[batch, channels of the last unit]`
    pub embedding: Vec<f32>,
    /// Those that were normalised by, a unit each.
    pub statistics: Vec<UnitStatistics>,
    /// For [`TowerShape::backward`], [`TowerShape::image_gradient`] and [`TowerShape::relevance`].
    pub saved: Saved,
}

fn check_length(what: &'static str, got: usize, expected: usize) -> Result<(), TowerError> {
    if got == expected { Ok(()) } else { Err(TowerError::Length { what, got, expected }) }
}

fn check_statistics(units: &[Unit<'_>], statistics: &[UnitStatistics]) -> Result<(), TowerError> {
    check_length("statistics", statistics.len(), units.len())?;
    for (s, unit) in statistics.iter().zip(units) {
        check_length("means of a unit", s.mean.len(), unit.gamma.len())?;
        check_length("variances of a unit", s.variance.len(), unit.gamma.len())?;
    }
    Ok(())
}

fn of_each<T>(units: Vec<Option<T>>) -> Vec<T> {
    units.into_iter().map(|of_unit| of_unit.expect("`TowerShape::new` has seen to it that each unit has its place")).collect()
}

impl TowerShape {
    /// Checks that the units fit each other, and that each has one place: 0 is the stem.
    ///
    /// # Errors
    /// [`TowerError`] where they do not.
    pub fn new(units: Vec<UnitShape>, blocks: Vec<BlockShape>) -> Result<Self, TowerError> {
        for (unit, shape) in units.iter().enumerate() {
            let row = if unit == 0 { stem_row(*shape) } else { padded(shape.channels_in) };
            let sizes = [
                ("channels in", shape.channels_in, MAX_CHANNELS),
                ("channels out", shape.channels_out, MAX_CHANNELS),
                ("kernel", shape.kernel, 31),
                ("stride", shape.stride, 16),
                ("row of the kernel", row, MAX_CHANNELS),
            ];
            for (what, size, largest) in sizes {
                if size == 0 || size > largest {
                    return Err(TowerError::Size { unit, what, size, largest });
                }
            }
            if shape.kernel % 2 == 0 || shape.stride > shape.kernel.max(2) {
                return Err(TowerError::Chain { unit, why: "kernels have an odd side and overlap" });
            }
        }
        let mut used = vec![false; units.len()];
        let mut take = |unit: usize| {
            let shape = units.get(unit).copied().ok_or(TowerError::Chain { unit, why: "it is missing" })?;
            let twice = std::mem::replace(&mut used[unit], true);
            if twice { Err(TowerError::Chain { unit, why: "it has a place already" }) } else { Ok(shape) }
        };
        let mut channels = take(0)?.channels_out;
        for block in &blocks {
            let (first, second) = (take(block.first)?, take(block.second)?);
            let plain = |unit: usize, shape: UnitShape| {
                if shape.kernel == 3 { Ok(()) } else { Err(TowerError::Chain { unit, why: "a block's kernels are 3 × 3" }) }
            };
            plain(block.first, first)?;
            plain(block.second, second)?;
            if first.channels_in != channels || second.channels_in != first.channels_out || second.stride != 1 || first.stride > 2 {
                return Err(TowerError::Chain { unit: block.first, why: "channels or stride" });
            }
            let same = first.stride == 1 && second.channels_out == channels;
            match block.shortcut {
                None if same => {}
                None => return Err(TowerError::Chain { unit: block.second, why: "a change of shape needs a shortcut" }),
                Some(unit) => {
                    let shape = take(unit)?;
                    let fits = shape.channels_in == channels && shape.channels_out == second.channels_out && shape.stride == first.stride;
                    if !fits || shape.kernel != 1 {
                        return Err(TowerError::Chain { unit, why: "a shortcut is 1 × 1, of the block's channels and stride" });
                    }
                }
            }
            channels = second.channels_out;
        }
        if let Some(unit) = used.iter().position(|used| !used) {
            return Err(TowerError::Chain { unit, why: "it has no place" });
        }
        Ok(Self { units, blocks })
    }

    /// Its units.
    pub fn units(&self) -> &[UnitShape] {
        &self.units
    }

    /// Units with the size of their inputs, in the order of the forward pass.
    pub(crate) fn places(&self, images: Images) -> Vec<(usize, Images)> {
        let mut out = vec![(0, images)];
        let mut images = pooled(self.units[0].output(images));
        for block in &self.blocks {
            let output = self.units[block.first].output(images);
            out.extend([(block.first, images), (block.second, output)]);
            out.extend(block.shortcut.map(|unit| (unit, images)));
            images = output;
        }
        out
    }

    /// Width of the embedding.
    pub fn width(&self) -> usize {
        self.blocks.last().map_or(self.units[0].channels_out, |block| self.units[block.second].channels_out)
    }

    fn check(&self, image: &[f32], shape: [usize; 4], units: &[Unit<'_>]) -> Result<(), TowerError> {
        check_length("the number of channels", shape[1], self.units[0].channels_in)?;
        // No slice is as long as a product that overflows.
        let expected = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side)).unwrap_or(usize::MAX);
        check_length("images", image.len(), expected)?;
        if image.is_empty() {
            return Err(TowerError::Length { what: "images", got: 0, expected: 1 });
        }
        self.check_units(units)
    }

    fn check_units(&self, units: &[Unit<'_>]) -> Result<(), TowerError> {
        check_length("the number of units", units.len(), self.units.len())?;
        for (unit, shape) in units.iter().zip(&self.units) {
            check_length("weights", unit.weight.len(), shape.n_weights())?;
            check_length("factors", unit.gamma.len(), shape.channels_out)?;
            check_length("terms", unit.beta.len(), shape.channels_out)?;
        }
        Ok(())
    }

    /// The forward pass by the batch's own statistics.
    ///
    /// # Shapes
    /// - image: `[batch, channels, height, width]`, of `shape`
    ///
    /// # Errors
    /// [`TowerError::Length`] where something is of another shape.
    pub fn forward_training(&self, image: &[f32], shape: [usize; 4], units: &[Unit<'_>]) -> Result<Forward, TowerError> {
        self.check(image, shape, units)?;
        Ok(self.forward_saving(image, shape, units, None))
    }

    /// By the statistics that are given, else by the batch's own. What is given fits.
    fn forward_saving(&self, image: &[f32], shape: [usize; 4], units: &[Unit<'_>], given: Option<&[UnitStatistics]>) -> Forward {
        let [batch, _, height, width] = shape;
        let mut statistics: Vec<Option<UnitStatistics>> = vec![None; units.len()];
        let mut norm_of = |unit: usize, sums: &[f32], images: Images| {
            let channels = self.units[unit].channels_out;
            let norm = if let Some(given) = given {
                self.norm_by(unit, units, given)
            } else {
                let Unit { gamma, beta, epsilon, .. } = units[unit];
                Norm::of_batch(sums, images.pixels(), gamma, beta, epsilon, padded(channels))
            };
            statistics[unit] = Some(UnitStatistics { mean: norm.mean[..channels].to_vec(), variance: norm.variance[..channels].to_vec() });
            norm
        };
        let stem = Stem::new(self.units[0], image, Images { batch, height, width });
        let channels = padded(self.units[0].channels_out);
        let large = stem.output();
        let mut stem_z = Buffer::new(large.pixels() * channels);
        let sums = stem.convolve(units[0].weight, Statistics, &mut stem_z);
        let stem_norm = norm_of(0, &sums, large);
        let mut images = pooled(large);
        let mut pool = Buffer::new(images.pixels() * channels);
        let largest = max_pool_kept(&stem_z, &stem_norm, large, &mut pool);
        let mut blocks: Vec<SavedBlock> = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let x: &[f32] = blocks.last().map_or(&pool, |b| &b.y);
            let (first, second) = (self.units[block.first], self.units[block.second]);
            let output = first.output(images);
            let size = output.pixels() * padded(first.channels_out);
            let mut z_1 = Buffer::new(size);
            let sums = convolve(first, Plain(x), images, units[block.first].weight, Statistics, &mut z_1);
            let norm_1 = norm_of(block.first, &sums, output);
            let size = output.pixels() * padded(second.channels_out);
            let mut z_2 = Buffer::new(size);
            let activated = Activated { z: &z_1, scale: &norm_1.scale, shift: &norm_1.shift };
            let sums = convolve(second, activated, output, units[block.second].weight, Statistics, &mut z_2);
            let norm_2 = norm_of(block.second, &sums, output);
            let shortcut = block.shortcut.map(|unit| {
                let mut z = Buffer::new(size);
                let sums = convolve(self.units[unit], Plain(x), images, units[unit].weight, Statistics, &mut z);
                let norm = norm_of(unit, &sums, output);
                (z, norm)
            });
            let mut y = Buffer::new(size);
            let other = shortcut.as_ref().map_or(Shortcut::Identity(x), |(z, norm)| Shortcut::Projected(z, norm));
            join(&z_2, &norm_2, other, &mut y);
            blocks.push(SavedBlock { input: images, output, first: (z_1, norm_1), second: (z_2, norm_2), shortcut, y });
            images = output;
        }
        let last: &[f32] = blocks.last().map_or(&pool, |b| &b.y);
        let embedding = average(last, images, padded(self.width()), self.width());
        let saved = Saved { tower: self.clone(), stem, stem_z, stem_norm, pooled: pool, largest, blocks };
        Forward { embedding, statistics: of_each(statistics), saved }
    }

    fn norm_by(&self, unit: usize, units: &[Unit<'_>], statistics: &[UnitStatistics]) -> Norm {
        let Unit { gamma, beta, epsilon, .. } = units[unit];
        let UnitStatistics { mean, variance } = &statistics[unit];
        Norm::new(mean, variance, gamma, beta, epsilon, padded(self.units[unit].channels_out))
    }

    /// The forward pass by known statistics.
    ///
    /// # Shapes
    /// As [`TowerShape::forward_training`]; statistics of each unit; returns `[batch, width]`.
    ///
    /// # Errors
    /// [`TowerError::Length`] where something is of another shape.
    pub fn forward(
        &self,
        image: &[f32],
        shape: [usize; 4],
        units: &[Unit<'_>],
        statistics: &[UnitStatistics],
    ) -> Result<Vec<f32>, TowerError> {
        self.check(image, shape, units)?;
        check_statistics(units, statistics)?;
        let norm_of = |unit: usize| self.norm_by(unit, units, statistics);
        let [batch, image_channels, height, width] = shape;
        let channels = padded(self.units[0].channels_out);
        let per_image = self.units[0].output(Images { batch: 1, height, width }).pixels() * channels;
        let at_once = (EVALUATED / per_image.max(1)).max(1);
        if batch > at_once {
            let size = image_channels * height * width;
            let mut out = Vec::with_capacity(batch * self.width());
            for part in image.chunks(at_once * size) {
                out.extend(self.forward(part, [part.len() / size, image_channels, height, width], units, statistics)?);
            }
            return Ok(out);
        }
        let stem = Stem::new(self.units[0], image, Images { batch, height, width });
        let large = stem.output();
        let mut images = pooled(large);
        let mut x = Buffer::new(images.pixels() * channels);
        {
            let mut z = Buffer::new(large.pixels() * channels);
            stem.convolve(units[0].weight, AsIs, &mut z);
            max_pool(&z, &norm_of(0), large, &mut x);
        }
        for block in &self.blocks {
            let output = self.units[block.first].output(images);
            let run = |unit: usize, input: &[f32], images: Images, residual: Option<&[f32]>, relu: bool| {
                let (shape, norm) = (self.units[unit], norm_of(unit));
                let mut out = Buffer::new(output.pixels() * padded(shape.channels_out));
                let finish = Affine { scale: &norm.scale, shift: &norm.shift, residual, relu };
                convolve(shape, Plain(input), images, units[unit].weight, finish, &mut out);
                out
            };
            let hidden = run(block.first, &x, images, None, true);
            let shortcut = block.shortcut.map(|unit| run(unit, &x, images, None, false));
            let y = run(block.second, &hidden, output, Some(shortcut.as_ref().unwrap_or(&x)), true);
            x = y;
            images = output;
        }
        Ok(average(&x, images, padded(self.width()), self.width()))
    }

    /// Gradients of all parameters.
    ///
    /// # Shapes
    /// - gradient: `[batch, width]`, of the embedding
    ///
    /// # Errors
    /// [`TowerError::OtherTower`] if `saved` is of another tower's forward pass, [`TowerError::Length`] where something is of
    /// another shape than in it.
    pub fn backward(&self, saved: Saved, units: &[Unit<'_>], gradient: &[f32]) -> Result<Vec<UnitGradient>, TowerError> {
        let mut out: Vec<Option<UnitGradient>> = vec![None; units.len()];
        let (saved, mut grad) = self.down_to(0, saved, units, gradient, Some(&mut out))?;
        let [sums, products] = pool_sums(&saved.pooled, &saved.largest, &saved.stem_norm, &mut grad);
        let pool = saved.through_pool(&grad, &sums, &products);
        let mut weight = vec![0.0; self.units[0].n_weights()];
        saved.stem.weight_gradient(&|row, out| pool.row(row, out), &mut weight);
        out[0] = Some(self.unit_gradient(0, weight, &sums, &products));
        Ok(of_each(out))
    }

    /// From the embedding's gradient to that of the output of the first `n` blocks, and what was saved of these.
    fn down_to(
        &self,
        n: usize,
        mut saved: Saved,
        units: &[Unit<'_>],
        gradient: &[f32],
        mut out: Option<&mut [Option<UnitGradient>]>,
    ) -> Result<(Saved, Buffer), TowerError> {
        // The kernels read what was saved by the shapes of this tower.
        if saved.tower != *self {
            return Err(TowerError::OtherTower);
        }
        self.check_units(units)?;
        let images = saved.blocks.last().map_or(pooled(saved.stem.output()), |b| b.output);
        check_length("the embedding's gradient", gradient.len(), images.batch * self.width())?;
        let mut grad = Buffer::new(images.pixels() * padded(self.width()));
        average_backward(gradient, images, padded(self.width()), self.width(), &mut grad);
        while saved.blocks.len() > n {
            let Some(block) = saved.blocks.pop() else { break };
            let shape = self.blocks[saved.blocks.len()];
            let x: &[f32] = saved.blocks.last().map_or(&saved.pooled, |b| &b.y);
            grad = self.block_backward(shape, block, x, units, grad, out.as_deref_mut());
        }
        Ok((saved, grad))
    }

    fn unit_gradient(&self, unit: usize, weight: Vec<f32>, sums: &[f64], products: &[f64]) -> UnitGradient {
        let of_channels = |values: &[f64]| values[..self.units[unit].channels_out].iter().map(|v| *v as f32).collect();
        UnitGradient { weight, gamma: of_channels(products), beta: of_channels(sums) }
    }

    /// From the gradient of a block's output to that of its input `x`; those of its parameters go to `out`, where they are wanted.
    fn block_backward(
        &self,
        shape: BlockShape,
        block: SavedBlock,
        x: &[f32],
        units: &[Unit<'_>],
        mut grad: Buffer,
        mut out: Option<&mut [Option<UnitGradient>]>,
    ) -> Buffer {
        let SavedBlock { input, output, first: (mut z_1, norm_1), second: (mut z_2, norm_2), shortcut, y } = block;
        let (first, second) = (self.units[shape.first], self.units[shape.second]);
        let count = output.pixels();
        let projected = shortcut.as_ref().map(|(z, norm)| (&z[..], norm));
        let [sums, products, products_shortcut] = join_backward(&y, &z_2, &norm_2, projected, &mut grad);
        drop(y);
        apply(&norm_2.backward(&sums, &products, count), &grad, &mut z_2);
        let activated = Activated { z: &z_1, scale: &norm_1.scale, shift: &norm_1.shift };
        if let Some(out) = out.as_deref_mut() {
            let weight = weight_gradient(second, activated, output, &z_2);
            out[shape.second] = Some(self.unit_gradient(shape.second, weight, &sums, &products));
        }
        let mut grad_1 = Buffer::new(count * padded(first.channels_out));
        let through = ThroughActivation {
            z: &z_1,
            scale: &norm_1.scale,
            shift: &norm_1.shift,
            mean: &norm_1.mean,
            inverse_deviation: &norm_1.inverse_deviation,
        };
        let partial = data_gradient(second, &z_2, output, units[shape.second].weight, through, &mut grad_1);
        drop(z_2);
        let [sums_1, products_1] = total(&partial, padded(first.channels_out));
        apply(&norm_1.backward(&sums_1, &products_1, count), &grad_1, &mut z_1);
        drop(grad_1);
        if let Some(out) = out.as_deref_mut() {
            let weight = weight_gradient(first, Plain(x), input, &z_1);
            out[shape.first] = Some(self.unit_gradient(shape.first, weight, &sums_1, &products_1));
        }
        let weights = units[shape.first].weight;
        match shortcut.zip(shape.shortcut) {
            None => {
                data_gradient(first, &z_1, input, weights, AddTo, &mut grad);
                grad
            }
            Some(((mut z, norm), unit)) => {
                let mut grad_x = Buffer::new(x.len());
                data_gradient(first, &z_1, input, weights, AsIs, &mut grad_x);
                apply(&norm.backward(&sums, &products_shortcut, count), &grad, &mut z);
                if let Some(out) = out {
                    let weight = weight_gradient(self.units[unit], Plain(x), input, &z);
                    out[unit] = Some(self.unit_gradient(unit, weight, &sums, &products_shortcut));
                }
                data_gradient(self.units[unit], &z, input, units[unit].weight, AddTo, &mut grad_x);
                grad_x
            }
        }
    }
}
