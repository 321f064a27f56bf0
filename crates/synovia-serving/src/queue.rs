//! Requests that wait for a model.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batch::{Fitting, Output};
use crate::error::Refusal;

/// A request that waits.
pub(crate) struct Job {
    pub inputs: Fitting,
    pub deadline: Instant,
    pub queued: Instant,
    pub reply: oneshot::Sender<Result<Vec<Output>, Refusal>>,
}

impl Job {
    /// Whether nobody waits for the answer any more.
    fn is_over(&self, now: Instant) -> bool {
        self.reply.is_closed() || now >= self.deadline
    }
}

/// Requests that wait for a model, the first first.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    limit: usize,
    /// Requests that are being read: a batch may wait for them.
    arriving: AtomicUsize,
}

struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// A request that is being read, until it is dropped.
pub(crate) struct Arriving<'a>(&'a AtomicUsize);

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        let waiting = Mutex::new(Waiting { jobs: VecDeque::new(), closed: false });
        Self { waiting, changed: Condvar::new(), limit, arriving: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn arriving(&self) -> Arriving<'_> {
        self.arriving.fetch_add(1, Ordering::Relaxed);
        Arriving(&self.arriving)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Whether a request would find a place.
    pub(crate) fn has_room(&self) -> bool {
        self.len() < self.limit
    }

    pub(crate) fn push(&self, job: Job) -> Result<(), Refusal> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Refusal::Unavailable("the model does not run any more; load it again".to_owned()));
        }
        if waiting.jobs.len() >= self.limit {
            // Who has gone holds no place.
            let now = Instant::now();
            waiting.jobs.retain(|job| !job.is_over(now));
            if waiting.jobs.len() >= self.limit {
                return Err(Refusal::Busy);
            }
        }
        waiting.jobs.push_back(job);
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// No more requests; those that wait are still answered.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// No more requests, and none of those that wait.
    pub(crate) fn abandon(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.jobs.clear();
    }

    /// The next requests that can be one batch of at most `max_rows` (or the next one, whatever its rows), in their order. Waits for
    /// the first for as long as it takes, for more until `wait` is over, and only while requests are being read. `None` when the
    /// queue is closed and empty.
    pub(crate) fn next(&self, max_rows: usize, wait: Duration) -> Option<Vec<Job>> {
        let mut waiting = self.lock();
        let first = loop {
            let now = Instant::now();
            match waiting.jobs.pop_front() {
                Some(job) if job.is_over(now) => {
                    // Whoever waits is told; who has gone is not there to be.
                    let _ = job.reply.send(Err(Refusal::Late));
                }
                Some(job) => break job,
                None if waiting.closed => return None,
                None => waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        };
        let until = Instant::now() + wait;
        let mut rows = first.inputs.rows;
        let mut batch = vec![first];
        loop {
            let now = Instant::now();
            while let Some(job) = waiting.jobs.front() {
                if job.is_over(now) {
                    if let Some(job) = waiting.jobs.pop_front() {
                        let _ = job.reply.send(Err(Refusal::Late));
                    }
                    continue;
                }
                if rows + job.inputs.rows > max_rows || !job.inputs.goes_with(&batch[0].inputs) {
                    return Some(batch);
                }
                rows += job.inputs.rows;
                batch.extend(waiting.jobs.pop_front());
            }
            let left = until.saturating_duration_since(now);
            if rows >= max_rows || left.is_zero() || waiting.closed || self.arriving.load(Ordering::Relaxed) == 0 {
                return Some(batch);
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
