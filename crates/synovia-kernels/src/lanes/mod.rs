//! Eight numbers at a time: one interface, a form for AVX2 + FMA, one for NEON and a portable one, so that each kernel is written
//! once. Inner products take sixteen at a time, which AVX-512 has a register for; elsewhere that is two of eight.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::LazyLock;

#[cfg(target_arch = "aarch64")]
use neon::Neon;
use portable::Portable;
#[cfg(target_arch = "x86_64")]
use x86::{Avx2, Avx512};

use crate::shared::{Source, Target};

/// Eight `f32` that are computed on together.
///
/// # Safety
/// The methods of an implementation that uses processor features may only run where those features were found; kernels are
/// therefore entered through [`Found::run`] alone.
pub(crate) trait Lanes: Copy {
    /// Twice as many, for inner products.
    type Wide: Wide;

    /// Says that what is at `from`, which may be any address, is going to be read; of no effect where the processor is not told so.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    #[inline(always)]
    unsafe fn prefetch(_from: Source) {}

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
    /// Whole numbers of 0 to 255 as bytes.
    ///
    /// # Safety
    /// Eight bytes can be written at `to`, and the processor has what the implementation needs.
    unsafe fn store_bytes(self, to: *mut u8);
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

/// Sixteen `f32`: a row of a panel of packed weights, or sums of such rows.
///
/// # Safety
/// As [`Lanes`].
pub(crate) trait Wide: Copy {
    /// # Safety
    /// Sixteen numbers can be read at `from`, and the processor has what the implementation needs.
    unsafe fn load(from: Source) -> Self;
    /// # Safety
    /// Sixteen numbers can be written at `to`, and the processor has what the implementation needs.
    unsafe fn store(self, to: Target);
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn splat(x: f32) -> Self;
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn add(self, other: Self) -> Self;
    /// `self · factor + term`.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
}

/// Two of eight.
#[derive(Clone, Copy)]
pub(crate) struct Pair<V>([V; 2]);

impl<V: Lanes> Wide for Pair<V> {
    #[inline(always)]
    unsafe fn load(from: Source) -> Self {
        // SAFETY: the caller vouches for sixteen numbers and for the processor; so below.
        unsafe { Self([V::load(from), V::load(from.add(8))]) }
    }

    #[inline(always)]
    unsafe fn store(self, to: Target) {
        // SAFETY: as above.
        unsafe {
            self.0[0].store(to);
            self.0[1].store(to.add(8));
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: as above.
        unsafe { Self([V::splat(x); 2]) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { Self([self.0[0].add(other.0[0]), self.0[1].add(other.0[1])]) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: as above.
        unsafe { Self([self.0[0].mul_add(factor.0[0], term.0[0]), self.0[1].mul_add(factor.0[1], term.0[1])]) }
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

/// Lanes that were found on this processor: a value of it is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Found {
    /// What this processor has, the widest last.
    pub(crate) fn all() -> Vec<Self> {
        #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(unused_mut))]
        let mut all = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            all.push(Self(Kind::Avx2));
            if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vl") {
                all.push(Self(Kind::Avx512));
            }
        }
        // Part of every processor of this architecture that has an operating system.
        #[cfg(target_arch = "aarch64")]
        all.push(Self(Kind::Neon));
        all
    }

    /// As `SYNOVIA_LANES` names them.
    fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    /// Runs `kernel` on them.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: this function is only entered where AVX2 and FMA were found.
            unsafe { kernel.run::<Avx2>() }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
        fn with_avx512<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: this function is only entered where all of them were found.
            unsafe { kernel.run::<Avx512>() }
        }
        // SAFETY: the portable form needs nothing, and what the others need was found when `self` was made.
        unsafe {
            match self.0 {
                Kind::Portable => kernel.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => with_avx2(kernel),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => with_avx512(kernel),
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => kernel.run::<Neon>(),
            }
        }
    }
}

/// The lanes that the environment variable `SYNOVIA_LANES` names; the widest where it names none, and, said on stderr, where it names some
/// that this processor does not have.
static CHOSEN: LazyLock<Found> = LazyLock::new(|| {
    let all = Found::all();
    let widest = all[all.len() - 1];
    match std::env::var("SYNOVIA_LANES") {
        Ok(named) if named != "widest" => all.iter().copied().find(|found| found.name() == named).unwrap_or_else(|| {
            let names: Vec<&str> = all.iter().map(|found| found.name()).collect();
            eprintln!("SYNOVIA_LANES is \"{named}\"; computing on {}, of {}", widest.name(), names.join(", "));
            widest
        }),
        _ => widest,
    }
});

/// Runs `kernel` on the widest lanes that this processor has, or on those that `SYNOVIA_LANES` names.
#[inline]
pub(crate) fn vectorized<K: Kernel>(kernel: K) -> K::Output {
    CHOSEN.run(kernel)
}
