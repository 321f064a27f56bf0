//! Which patient of the records each study of the images is of, and when predictions are made.

use std::collections::{BTreeMap, HashMap};

use synovia_cohort::{ExampleId, PatientId, PatientRecord, Study, Time};
use synovia_records::RecordStore;

/// How a study was linked, the surest first.
const BY_UID: &str = "by study UID";
const BY_TIME: &str = "by patient identifier and time";
const BY_PATIENT: &str = "by patient identifier alone";
/// A charted study without a UID of ours is the image's when it began within so many days of it.
const SAME_STUDY_DAYS: f64 = 1.0;

/// What linking found.
pub struct Links {
    /// Owner of each study, in the order in which they were given.
    pub owners: Vec<Option<PatientId>>,
    /// What linked each.
    pub kinds: Vec<Option<&'static str>>,
    /// Studies without one, by reason.
    pub failed: BTreeMap<String, u64>,
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

/// A patient's predictions, a study each, in order of time: one when each image was taken, and one when each study that
/// the chart knows, but that has no image, began. A study whose time nobody knows has none.
///
/// - of_patient: places in `studies` of those that are the patient's
pub fn moments(record: &PatientRecord, of_patient: &[usize], studies: &[Study]) -> Vec<Moment> {
    let charted = |uid: &str| record.studies.iter().find(|link| link.study_instance_uid == uid).and_then(|link| link.started);
    let seen = of_patient.iter().filter_map(|&k| {
        let uid = &studies[k].study_instance_uid;
        Some((ExampleId::of_study(uid), studies[k].time.or_else(|| charted(uid))?, Some(k)))
    });
    let has_image = |uid: &str| of_patient.iter().any(|&k| studies[k].study_instance_uid == uid);
    let unseen = record.studies.iter().filter(|link| !has_image(&link.study_instance_uid));
    let unseen = unseen.filter_map(|link| Some((ExampleId::of_study(&link.study_instance_uid), link.started?, None)));
    let mut moments: Vec<Moment> = seen.chain(unseen).collect();
    moments.sort_by_key(|(id, time, _)| (*time, id.clone()));
    moments.dedup_by(|a, b| a.0 == b.0);
    moments
}

/// Links by the chart's own word (study UID), else by the identifier in the image. A study that two patients claim, or
/// whose chart and image disagree, is nobody's.
///
/// # Errors
/// That of reading the store.
pub fn link(studies: &[Study], store: &RecordStore) -> anyhow::Result<Links> {
    let by_uid: HashMap<&str, usize> = studies.iter().enumerate().map(|(k, s)| (s.study_instance_uid.as_str(), k)).collect();
    let mut by_patient: HashMap<&str, Vec<usize>> = HashMap::new();
    for (k, study) in studies.iter().enumerate().filter(|(_, study)| !study.patient.is_empty()) {
        by_patient.entry(&study.patient).or_default().push(k);
    }
    let n = studies.len();
    let (mut by_chart, mut by_image) = (vec![None::<PatientId>; n], vec![None::<PatientId>; n]);
    let (mut ambiguous, mut near) = (vec![false; n], vec![false; n]);
    let mut claim = |owners: &mut Vec<Option<PatientId>>, k: usize, patient: &PatientId| match &owners[k] {
        Some(owner) if owner != patient => ambiguous[k] = true,
        _ => owners[k] = Some(patient.clone()),
    };
    for partition in 0..store.n_partitions() {
        for record in store.load(partition)? {
            for link in &record.studies {
                if let Some(&k) = by_uid.get(link.study_instance_uid.as_str()) {
                    claim(&mut by_chart, k, &record.id);
                }
            }
            let names = record.patient.identifiers.iter().map(String::as_str).chain([record.id.reveal()]);
            for k in names.filter_map(|name| by_patient.get(name)).flatten() {
                claim(&mut by_image, *k, &record.id);
                let taken = studies[*k].time;
                let charted = record.studies.iter().filter(|link| !by_uid.contains_key(link.study_instance_uid.as_str()));
                near[*k] |= charted
                    .filter_map(|link| link.started.zip(taken))
                    .any(|(charted, taken)| charted.days_since(taken).abs() <= SAME_STUDY_DAYS);
            }
        }
    }
    let mut links = Links { owners: vec![None; n], kinds: vec![None; n], failed: BTreeMap::new() };
    for k in 0..n {
        let failed = match (&by_chart[k], &by_image[k]) {
            _ if ambiguous[k] => Some("two patients claim the study"),
            (Some(chart), Some(image)) if chart != image => Some("the chart and the image name different patients"),
            (None, None) => Some("no patient of the records has this study"),
            _ => None,
        };
        if let Some(reason) = failed {
            *links.failed.entry(reason.to_owned()).or_default() += 1;
        } else {
            links.kinds[k] = Some(match (&by_chart[k], near[k]) {
                (Some(_), _) => BY_UID,
                (None, true) => BY_TIME,
                (None, false) => BY_PATIENT,
            });
            links.owners[k] = by_chart[k].take().or_else(|| by_image[k].take());
        }
    }
    Ok(links)
}
