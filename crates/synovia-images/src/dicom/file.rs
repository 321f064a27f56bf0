//! A DICOM file (PS3.10): prefix, file meta information, and the header of the data set.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};

use super::dataset::{Bytes, Dataset, Encoding, Head, Input, PixelElement, head};
use super::syntax::{EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, TransferSyntax};
use crate::error::Fault;

/// What is inflated of a deflated data set when only the header is wanted, and when its pixels are.
const MAX_INFLATED_HEADER: u64 = 16 << 20;
const MAX_INFLATED: u64 = 512 << 20;

/// A file whose header was read; its pixels are still where they were.
pub(super) struct Opened {
    pub(super) bytes: Bytes,
    pub(super) syntax: &'static TransferSyntax,
    pub(super) data: Dataset,
    pub(super) pixels: Option<PixelElement>,
}

/// Group 0002 is longer in no file that is an image.
const MAX_META: u64 = 64 << 10;
/// What of it is read.
const META_TAGS: [Tag; 3] = [tags::MEDIA_STORAGE_SOP_CLASS_UID, tags::MEDIA_STORAGE_SOP_INSTANCE_UID, tags::TRANSFER_SYNTAX_UID];

/// How much of a file is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What the index needs.
    Header,
    /// Also what decoding needs.
    Pixels,
}

impl Opened {
    /// Reads the header. `wanted` are the elements that are kept.
    pub(super) fn read(input: impl Input, depth: Depth, wanted: &[Tag]) -> Result<Self, Fault> {
        let mut bytes = input.open()?;
        if bytes.len() == 0 {
            return Err(Fault::Empty);
        }
        let (meta, syntax) = to_data(&mut bytes)?;
        if is_directory(&meta) {
            return Err(Fault::Directory);
        }
        if syntax.deflated {
            let limit = if depth == Depth::Header { MAX_INFLATED_HEADER } else { MAX_INFLATED };
            let mut inflated = Vec::new();
            // A stream that is cut off still gives its header; a missing pixel is found when the frame is read.
            let result = flate2::read::DeflateDecoder::new(bytes.rest()).take(limit).read_to_end(&mut inflated);
            if inflated.is_empty() {
                return Err(result.map_or_else(|_| Fault::Codec { codec: "deflate" }, |_| Fault::Truncated));
            }
            bytes = Bytes::of_memory(inflated);
        }
        let (mut data, pixels) = Dataset::read(&mut bytes, syntax.encoding, wanted)?;
        if data.bytes(tags::SOP_INSTANCE_UID).is_none()
            && let Some(uid) = meta.bytes(tags::MEDIA_STORAGE_SOP_INSTANCE_UID)
        {
            data.put(tags::SOP_INSTANCE_UID, uid.to_vec());
        }
        Ok(Self { bytes, syntax, data, pixels })
    }

    /// Bytes of the pixel element that are there: what it claims, but no more than the file holds. Of a deflated header the
    /// claim itself, for the inflated part may end before.
    pub(super) fn pixel_bytes(&self, depth: Depth) -> u64 {
        let Some(pixels) = self.pixels else { return 0 };
        let left = self.bytes.len().saturating_sub(pixels.offset);
        if depth == Depth::Header && self.syntax.deflated && left > 0 {
            return pixels.length.into();
        }
        u64::from(pixels.length).min(left)
    }
}

/// A file in its parts, for those that rewrite it.
pub(crate) struct Split<'a> {
    pub(crate) syntax_uid: String,
    pub(crate) encoding: Encoding,
    pub(crate) deflated: bool,
    /// The data set, inflated.
    pub(crate) data: Cow<'a, [u8]>,
}

/// Takes the file meta information off a file.
pub(crate) fn split_file(file: &[u8]) -> Result<Split<'_>, Fault> {
    if file.is_empty() {
        return Err(Fault::Empty);
    }
    let mut bytes = Bytes::of_memory(file[..file.len().min(MAX_META as usize + 256)].to_vec());
    let (meta, syntax) = to_data(&mut bytes)?;
    if is_directory(&meta) {
        return Err(Fault::Directory);
    }
    let rest = &file[bytes.position() as usize..];
    let data = if syntax.deflated {
        let mut inflated = Vec::new();
        let result = flate2::read::DeflateDecoder::new(rest).take(MAX_INFLATED).read_to_end(&mut inflated);
        result.map_err(|_| Fault::Codec { codec: "deflate" })?;
        if inflated.len() as u64 == MAX_INFLATED {
            return Err(Fault::HeaderTooLarge { limit: "512 MiB inflated" });
        }
        Cow::Owned(inflated)
    } else {
        Cow::Borrowed(rest)
    };
    Ok(Split { syntax_uid: syntax.uid.to_owned(), encoding: syntax.encoding, deflated: syntax.deflated, data })
}

fn is_directory(meta: &Dataset) -> bool {
    meta.text(tags::MEDIA_STORAGE_SOP_CLASS_UID).as_deref() == Some(uids::MEDIA_STORAGE_DIRECTORY_STORAGE)
}

/// The files that a DICOMDIR lists (PS3.3 §F.3), by the components of their names, in its order; `None` when it is none.
pub(crate) fn directory_files(path: &Path) -> Result<Option<Vec<Vec<String>>>, Fault> {
    let mut bytes = Bytes::of_file(File::open(path)?)?;
    let Ok((meta, syntax)) = to_data(&mut bytes) else { return Ok(None) };
    if !is_directory(&meta) {
        return Ok(None);
    }
    let wanted = [tags::DIRECTORY_RECORD_SEQUENCE, tags::REFERENCED_FILE_ID];
    let (data, _) = Dataset::read(&mut bytes, syntax.encoding, &wanted)?;
    let records = data.items(tags::DIRECTORY_RECORD_SEQUENCE).iter();
    let ids = records.filter_map(|record| record.text(tags::REFERENCED_FILE_ID));
    Ok(Some(ids.map(|id| id.split('\\').map(|part| part.trim().to_owned()).collect()).collect()))
}

/// Study, series and instance of a file, by its header; empty where it does not say.
pub(crate) fn uids_of(path: &Path) -> Result<[String; 3], Fault> {
    let wanted = [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID, tags::SOP_INSTANCE_UID];
    let opened = Opened::read(path, Depth::Header, &wanted)?;
    Ok(wanted.map(|tag| opened.data.text(tag).unwrap_or_default()))
}

/// Group 0002 and the transfer syntax; `bytes` then stand at the data set.
fn to_data(bytes: &mut Bytes) -> Result<(Dataset, &'static TransferSyntax), Fault> {
    let (meta, start) = file_meta(bytes)?;
    bytes.go_to(start)?;
    let syntax = match meta.text(tags::TRANSFER_SYNTAX_UID) {
        Some(uid) => TransferSyntax::of(&uid).ok_or_else(|| Fault::Undecodable { uid: Fault::shown(&uid), name: "not known" })?,
        None => guess(bytes)?,
    };
    Ok((meta, syntax))
}

/// Group 0002 and where the data set starts. A file may lack the preamble, or the whole group.
fn file_meta(bytes: &mut Bytes) -> Result<(Dataset, u64), Fault> {
    let mut start = [0; 132];
    let n = bytes.len().min(132) as usize;
    bytes.fill(&mut start[..n])?;
    let mut position = match () {
        () if n == 132 && &start[128..] == b"DICM" => 132,
        () if start.starts_with(b"DICM") => 4,
        () if n >= 8 && plausible(&start) => 0,
        () => return Err(Fault::NotDicom),
    };
    let mut meta = Dataset::default();
    // The group length is often wrong; the group of each element is not.
    loop {
        bytes.go_to(position)?;
        if bytes.left() < 8 {
            return Ok((meta, position));
        }
        let Head { tag, length, .. } = head(bytes, Encoding::EXPLICIT)?;
        if tag.0 != 0x0002 {
            return Ok((meta, position));
        }
        if u64::from(length) > bytes.left() {
            return Err(Fault::Overrun { tag, claimed: length.into(), left: bytes.left() });
        }
        position = bytes.position() + u64::from(length);
        if position > MAX_META {
            return Err(Fault::HeaderTooLarge { limit: "64 KiB of file meta information" });
        }
        if length <= 1024 && META_TAGS.contains(&tag) {
            let value = bytes.vec(length.into())?;
            meta.put(tag, value);
        }
    }
}

/// Without a prefix: the first element has to be of group 0002 or 0008, with a VR or a length that such a group starts with.
fn plausible(start: &[u8; 132]) -> bool {
    let little = matches!(start[..2], [0x02 | 0x08, 0x00]) && start[3] <= 0x01;
    let big = matches!(start[..2], [0x00, 0x08]) && start[2] <= 0x01;
    let vr = start[4..6].iter().all(u8::is_ascii_uppercase);
    let short = u32::from_le_bytes([start[4], start[5], start[6], start[7]]) <= 1024;
    little && (vr || short) || big && vr
}

/// The transfer syntax of a data set whose meta information does not tell it, from its first element.
fn guess(bytes: &mut Bytes) -> Result<&'static TransferSyntax, Fault> {
    let start = bytes.position();
    let first: [u8; 8] = bytes.array()?;
    bytes.go_to(start)?;
    let explicit = first[4..6].iter().all(u8::is_ascii_uppercase);
    Ok(match (explicit, first[0] == 0 && first[1] != 0) {
        (true, true) => &EXPLICIT_BIG,
        (true, false) => &EXPLICIT_LITTLE,
        (false, _) => &IMPLICIT_LITTLE,
    })
}
