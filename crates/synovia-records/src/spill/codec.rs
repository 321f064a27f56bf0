//! A compact binary form: LEB128 integers, length-prefixed text, the bytes of `f64`.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use synovia_cohort::{Event, EventKind, EventValue, Patient, Sex, StudyLink, Time};

use super::said::{Said, Token, Value};

/// The bytes are not what they should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

pub(crate) fn put_u64(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

pub(crate) fn put_i64(out: &mut Vec<u8>, x: i64) {
    put_u64(out, ((x << 1) ^ (x >> 63)) as u64);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_time(out: &mut Vec<u8>, time: Option<Time>) {
    out.push(u8::from(time.is_some()));
    put_i64(out, time.map_or(0, Time::seconds));
}

/// A string that can be looked for by its bytes, before they are known to be one.
#[derive(PartialEq, Eq)]
struct Name(Arc<str>);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Strings that occur again and again, each held and looked at once.
#[derive(Default)]
pub(crate) struct Interner(HashSet<Name, RandomState>);

impl Interner {
    pub(crate) fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(found) = self.0.get(text.as_bytes()) {
            return found.0.clone();
        }
        let new: Arc<str> = text.into();
        self.0.insert(Name(new.clone()));
        new
    }

    /// The next text.
    fn read(&mut self, from: &mut Cursor<'_>) -> Result<Arc<str>, Corrupt> {
        let bytes = from.text_bytes()?;
        match self.0.get(bytes) {
            Some(found) => Ok(found.0.clone()),
            None => std::str::from_utf8(bytes).map(|text| self.get(text)).map_err(|_| Corrupt),
        }
    }
}

/// Reads what the `put_…` functions wrote.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Result<&'a [u8], Corrupt> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Corrupt)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Corrupt> {
        Ok(self.bytes(1)?[0])
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Corrupt> {
        let mut x = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            x |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(x);
            }
        }
        Err(Corrupt)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Corrupt> {
        let x = self.u64()?;
        Ok((x >> 1) as i64 ^ -((x & 1) as i64))
    }

    pub(crate) fn f64(&mut self) -> Result<f64, Corrupt> {
        Ok(f64::from_le_bytes(self.bytes(8)?.try_into().map_err(|_| Corrupt)?))
    }

    /// The bytes of a text.
    pub(crate) fn text_bytes(&mut self) -> Result<&'a [u8], Corrupt> {
        let n = self.u64()?;
        self.bytes(usize::try_from(n).map_err(|_| Corrupt)?)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Corrupt> {
        std::str::from_utf8(self.text_bytes()?).map_err(|_| Corrupt)
    }

    fn time(&mut self) -> Result<Option<Time>, Corrupt> {
        let there = self.u8()? != 0;
        let seconds = self.i64()?;
        Ok(there.then(|| Time::from_seconds(seconds)))
    }
}

fn put_token(out: &mut Vec<u8>, token: Token<'_>) {
    let Some(system) = token.system else { return put_text(out, token.code) };
    put_u64(out, (system.len() + 1 + token.code.len()) as u64);
    out.extend_from_slice(system.as_bytes());
    out.push(b'|');
    out.extend_from_slice(token.code.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::None => out.push(0),
        Value::Number { value, unit } => {
            out.push(1);
            out.extend_from_slice(&value.to_le_bytes());
            put_text(out, unit);
        }
        Value::Code(code) => {
            out.push(2);
            put_token(out, code);
        }
        Value::Text(text) => {
            out.push(3);
            put_text(out, text);
        }
    }
}

fn get_value(from: &mut Cursor<'_>, names: &mut Interner) -> Result<EventValue, Corrupt> {
    Ok(match from.u8()? {
        0 => EventValue::None,
        1 => EventValue::Number { value: from.f64()?, unit: names.read(from)? },
        2 => EventValue::Code(names.read(from)?),
        3 => EventValue::Text(from.text()?.into()),
        _ => return Err(Corrupt),
    })
}

const KINDS: [EventKind; 10] = [
    EventKind::Observation,
    EventKind::Condition,
    EventKind::Medication,
    EventKind::Procedure,
    EventKind::Encounter,
    EventKind::Report,
    EventKind::Imaging,
    EventKind::Death,
    EventKind::Allergy,
    EventKind::FamilyHistory,
];

/// An event; its time comes first, so that events can be sorted without being read.
pub(crate) fn put_event(out: &mut Vec<u8>, event: &Said<'_>) {
    put_i64(out, event.time.seconds());
    out.push(KINDS.iter().position(|&k| k == event.kind).unwrap_or_default() as u8);
    put_token(out, event.code);
    put_text(out, event.display);
    put_value(out, event.value);
}

pub(crate) fn get_event(from: &mut Cursor<'_>, names: &mut Interner) -> Result<Event, Corrupt> {
    Ok(Event {
        time: Time::from_seconds(from.i64()?),
        kind: *KINDS.get(from.u8()? as usize).ok_or(Corrupt)?,
        code: names.read(from)?,
        display: names.read(from)?,
        value: get_value(from, names)?,
    })
}

pub(crate) fn put_study(out: &mut Vec<u8>, study: &StudyLink) {
    put_text(out, &study.study_instance_uid);
    put_text(out, &study.accession);
    put_time(out, study.started);
}

pub(crate) fn get_study(from: &mut Cursor<'_>) -> Result<StudyLink, Corrupt> {
    Ok(StudyLink { study_instance_uid: from.text()?.to_owned(), accession: from.text()?.to_owned(), started: from.time()? })
}

pub(crate) fn put_patient(out: &mut Vec<u8>, patient: &Patient) {
    put_u64(out, patient.identifiers.len() as u64);
    for identifier in &patient.identifiers {
        put_text(out, identifier);
    }
    put_time(out, patient.birth);
    out.push(match patient.sex {
        None => 0,
        Some(Sex::Female) => 1,
        Some(Sex::Male) => 2,
        Some(Sex::Other) => 3,
    });
    put_time(out, patient.death);
    out.push(u8::from(patient.name_digest.is_some()));
    put_u64(out, patient.name_digest.unwrap_or_default());
    put_u64(out, patient.facts.len() as u64);
    for (name, value) in &patient.facts {
        put_text(out, name);
        put_value(out, value.into());
    }
}

pub(crate) fn get_patient(from: &mut Cursor<'_>, names: &mut Interner) -> Result<Patient, Corrupt> {
    let identifiers = (0..from.u64()?).map(|_| from.text().map(str::to_owned)).collect::<Result<_, _>>()?;
    let birth = from.time()?;
    let sex = match from.u8()? {
        0 => None,
        1 => Some(Sex::Female),
        2 => Some(Sex::Male),
        3 => Some(Sex::Other),
        _ => return Err(Corrupt),
    };
    let death = from.time()?;
    let named = from.u8()? != 0;
    let digest = from.u64()?;
    let name_digest = named.then_some(digest);
    let facts = (0..from.u64()?).map(|_| Ok((names.read(from)?, get_value(from, names)?))).collect::<Result<_, _>>()?;
    Ok(Patient { identifiers, birth, sex, name_digest, death, facts })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_come_back(x in any::<u64>(), y in any::<i64>()) {
            let mut out = Vec::new();
            put_u64(&mut out, x);
            put_i64(&mut out, y);
            let mut from = Cursor(&out);
            prop_assert_eq!((from.u64(), from.i64(), from.is_empty()), (Ok(x), Ok(y), true));
        }

        #[test]
        fn any_bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut names = Interner::default();
            if let Ok(event) = get_event(&mut Cursor(&bytes), &mut names) {
                let mut out = Vec::new();
                put_event(&mut out, &(&event).into());
                prop_assert_eq!(get_event(&mut Cursor(&out), &mut names).map(|e| e.code), Ok(event.code));
            }
            let _ = get_patient(&mut Cursor(&bytes), &mut names);
        }
    }
}
