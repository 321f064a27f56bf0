//! The lateral chest radiograph: anatomy and noise, and no factor at all.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::canvas::{Canvas, Ellipse, mix, ramp};

/// Rows and columns.
pub(crate) const LATERAL_SIZE: usize = 96;

/// Draws the lateral view, spine to the right.
pub(crate) fn lateral(grain: f32, rng: &mut ChaCha8Rng) -> Canvas {
    let dx = rng.random_range(-2.0f32..2.0);
    let body = Ellipse { x: 48.0 + dx, y: 56.0, a: 38.0, b: 66.0 };
    let lung = Ellipse { x: 46.0 + dx, y: 44.0, a: 27.0, b: 34.0 };
    let heart = Ellipse { x: 36.0 + dx, y: 60.0, a: 15.0, b: 13.0 };
    let phase = rng.random_range(0.0f32..8.0);
    let mut canvas = Canvas::paint(LATERAL_SIZE, |x, y| {
        let inside = body.cover(x, y, 4.0);
        let mut v = mix(0.04, 0.55, inside);
        v = mix(v, 0.20, lung.cover(x, y, 4.0));
        v = mix(v, 0.58, heart.cover(x, y, 4.0));
        // The spine, curved, with its discs.
        let distance = (x - (70.0 + dx - 0.004 * (y - 45.0).powi(2))).abs();
        let vertebra = 0.75 + 0.25 * ((y + phase) * 0.8).sin();
        v = mix(v, 0.74, 0.8 * vertebra * ramp((6.0 - distance) / 3.0) * inside);
        // The diaphragm.
        mix(v, 0.62, ramp((y - (76.0 - 0.12 * (x - 40.0))) / 4.0) * inside)
    });
    canvas.expose(grain, rng);
    canvas
}
