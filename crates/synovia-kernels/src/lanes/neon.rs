//! Lanes of aarch64: two NEON registers of four.

use std::arch::aarch64::{
    float32x4_t, uint32x4_t, vaddq_f32, vandq_u32, vbslq_f32, vceqq_f32, vcgtq_f32, vcombine_u16, vcvtq_f32_u32, vcvtq_u32_f32, vdivq_f32,
    vdupq_n_f32, vfmaq_f32, vget_high_u16, vget_low_u16, vld1_u8, vld1q_f32, vmovl_u8, vmovl_u16, vmovn_u16, vmovn_u32, vmulq_f32,
    vornq_u32, vreinterpretq_f32_u32, vreinterpretq_u32_f32, vsqrtq_f32, vst1_u8, vst1q_f32, vsubq_f32,
};

use super::{Lanes, Pair};
use crate::shared::{Source, Target};

/// For aarch64.
#[derive(Clone, Copy)]
pub(crate) struct Neon([float32x4_t; 2]);

impl Neon {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
    }

    /// `self` where all bits of a lane of `mask` are set, 0 where none is.
    #[inline(always)]
    fn masked(self, mask: [uint32x4_t; 2]) -> Self {
        // SAFETY: every aarch64 processor with an operating system has NEON; so below.
        let and = |x, mask| unsafe { vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), mask)) };
        Self([and(self.0[0], mask[0]), and(self.0[1], mask[1])])
    }
}

impl Lanes for Neon {
    type Wide = Pair<Self>;

    #[inline(always)]
    unsafe fn load(from: Source) -> Self {
        // SAFETY: the caller vouches for eight numbers at `from`.
        unsafe { Self([vld1q_f32(from), vld1q_f32(from.add(4))]) }
    }

    #[inline(always)]
    unsafe fn store(self, to: Target) {
        // SAFETY: the caller vouches for room for eight numbers at `to`.
        unsafe {
            vst1q_f32(to, self.0[0]);
            vst1q_f32(to.add(4), self.0[1]);
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: NEON.
        unsafe { Self([vdupq_n_f32(x); 2]) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: NEON.
        self.zip(other, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: NEON.
        self.zip(other, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: NEON.
        self.zip(other, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: NEON.
        Self(std::array::from_fn(|half| unsafe { vfmaq_f32(term.0[half], self.0[half], factor.0[half]) }))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // The maximum instruction gives a NaN where either is one.
        // SAFETY: NEON.
        self.zip(other, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
    }

    #[inline(always)]
    unsafe fn where_positive(self, condition: Self) -> Self {
        // SAFETY: NEON.
        self.masked(condition.0.map(|c| unsafe { vcgtq_f32(c, vdupq_n_f32(0.0)) }))
    }

    #[inline(always)]
    unsafe fn where_equal(self, a: Self, b: Self) -> Self {
        // SAFETY: NEON.
        self.masked(std::array::from_fn(|half| unsafe { vceqq_f32(a.0[half], b.0[half]) }))
    }

    #[inline(always)]
    unsafe fn larger_or_nan(self, other: Self, a: Self, b: Self) -> Self {
        // SAFETY: NEON.
        Self(std::array::from_fn(|half| unsafe {
            let (x, y) = (self.0[half], other.0[half]);
            // A number is equal to itself: what is not, is no number.
            vbslq_f32(vornq_u32(vcgtq_f32(x, y), vceqq_f32(x, x)), a.0[half], b.0[half])
        }))
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        // SAFETY: the caller vouches for eight bytes at `from`.
        unsafe {
            let wide = vmovl_u8(vld1_u8(from));
            Self([vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(wide)))])
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8) {
        // SAFETY: the caller vouches for room for eight bytes at `to`.
        unsafe {
            let halves = self.0.map(|x| vmovn_u32(vcvtq_u32_f32(x)));
            vst1_u8(to, vmovn_u16(vcombine_u16(halves[0], halves[1])));
        }
    }

    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        // SAFETY: NEON.
        Self(self.0.map(|x| unsafe { vsqrtq_f32(x) }))
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: NEON.
        self.zip(other, |a, b| unsafe { vdivq_f32(a, b) })
    }
}
