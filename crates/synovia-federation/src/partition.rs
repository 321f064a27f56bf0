//! One cohort divided into sites, for a simulation.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};
use synovia_cohort::{ExampleRow, Split};

/// How a cohort is divided. Written `even`, `dirichlet:0.3`, `modality`, `site:COLUMN`.
#[derive(Clone, Debug, PartialEq)]
pub enum Partition {
    /// Patients at random, as many for each site.
    Even,
    /// The patients of each label of the first task by shares from a Dirichlet distribution (Hsu et al. 2019): the smaller
    /// `alpha`, the more sites differ in size and labels.
    Dirichlet {
        /// Concentration.
        alpha: f64,
    },
    /// Patients at random; in turn a site has images alone, records alone, or both.
    Modality,
    /// By what a column of the table says, such as the hospital's name.
    Site {
        /// The column.
        column: String,
    },
}

/// Why a cohort can't be divided so.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PartitionError {
    /// A site would be left without something that it needs.
    #[error("{partition} leaves a site without {what}; take fewer sites, more patients, or a larger concentration")]
    Empty {
        /// How it was divided.
        partition: String,
        /// What the site lacks.
        what: &'static str,
    },
    /// The column says as many sites as were not asked for.
    #[error("the column `{column}` names {got} sites; give --sites {got}")]
    Sites {
        /// The column.
        column: String,
        /// Sites that it names.
        got: usize,
    },
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "even" => Ok(Self::Even),
            None if text == "modality" => Ok(Self::Modality),
            Some(("dirichlet", alpha)) if alpha.parse().is_ok_and(|alpha: f64| alpha > 0.0 && alpha.is_finite()) => {
                Ok(Self::Dirichlet { alpha: alpha.parse().unwrap_or(1.0) })
            }
            Some(("site", column)) if !column.is_empty() => Ok(Self::Site { column: column.to_owned() }),
            _ => Err("a partition is even, dirichlet:CONCENTRATION, modality or site:COLUMN, such as dirichlet:0.3".to_owned()),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Even => f.write_str("even"),
            Self::Dirichlet { alpha } => write!(f, "dirichlet:{alpha}"),
            Self::Modality => f.write_str("modality"),
            Self::Site { column } => write!(f, "site:{column}"),
        }
    }
}

/// How often shares are drawn until each site has something of each split.
const DRAWS: u64 = 200;

/// The rows of each site, in their order, with what the site does not have taken out. `named` is what the column of
/// [`Partition::Site`] says of a row.
///
/// All examples of a patient are at one site. The same seed gives the same sites.
///
/// # Errors
/// [`PartitionError`] when a site would have nothing to train on, to validate with or to test on.
pub fn partition(
    rows: &[ExampleRow],
    n_sites: usize,
    by: &Partition,
    seed: u64,
    named: impl Fn(&ExampleRow) -> Option<String>,
) -> Result<Vec<(String, Vec<ExampleRow>)>, PartitionError> {
    let width = n_sites.to_string().len();
    let numbered = |k: usize| format!("site-{:0width$}", k + 1);
    let mut lacking = "training examples";
    for draw in 0..DRAWS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(draw);
        let (names, place): (Vec<String>, BTreeMap<&str, usize>) = match by {
            Partition::Site { column } => {
                let of_row: BTreeMap<&str, String> = rows.iter().filter_map(|row| Some((row.patient.as_str(), named(row)?))).collect();
                let names: Vec<String> = {
                    let mut names: Vec<String> = of_row.values().cloned().collect();
                    names.sort();
                    names.dedup();
                    names
                };
                if names.len() != n_sites {
                    return Err(PartitionError::Sites { column: column.clone(), got: names.len() });
                }
                let place = of_row.iter().filter_map(|(patient, name)| Some((*patient, names.binary_search(name).ok()?))).collect();
                (names, place)
            }
            Partition::Dirichlet { alpha } => ((0..n_sites).map(numbered).collect(), by_labels(rows, n_sites, *alpha, &mut rng)),
            Partition::Even | Partition::Modality => ((0..n_sites).map(numbered).collect(), evenly(rows, n_sites, &mut rng)),
        };
        let mut sites: Vec<(String, Vec<ExampleRow>)> = names.into_iter().map(|name| (name, Vec::new())).collect();
        for row in rows {
            let Some(&k) = place.get(row.patient.as_str()) else { continue };
            let mut row = row.clone();
            if *by == Partition::Modality {
                match k % 3 {
                    0 => row.record_row = None,
                    1 => row.image_row = None,
                    _ => {}
                }
            }
            if row.image_row.is_some() || row.record_row.is_some() {
                sites[k].1.push(row);
            }
        }
        match lacks(&sites) {
            None => return Ok(sites),
            Some(what) => lacking = what,
        }
        if !matches!(by, Partition::Dirichlet { .. }) {
            break;
        }
    }
    Err(PartitionError::Empty { partition: by.to_string(), what: lacking })
}

fn lacks(sites: &[(String, Vec<ExampleRow>)]) -> Option<&'static str> {
    let count = |rows: &[ExampleRow], split| rows.iter().filter(|row| row.split == split && row.labels.iter().any(Option::is_some)).count();
    let any = |split, least| sites.iter().any(|(_, rows)| count(rows, split) < least);
    let needs = [(Split::Train, 2, "training examples"), (Split::Validation, 1, "validation examples"), (Split::Test, 1, "test examples")];
    needs.into_iter().find(|(split, least, _)| any(*split, *least)).map(|(_, _, what)| what)
}

/// Patients with the strata that they are divided in: their split, so that each site has its share of each.
fn strata(rows: &[ExampleRow], label: impl Fn(&ExampleRow) -> i64) -> BTreeMap<(Split, i64), Vec<&str>> {
    let mut patients: BTreeMap<&str, (Split, i64)> = BTreeMap::new();
    for row in rows {
        let entry = patients.entry(&row.patient).or_insert((row.split, i64::MIN));
        entry.1 = entry.1.max(label(row));
    }
    let mut strata: BTreeMap<(Split, i64), Vec<&str>> = BTreeMap::new();
    patients.into_iter().for_each(|(patient, stratum)| strata.entry(stratum).or_default().push(patient));
    strata
}

fn evenly<'a>(rows: &'a [ExampleRow], n_sites: usize, rng: &mut ChaCha8Rng) -> BTreeMap<&'a str, usize> {
    let mut place = BTreeMap::new();
    for mut patients in strata(rows, |_| 0).into_values() {
        patients.shuffle(rng);
        let first = rng.random_range(0..n_sites);
        place.extend(patients.into_iter().enumerate().map(|(k, patient)| (patient, (first + k) % n_sites)));
    }
    place
}

fn by_labels<'a>(rows: &'a [ExampleRow], n_sites: usize, alpha: f64, rng: &mut ChaCha8Rng) -> BTreeMap<&'a str, usize> {
    let label = |row: &ExampleRow| row.labels.first().copied().flatten().map_or(-1, |label| label as i64);
    // The shares of a label are the same in each split: a site's test patients are like its training patients.
    let mut shares: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    let mut place = BTreeMap::new();
    for ((_, label), mut patients) in strata(rows, label) {
        let shares = shares.entry(label).or_insert_with(|| {
            let draw = |_| Gamma::new(alpha, 1.0).map_or(1.0, |gamma| gamma.sample(rng)).max(f64::MIN_POSITIVE);
            let drawn: Vec<f64> = (0..n_sites).map(draw).collect();
            let sum: f64 = drawn.iter().sum();
            drawn.into_iter().map(|x| x / sum).collect()
        });
        patients.shuffle(rng);
        let n = patients.len() as f64;
        let mut bound = 0.0;
        let bounds: Vec<f64> = shares
            .iter()
            .map(|share| {
                bound += share * n;
                bound
            })
            .collect();
        for (k, patient) in patients.into_iter().enumerate() {
            let site = bounds.iter().position(|bound| (k as f64 + 0.5) < *bound).unwrap_or(n_sites - 1);
            place.insert(patient, site);
        }
    }
    place
}
