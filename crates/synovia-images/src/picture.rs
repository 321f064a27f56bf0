//! PNG, JPEG and TIFF files: one picture, one study.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use synovia_cohort::Study;

use crate::error::Fault;
use crate::preparation::{Picture, luma};
use crate::quiet::guarded;

/// Pixels on a side that are taken.
const MAX_SIDE: u32 = 16_384;
/// Values of a picture, its channels counted: 33 million pixels of colour, over the 24 million of a dermatoscope's camera. Each
/// takes some eight bytes on its way.
const MAX_SAMPLES: u64 = 3 << 25;
const MAX_BYTES: u64 = 512 << 20;

/// Recognises PNG, JPEG and TIFF by their first bytes, not by their names.
pub(crate) fn format_of(path: &Path) -> Result<Option<ImageFormat>, Fault> {
    let mut start = [0; 132];
    let mut n = 0;
    let mut file = File::open(path)?;
    while n < start.len() {
        match file.read(&mut start[n..])? {
            0 => break,
            k => n += k,
        }
    }
    Ok(match &start[..n] {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(ImageFormat::Png),
        [0xFF, 0xD8, 0xFF, ..] => Some(ImageFormat::Jpeg),
        // A DICOM file's preamble may make it a TIFF file as well (PS3.10 §7.1).
        [.., b'D', b'I', b'C', b'M'] if n == 132 => None,
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(ImageFormat::Tiff),
        [] => return Err(Fault::Empty),
        _ => None,
    })
}

pub(crate) fn is_picture(path: &Path) -> Result<bool, Fault> {
    Ok(format_of(path)?.is_some())
}

/// The study that a picture is by itself. Its name without extension is all that it says: no patient, no time.
pub(crate) fn study_of(path: &Path, file: &str) -> Study {
    Study {
        study_instance_uid: path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        patient: String::new(),
        accession: String::new(),
        time: None,
        modality: String::new(),
        file: file.to_owned(),
        frame: 0,
        n_images: 1,
        slices: Vec::new(),
    }
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Tiff => "TIFF",
        _ => "JPEG",
    }
}

/// A decoder that has read its header only, of a picture that may be decoded.
fn decoder(path: &Path) -> Result<(impl ImageDecoder, &'static str), Fault> {
    let format = format_of(path)?.ok_or(Fault::NotPicture)?;
    let name = name(format);
    let mut reader = ImageReader::with_format(BufReader::new(File::open(path)?), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let decoder = guarded(name, || reader.into_decoder().map_err(|_| Fault::Picture(name)))?;
    let (width, height) = decoder.dimensions();
    let n = u64::from(width) * u64::from(height) * u64::from(decoder.color_type().channel_count());
    if n == 0 || n > MAX_SAMPLES { Err(Fault::Picture(name)) } else { Ok((decoder, name)) }
}

/// Reads the header only.
pub(crate) fn check_header(path: &Path) -> Result<(), Fault> {
    decoder(path).map(|_| ())
}

/// Decodes a picture; transparency is ignored, 16 bits are kept, grey stays exactly grey.
pub(crate) fn decode_file(path: &Path, channels: usize) -> Result<Picture, Fault> {
    let (decoder, name) = decoder(path)?;
    let image = guarded(name, || DynamicImage::from_decoder(decoder).map_err(|_| Fault::Picture(name)))?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let grey8 = |raw: &[u8], step: usize| raw.iter().step_by(step).map(|&x| f32::from(x) / 255.0).collect();
    let grey16 = |raw: &[u16], step: usize| raw.iter().step_by(step).map(|&x| f32::from(x) / 65535.0).collect();
    let planes = match image {
        DynamicImage::ImageLuma8(image) => vec![grey8(image.as_raw(), 1)],
        DynamicImage::ImageLumaA8(image) => vec![grey8(image.as_raw(), 2)],
        DynamicImage::ImageLuma16(image) => vec![grey16(image.as_raw(), 1)],
        DynamicImage::ImageLumaA16(image) => vec![grey16(image.as_raw(), 2)],
        other => {
            let image = other.into_rgb16();
            let pixels = image.pixels().map(|pixel| pixel.0.map(|x| f32::from(x) / 65535.0));
            if channels == 1 {
                vec![pixels.map(|[r, g, b]| luma(r, g, b)).collect()]
            } else {
                (0..3).map(|c| image.pixels().map(|pixel| f32::from(pixel.0[c]) / 65535.0).collect()).collect()
            }
        }
    };
    Ok(Picture { width, height, pixel_width: 1.0, pixel_height_mm: None, planes })
}
