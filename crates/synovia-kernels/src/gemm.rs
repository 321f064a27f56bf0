//! The two inner products that all convolutions here come down to, for 1 to 6 rows by 16 columns in registers.
//!
//! Six rows by two vectors use 12 of AVX2's 16 registers: 12 multiply-adds a step against 8 loads, so that both multipliers of
//! the core stay busy.

use crate::lanes::Lanes;
use crate::shared::{Source, Target};

/// Rows in registers.
pub(crate) const ROWS: usize = 6;
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
        let mut sums = [[V::splat(0.0); 2]; R];
        let mut b = b;
        for tap in 0..n_taps {
            let rows: [Source; R] = std::array::from_fn(|r| (*a.add(tap))[r]);
            for i in 0..k {
                let (b0, b1) = (V::load(b), V::load(b.add(8)));
                b = b.add(COLUMNS);
                for r in 0..R {
                    let x = V::splat(*rows[r].add(i));
                    sums[r][0] = x.mul_add(b0, sums[r][0]);
                    sums[r][1] = x.mul_add(b1, sums[r][1]);
                }
            }
        }
        for r in 0..R {
            let to = c[r];
            if accumulate {
                sums[r][0] = sums[r][0].add(V::load(to));
                sums[r][1] = sums[r][1].add(V::load(to.add(8)));
            }
            sums[r][0].store(to);
            sums[r][1].store(to.add(8));
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
        match n_rows {
            6 => rows_by_panel::<V, 6>(n_taps, k, a, b, c, accumulate),
            5 => rows_by_panel::<V, 5>(n_taps, k, a, b, c, accumulate),
            4 => rows_by_panel::<V, 4>(n_taps, k, a, b, c, accumulate),
            3 => rows_by_panel::<V, 3>(n_taps, k, a, b, c, accumulate),
            2 => rows_by_panel::<V, 2>(n_taps, k, a, b, c, accumulate),
            _ => rows_by_panel::<V, 1>(n_taps, k, a, b, c, accumulate),
        }
    }
}

/// Where the rows of [`columns_times_panel`] are.
pub(crate) trait Rows: Copy {
    /// # Safety
    /// `k` is below the number of rows.
    unsafe fn row(self, k: usize) -> Source;
}

/// Rows at equal distances.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    /// First row.
    pub first: Source,
    /// Numbers from a row to the next.
    pub stride: usize,
}

impl Rows for Strided {
    #[inline(always)]
    unsafe fn row(self, k: usize) -> Source {
        // SAFETY: the caller keeps `k` below the number of rows.
        unsafe { self.first.add(k * self.stride) }
    }
}

/// Rows anywhere.
#[derive(Clone, Copy)]
pub(crate) struct Listed {
    /// Address of each row.
    pub rows: *const Source,
    /// Numbers to skip at the begin of each.
    pub skip: usize,
}

impl Rows for Listed {
    #[inline(always)]
    unsafe fn row(self, k: usize) -> Source {
        // SAFETY: the caller keeps `k` below the number of rows.
        unsafe { (*self.rows.add(k)).add(self.skip) }
    }
}

/// `c[r][0..16] += Σ_k a[k][r] · b[k][0..16]` for `r < R`.
///
/// # Safety
/// Each of the `k` rows has `R` readable numbers, `b` has `k · 16`, and each of `R` rows of `c`, `c_stride` apart, has 16
/// readable and writable ones.
#[inline(always)]
unsafe fn columns_by_panel<V: Lanes, A: Rows, const R: usize>(k: usize, a: A, b: Source, c: Target, c_stride: usize) {
    // SAFETY: all addresses are within what the caller vouches for.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; R];
        for i in 0..k {
            let row = a.row(i);
            let b = b.add(i * COLUMNS);
            let (b0, b1) = (V::load(b), V::load(b.add(8)));
            for r in 0..R {
                let x = V::splat(*row.add(r));
                sums[r][0] = x.mul_add(b0, sums[r][0]);
                sums[r][1] = x.mul_add(b1, sums[r][1]);
            }
        }
        for r in 0..R {
            let to = c.add(r * c_stride);
            sums[r][0].add(V::load(to)).store(to);
            sums[r][1].add(V::load(to.add(8))).store(to.add(8));
        }
    }
}

/// [`columns_by_panel`] for `n_rows` of 1 to 6.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn columns_times_panel<V: Lanes, A: Rows>(n_rows: usize, k: usize, a: A, b: Source, c: Target, c_stride: usize) {
    // SAFETY: the caller's promise is the callee's.
    unsafe {
        match n_rows {
            6 => columns_by_panel::<V, A, 6>(k, a, b, c, c_stride),
            5 => columns_by_panel::<V, A, 5>(k, a, b, c, c_stride),
            4 => columns_by_panel::<V, A, 4>(k, a, b, c, c_stride),
            3 => columns_by_panel::<V, A, 3>(k, a, b, c, c_stride),
            2 => columns_by_panel::<V, A, 2>(k, a, b, c, c_stride),
            _ => columns_by_panel::<V, A, 1>(k, a, b, c, c_stride),
        }
    }
}
