//! A zip archive (PKWARE's APPNOTE 6.3, with its 64-bit records), read entry by entry.
//!
//! Nothing is allocated by a size that the archive claims. An entry that claims more than [`MAX_FILE_BYTES`] is refused before
//! it is read, one that inflates to more than it claims as soon as it does. Entries that overlap, as in the bombs that use one
//! stream many times, add up to more than the archive holds: they are refused as a whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use synovia_cohort::{RejectedLog, Study};

use super::copies::{Copier, each_file};
use super::{MAX_FILE_BYTES, Places};
use crate::error::{Fault, ImagesError};
use crate::scan::{Gathered, ImageKind, ScanCounts, Selection, instance_of};

const MAX_ENTRIES: u64 = 1_000_000;
/// Entries that are unpacked together.
const BATCH: usize = 16;

pub(super) struct Archive {
    path: PathBuf,
    file: File,
    len: u64,
    /// Where the central directory starts, and how many entries it has.
    directory: (u64, u64),
}

/// An entry of the central directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    method: u16,
    encrypted: bool,
    crc: u32,
    packed: u64,
    unpacked: u64,
    header: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).map_or(0, |x| u64::from(u16::from_le_bytes([x[0], x[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, ImagesError> {
        let failed = |source| ImagesError::Folder { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let directory = directory(&mut file, len).map_err(failed)?.ok_or_else(|| ImagesError::Source {
            path: path.to_owned(),
            what: "the end of the zip archive is missing or says what cannot be; copy it again from its source".to_owned(),
        })?;
        if directory.1 > MAX_ENTRIES {
            let what = format!("holds {} entries; give an archive of at most a million, or unpack it", directory.1);
            return Err(ImagesError::Source { path: path.to_owned(), what });
        }
        Ok(Self { path: path.to_owned(), file, len, directory })
    }

    pub(super) fn scan_into(
        &self,
        kind: ImageKind,
        selection: &Selection,
        places: Places<'_>,
        rejected: &RejectedLog,
        progress: &(dyn Fn(u64) + Sync),
        take: &mut dyn FnMut(Study) -> io::Result<()>,
    ) -> Result<ScanCounts, ImagesError> {
        let failed = |source| ImagesError::Folder { path: self.path.clone(), source };
        let scratched = |source| ImagesError::Scratch { path: places.scratch.to_owned(), source };
        let unpacked = tempfile::tempdir_in(places.scratch).map_err(scratched)?;
        std::fs::create_dir_all(places.copies).map_err(|source| ImagesError::Scratch { path: places.copies.to_owned(), source })?;
        let mut gathered = Gathered::new(kind, selection, places.scratch, rejected);
        let mut known: HashMap<u64, Entry> = HashMap::new();
        let mut batch: Vec<(String, Result<Entry, Fault>)> = Vec::with_capacity(BATCH);
        let mut flush = |batch: &mut Vec<(String, Result<Entry, Fault>)>| -> io::Result<()> {
            let look = |(k, (file, entry)): (usize, (String, Result<Entry, Fault>))| {
                let look = |entry: Entry| {
                    let path = unpacked.path().join(format!("{k}{}", ending(&file)));
                    self.unpack(&entry, &path)?;
                    let mut instance = instance_of(&path, kind, selection)?;
                    if kind != ImageKind::Dicom {
                        instance.study = crate::study_by_name(kind, Path::new(&file));
                    }
                    Ok(instance)
                };
                (entry.and_then(look), file)
            };
            let looked: Vec<_> = batch.par_drain(..).enumerate().map(look).collect();
            for (result, file) in looked {
                gathered.take(result, file)?;
            }
            progress(gathered.n_files());
            Ok(())
        };
        let mut packed = 0u64;
        let mut central = BufReader::new(&self.file);
        central.seek(SeekFrom::Start(self.directory.0)).map_err(failed)?;
        for _ in 0..self.directory.1 {
            let (name, entry) = next_entry(&mut central).map_err(failed)?.ok_or_else(|| ImagesError::Source {
                path: self.path.clone(),
                what: "the zip archive's list of entries is damaged; copy it again from its source".to_owned(),
            })?;
            packed = packed.saturating_add(entry.packed);
            if packed > self.len {
                let what = "the zip archive's entries overlap: together they are larger than it is; it is not read".to_owned();
                return Err(ImagesError::Source { path: self.path.clone(), what });
            }
            // Folders are entries too.
            if name.ends_with('/') {
                continue;
            }
            let entry = match entry {
                _ if known.contains_key(&digest(&name)) => Err(Fault::DuplicateEntry),
                Entry { encrypted: true, .. } => Err(Fault::Entry("encrypted; unpack the archive")),
                Entry { method, .. } if method != 0 && method != 8 => {
                    Err(Fault::Entry("packed by a method other than deflate; unpack the archive"))
                }
                Entry { unpacked, .. } if unpacked > MAX_FILE_BYTES => {
                    Err(Fault::Entry("said to be larger than 1 GiB; unpack the archive"))
                }
                entry => {
                    known.insert(digest(&name), entry);
                    Ok(entry)
                }
            };
            batch.push((name, entry));
            if batch.len() == BATCH {
                flush(&mut batch).map_err(scratched)?;
            }
        }
        flush(&mut batch).map_err(scratched)?;
        let copier = Copier::new(kind, selection).map_err(scratched)?;
        let mut lost = 0;
        let mut counts = gathered
            .studies(&mut |mut study| {
                let file = study.file.clone();
                let path = unpacked.path().join("chosen");
                let brought = each_file(&mut study, &mut |file, name| {
                    let entry = known.get(&digest(file)).ok_or(Fault::DuplicateEntry)?;
                    let name = format!("{name}{}", ending(file));
                    self.unpack(entry, &path)?;
                    copier.copy(&path, &places.copies.join(&name))?;
                    Ok::<_, Fault>(name)
                });
                match brought {
                    Ok(()) => take(study),
                    Err(Fault::Io(error)) => Err(error),
                    Err(fault) => {
                        lost += 1;
                        rejected.push(&fault.into_rejected(&file));
                        Ok(())
                    }
                }
            })
            .map_err(scratched)?;
        counts.n_studies -= lost;
        Ok(counts)
    }

    /// Writes an entry's content to `to`.
    fn unpack(&self, entry: &Entry, to: &Path) -> Result<(), Fault> {
        let damaged = || Fault::Entry("damaged in the archive; copy it again from its source");
        // A handle of its own: position is of the handle.
        let mut file = File::open(&self.path)?;
        let mut head = [0; 30];
        file.seek(SeekFrom::Start(entry.header))?;
        file.read_exact(&mut head).map_err(|_| damaged())?;
        if head[..4] != *b"PK\x03\x04" {
            return Err(damaged());
        }
        file.seek(SeekFrom::Current((u16_at(&head, 26) + u16_at(&head, 28)) as i64))?;
        let packed = BufReader::with_capacity(64 << 10, file).take(entry.packed);
        let mut unpacked: Box<dyn Read> = match entry.method {
            0 => Box::new(packed),
            _ => Box::new(flate2::read::DeflateDecoder::new(packed)),
        };
        let mut out = File::create(to)?;
        let mut crc = flate2::Crc::new();
        let (mut n, mut chunk) = (0u64, vec![0; 64 << 10]);
        loop {
            let k = unpacked.read(&mut chunk).map_err(|_| damaged())?;
            if k == 0 {
                break;
            }
            n += k as u64;
            if n > entry.unpacked {
                return Err(Fault::Entry("larger than the archive says; it is not read"));
            }
            crc.update(&chunk[..k]);
            out.write_all(&chunk[..k])?;
        }
        if n == entry.unpacked && crc.sum() == entry.crc { Ok(()) } else { Err(damaged()) }
    }
}

/// Where the central directory is, by the record at the end of the file.
fn directory(file: &mut File, len: u64) -> io::Result<Option<(u64, u64)>> {
    // The record is 22 bytes, and a comment of at most 65535.
    let tail_len = len.min(22 + 65_535);
    file.seek(SeekFrom::Start(len - tail_len))?;
    let mut tail = vec![0; tail_len as usize];
    file.read_exact(&mut tail)?;
    let Some(at) = (0..tail.len().saturating_sub(21)).rev().find(|&at| tail[at..].starts_with(b"PK\x05\x06")) else { return Ok(None) };
    let (mut n, mut start) = (u16_at(&tail, at + 10), u32_at(&tail, at + 16));
    if (n == 0xFFFF || start == 0xFFFF_FFFF) && at >= 20 && tail[at - 20..].starts_with(b"PK\x06\x07") {
        let record = u64_at(&tail, at - 12);
        let mut long = [0; 56];
        if record.checked_add(56).is_none_or(|end| end > len) {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(record))?;
        file.read_exact(&mut long)?;
        if long[..4] != *b"PK\x06\x06" {
            return Ok(None);
        }
        (n, start) = (u64_at(&long, 32), u64_at(&long, 48));
    }
    // 46 bytes an entry, at least.
    let sound = start <= len && n.checked_mul(46).is_some_and(|bytes| bytes <= len - start);
    Ok(sound.then_some((start, n)))
}

/// The next entry of the central directory; `None` when there is none.
fn next_entry(from: &mut impl Read) -> io::Result<Option<(String, Entry)>> {
    let mut head = [0; 46];
    let mut rest = Vec::new();
    let whole = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    };
    if !whole(from.read_exact(&mut head))? || head[..4] != *b"PK\x01\x02" {
        return Ok(None);
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| u16_at(&head, at) as usize);
    rest.resize(name + extra + comment, 0);
    if !whole(from.read_exact(&mut rest))? {
        return Ok(None);
    }
    let mut entry = Entry {
        method: u16_at(&head, 10) as u16,
        encrypted: head[8] & 1 != 0,
        crc: u32_at(&head, 16) as u32,
        packed: u32_at(&head, 20),
        unpacked: u32_at(&head, 24),
        header: u32_at(&head, 42),
    };
    // The 64-bit extra field has those that did not fit, in this order.
    let mut fields = &rest[name..name + extra];
    while fields.len() >= 4 {
        let (id, n) = (u16_at(fields, 0), u16_at(fields, 2) as usize);
        let Some(mut body) = fields.get(4..4 + n) else { break };
        if id == 1 {
            for value in [&mut entry.unpacked, &mut entry.packed, &mut entry.header] {
                if *value == 0xFFFF_FFFF && body.len() >= 8 {
                    *value = u64_at(body, 0);
                    body = &body[8..];
                }
            }
        }
        fields = &fields[4 + n..];
    }
    Ok(Some((String::from_utf8_lossy(&rest[..name]).into_owned(), entry)))
}

/// NIfTI volumes are told apart by their endings.
#[allow(clippy::case_sensitive_file_extension_comparisons, reason = "so they are told apart where they are read")]
fn ending(file: &str) -> &'static str {
    match () {
        () if file.ends_with(".nii.gz") => ".nii.gz",
        () if file.ends_with(".nii") => ".nii",
        () => "",
    }
}

fn digest(name: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
