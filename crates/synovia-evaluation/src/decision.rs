//! What a model is worth at each threshold: net benefit, alerts, cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use synovia_cohort::{TaskKind, Test};

use crate::Variant;
use crate::bootstrap::{percentile_interval, resample};
use crate::confusion::Confusion;
use crate::metrics::EvaluationOptions;
use crate::panel::{Panel, Scores};

/// A decision curve (Vickers & Elkin 2006) of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionCurve {
    /// By rising threshold.
    pub points: Vec<DecisionPoint>,
}

/// One threshold of a decision curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionPoint {
    /// Probability from which on one acts; it says how many needless acts a needed one is worth: (1 − t) / t.
    pub threshold: f64,
    /// Test examples by decision.
    pub confusion: Confusion,
    /// True positives less false ones times t / (1 − t), per example.
    pub net_benefit: f64,
    /// Its interval, by the bootstrap of patients.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Net benefit of acting on everybody.
    pub of_all: f64,
}

/// Thresholds: 0.02 to 0.98 by 0.02.
const N_THRESHOLDS: usize = 49;

fn threshold(k: usize) -> f64 {
    (k + 1) as f64 / (N_THRESHOLDS + 1) as f64
}

fn net_benefit(c: &Confusion, threshold: f64) -> f64 {
    (c.true_positive - c.false_positive * threshold / (1.0 - threshold)) / c.total()
}

/// Curves of a binary task's variants; no curves of others.
pub(crate) fn curves(panel: &Panel<Test>, options: &EvaluationOptions) -> BTreeMap<Variant, DecisionCurve> {
    if panel.task.kind != TaskKind::Binary {
        return BTreeMap::new();
    }
    panel.variants.iter().filter_map(|(&variant, scores)| Some((variant, curve(panel, scores, options)?))).collect()
}

fn curve(panel: &Panel<Test>, scores: &Scores, options: &EvaluationOptions) -> Option<DecisionCurve> {
    // Of each example: patient, label, and how many thresholds its probability reaches.
    let reached = |p: f64| (0..N_THRESHOLDS).filter(|&k| p >= threshold(k)).count();
    let examples: Vec<(usize, bool, usize)> = (0..panel.examples.len())
        .filter(|&i| scores.present[i])
        .map(|i| (panel.examples[i].patient, panel.examples[i].label == 1, reached(scores.probability[i])))
        .collect();
    let confusions = |weights: &[u16]| -> Vec<Confusion> {
        let mut by_reach = [[0.0f64; 2]; N_THRESHOLDS + 1];
        for &(patient, label, reach) in &examples {
            by_reach[reach][usize::from(label)] += f64::from(weights[patient]);
        }
        let total: [f64; 2] = by_reach.iter().fold([0.0; 2], |sum, x| [sum[0] + x[0], sum[1] + x[1]]);
        let mut under = [0.0; 2];
        (0..N_THRESHOLDS)
            .map(|k| {
                under = [under[0] + by_reach[k][0], under[1] + by_reach[k][1]];
                Confusion {
                    true_positive: total[1] - under[1],
                    false_positive: total[0] - under[0],
                    false_negative: under[1],
                    true_negative: under[0],
                }
            })
            .collect()
    };
    let all = confusions(&vec![1; panel.n_patients()]);
    if examples.is_empty() {
        return None;
    }
    let samples: Vec<Vec<f64>> = resample(&panel.patients_by_fold, options.n_bootstrap, options.seed, |weights| {
        confusions(weights).iter().enumerate().map(|(k, c)| net_benefit(c, threshold(k))).collect()
    });
    let point = |(k, confusion): (usize, Confusion)| {
        let t = threshold(k);
        let mut resampled: Vec<f64> = samples.iter().map(|s| s[k]).filter(|b| b.is_finite()).collect();
        let interval = percentile_interval(&mut resampled, options.level);
        let prevalence = (confusion.true_positive + confusion.false_negative) / confusion.total();
        DecisionPoint {
            threshold: t,
            net_benefit: net_benefit(&confusion, t),
            low: interval.map(|i| i.0),
            high: interval.map(|i| i.1),
            of_all: prevalence - (1.0 - prevalence) * t / (1.0 - t),
            confusion,
        }
    };
    Some(DecisionCurve { points: all.into_iter().enumerate().map(point).collect() })
}
