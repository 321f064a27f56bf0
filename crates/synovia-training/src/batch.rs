//! From rows on disk to a batch of tensors.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synovia_cohort::{CohortReader, EndpointValue, ExampleRow, Task, TaskKind};
use synovia_fusion::{EndpointHead, Inputs, JointModelConfig, Modality};

use crate::augment::Scratch;
use crate::{Augmentation, Sampling, TrainingError};

/// Which modalities a model may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Images.
    pub image: bool,
    /// Records.
    pub record: bool,
}

impl Presence {
    /// What the model has towers for.
    pub fn of(config: &JointModelConfig) -> Self {
        Self { image: config.image.is_some(), record: config.record.is_some() }
    }

    /// Whether the example has anything of it.
    pub fn sees(self, row: &ExampleRow) -> bool {
        (self.image && row.image_row.is_some()) || (self.record && row.record_row.is_some())
    }
}

/// Random numbers of one purpose: the same for the same words, whatever else was drawn before.
pub(crate) fn generator(seed: u64, purpose: u64, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (k, word) in [seed, purpose, a, b].into_iter().enumerate() {
        key[8 * k..8 * k + 8].copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The examples of an epoch, in order: indices into `labels`, which holds the first task's.
pub fn epoch_order(labels: &[Option<f32>], sampling: Sampling, seed: u64, epoch: usize) -> Vec<usize> {
    let mut rng = generator(seed, 1, epoch as u64, 0);
    let mut plain: Vec<usize> = (0..labels.len()).collect();
    plain.shuffle(&mut rng);
    if sampling == Sampling::Plain {
        return plain;
    }
    let mut classes: std::collections::BTreeMap<i64, Vec<usize>> = std::collections::BTreeMap::new();
    for (k, label) in labels.iter().enumerate() {
        if let Some(label) = label {
            classes.entry(*label as i64).or_default().push(k);
        }
    }
    if classes.len() < 2 {
        return plain;
    }
    let classes: Vec<Vec<usize>> = classes.into_values().collect();
    // Examples without a label for the first task keep their share: other tasks may need them.
    let draw = |rng: &mut ChaCha8Rng, k: usize| {
        if labels[k].is_none() {
            return k;
        }
        let class = &classes[rng.random_range(0..classes.len())];
        class[rng.random_range(0..class.len())]
    };
    plain.iter().map(|&k| draw(&mut rng, k)).collect()
}

/// A batch in memory of the host, ready to become tensors.
pub(crate) struct HostBatch {
    n: usize,
    image: Option<HostModality>,
    record: Option<HostModality>,
    labels: Vec<Vec<Option<f32>>>,
    endpoints: Vec<Vec<Option<EndpointValue>>>,
}

struct HostModality {
    values: Vec<f32>,
    shape: Vec<usize>,
    present: Vec<f32>,
    rows: Vec<i32>,
    n_rows: usize,
}

impl HostModality {
    fn new(shape: Vec<usize>) -> Self {
        Self { values: Vec::new(), shape, present: Vec::new(), rows: Vec::new(), n_rows: 0 }
    }

    /// Room for so many rows: a vector that grows is copied each time.
    fn reserve(&mut self, n: usize) {
        self.values.reserve(n * self.shape.iter().product::<usize>());
    }

    /// A new row to fill when the example has the modality; `shown` is whether the model may see it.
    fn push(&mut self, exists: bool, shown: bool) -> Option<&mut [f32]> {
        self.present.push(f32::from(u8::from(exists && shown)));
        self.rows.push(if exists { self.n_rows as i32 } else { 0 });
        if !exists {
            return None;
        }
        self.n_rows += 1;
        let len: usize = self.shape.iter().product();
        let start = self.values.len();
        self.values.resize(start + len, 0.0);
        Some(&mut self.values[start..])
    }

    fn n_shown(&self) -> u64 {
        self.present.iter().filter(|present| **present > 0.0).count() as u64
    }

    fn tensors<const D: usize>(self, device: &Device) -> Option<Modality<D>> {
        let n = self.present.len();
        if self.n_rows == 0 {
            return None;
        }
        let mut shape = [self.n_rows; D];
        shape[1..].copy_from_slice(&self.shape);
        let rows = (self.n_rows < n).then(|| Tensor::<1, Int>::from_data(TensorData::new(self.rows, [n]), device));
        Some(Modality {
            values: Tensor::from_data(TensorData::new(self.values, shape), device),
            present: Tensor::from_data(TensorData::new(self.present, [n, 1]), device),
            rows,
        })
    }
}

/// Changes that are made in training only.
pub(crate) struct TrainingChanges<'a> {
    pub augmentation: &'a Augmentation,
    pub modality_dropout: f64,
    pub seed: u64,
    pub epoch: usize,
    /// Place of the batch's first example in the epoch.
    pub first: usize,
}

impl HostBatch {
    /// Reads `rows`; `presence` is what the model may see of them.
    pub(crate) fn read(
        reader: &CohortReader,
        rows: &[&ExampleRow],
        presence: Presence,
        changes: Option<&TrainingChanges<'_>>,
    ) -> Result<Self, TrainingError> {
        let manifest = reader.manifest();
        let mut image = manifest.geometry.filter(|_| presence.image).map(|g| HostModality::new(vec![g.channels, g.height, g.width]));
        let mut record = presence.record.then(|| HostModality::new(vec![manifest.features.len()]));
        let (n_images, n_records) = (rows.iter().filter(|row| row.image_row.is_some()).count(), rows.len());
        image.iter_mut().for_each(|image| image.reserve(n_images));
        record.iter_mut().for_each(|record| record.reserve(n_records));
        let mut scratch = Scratch::default();
        for (k, row) in rows.iter().enumerate() {
            let mut shown = presence;
            let mut rng = changes.map(|c| generator(c.seed, 2, c.epoch as u64, (c.first + k) as u64));
            let complete = presence.image && presence.record && row.image_row.is_some() && row.record_row.is_some();
            if let (Some(rng), Some(changes), true) = (&mut rng, changes, complete)
                && rng.random::<f64>() < changes.modality_dropout
            {
                let hide_image = rng.random::<bool>();
                shown = Presence { image: !hide_image, record: hide_image };
            }
            if let Some(values) = image.as_mut().and_then(|m| m.push(row.image_row.is_some(), shown.image)) {
                reader.read_image(row, values)?;
                if let (Some(rng), Some(changes), Some(geometry)) = (&mut rng, changes, manifest.geometry) {
                    changes.augmentation.apply(values, geometry, rng, &mut scratch);
                }
            }
            if let Some(values) = record.as_mut().and_then(|m| m.push(row.record_row.is_some(), shown.record)) {
                reader.read_record(row, values)?;
            }
        }
        let labels = rows.iter().map(|r| r.labels.clone()).collect();
        Ok(Self { n: rows.len(), image, record, labels, endpoints: rows.iter().map(|r| r.endpoints.clone()).collect() })
    }

    /// Examples whose image the model may see.
    pub(crate) fn n_images_shown(&self) -> u64 {
        self.image.as_ref().map_or(0, HostModality::n_shown)
    }

    /// Examples whose record the model may see.
    pub(crate) fn n_records_shown(&self) -> u64 {
        self.record.as_ref().map_or(0, HostModality::n_shown)
    }

    /// The batch as tensors on `device`.
    pub(crate) fn into_tensors(self, tasks: &[Task], endpoints: &[EndpointHead], device: &Device) -> Batch {
        let n = self.n;
        let tensor = |data: Vec<f32>, width| Tensor::<2>::from_data(TensorData::new(data, [n, width]), device);
        let of_endpoint = |(k, head): (usize, &EndpointHead)| {
            let width = head.n_targets();
            let (mut values, mut weight) = (vec![0.0f32; n * width], vec![0.0f32; n]);
            for (i, known) in self.endpoints.iter().enumerate() {
                if let Some(numbers) = known[k] {
                    weight[i] = 1.0;
                    head.write_target(numbers, &mut values[i * width..(i + 1) * width]);
                }
            }
            (tensor(values, width), tensor(weight, 1))
        };
        let targets = tasks
            .iter()
            .enumerate()
            .map(|(k, task)| {
                let width = task.n_logits();
                let (mut values, mut weight) = (vec![0.0f32; n * width], vec![0.0f32; n]);
                for (i, labels) in self.labels.iter().enumerate() {
                    if let Some(label) = labels[k] {
                        weight[i] = 1.0;
                        match task.kind {
                            TaskKind::Binary => values[i] = label,
                            TaskKind::Multiclass | TaskKind::Ordinal => values[i * width + label as usize] = 1.0,
                        }
                    }
                }
                (tensor(values, width), tensor(weight, 1))
            })
            .chain(endpoints.iter().enumerate().map(of_endpoint))
            .collect();
        let inputs =
            Inputs { image: self.image.and_then(|m| m.tensors::<4>(device)), record: self.record.and_then(|m| m.tensors::<2>(device)) };
        let known = (0..tasks.len()).map(|k| self.labels.iter().filter(|labels| labels[k].is_some()).count() as f64);
        let of_endpoints = (0..endpoints.len()).map(|k| self.endpoints.iter().filter(|known| known[k].is_some()).count() as f64);
        let known = known.chain(of_endpoints).collect();
        Batch { n, inputs, targets, known }
    }
}

/// A batch as tensors.
pub(crate) struct Batch {
    /// Examples.
    pub n: usize,
    /// What the model sees.
    pub inputs: Inputs,
    /// For each task the target `[n, n_logits]`, then for each endpoint its own `[n, n_targets]`; and the weight `[n, 1]`, 0 where
    /// the label is unknown.
    pub targets: Vec<(Tensor<2>, Tensor<2>)>,
    /// For each task, then each endpoint, the number of examples whose label is known.
    pub known: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_each_once_and_balanced_is_even() {
        let labels: Vec<Option<f32>> = (0..1000).map(|k| (k % 10 != 9).then_some(f32::from(u8::from(k % 10 == 0)))).collect();
        let mut plain = epoch_order(&labels, Sampling::Plain, 1, 0);
        assert_ne!(plain, epoch_order(&labels, Sampling::Plain, 1, 1));
        assert_eq!(plain, epoch_order(&labels, Sampling::Plain, 1, 0));
        plain.sort_unstable();
        assert_eq!(plain, (0..1000).collect::<Vec<_>>());
        let balanced = epoch_order(&labels, Sampling::Balanced, 1, 0);
        let count = |label: Option<f32>| balanced.iter().filter(|&&k| labels[k] == label).count() as f64;
        assert!((count(Some(1.0)) / 900.0 - 0.5).abs() < 0.06, "{}", count(Some(1.0)));
        assert_eq!(count(None), 100.0);
    }
}
