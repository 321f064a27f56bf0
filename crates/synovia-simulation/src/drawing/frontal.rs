//! The frontal (PA) chest radiograph: every factor of the image is in it.
//!
//! As is usual, the patient's left is at the right of the image.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::canvas::{Canvas, Ellipse, mix, ramp};
use crate::world::{ImageFactors, Texture};

/// Rows and columns.
pub(crate) const FRONTAL_SIZE: usize = 128;

/// What varies from patient to patient and means nothing, and where the signs are.
struct Layout {
    body: Ellipse,
    shoulders: Ellipse,
    lungs: [Ellipse; 2],
    heart: Ellipse,
    lesion: (f32, f32, f32),
    /// Lung (0 or 1) with the signs of effusion and of consolidation, if any.
    effusion: Option<(usize, f32)>,
    patch: Option<Ellipse>,
    rib_start: f32,
    rib_step: f32,
    /// x, y, radius, brightness of vessels seen end-on and of old granulomas.
    spots: Vec<(f32, f32, f32, f32)>,
}

impl Layout {
    fn draw(image: &ImageFactors, rng: &mut ChaCha8Rng) -> Self {
        let mut jitter = |range: f32| rng.random_range(-range..range);
        let (dx, dy) = (jitter(2.5), jitter(2.5));
        let (width, height) = (1.0 + jitter(0.05), 1.0 + jitter(0.05));
        let lungs = [-26.0, 26.0].map(|x| Ellipse { x: 64.0 + dx + x * width, y: 60.0 + dy, a: 22.5 * width, b: 40.0 * height });
        let heart_a = 16.0 + 3.6 * image.heart_width as f32;
        let heart = Ellipse { x: 64.0 + dx + 4.0 + 0.35 * heart_a, y: 83.0 + dy, a: heart_a, b: 17.0 + 0.25 * (heart_a - 16.0) };
        let (rib_start, rib_step) = (18.0 + dy + jitter(3.0), 11.0 + jitter(0.8));
        let side = usize::from(rng.random_bool(0.5));
        let radius = 11.5 + 2.25 * image.diameter as f32;
        let slack = (lungs[side].a - radius).max(3.0);
        // Kept to the upper two thirds and, on the heart's side, laterally: nothing may hide the lesion.
        let lateral = if side == 1 { 2.0 } else { -1.0 };
        let lesion =
            (lungs[side].x + lateral + slack * rng.random_range(-0.8f32..0.8), 55.0 + dy + rng.random_range(-17.0f32..13.0), radius);
        let effusion = (rng.random_bool(0.5), rng.random_range(-1.5f32..1.5));
        let effusion = image.effusion.then_some((usize::from(effusion.0), effusion.1));
        let other = lungs[1 - side];
        let patch = Ellipse {
            x: other.x + rng.random_range(-5.0f32..5.0),
            y: 50.0 + dy + rng.random_range(-12.0f32..12.0),
            a: rng.random_range(12.0f32..16.0),
            b: rng.random_range(11.0f32..15.0),
        };
        let mut spots = Vec::new();
        for lung in &lungs {
            let hilum = lung.x + if lung.x < 64.0 { 15.0 } else { -15.0 };
            spots.push((hilum, 60.0 + dy, rng.random_range(5.0..7.0), 0.13));
            for _ in 0..7 {
                let (x, y) = (rng.random_range(-16.0f32..16.0), rng.random_range(-26.0f32..26.0));
                spots.push((lung.x + x, lung.y + y, rng.random_range(1.2..2.2), rng.random_range(0.04..0.12)));
            }
        }
        let body = Ellipse { x: 64.0 + dx, y: 78.0 + dy, a: 60.0 * width, b: 90.0 };
        let shoulders = Ellipse { x: 64.0 + dx, y: 52.0 + dy, a: 62.0 * width, b: 46.0 };
        Self { body, shoulders, lungs, heart, lesion, effusion, patch: image.consolidation.then_some(patch), rib_start, rib_step, spots }
    }
}

/// Draws the frontal view.
pub(crate) fn frontal(image: &ImageFactors, grain: f32, rng: &mut ChaCha8Rng) -> Canvas {
    let layout = Layout::draw(image, rng);
    let (cx, texture) = (layout.body.x, image.texture);
    let mut canvas = Canvas::paint(FRONTAL_SIZE, |x, y| {
        let body = layout.body.cover(x, y, 5.0).max(layout.shoulders.cover(x, y, 6.0));
        let lung = layout.lungs.map(|l| l.cover(x, y, 3.5));
        let in_lung = lung[0].max(lung[1]);
        let mut v = mix(0.04, 0.50 + 0.0012 * y, body);
        v = mix(v, 0.16, in_lung);
        // Ribs fall away from the spine; they cross lungs and soft tissue alike.
        let lateral = (x - cx).abs();
        let phase = (y - layout.rib_start - 0.006 * lateral * lateral).rem_euclid(layout.rib_step);
        let rib = ramp(1.0 - (phase - 2.0).abs() / 2.2) * ramp((lateral - 7.0) / 4.0) * ramp((104.0 - y) / 10.0);
        v += 0.075 * rib * body;
        // Collar bones.
        let clavicle = (y - (17.0 - 0.10 * lateral)).abs();
        v += 0.12 * ramp(1.0 - clavicle / 2.6) * ramp((lateral - 4.0) / 3.0) * ramp((46.0 - lateral) / 6.0) * body;
        // Mediastinum with the spine behind it, and the heart.
        let mediastinum = ramp((8.5 + 0.02 * y - lateral) / 4.0 + 0.5);
        v = mix(v, 0.66, mediastinum * body);
        v = mix(v, 0.70, layout.heart.cover(x, y, 3.0));
        for &(sx, sy, radius, brightness) in &layout.spots {
            let distance_2 = (x - sx).powi(2) + (y - sy).powi(2);
            if distance_2 < 9.0 * radius * radius {
                v += brightness * (-distance_2 / (radius * radius)).exp() * in_lung;
            }
        }
        if let Some((side, lift)) = layout.effusion {
            // A level that climbs towards the chest wall: the meniscus.
            let l = layout.lungs[side];
            let towards_wall = ((x - l.x) / l.a * if side == 1 { 1.0 } else { -1.0 }).clamp(-1.0, 1.0);
            // Fluid fills the lung to its very edge.
            let filled = Ellipse { a: l.a + 1.5, b: l.b + 1.5, ..l };
            let level = l.y + 0.46 * l.b + lift - 6.0 * towards_wall;
            v = mix(v, v.max(0.60), ramp((y - level) / 4.0 + 0.5) * filled.cover(x, y, 3.5));
        }
        if let Some(patch) = layout.patch {
            let (u, w) = ((x - patch.x) / patch.a, (y - patch.y) / patch.b);
            // Cloudy, without an edge, with the dark branches of air in the bronchi.
            let cloud = (-1.1 * (u * u + w * w)).exp() * (0.85 + 0.15 * ((0.9 * x + 0.5 * y).sin() * (0.7 * y - 0.4 * x).cos()));
            v += 0.26 * cloud * in_lung;
        }
        // Over dense tissue the film saturates: less contrast, never none.
        v + brightness(texture, layout.lesion, x, y) * ((0.95 - v) / 0.75).clamp(0.4, 1.0)
    });
    canvas.expose(grain, rng);
    canvas
}

/// Where [`frontal`] draws the lesion from the same stream: x and y of its centre, and its radius, pixels.
pub(crate) fn lesion(image: &ImageFactors, rng: &mut ChaCha8Rng) -> [f32; 3] {
    let (x, y, radius) = Layout::draw(image, rng).lesion;
    [x, y, radius]
}

/// Brightness that the lesion adds. Rim and centre differ by more than ten times the noise, over a third of the radius:
/// at half the resolution they still do.
fn brightness(texture: Texture, (cx, cy, radius): (f32, f32, f32), x: f32, y: f32) -> f32 {
    let distance = (x - cx).hypot(y - cy);
    let disc = ramp((radius - distance) / 2.0 + 0.5);
    match texture {
        Texture::Solid => 0.34 * disc,
        Texture::Cavitated => 0.42 * disc - 0.46 * ramp((0.62 * radius - distance) / 2.0 + 0.5),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// Factors are identifiable from pixels, even at half the resolution: of 400 radiographs, a threshold on the centre of
    /// the lesion against its rim tells the texture, and the area above the surroundings tells the diameter.
    #[test]
    fn lesions_can_be_read_at_half_resolution() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut wrong, n) = (0, 400);
        for k in 0..n {
            let mut image = ImageFactors::draw(&mut rng);
            image.texture = if k % 2 == 0 { Texture::Solid } else { Texture::Cavitated };
            let mut again = rng.clone();
            let pixels = frontal(&image, 0.03, &mut rng).quantise(false);
            let (x, y, radius) = Layout::draw(&image, &mut again).lesion;
            let at = |i: usize, j: usize| f32::from(pixels[j * FRONTAL_SIZE + i]);
            let mean = |inner: f32, outer: f32| {
                let (mut sum, mut count) = (0.0, 0.0);
                for j in 0..FRONTAL_SIZE / 2 {
                    for i in 0..FRONTAL_SIZE / 2 {
                        let distance = (2.0 * i as f32 + 0.5 - x).hypot(2.0 * j as f32 + 0.5 - y) / radius;
                        if (inner..outer).contains(&distance) {
                            sum += (at(2 * i, 2 * j) + at(2 * i + 1, 2 * j) + at(2 * i, 2 * j + 1) + at(2 * i + 1, 2 * j + 1)) / 4.0;
                            count += 1.0;
                        }
                    }
                }
                sum / count
            };
            let (centre, rim, around) = (mean(0.0, 0.5), mean(0.68, 0.95), mean(1.2, 1.5));
            let solid = centre > rim - 300.0;
            wrong += usize::from(solid != (image.texture == Texture::Solid));
            assert!(rim > around, "the rim stands out");
        }
        assert!(wrong <= n / 100, "{wrong} of {n} textures misread");
    }

    /// Already the plain count of bright pixels at the heart's height, lesions and shifts included, follows its width.
    #[test]
    fn the_heart_widens() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let pairs: Vec<(f64, f64)> = (0..150)
            .map(|_| {
                let mut image = ImageFactors::draw(&mut rng);
                image.effusion = false;
                let pixels = frontal(&image, 0.02, &mut rng).quantise(false);
                let bright: usize = (76..90).map(|y| (30..125).filter(|x| pixels[y * FRONTAL_SIZE + x] > 1500).count()).sum();
                (image.heart_width, bright as f64)
            })
            .collect();
        let n = pairs.len() as f64;
        let mean = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / n;
        let (mx, my) = (mean(&|p| p.0), mean(&|p| p.1));
        let covariance = mean(&|p| (p.0 - mx) * (p.1 - my));
        let correlation = covariance / (mean(&|p| (p.0 - mx).powi(2)) * mean(&|p| (p.1 - my).powi(2))).sqrt();
        assert!(correlation > 0.75, "{correlation}");
    }
}
