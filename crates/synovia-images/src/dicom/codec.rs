//! Encoded frames to stored values.

use std::borrow::Cow;

use jpeg_decoder::{ColorTransform, PixelFormat};
use jxl_oxide::image::BitDepth;
use jxl_oxide::{AllocTracker, JxlImage, JxlThreadPool};

use super::frame::Encoded;
use super::module::{MAX_SAMPLES, Photometric, PixelModule};
use super::syntax::Codec;
use super::{jpeg, jpeg_ls, rle};
use crate::error::Fault;
use crate::quiet::guarded;

/// Stored values of one frame, pixel after pixel, the samples of a pixel together.
pub(super) enum Stored<'a> {
    /// Up to 16 bits, as coded: [`PixelModule::value`] says what a word means, so that nothing is computed twice for words
    /// that are alike.
    Words(Words<'a>),
    /// More bits, and floating point.
    Reals(Vec<f64>),
}

/// Coded words of up to 16 bits.
pub(super) struct Words<'a> {
    pub(super) words: Cow<'a, [u16]>,
    /// Bits below the value.
    low: u32,
    bits_stored: u32,
    signed: bool,
}

impl<'a> Words<'a> {
    fn new(words: impl Into<Cow<'a, [u16]>>, module: &PixelModule) -> Self {
        Self { words: words.into(), low: 0, bits_stored: module.bits_stored.min(16), signed: module.signed }
    }

    /// The stored value: the bits of a word that are its value, with their sign (PS3.5 §8.1.1). What lies above them is an
    /// overlay, or garbage.
    #[inline]
    pub(super) const fn value(&self, word: u16) -> i32 {
        let shift = 32 - self.bits_stored;
        let raw = (word >> self.low) as i32;
        if self.signed { raw << shift >> shift } else { ((raw as u32) << shift >> shift) as i32 }
    }

    /// Lowest and highest word.
    pub(super) fn span(&self) -> (u16, u16) {
        let span = |words: &[u16]| words.iter().fold((u16::MAX, 0), |(low, high), &word| (low.min(word), high.max(word)));
        let (low, high) = span(&self.words);
        (low.min(high), high)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = i32> + '_ {
        self.words.iter().map(|&word| self.value(word))
    }
}

/// Decodes a frame. The photometric interpretation that holds for the result comes with it: some codecs undo the colour
/// transform that the header names.
pub(super) fn decode<'a>(encoded: &'a Encoded, module: &PixelModule, codec: Codec) -> Result<(Stored<'a>, Photometric), Fault> {
    match codec {
        Codec::Native => native(Cow::Borrowed(&encoded.bytes), encoded.first_bit, module),
        Codec::Encapsulated => native(Cow::Borrowed(fitting(&encoded.bytes, module)?), 0, module),
        Codec::DeflatedFrame => native(Cow::Owned(fitting(&inflate(&encoded.bytes, module)?, module)?.to_vec()), 0, module),
        Codec::Rle => run_length(&encoded.bytes, module),
        Codec::Jpeg => guarded("JPEG", || jpeg(&encoded.bytes, module)),
        Codec::JpegLs => {
            let values = guarded("JPEG-LS", || jpeg_ls::decode(&encoded.bytes, module.columns, module.rows, module.samples))?;
            Ok((Stored::Words(Words::new(values, module)), module.photometric))
        }
        Codec::Jpeg2000 => guarded("JPEG 2000", || jpeg_2000(&encoded.bytes, module)),
        Codec::JpegXl => guarded("JPEG XL", || jpeg_xl(&encoded.bytes, module)),
        Codec::None => Err(Fault::Codec { codec: "pixel" }),
    }
}

/// The low Bits Stored bits of a raw value of any width, with their sign.
fn wide(raw: i64, module: &PixelModule) -> f64 {
    let shift = 64 - module.bits_stored;
    if module.signed { (raw << shift >> shift) as f64 } else { ((raw as u64) << shift >> shift) as f64 }
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
fn native<'a>(bytes: Cow<'a, [u8]>, first_bit: usize, module: &PixelModule) -> Result<(Stored<'a>, Photometric), Fault> {
    let n = module.pixels() * module.samples;
    if module.photometric == Photometric::YbrFull422 && module.bits_allocated == 8 && !module.planar {
        // Y1 Y2 Cb Cr for two pixels; their colour differences are shared.
        let pairs = bytes.as_chunks::<4>().0.iter().flat_map(|&[y1, y2, cb, cr]| [y1, cb, cr, y2, cb, cr]);
        let words: Vec<u16> = pairs.map(u16::from).take(n).collect();
        return if words.len() == n { Ok((Stored::Words(Words::new(words, module)), Photometric::YbrFull)) } else { Err(Fault::Truncated) };
    }
    let short = |held: usize| PixelModule { frames: 1, ..*module }.pixel_length_fault(held as u64);
    // High Bit is Bits Stored - 1 today; older objects hold the value higher up (PS3.5 §8.1.1).
    let low = module.high_bit + 1 - module.bits_stored;
    let held = bytes.len();
    let words: Cow<'a, [u16]> = match (module.bits_allocated, module.float) {
        (16, _) if cfg!(target_endian = "little") => sixteen(bytes, n),
        (16, _) => bytes.as_chunks().0.iter().take(n).map(|&raw| u16::from_le_bytes(raw)).collect(),
        (8, _) => bytes.iter().take(n).map(|&raw| raw.into()).collect(),
        (bits @ 1..=15, _) => (0..n).map_while(|k| packed(&bytes, first_bit + k * bits as usize, bits)).collect(),
        (32, true) => {
            let values = bytes.as_chunks().0.iter().take(n).map(|&raw| f64::from(f32::from_le_bytes(raw))).collect();
            return real(values, module).ok_or_else(|| short(held));
        }
        (64, true) => {
            let values = bytes.as_chunks().0.iter().take(n).map(|&raw| f64::from_le_bytes(raw)).collect();
            return real(values, module).ok_or_else(|| short(held));
        }
        (bits, _) => {
            let raw = |cell: &[u8]| cell.iter().rev().fold(0u64, |raw, &byte| raw << 8 | u64::from(byte)).cast_signed();
            let values = bytes.chunks_exact(bits as usize / 8).take(n).map(|cell| wide(raw(cell) >> low, module)).collect();
            return real(values, module).ok_or_else(|| short(held));
        }
    };
    if words.len() != n {
        return Err(short(held));
    }
    let words = Words { low, ..Words::new(by_pixel(words, module), module) };
    Ok((Stored::Words(words), module.photometric))
}

/// Bytes as words, where they are when they may be.
fn sixteen(bytes: Cow<'_, [u8]>, n: usize) -> Cow<'_, [u16]> {
    match bytes {
        Cow::Borrowed(bytes) => {
            let whole = bytes.get(..2 * n).unwrap_or_default();
            bytemuck::try_cast_slice(whole).map_or_else(|_| bytemuck::pod_collect_to_vec(whole).into(), Cow::Borrowed)
        }
        Cow::Owned(bytes) => bytemuck::pod_collect_to_vec(bytes.get(..2 * n).unwrap_or_default()).into(),
    }
}

fn real<'a>(values: Vec<f64>, module: &PixelModule) -> Option<(Stored<'a>, Photometric)> {
    (values.len() == module.pixels() * module.samples)
        .then(|| (Stored::Reals(by_pixel(values.into(), module).into_owned()), module.photometric))
}

/// `bits` bits from bit `at`, counted from the least significant bit of the first byte (PS3.5 §8.1.1).
fn packed(bytes: &[u8], at: usize, bits: u32) -> Option<u16> {
    let byte = |k: usize| bytes.get(k).map_or(0, |&byte| u32::from(byte));
    let k = at / 8;
    ((at + bits as usize).div_ceil(8) <= bytes.len()).then(|| {
        let window = byte(k) | byte(k + 1) << 8 | byte(k + 2) << 16;
        (window >> (at % 8) & ((1 << bits) - 1)) as u16
    })
}

/// Planes one after another to pixels one after another.
fn by_pixel<'a, T: Copy>(values: Cow<'a, [T]>, module: &PixelModule) -> Cow<'a, [T]> {
    if !module.planar || module.samples == 1 {
        return values;
    }
    let n = module.pixels();
    (0..n).flat_map(|k| (0..module.samples).map(move |sample| sample * n + k)).map(|k| values[k]).collect()
}

fn run_length<'a>(bytes: &[u8], module: &PixelModule) -> Result<(Stored<'a>, Photometric), Fault> {
    if module.bits_allocated == 1 {
        // PS3.5 §8.2.2: bits are packed before they are encoded.
        let packed = rle::decode(bytes, 1, module.pixels().div_ceil(8))?;
        return native(Cow::Owned(packed), 0, module);
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
    native(Cow::Owned(little), 0, &PixelModule { planar: true, photometric, ..*module })
}

fn stream_size(codec: &'static str, got: (usize, usize, usize), module: &PixelModule) -> Result<(), Fault> {
    if got == (module.columns, module.rows, module.samples) {
        return Ok(());
    }
    let (got_columns, got_rows, got_samples) = got;
    let PixelModule { columns, rows, samples, .. } = *module;
    Err(Fault::StreamSize { codec, got_columns, got_rows, got_samples, columns, rows, samples })
}

fn jpeg<'a>(bytes: &[u8], module: &PixelModule) -> Result<(Stored<'a>, Photometric), Fault> {
    const DAMAGED: Fault = Fault::Codec { codec: "JPEG" };
    let frame = jpeg::frame_header(bytes).ok_or(DAMAGED)?;
    let ybr = matches!(module.photometric, Photometric::YbrFull | Photometric::YbrFull422);
    let own = match frame.process {
        0xC3 => true,
        0xC0 | 0xC1 if ybr && frame.precision == 8 => frame.is_subsampled(),
        0xC1 => frame.precision == 12,
        _ => false,
    };
    if own {
        stream_size("JPEG", (frame.columns, frame.rows, frame.samples()), module)?;
        let words = jpeg::decode(bytes)?;
        // No colour transform is undone here: lossless coding has none of its own, and the header names that of the others.
        return Ok((Stored::Words(Words::new(words, module)), module.photometric));
    }
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(MAX_SAMPLES as usize * 2);
    // A stream without a JFIF or Adobe marker does not say which colours it holds: then the header does.
    if module.photometric == Photometric::Rgb && !names_colours(bytes) {
        // Not `None`, which leaves each line of the result in planes.
        decoder.set_color_transform(ColorTransform::RGB);
    }
    decoder.read_info().map_err(|error| match error {
        jpeg_decoder::Error::Unsupported(_) => Fault::Kind { codec: "JPEG", kind: "arithmetic, hierarchical or progressive 12-bit coding" },
        _ => DAMAGED,
    })?;
    let info = decoder.info().ok_or(DAMAGED)?;
    let samples = if info.pixel_format == PixelFormat::RGB24 { 3 } else { 1 };
    stream_size("JPEG", (info.width.into(), info.height.into(), samples), module)?;
    let raw = decoder.decode().map_err(|_| DAMAGED)?;
    let words: Vec<u16> = match info.pixel_format {
        PixelFormat::L8 | PixelFormat::RGB24 => raw.iter().map(|&value| value.into()).collect(),
        PixelFormat::L16 | PixelFormat::CMYK32 => return Err(DAMAGED),
    };
    if words.len() != module.pixels() * module.samples {
        return Err(DAMAGED);
    }
    let photometric = if samples == 3 { Photometric::Rgb } else { module.photometric };
    Ok((Stored::Words(Words::new(words, module)), photometric))
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

/// What a JPEG XL decoder may hold.
const MAX_JPEG_XL_BYTES: usize = 768 << 20;

fn jpeg_xl<'a>(bytes: &[u8], module: &PixelModule) -> Result<(Stored<'a>, Photometric), Fault> {
    const DAMAGED: Fault = Fault::Codec { codec: "JPEG XL" };
    let tracker = AllocTracker::with_limit(MAX_JPEG_XL_BYTES);
    let image = JxlImage::builder().alloc_tracker(tracker).pool(JxlThreadPool::none()).read(bytes).map_err(|_| DAMAGED)?;
    // Nothing is rendered before this.
    let samples = if image.pixel_format().is_grayscale() { 1 } else { 3 };
    stream_size("JPEG XL", (image.width() as usize, image.height() as usize, samples), module)?;
    let BitDepth::IntegerSample { bits_per_sample: bits @ 1..=16 } = image.image_header().metadata.bit_depth else {
        return Err(Fault::Kind { codec: "JPEG XL", kind: "floats, or more than 16 bits" });
    };
    let render = image.render_frame(0).map_err(|_| DAMAGED)?;
    let mut values = vec![0f32; module.pixels() * module.samples];
    if render.stream_no_alpha().write_to_buffer(&mut values) != values.len() {
        return Err(DAMAGED);
    }
    // Integers come as shares of the largest; so many bits are exact in an f32.
    let largest = ((1u32 << bits) - 1) as f32;
    let words: Vec<u16> = values.iter().map(|value| (value * largest).round().clamp(0.0, largest) as u16).collect();
    let photometric = if samples == 3 { Photometric::Rgb } else { module.photometric };
    Ok((Stored::Words(Words::new(words, module)), photometric))
}

fn jpeg_2000<'a>(bytes: &[u8], module: &PixelModule) -> Result<(Stored<'a>, Photometric), Fault> {
    const DAMAGED: Fault = Fault::Codec { codec: "JPEG 2000" };
    // The size is read here first, so that the decoder can't be made to allocate more than the header admits. It is given the
    // codestream from there on: the boxes of a JP2 file could lead it to another.
    let (codestream, size) = codestream(bytes).ok_or(DAMAGED)?;
    stream_size("JPEG 2000", size, module)?;
    let image = jpeg2k::Image::from_bytes(codestream).map_err(|_| DAMAGED)?;
    let components = image.components();
    let n = module.pixels();
    if components.len() != module.samples || components.iter().any(|component| component.data().len() != n) {
        return Err(DAMAGED);
    }
    // The stream's own transform is undone; a YBR_FULL image that had none stays what it is.
    let photometric = match module.photometric {
        Photometric::YbrOfCodec => Photometric::Rgb,
        Photometric::YbrFull422 => Photometric::YbrFull,
        other => other,
    };
    let stored = match components {
        [grey] if module.bits_stored <= 16 => {
            Stored::Words(Words::new(grey.data().iter().map(|&value| value as u16).collect::<Vec<_>>(), module))
        }
        _ => {
            let values = (0..n).flat_map(|k| components.iter().map(move |component| component.data()[k]));
            if module.bits_stored <= 16 {
                Stored::Words(Words::new(values.map(|value| value as u16).collect::<Vec<_>>(), module))
            } else {
                Stored::Reals(values.map(|value| wide(value.into(), module)).collect())
            }
        }
    };
    Ok((stored, photometric))
}

/// The first JPEG 2000 codestream, bare or within a JP2 file, and its columns, rows and components (ITU-T T.800 §A.5.1, SIZ).
fn codestream(bytes: &[u8]) -> Option<(&[u8], (usize, usize, usize))> {
    let start = bytes.windows(4).position(|window| window == [0xFF, 0x4F, 0xFF, 0x51])?;
    let siz = bytes.get(start + 4..)?;
    let word = |at: usize| siz.get(at..at + 4)?.first_chunk().map(|&word| u32::from_be_bytes(word));
    // Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz, XTOsiz, YTOsiz, Csiz
    let columns = word(4)?.checked_sub(word(12)?)?;
    let rows = word(8)?.checked_sub(word(16)?)?;
    let samples = u16::from_be_bytes(*siz.get(36..38)?.first_chunk()?);
    Some((&bytes[start..], (columns as usize, rows as usize, samples.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoder_is_given_the_size_that_was_checked() {
        let siz = |size: u32| {
            let mut siz = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
            siz.extend([size, size, 0, 0, size, size, 0, 0].iter().flat_map(|word| word.to_be_bytes()));
            siz.extend([0, 1]);
            siz
        };
        // A small one in a box before the one that the boxes lead to.
        let bytes = [vec![0; 20], siz(2), siz(60_000)].concat();
        let (stream, size) = codestream(&bytes).unwrap();
        assert_eq!((stream, size), (&bytes[20..], (2, 2, 1)));
    }
}
