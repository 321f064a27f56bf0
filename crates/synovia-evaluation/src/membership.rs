//! What a model gives away about who it was trained on: an attacker calls those patients members whose loss is low (Yeom et
//! al. 2018, "Privacy Risk in Machine Learning", adversary 1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use synovia_cohort::{Split, Task, TaskKind};

use crate::comparison::{logit_interval, paired_delong};
use crate::{Prediction, Variant, auroc};

/// How well the loss tells examples of the train split from those of the test split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// The task.
    pub task: String,
    /// The model.
    pub variant: Variant,
    /// Labelled examples of the train split.
    pub n_members: usize,
    /// Labelled examples of the test split.
    pub n_others: usize,
    /// AUROC of the attack: 0.5 where nothing is given away.
    pub auroc: f64,
    /// Lower end of its interval, by DeLong's variance.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// The attack on each model that was trained on `predictions`' train split, task by task. Calibration is a monotonic change
/// of the loss of each class, and is left in: it is what is served.
///
/// - level: of the intervals
pub fn membership(predictions: &[Prediction], tasks: &[Task], level: f64) -> Vec<Membership> {
    let mut scores: BTreeMap<(usize, Variant), (Vec<f64>, Vec<bool>)> = BTreeMap::new();
    for prediction in predictions {
        let is_member = match prediction.split {
            Split::Train => true,
            Split::Test => false,
            Split::Validation => continue,
        };
        let (Some(k), Some(label)) = (tasks.iter().position(|task| *task.name == *prediction.task), prediction.label) else { continue };
        let p = f64::from(prediction.probability);
        let of_truth = match tasks[k].kind {
            TaskKind::Binary if label == 1.0 => p,
            TaskKind::Binary => 1.0 - p,
            // A row for each class, of which the true one counts.
            TaskKind::Multiclass | TaskKind::Ordinal
                if tasks[k].classes.get(label as usize).is_some_and(|class| **class == *prediction.class) =>
            {
                p
            }
            TaskKind::Multiclass | TaskKind::Ordinal => continue,
        };
        let (of_variant, labels) = scores.entry((k, prediction.variant)).or_default();
        of_variant.push(of_truth);
        labels.push(is_member);
    }
    let attack = |((k, variant), (scores, members)): ((usize, Variant), (Vec<f64>, Vec<bool>))| {
        // Against a score that says nothing, whose AUROC is one half: the difference has the variance of the one alone.
        let none = vec![0.0; scores.len()];
        let auroc = auroc(&scores, &members)?;
        let interval = paired_delong(&scores, &none, &members).and_then(|tested| logit_interval(auroc, tested.standard_error, level));
        let n_members = members.iter().filter(|is| **is).count();
        Some(Membership {
            task: tasks[k].name.clone(),
            variant,
            n_members,
            n_others: members.len() - n_members,
            auroc,
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
        })
    };
    scores.into_iter().filter_map(attack).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use synovia_cohort::{ExampleId, PatientId, Time};

    use super::*;

    fn rows(task: &Task, split: Split, labels: &[f32], probabilities: &[&[f32]]) -> Vec<Prediction> {
        let of = |(k, (label, probabilities)): (usize, (&f32, &&[f32]))| {
            let patient = PatientId::new(&format!("{split:?} {k}"));
            let id = ExampleId::of_patient(&patient, Time::from_seconds(0));
            let pseudonym: Arc<str> = patient.pseudonym().into();
            Prediction::rows(&id, &pseudonym, split, task, Some(*label), probabilities, Variant::Joint).collect::<Vec<_>>()
        };
        labels.iter().zip(probabilities).enumerate().flat_map(of).collect()
    }

    #[test]
    fn by_hand() {
        let binary = Task { name: "ill".into(), kind: TaskKind::Binary, classes: vec!["ill".into()] };
        // Probabilities of the truth: members .9, .8, .6; others .7, .5. Of six pairs five are in order.
        let members = rows(&binary, Split::Train, &[1.0, 0.0, 1.0], &[&[0.9], &[0.2], &[0.6]]);
        let others = rows(&binary, Split::Test, &[1.0, 0.0], &[&[0.7], &[0.5]]);
        let validation = rows(&binary, Split::Validation, &[1.0], &[&[0.99]]);
        let found = membership(&[members, others, validation].concat(), &[binary], 0.95);
        assert_eq!((found.len(), found[0].n_members, found[0].n_others), (1, 3, 2));
        assert!((found[0].auroc - 5.0 / 6.0).abs() < 1e-12, "{found:?}");
        // Shares of others below each member: 1, 1, 1/2, of variance 1/12; of members above each other: 2/3, 1, of variance 1/18.
        let error = (1.0f64 / 12.0 / 3.0 + 1.0 / 18.0 / 2.0).sqrt();
        let (low, high) = logit_interval(5.0 / 6.0, error, 0.95).unwrap();
        assert!((found[0].low.unwrap() - low).abs() < 1e-12 && (found[0].high.unwrap() - high).abs() < 1e-12);

        let stage = Task { name: "stage".into(), kind: TaskKind::Multiclass, classes: vec!["a".into(), "b".into(), "c".into()] };
        let members = rows(&stage, Split::Train, &[2.0, 0.0], &[&[0.1, 0.1, 0.8], &[0.7, 0.2, 0.1]]);
        let others = rows(&stage, Split::Test, &[1.0, 1.0], &[&[0.3, 0.4, 0.3], &[0.5, 0.2, 0.3]]);
        let found = membership(&[members.clone(), others].concat(), std::slice::from_ref(&stage), 0.95);
        assert_eq!((found[0].auroc, found[0].n_members, found[0].low), (1.0, 2, None), "all in order: no spread to tell an interval by");
        assert_eq!(membership(&members, &[stage], 0.95), [], "nobody to tell them from");
    }
}
