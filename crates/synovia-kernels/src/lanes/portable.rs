//! Lanes of any processor.

use super::{Lanes, Pair};
use crate::shared::{Source, Target};

/// For any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|k| f(self.0[k], other.0[k])))
    }
}

impl Lanes for Portable {
    type Wide = Pair<Self>;

    #[inline(always)]
    unsafe fn load(from: Source) -> Self {
        // SAFETY: the caller vouches for eight numbers at `from`.
        unsafe { Self(from.cast::<[f32; 8]>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: Target) {
        // SAFETY: the caller vouches for room for eight numbers at `to`.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 8])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|k| self.0[k] * factor.0[k] + term.0[k]))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn where_positive(self, condition: Self) -> Self {
        self.zip(condition, |a, c| if c > 0.0 { a } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn where_equal(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|k| if a.0[k] == b.0[k] { self.0[k] } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn larger_or_nan(self, other: Self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|k| if self.0[k] > other.0[k] || self.0[k].is_nan() { a.0[k] } else { b.0[k] }))
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        // SAFETY: the caller vouches for eight bytes at `from`.
        unsafe { Self(from.cast::<[u8; 8]>().read_unaligned().map(f32::from)) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8) {
        // SAFETY: the caller vouches for room for eight bytes at `to`.
        unsafe { to.cast::<[u8; 8]>().write_unaligned(self.0.map(|x| x as u8)) }
    }

    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
}
