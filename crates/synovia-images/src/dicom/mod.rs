//! DICOM: one file to its place in the index, or to a decoded picture.

mod codec;
mod colour;
mod dataset;
mod file;
mod frame;
mod grey;
mod instance;
mod jpeg;
mod jpeg_ls;
mod json;
mod module;
mod rle;
mod segmented;
mod syntax;

#[cfg(test)]
use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use synovia_cohort::Study;

pub(crate) use dataset::{Encoding, Held};
pub(crate) use file::{Split, directory_files, split_file, uids_of};
pub(crate) use grey::shades;
pub(crate) use instance::{Instance, Role, may_show_name};
#[cfg(test)]
pub(crate) use jpeg::Written as WrittenJpeg;
pub(crate) use json::{Entry, read_json};
pub(crate) use syntax::syntax_uids;

use crate::error::Fault;
use crate::preparation::{MAX_MM, MIN_MM, Picture, Preparation};
use crate::recycle;
use dataset::{Dataset, Input};
use file::{Depth, Opened};
use module::{Photometric, PixelModule};

/// Elements that decoding reads besides those of the index.
const PIXEL_TAGS: &[Tag] = &[
    tags::PIXEL_SPACING,
    tags::IMAGER_PIXEL_SPACING,
    tags::PIXEL_ASPECT_RATIO,
    tags::PIXEL_PADDING_VALUE,
    tags::PIXEL_PADDING_RANGE_LIMIT,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::VOILUT_FUNCTION,
    tags::RESCALE_SLOPE,
    tags::RESCALE_INTERCEPT,
    tags::MODALITY_LUT_SEQUENCE,
    tags::VOILUT_SEQUENCE,
    tags::LUT_DESCRIPTOR,
    tags::LUT_DATA,
    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
    tags::FRAME_VOILUT_SEQUENCE,
    tags::PIXEL_MEASURES_SEQUENCE,
    tags::EXTENDED_OFFSET_TABLE,
];

/// Reads the header of a file and says what the index needs; refuses what could not be decoded.
pub(crate) fn index_file(input: impl Input) -> Result<Instance, Fault> {
    let opened = Opened::read(input, Depth::Header, instance::INDEX_TAGS)?;
    let pixels = opened.pixels.ok_or(Fault::Missing { tag: tags::PIXEL_DATA, name: "Pixel Data" })?;
    let module = PixelModule::of(&opened.data, pixels.tag)?;
    frame::check(&opened, &module, Depth::Header)?;
    Instance::of(&opened.data, module.frames)
}

/// The frames of a file in order along their normal, with their places on it in millimetres where they lie in space.
pub(crate) fn frames_in_space(input: impl Input) -> Result<(Vec<u32>, Option<Vec<f64>>), Fault> {
    let opened = Opened::read(input, Depth::Header, instance::INDEX_TAGS)?;
    let pixels = opened.pixels.ok_or(Fault::Missing { tag: tags::PIXEL_DATA, name: "Pixel Data" })?;
    let module = PixelModule::of(&opened.data, pixels.tag)?;
    Ok(instance::frames_in_space(&opened.data, module.frames))
}

/// Decodes a frame, the middle one unless told, to grey or colour in `[0, 1]`.
pub(crate) fn decode_file(input: impl Input, frame: Option<u32>, preparation: &Preparation) -> Result<(Picture, Study), Fault> {
    let channels = preparation.channels;
    let wanted = [instance::INDEX_TAGS, PIXEL_TAGS].concat();
    let mut opened = Opened::read(input, Depth::Pixels, &wanted)?;
    let pixels = opened.pixels.ok_or(Fault::Missing { tag: tags::PIXEL_DATA, name: "Pixel Data" })?;
    let module = PixelModule::of(&opened.data, pixels.tag)?;
    let study = instance::study_of(&opened.data, module.frames);
    let frame = frame.unwrap_or(study.frame);
    let encoded = frame::read(&mut opened, &module, frame)?;
    let (stored, photometric) = codec::decode(&encoded, &module, opened.syntax.codec)?;
    let data = &opened.data;
    let planes = match photometric {
        Photometric::Monochrome1 | Photometric::Monochrome2 => vec![grey::grey(&stored, &module, data, frame, preparation.window)?],
        Photometric::Palette => colour::palette(&stored, &module, data, channels)?,
        _ => colour::planes(&stored, photometric, &module, channels),
    };
    drop(stored);
    recycle::keep_bytes(encoded.bytes);
    let (pixel_width, pixel_height_mm) = pixel_size(data, frame as usize);
    let picture = Picture { width: module.columns, height: module.rows, pixel_width, pixel_height_mm, planes };
    Ok((picture, Study { frame, ..study }))
}

/// Width of a pixel over its height, from Pixel Spacing or Pixel Aspect Ratio (both: rows first), 1 where there is none, or
/// one that no detector has; and its height in millimetres, where there is a spacing that a detector has. That of a projection's
/// detector is taken for the patient's where there is no other.
fn pixel_size(data: &Dataset, frame: usize) -> (f64, Option<f64>) {
    let shared = data.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
    let own = data.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).get(frame);
    let measures = grey::group_of(own, shared, tags::PIXEL_MEASURES_SEQUENCE).unwrap_or(data);
    let pair = |values: Option<Vec<f64>>| values.and_then(|values| <[f64; 2]>::try_from(values).ok());
    let is_ratio = |ratio: &f64| (0.1..=10.0).contains(ratio);
    let spacing = pair(measures.decimals(tags::PIXEL_SPACING)).or_else(|| pair(data.decimals(tags::IMAGER_PIXEL_SPACING)));
    if let Some([row, column]) = spacing {
        let known = is_ratio(&(column / row)) && (MIN_MM..=MAX_MM).contains(&row);
        return (Some(column / row).filter(is_ratio).unwrap_or(1.0), known.then_some(row));
    }
    let ratio = pair(data.decimals(tags::PIXEL_ASPECT_RATIO)).map(|[row, column]| column / row);
    (ratio.filter(is_ratio).unwrap_or(1.0), None)
}

/// The stored values of every frame, colour as red, green and blue, and what the header says of them: for comparison with
/// another reader's.
#[cfg(test)]
pub(crate) fn stored_values(path: &Path) -> Result<Vec<f64>, Fault> {
    let mut opened = Opened::read(path, Depth::Pixels, &[instance::INDEX_TAGS, PIXEL_TAGS].concat())?;
    let pixels = opened.pixels.ok_or(Fault::Missing { tag: tags::PIXEL_DATA, name: "Pixel Data" })?;
    let module = PixelModule::of(&opened.data, pixels.tag)?;
    let mut all = Vec::new();
    for frame in 0..module.frames {
        let encoded = frame::read(&mut opened, &module, frame)?;
        let (stored, photometric) = codec::decode(&encoded, &module, opened.syntax.codec)?;
        let values: Vec<f64> = match stored {
            codec::Stored::Words(words) => words.values().map(f64::from).collect(),
            codec::Stored::Reals(values) => values,
        };
        if matches!(photometric, Photometric::YbrFull | Photometric::YbrFull422) && module.bits_stored == 8 {
            for pixel in values.as_chunks::<3>().0 {
                let rgb = colour::rgb_of_ybr(pixel[0] as f32 / 255.0, pixel[1] as f32 / 255.0, pixel[2] as f32 / 255.0);
                all.extend(rgb.map(|x| f64::from((x * 255.0).round())));
            }
        } else {
            all.extend(values);
        }
    }
    Ok(all)
}

/// Name of the transfer syntax with this UID.
#[cfg(test)]
pub(crate) fn syntax_name(uid: &str) -> &'static str {
    syntax::TransferSyntax::of(uid).map_or("none or unknown", |syntax| syntax.name)
}
