//! A whole patient: who, where, and every visit with its factors and outcomes.

use chrono::{Datelike, NaiveDate};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use synovia_cohort::{PatientId, Sex, Time};

use crate::stream::{Purpose, stream};
use crate::world::{FIRST_AGE_YEARS, GAP_DAYS, ImageFactors, Outcomes, P_PLANNED, RecordFactors, Smoking};
use crate::{Noise, SimulationConfig};

const FAMILY: [&str; 40] = [
    "Almeida",
    "Andersen",
    "Bakker",
    "Banerjee",
    "Bianchi",
    "Castillo",
    "Chen",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Haddad",
    "Hansen",
    "Horvat",
    "Ivanova",
    "Jansen",
    "Kaya",
    "Kim",
    "Kowalski",
    "Larsen",
    "Lopez",
    "Martin",
    "Mbeki",
    "Moreau",
    "Nakamura",
    "Nguyen",
    "Novak",
    "Okafor",
    "Olsen",
    "Papadopoulos",
    "Patel",
    "Petrov",
    "Rossi",
    "Sato",
    "Schmidt",
    "Silva",
    "Singh",
    "Tanaka",
    "Weber",
    "Yilmaz",
];
const FEMALE: [&str; 20] = [
    "Aiko", "Alice", "Amara", "Anna", "Carla", "Elena", "Fatima", "Greta", "Hana", "Ines", "Julia", "Leila", "Maria", "Mei", "Nina",
    "Olga", "Petra", "Rosa", "Sofia", "Yara",
];
const MALE: [&str; 20] = [
    "Adam", "Ahmed", "Anton", "Bruno", "Carlos", "David", "Emil", "Felix", "Hugo", "Ivan", "Jonas", "Karl", "Liam", "Marco", "Noah",
    "Omar", "Pavel", "Raj", "Tomas", "Yusuf",
];

/// One in this many patients bears the name, and is born in the year, of the patient before.
pub(crate) const NAMESAKE_EVERY: usize = 50;

/// Where a patient is seen: sites differ in scanner, photometric interpretation and units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// MONOCHROME2; conventional units.
    A,
    /// MONOCHROME1; SI units.
    B,
}

/// Who a patient is.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) family: &'static str,
    pub(crate) given: &'static str,
    pub(crate) sex: Sex,
    pub(crate) birth: NaiveDate,
    /// Acquisition time of the first study.
    pub(crate) first_study: Time,
}

/// Diseases that the chart knows of and that no label depends on.
#[derive(Clone, Copy)]
pub(crate) struct Comorbidities {
    pub(crate) copd: bool,
    pub(crate) diabetes: bool,
    pub(crate) hypertension: bool,
}

/// One visit: an imaging study, what led to it and what came of it.
pub(crate) struct Visit {
    /// Acquisition time of the frontal image: the prediction time.
    pub(crate) time: Time,
    /// Study Instance UID.
    pub(crate) study_uid: String,
    /// Series Instance UIDs of the frontal and the lateral view.
    pub(crate) series_uids: [String; 2],
    /// SOP Instance UIDs of the frontal and the lateral view.
    pub(crate) instance_uids: [String; 2],
    /// Whether there are DICOM files.
    pub(crate) has_image: bool,
    pub(crate) image: ImageFactors,
    pub(crate) record: RecordFactors,
    pub(crate) outcomes: Outcomes,
}

/// A patient with all visits.
pub(crate) struct Patient {
    /// Position in the cohort, from 0.
    pub(crate) index: usize,
    /// FHIR id.
    pub(crate) id: PatientId,
    /// Medical record number: DICOM `PatientID`, FHIR `Patient.identifier`.
    pub(crate) mrn: String,
    /// Folder below `dicom/`; tells nothing of the patient.
    pub(crate) folder: String,
    pub(crate) site: Site,
    pub(crate) identity: Identity,
    pub(crate) comorbidities: Comorbidities,
    /// Whether the chart knows age, gender and any history.
    pub(crate) has_record: bool,
    pub(crate) visits: Vec<Visit>,
}

impl Patient {
    /// Patient `index` of the cohort, from the seed and the index alone.
    pub(crate) fn draw(config: &SimulationConfig, index: usize) -> Self {
        let identity = identity(config.seed, index);
        let mut rng = stream(config.seed, index, Purpose::Setting);
        let site = if rng.random_bool(0.5) { Site::A } else { Site::B };
        let smoking = Smoking::draw(&mut rng);
        let has_record = !rng.random_bool(config.missing_record);
        let comorbidities = Comorbidities {
            copd: rng.random_bool([0.08, 0.20, 0.30][smoking as usize]),
            diabetes: rng.random_bool(0.18),
            hypertension: rng.random_bool(0.40),
        };
        let planned = rng.random::<f64>();
        let n_planned = P_PLANNED.iter().filter(|&&p| planned < p).count();
        let mut visits: Vec<Visit> = Vec::new();
        let mut time = identity.first_study;
        for k in 0..n_planned {
            let mut world = stream(config.seed, index, Purpose::World(k));
            let has_image = !rng.random_bool(config.missing_image);
            let gap_days = rng.random_range(GAP_DAYS[0]..GAP_DAYS[1]);
            let image = ImageFactors::draw(&mut world);
            let record = RecordFactors::draw(time.years_since(start_of(identity.birth)), identity.sex, smoking, &mut world);
            let outcomes = match config.noise {
                None => Outcomes::draw(&image, &record, &mut world),
                Some(noise) => {
                    let mut other = stream(config.seed ^ ANOTHER, index, Purpose::World(k));
                    let (image, record) = match noise {
                        Noise::Image => (ImageFactors::draw(&mut other), record),
                        Noise::Record => (image, stranger(&mut other)),
                    };
                    Outcomes::draw(&image, &record, &mut world)
                }
            };
            let stays = outcomes.stays();
            visits.push(Visit {
                time,
                study_uid: uid(&mut rng),
                series_uids: [uid(&mut rng), uid(&mut rng)],
                instance_uids: [uid(&mut rng), uid(&mut rng)],
                has_image,
                image,
                record,
                outcomes,
            });
            if !stays {
                break;
            }
            time = time.plus_days(gap_days.floor()).plus_seconds(rng.random_range(-7200..7200));
        }
        let (id, mrn, folder) = names_of(config.seed, index);
        Self { index, id, mrn, folder, site, identity, comorbidities, has_record, visits }
    }

    /// Family and given name as DICOM PN has them (PS3.5 §6.2.1).
    pub(crate) fn person_name(&self) -> String {
        format!("{}^{}", self.identity.family, self.identity.given)
    }
}

/// The seed of those whose outcomes a patient has where a modality tells nothing.
const ANOTHER: u64 = 0xA5A5_5A5A_0F0F_F0F0;

/// A record of anybody.
fn stranger(rng: &mut ChaCha8Rng) -> RecordFactors {
    let age_years = rng.random_range(FIRST_AGE_YEARS[0]..FIRST_AGE_YEARS[1]);
    let sex = if rng.random_bool(0.5) { Sex::Female } else { Sex::Male };
    let smoking = Smoking::draw(rng);
    RecordFactors::draw(age_years, sex, smoking, rng)
}

/// FHIR id, record number and folder: the last two by multiplication modulo their range with a factor that shares no
/// divisor with it, so that no two patients of a cohort collide and neither shows the index.
fn names_of(seed: u64, index: usize) -> (PatientId, String, String) {
    const MRN_RANGE: u64 = 100_000_000;
    const FOLDER_RANGE: u64 = 1 << 28;
    let offset = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let mrn = (index as u64 * 48_271_001 + offset) % MRN_RANGE;
    let folder = (index as u64 * 0x5BD_1E95 + offset) % FOLDER_RANGE;
    (PatientId::new(&format!("pat-{:06}", index + 1)), format!("MRN{mrn:08}"), format!("{folder:07x}"))
}

/// A UID under the root for UUIDs (PS3.5 §B.2), here of 128 bits from the patient's stream with version 4 marked.
fn uid(rng: &mut ChaCha8Rng) -> String {
    let random = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
    let uuid = random & !(0xF << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    format!("2.25.{uuid}")
}

pub(crate) fn start_of(date: NaiveDate) -> Time {
    Time::from_seconds(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp())
}

/// The date of a time.
pub(crate) fn date_of(time: Time) -> NaiveDate {
    chrono::DateTime::from_timestamp(time.seconds(), 0).unwrap_or_default().date_naive()
}

fn identity(seed: u64, index: usize) -> Identity {
    if index % NAMESAKE_EVERY == 1 {
        let mut identity = identity(seed, index - 1);
        // Another birthday in the same year; the first study moves with it, so that ages keep their distribution.
        let mut rng = stream(seed, index, Purpose::Identity);
        let day = i64::from(identity.birth.ordinal0());
        let shift = (1 + rng.random_range(0..364) + day) % 365 - day;
        identity.birth = date_of(start_of(identity.birth).plus_seconds(shift * 86_400));
        identity.first_study = identity.first_study.plus_seconds(shift * 86_400);
        return identity;
    }
    let mut rng = stream(seed, index, Purpose::Identity);
    let sex = if rng.random_bool(0.5) { Sex::Female } else { Sex::Male };
    let given = if sex == Sex::Female { FEMALE } else { MALE };
    let first_day = start_of(NaiveDate::from_ymd_opt(2014, 1, 1).unwrap_or_default());
    let first_study = first_day.plus_seconds(rng.random_range(400..1860) * 86_400 + rng.random_range(7 * 3600..18 * 3600));
    let age_years = rng.random_range(FIRST_AGE_YEARS[0]..FIRST_AGE_YEARS[1]);
    Identity {
        family: FAMILY[rng.random_range(0..FAMILY.len())],
        given: given[rng.random_range(0..given.len())],
        sex,
        birth: date_of(first_study.plus_days(-age_years * 365.25)),
        first_study,
    }
}
