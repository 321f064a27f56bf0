//! An example to the model's inputs, and the model's outputs to an answer.

use serde::Serialize;
use serde_json::{Map, Value, json};
use synovia_cohort::Task;
use synovia_evaluation::{ConformalSets, ModalityPattern, label_names};
use synovia_onnx::{OutputArray, presence_input};

use crate::{Exported, Prepared};

/// An input by name, with its shape and values row by row.
pub type InputValues = (String, Vec<usize>, Vec<f32>);

/// A feature that few patients of the training have so.
#[derive(Clone, Debug, PartialEq, Serialize)]
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

    /// What is said of an example: which modalities it has, the calibrated probability of each class, and the prediction sets.
    ///
    /// # Shapes
    /// - outputs: each `[1, …]`
    pub fn answer(&self, example: &Prepared, outputs: &[OutputArray]) -> Map<String, Value> {
        let of = |task: &Task| outputs.iter().find(|(name, ..)| *name == task.name).map(|(_, _, values)| values.as_slice());
        let pattern = ModalityPattern::of(example.image.is_some(), example.record.is_some());
        let probabilities: Map<String, Value> = self
            .tasks
            .iter()
            .filter_map(|task| {
                let by_class: Map<String, Value> = task.classes.iter().zip(of(task)?).map(|(class, p)| (class.clone(), json!(p))).collect();
                Some((task.name.clone(), Value::Object(by_class)))
            })
            .collect();
        let sets: Map<String, Value> = self
            .tasks
            .iter()
            .zip(&self.conformal)
            .filter_map(|(task, sets)| Some((task.name.clone(), prediction_set(task, sets.as_ref()?, of(task)?, pattern?))))
            .collect();
        let mut answer = Map::new();
        answer.insert("example".to_owned(), json!(example.id.as_str()));
        answer.insert("present".to_owned(), json!({ "image": example.image.is_some(), "record": example.record.is_some() }));
        answer.insert("probabilities".to_owned(), Value::Object(probabilities));
        answer.insert("prediction_sets".to_owned(), Value::Object(sets));
        answer
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
fn prediction_set(task: &Task, sets: &ConformalSets, probabilities: &[f32], pattern: ModalityPattern) -> Value {
    let names = label_names(task);
    let named = |class_conditional| -> Vec<&String> {
        sets.set(probabilities, pattern, class_conditional).into_iter().filter_map(|class| names.get(class)).collect()
    };
    let n = sets.patterns.iter().find(|q| q.pattern == pattern).map_or(0, |q| q.n);
    json!({
        "coverage": sets.coverage,
        "classes": named(false),
        "classes_by_class": named(true),
        "pattern": pattern.as_str(),
        "calibrated_on": n,
    })
}
