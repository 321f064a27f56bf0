//! FHIR R4 resources and data types, with the elements that the simulated chart fills.

use serde::Serialize;
use synovia_cohort::Time;

/// LOINC.
pub(super) const LOINC: &str = "http://loinc.org";
/// SNOMED CT.
pub(super) const SNOMED: &str = "http://snomed.info/sct";
/// RxNorm.
pub(super) const RXNORM: &str = "http://www.nlm.nih.gov/research/umls/rxnorm";
/// UCUM.
pub(super) const UCUM: &str = "http://unitsofmeasure.org";
const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
const ACT_PRIORITY: &str = "http://terminology.hl7.org/CodeSystem/v3-ActPriority";
const DICOM: &str = "http://dicom.nema.org/resources/ontology/DCM";

/// <https://hl7.org/fhir/R4/datatypes.html#Coding>
#[derive(Serialize, Clone, Copy)]
pub(super) struct Coding {
    pub(super) system: &'static str,
    pub(super) code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) display: &'static str,
}

impl Coding {
    pub(super) const fn loinc(code: &'static str, display: &'static str) -> Self {
        Self { system: LOINC, code, display }
    }

    pub(super) const fn snomed(code: &'static str, display: &'static str) -> Self {
        Self { system: SNOMED, code, display }
    }

    pub(super) const fn rxnorm(code: &'static str, display: &'static str) -> Self {
        Self { system: RXNORM, code, display }
    }

    pub(super) const fn encounter(code: &'static str, display: &'static str) -> Self {
        Self { system: ACT_CODE, code, display }
    }

    pub(super) const fn priority(code: &'static str, display: &'static str) -> Self {
        Self { system: ACT_PRIORITY, code, display }
    }

    pub(super) const fn modality(code: &'static str) -> Self {
        Self { system: DICOM, code, display: "" }
    }
}

/// <https://hl7.org/fhir/R4/datatypes.html#CodeableConcept>
#[derive(Serialize, Clone, Copy)]
pub(super) struct CodeableConcept {
    pub(super) coding: [Coding; 1],
}

impl From<Coding> for CodeableConcept {
    fn from(coding: Coding) -> Self {
        Self { coding: [coding] }
    }
}

/// <https://hl7.org/fhir/R4/datatypes.html#Quantity>
#[derive(Serialize, Clone, Copy)]
pub(super) struct Quantity {
    pub(super) value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) system: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<&'static str>,
}

impl Quantity {
    /// `value`, rounded to `decimals`, in a unit of UCUM.
    pub(super) fn new(value: f64, decimals: i32, unit: &'static str) -> Self {
        let scale = 10f64.powi(decimals);
        Self { value: (value * scale).round() / scale, unit: Some(unit), system: Some(UCUM), code: Some(unit) }
    }
}

/// <https://hl7.org/fhir/R4/references.html>
#[derive(Serialize, Clone)]
pub(super) struct Reference {
    pub(super) reference: String,
}

/// <https://hl7.org/fhir/R4/datatypes.html#Identifier>
#[derive(Serialize)]
pub(super) struct Identifier {
    pub(super) system: &'static str,
    pub(super) value: String,
}

/// <https://hl7.org/fhir/R4/datatypes.html#HumanName>
#[derive(Serialize)]
pub(super) struct HumanName {
    pub(super) r#use: &'static str,
    pub(super) family: &'static str,
    pub(super) given: [&'static str; 1],
}

/// <https://hl7.org/fhir/R4/datatypes.html#Period>
#[derive(Serialize)]
pub(super) struct Period {
    #[serde(serialize_with = "instant")]
    pub(super) start: Time,
    #[serde(serialize_with = "instant")]
    pub(super) end: Time,
}

/// FHIR `dateTime` and `instant`, in UTC; serde asks for the reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn instant<S: serde::Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// <https://hl7.org/fhir/R4/patient.html>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PatientResource<'a> {
    pub(super) resource_type: &'static str,
    pub(super) id: &'a str,
    pub(super) identifier: [Identifier; 1],
    pub(super) active: bool,
    pub(super) name: [HumanName; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gender: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) birth_date: Option<String>,
}

/// <https://hl7.org/fhir/R4/encounter.html>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Encounter {
    pub(super) resource_type: &'static str,
    pub(super) id: String,
    pub(super) status: &'static str,
    pub(super) class: Coding,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<CodeableConcept>,
    pub(super) subject: Reference,
    pub(super) period: Period,
}

/// Part of an observation, such as systolic pressure.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Component {
    pub(super) code: CodeableConcept,
    pub(super) value_quantity: Quantity,
}

/// <https://hl7.org/fhir/R4/observation.html>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Observation {
    pub(super) resource_type: &'static str,
    pub(super) id: String,
    pub(super) status: &'static str,
    pub(super) category: [CodeableConcept; 1],
    pub(super) code: CodeableConcept,
    pub(super) subject: Reference,
    #[serde(serialize_with = "instant")]
    pub(super) effective_date_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value_quantity: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value_codeable_concept: Option<CodeableConcept>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) component: Vec<Component>,
}

/// <https://hl7.org/fhir/R4/condition.html>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    pub(super) resource_type: &'static str,
    pub(super) id: String,
    pub(super) clinical_status: CodeableConcept,
    pub(super) verification_status: CodeableConcept,
    pub(super) category: [CodeableConcept; 1],
    pub(super) code: CodeableConcept,
    pub(super) subject: Reference,
    #[serde(serialize_with = "instant")]
    pub(super) onset_date_time: Time,
    #[serde(serialize_with = "instant")]
    pub(super) recorded_date: Time,
}

/// <https://hl7.org/fhir/R4/medicationrequest.html>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MedicationRequest {
    pub(super) resource_type: &'static str,
    pub(super) id: String,
    pub(super) status: &'static str,
    pub(super) intent: &'static str,
    pub(super) medication_codeable_concept: CodeableConcept,
    pub(super) subject: Reference,
    #[serde(serialize_with = "instant")]
    pub(super) authored_on: Time,
}

/// An instance of a series.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instance {
    pub(super) uid: String,
    pub(super) sop_class: Coding,
    pub(super) number: u32,
}

/// A series of an imaging study.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Series {
    pub(super) uid: String,
    pub(super) number: u32,
    pub(super) modality: Coding,
    pub(super) number_of_instances: u32,
    pub(super) body_site: Coding,
    pub(super) instance: Vec<Instance>,
}

/// <https://hl7.org/fhir/R4/imagingstudy.html>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImagingStudy {
    pub(super) resource_type: &'static str,
    pub(super) id: String,
    pub(super) identifier: [Identifier; 1],
    pub(super) status: &'static str,
    pub(super) modality: [Coding; 1],
    pub(super) subject: Reference,
    #[serde(serialize_with = "instant")]
    pub(super) started: Time,
    pub(super) number_of_series: u32,
    pub(super) number_of_instances: u32,
    pub(super) series: Vec<Series>,
}

/// <https://hl7.org/fhir/R4/diagnosticreport.html>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DiagnosticReport {
    pub(super) resource_type: &'static str,
    pub(super) id: String,
    pub(super) status: &'static str,
    pub(super) category: [CodeableConcept; 1],
    pub(super) code: CodeableConcept,
    pub(super) subject: Reference,
    #[serde(serialize_with = "instant")]
    pub(super) effective_date_time: Time,
    #[serde(serialize_with = "instant")]
    pub(super) issued: Time,
    pub(super) imaging_study: [Reference; 1],
    pub(super) conclusion: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) conclusion_code: Vec<CodeableConcept>,
}
