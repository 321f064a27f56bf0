//! A trained model to ask about made-up inputs, and how inputs become tensors.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use synovia_fusion::{Inputs, JointModel, JointModelConfig, Modality, apply_state};

use crate::{TrainingError, Weights};

/// Rows of one pass.
const BATCH: usize = 64;

/// An example's inputs; at least one is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Shape: `[channels, height, width]`.
    pub image: Option<Vec<f32>>,
    /// Shape: `[n_features]`, NaN where missing.
    pub record: Option<Vec<f32>>,
}

/// What a model makes of an input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Logits by task.
    pub logits: Vec<Vec<f32>>,
    /// The fused embedding.
    pub embedding: Vec<f32>,
}

/// A trained model to ask about made-up inputs, as fast as they come.
#[derive(Debug)]
pub struct Asked {
    model: JointModel,
    device: Device,
    shape: [usize; 3],
}

impl Asked {
    /// - shape: channels, height and width of the images
    ///
    /// # Errors
    /// [`TrainingError`] when the weights do not fit.
    pub fn new(config: &JointModelConfig, weights: &Weights, shape: [usize; 3]) -> Result<Self, TrainingError> {
        let device = Device::flex();
        Ok(Self { model: apply_state(config.init(None, &device)?, weights)?.valid(), device, shape })
    }

    /// Logits of each input and task; what an input lacks is masked.
    pub fn logits(&self, given: &[&Given]) -> Vec<Vec<Vec<f32>>> {
        self.ask(given).into_iter().map(|told| told.logits).collect()
    }

    /// What the model makes of each input; what an input lacks is masked.
    pub fn ask(&self, given: &[&Given]) -> Vec<Told> {
        let embedded = self.embed(given);
        self.ask_embedded(given, &embedded.iter().map(Option::as_deref).collect::<Vec<_>>())
    }

    /// What the image tower makes of each image; nothing where there is none, or no tower.
    pub fn embed(&self, given: &[&Given]) -> Vec<Option<Vec<f32>>> {
        let mut out = vec![None; given.len()];
        let Some(tower) = self.model.image_path() else { return out };
        let with_image: Vec<usize> = (0..given.len()).filter(|&k| given[k].image.is_some()).collect();
        for places in with_image.chunks(BATCH) {
            let rows: Vec<&Given> = places.iter().map(|&k| given[k]).collect();
            let Some(image) = images(&rows, self.shape, &self.device) else { continue };
            places.iter().zip(rows_of(tower.forward(image))).for_each(|(&place, row)| out[place] = Some(row));
        }
        out
    }

    /// As [`Asked::ask`], of images that [`Asked::embed`] has been through: theirs, in `embedded`, are not looked at again.
    pub fn ask_embedded(&self, given: &[&Given], embedded: &[Option<&[f32]>]) -> Vec<Told> {
        let mut out = vec![Told::default(); given.len()];
        // Inputs of one pattern go together.
        for (with_image, with_record) in [(true, true), (true, false), (false, true), (false, false)] {
            let has = |k: &usize| (embedded[*k].is_some(), given[*k].record.is_some()) == (with_image, with_record);
            let of_pattern: Vec<usize> = (0..given.len()).filter(has).collect();
            for places in of_pattern.chunks(BATCH) {
                let rows: Vec<&Given> = places.iter().map(|&k| given[k]).collect();
                let record = modality(records(&rows, &self.device), &self.device);
                let towers: Vec<f32> = places.iter().filter_map(|&k| embedded[k]).flatten().copied().collect();
                let outputs = if with_image {
                    let shape = [places.len(), towers.len() / places.len()];
                    let tower = Tensor::from_data(TensorData::new(towers, shape), &self.device);
                    self.model.forward_from(tower, record, rows.len(), &self.device)
                } else {
                    self.model.forward(Inputs { image: None, record }, rows.len(), &self.device)
                };
                for task in outputs.logits {
                    places.iter().zip(rows_of(task)).for_each(|(&place, row)| out[place].logits.push(row));
                }
                places.iter().zip(rows_of(outputs.embedding)).for_each(|(&place, row)| out[place].embedding = row);
            }
        }
        out
    }
}

fn rows_of(tensor: Tensor<2>) -> Vec<Vec<f32>> {
    let width = tensor.dims()[1];
    floats(tensor).chunks(width).map(<[f32]>::to_vec).collect()
}

pub(crate) fn records(rows: &[&Given], device: &Device) -> Option<Tensor<2>> {
    let n_features = rows.first()?.record.as_ref()?.len();
    let values: Vec<f32> = rows.iter().filter_map(|row| row.record.as_ref()).flatten().copied().collect();
    (values.len() == rows.len() * n_features).then(|| Tensor::from_data(TensorData::new(values, [rows.len(), n_features]), device))
}

pub(crate) fn images(rows: &[&Given], [channels, height, width]: [usize; 3], device: &Device) -> Option<Tensor<4>> {
    let values: Vec<f32> = rows.iter().filter_map(|row| row.image.as_ref()).flatten().copied().collect();
    let shape = [rows.len(), channels, height, width];
    (!values.is_empty() && values.len() == shape.iter().product::<usize>())
        .then(|| Tensor::from_data(TensorData::new(values, shape), device))
}

pub(crate) fn modality<const D: usize>(values: Option<Tensor<D>>, device: &Device) -> Option<Modality<D>> {
    let values = values?;
    let present = Tensor::ones([values.dims()[0], 1], device);
    Some(Modality { values, present, rows: None })
}

pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().unwrap_or_default()
}
