//! What the heads of endpoints are told of the train split: means, spreads, the times at which events come, how often a treatment is given.

use std::f64::consts::LN_2;

use synovia_cohort::{Endpoint, EndpointKind, EndpointValue, Train, View};
use synovia_fusion::{EndpointHead, Estimator, PROPENSITY, Scale};

use crate::TrainingError;
use crate::losses::LEAST_UNINFORMED;

/// Intervals of survival, at most.
const MOST_INTERVALS: usize = 12;
/// Events of an interval, at least.
const EVENTS_EACH: usize = 10;

/// A head for each endpoint of the cohort, fitted on what is known in the train split.
///
/// # Errors
/// [`TrainingError::Endpoint`] where there is nothing to learn.
pub fn fit_endpoints(train: &View<'_, Train>) -> Result<Vec<EndpointHead>, TrainingError> {
    let of_endpoint = |(k, endpoint): (usize, &Endpoint)| {
        let known: Vec<EndpointValue> = train.rows().filter_map(|row| row.endpoints[k]).collect();
        let failed = |why| TrainingError::Endpoint { endpoint: endpoint.name.clone(), why, known: known.len() };
        let (estimator, base) = match endpoint.kind {
            EndpointKind::Regression => {
                let scale = scale_of(&known).ok_or_else(|| failed("the same number for all"))?;
                (Estimator::Regression(scale), 1.0)
            }
            EndpointKind::Survival => {
                let edges = edges_of(&known).ok_or_else(|| failed("no event"))?;
                let base = marginal(&known, &edges).max(LEAST_UNINFORMED * LN_2);
                (Estimator::Survival { edges }, base)
            }
            EndpointKind::Treatment { binary, .. } => {
                let treated = known.iter().filter(|[_, second]| *second > 0.0).count() as f64 / known.len().max(1) as f64;
                if known.is_empty() || treated == 0.0 || treated == 1.0 {
                    return Err(failed("no more than one treatment"));
                }
                let scale = scale_of(&known).ok_or_else(|| failed("the same outcome for all"))?;
                // Of an outcome of 0 or 1 the mean is its share.
                let of_outcome = if binary { entropy(scale.mean).max(LEAST_UNINFORMED * LN_2) } else { 1.0 };
                (Estimator::Treatment { scale: (!binary).then_some(scale), treated }, of_outcome + PROPENSITY * entropy(treated))
            }
        };
        Ok(EndpointHead { endpoint: endpoint.name.clone(), estimator, base })
    };
    train.manifest().endpoints.iter().enumerate().map(of_endpoint).collect()
}

/// Nats of a guess by the share.
fn entropy(share: f64) -> f64 {
    -(share * share.ln() + (1.0 - share) * (1.0 - share).ln())
}

/// `None` where the first numbers do not vary.
fn scale_of(known: &[EndpointValue]) -> Option<Scale> {
    let n = known.len() as f64;
    let mean = known.iter().map(|[x, _]| f64::from(*x)).sum::<f64>() / n;
    let variance = known.iter().map(|[x, _]| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
    (variance > 0.0).then(|| Scale { mean, deviation: variance.sqrt() })
}

/// Times between which equally many events come; the last is the last that anybody was watched for.
fn edges_of(known: &[EndpointValue]) -> Option<Vec<f64>> {
    let mut events: Vec<f64> = known.iter().filter(|[_, event]| *event > 0.0).map(|[days, _]| f64::from(*days)).collect();
    events.sort_unstable_by(f64::total_cmp);
    let watched = known.iter().map(|[days, _]| f64::from(*days)).fold(0.0, f64::max);
    let n = (events.len() / EVENTS_EACH).clamp(1, MOST_INTERVALS);
    let mut edges: Vec<f64> = (1..n).map(|k| events[k * events.len() / n]).filter(|edge| *edge > 0.0 && *edge < watched).collect();
    edges.dedup();
    edges.push(watched);
    (!events.is_empty() && watched > 0.0).then_some(edges)
}

/// Mean loss, in nats, of the shares of those still watched to whom the event comes in each interval.
fn marginal(known: &[EndpointValue], edges: &[f64]) -> f64 {
    let head = EndpointHead { endpoint: String::new(), estimator: Estimator::Survival { edges: edges.to_vec() }, base: 1.0 };
    let k = edges.len();
    let mut sums = vec![0.0f64; 2 * k];
    let mut target = vec![0.0f32; 2 * k];
    for numbers in known {
        target.fill(0.0);
        head.write_target(*numbers, &mut target);
        sums.iter_mut().zip(&target).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let nats = |at_risk: f64, events: f64| match events / at_risk {
        share if share > 0.0 && share < 1.0 => at_risk * entropy(share),
        _ => 0.0,
    };
    let total: f64 = (0..k).map(|j| nats(sums[j], sums[k + j])).sum();
    total / known.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_equally_many_events() {
        // An event a day for 100 days, and one seen to day 200 without any.
        let known: Vec<EndpointValue> = (1..=100).map(|day| [day as f32, 1.0]).chain([[200.0, 0.0]]).collect();
        let edges = edges_of(&known).unwrap();
        assert_eq!(edges, [11.0, 21.0, 31.0, 41.0, 51.0, 61.0, 71.0, 81.0, 91.0, 200.0]);
        assert_eq!(edges_of(&[[5.0, 0.0], [9.0, 0.0]]), None);
        assert_eq!(edges_of(&[[5.0, 1.0], [9.0, 0.0]]).unwrap(), [9.0]);
        // One of two in the only interval: ln 2, over two.
        assert!((marginal(&[[5.0, 1.0], [9.0, 0.0]], &[9.0]) - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_number_that_does_not_vary_has_no_scale() {
        assert_eq!(scale_of(&[[3.0, 0.0], [3.0, 0.0]]), None);
        assert_eq!(scale_of(&[[1.0, 0.0], [5.0, 0.0]]), Some(Scale { mean: 3.0, deviation: 2.0 }));
        assert_eq!(scale_of(&[]), None);
    }
}
