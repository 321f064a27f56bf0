//! Maps over an image: larger, their peak, and what becomes of the model's answer when the image loses or gains what they point at.

use crate::plan::ImageShape;

/// A map over the image, coarser than it.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Row-major.
    pub values: &'a [f32],
    /// Where the middle of the first place lies, as a share of the image's side.
    pub first: f64,
    /// How far apart places are, as the same share.
    pub step: f64,
}

/// Steps in which an image loses, or gains, its places.
pub const STEPS: usize = 10;

impl Map<'_> {
    /// A map whose places share the image's side among them.
    pub fn even(side: usize, values: &[f32]) -> Map<'_> {
        Map { height: side, width: side, values, first: 0.5 / side as f64, step: 1.0 / side as f64 }
    }

    /// Bilinear between the middles of the map's places; x and y in `[0, 1]`.
    pub fn at(&self, x: f64, y: f64) -> f64 {
        let place = |at: f64, n: usize| {
            let at = ((at - self.first) / self.step).clamp(0.0, (n - 1) as f64);
            let first = (at as usize).min(n.saturating_sub(2));
            (first, (first + 1).min(n - 1), at - first as f64)
        };
        let ((top, bottom, down), (left, right, across)) = (place(y, self.height), place(x, self.width));
        let value = |row: usize, column: usize| f64::from(self.values[row * self.width + column]);
        let line = |row: usize| value(row, left) * (1.0 - across) + value(row, right) * across;
        line(top) * (1.0 - down) + line(bottom) * down
    }

    /// The size of each place's value, spread over what the place looks at: a Gaussian mean, `[height × width]`.
    ///
    /// - field: its standard deviation as a share of the image's side, of 0 for none
    pub fn spread(&self, field: f64) -> Vec<f32> {
        let deviation = field / self.step;
        let weight = |apart: usize| if apart == 0 { 1.0 } else { (-0.5 * (apart as f64 / deviation).powi(2)).exp() };
        // Along columns, then along rows; beyond the edge there is nothing, and nothing has no weight.
        let along = |values: &[f64], n: usize, at: &dyn Fn(usize) -> usize, out: &mut [f64]| {
            for k in 0..n {
                let (sum, all) = (0..n).fold((0.0, 0.0), |(sum, all), other| {
                    let weight = weight(k.abs_diff(other));
                    (sum + weight * values[at(other)], all + weight)
                });
                out[at(k)] = sum / all;
            }
        };
        let sizes: Vec<f64> = self.values.iter().map(|value| f64::from(value.abs())).collect();
        let (mut down, mut both) = (sizes.clone(), sizes.clone());
        for column in 0..self.width {
            along(&sizes, self.height, &|row| row * self.width + column, &mut down);
        }
        for row in 0..self.height {
            along(&down, self.width, &|column| row * self.width + column, &mut both);
        }
        both.into_iter().map(|value| value as f32).collect()
    }

    /// Where it is highest: x and y of the middle of that place, in `[0, 1]`; the first of several. `None` where nothing is above 0.
    pub fn peak(&self) -> Option<(f64, f64)> {
        let best = (0..self.values.len())
            .filter(|&k| self.values[k] > 0.0)
            .reduce(|best, k| if self.values[k] > self.values[best] { k } else { best })?;
        let middle = |place: usize| self.first + self.step * place as f64;
        Some((middle(best % self.width), middle(best / self.width)))
    }

    /// The image's pixels (of one channel), the most important first; of equals the first.
    pub fn order(&self, size: usize) -> Vec<usize> {
        let middle = |place: usize| (place as f64 + 0.5) / size as f64;
        let values: Vec<f64> = (0..size * size).map(|k| self.at(middle(k % size), middle(k / size))).collect();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        order
    }
}

/// Images that lose their pixels in an order, a tenth a step, to the image's mean: the whole image first, then [`STEPS`] more, the last
/// of them level (Petsiuk et al. 2018, deletion; read from the end, insertion of the least important first).
///
/// # Shapes
/// - image: `[channels, size, size]`
/// - order: `[size × size]`
pub fn deleted(image: &[f32], shape: ImageShape, order: &[usize]) -> Vec<Vec<f32>> {
    steps(image, shape, order, false)
}

/// Images that gain their pixels in an order, from level to whole (insertion).
///
/// # Shapes
/// As [`deleted`].
pub fn inserted(image: &[f32], shape: ImageShape, order: &[usize]) -> Vec<Vec<f32>> {
    steps(image, shape, order, true)
}

fn steps(image: &[f32], shape: ImageShape, order: &[usize], inserts: bool) -> Vec<Vec<f32>> {
    let n = shape.size * shape.size;
    let means: Vec<f32> = image.chunks(n).map(|channel| (channel.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64) as f32).collect();
    let level: Vec<f32> = means.iter().flat_map(|&mean| vec![mean; n]).collect();
    let (mut now, other) = if inserts { (level, image.to_vec()) } else { (image.to_vec(), level) };
    let mut out = vec![now.clone()];
    for step in 0..STEPS {
        for &pixel in &order[step * n / STEPS..(step + 1) * n / STEPS] {
            for channel in 0..shape.channels {
                now[channel * n + pixel] = other[channel * n + pixel];
            }
        }
        out.push(now.clone());
    }
    out
}

/// The area under a curve of [`STEPS`] + 1 answers over the share of pixels, by trapezia.
pub fn area(answers: &[f64]) -> f64 {
    answers.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])).sum::<f64>() / answers.len().saturating_sub(1).max(1) as f64
}

/// Spearman's correlation of two maps' values; 0 where one is flat.
pub fn rank_correlation(a: &[f32], b: &[f32]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    if scale > 0.0 { product(&a, &b) / scale } else { 0.0 }
}

/// Ranks from 0, ties at their mean.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &k in tied {
            ranks[k] = first as f64 + (tied.len() as f64 - 1.0) / 2.0;
        }
        first += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_and_its_peak() {
        let map = Map::even(3, &[0.0, 2.0, 0.0, 1.0, -4.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(map.peak(), Some((0.5, 1.0 / 6.0)));
        assert!((map.at(0.5, 1.0 / 6.0) - 2.0).abs() < 1e-12);
        // Half way between 2 and −4, and outside of the middles the nearest.
        assert!((map.at(0.5, 1.0 / 3.0) + 1.0).abs() < 1e-12);
        assert!(map.at(0.0, 0.0).abs() < 1e-12);
        assert!(Map::even(1, &[-1.0]).peak().is_none());
        assert_eq!(Map::even(1, &[3.0]).at(0.9, 0.1), 3.0);
        // Maps of strided convolutions: their places begin at the first pixel, of eight here.
        let strided = Map { height: 2, width: 2, values: &[0.0, 0.0, 0.0, 5.0], first: 1.0 / 16.0, step: 0.5 };
        assert_eq!(strided.peak(), Some((9.0 / 16.0, 9.0 / 16.0)));
        let order = map.order(6);
        assert_eq!(order.len(), 36);
        // The brightest pixels lie at the top's middle third.
        assert!(order[..2].iter().all(|&k| k / 6 < 2 && (2..4).contains(&(k % 6))), "{order:?}");
    }

    #[test]
    fn an_answer_of_the_first_pixels_falls_at_once() {
        let shape = ImageShape { channels: 2, size: 10 };
        let mut image = vec![0.5f32; 200];
        image[..10].fill(1.0);
        let first: Vec<usize> = (0..100).collect();
        let last: Vec<usize> = (0..100).rev().collect();
        let answer = |images: Vec<Vec<f32>>| area(&images.iter().map(|x| f64::from(u8::from(x[5] > 0.9))).collect::<Vec<_>>());
        // One of eleven is 1: a trapezium of 1/20.
        assert!((answer(deleted(&image, shape, &first)) - 0.05).abs() < 1e-12);
        assert!((answer(deleted(&image, shape, &last)) - 0.95).abs() < 1e-12);
        assert!((answer(inserted(&image, shape, &first)) - 0.95).abs() < 1e-12);
        let ends = deleted(&image, shape, &first);
        assert_eq!(ends.len(), STEPS + 1);
        assert_eq!(ends[0], image);
        assert!(ends[STEPS][..100].iter().all(|v| (v - 0.55).abs() < 1e-6) && ends[STEPS][100..].iter().all(|v| (v - 0.5).abs() < 1e-6));
    }

    /// scipy.ndimage.gaussian_filter([[0, 0, 0], [0, -6, 0], [0, 0, 0], [0, 0, 3]] sizes, 1, mode="constant") over that of ones.
    #[test]
    fn spread_as_scipy_does() {
        let map =
            Map { height: 4, width: 3, values: &[0.0, 0.0, 0.0, 0.0, -6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0], first: 0.0, step: 0.25 };
        let expected = [
            0.724357329,
            0.943279655,
            0.733794752,
            0.903079754,
            1.201862595,
            0.988900811,
            0.599798661,
            0.912582131,
            0.984421953,
            0.294262759,
            0.678346096,
            1.14379244,
        ];
        for (got, expected) in map.spread(0.25).iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} and {expected}");
        }
        assert_eq!(map.spread(0.0), [0.0, 0.0, 0.0, 0.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0]);
    }

    /// scipy.stats.spearmanr([1, 2, 2, 4, 5], [5, 6, 7, 8, 7]).statistic
    #[test]
    fn ranks_as_scipy_has_them() {
        assert!((rank_correlation(&[1.0, 2.0, 2.0, 4.0, 5.0], &[5.0, 6.0, 7.0, 8.0, 7.0]) - 0.763_157_894_736_842_1).abs() < 1e-12);
        assert_eq!(rank_correlation(&[1.0, 1.0], &[0.0, 3.0]), 0.0);
    }
}
