//! A folder of images to an index of studies.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use synovia_cohort::{RejectedLog, Study};

use crate::dicom::{self, Instance, Role};
use crate::error::{Fault, ImagesError};
use crate::picture;
use crate::walk::walk;

/// What the files of a folder are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// DICOM Part 10 files, whatever their names; also data sets without preamble or meta information.
    Dicom,
    /// PNG and JPEG: each file a study of its own, named by the file's stem.
    Picture,
}

/// The studies of a folder, in the order of their Study Instance UIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudyIndex {
    /// One entry a study, with the image that stands for it.
    pub studies: Vec<Study>,
    /// Files that were looked at.
    pub n_files: u64,
    /// Files of them that are images and were taken.
    pub n_images: u64,
}

/// Files whose headers are read together: large enough for two cores, small enough that progress moves.
const BATCH: usize = 512;

/// Looks at every file under `root` and groups the images by study. Headers only are read, never a pixel; what is not taken
/// goes to `rejected` with its reason. The result and the order of rejections depend on the files alone, not on threads.
///
/// One image stands for a study: of the images for presentation that are neither localizers nor secondary captures
/// - radiographs (CR, DX, RG): Patient Orientation aside, View Position PA, else AP, else any, a lateral one last;
/// - slices (CT, MR, PT, NM): of the largest series the middle one along its normal;
/// - others: lowest series number, then instance number;
///
/// and of an image with several frames the middle frame. Images that were made for processing come after those for
/// presentation, secondary ones after both; a study of localizers alone is rejected.
///
/// `progress` is called now and then with the number of files that were looked at so far.
///
/// # Errors
/// [`ImagesError::Folder`] when `root` can't be listed.
pub fn scan(root: &Path, kind: ImageKind, rejected: &RejectedLog, progress: &(dyn Fn(u64) + Sync)) -> Result<StudyIndex, ImagesError> {
    let mut index = StudyIndex::default();
    let mut builder = Builder::new(rejected);
    let mut batch: Vec<String> = Vec::with_capacity(BATCH);
    let mut flush = |batch: &mut Vec<String>| {
        match kind {
            ImageKind::Dicom => {
                let read: Vec<_> = batch.par_iter().map(|file| dicom::index_file(&root.join(file))).collect();
                read.into_iter().zip(batch.drain(..)).for_each(|(result, file)| builder.take_instance(result, file));
            }
            ImageKind::Picture => {
                let read: Vec<_> = batch.par_iter().map(|file| picture::check_header(&root.join(file))).collect();
                read.into_iter().zip(batch.drain(..)).for_each(|(result, file)| builder.take_picture(result, &file));
            }
        }
        progress(builder.n_files);
    };
    let mut refuse = |file: &str, fault: Fault| rejected.push(&fault.into_rejected(file));
    let visit = |file| {
        batch.push(file);
        if batch.len() == BATCH {
            flush(&mut batch);
        }
    };
    walk(root, visit, &mut refuse).map_err(|source| ImagesError::Folder { path: root.to_owned(), source })?;
    flush(&mut batch);
    index.n_files = builder.n_files;
    builder.finish(&mut index);
    Ok(index)
}

struct Builder<'a> {
    rejected: &'a RejectedLog,
    n_files: u64,
    studies: HashMap<String, Group>,
    /// Digests of the SOP Instance UIDs taken: 16 bytes each, two of a billion of which collide with odds of 1e-21.
    instances: HashSet<(u64, u64)>,
}

/// A study that is being gathered.
#[derive(Default)]
struct Group {
    patients: Vec<String>,
    series: Vec<Series>,
    candidates: Vec<Candidate>,
}

struct Series {
    uid: String,
    number: i32,
    modality: String,
}

/// What is kept of an instance until the whole study is known.
struct Candidate {
    file: Box<str>,
    time: Option<synovia_cohort::Time>,
    position_mm: Option<f64>,
    series: u32,
    patient: u32,
    number: i32,
    frame: u32,
    role: Role,
    view: u8,
}

impl<'a> Builder<'a> {
    fn new(rejected: &'a RejectedLog) -> Self {
        Self { rejected, n_files: 0, studies: HashMap::new(), instances: HashSet::new() }
    }

    fn take_picture(&mut self, result: Result<(), Fault>, file: &str) {
        self.n_files += 1;
        let study = picture::study_of(Path::new(file), file);
        let taken =
            result.and_then(|()| if self.studies.contains_key(&study.study_instance_uid) { Err(Fault::DuplicateName) } else { Ok(()) });
        if let Err(fault) = taken {
            self.rejected.push(&fault.into_rejected(file));
            return;
        }
        let group = self.studies.entry(study.study_instance_uid).or_default();
        group.series.push(Series { uid: String::new(), number: 0, modality: String::new() });
        group.patients.push(String::new());
        group.candidates.push(Candidate {
            file: file.into(),
            time: None,
            position_mm: None,
            series: 0,
            patient: 0,
            number: 0,
            frame: 0,
            role: Role::Primary,
            view: 0,
        });
    }

    fn take_instance(&mut self, result: Result<Instance, Fault>, file: String) {
        self.n_files += 1;
        let instance = result.and_then(|instance| {
            let uid = &instance.sop_instance_uid;
            if uid.is_empty() || self.instances.insert((digest(0, uid), digest(1, uid))) {
                Ok(instance)
            } else {
                Err(Fault::DuplicateInstance)
            }
        });
        match instance {
            Err(fault) => self.rejected.push(&fault.into_rejected(&file)),
            Ok(Instance { study, series_instance_uid, series_number, number, role, view, position_mm, .. }) => {
                let group = self.studies.entry(study.study_instance_uid).or_default();
                let patient = position(&mut group.patients, |known| *known == study.patient, || study.patient.clone());
                let series = position(
                    &mut group.series,
                    |known| known.uid == series_instance_uid && known.modality == study.modality,
                    || Series { uid: series_instance_uid.clone(), number: series_number, modality: study.modality.clone() },
                );
                let file = file.into_boxed_str();
                let (time, frame) = (study.time, study.frame);
                group.candidates.push(Candidate { file, time, position_mm, series, patient, number, frame, role, view });
            }
        }
    }

    fn finish(self, index: &mut StudyIndex) {
        let mut studies: Vec<_> = self.studies.into_iter().collect();
        studies.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (uid, group) in studies {
            if let Some(study) = group.into_study(uid, self.rejected) {
                index.n_images += u64::from(study.n_images);
                index.studies.push(study);
            }
        }
    }
}

impl Group {
    fn into_study(mut self, study_instance_uid: String, rejected: &RejectedLog) -> Option<Study> {
        let patient = self.one_patient(rejected);
        let n_images = self.candidates.len() as u32;
        let best = self.candidates.iter().map(|candidate| candidate.role).min()?;
        if best == Role::Localizer {
            for candidate in &self.candidates {
                rejected.push(&Fault::Localizer.into_rejected(&candidate.file));
            }
            return None;
        }
        self.candidates.retain(|candidate| candidate.role == best);
        let chosen = self.representative()?;
        let modality = self.series[chosen.series as usize].modality.clone();
        let (time, file, frame) = (chosen.time, chosen.file.to_string(), chosen.frame);
        Some(Study { study_instance_uid, patient, time, modality, file, frame, n_images })
    }

    /// Leaves the instances of one patient: the one with most of them, of equals the first. An instance without Patient ID
    /// contradicts nobody.
    fn one_patient(&mut self, rejected: &RejectedLog) -> String {
        let mut counts = vec![0u32; self.patients.len()];
        self.candidates.iter().for_each(|candidate| counts[candidate.patient as usize] += 1);
        let named = (0..self.patients.len()).filter(|&k| !self.patients[k].is_empty());
        let Some(patient) = named.max_by_key(|&k| (counts[k], std::cmp::Reverse(k))) else { return String::new() };
        let patients = &self.patients;
        self.candidates.retain(|candidate| {
            let k = candidate.patient as usize;
            let same = k == patient || patients[k].is_empty();
            if !same {
                rejected.push(&Fault::TwoPatients.into_rejected(&candidate.file));
            }
            same
        });
        self.patients[patient].clone()
    }

    fn representative(&self) -> Option<&Candidate> {
        let mut counts = vec![0u32; self.series.len()];
        self.candidates.iter().for_each(|candidate| counts[candidate.series as usize] += 1);
        let series = |candidate: &Candidate| &self.series[candidate.series as usize];
        let volume = |candidate: &Candidate| matches!(series(candidate).modality.as_str(), "CT" | "MR" | "PT" | "NM");
        let radiograph = |candidate: &Candidate| matches!(series(candidate).modality.as_str(), "CR" | "DX" | "RG");
        let first = self.candidates.iter().min_by(|a, b| {
            let key = |c: &Candidate| {
                let view = if radiograph(c) { c.view } else { 0 };
                let size = if volume(c) { counts[c.series as usize] } else { 0 };
                (view, std::cmp::Reverse(size), series(c).number)
            };
            key(a).cmp(&key(b)).then_with(|| series(a).uid.cmp(&series(b).uid)).then_with(|| (a.number, &a.file).cmp(&(b.number, &b.file)))
        })?;
        if !volume(first) {
            return Some(first);
        }
        let mut slices: Vec<&Candidate> = self.candidates.iter().filter(|candidate| candidate.series == first.series).collect();
        // Positions order slices only where every slice has one.
        let placed = slices.iter().all(|slice| slice.position_mm.is_some());
        let place = |slice: &Candidate| slice.position_mm.filter(|_| placed).unwrap_or(0.0);
        slices.sort_unstable_by(|a, b| place(a).total_cmp(&place(b)).then_with(|| (a.number, &a.file).cmp(&(b.number, &b.file))));
        slices.get(slices.len() / 2).copied()
    }
}

/// The index of what `is` it, or of what `make` makes.
fn position<T>(known: &mut Vec<T>, is: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> u32 {
    // From the end: files of a series lie together.
    let found = known.iter().rposition(is);
    found.unwrap_or_else(|| {
        known.push(make());
        known.len() - 1
    }) as u32
}

fn digest(seed: u8, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, text).hash(&mut hasher);
    hasher.finish()
}
