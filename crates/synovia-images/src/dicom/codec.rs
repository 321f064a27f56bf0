//! Encoded frames to stored values.

use jpeg_decoder::{ColorTransform, PixelFormat};

use super::frame::Encoded;
use super::module::{MAX_SAMPLES, Photometric, PixelModule};
use super::syntax::Codec;
use super::{jpeg_ls, rle};
use crate::error::Fault;
use crate::quiet::guarded;

/// Stored values of one frame, pixel after pixel, the samples of a pixel together.
pub(super) enum Stored {
    /// Up to 16 bits.
    Integers(Vec<i32>),
    /// 32 bits and floating point.
    Reals(Vec<f64>),
}

/// Decodes a frame. The photometric interpretation that holds for the result comes with it: some codecs undo the colour
/// transform that the header names.
pub(super) fn decode(encoded: &Encoded, module: &PixelModule, codec: Codec) -> Result<(Stored, Photometric), Fault> {
    match codec {
        Codec::Native => native(&encoded.bytes, encoded.first_bit, module),
        Codec::Encapsulated => native(fitting(&encoded.bytes, module)?, 0, module),
        Codec::DeflatedFrame => native(fitting(&inflate(&encoded.bytes, module)?, module)?, 0, module),
        Codec::Rle => run_length(&encoded.bytes, module),
        Codec::Jpeg => guarded("JPEG", || jpeg(&encoded.bytes, module)),
        Codec::JpegLs => {
            let values = guarded("JPEG-LS", || jpeg_ls::decode(&encoded.bytes, module.columns, module.rows, module.samples))?;
            Ok((Stored::Integers(values.into_iter().map(|value| sign(i64::from(value), module)).collect()), module.photometric))
        }
        Codec::Jpeg2000 => guarded("JPEG 2000", || jpeg_2000(&encoded.bytes, module)),
        Codec::None => Err(Fault::Codec { codec: "pixel" }),
    }
}

/// The low Bits Stored bits of a raw value, with their sign (PS3.5 §8.1.1): what lies above is an overlay, or garbage.
fn sign(raw: i64, module: &PixelModule) -> i32 {
    let shift = 64 - module.bits_stored;
    (if module.signed { raw << shift >> shift } else { ((raw as u64) << shift >> shift) as i64 }) as i32
}

fn fitting<'a>(bytes: &'a [u8], module: &PixelModule) -> Result<&'a [u8], Fault> {
    let needed = module.frame_bits().div_ceil(8);
    bytes.get(..needed as usize).ok_or_else(|| PixelModule { frames: 1, ..*module }.pixel_length_fault(bytes.len() as u64))
}

fn inflate(bytes: &[u8], module: &PixelModule) -> Result<Vec<u8>, Fault> {
    use std::io::Read;
    let mut frame = Vec::new();
    let limit = module.frame_bits().div_ceil(8);
    flate2::read::DeflateDecoder::new(bytes).take(limit).read_to_end(&mut frame).map_err(|_| Fault::Codec { codec: "deflate" })?;
    Ok(frame)
}

/// Values as they lie in little-endian bytes.
fn native(bytes: &[u8], first_bit: usize, module: &PixelModule) -> Result<(Stored, Photometric), Fault> {
    let n = module.pixels() * module.samples;
    if module.photometric == Photometric::YbrFull422 && module.bits_allocated == 8 && !module.planar {
        // Y1 Y2 Cb Cr for two pixels; their colour differences are shared.
        let pairs = bytes.as_chunks::<4>().0.iter().flat_map(|&[y1, y2, cb, cr]| [y1, cb, cr, y2, cb, cr]);
        let values: Vec<i32> = pairs.map(|value| sign(value.into(), module)).take(n).collect();
        return if values.len() == n { Ok((Stored::Integers(values), Photometric::YbrFull)) } else { Err(Fault::Truncated) };
    }
    // High Bit is Bits Stored - 1 today; older objects hold the value higher up (PS3.5 §8.1.1).
    let low = module.high_bit + 1 - module.bits_stored;
    let value = |raw: i64| sign(raw >> low, module);
    let stored = match (module.bits_allocated, module.float) {
        (1, _) => Stored::Integers((0..n).map_while(|k| bit(bytes, first_bit + k)).collect()),
        (8, _) => Stored::Integers(bytes.iter().take(n).map(|&raw| value(raw.into())).collect()),
        (16, _) => Stored::Integers(bytes.as_chunks().0.iter().take(n).map(|&raw| value(u16::from_le_bytes(raw).into())).collect()),
        (_, false) => {
            let shift = 64 - module.bits_stored;
            let wide = |raw: i64| if module.signed { raw << shift >> shift } else { ((raw as u64) << shift >> shift) as i64 };
            Stored::Reals(bytes.as_chunks().0.iter().take(n).map(|&raw| wide(i64::from(u32::from_le_bytes(raw)) >> low) as f64).collect())
        }
        (32, true) => Stored::Reals(bytes.as_chunks().0.iter().take(n).map(|&raw| f64::from(f32::from_le_bytes(raw))).collect()),
        (_, true) => Stored::Reals(bytes.as_chunks().0.iter().take(n).map(|&raw| f64::from_le_bytes(raw)).collect()),
    };
    let stored = match stored {
        Stored::Integers(values) if values.len() == n => Stored::Integers(by_pixel(values, module)),
        Stored::Reals(values) if values.len() == n => Stored::Reals(by_pixel(values, module)),
        _ => return Err(PixelModule { frames: 1, ..*module }.pixel_length_fault(bytes.len() as u64)),
    };
    Ok((stored, module.photometric))
}

/// Bit `k`, from the least significant bit of the first byte (PS3.5 §8.1.1).
fn bit(bytes: &[u8], k: usize) -> Option<i32> {
    bytes.get(k / 8).map(|byte| i32::from(byte >> (k % 8) & 1))
}

/// Planes one after another to pixels one after another.
fn by_pixel<T: Copy>(values: Vec<T>, module: &PixelModule) -> Vec<T> {
    if !module.planar || module.samples == 1 {
        return values;
    }
    let n = module.pixels();
    (0..n).flat_map(|k| (0..module.samples).map(move |sample| sample * n + k)).map(|k| values[k]).collect()
}

fn run_length(bytes: &[u8], module: &PixelModule) -> Result<(Stored, Photometric), Fault> {
    if module.bits_allocated == 1 {
        // PS3.5 §8.2.2: bits are packed before they are encoded.
        let packed = rle::decode(bytes, 1, module.pixels().div_ceil(8))?;
        return native(&packed, 0, module);
    }
    let width = module.bits_allocated as usize / 8;
    let n = module.pixels();
    let planes = rle::decode(bytes, module.samples * width, n)?;
    // Back to little-endian values in planes, then as native ones.
    let mut little = vec![0; planes.len()];
    for sample in 0..module.samples {
        for byte in 0..width {
            let plane = &planes[(sample * width + byte) * n..][..n];
            let place = width - 1 - byte;
            for (k, &value) in plane.iter().enumerate() {
                little[(sample * n + k) * width + place] = value;
            }
        }
    }
    let photometric = if module.photometric == Photometric::YbrFull422 { Photometric::YbrFull } else { module.photometric };
    native(&little, 0, &PixelModule { planar: true, photometric, ..*module })
}

fn stream_size(codec: &'static str, got: (usize, usize, usize), module: &PixelModule) -> Result<(), Fault> {
    if got == (module.columns, module.rows, module.samples) {
        return Ok(());
    }
    let (got_columns, got_rows, got_samples) = got;
    let PixelModule { columns, rows, samples, .. } = *module;
    Err(Fault::StreamSize { codec, got_columns, got_rows, got_samples, columns, rows, samples })
}

fn jpeg(bytes: &[u8], module: &PixelModule) -> Result<(Stored, Photometric), Fault> {
    let damaged = |_| Fault::Codec { codec: "JPEG" };
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(MAX_SAMPLES as usize * 2);
    // A stream without a JFIF or Adobe marker does not say which colours it holds: then the header does.
    if module.photometric == Photometric::Rgb && !names_colours(bytes) {
        // Not `None`, which leaves each line of the result in planes.
        decoder.set_color_transform(ColorTransform::RGB);
    }
    decoder.read_info().map_err(|error| match error {
        jpeg_decoder::Error::Unsupported(_) => Fault::Kind { codec: "JPEG", kind: "12-bit, arithmetic or hierarchical coding" },
        _ => damaged(error),
    })?;
    let info = decoder.info().ok_or(Fault::Codec { codec: "JPEG" })?;
    let samples = if info.pixel_format == PixelFormat::RGB24 { 3 } else { 1 };
    stream_size("JPEG", (info.width.into(), info.height.into(), samples), module)?;
    let raw = decoder.decode().map_err(damaged)?;
    let values: Vec<i32> = match info.pixel_format {
        PixelFormat::L16 => raw.as_chunks().0.iter().map(|&pair| sign(u16::from_ne_bytes(pair).into(), module)).collect(),
        PixelFormat::L8 | PixelFormat::RGB24 => raw.iter().map(|&value| sign(value.into(), module)).collect(),
        PixelFormat::CMYK32 => return Err(Fault::Codec { codec: "JPEG" }),
    };
    if values.len() != module.pixels() * module.samples {
        return Err(Fault::Codec { codec: "JPEG" });
    }
    let photometric = if samples == 3 { Photometric::Rgb } else { module.photometric };
    Ok((Stored::Integers(values), photometric))
}

/// Whether a JFIF (APP0) or Adobe (APP14) marker comes before the first frame header.
fn names_colours(mut bytes: &[u8]) -> bool {
    bytes = bytes.get(2..).unwrap_or_default();
    while let [0xFF, marker, high, low, rest @ ..] = bytes {
        match marker {
            0xE0 if rest.starts_with(b"JFIF") => return true,
            // A marker that is too short to hold its transform says nothing.
            0xEE if rest.starts_with(b"Adobe") && u16::from_be_bytes([*high, *low]) >= 14 => return true,
            0xC0..=0xC3 | 0xDA => return false,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        bytes = bytes.get(2 + length..).unwrap_or_default();
    }
    false
}

fn jpeg_2000(bytes: &[u8], module: &PixelModule) -> Result<(Stored, Photometric), Fault> {
    const DAMAGED: Fault = Fault::Codec { codec: "JPEG 2000" };
    // The size is read here first, so that the decoder can't be made to allocate more than the header admits.
    let (columns, rows, samples) = size_of_codestream(bytes).ok_or(DAMAGED)?;
    stream_size("JPEG 2000", (columns, rows, samples), module)?;
    let image = jpeg2k::Image::from_bytes(bytes).map_err(|_| DAMAGED)?;
    let components = image.components();
    let n = module.pixels();
    if components.len() != module.samples || components.iter().any(|component| component.data().len() != n) {
        return Err(DAMAGED);
    }
    let values = (0..n).flat_map(|k| components.iter().map(move |component| component.data()[k]));
    let values = values.map(|value| sign(value.into(), module)).collect();
    // The stream's own transform is undone; a YBR_FULL image that had none stays what it is.
    let photometric = match module.photometric {
        Photometric::YbrOfCodec => Photometric::Rgb,
        Photometric::YbrFull422 => Photometric::YbrFull,
        other => other,
    };
    Ok((Stored::Integers(values), photometric))
}

/// Columns, rows and components of a JPEG 2000 codestream, bare or within a JP2 file (ITU-T T.800 §A.5.1, SIZ).
fn size_of_codestream(bytes: &[u8]) -> Option<(usize, usize, usize)> {
    let start = bytes.windows(4).position(|window| window == [0xFF, 0x4F, 0xFF, 0x51])?;
    let siz = bytes.get(start + 4..)?;
    let word = |at: usize| siz.get(at..at + 4)?.first_chunk().map(|&word| u32::from_be_bytes(word));
    // Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz, XTOsiz, YTOsiz, Csiz
    let columns = word(4)?.checked_sub(word(12)?)?;
    let rows = word(8)?.checked_sub(word(16)?)?;
    let samples = u16::from_be_bytes(*siz.get(36..38)?.first_chunk()?);
    Some((columns as usize, rows as usize, samples.into()))
}
