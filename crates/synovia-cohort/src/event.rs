//! What is known of a patient, as it came from any source.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{PatientId, Time};

/// Administrative sex, as FHIR R4 `administrative-gender` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sex {
    /// Female.
    Female,
    /// Male.
    Male,
    /// Other.
    Other,
}

/// Facts about a patient that have no time of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct Patient {
    /// Every identifier under which an image may name this patient (FHIR `Patient.identifier.value`, the id itself).
    pub identifiers: Vec<String>,
    /// Start of the day of birth.
    pub birth: Option<Time>,
    /// Administrative sex.
    pub sex: Option<Sex>,
    /// [`name_digest`](crate::name_digest) of the name, so that one person under two ids can be noticed; the name is not kept.
    #[serde(default)]
    pub name_digest: Option<u64>,
    /// Death, where it is recorded with a time.
    pub death: Option<Time>,
    /// Any other static column of a source that has no times (CSV): name and value.
    pub facts: Vec<(Arc<str>, EventValue)>,
}

/// What kind of statement an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A measurement or finding.
    Observation,
    /// A diagnosis or problem, at its recording (or onset, where that is all there is); the value is the days in between.
    Condition,
    /// A medication ordered, given or stated.
    Medication,
    /// A procedure.
    Procedure,
    /// Start of a contact with care.
    Encounter,
    /// A report.
    Report,
    /// An imaging study, by its record in the chart.
    Imaging,
    /// Death.
    Death,
    /// An allergy or intolerance, at its recording.
    Allergy,
    /// A disease of a relative; the value is the relationship.
    FamilyHistory,
}

/// An event's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventValue {
    /// The event itself is all there is.
    None,
    /// A number in the canonical unit of its code (UCUM).
    Number {
        /// The number.
        value: f64,
        /// UCUM unit; empty where the quantity has none.
        unit: Arc<str>,
    },
    /// A coded answer, `system|code`.
    Code(Arc<str>),
    /// Free text: of a report, or of an Observation whose value is a string, a date or a concept without a code.
    Text(Arc<str>),
}

/// Something that happened to a patient at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When the chart could first have told of it.
    pub time: Time,
    /// What kind.
    pub kind: EventKind,
    /// `system|code`, as FHIR search tokens are written: `http://loinc.org|2339-0`.
    pub code: Arc<str>,
    /// Human-readable name of the code.
    pub display: Arc<str>,
    /// The value.
    pub value: EventValue,
}

/// A study that the chart says was made of this patient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudyLink {
    /// Study Instance UID; empty when the chart has none.
    pub study_instance_uid: String,
    /// Accession number; empty when the chart has none.
    pub accession: String,
    /// When it started, by the chart.
    pub started: Option<Time>,
}

/// All that a source holds of one patient, events in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct PatientRecord {
    /// Who, by the source's own id.
    pub id: PatientId,
    /// Static facts.
    pub patient: Patient,
    /// Events, sorted by time, then as the source had them.
    pub events: Vec<Event>,
    /// Imaging studies that the chart names.
    pub studies: Vec<StudyLink>,
}

/// An imaging study as the images themselves tell it: one picture that stands for it, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Study {
    /// Study Instance UID (DICOM), or the file's stem (PNG, JPEG).
    pub study_instance_uid: String,
    /// Patient identifier as the image has it; empty when absent.
    pub patient: String,
    /// Accession number as the image has it; empty when absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accession: String,
    /// Acquisition of the chosen image: before it the image did not exist.
    pub time: Option<Time>,
    /// Modality (`CT`, `DX`, …); empty when absent.
    pub modality: String,
    /// File of the chosen image, relative to the folder that was scanned.
    pub file: String,
    /// Frame in it, from 0.
    pub frame: u32,
    /// How many images the study has in all.
    pub n_images: u32,
    /// Files and frames of the slices that stand for a volume together, in order along its normal; empty where one image does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<(String, u32)>,
}
