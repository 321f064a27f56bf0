//! The interval of a share.

use crate::normal::two_sided_z;

/// Wilson's interval (1927) of `successes` of `n` at `level`; `None` without trials. Unlike p ± z·se it stays in [0, 1] and says
/// something of 0 of 20.
pub fn wilson_interval(successes: usize, n: usize, level: f64) -> Option<(f64, f64)> {
    if n == 0 || successes > n {
        return None;
    }
    let (z, n) = (two_sided_z(level), n as f64);
    let p = successes as f64 / n;
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    Some((((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0)))
}
