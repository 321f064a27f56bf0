//! A trained model over a cohort.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use synovia_cohort::{CohortReader, ExampleRow};
use synovia_fusion::{JointModelConfig, apply_state};

use crate::batch::HostBatch;
use crate::{Presence, TrainingError, Weights};

/// What a model says of one example.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// The example's place among the rows that were given.
    pub row: usize,
    /// Logits by task, then what the layers of each endpoint give.
    pub logits: Vec<Vec<f32>>,
    /// The fused embedding, where it was asked for and the model saw all of what any restriction leaves; else empty.
    pub embedding: Vec<f32>,
}

/// Examples in a batch, at most: enough for all cores.
const BATCH: usize = 64;
/// Pixels of a batch, at most, as long as it has an example: activations are some hundred bytes a pixel.
const BATCH_PIXELS: usize = 1 << 20;

/// Logits for each of `rows` that the model, restricted to `presence`, sees anything of.
///
/// # Errors
/// [`TrainingError`] when the weights do not fit or the cohort can't be read.
pub fn predict(
    config: &JointModelConfig,
    weights: &Weights,
    reader: &CohortReader,
    rows: &[&ExampleRow],
    presence: Presence,
) -> Result<Vec<Predicted>, TrainingError> {
    Ok(predict_each(config, weights, reader, rows, &[presence], false)?.swap_remove(0))
}

/// As [`predict`], for several restrictions at once; the towers run once for all of them. `embeddings` are kept only where asked for: they
/// are far larger than answers.
///
/// # Errors
/// As [`predict`].
pub fn predict_each(
    config: &JointModelConfig,
    weights: &Weights,
    reader: &CohortReader,
    rows: &[&ExampleRow],
    presences: &[Presence],
    embeddings: bool,
) -> Result<Vec<Vec<Predicted>>, TrainingError> {
    let device = Device::flex();
    let model = apply_state(config.init(None, &device)?, weights)?.valid();
    let tasks = &reader.manifest().tasks;
    let own = Presence::of(config);
    let presences = presences.iter().map(|p| Presence { image: own.image && p.image, record: own.record && p.record });
    let presences: Vec<Presence> = presences.collect();
    let any = |of: fn(&Presence) -> bool| presences.iter().any(of);
    let presence = Presence { image: any(|p| p.image), record: any(|p| p.record) };
    let seen: Vec<usize> = (0..rows.len()).filter(|&k| presence.sees(rows[k])).collect();
    let mut out = vec![Vec::with_capacity(seen.len()); presences.len()];
    // Activations are of places, and of each slice that is not a mere channel.
    let slices = config.image.map_or(1, |tower| tower.slices * tower.channels / tower.kind.stem_channels(tower.channels).max(1));
    let pixels = reader.manifest().geometry.filter(|_| presence.image).map_or(1, |geometry| slices * geometry.height * geometry.width);
    for places in seen.chunks((BATCH_PIXELS / pixels.max(1)).clamp(1, BATCH)) {
        let batch: Vec<&ExampleRow> = places.iter().map(|&k| rows[k]).collect();
        let batch = HostBatch::read(reader, &batch, presence, None)?.into_tensors(tasks, &config.endpoints, &device);
        let outputs = model.forward(batch.inputs, batch.n, &device);
        for (shown, out) in presences.iter().zip(&mut out) {
            let (logits, embedding) = if *shown == presence {
                (outputs.logits.clone(), embeddings.then(|| outputs.embedding.clone()))
            } else {
                let towers = [(own.image, shown.image), (own.record, shown.record)];
                let shown: Vec<bool> = towers.into_iter().filter(|(own, _)| *own).map(|(_, shown)| shown).collect();
                (model.shown(&outputs.modalities, &shown), None)
            };
            let values = |tensor: Tensor<2>| tensor.into_data().convert::<f32>().try_to_vec::<f32>().unwrap_or_default();
            let (logits, embedding): (Vec<_>, _) = (logits.into_iter().map(values).collect(), embedding.map(values).unwrap_or_default());
            for (i, &row) in places.iter().enumerate().filter(|(_, row)| shown.sees(rows[**row])) {
                let of_row = |values: &Vec<f32>| {
                    let width = values.len() / places.len();
                    values[i * width..(i + 1) * width].to_vec()
                };
                out.push(Predicted { row, logits: logits.iter().map(of_row).collect(), embedding: of_row(&embedding) });
            }
        }
    }
    Ok(out)
}
