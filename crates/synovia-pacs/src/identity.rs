//! Whose study it is: what a report has to have in common with the images beside it.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use serde_json::Value;

/// Attributes of patient and study (PS3.3 C.7.1.1, C.7.2.1) that are copied.
const COPIED: [(Tag, VR); 11] = [
    (tags::PATIENT_NAME, VR::PN),
    (tags::PATIENT_ID, VR::LO),
    (tags::ISSUER_OF_PATIENT_ID, VR::LO),
    (tags::PATIENT_BIRTH_DATE, VR::DA),
    (tags::PATIENT_SEX, VR::CS),
    (tags::STUDY_DATE, VR::DA),
    (tags::STUDY_TIME, VR::TM),
    (tags::ACCESSION_NUMBER, VR::SH),
    (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
    (tags::STUDY_ID, VR::SH),
    (tags::STUDY_DESCRIPTION, VR::LO),
];
/// Those that need not be there at all (types 3); the others are empty where they are not known.
const OPTIONAL: [Tag; 2] = [tags::ISSUER_OF_PATIENT_ID, tags::STUDY_DESCRIPTION];

/// Patient and study.
pub(crate) struct Identity {
    pub study: String,
    /// In the order of tags.
    pub attributes: Vec<(Tag, VR, String)>,
}

impl Identity {
    /// Of an object of the DICOM JSON model, if it is of this study.
    pub(crate) fn of(object: &Value, study: &str) -> Option<Self> {
        let value = |tag: Tag| {
            let value = &object[format!("{:04X}{:04X}", tag.0, tag.1)]["Value"][0];
            match value {
                Value::Object(name) => {
                    let group = |key: &str| name.get(key).and_then(Value::as_str).unwrap_or_default();
                    let groups = ["Alphabetic", "Ideographic", "Phonetic"].map(group).join("=");
                    groups.trim_end_matches('=').to_owned()
                }
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            }
        };
        if value(tags::STUDY_INSTANCE_UID) != study {
            return None;
        }
        let attribute = |(tag, vr): (Tag, VR)| {
            let text = value(tag);
            (!text.is_empty() || !OPTIONAL.contains(&tag)).then_some((tag, vr, text))
        };
        Some(Self { study: study.to_owned(), attributes: COPIED.into_iter().filter_map(attribute).collect() })
    }
}
