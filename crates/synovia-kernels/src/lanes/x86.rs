//! Lanes of x86-64 with AVX2 and FMA, and with AVX-512.

use std::arch::x86_64::{
    __m256, __m512, _CMP_EQ_OQ, _CMP_GT_OQ, _CMP_UNORD_Q, _MM_HINT_T0, _mm_loadl_epi64, _mm_packus_epi16, _mm_packus_epi32, _mm_prefetch,
    _mm_storel_epi64, _mm256_add_ps, _mm256_and_ps, _mm256_blendv_ps, _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_cvttps_epi32, _mm256_div_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps,
    _mm256_mul_ps, _mm256_or_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_sqrt_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
};
use std::marker::PhantomData;

use super::{Lanes, Wide};
use crate::shared::{Source, Target};

/// For x86-64 with AVX2 and FMA: inner products in pairs of registers.
pub(crate) type Avx2 = Ymm<TwoRegisters>;

/// For x86-64 with AVX-512 F and VL: inner products in registers of sixteen, and all else with twice as many registers.
pub(crate) type Avx512 = Ymm<OneRegister>;

/// A register of eight; `W` is what sixteen are.
#[derive(Clone, Copy)]
pub(crate) struct Ymm<W>(__m256, PhantomData<W>);

/// Two registers of eight.
#[derive(Clone, Copy)]
pub(crate) struct TwoRegisters([__m256; 2]);

/// A register of sixteen.
#[derive(Clone, Copy)]
pub(crate) struct OneRegister(__m512);

impl Wide for TwoRegisters {
    #[inline(always)]
    unsafe fn load(from: Source) -> Self {
        // SAFETY: the caller vouches for the address and for AVX.
        unsafe { Self([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]) }
    }

    #[inline(always)]
    unsafe fn store(self, to: Target) {
        // SAFETY: the caller vouches for the address and for AVX.
        unsafe {
            _mm256_storeu_ps(to, self.0[0]);
            _mm256_storeu_ps(to.add(8), self.0[1]);
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self([_mm256_set1_ps(x); 2]) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self([_mm256_add_ps(self.0[0], other.0[0]), _mm256_add_ps(self.0[1], other.0[1])]) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: the caller vouches for FMA.
        unsafe { Self([_mm256_fmadd_ps(self.0[0], factor.0[0], term.0[0]), _mm256_fmadd_ps(self.0[1], factor.0[1], term.0[1])]) }
    }
}

impl Wide for OneRegister {
    #[inline(always)]
    unsafe fn load(from: Source) -> Self {
        // SAFETY: the caller vouches for the address and for AVX-512.
        unsafe { Self(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: Target) {
        // SAFETY: the caller vouches for the address and for AVX-512.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for AVX-512.
        unsafe { Self(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX-512.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: the caller vouches for AVX-512.
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, term.0)) }
    }
}

impl<W: Wide> Lanes for Ymm<W> {
    type Wide = W;

    #[inline(always)]
    unsafe fn prefetch(from: Source) {
        // SAFETY: it is a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load(from: Source) -> Self {
        // SAFETY: the caller vouches for the address and for AVX.
        unsafe { Self(_mm256_loadu_ps(from), PhantomData) }
    }

    #[inline(always)]
    unsafe fn store(self, to: Target) {
        // SAFETY: the caller vouches for the address and for AVX.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_set1_ps(x), PhantomData) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_add_ps(self.0, other.0), PhantomData) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_sub_ps(self.0, other.0), PhantomData) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_mul_ps(self.0, other.0), PhantomData) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: the caller vouches for FMA.
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, term.0), PhantomData) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_max_ps(self.0, other.0), PhantomData) }
    }

    #[inline(always)]
    unsafe fn where_positive(self, condition: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_GT_OQ>(condition.0, _mm256_setzero_ps())), PhantomData) }
    }

    #[inline(always)]
    unsafe fn where_equal(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_EQ_OQ>(a.0, b.0)), PhantomData) }
    }

    #[inline(always)]
    unsafe fn larger_or_nan(self, other: Self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe {
            let (larger, nan) = (_mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0), _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0));
            Self(_mm256_blendv_ps(b.0, a.0, _mm256_or_ps(larger, nan)), PhantomData)
        }
    }

    #[inline(always)]
    // The instruction needs no alignment.
    #[allow(clippy::cast_ptr_alignment)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        // SAFETY: the caller vouches for eight bytes at `from` and for AVX2.
        unsafe { Self(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))), PhantomData) }
    }

    #[inline(always)]
    // The instruction needs no alignment.
    #[allow(clippy::cast_ptr_alignment)]
    unsafe fn store_bytes(self, to: *mut u8) {
        // SAFETY: the caller vouches for room for eight bytes at `to` and for AVX2.
        unsafe {
            let whole = _mm256_cvttps_epi32(self.0);
            let words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words));
        }
    }

    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_sqrt_ps(self.0), PhantomData) }
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_div_ps(self.0, other.0), PhantomData) }
    }
}
