//! De-identification by DICOM PS3.15 Annex E: the Basic Application Level Confidentiality Profile and some of its options.
//!
//! A file is read whole, changed attribute by attribute, and written in its own transfer syntax. What an attribute is, the
//! standard's dictionary says and not the file. What the profile's table does not name stays, but for what is more careful than
//! the table: private attributes and attributes that the standard does not have go, as do dates and overlays, names of people
//! become empty, UIDs of instances become others, and a value in which the patient's name or identifier stands, wherever it
//! is, becomes a dummy or empty.
//!
//! Not done here: faces are not removed from volumes, and pixels are blanked only outside of regions that the file itself
//! declares. A file whose pixels may show a name is withheld instead.

mod keyed;
mod pixels;
mod table;
#[cfg(test)]
mod tests;
mod tree;
mod value;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use synovia_cohort::Rejected;

pub use keyed::{Secret, is_uid};

use crate::dicom::{Encoding, Split, split_file};
use crate::error::Fault;
use table::Action;
use tree::{Element, Value};

/// Which options of the profile (PS3.15 §E.3) are on. As text: `basic`, or with options after `+`, as
/// `basic+dates+device+descriptors`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
// Each is an option of the standard, on or off by itself.
#[allow(clippy::struct_excessive_bools)]
pub struct Profile {
    /// `pixels`: Clean Pixel Data, by the regions that ultrasound declares (§E.3.1).
    pub clean_pixels: bool,
    /// `descriptors`: Clean Descriptors, common words stay (§E.3.5).
    pub clean_descriptors: bool,
    /// `dates`: Retain Longitudinal Temporal Information, Modified Dates (§E.3.6): earlier by one offset a patient.
    pub modified_dates: bool,
    /// `device`: Retain Device Identity (§E.3.8).
    pub retain_device: bool,
    /// `uids`: Retain UIDs (§E.3.9).
    pub retain_uids: bool,
    /// `private`: Retain Safe Private (§E.3.10), the attributes that the standard lists.
    pub retain_safe_private: bool,
    /// No option of the standard, and not of the text: pixels that may show who the patient is are let through.
    pub(crate) any_pixels: bool,
}

/// A text that is no profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a profile is `basic`, or `basic` and some of pixels, descriptors, dates, device, uids, private after `+`, as basic+dates+device")]
pub struct ProfileError;

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let mut words = text.split('+');
        if words.next() != Some("basic") {
            return Err(ProfileError);
        }
        let mut profile = Self::default();
        for word in words {
            *match word {
                "pixels" => &mut profile.clean_pixels,
                "descriptors" => &mut profile.clean_descriptors,
                "dates" => &mut profile.modified_dates,
                "device" => &mut profile.retain_device,
                "uids" => &mut profile.retain_uids,
                "private" => &mut profile.retain_safe_private,
                _ => return Err(ProfileError),
            } = true;
        }
        Ok(profile)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("basic")?;
        let options = [
            (self.clean_pixels, "pixels"),
            (self.clean_descriptors, "descriptors"),
            (self.modified_dates, "dates"),
            (self.retain_device, "device"),
            (self.retain_uids, "uids"),
            (self.retain_safe_private, "private"),
        ];
        options.iter().filter(|(on, _)| *on).try_for_each(|(_, word)| write!(f, "+{word}"))
    }
}

/// A file that tells nothing of its patient.
pub struct Clean {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Where it belongs, by its new UIDs: `STUDY/SERIES/INSTANCE.dcm`. A folder of an archive may be named after a patient.
    pub path: PathBuf,
}

impl fmt::Debug for Clean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clean").field("path", &self.path).field("n_bytes", &self.bytes.len()).finish()
    }
}

/// De-identifies one file.
///
/// # Errors
/// A [`Rejected`] whose source is the file's name: it can't be read, or its pixels may show who the patient is.
pub fn deidentify(path: &Path, profile: Profile, secret: &Secret) -> Result<Clean, Rejected> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let work = || -> Result<Clean, Fault> {
        let file = std::fs::read(path)?;
        deidentify_bytes(&file, profile, secret)
    };
    work().map_err(|fault| fault.into_rejected(&name))
}

/// [`deidentify`] of a file in memory.
pub(crate) fn deidentify_bytes(file: &[u8], profile: Profile, secret: &Secret) -> Result<Clean, Fault> {
    let Split { syntax_uid, encoding, deflated, data } = split_file(file)?;
    let mut elements = tree::read(&data, encoding)?;
    // Which of two a reader takes is not known, so both would have to be looked at as the one that counts.
    let mut known = HashSet::new();
    if let Some(twice) = elements.iter().find(|element| !known.insert(element.tag)) {
        return Err(Fault::Malformed { tag: twice.tag, what: "an element stands in it twice" });
    }
    let text = |elements: &[Element<'_>], tag| elements.iter().find(|e| e.tag == tag).map(text_of).unwrap_or_default();
    if text(&elements, tags::SOP_INSTANCE_UID).is_empty() {
        return Err(Fault::Missing { tag: tags::SOP_INSTANCE_UID, name: "SOP Instance UID" });
    }
    let cleaned_pixels = pixels::clean(&mut elements, encoding, profile.clean_pixels, profile.any_pixels)?;
    // Instances without a Patient ID share what their study shares.
    let patient = text(&elements, tags::PATIENT_ID);
    let patient = if patient.is_empty() { text(&elements, tags::STUDY_INSTANCE_UID) } else { patient };
    let is_image = elements.iter().any(|element| element.tag == tags::ROWS);
    let work = Work { profile, secret, days: secret.days_back(&patient), identity: Identity::of(&elements)?, is_image };
    work.clean(&mut elements, Within::Root);
    let pseudonym = secret.pseudonym(&patient);
    put(&mut elements, tags::PATIENT_ID, *b"LO", pseudonym.into_bytes());
    work.state(&mut elements, cleaned_pixels);
    // Several UIDs where one belongs are no name for a file.
    let uid = |elements: &[Element<'_>], tag| match text(elements, tag) {
        none if none.is_empty() => "none".to_owned(),
        uid if is_uid(&uid) => uid,
        other => secret.uid(&other),
    };
    let instance = uid(&elements, tags::SOP_INSTANCE_UID);
    put(&mut elements, tags::SOP_INSTANCE_UID, *b"UI", instance.clone().into_bytes());
    let uid = |tag| uid(&elements, tag);
    let path = PathBuf::from(uid(tags::STUDY_INSTANCE_UID)).join(uid(tags::SERIES_INSTANCE_UID)).join(format!("{instance}.dcm"));
    let class = text(&elements, tags::SOP_CLASS_UID);
    let mut body = Vec::with_capacity(data.len() + 1024);
    tree::write(&elements, encoding, &mut body);
    if deflated {
        use std::io::Write;
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        deflate.write_all(&body)?;
        body = deflate.finish()?;
        // PS3.5 §A.5: padded to an even length.
        body.resize(body.len().next_multiple_of(2), 0);
    }
    let mut bytes = file_head(&class, &instance, &syntax_uid);
    bytes.append(&mut body);
    Ok(Clean { bytes, path })
}

/// Preamble, prefix and file meta information: what says how to read the file, and nothing else.
pub(crate) fn file_head(class: &str, instance: &str, syntax: &str) -> Vec<u8> {
    let element = |tag, vr, bytes: &[u8]| Element { tag, vr, value: Value::Bytes(Cow::Owned(bytes.to_vec())) };
    let mut group = Vec::new();
    let elements = [
        element(tags::FILE_META_INFORMATION_VERSION, *b"OB", &[0, 1]),
        element(tags::MEDIA_STORAGE_SOP_CLASS_UID, *b"UI", class.as_bytes()),
        element(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, *b"UI", instance.as_bytes()),
        element(tags::TRANSFER_SYNTAX_UID, *b"UI", syntax.as_bytes()),
        element(tags::IMPLEMENTATION_CLASS_UID, *b"UI", b"2.25.190146283741604316712840511094632107553"),
        element(tags::IMPLEMENTATION_VERSION_NAME, *b"SH", b"SYNOVIA"),
    ];
    tree::write(&elements, Encoding::EXPLICIT, &mut group);
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let length = element(tags::FILE_META_INFORMATION_GROUP_LENGTH, *b"UL", &(group.len() as u32).to_le_bytes());
    tree::write(&[length], Encoding::EXPLICIT, &mut bytes);
    bytes.append(&mut group);
    bytes
}

/// Text without its padding; bytes that are no UTF-8 as ISO 8859-1.
fn text_of(element: &Element<'_>) -> String {
    let Value::Bytes(bytes) = &element.value else { return String::new() };
    let text = str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|&b| char::from(b)).collect(), str::to_owned);
    text.trim_matches([' ', '\0']).to_owned()
}

/// Sets an element of the root, in its place.
fn put(elements: &mut Vec<Element<'_>>, tag: Tag, vr: [u8; 2], bytes: Vec<u8>) {
    put_value(elements, tag, vr, Value::Bytes(Cow::Owned(bytes)));
}

fn put_value<'a>(elements: &mut Vec<Element<'a>>, tag: Tag, vr: [u8; 2], value: Value<'a>) {
    let element = Element { tag, vr, value };
    if let Some(known) = elements.iter_mut().find(|known| known.tag == tag) {
        *known = element;
    } else {
        let at = elements.iter().position(|known| known.tag > tag).unwrap_or(elements.len());
        elements.insert(at, element);
    }
}

/// Retired, and still written.
const OTHER_PATIENT_IDS: Tag = Tag(0x0010, 0x1000);

/// What names the patient, in capitals.
#[derive(Default)]
struct Identity {
    /// Parts of names, of three bytes or more, which one Chinese character has: looked for as whole words.
    names: HashSet<String>,
    /// Identifiers of five characters or more: looked for anywhere.
    identifiers: HashSet<String>,
}

/// Each is looked for in each text.
const MAX_IDENTIFIERS: usize = 1000;

impl Identity {
    fn of(elements: &[Element<'_>]) -> Result<Self, Fault> {
        let mut identity = Self::default();
        identity.gather(elements);
        if identity.identifiers.len() > MAX_IDENTIFIERS {
            return Err(Fault::HeaderTooLarge { limit: "a thousand identifiers of a patient" });
        }
        Ok(identity)
    }

    fn gather(&mut self, elements: &[Element<'_>]) {
        for element in elements {
            if let Value::Items(items) = &element.value {
                items.iter().for_each(|item| self.gather(item));
            }
            let text = || text_of(element).to_uppercase();
            match element.tag {
                tags::PATIENT_NAME | tags::OTHER_PATIENT_NAMES | tags::PATIENT_BIRTH_NAME | tags::PATIENT_MOTHER_BIRTH_NAME => {
                    self.names.extend(words(&text()).filter(|word| word.len() >= 3).map(str::to_owned));
                }
                tags::PATIENT_ID | OTHER_PATIENT_IDS | tags::ACCESSION_NUMBER | tags::PATIENT_BIRTH_DATE => {
                    let text = text();
                    self.identifiers.extend(text.split('\\').map(str::trim).filter(|id| id.chars().count() >= 5).map(str::to_owned));
                }
                _ => {}
            }
        }
    }

    fn is_in(&self, text: &str) -> bool {
        let text = text.to_uppercase();
        self.identifiers.iter().any(|id| text.contains(id.as_str())) || words(&text).any(|word| self.names.contains(word))
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
}

/// Private attributes that are safe by PS3.15 Table E.3.10-1: creator, group, element within the creator's block.
const SAFE_PRIVATE: [(&str, u16, u8); 8] = [
    ("Philips PET Private Group", 0x7053, 0x00),
    ("Philips PET Private Group", 0x7053, 0x09),
    ("Philips Imaging DD 001", 0x2001, 0x03),
    ("Philips Imaging DD 001", 0x2001, 0x04),
    ("GEMS_PARM_01", 0x0043, 0x39),
    ("GEMS_ACQU_01", 0x0019, 0x23),
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("SIEMENS MR HEADER", 0x0019, 0x0E),
];

/// Where attributes stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Root,
    Item,
    /// An item whose values say nothing any more (action D of a sequence).
    Replaced,
}

struct Work<'a> {
    profile: Profile,
    secret: &'a Secret,
    days: i64,
    identity: Identity,
    is_image: bool,
}

impl Work<'_> {
    fn clean(&self, elements: &mut Vec<Element<'_>>, within: Within) {
        let creators: Vec<(Tag, String)> = elements
            .iter()
            .filter(|e| e.tag.0 % 2 == 1 && (0x10..=0xFF).contains(&e.tag.1))
            .map(|creator| (creator.tag, text_of(creator)))
            .collect();
        // The standard says what the attribute is, not that the file keeps to it.
        let safe = |element: &Element<'_>| {
            let Tag(group, number) = element.tag;
            let made_by = |creator: &str| creators.iter().any(|(tag, text)| *tag == Tag(group, number >> 8) && text == creator);
            let listed = |&(creator, g, n): &(&str, u16, u8)| g == group && number > 0xFF && n == number as u8 && made_by(creator);
            self.profile.retain_safe_private
                && within != Within::Replaced
                && SAFE_PRIVATE.iter().any(listed)
                && matches!(element.value, Value::Bytes(_))
                && !self.identity.is_in(&text_of(element))
        };
        // The creator of a safe attribute has to stay with it.
        let blocks: Vec<Tag> = elements.iter().filter(|e| safe(e)).map(|e| Tag(e.tag.0, e.tag.1 >> 8)).collect();
        let is_creator = |element: &Element<'_>| {
            blocks.contains(&element.tag) && SAFE_PRIVATE.iter().any(|(creator, ..)| *creator == text_of(element).as_str())
        };
        elements.retain_mut(|element| {
            let tag = element.tag;
            if tag.0 % 2 == 1 {
                return safe(element) || is_creator(element);
            }
            // Group lengths are retired, and wrong from here on; what the standard does not have can hold anything.
            if tag.1 == 0 || tree::vr_of(tag).is_none() && table::action(tag).is_none() {
                return false;
            }
            // Nobody has looked at the pixels of an image inside of an item.
            let odd = if within == Within::Root { tag == tags::DATA_SET_TRAILING_PADDING } else { tag.0 == 0x7FE0 };
            !odd && self.one(element, within)
        });
    }

    /// Changes an attribute; false when it goes.
    fn one(&self, element: &mut Element<'_>, within: Within) -> bool {
        // A name stays a name where the file calls it a time.
        let (tag, vr) = (element.tag, element.standard_vr());
        if (vr == *b"SQ") != matches!(element.value, Value::Items(_)) {
            // A value where items belong, or the other way round: it can't be looked into.
            return false;
        }
        let birth = matches!(tag, tags::PATIENT_BIRTH_DATE | tags::PATIENT_BIRTH_TIME);
        if self.profile.modified_dates && matches!(&vr, b"DA" | b"DT" | b"TM") && !birth {
            // Times of day stay, as do the intervals within a patient.
            if let Some(text) = value::earlier(&text_of(element), vr, self.days) {
                return set(element, vr, text.into_bytes());
            }
        }
        // How a content tree hangs together says nothing of what is in it.
        if within == Within::Replaced && value::is_structure(tag, element) {
            return true;
        }
        let beyond = || if within == Within::Replaced { Some(Action::Replace) } else { beyond_table(element, vr) };
        let action = table::action(tag).or_else(beyond);
        let keep = self.profile.retain_device && table::is_device(tag);
        match action {
            Some(_) if keep => self.rest(element, vr, within),
            Some(Action::Uid) => self.uids(element),
            Some(Action::Replace) if vr == *b"UI" => self.uids(element),
            Some(action @ (Action::Remove | Action::Empty | Action::Replace))
                if self.profile.clean_descriptors && is_text(vr) && is_descriptor(tag) =>
            {
                let text = value::cleaned(&text_of(element), |word| self.identity.names.contains(&word.to_uppercase()));
                let replaced = text.is_empty() && action == Action::Replace;
                set(element, vr, if replaced { value::dummy(vr) } else { text.into_bytes() })
            }
            Some(Action::Remove) => false,
            // Required of reports, though it may be empty; optional in images, where it may not.
            Some(Action::Empty) if self.is_image && tag == tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE => false,
            Some(Action::Empty) => {
                element.value = if vr == *b"SQ" { Value::Items(Vec::new()) } else { Value::Bytes(Cow::Borrowed(&[])) };
                true
            }
            Some(Action::Replace) if vr == *b"SQ" => self.rest(element, vr, Within::Replaced),
            Some(Action::Replace) => {
                // As many numbers as there were, for some come in pairs or triples.
                let n = if let Value::Bytes(bytes) = &element.value { bytes.len() } else { 0 };
                let numbers = matches!(&vr, b"US" | b"SS" | b"UL" | b"SL" | b"FL" | b"FD" | b"SV" | b"UV");
                let dummy = value::dummy(vr);
                let dummy = if numbers && n.is_multiple_of(dummy.len()) { vec![0; n.max(dummy.len())] } else { dummy };
                set(element, vr, dummy)
            }
            Some(Action::Uids) | None => self.rest(element, vr, within),
        }
    }

    /// Other UIDs in the place of its own. What is no UID is never retained.
    fn uids(&self, element: &mut Element<'_>) -> bool {
        let retained = |uid: &str| self.profile.retain_uids && is_uid(uid);
        let uid = |uid: &str| if retained(uid) { uid.to_owned() } else { self.secret.uid(uid) };
        let uids: Vec<String> = text_of(element).split('\\').map(|text| uid(text.trim_matches([' ', '\0']))).collect();
        set(element, *b"UI", uids.join("\\").into_bytes())
    }

    /// What stays: its items are gone through, and a value that names the patient goes out of it.
    fn rest(&self, element: &mut Element<'_>, vr: [u8; 2], within: Within) -> bool {
        let tag = element.tag;
        let inner = if within == Within::Root { Within::Item } else { within };
        // How a content tree hangs together, and the standard's own terms, are whatever the patient is called.
        let is_of_the_standard =
            |element: &Element<'_>| vr == *b"CS" && value::is_structure(tag, element) || value::is_term(tag, &text_of(element));
        if let Value::Items(items) = &mut element.value {
            items.iter_mut().for_each(|item| self.clean(item, inner));
        } else if !is_binary(vr) && !is_of_the_standard(element) && self.identity.is_in(&text_of(element)) {
            // Codes and labels may not be empty (type 1). A dummy number or term would say something, and something false.
            set(element, vr, if is_text(vr) { value::dummy(vr) } else { Vec::new() });
        }
        true
    }

    /// Says what was done (PS3.3 §C.7.1.1, PS3.16 CID 7050).
    fn state(&self, elements: &mut Vec<Element<'_>>, cleaned_pixels: bool) {
        put(elements, tags::PATIENT_IDENTITY_REMOVED, *b"CS", b"YES".to_vec());
        // With all options 63 of the 64 characters that an LO may have.
        let method = format!("PS3.15 2026c {}", self.profile);
        put(elements, tags::DEIDENTIFICATION_METHOD, *b"LO", method.into_bytes());
        let options = [
            (true, "113100", "Basic Application Confidentiality Profile"),
            (cleaned_pixels, "113101", "Clean Pixel Data Option"),
            (self.profile.clean_descriptors, "113105", "Clean Descriptors Option"),
            (self.profile.modified_dates, "113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
            (self.profile.retain_device, "113109", "Retain Device Identity Option"),
            (self.profile.retain_uids, "113110", "Retain UIDs Option"),
            (self.profile.retain_safe_private, "113111", "Retain Safe Private Option"),
        ];
        let element = |tag, vr: &[u8; 2], text: &str| Element { tag, vr: *vr, value: Value::Bytes(Cow::Owned(text.as_bytes().to_vec())) };
        let items = options.iter().filter(|(on, ..)| *on).map(|(_, code, meaning)| {
            vec![
                element(tags::CODE_VALUE, b"SH", code),
                element(tags::CODING_SCHEME_DESIGNATOR, b"SH", "DCM"),
                element(tags::CODE_MEANING, b"LO", meaning),
            ]
        });
        put_value(elements, tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, *b"SQ", Value::Items(items.collect()));
        let dates = if self.profile.modified_dates { "MODIFIED" } else { "REMOVED" };
        put(elements, tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, *b"CS", dates.as_bytes().to_vec());
    }
}

/// Gives an element a value of the standard's VR.
fn set(element: &mut Element<'_>, vr: [u8; 2], bytes: Vec<u8>) -> bool {
    element.vr = vr;
    element.value = Value::Bytes(Cow::Owned(bytes));
    true
}

/// What is done to an attribute that the table does not name.
fn beyond_table(element: &Element<'_>, vr: [u8; 2]) -> Option<Action> {
    match (element.tag, &vr) {
        // A date says when, whatever its name; birth and death in another calendar are texts.
        (Tag(0x0010, 0x0033..=0x0035), _) | (_, b"DA" | b"DT") => Some(Action::Remove),
        (_, b"TM") if value::earlier(&text_of(element), vr, 0).is_none() => Some(Action::Remove),
        (_, b"PN") => Some(Action::Empty),
        (tag, b"UI") if !(is_of_a_kind(tag) && text_of(element).split('\\').all(is_uid)) => Some(Action::Uid),
        _ => None,
    }
}

/// Whether a value may be any text, so that a dummy says nothing false.
fn is_text(vr: [u8; 2]) -> bool {
    matches!(&vr, b"LO" | b"SH" | b"ST" | b"LT" | b"UT" | b"UC" | b"UR")
}

fn is_binary(vr: [u8; 2]) -> bool {
    [b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"US", b"SS", b"UL", b"SL", b"UV", b"SV", b"FL", b"FD", b"AT", b"UI"].contains(&&vr)
}

fn keyword_has(tag: Tag, parts: &[&str]) -> bool {
    let keyword = StandardDataDictionary.by_tag(tag).map_or("", DataDictionaryEntry::alias);
    parts.iter().any(|part| keyword.contains(part))
}

/// Whether the UIDs of an attribute are those of a kind of object, coding or vocabulary, and not of one object.
fn is_of_a_kind(tag: Tag) -> bool {
    keyword_has(tag, &["SOPClass", "TransferSyntax", "Context", "CodingScheme", "MappingResource"])
}

/// Whether a text attribute describes rather than names: by its keyword, as the column of §E.3.5 does.
fn is_descriptor(tag: Tag) -> bool {
    keyword_has(tag, &["Description", "ProtocolName", "Comments", "ContrastBolusAgent", "Reason"])
}
