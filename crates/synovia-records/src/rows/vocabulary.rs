//! Names of vocabularies as OMOP and MEDS have them, and the system that FHIR has for each; words for kinds of events.

use synovia_cohort::{EventKind, Sex};

/// A vocabulary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vocabulary {
    /// Its names, in capitals without hyphens and spaces.
    names: &'static [&'static str],
    /// FHIR R4 §4.3.0 (code systems), HL7 Terminology, or an OID.
    pub(super) system: &'static str,
    /// What its codes mostly are; `None` where they are of every kind.
    pub(super) kind: Option<EventKind>,
}

const fn of(names: &'static [&'static str], system: &'static str, kind: Option<EventKind>) -> Vocabulary {
    Vocabulary { names, system, kind }
}

pub(super) const ICD10CM: &str = "http://hl7.org/fhir/sid/icd-10-cm";
const ICD10: &str = "http://hl7.org/fhir/sid/icd-10";

const VOCABULARIES: [Vocabulary; 14] = [
    of(&["LOINC"], "http://loinc.org", Some(EventKind::Observation)),
    of(&["SNOMED", "SNOMEDCT"], "http://snomed.info/sct", None),
    of(&["ICD10CM"], ICD10CM, Some(EventKind::Condition)),
    of(&["ICD10"], ICD10, Some(EventKind::Condition)),
    of(&["ICD9CM"], "http://hl7.org/fhir/sid/icd-9-cm", Some(EventKind::Condition)),
    of(&["ICD10PCS"], "http://www.cms.gov/Medicare/Coding/ICD10", Some(EventKind::Procedure)),
    of(&["ICD9PROC", "ICD9PROCCN"], "urn:oid:2.16.840.1.113883.6.104", Some(EventKind::Procedure)),
    of(&["RXNORM"], "http://www.nlm.nih.gov/research/umls/rxnorm", Some(EventKind::Medication)),
    of(&["NDC"], "http://hl7.org/fhir/sid/ndc", Some(EventKind::Medication)),
    of(&["ATC"], "http://www.whocc.no/atc", Some(EventKind::Medication)),
    of(&["CVX"], "http://hl7.org/fhir/sid/cvx", Some(EventKind::Medication)),
    of(&["CPT", "CPT4"], "http://www.ama-assn.org/go/cpt", Some(EventKind::Procedure)),
    of(&["UCUM"], "http://unitsofmeasure.org", None),
    of(&["DICOM", "DCM"], "http://dicom.nema.org/resources/ontology/DCM", Some(EventKind::Imaging)),
];

/// The vocabulary of a name (`ICD-10-CM`, `icd10cm`).
pub(super) fn vocabulary(name: &str) -> Option<Vocabulary> {
    let same = |a: &str| {
        let mut letters = name.bytes().filter(|b| !matches!(b, b'-' | b' ' | b'_'));
        a.bytes().all(|b| letters.next().is_some_and(|l| l.to_ascii_uppercase() == b)) && letters.next().is_none()
    };
    VOCABULARIES.into_iter().find(|v| v.names.iter().any(|n| same(n)))
}

/// What codes of a system mostly are.
pub(super) fn kind_of_system(system: &str) -> Option<EventKind> {
    VOCABULARIES.iter().find(|v| v.system == system).and_then(|v| v.kind)
}

const KINDS: [(&str, EventKind); 33] = [
    ("observation", EventKind::Observation),
    ("measurement", EventKind::Observation),
    ("lab", EventKind::Observation),
    ("labs", EventKind::Observation),
    ("laboratory", EventKind::Observation),
    ("vital", EventKind::Observation),
    ("vitals", EventKind::Observation),
    ("condition", EventKind::Condition),
    ("condition_occurrence", EventKind::Condition),
    ("diagnosis", EventKind::Condition),
    ("problem", EventKind::Condition),
    ("medication", EventKind::Medication),
    ("medicationrequest", EventKind::Medication),
    ("medicationadministration", EventKind::Medication),
    ("medicationstatement", EventKind::Medication),
    ("drug", EventKind::Medication),
    ("drug_exposure", EventKind::Medication),
    ("prescription", EventKind::Medication),
    ("procedure", EventKind::Procedure),
    ("procedure_occurrence", EventKind::Procedure),
    ("encounter", EventKind::Encounter),
    ("visit", EventKind::Encounter),
    ("visit_occurrence", EventKind::Encounter),
    ("hospital_admission", EventKind::Encounter),
    ("report", EventKind::Report),
    ("note", EventKind::Report),
    ("diagnosticreport", EventKind::Report),
    ("imaging", EventKind::Imaging),
    ("imagingstudy", EventKind::Imaging),
    ("allergy", EventKind::Allergy),
    ("allergyintolerance", EventKind::Allergy),
    ("family_history", EventKind::FamilyHistory),
    ("death", EventKind::Death),
];

/// The kind that a word names: a FHIR type, an OMOP table, or what MEDS converters put first.
pub(super) fn kind(word: &str) -> Option<EventKind> {
    KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, kind)| *kind)
}

/// A sex in the words of FHIR, of OMOP's vocabulary `Gender`, or by its first letter.
pub(super) fn sex(word: &str) -> Option<Sex> {
    let is = |words: &[&str]| words.iter().any(|w| w.eq_ignore_ascii_case(word));
    match () {
        () if is(&["female", "f", "woman", "8532"]) => Some(Sex::Female),
        () if is(&["male", "m", "man", "8507"]) => Some(Sex::Male),
        () if is(&["other", "o", "8521"]) => Some(Sex::Other),
        () => None,
    }
}

/// A code of a system as FHIR writes it: ICD-10 has a full stop after its category, which some exports leave out.
pub(super) fn as_written(system: &str, code: &str) -> String {
    let bare = (system == ICD10CM || system == ICD10) && code.len() > 3 && code.is_ascii() && !code.contains('.');
    if bare { format!("{}.{}", &code[..3], &code[3..]) } else { code.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vocabularies() {
        for (name, system) in [
            ("LOINC", Some("http://loinc.org")),
            ("ICD-10-CM", Some(ICD10CM)),
            ("RxNorm", Some("http://www.nlm.nih.gov/research/umls/rxnorm")),
            ("ICD10", Some(ICD10)),
            ("RxNorm Extension", None),
            ("", None),
        ] {
            assert_eq!(vocabulary(name).map(|v| v.system), system, "{name}");
        }
    }

    #[test]
    fn icd_10_has_a_full_stop() {
        for (system, code, written) in [
            (ICD10CM, "C3411", "C34.11"),
            (ICD10CM, "I10", "I10"),
            (ICD10CM, "C34.1", "C34.1"),
            ("http://snomed.info/sct", "38341003", "38341003"),
        ] {
            assert_eq!(as_written(system, code), written);
        }
    }
}
