//! Several trainings at once: how the threads are divided among them, and how one that fails ends the others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::TrainingError;

/// What trainings at once have in common; one that has no other has it to itself.
///
/// Each is one thread and the pool that this thread is in, from its first step to where its share changes: burn keeps running statistics a
/// thread, and parallel loops are not handed from pool to pool.
#[derive(Debug)]
pub struct Together {
    threads: usize,
    running: AtomicUsize,
    stopped: AtomicBool,
}

impl Together {
    /// With the threads of the current pool.
    pub fn new() -> Self {
        Self { threads: rayon::current_num_threads(), running: AtomicUsize::new(0), stopped: AtomicBool::new(false) }
    }

    /// Threads in all.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Ends all trainings after the epoch that each is in, with [`TrainingError::Stopped`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// One more training runs until what is returned is dropped.
    pub(crate) fn enter(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }
}

impl Default for Together {
    fn default() -> Self {
        Self::new()
    }
}

/// A training among others.
pub(crate) struct Running<'a>(&'a Together);

impl Running<'_> {
    /// Threads for it while so many run; what can't be divided is given to each.
    pub(crate) fn share(&self) -> usize {
        self.0.threads.div_ceil(self.0.running.load(Ordering::Relaxed).max(1))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work` on one thread of a pool of so many, all of it.
pub(crate) fn in_pool_of<R: Send>(threads: usize, work: impl FnOnce() -> Result<R, TrainingError> + Send) -> Result<R, TrainingError> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(work)
}
