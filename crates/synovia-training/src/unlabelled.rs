//! What images teach without any label, before the labels are learnt: two changed views of an image are to have the same embedding, and
//! embeddings are to differ from image to image in every direction (VICReg: Bardes, Ponce & LeCun 2022, "VICReg: variance-invariance-covariance
//! regularization for self-supervised learning"). It needs neither pairs that do not belong together nor large batches.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};
use rand::seq::SliceRandom;
use synovia_cohort::{ExampleRow, Train, View};
use synovia_encoders::{ImageEncoder, NormKind};
use synovia_fusion::{ImageTower, ModelError, collect_state};

use crate::batch::{HostBatch, TrainingChanges, generator};
use crate::course::diverged;
use crate::optimizer::{AdamW, AdamWSettings};
use crate::{Augmentation, Presence, TrainingError, Weights, learning_rate};

/// How an image tower learns from images alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unlabelled {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step, each in two views.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Changes that leave an image's meaning as it is: the embedding learns to overlook them.
    pub augmentation: Augmentation,
    /// All random choices follow from it.
    pub seed: u64,
}

/// What each part counts for, as published.
const INVARIANCE: f64 = 25.0;
const VARIANCE: f64 = 25.0;
/// Kept out of the square root of a variance.
const TINY: f64 = 1e-4;
/// Width of the layers that are thrown away, in widths of the embedding.
const EXPANSION: usize = 4;

/// The tower, under the name that it has in a joint model, and what is thrown away after training.
#[derive(Module, Debug)]
struct Learner {
    image: ImageEncoder,
    expander: Vec<Linear>,
    /// Channels of what the tower looks at.
    channels: usize,
}

impl Learner {
    fn init(tower: ImageTower, norm: NormKind, device: &Device) -> Result<Self, ModelError> {
        // Of a volume the mean over its slices: how much each counts is left to the labels.
        let (image, width) = tower.kind.init(tower.channels, tower.width, norm, device)?;
        let wide = EXPANSION * width;
        let expander = [(width, wide), (wide, wide)].map(|(from, to)| LinearConfig::new(from, to).init(device)).to_vec();
        Ok(Self { image, expander, channels: tower.channels })
    }

    fn forward(&self, views: Tensor<4>) -> Tensor<2> {
        let last = self.expander.len().saturating_sub(1);
        let [batch, all, height, width] = views.dims();
        let slices = all / self.channels;
        let embedded = self.image.forward(views.reshape([batch * slices, self.channels, height, width]));
        let width = embedded.dims()[1];
        let of_image = embedded.reshape([batch, slices, width]).mean_dim(1).reshape([batch, width]);
        self.expander.iter().enumerate().fold(of_image, |x, (k, layer)| {
            let x = layer.forward(x);
            if k < last { activation::relu(x) } else { x }
        })
    }
}

/// Weights of an image tower that has learnt from the training images, labelled or not, by their names in a joint model.
///
/// - progress: told the epoch, from 1, of how many, and its mean loss
///
/// # Errors
/// [`TrainingError`] when there are no images, or training diverges.
pub fn learn_images(
    tower: ImageTower,
    norm: NormKind,
    settings: &Unlabelled,
    train: &View<'_, Train>,
    progress: &mut dyn FnMut(usize, usize, f64),
) -> Result<Weights, TrainingError> {
    let rows: Vec<&ExampleRow> = train.rows().filter(|row| row.image_row.is_some()).collect();
    if rows.len() < 2 {
        return Err(TrainingError::EmptySplit("train"));
    }
    let device = Device::flex().autodiff();
    device.seed(settings.seed ^ 0x5e1f);
    let mut learner = Learner::init(tower, norm, &device)?;
    let mut optimizer = AdamW::new(AdamWSettings { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 1e-4, clip: 10.0 });
    let batch = settings.batch.clamp(2, rows.len());
    let steps = rows.len() / batch;
    let shown = Presence { image: true, record: false };
    for epoch in 0..settings.epochs {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.shuffle(&mut generator(settings.seed, 3, epoch as u64, 0));
        let mut sum = 0.0;
        for step in 0..steps {
            let of_step: Vec<&ExampleRow> = order[step * batch..(step + 1) * batch].iter().map(|&k| rows[k]).collect();
            let view = |which: usize| {
                let changes = TrainingChanges {
                    augmentation: &settings.augmentation,
                    modality_dropout: 0.0,
                    seed: settings.seed,
                    epoch: 2 * epoch + which,
                    first: step * batch,
                };
                let read = HostBatch::read(train.reader(), &of_step, shown, Some(&changes))?;
                read.into_tensors(&[], &[], &device).inputs.image.map(|image| image.values).ok_or(TrainingError::EmptySplit("train"))
            };
            // Both views in one batch, so that both are normalised alike.
            let embedded = learner.forward(Tensor::cat(vec![view(0)?, view(1)?], 0));
            let loss = vicreg(&embedded.clone().narrow(0, 0, batch), &embedded.narrow(0, batch, batch));
            let value = f64::from(loss.clone().into_scalar::<f32>());
            if !value.is_finite() {
                return Err(diverged("the loss of images alone", value, epoch, step));
            }
            let rate = learning_rate(settings.learning_rate, epoch * steps + step, settings.epochs * steps, steps);
            learner = optimizer.step(learner, loss.backward(), rate).0;
            sum += value;
        }
        progress(epoch + 1, settings.epochs, sum / steps as f64);
    }
    Ok(collect_state(&learner).into_iter().filter(|(name, _)| name.starts_with("image.")).collect())
}

/// Invariance, variance and covariance of two views' embeddings. `[1]`
///
/// # Shapes
/// - a, b: `[batch, width]`, row k of the same image
fn vicreg(a: &Tensor<2>, b: &Tensor<2>) -> Tensor<1> {
    let [n, width] = a.dims();
    let apart = a.clone() - b.clone();
    let spread = |z: &Tensor<2>| {
        let centred = z.clone() - z.clone().mean_dim(0);
        let covariance = centred.clone().transpose().matmul(centred).div_scalar(n as f64 - 1.0);
        let diagonal = Tensor::<2>::eye(width, &z.device());
        let deviation = (covariance.clone() * diagonal.clone()).sum_dim(1).add_scalar(TINY).sqrt();
        let narrow = activation::relu(deviation.neg().add_scalar(1.0)).mean();
        let between = covariance * (diagonal.neg().add_scalar(1.0));
        narrow.mul_scalar(0.5 * VARIANCE) + (between.clone() * between).sum().div_scalar(width as f64)
    };
    (apart.clone() * apart).mean().mul_scalar(INVARIANCE) + spread(a) + spread(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(a: [[f32; 2]; 4], b: [[f32; 2]; 4]) -> f32 {
        let of = |rows| Tensor::<2>::from_floats(rows, &Device::flex());
        vicreg(&of(a), &of(b)).into_scalar::<f32>()
    }

    #[test]
    fn views_alike_and_images_apart_cost_nothing() {
        // Each direction has a variance of 4 / 3, and the two have nothing to do with each other.
        let apart = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]];
        assert!(loss(apart, apart).abs() < 1e-6);
        // All the same: 25 · (1 − .01).
        let same = [[3.0, 3.0]; 4];
        assert!((loss(same, same) - 24.75).abs() < 1e-4, "{}", loss(same, same));
        // One direction twice: covariances of 4 / 3 on both sides of the diagonal, of two views, over two directions.
        let twice = [[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]];
        assert!((loss(twice, twice) - 2.0 * 16.0 / 9.0).abs() < 1e-5, "{}", loss(twice, twice));
        // A step of .2 aside in one of two directions: 25 · .04 / 2.
        let moved = apart.map(|[x, y]| [x + 0.2, y]);
        assert!((loss(apart, moved) - 0.5).abs() < 1e-4, "{}", loss(apart, moved));
    }
}
