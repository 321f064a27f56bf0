//! A folder of images to an index of studies.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use synovia_cohort::{RejectedLog, Study, Time};

use crate::dicom::{self, Instance, Role};
use crate::error::{Fault, ImagesError};
use crate::nifti;
use crate::picture;
use crate::root::Root;
use crate::sort::Sorter;
use crate::stack::{Plane, Stack, nearest, stack};
use crate::walk::walk;

/// What the files of a folder are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// DICOM Part 10 files, whatever their names; also data sets without preamble or meta information.
    Dicom,
    /// NIfTI-1 volumes, `.nii` and `.nii.gz`: each file a study of its own, named by the file without them.
    Nifti,
    /// PNG, JPEG and TIFF: each file a study of its own, named by the file's stem.
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

/// Which images are taken at all; the default takes all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// View Position, as `PA` or `MLO`; none for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<String>,
    /// `L`, `R`, `B` or `U`: Image Laterality, else Laterality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub laterality: Option<String>,
    /// What becomes of images whose pixels may show who the patient is.
    #[serde(default, skip_serializing_if = "BurnedIn::is_refused")]
    pub burned_in: BurnedIn,
    /// How many slices stand for a volume, evenly over it along its normal: 1 for the middle one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slices: usize,
    /// Millimetres between them: the slices nearest to places so far apart about the volume's middle, instead of evenly.
    #[serde(default, rename = "slice_spacing", skip_serializing_if = "Option::is_none")]
    pub slice_spacing_mm: Option<f64>,
}

impl Default for Selection {
    fn default() -> Self {
        Self { views: Vec::new(), laterality: None, burned_in: BurnedIn::default(), slices: 1, slice_spacing_mm: None }
    }
}

const fn one() -> usize {
    1
}

// serde gives a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_one(n: &usize) -> bool {
    *n == 1
}

/// Place `k` of `n` places that lie evenly over `len`: of one the middle.
pub(crate) const fn evenly(k: usize, n: usize, len: usize) -> usize {
    (2 * k + 1) * len / (2 * n)
}

/// What becomes of images whose pixels may show who the patient is: Burned In Annotation says so, or says nothing and the image
/// is of a kind that often does (secondary captures, ultrasound, screen saves).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BurnedIn {
    /// They are rejected.
    #[default]
    Refuse,
    /// They are taken as they are.
    Accept,
}

impl BurnedIn {
    // serde gives a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    const fn is_refused(&self) -> bool {
        matches!(self, Self::Refuse)
    }

    pub(crate) const fn takes_any(self) -> bool {
        matches!(self, Self::Accept)
    }
}

impl Selection {
    pub(crate) fn check(&self, instance: &Instance) -> Result<(), Fault> {
        if instance.may_show_name && !self.burned_in.takes_any() {
            return Err(Fault::MayShowName);
        }
        if !self.views.is_empty() && !self.views.contains(&instance.view_position) {
            return Err(Fault::NotSelected("view"));
        }
        if self.laterality.as_ref().is_some_and(|side| *side != instance.laterality) {
            return Err(Fault::NotSelected("laterality"));
        }
        Ok(())
    }
}

/// What a scan counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Files that were looked at.
    pub n_files: u64,
    /// Files of them that are images and were taken.
    pub n_images: u64,
    /// Studies that they make.
    pub n_studies: u64,
}

/// Files whose headers are read together: large enough for two cores, small enough that progress moves.
const BATCH: usize = 512;
/// What is held of the files before it goes to disk: some twenty thousand files. Two sorters hold as much at most.
const HELD_BYTES: usize = 6 << 20;

/// Looks at every file under `root` and groups the images by study. Headers only are read, never a pixel; what is not taken
/// goes to `rejected` with its reason. The result and the order of rejections depend on the files alone, not on threads.
///
/// One image stands for a study: of the images for presentation that are neither localizers nor secondary captures
/// - radiographs (CR, DX, RG): Patient Orientation aside, View Position PA, else AP, else any, a lateral one last;
/// - slices (CT, MR, PT, NM): of the largest series the middle one along its normal, leaving out slices that are turned
///   against the others;
/// - others: lowest series number, then instance number;
///
/// and of an image with several frames the middle frame (along the normal where each has a place of its own). Images that were made for processing come after those for
/// presentation, secondary ones after both; a study of localizers alone is rejected.
///
/// `progress` is called now and then with the number of files that were looked at so far.
///
/// # Errors
/// [`ImagesError::Folder`] when `root` can't be listed, [`ImagesError::Scratch`] when what is gathered can't be put aside.
pub fn scan(root: &Path, kind: ImageKind, rejected: &RejectedLog, progress: &(dyn Fn(u64) + Sync)) -> Result<StudyIndex, ImagesError> {
    let mut index = StudyIndex::default();
    let mut take = |study| {
        index.studies.push(study);
        Ok(())
    };
    let counts = scan_into(root, kind, &Selection::default(), &std::env::temp_dir(), rejected, progress, &mut take)?;
    Ok(StudyIndex { n_files: counts.n_files, n_images: counts.n_images, ..index })
}

/// [`scan`], with each study given to `take` in the order of the Study Instance UIDs. Memory does not grow with the number
/// of files or studies: what is gathered goes to unnamed files in `scratch`. (The names within one folder are held, and the
/// instances of one study.)
///
/// # Errors
/// As [`scan`]; what `take` returns comes back as [`ImagesError::Scratch`].
pub fn scan_into(
    root: &Path,
    kind: ImageKind,
    selection: &Selection,
    scratch: &Path,
    rejected: &RejectedLog,
    progress: &(dyn Fn(u64) + Sync),
    take: &mut dyn FnMut(Study) -> io::Result<()>,
) -> Result<ScanCounts, ImagesError> {
    let mut refuse = |file: &str, fault: Fault| rejected.push(&fault.into_rejected(file));
    let mut list = |visit: &mut dyn FnMut(String)| {
        walk(root, visit, &mut refuse).map_err(|source| ImagesError::Folder { path: root.to_owned(), source })
    };
    let read = |file: &str| Root::Folder(root).instance(file, kind, selection);
    scan_files(&mut list, &read, kind, selection, scratch, rejected, progress, take)
}

/// [`scan_into`] of the files that `list` calls its argument with; `read` reads one of them.
#[allow(clippy::too_many_arguments)]
pub(crate) fn scan_files(
    list: &mut dyn FnMut(&mut dyn FnMut(String)) -> Result<(), ImagesError>,
    read: &(dyn Fn(&str) -> Result<Instance, Fault> + Sync),
    kind: ImageKind,
    selection: &Selection,
    scratch: &Path,
    rejected: &RejectedLog,
    progress: &(dyn Fn(u64) + Sync),
    take: &mut dyn FnMut(Study) -> io::Result<()>,
) -> Result<ScanCounts, ImagesError> {
    let failed = |source| ImagesError::Scratch { path: scratch.to_owned(), source };
    let mut gathered = Gathered::new(kind, selection, scratch, rejected);
    let mut failure = None;
    let mut batch: Vec<String> = Vec::with_capacity(BATCH);
    let mut flush = |batch: &mut Vec<String>| {
        // Of one file another thread would be told in more time than it takes.
        let read: Vec<_> =
            if batch.len() > 1 { batch.par_iter().map(|file| read(file)).collect() } else { batch.iter().map(|file| read(file)).collect() };
        for (result, file) in read.into_iter().zip(batch.drain(..)) {
            if let Err(error) = gathered.take(result, file) {
                failure.get_or_insert(error);
            }
        }
        progress(gathered.n_files);
    };
    list(&mut |file| {
        batch.push(file);
        if batch.len() == BATCH {
            flush(&mut batch);
        }
    })?;
    flush(&mut batch);
    if let Some(error) = failure {
        return Err(failed(error));
    }
    gathered.studies(take).map_err(failed)
}

/// What one file is, by its header, if it is selected.
pub(crate) fn instance_of(path: &Path, kind: ImageKind, selection: &Selection) -> Result<Instance, Fault> {
    match kind {
        ImageKind::Dicom => {
            let instance = dicom::index_file(path)?;
            selection.check(&instance)?;
            Ok(instance)
        }
        ImageKind::Nifti => {
            nifti::check_header(path)?;
            Ok(Instance::of_picture(nifti::study_of(path, "")))
        }
        ImageKind::Picture => {
            picture::check_header(path)?;
            Ok(Instance::of_picture(picture::study_of(path, "")))
        }
    }
}

/// What is kept of a file until its whole study is known.
#[derive(Serialize, Deserialize)]
struct Record {
    study: String,
    /// The place of the file among all.
    ordinal: u64,
    file: String,
    patient: String,
    accession: String,
    series: String,
    modality: String,
    time: Option<Time>,
    /// Position and orientation as the bits of `f64`s: they are the same after the way through a file.
    plane: Option<[u64; 9]>,
    series_number: i32,
    number: i32,
    frame: u32,
    role: Role,
    view: u8,
}

impl Record {
    fn key(&self) -> (&str, u64) {
        (&self.study, self.ordinal)
    }

    fn bytes(&self) -> usize {
        size_of::<Identified>()
            + self.study.len()
            + self.file.len()
            + self.patient.len()
            + self.accession.len()
            + self.series.len()
            + 6 * 16
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Record {}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Record {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// A record in the order of its SOP Instance UID: digests, two of a billion of which collide with odds of 1e-20.
#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Identified {
    /// `None` where there is no UID.
    digest: Option<(u64, u64)>,
    ordinal: u64,
    record: Record,
}

/// What is gathered of a source's files until all are known.
pub(crate) struct Gathered<'a> {
    kind: ImageKind,
    selection: &'a Selection,
    scratch: PathBuf,
    rejected: &'a RejectedLog,
    n_files: u64,
    by_instance: Sorter<Identified>,
}

impl<'a> Gathered<'a> {
    /// `selection` says how many slices stand for a volume.
    pub(crate) fn new(kind: ImageKind, selection: &'a Selection, scratch: &Path, rejected: &'a RejectedLog) -> Self {
        Self { kind, selection, scratch: scratch.to_owned(), rejected, n_files: 0, by_instance: Sorter::new(scratch, HELD_BYTES) }
    }

    /// Files that were looked at so far.
    pub(crate) fn n_files(&self) -> u64 {
        self.n_files
    }

    /// Takes what one file is, or what is wrong with it; `file` is its name in the source.
    pub(crate) fn take(&mut self, result: Result<Instance, Fault>, file: String) -> io::Result<()> {
        let ordinal = self.n_files;
        self.n_files += 1;
        let instance = match result {
            Err(fault) => {
                self.rejected.push(&fault.into_rejected(&file));
                return Ok(());
            }
            Ok(instance) => instance,
        };
        let Instance { study, series_instance_uid, sop_instance_uid: uid, series_number, number, role, view, plane, .. } = instance;
        let record = Record {
            study: study.study_instance_uid,
            ordinal,
            file,
            patient: study.patient,
            accession: study.accession,
            series: series_instance_uid,
            modality: study.modality,
            time: study.time,
            plane: plane
                .map(|Plane { position_mm: [x, y, z], orientation: [a, b, c, d, e, f] }| [x, y, z, a, b, c, d, e, f].map(f64::to_bits)),
            series_number,
            number,
            frame: study.frame,
            role,
            view,
        };
        let digest = (!uid.is_empty()).then(|| (digest(0, &uid), digest(1, &uid)));
        let bytes = record.bytes();
        self.by_instance.push(Identified { digest, ordinal, record }, bytes)
    }

    /// Leaves out what came twice, and puts the studies together.
    pub(crate) fn studies(self, take: &mut dyn FnMut(Study) -> io::Result<()>) -> io::Result<ScanCounts> {
        let mut counts = ScanCounts { n_files: self.n_files, ..ScanCounts::default() };
        let mut by_study = Sorter::new(&self.scratch, HELD_BYTES);
        let mut last = None;
        for identified in self.by_instance.sorted()? {
            let Identified { digest, record, .. } = identified?;
            if digest.is_some() && digest == last {
                self.rejected.push(&Fault::DuplicateInstance.into_rejected(&record.file));
                continue;
            }
            last = digest;
            let bytes = record.bytes();
            by_study.push(record, bytes)?;
        }
        let mut records = by_study.sorted()?.peekable();
        while let Some(record) = records.next() {
            let first = record?;
            let uid = first.study.clone();
            let mut group = Group::default();
            group.add(first);
            while let Some(record) = records.next_if(|next| next.as_ref().is_ok_and(|next| next.study == uid)) {
                let record = record?;
                if self.kind == ImageKind::Dicom {
                    group.add(record);
                } else {
                    self.rejected.push(&Fault::DuplicateName.into_rejected(&record.file));
                }
            }
            if let Some(study) = group.into_study(uid, self.selection, self.rejected) {
                counts.n_images += u64::from(study.n_images);
                counts.n_studies += 1;
                take(study)?;
            }
        }
        Ok(counts)
    }
}

/// A study that is being gathered.
#[derive(Default)]
struct Group {
    patients: Vec<String>,
    accessions: Vec<String>,
    series: Vec<Series>,
    candidates: Vec<Candidate>,
}

struct Series {
    uid: String,
    number: i32,
    modality: String,
}

/// An instance of the study.
struct Candidate {
    file: Box<str>,
    time: Option<Time>,
    plane: Option<Plane>,
    series: u32,
    patient: u32,
    accession: u32,
    number: i32,
    frame: u32,
    role: Role,
    view: u8,
}

impl Group {
    fn add(&mut self, record: Record) {
        let Record { file, patient, accession, series, modality, time, plane, series_number, number, frame, role, view, .. } = record;
        let patient = position(&mut self.patients, |known| *known == patient, || patient.clone());
        let series = position(
            &mut self.series,
            |known| known.uid == series && known.modality == modality,
            || Series { uid: series.clone(), number: series_number, modality: modality.clone() },
        );
        let accession = position(&mut self.accessions, |known| *known == accession, || accession.clone());
        let file = file.into_boxed_str();
        let plane = plane.map(|bits| {
            let [x, y, z, a, b, c, d, e, f] = bits.map(f64::from_bits);
            Plane { position_mm: [x, y, z], orientation: [a, b, c, d, e, f] }
        });
        self.candidates.push(Candidate { file, time, plane, series, patient, accession, number, frame, role, view });
    }

    fn into_study(mut self, study_instance_uid: String, selection: &Selection, rejected: &RejectedLog) -> Option<Study> {
        let &Selection { slices: n_slices, slice_spacing_mm, .. } = selection;
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
        let (chosen, stacked, along_mm) = self.representative()?;
        let modality = self.series[chosen.series as usize].modality.clone();
        let (time, file, frame) = (chosen.time, chosen.file.to_string(), chosen.frame);
        // Of one object with several frames they are chosen when it is read.
        let slices = match slice_spacing_mm {
            _ if n_slices == 1 || stacked.len() < 2 => Vec::new(),
            None => (0..n_slices).map(|k| evenly(k, n_slices, stacked.len())).collect(),
            Some(_) if along_mm.is_empty() => {
                rejected.push(&Fault::NoPlaces.into_rejected(&file));
                return None;
            }
            Some(spacing) => nearest(&along_mm, n_slices, spacing),
        };
        let slices = slices.into_iter().map(|k| (stacked[k].file.to_string(), stacked[k].frame)).collect();
        // Of the first instance that has one.
        let mut accessions = self.candidates.iter().map(|candidate| &self.accessions[candidate.accession as usize]);
        let accession = accessions.find(|accession| !accession.is_empty()).cloned().unwrap_or_default();
        Some(Study { study_instance_uid, patient, accession, time, modality, file, frame, n_images, slices })
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

    /// The instance that stands for the study; of slices the middle one, with all that make the stack, in order, and their places
    /// along its normal, where they have some.
    fn representative(&self) -> Option<(&Candidate, Vec<&Candidate>, Vec<f64>)> {
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
            return Some((first, Vec::new(), Vec::new()));
        }
        let mut slices: Vec<&Candidate> = self.candidates.iter().filter(|candidate| candidate.series == first.series).collect();
        slices.sort_unstable_by(|a, b| (a.number, &a.file).cmp(&(b.number, &b.file)));
        // Positions order slices only where every slice has one. Slices that are turned against the others, and those at the
        // place of another, are no candidates.
        let planes: Option<Vec<Plane>> = slices.iter().map(|slice| slice.plane).collect();
        let Stack { order, along_mm, .. } = planes.map(|planes| stack(&planes)).unwrap_or_default();
        if !order.is_empty() {
            slices = order.into_iter().map(|k| slices[k]).collect();
        }
        Some((slices[slices.len() / 2], slices, along_mm))
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
