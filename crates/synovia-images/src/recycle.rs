//! Buffers that a thread uses again for its next image: what the kernel must clear and map anew for every file costs more
//! than the arithmetic on it.

use std::cell::RefCell;

/// Larger buffers are given back at once, so that one mammogram does not stay in memory for the rest of a folder.
const MAX_KEPT_BYTES: usize = 16 << 20;

#[derive(Default)]
struct Shelf {
    bytes: Vec<u8>,
    plane: Vec<f32>,
    shades: Vec<f32>,
    resizer: fast_image_resize::Resizer,
}

thread_local! {
    static SHELF: RefCell<Shelf> = RefCell::default();
}

fn small<T>(buffer: Vec<T>) -> Vec<T> {
    if buffer.capacity() * size_of::<T>() <= MAX_KEPT_BYTES { buffer } else { Vec::new() }
}

/// `n` bytes of no particular value.
pub(crate) fn bytes(n: usize) -> Vec<u8> {
    let mut bytes = SHELF.with_borrow_mut(|shelf| std::mem::take(&mut shelf.bytes));
    if bytes.len() > n {
        bytes.truncate(n);
    } else {
        bytes.resize(n, 0);
    }
    bytes
}

/// Takes back what [`bytes`] gave.
pub(crate) fn keep_bytes(bytes: Vec<u8>) {
    SHELF.with_borrow_mut(|shelf| shelf.bytes = small(bytes));
}

/// An empty plane.
pub(crate) fn plane() -> Vec<f32> {
    let mut plane = SHELF.with_borrow_mut(|shelf| std::mem::take(&mut shelf.plane));
    plane.clear();
    plane
}

/// Takes back what [`plane`] gave.
pub(crate) fn keep_plane(plane: Vec<f32>) {
    SHELF.with_borrow_mut(|shelf| shelf.plane = small(plane));
}

/// Calls `f` with a table for all words of 16 bits, its values left from before.
pub(crate) fn with_shades<T>(f: impl FnOnce(&mut [f32; 1 << 16]) -> T) -> T {
    let mut shades = SHELF.with_borrow_mut(|shelf| std::mem::take(&mut shelf.shades));
    shades.resize(1 << 16, 0.0);
    let result = shades.first_chunk_mut().map(f);
    SHELF.with_borrow_mut(|shelf| shelf.shades = shades);
    result.unwrap_or_else(|| unreachable!("the table was just made that long"))
}

/// Calls `f` with the thread's resizer, which keeps its filter's coefficients and its buffers.
pub(crate) fn with_resizer<T>(f: impl FnOnce(&mut fast_image_resize::Resizer) -> T) -> T {
    let mut resizer = SHELF.with_borrow_mut(|shelf| std::mem::take(&mut shelf.resizer));
    let result = f(&mut resizer);
    if resizer.size_of_internal_buffers() <= MAX_KEPT_BYTES {
        SHELF.with_borrow_mut(|shelf| shelf.resizer = resizer);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_buffers_come_back_and_large_ones_do_not() {
        let buffer = bytes(1000);
        let place = buffer.as_ptr();
        keep_bytes(buffer);
        let again = bytes(10);
        assert_eq!((again.as_ptr(), again.len()), (place, 10));
        keep_bytes(vec![0; MAX_KEPT_BYTES + 1]);
        assert_eq!(SHELF.with_borrow(|shelf| shelf.bytes.capacity()), 0);
        keep_plane(vec![1.0; 4]);
        assert!(plane().is_empty());
    }
}
