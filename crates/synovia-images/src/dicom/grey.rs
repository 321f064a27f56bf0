//! Stored values to grey in `[0, 1]`: modality transformation (PS3.3 §C.11.1), VOI transformation (§C.11.2), and the
//! direction of MONOCHROME1.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::codec::Stored;
use super::dataset::Dataset;
use super::module::{Photometric, PixelModule};
use super::segmented;
use crate::error::Fault;
use crate::recycle;
use crate::window::Window;

/// A look-up table (§C.11.1.1, §C.11.2.1.1).
pub(super) struct Table {
    /// Input value of the first entry; what lies below has the first entry, what lies above the last.
    first: f64,
    entries: Vec<u16>,
    /// Greatest value that an entry can have.
    pub(super) maximum: f64,
}

impl Table {
    /// Reads descriptor and data. `signed` says how the descriptor's second value is meant (§C.11.1.1.1: as Pixel Representation).
    pub(super) fn of(data: &Dataset, descriptor: Tag, entries: Tag, signed: bool) -> Result<Option<Self>, Fault> {
        let Some(shape) = data.shorts(descriptor) else { return Ok(None) };
        let malformed = |what| Fault::Malformed { tag: descriptor, what };
        let [n, first, bits] = shape[..] else { return Err(malformed("a LUT Descriptor has three values")) };
        // 0 stands for 65536.
        let n = if n == 0 { 65_536 } else { usize::from(n) };
        let segmented = data.shorts(segments_of(entries)).filter(|_| data.bytes(entries).is_none());
        if let Some(words) = segmented {
            let tag = segments_of(entries);
            let entries = segmented::expand(&words, n).filter(|expanded| expanded.len() == n).ok_or(segmented::malformed(tag))?;
            let first = if signed { f64::from(first.cast_signed()) } else { first.into() };
            let maximum = f64::from(u16::MAX >> (16 - bits.clamp(1, 16)));
            return Ok(Some(Self { first, entries, maximum }));
        }
        let bytes = data.bytes(entries).ok_or(Fault::Missing { tag: entries, name: "LUT Data" })?;
        // Eight-bit entries come one a byte from some writers, one a word from others.
        let entries: Vec<u16> = if bits <= 8 && bytes.len() < 2 * n {
            bytes.iter().take(n).map(|&entry| entry.into()).collect()
        } else {
            data.shorts(entries).unwrap_or_default().into_iter().take(n).collect()
        };
        if entries.len() != n || !(1..=16).contains(&bits) {
            return Err(malformed("LUT Data does not have the entries that the LUT Descriptor says"));
        }
        let first = if signed { f64::from(first.cast_signed()) } else { first.into() };
        // Some writers claim 8 bits and use 16.
        let maximum = entries.iter().copied().max().filter(|&max| u32::from(max) >> bits > 0).map_or((1 << bits) - 1, |_| 65_535);
        Ok(Some(Self { first, entries, maximum: f64::from(maximum) }))
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        // NaN becomes the first entry.
        let k = (value - self.first).clamp(0.0, (self.entries.len() - 1) as f64) as usize;
        self.entries[k].into()
    }
}

/// Where the same table is in segments: the palette's element 12xx has its segmented form at 12xx + 0x20.
const fn segments_of(entries: Tag) -> Tag {
    Tag(entries.0, entries.1 + 0x20)
}

/// Stored values to the quantity that they stand for, such as Hounsfield units.
pub(super) enum Modality {
    Linear { slope: f64, intercept: f64 },
    Table(Table),
}

impl Modality {
    fn of(data: &Dataset, frame: usize, module: &PixelModule) -> Result<Self, Fault> {
        if let Some(item) = data.items(tags::MODALITY_LUT_SEQUENCE).first()
            && let Some(table) = Table::of(item, tags::LUT_DESCRIPTOR, tags::LUT_DATA, module.signed)?
        {
            return Ok(Self::Table(table));
        }
        let group = functional_group(data, frame, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE).unwrap_or(data);
        let slope = group.decimal(tags::RESCALE_SLOPE).unwrap_or(1.0);
        let intercept = group.decimal(tags::RESCALE_INTERCEPT).unwrap_or(0.0);
        if slope == 0.0 || !slope.is_finite() {
            let got = if slope == 0.0 { "0" } else { "not a finite number" }.to_owned();
            return Err(Fault::Value { tag: tags::RESCALE_SLOPE, name: "Rescale Slope", got, expected: "a number other than 0" });
        }
        if !intercept.is_finite() {
            let got = "not a finite number".to_owned();
            return Err(Fault::Value { tag: tags::RESCALE_INTERCEPT, name: "Rescale Intercept", got, expected: "a number" });
        }
        Ok(Self::Linear { slope, intercept })
    }

    fn at(&self, stored: f64) -> f64 {
        match self {
            Self::Linear { slope, intercept } => slope * stored + intercept,
            Self::Table(table) => table.at(stored),
        }
    }

    fn can_be_negative(&self, module: &PixelModule) -> bool {
        match self {
            Self::Linear { slope, intercept } => module.signed || *slope < 0.0 || *intercept < 0.0,
            Self::Table(_) => false,
        }
    }
}

/// The quantity to grey in `[0, 1]`.
pub(super) enum Voi {
    Linear {
        center: f64,
        width: f64,
    },
    LinearExact {
        center: f64,
        width: f64,
    },
    Sigmoid {
        center: f64,
        width: f64,
    },
    Table(Table),
    /// No usable window: the image's own range, padding left out.
    Range {
        low: f64,
        high: f64,
    },
}

impl Voi {
    /// The table if there is one, else the first window: the standard offers alternatives (§C.11.2.1) and says that they
    /// are ordered. A window that is no number or has no width that its function allows counts as none.
    fn of(data: &Dataset, frame: usize, signed: bool) -> Result<Option<Self>, Fault> {
        if let Some(item) = data.items(tags::VOILUT_SEQUENCE).first()
            && let Some(table) = Table::of(item, tags::LUT_DESCRIPTOR, tags::LUT_DATA, signed)?
        {
            return Ok(Some(Self::Table(table)));
        }
        let group = functional_group(data, frame, tags::FRAME_VOILUT_SEQUENCE).unwrap_or(data);
        let (Some(center), Some(width)) = (group.decimal(tags::WINDOW_CENTER), group.decimal(tags::WINDOW_WIDTH)) else {
            return Ok(None);
        };
        if !center.is_finite() || !width.is_finite() {
            return Ok(None);
        }
        Ok(match group.text(tags::VOILUT_FUNCTION).as_deref() {
            Some("LINEAR_EXACT") => (width > 0.0).then_some(Self::LinearExact { center, width }),
            Some("SIGMOID") => (width > 0.0).then_some(Self::Sigmoid { center, width }),
            _ => (width >= 1.0).then_some(Self::Linear { center, width }),
        })
    }

    pub(super) fn at(&self, x: f64) -> f64 {
        match *self {
            // §C.11.2.1.2.1
            Self::Linear { center, width } => {
                let (c, half) = (center - 0.5, (width - 1.0) / 2.0);
                if x <= c - half {
                    0.0
                } else if x > c + half {
                    1.0
                } else {
                    (x - c) / (width - 1.0) + 0.5
                }
            }
            // §C.11.2.1.3.2
            Self::LinearExact { center, width } => ((x - center) / width + 0.5).clamp(0.0, 1.0),
            // §C.11.2.1.3.1
            Self::Sigmoid { center, width } => 1.0 / (1.0 + (-4.0 * (x - center) / width).exp()),
            Self::Table(ref table) => table.at(x) / table.maximum,
            Self::Range { low, high } => {
                if high > low {
                    ((x - low) / (high - low)).clamp(0.0, 1.0)
                } else {
                    0.0
                }
            }
        }
    }
}

/// The item of a functional group (§C.7.6.16) that holds for `frame`: its own, else the shared one.
pub(super) fn functional_group(data: &Dataset, frame: usize, group: Tag) -> Option<&Dataset> {
    let own = data.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).get(frame);
    group_of(own, data.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first(), group)
}

/// The same, of the items for the frame and for all frames.
pub(super) fn group_of<'a>(own: Option<&'a Dataset>, shared: Option<&'a Dataset>, group: Tag) -> Option<&'a Dataset> {
    let first = |item: &'a Dataset| item.items(group).first();
    own.and_then(first).or_else(|| shared.and_then(first))
}

/// Stored values that mark pixels outside of what was imaged (§C.7.5.1.1.2).
struct Padding(Option<(f64, f64)>);

impl Padding {
    fn of(data: &Dataset, module: &PixelModule) -> Self {
        let value = |tag| data.short(tag).map(|x| if module.signed { f64::from(x.cast_signed()) } else { x.into() });
        Self(value(tags::PIXEL_PADDING_VALUE).map(|a| {
            let b = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(a);
            (a.min(b), a.max(b))
        }))
    }

    fn has(&self, stored: f64) -> bool {
        stored.is_nan() || self.0.is_some_and(|(low, high)| (low..=high).contains(&stored))
    }
}

/// Grey values of a MONOCHROME1 or MONOCHROME2 frame, 0 black and 1 white; padding is black in both.
///
/// # Shapes
/// - result: `[rows, columns]`
pub(super) fn grey(stored: &Stored<'_>, module: &PixelModule, data: &Dataset, frame: u32, window: Window) -> Result<Vec<f32>, Fault> {
    let frame = frame as usize;
    let modality = Modality::of(data, frame, module)?;
    let padding = Padding::of(data, module);
    let voi = match window {
        Window::File => Voi::of(data, frame, modality.can_be_negative(module))?,
        Window::Fixed { center, width } => Some(Voi::Linear { center, width }),
        Window::Percentiles { .. } => None,
    };
    let voi = voi.unwrap_or_else(|| {
        let ends = if let Window::Percentiles { low, high } = window { (low, high) } else { (0.0, 100.0) };
        let (low, high) = range(counted(stored, &padding, &modality), ends);
        Voi::Range { low, high }
    });
    let inverted = module.photometric == Photometric::Monochrome1;
    let flat = matches!(voi, Voi::Range { low, high } if low >= high);
    let shade = |x: f64| -> f32 {
        if flat || padding.has(x) {
            return 0.0;
        }
        let y = voi.at(modality.at(x));
        // Infinite values can meet as NaN.
        let y = if y.is_nan() { 0.0 } else { y };
        (if inverted { 1.0 - y } else { y }) as f32
    };
    let mut plane = recycle::plane();
    match stored {
        Stored::Reals(values) => plane.extend(values.iter().map(|&x| shade(x))),
        Stored::Words(words) => {
            let (low, high) = words.span();
            // Most images have far more pixels than shades: each shade is computed once.
            if usize::from(high - low) < words.words.len() {
                recycle::with_shades(|shades| {
                    for word in low..=high {
                        shades[usize::from(word)] = shade(words.value(word).into());
                    }
                    plane.extend(words.words.iter().map(|&word| shades[usize::from(word)]));
                });
            } else {
                plane.extend(words.values().map(|x| shade(x.into())));
            }
        }
    }
    Ok(plane)
}

/// Grey values of quantities that come without stored values; `file` is the range that their file shows.
pub(crate) fn shades(values: &[f64], window: Window, file: Option<(f64, f64)>) -> Vec<f32> {
    let within = |ends| {
        let (low, high) = range(values.iter().filter(|x| x.is_finite()).map(|&x| (x, 1)).collect(), ends);
        Voi::Range { low, high }
    };
    let voi = match (window, file) {
        (Window::File, Some((low, high))) => Voi::Range { low, high },
        (Window::File, None) => within((0.0, 100.0)),
        (Window::Fixed { center, width }, _) => Voi::Linear { center, width },
        (Window::Percentiles { low, high }, _) => within((low, high)),
    };
    values.iter().map(|&x| voi.at(x)).map(|y| if y.is_nan() { 0.0 } else { y as f32 }).collect()
}

/// The finite quantities of a frame that are no padding, each with the number of pixels that have it.
fn counted(stored: &Stored<'_>, padding: &Padding, modality: &Modality) -> Vec<(f64, u32)> {
    let taken = |stored: f64| (!padding.has(stored)).then(|| modality.at(stored)).filter(|x| x.is_finite());
    match stored {
        Stored::Reals(values) => values.iter().filter_map(|&x| Some((taken(x)?, 1))).collect(),
        Stored::Words(words) => {
            let (low, high) = words.span();
            let mut counts = vec![0u32; usize::from(high - low) + 1];
            words.words.iter().for_each(|&word| counts[usize::from(word - low)] += 1);
            let counts = (low..=high).zip(counts).filter(|&(_, n)| n > 0);
            counts.filter_map(|(word, n)| Some((taken(words.value(word).into())?, n))).collect()
        }
    }
}

/// The quantities at two percentiles by nearest rank: at 0 the lowest, at 100 the highest; (0, 0) where there are none.
fn range(mut counted: Vec<(f64, u32)>, (low, high): (f64, f64)) -> (f64, f64) {
    if (low, high) == (0.0, 100.0) {
        let ends = counted.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &(x, _)| (low.min(x), high.max(x)));
        return if ends.0 <= ends.1 { ends } else { (0.0, 0.0) };
    }
    counted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let n: u64 = counted.iter().map(|&(_, n)| u64::from(n)).sum();
    let at = |percent: f64| {
        let rank = ((percent / 100.0 * n as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let found = counted.iter().find(|&&(_, n)| {
            seen += u64::from(n);
            seen >= rank
        });
        found.map_or(0.0, |&(x, _)| x)
    };
    (at(low), at(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(voi: &Voi, x: f64, expected: f64) {
        let got = voi.at(x);
        assert!((got - expected).abs() < 1e-12, "{x} became {got}, not {expected}");
    }

    #[test]
    fn ps3_3_c_11_2_1_2_1_examples() {
        // "For example, given an output range from 0 to 255": c=2048, w=4096 becomes ((x - 2047.5) / 4095 + 0.5) * 255.
        let whole = Voi::Linear { center: 2048.0, width: 4096.0 };
        for (x, expected) in [(0.0, 0.0), (-7.0, 0.0), (1.0, 1.0 / 4095.0), (2047.5, 0.5), (4095.0, 1.0), (5000.0, 1.0)] {
            check(&whole, x, expected);
        }
        // c=2048, w=1: if (x <= 2047.5) 0, else 255.
        let step = Voi::Linear { center: 2048.0, width: 1.0 };
        check(&step, 2047.5, 0.0);
        check(&step, 2047.6, 1.0);
        // c=0, w=100: if (x <= -50) 0, else if (x > 49) 255, else ((x + 0.5) / 99 + 0.5) * 255.
        let around = Voi::Linear { center: 0.0, width: 100.0 };
        check(&around, -50.0, 0.0);
        check(&around, 49.1, 1.0);
        check(&around, 10.0, 10.5 / 99.0 + 0.5);
        // c=0, w=1: if (x <= -0.5) 0, else 255.
        let sign = Voi::Linear { center: 0.0, width: 1.0 };
        check(&sign, -0.5, 0.0);
        check(&sign, 0.0, 1.0);
    }

    #[test]
    fn percentiles_by_nearest_rank() {
        let counted = vec![(5.0, 1), (1.0, 1), (2.0, 97), (9.0, 1)];
        for (ends, expected) in
            [((0.0, 100.0), (1.0, 9.0)), ((1.0, 99.0), (1.0, 5.0)), ((2.0, 98.0), (2.0, 2.0)), ((0.0, 99.5), (1.0, 9.0))]
        {
            assert_eq!(range(counted.clone(), ends), expected, "{ends:?}");
        }
        assert_eq!(range(Vec::new(), (1.0, 99.0)), (0.0, 0.0));
    }

    #[test]
    fn ps3_3_c_11_2_1_3_functions() {
        // LINEAR_EXACT, c=2048, w=4096: from 0 to 4096.
        let exact = Voi::LinearExact { center: 2048.0, width: 4096.0 };
        for (x, expected) in [(-1.0, 0.0), (0.0, 0.0), (1024.0, 0.25), (4096.0, 1.0), (4097.0, 1.0)] {
            check(&exact, x, expected);
        }
        check(&Voi::LinearExact { center: 0.0, width: 0.5 }, 0.125, 0.75);
        let sigmoid = Voi::Sigmoid { center: 50.0, width: 100.0 };
        check(&sigmoid, 50.0, 0.5);
        check(&sigmoid, 75.0, 1.0 / (1.0 + (-1.0f64).exp()));
    }
}
