//! Random changes that leave an image's meaning as it is.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use synovia_cohort::Geometry;

/// How far an image may be changed. The defaults suit radiographs: no flip, as the heart has a side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Largest shift in each direction, as a share of the side.
    pub shift: f32,
    /// Largest rotation either way, degrees.
    pub rotate: f32,
    /// Largest change of scale either way: 0.1 is 0.9 to 1.1.
    pub scale: f32,
    /// Standard deviation of added noise.
    pub noise: f32,
    /// Largest change of brightness and contrast either way.
    pub brightness: f32,
    /// Whether left and right may be exchanged.
    pub flip: bool,
}

impl Augmentation {
    /// No change at all.
    pub const NONE: Self = Self { shift: 0.0, rotate: 0.0, scale: 0.0, noise: 0.0, brightness: 0.0, flip: false };

    /// Changes `image` in place; `scratch` is reused between calls.
    ///
    /// # Shapes
    /// - image: `[channels × height × width]`, values in [0, 1]
    pub fn apply(&self, image: &mut [f32], geometry: Geometry, rng: &mut ChaCha8Rng, scratch: &mut Vec<f32>) {
        if *self == Self::NONE {
            return;
        }
        let mut within = |limit: f32| if limit > 0.0 { rng.random_range(-limit..=limit) } else { 0.0 };
        let (dx, dy) = (within(self.shift) * geometry.width as f32, within(self.shift) * geometry.height as f32);
        let (angle, scale) = (within(self.rotate).to_radians(), 1.0 + within(self.scale));
        let (brightness, contrast) = (within(self.brightness), 1.0 + within(self.brightness));
        let flip = self.flip && rng.random::<bool>();
        if dx != 0.0 || dy != 0.0 || angle != 0.0 || scale != 1.0 || flip {
            scratch.clear();
            scratch.extend_from_slice(image);
            warp(scratch, image, geometry, &Warp { dx, dy, angle, scale, flip });
        }
        for x in image.iter_mut() {
            let noise = if self.noise > 0.0 { self.noise * gaussian(rng) } else { 0.0 };
            *x = ((*x - 0.5) * contrast + 0.5 + brightness + noise).clamp(0.0, 1.0);
        }
    }
}

/// Sum of four uniforms, scaled to unit variance: near enough to normal for noise, and much cheaper.
fn gaussian(rng: &mut ChaCha8Rng) -> f32 {
    let bits: u64 = rng.random();
    let sum: u64 = (0..4).map(|k| (bits >> (16 * k)) & 0xffff).sum();
    (sum as f32 / 65536.0 - 2.0) * 3f32.sqrt()
}

struct Warp {
    dx: f32,
    dy: f32,
    angle: f32,
    scale: f32,
    flip: bool,
}

/// Rotation and scaling about the centre, then a shift; bilinear, the edge repeated outside.
fn warp(source: &[f32], target: &mut [f32], geometry: Geometry, warp: &Warp) {
    let Geometry { channels, height, width } = geometry;
    let (cx, cy) = ((width - 1) as f32 / 2.0, (height - 1) as f32 / 2.0);
    let (sin, cos) = (warp.angle.sin() / warp.scale, warp.angle.cos() / warp.scale);
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (x as f32 - cx - warp.dx, y as f32 - cy - warp.dy);
            let (mut sx, sy) = (cos * u + sin * v + cx, cos * v - sin * u + cy);
            if warp.flip {
                sx = (width - 1) as f32 - sx;
            }
            let (sx, sy) = (sx.clamp(0.0, (width - 1) as f32), sy.clamp(0.0, (height - 1) as f32));
            let (x0, y0) = (sx as usize, sy as usize);
            let (x1, y1) = ((x0 + 1).min(width - 1), (y0 + 1).min(height - 1));
            let (fx, fy) = (sx - x0 as f32, sy - y0 as f32);
            for c in 0..channels {
                let at = |y: usize, x: usize| source[(c * height + y) * width + x];
                let top = at(y0, x0) * (1.0 - fx) + at(y0, x1) * fx;
                let bottom = at(y1, x0) * (1.0 - fx) + at(y1, x1) * fx;
                target[(c * height + y) * width + x] = top * (1.0 - fy) + bottom * fy;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const GEOMETRY: Geometry = Geometry { channels: 1, height: 5, width: 5 };

    fn dot(x: usize, y: usize) -> Vec<f32> {
        let mut image = vec![0.0; 25];
        image[y * 5 + x] = 1.0;
        image
    }

    #[test]
    fn a_shift_a_quarter_turn_and_a_flip() {
        let run = |warp_by: Warp| {
            let mut out = vec![0.0; 25];
            warp(&dot(1, 2), &mut out, GEOMETRY, &warp_by);
            out
        };
        let still = || Warp { dx: 0.0, dy: 0.0, angle: 0.0, scale: 1.0, flip: false };
        assert_eq!(run(still()), dot(1, 2));
        assert_eq!(run(Warp { dx: 1.0, ..still() }), dot(2, 2));
        assert_eq!(run(Warp { flip: true, ..still() }), dot(3, 2));
        let turned = run(Warp { angle: std::f32::consts::FRAC_PI_2, ..still() });
        let expected = dot(2, 1);
        assert!(turned.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{turned:?}");
    }

    #[test]
    fn stays_in_range_and_repeats() {
        let augmentation = Augmentation { shift: 0.1, rotate: 20.0, scale: 0.2, noise: 0.3, brightness: 0.5, flip: true };
        let run = |seed| {
            let mut image = dot(1, 2);
            augmentation.apply(&mut image, GEOMETRY, &mut ChaCha8Rng::seed_from_u64(seed), &mut Vec::new());
            image
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(3).iter().all(|x| (0.0..=1.0).contains(x)));
    }

    #[test]
    fn noise_has_unit_variance() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let draws: Vec<f32> = (0..20_000).map(|_| gaussian(&mut rng)).collect();
        let mean = draws.iter().sum::<f32>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
    }
}
