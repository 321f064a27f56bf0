//! What the protocol counts of a model.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use utoipa::ToSchema;

/// How often, and how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Tally {
    pub count: u64,
    pub ns: u64,
}

impl Tally {
    fn add(&mut self, count: u64, time: Duration) {
        self.count += count;
        self.ns += time.as_nanos() as u64;
    }
}

/// Runs of one size.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct OfBatch {
    pub compute_input: Tally,
    pub compute_infer: Tally,
    pub compute_output: Tally,
}

/// All that is counted. Of what is counted a request each (`queue`, `compute_…`), the time of a batch counts for each of its
/// requests, as Triton does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Milliseconds since 1970.
    pub last_inference: u64,
    /// Examples.
    pub inference_count: u64,
    /// Runs.
    pub execution_count: u64,
    pub success: Tally,
    pub fail: Tally,
    pub queue: Tally,
    pub compute: OfBatch,
    /// Runs by the number of their examples.
    pub by_batch: BTreeMap<usize, OfBatch>,
}

/// One run of the model.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    pub rows: usize,
    pub requests: u64,
    pub input: Duration,
    pub infer: Duration,
    pub output: Duration,
}

/// Counts that threads add to.
#[derive(Debug, Default)]
pub(crate) struct Statistics(Mutex<Counts>);

impl Statistics {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// A request that was answered or refused, from its place in the queue to its end.
    pub(crate) fn request(&self, is_answered: bool, whole: Duration) {
        let mut counts = self.lock();
        if is_answered { counts.success.add(1, whole) } else { counts.fail.add(1, whole) }
    }

    /// A request that left the queue.
    pub(crate) fn left_queue(&self, time: Duration) {
        self.lock().queue.add(1, time);
    }

    pub(crate) fn run(&self, run: &Run) {
        let mut counts = self.lock();
        counts.last_inference = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        counts.inference_count += run.rows as u64;
        counts.execution_count += 1;
        let add = |to: &mut OfBatch, n: u64| {
            to.compute_input.add(n, run.input * n as u32);
            to.compute_infer.add(n, run.infer * n as u32);
            to.compute_output.add(n, run.output * n as u32);
        };
        add(&mut counts.compute, run.requests);
        add(counts.by_batch.entry(run.rows).or_default(), 1);
    }
}
