//! The two JPEG processes (ITU-T T.81) that archives hold and general decoders do not: lossless Huffman coding (SOF3), at
//! the speed that ingest needs, and sequential DCT of 12 bits (SOF1); and sequential DCT of 8 bits with subsampled components
//! (SOF0, SOF1), whose samples in between are to be those of libjpeg.
//!
//! Not read: arithmetic coding, hierarchical and progressive frames of 12 bits, DNL, restarts within a row of a lossless
//! frame, subsampled lossless components. What is read elsewhere: all other DCT of 8 bits (`jpeg-decoder`).

mod dct;
mod entropy;
mod lossless;

use entropy::Table;

#[cfg(test)]
pub(crate) use lossless::tests::Written;

use crate::error::Fault;

const DAMAGED: Fault = Fault::Codec { codec: "JPEG" };

/// What a frame header (§B.2.2) says.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The low byte of its marker: 0xC0 baseline, 0xC1 extended, 0xC3 lossless.
    pub(super) process: u8,
    pub(super) precision: u32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    components: Vec<Component>,
}

impl Frame {
    pub(super) fn samples(&self) -> usize {
        self.components.len()
    }

    /// Whether components have different numbers of samples.
    pub(super) fn is_subsampled(&self) -> bool {
        self.components.iter().any(|c| (c.h, c.v) != (self.components[0].h, self.components[0].v))
    }
}

#[derive(Clone, Copy, Debug)]
struct Component {
    id: u8,
    /// Sampling factors, columns and rows.
    h: usize,
    v: usize,
    quantisation: usize,
}

/// The next marker and its segment; `at` moves behind it. `None` at the end of the image or of the bytes.
fn segment<'a>(bytes: &'a [u8], at: &mut usize) -> Option<(u8, &'a [u8])> {
    loop {
        // Fill bytes, and what a scan left unread.
        while bytes.get(*at..*at + 2).is_some_and(|pair| pair[0] != 0xFF || matches!(pair[1], 0x00 | 0xFF)) {
            *at += 1;
        }
        let marker = *bytes.get(*at + 1)?;
        match marker {
            0xD9 => return None,
            // SOI, RSTn and TEM stand alone.
            0xD8 | 0xD0..=0xD7 | 0x01 => *at += 2,
            _ => {
                let length = usize::from(u16::from_be_bytes(*bytes.get(*at + 2..)?.first_chunk()?));
                let content = bytes.get(*at + 4..*at + 2 + length)?;
                *at += 2 + length;
                return Some((marker, content));
            }
        }
    }
}

/// The frame header, wherever it is before the first scan.
pub(super) fn frame_header(bytes: &[u8]) -> Option<Frame> {
    let mut at = 0;
    loop {
        match segment(bytes, &mut at)? {
            (0xC4 | 0xC8 | 0xCC, _) => {}
            (process @ 0xC0..=0xCF, content) => return frame(process, content),
            (0xDA, _) => return None,
            _ => {}
        }
    }
}

fn frame(process: u8, content: &[u8]) -> Option<Frame> {
    let &[precision, y0, y1, x0, x1, n, ref components @ ..] = content else { return None };
    let components = components.as_chunks::<3>().0.get(..n.into())?;
    let components: Vec<Component> = components
        .iter()
        .map(|&[id, sampling, table]| Component { id, h: (sampling >> 4).into(), v: (sampling & 15).into(), quantisation: table.into() })
        .collect();
    let usable = !components.is_empty() && components.iter().all(|c| (1..=4).contains(&c.h) && (1..=4).contains(&c.v));
    usable.then(|| Frame {
        process,
        precision: precision.into(),
        rows: u16::from_be_bytes([y0, y1]).into(),
        columns: u16::from_be_bytes([x0, x1]).into(),
        components,
    })
}

/// Tables that are in force when a scan starts.
#[derive(Default)]
struct Tables {
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    quantisation: [Option<[f32; 64]>; 4],
    restart_interval: usize,
}

impl Tables {
    /// DHT (§B.2.4.2): several tables in a segment.
    fn huffman(&mut self, mut content: &[u8]) -> Option<()> {
        while let [head, rest @ ..] = content {
            let counts: &[u8; 16] = rest.first_chunk()?;
            let n: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = rest.get(16..16 + n)?;
            content = &rest[16 + n..];
            let place = usize::from(head & 15);
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(place)? = Some(Table::new(counts, symbols)?);
        }
        Some(())
    }

    /// DQT (§B.2.4.1).
    fn quantisation(&mut self, mut content: &[u8]) -> Option<()> {
        while let [head, rest @ ..] = content {
            let wide = head >> 4 == 1;
            let n = if wide { 128 } else { 64 };
            let values = rest.get(..n)?;
            content = &rest[n..];
            let mut table = [0.0; 64];
            for (k, value) in table.iter_mut().enumerate() {
                *value = if wide { f32::from(u16::from_be_bytes([values[2 * k], values[2 * k + 1]])) } else { f32::from(values[k]) };
            }
            *self.quantisation.get_mut(usize::from(head & 15))? = Some(table);
        }
        Some(())
    }
}

/// One scan's header (§B.2.3).
struct Scan<'a> {
    /// Index of each component in the frame, with its DC and AC table.
    components: Vec<(usize, usize, usize)>,
    /// The predictor of a lossless scan.
    selection: u8,
    /// The point transform of a lossless scan.
    shift: u32,
    entropy: &'a [u8],
}

fn scan<'a>(frame: &Frame, content: &[u8], entropy: &'a [u8]) -> Option<Scan<'a>> {
    let (&n, rest) = content.split_first()?;
    let (selectors, tail) = rest.split_at_checked(2 * usize::from(n))?;
    let &[selection, _, approximation] = tail else { return None };
    let components: Option<Vec<_>> = selectors
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&[id, tables]| {
            let k = frame.components.iter().position(|component| component.id == id)?;
            Some((k, usize::from(tables >> 4), usize::from(tables & 15)))
        })
        .collect();
    let components = components.filter(|components| !components.is_empty())?;
    Some(Scan { components, selection, shift: (approximation & 15).into(), entropy })
}

/// Decodes a frame whose header was found good by the caller: `SOF3`, or `SOF0` or `SOF1` of 8 or 12 bits.
///
/// # Shapes
/// - result: `[rows, columns, samples]`
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u16>, Fault> {
    let mut at = 0;
    let mut tables = Tables::default();
    let mut decoder: Option<Decoder> = None;
    while let Some((marker, content)) = segment(bytes, &mut at) {
        match marker {
            0xC4 => tables.huffman(content).ok_or(DAMAGED)?,
            0xDB => tables.quantisation(content).ok_or(DAMAGED)?,
            0xDD => {
                let interval = content.first_chunk().ok_or(DAMAGED)?;
                tables.restart_interval = u16::from_be_bytes(*interval).into();
            }
            0xC0 | 0xC1 | 0xC3 if decoder.is_none() => decoder = Some(Decoder::new(frame(marker, content).ok_or(DAMAGED)?)?),
            0xC0..=0xCF => return Err(DAMAGED),
            0xDA => {
                let decoder = decoder.as_mut().ok_or(DAMAGED)?;
                let scan = scan(decoder.frame(), content, &bytes[at..]).ok_or(DAMAGED)?;
                at += decoder.scan(&scan, &tables)?;
                if decoder.is_complete() {
                    break;
                }
            }
            _ => {}
        }
    }
    decoder.filter(Decoder::is_complete).map(Decoder::finish).ok_or(DAMAGED)
}

// One a frame: what the smaller one leaves unused does not matter.
#[allow(clippy::large_enum_variant)]
enum Decoder {
    Lossless(lossless::Image),
    Dct(dct::Image),
}

impl Decoder {
    fn new(frame: Frame) -> Result<Self, Fault> {
        Ok(if frame.process == 0xC3 { Self::Lossless(lossless::Image::new(frame)?) } else { Self::Dct(dct::Image::new(frame)?) })
    }

    fn frame(&self) -> &Frame {
        match self {
            Self::Lossless(image) => image.frame(),
            Self::Dct(image) => image.frame(),
        }
    }

    /// Decodes a scan; returns the bytes that it took.
    fn scan(&mut self, scan: &Scan<'_>, tables: &Tables) -> Result<usize, Fault> {
        match self {
            Self::Lossless(image) => image.scan(scan, tables),
            Self::Dct(image) => image.scan(scan, tables),
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::Lossless(image) => image.is_complete(),
            Self::Dct(image) => image.is_complete(),
        }
    }

    fn finish(self) -> Vec<u16> {
        match self {
            Self::Lossless(image) => image.finish(),
            Self::Dct(image) => image.finish(),
        }
    }
}
