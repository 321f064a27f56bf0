//! A model of one run against a model of another, on the test examples of both.

use synovia_cohort::{Task, Test};

use crate::gain::{Difference, pair};
use crate::panel::panels;
use crate::{Estimate, EvaluationError, Prediction, Variant};

/// By how much a model of one run is better than a model of another.
#[derive(Clone, Debug, PartialEq)]
pub struct BetweenRuns {
    /// Labelled test examples that both predicted.
    pub n: usize,
    /// AUROC of the one − that of the other, with `DeLong`'s interval clustered by patient.
    pub auroc: Estimate,
    /// Two-sided p of no difference.
    pub p: Option<f64>,
}

/// The paired difference of two runs' models of one task; `None` where they have no labelled test example in common, or one of them has no
/// such model.
///
/// # Errors
/// [`EvaluationError`] where the runs do not agree about an example's label or patient: they are not of the same data.
pub fn between_runs(
    task: &Task,
    (first, of_first): (&[Prediction], Variant),
    (second, of_second): (&[Prediction], Variant),
    level: f64,
) -> Result<Option<BetweenRuns>, EvaluationError> {
    // Two variants of one panel, whatever they are called in their runs.
    let chosen = |predictions: &[Prediction], of: Variant, name: Variant| -> Vec<Prediction> {
        let rows = predictions.iter().filter(|p| p.variant == of && *p.task == *task.name);
        rows.map(|p| Prediction { variant: name, ..p.clone() }).collect()
    };
    let all = [chosen(first, of_first, Variant::Joint), chosen(second, of_second, Variant::Image)].concat();
    let panel = panels::<Test>(&[&all], std::slice::from_ref(task))?.pop();
    let Some((panel, (one, other))) = panel.and_then(|panel| pair(&panel, Variant::Joint, Variant::Image).map(|pair| (panel, pair))) else {
        return Ok(None);
    };
    if one.len() == 0 {
        return Ok(None);
    }
    let Difference { difference, interval, p } = Difference::of(&panel, &one, &other, level);
    let auroc = Estimate { value: difference, low: interval.map(|i| i.0), high: interval.map(|i| i.1), note: None };
    Ok(Some(BetweenRuns { n: one.len(), auroc, p }))
}
