//! The squared error of a predicted survival curve.

use super::{KaplanMeier, Observed};

/// Brier score at `time` (Graf et al. 1999): who had the event weighs 1 / G(T), who is seen after it 1 / G(time), who was
/// censored before it nothing. `None` without examples or where a weight would be infinite.
///
/// # Shapes
/// - observed, survival: `[n]`; the predicted share without the event at `time`
pub fn survival_brier(censoring: &KaplanMeier, observed: &[Observed], survival: &[f64], time: f64) -> Option<f64> {
    if observed.is_empty() || survival.len() != observed.len() {
        return None;
    }
    let still = censoring.at(time);
    let mut sum = 0.0;
    for (o, s) in observed.iter().zip(survival) {
        let (error, share) = if o.time > time {
            ((1.0 - s).powi(2), still)
        } else if o.event {
            (s * s, censoring.at(o.time))
        } else {
            continue;
        };
        if share <= 0.0 {
            return None;
        }
        sum += error / share;
    }
    Some(sum / observed.len() as f64)
}

/// Integrated Brier score: the mean over time by the trapezoid rule between the first and last of `times`. `None` with fewer
/// than two times, or where one of the scores is.
///
/// # Shapes
/// - observed: `[n]`
/// - survival: `[times, n]`
/// - times: rising
pub fn integrated_survival_brier(censoring: &KaplanMeier, observed: &[Observed], survival: &[Vec<f64>], times: &[f64]) -> Option<f64> {
    let scores: Vec<f64> =
        times.iter().zip(survival).map(|(&time, s)| survival_brier(censoring, observed, s, time)).collect::<Option<_>>()?;
    let span = times.last()? - times.first()?;
    if scores.len() != times.len() || span <= 0.0 {
        return None;
    }
    let area: f64 = times.windows(2).zip(scores.windows(2)).map(|(t, s)| 0.5 * (t[1] - t[0]) * (s[0] + s[1])).sum();
    Some(area / span)
}
