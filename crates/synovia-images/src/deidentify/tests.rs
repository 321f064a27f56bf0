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
            return (vr, Value::Items(vec![vec![uid, item]]));
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
    let base = file(Object::new());
    let split = split_file(&base).unwrap();
    let (mut checked, mut wrong) = (0, Vec::new());
    for (code, list) in &lists {
        for &tag in list {
            let (vr, value) = original(tag);
            let mut elements = tree::read(&split.data, Encoding::EXPLICIT).unwrap();
            super::put_value(&mut elements, tag, *vr.to_string().as_bytes().first_chunk().unwrap(), value.clone());
            let mut bytes = super::meta("1.2.3", "1.2.3", uids::EXPLICIT_VR_LITTLE_ENDIAN);
            tree::write(&elements, Encoding::EXPLICIT, &mut bytes);
            let done = result(&bytes, "basic", |elements| {
                let Some(element) = find(elements, tag) else { return "X" };
                match &element.value {
                    value if *value == original(tag).1 => "kept",
                    Value::Bytes(bytes) if bytes.is_empty() => "Z",
                    Value::Items(items) if items.is_empty() => "Z",
                    Value::Bytes(_) if vr == VR::UI && text_of(element).starts_with("2.25.") => "U",
                    // What an item holds is treated as if it stood alone.
                    Value::Items(items)
                        if !items.iter().flatten().any(|e| matches!(text_of(e).as_str(), "1.2.3.4.5.6" | "Hidden^Name")) =>
                    {
                        "D"
                    }
                    Value::Items(_) => "kept within",
                    _ => "D",
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
                // U* of a sequence: its UIDs.
                "X_Z_D" | "X_Z_U_STAR" => &["X", "Z", "D"],
                _ => &[],
            };
            // These say what was done, and are written anew.
            let own = [tags::DEIDENTIFICATION_METHOD, tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, tags::PATIENT_IDENTITY_REMOVED];
            if !allowed.contains(&done) && !own.contains(&tag) {
                wrong.push(format!("{tag} {vr}: {done} instead of {code}"));
            }
        }
    }
    assert_eq!(checked, 655);
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
}

/// What identifies in a file: the values of what the table replaces, empties or remaps and that are texts of some length.
fn identifying(elements: &[Element<'_>], found: &mut Vec<String>) {
    for element in elements {
        if let Value::Items(items) = &element.value {
            items.iter().for_each(|item| identifying(item, found));
        }
        let named = matches!(&element.vr, b"PN" | b"UI")
            || matches!(
                element.tag,
                tags::PATIENT_ID | tags::ACCESSION_NUMBER | tags::INSTITUTION_NAME | tags::STUDY_DATE | tags::STATION_NAME
            );
        if named && super::table::action(element.tag).is_some() {
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
        assert!(written > 20 && searched > 100);
    }
}

fn told(elements: &[Element<'_>], tags: &[Tag]) -> String {
    let told = |tag: &Tag| match find(elements, *tag) {
        None => "absent".to_owned(),
        Some(element) => format!("`{}`", text_of(element)),
    };
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

#[test]
fn burned_in_annotation_is_withheld_or_blanked() {
    let capture = Object::new().text(tags::SOP_CLASS_UID, VR::UI, uids::SECONDARY_CAPTURE_IMAGE_STORAGE);
    let refused = |object: Object, text: &str| matches!(deidentify_bytes(&file(object), profile(text), &secret()), Err(Fault::BurnedIn));
    assert!(refused(capture.clone(), "basic+pixels"), "a capture without regions");
    assert!(!refused(capture.text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO"), "basic"));
    assert!(refused(Object::new().text(tags::BURNED_IN_ANNOTATION, VR::CS, "YES"), "basic"));
    let long = |value: u32| PrimitiveValue::from(value);
    let region = Object::item()
        .put(tags::REGION_LOCATION_MIN_X0, VR::UL, long(1))
        .put(tags::REGION_LOCATION_MIN_Y0, VR::UL, long(0))
        .put(tags::REGION_LOCATION_MAX_X1, VR::UL, long(1))
        .put(tags::REGION_LOCATION_MAX_Y1, VR::UL, long(1));
    let ultrasound = Object::new()
        .text(tags::MODALITY, VR::CS, "US")
        .bytes(tags::PIXEL_DATA, VR::OB, &[9, 1, 8, 2])
        .sequence(tags::SEQUENCE_OF_ULTRASOUND_REGIONS, vec![region]);
    assert!(refused(ultrasound.clone(), "basic"));
    let pixels = result(&file(ultrasound), "basic+pixels", |elements| find(elements, tags::PIXEL_DATA).unwrap().value.clone().into_owned());
    assert_eq!(pixels, [0, 1, 0, 2]);
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
