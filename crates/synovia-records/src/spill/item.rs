//! What a resource says, on its way to the patient it is about.

use synovia_cohort::{Patient, StudyLink};

use super::codec::{put_event, put_patient, put_study, put_text, put_u64};
use super::medications::Medications;
use super::said::Said;
use crate::source::Trouble;
use crate::summary::{Summary, count};

/// A medication event's code with this prefix is the key of a Medication resource that is yet to be found.
pub(crate) const MEDICATION_PREFIX: &str = "\u{1}";

/// What kind of thing named the patient: for the position of a rejection at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Origin {
    Patient,
    Encounter,
    Observation,
    Condition,
    Procedure,
    MedicationRequest,
    MedicationAdministration,
    MedicationStatement,
    AllergyIntolerance,
    FamilyMemberHistory,
    DiagnosticReport,
    DocumentReference,
    ImagingStudy,
    Row,
}

impl Origin {
    pub(crate) const ALL: [Self; 14] = [
        Self::Patient,
        Self::Encounter,
        Self::Observation,
        Self::Condition,
        Self::Procedure,
        Self::MedicationRequest,
        Self::MedicationAdministration,
        Self::MedicationStatement,
        Self::AllergyIntolerance,
        Self::FamilyMemberHistory,
        Self::DiagnosticReport,
        Self::DocumentReference,
        Self::ImagingStudy,
        Self::Row,
    ];

    /// The resource's type.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Patient => "Patient",
            Self::Encounter => "Encounter",
            Self::Observation => "Observation",
            Self::Condition => "Condition",
            Self::Procedure => "Procedure",
            Self::MedicationRequest => "MedicationRequest",
            Self::MedicationAdministration => "MedicationAdministration",
            Self::MedicationStatement => "MedicationStatement",
            Self::AllergyIntolerance => "AllergyIntolerance",
            Self::FamilyMemberHistory => "FamilyMemberHistory",
            Self::DiagnosticReport => "DiagnosticReport",
            Self::DocumentReference => "DocumentReference",
            Self::ImagingStudy => "ImagingStudy",
            Self::Row => "",
        }
    }

    /// The element that names the patient.
    pub(crate) const fn subject(self) -> &'static str {
        match self {
            Self::Patient => "id",
            Self::AllergyIntolerance | Self::FamilyMemberHistory => "patient",
            Self::Row => "",
            _ => "subject",
        }
    }

    /// That element with its resource's type.
    pub(crate) fn subject_path(self) -> String {
        if self == Self::Row { String::new() } else { format!("{}.{}", self.name(), self.subject()) }
    }
}

/// Where a resource stands in the input: events of one time keep this order, for any number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Index of the file.
    pub(crate) file: u64,
    /// Line, or entry of the Bundle.
    pub(crate) number: u64,
    /// Which of the resource's items.
    pub(crate) part: u64,
}

/// What is said of a patient.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    /// Who it is. Settles that the patient exists.
    Patient(&'a Patient),
    /// The key is another name of this one.
    Alias(&'a str),
    /// An event.
    Event(&'a Said<'a>),
    /// A study.
    Study(&'a StudyLink),
}

pub(crate) const TAG_PATIENT: u8 = 0;
pub(crate) const TAG_ALIAS: u8 = 1;
pub(crate) const TAG_EVENT: u8 = 2;
pub(crate) const TAG_STUDY: u8 = 3;

/// Which partition a patient's key belongs to: FNV-1a, the same on every machine.
pub(crate) fn canonical_partition(key: &str, n_partitions: usize) -> usize {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    ((hash ^ (hash >> 32)) % n_partitions as u64) as usize
}

/// Collects what a batch says: bytes for each partition, troubles, counts.
pub(crate) struct Sink {
    /// Raw items by partition.
    pub(crate) parts: Vec<Vec<u8>>,
    /// What was not taken, in order.
    pub(crate) troubles: Vec<Trouble>,
    /// Counts of types.
    pub(crate) summary: Summary,
    /// Medication resources.
    pub(crate) medications: Medications,
    /// Whether some patient goes by two keys.
    pub(crate) any_alias: bool,
    file: u64,
    place: u64,
    part: u64,
    body: Vec<u8>,
}

impl Sink {
    /// For a batch of the file of this index.
    pub(crate) fn new(n_partitions: usize, file: usize) -> Self {
        Self {
            parts: vec![Vec::new(); n_partitions],
            troubles: Vec::new(),
            summary: Summary::default(),
            medications: Medications::default(),
            any_alias: false,
            file: file as u64,
            place: 0,
            part: 0,
            body: Vec::new(),
        }
    }

    /// What follows is at this line or entry.
    pub(crate) fn at(&mut self, place: u64) {
        (self.place, self.part) = (place, 0);
    }

    /// Sends a body to the patient of this key.
    pub(crate) fn push(&mut self, key: &str, origin: Origin, body: &Body<'_>) {
        let item = &mut self.body;
        item.clear();
        put_text(item, key);
        put_u64(item, self.file);
        put_u64(item, self.place);
        put_u64(item, self.part);
        item.push(origin as u8);
        match body {
            Body::Patient(patient) => {
                item.push(TAG_PATIENT);
                put_patient(item, patient);
            }
            Body::Alias(to) => {
                item.push(TAG_ALIAS);
                put_text(item, to);
                self.any_alias = true;
            }
            Body::Event(event) => {
                item.push(TAG_EVENT);
                put_event(item, event);
            }
            Body::Study(study) => {
                item.push(TAG_STUDY);
                put_study(item, study);
            }
        }
        self.part += 1;
        let k = canonical_partition(key, self.parts.len());
        let out = &mut self.parts[k];
        put_u64(out, item.len() as u64);
        out.extend_from_slice(item);
    }

    /// Keeps what a Medication resource of this id (or `fullUrl`, where `is_url`) is.
    pub(crate) fn medication(&mut self, key: &str, is_url: bool, code: String, display: String) {
        let at = Place { file: self.file, number: self.place, part: self.part };
        self.part += 1;
        self.medications.add(key, is_url, at, code, display);
    }

    /// Notes what was not taken.
    pub(crate) fn trouble(&mut self, position: impl Into<String>, reason: impl Into<String>) {
        self.troubles.push(Trouble { position: position.into(), reason: reason.into() });
    }

    /// Counts a resource that was understood.
    pub(crate) fn taken(&mut self, kind: &str) {
        count(&mut self.summary.resources, kind, 1);
    }

    /// Counts a resource of a type that is not read.
    pub(crate) fn skipped(&mut self, kind: &str) {
        count(&mut self.summary.skipped_types, kind, 1);
    }
}
