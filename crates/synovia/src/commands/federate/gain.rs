//! What joining is worth: two models on the same test examples, with patients drawn again.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use synovia_cohort::{CohortReader, ExampleRow, Split, Task, TaskKind};
use synovia_evaluation::{auroc, probabilities};
use synovia_federation::Plan;
use synovia_training::{Presence, Weights, predict};

/// How often patients are drawn.
const DRAWS: u64 = 1000;

/// What a model says of labelled test examples, by example.
pub struct Scored {
    /// Patient, label a task, probabilities a task.
    by_example: BTreeMap<String, (String, Vec<Option<f32>>, Vec<Vec<f32>>)>,
}

impl Scored {
    /// Of the cohort's test split.
    pub fn of(plan: &Plan, weights: &Weights, reader: &CohortReader) -> anyhow::Result<Self> {
        let rows: Vec<&ExampleRow> = reader.rows().iter().filter(|row| row.split == Split::Test).collect();
        let predicted = predict(&plan.model, weights, reader, &rows, Presence::of(&plan.model))?;
        let of_row = |p: &synovia_training::Predicted| {
            let row = rows[p.row];
            let said = plan.tasks.iter().zip(&p.logits).map(|(task, logits)| probabilities(logits, 1.0, task)).collect();
            (row.id.as_str().to_owned(), (row.patient.clone(), row.labels.clone(), said))
        };
        Ok(Self { by_example: predicted.iter().map(of_row).collect() })
    }

    /// Adds those of another site.
    pub fn extend(&mut self, other: Self) {
        self.by_example.extend(other.by_example);
    }
}

/// A model's AUROC on test examples; of a multiclass task the mean over those classes that occur and are not all there is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestScore {
    /// Labelled test examples.
    pub n: usize,
    /// Share of them whose most probable class is theirs.
    pub accuracy: Option<f64>,
    /// AUROC; none where one class alone occurs.
    pub auroc: Option<f64>,
    /// Lower end of its 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// Two models on the same examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// Labelled test examples.
    pub n: usize,
    /// Share of them whose most probable class is theirs, by the model of the site alone.
    pub alone_accuracy: Option<f64>,
    /// The same by the model that all made.
    pub together_accuracy: Option<f64>,
    /// AUROC of the model of the site alone.
    pub alone: Option<f64>,
    /// AUROC of the model that all made.
    pub together: Option<f64>,
    /// Difference.
    pub gain: Option<f64>,
    /// Lower end of its 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// A task's examples: patient, label, probabilities of each model.
struct Panel<'a> {
    task: &'a Task,
    rows: Vec<(usize, usize, Vec<&'a [f32]>)>,
    n_patients: usize,
}

impl<'a> Panel<'a> {
    /// Of the examples that all models say something of.
    fn new(models: &[&'a Scored], k: usize, task: &'a Task) -> Self {
        let (mut rows, mut patients) = (Vec::new(), BTreeMap::new());
        for (id, (patient, labels, said)) in &models[0].by_example {
            let others = models[1..].iter().map(|model| model.by_example.get(id).map(|(_, _, said)| said[k].as_slice()));
            let said: Option<Vec<&[f32]>> = std::iter::once(Some(said[k].as_slice())).chain(others).collect();
            if let (Some(label), Some(said)) = (labels[k], said) {
                let n = patients.len();
                rows.push((*patients.entry(patient).or_insert(n), label as usize, said));
            }
        }
        Self { task, rows, n_patients: patients.len() }
    }

    /// The model's AUROC with each patient as often as `times` says.
    fn auroc(&self, model: usize, times: &[u16]) -> Option<f64> {
        let rows = || self.rows.iter().flat_map(|row| std::iter::repeat_n(row, usize::from(times[row.0])));
        let classes = match self.task.kind {
            TaskKind::Binary => 1..2,
            TaskKind::Multiclass => 0..self.task.classes.len(),
        };
        let of_class = |class: usize| {
            let output = if self.task.kind == TaskKind::Binary { 0 } else { class };
            let scores: Vec<f32> = rows().map(|(_, _, said)| said[model][output]).collect();
            let labels: Vec<bool> = rows().map(|(_, label, _)| *label == class).collect();
            auroc(&scores, &labels)
        };
        let each: Vec<f64> = classes.filter_map(of_class).collect();
        (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
    }

    /// Share of the examples whose most probable class is theirs.
    fn accuracy(&self, model: usize) -> Option<f64> {
        let is_right = |(_, label, said): &&(usize, usize, Vec<&[f32]>)| match self.task.kind {
            TaskKind::Binary => usize::from(said[model][0] > 0.5) == *label,
            TaskKind::Multiclass => said[model].iter().enumerate().all(|(k, p)| k == *label || *p < said[model][*label]),
        };
        (!self.rows.is_empty()).then(|| self.rows.iter().filter(is_right).count() as f64 / self.rows.len() as f64)
    }

    /// The central 95 % of a number over draws of patients with replacement.
    fn interval(&self, seed: u64, measure: impl Fn(&[u16]) -> Option<f64>) -> (Option<f64>, Option<f64>) {
        let mut values = Vec::with_capacity(DRAWS as usize);
        for draw in 0..DRAWS {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(draw);
            let mut times = vec![0u16; self.n_patients];
            (0..self.n_patients).for_each(|_| times[rng.random_range(0..self.n_patients)] += 1);
            values.extend(measure(&times));
        }
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values.get(((values.len().saturating_sub(1)) as f64 * share).round() as usize).copied();
        (at(0.025), at(0.975))
    }
}

/// One model on task `k`.
pub fn score(scored: &Scored, k: usize, task: &Task, seed: u64) -> TestScore {
    let panel = Panel::new(&[scored], k, task);
    let (low, high) = panel.interval(seed, |times| panel.auroc(0, times));
    TestScore { n: panel.rows.len(), accuracy: panel.accuracy(0), auroc: panel.auroc(0, &vec![1; panel.n_patients]), low, high }
}

/// Two models on task `k`.
pub fn gain(alone: &Scored, together: &Scored, k: usize, task: &Task, seed: u64) -> Gain {
    let panel = Panel::new(&[alone, together], k, task);
    let difference = |times: &[u16]| Some(panel.auroc(1, times)? - panel.auroc(0, times)?);
    let once = vec![1; panel.n_patients];
    let (low, high) = panel.interval(seed, difference);
    Gain {
        n: panel.rows.len(),
        alone_accuracy: panel.accuracy(0),
        together_accuracy: panel.accuracy(1),
        alone: panel.auroc(0, &once),
        together: panel.auroc(1, &once),
        gain: difference(&once),
        low,
        high,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(probabilities: &[f32], labels: &[f32]) -> Scored {
        let row =
            |(k, (p, label)): (usize, (&f32, &f32))| (format!("{k:03}"), (format!("patient {k}"), vec![Some(*label)], vec![vec![*p]]));
        Scored { by_example: probabilities.iter().zip(labels).enumerate().map(row).collect() }
    }

    #[test]
    fn gains_by_hand() {
        let task = Task { name: "ill".into(), kind: TaskKind::Binary, classes: vec!["ill".into()] };
        let labels = [0.0, 0.0, 1.0, 1.0];
        // Of four pairs of a positive and a negative, 3 and 4 are in order.
        let (alone, together) = (scored(&[0.1, 0.6, 0.5, 0.9], &labels), scored(&[0.1, 0.2, 0.5, 0.9], &labels));
        let found = gain(&alone, &together, 0, &task, 1);
        assert_eq!((found.n, found.alone, found.together, found.gain), (4, Some(0.75), Some(1.0), Some(0.25)));
        assert_eq!((found.alone_accuracy, found.together_accuracy), (Some(0.5), Some(0.75)));
        assert!(found.low.unwrap() <= 0.25 && found.high.unwrap() >= 0.25, "{found:?}");
        let same = gain(&alone, &alone, 0, &task, 1);
        assert_eq!((same.gain, same.low, same.high), (Some(0.0), Some(0.0), Some(0.0)));
        let one_class = gain(&scored(&[0.1], &[1.0]), &scored(&[0.1], &[1.0]), 0, &task, 1);
        assert_eq!((one_class.gain, one_class.low), (None, None));
    }
}
