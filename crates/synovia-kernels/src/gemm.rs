//! The inner products that all convolutions here come down to, for 1 to 6 rows by 16 columns in registers: of rows wherever they are, of
//! rows a step apart, and of columns.
//!
//! Six rows by two vectors use 12 of AVX2's 16 registers: 12 multiply-adds a step against 8 loads, so that both multipliers of
//! the core stay busy. With AVX-512 it is six by one, which keeps the one multiplier of a Zen 4 busy; two would want eight rows.

use crate::lanes::{Lanes, Wide};
use crate::shared::{Source, Target};

/// Rows in registers.
pub(crate) const ROWS: usize = 6;
/// `$call` with `$rows`, 1 to 6, as a number that the compiler knows.
macro_rules! by_rows {
    ($n_rows:expr, $rows:ident => $call:expr) => {
        by_rows!(@each $n_rows, $rows => $call; 6, 5, 4, 3, 2)
    };
    (@each $n_rows:expr, $rows:ident => $call:expr; $($known:literal),*) => {
        match $n_rows {
            $($known => {
                const $rows: usize = $known;
                $call
            })*
            _ => {
                const $rows: usize = 1;
                $call
            }
        }
    };
}

/// Columns in registers, and the width of a panel of packed weights.
pub(crate) const COLUMNS: usize = 16;

/// `c[r][0..16] (+)= Σ_tap Σ_k a[tap][r][k] · b[tap][k][0..16]` for `r < R`.
///
/// # Safety
/// For each of `n_taps` entries of `a`, its first `R` addresses have `k` readable numbers; `b` has `n_taps · k · 16`; the
/// first `R` addresses of `c` have 16 writable ones (readable, if `accumulate`).
#[inline(always)]
unsafe fn rows_by_panel<V: Lanes, const R: usize>(
    n_taps: usize,
    k: usize,
    a: *const [Source; ROWS],
    b: Source,
    c: &[Target; ROWS],
    accumulate: bool,
) {
    // SAFETY: all addresses are within what the caller vouches for.
    unsafe {
        let mut sums = [V::Wide::splat(0.0); R];
        let mut b = b;
        for tap in 0..n_taps {
            let rows: [Source; R] = std::array::from_fn(|r| (*a.add(tap))[r]);
            for i in 0..k {
                let row = V::Wide::load(b);
                b = b.add(COLUMNS);
                for r in 0..R {
                    sums[r] = V::Wide::splat(*rows[r].add(i)).mul_add(row, sums[r]);
                }
            }
        }
        for r in 0..R {
            let to = c[r];
            if accumulate {
                sums[r] = sums[r].add(V::Wide::load(to));
            }
            sums[r].store(to);
        }
    }
}

/// [`rows_by_panel`] for `n_rows` of 1 to 6.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn rows_times_panel<V: Lanes>(
    n_rows: usize,
    n_taps: usize,
    k: usize,
    a: *const [Source; ROWS],
    b: Source,
    c: &[Target; ROWS],
    accumulate: bool,
) {
    // SAFETY: the caller's promise is the callee's.
    unsafe {
        by_rows!(n_rows, R => rows_by_panel::<V, R>(n_taps, k, a, b, c, accumulate));
    }
}

/// `c[r][0..16] = Σ_dy Σ_i a[dy · row + r · step + i] · b[dy][i][0..16]` for `r < R`; `K` is the number of `i` where it is known, else 0.
///
/// # Safety
/// `a` has what is read of it, `b` has `n_taps · k · 16` numbers, `R` rows of `c`, `c_stride` apart, have 16 writable ones.
#[inline(always)]
unsafe fn strided_by_panel<V: Lanes, const R: usize, const K: usize>(
    [n_taps, k]: [usize; 2],
    (a, [row, step]): (Source, [usize; 2]),
    b: Source,
    (c, c_stride): (Target, usize),
) {
    let k = if K > 0 { K } else { k };
    // SAFETY: all addresses are within what the caller vouches for.
    unsafe {
        let mut sums = [V::Wide::splat(0.0); R];
        for dy in 0..n_taps {
            let (a, b) = (a.add(dy * row), b.add(dy * k * COLUMNS));
            for i in 0..k {
                let weights = V::Wide::load(b.add(i * COLUMNS));
                for r in 0..R {
                    sums[r] = V::Wide::splat(*a.add(r * step + i)).mul_add(weights, sums[r]);
                }
            }
        }
        for r in 0..R {
            sums[r].store(c.add(r * c_stride));
        }
    }
}

/// [`strided_by_panel`] for `n_rows` of 1 to 6 that lie a step apart, of taps (rows of a kernel) that do too.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn strided_times_panel<V: Lanes>(
    n_rows: usize,
    of_taps: [usize; 2],
    a: (Source, [usize; 2]),
    b: Source,
    c: (Target, usize),
) {
    // SAFETY: the caller's promise is the callee's.
    unsafe {
        by_rows!(n_rows, R => match of_taps[1] {
            // Rows of a usual stem, and of the narrowest layers: loops of known length.
            7 => strided_by_panel::<V, R, 7>(of_taps, a, b, c),
            16 => strided_by_panel::<V, R, 16>(of_taps, a, b, c),
            _ => strided_by_panel::<V, R, 0>(of_taps, a, b, c),
        });
    }
}

/// Numbers of a packed row of [`columns_times_panel`].
pub(crate) const PACKED: usize = 8;

/// How many rows of `n` to take at a time, so that all blocks are about equally large.
pub(crate) const fn balanced_rows(n: usize) -> usize {
    n.div_ceil(n.div_ceil(ROWS))
}

/// Copies `n_rows` numbers of each source to rows of [`PACKED`]: sources a large power of two apart would compete for the
/// same places of the first-level cache in each of the panels that they are multiplied with.
///
/// # Safety
/// Each source has `n_rows` readable numbers, and eight if `whole`; `to` has room for a packed row each; the processor has what
/// `V` needs.
#[inline(always)]
pub(crate) unsafe fn pack_rows<V: Lanes>(sources: impl Iterator<Item = Source>, n_rows: usize, whole: bool, to: Target) {
    for (k, source) in sources.enumerate() {
        // SAFETY: the caller vouches for both.
        unsafe {
            let to = to.add(k * PACKED);
            if whole {
                V::load(source).store(to);
            } else {
                for r in 0..n_rows {
                    *to.add(r) = *source.add(r);
                }
            }
        }
    }
}

/// `c[r][0..16] += Σ_k a[k · a_stride + r] · b[k][0..16]` for `r < R`.
///
/// # Safety
/// `a` has `R` numbers at each of `k` places, `b` has `k · 16` numbers, and each of `R` rows of `c`, `c_stride` apart, has 16 readable and
/// writable ones.
#[inline(always)]
unsafe fn columns_by_panel<V: Lanes, const R: usize>(k: usize, a: Source, a_stride: usize, b: Source, c: Target, c_stride: usize) {
    // SAFETY: all addresses are within what the caller vouches for.
    unsafe {
        let mut sums = [V::Wide::splat(0.0); R];
        for i in 0..k {
            let (a, row) = (a.add(i * a_stride), V::Wide::load(b.add(i * COLUMNS)));
            for r in 0..R {
                sums[r] = V::Wide::splat(*a.add(r)).mul_add(row, sums[r]);
            }
        }
        for r in 0..R {
            let to = c.add(r * c_stride);
            sums[r].add(V::Wide::load(to)).store(to);
        }
    }
}

/// [`columns_by_panel`] for `n_rows` of 1 to 6.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn columns_times_panel<V: Lanes>(
    n_rows: usize,
    k: usize,
    a: Source,
    a_stride: usize,
    b: Source,
    c: Target,
    c_stride: usize,
) {
    // SAFETY: the caller's promise is the callee's.
    unsafe {
        by_rows!(n_rows, R => columns_by_panel::<V, R>(k, a, a_stride, b, c, c_stride));
    }
}
