//! Baselines that need no joint training, fitted on the train split of a cohort: what the joint model is held against.

use std::collections::HashMap;
use std::sync::Arc;

use synovia_cohort::{CohortReader, ExampleId, ExampleRow, Split, Task, Train};
use synovia_evaluation::{
    EvaluationError, ForestBaseline, ForestOptions, LateFusion, LogisticBaseline, LogisticOptions, Prediction, PrincipalAxes, Variant,
};
use synovia_training::Predicted;

use crate::commands::Work;

/// Principal axes of the image model's embeddings that a baseline is given.
const N_AXES: usize = 16;

/// The inputs of baselines: of the train split with its labels, and of all rows that have any.
struct Table {
    n_features: usize,
    /// Shape: `[n, n_features]`.
    train: Vec<f32>,
    train_labels: Vec<Vec<Option<f32>>>,
    /// Shape: `[n, n_features]`.
    all: Vec<f32>,
    /// Which row each of `all` is.
    seen: Vec<usize>,
}

/// Logistic regression on what the image model makes of images. A baseline that can't be fitted is left out, and said so.
///
/// - predicted: by the image model
pub fn of_images(
    work: &Work,
    reader: &CohortReader,
    rows: &[&ExampleRow],
    patients: &[Arc<str>],
    predicted: &[Predicted],
) -> Vec<Prediction> {
    let table = match Table::of_embeddings(rows, predicted) {
        Ok(table) => table,
        Err(error) => {
            work.progress.note("evaluate", &format!("no baseline {}: {error}", Variant::LogisticImage));
            return Vec::new();
        }
    };
    let mut out = Vec::new();
    for (k, task) in reader.manifest().tasks.iter().enumerate() {
        match table.logistic(k, task) {
            Ok(probabilities) => out.extend(table.predictions(rows, patients, k, task, &probabilities, Variant::LogisticImage)),
            Err(error) => {
                work.progress.note("evaluate", &format!("no baseline {} for `{}`: {error}", Variant::LogisticImage, task.name));
            }
        }
    }
    out
}

/// Logistic regression and a forest on the record, and the late fusion of the image model with the first of them that there is.
/// A baseline that can't be fitted is left out, and said so.
pub fn baselines(
    work: &Work,
    reader: &CohortReader,
    rows: &[&ExampleRow],
    patients: &[Arc<str>],
    of_models: &[Prediction],
) -> anyhow::Result<Vec<Prediction>> {
    let table = Table::read(reader, rows)?;
    let n = table.n_features;
    let mut out = Vec::new();
    for (k, task) in reader.manifest().tasks.iter().enumerate() {
        let labels: Vec<Option<f32>> = table.train_labels.iter().map(|labels| labels[k]).collect();
        let forest_options = ForestOptions { seed: work.pipeline.seed, ..ForestOptions::default() };
        let fitted = [
            (Variant::LogisticRecord, table.logistic(k, task)),
            (
                Variant::ForestRecord,
                ForestBaseline::fit(&table.train, n, &labels, task, &forest_options).and_then(|f| f.probabilities(&table.all)),
            ),
        ];
        let mut of_record: Option<Vec<f32>> = None;
        for (variant, probabilities) in fitted {
            let probabilities = match probabilities {
                Ok(probabilities) => probabilities,
                Err(error) => {
                    work.progress.note("evaluate", &format!("no baseline {variant} for `{}`: {error}", task.name));
                    continue;
                }
            };
            out.extend(table.predictions(rows, patients, k, task, &probabilities, variant));
            of_record.get_or_insert(probabilities);
        }
        if let Some(of_record) = of_record {
            out.extend(late_fusion(task, k, rows, patients, of_models, &table, &of_record)?);
        }
    }
    Ok(out)
}

impl Table {
    /// Along the first principal axes of the train split's embeddings.
    fn of_embeddings(rows: &[&ExampleRow], predicted: &[Predicted]) -> Result<Self, EvaluationError> {
        let of_train = || predicted.iter().filter(|p| rows[p.row].split == Split::Train);
        let axes = PrincipalAxes::fit(&of_train().map(|p| p.embedding.as_slice()).collect::<Vec<_>>(), N_AXES)?;
        Ok(Self {
            n_features: axes.explained.len(),
            train: of_train().flat_map(|p| axes.project(&p.embedding)).collect(),
            train_labels: of_train().map(|p| rows[p.row].labels.clone()).collect(),
            all: predicted.iter().flat_map(|p| axes.project(&p.embedding)).collect(),
            seen: predicted.iter().map(|p| p.row).collect(),
        })
    }

    /// Probabilities of all rows by logistic regression on the train split.
    fn logistic(&self, k: usize, task: &Task) -> Result<Vec<f32>, EvaluationError> {
        let labels: Vec<Option<f32>> = self.train_labels.iter().map(|labels| labels[k]).collect();
        LogisticBaseline::fit(&self.train, self.n_features, &labels, task, &LogisticOptions::default())?.probabilities(&self.all)
    }

    fn predictions(
        &self,
        rows: &[&ExampleRow],
        patients: &[Arc<str>],
        k: usize,
        task: &Task,
        probabilities: &[f32],
        variant: Variant,
    ) -> Vec<Prediction> {
        let of_row = |(of_row, &row): (&[f32], &usize)| {
            let of = rows[row];
            Prediction::rows(&of.id, &patients[row], of.split, task, of.labels[k], of_row, variant).collect::<Vec<_>>()
        };
        probabilities.chunks_exact(task.n_outputs()).zip(&self.seen).flat_map(of_row).collect()
    }

    fn read(reader: &CohortReader, rows: &[&ExampleRow]) -> anyhow::Result<Self> {
        let n_features = reader.manifest().features.len();
        let (mut train, mut train_labels) = (Vec::new(), Vec::new());
        reader.view::<Train>().for_each_record(|row, values| {
            train.extend_from_slice(values);
            train_labels.push(row.labels.clone());
        })?;
        let (mut all, mut seen, mut values) = (Vec::new(), Vec::new(), vec![0.0; n_features]);
        for (k, row) in rows.iter().enumerate() {
            if reader.read_record(row, &mut values)? {
                all.extend_from_slice(&values);
                seen.push(k);
            }
        }
        Ok(Self { n_features, train, train_labels, all, seen })
    }
}

/// The image model's and a record baseline's probabilities, pooled with weights fitted on the validation split; where one of
/// them has nothing to look at, the other's stand.
fn late_fusion(
    task: &Task,
    position: usize,
    rows: &[&ExampleRow],
    patients: &[Arc<str>],
    of_models: &[Prediction],
    table: &Table,
    of_record: &[f32],
) -> anyhow::Result<Vec<Prediction>> {
    let width = task.n_outputs();
    let mut image: HashMap<&ExampleId, Vec<f32>> = HashMap::new();
    for p in of_models.iter().filter(|p| p.variant == Variant::Image && *p.task == *task.name) {
        image.entry(&p.example).or_default().push(p.probability);
    }
    if image.is_empty() {
        return Ok(Vec::new());
    }
    let record: HashMap<usize, &[f32]> = table.seen.iter().copied().zip(of_record.chunks_exact(width)).collect();
    let (mut first, mut second, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (k, row) in rows.iter().enumerate().filter(|(_, row)| row.split == Split::Validation) {
        if let (Some(of_image), Some(of_record)) = (image.get(&row.id), record.get(&k)) {
            first.extend_from_slice(of_image);
            second.extend_from_slice(of_record);
            labels.push(row.labels[position]);
        }
    }
    let pool = LateFusion::fit(&first, &second, &labels, task)?;
    let mut out = Vec::new();
    for (k, row) in rows.iter().enumerate() {
        let pooled = match (image.get(&row.id), record.get(&k)) {
            (Some(of_image), Some(of_record)) => pool.row(of_image, of_record),
            (Some(only), None) => only.clone(),
            (None, Some(only)) => only.to_vec(),
            (None, None) => continue,
        };
        out.extend(Prediction::rows(&row.id, &patients[k], row.split, task, row.labels[position], &pooled, Variant::LateFusion));
    }
    Ok(out)
}
