//! Memory that several threads write disjoint parts of, scratch space of a thread, and buffers that are used again.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a kernel reads.
pub(crate) type Source = *const f32;
/// Where a kernel writes.
pub(crate) type Target = *mut f32;

/// An address that may cross threads: for output of which each task writes its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: it is only an address; each place that uses it says why no two tasks touch the same memory.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// The address itself.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }

    /// The memory from `start` on.
    ///
    /// # Safety
    /// `start` is at most the length of the slice this was made of.
    pub(crate) unsafe fn from(self, start: usize) -> Self {
        // SAFETY: the caller vouches for it.
        unsafe { Self(self.0.add(start)) }
    }

    /// A part of the memory.
    ///
    /// # Safety
    /// `[start, start + len)` lies in the slice this was made of, that slice is still borrowed, and no other task uses the
    /// part meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller vouches for it.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// Runs `work` on a thread of the pool: from any other thread, each parallel loop in it would be handed over there and back, which
/// costs as much as a small loop does. It must not wait for what another thread computes in the pool, which may have this one alone, nor
/// move burn's running statistics, which are kept a thread each until that thread comes again.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with `len` numbers of scratch space of this thread, of any content.
///
/// `work` must not start parallel work: another task could be run on this thread meanwhile and find the space taken; it
/// would then be given a new one, which is correct but slow.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut scratch = SCRATCH.with(RefCell::take);
    if scratch.len() < len + LINE {
        scratch.resize(len + LINE, 0.0);
    }
    let start = first_line(&scratch);
    let out = work(&mut scratch[start..start + len]);
    SCRATCH.with(|cell| cell.replace(scratch));
    out
}

/// Buffers given back, to be used again: a step of training needs the same sizes as the one before, and fresh memory costs
/// a page fault every 4 KiB.
static SPARE: Mutex<Spare> = Mutex::new(Spare { buffers: Vec::new(), held: 0, lent: 0, most: 0 });

/// What is kept and what is lent out, counted in numbers.
struct Spare {
    /// From the one given back first to the last.
    buffers: Vec<Vec<f32>>,
    held: usize,
    lent: usize,
    /// The most that was ever lent at a time.
    most: usize,
}

impl Spare {
    /// Nothing here panics half-way, so what a panic elsewhere has left is as good.
    fn lock() -> MutexGuard<'static, Self> {
        SPARE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest buffer that fits, of several the one used last. It counts as lent from here on, found or made.
    fn lend(&mut self, len: usize) -> Option<Vec<f32>> {
        let fits = |k: &usize| (len..=2 * len + 1024).contains(&self.buffers[*k].len());
        let best = (0..self.buffers.len()).rev().filter(fits).min_by_key(|&k| self.buffers[k].len());
        let found = best.map(|k| self.buffers.remove(k));
        self.held -= found.as_ref().map_or(0, Vec::len);
        self.lent += found.as_ref().map_or(len, Vec::len);
        self.most = self.most.max(self.lent);
        found
    }

    /// Takes a buffer back. Returns those to be freed, the oldest ones, so that what is held and lent does not go far beyond
    /// what was ever needed at a time: sizes that come up no more would stay for good.
    fn take_back(&mut self, buffer: Vec<f32>) -> Vec<Vec<f32>> {
        self.lent -= buffer.len();
        self.held += buffer.len();
        self.buffers.push(buffer);
        let mut n_old = 0;
        while self.held + self.lent > self.most + self.most / 2 {
            self.held -= self.buffers[n_old].len();
            n_old += 1;
        }
        self.buffers.drain(..n_old).collect()
    }
}

/// Frees the memory that is kept for the next step, for when there is none.
pub fn release_buffers() {
    let mut spare = Spare::lock();
    let buffers = std::mem::take(&mut spare.buffers);
    (spare.held, spare.most) = (0, spare.lent);
    drop(spare);
    drop(buffers);
}

/// Numbers of a line of the cache.
const LINE: usize = 16;

/// Where the first whole line of the cache begins: pixels and panels come in lines, and what crosses two is read as both.
fn first_line(memory: &[f32]) -> usize {
    // An offset that can't be told costs speed alone.
    memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE)
}

/// A buffer out of the spare ones; it goes back when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Vec<f32>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// `len` numbers of any content.
    pub(crate) fn new(len: usize) -> Self {
        let found = Spare::lock().lend(len + LINE);
        let memory = found.unwrap_or_else(|| vec![0.0; len + LINE]);
        Self { start: first_line(&memory), memory, len }
    }

    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(0.0);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let old = Spare::lock().take_back(std::mem::take(&mut self.memory));
        // Freed when nobody waits for the lock.
        drop(old);
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut other = Self::new(self.len);
        other.copy_from_slice(self);
        other
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::Spare;

    /// Lends buffers of these sizes, takes them back, and so on; returns what is held after each round.
    #[track_caller]
    fn check(rounds: &[&[usize]], held: &[usize]) {
        let mut spare = Spare { buffers: Vec::new(), held: 0, lent: 0, most: 0 };
        for (sizes, held) in rounds.iter().zip(held) {
            let lent: Vec<_> = sizes.iter().map(|&len| spare.lend(len).unwrap_or_else(|| vec![0.0; len])).collect();
            assert!(lent.iter().zip(*sizes).all(|(buffer, len)| buffer.len() >= *len));
            for buffer in lent {
                drop(spare.take_back(buffer));
            }
            assert_eq!(spare.held, *held, "{sizes:?}");
            assert_eq!(spare.held, spare.buffers.iter().map(Vec::len).sum::<usize>());
            assert_eq!(spare.lent, 0);
        }
    }

    #[test]
    fn buffers_are_used_again_and_old_sizes_go() {
        check(&[&[10_000, 20_000], &[20_000, 10_000], &[9_000]], &[30_000; 3]);
        check(&[&[100_000], &[40_000], &[15_000], &[5_000]], &[100_000, 140_000, 55_000, 60_000]);
        check(&[&[10_000], &[30_000]], &[10_000, 40_000]);
    }
}
