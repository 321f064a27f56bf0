//! Eight numbers at a time: one interface, an AVX2 + FMA form and a portable one, so that each kernel is written once.

use crate::shared::{Source, Target};

/// Eight `f32` that are computed on together.
///
/// # Safety
/// The methods of an implementation that uses processor features may only run where those features were found; kernels are
/// therefore entered through [`vectorized`] alone.
pub(crate) trait Lanes: Copy {
    /// # Safety
    /// Eight numbers can be read at `from`, and the processor has what the implementation needs.
    unsafe fn load(from: Source) -> Self;
    /// # Safety
    /// Eight numbers can be written at `to`, and the processor has what the implementation needs.
    unsafe fn store(self, to: Target);
    /// # Safety
    /// The processor has what the implementation needs.
    unsafe fn splat(x: f32) -> Self;
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn add(self, other: Self) -> Self;
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn sub(self, other: Self) -> Self;
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn mul(self, other: Self) -> Self;
    /// `self · factor + term`.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger one, lane by lane; `other` where one of them is not a number: `zero.max(x)` keeps a NaN of `x`.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn max(self, other: Self) -> Self;
    /// `self` where `condition` is positive, else 0.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn where_positive(self, condition: Self) -> Self;
    /// `self` where `a` equals `b`, else 0.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn where_equal(self, a: Self, b: Self) -> Self;
    /// `a` where `self` is larger than `other` or not a number, else `b`.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn larger_or_nan(self, other: Self, a: Self, b: Self) -> Self;
    /// Eight bytes as numbers.
    ///
    /// # Safety
    /// Eight bytes can be read at `from`, and the processor has what the implementation needs.
    unsafe fn load_bytes(from: *const u8) -> Self;
    /// The square root.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn sqrt(self) -> Self;
    /// `self / other`.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn div(self, other: Self) -> Self;
}

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
    unsafe fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
}

/// For x86-64 with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2(std::arch::x86_64::__m256);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
    #[inline(always)]
    unsafe fn load(from: Source) -> Self {
        // SAFETY: the caller vouches for the address and for AVX.
        unsafe { Self(std::arch::x86_64::_mm256_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: Target) {
        // SAFETY: the caller vouches for the address and for AVX.
        unsafe { std::arch::x86_64::_mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(std::arch::x86_64::_mm256_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(std::arch::x86_64::_mm256_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(std::arch::x86_64::_mm256_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(std::arch::x86_64::_mm256_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: the caller vouches for FMA.
        unsafe { Self(std::arch::x86_64::_mm256_fmadd_ps(self.0, factor.0, term.0)) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(std::arch::x86_64::_mm256_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn where_positive(self, condition: Self) -> Self {
        use std::arch::x86_64::{_CMP_GT_OQ, _mm256_and_ps, _mm256_cmp_ps, _mm256_setzero_ps};
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_GT_OQ>(condition.0, _mm256_setzero_ps()))) }
    }

    #[inline(always)]
    unsafe fn where_equal(self, a: Self, b: Self) -> Self {
        use std::arch::x86_64::{_CMP_EQ_OQ, _mm256_and_ps, _mm256_cmp_ps};
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(_mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_EQ_OQ>(a.0, b.0))) }
    }

    #[inline(always)]
    unsafe fn larger_or_nan(self, other: Self, a: Self, b: Self) -> Self {
        use std::arch::x86_64::{_CMP_GT_OQ, _CMP_UNORD_Q, _mm256_blendv_ps, _mm256_cmp_ps, _mm256_or_ps};
        // SAFETY: the caller vouches for AVX.
        unsafe {
            let (larger, nan) = (_mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0), _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0));
            Self(_mm256_blendv_ps(b.0, a.0, _mm256_or_ps(larger, nan)))
        }
    }

    #[inline(always)]
    // The instruction needs no alignment.
    #[allow(clippy::cast_ptr_alignment)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        use std::arch::x86_64::{_mm_loadl_epi64, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32};
        // SAFETY: the caller vouches for eight bytes at `from` and for AVX2.
        unsafe { Self(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(std::arch::x86_64::_mm256_sqrt_ps(self.0)) }
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX.
        unsafe { Self(std::arch::x86_64::_mm256_div_ps(self.0, other.0)) }
    }
}

/// A kernel that can run on any kind of [`Lanes`].
pub(crate) trait Kernel {
    /// What it computes.
    type Output;
    /// Runs it.
    ///
    /// # Safety
    /// The processor has what `V` needs. Implementations must be `#[inline(always)]`, so that they are compiled with the
    /// features of the place that they are called from.
    unsafe fn run<V: Lanes>(self) -> Self::Output;
}

/// Runs `kernel` on the widest lanes that this processor has.
#[inline]
pub(crate) fn vectorized<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: this function is only entered where AVX2 and FMA were found.
            unsafe { kernel.run::<Avx2>() }
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: both features were just found.
            return unsafe { with_avx2(kernel) };
        }
    }
    // SAFETY: the portable form needs nothing.
    unsafe { kernel.run::<Portable>() }
}
