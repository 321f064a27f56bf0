//! Inputs made worse, as they come in hospitals: what a model makes of them is how robust it is.

use crate::plan::ImageShape;

/// The image with noise. Draws are standard normal, a pixel each, and the same ones with a larger deviation are more of the same noise.
///
/// # Shapes
/// - image, draws: `[channels, size, size]`; the image in `[0, 1]`, and so is the result
pub fn noisy(image: &[f32], draws: &[f32], deviation: f64) -> Vec<f32> {
    image.iter().zip(draws).map(|(value, draw)| (value + deviation as f32 * draw).clamp(0.0, 1.0)).collect()
}

/// The image with a share of its contrast lost, about each channel's mean; of 1 it is level.
///
/// # Shapes
/// - image: `[channels, size, size]`
pub fn flatter(image: &[f32], shape: ImageShape, lost: f64) -> Vec<f32> {
    let of_channel = |channel: &[f32]| {
        let mean = channel.iter().map(|&value| f64::from(value)).sum::<f64>() / channel.len() as f64;
        channel.iter().map(|&value| (mean + (1.0 - lost) * (f64::from(value) - mean)) as f32).collect::<Vec<f32>>()
    };
    image.chunks(shape.size * shape.size).flat_map(of_channel).collect()
}

/// The image with squares of `factor` pixels at their mean; those at the right and lower edge may be smaller.
///
/// # Shapes
/// - image: `[channels, size, size]`
pub fn coarser(image: &[f32], shape: ImageShape, factor: usize) -> Vec<f32> {
    let (n, factor) = (shape.size, factor.max(1));
    let mut out = image.to_vec();
    for (to, from) in out.chunks_mut(n * n).zip(image.chunks(n * n)) {
        for top in (0..n).step_by(factor) {
            for left in (0..n).step_by(factor) {
                let (rows, columns) = (top..(top + factor).min(n), left..(left + factor).min(n));
                let sum: f64 = rows.clone().flat_map(|y| &from[y * n..][columns.clone()]).map(|&value| f64::from(value)).sum();
                let mean = (sum / (rows.len() * columns.len()) as f64) as f32;
                rows.for_each(|y| to[y * n..][columns.clone()].fill(mean));
            }
        }
    }
    out
}

/// The record without the values whose draw is under `share`: whoever loses one at a share loses it at every larger one.
///
/// # Shapes
/// - record, draws: `[n_features]`; the record NaN where missing, draws in `[0, 1)`
pub fn sparser(record: &[f32], draws: &[f32], share: f64) -> Vec<f32> {
    record.iter().zip(draws).map(|(&value, &draw)| if f64::from(draw) < share { f32::NAN } else { value }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { channels: 2, size: 3 };
    const IMAGE: [f32; 18] = [0.0, 0.5, 0.25, 0.0, 0.5, 0.25, 0.0, 0.5, 0.25, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8];

    #[test]
    fn nothing_lost_is_the_image() {
        assert_eq!(noisy(&IMAGE, &[1.0; 18], 0.0), IMAGE);
        assert_eq!(flatter(&IMAGE, SHAPE, 0.0), IMAGE);
        assert_eq!(coarser(&IMAGE, SHAPE, 1), IMAGE);
        assert_eq!(sparser(&IMAGE, &[0.0; 18], 0.0), IMAGE);
    }

    #[test]
    fn noise_stays_in_range() {
        let out = noisy(&[0.5, 0.9, 0.1], &[1.0, 2.0, -2.0], 0.2);
        assert!((out[0] - 0.7).abs() < 1e-6);
        assert_eq!(out[1..], [1.0, 0.0]);
    }

    #[test]
    fn each_channel_has_its_own_mean() {
        let level = flatter(&IMAGE, SHAPE, 1.0);
        assert!(level[..9].iter().all(|value| (value - 0.25).abs() < 1e-6) && level[9..].iter().all(|value| (value - 0.2).abs() < 1e-6));
        let half = flatter(&IMAGE, SHAPE, 0.5);
        assert!((half[1] - 0.375).abs() < 1e-6 && (half[9] - 0.6).abs() < 1e-6, "{half:?}");
    }

    #[test]
    fn squares_have_their_mean() {
        let out = coarser(&IMAGE, SHAPE, 2);
        assert_eq!(out[..9], [0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25]);
        assert_eq!(out[9..], [0.25, 0.25, 0.0, 0.25, 0.25, 0.0, 0.0, 0.0, 0.8]);
    }

    #[test]
    fn who_is_missing_stays_missing() {
        let record = [1.0, f32::NAN, 3.0];
        let missing = |share: f64| sparser(&record, &[0.3, 0.9, 0.6], share).iter().map(|value| value.is_nan()).collect::<Vec<bool>>();
        assert_eq!(missing(0.25), [false, true, false]);
        assert_eq!(missing(0.5), [true, true, false]);
        assert_eq!(missing(1.0), [true, true, true]);
    }
}
