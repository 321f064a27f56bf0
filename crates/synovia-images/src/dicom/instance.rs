//! What the index needs to know of one instance: whose, when, and whether it can stand for its study.

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use serde::{Deserialize, Serialize};
use synovia_cohort::{Study, Time};

use super::dataset::Dataset;
use super::grey::group_of;
use crate::error::Fault;
use crate::stack::{Plane, stack};

/// Elements that the index reads.
pub(super) const INDEX_TAGS: &[Tag] = &[
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::IMAGE_TYPE,
    tags::MODALITY,
    tags::PRESENTATION_INTENT_TYPE,
    tags::BURNED_IN_ANNOTATION,
    tags::DATE_OF_SECONDARY_CAPTURE,
    tags::PATIENT_ID,
    tags::ACCESSION_NUMBER,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::INSTANCE_NUMBER,
    tags::VIEW_POSITION,
    tags::IMAGE_LATERALITY,
    tags::LATERALITY,
    tags::IMAGE_POSITION_PATIENT,
    tags::IMAGE_ORIENTATION_PATIENT,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::ACQUISITION_DATE_TIME,
    tags::ACQUISITION_DATE,
    tags::ACQUISITION_TIME,
    tags::CONTENT_DATE,
    tags::CONTENT_TIME,
    tags::SERIES_DATE,
    tags::SERIES_TIME,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::PLANAR_CONFIGURATION,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::PLANE_POSITION_SEQUENCE,
    tags::PLANE_ORIENTATION_SEQUENCE,
];

/// How well an instance stands for its study; lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Role {
    /// An image of the patient, for presentation.
    Primary,
    /// The same before processing (PS3.3 §C.8.11.1): detectors differ most here.
    ForProcessing,
    /// Made from other images (Image Type value 2 SECONDARY), or captured from a screen or film.
    Secondary,
    /// A scout: not the examination.
    Localizer,
}

/// One instance that could be read and decoded.
pub(crate) struct Instance {
    pub(crate) study: Study,
    pub(crate) series_instance_uid: String,
    pub(crate) sop_instance_uid: String,
    pub(crate) series_number: i32,
    pub(crate) number: i32,
    pub(crate) role: Role,
    /// View Position, empty where there is none.
    pub(crate) view_position: String,
    /// Image Laterality, else Laterality; empty where there is neither.
    pub(crate) laterality: String,
    /// Whether its pixels may show who the patient is.
    pub(crate) may_show_name: bool,
    /// Projection radiographs: PA 0, AP 1, others 2, lateral 3.
    pub(crate) view: u8,
    /// Slices: where it lies; of several frames that of the chosen one.
    pub(crate) plane: Option<Plane>,
}

impl Instance {
    /// A picture, which is a study by itself.
    pub(crate) fn of_picture(study: Study) -> Self {
        Self {
            study,
            series_instance_uid: String::new(),
            sop_instance_uid: String::new(),
            series_number: 0,
            number: 0,
            role: Role::Primary,
            view_position: String::new(),
            laterality: String::new(),
            may_show_name: false,
            view: 0,
            plane: None,
        }
    }

    /// From a header; `n_frames` comes from the checked Image Pixel module.
    pub(super) fn of(data: &Dataset, n_frames: u32) -> Result<Self, Fault> {
        let study = study_of(data, n_frames);
        if study.study_instance_uid.is_empty() {
            return Err(Fault::Missing { tag: tags::STUDY_INSTANCE_UID, name: "Study Instance UID" });
        }
        let number = |tag| data.decimal(tag).filter(|x| x.is_finite()).map_or(i32::MAX, |x| x as i32);
        Ok(Self {
            series_instance_uid: data.text(tags::SERIES_INSTANCE_UID).unwrap_or_default(),
            sop_instance_uid: data.text(tags::SOP_INSTANCE_UID).unwrap_or_default(),
            series_number: number(tags::SERIES_NUMBER),
            number: number(tags::INSTANCE_NUMBER),
            role: role(data)?,
            view_position: data.text(tags::VIEW_POSITION).unwrap_or_default(),
            laterality: data.text(tags::IMAGE_LATERALITY).or_else(|| data.text(tags::LATERALITY)).unwrap_or_default(),
            may_show_name: may_show_name(|tag| data.text(tag).unwrap_or_default()),
            view: match data.text(tags::VIEW_POSITION).as_deref() {
                Some("PA") => 0,
                Some("AP") => 1,
                Some("LL" | "RL" | "LAT" | "LATERAL" | "LLAT" | "RLAT") => 3,
                _ => 2,
            },
            plane: Planes::of(data).at(study.frame as usize),
            study,
        })
    }
}

/// The study as one instance tells it; `frame` is the middle one, of two the second.
pub(super) fn study_of(data: &Dataset, n_frames: u32) -> Study {
    Study {
        study_instance_uid: data.text(tags::STUDY_INSTANCE_UID).unwrap_or_default(),
        patient: data.text(tags::PATIENT_ID).unwrap_or_default(),
        accession: data.text(tags::ACCESSION_NUMBER).unwrap_or_default(),
        time: time(data),
        modality: data.text(tags::MODALITY).unwrap_or_default(),
        file: String::new(),
        frame: middle_frame(data, n_frames),
        n_images: 1,
        slices: Vec::new(),
    }
}

fn role(data: &Dataset) -> Result<Role, Fault> {
    let class = data.text(tags::SOP_CLASS_UID).unwrap_or_default();
    match class.as_str() {
        uids::SEGMENTATION_STORAGE => return Err(Fault::Derived("a Segmentation")),
        uids::RT_DOSE_STORAGE => return Err(Fault::Derived("an RT Dose")),
        uids::PARAMETRIC_MAP_STORAGE => return Err(Fault::Derived("a Parametric Map")),
        _ => {}
    }
    let kind = data.text(tags::IMAGE_TYPE).unwrap_or_default();
    let values: Vec<&str> = kind.split('\\').map(str::trim).collect();
    let captured = is_secondary_capture(&class);
    Ok(if values.contains(&"LOCALIZER") || values.contains(&"SCOUT") {
        Role::Localizer
    } else if captured || values.get(1) == Some(&"SECONDARY") {
        Role::Secondary
    } else if data.text(tags::PRESENTATION_INTENT_TYPE).as_deref() == Some("FOR PROCESSING") {
        Role::ForProcessing
    } else {
        Role::Primary
    })
}

/// Secondary Capture Image Storage or one of its multi-frame forms.
pub(crate) fn is_secondary_capture(class: &str) -> bool {
    class.strip_prefix(uids::SECONDARY_CAPTURE_IMAGE_STORAGE).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether annotation may be burned into an image: it says so or does not say it clearly, or it is of a kind that often has some,
/// and does not say that there is none. `text` gives an element's value, empty where there is none.
pub(crate) fn may_show_name(text: impl Fn(Tag) -> String) -> bool {
    let text = |tag| text(tag).to_uppercase();
    match text(tags::BURNED_IN_ANNOTATION).as_str() {
        "NO" => false,
        "" => {
            let image_type = text(tags::IMAGE_TYPE);
            let mut kinds = image_type.split('\\').map(str::trim);
            is_secondary_capture(&text(tags::SOP_CLASS_UID))
                || text(tags::MODALITY) == "US"
                || !text(tags::DATE_OF_SECONDARY_CAPTURE).is_empty()
                || kinds.clone().nth(1) == Some("SECONDARY")
                // SCREEN SAVE and its kin.
                || kinds.any(|kind| kind.contains("SAVE"))
        }
        _ => true,
    }
}

/// Where frames lie.
struct Planes<'a> {
    data: &'a Dataset,
    per_frame: &'a [Dataset],
    shared: Option<&'a Dataset>,
}

impl<'a> Planes<'a> {
    fn of(data: &'a Dataset) -> Self {
        let shared = data.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
        Self { data, per_frame: data.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE), shared }
    }

    /// Where a frame lies: by its functional groups (PS3.3 §C.7.6.16.2.3), else by the image's own position and orientation.
    fn at(&self, frame: usize) -> Option<Plane> {
        let group = |group| group_of(self.per_frame.get(frame), self.shared, group).unwrap_or(self.data);
        let position = group(tags::PLANE_POSITION_SEQUENCE).decimals(tags::IMAGE_POSITION_PATIENT)?;
        let orientation = group(tags::PLANE_ORIENTATION_SEQUENCE).decimals(tags::IMAGE_ORIENTATION_PATIENT)?;
        let plane = Plane { position_mm: *position.first_chunk()?, orientation: *orientation.first_chunk()? };
        let whole = position.len() == 3 && orientation.len() == 6;
        let finite = plane.position_mm.iter().chain(&plane.orientation).all(|x| x.is_finite());
        (whole && finite && plane.directions().is_some()).then_some(plane)
    }
}

/// Frames whose places are looked at: twice as many as the longest volumes have.
const MAX_PLACED_FRAMES: u32 = 20_000;

/// The frames of an image in order along their normal, and their places on it in millimetres, those at the place of another left
/// out, where every frame has a place of its own; else all in the file's order.
pub(super) fn frames_in_space(data: &Dataset, n_frames: u32) -> (Vec<u32>, Option<Vec<f64>>) {
    let frames = Planes::of(data);
    let n = frames.per_frame.len();
    if n == n_frames as usize && n > 1 && n_frames <= MAX_PLACED_FRAMES {
        let planes: Option<Vec<Plane>> = (0..n).map(|frame| frames.at(frame)).collect();
        let stack = planes.map(|planes| stack(&planes)).unwrap_or_default();
        // One position for all is a film, not a volume.
        if stack.order.len() > 1 {
            return (stack.order.into_iter().map(|frame| frame as u32).collect(), Some(stack.along_mm));
        }
    }
    ((0..n_frames.min(MAX_PLACED_FRAMES)).collect(), None)
}

/// The frame that stands for an image: the middle one along the normal where every frame has a place of its own, else the
/// middle one in order.
fn middle_frame(data: &Dataset, n_frames: u32) -> u32 {
    // More frames than are placed: the middle of all.
    if n_frames > MAX_PLACED_FRAMES {
        return n_frames / 2;
    }
    let (frames, _) = frames_in_space(data, n_frames);
    frames.get(frames.len() / 2).copied().unwrap_or(0)
}

/// When the image was acquired: the first of Acquisition DateTime, then Acquisition, Content, Series and Study Date with
/// their Times. A date without a time is taken only when no pair is whole. What is left out of date and time counts as its
/// last moment: an image must never be thought older than it is. `None` when nothing is a date.
pub(super) fn time(data: &Dataset) -> Option<Time> {
    let zone = data.text(tags::TIMEZONE_OFFSET_FROM_UTC);
    if let Some(text) = data.text(tags::ACQUISITION_DATE_TIME)
        && let Some(time) = date_time(&text, zone.as_deref())
    {
        return Some(time);
    }
    let pairs = [
        (tags::ACQUISITION_DATE, tags::ACQUISITION_TIME),
        (tags::CONTENT_DATE, tags::CONTENT_TIME),
        (tags::SERIES_DATE, tags::SERIES_TIME),
        (tags::STUDY_DATE, tags::STUDY_TIME),
    ];
    let pairs = pairs.map(|(date, time)| (data.text(date), data.text(time)));
    let whole = pairs.iter().find_map(|(date, time)| Time::parse_dicom(date.as_deref()?, Some(&latest(time.as_deref()?))).ok());
    let time = whole.or_else(|| pairs.iter().find_map(|(date, _)| Time::parse_dicom(date.as_deref()?, None).ok()))?;
    Some(time.plus_seconds(-zone.as_deref().and_then(offset_seconds).unwrap_or(0)))
}

/// A DT value (PS3.5 §6.2), `YYYYMMDDHHMMSS.FFFFFF&ZZXX`; a time zone of its own goes before that of the data set.
fn date_time(text: &str, zone: Option<&str>) -> Option<Time> {
    let at = text.find(['+', '-']).unwrap_or(text.len());
    let (local, own) = text.split_at_checked(at)?;
    let (date, time) = local.split_at_checked(8)?;
    let time = Time::parse_dicom(date, Some(&latest(time))).ok()?;
    let zone = if own.is_empty() { zone } else { Some(own) };
    Some(time.plus_seconds(-zone.and_then(offset_seconds).unwrap_or(0)))
}

/// A TM value of hours, or of hours and minutes, as the last second of them.
fn latest(time: &str) -> String {
    let time = time.trim_matches([' ', '\0']).replace(':', "");
    match time.len() {
        2 => time + "5959",
        4 => time + "59",
        _ => time,
    }
}

/// `+HHMM` or `-HHMM`; PS3.3 §C.12.1 bounds it to -12 and +14 hours.
fn offset_seconds(zone: &str) -> Option<i64> {
    let (sign, digits) = match zone.trim().split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let minutes = digits[..2].parse::<i64>().ok()? * 60 + digits[2..].parse::<i64>().ok()?;
    (minutes <= 14 * 60).then_some(sign * minutes * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(elements: &[(Tag, &str)], expected: &str) {
        let mut data = Dataset::default();
        for (tag, text) in elements {
            data.put(*tag, text.as_bytes().to_vec());
        }
        assert_eq!(time(&data).map_or_else(|| "none".to_owned(), |time| time.to_string()), expected);
    }

    #[test]
    fn the_time_of_an_image() {
        use tags::{
            ACQUISITION_DATE as AD, ACQUISITION_DATE_TIME as ADT, ACQUISITION_TIME as AT, CONTENT_DATE as CD, CONTENT_TIME as CT,
            STUDY_DATE as SD, STUDY_TIME as ST, TIMEZONE_OFFSET_FROM_UTC as ZONE,
        };
        check(&[(ADT, "20200102030405.678+0130"), (AD, "19990101")], "2020-01-02T01:34:05Z");
        check(&[(ADT, "20200102030405"), (ZONE, "-0500")], "2020-01-02T08:04:05Z");
        check(&[(AD, "20200102"), (AT, "0304"), (SD, "20200101"), (ST, "00")], "2020-01-02T03:04:59Z");
        check(&[(AD, "20200102"), (AT, "03")], "2020-01-02T03:59:59Z");
        check(&[(AD, "20200102"), (AT, "10:11")], "2020-01-02T10:11:59Z");
        check(&[(ADT, "202001020304")], "2020-01-02T03:04:59Z");
        check(&[(AD, "20200102"), (AT, "030405"), (ZONE, "+0100 ")], "2020-01-02T02:04:05Z");
        check(&[(AD, "20200102"), (CD, "20200102"), (CT, "120000")], "2020-01-02T12:00:00Z");
        check(&[(AD, "20200102"), (CD, "20200103")], "2020-01-02T23:59:59Z");
        check(&[(AD, "00000000"), (AT, "000000"), (SD, "20200101"), (ST, "101112")], "2020-01-01T10:11:12Z");
        check(&[(AD, "20200102"), (AT, "99:99:99")], "2020-01-02T23:59:59Z");
        check(&[(ADT, "2020"), (AD, "00000000"), (SD, "0000-00-00")], "none");
        check(&[(ADT, "é0200102030405")], "none");
        check(&[], "none");
    }

    #[test]
    fn classes_that_start_alike() {
        for (class, is) in [("7", true), ("7.4", true), ("77.1.6", false), ("78.1", false), ("2", false)] {
            assert_eq!(is_secondary_capture(&format!("1.2.840.10008.5.1.4.1.1.{class}")), is, "{class}");
        }
    }
}
