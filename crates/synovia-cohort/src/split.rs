//! Which patient is used for what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::PatientId;

/// What a patient's examples are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Parameters and feature statistics are fitted on it.
    Train,
    /// Early stopping, calibration and thresholds are fitted on it.
    Validation,
    /// Only measured on.
    Test,
}

impl Split {
    /// Its name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// The split of a name in a file of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Train, Self::Validation, Self::Test].into_iter().find(|s| s.as_str() == name)
    }
}

/// Shares of the patients; they sum to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fractions {
    /// Share for training.
    pub train: f64,
    /// Share for validation.
    pub validation: f64,
    /// Share for testing.
    pub test: f64,
}

/// Why patients can't be divided.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SplitError {
    /// Shares are negative or do not sum to 1.
    #[error("split fractions are {0}, {1}, {2}: each must be in [0, 1], train above 0, and their sum 1")]
    Fractions(f64, f64, f64),
    /// Fewer than two folds, or more folds than patients.
    #[error("{folds} folds of {patients} patients: at least 2 folds and a patient in each are needed")]
    Folds {
        /// Folds asked for.
        folds: usize,
        /// Patients there are.
        patients: usize,
    },
}

impl Fractions {
    /// The same, if they are shares.
    pub fn checked(self) -> Result<Self, SplitError> {
        let all = [self.train, self.validation, self.test];
        let valid = all.iter().all(|f| (0.0..=1.0).contains(f)) && self.train > 0.0 && (all.iter().sum::<f64>() - 1.0).abs() < 1e-6;
        if valid { Ok(self) } else { Err(SplitError::Fractions(self.train, self.validation, self.test)) }
    }

    /// The split of a place in [0, 1).
    pub(crate) fn at(self, place: f64) -> Split {
        if place < self.train {
            Split::Train
        } else if place < self.train + self.validation {
            Split::Validation
        } else if self.test > 0.0 {
            Split::Test
        } else {
            // The shares sum to a little less than 1.
            Split::Validation
        }
    }
}

fn keyed_hash(patient: &PatientId, seed: u64) -> [u8; 32] {
    keyed_hash_for(b"synovia/split", patient, seed)
}

fn keyed_hash_for(purpose: &[u8], patient: &PatientId, seed: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(purpose);
    hash.update(seed.to_le_bytes());
    hash.update(patient.reveal().as_bytes());
    hash.finalize().into()
}

/// A place in [0, 1) that follows from the seed and the identifier alone.
pub(crate) fn position(patient: &PatientId, seed: u64) -> f64 {
    unit(keyed_hash(patient, seed))
}

fn unit(hash: [u8; 32]) -> f64 {
    let word = u64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
    (word >> 11) as f64 / (1u64 << 53) as f64
}

/// Whether a patient is of the `share` whose labels may be used: by a keyed hash that has nothing to do with the splits', so
/// that a larger share holds a smaller one.
pub fn is_labelled(patient: &PatientId, seed: u64, share: f64) -> bool {
    unit(keyed_hash_for(b"synovia/labels", patient, seed)) < share
}

/// Divides patients: each goes to exactly one split, all its examples with it.
///
/// Within each stratum (a text such as the label; empty for none) patients are ordered by a keyed hash of their
/// identifier, so that the order of the input does not matter and the shares are met to within one patient a stratum.
pub fn assign(patients: &BTreeMap<PatientId, String>, fractions: Fractions, seed: u64) -> Result<BTreeMap<PatientId, Split>, SplitError> {
    let fractions = fractions.checked()?;
    let mut splits = BTreeMap::new();
    for members in ordered_strata(patients, seed).into_values() {
        let n = members.len() as f64;
        let (first, second) = ((fractions.train * n).round() as usize, ((fractions.train + fractions.validation) * n).round() as usize);
        for (k, patient) in members.into_iter().enumerate() {
            let split = if k < first {
                Split::Train
            } else if k < second {
                Split::Validation
            } else {
                Split::Test
            };
            splits.insert(patient.clone(), split);
        }
    }
    Ok(splits)
}

/// Divides patients into `folds` parts of equal size, each stratum by itself: patient → fold.
pub fn assign_folds(patients: &BTreeMap<PatientId, String>, folds: usize, seed: u64) -> Result<BTreeMap<PatientId, usize>, SplitError> {
    if folds < 2 || patients.len() < folds {
        return Err(SplitError::Folds { folds, patients: patients.len() });
    }
    let mut next = 0;
    let mut out = BTreeMap::new();
    for members in ordered_strata(patients, seed).into_values() {
        for patient in members {
            out.insert(patient.clone(), next % folds);
            next += 1;
        }
    }
    Ok(out)
}

fn ordered_strata(patients: &BTreeMap<PatientId, String>, seed: u64) -> BTreeMap<&str, Vec<&PatientId>> {
    let mut strata: BTreeMap<&str, Vec<([u8; 32], &PatientId)>> = BTreeMap::new();
    for (patient, stratum) in patients {
        strata.entry(stratum).or_default().push((keyed_hash(patient, seed), patient));
    }
    strata
        .into_iter()
        .map(|(stratum, mut members)| {
            members.sort_unstable();
            (stratum, members.into_iter().map(|(_, patient)| patient).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_larger_share_of_labels_holds_a_smaller_one() {
        let patients: Vec<PatientId> = (0..2000).map(|k| PatientId::new(&format!("p{k}"))).collect();
        let of = |seed, share| patients.iter().filter(|patient| is_labelled(patient, seed, share)).cloned().collect::<Vec<_>>();
        let (few, more) = (of(1, 0.1), of(1, 0.3));
        assert!(few.iter().all(|patient| more.contains(patient)));
        // Four standard deviations of the number.
        assert!((few.len() as f64 - 200.0).abs() < 54.0 && (more.len() as f64 - 600.0).abs() < 82.0, "{} {}", few.len(), more.len());
        assert_eq!(of(1, 1.0).len(), 2000);
        assert_ne!(of(2, 0.1), few);
    }

    use proptest::prelude::*;

    use super::*;

    fn patients(n: usize) -> BTreeMap<PatientId, String> {
        (0..n).map(|k| (PatientId::new(&format!("p{k}")), (k % 3 == 0).to_string())).collect()
    }

    proptest! {
        #[test]
        fn shares_are_met_in_each_stratum(n in 1usize..300, seed: u64, train in 0.1f64..0.8) {
            let fractions = Fractions { train, validation: (1.0 - train) / 2.0, test: (1.0 - train) / 2.0 };
            let patients = patients(n);
            let splits = assign(&patients, fractions, seed).unwrap();
            prop_assert_eq!(splits.len(), n);
            for stratum in ["true", "false"] {
                let members = patients.iter().filter(|(_, s)| *s == stratum).count() as f64;
                let trained = patients.iter().filter(|(p, s)| *s == stratum && splits[*p] == Split::Train).count() as f64;
                prop_assert!((trained - train * members).abs() <= 0.5 + 1e-9);
            }
        }

        #[test]
        fn folds_are_even(n in 5usize..200, seed: u64) {
            let folds = assign_folds(&patients(n), 5, seed).unwrap();
            let mut counts = [0usize; 5];
            for &fold in folds.values() {
                counts[fold] += 1;
            }
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let fractions = Fractions { train: 0.7, validation: 0.1, test: 0.2 };
        let of = |seed| assign(&patients(100), fractions, seed).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert!(assign(&patients(3), Fractions { train: 0.9, validation: 0.2, test: 0.2 }, 1).is_err());
    }
}
