//! From a line or an entry to a typed resource.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::convert::{self, At};
use super::element::{Kind, Text};
use super::reference::key_of_full_url;
use super::resource::{
    Condition, DiagnosticReport, Encounter, Entry, Head, ImagingStudy, InnerBundle, Medication, MedicationRequest, Observation, Patient,
    Procedure,
};
use crate::source::PieceKind;
use crate::spill::Sink;

/// Bundles in Bundles are followed this deep: a search's answer in a batch's answer is two.
const MAX_BUNDLE_DEPTH: usize = 4;

/// A resource that was read, or the name of a type that is not.
enum Resource<'a> {
    Patient(Patient<'a>),
    Encounter(Encounter<'a>),
    Observation(Box<Observation<'a>>),
    Condition(Condition<'a>),
    Procedure(Procedure<'a>),
    MedicationRequest(Box<MedicationRequest<'a>>),
    Medication(Medication<'a>),
    DiagnosticReport(Box<DiagnosticReport<'a>>),
    ImagingStudy(ImagingStudy<'a>),
    Bundle(InnerBundle<'a>),
    Skipped(String),
    Nonsense,
}

impl<'de> Resource<'de> {
    fn read<D: Deserializer<'de>>(kind: Kind, name: &str, from: D) -> Result<Self, D::Error> {
        Ok(match kind {
            Kind::Patient => Self::Patient(Deserialize::deserialize(from)?),
            Kind::Encounter => Self::Encounter(Deserialize::deserialize(from)?),
            Kind::Observation => Self::Observation(Deserialize::deserialize(from)?),
            Kind::Condition => Self::Condition(Deserialize::deserialize(from)?),
            Kind::Procedure => Self::Procedure(Deserialize::deserialize(from)?),
            Kind::MedicationRequest => Self::MedicationRequest(Deserialize::deserialize(from)?),
            Kind::Medication => Self::Medication(Deserialize::deserialize(from)?),
            Kind::DiagnosticReport => Self::DiagnosticReport(Deserialize::deserialize(from)?),
            Kind::ImagingStudy => Self::ImagingStudy(Deserialize::deserialize(from)?),
            Kind::Bundle => Self::Bundle(Deserialize::deserialize(from)?),
            Kind::Skipped => {
                IgnoredAny::deserialize(from)?;
                Self::Skipped(name.to_owned())
            }
            Kind::Nonsense => {
                IgnoredAny::deserialize(from)?;
                Self::Nonsense
            }
        })
    }
}

/// A Bundle's entry that has none: a DELETE of a transaction, a response.
const NO_RESOURCE: &str = "entry without a resource";

/// What [`Quick`] answers when the type is not the first key: the caller then reads twice.
const NOT_FIRST: &str = "resourceType is not the first key";

/// Reads a resource in one pass when its type is its first key, as every server writes it.
struct Quick;

impl<'de> Visitor<'de> for Quick {
    type Value = Resource<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a resource")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let key: Option<Text<'de>> = map.next_key()?;
        if key.as_ref().map(Text::as_str) != Some("resourceType") {
            return Err(A::Error::custom(NOT_FIRST));
        }
        let name: Text<'de> = map.next_value()?;
        Resource::read(Kind::of(name.as_str()), name.as_str(), MapAccessDeserializer::new(map))
    }
}

impl<'de> DeserializeSeed<'de> for Quick {
    type Value = Resource<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

fn parse(bytes: &[u8]) -> Result<Resource<'_>, serde_json::Error> {
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let quick = Quick.deserialize(&mut from).and_then(|resource| from.end().map(|()| resource));
    match quick {
        Err(error) if error.is_data() && error.to_string().starts_with(NOT_FIRST) => {
            let head: Head<'_> = serde_json::from_slice(bytes)?;
            let name = super::element::text(head.resource_type.as_ref()).to_owned();
            let mut from = serde_json::Deserializer::from_slice(bytes);
            let resource = Resource::read(Kind::of(&name), &name, &mut from)?;
            from.end().map(|()| resource)
        }
        other => other,
    }
}

/// Where a piece stands.
pub(crate) struct Where {
    pub(crate) kind: PieceKind,
    pub(crate) place: u64,
    pub(crate) line: u64,
}

impl Where {
    /// `line 17` or `entry 3`.
    fn place(&self) -> String {
        match self.kind {
            PieceKind::Entry => format!("entry {}", self.place),
            _ => format!("line {}", self.place),
        }
    }

    /// The parser's own words are not used: they quote the value.
    fn broken(&self, error: &serde_json::Error, sink: &mut Sink) {
        // Where the value is not an object at all, the parser has not moved.
        let column = error.column().max(1);
        let line = self.line + error.line().saturating_sub(1) as u64;
        let position = match self.kind {
            PieceKind::Entry => format!("entry {}, line {line} column {column}", self.place),
            _ => format!("line {line} column {column}"),
        };
        let reason = match error.classify() {
            Category::Eof => "the JSON ends before it is closed",
            Category::Data => "not as FHIR R4 defines this element",
            Category::Syntax | Category::Io => "not JSON",
        };
        sink.trouble(position, reason);
    }
}

/// Reads one piece into `sink`.
pub(crate) fn read_piece(bytes: &[u8], at: &Where, sink: &mut Sink) {
    sink.at(at.place);
    match at.kind {
        PieceKind::Entry => read_entry(bytes, at, sink, 1),
        _ => read_resource(bytes, "", at, sink, 0),
    }
}

fn read_entry(bytes: &[u8], at: &Where, sink: &mut Sink, depth: usize) {
    match serde_json::from_slice::<Entry<'_>>(bytes) {
        Ok(Entry { resource: Some(resource), full_url }) => {
            read_resource(resource.get().as_bytes(), super::element::text(full_url.as_ref()), at, sink, depth);
        }
        Ok(_) => sink.skipped(NO_RESOURCE),
        Err(error) => at.broken(&error, sink),
    }
}

fn read_resource(bytes: &[u8], full_url: &str, at: &Where, sink: &mut Sink, depth: usize) {
    match parse(bytes) {
        Ok(resource) => take(resource, full_url, at, sink, depth),
        Err(error) => at.broken(&error, sink),
    }
}

fn take(resource: Resource<'_>, full_url: &str, at: &Where, sink: &mut Sink, depth: usize) {
    let place = at.place();
    let mut at_element = At { place: &place, sink };
    match resource {
        Resource::Patient(patient) => convert::patient(&patient, key_of_full_url(full_url, "Patient"), &mut at_element),
        Resource::Encounter(encounter) => convert::encounter(&encounter, &mut at_element),
        Resource::Observation(observation) => convert::observation(*observation, &mut at_element),
        Resource::Condition(condition) => convert::condition(&condition, &mut at_element),
        Resource::Procedure(procedure) => convert::procedure(&procedure, &mut at_element),
        Resource::MedicationRequest(request) => convert::medication_request(&request, &mut at_element),
        Resource::Medication(medication) => convert::medication(&medication, key_of_full_url(full_url, "Medication"), &mut at_element),
        Resource::DiagnosticReport(report) => super::report::diagnostic_report(&report, &mut at_element),
        Resource::ImagingStudy(study) => super::report::imaging_study(&study, &mut at_element),
        Resource::Bundle(_) if depth >= MAX_BUNDLE_DEPTH => sink.trouble(place, "a Bundle in a Bundle, too deep to follow"),
        Resource::Bundle(bundle) => {
            sink.taken("Bundle");
            for entry in bundle.entry {
                read_entry(entry.get().as_bytes(), at, sink, depth + 1);
            }
        }
        Resource::Skipped(name) => sink.skipped(&name),
        Resource::Nonsense => sink.trouble(place, "no resourceType of FHIR"),
    }
}

/// Reads a whole file that is a Bundle in one pass, or says that it can't: the file is then cut into entries, and what is
/// broken costs its entry alone. `sink` is to be thrown away in that case.
pub(crate) fn read_bundle(bytes: &[u8], sink: &mut Sink) -> Result<(), NotInOnePass> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut from = serde_json::Deserializer::from_slice(bytes);
    WholeBundle { sink }.deserialize(&mut from).and_then(|()| from.end()).map_err(|_| NotInOnePass)
}

/// The file is broken, is no Bundle, or has its keys in an order that needs a second look.
pub(crate) struct NotInOnePass;

struct WholeBundle<'s> {
    sink: &'s mut Sink,
}

impl<'de> DeserializeSeed<'de> for WholeBundle<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WholeBundle<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Bundle")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut is_bundle = false;
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match key.as_str() {
                "resourceType" => is_bundle = map.next_value::<Text<'de>>()?.as_str() == "Bundle",
                "entry" if is_bundle => map.next_value_seed(Entries { sink: self.sink })?,
                _ if is_bundle => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => return Err(A::Error::custom(NOT_FIRST)),
            }
        }
        if is_bundle { Ok(()) } else { Err(A::Error::custom(NOT_FIRST)) }
    }
}

struct Entries<'s> {
    sink: &'s mut Sink,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut place = 1;
        while list.next_element_seed(OneEntry { sink: self.sink, place })?.is_some() {
            place += 1;
        }
        Ok(())
    }
}

struct OneEntry<'s> {
    sink: &'s mut Sink,
    place: u64,
}

impl<'de> DeserializeSeed<'de> for OneEntry<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneEntry<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let at = Where { kind: PieceKind::Entry, place: self.place, line: 1 };
        let (mut full_url, mut resource) = (None::<Text<'de>>, None);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match key.as_str() {
                "fullUrl" => full_url = map.next_value()?,
                "resource" => resource = Some(map.next_value_seed(Quick)?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.sink.at(self.place);
        match resource {
            Some(resource) => take(resource, super::element::text(full_url.as_ref()), &at, self.sink, 1),
            None => self.sink.skipped(NO_RESOURCE),
        }
        Ok(())
    }
}
