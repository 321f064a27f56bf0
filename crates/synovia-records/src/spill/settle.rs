//! From items in any order to patients: who exists, under which name, with what, in order of time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use foldhash::fast::RandomState;
use rayon::prelude::*;
use synovia_cohort::{Patient, Rejected, StudyLink};

use super::codec::{Corrupt, Cursor, Interner, get_event, get_patient, get_study, put_event, put_patient, put_study, put_text, put_u64};
use super::item::{MEDICATION_PREFIX, Origin, Place, TAG_ALIAS, TAG_EVENT, TAG_PATIENT, TAG_STUDY, canonical_partition};
use super::medications::Medications;
use super::store::{PartInfo, Raw, checksum, publish};
use crate::error::{RecordsError, io};
use crate::summary::Summary;

/// What is known once all is read.
pub(crate) struct Context<'a> {
    /// Medication resources.
    pub(crate) medications: &'a Medications,
    /// Makes a rejection of a file's index, a line or entry, an element and a reason.
    pub(crate) reject: &'a (dyn Fn(u64, u64, &str, &str) -> Rejected + Sync),
    /// Whether some patient goes by two keys.
    pub(crate) any_alias: bool,
}

/// An item as it lies in the raw file.
struct Item<'a> {
    key: &'a str,
    /// Place of the key among all, once it is known.
    rank: u32,
    at: Place,
    origin: Origin,
    tag: u8,
    /// Time of an event, 0 for others.
    seconds: i64,
    body: &'a [u8],
    whole: &'a [u8],
}

fn items(bytes: &[u8]) -> Result<Vec<Item<'_>>, Corrupt> {
    let mut found = Vec::new();
    append_items(bytes, &mut found)?;
    Ok(found)
}

fn append_items<'a>(bytes: &'a [u8], found: &mut Vec<Item<'a>>) -> Result<(), Corrupt> {
    let mut from = Cursor(bytes);
    // An event takes some eighty bytes.
    found.reserve(bytes.len() / 64);
    while !from.is_empty() {
        let start = from.0;
        let n = from.u64()?;
        let mut item = Cursor(from.bytes(usize::try_from(n).map_err(|_| Corrupt)?)?);
        let whole = &start[..start.len() - from.0.len()];
        let key = item.text()?;
        let at = Place { file: item.u64()?, number: item.u64()?, part: item.u64()? };
        let origin = *Origin::ALL.get(item.u8()? as usize).ok_or(Corrupt)?;
        let tag = item.u8()?;
        let body = item.0;
        let seconds = if tag == TAG_EVENT { item.i64()? } else { 0 };
        found.push(Item { key, rank: 0, at, origin, tag, seconds, body, whole });
    }
    Ok(())
}

/// Numbers the keys in their order, so that items can be sorted without comparing texts.
fn rank(items: &mut [Item<'_>]) {
    let mut numbers: HashMap<&str, u32, RandomState> = HashMap::default();
    let mut last = ("", 0);
    for item in &mut *items {
        // What is said of a patient mostly comes together.
        if numbers.is_empty() || item.key != last.0 {
            let next = numbers.len() as u32;
            last = (item.key, *numbers.entry(item.key).or_insert(next));
        }
        item.rank = last.1;
    }
    let mut keys: Vec<(&str, u32)> = numbers.into_iter().collect();
    keys.sort_unstable();
    let mut ranks = vec![0; keys.len()];
    for (rank, (_, number)) in keys.into_iter().enumerate() {
        ranks[number as usize] = rank as u32;
    }
    items.iter_mut().for_each(|item| item.rank = ranks[item.rank as usize]);
}

fn damaged(path: &Path) -> impl FnOnce(Corrupt) -> RecordsError + '_ {
    move |Corrupt| RecordsError::Damaged { path: path.to_owned(), what: "not what was written".to_owned() }
}

/// The items of a raw file one by one, the file never being in memory.
struct Items {
    path: PathBuf,
    reader: BufReader<std::io::Take<File>>,
    item: Vec<u8>,
}

impl Items {
    /// Those that the file has now: what is appended later is not seen.
    fn open(path: PathBuf) -> Result<Self, RecordsError> {
        let file = File::open(&path).map_err(io(&path))?;
        let n_bytes = file.metadata().map_err(io(&path))?.len();
        Ok(Self { reader: BufReader::with_capacity(64 << 10, file.take(n_bytes)), item: Vec::new(), path })
    }

    /// The next item with its length before it, as it lies in the file.
    fn next(&mut self) -> Result<Option<&[u8]>, RecordsError> {
        let mut read = || -> std::io::Result<bool> {
            self.item.clear();
            let mut n: u64 = 0;
            for shift in (0..64).step_by(7) {
                let Some(&byte) = self.reader.fill_buf()?.first() else { break };
                self.reader.consume(1);
                self.item.push(byte);
                n |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            let there = !self.item.is_empty();
            let start = self.item.len();
            if there && self.reader.by_ref().take(n).read_to_end(&mut self.item)? as u64 != n {
                self.item.truncate(start);
            }
            Ok(there)
        };
        let there = read().map_err(io(&self.path))?;
        Ok(there.then_some(&self.item))
    }
}

/// A raw file of more bytes is cut by patients before it is settled, so that the memory of settling does not grow with the
/// input. (A single patient is not cut: a record of more than this is in memory once.)
const MAX_RAW_BYTES: u64 = 4 << 20;
const MAX_PIECES: u64 = 256;
/// Bytes that wait in memory for each piece: 2 MiB a thread for the most pieces that there are.
const PIECE_WAITING_BYTES: usize = 8 << 10;

/// Which piece of a raw file a patient's key belongs to: other bits than those which chose the file.
fn piece_of(key: &str, n_pieces: usize) -> usize {
    (checksum(key.as_bytes()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % n_pieces
}

/// The raw file of partition `k` as it is, or cut into several files.
fn pieces(folder: &Path, k: usize) -> Result<Vec<PathBuf>, RecordsError> {
    let path = Raw::path(folder, k);
    let n_bytes = std::fs::metadata(&path).map_err(io(&path))?.len();
    if n_bytes <= MAX_RAW_BYTES {
        return Ok(vec![path]);
    }
    let n_pieces = (2 * n_bytes / MAX_RAW_BYTES).clamp(2, MAX_PIECES) as usize;
    let paths: Vec<PathBuf> = (0..n_pieces).map(|j| folder.join(format!("raw-{k:04}-{j:04}.bin"))).collect();
    let mut waiting = vec![Vec::new(); n_pieces];
    // A file is open only while it is appended to: each thread cuts, and a process may have a thousand files open, not more.
    let append = |j: usize, bytes: &mut Vec<u8>| {
        let file = File::options().append(true).create(true).open(&paths[j]);
        let written = file.and_then(|mut file| file.write_all(bytes)).map_err(io(&paths[j]));
        bytes.clear();
        written
    };
    let mut from = Items::open(path.clone())?;
    while let Some(item) = from.next()? {
        let mut cursor = Cursor(item);
        let key = cursor.u64().and_then(|_| cursor.text()).map_err(damaged(&path))?;
        let j = piece_of(key, n_pieces);
        waiting[j].extend_from_slice(item);
        if waiting[j].len() >= PIECE_WAITING_BYTES {
            append(j, &mut waiting[j])?;
        }
    }
    waiting.iter_mut().enumerate().try_for_each(|(j, bytes)| append(j, bytes))?;
    std::fs::remove_file(&path).map_err(io(&path))?;
    Ok(paths)
}

/// Settles every partition of `folder`, on all cores, and removes the raw files.
pub(crate) fn settle(
    folder: &Path,
    raw: &Raw,
    context: &Context<'_>,
    log: &(dyn Fn(&Rejected) + Sync),
) -> Result<(Vec<PartInfo>, Summary), RecordsError> {
    let n_partitions = raw.n_partitions();
    if context.any_alias {
        raw.flush()?;
        for k in 0..n_partitions {
            move_aliased(folder, raw, k)?;
            raw.flush()?;
        }
    }
    let settle_one = |of: usize, piece: usize, path: &Path, chunks: &[Vec<u8>]| {
        let n_bytes = chunks.iter().map(Vec::len).sum();
        let mut part = Part { context, out: Vec::with_capacity(n_bytes), summary: Summary::default(), rejected: Vec::new() };
        part.settle(chunks).map_err(damaged(path))?;
        let info = PartInfo { of, piece, n_bytes: part.out.len() as u64, checksum: checksum(&part.out) };
        publish(&info.path(folder), &part.out)?;
        Ok((info, part.summary, part.rejected))
    };
    let settle_file = |of: usize, piece: usize, path: &Path| {
        let settled = settle_one(of, piece, path, &[std::fs::read(path).map_err(io(path))?])?;
        std::fs::remove_file(path).map_err(io(path))?;
        Ok(settled)
    };
    let mut summary = Summary::default();
    let mut parts = Vec::new();
    let partitions: Vec<usize> = (0..n_partitions).collect();
    // A few at a time, so that rejections are logged in the order of the partitions without all of them being held.
    for few in partitions.chunks(4 * rayon::current_num_threads()) {
        let settle = |k: &usize| match raw.take(*k, MAX_RAW_BYTES)? {
            Some(chunks) => Ok(vec![settle_one(*k, 0, &Raw::path(folder, *k), &chunks)?]),
            None => pieces(folder, *k)?.iter().enumerate().map(|(j, path)| settle_file(*k, j, path)).collect(),
        };
        let settled: Vec<Vec<(PartInfo, Summary, Vec<Rejected>)>> = match few {
            [k] => vec![settle(k)?],
            few => few.into_par_iter().map(settle).collect::<Result<_, RecordsError>>()?,
        };
        for (info, part, rejected) in settled.into_iter().flatten() {
            parts.push(info);
            summary.add(&part);
            rejected.iter().for_each(log);
        }
    }
    Ok((parts, summary))
}

/// Copies what names a patient by its second key (a Bundle's `fullUrl`) to the partition of the first, under the first.
fn move_aliased(folder: &Path, raw: &Raw, k: usize) -> Result<(), RecordsError> {
    let path = Raw::path(folder, k);
    let mut naming = Vec::new();
    let mut from = Items::open(path.clone())?;
    while let Some(item) = from.next()? {
        if items(item).map_err(damaged(&path))?.iter().any(|item| matches!(item.tag, TAG_ALIAS | TAG_PATIENT)) {
            naming.extend_from_slice(item);
        }
    }
    let naming = items(&naming).map_err(damaged(&path))?;
    let aliases = effective_aliases(&naming);
    let mut from = Items::open(path.clone())?;
    while let Some(item) = from.next()? {
        let found = items(item).map_err(damaged(&path))?;
        let Some(item) = found.first() else { continue };
        let Some(&Alias::Of(to)) = aliases.get(&(item.key, item.at.file)) else { continue };
        if item.tag == TAG_ALIAS {
            continue;
        }
        let mut body = Vec::with_capacity(item.whole.len() + to.len());
        put_text(&mut body, to);
        put_u64(&mut body, item.at.file);
        put_u64(&mut body, item.at.number);
        put_u64(&mut body, item.at.part);
        body.push(item.origin as u8);
        body.push(item.tag);
        body.extend_from_slice(item.body);
        let mut out = Vec::with_capacity(body.len() + 4);
        put_u64(&mut out, body.len() as u64);
        out.extend_from_slice(&body);
        raw.append(canonical_partition(to, raw.n_partitions()), &out)?;
    }
    Ok(())
}

/// Whose second key one is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alias<'a> {
    Of(&'a str),
    /// Of several patients (a file of several Bundles): of which, nothing says.
    OfSeveral,
}

/// Second keys with the file that they hold in, less those that are a patient's own in that file. A `fullUrl` is resolved within
/// its Bundle (R4 §2.36.4): in another file the same one may be another patient's.
fn effective_aliases<'a>(items: &[Item<'a>]) -> HashMap<(&'a str, u64), Alias<'a>> {
    let mut aliases = HashMap::new();
    for item in items.iter().filter(|item| item.tag == TAG_ALIAS) {
        let Ok(to) = Cursor(item.body).text() else { continue };
        let found = aliases.entry((item.key, item.at.file)).or_insert(Alias::Of(to));
        if *found != Alias::Of(to) {
            *found = Alias::OfSeveral;
        }
    }
    for item in items.iter().filter(|item| item.tag == TAG_PATIENT) {
        aliases.remove(&(item.key, item.at.file));
    }
    aliases
}

struct Part<'a> {
    context: &'a Context<'a>,
    out: Vec<u8>,
    summary: Summary,
    rejected: Vec<Rejected>,
}

impl Part<'_> {
    fn reject(&mut self, item: &Item<'_>, element: &str, reason: &str) {
        self.rejected.push((self.context.reject)(item.at.file, item.at.number, element, reason));
    }

    /// - chunks: whole items each
    fn settle(&mut self, chunks: &[Vec<u8>]) -> Result<(), Corrupt> {
        let mut items = Vec::new();
        chunks.iter().try_for_each(|chunk| append_items(chunk, &mut items))?;
        if self.context.any_alias {
            let aliases = effective_aliases(&items);
            let mut unclear: Vec<Item<'_>> =
                items.extract_if(.., |item| aliases.get(&(item.key, item.at.file)) == Some(&Alias::OfSeveral)).collect();
            unclear.sort_unstable_by_key(|item| item.at);
            self.reject_each(&unclear, "the subject is a fullUrl that several patients of this file have");
            // What is left under a second key was moved to the first.
            items.retain(|item| !aliases.contains_key(&(item.key, item.at.file)));
        }
        // Patients first, then events by time, then as the source had them.
        rank(&mut items);
        items.sort_unstable_by_key(|item| (item.rank, item.tag, item.seconds, item.at));
        for group in items.chunk_by(|a, b| a.rank == b.rank) {
            let n_definitions = group.iter().take_while(|item| item.tag == TAG_PATIENT).count();
            if n_definitions > 0 {
                self.patient(group, n_definitions)?;
            } else {
                let of_row = group.iter().any(|item| item.origin == Origin::Row);
                let reason =
                    if of_row { "the person is not in the table of persons" } else { "the subject is not among the Patient resources" };
                self.reject_each(group, reason);
            }
        }
        Ok(())
    }

    /// Rejects what the items say. A resource with several (a blood pressure) is one thing that is not taken.
    fn reject_each(&mut self, items: &[Item<'_>], reason: &str) {
        let mut last = None;
        for item in items.iter().filter(|item| item.tag != TAG_ALIAS) {
            if last != Some((item.at.file, item.at.number)) {
                last = Some((item.at.file, item.at.number));
                self.reject(item, &item.origin.subject_path(), reason);
            }
        }
    }

    fn patient(&mut self, group: &[Item<'_>], n_definitions: usize) -> Result<(), Corrupt> {
        let mut names = Interner::default();
        let mut patient = get_patient(&mut Cursor(group[0].body), &mut names)?;
        for item in &group[1..n_definitions] {
            let other = get_patient(&mut Cursor(item.body), &mut names)?;
            if !merge(&mut patient, other) {
                let reason = "another description of the same patient says otherwise: the first was taken";
                self.reject(item, &item.origin.subject_path(), reason);
            }
        }
        let (mut events, mut n_events) = (Vec::new(), 0);
        let mut studies: Vec<StudyLink> = Vec::new();
        for item in &group[n_definitions..] {
            match item.tag {
                TAG_EVENT => {
                    // Most events stay as they are: only the code is looked at.
                    let mut head = Cursor(item.body);
                    head.i64()?;
                    head.u8()?;
                    if head.text_bytes()?.starts_with(MEDICATION_PREFIX.as_bytes()) {
                        let mut event = get_event(&mut Cursor(item.body), &mut names)?;
                        let key = event.code.strip_prefix(MEDICATION_PREFIX).unwrap_or_default();
                        let Some((code, display)) = self.context.medications.get(key, item.at.file) else {
                            let element = format!("{}.medicationReference", item.origin.name());
                            self.reject(item, &element, "not among the Medication resources");
                            continue;
                        };
                        (event.code, event.display) = (names.get(code), names.get(display));
                        put_event(&mut events, &(&event).into());
                    } else {
                        events.extend_from_slice(item.body);
                    }
                    n_events += 1;
                }
                TAG_STUDY => {
                    let study = get_study(&mut Cursor(item.body))?;
                    let same = |s: &&mut StudyLink| {
                        let by_uid = s.study_instance_uid == study.study_instance_uid;
                        by_uid && (!study.study_instance_uid.is_empty() || s.accession == study.accession && s.started == study.started)
                    };
                    match studies.iter_mut().find(same) {
                        Some(found) => {
                            found.started = found.started.or(study.started);
                            if found.accession.is_empty() {
                                found.accession = study.accession;
                            }
                        }
                        None => studies.push(study),
                    }
                }
                _ => {}
            }
        }
        self.summary.n_patients += 1;
        self.summary.n_events += n_events;
        self.summary.n_studies += studies.len() as u64;
        self.summary.n_patients_without_events += u64::from(n_events == 0);
        put_text(&mut self.out, group[0].key);
        put_patient(&mut self.out, &patient);
        put_u64(&mut self.out, n_events);
        self.out.extend_from_slice(&events);
        put_u64(&mut self.out, studies.len() as u64);
        for study in &studies {
            put_study(&mut self.out, study);
        }
        Ok(())
    }
}

/// Adds what `other` says to `patient`; whether they agree.
fn merge(patient: &mut Patient, other: Patient) -> bool {
    fn one<T: PartialEq>(to: &mut Option<T>, from: Option<T>) -> bool {
        match (to.is_some(), from) {
            (_, None) => true,
            (false, from) => {
                *to = from;
                true
            }
            (true, from) => *to == from,
        }
    }
    let mut agree = one(&mut patient.birth, other.birth) & one(&mut patient.sex, other.sex) & one(&mut patient.death, other.death);
    // A name may change; that it did is no disagreement.
    patient.name_digest = patient.name_digest.or(other.name_digest);
    for identifier in other.identifiers {
        if !patient.identifiers.contains(&identifier) {
            patient.identifiers.push(identifier);
        }
    }
    for (name, value) in other.facts {
        match patient.facts.iter().find(|(n, _)| *n == name) {
            Some((_, found)) => agree &= *found == value,
            None => patient.facts.push((name, value)),
        }
    }
    agree
}
