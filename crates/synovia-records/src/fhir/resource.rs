//! The resources that are read, each with the elements that are read of it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::element::{
    CodeableConcept, Coding, Decimal, HumanName, Identifier, Period, Quantity, Range, Ratio, Reference, SampledData, Text, Timing,
    concept_or_other,
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Patient<'a> {
    #[serde(borrow)]
    pub(crate) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) identifier: Vec<Identifier<'a>>,
    #[serde(borrow)]
    pub(crate) name: Vec<HumanName<'a>>,
    #[serde(borrow, rename = "birthDate")]
    pub(crate) birth_date: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) gender: Option<Text<'a>>,
    #[serde(borrow, rename = "deceasedDateTime")]
    pub(crate) deceased: Option<Text<'a>>,
    #[serde(rename = "deceasedBoolean")]
    pub(crate) is_deceased: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Encounter<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) class: Option<Coding<'a>>,
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Vec<CodeableConcept<'a>>,
    #[serde(borrow)]
    pub(crate) subject: Option<Reference<'a>>,
    #[serde(borrow)]
    pub(crate) period: Option<Period<'a>>,
}

/// `Observation.value[x]`, of the resource and of its components alike.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Component<'a> {
    #[serde(borrow)]
    pub(crate) code: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "valueQuantity")]
    pub(crate) quantity: Option<Quantity<'a>>,
    #[serde(borrow, rename = "valueCodeableConcept")]
    pub(crate) concept: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "valueString")]
    pub(crate) string: Option<Text<'a>>,
    #[serde(rename = "valueInteger")]
    pub(crate) integer: Option<Decimal>,
    #[serde(rename = "valueBoolean")]
    pub(crate) boolean: Option<bool>,
    #[serde(borrow, rename = "valueRange")]
    pub(crate) range: Option<Range<'a>>,
    #[serde(borrow, rename = "valueRatio")]
    pub(crate) ratio: Option<Ratio<'a>>,
    #[serde(borrow, rename = "valueSampledData")]
    pub(crate) sampled: Option<Box<SampledData<'a>>>,
    #[serde(borrow, rename = "valueTime")]
    pub(crate) time: Option<Text<'a>>,
    #[serde(borrow, rename = "valueDateTime")]
    pub(crate) date_time: Option<Text<'a>>,
    #[serde(borrow, rename = "valuePeriod")]
    pub(crate) period: Option<Period<'a>>,
    #[serde(borrow, rename = "dataAbsentReason")]
    pub(crate) absent: Option<CodeableConcept<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Observation<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) subject: Option<Reference<'a>>,
    #[serde(borrow, rename = "effectiveDateTime")]
    pub(crate) effective: Option<Text<'a>>,
    #[serde(borrow, rename = "effectiveInstant")]
    pub(crate) effective_instant: Option<Text<'a>>,
    #[serde(borrow, rename = "effectivePeriod")]
    pub(crate) effective_period: Option<Period<'a>>,
    #[serde(borrow, rename = "effectiveTiming")]
    pub(crate) effective_timing: Option<Timing<'a>>,
    #[serde(borrow)]
    pub(crate) issued: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) component: Vec<Component<'a>>,
    // As in `Component`; serde's `flatten` would copy all of it.
    #[serde(borrow)]
    pub(crate) code: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "valueQuantity")]
    pub(crate) quantity: Option<Quantity<'a>>,
    #[serde(borrow, rename = "valueCodeableConcept")]
    pub(crate) concept: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "valueString")]
    pub(crate) string: Option<Text<'a>>,
    #[serde(rename = "valueInteger")]
    pub(crate) integer: Option<Decimal>,
    #[serde(rename = "valueBoolean")]
    pub(crate) boolean: Option<bool>,
    #[serde(borrow, rename = "valueRange")]
    pub(crate) range: Option<Range<'a>>,
    #[serde(borrow, rename = "valueRatio")]
    pub(crate) ratio: Option<Ratio<'a>>,
    #[serde(borrow, rename = "valueSampledData")]
    pub(crate) sampled: Option<Box<SampledData<'a>>>,
    #[serde(borrow, rename = "valueTime")]
    pub(crate) time: Option<Text<'a>>,
    #[serde(borrow, rename = "valueDateTime")]
    pub(crate) date_time: Option<Text<'a>>,
    #[serde(borrow, rename = "valuePeriod")]
    pub(crate) period: Option<Period<'a>>,
    #[serde(borrow, rename = "dataAbsentReason")]
    pub(crate) absent: Option<CodeableConcept<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition<'a> {
    #[serde(borrow, rename = "verificationStatus")]
    pub(crate) verification: Option<CodeableConcept<'a>>,
    #[serde(borrow)]
    pub(crate) subject: Option<Reference<'a>>,
    #[serde(borrow)]
    pub(crate) code: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "onsetDateTime")]
    pub(crate) onset: Option<Text<'a>>,
    #[serde(borrow, rename = "onsetPeriod")]
    pub(crate) onset_period: Option<Period<'a>>,
    #[serde(borrow, rename = "recordedDate")]
    pub(crate) recorded: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Procedure<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) subject: Option<Reference<'a>>,
    #[serde(borrow)]
    pub(crate) code: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "performedDateTime")]
    pub(crate) performed: Option<Text<'a>>,
    #[serde(borrow, rename = "performedPeriod")]
    pub(crate) performed_period: Option<Period<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Medication<'a> {
    #[serde(borrow)]
    pub(crate) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) code: Option<CodeableConcept<'a>>,
}

/// A contained resource of any type, read as a Medication.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Contained<'a> {
    #[serde(borrow)]
    pub(crate) id: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "concept_or_other")]
    pub(crate) code: Option<CodeableConcept<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MedicationRequest<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) intent: Option<Text<'a>>,
    #[serde(rename = "doNotPerform")]
    pub(crate) do_not_perform: Option<bool>,
    #[serde(borrow)]
    pub(crate) subject: Option<Reference<'a>>,
    #[serde(borrow, rename = "medicationCodeableConcept")]
    pub(crate) concept: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "medicationReference")]
    pub(crate) reference: Option<Reference<'a>>,
    #[serde(borrow)]
    pub(crate) contained: Vec<Contained<'a>>,
    #[serde(borrow, rename = "authoredOn")]
    pub(crate) authored: Option<Text<'a>>,
}

/// MedicationAdministration and MedicationStatement: what was given or is taken.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MedicationTaken<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) subject: Option<Reference<'a>>,
    #[serde(borrow, rename = "medicationCodeableConcept")]
    pub(crate) concept: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "medicationReference")]
    pub(crate) reference: Option<Reference<'a>>,
    #[serde(borrow)]
    pub(crate) contained: Vec<Contained<'a>>,
    #[serde(borrow, rename = "effectiveDateTime")]
    pub(crate) effective: Option<Text<'a>>,
    #[serde(borrow, rename = "effectivePeriod")]
    pub(crate) effective_period: Option<Period<'a>>,
    /// Of a statement alone.
    #[serde(borrow, rename = "dateAsserted")]
    pub(crate) asserted: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AllergyIntolerance<'a> {
    #[serde(borrow, rename = "verificationStatus")]
    pub(crate) verification: Option<CodeableConcept<'a>>,
    #[serde(borrow)]
    pub(crate) patient: Option<Reference<'a>>,
    #[serde(borrow)]
    pub(crate) code: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "onsetDateTime")]
    pub(crate) onset: Option<Text<'a>>,
    #[serde(borrow, rename = "onsetPeriod")]
    pub(crate) onset_period: Option<Period<'a>>,
    #[serde(borrow, rename = "recordedDate")]
    pub(crate) recorded: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RelativesCondition<'a> {
    #[serde(borrow)]
    pub(crate) code: Option<CodeableConcept<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FamilyMemberHistory<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) patient: Option<Reference<'a>>,
    #[serde(borrow)]
    pub(crate) date: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) relationship: Option<CodeableConcept<'a>>,
    #[serde(borrow)]
    pub(crate) condition: Vec<RelativesCondition<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Attachment<'a> {
    #[serde(borrow, rename = "contentType")]
    pub(crate) content_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) data: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) url: Option<Text<'a>>,
}

/// `text` of a resource: XHTML for a person to read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Narrative<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) div: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DocumentContent<'a> {
    #[serde(borrow)]
    pub(crate) attachment: Option<Attachment<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DocumentReference<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow, rename = "docStatus")]
    pub(crate) doc_status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) subject: Option<Reference<'a>>,
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Option<CodeableConcept<'a>>,
    #[serde(borrow)]
    pub(crate) date: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) content: Vec<DocumentContent<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DiagnosticReport<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) subject: Option<Reference<'a>>,
    #[serde(borrow)]
    pub(crate) code: Option<CodeableConcept<'a>>,
    #[serde(borrow, rename = "effectiveDateTime")]
    pub(crate) effective: Option<Text<'a>>,
    #[serde(borrow, rename = "effectivePeriod")]
    pub(crate) effective_period: Option<Period<'a>>,
    #[serde(borrow)]
    pub(crate) issued: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) conclusion: Option<Text<'a>>,
    #[serde(borrow, rename = "conclusionCode")]
    pub(crate) conclusion_code: Vec<CodeableConcept<'a>>,
    #[serde(borrow, rename = "presentedForm")]
    pub(crate) presented_form: Vec<Attachment<'a>>,
    #[serde(borrow)]
    pub(crate) text: Option<Narrative<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Series<'a> {
    #[serde(borrow)]
    pub(crate) modality: Option<Coding<'a>>,
    #[serde(borrow)]
    pub(crate) started: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ImagingStudy<'a> {
    #[serde(borrow)]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) subject: Option<Reference<'a>>,
    #[serde(borrow)]
    pub(crate) identifier: Vec<Identifier<'a>>,
    #[serde(borrow)]
    pub(crate) started: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) modality: Vec<Coding<'a>>,
    #[serde(borrow)]
    pub(crate) series: Vec<Series<'a>>,
}

/// An element of `Bundle.entry`, its resource not yet read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Entry<'a> {
    #[serde(borrow, rename = "fullUrl")]
    pub(crate) full_url: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) resource: Option<&'a RawValue>,
}

/// A Bundle inside another.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InnerBundle<'a> {
    #[serde(borrow)]
    pub(crate) entry: Vec<&'a RawValue>,
}

/// The type alone, for the rare resource that does not begin with it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Head<'a> {
    #[serde(borrow, rename = "resourceType")]
    pub(crate) resource_type: Option<Text<'a>>,
}
