//! How a decoded image becomes the array that a model sees.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions};
use serde::{Deserialize, Serialize};

use crate::error::ImagesError;
use crate::recycle;
use crate::window::Window;

/// How an image that is not square becomes square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// The longer side fills the square, the rest is 0 (black), the image centred: anatomy keeps its proportions.
    #[default]
    Pad,
    /// Both sides fill the square, as many published pipelines do; a long thorax and a wide one become alike.
    Stretch,
}

/// Everything that lies between a decoded image and a model's input: part of a model's metadata, so that prediction
/// prepares as training did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// Rows and columns of the result.
    pub size: usize,
    /// 1 (grey: colour becomes its luma) or 3 (red, green, blue: grey is repeated).
    #[serde(default = "one")]
    pub channels: usize,
    /// How a rectangle becomes the square.
    #[serde(default)]
    pub fit: Fit,
    /// Which values become black and white.
    #[serde(default)]
    pub window: Window,
    /// Slices of a volume, each a channel: with more than 1, [`Preparation::channels`] is as many. An image that is no volume is
    /// repeated.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slices: usize,
    /// Millimetres of the patient (of the detector, where a radiograph tells no other) that a pixel of the result is wide and high,
    /// instead of a square that the image fills: about the image's middle, what lies outside of the square is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spacing_mm: Option<f64>,
    /// Millimetres between the slices, instead of slices evenly over the volume: about its middle, the slice that is nearest to each
    /// place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_spacing_mm: Option<f64>,
}

// serde gives a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_one(n: &usize) -> bool {
    *n == 1
}

const fn one() -> usize {
    1
}

impl Default for Preparation {
    /// 224 x 224, grey, padded.
    fn default() -> Self {
        Self { size: 224, channels: 1, fit: Fit::Pad, window: Window::File, slices: 1, spacing_mm: None, slice_spacing_mm: None }
    }
}

impl Preparation {
    /// A grey square of `size` pixels a side, padded.
    pub fn grey(size: usize) -> Self {
        Self { size, ..Self::default() }
    }

    /// The same where one picture is looked at.
    pub(crate) fn of_one_picture(&self) -> Self {
        if self.slices > 1 { self.of_one_slice() } else { self.clone() }
    }

    /// How each slice by itself is prepared.
    pub(crate) fn of_one_slice(&self) -> Self {
        Self { channels: 1, slices: 1, slice_spacing_mm: None, ..self.clone() }
    }

    /// Number of values of a prepared image.
    pub const fn n_values(&self) -> usize {
        self.channels * self.size * self.size
    }

    /// Whether the settings can be used.
    ///
    /// # Errors
    /// [`ImagesError::Preparation`] names the setting.
    pub fn check(&self) -> Result<(), ImagesError> {
        if !(1..=8192).contains(&self.size) {
            return Err(ImagesError::Preparation { name: "size", got: self.size, expected: "1 to 8192 pixels" });
        }
        if !(1..=64).contains(&self.slices) {
            return Err(ImagesError::Preparation { name: "slices", got: self.slices, expected: "1 to 64" });
        }
        if self.slices > 1 {
            if self.channels != self.slices {
                return Err(ImagesError::Preparation { name: "channels", got: self.channels, expected: "as many as there are slices" });
            }
        } else if self.channels != 1 && self.channels != 3 {
            return Err(ImagesError::Preparation { name: "channels", got: self.channels, expected: "1 or 3" });
        }
        let is_length = |mm: &f64| (MIN_MM..=MAX_MM).contains(mm);
        if let Some(wrong) = [self.spacing_mm, self.slice_spacing_mm].into_iter().flatten().find(|mm| !is_length(mm)) {
            return Err(ImagesError::Spacing(wrong));
        }
        Ok(())
    }

    /// Resizes with a triangle filter whose support grows with the reduction (so that fine structure is averaged, not
    /// aliased) and places the result in the square. A side is at least 1: a thin image keeps a pixel.
    ///
    /// # Shapes
    /// - result: `[channels, size, size]`
    pub(crate) fn apply(&self, mut picture: Picture) -> Result<Vec<f32>, ImagesError> {
        let size = self.size;
        // In heights of a pixel.
        let (w, h) = (picture.width as f64 * picture.pixel_width, picture.height as f64);
        let side = |x: f64| (x.round() as usize).clamp(1, size);
        // Whole pixels of a given size, and as many to either side of the square's middle.
        let whole_side = |x: f64| {
            let n = ((x + 1e-9) as usize).clamp(1, size);
            if n > 1 && (size - n) % 2 == 1 { n - 1 } else { n }
        };
        let mut options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        let (width, height) = match (self.spacing_mm, self.fit) {
            (Some(spacing), _) => {
                let scale = picture.pixel_height_mm.ok_or(ImagesError::NoSpacing)? / spacing;
                let (width, height) = (whole_side(w * scale), whole_side(h * scale));
                // First pixel and number of those in the middle that fill so many of the result.
                let middle = |pixels: usize, filled: usize, of: f64| {
                    let n = pixels as f64 * (filled as f64 / of).min(1.0);
                    ((pixels as f64 - n) / 2.0, n)
                };
                let ((left, n_columns), (top, n_rows)) =
                    (middle(picture.width, width, w * scale), middle(picture.height, height, h * scale));
                options = options.crop(left, top, n_columns, n_rows);
                (width, height)
            }
            (None, Fit::Stretch) => (size, size),
            (None, Fit::Pad) => {
                let scale = size as f64 / w.max(h);
                (side(w * scale), side(h * scale))
            }
        };
        let (left, top) = ((size - width) / 2, (size - height) / 2);
        let mut result = vec![0.0; self.n_values()];
        let unusable = || ImagesError::Preparation { name: "size", got: size, expected: "a size that the image can be resized to" };
        let resize = |plane: &[f32], target: &mut [f32]| {
            let source: TypedImageRef<'_, F32> =
                TypedImageRef::from_buffer(picture.width as u32, picture.height as u32, bytemuck::cast_slice(plane))
                    .map_err(|_| unusable())?;
            let mut target: TypedImage<'_, F32> =
                TypedImage::from_buffer(width as u32, height as u32, bytemuck::cast_slice_mut(target)).map_err(|_| unusable())?;
            recycle::with_resizer(|resizer| resizer.resize_typed(&source, &mut target, &options)).map_err(|_| unusable())
        };
        for (plane, square) in picture.planes.iter().zip(result.chunks_exact_mut(size * size)) {
            // Rows of the full width lie together: they are written where they stay.
            if width == size {
                resize(plane, &mut square[top * size..(top + height) * size])?;
            } else {
                let mut narrow = vec![0.0; width * height];
                resize(plane, &mut narrow)?;
                for (row, values) in narrow.chunks_exact(width).enumerate() {
                    square[(top + row) * size + left..][..width].copy_from_slice(values);
                }
            }
            square.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
        }
        if picture.planes.len() == 1 && self.channels == 3 {
            let (grey, rest) = result.split_at_mut(size * size);
            rest.chunks_exact_mut(size * size).for_each(|plane| plane.copy_from_slice(grey));
        }
        if let Some(plane) = picture.planes.pop() {
            recycle::keep_plane(plane);
        }
        Ok(result)
    }
}

/// What a pixel of an image, and the distance of its slices, may be.
pub(crate) const MIN_MM: f64 = 1e-3;
pub(crate) const MAX_MM: f64 = 100.0;

/// A decoded image: one plane (grey) or three (red, green, blue), values in `[0, 1]`, row-major.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Width of a pixel over its height: not 1 where rows and columns have different spacings.
    pub(crate) pixel_width: f64,
    /// Where the file says it.
    pub(crate) pixel_height_mm: Option<f64>,
    pub(crate) planes: Vec<Vec<f32>>,
}

/// Luma of ITU-R BT.601, the one that JPEG and DICOM's YBR_FULL use.
pub(crate) fn luma(r: f32, g: f32, b: f32) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize, f: impl Fn(usize, usize) -> f32) -> Picture {
        let plane = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| f(x, y)).collect();
        Picture { width, height, pixel_width: 1.0, pixel_height_mm: None, planes: vec![plane] }
    }

    #[test]
    fn same_size_is_the_identity() {
        let picture = grey(8, 8, |x, y| (x * 8 + y) as f32 / 63.0);
        assert_eq!(Preparation::grey(8).apply(picture.clone()).unwrap(), picture.planes[0]);
    }

    #[test]
    fn a_checkerboard_becomes_grey_not_a_pattern() {
        // A resize that takes every eighth pixel would return all 0 or all 1.
        let picture = grey(256, 256, |x, y| ((x + y) % 2) as f32);
        for value in Preparation::grey(32).apply(picture.clone()).unwrap() {
            assert!((value - 0.5).abs() < 0.01, "{value}");
        }
    }

    #[test]
    fn padding_keeps_proportions_and_stretching_does_not() {
        let picture = grey(40, 20, |_, _| 1.0);
        let padded = Preparation::grey(10).apply(picture.clone()).unwrap();
        let rows: Vec<f32> = padded.chunks(10).map(|row| row.iter().sum()).collect();
        assert_eq!(rows, [0.0, 0.0, 10.0, 10.0, 10.0, 10.0, 10.0, 0.0, 0.0, 0.0]);
        let stretched = Preparation { fit: Fit::Stretch, ..Preparation::grey(10) }.apply(picture.clone()).unwrap();
        assert!(stretched.iter().all(|&x| x == 1.0));
    }

    #[test]
    fn pixels_that_are_not_square_are_made_so() {
        let picture = Picture { pixel_width: 2.0, ..grey(10, 20, |_, _| 1.0) };
        assert!(Preparation::grey(16).apply(picture.clone()).unwrap().iter().all(|&x| x == 1.0), "10 x 2 mm by 20 x 1 mm is a square");
    }

    #[test]
    fn a_pixel_of_the_result_is_as_many_millimetres_as_asked_for() {
        let of = |picture: &Picture, spacing_mm: f64, size: usize| {
            Preparation { spacing_mm: Some(spacing_mm), ..Preparation::grey(size) }.apply(picture.clone()).unwrap()
        };
        // Columns 0 to 39 and rows 0 to 19 of 0.5 mm: 20 by 10 mm.
        let ramp = Picture { pixel_height_mm: Some(0.5), ..grey(40, 20, |x, _| x as f32 / 40.0) };
        // At 1 mm it is 20 by 10 pixels in the middle of 32, each the mean of two.
        let whole = of(&ramp, 1.0, 32);
        let filled: Vec<usize> = (0..32).filter(|row| whole[row * 32..(row + 1) * 32].iter().any(|x| *x > 0.0)).collect();
        assert_eq!(filled, (11..21).collect::<Vec<usize>>());
        let row = &whole[16 * 32..17 * 32];
        assert!(row[..6].iter().chain(&row[26..]).all(|x| *x == 0.0), "{row:?}");
        for column in 1..19 {
            let expected = (2.0 * column as f32 + 0.5) / 40.0;
            assert!((row[6 + column] - expected).abs() < 1e-3, "column {column}: {}, not {expected}", row[6 + column]);
        }
        // In a square of 8 mm the middle is left: columns 12 to 27, rows 2 to 17.
        let cut = of(&ramp, 1.0, 8);
        for column in 1..7 {
            let expected = (12.0 + 2.0 * column as f32 + 0.5) / 40.0;
            assert!((cut[3 * 8 + column] - expected).abs() < 1e-3, "column {column}: {}, not {expected}", cut[3 * 8 + column]);
        }
        // Pixels that are twice as wide as high, 40 by 10 mm: of five rows of 2 mm four are about the middle.
        let wide = Picture { pixel_width: 2.0, ..ramp.clone() };
        assert_eq!(of(&wide, 2.0, 40).iter().filter(|x| **x > 0.0).count(), 80);
        // 10.5 pixels: ten of the size that was asked for.
        let odd = Picture { pixel_height_mm: Some(0.525), ..ramp.clone() };
        assert_eq!(of(&odd, 1.0, 32)[16 * 32..17 * 32].iter().filter(|x| **x > 0.0).count(), 20);
        assert_eq!((0..32).filter(|row| of(&odd, 1.0, 32)[row * 32 + 16] > 0.0).count(), 10);
        let preparation = Preparation { spacing_mm: Some(1.0), ..Preparation::grey(8) };
        let unknown = preparation.apply(grey(4, 4, |_, _| 1.0)).unwrap_err().to_string();
        assert!(unknown.contains("no spacing"), "{unknown}");
        for wrong in [0.0, -1.0, f64::NAN, 1e3] {
            assert!(Preparation { spacing_mm: Some(wrong), ..Preparation::grey(8) }.check().is_err(), "{wrong}");
        }
    }

    #[test]
    fn extreme_shapes_keep_a_pixel() {
        let line = grey(4096, 1, |_, _| 1.0);
        assert_eq!(Preparation::grey(16).apply(line).unwrap().iter().sum::<f32>(), 16.0);
        let dot = grey(1, 1, |_, _| 0.25);
        assert_eq!(Preparation::grey(3).apply(dot).unwrap(), [0.25; 9]);
    }

    #[test]
    fn grey_is_repeated_in_three_channels() {
        let picture = grey(4, 4, |x, _| x as f32 / 3.0);
        let result = Preparation { channels: 3, ..Preparation::grey(4) }.apply(picture.clone()).unwrap();
        assert_eq!(result.len(), 48);
        assert_eq!(result[..16], result[16..32]);
        assert_eq!(result[..16], result[32..]);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        assert!(Preparation::grey(0).check().unwrap_err().to_string().contains("size is 0"));
        assert!(Preparation { channels: 2, ..Preparation::default() }.check().unwrap_err().to_string().contains("channels is 2"));
        assert!(serde_json::from_str::<Preparation>(r#"{"size": 64, "sise": 3}"#).is_err());
        assert_eq!(serde_json::from_str::<Preparation>(r#"{"size": 64}"#).unwrap(), Preparation::grey(64));
    }
}
