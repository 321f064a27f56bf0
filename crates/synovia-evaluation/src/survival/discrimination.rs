//! AUROC at a time: those who had the event by then against those who did not.

use super::{KaplanMeier, Observed, censoring_weights};

/// Cumulative/dynamic AUROC (Uno et al. 2007; Hung & Chiang 2010) at some times and on the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeDependentAuroc {
    /// At each time; `None` before the first event or after the last time anybody is seen.
    pub at: Vec<Option<f64>>,
    /// Mean over the times, each by the share of those who have their event up to it (Lambert & Chevret 2014).
    pub mean: Option<f64>,
}

/// Cases have the event by the time and weigh 1 / G(T); controls are seen after it. `None` where G is 0 at an event, a risk is NaN, or
/// lengths differ.
///
/// # Shapes
/// - observed, risk: `[n]`
/// - times: rising
pub fn time_dependent_auroc(censoring: &KaplanMeier, observed: &[Observed], risk: &[f64], times: &[f64]) -> Option<TimeDependentAuroc> {
    if risk.len() != observed.len() || risk.iter().any(|r| r.is_nan()) {
        return None;
    }
    let weights = censoring_weights(censoring, observed)?;
    let mut order: Vec<usize> = (0..observed.len()).collect();
    order.sort_unstable_by(|&a, &b| risk[b].total_cmp(&risk[a]));
    let area = |time: f64| {
        let (mut cases, mut controls, mut area) = (0.0, 0.0, 0.0);
        for group in order.chunk_by(|&a, &b| risk[a] == risk[b]) {
            let (mut more_cases, mut more_controls) = (0.0, 0.0);
            for &i in group {
                if observed[i].time > time {
                    more_controls += 1.0;
                } else if observed[i].event {
                    more_cases += weights[i];
                }
            }
            area += more_controls * (cases + 0.5 * more_cases);
            cases += more_cases;
            controls += more_controls;
        }
        (cases > 0.0 && controls > 0.0).then(|| area / (cases * controls))
    };
    let at: Vec<Option<f64>> = times.iter().map(|&time| area(time)).collect();
    let survival = KaplanMeier::of_events(observed);
    let (mut before, mut sum) = (1.0, Some(0.0));
    for (&time, area) in times.iter().zip(&at) {
        let left = survival.at(time);
        sum = sum.zip(*area).map(|(sum, area)| sum + area * (before - left));
        before = left;
    }
    let mean = if times.len() == 1 { at[0] } else { sum.filter(|_| before < 1.0).map(|sum| sum / (1.0 - before)) };
    Some(TimeDependentAuroc { at, mean })
}
