//! Measures of predicted survival under censoring.
//!
//! Weights are inverse probabilities of not being censored (IPCW), from the Kaplan-Meier curve of censoring of a reference,
//! usually the training split. At a time at which some have the event and others are censored, events come first.

mod brier;
mod concordance;
mod discrimination;

pub use brier::{integrated_survival_brier, survival_brier};
pub use concordance::{harrell_concordance, uno_concordance};
pub use discrimination::{TimeDependentAuroc, time_dependent_auroc};

/// When one was last seen, and whether by the event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// Time of the event or of censoring, in any one unit.
    pub time: f64,
    /// Whether the event happened then.
    pub event: bool,
}

/// A Kaplan-Meier curve (1958): steps from the right-continuous value 1.
#[derive(Clone, Debug, PartialEq)]
pub struct KaplanMeier {
    /// Times in order and the share that is left from each on.
    steps: Vec<(f64, f64)>,
}

impl KaplanMeier {
    /// Share still without the event.
    pub fn of_events(observed: &[Observed]) -> Self {
        Self::fit(observed, true)
    }

    /// Share not yet censored: who has the event at a time is not at risk of being censored at it.
    pub fn of_censoring(observed: &[Observed]) -> Self {
        Self::fit(observed, false)
    }

    fn fit(observed: &[Observed], of_events: bool) -> Self {
        let mut sorted = observed.to_vec();
        sorted.sort_unstable_by(|a, b| a.time.total_cmp(&b.time));
        let mut at_risk = sorted.len() as f64;
        let mut share = 1.0;
        let mut steps = Vec::new();
        for group in sorted.chunk_by(|a, b| a.time == b.time) {
            let events = group.iter().filter(|o| o.event).count() as f64;
            let (lost, of) = if of_events { (events, at_risk) } else { (group.len() as f64 - events, at_risk - events) };
            if of > 0.0 {
                share *= 1.0 - lost / of;
            }
            steps.push((group[0].time, share));
            at_risk -= group.len() as f64;
        }
        Self { steps }
    }

    /// The share at `time`, after what happens at it.
    pub fn at(&self, time: f64) -> f64 {
        match self.steps.partition_point(|step| step.0 <= time) {
            0 => 1.0,
            k => self.steps[k - 1].1,
        }
    }
}

/// 1 / G(T) of each who has the event, 0 of the others; `None` where G is 0 at an event.
fn censoring_weights(censoring: &KaplanMeier, observed: &[Observed]) -> Option<Vec<f64>> {
    observed
        .iter()
        .map(|o| {
            if !o.event {
                return Some(0.0);
            }
            let share = censoring.at(o.time);
            (share > 0.0).then(|| 1.0 / share)
        })
        .collect()
}
