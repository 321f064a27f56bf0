//! Colour frames: RGB, YBR and palettes to red, green, blue or their luma.

use dicom_dictionary_std::tags;

use super::codec::Stored;
use super::dataset::Dataset;
use super::grey::Table;
use super::module::{Photometric, PixelModule};
use crate::error::Fault;
use crate::preparation::luma;

/// One plane of luma (`channels` 1) or three of red, green and blue, values in `[0, 1]`.
///
/// # Shapes
/// - result: `[channels][rows, columns]`
pub(super) fn planes(stored: &Stored<'_>, photometric: Photometric, module: &PixelModule, channels: usize) -> Vec<Vec<f32>> {
    let maximum = ((1u64 << module.bits_stored) - 1) as f64;
    let shade = |value: f64| (value / maximum).clamp(0.0, 1.0) as f32;
    match stored {
        Stored::Words(words) => mixed(&words.words, |word| shade(words.value(word).into()), photometric, channels),
        Stored::Reals(values) => mixed(values, shade, photometric, channels),
    }
}

fn mixed<T: Copy>(values: &[T], shade: impl Fn(T) -> f32, photometric: Photometric, channels: usize) -> Vec<Vec<f32>> {
    let pixels = values.as_chunks::<3>().0;
    let ybr = matches!(photometric, Photometric::YbrFull | Photometric::YbrFull422);
    match (channels, ybr) {
        // The first sample is the luma already.
        (1, true) => vec![pixels.iter().map(|&[y, ..]| shade(y)).collect()],
        (1, false) => vec![pixels.iter().map(|&[r, g, b]| luma(shade(r), shade(g), shade(b))).collect()],
        _ => {
            let rgb = |pixel: &[T; 3]| {
                let [a, b, c] = pixel.map(&shade);
                if ybr { rgb_of_ybr(a, b, c) } else { [a, b, c] }
            };
            (0..3).map(|channel| pixels.iter().map(|pixel| rgb(pixel)[channel]).collect()).collect()
        }
    }
}

/// PS3.3 §C.7.6.3.1.2, YBR_FULL, solved for red, green and blue.
pub(super) fn rgb_of_ybr(y: f32, cb: f32, cr: f32) -> [f32; 3] {
    // 128 of 255 is no colour.
    let (cb, cr) = (cb - 128.0 / 255.0, cr - 128.0 / 255.0);
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|x| x.clamp(0.0, 1.0))
}

/// PALETTE COLOR (PS3.3 §C.7.6.3.1.5): three tables.
pub(super) fn palette(stored: &Stored<'_>, module: &PixelModule, data: &Dataset, channels: usize) -> Result<Vec<Vec<f32>>, Fault> {
    use tags::{
        BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA as BLUE_DATA, BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR as BLUE,
        GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA as GREEN_DATA, GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR as GREEN,
        RED_PALETTE_COLOR_LOOKUP_TABLE_DATA as RED_DATA, RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR as RED,
    };
    let Stored::Words(words) = stored else {
        let expected = "1, 8 or 16 of a palette";
        return Err(Fault::Value { tag: tags::BITS_ALLOCATED, name: "Bits Allocated", got: module.bits_allocated.to_string(), expected });
    };
    let table = |descriptor, entries| {
        Table::of(data, descriptor, entries, module.signed)?
            .ok_or(Fault::Missing { tag: descriptor, name: "Palette Color Lookup Table Descriptor" })
    };
    let tables = [table(RED, RED_DATA)?, table(GREEN, GREEN_DATA)?, table(BLUE, BLUE_DATA)?];
    let values: Vec<i32> = words.values().collect();
    let low = values.iter().copied().min().unwrap_or(0);
    let high = values.iter().copied().max().unwrap_or(0);
    let colour = |x: i32| tables.each_ref().map(|table| (table.at(x.into()) / table.maximum) as f32);
    let colours: Vec<[f32; 3]> = (low..=high).map(colour).collect();
    let at = |x: i32| colours[(x - low) as usize];
    Ok(if channels == 1 {
        let shades: Vec<f32> = colours.iter().map(|&[r, g, b]| luma(r, g, b)).collect();
        vec![values.iter().map(|&x| shades[(x - low) as usize]).collect()]
    } else {
        (0..3).map(|channel| values.iter().map(|&x| at(x)[channel]).collect()).collect()
    })
}
