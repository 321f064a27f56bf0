//! What joining is worth: two models on the same test examples, with patients drawn again.
//!
//! Over several sites, positives are compared with negatives of their own site alone (Janes and Pepe, Biometrika 2009): each site's
//! model has its own level, and which hospital a patient is in is nothing that a diagnosis can be credited with.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use synovia_cohort::{CohortReader, ExampleRow, Split, Task, TaskKind};
use synovia_evaluation::{CalibrationMap, auroc, probabilities};
use synovia_federation::Plan;
use synovia_training::{Presence, Weights, predict};

/// How often patients are drawn.
const DRAWS: u64 = 1000;

/// What a model says of labelled test examples, by example.
pub struct Scored {
    by_example: BTreeMap<String, Example>,
    n_sites: usize,
}

struct Example {
    site: usize,
    patient: String,
    /// A task.
    labels: Vec<Option<f32>>,
    /// A task.
    said: Vec<Vec<f32>>,
}

impl Scored {
    /// Of the cohort's test split.
    pub fn of(plan: &Plan, weights: &Weights, reader: &CohortReader) -> anyhow::Result<Self> {
        let rows: Vec<&ExampleRow> = reader.rows().iter().filter(|row| row.split == Split::Test).collect();
        let predicted = predict(&plan.model, weights, reader, &rows, Presence::of(&plan.model))?;
        let as_is = CalibrationMap::Temperature { value: 1.0 };
        let of_row = |p: &synovia_training::Predicted| {
            let row = rows[p.row];
            let said = plan.tasks.iter().zip(&p.logits).map(|(task, logits)| probabilities(logits, &as_is, task)).collect();
            (row.id.as_str().to_owned(), Example { site: 0, patient: row.patient.clone(), labels: row.labels.clone(), said })
        };
        Ok(Self { by_example: predicted.iter().map(of_row).collect(), n_sites: 1 })
    }

    /// Adds those of another site.
    pub fn extend(&mut self, other: Self) {
        let here = self.n_sites;
        self.by_example.extend(other.by_example.into_iter().map(|(id, of)| (id, Example { site: here + of.site, ..of })));
        self.n_sites += other.n_sites;
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
    /// AUROC of the model of the site alone; over several sites the mean of theirs, weighted by pairs of a positive and a negative.
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

/// A task's examples by site.
struct Panel<'a> {
    task: &'a Task,
    sites: Vec<Site<'a>>,
}

/// A site's examples: patient, label, probabilities of each model.
#[derive(Default)]
struct Site<'a> {
    rows: Vec<(usize, usize, Vec<&'a [f32]>)>,
    n_patients: usize,
}

impl<'a> Panel<'a> {
    /// Of the examples that all models say something of, at the sites of the first.
    fn new(models: &[&'a Scored], k: usize, task: &'a Task) -> Self {
        let mut sites: Vec<Site<'a>> = (0..models[0].n_sites).map(|_| Site::default()).collect();
        let mut patients = BTreeMap::new();
        for (id, example) in &models[0].by_example {
            let others = models[1..].iter().map(|model| model.by_example.get(id).map(|of| of.said[k].as_slice()));
            let said: Option<Vec<&[f32]>> = std::iter::once(Some(example.said[k].as_slice())).chain(others).collect();
            if let (Some(label), Some(said)) = (example.labels[k], said) {
                let site = &mut sites[example.site];
                let patient = *patients.entry((example.site, &example.patient)).or_insert_with(|| {
                    site.n_patients += 1;
                    site.n_patients - 1
                });
                site.rows.push((patient, label as usize, said));
            }
        }
        Self { task, sites }
    }

    fn n(&self) -> usize {
        self.sites.iter().map(|site| site.rows.len()).sum()
    }

    /// Each patient once.
    fn once(&self) -> Vec<Vec<u16>> {
        self.sites.iter().map(|site| vec![1; site.n_patients]).collect()
    }

    /// The model's AUROC within sites, with each patient as often as `times` says.
    fn auroc(&self, model: usize, times: &[Vec<u16>]) -> Option<f64> {
        let classes = match self.task.kind {
            TaskKind::Binary => 1..2,
            TaskKind::Multiclass | TaskKind::Ordinal => 0..self.task.classes.len(),
        };
        let of_class = |class: usize| {
            let output = if self.task.kind == TaskKind::Binary { 0 } else { class };
            let (mut sum, mut pairs) = (0.0, 0.0);
            for (site, times) in self.sites.iter().zip(times) {
                let rows = || site.rows.iter().flat_map(|row| std::iter::repeat_n(row, usize::from(times[row.0])));
                let scores: Vec<f32> = rows().map(|(_, _, said)| said[model][output]).collect();
                let labels: Vec<bool> = rows().map(|(_, label, _)| *label == class).collect();
                let positives = labels.iter().filter(|&&is| is).count();
                let here = (positives * (labels.len() - positives)) as f64;
                if let Some(of_site) = auroc(&scores, &labels) {
                    sum += here * of_site;
                    pairs += here;
                }
            }
            (pairs > 0.0).then(|| sum / pairs)
        };
        let each: Vec<f64> = classes.filter_map(of_class).collect();
        (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
    }

    /// Share of the examples whose most probable class is theirs.
    fn accuracy(&self, model: usize) -> Option<f64> {
        let is_right = |(_, label, said): &&(usize, usize, Vec<&[f32]>)| match self.task.kind {
            TaskKind::Binary => usize::from(said[model][0] > 0.5) == *label,
            TaskKind::Multiclass | TaskKind::Ordinal => {
                said[model].iter().enumerate().all(|(k, p)| k == *label || *p < said[model][*label])
            }
        };
        let right = self.sites.iter().flat_map(|site| &site.rows).filter(is_right).count();
        (self.n() > 0).then(|| right as f64 / self.n() as f64)
    }

    /// The central 95 % of a number over draws of each site's patients with replacement.
    fn interval(&self, seed: u64, measure: impl Fn(&[Vec<u16>]) -> Option<f64>) -> (Option<f64>, Option<f64>) {
        let mut values = Vec::with_capacity(DRAWS as usize);
        for draw in 0..DRAWS {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(draw);
            let mut times: Vec<Vec<u16>> = self.sites.iter().map(|site| vec![0; site.n_patients]).collect();
            for of_site in &mut times {
                let n = of_site.len();
                (0..n).for_each(|_| of_site[rng.random_range(0..n)] += 1);
            }
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
    TestScore { n: panel.n(), accuracy: panel.accuracy(0), auroc: panel.auroc(0, &panel.once()), low, high }
}

/// Two models on task `k`.
pub fn gain(alone: &Scored, together: &Scored, k: usize, task: &Task, seed: u64) -> Gain {
    let panel = Panel::new(&[alone, together], k, task);
    let difference = |times: &[Vec<u16>]| Some(panel.auroc(1, times)? - panel.auroc(0, times)?);
    let once = panel.once();
    let (low, high) = panel.interval(seed, difference);
    Gain {
        n: panel.n(),
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
        scored_at("here", probabilities, labels)
    }

    fn scored_at(site: &str, probabilities: &[f32], labels: &[f32]) -> Scored {
        let row = |(k, (p, label)): (usize, (&f32, &f32))| {
            let example = Example { site: 0, patient: format!("patient {k}"), labels: vec![Some(*label)], said: vec![vec![*p]] };
            (format!("{site} {k:03}"), example)
        };
        Scored { by_example: probabilities.iter().zip(labels).enumerate().map(row).collect(), n_sites: 1 }
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

    /// Two sites that differ in how ill their patients are. One model for both that knows no more than the site puts the ill site's
    /// patients above the other's; that is no knowledge of any patient.
    #[test]
    fn to_know_the_hospital_is_not_to_know_the_illness() {
        let task = Task { name: "ill".into(), kind: TaskKind::Binary, classes: vec!["ill".into()] };
        let (ill, well) = ([1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]);
        let both = |at_ill: &[f32], at_well: &[f32]| {
            let mut scored = scored_at("ill", at_ill, &ill);
            scored.extend(scored_at("well", at_well, &well));
            scored
        };
        let (of_site, knows) = (both(&[0.9; 4], &[0.1; 4]), both(&[0.6, 0.6, 0.6, 0.2], &[0.3, 0.3, 0.3, 0.9]));
        let found = gain(&of_site, &knows, 0, &task, 1);
        assert_eq!((found.n, found.alone, found.together, found.gain), (8, Some(0.5), Some(1.0), Some(0.5)));
        assert_eq!(found.alone_accuracy, Some(0.75));
        // Sites count by their pairs: 3 of a site with 0.5, 1 of a site with 1.
        let mut uneven = scored_at("a", &[0.5; 4], &ill);
        uneven.extend(scored_at("b", &[0.1, 0.9], &[0.0, 1.0]));
        assert_eq!(gain(&uneven, &uneven, 0, &task, 1).alone, Some(0.625));
    }
}
