//! The matrices of the algorithm times a vector: `Bᵀ`, `Aᵀ`, `A`, `G` and `Gᵀ`, of F(2, 3), F(3, 3) and F(4, 3): by the points 0, ±1, (±)2 and infinity.

use crate::lanes::Lanes;

/// `Bᵀ d`
#[inline(always)]
pub(super) unsafe fn input_1d<V: Lanes, const N: usize>(d: [V; N]) -> [V; N] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let mut out = d;
        if N == 6 {
            let (four, five, two) = (V::splat(4.0), V::splat(-5.0), V::splat(2.0));
            // 4 d0 − 5 d2 + d4, 4 d1 − 5 d3 + d5
            out[0] = d[0].mul_add(four, d[2].mul_add(five, d[4]));
            out[5] = d[1].mul_add(four, d[3].mul_add(five, d[5]));
            let (even, odd) = (d[2].mul_add(V::splat(-4.0), d[4]), d[1].mul_add(V::splat(-4.0), d[3]));
            out[1] = even.add(odd);
            out[2] = even.sub(odd);
            let (even, odd) = (d[4].sub(d[2]), d[3].sub(d[1]).mul(two));
            out[3] = even.add(odd);
            out[4] = even.sub(odd);
        } else if N == 5 {
            let (two, minus_two) = (V::splat(2.0), V::splat(-2.0));
            let difference = d[3].sub(d[1]);
            // 2 d0 − d1 − 2 d2 + d3, 2 d1 − d2 − 2 d3 + d4
            out[0] = d[0].sub(d[2]).mul_add(two, difference);
            out[4] = difference.mul_add(minus_two, d[4].sub(d[2]));
            out[1] = d[1].mul_add(minus_two, d[3].sub(d[2]));
            out[2] = d[1].mul_add(two, d[2].mul_add(V::splat(-3.0), d[3]));
            out[3] = difference;
        } else {
            out[0] = d[0].sub(d[2]);
            out[1] = d[1].add(d[2]);
            out[2] = d[2].sub(d[1]);
            out[3] = d[1].sub(d[3]);
        }
        out
    }
}

/// `Aᵀ m`
#[inline(always)]
pub(super) unsafe fn output_1d<V: Lanes, const M: usize, const N: usize>(m: [V; N]) -> [V; M] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let mut out = [m[0]; M];
        if M == 4 {
            let (sum_1, difference_1) = (m[1].add(m[2]), m[1].sub(m[2]));
            let (sum_2, difference_2) = (m[3].add(m[4]), m[3].sub(m[4]));
            out[0] = m[0].add(sum_1).add(sum_2);
            out[1] = difference_2.mul_add(V::splat(2.0), difference_1);
            out[2] = sum_2.mul_add(V::splat(4.0), sum_1);
            out[3] = difference_2.mul_add(V::splat(8.0), difference_1).add(m[5]);
        } else if M == 3 {
            let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
            out[0] = m[0].add(sum).add(m[3]);
            out[1] = m[3].mul_add(V::splat(2.0), difference);
            out[2] = m[3].mul_add(V::splat(4.0), sum).add(m[4]);
        } else {
            out[0] = m[0].add(m[1]).add(m[2]);
            out[1] = m[1].sub(m[2]).sub(m[3]);
        }
        out
    }
}

/// `A y`
#[inline(always)]
pub(super) unsafe fn output_gradient_1d<V: Lanes, const M: usize, const N: usize>(y: [V; M]) -> [V; N] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let mut out = [y[0]; N];
        if M == 4 {
            let (even, odd) = (y[0].add(y[2]), y[1].add(y[3]));
            out[1] = even.add(odd);
            out[2] = even.sub(odd);
            let (even, odd) = (y[2].mul_add(V::splat(4.0), y[0]), y[3].mul_add(V::splat(4.0), y[1]).mul(V::splat(2.0)));
            out[3] = even.add(odd);
            out[4] = even.sub(odd);
            out[5] = y[3];
        } else if M == 3 {
            let even = y[0].add(y[2]);
            out[1] = even.add(y[1]);
            out[2] = even.sub(y[1]);
            out[3] = y[2].mul_add(V::splat(4.0), y[1].mul_add(V::splat(2.0), y[0]));
            out[4] = y[2];
        } else {
            out[1] = y[0].add(y[1]);
            out[2] = y[0].sub(y[1]);
            out[3] = V::splat(0.0).sub(y[1]);
        }
        out
    }
}

/// `G g`
#[inline(always)]
pub(super) unsafe fn weight_1d<V: Lanes, const N: usize>(g: [V; 3]) -> [V; N] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let mut out = [g[0]; N];
        if N == 6 {
            out[0] = g[0].mul(V::splat(0.25));
            let (even, odd) = (g[0].add(g[2]).mul(V::splat(-1.0 / 6.0)), g[1].mul(V::splat(-1.0 / 6.0)));
            out[1] = even.add(odd);
            out[2] = even.sub(odd);
            let even = g[2].mul_add(V::splat(4.0), g[0]).mul(V::splat(1.0 / 24.0));
            let odd = g[1].mul(V::splat(1.0 / 12.0));
            out[3] = even.add(odd);
            out[4] = even.sub(odd);
            out[5] = g[2];
        } else if N == 5 {
            let (even, sixth) = (g[0].add(g[2]), V::splat(1.0 / 6.0));
            out[0] = g[0].mul(V::splat(0.5));
            out[1] = even.add(g[1]).mul(V::splat(-0.5));
            out[2] = g[1].sub(even).mul(sixth);
            out[3] = g[2].mul_add(V::splat(4.0), g[1].mul_add(V::splat(2.0), g[0])).mul(sixth);
            out[4] = g[2];
        } else {
            let (even, odd) = (g[0].add(g[2]).mul(V::splat(0.5)), g[1].mul(V::splat(0.5)));
            out[1] = even.add(odd);
            out[2] = even.sub(odd);
            out[3] = g[2];
        }
        out
    }
}

/// `Gᵀ u`
#[inline(always)]
pub(super) unsafe fn weight_gradient_1d<V: Lanes, const N: usize>(u: [V; N]) -> [V; 3] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let (sum_1, difference_1) = (u[1].add(u[2]), u[1].sub(u[2]));
        if N == 5 {
            let (half, sixth) = (V::splat(0.5), V::splat(1.0 / 6.0));
            // (u0 − u1) / 2 + (u3 − u2) / 6, −u1 / 2 + u2 / 6 + u3 / 3, −u1 / 2 − u2 / 6 + 2 u3 / 3 + u4
            let first = u[0].sub(u[1]).mul(half);
            let rest = u[1].mul(V::splat(-0.5));
            [
                u[3].sub(u[2]).mul_add(sixth, first),
                u[3].mul_add(V::splat(2.0), u[2]).mul_add(sixth, rest),
                u[3].mul_add(V::splat(4.0), V::splat(0.0).sub(u[2])).mul_add(sixth, rest.add(u[4])),
            ]
        } else if N == 6 {
            let (sum_1, difference_1) = (sum_1.mul(V::splat(-1.0 / 6.0)), difference_1.mul(V::splat(-1.0 / 6.0)));
            let (sum_2, difference_2) = (u[3].add(u[4]), u[3].sub(u[4]));
            [
                u[0].mul_add(V::splat(0.25), sum_2.mul_add(V::splat(1.0 / 24.0), sum_1)),
                difference_2.mul_add(V::splat(1.0 / 12.0), difference_1),
                sum_2.mul_add(V::splat(1.0 / 6.0), sum_1).add(u[5]),
            ]
        } else {
            let half = V::splat(0.5);
            [sum_1.mul_add(half, u[0]), difference_1.mul(half), sum_1.mul_add(half, u[3])]
        }
    }
}
