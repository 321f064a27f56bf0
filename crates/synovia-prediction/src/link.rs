//! Which patient of the records each study of the images is of, and when predictions are made.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use synovia_cohort::{ExampleId, Index, PatientId, PatientRecord, Study, StudyLink, Time};
use synovia_records::{RecordStore, RecordsError};

/// How a study was linked, the surest first.
const BY_UID: &str = "by study UID";
const BY_ACCESSION: &str = "by accession number";
const BY_TIME: &str = "by patient identifier and time";
const BY_PATIENT: &str = "by patient identifier alone";
const CLAIMED: &str = "two patients claim the study";
const CLAIMED_UNSEEN: &str = "two patients claim a study that has no image";
/// A charted study without a UID of ours is the image's when it began within so many days of it.
const SAME_STUDY_DAYS: f64 = 1.0;

/// What linking found.
#[derive(Default)]
pub struct Links {
    /// Owner of each study, in the order in which they were given.
    pub owners: Vec<Option<PatientId>>,
    /// What linked each.
    pub kinds: Vec<Option<&'static str>>,
    /// Studies without one, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Names that no example without an image may take: of the studies that have one, linked or not, and of those that two
    /// patients claim.
    taken: HashSet<ExampleId>,
}

impl Links {
    /// The studies of each patient.
    pub fn by_patient(&self) -> HashMap<PatientId, Vec<usize>> {
        let mut out: HashMap<PatientId, Vec<usize>> = HashMap::new();
        for (k, owner) in self.owners.iter().enumerate() {
            if let Some(owner) = owner {
                out.entry(owner.clone()).or_default().push(k);
            }
        }
        out
    }
}

/// The one moment of a table without times, whose rows and pictures are all known at once.
pub const AT_ONCE: Time = Time::from_seconds(0);

/// A prediction: what it is named, when it is made, and on which study.
pub type Moment = (ExampleId, Time, Option<usize>);

/// What one example is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// An imaging study, at the time of its image.
    #[default]
    Study,
    /// A patient.
    Patient,
    /// A contact with care, at its start.
    Encounter,
}

/// What predictions are made at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Anchor {
    /// What one example is, without an index event.
    #[serde(default)]
    pub unit: Unit,
    /// The index event, where it is no imaging study.
    #[serde(default)]
    pub index: Option<Index>,
    /// Days from the index event to the prediction.
    #[serde(default)]
    pub prediction_days: f64,
    /// With an index event, how many days before the prediction the image may have been taken; `None` for any number.
    #[serde(default)]
    pub image_within_days: Option<f64>,
}

impl Anchor {
    /// Whether an example is an imaging study.
    pub fn is_study(&self) -> bool {
        self.index.is_none() && self.unit == Unit::Study
    }

    /// A patient's predictions in order of time. With an index event, one after each of those, on the last image before it; else
    /// as [`Links::moments`].
    pub fn moments(&self, links: &Links, record: &PatientRecord, of_patient: &[usize], studies: &[Study], timeless: bool) -> Vec<Moment> {
        let Some(index) = self.index.as_ref().filter(|_| !timeless) else {
            let mut moments = links.moments(record, of_patient, studies, timeless, self.unit);
            moments.iter_mut().for_each(|(_, time, _)| *time = time.plus_days(self.prediction_days));
            return moments;
        };
        let moment = |event: Time| {
            let at = event.plus_days(self.prediction_days);
            let earliest = self.image_within_days.map(|days| at.plus_days(-days));
            let taken = of_patient.iter().filter_map(|&k| Some((studies[k].time?, k)));
            let image = taken.filter(|(time, _)| *time <= at && earliest.is_none_or(|earliest| *time >= earliest)).max();
            (ExampleId::of_patient(&record.id, at), at, image.map(|(_, k)| k))
        };
        index.times(record).into_iter().map(moment).collect()
    }
}

impl Links {
    /// A patient's predictions in order of time: one when each image was taken, and one when each study that the chart knows,
    /// but that has no image, began. A study whose time nobody knows has none. A timeless record has one, on the first image.
    ///
    /// A charted study without a UID is named by patient and time; beside an image of about that time it is the image's.
    ///
    /// - of_patient: places in `studies` of those that are the patient's
    /// - unit: with [`Unit::Patient`] the last one alone
    pub fn moments(&self, record: &PatientRecord, of_patient: &[usize], studies: &[Study], timeless: bool, unit: Unit) -> Vec<Moment> {
        if timeless {
            return vec![(ExampleId::of_patient(&record.id, AT_ONCE), AT_ONCE, of_patient.first().copied())];
        }
        // An accession number may be of several studies: it says which one is meant where no UID does.
        let has_uid = |link: &StudyLink, study: &Study| link.study_instance_uid == study.study_instance_uid;
        let is_charted = |study: &Study| record.studies.iter().any(|link| has_uid(link, study));
        let has_number = |link: &StudyLink, study: &Study| !link.accession.is_empty() && link.accession == study.accession;
        let is_of = |link: &StudyLink, study: &Study| has_uid(link, study) || has_number(link, study) && !is_charted(study);
        let charted = |study: &Study| record.studies.iter().filter(|link| is_of(link, study)).find_map(|link| link.started);
        let seen = of_patient.iter().filter_map(|&k| {
            let study = &studies[k];
            Some((ExampleId::of_study(&study.study_instance_uid), study.time.or_else(|| charted(study))?, Some(k)))
        });
        let mut moments: Vec<Moment> = seen.collect();
        let times: Vec<Time> = moments.iter().map(|(_, time, _)| *time).collect();
        // What an image was linked by is no study without one.
        let is_seen = |link: &&StudyLink| of_patient.iter().any(|&k| is_of(link, &studies[k]));
        let unseen = record.studies.iter().filter(|link| !is_seen(link)).filter_map(|link| {
            let started = link.started?;
            let id = if link.study_instance_uid.is_empty() {
                let near = times.iter().any(|taken| is_same_study(started, *taken));
                (!near).then(|| ExampleId::of_patient(&record.id, started))?
            } else {
                ExampleId::of_study(&link.study_instance_uid)
            };
            (!self.taken.contains(&id)).then_some((id, started, None))
        });
        moments.extend(unseen);
        moments.sort_by_key(|(id, time, _)| (*time, id.clone()));
        let mut named = HashSet::new();
        moments.retain(|(id, ..)| named.insert(id.clone()));
        match unit {
            Unit::Study => moments,
            Unit::Patient | Unit::Encounter => moments.pop().into_iter().collect(),
        }
    }
}

/// Whether a study that was charted without a UID is the one whose image was taken then.
fn is_same_study(charted: Time, taken: Time) -> bool {
    charted.days_since(taken).abs() <= SAME_STUDY_DAYS
}

/// Links by the chart's own word (study UID, else accession number), else by the identifier in the image. A study that two patients
/// claim, or whose chart and image disagree, is nobody's. An accession number may be of several studies.
///
/// # Errors
/// That of reading the store.
pub fn link(studies: &[Study], store: &RecordStore) -> Result<Links, RecordsError> {
    let by_uid: HashMap<&str, usize> = studies.iter().enumerate().map(|(k, s)| (s.study_instance_uid.as_str(), k)).collect();
    let mut by_patient: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut by_accession: HashMap<&str, Vec<usize>> = HashMap::new();
    for (k, study) in studies.iter().enumerate() {
        for (map, name) in [(&mut by_patient, &study.patient), (&mut by_accession, &study.accession)] {
            if !name.is_empty() {
                map.entry(name).or_default().push(k);
            }
        }
    }
    let n = studies.len();
    let [mut by_chart, mut by_number, mut by_image] = [(); 3].map(|()| vec![None::<PatientId>; n]);
    let (mut ambiguous, mut near) = (vec![false; n], vec![false; n]);
    let mut claim = |owners: &mut Vec<Option<PatientId>>, k: usize, patient: &PatientId| match &owners[k] {
        Some(owner) if owner != patient => ambiguous[k] = true,
        _ => owners[k] = Some(patient.clone()),
    };
    // Who charted each study that has no image.
    let mut unseen: HashMap<ExampleId, PatientId> = HashMap::new();
    let mut links = Links { owners: vec![None; n], kinds: vec![None; n], ..Links::default() };
    for partition in 0..store.n_partitions() {
        for record in store.load(partition)? {
            for link in &record.studies {
                // The UID of a table's picture without a name is empty, as is that of a study that was charted without.
                if let Some(&k) = by_uid.get(link.study_instance_uid.as_str()).filter(|_| !link.study_instance_uid.is_empty()) {
                    claim(&mut by_chart, k, &record.id);
                    continue;
                }
                if let Some(numbered) = by_accession.get(link.accession.as_str()) {
                    numbered.iter().for_each(|&k| claim(&mut by_number, k, &record.id));
                }
                if link.study_instance_uid.is_empty() {
                    continue;
                }
                let id = ExampleId::of_study(&link.study_instance_uid);
                if unseen.get(&id).is_some_and(|patient| *patient != record.id) {
                    if links.taken.insert(id) {
                        *links.failed.entry(CLAIMED_UNSEEN.to_owned()).or_default() += 1;
                    }
                } else {
                    unseen.insert(id, record.id.clone());
                }
            }
            let names = record.patient.identifiers.iter().map(String::as_str).chain([record.id.reveal()]);
            for k in names.filter_map(|name| by_patient.get(name)).flatten() {
                claim(&mut by_image, *k, &record.id);
                let taken = studies[*k].time;
                let charted = record.studies.iter().filter(|link| !by_uid.contains_key(link.study_instance_uid.as_str()));
                near[*k] |= charted.filter_map(|link| link.started.zip(taken)).any(|(charted, taken)| is_same_study(charted, taken));
            }
        }
    }
    links.taken.extend(studies.iter().map(|study| ExampleId::of_study(&study.study_instance_uid)));
    for k in 0..n {
        let number = by_number[k].take();
        let is_numbered = by_chart[k].is_none() && number.is_some();
        let is_claimed = ambiguous[k] || by_chart[k].is_some() && number.is_some() && by_chart[k] != number;
        by_chart[k] = by_chart[k].take().or(number);
        let failed = match (&by_chart[k], &by_image[k]) {
            _ if is_claimed => Some(CLAIMED),
            (Some(chart), Some(image)) if chart != image => Some("the chart and the image name different patients"),
            (None, None) => Some("no patient of the records has this study"),
            _ => None,
        };
        if let Some(reason) = failed {
            *links.failed.entry(reason.to_owned()).or_default() += 1;
        } else {
            links.kinds[k] = Some(match (&by_chart[k], near[k]) {
                (Some(_), _) if is_numbered => BY_ACCESSION,
                (Some(_), _) => BY_UID,
                (None, true) => BY_TIME,
                (None, false) => BY_PATIENT,
            });
            links.owners[k] = by_chart[k].take().or_else(|| by_image[k].take());
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use synovia_cohort::{ANY_CODE, Event, EventKind, EventPattern, EventValue, Patient, Which};

    use super::*;

    const DAY: i64 = 86_400;

    fn study(uid: &str, day: Option<i64>) -> Study {
        Study {
            study_instance_uid: uid.to_owned(),
            patient: String::new(),
            accession: String::new(),
            time: day.map(|day| Time::from_seconds(day * DAY)),
            modality: "DX".to_owned(),
            file: format!("{uid}.dcm"),
            frame: 0,
            n_images: 1,
            slices: Vec::new(),
        }
    }

    fn record(patient: &str, charted: &[(&str, i64)]) -> PatientRecord {
        let link = |(uid, day): &(&str, i64)| StudyLink {
            study_instance_uid: (*uid).to_owned(),
            accession: String::new(),
            started: Some(Time::from_seconds(day * DAY)),
        };
        PatientRecord {
            id: PatientId::new(patient),
            patient: Patient::default(),
            events: Vec::new(),
            studies: charted.iter().map(link).collect(),
        }
    }

    /// The moments of a patient who charted studies (UID, day), the first two images being theirs and the third nobody's:
    /// day and image of each, all with names of their own that no other patient's have.
    #[track_caller]
    fn check(charted: &[(&str, i64)], unit: Unit, expected: &[(i64, Option<usize>)]) {
        let studies = [study("1.1", Some(100)), study("1.2", None), study("1.3", Some(50))];
        let links = Links { taken: studies.iter().map(|s| ExampleId::of_study(&s.study_instance_uid)).collect(), ..Links::default() };
        let of = |patient: &str| links.moments(&record(patient, charted), &[0, 1], &studies, false, unit);
        let moments = of("a");
        let found: Vec<(i64, Option<usize>)> = moments.iter().map(|(_, time, k)| (time.seconds() / DAY, *k)).collect();
        assert_eq!(found, expected);
        let names: HashSet<&ExampleId> = moments.iter().map(|(id, ..)| id).collect();
        assert_eq!(names.len(), moments.len());
        for (id, _, image) in links.moments(&record("b", charted), &[], &studies, false, unit) {
            assert!(image.is_none() && (id == ExampleId::of_study("1.9") || !names.contains(&id)));
        }
    }

    #[test]
    fn one_example_a_study_each_with_a_name_of_its_own() {
        let of_study = |charted: &[(&str, i64)], expected: &[(i64, Option<usize>)]| check(charted, Unit::Study, expected);
        of_study(&[], &[(100, Some(0))]);
        // The chart's time, where the image has none; the image's own, where it has one.
        of_study(&[("1.1", 90), ("1.2", 70)], &[(70, Some(1)), (100, Some(0))]);
        of_study(&[("1.9", 80)], &[(80, None), (100, Some(0))]);
        // An image that was not linked to the patient is nobody's example.
        of_study(&[("1.3", 50)], &[(100, Some(0))]);
        // Without a UID: those beside an image are the image's, one at a time another study.
        of_study(&[("", 101), ("", 99)], &[(100, Some(0))]);
        of_study(&[("", 20), ("", 30), ("", 20)], &[(20, None), (30, None), (100, Some(0))]);
        of_study(&[("1.9", 80), ("", 82), ("1.9", 84)], &[(80, None), (82, None), (100, Some(0))]);
        check(&[("1.9", 80), ("", 20)], Unit::Patient, &[(100, Some(0))]);
        check(&[("1.9", 180), ("", 20)], Unit::Patient, &[(180, None)]);
    }

    /// The moments of a patient with encounters on days 40, 60 and 120 and images on days 50 and 100: day of each, and image.
    #[track_caller]
    fn at_events(which: Which, prediction_days: f64, image_within_days: Option<f64>, expected: &[(i64, Option<usize>)]) {
        let studies = [study("1.1", Some(100)), study("1.2", None), study("1.3", Some(50))];
        let mut record = record("a", &[]);
        let event = |day: &i64| Event {
            time: Time::from_seconds(day * DAY),
            kind: EventKind::Encounter,
            code: "v|AMB".into(),
            display: "".into(),
            value: EventValue::None,
        };
        record.events = [40, 60, 120].iter().map(event).collect();
        let event = EventPattern { kind: EventKind::Encounter, code: ANY_CODE.to_owned() };
        let anchor = Anchor { index: Some(Index { event, which }), prediction_days, image_within_days, ..Anchor::default() };
        let moments = anchor.moments(&Links::default(), &record, &[0, 1, 2], &studies, false);
        let found: Vec<(i64, Option<usize>)> = moments.iter().map(|(_, time, k)| (time.seconds() / DAY, *k)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn one_example_an_index_event_on_the_last_image_before_it() {
        at_events(Which::First, 0.0, None, &[(40, None)]);
        at_events(Which::Every, 0.0, None, &[(40, None), (60, Some(2)), (120, Some(0))]);
        at_events(Which::Every, 0.0, Some(15.0), &[(40, None), (60, Some(2)), (120, None)]);
        at_events(Which::Last, -30.0, None, &[(90, Some(2))]);
        at_events(Which::First, 70.0, None, &[(110, Some(0))]);
    }

    #[test]
    fn accession_numbers_link_what_uids_do_not() {
        let numbered = |uid: &str, day: Option<i64>, accession: &str, patient: &str| Study {
            accession: accession.to_owned(),
            patient: patient.to_owned(),
            ..study(uid, day)
        };
        let charted = |patient: &str, uid: &str, accession: &str| {
            let id = format!("{patient}-{accession}-{uid}");
            let uid = if uid.is_empty() { String::new() } else { format!(r#"{{"system":"urn:dicom:uid","value":"urn:oid:{uid}"}},"#) };
            format!(
                r#"{{"resourceType":"Patient","id":"{patient}"}}
{{"resourceType":"ImagingStudy","id":"{id}","status":"available","subject":{{"reference":"Patient/{patient}"}},"started":"1970-01-31T10:00:00Z","identifier":[{uid}{{"type":{{"coding":[{{"code":"ACSN"}}]}},"value":"{accession}"}}]}}
"#
            )
        };
        let check = |studies: &[Study], chart: &str, expected: &[(Option<&str>, Option<&str>)]| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("chart.ndjson");
            std::fs::write(&path, chart).unwrap();
            let rejected = synovia_cohort::RejectedLog::counting();
            let format = synovia_records::FormatConfig::fhir();
            let store = synovia_records::ingest(&path, &format, &dir.path().join("spill"), &rejected, &|_| ()).unwrap();
            let links = link(studies, &store).unwrap();
            let found: Vec<_> =
                links.owners.iter().map(|owner| owner.as_ref().map(PatientId::reveal)).zip(links.kinds.iter().copied()).collect();
            assert_eq!(found, expected, "{chart}");
            let records: Vec<PatientRecord> = (0..store.n_partitions()).flat_map(|k| store.load(k).unwrap()).collect();
            let of = |record: &PatientRecord| links.by_patient().remove(&record.id).unwrap_or_default();
            records.iter().map(|record| links.moments(record, &of(record), studies, false, Unit::Study).len()).sum::<usize>()
        };
        let accession = Some(BY_ACCESSION);
        // One example, at the chart's time, of a study whose image has another UID than the chart, or none is charted.
        for uid in ["", "1.7"] {
            assert_eq!(check(&[numbered("1.1", None, "A1", "")], &charted("a", uid, "A1"), &[(Some("a"), accession)]), 1);
        }
        // The UID is surer; where the two name different patients, or two charts have the number, nobody is named.
        assert_eq!(check(&[numbered("1.1", Some(30), "A1", "")], &charted("a", "1.1", "A1"), &[(Some("a"), Some(BY_UID))]), 1);
        let two = charted("a", "1.1", "A0") + &charted("b", "", "A1");
        check(&[numbered("1.1", Some(30), "A1", "")], &two, &[(None, None)]);
        let twice = charted("a", "", "A1") + &charted("b", "", "A1");
        check(&[numbered("1.1", Some(30), "A1", "")], &twice, &[(None, None)]);
        check(&[numbered("1.1", Some(30), "A1", "b")], &(charted("a", "", "A1") + &charted("b", "", "A2")), &[(None, None)]);
        // Another study of the same number, which has no image.
        let both = charted("a", "1.1", "A1") + &charted("a", "1.2", "A1");
        assert_eq!(check(&[numbered("1.1", Some(30), "A1", "")], &both, &[(Some("a"), Some(BY_UID))]), 2);
        // Two studies of one number, and one without a number, which nothing links.
        let three = [numbered("1.1", Some(30), "A1", ""), numbered("1.2", Some(30), "A1", ""), numbered("1.3", Some(30), "", "")];
        assert_eq!(check(&three, &charted("a", "", "A1"), &[(Some("a"), accession), (Some("a"), accession), (None, None)]), 2);
    }

    #[test]
    fn a_study_that_two_patients_claim_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chart.ndjson");
        let of = |patient: &str, uids: &[&str]| -> String {
            let study = |uid: &&str| {
                serde_json::json!({"resourceType": "ImagingStudy", "id": format!("{patient}-{uid}"), "status": "available",
                    "subject": {"reference": format!("Patient/{patient}")}, "started": "2020-03-01T10:00:00Z",
                    "identifier": [{"system": "urn:dicom:uid", "value": format!("urn:oid:{uid}")}]})
            };
            let patient = serde_json::json!({"resourceType": "Patient", "id": patient});
            [patient].into_iter().chain(uids.iter().map(study)).map(|line| line.to_string() + "\n").collect()
        };
        std::fs::write(&path, of("a", &["1.1", "1.8", "1.9"]) + &of("b", &["1.1", "1.9"]) + &of("c", &["1.9"])).unwrap();
        let format = synovia_records::FormatConfig::fhir();
        let rejected = synovia_cohort::RejectedLog::counting();
        let store = synovia_records::ingest(&path, &format, &dir.path().join("spill"), &rejected, &|_| ()).unwrap();
        let links = link(&[study("1.1", Some(1))], &store).unwrap();
        assert_eq!(links.owners, [None]);
        assert_eq!(links.failed, BTreeMap::from([(CLAIMED.to_owned(), 1), (CLAIMED_UNSEEN.to_owned(), 1)]));
        let one = record("a", &[("1.1", 1), ("1.8", 1), ("1.9", 1)]);
        let names: Vec<ExampleId> =
            links.moments(&one, &[], &[study("1.1", Some(1))], false, Unit::Study).into_iter().map(|m| m.0).collect();
        assert_eq!(names, [ExampleId::of_study("1.8")]);
    }
}
