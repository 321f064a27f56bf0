//! A square of brightness, and what is common to all exposures: soft shapes, scatter, gain and noise.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Largest pixel value of 12 bits stored.
pub(crate) const MAX_12_BIT: u16 = 4095;

/// A square image, row by row from the top.
pub(crate) struct Canvas {
    size: usize,
    pixels: Vec<f32>,
}

/// An ellipse by centre and half-axes, in pixels.
#[derive(Clone, Copy)]
pub(crate) struct Ellipse {
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) a: f32,
    pub(crate) b: f32,
}

impl Ellipse {
    /// 1 inside, 0 outside, with an edge about `soft` pixels wide.
    pub(crate) fn cover(&self, x: f32, y: f32, soft: f32) -> f32 {
        let (u, v) = ((x - self.x) / self.a, (y - self.y) / self.b);
        ramp((1.0 - (u * u + v * v).sqrt()) * self.a.min(self.b) / soft + 0.5)
    }
}

/// Smooth step from 0 at 0 to 1 at 1.
pub(crate) fn ramp(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// From `from` to `to` by `share`.
pub(crate) fn mix(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

impl Canvas {
    /// An image of `size` × `size` with the brightness that `f(x, y)` gives.
    pub(crate) fn paint(size: usize, f: impl Fn(f32, f32) -> f32) -> Self {
        let pixels = (0..size * size).map(|k| f((k % size) as f32, (k / size) as f32)).collect();
        Self { size, pixels }
    }

    /// Scatter, uneven illumination and quantum noise of an exposure; `grain` is the noise's standard deviation.
    pub(crate) fn expose(&mut self, grain: f32, rng: &mut ChaCha8Rng) {
        const CELLS: usize = 8;
        let gain = 1.0 + 0.05 * rng.random_range(-1.0f32..1.0);
        let offset = 0.025 * rng.random_range(-1.0f32..1.0);
        let scatter: [[f32; CELLS + 1]; CELLS + 1] =
            std::array::from_fn(|_| std::array::from_fn(|_| 0.035 * rng.sample::<f32, _>(StandardNormal)));
        let scale = CELLS as f32 / self.size as f32;
        let half = self.size as f32 / 2.0;
        for (k, pixel) in self.pixels.iter_mut().enumerate() {
            let (x, y) = ((k % self.size) as f32, (k / self.size) as f32);
            let (u, v) = (x * scale, y * scale);
            let (i, j) = (u as usize, v as usize);
            let (s, t) = (ramp(u - i as f32), ramp(v - j as f32));
            let haze = mix(mix(scatter[j][i], scatter[j][i + 1], s), mix(scatter[j + 1][i], scatter[j + 1][i + 1], s), t);
            let radius_2 = ((x - half).powi(2) + (y - half).powi(2)) / (half * half);
            let light = gain * (1.0 - 0.07 * radius_2);
            *pixel = *pixel * light + offset + haze + grain * rng.sample::<f32, _>(StandardNormal);
        }
    }

    /// Pixel values of 12 bits, bright for dense (MONOCHROME2); `inverted` for MONOCHROME1.
    pub(crate) fn quantise(&self, inverted: bool) -> Vec<u16> {
        let value = |brightness: &f32| (300.0 + 3000.0 * brightness).clamp(0.0, f32::from(MAX_12_BIT)) as u16;
        self.pixels.iter().map(value).map(|v| if inverted { MAX_12_BIT - v } else { v }).collect()
    }
}
