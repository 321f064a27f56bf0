//! Weights as safetensors, and the checkpoints of a run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use synovia_fusion::NamedTensor;

use crate::fit::EpochReport;
use crate::{BalanceState, TrainingError, Weights};

/// The one metadata key: the format's metadata is an unordered map, and a single entry keeps the bytes the same each time.
const KEY: &str = "synovia";

/// A tensor whose bytes are made when they are needed: those of all at once would be one more copy of the model.
struct AsBytes<'a>(&'a NamedTensor);

impl View for AsBytes<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        size_of_val(&*self.0.values)
    }
}

/// Tensors and one text as a safetensors file, sorted by name.
fn encode<'a, N: Ord + Display + AsRef<str>>(
    tensors: impl Iterator<Item = (N, &'a NamedTensor)>,
    metadata: &str,
) -> Result<Vec<u8>, TrainingError> {
    let metadata = HashMap::from([(KEY.to_owned(), metadata.to_owned())]);
    safetensors::serialize(tensors.map(|(name, tensor)| (name, AsBytes(tensor))), Some(metadata)).map_err(damaged)
}

/// Weights as a safetensors file (f32, sorted by name) with one text of metadata.
pub fn encode_weights(weights: &Weights, metadata: &str) -> Result<Vec<u8>, TrainingError> {
    encode(weights.iter(), metadata)
}

/// The weights and the metadata of a file by [`encode_weights`].
pub fn decode_weights(bytes: &[u8]) -> Result<(Weights, String), TrainingError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let metadata = header.metadata().as_ref().and_then(|m| m.get(KEY)).cloned().unwrap_or_default();
    let mut weights = Weights::new();
    for (name, view) in SafeTensors::deserialize(bytes).map_err(damaged)?.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(TrainingError::Weights(format!("tensor `{name}` is not f32")));
        }
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        weights.insert(name.to_owned(), NamedTensor { shape: view.shape().to_vec(), values });
    }
    Ok((weights, metadata))
}

#[allow(clippy::needless_pass_by_value, reason = "it is passed to map_err as it is")]
fn damaged(error: safetensors::SafeTensorError) -> TrainingError {
    TrainingError::Weights(error.to_string())
}

/// A run's state after an epoch.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// All but the tensors.
    pub progress: CheckpointProgress,
    /// The model.
    pub model: Weights,
    /// The moving average of the model.
    pub average: Weights,
    /// The best average so far.
    pub best: Weights,
    /// The optimizer's moments.
    pub moments: Weights,
    /// What a site's gradients are on the average, where a federation asks for it.
    pub control: Weights,
}

/// The numbers of a [`Checkpoint`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckpointProgress {
    /// Digest of settings and data: a checkpoint of anything else is not resumed from.
    pub key: String,
    /// Epochs done.
    pub epochs: usize,
    /// Optimizer steps done.
    pub steps: u64,
    /// Best validation loss so far and its epoch.
    pub best: Option<(f64, usize)>,
    /// A line an epoch.
    pub history: Vec<EpochReport>,
    /// What the balance of the tasks remembers.
    pub balance: BalanceState,
}

fn file(dir: &Path) -> PathBuf {
    dir.join("checkpoint.safetensors")
}

impl Checkpoint {
    /// It as one safetensors file.
    pub fn encode(&self) -> Result<Vec<u8>, TrainingError> {
        let parts = [
            ("model", &self.model),
            ("average", &self.average),
            ("best", &self.best),
            ("moments", &self.moments),
            ("control", &self.control),
        ];
        let named = parts.iter().flat_map(|(part, weights)| weights.iter().map(move |(name, tensor)| (format!("{part}/{name}"), tensor)));
        let metadata = serde_json::to_string(&self.progress).map_err(|e| TrainingError::Weights(e.to_string()))?;
        encode(named, &metadata)
    }

    /// Writes it over the last one: a kill at any moment leaves the one or the other, whole.
    pub fn save(&self, dir: &Path) -> Result<(), TrainingError> {
        let bytes = self.encode()?;
        let (path, partial) = (file(dir), dir.join("checkpoint.partial"));
        let written = File::create(&partial).and_then(|mut out| out.write_all(&bytes).and_then(|()| out.sync_all()));
        if let Err(source) = written.and_then(|()| std::fs::rename(&partial, &path)) {
            // On a full disk, what was written of it is in the way of everything else.
            let _ = std::fs::remove_file(&partial);
            return Err(TrainingError::Io { path, source });
        }
        Ok(())
    }

    /// The checkpoint in `dir`, if there is one of this very run; one that is damaged is as good as none.
    pub fn load(dir: &Path, key: &str) -> Option<Self> {
        Self::decode(&std::fs::read(file(dir)).ok()?, key)
    }

    /// What [`Checkpoint::encode`] made, if it is of this very run and whole.
    pub fn decode(bytes: &[u8], key: &str) -> Option<Self> {
        let (weights, metadata) = decode_weights(bytes).ok()?;
        let progress: CheckpointProgress = serde_json::from_str(&metadata).ok()?;
        if progress.key != key {
            return None;
        }
        let mut checkpoint = Self { progress, ..Self::default() };
        for (name, tensor) in weights {
            let (prefix, name) = name.split_once('/')?;
            let target = match prefix {
                "model" => &mut checkpoint.model,
                "average" => &mut checkpoint.average,
                "best" => &mut checkpoint.best,
                "moments" => &mut checkpoint.moments,
                "control" => &mut checkpoint.control,
                _ => return None,
            };
            target.insert(name.to_owned(), tensor);
        }
        Some(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_run_or_a_cut_file_is_not_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let weights = Weights::from([("w".to_owned(), NamedTensor { shape: vec![2, 1], values: vec![1.5, f32::MIN_POSITIVE] })]);
        let progress = CheckpointProgress { key: "k".into(), epochs: 3, ..Default::default() };
        let checkpoint = Checkpoint { progress, model: weights.clone(), best: weights.clone(), ..Default::default() };
        checkpoint.save(dir.path()).unwrap();
        let back = Checkpoint::load(dir.path(), "k").unwrap();
        assert_eq!((back.progress.epochs, &back.model, &back.best), (3, &weights, &weights));
        assert!(Checkpoint::load(dir.path(), "other").is_none());
        let path = file(dir.path());
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(Checkpoint::load(dir.path(), "k").is_none(), "cut at {cut}");
        }
    }
}
