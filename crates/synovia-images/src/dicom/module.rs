//! The Image Pixel module (PS3.3 §C.7.6.3), checked.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::Dataset;
use crate::error::Fault;

/// Samples of a frame that are decoded at most: 8192 x 8192 grey, over twice the largest mammogram.
pub(super) const MAX_SAMPLES: u64 = 1 << 26;

/// Photometric Interpretation (PS3.3 §C.7.6.3.1.2), as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Photometric {
    /// The lowest value is white.
    Monochrome1,
    /// The lowest value is black.
    Monochrome2,
    /// An index into three tables.
    Palette,
    /// Red, green, blue.
    Rgb,
    /// Luma and two colour differences, full range.
    YbrFull,
    /// The same, colour differences at half the columns: two luma samples share a pair.
    YbrFull422,
    /// The colour transform of a JPEG 2000 stream, which its decoder undoes.
    YbrOfCodec,
}

impl Photometric {
    pub(super) const fn is_colour(self) -> bool {
        !matches!(self, Self::Monochrome1 | Self::Monochrome2 | Self::Palette)
    }
}

/// How stored values are laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct PixelModule {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) samples: usize,
    pub(super) bits_allocated: u32,
    pub(super) bits_stored: u32,
    pub(super) high_bit: u32,
    pub(super) signed: bool,
    /// Float or Double Float Pixel Data.
    pub(super) float: bool,
    pub(super) photometric: Photometric,
    /// All of one colour after all of another.
    pub(super) planar: bool,
    pub(super) frames: u32,
}

impl PixelModule {
    /// Reads and checks the module; `pixels` is the tag of the element that holds the pixels.
    pub(super) fn of(data: &Dataset, pixels: Tag) -> Result<Self, Fault> {
        let required = |tag, name| data.short(tag).ok_or(Fault::Missing { tag, name });
        let (rows, columns) = (required(tags::ROWS, "Rows")?, required(tags::COLUMNS, "Columns")?);
        for (tag, name, value) in [(tags::ROWS, "Rows", rows), (tags::COLUMNS, "Columns", columns)] {
            if value == 0 {
                return Err(Fault::Value { tag, name, got: "0".into(), expected: "at least 1" });
            }
        }
        let float = pixels != tags::PIXEL_DATA;
        let samples = data.short(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
        let bits_allocated = required(tags::BITS_ALLOCATED, "Bits Allocated")?;
        let allowed: &[u16] = match pixels {
            tags::FLOAT_PIXEL_DATA => &[32],
            tags::DOUBLE_FLOAT_PIXEL_DATA => &[64],
            _ => &[1, 8, 16, 32],
        };
        if !allowed.contains(&bits_allocated) {
            return Err(Fault::Value {
                tag: tags::BITS_ALLOCATED,
                name: "Bits Allocated",
                got: bits_allocated.to_string(),
                expected: "1, 8, 16 or 32 (Pixel Data), 32 (Float), 64 (Double Float)",
            });
        }
        let bits_stored = if float { bits_allocated } else { data.short(tags::BITS_STORED).unwrap_or(bits_allocated) };
        if bits_stored == 0 || bits_stored > bits_allocated {
            let got = bits_stored.to_string();
            return Err(Fault::Value { tag: tags::BITS_STORED, name: "Bits Stored", got, expected: "1 to Bits Allocated" });
        }
        let high_bit = data.short(tags::HIGH_BIT).filter(|_| !float).unwrap_or(bits_stored - 1);
        if high_bit >= bits_allocated || high_bit + 1 < bits_stored {
            let got = high_bit.to_string();
            return Err(Fault::Value {
                tag: tags::HIGH_BIT,
                name: "High Bit",
                got,
                expected: "from Bits Stored - 1 to Bits Allocated - 1",
            });
        }
        let photometric = photometric(data)?;
        let expected = if photometric.is_colour() { 3 } else { 1 };
        if samples != expected {
            let expected =
                if expected == 3 { "3, as the Photometric Interpretation says" } else { "1, as the Photometric Interpretation says" };
            return Err(Fault::Value { tag: tags::SAMPLES_PER_PIXEL, name: "Samples per Pixel", got: samples.to_string(), expected });
        }
        let frames = data.decimal(tags::NUMBER_OF_FRAMES).unwrap_or(1.0);
        if !(frames >= 0.0 && frames <= f64::from(i32::MAX)) {
            return Err(Fault::Value {
                tag: tags::NUMBER_OF_FRAMES,
                name: "Number of Frames",
                got: "not a count".into(),
                expected: "at least 1",
            });
        }
        let module = Self {
            rows: rows.into(),
            columns: columns.into(),
            samples: samples.into(),
            bits_allocated: bits_allocated.into(),
            bits_stored: bits_stored.into(),
            high_bit: high_bit.into(),
            signed: data.short(tags::PIXEL_REPRESENTATION) == Some(1),
            float,
            photometric,
            planar: data.short(tags::PLANAR_CONFIGURATION) == Some(1),
            // 0 is not allowed, and those that write it mean one.
            frames: (frames as u32).max(1),
        };
        if module.pixels() as u64 * u64::from(samples) > MAX_SAMPLES {
            return Err(Fault::FrameTooLarge { rows: module.rows, columns: module.columns, samples: module.samples, limit: MAX_SAMPLES });
        }
        Ok(module)
    }

    pub(super) const fn pixels(&self) -> usize {
        self.rows * self.columns
    }

    /// Bits of a native frame: not always whole bytes (PS3.5 §8.1.1).
    pub(super) const fn frame_bits(&self) -> u64 {
        // 4:2:2 stores four samples for two pixels (PS3.3 §C.7.6.3.1.2).
        let samples = if matches!(self.photometric, Photometric::YbrFull422) { 2 } else { self.samples };
        self.pixels() as u64 * samples as u64 * self.bits_allocated as u64
    }

    pub(super) fn pixel_length_fault(&self, held: u64) -> Fault {
        Fault::PixelLength {
            held,
            needed: (self.frame_bits().saturating_mul(self.frames.into())).div_ceil(8),
            frames: self.frames,
            rows: self.rows,
            columns: self.columns,
            samples: self.samples,
            bits: self.bits_allocated,
        }
    }
}

fn photometric(data: &Dataset) -> Result<Photometric, Fault> {
    let (tag, name) = (tags::PHOTOMETRIC_INTERPRETATION, "Photometric Interpretation");
    let text = data.text(tag).ok_or(Fault::Missing { tag, name })?;
    Ok(match text.as_str() {
        "MONOCHROME1" => Photometric::Monochrome1,
        "MONOCHROME2" => Photometric::Monochrome2,
        "PALETTE COLOR" => Photometric::Palette,
        "RGB" => Photometric::Rgb,
        "YBR_FULL" => Photometric::YbrFull,
        "YBR_FULL_422" => Photometric::YbrFull422,
        "YBR_ICT" | "YBR_RCT" => Photometric::YbrOfCodec,
        other => {
            let expected = "MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB, YBR_FULL, YBR_FULL_422, YBR_ICT or YBR_RCT";
            return Err(Fault::Value { tag, name, got: Fault::shown(other), expected });
        }
    })
}
