//! The bytes of one frame: a slice of native pixel data (PS3.5 §8.1.1), or the fragments that hold it (PS3.5 §A.4).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::{Encoding, UNDEFINED, head};
use super::file::{Depth, Opened};
use super::module::PixelModule;
use super::syntax::Codec;
use crate::error::Fault;
use crate::recycle;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const MAX_FRAGMENTS: usize = 1 << 20;

/// One frame as the file has it.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    /// The frame's first bit within `bytes`: not 0 only where Bits Allocated is 1 and frames are not whole bytes.
    pub(super) first_bit: usize,
}

/// Whether the pixel element can hold what the header says; reads no pixel.
pub(super) fn check(opened: &Opened, module: &PixelModule, depth: Depth) -> Result<(), Fault> {
    let pixels = opened.pixels.ok_or(Fault::Missing { tag: tags::PIXEL_DATA, name: "Pixel Data" })?;
    match opened.syntax.codec {
        Codec::None => Err(Fault::Undecodable { uid: opened.syntax.uid.to_owned(), name: opened.syntax.name }),
        Codec::Native => {
            if pixels.length == UNDEFINED {
                return Err(Fault::Malformed { tag: pixels.tag, what: "encapsulated Pixel Data in a transfer syntax that has none" });
            }
            let held = opened.pixel_bytes(depth);
            let needed = module.frame_bits().saturating_mul(module.frames.into()).div_ceil(8);
            if held < needed { Err(module.pixel_length_fault(held)) } else { Ok(()) }
        }
        _ if pixels.length != UNDEFINED => {
            Err(Fault::Malformed { tag: pixels.tag, what: "Pixel Data is not encapsulated, as its transfer syntax demands" })
        }
        _ => Ok(()),
    }
}

/// Reads frame `frame`, from 0.
pub(super) fn read(opened: &mut Opened, module: &PixelModule, frame: u32) -> Result<Encoded, Fault> {
    check(opened, module, Depth::Pixels)?;
    if frame >= module.frames {
        return Err(Fault::NoSuchFrame { frame, n_frames: module.frames });
    }
    let Some(pixels) = opened.pixels else { return Err(Fault::Missing { tag: tags::PIXEL_DATA, name: "Pixel Data" }) };
    if opened.syntax.codec != Codec::Native {
        return Ok(Encoded { bytes: fragments(opened, module, frame)?, first_bit: 0 });
    }
    let first_bit = module.frame_bits() * u64::from(frame);
    let end = (first_bit + module.frame_bits()).div_ceil(8);
    let start = first_bit / 8;
    opened.bytes.go_to(pixels.offset + start)?;
    if end - start > opened.bytes.left() {
        return Err(Fault::Truncated);
    }
    let mut bytes = recycle::bytes((end - start) as usize);
    opened.bytes.fill(&mut bytes)?;
    if opened.syntax.encoding.big_endian {
        // OW is a sequence of 16-bit words, whatever is packed into them (PS3.5 §8.1.1, §7.3).
        let word = match module.bits_allocated {
            1 | 8 => {
                if pixels.vr == *b"OW" {
                    2
                } else {
                    1
                }
            }
            bits => bits as usize / 8,
        };
        if word == 2 && start % 2 == 1 && module.bits_allocated <= 8 {
            // A frame that starts in the middle of a word: read from the word's start.
            opened.bytes.go_to(pixels.offset + start - 1)?;
            let mut words = opened.bytes.vec((end - start + 2).min(opened.bytes.left()))?;
            swap(&mut words, 2);
            bytes = words.get(1..=(end - start) as usize).ok_or(Fault::Truncated)?.to_vec();
        } else {
            if word == 2 && bytes.len() % 2 == 1 {
                // The last byte's partner is the padding.
                bytes.push(opened.bytes.array::<1>().map_or(0, |[byte]| byte));
            }
            swap(&mut bytes, word);
        }
    }
    Ok(Encoded { bytes, first_bit: (first_bit % 8) as usize })
}

fn swap(bytes: &mut [u8], word: usize) {
    if word > 1 {
        bytes.chunks_exact_mut(word).for_each(<[u8]>::reverse);
    }
}

/// The fragments of a frame, put together.
fn fragments(opened: &mut Opened, module: &PixelModule, frame: u32) -> Result<Vec<u8>, Fault> {
    let Some(pixels) = opened.pixels else { return Err(Fault::Missing { tag: tags::PIXEL_DATA, name: "Pixel Data" }) };
    let bytes = &mut opened.bytes;
    bytes.go_to(pixels.offset)?;
    // Where each fragment's value starts, and its length; the first item is the Basic Offset Table.
    let mut found: Vec<(u64, u32)> = Vec::new();
    while bytes.left() >= 8 {
        let item = head(bytes, Encoding::EXPLICIT)?;
        if item.tag != ITEM {
            break;
        }
        let left = bytes.left();
        if u64::from(item.length) > left {
            // A file that is cut off in its last fragment: earlier frames are whole.
            if found.len() > 1 && (found.len() as u64 - 1) > u64::from(frame) && found.len() as u64 - 1 < u64::from(module.frames) {
                break;
            }
            return Err(Fault::Overrun { tag: tags::PIXEL_DATA, claimed: item.length.into(), left });
        }
        if found.len() >= MAX_FRAGMENTS {
            return Err(Fault::Malformed { tag: tags::PIXEL_DATA, what: "more than a million fragments" });
        }
        found.push((bytes.position(), item.length));
        bytes.go_to(bytes.position() + u64::from(item.length))?;
    }
    let Some((&(table, table_length), fragments)) = found.split_first() else {
        return Err(Fault::Truncated);
    };
    let n_frames = module.frames as usize;
    let k = frame as usize;
    let chosen = if n_frames == 1 {
        0..fragments.len()
    } else if fragments.len() == n_frames {
        k..k + 1
    } else {
        // Offsets are counted from the first byte of the first fragment's item.
        let offsets: Vec<u64> = if let Some(long) = opened.data.bytes(tags::EXTENDED_OFFSET_TABLE) {
            long.as_chunks().0.iter().map(|&offset| u64::from_le_bytes(offset)).collect()
        } else {
            bytes.go_to(table)?;
            bytes.vec(table_length.into())?.as_chunks().0.iter().map(|&offset| u64::from(u32::from_le_bytes(offset))).collect()
        };
        let unknown = || Fault::Fragments { frame, fragments: fragments.len(), n_frames: module.frames };
        if offsets.len() != n_frames || fragments.is_empty() {
            return Err(unknown());
        }
        let base = fragments[0].0 - 8;
        let index = |offset: u64| fragments.iter().position(|&(start, _)| start - 8 - base == offset);
        let first = index(offsets[k]).ok_or_else(unknown)?;
        let end = match offsets.get(k + 1) {
            Some(&offset) => index(offset).ok_or_else(unknown)?,
            None => fragments.len(),
        };
        if end <= first {
            return Err(unknown());
        }
        first..end
    };
    let chosen = fragments.get(chosen).filter(|chosen| !chosen.is_empty()).ok_or(Fault::Truncated)?;
    let total: u64 = chosen.iter().map(|&(_, length)| u64::from(length)).sum();
    let mut frame_bytes = recycle::bytes(total as usize);
    let mut at = 0;
    for &(start, length) in chosen {
        bytes.go_to(start)?;
        bytes.fill(&mut frame_bytes[at..at + length as usize])?;
        at += length as usize;
    }
    Ok(frame_bytes)
}
