//! A model's answer as a structured report (PS3.3 A.35.2, Enhanced SR): for each task the probability of each class and the classes
//! that are not excluded, and of which model.

use chrono::{DateTime, Local};
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use sha2::{Digest, Sha256};
use synovia_prediction::Answer;

use crate::archive::ArchiveError;
use crate::identity::Identity;

/// Our own codes.
const SCHEME: &str = "99SYNOVIA";

/// What is said of a study, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Probabilities and prediction sets.
    pub answer: &'a Answer,
    /// The model's name.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Of its file.
    pub sha256: &'a str,
    /// What it is for, and what it is not for.
    pub intended_use: &'a str,
    /// When.
    pub at: DateTime<Local>,
}

/// A report in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of the study that it is beside.
    pub study_instance_uid: String,
    /// Of the series of this model's reports on the study.
    pub series_instance_uid: String,
    /// Of the report.
    pub sop_instance_uid: String,
}

/// A UID that follows from `parts` (PS3.5 B.2: a UUID as an integer).
fn uid(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    // Version 8 and variant of RFC 9562.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}

/// Cut to what a value may be long; a character stays whole.
fn short(text: &str, n: usize) -> String {
    text.chars().filter(|c| !c.is_control() && *c != '\\').take(n).collect()
}

fn text(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
}

fn items(object: &mut InMemDicomObject, tag: Tag, of: Vec<InMemDicomObject>) {
    object.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(of)));
}

/// A code: value, scheme, meaning.
type Code<'a> = (&'a str, &'a str, &'a str);

fn code((value, scheme, meaning): Code<'_>) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    text(&mut object, tags::CODE_VALUE, VR::SH, value);
    text(&mut object, tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme);
    text(&mut object, tags::CODE_MEANING, VR::LO, &short(meaning, 64));
    object
}

/// A code of ours for a task or a class of it.
fn own(name: &[&str]) -> InMemDicomObject {
    let digest = uid(name);
    // The last digits: those before them hold version and variant.
    code((&digest[digest.len() - 12..], SCHEME, &name.join(": ")))
}

/// A content item (PS3.3 C.17.3) without its value.
fn item(relationship: &str, kind: &str, concept: InMemDicomObject) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    text(&mut object, tags::RELATIONSHIP_TYPE, VR::CS, relationship);
    text(&mut object, tags::VALUE_TYPE, VR::CS, kind);
    items(&mut object, tags::CONCEPT_NAME_CODE_SEQUENCE, vec![concept]);
    object
}

fn text_item(relationship: &str, concept: Code<'_>, value: &str) -> InMemDicomObject {
    let mut object = item(relationship, "TEXT", code(concept));
    text(&mut object, tags::TEXT_VALUE, VR::UT, value);
    object
}

fn code_item(relationship: &str, concept: Code<'_>, value: Code<'_>) -> InMemDicomObject {
    let mut object = item(relationship, "CODE", code(concept));
    items(&mut object, tags::CONCEPT_CODE_SEQUENCE, vec![code(value)]);
    object
}

fn container(relationship: &str, concept: InMemDicomObject, content: Vec<InMemDicomObject>) -> InMemDicomObject {
    let mut object = item(relationship, "CONTAINER", concept);
    text(&mut object, tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE");
    items(&mut object, tags::CONTENT_SEQUENCE, content);
    object
}

/// A task: each class's probability, and the classes that are not excluded.
fn of_task(task: &str, answer: &Answer) -> InMemDicomObject {
    let mut content = Vec::new();
    for (class, probability) in answer.probabilities.get(task).into_iter().flatten() {
        let mut measured = InMemDicomObject::new_empty();
        items(&mut measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![code(("1", "UCUM", "no units"))]);
        text(&mut measured, tags::NUMERIC_VALUE, VR::DS, &format!("{probability:.6}"));
        let mut number = item("CONTAINS", "NUM", own(&[task, class]));
        items(&mut number, tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
        content.push(number);
    }
    if let Some(set) = answer.prediction_sets.get(task) {
        let classes = if set.classes.is_empty() { "none".to_owned() } else { set.classes.join(", ") };
        let finding = format!("Classes that are not excluded at a coverage of {} %: {classes}", (set.coverage * 100.0).round());
        content.push(text_item("CONTAINS", ("121071", "DCM", "Finding"), &finding));
    }
    container("CONTAINS", own(&[task]), content)
}

/// The report: what an archive is told of it, and the file.
pub(crate) fn of(identity: &Identity, said: &Said<'_>) -> Result<(Stored, Vec<u8>), ArchiveError> {
    let answer = said.answer;
    let mut probabilities = format!("{:?} {:?} {:?}", answer.present, answer.probabilities, answer.prediction_sets);
    if !answer.estimates.is_empty() {
        probabilities = format!("{probabilities} {:?}", answer.estimates);
    }
    let stored = Stored {
        study_instance_uid: identity.study.clone(),
        series_instance_uid: uid(&["series", &identity.study, said.model]),
        sop_instance_uid: uid(&["report", &identity.study, said.model, said.version, said.sha256, &probabilities]),
    };
    let mut object = InMemDicomObject::new_empty();
    for (tag, vr, value) in &identity.attributes {
        text(&mut object, *tag, *vr, value);
    }
    let (date, time) = (said.at.format("%Y%m%d").to_string(), said.at.format("%H%M%S").to_string());
    // SOP Common (C.12.1), General Study, SR Document Series (C.17.1), General Equipment (C.7.5.1), SR Document General (C.17.2)
    for (tag, vr, value) in [
        (tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"),
        (tags::SOP_CLASS_UID, VR::UI, uids::ENHANCED_SR_STORAGE),
        (tags::SOP_INSTANCE_UID, VR::UI, &stored.sop_instance_uid),
        (tags::STUDY_INSTANCE_UID, VR::UI, &stored.study_instance_uid),
        (tags::SERIES_INSTANCE_UID, VR::UI, &stored.series_instance_uid),
        (tags::MODALITY, VR::CS, "SR"),
        (tags::SERIES_NUMBER, VR::IS, "9900"),
        (tags::SERIES_DESCRIPTION, VR::LO, &short(&format!("{} (synovia)", said.model), 64)),
        (tags::MANUFACTURER, VR::LO, "synovia"),
        (tags::MANUFACTURER_MODEL_NAME, VR::LO, &short(said.model, 64)),
        (tags::SOFTWARE_VERSIONS, VR::LO, &short(said.version, 64)),
        (tags::INSTANCE_NUMBER, VR::IS, "1"),
        (tags::COMPLETION_FLAG, VR::CS, "COMPLETE"),
        (tags::VERIFICATION_FLAG, VR::CS, "UNVERIFIED"),
        (tags::CONTENT_DATE, VR::DA, &date),
        (tags::CONTENT_TIME, VR::TM, &time),
        (tags::VALUE_TYPE, VR::CS, "CONTAINER"),
        (tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE"),
    ] {
        text(&mut object, tag, vr, value);
    }
    items(&mut object, tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Vec::new());
    items(&mut object, tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, Vec::new());
    items(&mut object, tags::CONCEPT_NAME_CODE_SEQUENCE, vec![code(("18748-4", "LN", "Diagnostic imaging report"))]);
    let mut observer = item("HAS OBS CONTEXT", "UIDREF", code(("121012", "DCM", "Device Observer UID")));
    text(&mut observer, tags::UID, VR::UI, &uid(&["model", said.sha256]));
    let used = match (answer.present.image, answer.present.record) {
        (true, true) => "image and record",
        (true, false) => "image; no record was there",
        (false, true) => "record; no image was there",
        (false, false) => "nothing",
    };
    let mut content = vec![
        code_item("HAS CONCEPT MOD", ("121049", "DCM", "Language of Content Item and Descendants"), ("en", "RFC5646", "English")),
        code_item("HAS OBS CONTEXT", ("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device")),
        observer,
        text_item("HAS OBS CONTEXT", ("121013", "DCM", "Device Observer Name"), said.model),
        text_item(
            "HAS OBS CONTEXT",
            ("121015", "DCM", "Device Observer Model Name"),
            &format!("version {}, SHA-256 {}", said.version, said.sha256),
        ),
    ];
    content.extend(answer.probabilities.keys().map(|task| of_task(task, answer)));
    content.extend(answer.estimates.iter().map(|(name, estimates)| {
        let values: Vec<String> = estimates.iter().map(|(what, value)| format!("{what} {value}")).collect();
        let finding = text_item("CONTAINS", ("121071", "DCM", "Finding"), &format!("Estimates: {}", values.join(", ")));
        container("CONTAINS", own(&[name]), vec![finding])
    }));
    content.push(text_item(
        "CONTAINS",
        ("121106", "DCM", "Comment"),
        &format!(
            "{} of a statistical model, of: {used}.",
            if answer.estimates.is_empty() { "Calibrated probabilities" } else { "Calibrated probabilities and estimates" }
        ),
    ));
    if !said.intended_use.is_empty() {
        content.push(text_item("CONTAINS", ("121106", "DCM", "Comment"), said.intended_use));
    }
    items(&mut object, tags::CONTENT_SEQUENCE, content);
    let failed = |error: &dyn std::fmt::Display| ArchiveError::Report(error.to_string());
    let file = object.with_meta(FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)).map_err(|e| failed(&e))?;
    let mut bytes = Vec::new();
    file.write_all(&mut bytes).map_err(|e| failed(&e))?;
    Ok((stored, bytes))
}
