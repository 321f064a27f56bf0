//! Eight numbers at a time: one interface, a form for AVX2 + FMA, one for NEON and a portable one, so that each kernel is written
//! once.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;

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

/// What the environment says of the lanes: `SYNOVIA_LANES=portable` computes on those that every processor has.
static PORTABLE: LazyLock<bool> = LazyLock::new(|| std::env::var_os("SYNOVIA_LANES").is_some_and(|lanes| lanes == "portable"));

/// Runs `kernel` on the widest lanes that this processor has, or on the portable ones where `SYNOVIA_LANES` says so.
#[inline]
pub(crate) fn vectorized<K: Kernel>(kernel: K) -> K::Output {
    if *PORTABLE {
        // SAFETY: the portable form needs nothing.
        return unsafe { kernel.run::<Portable>() };
    }
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
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: NEON is part of every processor of this architecture that has an operating system.
        return unsafe { kernel.run::<Neon>() };
    }
    #[cfg(not(target_arch = "aarch64"))]
    // SAFETY: the portable form needs nothing.
    unsafe {
        kernel.run::<Portable>()
    }
}
