//! The kernels against their definitions in double precision, and towers against burn's own operations.

#[cfg(feature = "burn")]
mod burns_operations;
mod convolutions;
mod lanes;
mod pooling;
mod towers;

/// Numbers in [−0.5, 0.5).
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..len).map(|_| next()).collect()
}

/// Norm of the difference over the norm of what is expected.
fn distance(got: &[f32], expected: impl IntoIterator<Item = f64>) -> f64 {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (a, b) in got.iter().zip(expected) {
        difference += (f64::from(*a) - b).powi(2);
        norm += b * b;
    }
    (difference / norm.max(1e-30)).sqrt()
}
