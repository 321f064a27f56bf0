//! The lines of a patient's chart, by resource type.

use serde::Serialize;
use synovia_cohort::Time;

use super::resources::{
    CodeableConcept, Coding, Component, Condition, Encounter, MedicationRequest, Observation, Period, Quantity, Reference,
};
use crate::SimulationError;
use crate::patient::Patient;

/// The resource types of a cohort: one file each, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResourceType {
    /// Who.
    Patient,
    /// Contacts.
    Encounter,
    /// Labs, vital signs, stage, response.
    Observation,
    /// Diagnoses.
    Condition,
    /// Drugs.
    MedicationRequest,
    /// Studies.
    ImagingStudy,
    /// Reports.
    DiagnosticReport,
}

impl ResourceType {
    pub(crate) const ALL: [Self; 7] = [
        Self::Patient,
        Self::Encounter,
        Self::Observation,
        Self::Condition,
        Self::MedicationRequest,
        Self::ImagingStudy,
        Self::DiagnosticReport,
    ];

    /// Name in FHIR, and of the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Patient => "Patient",
            Self::Encounter => "Encounter",
            Self::Observation => "Observation",
            Self::Condition => "Condition",
            Self::MedicationRequest => "MedicationRequest",
            Self::ImagingStudy => "ImagingStudy",
            Self::DiagnosticReport => "DiagnosticReport",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Patient => "pat",
            Self::Encounter => "enc",
            Self::Observation => "obs",
            Self::Condition => "con",
            Self::MedicationRequest => "med",
            Self::ImagingStudy => "img",
            Self::DiagnosticReport => "rep",
        }
    }
}

/// How many traps a chart holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Traps {
    pub(crate) unknown_subjects: u64,
    pub(crate) unknown_study_subjects: u64,
    pub(crate) unusable_units: u64,
    pub(crate) entered_in_error: u64,
}

/// NDJSON of one patient.
pub(crate) struct Chart {
    /// Lines, by [`ResourceType::ALL`].
    pub(crate) lines: [Vec<u8>; 7],
    /// Number of resources, by [`ResourceType::ALL`].
    pub(crate) counts: [u64; 7],
    /// What was put in to be refused.
    pub(crate) traps: Traps,
    subject: Reference,
    number: usize,
}

impl Chart {
    pub(super) fn new(patient: &Patient) -> Self {
        Self {
            lines: Default::default(),
            counts: [0; 7],
            traps: Traps::default(),
            subject: Reference { reference: format!("Patient/{}", patient.id.reveal()) },
            number: patient.index + 1,
        }
    }

    /// The patient, as a subject.
    pub(super) fn subject(&self) -> Reference {
        self.subject.clone()
    }

    /// Id of the next resource of a type.
    pub(super) fn next_id(&self, kind: ResourceType) -> String {
        format!("{}-{:06}-{}", kind.prefix(), self.number, self.counts[kind as usize] + 1)
    }

    /// Adds a line.
    pub(super) fn add(&mut self, kind: ResourceType, resource: &impl Serialize) -> Result<(), SimulationError> {
        let line = &mut self.lines[kind as usize];
        serde_json::to_writer(&mut *line, resource).map_err(|source| SimulationError::Fhir { resource: kind.name(), source })?;
        line.push(b'\n');
        self.counts[kind as usize] += 1;
        Ok(())
    }

    /// An observation without a value yet.
    pub(super) fn observation(&self, category: Category, code: Coding, at: Time) -> Observation {
        Observation {
            resource_type: "Observation",
            id: self.next_id(ResourceType::Observation),
            status: "final",
            category: [category.concept()],
            code: code.into(),
            subject: self.subject(),
            effective_date_time: at,
            value_quantity: None,
            value_codeable_concept: None,
            component: Vec::new(),
        }
    }

    /// Adds a measured quantity.
    pub(super) fn add_quantity(&mut self, category: Category, code: Coding, at: Time, quantity: Quantity) -> Result<(), SimulationError> {
        let observation = Observation { value_quantity: Some(quantity), ..self.observation(category, code, at) };
        self.add(ResourceType::Observation, &observation)
    }

    /// Adds a coded answer.
    pub(super) fn add_answer(&mut self, category: Category, code: Coding, at: Time, answer: Coding) -> Result<(), SimulationError> {
        let observation = Observation { value_codeable_concept: Some(answer.into()), ..self.observation(category, code, at) };
        self.add(ResourceType::Observation, &observation)
    }

    /// Adds an observation of several components.
    pub(super) fn add_panel(
        &mut self,
        category: Category,
        code: Coding,
        at: Time,
        parts: Vec<(Coding, Quantity)>,
    ) -> Result<(), SimulationError> {
        let component = parts.into_iter().map(|(code, value_quantity)| Component { code: code.into(), value_quantity }).collect();
        let observation = Observation { component, ..self.observation(category, code, at) };
        self.add(ResourceType::Observation, &observation)
    }

    /// Adds a confirmed, active diagnosis.
    pub(super) fn add_condition(&mut self, code: Coding, onset: Time, recorded: Time) -> Result<(), SimulationError> {
        const fn status(system: &'static str, code: &'static str) -> CodeableConcept {
            CodeableConcept { coding: [Coding { system, code, display: "" }] }
        }
        let condition = Condition {
            resource_type: "Condition",
            id: self.next_id(ResourceType::Condition),
            clinical_status: status("http://terminology.hl7.org/CodeSystem/condition-clinical", "active"),
            verification_status: status("http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed"),
            category: [status("http://terminology.hl7.org/CodeSystem/condition-category", "problem-list-item")],
            code: code.into(),
            subject: self.subject(),
            onset_date_time: onset,
            recorded_date: recorded,
        };
        self.add(ResourceType::Condition, &condition)
    }

    /// Adds an order of a drug.
    pub(super) fn add_medication(&mut self, drug: Coding, at: Time) -> Result<(), SimulationError> {
        let request = MedicationRequest {
            resource_type: "MedicationRequest",
            id: self.next_id(ResourceType::MedicationRequest),
            status: "active",
            intent: "order",
            medication_codeable_concept: drug.into(),
            subject: self.subject(),
            authored_on: at,
        };
        self.add(ResourceType::MedicationRequest, &request)
    }

    /// Adds a finished contact that lasted `hours`.
    pub(super) fn add_encounter(
        &mut self,
        class: Coding,
        priority: Option<Coding>,
        start: Time,
        hours: i64,
    ) -> Result<(), SimulationError> {
        let encounter = Encounter {
            resource_type: "Encounter",
            id: self.next_id(ResourceType::Encounter),
            status: "finished",
            class,
            priority: priority.map(Into::into),
            subject: self.subject(),
            period: Period { start, end: start.plus_seconds(hours * 3600) },
        };
        self.add(ResourceType::Encounter, &encounter)
    }
}

/// Categories of observations.
#[derive(Clone, Copy)]
pub(super) enum Category {
    /// Laboratory.
    Laboratory,
    /// Vital signs.
    VitalSigns,
    /// Social history.
    SocialHistory,
    /// Assessment by a clinician.
    Exam,
}

impl Category {
    fn concept(self) -> CodeableConcept {
        let code = match self {
            Self::Laboratory => "laboratory",
            Self::VitalSigns => "vital-signs",
            Self::SocialHistory => "social-history",
            Self::Exam => "exam",
        };
        Coding { system: "http://terminology.hl7.org/CodeSystem/observation-category", code, display: "" }.into()
    }
}
