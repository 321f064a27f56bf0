//! The joint model: a tower a modality, fusion, a head a task.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use synovia_encoders::{
    CrossEncoder, CrossEncoderConfig, EncoderError, FeatureStatistics, ImageEncoder, LinearEncoder, LinearEncoderConfig, NormKind,
    SlicePool, SlicePoolConfig, TableEncoder, TableEncoderConfig, TokenEncoder, TokenEncoderConfig,
};

use crate::{Absent, Calibrated, EndpointHead, EndpointLayers, Fill, Fusion, FusionKind, ImagePath, ImageTower};

/// An encoder of records.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum RecordTower {
    /// [`TableEncoder`].
    Table {
        /// Features of the table.
        n_features: usize,
        /// Width of its layers.
        width: usize,
        /// Share of units dropped in training.
        dropout: f64,
    },
    /// [`LinearEncoder`].
    Linear {
        /// Features of the table.
        n_features: usize,
        /// Width of the embedding.
        width: usize,
    },
    /// [`TokenEncoder`].
    Transformer {
        /// Features of the table.
        n_features: usize,
        /// Width of a token and of the embedding.
        width: usize,
        /// Share of activations dropped in training.
        dropout: f64,
    },
    /// [`CrossEncoder`].
    Cross {
        /// Features of the table.
        n_features: usize,
        /// Width of the deep layer and of the embedding.
        width: usize,
        /// Share of the deep layer's units dropped in training.
        dropout: f64,
    },
}

/// A record tower.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has one of it")]
pub enum RecordEncoder {
    /// [`RecordTower::Table`]
    Table(TableEncoder),
    /// [`RecordTower::Linear`]
    Linear(LinearEncoder),
    /// [`RecordTower::Transformer`]
    Transformer(TokenEncoder),
    /// [`RecordTower::Cross`]
    Cross(CrossEncoder),
}

impl RecordTower {
    /// The tower on `device`, and the width of its embedding.
    fn init(self, norm: NormKind, statistics: Option<&FeatureStatistics>, device: &Device) -> Result<(RecordEncoder, usize), EncoderError> {
        let (Self::Table { n_features, .. }
        | Self::Linear { n_features, .. }
        | Self::Transformer { n_features, .. }
        | Self::Cross { n_features, .. }) = self;
        let identity = FeatureStatistics::identity(n_features);
        let statistics = statistics.unwrap_or(&identity);
        Ok(match self {
            Self::Table { n_features, width, dropout } => {
                (RecordEncoder::Table(TableEncoderConfig { n_features, width, dropout, norm }.init(statistics, device)?), width)
            }
            Self::Linear { n_features, width } => {
                (RecordEncoder::Linear(LinearEncoderConfig { n_features, width }.init(statistics, device)?), width)
            }
            Self::Transformer { n_features, width, dropout } => {
                (RecordEncoder::Transformer(TokenEncoderConfig { n_features, width, dropout }.init(statistics, device)?), width)
            }
            Self::Cross { n_features, width, dropout } => {
                (RecordEncoder::Cross(CrossEncoderConfig { n_features, width, dropout, norm }.init(statistics, device)?), width)
            }
        })
    }
}

impl RecordEncoder {
    fn forward(&self, record: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Table(tower) => tower.forward(record),
            Self::Linear(tower) => tower.forward(record),
            Self::Transformer(tower) => tower.forward(record),
            Self::Cross(tower) => tower.forward(record),
        }
    }
}

/// A task's head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The task's name.
    pub task: String,
    /// Logits: 1 for a binary task, the number of classes for a multiclass one.
    pub n_logits: usize,
}

/// What a model is made of; with its weights, all that is needed to make it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JointModelConfig {
    /// The image tower, if the model has one.
    pub image: Option<ImageTower>,
    /// The record tower, if the model has one.
    pub record: Option<RecordTower>,
    /// How the towers are put together.
    pub fusion: FusionKind,
    /// What stands where a modality is absent.
    #[serde(default, skip_serializing_if = "Absent::is_mask")]
    pub absent: Absent,
    /// Width of each projected modality and of the joint embedding.
    pub embedding: usize,
    /// Share of the joint embedding dropped in training.
    pub dropout: f64,
    /// What activations in the towers are normalised over.
    #[serde(default)]
    pub norm: NormKind,
    /// Heads, in the order of the tasks.
    pub heads: Vec<Head>,
    /// Heads of endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointHead>,
}

/// Why there is no model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModelError {
    /// An encoder can't be made.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// Neither tower.
    #[error("a model needs an image tower, a record tower or both")]
    NoModality,
    /// A size of 0.
    #[error("{0} is 0: it must be at least 1")]
    Zero(&'static str),
}

/// One modality of a batch.
#[derive(Clone, Debug)]
pub struct Modality<const D: usize> {
    /// `[rows, …]`: a row an example, or, with `rows`, only those examples that have the modality.
    pub values: Tensor<D>,
    /// `[batch, 1]`: 1 where the example has the modality (and may show it), else 0.
    pub present: Tensor<2>,
    /// For each example its row in `values` (any row where it has none). Batch statistics are then those of real inputs
    /// only. `None`: row `k` is example `k`.
    pub rows: Option<Tensor<1, Int>>,
}

/// A batch's inputs.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `[batch, channels or slices, height, width]`, values in [0, 1].
    pub image: Option<Modality<4>>,
    /// `[batch, n_features]`, NaN where missing.
    pub record: Option<Modality<2>>,
}

/// What a model says of a batch.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// A tensor a task: `[batch, n_logits]`; then one an endpoint: `[batch, n_raw]`.
    pub logits: Vec<Tensor<2>>,
    /// `[batch, embedding]`.
    pub embedding: Tensor<2>,
    /// The same after dropout: what the heads see.
    pub dropped: Tensor<2>,
    /// Before fusion: for each modality that the model has a tower for, the image first, its embedding `[batch, embedding]`
    /// and its presence `[batch, 1]`.
    pub modalities: Vec<(Tensor<2>, Tensor<2>)>,
}

/// The joint model.
#[derive(Module, Debug)]
pub struct JointModel {
    image: Option<ImageEncoder>,
    slices: Option<SlicePool>,
    image_projection: Option<Linear>,
    record: Option<RecordEncoder>,
    record_projection: Option<Linear>,
    absent: Option<Fill>,
    fusion: Fusion,
    dropout: Dropout,
    heads: Vec<Linear>,
    endpoints: Vec<EndpointLayers>,
}

impl JointModelConfig {
    /// Makes the model on `device`. Initial weights come from the device's generator: seed it first.
    ///
    /// # Errors
    /// [`ModelError`] where the settings describe no model.
    pub fn init(&self, statistics: Option<&FeatureStatistics>, device: &Device) -> Result<JointModel, ModelError> {
        if self.embedding == 0 {
            return Err(ModelError::Zero("the width of the embedding"));
        }
        let nothing = self.heads.is_empty() && self.endpoints.is_empty();
        if nothing || self.heads.iter().any(|head| head.n_logits == 0) || self.endpoints.iter().any(|head| head.n_raw() == 0) {
            return Err(ModelError::Zero("the number of tasks, or of a task's classes,"));
        }
        let project = |width| LinearConfig::new(width, self.embedding).init(device);
        let (image, slices, image_projection) = match self.image {
            Some(ImageTower { channels, slices, .. }) if slices != 1 && channels != 1 => return Err(EncoderError::Slices(channels).into()),
            Some(ImageTower { kind, channels, slices, width }) => {
                let (tower, width) = kind.init(channels, width, self.norm, device)?;
                let pool = if slices == 1 { None } else { Some(SlicePoolConfig { n: slices, width }.init(device)?) };
                (Some(tower), pool, Some(project(width)))
            }
            None => (None, None, None),
        };
        let (record, record_projection) = match self.record {
            Some(tower) => {
                let (tower, width) = tower.init(self.norm, statistics, device)?;
                (Some(tower), Some(project(width)))
            }
            None => (None, None),
        };
        let n_modalities = usize::from(image.is_some()) + usize::from(record.is_some());
        if n_modalities == 0 {
            return Err(ModelError::NoModality);
        }
        Ok(JointModel {
            image,
            slices,
            image_projection,
            record,
            record_projection,
            absent: Fill::new(self.absent, n_modalities, self.embedding, device),
            fusion: Fusion::new(self.fusion, n_modalities, self.embedding, device),
            dropout: DropoutConfig::new(self.dropout).init(),
            heads: self.heads.iter().map(|head| LinearConfig::new(self.embedding, head.n_logits).init(device)).collect(),
            endpoints: self.endpoints.iter().map(|head| head.init(self.embedding, device)).collect(),
        })
    }
}

/// Embeddings of the present rows, laid out by example.
fn by_example(embedding: Tensor<2>, rows: Option<Tensor<1, Int>>) -> Tensor<2> {
    match rows {
        Some(rows) => embedding.select(0, rows),
        None => embedding,
    }
}

impl JointModel {
    /// The forward pass. A modality that the model has no tower for is ignored; one that the batch lacks altogether, but
    /// the model knows, is masked.
    ///
    /// # Shapes
    /// See [`Inputs`] and [`Outputs`]; `batch` and `device` are those of the example rows.
    pub fn forward(&self, inputs: Inputs, batch: usize, device: &Device) -> Outputs {
        let mut modalities = Vec::with_capacity(2);
        let width = self.fusion_width();
        let absent = || (Tensor::<2>::zeros([batch, width], device), Tensor::<2>::zeros([batch, 1], device));
        if let (Some(tower), Some(projection)) = (self.image_path(), &self.image_projection) {
            modalities.push(match inputs.image {
                Some(image) => (by_example(projection.forward(tower.forward(image.values)), image.rows), image.present),
                None => absent(),
            });
        }
        if let (Some(tower), Some(projection)) = (&self.record, &self.record_projection) {
            modalities.push(match inputs.record {
                Some(record) => (by_example(projection.forward(tower.forward(record.values)), record.rows), record.present),
                None => absent(),
            });
        }
        self.fused(modalities)
    }

    /// From images to the tower's embedding, for those too who look at feature maps.
    pub fn image_path(&self) -> Option<ImagePath<'_>> {
        Some(ImagePath { tower: self.image.as_ref()?, slices: self.slices.as_ref() })
    }

    /// [`JointModel::forward`] of an image that is in every row and of which the tower's embedding is there already.
    ///
    /// # Shapes
    /// - tower: `[batch, width of the tower's embedding]`
    pub fn forward_from(&self, tower: Tensor<2>, record: Option<Modality<2>>, batch: usize, device: &Device) -> Outputs {
        let rest = Inputs { image: None, record };
        let mut modalities = self.forward(rest, batch, device).modalities;
        if let (Some(projection), Some(first)) = (&self.image_projection, modalities.first_mut()) {
            *first = (projection.forward(tower), Tensor::ones([batch, 1], device));
        }
        self.fused(modalities)
    }

    fn fused(&self, modalities: Vec<(Tensor<2>, Tensor<2>)>) -> Outputs {
        let embedding = self.fuse(modalities.clone());
        let dropped = self.dropout.forward(embedding.clone());
        Outputs { logits: self.answers(&dropped), embedding, dropped, modalities }
    }

    fn fuse(&self, modalities: Vec<(Tensor<2>, Tensor<2>)>) -> Tensor<2> {
        self.fusion.forward(match &self.absent {
            Some(fill) => fill.forward(modalities),
            None => modalities,
        })
    }

    /// What each of a batch's [`Outputs::modalities`] says in the terms that all share; `None` where the fusion has no such terms.
    /// `[batch, embedding]` each
    pub fn common(&self, modalities: &[(Tensor<2>, Tensor<2>)]) -> Option<Vec<Tensor<2>>> {
        self.fusion.common(modalities.to_vec())
    }

    fn answers(&self, dropped: &Tensor<2>) -> Vec<Tensor<2>> {
        let of_tasks = self.heads.iter().map(|head| head.forward(dropped.clone()));
        of_tasks.chain(self.endpoints.iter().map(|layers| layers.forward(dropped.clone()))).collect()
    }

    /// What the model says of a batch, a tensor a task, when some of its [`Outputs::modalities`] are hidden: those where
    /// `shown` is false. The towers are not run again.
    ///
    /// # Shapes
    /// - shown: a modality each
    /// - returns as [`Outputs::logits`]
    pub fn shown(&self, modalities: &[(Tensor<2>, Tensor<2>)], shown: &[bool]) -> Vec<Tensor<2>> {
        let seen = modalities.iter().zip(shown).map(|((embedding, present), &shown)| {
            let present = if shown { present.clone() } else { present.zeros_like() };
            (embedding.clone(), present)
        });
        self.answers(&self.dropout.forward(self.fuse(seen.collect())))
    }

    /// What one head says of a joint embedding, such as [`Outputs::dropped`]; endpoints come after tasks.
    ///
    /// # Shapes
    /// - embedding: `[batch, embedding]`
    /// - returns `[batch, n_logits]` or `[batch, n_raw]`; `None` where there is no such head
    pub fn head(&self, k: usize, embedding: Tensor<2>) -> Option<Tensor<2>> {
        match self.heads.get(k) {
            Some(head) => Some(head.forward(embedding)),
            None => self.endpoints.get(k - self.heads.len()).map(|layers| layers.forward(embedding)),
        }
    }

    /// Calibrated probabilities: of one logit as `calibrations` say, of several `softmax(z / T)`.
    ///
    /// # Shapes
    /// - logits: `[batch, n_logits]` a task
    /// - calibrations: one a task
    pub fn probabilities(logits: Vec<Tensor<2>>, calibrations: &[Calibrated]) -> Vec<Tensor<2>> {
        logits.into_iter().zip(calibrations).map(|(logits, calibrated)| calibrated.probabilities(logits)).collect()
    }

    fn fusion_width(&self) -> usize {
        self.image_projection.as_ref().or(self.record_projection.as_ref()).map_or(0, |linear| linear.weight.dims()[1])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use synovia_encoders::ImageEncoderKind;

    use super::*;

    fn config(fusion: FusionKind) -> JointModelConfig {
        JointModelConfig {
            image: Some(ImageTower { kind: ImageEncoderKind::ResNet18, channels: 1, slices: 1, width: 4 }),
            record: Some(RecordTower::Table { n_features: 3, width: 8, dropout: 0.0 }),
            fusion,
            absent: Absent::Mask,
            // Wide enough that no draw of weights leaves all of its units at 0.
            embedding: 32,
            dropout: 0.0,
            norm: NormKind::Batch,
            heads: vec![Head { task: "a".into(), n_logits: 1 }, Head { task: "b".into(), n_logits: 4 }],
            endpoints: Vec::new(),
        }
    }

    fn logits(model: &JointModel, image: Tensor<4>, record: Tensor<2>, present: [f32; 2]) -> Vec<f32> {
        let device = Device::flex();
        let batch = image.dims()[0];
        let mask = |p: f32| Tensor::<2>::full([batch, 1], p, &device);
        let inputs = Inputs {
            image: Some(Modality { values: image, present: mask(present[0]), rows: None }),
            record: Some(Modality { values: record, present: mask(present[1]), rows: None }),
        };
        Tensor::cat(model.forward(inputs, batch, &device).logits, 1).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn a_masked_modality_has_no_influence() {
        let device = Device::flex();
        let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Default, &device);
        let table = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Default, &device);
        for kind in FusionKind::ALL {
            let model = config(kind).init(None, &device).unwrap();
            let (image, record) = (random([2, 1, 32, 32]), table([2, 3]));
            let both = logits(&model, image.clone(), record.clone(), [1.0, 1.0]);
            assert_eq!(both.len(), 10);
            let without = logits(&model, image.clone(), record.clone(), [0.0, 1.0]);
            assert_ne!(both, without, "{kind:?}");
            assert_eq!(without, logits(&model, random([2, 1, 32, 32]), record.clone(), [0.0, 1.0]), "{kind:?}");
            assert_eq!(logits(&model, image.clone(), record, [1.0, 0.0]), logits(&model, image, table([2, 3]), [1.0, 0.0]), "{kind:?}");
        }
    }

    #[test]
    fn to_hide_a_modality_is_not_to_have_it() {
        let device = Device::flex();
        for kind in FusionKind::ALL {
            let model = config(kind).init(None, &device).unwrap();
            let image = Tensor::<4>::random([2, 1, 32, 32], Distribution::Default, &device);
            let record = Tensor::<2>::random([2, 3], Distribution::Default, &device);
            let present = Tensor::<2>::from_floats([[1.0], [0.0]], &device);
            let inputs = Inputs {
                image: Some(Modality { values: image.clone(), present: present.clone(), rows: None }),
                record: Some(Modality { values: record.clone(), present: Tensor::ones([2, 1], &device), rows: None }),
            };
            let modalities = model.forward(inputs, 2, &device).modalities;
            let hidden = |shown| Tensor::cat(model.shown(&modalities, shown), 1).into_data().try_to_vec::<f32>().unwrap();
            assert_eq!(hidden(&[false, true]), logits(&model, image.clone(), record.clone(), [0.0, 1.0]), "{kind:?}");
            assert_eq!(hidden(&[true, false])[..5], logits(&model, image, record, [1.0, 0.0])[..5], "{kind:?}");
        }
    }

    #[test]
    fn a_volume_is_its_slices_in_any_order() {
        let device = Device::flex();
        let mut volumes = config(FusionKind::Gated);
        let tower = ImageTower { kind: ImageEncoderKind::ResNet18, channels: 1, slices: 3, width: 4 };
        volumes.image = Some(tower);
        let model = volumes.init(None, &device).unwrap();
        let image = Tensor::<4>::random([2, 3, 32, 32], Distribution::Default, &device);
        let record = Tensor::<2>::random([2, 3], Distribution::Default, &device);
        let said = |image: Tensor<4>| logits(&model, image, record.clone(), [1.0, 1.0]);
        let (whole, flipped) = (said(image.clone()), said(image.clone().flip([1])));
        let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far(&whole, &flipped) < 1e-5, "{whole:?} and {flipped:?}");
        // What is in one slice matters.
        let dark = Tensor::cat(vec![image.clone().narrow(1, 0, 2), image.narrow(1, 2, 1) * 0.1], 1);
        assert!(far(&whole, &said(dark)) > 1e-4);
        for (tower, why) in [
            (ImageTower { slices: 0, ..tower }, EncoderError::Zero { what: "slices" }),
            (ImageTower { channels: 2, ..tower }, EncoderError::Slices(2)),
        ] {
            volumes.image = Some(tower);
            assert_eq!(volumes.init(None, &device).err(), Some(ModelError::Encoder(why)));
        }
    }

    #[test]
    fn rows_of_present_examples_are_put_in_their_places() {
        let device = Device::flex();
        let model = config(FusionKind::Gated).init(None, &device).unwrap();
        let images = Tensor::<4>::random([3, 1, 32, 32], Distribution::Default, &device);
        let present = Tensor::<2>::from_floats([[1.0], [0.0], [1.0]], &device);
        let run = |values, rows| {
            let image = Modality { values, present: present.clone(), rows };
            let out = model.forward(Inputs { image: Some(image), record: None }, 3, &device);
            Tensor::cat(out.logits, 1).into_data().try_to_vec::<f32>().unwrap()
        };
        let whole = run(images.clone(), None);
        let compact = Tensor::cat(vec![images.clone().narrow(0, 0, 1), images.narrow(0, 2, 1)], 0);
        let rows = Tensor::<1, Int>::from_ints([0, 0, 1], &device);
        for (a, b) in whole.iter().zip(run(compact, Some(rows))) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
    }

    #[test]
    fn a_model_of_nothing_is_refused() {
        let config = JointModelConfig { image: None, record: None, ..config(FusionKind::Concat) };
        assert_eq!(config.init(None, &Device::flex()).unwrap_err(), ModelError::NoModality);
    }
}
