//! Memory that several threads write disjoint parts of, scratch space of a thread, and buffers that are used again.

use std::cell::RefCell;
use std::sync::Mutex;

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

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with `len` numbers of scratch space of this thread, of any content.
///
/// `work` must not start parallel work: another task could be run on this thread meanwhile and find the space taken; it
/// would then be given a new one, which is correct but slow.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut scratch = SCRATCH.with(RefCell::take);
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let out = work(&mut scratch[..len]);
    SCRATCH.with(|cell| cell.replace(scratch));
    out
}

/// Buffers given back, to be used again: a step of training needs the same sizes as the one before, and fresh memory costs
/// a page fault every 4 KiB.
static SPARE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Spare buffers kept at most; the smallest ones go first.
const MAX_SPARE: usize = 96;

/// A buffer out of the spare ones; it goes back when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Vec<f32>,
    len: usize,
}

impl Buffer {
    /// `len` numbers of any content.
    pub(crate) fn new(len: usize) -> Self {
        let found = SPARE.lock().ok().and_then(|mut spare| {
            let best =
                (0..spare.len()).filter(|&k| spare[k].len() >= len && spare[k].len() <= 2 * len + 1024).min_by_key(|&k| spare[k].len());
            best.map(|k| spare.swap_remove(k))
        });
        Self { memory: found.unwrap_or_else(|| vec![0.0; len]), len }
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
        if let Ok(mut spare) = SPARE.lock() {
            spare.push(std::mem::take(&mut self.memory));
            if spare.len() > MAX_SPARE
                && let Some(smallest) = (0..spare.len()).min_by_key(|&k| spare[k].len())
            {
                spare.swap_remove(smallest);
            }
        }
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
        &self.memory[..self.len]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}
