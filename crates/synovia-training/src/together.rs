//! Several trainings at once: how the threads are divided among them, and how one that fails ends the others; and other work whose
//! parts have nothing to do with each other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use synovia_kernels::release_buffers;

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

    /// Ends all trainings after the epoch that each is in, with [`TrainingError::Stopped`]: where one of them has failed.
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
        // One that has panicked fails as well.
        if std::thread::panicking() {
            self.0.stop();
        }
        if self.0.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            // What comes next, other trainings or none, has no use for the memory of these.
            release_buffers();
        }
    }
}

/// Runs `work` on one thread of a pool of so many, all of it.
pub(crate) fn in_pool_of<R: Send>(threads: usize, work: impl FnOnce() -> Result<R, TrainingError> + Send) -> Result<R, TrainingError> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(work)
}

/// Items that [`spread`] works on at once, at most: each may hold a batch's activations.
const AT_ONCE: usize = 4;

/// What `work` makes of each item, in their order: several at once, each on a thread that has its share of the current pool's threads to
/// itself. A model that is asked again and again starts loops that are too short to be divided, and does much between them.
pub fn spread<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = rayon::current_num_threads();
    let at_once = threads.min(items.len()).min(AT_ONCE);
    if at_once < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let k = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(k) else { return done };
            done.push((k, work(item)));
        }
    };
    let on_its_own = || match rayon::ThreadPoolBuilder::new().num_threads(threads.div_ceil(at_once)).build() {
        Ok(pool) => pool.install(take),
        // Without threads of its own it is slower, and the same.
        Err(_) => take(),
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..at_once).map(|_| scope.spawn(on_its_own)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(k, _)| *k);
    done.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use synovia_cohort::{CohortReader, Train, Validation};
    use synovia_fusion::JointModelConfig;

    use super::*;
    use crate::tests::{alone, cohort, model, settings};
    use crate::{Branches, Fit, Sampling, Trained, TrainingSettings, fit, fit_statistics};

    fn trained(
        reader: &CohortReader,
        model: &JointModelConfig,
        epochs: usize,
        checkpoints: &Path,
        together: &Together,
    ) -> Result<Trained, TrainingError> {
        let (train, validation) = (reader.view::<Train>(), reader.view::<Validation>());
        let statistics = fit_statistics(&train).unwrap();
        // Of the branches each is asked again, with dropout of its own.
        let branches = Branches { own: 0.5, joint: 0.5, ..Branches::default() };
        let settings = TrainingSettings { branches, ..settings(epochs, Sampling::Plain) };
        let job =
            Fit { model, statistics: &statistics, settings: &settings, checkpoints, data_key: "k", noise: None, start: None, together };
        fit(&job, &train, &validation, &mut |_| ())
    }

    #[test]
    fn threads_are_divided_among_those_that_run() {
        let together = Together { threads: 5, ..Together::new() };
        let first = together.enter();
        assert_eq!(first.share(), 5);
        let others = [together.enter(), together.enter()];
        assert_eq!((first.share(), others[1].share()), (2, 2));
        drop(others);
        assert_eq!(first.share(), 5);
    }

    /// Each draws from burn's one generator, and the shorter training leaves its threads to the longer one.
    #[test]
    fn trained_at_once_are_the_same_bits_as_one_after_the_other() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let reader = cohort(&dir.path().join("cohort"), 120, 0.5);
        let models = [(JointModelConfig { dropout: 0.5, ..model(true, true) }, 3), (model(true, false), 1), (model(false, true), 2)];
        let (reader, path) = (&reader, dir.path());
        let weights = |how: &'static str, k: usize, together: &Together| {
            let (model, epochs) = &models[k];
            trained(reader, model, *epochs, &path.join(format!("{how}{k}")), together).unwrap().weights
        };
        let alone: Vec<_> = (0..3).map(|k| weights("alone", k, &Together { threads: 1, ..Together::new() })).collect();
        let together = Together { threads: 3, ..Together::new() };
        let at_once: Vec<_> = std::thread::scope(|scope| {
            let (weights, together) = (&weights, &together);
            let running: Vec<_> = (0..3).map(|k| scope.spawn(move || weights("at-once", k, together))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(alone == at_once);
    }

    #[test]
    fn spread_work_comes_back_in_order() {
        let items: Vec<usize> = (0..50).collect();
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| spread(&items, |k| k * k)), items.iter().map(|k| k * k).collect::<Vec<_>>());
        }
        assert!(spread(&[0; 0], |k: &i32| *k).is_empty());
    }

    #[test]
    fn one_that_fails_ends_the_others() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let reader = cohort(&dir.path().join("cohort"), 60, 0.5);
        let (reader, path, together) = (&reader, dir.path(), &Together { threads: 2, ..Together::new() });
        let [failed, stopped] = std::thread::scope(|scope| {
            // Of an image tower that there can't be one.
            let wrong = JointModelConfig { embedding: 0, ..model(false, true) };
            let failing = scope.spawn(move || trained(reader, &wrong, 1, &path.join("failing"), together).map(|_| ()));
            let healthy = scope.spawn(move || trained(reader, &model(false, true), 1_000_000, &path.join("healthy"), together).map(|_| ()));
            [failing.join().unwrap(), healthy.join().unwrap()]
        });
        assert!(matches!(stopped, Err(TrainingError::Stopped)), "{stopped:?}");
        assert!(!matches!(failed, Ok(()) | Err(TrainingError::Stopped)), "{failed:?}");
    }
}
