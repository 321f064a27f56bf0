//! From a line or an entry to a typed resource.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::convert::{self, At};
use super::element::{Kind, Text};
use super::reference::key_of_full_url;
use super::resource::{
    AllergyIntolerance, Condition, DiagnosticReport, DocumentReference, Encounter, Entry, FamilyMemberHistory, Head, ImagingStudy,
    InnerBundle, Medication, MedicationRequest, MedicationTaken, Observation, Patient, Procedure,
};
use super::{report, taken};
use crate::json::Json;
use crate::source::PieceKind;
use crate::spill::{Origin, Sink};

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
    MedicationAdministration(Box<MedicationTaken<'a>>),
    MedicationStatement(Box<MedicationTaken<'a>>),
    Medication(Medication<'a>),
    AllergyIntolerance(AllergyIntolerance<'a>),
    FamilyMemberHistory(FamilyMemberHistory<'a>),
    DiagnosticReport(Box<DiagnosticReport<'a>>),
    DocumentReference(DocumentReference<'a>),
    ImagingStudy(ImagingStudy<'a>),
    Bundle(InnerBundle<'a>),
    Skipped(Cow<'a, str>),
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
            Kind::MedicationAdministration => Self::MedicationAdministration(Deserialize::deserialize(from)?),
            Kind::MedicationStatement => Self::MedicationStatement(Deserialize::deserialize(from)?),
            Kind::Medication => Self::Medication(Deserialize::deserialize(from)?),
            Kind::AllergyIntolerance => Self::AllergyIntolerance(Deserialize::deserialize(from)?),
            Kind::FamilyMemberHistory => Self::FamilyMemberHistory(Deserialize::deserialize(from)?),
            Kind::DocumentReference => Self::DocumentReference(Deserialize::deserialize(from)?),
            Kind::DiagnosticReport => Self::DiagnosticReport(Deserialize::deserialize(from)?),
            Kind::ImagingStudy => Self::ImagingStudy(Deserialize::deserialize(from)?),
            Kind::Bundle => Self::Bundle(Deserialize::deserialize(from)?),
            Kind::Skipped => {
                IgnoredAny::deserialize(from)?;
                Self::Skipped(name.to_owned().into())
            }
            Kind::Nonsense => {
                IgnoredAny::deserialize(from)?;
                Self::Nonsense
            }
        })
    }
}

/// A place in JSON that passes over resources which hold nothing that is read.
fn json(bytes: &[u8]) -> Json<'_> {
    Json::passing(bytes, "resourceType", |name| Kind::of(name) == Kind::Skipped)
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

    /// One that was passed over, by its type.
    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Resource::Skipped(name.into()))
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
    let mut quick = json(bytes);
    if let Ok(resource) = Quick.deserialize(&mut quick).and_then(|resource| quick.end().map(|()| resource)) {
        return Ok(resource);
    }
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let again = Quick.deserialize(&mut from).and_then(|resource| from.end().map(|()| resource));
    match again {
        Err(error) if error.is_data() && error.to_string().starts_with(NOT_FIRST) => {
            let head: Head<'_> = serde_json::from_slice(bytes)?;
            let name = super::element::text(head.resource_type.as_ref()).to_owned();
            let mut quick = json(bytes);
            if let Ok(resource) = Resource::read(Kind::of(&name), &name, &mut quick) {
                return Ok(resource);
            }
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
    pub(crate) fn place(&self) -> String {
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
    let mut quick = json(bytes);
    if let Ok((full_url, resource)) = QuickEntry.deserialize(&mut quick).and_then(|entry| quick.end().map(|()| entry)) {
        return take_entry(full_url.as_ref(), resource, at, sink, depth);
    }
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

fn take_entry(full_url: Option<&Text<'_>>, resource: Option<Resource<'_>>, at: &Where, sink: &mut Sink, depth: usize) {
    match resource {
        Some(resource) => take(resource, super::element::text(full_url), at, sink, depth),
        None => sink.skipped(NO_RESOURCE),
    }
}

/// Where a resource that is understood says what it says; it is counted.
fn counted<'a>(place: &'a Where, origin: Origin, sink: &'a mut Sink) -> At<'a> {
    sink.taken(origin.name());
    At { place, origin, sink }
}

fn take(resource: Resource<'_>, full_url: &str, at: &Where, sink: &mut Sink, depth: usize) {
    match resource {
        Resource::Patient(patient) => {
            convert::patient(&patient, key_of_full_url(full_url, "Patient"), &mut counted(at, Origin::Patient, sink));
        }
        Resource::Encounter(encounter) => convert::encounter(&encounter, &mut counted(at, Origin::Encounter, sink)),
        Resource::Observation(mut observation) => {
            super::observation::observation(&mut observation, &mut counted(at, Origin::Observation, sink));
        }
        Resource::Condition(condition) => convert::condition(&condition, &mut counted(at, Origin::Condition, sink)),
        Resource::Procedure(procedure) => convert::procedure(&procedure, &mut counted(at, Origin::Procedure, sink)),
        Resource::MedicationRequest(request) => taken::medication_request(&request, &mut counted(at, Origin::MedicationRequest, sink)),
        Resource::MedicationAdministration(given) => {
            taken::medication_administration(&given, &mut counted(at, Origin::MedicationAdministration, sink));
        }
        Resource::MedicationStatement(statement) => {
            taken::medication_statement(&statement, &mut counted(at, Origin::MedicationStatement, sink));
        }
        Resource::Medication(medication) => {
            sink.taken("Medication");
            taken::medication(&medication, key_of_full_url(full_url, "Medication"), at, sink);
        }
        Resource::AllergyIntolerance(allergy) => convert::allergy(&allergy, &mut counted(at, Origin::AllergyIntolerance, sink)),
        Resource::FamilyMemberHistory(history) => convert::family_history(&history, &mut counted(at, Origin::FamilyMemberHistory, sink)),
        Resource::DiagnosticReport(report) => report::diagnostic_report(&report, &mut counted(at, Origin::DiagnosticReport, sink)),
        Resource::DocumentReference(document) => report::document_reference(&document, &mut counted(at, Origin::DocumentReference, sink)),
        Resource::ImagingStudy(study) => report::imaging_study(&study, &mut counted(at, Origin::ImagingStudy, sink)),
        Resource::Bundle(_) if depth >= MAX_BUNDLE_DEPTH => sink.trouble(at.place(), "a Bundle in a Bundle, too deep to follow"),
        Resource::Bundle(bundle) => {
            sink.taken("Bundle");
            for entry in bundle.entry {
                read_entry(entry.get().as_bytes(), at, sink, depth + 1);
            }
        }
        Resource::Skipped(name) => sink.skipped(&name),
        Resource::Nonsense => sink.trouble(at.place(), "no resourceType of FHIR"),
    }
}

/// Reads a whole file that is a Bundle in one pass, or says that it can't: the file is then cut into entries, and what is
/// broken costs its entry alone. `sink` is to be thrown away in that case.
pub(crate) fn read_bundle(bytes: &[u8], sink: &mut Sink) -> Result<(), NotInOnePass> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut from = json(bytes);
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
        let (full_url, resource) = QuickEntry.deserialize(from)?;
        let at = Where { kind: PieceKind::Entry, place: self.place, line: 1 };
        self.sink.at(self.place);
        take_entry(full_url.as_ref(), resource, &at, self.sink, 1);
        Ok(())
    }
}

/// An element of `Bundle.entry` whose resource begins with its type.
struct QuickEntry;

impl<'de> DeserializeSeed<'de> for QuickEntry {
    type Value = (Option<Text<'de>>, Option<Resource<'de>>);
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for QuickEntry {
    type Value = (Option<Text<'de>>, Option<Resource<'de>>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut full_url, mut resource) = (None, None);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match key.as_str() {
                // Of a key that comes twice the derived reading knows what to say.
                "fullUrl" if full_url.is_some() => return Err(A::Error::duplicate_field("fullUrl")),
                "resource" if resource.is_some() => return Err(A::Error::duplicate_field("resource")),
                "fullUrl" => full_url = Some(map.next_value::<Option<Text<'de>>>()?),
                "resource" => resource = Some(map.next_value_seed(Quick)?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok((full_url.flatten(), resource))
    }
}
