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

/// Memory that one image after the other is changed in.
#[derive(Debug, Default)]
pub struct Scratch {
    source: Vec<f32>,
    words: Vec<u16>,
    looks: Row,
}

impl Augmentation {
    /// No change at all.
    pub const NONE: Self = Self { shift: 0.0, rotate: 0.0, scale: 0.0, noise: 0.0, brightness: 0.0, flip: false };

    /// Changes `image` in place; `scratch` is reused between calls.
    ///
    /// # Shapes
    /// - image: `[channels × height × width]`, values in [0, 1]
    pub fn apply(&self, image: &mut [f32], geometry: Geometry, rng: &mut ChaCha8Rng, scratch: &mut Scratch) {
        if *self == Self::NONE {
            return;
        }
        let mut within = |limit: f32| if limit > 0.0 { rng.random_range(-limit..=limit) } else { 0.0 };
        let (dx, dy) = (within(self.shift) * geometry.width as f32, within(self.shift) * geometry.height as f32);
        let (angle, scale) = (within(self.rotate).to_radians(), 1.0 + within(self.scale));
        let (brightness, contrast) = (within(self.brightness), 1.0 + within(self.brightness));
        let flip = self.flip && rng.random::<bool>();
        if dx != 0.0 || dy != 0.0 || angle != 0.0 || scale != 1.0 || flip {
            scratch.source.clear();
            scratch.source.extend_from_slice(image);
            warp(&scratch.source, image, geometry, &Warp { dx, dy, angle, scale, flip }, &mut scratch.looks);
        }
        // Four planes of random words, so that a pixel's four lie as far apart as the next one's: that is what makes vectors of them.
        let n = if self.noise > 0.0 { image.len() } else { 0 };
        scratch.words.resize(4 * n, 0);
        rng.fill(&mut scratch.words[..]);
        let level = |x: &mut f32, noise: f32| *x = ((*x - 0.5) * contrast + 0.5 + brightness + noise).clamp(0.0, 1.0);
        if n == 0 {
            image.iter_mut().for_each(|x| level(x, 0.0));
            return;
        }
        let (ab, cd) = scratch.words.split_at(2 * n);
        let ((a, b), (c, d)) = (ab.split_at(n), cd.split_at(n));
        for ((x, (a, b)), (c, d)) in image.iter_mut().zip(a.iter().zip(b)).zip(c.iter().zip(d)) {
            level(x, self.noise * gaussian([*a, *b, *c, *d]));
        }
    }
}

/// Sum of four uniforms, scaled to unit variance: near enough to normal for noise, and much cheaper.
fn gaussian(words: [u16; 4]) -> f32 {
    let sum: i32 = words.into_iter().map(i32::from).sum();
    (sum as f32 / 65536.0 - 2.0) * 3f32.sqrt()
}

struct Warp {
    dx: f32,
    dy: f32,
    angle: f32,
    scale: f32,
    flip: bool,
}

/// Where a row of the target looks: the pixel above and left of each place, and how far right and below of that it is.
#[derive(Debug, Default)]
struct Row {
    pixel: Vec<u32>,
    right: Vec<f32>,
    below: Vec<f32>,
}

/// Rotation and scaling about the centre, then a shift; bilinear, the edge repeated outside.
fn warp(source: &[f32], target: &mut [f32], geometry: Geometry, warp: &Warp, looks: &mut Row) {
    let Geometry { height, width, .. } = geometry;
    let (cx, cy) = ((width - 1) as f32 / 2.0, (height - 1) as f32 / 2.0);
    let (sin, cos) = (warp.angle.sin() / warp.scale, warp.angle.cos() / warp.scale);
    let (right, last) = ((width - 1) as f32, (height - 1) as f32);
    let (mirror, from) = if warp.flip { (-1.0, right) } else { (1.0, 0.0) };
    looks.pixel.resize(width, 0);
    looks.right.resize(width, 0.0);
    looks.below.resize(width, 0.0);
    // With one to its right and one below it, a pixel is not the last of its row or column: what looks at the last looks all the way right.
    let (most_x, most_y) = (width.saturating_sub(2) as f32, height.saturating_sub(2) as f32);
    let (to_right, to_below) = (usize::from(width > 1), if height > 1 { width } else { 0 });
    for y in 0..height {
        let v = y as f32 - cy - warp.dy;
        let places = looks.pixel.iter_mut().zip(&mut looks.right).zip(&mut looks.below);
        for (x, ((pixel, fx), fy)) in places.enumerate() {
            let u = x as i32 as f32 - cx - warp.dx;
            let sx = ((cos * u + sin * v + cx) * mirror + from).clamp(0.0, right);
            let sy = (cos * v - sin * u + cy).clamp(0.0, last);
            let (x0, y0) = (sx.min(most_x) as i32, sy.min(most_y) as i32);
            (*fx, *fy) = (sx - x0 as f32, sy - y0 as f32);
            *pixel = (y0 * width as i32 + x0) as u32;
        }
        for (source, target) in source.chunks_exact(height * width).zip(target.chunks_exact_mut(height * width)) {
            let looks = looks.pixel.iter().zip(&looks.right).zip(&looks.below);
            for (to, ((&pixel, &fx), &fy)) in target[y * width..][..width].iter_mut().zip(looks) {
                let here = &source[pixel as usize..][..=to_below + to_right];
                let top = here[0] + (here[to_right] - here[0]) * fx;
                let bottom = here[to_below] + (here[to_below + to_right] - here[to_below]) * fx;
                *to = top + (bottom - top) * fy;
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
            warp(&dot(1, 2), &mut out, GEOMETRY, &warp_by, &mut Row::default());
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
            augmentation.apply(&mut image, GEOMETRY, &mut ChaCha8Rng::seed_from_u64(seed), &mut Scratch::default());
            image
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(3).iter().all(|x| (0.0..=1.0).contains(x)));
    }

    #[test]
    fn noise_has_unit_variance() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let draws: Vec<f32> = (0..20_000).map(|_| gaussian(rng.random())).collect();
        let mean = draws.iter().sum::<f32>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
    }
}
