//! The profile against another implementation's table, and against the bytes of its own results.

#![allow(clippy::format_push_string, reason = "the page of a test is written once")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dicom_core::{PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use expect_test::expect;

use super::tree::{Element, Value, vr_of};
use super::{Profile, Secret, deidentify_bytes, text_of, tree};
use crate::dicom::{Encoding, split_file};
use crate::error::Fault;
use crate::tests::Object;

fn secret() -> Secret {
    Secret::new(*b"a secret of sixteen or more").unwrap()
}

fn profile(text: &str) -> Profile {
    text.parse().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the profile on a file and `f` on the elements of the result.
fn result<T>(file: &[u8], text: &str, f: impl FnOnce(&[Element<'_>]) -> T) -> T {
    let clean = deidentify_bytes(file, profile(text), &secret()).unwrap();
    let split = split_file(&clean.bytes).unwrap();
    f(&tree::read(&split.data, split.encoding).unwrap())
}

fn find<'e, 'a>(elements: &'e [Element<'a>], tag: Tag) -> Option<&'e Element<'a>> {
    elements.iter().find(|element| element.tag == tag)
}

fn file(object: Object) -> Vec<u8> {
    object.encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN)
}

/// The tags of each code in the lists of `dicom-anonymizer` 2.1.0, read out of its Python source.
fn lists() -> Option<BTreeMap<String, Vec<Tag>>> {
    let path = root().join(".oracle/dicomanonymizer/dicom_anonymization_databases/dicomfields_2026c.py");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: dicom-anonymizer 2.1.0 is not in .oracle; `just oracle` fetches it");
        return None;
    };
    let mut lists: BTreeMap<String, Vec<Tag>> = BTreeMap::new();
    for section in text.split("\n]") {
        let Some((name, body)) = section.split_once("_TAGS = [") else { continue };
        let name = name.lines().last().unwrap_or_default();
        for tuple in body.split('(').skip(1) {
            let tuple = tuple.split(')').next().unwrap_or_default();
            let numbers: Vec<u16> = tuple.split("0x").skip(1).filter_map(|part| u16::from_str_radix(part.get(..4)?, 16).ok()).collect();
            // Of a repeating group its second.
            let tag = match numbers[..] {
                [group, element] => Tag(group, element),
                [group, element, ..] => Tag(group + 2, if element == 0 { 5 } else { element }),
                // A parenthesis of a comment.
                _ => continue,
            };
            lists.entry(name.to_owned()).or_default().push(tag);
        }
    }
    Some(lists)
}

/// A value of the VR that is not a dummy.
fn original(tag: Tag) -> (VR, Value<'static>) {
    let vr = vr_of(tag).unwrap_or(VR::LO);
    let bytes = match vr {
        VR::SQ => {
            let item = Element { tag: tags::PATIENT_NAME, vr: *b"PN", value: Value::Bytes(b"Hidden^Name ".as_slice().into()) };
            let uid = Element { tag: tags::REFERENCED_SOP_INSTANCE_UID, vr: *b"UI", value: Value::Bytes(b"1.2.3.4.5.6".as_slice().into()) };
            // Not in the table: what a code or a report says.
            let meaning = Element { tag: tags::CODE_MEANING, vr: *b"LO", value: Value::Bytes(b"St Mary's ".as_slice().into()) };
            let said = Element { tag: tags::TEXT_VALUE, vr: *b"UT", value: Value::Bytes(b"Narrative ".as_slice().into()) };
            let private = Element { tag: Tag(0x0009, 0x1001), vr: *b"LO", value: Value::Bytes(b"Narrative ".as_slice().into()) };
            return (vr, Value::Items(vec![vec![meaning, private, uid, item, said]]));
        }
        VR::UI => b"1.2.3.4.5.6\0".as_slice(),
        VR::DA => b"20200102",
        VR::DT => b"20200102030405",
        VR::TM => b"030405",
        VR::DS | VR::IS => b"4711",
        _ => b"HIDDENxx",
    };
    (vr, Value::Bytes(bytes.into()))
}

#[test]
fn every_attribute_of_table_e_1_1() {
    let Some(lists) = lists() else { return };
    // A date of secondary capture would withhold the file.
    let base = file(Object::new().text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO"));
    let split = split_file(&base).unwrap();
    let (mut checked, mut wrong) = (0, Vec::new());
    for (code, list) in &lists {
        for &tag in list {
            let (vr, value) = original(tag);
            let mut elements = tree::read(&split.data, Encoding::EXPLICIT).unwrap();
            super::put_value(&mut elements, tag, *vr.to_string().as_bytes().first_chunk().unwrap(), value.clone());
            let mut bytes = super::file_head("1.2.3", "1.2.3", uids::EXPLICIT_VR_LITTLE_ENDIAN);
            tree::write(&elements, Encoding::EXPLICIT, &mut bytes);
            let done = result(&bytes, "basic", |elements| {
                let Some(element) = find(elements, tag) else { return "X" };
                match &element.value {
                    value if *value == original(tag).1 => "kept",
                    Value::Bytes(bytes) if bytes.is_empty() => "Z",
                    Value::Items(items) if items.is_empty() => "Z",
                    Value::Bytes(_) if vr == VR::UI && text_of(element).starts_with("2.25.") => "U",
                    Value::Items(items) => {
                        let texts: Vec<String> = items.iter().flatten().map(text_of).collect();
                        let any = |hidden: &[&str]| texts.iter().any(|text| hidden.contains(&text.as_str()));
                        match () {
                            () if any(&["1.2.3.4.5.6", "Hidden^Name"]) => "kept within",
                            () if any(&["St Mary's", "Narrative"]) => "U*",
                            () => "D",
                        }
                    }
                    Value::Bytes(_) | Value::Fragments(_) => "D",
                }
            });
            checked += 1;
            let allowed: &[&str] = match code.as_str() {
                // Of a UID another one.
                "D" => &["D", "U"],
                // A zero length, or a value that says nothing.
                "Z" | "Z_D" => &["Z", "D"],
                "X" => &["X"],
                "U" => &["U"],
                "X_Z" => &["X", "Z"],
                "X_D" => &["X", "D"],
                "X_Z_D" => &["X", "Z", "D"],
                "X_Z_U_STAR" => &["X", "Z", "U*"],
                _ => &[],
            };
            // These say what was done, or how to read the file, and are written anew.
            let own = [
                tags::DEIDENTIFICATION_METHOD,
                tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
                tags::PATIENT_IDENTITY_REMOVED,
                tags::MEDIA_STORAGE_SOP_INSTANCE_UID,
            ];
            if !allowed.contains(&done) && !own.contains(&tag) {
                wrong.push(format!("{tag} {vr}: {done} instead of {code}"));
            }
        }
    }
    assert_eq!(checked, 655);
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
}

/// What identifies in a file, whether the table names it or not: names, UIDs that are not of a kind of object, and some
/// identifiers, where they have some length.
fn identifying(elements: &[Element<'_>], found: &mut Vec<String>) {
    for element in elements {
        if let Value::Items(items) = &element.value {
            items.iter().for_each(|item| identifying(item, found));
        }
        let named = matches!(&element.standard_vr(), b"PN" | b"UI")
            || matches!(
                element.tag,
                tags::PATIENT_ID | tags::ACCESSION_NUMBER | tags::INSTITUTION_NAME | tags::STUDY_DATE | tags::STATION_NAME
            );
        if named && !super::is_of_a_kind(element.tag) {
            let text = text_of(element);
            found.extend(text.split(['\\', '^']).map(str::trim).filter(|part| part.len() >= 6).map(str::to_owned));
            // What a form says where nobody was named.
            found.retain(|text| text != "Enter text");
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn nothing_that_identified_is_in_the_bytes() {
    let folders = [".oracle/data", "../shared/data/dicom", ".oracle/pydicom/data/test_files"].map(|path| root().join(path));
    let (mut written, mut withheld, mut searched) = (0, 0, 0);
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // Long searches say no more than short ones.
            if !path.is_file() || path.metadata().unwrap().len() > 1 << 20 {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let clean = match deidentify_bytes(&bytes, Profile::default(), &secret()) {
                Ok(clean) => clean,
                Err(Fault::BurnedIn) => {
                    withheld += 1;
                    continue;
                }
                Err(_) => continue,
            };
            written += 1;
            let split = split_file(&bytes).unwrap();
            let mut texts = Vec::new();
            identifying(&tree::read(&split.data, split.encoding).unwrap(), &mut texts);
            texts.sort_unstable();
            texts.dedup();
            let out = split_file(&clean.bytes).unwrap();
            for text in texts.iter().filter(|text| !text.starts_with("1.2.840.10008.")) {
                searched += 1;
                assert!(!holds(&out.data, text) && !holds(&clean.bytes, text), "{}: {text}", path.display());
            }
        }
    }
    println!("{written} written, {withheld} withheld, {searched} texts searched for");
    if folders.iter().all(|folder| !folder.is_dir()) {
        println!("skipped: no collection is there; `just oracle` fetches one");
    } else {
        assert!(written >= 20 && searched > 100);
    }
}

fn told(elements: &[Element<'_>], tags: &[Tag]) -> String {
    fn value(element: &Element<'_>) -> String {
        match &element.value {
            Value::Items(items) => format!("[{}]", items.iter().flatten().map(value).collect::<Vec<_>>().join(", ")),
            _ => format!("`{}`", text_of(element)),
        }
    }
    let told = |tag: &Tag| find(elements, *tag).map_or_else(|| "absent".to_owned(), value);
    tags.iter().map(told).collect::<Vec<_>>().join(", ")
}

fn rich() -> Object {
    let text = |object: Object, tag, vr, value: &str| object.text(tag, vr, value);
    let object = Object::new()
        .text(tags::STUDY_DATE, VR::DA, "20200301")
        .text(tags::STUDY_TIME, VR::TM, "101112")
        .text(tags::ACQUISITION_DATE_TIME, VR::DT, "20200302101112.5")
        .text(tags::STUDY_DESCRIPTION, VR::LO, "CT Chest for Mr Secret")
        .text(tags::DEVICE_SERIAL_NUMBER, VR::LO, "SN-4711");
    // Not in the table, and it names the patient.
    text(object, tags::ACQUISITION_PROTOCOL_DESCRIPTION, VR::LO, "x").text(tags::BODY_PART_EXAMINED, VR::CS, "SECRET")
}

#[test]
fn options() {
    let file = file(rich());
    let shown = [
        tags::STUDY_DATE,
        tags::ACQUISITION_DATE_TIME,
        tags::PATIENT_BIRTH_DATE,
        tags::STUDY_DESCRIPTION,
        tags::DEVICE_SERIAL_NUMBER,
        tags::BODY_PART_EXAMINED,
        tags::SOP_INSTANCE_UID,
        tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED,
    ];
    let mut text = String::new();
    for name in ["basic", "basic+dates", "basic+descriptors+device+uids"] {
        text += &format!("{name}: {}\n", result(&file, name, |elements| told(elements, &shown)));
    }
    expect![[r"
        basic: ``, `19000101000000`, ``, absent, `REMOVED`, ``, `2.25.246589349319334411330768643788714772293`, `REMOVED`
        basic+dates: `20140114`, `20140115101112.5`, ``, absent, `REMOVED`, ``, `2.25.246589349319334411330768643788714772293`, `MODIFIED`
        basic+descriptors+device+uids: ``, `19000101000000`, ``, `CT Chest Mr`, `SN-4711`, ``, `2.25.1`, `REMOVED`
    "]]
    .assert_eq(&text);
}

#[test]
fn one_patient_one_offset_one_pseudonym_and_uids_that_agree() {
    let of = |study: &str, series: &str| {
        let object = rich().text(tags::STUDY_INSTANCE_UID, VR::UI, study).text(tags::SERIES_INSTANCE_UID, VR::UI, series);
        result(&file(object), "basic+dates", |elements| {
            [tags::PATIENT_ID, tags::STUDY_DATE, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID]
                .map(|tag| text_of(find(elements, tag).unwrap()))
        })
    };
    let (a, b) = (of("2.25.2", "2.25.30"), of("2.25.2", "2.25.31"));
    assert_eq!(a[..3], b[..3]);
    assert_ne!(a[3], b[3]);
    let other = file(rich().text(tags::PATIENT_ID, VR::LO, "SECRET-4712"));
    let other =
        result(&other, "basic+dates", |elements| [tags::PATIENT_ID, tags::STUDY_DATE].map(|tag| text_of(find(elements, tag).unwrap())));
    assert!(other[0] != a[0] && other[1] != a[1]);
}

#[test]
fn private_attributes_go_unless_they_are_safe() {
    let object = Object::new()
        .text(Tag(0x0019, 0x0010), VR::LO, "SIEMENS MR HEADER")
        .text(Tag(0x0019, 0x100C), VR::IS, "1000")
        .text(Tag(0x0019, 0x1009), VR::LO, "Secret")
        .text(Tag(0x0029, 0x0010), VR::LO, "SOMEBODY")
        .text(Tag(0x0029, 0x100C), VR::LO, "Secret");
    let tags = [Tag(0x0019, 0x0010), Tag(0x0019, 0x100C), Tag(0x0019, 0x1009), Tag(0x0029, 0x0010), Tag(0x0029, 0x100C)];
    let file = file(object);
    assert_eq!(result(&file, "basic", |elements| told(elements, &tags)), "absent, absent, absent, absent, absent");
    assert_eq!(result(&file, "basic+private", |elements| told(elements, &tags)), "`SIEMENS MR HEADER`, `1000`, absent, absent, absent");
}

/// The attributes `shown` after the profile.
#[track_caller]
fn check(object: Object, profile: &str, shown: &[Tag], expected: &str) {
    assert_eq!(result(&file(object), profile, |elements| told(elements, shown)), expected);
}

const EVERY_OPTION: &str = "basic+pixels+descriptors+dates+device+uids+private";

#[test]
fn what_sequences_hold() {
    let code = |value: &str, meaning: &str| {
        Object::item()
            .text(tags::CODE_VALUE, VR::SH, value)
            .text(tags::CODE_MEANING, VR::LO, meaning)
            .text(Tag(0x0009, 0x0010), VR::LO, "SOMEBODY")
            .text(Tag(0x0009, 0x1001), VR::LO, "Miller, Jane")
    };
    let named = |tag| Object::item().sequence(tag, vec![code("4711", "Miller, Jane")]);
    let report = Object::item()
        .text(tags::VALUE_TYPE, VR::CS, "TEXT")
        .text(tags::TEXT_VALUE, VR::UT, "Known to us since her accident.")
        .text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3")
        .sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![code("121071", "Finding")]);
    let object = Object::new()
        .sequence(tags::INSTITUTION_CODE_SEQUENCE, vec![code("1", "St Mary's Hospital")])
        .sequence(tags::OPERATOR_IDENTIFICATION_SEQUENCE, vec![named(tags::PERSON_IDENTIFICATION_CODE_SEQUENCE)])
        .sequence(tags::CONTENT_SEQUENCE, vec![report])
        // Not in the table.
        .sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![code("T-28000", "Lung")]);
    let shown =
        [tags::INSTITUTION_CODE_SEQUENCE, tags::OPERATOR_IDENTIFICATION_SEQUENCE, tags::CONTENT_SEQUENCE, tags::ANATOMIC_REGION_SEQUENCE];
    let expected = |uid: &str| format!("[], absent, [`{uid}`, `TEXT`, [`REMOVED`, `REMOVED`], `REMOVED`], [`T-28000`, `Lung`]");
    check(object.clone(), "basic", &shown, &expected(&secret().uid("1.2.3")));
    check(object, EVERY_OPTION, &shown, &expected("1.2.3"));
}

#[test]
fn a_code_that_names_the_patient_is_not_emptied() {
    let code = |value, scheme, version, meaning| {
        Object::item()
            .text(tags::CODE_VALUE, VR::SH, value)
            .text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme)
            .text(tags::CODING_SCHEME_VERSION, VR::SH, version)
            .text(tags::CODE_MEANING, VR::LO, meaning)
    };
    let codes = vec![code("1111", "SECRET", "1", "Diagnosis"), code("secret", "DCM", "secret 1", "Of SECRET-4711")];
    let urn = Object::item().text(tags::URN_CODE_VALUE, VR::UR, "urn:lex:secret");
    let object = Object::new()
        .sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, codes)
        .sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![urn])
        .text(tags::MANUFACTURER, VR::LO, "Secret Inc.")
        // A dummy term or number would say something.
        .text(tags::BODY_PART_EXAMINED, VR::CS, "SECRET")
        .text(tags::KVP, VR::DS, "19611231");
    let shown = [tags::CONCEPT_NAME_CODE_SEQUENCE, tags::ANATOMIC_REGION_SEQUENCE, tags::MANUFACTURER, tags::BODY_PART_EXAMINED, tags::KVP];
    let codes = "[`1111`, `REMOVED`, `1`, `Diagnosis`, `REMOVED`, `DCM`, `REMOVED`, `REMOVED`]";
    for name in ["basic", EVERY_OPTION] {
        check(object.clone(), name, &shown, &format!("{codes}, [`REMOVED`], `REMOVED`, ``, ``"));
    }
    let clean = deidentify_bytes(&file(object), Profile::default(), &secret()).unwrap();
    assert!(!holds(&clean.bytes.to_ascii_uppercase(), "SECRET"));
}

#[test]
fn images_within_items() {
    let icon = || Object::item().text(tags::CODE_VALUE, VR::SH, "1").fragments(vec![], vec![vec![1, 2]]);
    let shown = [tags::ICON_IMAGE_SEQUENCE, tags::ANATOMIC_REGION_SEQUENCE];
    let object = shown.into_iter().fold(Object::new(), |object, tag| object.sequence(tag, vec![icon()]));
    check(object, "basic", &shown, "absent, [`1`]");
}

#[test]
fn the_standard_says_what_an_attribute_is() {
    let put = |tag, vr, value| Object::new().text(tag, vr, value);
    check(put(tags::PATIENT_NAME, VR::TM, "Secret^Name"), "basic+dates", &[tags::PATIENT_NAME], "``");
    check(put(tags::STUDY_DATE, VR::LO, "20200301"), "basic+dates", &[tags::STUDY_DATE], "`20140114`");
    check(put(tags::STUDY_DATE, VR::DA, "20200301 Miller^Jane"), "basic+dates", &[tags::STUDY_DATE], "``");
    check(put(tags::STUDY_DATE, VR::DA, "20200301-20200401"), "basic+dates", &[tags::STUDY_DATE], "``");
    check(put(tags::STUDY_TIME, VR::TM, "Miller^Jane"), "basic+dates", &[tags::STUDY_TIME], "``");
    // Not in the table.
    for name in ["basic", "basic+dates"] {
        check(put(tags::EXPIRY_DATE, VR::LO, "2020"), name, &[tags::EXPIRY_DATE], "absent");
        check(put(tags::TIME_OF_GAIN_CALIBRATION, VR::TM, "Miller^Jane"), name, &[tags::TIME_OF_GAIN_CALIBRATION], "absent");
        check(put(tags::TIME_OF_GAIN_CALIBRATION, VR::TM, "101112"), name, &[tags::TIME_OF_GAIN_CALIBRATION], "`101112`");
        let birth = tags::PATIENT_BIRTH_DATE_IN_ALTERNATIVE_CALENDAR;
        check(put(birth, VR::LO, "Heisei 3"), name, &[birth], "absent");
    }
    // A value where items belong can't be looked into.
    check(put(tags::ANATOMIC_REGION_SEQUENCE, VR::LO, "Miller^Jane"), "basic", &[tags::ANATOMIC_REGION_SEQUENCE], "absent");
}

#[test]
fn names_and_uids_beyond_the_table() {
    let object = Object::new()
        .text(tags::EVALUATOR_NAME, VR::PN, "Miller^Jane")
        .text(tags::TARGET_FRAME_OF_REFERENCE_UID, VR::UI, "1.2.3")
        .text(tags::REFERENCED_COLOR_PALETTE_INSTANCE_UID, VR::UI, "1.2.840.10008.1.5.1")
        .text(tags::RELATED_GENERAL_SOP_CLASS_UID, VR::UI, "1.2.3")
        .text(tags::CONTEXT_UID, VR::UI, "Miller^Jane");
    let shown = [
        tags::EVALUATOR_NAME,
        tags::TARGET_FRAME_OF_REFERENCE_UID,
        tags::REFERENCED_COLOR_PALETTE_INSTANCE_UID,
        tags::RELATED_GENERAL_SOP_CLASS_UID,
        tags::CONTEXT_UID,
    ];
    let other = |uid| secret().uid(uid);
    let (uid, context) = (other("1.2.3"), other("Miller^Jane"));
    check(object.clone(), "basic", &shown, &format!("``, `{uid}`, `1.2.840.10008.1.5.1`, `1.2.3`, `{context}`"));
    check(object, "basic+uids", &shown, &format!("``, `1.2.3`, `1.2.840.10008.1.5.1`, `1.2.3`, `{context}`"));
}

#[test]
fn paths_stay_within_their_folder() {
    let path = |study: &str, instance: &str, profile: &str| {
        let object = Object::new().text(tags::STUDY_INSTANCE_UID, VR::UI, study).text(tags::SOP_INSTANCE_UID, VR::UI, instance);
        let clean = deidentify_bytes(&file(object), self::profile(profile), &secret()).unwrap();
        let object = dicom_object::from_reader(std::io::Cursor::new(&clean.bytes)).unwrap();
        let uid = object.element(tags::SOP_INSTANCE_UID).unwrap().to_str().unwrap().trim_end_matches('\0').to_owned();
        assert_eq!(object.meta().media_storage_sop_instance_uid(), uid);
        let path = clean.path.to_str().unwrap().to_owned();
        let parts: Vec<&str> = path.strip_suffix(".dcm").unwrap().split('/').collect();
        assert!(parts.len() == 3 && parts.iter().all(|part| super::is_uid(part)), "{path}");
        assert_eq!(parts[2], uid);
        path
    };
    assert_eq!(path("2.25.2", "2.25.1", "basic+uids"), "2.25.2/2.25.3/2.25.1.dcm");
    for uid in ["..", "1..2", "Miller^Jane", "../../1", "1.2\\1.3", "1.2.840.10008.Miller"] {
        for name in ["basic", "basic+uids"] {
            assert_ne!(path(uid, uid, name), path("2.25.2", "2.25.1", name), "{uid}");
        }
    }
    assert_ne!(path("2.25.2", "Miller^Jane", "basic+uids"), path("2.25.2", "Miller^John", "basic+uids"));
    let empty = file(Object::new().text(tags::SOP_INSTANCE_UID, VR::UI, ""));
    assert!(matches!(deidentify_bytes(&empty, Profile::default(), &secret()), Err(Fault::Missing { .. })));
}

fn refused(object: Object, text: &str) -> bool {
    matches!(deidentify_bytes(&file(object), profile(text), &secret()), Err(Fault::BurnedIn))
}

#[test]
fn pixels_that_may_show_a_name() {
    let put = |tag, vr, value| Object::new().text(tag, vr, value);
    let suspect = [
        put(tags::SOP_CLASS_UID, VR::UI, uids::SECONDARY_CAPTURE_IMAGE_STORAGE),
        put(tags::SOP_CLASS_UID, VR::UI, uids::MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE),
        put(tags::MODALITY, VR::CS, "US"),
        put(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY"),
        put(tags::IMAGE_TYPE, VR::CS, "DERIVED\\PRIMARY\\SCREEN SAVE"),
        put(tags::DATE_OF_SECONDARY_CAPTURE, VR::DA, "20200101"),
    ];
    for (k, object) in suspect.into_iter().enumerate() {
        assert!(refused(object.clone(), "basic") && refused(object.clone(), "basic+pixels"), "{k}");
        assert!(!refused(object.text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO"), "basic"), "{k}");
    }
    for (said, is) in [("NO", false), ("no ", false), ("", false), ("YES", true), ("yes", true), ("MAYBE", true)] {
        assert_eq!(refused(put(tags::BURNED_IN_ANNOTATION, VR::CS, said), "basic"), is, "{said}");
    }
    assert!(!refused(put(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL"), "basic"));
    assert!(!refused(put(tags::MODALITY, VR::CS, "US").without(tags::PIXEL_DATA), "basic"), "no pixels");
}

#[test]
fn pixels_are_blanked_or_withheld() {
    let region = |[x0, y0, x1, y1]: [u32; 4]| {
        let corners = [
            (tags::REGION_LOCATION_MIN_X0, x0),
            (tags::REGION_LOCATION_MIN_Y0, y0),
            (tags::REGION_LOCATION_MAX_X1, x1),
            (tags::REGION_LOCATION_MAX_Y1, y1),
        ];
        let item = corners.into_iter().fold(Object::item(), |item, (tag, at)| item.put(tag, VR::UL, PrimitiveValue::from(at)));
        Object::new()
            .text(tags::MODALITY, VR::CS, "US")
            .bytes(tags::PIXEL_DATA, VR::OB, &[9, 1, 8, 2])
            .sequence(tags::SEQUENCE_OF_ULTRASOUND_REGIONS, vec![item])
    };
    let right = || region([1, 0, 1, 1]);
    assert!(refused(right(), "basic"));
    let pixels = |object: Object| {
        result(&file(object), "basic+pixels", |elements| {
            assert_eq!(told(elements, &[tags::BURNED_IN_ANNOTATION]), "`NO`");
            find(elements, tags::PIXEL_DATA).unwrap().value.clone().into_owned()
        })
    };
    assert_eq!(pixels(right()), [0, 1, 0, 2]);
    assert_eq!(pixels(right().text(tags::BURNED_IN_ANNOTATION, VR::CS, "YES")), [0, 1, 0, 2]);
    let two = right().text(tags::NUMBER_OF_FRAMES, VR::IS, "2").bytes(tags::PIXEL_DATA, VR::OB, &[9, 1, 8, 2, 7, 3, 6, 4]);
    assert_eq!(pixels(two), [0, 1, 0, 2, 0, 3, 0, 4]);
    let long = |tag, value: u32| right().put(tag, VR::UL, PrimitiveValue::from(value));
    let wrong = [
        ("a region over all", region([0, 0, u32::MAX, u32::MAX])),
        ("fewer pixels", right().size(4, 4)),
        ("pixels over", right().bytes(tags::PIXEL_DATA, VR::OB, &[9, 1, 8, 2, 7, 3])),
        ("one frame of two", right().text(tags::NUMBER_OF_FRAMES, VR::IS, "2")),
        ("no count", right().text(tags::NUMBER_OF_FRAMES, VR::IS, "two")),
        ("rows of four bytes", long(tags::ROWS, 1 << 31)),
        ("columns of four bytes", long(tags::COLUMNS, u32::MAX)),
        ("no columns", right().size(2, 0)),
    ];
    for (what, object) in wrong {
        assert!(refused(object, "basic+pixels"), "{what}");
    }
}

#[test]
fn overlays_go_out_of_the_pixels_too() {
    let position = |tag| Tag(0x6000, tag);
    let object = Object::new()
        .bits(16, 12)
        .words(&[0xF001, 0x1FFF, 0x0002, 0x8003])
        .short(position(0x0100), 16)
        .short(position(0x0102), 12)
        .text(position(0x0022), VR::LO, "Miller^Jane");
    for syntax in [uids::EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.2"] {
        let clean = result(&object.clone().encoded(syntax), "basic", |elements| {
            assert!(elements.iter().all(|element| element.tag.0 != 0x6000));
            find(elements, tags::PIXEL_DATA).unwrap().value.clone().into_owned()
        });
        let words = clean
            .as_chunks()
            .0
            .iter()
            .map(|&pair| if syntax.ends_with("2.2") { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) });
        assert_eq!(words.collect::<Vec<_>>(), [0x001, 0xFFF, 0x002, 0x003], "{syntax}");
    }
    assert!(refused(object.short(tags::BITS_ALLOCATED, 12), "basic"));
}

#[test]
fn safe_private_attributes_that_are_not_safe() {
    let object =
        |vr, value: &str| Object::new().text(Tag(0x0019, 0x0010), VR::LO, "SIEMENS MR HEADER").text(Tag(0x0019, 0x100C), vr, value);
    let shown = [Tag(0x0019, 0x0010), Tag(0x0019, 0x100C)];
    check(object(VR::IS, "1000"), EVERY_OPTION, &shown, "`SIEMENS MR HEADER`, `1000`");
    check(object(VR::LO, "b of Secret"), EVERY_OPTION, &shown, "absent, absent");
    let item = Object::item().text(tags::CODE_MEANING, VR::LO, "Miller, Jane");
    check(object(VR::IS, "1000").sequence(shown[1], vec![item]), EVERY_OPTION, &shown, "absent, absent");
}

#[test]
fn descriptors_names_and_identifiers() {
    let put = |tag, value| {
        rich().text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192").text(tags::PATIENT_NAME, VR::PN, "Li^Head=李^明").text(
            tag,
            VR::LO,
            value,
        )
    };
    let check = |tag, value, expected| check(put(tag, value), "basic+descriptors+device", &[tag], expected);
    check(tags::STUDY_DESCRIPTION, "CT head, chest 31/12/61", "`CT chest`");
    check(tags::PROTOCOL_NAME, "Miller", "`REMOVED`");
    check(tags::BODY_PART_EXAMINED, "李 2", "``");
    // A term of the standard, though the patient is called like it.
    check(tags::BODY_PART_EXAMINED, "HEAD", "`HEAD`");
    check(tags::DEVICE_UID, "1.2.3", "`1.2.3`");
    let many: Vec<String> = (0..1001).map(|k| format!("ID-{k:05}")).collect();
    let many = Object::new().text(tags::PATIENT_ID, VR::UT, &many.join("\\"));
    assert!(matches!(deidentify_bytes(&file(many), Profile::default(), &secret()), Err(Fault::HeaderTooLarge { .. })));
    let method = result(&file(rich()), EVERY_OPTION, |elements| told(elements, &[tags::DEIDENTIFICATION_METHOD]));
    assert!(method.len() <= 64 + 2, "{method}");
}

impl Value<'_> {
    fn into_owned(self) -> Vec<u8> {
        if let Value::Bytes(bytes) = self { bytes.into_owned() } else { panic!("bytes") }
    }
}

#[test]
fn every_encoding_comes_back_as_it_was() {
    for syntax in
        [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.2", uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN]
    {
        let bytes = rich().encoded(syntax);
        let clean = deidentify_bytes(&bytes, Profile::default(), &secret()).unwrap();
        let split = split_file(&clean.bytes).unwrap();
        assert_eq!(split.syntax_uid, syntax);
        // The general reader has to read it too.
        let object = dicom_object::from_reader(std::io::Cursor::new(clean.bytes)).unwrap();
        assert_eq!(object.element(tags::ROWS).unwrap().to_int::<u16>().unwrap(), 2);
        assert_eq!(object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap()[..], [0, 1, 2, 3]);
        assert_eq!(object.element(tags::PATIENT_IDENTITY_REMOVED).unwrap().to_str().unwrap(), "YES");
    }
}

#[test]
fn cut_files_are_errors() {
    let bytes = file(rich());
    for n in 0..bytes.len() {
        // A cut between two elements leaves a data set that is whole.
        let _ = deidentify_bytes(&bytes[..n], Profile::default(), &secret());
    }
    assert!(deidentify_bytes(&bytes[..200], Profile::default(), &secret()).is_err());
}
