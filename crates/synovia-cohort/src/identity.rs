//! Identifiers that never show themselves.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A patient's identifier as the source has it.
///
/// `Debug` and `Display` print the [pseudonym](PatientId::pseudonym), so that no log, message or panic can show the
/// identifier itself; [`PatientId::reveal`] is the one way to it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatientId(Arc<str>);

impl PatientId {
    /// Wraps an identifier; surrounding white space is not part of it.
    pub fn new(id: &str) -> Self {
        Self(id.trim().into())
    }

    /// The identifier itself, for linking only: never for a log, an error, a file of the run folder or an answer.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// 16 hexadecimal digits of SHA-256 over the identifier: the same for the same patient in every run.
    pub fn pseudonym(&self) -> String {
        digest("patient", &self.0)
    }
}

impl fmt::Display for PatientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pseudonym())
    }
}

impl fmt::Debug for PatientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PatientId({})", self.pseudonym())
    }
}

/// The name of an example in every file of a run: a digest of what it stands for, so that a simulated cohort's truth,
/// the predictions of two runs and two variants of a model can be joined on it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ExampleId(Arc<str>);

impl ExampleId {
    /// The example of an imaging study, from its Study Instance UID.
    pub fn of_study(study_instance_uid: &str) -> Self {
        Self(digest("study", study_instance_uid.trim_end_matches(['\0', ' '])).into())
    }

    /// The example of a patient without an image at a prediction time (seconds since 1970-01-01 UTC).
    pub fn of_patient(patient: &PatientId, prediction_time: crate::Time) -> Self {
        Self(digest("visit", &format!("{}@{}", patient.reveal(), prediction_time.seconds())).into())
    }

    /// An id read back from a file of ours.
    pub fn from_digest(text: &str) -> Self {
        Self(text.into())
    }

    /// Its 16 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number that two persons of the same family and first given name share, whatever their letters' case and the space around
/// them. Who has a list of names can find the name again, so that it stays where the records are.
pub fn name_digest(family: &str, given: &str) -> u64 {
    let folded = format!("{}^{}", family.trim().to_lowercase(), given.trim().to_lowercase());
    u64::from_str_radix(&digest("name", &folded), 16).unwrap_or_default()
}

fn digest(domain: &str, text: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"synovia/");
    hash.update(domain.as_bytes());
    hash.update([0]);
    hash.update(text.as_bytes());
    hex::encode(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patient_is_never_printed() {
        let patient = PatientId::new(" MRN-0042 ");
        assert_eq!(patient.reveal(), "MRN-0042");
        for shown in [format!("{patient}"), format!("{patient:?}"), format!("{:#?}", Some(&patient))] {
            assert!(!shown.contains("0042"), "{shown}");
        }
    }

    #[test]
    fn a_name_is_the_same_in_any_case() {
        assert_eq!(name_digest("Müller", "Ada"), name_digest(" MÜLLER", "ada "));
        assert_ne!(name_digest("Müller", "Ada"), name_digest("Ada", "Müller"));
    }

    #[test]
    fn dicom_padding_is_not_part_of_a_uid() {
        assert_eq!(ExampleId::of_study("1.2.3\0"), ExampleId::of_study("1.2.3"));
        assert_ne!(ExampleId::of_study("1.2.3"), ExampleId::of_study("1.2.4"));
    }
}
