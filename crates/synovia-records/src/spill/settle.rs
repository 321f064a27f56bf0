//! From items in any order to patients: who exists, under which name, with what, in order of time.

use std::collections::HashMap;
use std::path::Path;

use rayon::prelude::*;
use synovia_cohort::{Patient, Rejected, StudyLink};

use super::codec::{Corrupt, Cursor, Interner, get_event, get_patient, get_study, put_event, put_patient, put_study, put_text, put_u64};
use super::item::{MEDICATION_PREFIX, Origin, Place, TAG_ALIAS, TAG_EVENT, TAG_PATIENT, TAG_STUDY, canonical_partition};
use super::store::{Raw, part_path, publish};
use crate::error::{RecordsError, io};
use crate::summary::Summary;

/// What is known once all is read.
pub(crate) struct Context<'a> {
    /// Medication resources by key.
    pub(crate) medications: &'a HashMap<String, (String, String)>,
    /// Makes a rejection of a file's index, a line or entry, an element and a reason.
    pub(crate) reject: &'a (dyn Fn(u64, u64, &str, &str) -> Rejected + Sync),
    /// Whether some patient goes by two keys.
    pub(crate) any_alias: bool,
}

/// An item as it lies in the raw file.
struct Item<'a> {
    key: &'a str,
    at: Place,
    origin: Origin,
    tag: u8,
    /// Time of an event, 0 for others.
    seconds: i64,
    body: &'a [u8],
    whole: &'a [u8],
}

fn items(bytes: &[u8]) -> Result<Vec<Item<'_>>, Corrupt> {
    let mut from = Cursor(bytes);
    let mut found = Vec::new();
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
        found.push(Item { key, at, origin, tag, seconds, body, whole });
    }
    Ok(found)
}

fn read(folder: &Path, k: usize) -> Result<Vec<u8>, RecordsError> {
    let path = Raw::path(folder, k);
    std::fs::read(&path).map_err(io(&path))
}

fn corrupt(folder: &Path, k: usize) -> impl FnOnce(Corrupt) -> RecordsError + '_ {
    move |Corrupt| RecordsError::Damaged { path: Raw::path(folder, k), what: "not what was written".to_owned() }
}

/// Settles every partition of `folder`, on all cores, and removes the raw files.
pub(crate) fn settle(
    folder: &Path,
    raw: &Raw,
    context: &Context<'_>,
    log: &(dyn Fn(&Rejected) + Sync),
) -> Result<(Vec<u64>, Summary), RecordsError> {
    let n_partitions = raw.n_partitions();
    if context.any_alias {
        for k in 0..n_partitions {
            move_aliased(folder, raw, k)?;
        }
    }
    let parts: Vec<(u64, Summary, Vec<Rejected>)> = (0..n_partitions)
        .into_par_iter()
        .map(|k| {
            let bytes = read(folder, k)?;
            let mut part = Part { context, out: Vec::new(), summary: Summary::default(), rejected: Vec::new() };
            part.settle(&bytes).map_err(corrupt(folder, k))?;
            publish(&part_path(folder, k), &part.out)?;
            let path = Raw::path(folder, k);
            std::fs::remove_file(&path).map_err(io(&path))?;
            Ok((part.out.len() as u64, part.summary, part.rejected))
        })
        .collect::<Result<_, RecordsError>>()?;
    let mut summary = Summary::default();
    let mut lengths = Vec::with_capacity(parts.len());
    for (length, part, rejected) in parts {
        lengths.push(length);
        summary.add(&part);
        rejected.iter().for_each(log);
    }
    Ok((lengths, summary))
}

/// Copies what names a patient by its second key (a Bundle's `fullUrl`) to the partition of the first, under the first.
fn move_aliased(folder: &Path, raw: &Raw, k: usize) -> Result<(), RecordsError> {
    let bytes = read(folder, k)?;
    let items = items(&bytes).map_err(corrupt(folder, k))?;
    let aliases = effective_aliases(&items);
    let mut moved: HashMap<usize, Vec<u8>> = HashMap::new();
    for item in &items {
        let Some(&to) = aliases.get(item.key) else { continue };
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
        let out = moved.entry(canonical_partition(to, raw.n_partitions())).or_default();
        put_u64(out, body.len() as u64);
        out.extend_from_slice(&body);
    }
    moved.iter().try_for_each(|(&to, items)| raw.append(to, items))
}

/// Second keys that are not some patient's own, with the first of what they stand for.
fn effective_aliases<'a>(items: &[Item<'a>]) -> HashMap<&'a str, &'a str> {
    let mut aliases: HashMap<&str, (Place, &str)> = HashMap::new();
    for item in items.iter().filter(|item| item.tag == TAG_ALIAS) {
        let Ok(to) = Cursor(item.body).text() else { continue };
        let found = aliases.entry(item.key).or_insert((item.at, to));
        if item.at < found.0 {
            *found = (item.at, to);
        }
    }
    for item in items.iter().filter(|item| item.tag == TAG_PATIENT) {
        aliases.remove(item.key);
    }
    aliases.into_iter().map(|(key, (_, to))| (key, to)).collect()
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

    fn settle(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        let mut items = items(bytes)?;
        let aliases = if self.context.any_alias { effective_aliases(&items) } else { HashMap::new() };
        // Patients first, then events by time, then as the source had them.
        items.sort_unstable_by(|a, b| a.key.cmp(b.key).then(a.tag.cmp(&b.tag)).then(a.seconds.cmp(&b.seconds)).then(a.at.cmp(&b.at)));
        for group in items.chunk_by(|a, b| a.key == b.key) {
            let n_definitions = group.iter().take_while(|item| item.tag == TAG_PATIENT).count();
            if n_definitions > 0 {
                self.patient(group, n_definitions)?;
            } else if !aliases.contains_key(group[0].key) {
                let mut last = None;
                for item in group.iter().filter(|item| item.tag != TAG_ALIAS) {
                    // A resource with several items (a blood pressure) is one thing that is not taken.
                    if last != Some((item.at.file, item.at.number)) {
                        last = Some((item.at.file, item.at.number));
                        self.reject(item, item.origin.subject_path(), "the subject is not among the Patient resources");
                    }
                }
            }
        }
        Ok(())
    }

    fn patient(&mut self, group: &[Item<'_>], n_definitions: usize) -> Result<(), Corrupt> {
        let mut names = Interner::default();
        let mut patient = get_patient(&mut Cursor(group[0].body), &mut names)?;
        for item in &group[1..n_definitions] {
            let other = get_patient(&mut Cursor(item.body), &mut names)?;
            if !merge(&mut patient, other) {
                let reason = "another description of the same patient says otherwise: the first was taken";
                self.reject(item, item.origin.subject_path(), reason);
            }
        }
        let (mut events, mut n_events) = (Vec::new(), 0);
        let mut studies: Vec<StudyLink> = Vec::new();
        for item in &group[n_definitions..] {
            match item.tag {
                TAG_EVENT => {
                    let mut event = get_event(&mut Cursor(item.body), &mut names)?;
                    if let Some(key) = event.code.strip_prefix(MEDICATION_PREFIX) {
                        let Some((code, display)) = self.context.medications.get(key) else {
                            self.reject(item, "MedicationRequest.medicationReference", "not among the Medication resources");
                            continue;
                        };
                        (event.code, event.display) = (names.get(code), names.get(display));
                        put_event(&mut events, &event);
                    } else {
                        events.extend_from_slice(item.body);
                    }
                    n_events += 1;
                }
                TAG_STUDY => {
                    let study = get_study(&mut Cursor(item.body))?;
                    match studies.iter_mut().find(|s| s.study_instance_uid == study.study_instance_uid) {
                        Some(found) => found.started = found.started.or(study.started),
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
