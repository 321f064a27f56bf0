//! Which inputs a model is asked about for an explanation, and what its answers say.

use serde::Serialize;
use utoipa::ToSchema;

use crate::shapley;

/// Places along a side of the image. Each patch is half as wide again as the places are apart, so that a lesion on a border shows.
pub const GRID: usize = 8;

/// Sizes of a prepared image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Channels.
    pub channels: usize,
    /// Rows and columns.
    pub size: usize,
}

/// An input to ask about.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Shape: `[channels, size, size]`.
    pub image: Option<Vec<f32>>,
    /// Shape: `[n_features]`, NaN where missing.
    pub record: Option<Vec<f32>>,
}

/// What is asked, in this order: the input as it is; without its image; without its record; with a feature missing, for each that is
/// there; with a patch of the image levelled to the image's mean, row by row (Zeiler and Fergus 2014).
#[derive(Clone, Debug)]
pub struct Plan {
    whole: Variant,
    shape: Option<ImageShape>,
    features: Vec<usize>,
}

/// What is said of one class.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Explanation {
    /// The class whose probability is explained.
    pub class: String,
    /// Its probability with what was given.
    pub probability: f64,
    /// What each modality does to it.
    pub modalities: Modalities,
    /// What each feature does to it, the strongest first.
    pub features: Vec<FeatureChange>,
    /// What each place of the image does to it; null without an image.
    pub image: Option<ImageChange>,
}

/// The probability without a modality, and the share of each (Shapley values over masked passes, exact).
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Modalities {
    /// With neither.
    pub neither: f64,
    /// With the image alone; null without one.
    pub image_alone: Option<f64>,
    /// With the record alone; null without one.
    pub record_alone: Option<f64>,
    /// The image's share; all shares and `neither` add up to the probability.
    pub image_share: Option<f64>,
    /// The record's share.
    pub record_share: Option<f64>,
}

/// A feature.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FeatureChange {
    /// Its name.
    pub feature: String,
    /// Its value.
    pub value: f32,
    /// UCUM unit; empty where it has none.
    pub unit: String,
    /// By how much the probability is higher with it than with it missing.
    pub change: f64,
}

/// The image.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ImageChange {
    /// By how much the probability is higher with a place than with it levelled, rows from the top.
    pub change: Vec<Vec<f64>>,
}

/// Rows or columns of a patch.
fn patch(place: usize, size: usize) -> std::ops::Range<usize> {
    let step = size as f64 / GRID as f64;
    let (start, end) = ((place as f64 - 0.25) * step, (place as f64 + 1.25) * step);
    start.round().max(0.0) as usize..(end.round() as usize).min(size)
}

impl Plan {
    /// Of an input; at least one of image and record is there.
    ///
    /// - shape: of images, where the model looks at any
    pub fn new(whole: Variant, shape: Option<ImageShape>) -> Self {
        let known = whole.record.iter().flatten().enumerate().filter(|(_, value)| !value.is_nan());
        Self { features: known.map(|(k, _)| k).collect(), shape: shape.filter(|_| whole.image.is_some()), whole }
    }

    /// Inputs to ask about.
    pub fn n_variants(&self) -> usize {
        4 + self.features.len() + if self.shape.is_some() { GRID * GRID } else { 0 }
    }

    /// One of them. The model takes what is missing as masked.
    ///
    /// # Panics
    /// Where there are not so many.
    pub fn variant(&self, k: usize) -> Variant {
        assert!(k < self.n_variants(), "there is no variant {k}");
        let mut variant = self.whole.clone();
        if matches!(k, 1 | 3) {
            variant.image = None;
        }
        if matches!(k, 2 | 3) {
            variant.record = None;
        }
        let Some(part) = k.checked_sub(4) else { return variant };
        if let Some(&feature) = self.features.get(part) {
            if let Some(record) = &mut variant.record {
                record[feature] = f32::NAN;
            }
        } else if let (Some(shape), Some(image)) = (self.shape, &mut variant.image) {
            let place = part - self.features.len();
            level(image, shape, patch(place / GRID, shape.size), patch(place % GRID, shape.size));
        }
        variant
    }

    /// What the answers say.
    ///
    /// - probabilities: of the class, for each [`Plan::variant`]
    /// - feature: name and unit of a place in the record
    pub fn explain(&self, class: &str, probabilities: &[f64], feature: impl Fn(usize) -> (String, String)) -> Explanation {
        let [probability, record_alone, image_alone, neither] = [0, 1, 2, 3].map(|k| probabilities[k]);
        let (has_image, has_record) = (self.whole.image.is_some(), self.whole.record.is_some());
        let shares = match (has_image, has_record) {
            (true, true) => shapley(&[neither, image_alone, record_alone, probability]),
            _ => vec![probability - neither; 2],
        };
        let values = self.whole.record.as_deref().unwrap_or_default();
        let mut features: Vec<FeatureChange> = (self.features.iter().zip(&probabilities[4..]))
            .map(|(&k, without)| {
                let (feature, unit) = feature(k);
                FeatureChange { feature, value: values[k], unit, change: probability - without }
            })
            .collect();
        features.sort_by(|a, b| b.change.abs().total_cmp(&a.change.abs()));
        let change = |row: &[f64]| row.iter().map(|without| probability - without).collect();
        let places = &probabilities[4 + self.features.len()..];
        Explanation {
            class: class.to_owned(),
            probability,
            modalities: Modalities {
                neither,
                image_alone: has_image.then_some(image_alone),
                record_alone: has_record.then_some(record_alone),
                image_share: has_image.then_some(shares[0]),
                record_share: has_record.then_some(shares[1]),
            },
            features,
            image: self.shape.map(|_| ImageChange { change: places.chunks(GRID).map(change).collect() }),
        }
    }
}

/// Puts a patch at each channel's mean.
fn level(image: &mut [f32], shape: ImageShape, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) {
    for channel in image.chunks_mut(shape.size * shape.size) {
        let mean = (channel.iter().map(|&value| f64::from(value)).sum::<f64>() / channel.len() as f64) as f32;
        for row in rows.clone() {
            channel[row * shape.size..][columns.clone()].fill(mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { channels: 1, size: 32 };

    /// A model of which all is known: .1, and .3 for a bright place, .2 for the first feature, .1 for both; the third feature, where
    /// it is there, does nothing.
    fn model(variant: &Variant) -> f64 {
        let bright = variant.image.as_ref().is_some_and(|image| image[20 * 32 + 9] > 0.5);
        let first = variant.record.as_ref().is_some_and(|record| record[0] > 0.5);
        0.1 + 0.3 * f64::from(u8::from(bright)) + 0.2 * f64::from(u8::from(first)) + 0.1 * f64::from(u8::from(bright && first))
    }

    fn explained(image: bool, record: bool) -> Explanation {
        let mut pixels = vec![0.0; 32 * 32];
        pixels[20 * 32 + 9] = 1.0;
        let whole = Variant { image: image.then_some(pixels), record: record.then(|| vec![1.0, f32::NAN, 7.0]) };
        let plan = Plan::new(whole, Some(SHAPE));
        let probabilities: Vec<f64> = (0..plan.n_variants()).map(|k| model(&plan.variant(k))).collect();
        plan.explain("sick", &probabilities, |k| (format!("f{k}"), "mg".to_owned()))
    }

    #[test]
    fn both_one_and_the_other() {
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-12, "{a:?}, not {b}");
        let both = explained(true, true);
        near(Some(both.probability), 0.7);
        let modalities = &both.modalities;
        near(Some(modalities.neither), 0.1);
        near(modalities.image_alone, 0.4);
        near(modalities.record_alone, 0.3);
        // What they do together is halved.
        near(modalities.image_share, 0.35);
        near(modalities.record_share, 0.25);
        let told: Vec<(&str, f32)> = both.features.iter().map(|f| (f.feature.as_str(), f.value)).collect();
        assert_eq!(told, [("f0", 1.0), ("f2", 7.0)], "a missing feature drives nothing");
        near(Some(both.features[0].change), 0.3);
        near(Some(both.features[1].change), 0.0);
        let image = explained(true, false);
        near(image.modalities.image_share, 0.3);
        assert!(image.features.is_empty() && image.modalities.record_alone.is_none() && image.modalities.record_share.is_none());
        let record = explained(false, true);
        near(record.modalities.record_share, 0.2);
        assert!(record.image.is_none() && record.modalities.image_share.is_none());
    }

    #[test]
    fn the_bright_place_is_found() {
        let change = explained(true, true).image.unwrap().change;
        for (row, places) in change.iter().enumerate() {
            for (column, change) in places.iter().enumerate() {
                // 32 pixels are eight places of four; a patch reaches one pixel further. Row 20 is place 5's first, and place 4's more.
                let covers = (4..=5).contains(&row) && column == 2;
                let expected = if covers { 0.4 } else { 0.0 };
                assert!((change - expected).abs() < 1e-12, "{row} {column}: {change}");
            }
        }
    }

    #[test]
    fn patches_cover_images_of_any_size() {
        for size in [1, 7, 8, 33, 224] {
            let covered: std::collections::BTreeSet<usize> = (0..GRID).flat_map(|place| patch(place, size)).collect();
            assert_eq!(covered.len(), size);
        }
    }
}
