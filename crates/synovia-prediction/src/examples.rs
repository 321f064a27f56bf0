//! Images and records to examples: those that the cohort stage would make.

use std::path::Path;

use synovia_cohort::{Example, ExampleId, PatientId, PatientRecord, Rejected, RejectedLog, Time};
use synovia_records::{FeaturePlan, FormatConfig, RecordStore};

use crate::{Exported, Links, Pictures, PredictionError, link};

/// One example's inputs; at least one of them is there.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its name, which is nobody's.
    pub id: ExampleId,
    /// Prepared pixels. Shape: `[channels, size, size]`.
    pub image: Option<Vec<f32>>,
    /// Features, NaN where missing. Shape: `[n_features]`.
    pub record: Option<Vec<f32>>,
}

/// The records in `path`, put aside in `scratch`. A table needs the column that names the pictures only when there are pictures.
///
/// # Errors
/// [`PredictionError::Records`] when nothing of the format is there or it can't be read.
pub fn records(
    path: &Path,
    format: &FormatConfig,
    with_images: bool,
    scratch: &Path,
    log: &RejectedLog,
) -> Result<RecordStore, PredictionError> {
    let mut format = format.clone();
    if let Some(layout) = format.csv.as_mut().filter(|_| !with_images) {
        layout.image = None;
    }
    Ok(synovia_records::ingest(path, &format, &scratch.join("records"), log, &|_| ())?)
}

/// Calls `f` with the examples that the cohort stage would make; then with each image alone that no record is of. A record
/// that knows of no study comes at its last event. What gives no example goes to `log`; how many studies could not be linked,
/// and why, to `unlinked`.
///
/// # Errors
/// That of `f`, or of reading the store.
pub fn for_each_example<E: From<PredictionError>>(
    pictures: &Pictures<'_>,
    store: Option<&RecordStore>,
    exported: &Exported,
    log: &RejectedLog,
    unlinked: &mut dyn FnMut(u64, &str),
    f: &mut dyn FnMut(Prepared) -> Result<(), E>,
) -> Result<(), E> {
    let studies = &pictures.studies;
    let mut alone: Vec<usize> = (0..studies.len()).collect();
    if let Some(store) = store {
        let links: Links = link(studies, store).map_err(PredictionError::from)?;
        links.failed.iter().for_each(|(reason, n)| unlinked(*n, reason));
        alone.retain(|&k| links.owners[k].is_none());
        let by_patient = links.by_patient();
        let timeless = exported.is_timeless();
        for partition in 0..store.n_partitions() {
            for record in store.load(partition).map_err(PredictionError::from)? {
                let of_patient = by_patient.get(&record.id).map_or(&[][..], Vec::as_slice);
                let moments = exported.anchor.moments(&links, &record, of_patient, studies, timeless);
                let left = of_patient.iter().filter(|&&k| !moments.iter().any(|(_, _, study)| *study == Some(k)));
                if moments.is_empty() || (exported.anchor.is_study() && !timeless) {
                    // An image whose time nobody knows can't be put beside a history.
                    alone.extend(left);
                } else {
                    let reason = "the model's examples of this patient are not on this image";
                    left.for_each(|&k| log.push(&Rejected::new(&studies[k].file, "", reason)));
                }
                let last = record.events.last().filter(|_| moments.is_empty()).map(|event| event.time);
                let last = last.map(|time| (ExampleId::of_patient(&record.id, time), time, None));
                let mut is_answered = !of_patient.is_empty() && moments.is_empty();
                for (id, time, study) in moments.into_iter().chain(last) {
                    let row = features(&record, time, exported);
                    let image = study.and_then(|k| pictures.load(k, log));
                    if image.is_some() || row.is_some() {
                        is_answered = true;
                        f(Prepared { id, image, record: row })?;
                    }
                }
                if !is_answered {
                    let patient = format!("patient {}", record.id.pseudonym());
                    log.push(&Rejected::new("records", patient, "nothing is known of the patient at the prediction time"));
                }
            }
        }
    }
    for k in alone {
        if let Some(image) = pictures.load(k, log) {
            f(Prepared { id: ExampleId::of_study(&studies[k].study_instance_uid), image: Some(image), record: None })?;
        }
    }
    Ok(())
}

fn features(record: &PatientRecord, time: Time, exported: &Exported) -> Option<Vec<f32>> {
    let plan: &FeaturePlan = exported.features.as_ref()?;
    let patient: PatientId = record.id.clone();
    let id = ExampleId::of_patient(&patient, time);
    let example = Example::new(id, patient, time, None, Some(record), exported.history_days).ok()?;
    let mut row = vec![f32::NAN; plan.features.len()];
    plan.row(&example, &record.patient, &mut row).then_some(row)
}
