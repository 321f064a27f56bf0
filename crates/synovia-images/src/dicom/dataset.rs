//! A data set (PS3.5 §7), read only as far as Pixel Data, only the elements that are asked for, within bounds.
//!
//! Why not a general reader: it allocates what a length field claims, keeps every value, and shows values in its errors.
//! Here a length is compared with what the file holds first, unwanted values are seeked over, and no value is ever shown.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use crate::error::Fault;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITER: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITER: Tag = Tag(0xFFFE, 0xE0DD);
pub(super) const UNDEFINED: u32 = u32::MAX;

/// Values kept of one header: ten thousand functional group items with their look-up tables take a tenth of it.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// Elements walked over in one header.
const MAX_ELEMENTS: u32 = 8_000_000;
const MAX_DEPTH: u32 = 32;

/// Where the bytes of a data set are: in a file, or in memory.
pub(crate) struct Bytes {
    from: From,
    position: u64,
    len: u64,
}

enum From {
    File(BufReader<File>),
    Memory(Cursor<Held>),
}

/// A file in memory.
#[derive(Clone)]
pub(crate) struct Held(Arc<Vec<u8>>);

impl Held {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("n_bytes", &self.0.len()).finish()
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What is read as a file.
pub(crate) trait Input {
    fn open(self) -> io::Result<Bytes>;
}

impl Input for &Path {
    fn open(self) -> io::Result<Bytes> {
        Bytes::of_file(File::open(self)?)
    }
}

impl Input for &Held {
    fn open(self) -> io::Result<Bytes> {
        Ok(Bytes::of_held(self.clone()))
    }
}

impl Bytes {
    pub(super) fn of_file(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { from: From::File(BufReader::with_capacity(16 << 10, file)), position: 0, len })
    }

    pub(super) fn of_memory(bytes: Vec<u8>) -> Self {
        Self::of_held(Held::new(bytes))
    }

    fn of_held(held: Held) -> Self {
        Self { len: held.0.len() as u64, from: From::Memory(Cursor::new(held)), position: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn left(&self) -> u64 {
        self.len.saturating_sub(self.position)
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        let result = match &mut self.from {
            From::File(file) => file.read_exact(buffer),
            From::Memory(bytes) => bytes.read_exact(buffer),
        };
        self.position += buffer.len() as u64;
        result.map_err(|error| if error.kind() == io::ErrorKind::UnexpectedEof { Fault::Truncated } else { Fault::Io(error) })
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// `n` bytes from here, refused before they are allocated when there are not as many.
    pub(super) fn vec(&mut self, n: u64) -> Result<Vec<u8>, Fault> {
        if n > self.left() {
            return Err(Fault::Truncated);
        }
        let mut bytes = vec![0; n as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn go_to(&mut self, position: u64) -> Result<(), Fault> {
        match &mut self.from {
            From::File(file) => file.seek_relative(position as i64 - self.position as i64)?,
            From::Memory(bytes) => {
                bytes.seek(SeekFrom::Start(position))?;
            }
        }
        self.position = position;
        Ok(())
    }

    /// The rest, as a plain reader.
    pub(super) fn rest(&mut self) -> &mut dyn Read {
        match &mut self.from {
            From::File(file) => file,
            From::Memory(bytes) => bytes,
        }
    }
}

/// How elements are encoded (PS3.5 §7.1, §7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    pub(crate) explicit_vr: bool,
    pub(crate) big_endian: bool,
}

impl Encoding {
    pub(crate) const IMPLICIT: Self = Self { explicit_vr: false, big_endian: false };
    pub(crate) const EXPLICIT: Self = Self { explicit_vr: true, big_endian: false };
    pub(crate) const BIG_ENDIAN: Self = Self { explicit_vr: true, big_endian: true };

    pub(crate) fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    pub(crate) fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// The head of an element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) tag: Tag,
    pub(super) vr: [u8; 2],
    pub(super) length: u32,
}

pub(super) fn head(bytes: &mut Bytes, encoding: Encoding) -> Result<Head, Fault> {
    let first: [u8; 8] = bytes.array()?;
    let tag = Tag(encoding.u16([first[0], first[1]]), encoding.u16([first[2], first[3]]));
    let long = encoding.u32([first[4], first[5], first[6], first[7]]);
    let vr = [first[4], first[5]];
    // Items have no VR, and some writers put an implicit element into an explicit data set.
    if !encoding.explicit_vr || tag.0 == 0xFFFE || !vr.iter().all(u8::is_ascii_uppercase) {
        return Ok(Head { tag, vr: *b"  ", length: long });
    }
    let length = match &vr {
        b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV" => {
            encoding.u32(bytes.array()?)
        }
        _ => u32::from(encoding.u16([first[6], first[7]])),
    };
    Ok(Head { tag, vr, length })
}

/// The pixel data element, not yet read.
#[derive(Clone, Copy, Debug)]
pub(super) struct PixelElement {
    pub(super) tag: Tag,
    pub(super) vr: [u8; 2],
    /// Where its value starts.
    pub(super) offset: u64,
    /// Bytes that it claims, or [`UNDEFINED`] when encapsulated.
    pub(super) length: u32,
}

/// Elements of a data set or of an item, those that were asked for.
#[derive(Default)]
pub(super) struct Dataset {
    elements: Vec<(Tag, Value)>,
    big_endian: bool,
}

enum Value {
    Bytes(Vec<u8>),
    Items(Vec<Dataset>),
}

impl Dataset {
    /// Reads elements from the current position up to Pixel Data (excluded) or the end.
    pub(super) fn read(bytes: &mut Bytes, encoding: Encoding, wanted: &[Tag]) -> Result<(Self, Option<PixelElement>), Fault> {
        let mut data = Self { elements: Vec::new(), big_endian: encoding.big_endian };
        let end = bytes.len();
        let pixels = Walk { bytes, wanted, kept: 0, walked: 0 }.elements(encoding, end, Within::Root, 0, Some(&mut data))?;
        Ok((data, pixels))
    }

    pub(super) fn put(&mut self, tag: Tag, value: Vec<u8>) {
        self.elements.push((tag, Value::Bytes(value)));
    }

    pub(super) fn put_items(&mut self, tag: Tag, items: Vec<Self>) {
        self.elements.push((tag, Value::Items(items)));
    }

    /// The value's bytes; an empty value counts as absent (PS3.5 §7.4.5).
    pub(super) fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        self.elements.iter().find_map(|(t, value)| match value {
            Value::Bytes(bytes) if *t == tag && !bytes.is_empty() => Some(&bytes[..]),
            _ => None,
        })
    }

    /// The items of a sequence, none when it is absent.
    pub(super) fn items(&self, tag: Tag) -> &[Self] {
        let items = self.elements.iter().find_map(|(t, value)| match value {
            Value::Items(items) if *t == tag => Some(&items[..]),
            _ => None,
        });
        items.unwrap_or_default()
    }

    /// Text without its padding; `None` when empty. UTF-8 where it is valid, else ISO 8859-1.
    pub(super) fn text(&self, tag: Tag) -> Option<String> {
        let bytes = self.bytes(tag)?;
        let text = str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|&b| char::from(b)).collect(), str::to_owned);
        let text = text.trim_matches([' ', '\0']);
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Decimal strings (DS, IS); a component that is not a number is NaN.
    pub(super) fn decimals(&self, tag: Tag) -> Option<Vec<f64>> {
        let text = self.text(tag)?;
        Some(text.split('\\').map(|part| part.trim_matches([' ', '\0']).parse().unwrap_or(f64::NAN)).collect())
    }

    pub(super) fn decimal(&self, tag: Tag) -> Option<f64> {
        self.decimals(tag)?.first().copied()
    }

    /// Unsigned shorts (US, or OW).
    pub(super) fn shorts(&self, tag: Tag) -> Option<Vec<u16>> {
        let encoding = Encoding { explicit_vr: true, big_endian: self.big_endian };
        Some(self.bytes(tag)?.as_chunks().0.iter().map(|&pair| encoding.u16(pair)).collect())
    }

    pub(super) fn short(&self, tag: Tag) -> Option<u16> {
        self.shorts(tag)?.first().copied()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Root,
    /// An item of explicit length.
    Item,
    /// An item that ends with its delimiter.
    Delimited,
}

struct Walk<'a> {
    bytes: &'a mut Bytes,
    wanted: &'a [Tag],
    kept: usize,
    walked: u32,
}

impl Walk<'_> {
    fn elements(
        &mut self,
        encoding: Encoding,
        end: u64,
        within: Within,
        depth: u32,
        mut into: Option<&mut Dataset>,
    ) -> Result<Option<PixelElement>, Fault> {
        loop {
            let left = end.saturating_sub(self.bytes.position());
            // Fewer bytes than a head at the end of a file are padding.
            if left == 0 && within != Within::Delimited || left < 8 && within == Within::Root {
                return Ok(None);
            }
            if left < 8 {
                return Err(Fault::Truncated);
            }
            let Head { tag, vr, length } = head(self.bytes, encoding)?;
            self.walked += 1;
            if self.walked > MAX_ELEMENTS {
                return Err(Fault::HeaderTooLarge { limit: "8 million elements" });
            }
            if tag == ITEM_DELIMITER && within != Within::Root {
                return Ok(None);
            }
            if within == Within::Root && tag.0 == 0x7FE0 && matches!(tag.1, 0x0008..=0x0010) {
                return Ok(Some(PixelElement { tag, vr, offset: self.bytes.position(), length }));
            }
            if within == Within::Root && tag.0 > 0x7FE0 {
                return Ok(None);
            }
            let wanted = into.is_some() && self.wanted.contains(&tag);
            let start = self.bytes.position();
            let left = end.saturating_sub(start);
            if length != UNDEFINED && u64::from(length) > left {
                return Err(Fault::Overrun { tag, claimed: length.into(), left });
            }
            // PS3.5 §6.2.2 note 4: the content of UN is implicit little endian.
            let nested = if vr == *b"UN" { Encoding::IMPLICIT } else { encoding };
            let kept = if length == UNDEFINED {
                let mut items = Vec::new();
                self.items(tag, nested, end, true, depth, wanted.then_some(&mut items))?;
                Value::Items(items)
            } else if !wanted {
                self.bytes.go_to(start + u64::from(length))?;
                continue;
            } else if vr == *b"SQ" || is_sequence(tag) {
                let mut items = Vec::new();
                self.items(tag, nested, start + u64::from(length), false, depth, Some(&mut items))?;
                Value::Items(items)
            } else {
                self.kept += length as usize;
                if self.kept > MAX_KEPT_BYTES {
                    return Err(Fault::HeaderTooLarge { limit: "64 MiB of values" });
                }
                Value::Bytes(self.bytes.vec(length.into())?)
            };
            if let Some(data) = into.as_deref_mut().filter(|_| wanted) {
                data.elements.push((tag, kept));
            }
        }
    }

    /// Items of the sequence `tag`, up to `end` or, when `delimited`, the delimiter.
    fn items(
        &mut self,
        tag: Tag,
        encoding: Encoding,
        end: u64,
        delimited: bool,
        depth: u32,
        mut into: Option<&mut Vec<Dataset>>,
    ) -> Result<(), Fault> {
        if depth >= MAX_DEPTH {
            return Err(Fault::Malformed { tag, what: "sequences are nested more than 32 deep" });
        }
        while delimited || self.bytes.position() < end {
            if end.saturating_sub(self.bytes.position()) < 8 {
                return Err(Fault::Truncated);
            }
            let item = head(self.bytes, encoding)?;
            self.walked += 1;
            let start = self.bytes.position();
            let left = end.saturating_sub(start);
            match (item.tag, item.length) {
                (SEQUENCE_DELIMITER, _) => return Ok(()),
                (ITEM, length) => {
                    if length != UNDEFINED && u64::from(length) > left {
                        return Err(Fault::Overrun { tag, claimed: length.into(), left });
                    }
                    let (end, within) =
                        if length == UNDEFINED { (end, Within::Delimited) } else { (start + u64::from(length), Within::Item) };
                    if into.is_none() && within == Within::Item {
                        self.bytes.go_to(end)?;
                        continue;
                    }
                    let mut data = Dataset { elements: Vec::new(), big_endian: encoding.big_endian };
                    self.kept += size_of::<Dataset>();
                    self.elements(encoding, end, within, depth + 1, into.is_some().then_some(&mut data))?;
                    if let Some(items) = into.as_deref_mut() {
                        items.push(data);
                    }
                }
                _ => return Err(Fault::Malformed { tag, what: "a sequence holds something other than items" }),
            }
            if self.walked > MAX_ELEMENTS || self.kept > MAX_KEPT_BYTES {
                return Err(Fault::HeaderTooLarge { limit: "64 MiB of values" });
            }
        }
        Ok(())
    }
}

/// The sequences that are read: in implicit VR only the dictionary says that they are sequences.
fn is_sequence(tag: Tag) -> bool {
    [
        tags::MODALITY_LUT_SEQUENCE,
        tags::VOILUT_SEQUENCE,
        tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
        tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
        tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
        tags::FRAME_VOILUT_SEQUENCE,
        tags::PIXEL_MEASURES_SEQUENCE,
        tags::PLANE_POSITION_SEQUENCE,
        tags::PLANE_ORIENTATION_SEQUENCE,
        tags::DIRECTORY_RECORD_SEQUENCE,
        tags::SEQUENCE_OF_ULTRASOUND_REGIONS,
    ]
    .contains(&tag)
}
