//! A data set whole, as a tree over the bytes of its file, and back to bytes: nothing is decoded that need not be.

use std::borrow::Cow;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use crate::dicom::Encoding;
use crate::error::Fault;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITER: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITER: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = u32::MAX;
const MAX_DEPTH: u32 = 32;
/// Elements and items of one file; each costs some hundred bytes.
const MAX_ELEMENTS: usize = 1 << 20;

/// An element: its tag, its VR (from the dictionary where the file does not tell it), its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Element<'a> {
    pub(super) tag: Tag,
    pub(super) vr: [u8; 2],
    pub(super) value: Value<'a>,
}

impl Element<'_> {
    /// The VR that the standard gives the tag, whatever the file says; the file's where the standard leaves a choice, or does
    /// not have the tag.
    pub(super) fn standard_vr(&self) -> [u8; 2] {
        let entry = StandardDataDictionary.by_tag(self.tag);
        entry.and_then(|entry| entry.vr().exact()).map_or(self.vr, vr_bytes)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Bytes(Cow<'a, [u8]>),
    Items(Vec<Vec<Element<'a>>>),
    /// Encapsulated pixels as they are: items with their heads, and the delimiter.
    Fragments(&'a [u8]),
}

/// The dictionary's VR of a tag; `None` where the standard does not have it.
pub(super) fn vr_of(tag: Tag) -> Option<VR> {
    StandardDataDictionary.by_tag(tag).map(|entry| entry.vr().relaxed())
}

fn dictionary_vr(tag: Tag) -> [u8; 2] {
    vr_of(tag).map_or(*b"UN", vr_bytes)
}

fn vr_bytes(vr: VR) -> [u8; 2] {
    *vr.to_string().as_bytes().first_chunk().unwrap_or(b"UN")
}

/// Reads the elements of `bytes`.
pub(super) fn read(bytes: &[u8], encoding: Encoding) -> Result<Vec<Element<'_>>, Fault> {
    let mut reader = Reader { bytes, at: 0, n_read: 0 };
    reader.elements(encoding, bytes.len(), Within::Root, 0)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Root,
    Item,
    Delimited,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    n_read: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize, end: usize) -> Result<&'a [u8], Fault> {
        let taken = self.at.checked_add(n).filter(|&to| to <= end).and_then(|to| self.bytes.get(self.at..to)).ok_or(Fault::Truncated)?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, end: usize) -> Result<[u8; N], Fault> {
        self.take(N, end)?.first_chunk().copied().ok_or(Fault::Truncated)
    }

    fn head(&mut self, encoding: Encoding, end: usize) -> Result<(Tag, [u8; 2], u32), Fault> {
        self.n_read += 1;
        if self.n_read > MAX_ELEMENTS {
            return Err(Fault::HeaderTooLarge { limit: "a million elements" });
        }
        let [a, b, c, d] = self.array(end)?;
        let tag = Tag(encoding.u16([a, b]), encoding.u16([c, d]));
        if tag.0 == 0xFFFE || !encoding.explicit_vr {
            return Ok((tag, dictionary_vr(tag), encoding.u32(self.array(end)?)));
        }
        let vr: [u8; 2] = self.array(end)?;
        if !vr.iter().all(u8::is_ascii_uppercase) {
            // Some writers put an implicit element into an explicit data set.
            let [c, d] = self.array(end)?;
            return Ok((tag, dictionary_vr(tag), encoding.u32([vr[0], vr[1], c, d])));
        }
        let length = if is_long(vr) {
            self.take(2, end)?;
            encoding.u32(self.array(end)?)
        } else {
            encoding.u16(self.array(end)?).into()
        };
        Ok((tag, vr, length))
    }

    fn elements(&mut self, encoding: Encoding, end: usize, within: Within, depth: u32) -> Result<Vec<Element<'a>>, Fault> {
        let mut elements = Vec::new();
        loop {
            let left = end.saturating_sub(self.at);
            if left == 0 && within != Within::Delimited || left < 8 && within == Within::Root {
                return Ok(elements);
            }
            let (tag, vr, length) = self.head(encoding, end)?;
            if tag == ITEM_DELIMITER && within == Within::Delimited {
                return Ok(elements);
            }
            if tag.0 == 0xFFFE {
                return Err(Fault::Malformed { tag, what: "an item outside of a sequence" });
            }
            let left = end.saturating_sub(self.at) as u64;
            if length != UNDEFINED && u64::from(length) > left {
                return Err(Fault::Overrun { tag, claimed: length.into(), left });
            }
            // PS3.5 §6.2.2 note 4: what an unknown VR holds is implicit little endian.
            let nested = if vr == *b"UN" { Encoding::IMPLICIT } else { encoding };
            let sequence = vr == *b"SQ" || vr == *b"UN" && vr_of(tag) == Some(VR::SQ);
            let value = if length == UNDEFINED && tag == Tag(0x7FE0, 0x0010) {
                Value::Fragments(self.fragments(end)?)
            } else if length == UNDEFINED {
                Value::Items(self.items(nested, end, true, depth, tag)?)
            } else if sequence {
                let end = self.at + length as usize;
                Value::Items(self.items(nested, end, false, depth, tag)?)
            } else {
                Value::Bytes(Cow::Borrowed(self.take(length as usize, end)?))
            };
            let vr = if matches!(value, Value::Items(_)) { *b"SQ" } else { vr };
            elements.push(Element { tag, vr, value });
        }
    }

    fn items(&mut self, encoding: Encoding, end: usize, delimited: bool, depth: u32, tag: Tag) -> Result<Vec<Vec<Element<'a>>>, Fault> {
        if depth >= MAX_DEPTH {
            return Err(Fault::Malformed { tag, what: "sequences are nested more than 32 deep" });
        }
        let mut items = Vec::new();
        while delimited || self.at < end {
            let (item, _, length) = self.head(encoding, end)?;
            match item {
                SEQUENCE_DELIMITER if delimited => return Ok(items),
                ITEM if length == UNDEFINED => items.push(self.elements(encoding, end, Within::Delimited, depth + 1)?),
                ITEM => {
                    let left = end.saturating_sub(self.at) as u64;
                    if u64::from(length) > left {
                        return Err(Fault::Overrun { tag, claimed: length.into(), left });
                    }
                    let end = self.at + length as usize;
                    items.push(self.elements(encoding, end, Within::Item, depth + 1)?);
                }
                _ => return Err(Fault::Malformed { tag, what: "a sequence holds something other than items" }),
            }
        }
        Ok(items)
    }

    /// The items of encapsulated pixels, up to and with their delimiter.
    fn fragments(&mut self, end: usize) -> Result<&'a [u8], Fault> {
        let start = self.at;
        loop {
            let (tag, _, length) = self.head(Encoding::EXPLICIT, end)?;
            match tag {
                SEQUENCE_DELIMITER => return Ok(&self.bytes[start..self.at]),
                ITEM if length != UNDEFINED => {
                    self.take(length as usize, end)?;
                }
                _ => return Err(Fault::Malformed { tag: Tag(0x7FE0, 0x0010), what: "fragments that are no items" }),
            }
        }
    }
}

/// VRs whose length has 32 bits (PS3.5 §7.1.2).
fn is_long(vr: [u8; 2]) -> bool {
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"].contains(&&vr)
}

/// Writes elements as they are; sequences and items with delimiters, which needs no length in advance.
pub(super) fn write(elements: &[Element<'_>], encoding: Encoding, out: &mut Vec<u8>) {
    for element in elements {
        match &element.value {
            Value::Bytes(bytes) => {
                let padding = bytes.len() % 2;
                head(element.tag, element.vr, (bytes.len() + padding) as u32, encoding, out);
                out.extend_from_slice(bytes);
                if padding == 1 {
                    // PS3.5 §6.2: UIDs and bytes are padded with zeros, texts with spaces.
                    out.push(if matches!(&element.vr, b"UI" | b"OB" | b"UN") { 0 } else { b' ' });
                }
            }
            Value::Fragments(bytes) => {
                head(element.tag, element.vr, UNDEFINED, encoding, out);
                out.extend_from_slice(bytes);
            }
            Value::Items(items) => {
                head(element.tag, element.vr, UNDEFINED, encoding, out);
                for item in items {
                    head(ITEM, *b"  ", UNDEFINED, encoding, out);
                    write(item, encoding, out);
                    head(ITEM_DELIMITER, *b"  ", 0, encoding, out);
                }
                head(SEQUENCE_DELIMITER, *b"  ", 0, encoding, out);
            }
        }
    }
}

fn head(tag: Tag, vr: [u8; 2], length: u32, encoding: Encoding, out: &mut Vec<u8>) {
    let short = |value: u16| if encoding.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let long = |value: u32| if encoding.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    out.extend(short(tag.0));
    out.extend(short(tag.1));
    if tag.0 == 0xFFFE || !encoding.explicit_vr {
        out.extend(long(length));
        return;
    }
    // A short VR can't say that a value is long, or of no length: UN can (PS3.5 §6.2.2).
    let vr = if !is_long(vr) && length > 0xFFFF { *b"UN" } else { vr };
    out.extend(vr);
    if is_long(vr) {
        out.extend([0, 0]);
        out.extend(long(length));
    } else {
        out.extend(short(length as u16));
    }
}
