//! How a cohort is divided: by shares of patients, by folds, by time or by site, a group of patients always on one side.

use std::collections::BTreeMap;

use crate::split::{Fractions, Split, SplitError, assign, assign_folds, position};
use crate::{PatientId, Time};

/// A patient to be divided.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Who.
    pub patient: PatientId,
    /// The household, family or other group that must not be torn apart; `None` for a patient by themselves.
    pub group: Option<String>,
    /// Where the patient is cared for.
    pub site: Option<String>,
    /// The label that strata are made of: the largest that the patient has.
    pub label: Option<f32>,
    /// The patient's first prediction.
    pub first: Time,
}

/// Where validation patients come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Validating {
    /// A share of the patients that would train.
    Share(f64),
    /// Those whose first prediction is at this time or later, and before the test split begins.
    From(Time),
    /// Those of these sites.
    Sites(Vec<String>),
}

/// How patients are divided.
#[derive(Clone, Debug, PartialEq)]
pub enum Division {
    /// By shares.
    Shares {
        /// The shares.
        fractions: Fractions,
        /// See [`Division::divide`].
        stratified: bool,
    },
    /// The test split is one of so many folds, the rest goes by shares.
    Fold {
        /// How many folds there are.
        folds: usize,
        /// Which is tested on, from 0.
        fold: usize,
        /// Shares of the rest.
        fractions: Fractions,
        /// See [`Division::divide`].
        stratified: bool,
    },
    /// Patients whose first prediction is at a time or later are tested on.
    Time {
        /// Where validation patients come from: a share, or a time.
        validation: Validating,
        /// When the test split begins.
        test_from: Time,
    },
    /// Patients of some sites are tested on.
    Sites {
        /// Where validation patients come from: a share, or sites.
        validation: Validating,
        /// The sites.
        test: Vec<String>,
    },
}

/// Members of a group, or one patient.
struct Together {
    label: Option<f32>,
    first: Time,
    side: Option<Split>,
}

impl Division {
    /// The split of each patient; `None` for who is left out: of an unknown site, or of another site than the group's.
    ///
    /// A patient's side follows from a keyed hash of the group's name, else of the patient's, from the site and from the first
    /// prediction alone, so that a new patient never moves an old one. Two things give that up. Strata (`stratified`) meet their
    /// shares to within one patient each, for which one patient at each boundary may move. And a group goes by time and site of
    /// all its members, so that a new member may move it.
    ///
    /// # Errors
    /// [`SplitError`] for shares that are none, or more folds than patients.
    pub fn divide(&self, candidates: &[Candidate], seed: u64) -> Result<BTreeMap<PatientId, Option<Split>>, SplitError> {
        let mut together: BTreeMap<PatientId, Together> = BTreeMap::new();
        for candidate in candidates {
            let side = self.side_of_site(candidate.site.as_deref());
            let entry = together.entry(key(candidate)).or_insert(Together { label: None, first: candidate.first, side });
            entry.label = candidate.label.into_iter().chain(entry.label).reduce(f32::max);
            entry.first = entry.first.min(candidate.first);
            entry.side = entry.side.max(side);
        }
        let splits = self.divide_groups(&together, seed)?;
        let of = |candidate: &Candidate| {
            let key = key(candidate);
            let is_torn = matches!(self, Self::Sites { .. }) && self.side_of_site(candidate.site.as_deref()) != together[&key].side;
            splits.get(&key).copied().filter(|_| !is_torn)
        };
        Ok(candidates.iter().map(|candidate| (candidate.patient.clone(), of(candidate))).collect())
    }

    /// Whether an example of a patient of `split` belongs there too by its own time: of a division by time, what a patient
    /// has on another side is left over.
    pub fn keeps(&self, split: Split, at: Time) -> bool {
        let Self::Time { validation, test_from } = self else { return true };
        let side = match validation {
            _ if at >= *test_from => Split::Test,
            Validating::From(from) if at >= *from => Split::Validation,
            Validating::Share(_) if split == Split::Validation => Split::Validation,
            _ => Split::Train,
        };
        side == split
    }

    /// The side that a site is on, as far as it says it: [`Split::Train`] may still become validation by a share.
    fn side_of_site(&self, site: Option<&str>) -> Option<Split> {
        let Self::Sites { validation, test } = self else { return None };
        let site = site?;
        let among = |sites: &[String]| sites.iter().any(|named| named == site);
        Some(match validation {
            _ if among(test) => Split::Test,
            Validating::Sites(sites) if among(sites) => Split::Validation,
            _ => Split::Train,
        })
    }

    fn divide_groups(&self, groups: &BTreeMap<PatientId, Together>, seed: u64) -> Result<BTreeMap<PatientId, Split>, SplitError> {
        let strata = || -> BTreeMap<PatientId, String> {
            let name = |label: Option<f32>| label.map_or_else(|| "unknown".to_owned(), |label| label.to_string());
            groups.iter().map(|(key, group)| (key.clone(), name(group.label))).collect()
        };
        let shared = |key: &PatientId, share: f64| if position(key, seed) < share { Split::Validation } else { Split::Train };
        Ok(match self {
            Self::Shares { fractions, stratified: true } => assign(&strata(), *fractions, seed)?,
            Self::Shares { fractions, stratified: false } => {
                let fractions = fractions.checked()?;
                groups.keys().map(|key| (key.clone(), fractions.at(position(key, seed)))).collect()
            }
            Self::Fold { folds, fold, fractions, stratified: true } => {
                let strata = strata();
                let of_fold = assign_folds(&strata, *folds, seed)?;
                let rest = strata.iter().filter(|(key, _)| of_fold[*key] != *fold).map(|(p, s)| (p.clone(), s.clone())).collect();
                let mut splits = assign(&rest, *fractions, seed)?;
                splits.extend(of_fold.into_iter().filter(|(_, f)| f == fold).map(|(key, _)| (key, Split::Test)));
                splits
            }
            Self::Fold { folds, fold, fractions, stratified: false } => {
                if *folds < 2 || groups.len() < *folds {
                    return Err(SplitError::Folds { folds: *folds, patients: groups.len() });
                }
                let fractions = fractions.checked()?;
                let side = |key: &PatientId| {
                    let place = position(key, seed) * *folds as f64;
                    // Within a fold the places are even again.
                    if place as usize == *fold { Split::Test } else { fractions.at(place.fract()) }
                };
                groups.keys().map(|key| (key.clone(), side(key))).collect()
            }
            Self::Time { validation, test_from } => {
                let side = |key: &PatientId, first: Time| match validation {
                    _ if first >= *test_from => Split::Test,
                    Validating::From(from) if first >= *from => Split::Validation,
                    Validating::Share(share) => shared(key, *share),
                    _ => Split::Train,
                };
                groups.iter().map(|(key, group)| (key.clone(), side(key, group.first))).collect()
            }
            Self::Sites { validation, .. } => {
                let side = |key: &PatientId, group: &Together| match (group.side?, validation) {
                    (Split::Train, Validating::Share(share)) => Some(shared(key, *share)),
                    (side, _) => Some(side),
                };
                groups.iter().filter_map(|(key, group)| Some((key.clone(), side(key, group)?))).collect()
            }
        })
    }
}

/// What is divided: the group, under a name that no identifier has, or the patient.
fn key(candidate: &Candidate) -> PatientId {
    candidate.group.as_ref().map_or_else(|| candidate.patient.clone(), |group| PatientId::new(&format!("\u{1}group\u{1}{group}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const FRACTIONS: Fractions = Fractions { train: 0.6, validation: 0.2, test: 0.2 };
    const OF_FOLD: Fractions = Fractions { train: 0.8, validation: 0.2, test: 0.0 };

    /// Patients 0 to n; of `households`, two share one.
    fn candidates(n: usize, households: bool) -> Vec<Candidate> {
        let of = |k: usize| Candidate {
            patient: PatientId::new(&format!("p{k}")),
            group: households.then(|| format!("h{}", k / 2)),
            site: (k % 7 != 6).then(|| ["North", "South", "East"][k / 2 % 3].to_owned()),
            label: (k % 5 != 4).then_some(f32::from(u8::from(k.is_multiple_of(3)))),
            first: Time::from_seconds((k as i64 * 7919) % 1000),
        };
        (0..n).map(of).collect()
    }

    fn all(stratified: bool) -> Vec<Division> {
        let time = |validation| Division::Time { validation, test_from: Time::from_seconds(700) };
        let sites = |validation| Division::Sites { validation, test: vec!["East".to_owned()] };
        let mut all = vec![Division::Shares { fractions: FRACTIONS, stratified }];
        all.extend((0..3).map(|fold| Division::Fold { folds: 3, fold, fractions: OF_FOLD, stratified }));
        all.extend([time(Validating::Share(0.2)), time(Validating::From(Time::from_seconds(500)))]);
        all.extend([sites(Validating::Share(0.2)), sites(Validating::Sites(vec!["South".to_owned()]))]);
        all
    }

    proptest! {
        #[test]
        fn a_new_patient_never_moves_an_old_one(n in 6usize..120, more in 1usize..20, seed: u64) {
            for division in all(false) {
                let before = division.divide(&candidates(n, false), seed).unwrap();
                let after = division.divide(&candidates(n + more, false), seed).unwrap();
                for (patient, split) in &before {
                    prop_assert_eq!(split, &after[patient], "{:?}", division);
                }
            }
            // By shares and folds, new members do not move a group.
            for division in all(false).into_iter().take(4) {
                let before = division.divide(&candidates(n, true), seed).unwrap();
                let after = division.divide(&candidates(n + more, true), seed).unwrap();
                prop_assert!(before.iter().all(|(patient, split)| *split == after[patient]));
            }
        }

        #[test]
        fn in_strata_a_new_patient_moves_one_at_each_boundary_at_most(n in 3usize..120, seed: u64) {
            let division = &all(true)[0];
            let before = division.divide(&candidates(n, false), seed).unwrap();
            let after = division.divide(&candidates(n + 1, false), seed).unwrap();
            prop_assert!(before.iter().filter(|(patient, split)| **split != after[*patient]).count() <= 2);
        }

        #[test]
        fn a_group_is_on_one_side(n in 6usize..120, seed: u64, stratified: bool) {
            let candidates = candidates(n, true);
            for division in all(stratified) {
                let splits = division.divide(&candidates, seed).unwrap();
                let mut sides: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
                for candidate in &candidates {
                    sides.entry(candidate.group.as_deref().unwrap()).or_default().extend(splits[&candidate.patient]);
                }
                prop_assert!(sides.values().all(|sides| sides.len() <= 1), "{:?}: {:?}", division, sides);
            }
        }

        #[test]
        fn every_patient_is_tested_in_one_fold(n in 3usize..100, seed: u64, stratified: bool, households: bool) {
            let n = if households { 2 * n } else { n };
            let mut tested = BTreeMap::new();
            for division in &all(stratified)[1..4] {
                for (patient, split) in division.divide(&candidates(n, households), seed).unwrap() {
                    *tested.entry(patient).or_insert(0) += i32::from(split == Some(Split::Test));
                }
            }
            prop_assert!(tested.len() == n && tested.values().all(|n| *n == 1));
        }

        #[test]
        fn strata_have_their_shares(n in 3usize..200, seed: u64) {
            let candidates = candidates(n, false);
            let splits = all(true)[0].divide(&candidates, seed).unwrap();
            for label in [None, Some(0.0), Some(1.0)] {
                let members = || candidates.iter().filter(|c| c.label == label);
                let trained = members().filter(|c| splits[&c.patient] == Some(Split::Train)).count() as f64;
                prop_assert!((trained - FRACTIONS.train * members().count() as f64).abs() <= 0.5 + 1e-9);
            }
        }

        #[test]
        fn nobody_is_trained_on_after_the_test_began(n in 3usize..100, seed: u64, households: bool) {
            let candidates = candidates(n, households);
            for division in &all(false)[4..6] {
                let Division::Time { test_from, .. } = division else { unreachable!() };
                let splits = division.divide(&candidates, seed).unwrap();
                for candidate in &candidates {
                    let split = splits[&candidate.patient].unwrap();
                    prop_assert!(split != Split::Test || households || candidate.first >= *test_from);
                    for at in [0, 499, 500, 699, 700, 2000].map(Time::from_seconds) {
                        prop_assert!(!division.keeps(split, at) || (at >= *test_from) == (split == Split::Test));
                    }
                    prop_assert!(households || division.keeps(split, candidate.first), "the first example is kept");
                }
            }
        }

        #[test]
        fn named_sites_are_held_out(n in 3usize..100, seed: u64, households: bool) {
            let candidates = candidates(n, households);
            for (division, validation) in all(false)[6..].iter().zip([None, Some("South")]) {
                let splits = division.divide(&candidates, seed).unwrap();
                for candidate in &candidates {
                    match (candidate.site.as_deref(), splits[&candidate.patient]) {
                        (None, split) => prop_assert_eq!(split, None),
                        (Some("East"), split) => prop_assert_eq!(split, Some(Split::Test)),
                        (Some(site), Some(split)) => {
                            prop_assert!(split != Split::Test);
                            prop_assert!(validation.is_none_or(|v| (v == site) == (split == Split::Validation)));
                        }
                        (Some(_), None) => prop_assert!(households),
                    }
                }
            }
        }
    }

    #[test]
    fn shares_are_met_in_the_long_run() {
        let splits = all(false)[0].divide(&candidates(10_000, false), 7).unwrap();
        let share = |wanted| splits.values().filter(|split| **split == Some(wanted)).count() as f64 / 10_000.0;
        // Four standard errors.
        assert!((share(Split::Train) - 0.6).abs() < 0.02 && (share(Split::Test) - 0.2).abs() < 0.016);
        let other = all(false)[0].divide(&candidates(10_000, false), 8).unwrap();
        assert_ne!(splits, other);
    }
}
