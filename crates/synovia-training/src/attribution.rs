//! What a trained model's score for a class owes to each part of its input, by gradients: Grad-CAM (Selvaraju et al. 2017) with each
//! place's own gradient (HiResCAM, Draelos and Carin 2020) and integrated gradients (Sundararajan et al. 2017).

use burn::module::Module;
use burn::tensor::{Device, Gradients, Tensor};
use rand::seq::SliceRandom;
use synovia_encoders::Traced;
use synovia_fusion::{ImagePath, Inputs, JointModel, JointModelConfig, apply_state};

use crate::asked::{floats, images, modality, records};
use crate::batch::generator;
use crate::{Given, TrainingError, Weights};

/// Rows of one backward pass.
const BATCH: usize = 32;

/// Whose score is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Place of the task.
    pub task: usize,
    /// Place of the class; of a binary task 1 is what it asks for.
    pub class: usize,
}

/// A map over the image.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Row-major: how fast the score changes as what the place says grows in proportion.
    pub values: Vec<f32>,
    /// Pixels from a place to the next.
    pub stride: usize,
    /// Pixel that the first one is about: 0 of strided convolutions, the middle of the first patch where images are cut up.
    pub first: f64,
    /// How far around it a place looks, pixels: a standard deviation.
    pub field: f64,
}

/// A difference of scores, logits, below which nobody asks what makes it up.
pub const LEAST: f64 = 0.05;

/// What each input adds to the score.
#[derive(Clone, Debug, PartialEq)]
pub struct Integrated {
    /// Shape: the image's; empty without one.
    pub image: Vec<f32>,
    /// Shape: `[n_features]`, 0 where missing; empty without a record.
    pub record: Vec<f32>,
    /// Score of the input, and of the baseline.
    pub scores: [f64; 2],
    /// Gradients that were taken along the way from the baseline.
    pub steps: usize,
}

impl Integrated {
    /// By how much the parts miss the difference of the scores, as a share of it or, where it is less than [`LEAST`], of that: 0 for an
    /// exact integral (the completeness axiom).
    pub fn error(&self) -> f64 {
        let sum: f64 = self.image.iter().chain(&self.record).map(|&part| f64::from(part)).sum();
        let difference = self.scores[0] - self.scores[1];
        (sum - difference).abs() / difference.abs().max(LEAST)
    }
}

/// The weights with the values of each convolution and linear layer shuffled among themselves, and all else as it is: a model of the
/// same numbers that has learnt nothing, for the check that an explanation is about what was learnt (Adebayo et al. 2018).
pub fn shuffled(weights: &Weights, seed: u64) -> Weights {
    let mut weights = weights.clone();
    for (k, tensor) in weights.values_mut().enumerate().filter(|(_, tensor)| tensor.shape.len() > 1 && tensor.shape[0] > 1) {
        tensor.values.shuffle(&mut generator(seed, 5, k as u64, 0));
    }
    weights
}

/// A trained model that can be asked for gradients. Its statistics are the running ones, and nothing is dropped.
#[derive(Debug)]
pub struct Differentiable {
    model: JointModel,
    device: Device,
    /// Channels, height and width of images.
    shape: [usize; 3],
}

impl Differentiable {
    /// - shape: channels, height and width of the images
    ///
    /// # Errors
    /// [`TrainingError`] when the weights do not fit.
    pub fn new(config: &JointModelConfig, weights: &Weights, shape: [usize; 3]) -> Result<Self, TrainingError> {
        let device = Device::flex().autodiff();
        let model = apply_state(config.init(None, &device)?, weights)?.freeze();
        Ok(Self { model, device, shape })
    }

    fn record(&self, rows: &[&Given]) -> Option<Tensor<2>> {
        records(rows, &self.device)
    }

    fn image(&self, rows: &[&Given]) -> Option<Tensor<4>> {
        images(rows, self.shape, &self.device)
    }

    /// The class's log odds of a binary task, its logit of a multiclass one; `[batch, 1]`.
    fn score(logits: &[Tensor<2>], target: Target) -> Tensor<2> {
        let logits = logits[target.task].clone();
        match (logits.dims()[1], target.class) {
            (1, 0) => logits.neg(),
            (1, _) => logits,
            (_, class) => logits.narrow(1, class, 1),
        }
    }

    /// Grad-CAM at the feature maps after `stage` of the image tower (1 to 4), with the gradient of each place instead of its mean over
    /// places: of a network that averages right after it is the same, and of one that goes on only this says which places mattered.
    /// The sign is of one way of writing the same network (a bias moves it), the size is what to look at. `None` for those without an
    /// image, and all of them for a model without an image tower. Of a volume's slices the sum.
    ///
    /// # Panics
    /// Where there is no such task or class.
    pub fn grad_cam(&self, given: &[&Given], target: Target, stage: usize) -> Vec<Option<Map>> {
        let mut maps = vec![None; given.len()];
        let Some(tower) = self.model.image_path() else { return maps };
        // Examples of one pattern go together.
        for with_record in [true, false] {
            let of_pattern: Vec<usize> =
                (0..given.len()).filter(|&k| given[k].image.is_some() && given[k].record.is_some() == with_record).collect();
            for places in of_pattern.chunks(BATCH) {
                let rows: Vec<&Given> = places.iter().map(|&k| given[k]).collect();
                let Some(image) = self.image(&rows) else { continue };
                if let Some(of_rows) = self.traced_cam(&tower, &image, &rows, target, stage) {
                    places.iter().zip(of_rows).for_each(|(&place, map)| maps[place] = Some(map));
                    continue;
                }
                let features = tower.maps(image, stage).detach().require_grad();
                for (&place, map) in places.iter().zip(self.cam(&tower, &features, &rows, target, stage)) {
                    maps[place] = Some(map);
                }
            }
        }
        maps
    }

    fn cam(&self, tower: &ImagePath<'_>, features: &Tensor<4>, rows: &[&Given], target: Target, stage: usize) -> Vec<Map> {
        let outputs = self.model.forward_from(
            tower.embed(features.clone(), stage),
            modality(self.record(rows), &self.device),
            rows.len(),
            &self.device,
        );
        let gradients = Self::score(&outputs.logits, target).sum().backward();
        let [n, _, height, width] = features.dims();
        let Some(gradient) = features.grad(&gradients) else { return Vec::new() };
        // Of a volume what all its slices say of a place.
        let maps = (features.clone().inner() * gradient).sum_dim(1).reshape([rows.len(), n / rows.len(), height * width]);
        let map = maps.sum_dim(1);
        let values: Vec<f32> = map.into_data().convert::<f32>().try_to_vec().unwrap_or_default();
        values.chunks(height * width).map(|values| map_of(tower, stage, [height, width], values)).collect()
    }

    /// The model's answers from an embedding of the image tower that gradients are wanted of.
    fn given_embedding(&self, tower: &ImagePath<'_>, embedding: &Tensor<2>, record: Option<Tensor<2>>, n: usize) -> Vec<Tensor<2>> {
        self.model.forward_from(tower.together(embedding.clone()), modality(record, &self.device), n, &self.device).logits
    }

    /// [`Differentiable::cam`] by kernels, where there are some.
    fn traced_cam(&self, tower: &ImagePath<'_>, image: &Tensor<4>, rows: &[&Given], target: Target, stage: usize) -> Option<Vec<Map>> {
        let traced = tower.trace(image.clone())?;
        let embedding = Tensor::from_inner(traced.embedding()).require_grad();
        let logits = self.given_embedding(tower, &embedding, self.record(rows), rows.len());
        let gradients = Self::score(&logits, target).sum().backward();
        let map = tower.relevance(traced, &embedding.grad(&gradients)?, stage)?;
        let [n, height, width] = map.dims();
        // Of a volume what all its slices say of a place.
        let map = map.reshape([rows.len(), n / rows.len(), height * width]).sum_dim(1);
        let values: Vec<f32> = map.into_data().convert::<f32>().try_to_vec().ok()?;
        Some(values.chunks(height * width).map(|values| map_of(tower, stage, [height, width], values)).collect())
    }

    /// Integrated gradients from `baseline`, which has what `given` has. The way is cut into intervals, each with the gradient at its
    /// middle; since the score is known at both ends of each, it is known where that is not enough, and those are halved, until all
    /// parts add up to within `tolerance` of the difference in scores or `most` gradients were taken.
    ///
    /// # Panics
    /// Where there is no such task or class.
    pub fn integrated(&self, given: &Given, baseline: &Given, target: Target, tolerance: f64, most: usize) -> Integrated {
        let on_the_way = |share: f32| Given {
            image: between(baseline.image.as_deref(), given.image.as_deref(), share),
            record: between(baseline.record.as_deref(), given.record.as_deref(), share),
        };
        let way: Vec<f64> = [(&baseline.image, &given.image), (&baseline.record, &given.record)]
            .into_iter()
            .filter_map(|(from, to)| from.as_ref().zip(to.as_ref()))
            .flat_map(|(from, to)| from.iter().zip(to).map(|(from, to)| if to.is_nan() { 0.0 } else { f64::from(to - from) }))
            .collect();
        let points: Vec<Given> = (0..=INTERVALS).map(|k| on_the_way(k as f32 / INTERVALS as f32)).collect();
        let at_ends = self.scores(&points, target);
        let ends = |k: usize| ((k as f32 / INTERVALS as f32, at_ends[k]), ((k + 1) as f32 / INTERVALS as f32, at_ends[k + 1]));
        let mut wanted: Vec<(End, End)> = (0..INTERVALS).map(ends).collect();
        let mut intervals: Vec<Interval> = Vec::new();
        let scores = [at_ends[INTERVALS], at_ends[0]];
        let difference = scores[0] - scores[1];
        let mut steps = 0;
        loop {
            let middles: Vec<Given> = wanted.iter().map(|(from, to)| on_the_way(f32::midpoint(from.0, to.0))).collect();
            steps += middles.len();
            for ((from, to), (score, gradient)) in wanted.drain(..).zip(self.gradients(&middles, target)) {
                let slope: f64 = gradient.iter().zip(&way).map(|(gradient, way)| f64::from(*gradient) * way).sum();
                let missed = f64::from(to.0 - from.0) * slope - (to.1 - from.1);
                intervals.push(Interval { from, to, middle: score, gradient, missed });
            }
            let missed: f64 = intervals.iter().map(|interval| interval.missed).sum();
            if missed.abs() <= tolerance * difference.abs().max(LEAST) || steps + 2 > most {
                break;
            }
            // The worst, as many as go into one pass.
            intervals.sort_by(|a, b| a.missed.abs().total_cmp(&b.missed.abs()));
            let n = (BATCH / 2).min((most - steps) / 2).min(intervals.len().div_ceil(4));
            for Interval { from, to, middle, .. } in intervals.split_off(intervals.len() - n) {
                let middle = (f32::midpoint(from.0, to.0), middle);
                wanted.extend([(from, middle), (middle, to)]);
            }
        }
        let mut parts = vec![0.0f64; way.len()];
        for interval in &intervals {
            let share = f64::from(interval.to.0 - interval.from.0);
            for ((part, gradient), way) in parts.iter_mut().zip(&interval.gradient).zip(&way) {
                *part += share * f64::from(*gradient) * way;
            }
        }
        let mut parts: Vec<f32> = parts.into_iter().map(|part| part as f32).collect();
        let record = parts.split_off(baseline.image.as_ref().and(given.image.as_ref()).map_or(0, Vec::len));
        Integrated { image: parts, record, scores, steps }
    }

    /// The score of each; all have what the first has.
    ///
    /// # Panics
    /// Where there is no such task or class.
    pub fn scores(&self, given: &[Given], target: Target) -> Vec<f64> {
        let mut out = Vec::with_capacity(given.len());
        for rows in given.chunks(BATCH) {
            let rows: Vec<&Given> = rows.iter().collect();
            let (image, record) = (self.image(&rows), self.record(&rows));
            let logits = match self.traced(image.as_ref()) {
                Some((tower, traced)) => self.given_embedding(&tower, &Tensor::from_inner(traced.embedding()), record, rows.len()),
                None => self.logits(image, record, rows.len()),
            };
            out.extend(floats(Self::score(&logits, target)).into_iter().map(f64::from));
        }
        out
    }

    /// A pass of the image tower, where the model has one, there are images, and kernels compute it.
    fn traced(&self, image: Option<&Tensor<4>>) -> Option<(ImagePath<'_>, Traced)> {
        let tower = self.model.image_path()?;
        let traced = tower.trace(image?.clone())?;
        Some((tower, traced))
    }

    fn logits(&self, image: Option<Tensor<4>>, record: Option<Tensor<2>>, n: usize) -> Vec<Tensor<2>> {
        let inputs = Inputs { image: modality(image, &self.device), record: modality(record, &self.device) };
        self.model.forward(inputs, n, &self.device).logits
    }

    /// Score and gradient (of the image, then of the record, 0 where it is missing) of each; all have what the first has.
    fn gradients(&self, given: &[Given], target: Target) -> Vec<(f64, Vec<f32>)> {
        let mut out = Vec::with_capacity(given.len());
        for rows in given.chunks(BATCH) {
            let rows: Vec<&Given> = rows.iter().collect();
            let (image, record) = (self.image(&rows), self.record(&rows).map(Tensor::require_grad));
            let by_kernels = self.by_kernels(image.as_ref(), record.as_ref(), rows.len(), target);
            let (score, gradients, image) = by_kernels.unwrap_or_else(|| {
                let image = image.map(Tensor::require_grad);
                let score = Self::score(&self.logits(image.clone(), record.clone(), rows.len()), target);
                let gradients = score.clone().sum().backward();
                let image = image.and_then(|image| image.grad(&gradients));
                (score, gradients, image)
            });
            let record = record.and_then(|record| record.grad(&gradients)).map(floats).unwrap_or_default();
            let (score, image) = (floats(score), image.map(floats).unwrap_or_default());
            let (pixels, features) = (image.len() / rows.len(), record.len() / rows.len());
            for (k, score) in score.into_iter().enumerate() {
                let row = [&image[k * pixels..(k + 1) * pixels], &record[k * features..(k + 1) * features]].concat();
                out.push((f64::from(score), row));
            }
        }
        out
    }

    /// Scores, gradients and the images' own gradient, from kernels where there are some.
    fn by_kernels(
        &self,
        image: Option<&Tensor<4>>,
        record: Option<&Tensor<2>>,
        n: usize,
        target: Target,
    ) -> Option<(Tensor<2>, Gradients, Option<Tensor<4>>)> {
        let (tower, traced) = self.traced(image)?;
        let embedding = Tensor::from_inner(traced.embedding()).require_grad();
        let score = Self::score(&self.given_embedding(&tower, &embedding, record.cloned(), n), target);
        let gradients = score.clone().sum().backward();
        let of_image = traced.image_gradient(&embedding.grad(&gradients)?)?;
        Some((score, gradients, Some(of_image)))
    }
}

fn map_of(tower: &ImagePath<'_>, stage: usize, [height, width]: [usize; 2], values: &[f32]) -> Map {
    let (stride, first, field) = (tower.stride(stage), tower.first(stage), tower.field(stage));
    Map { height, width, values: values.to_vec(), stride, first, field }
}

/// Intervals that the way is first cut into.
const INTERVALS: usize = 16;

/// A share of the way and the score there.
type End = (f32, f64);

/// A part of the way.
struct Interval {
    from: End,
    to: End,
    /// The score at its middle.
    middle: f64,
    /// There, too.
    gradient: Vec<f32>,
    /// By how much gradient times way is more than the difference in scores.
    missed: f64,
}

fn between(from: Option<&[f32]>, to: Option<&[f32]>, share: f32) -> Option<Vec<f32>> {
    let (from, to) = (from?, to?);
    Some(from.iter().zip(to).map(|(from, to)| from + share * (to - from)).collect())
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use synovia_encoders::{ImageEncoder, ImageEncoderKind, NormKind};
    use synovia_fusion::{Absent, FusionKind, Head, ImageTower, RecordTower};

    use super::*;
    use crate::initial_weights;

    const SIDE: usize = 32;

    fn config(record: RecordTower, image: bool) -> JointModelConfig {
        JointModelConfig {
            image: image.then_some(ImageTower { kind: ImageEncoderKind::ResNet18, channels: 1, slices: 1, width: 4 }),
            record: Some(record),
            fusion: FusionKind::Concat,
            absent: Absent::Mask,
            embedding: 16,
            dropout: 0.5,
            norm: NormKind::Batch,
            endpoints: Vec::new(),
            heads: vec![Head { task: "a".into(), n_logits: 1 }, Head { task: "b".into(), n_logits: 3 }],
        }
    }

    const TABLE: RecordTower = RecordTower::Table { n_features: 3, width: 8, dropout: 0.5 };

    fn model(config: &JointModelConfig) -> Differentiable {
        let _alone = crate::tests::alone();
        let statistics = synovia_encoders::FeatureStatistics::identity(3);
        let mut weights = initial_weights(config, &statistics, 5).unwrap();
        // What begins near 0 says next to nothing of an image, and differences of it would be those of rounding.
        for (name, tensor) in weights.iter_mut().filter(|(name, _)| name.starts_with("image.ConvNeXt")) {
            let of = |value: f32| {
                if name.ends_with("scale") {
                    0.5
                } else if name.ends_with("weight") {
                    8.0 * value
                } else {
                    value
                }
            };
            tensor.values.iter_mut().for_each(|value| *value = of(*value));
        }
        let channels = config.image.map_or(1, |tower| tower.channels * tower.slices);
        Differentiable::new(config, &weights, [channels, SIDE, SIDE]).unwrap()
    }

    fn given(seed: u64, image: bool) -> Given {
        use rand::RngExt;
        let mut rng = generator(seed, 9, 0, 0);
        let image = image.then(|| (0..SIDE * SIDE).map(|_| rng.random::<f32>()).collect());
        Given { image, record: Some(vec![rng.random(), f32::NAN, -rng.random::<f32>()]) }
    }

    fn level(given: &Given) -> Given {
        Given { image: given.image.as_ref().map(|image| vec![0.5; image.len()]), record: Some(vec![0.0; 3]) }
    }

    #[test]
    fn the_parts_add_up() {
        let model = model(&config(TABLE, true));
        for (seed, image, target) in
            [(1, true, Target { task: 0, class: 1 }), (2, true, Target { task: 1, class: 2 }), (3, false, Target { task: 0, class: 0 })]
        {
            let given = given(seed, image);
            let parts = model.integrated(&given, &level(&given), target, 1e-3, 2048);
            assert!(parts.error() <= 1e-3, "{} after {}", parts.error(), parts.steps);
            assert_eq!((parts.image.len(), parts.record.len()), (if image { SIDE * SIDE } else { 0 }, 3));
            assert_eq!(parts.record[1], 0.0, "what is missing adds nothing");
            let scores = model.scores(&[given.clone(), level(&given)], target);
            assert!((scores[0] - parts.scores[0]).abs() < 1e-5);
            // A class and its opposite.
            if target.task == 0 {
                let other = model.scores(std::slice::from_ref(&given), Target { class: 1 - target.class, ..target });
                assert!((other[0] + scores[0]).abs() < 1e-5);
            }
        }
    }

    /// Of a linear model each part is weight times distance, whatever the way.
    #[test]
    fn parts_of_a_linear_model_are_exact() {
        let linear = JointModelConfig { fusion: FusionKind::Late, ..config(RecordTower::Linear { n_features: 3, width: 8 }, false) };
        let model = model(&linear);
        let (given, target) = (given(4, false), Target { task: 1, class: 0 });
        let baseline = level(&given);
        let parts = model.integrated(&given, &baseline, target, 1e-4, 64);
        assert_eq!(parts.steps, INTERVALS);
        for k in [0, 2] {
            let mut without = given.clone();
            without.record.as_mut().unwrap()[k] = 0.0;
            let scores = model.scores(&[given.clone(), without], target);
            assert!(
                (scores[0] - scores[1] - f64::from(parts.record[k])).abs() < 1e-5,
                "{k}: {} and {}",
                scores[0] - scores[1],
                parts.record[k]
            );
        }
    }

    /// A place's value is how the score changes as all that the place says grows in proportion: by finite differences.
    #[test]
    fn grad_cam_is_what_its_paper_says() {
        check_maps(ImageEncoderKind::ResNet18, 1, 0.1);
        // More layers have more kinks.
        check_maps(ImageEncoderKind::ResNet50, 1, 0.25);
        check_maps(ImageEncoderKind::ConvNeXtTiny, 1, 0.1);
        check_maps(ImageEncoderKind::ViTTiny, 1, 0.1);
        // A place of a volume is that place in all its slices.
        check_maps(ImageEncoderKind::ResNet18, 3, 0.1);
        check_maps(ImageEncoderKind::ResNet18Volume, 3, 0.1);
    }

    #[track_caller]
    fn check_maps(kind: ImageEncoderKind, slices: usize, tolerance: f64) {
        let mut config = config(TABLE, true);
        let (channels, apart) = if kind == ImageEncoderKind::ResNet18Volume { (slices, 1) } else { (1, slices) };
        config.image = Some(ImageTower { kind, channels, slices: apart, width: 4 });
        let model = model(&config);
        let target = Target { task: 1, class: 1 };
        let of_slices: Vec<Given> = (0..slices as u64).map(|k| given(6 + k, true)).collect();
        let image = of_slices.iter().flat_map(|slice| slice.image.clone().unwrap()).collect();
        let given = Given { image: Some(image), record: of_slices[0].record.clone() };
        let tower = model.model.image_path().unwrap();
        for stage in 1..=ImageEncoder::STAGES {
            let features = tower.maps(model.image(&[&given]).unwrap(), stage);
            let [rows, channels, height, width] = features.dims();
            let score = |features: Tensor<4>| {
                let record = modality(model.record(&[&given]), &model.device);
                let logits = model.model.forward_from(tower.embed(features, stage), record, 1, &model.device).logits;
                f64::from(Differentiable::score(&logits, target).into_scalar::<f32>())
            };
            let values: Vec<f32> = features.clone().into_data().try_to_vec().unwrap();
            let expected = (0..height * width).map(|place| {
                let grown = |by: f32| {
                    let mut values = values.clone();
                    values.iter_mut().skip(place).step_by(height * width).for_each(|value| *value *= 1.0 + by);
                    score(Tensor::from_data(TensorData::new(values, [rows, channels, height, width]), &model.device))
                };
                (grown(1e-2) - grown(-1e-2)) / 2e-2
            });
            let expected: Vec<f64> = expected.collect();
            let map = model.grad_cam(&[&given], target, stage)[0].clone().unwrap();
            let side = SIDE / tower.stride(stage);
            assert_eq!((map.height, map.width), (side, side));
            let cut_up = matches!(kind, ImageEncoderKind::ConvNeXtTiny | ImageEncoderKind::ViTTiny);
            assert_eq!(map.first, if cut_up { (map.stride - 1) as f64 / 2.0 } else { 0.0 });
            // Differences of single precision over kinks: of the norm, not of each place.
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
            let missed = norm(&mut map.values.iter().zip(&expected).map(|(got, expected)| f64::from(*got) - expected));
            let whole = norm(&mut expected.iter().copied());
            if kind == ImageEncoderKind::ConvNeXtTiny && side == 1 {
                // The mean over one place, normalised, does not grow with it.
                assert!(missed < 1e-4 && whole < 1e-4, "{missed} of {whole}");
                continue;
            }
            assert!(missed < tolerance * whole, "{kind:?}, stage {stage}: {missed} of {whole}");
        }
        let without = Given { image: None, ..given };
        assert_eq!(model.grad_cam(&[&without], target, 1), [None]);
    }

    #[test]
    fn shuffled_weights_are_the_same_numbers() {
        let _alone = crate::tests::alone();
        let weights = initial_weights(&config(TABLE, true), &synovia_encoders::FeatureStatistics::identity(3), 5).unwrap();
        let other = shuffled(&weights, 3);
        assert_eq!(other, shuffled(&weights, 3));
        let sorted = |values: &[f32]| {
            let mut values = values.to_vec();
            values.sort_by(f32::total_cmp);
            values
        };
        let mut moved = 0;
        for (name, tensor) in &weights {
            assert_eq!(sorted(&tensor.values), sorted(&other[name].values), "{name}");
            moved += usize::from(tensor.values != other[name].values);
        }
        assert!(moved > 20, "{moved} of {}", weights.len());
    }
}
