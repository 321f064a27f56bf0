//! Values: what stands in for them, dates that are moved, and descriptions of which only common words stay.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::text_of;
use super::tree::{Element, Value};

/// A value of the VR that says nothing (action D).
pub(super) fn dummy(vr: [u8; 2]) -> Vec<u8> {
    match &vr {
        b"DA" => b"19000101".to_vec(),
        b"DT" => b"19000101000000".to_vec(),
        b"TM" => b"000000".to_vec(),
        b"AS" => b"000D".to_vec(),
        b"DS" | b"IS" => b"0".to_vec(),
        b"US" | b"SS" | b"OB" | b"OW" | b"UN" => vec![0; 2],
        b"UL" | b"SL" | b"FL" | b"AT" | b"OL" | b"OF" => vec![0; 4],
        b"FD" | b"SV" | b"UV" | b"OD" | b"OV" => vec![0; 8],
        _ => b"REMOVED".to_vec(),
    }
}

/// Whether an attribute of an item of a content tree says how the tree hangs together (PS3.3 §C.17.3), and no more than that.
pub(super) fn is_structure(tag: Tag, element: &Element<'_>) -> bool {
    match (tag, &element.value) {
        (tags::VALUE_TYPE | tags::RELATIONSHIP_TYPE | tags::CONTINUITY_OF_CONTENT, _) => STRUCTURE.contains(&text_of(element).as_str()),
        (tags::GRAPHIC_TYPE, _) => GRAPHICS.contains(&text_of(element).as_str()),
        (tags::REFERENCED_FRAME_NUMBER, _) => text_of(element).split('\\').all(|number| number.trim().len() <= 5 && digits(number.trim())),
        // Places among siblings, from 1.
        (tags::REFERENCED_CONTENT_ITEM_IDENTIFIER, Value::Bytes(bytes)) => {
            let (numbers, rest) = bytes.as_chunks::<4>();
            let small = |n: &[u8; 4]| u32::from_le_bytes(*n).min(u32::from_be_bytes(*n)) < 10_000;
            numbers.len() <= 32 && rest.is_empty() && numbers.iter().all(small)
        }
        _ => false,
    }
}

const GRAPHICS: [&str; 7] = ["CIRCLE", "ELLIPSE", "ELLIPSOID", "MULTIPOINT", "POINT", "POLYGON", "POLYLINE"];

const STRUCTURE: [&str; 25] = [
    "CODE",
    "COMPOSITE",
    "CONTAINER",
    "CONTAINS",
    "CONTINUOUS",
    "DATE",
    "DATETIME",
    "HAS ACQ CONTEXT",
    "HAS CONCEPT MOD",
    "HAS OBS CONTEXT",
    "HAS PROPERTIES",
    "IMAGE",
    "INFERRED FROM",
    "NUM",
    "PNAME",
    "SCOORD",
    "SCOORD3D",
    "SELECTED FROM",
    "SEPARATE",
    "TABLE",
    "TCOORD",
    "TEXT",
    "TIME",
    "UIDREF",
    "WAVEFORM",
];

/// Whether a text is made of terms that the standard defines for the attribute: they stand in the objects of all patients, so
/// that they stay even where the patient is called like one.
pub(super) fn is_term(tag: Tag, text: &str) -> bool {
    let terms: &[&str] = match tag {
        tags::IMAGE_TYPE | tags::FRAME_TYPE => &IMAGE_TYPES,
        tags::BODY_PART_EXAMINED => &BODY_PARTS,
        tags::CODING_SCHEME_DESIGNATOR => &["DCM", "LN", "SCT", "SRT", "UCUM"],
        tags::MODALITY => &["CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "SR", "US", "XA"],
        _ => return false,
    };
    text.split('\\').all(|part| terms.contains(&part.trim()))
}

/// PS3.16 Annex L, Table L-1: the terms of anatomic regions of humans.
const BODY_PARTS: [&str; 112] = [
    "ABDOMEN",
    "ABDOMENPELVIS",
    "ANKLE",
    "AORTA",
    "ARM",
    "AXILLA",
    "BACK",
    "BLADDER",
    "BONE",
    "BRAIN",
    "BREAST",
    "BRONCHUS",
    "BUTTOCK",
    "CALCANEUS",
    "CALF",
    "CAROTID",
    "CEREBELLUM",
    "CERVIX",
    "CHEEK",
    "CHEST",
    "CHESTABDOMEN",
    "CHESTABDPELVIS",
    "CIRCLEOFWILLIS",
    "CLAVICLE",
    "COCCYX",
    "COLON",
    "CORNEA",
    "CORONARYARTERY",
    "CSPINE",
    "CTSPINE",
    "DUODENUM",
    "EAR",
    "ELBOW",
    "ESOPHAGUS",
    "EXTREMITY",
    "EYE",
    "EYELID",
    "FACE",
    "FEMUR",
    "FINGER",
    "FOOT",
    "GALLBLADDER",
    "HAND",
    "HEAD",
    "HEADNECK",
    "HEART",
    "HIP",
    "HUMERUS",
    "ILEUM",
    "ILIUM",
    "IAC",
    "JAW",
    "JEJUNUM",
    "KIDNEY",
    "KNEE",
    "LARYNX",
    "LEG",
    "LIVER",
    "LSPINE",
    "LSSPINE",
    "LUNG",
    "MANDIBLE",
    "MAXILLA",
    "MEDIASTINUM",
    "MOUTH",
    "NECK",
    "NECKCHEST",
    "NECKCHESTABDOMEN",
    "NECKCHESTABDPELV",
    "NOSE",
    "ORBIT",
    "OVARY",
    "PANCREAS",
    "PAROTID",
    "PATELLA",
    "PELVIS",
    "PENIS",
    "PHARYNX",
    "PROSTATE",
    "RECTUM",
    "RIB",
    "SCALP",
    "SCAPULA",
    "SCLERA",
    "SCROTUM",
    "SHOULDER",
    "SKULL",
    "SPINE",
    "SPLEEN",
    "SSPINE",
    "STERNUM",
    "STOMACH",
    "SUBMANDIBULAR",
    "TESTIS",
    "THIGH",
    "THUMB",
    "THYMUS",
    "THYROID",
    "TLSPINE",
    "TOE",
    "TONGUE",
    "TRACHEA",
    "TSPINE",
    "UMBILICUS",
    "URETER",
    "URETHRA",
    "UTERUS",
    "VAGINA",
    "VULVA",
    "WHOLEBODY",
    "WRIST",
    "ZYGOMA",
];

/// PS3.3 §C.7.6.1.1.2, §C.8.16.1 and §C.8.13.3.1.
const IMAGE_TYPES: [&str; 31] = [
    "ADDITION",
    "ANGIO",
    "AXIAL",
    "CARDIAC",
    "DERIVED",
    "DIVISION",
    "DYNAMIC",
    "LOCALIZER",
    "MASKED",
    "MAXIMUM",
    "MEAN",
    "MINIMUM",
    "MIXED",
    "MULTIPLICATION",
    "NONE",
    "ORIGINAL",
    "OTHER",
    "PERFUSION",
    "PRIMARY",
    "QUANTITY",
    "RCBF",
    "RCBV",
    "REFERENCE",
    "RESAMPLED",
    "RMTT",
    "SECONDARY",
    "STATIC",
    "STD_DEVIATION",
    "SUBTRACTION",
    "VOLUME",
    "WHOLE BODY",
];

/// A DA, DT or TM value (several, by `\`), `days` earlier; times of day stay. `None` where a part is anything else.
pub(super) fn earlier(text: &str, vr: [u8; 2], days: i64) -> Option<String> {
    let part = |part: &str| {
        let part = part.trim_matches([' ', '\0']);
        if part.is_empty() {
            return Some(String::new());
        }
        if vr == *b"TM" {
            return is_time(part).then(|| part.to_owned());
        }
        let (date, rest) = part.split_at_checked(8)?;
        let (time, zone) = rest.split_at(rest.find(['+', '-']).unwrap_or(rest.len()));
        let time_of_day = time.is_empty() || is_time(time);
        let known_zone = zone.is_empty() || zone.len() == 5 && digits(&zone[1..]) && zone[1..3] <= *"14";
        if !digits(date) || (vr == *b"DA" && !rest.is_empty()) || !time_of_day || !known_zone {
            return None;
        }
        let (year, month, day) = (date[..4].parse().ok()?, date[4..6].parse().ok()?, date[6..].parse().ok()?);
        let known = (1..=12).contains(&month) && (1..=31).contains(&day);
        let (year, month, day) = known.then(|| date_of(days_of(year, month, day) - days))?;
        (0..=9999).contains(&year).then(|| format!("{year:04}{month:02}{day:02}{rest}"))
    };
    let parts: Option<Vec<String>> = text.split('\\').map(part).collect();
    Some(parts?.join("\\"))
}

fn digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// `HH`, `HHMM`, `HHMMSS` or `HHMMSS.FFFFFF` (PS3.5 §6.2, TM), with colons as old files have them.
fn is_time(text: &str) -> bool {
    let text = text.replace(':', "");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    matches!(whole.len(), 2 | 4 | 6) && digits(whole) && fraction.len() <= 6 && digits(fraction)
}

/// Days from 1970-01-01 of the proleptic Gregorian calendar: years from March, so that a leap day is a year's last.
const fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_of`].
const fn date_of(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = year_of_era + era * 400 + (month <= 2) as i64;
    (year, month, day_of_year - (153 * m + 2) / 5 + 1)
}

/// What of a description stays under Clean Descriptors (E.3.5): words that are anatomy, technique or contrast unless they are
/// `named`, and numbers before a unit; never a name or a number that could be somebody's.
pub(super) fn cleaned(text: &str, named: impl Fn(&str) -> bool) -> String {
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let is_unit = |word: &str| UNITS.iter().any(|unit| unit.eq_ignore_ascii_case(word));
    let stays = |k: &usize| {
        let word = words[*k];
        let (number, unit) = word.split_at(word.bytes().take_while(u8::is_ascii_digit).count());
        let amount = (1..=3).contains(&number.len()) && is_unit(if unit.is_empty() { words.get(k + 1).unwrap_or(&"") } else { unit });
        let known = WORDS.iter().chain(UNITS).any(|known| known.eq_ignore_ascii_case(word));
        amount || known && !named(word)
    };
    (0..words.len()).filter(stays).map(|k| words[k]).collect::<Vec<_>>().join(" ")
}

const UNITS: &[&str] = &["cm", "kv", "kvp", "mas", "min", "mm", "ms", "sec"];

const WORDS: &[&str] = &[
    "2d",
    "3d",
    "4d",
    "abd",
    "abdomen",
    "adc",
    "ankle",
    "aorta",
    "ap",
    "apical",
    "arm",
    "arterial",
    "axial",
    "ax",
    "bilateral",
    "body",
    "bone",
    "brain",
    "breast",
    "calcium",
    "cardiac",
    "carotid",
    "cc",
    "cerebral",
    "cervical",
    "chest",
    "colon",
    "contrast",
    "cor",
    "coronal",
    "coronary",
    "cranial",
    "cranium",
    "ct",
    "cta",
    "decubitus",
    "delayed",
    "diffusion",
    "dwi",
    "dx",
    "early",
    "elbow",
    "enhanced",
    "epi",
    "expiration",
    "fat",
    "femur",
    "fiesta",
    "finger",
    "flair",
    "flash",
    "foot",
    "forearm",
    "frontal",
    "gre",
    "hand",
    "head",
    "heart",
    "hip",
    "humerus",
    "in",
    "inspiration",
    "iv",
    "kidney",
    "kidneys",
    "knee",
    "late",
    "lateral",
    "left",
    "leg",
    "liver",
    "ll",
    "localizer",
    "long",
    "low",
    "dose",
    "lower",
    "lumbar",
    "lung",
    "lungs",
    "mammo",
    "mammogram",
    "mammography",
    "mediastinum",
    "mip",
    "mlo",
    "mpr",
    "mr",
    "mra",
    "mri",
    "nasal",
    "native",
    "neck",
    "noncontrast",
    "no",
    "oblique",
    "obl",
    "of",
    "opposed",
    "orbit",
    "out",
    "pa",
    "pancreas",
    "parasternal",
    "pelvis",
    "pet",
    "phase",
    "portable",
    "portal",
    "post",
    "pre",
    "prone",
    "prostate",
    "pulmonary",
    "radiograph",
    "recon",
    "renal",
    "rib",
    "ribs",
    "right",
    "sacrum",
    "sag",
    "sagittal",
    "scout",
    "screening",
    "se",
    "series",
    "short",
    "shoulder",
    "sinus",
    "skull",
    "soft",
    "spgr",
    "spin",
    "echo",
    "spine",
    "spleen",
    "stir",
    "supine",
    "survey",
    "swi",
    "t1",
    "t1w",
    "t2",
    "t2w",
    "tof",
    "thigh",
    "thin",
    "thoracic",
    "thorax",
    "thyroid",
    "tibia",
    "tissue",
    "toe",
    "tof",
    "tra",
    "transverse",
    "tse",
    "ultrasound",
    "upper",
    "upright",
    "uterus",
    "venous",
    "view",
    "views",
    "vessel",
    "vessels",
    "whole",
    "window",
    "wo",
    "with",
    "without",
    "wrist",
    "x",
    "xr",
    "xray",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_move_by_whole_days() {
        assert_eq!(earlier("20200301", *b"DA", 1).unwrap(), "20200229");
        assert_eq!(earlier("20190301", *b"DA", 1).unwrap(), "20190228");
        assert_eq!(earlier("20200101101112.5+0100", *b"DT", 366).unwrap(), "20181231101112.5+0100");
        assert_eq!(earlier("20200102\\20200103 ", *b"DA", 1).unwrap(), "20200101\\20200102");
        assert_eq!(earlier("", *b"DA", 5).unwrap(), "");
        assert_eq!(earlier("10:11:12.5", *b"TM", 5).unwrap(), "10:11:12.5");
        for none in ["2020", "20201301", "2020.01.02", "yesterday", "é2020010", "19611231 Secret^Name", "20200101-20200201", "2020010110"]
        {
            assert_eq!(earlier(none, *b"DA", 1), None, "{none}");
        }
        for none in ["20200101Secret", "20200101-Name", "2020010110+é12", "20200101101112.5+Name", "20200101-20200201"] {
            assert_eq!(earlier(none, *b"DT", 1), None, "{none}");
        }
        for none in ["Secret^Name", "1", "4711081", "19611231", "101112.1234567"] {
            assert_eq!(earlier(none, *b"TM", 1), None, "{none}");
        }
        for days in (-800_000..800_000).step_by(97) {
            let (year, month, day) = date_of(days);
            assert_eq!(days_of(year, month, day), days);
        }
    }

    #[test]
    fn descriptions_keep_common_words_only() {
        let none = |_: &str| false;
        assert_eq!(cleaned("CT Chest w/o contrast, Mr. Miller 4711-2 (5 mm)", none), "CT Chest contrast Mr 5 mm");
        assert_eq!(cleaned("T2 tra 3mm 120 kV", none), "T2 tra 3mm 120 kV");
        assert_eq!(cleaned("DOB 31/12/61, chest", none), "chest");
        assert_eq!(cleaned("Chest of Sue Head", |word| word.eq_ignore_ascii_case("head")), "Chest of");
        assert_eq!(cleaned("Müller^Jan", none), "");
    }
}
