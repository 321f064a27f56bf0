//! Concordance: of two who can be compared, how often the one with the higher risk has the event first.

use super::{KaplanMeier, Observed, censoring_weights};

/// Harrell's C (JAMA 1982); pairs of equal risk count by half. `None` where no pair can be compared.
///
/// # Shapes
/// - observed, risk: `[n]`; the higher the risk, the sooner the event
pub fn harrell_concordance(observed: &[Observed], risk: &[f64]) -> Option<f64> {
    concordance(observed, risk, &vec![1.0; observed.len()])
}

/// Uno's C (Statistics in Medicine 2011): pairs weigh 1 / G(T)² of the first to have the event, which makes the value free of
/// how many were censored; events from `until` on take no part. `None` where no pair can be compared or G is 0 at an event.
///
/// # Shapes
/// - observed, risk: `[n]`
pub fn uno_concordance(censoring: &KaplanMeier, observed: &[Observed], risk: &[f64], until: Option<f64>) -> Option<f64> {
    let early: Vec<Observed> =
        observed.iter().map(|o| Observed { event: o.event && until.is_none_or(|until| o.time < until), ..*o }).collect();
    let weights: Vec<f64> = censoring_weights(censoring, &early)?.iter().map(|w| w * w).collect();
    concordance(observed, risk, &weights)
}

/// Sums over prefixes that change (Fenwick 1994).
struct Counts(Vec<f64>);

impl Counts {
    fn add(&mut self, position: usize) {
        let mut k = position + 1;
        while k < self.0.len() {
            self.0[k] += 1.0;
            k += k & k.wrapping_neg();
        }
    }

    /// How many positions under `end` were added.
    fn below(&self, end: usize) -> f64 {
        let (mut k, mut sum) = (end, 0.0);
        while k > 0 {
            sum += self.0[k];
            k &= k - 1;
        }
        sum
    }
}

fn concordance(observed: &[Observed], risk: &[f64], weights: &[f64]) -> Option<f64> {
    let n = observed.len();
    if risk.len() != n || risk.iter().any(|r| r.is_nan()) {
        return None;
    }
    let mut sorted = risk.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.dedup();
    let rank = |r: f64| sorted.partition_point(|x| *x < r);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_unstable_by(|&a, &b| observed[b].time.total_cmp(&observed[a].time));
    let mut later = Counts(vec![0.0; sorted.len() + 1]);
    let (mut right, mut all, mut n_later) = (0.0, 0.0, 0.0);
    for group in order.chunk_by(|&a, &b| observed[a].time == observed[b].time) {
        // Who is censored at the time of an event outlived it.
        for &i in group.iter().filter(|&&i| !observed[i].event) {
            later.add(rank(risk[i]));
            n_later += 1.0;
        }
        for &i in group.iter().filter(|&&i| observed[i].event) {
            let k = rank(risk[i]);
            let (lower, up_to) = (later.below(k), later.below(k + 1));
            right += weights[i] * (lower + 0.5 * (up_to - lower));
            all += weights[i] * n_later;
        }
        for &i in group.iter().filter(|&&i| observed[i].event) {
            later.add(rank(risk[i]));
            n_later += 1.0;
        }
    }
    (all > 0.0).then(|| right / all)
}
