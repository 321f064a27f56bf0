//! An example to the model's inputs, and the model's outputs to an answer.

use std::collections::BTreeMap;

use serde::Serialize;
use synovia_cohort::Task;
use synovia_evaluation::{ConformalSets, ModalityPattern, Novelty, label_names};
use synovia_onnx::{OutputArray, presence_input};
use utoipa::ToSchema;

use crate::{Exported, ExportedEndpoint, Prepared};

/// An input by name, with its shape and values row by row.
pub type InputValues = (String, Vec<usize>, Vec<f32>);

/// What is said of an example.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Answer {
    /// A digest of the study's UID, or of patient and time: nobody's name.
    pub example: String,
    /// Which modalities were there and used.
    pub present: Present,
    /// For each task the calibrated probability of each class.
    pub probabilities: BTreeMap<String, BTreeMap<String, f32>>,
    /// For each endpoint its estimates: a number, survival by days, or outcomes under two treatments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub estimates: BTreeMap<String, BTreeMap<String, f32>>,
    /// For each task the classes that are not excluded, where the model has them.
    pub prediction_sets: BTreeMap<String, PredictionSet>,
    /// How unlike the training's examples it is, where the model knows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub novelty: Option<Unlike>,
}

/// How unlike the training's examples an example is, by the model's embedding of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct Unlike {
    /// Mahalanobis' distance.
    pub distance: f64,
    /// Share of the validation examples that are at least as far, counting this one.
    pub p: f64,
    /// Whether it is no more than one in a hundred: the model may not know what it sees.
    pub is_novel: bool,
}

impl From<Novelty> for Unlike {
    fn from(Novelty { distance, p, is_novel }: Novelty) -> Self {
        Self { distance, p, is_novel }
    }
}

/// Which modalities an example has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Present {
    /// An image.
    pub image: bool,
    /// A record.
    pub record: bool,
}

/// The classes that are not excluded at a coverage.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PredictionSet {
    /// How often such a set holds the truth.
    pub coverage: f64,
    /// By one quantile for all classes, of examples that have what this one has.
    pub classes: Vec<String>,
    /// By a quantile a class.
    pub classes_by_class: Vec<String>,
    /// What this one has.
    pub pattern: String,
    /// Validation examples that the quantiles are of.
    pub calibrated_on: u64,
}

/// A feature that few patients of the training have so.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct OutOfRange {
    /// The feature.
    pub feature: String,
    /// Its value here.
    pub value: f32,
    /// UCUM unit; empty where it has none.
    pub unit: String,
    /// Where the middle 98 % of the training records lie.
    pub range: [f32; 2],
}

impl Exported {
    /// The inputs of the exported graph for one example. What it lacks is masked.
    ///
    /// # Shapes
    /// - result: each `[1, …]`
    pub fn inputs(&self, example: &Prepared) -> Vec<InputValues> {
        let present = |is: bool| vec![f32::from(u8::from(is))];
        let mut inputs = Vec::new();
        if let Some(p) = &self.preparation {
            let values = example.image.clone().unwrap_or_else(|| vec![0.0; p.n_values()]);
            inputs.push(("image".to_owned(), vec![1, p.channels, p.size, p.size], values));
            inputs.push((presence_input("image"), vec![1, 1], present(example.image.is_some())));
        }
        if let Some(plan) = &self.features {
            let n = plan.features.len();
            let values = example.record.clone().unwrap_or_else(|| vec![f32::NAN; n]);
            inputs.push(("record".to_owned(), vec![1, n], values));
            inputs.push((presence_input("record"), vec![1, 1], present(example.record.is_some())));
        }
        inputs
    }

    /// What is said of an example: which modalities it has, the calibrated probability of each class, the prediction sets, and how unlike the
    /// training it is.
    ///
    /// # Shapes
    /// - outputs: each `[1, …]`
    pub fn answer(&self, example: &Prepared, outputs: &[OutputArray]) -> Answer {
        let output = |wanted: &str| outputs.iter().find(|(name, ..)| *name == wanted).map(|(_, _, values)| values.as_slice());
        let of = |task: &Task| output(&task.name);
        let present = Present { image: example.image.is_some(), record: example.record.is_some() };
        let pattern = ModalityPattern::of(present.image, present.record);
        let probabilities = |task: &Task| {
            let by_class = task.classes.iter().cloned().zip(of(task)?.iter().copied()).collect();
            Some((task.name.clone(), by_class))
        };
        let sets = |(task, sets): (&Task, &Option<ConformalSets>)| {
            Some((task.name.clone(), prediction_set(task, sets.as_ref()?, of(task)?, pattern?)))
        };
        let novelty = || Some(self.novelty.as_ref()?.of(output("embedding")?, pattern?)?.into());
        let estimates = |endpoint: &ExportedEndpoint| {
            let by_quantity = endpoint.quantities.iter().cloned().zip(output(&endpoint.name)?.iter().copied()).collect();
            Some((endpoint.name.clone(), by_quantity))
        };
        Answer {
            example: example.id.as_str().to_owned(),
            present,
            probabilities: self.tasks.iter().filter_map(probabilities).collect(),
            estimates: self.endpoints.iter().filter_map(estimates).collect(),
            prediction_sets: self.tasks.iter().zip(&self.conformal).filter_map(sets).collect(),
            novelty: novelty(),
        }
    }

    /// Features whose values lie outside of the model's [`Exported::feature_ranges`].
    pub fn out_of_range(&self, example: &Prepared) -> Vec<OutOfRange> {
        let (Some(plan), Some(row)) = (&self.features, &example.record) else { return Vec::new() };
        let known = plan.features.iter().zip(row).zip(&self.feature_ranges);
        let outside = known.filter_map(|((feature, &value), range)| {
            let range = (*range)?;
            // NaN is missing, not outside.
            (value < range[0] || value > range[1]).then(|| OutOfRange {
                feature: feature.spec.name.clone(),
                value,
                unit: feature.spec.unit.clone(),
                range,
            })
        });
        outside.collect()
    }
}

/// The classes that are not excluded at the set's coverage: by the quantile of all classes for what the example has, and by a
/// quantile a class.
fn prediction_set(task: &Task, sets: &ConformalSets, probabilities: &[f32], pattern: ModalityPattern) -> PredictionSet {
    let names = label_names(task);
    let named = |class_conditional| -> Vec<String> {
        sets.set(probabilities, pattern, class_conditional).into_iter().filter_map(|class| names.get(class).cloned()).collect()
    };
    PredictionSet {
        coverage: sets.coverage,
        classes: named(false),
        classes_by_class: named(true),
        pattern: pattern.as_str().to_owned(),
        calibrated_on: sets.patterns.iter().find(|q| q.pattern == pattern).map_or(0, |q| q.n as u64),
    }
}
