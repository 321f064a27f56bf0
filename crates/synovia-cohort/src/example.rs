//! One prediction to be made, and the refusal of the future.

use crate::{Event, ExampleId, PatientId, PatientRecord, Study, Time};

/// A patient at a prediction time, with what was known then and nothing else.
///
/// The fields are private and the constructor is the only way in: an example that holds an image or an event from after
/// its prediction time cannot exist.
#[derive(Clone, Debug)]
pub struct Example<'a> {
    id: ExampleId,
    patient: PatientId,
    prediction_time: Time,
    image: Option<&'a Study>,
    history: &'a [Event],
    refused: Refused,
}

/// How much the constructor of an [`Example`] kept out, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// Events after the prediction time.
    pub future_events: u64,
    /// Images acquired after the prediction time, or at a time that nobody knows.
    pub future_images: u64,
    /// Events before the history window.
    pub old_events: u64,
}

impl std::ops::AddAssign for Refused {
    fn add_assign(&mut self, other: Self) {
        self.future_events += other.future_events;
        self.future_images += other.future_images;
        self.old_events += other.old_events;
    }
}

/// Why there is no example.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExampleError {
    /// Neither modality is there at the prediction time.
    #[error("no image and no record at the prediction time")]
    NothingKnown,
}

impl<'a> Example<'a> {
    /// An example of `patient` at `prediction_time`. `image` is refused when it was acquired later (or at an unknown
    /// time); of `record`, only events in (`prediction_time` − `history_days`, `prediction_time`] are kept.
    ///
    /// # Errors
    /// [`ExampleError::NothingKnown`] when no image is left and there is no record.
    pub fn new(
        id: ExampleId,
        patient: PatientId,
        prediction_time: Time,
        image: Option<&'a Study>,
        record: Option<&'a PatientRecord>,
        history_days: Option<f64>,
    ) -> Result<Self, ExampleError> {
        let mut refused = Refused::default();
        let image = image.filter(|study| {
            let known = study.time.is_some_and(|time| time <= prediction_time);
            refused.future_images += u64::from(!known);
            known
        });
        let history = record.map_or(&[][..], |record| {
            debug_assert!(record.events.is_sorted_by_key(|event| event.time));
            let end = record.events.partition_point(|event| event.time <= prediction_time);
            let start = history_days.map_or(0, |days| {
                let earliest = prediction_time.plus_days(-days);
                record.events[..end].partition_point(|event| event.time <= earliest)
            });
            refused.future_events += (record.events.len() - end) as u64;
            refused.old_events += start as u64;
            &record.events[start..end]
        });
        if image.is_none() && record.is_none() {
            return Err(ExampleError::NothingKnown);
        }
        Ok(Self { id, patient, prediction_time, image, history, refused })
    }

    /// Its id.
    pub fn id(&self) -> &ExampleId {
        &self.id
    }

    /// Whose.
    pub fn patient(&self) -> &PatientId {
        &self.patient
    }

    /// The moment of the prediction.
    pub fn prediction_time(&self) -> Time {
        self.prediction_time
    }

    /// The image, if there is one that existed at the prediction time.
    pub fn image(&self) -> Option<&'a Study> {
        self.image
    }

    /// Events up to the prediction time, in order.
    pub fn history(&self) -> &'a [Event] {
        self.history
    }

    /// What was kept out.
    pub fn refused(&self) -> Refused {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EventKind, EventValue, Patient};

    fn record(times: &[i64]) -> PatientRecord {
        let mut times = times.to_vec();
        times.sort_unstable();
        let event = |&t: &i64| Event {
            time: Time::from_seconds(t),
            kind: EventKind::Observation,
            code: "s|c".into(),
            display: "".into(),
            value: EventValue::None,
        };
        PatientRecord { id: PatientId::new("p"), patient: Patient::default(), events: times.iter().map(event).collect(), studies: vec![] }
    }

    fn study(time: Option<i64>) -> Study {
        Study {
            study_instance_uid: "1.2".into(),
            patient: "p".into(),
            accession: String::new(),
            time: time.map(Time::from_seconds),
            modality: "CT".into(),
            file: "a.dcm".into(),
            frame: 0,
            n_images: 1,
            slices: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn no_input_is_from_the_future(times in proptest::collection::vec(-1_000_000i64..1_000_000, 0..40), at in -1_000_000i64..1_000_000,
                                       shot in -1_000_000i64..1_000_000, history in proptest::option::of(0.0f64..20.0)) {
            let (record, study) = (record(&times), study(Some(shot)));
            let at = Time::from_seconds(at);
            let example = Example::new(ExampleId::of_study("1.2"), record.id.clone(), at, Some(&study), Some(&record), history).unwrap();
            prop_assert!(example.history().iter().all(|e| e.time <= at));
            prop_assert!(example.image().is_none_or(|s| s.time.unwrap() <= at));
            let refused = example.refused();
            prop_assert_eq!(example.history().len() as u64 + refused.future_events + refused.old_events, times.len() as u64);
            prop_assert_eq!(refused.future_events, times.iter().filter(|&&t| t > at.seconds()).count() as u64);
            prop_assert_eq!(refused.future_images, u64::from(shot > at.seconds()));
        }
    }

    #[test]
    fn an_image_of_unknown_time_is_refused() {
        let study = study(None);
        let error = Example::new(ExampleId::of_study("1.2"), PatientId::new("p"), Time::from_seconds(0), Some(&study), None, None);
        assert_eq!(error.unwrap_err(), ExampleError::NothingKnown);
    }
}
