//! One cohort to several sites.

use std::collections::BTreeMap;

use synovia_cohort::ExampleRow;

use super::{Has, cohort};
use crate::{Method, Partition, PartitionError, partition};

fn rows(n: usize) -> Vec<ExampleRow> {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = cohort(dir.path(), Has { n, ..Has::ALL }).rows().to_vec();
    // Two examples a patient.
    for k in (1..n).step_by(2) {
        (rows[k].patient, rows[k].split) = (rows[k - 1].patient.clone(), rows[k - 1].split);
    }
    rows
}

fn divide(rows: &[ExampleRow], n_sites: usize, by: &str, seed: u64) -> Result<Vec<(String, Vec<ExampleRow>)>, PartitionError> {
    partition(rows, n_sites, &by.parse().unwrap(), seed, |row| Some(row.patient[..1].to_owned()))
}

#[test]
fn each_patient_is_at_one_site() {
    let rows = rows(400);
    for by in ["even", "dirichlet:0.5", "dirichlet:100", "modality"] {
        let sites = divide(&rows, 4, by, 7).unwrap();
        let mut place: BTreeMap<&str, &str> = BTreeMap::new();
        for (site, here) in &sites {
            for row in here {
                assert_eq!(place.insert(&row.patient, site).unwrap_or(site), site, "{by}");
            }
        }
        assert_eq!(sites.iter().map(|(_, here)| here.len()).sum::<usize>(), 400, "{by}");
        assert!(sites == divide(&rows, 4, by, 7).unwrap() && sites != divide(&rows, 4, by, 8).unwrap(), "{by}");
    }
}

#[test]
fn shares_are_as_asked() {
    let rows = rows(1000);
    let sizes = |by: &str| divide(&rows, 4, by, 1).unwrap().iter().map(|(_, here)| here.len()).collect::<Vec<_>>();
    assert!(sizes("even").iter().all(|n| (240..=260).contains(n)), "{:?}", sizes("even"));
    // Var(share) = (1/4 · 3/4) / (4α + 1): hardly any for a large α.
    let spread = |by: &str| sizes(by).iter().map(|&n| (n as f64 / 1000.0 - 0.25).powi(2)).sum::<f64>();
    assert!(spread("dirichlet:1000") < 0.005 && spread("dirichlet:0.3") > 0.02, "{} {}", spread("dirichlet:1000"), spread("dirichlet:0.3"));
    let by_modality = divide(&rows, 6, "modality", 1).unwrap();
    for (k, (_, here)) in by_modality.iter().enumerate() {
        let (image, record) = [(true, false), (false, true), (true, true)][k % 3];
        assert!(here.iter().all(|row| row.image_row.is_some() == image && row.record_row.is_some() == record));
    }
    let named = divide(&rows, 16, "site:Hospital", 1).unwrap();
    assert!(named.iter().all(|(name, here)| here.iter().all(|row| row.patient.starts_with(name.as_str()))));
    assert_eq!(divide(&rows, 3, "site:Hospital", 1).unwrap_err().to_string(), "the column `Hospital` names 16 sites; give --sites 16");
}

#[test]
fn a_site_needs_something_of_each_split() {
    let error = divide(&rows(20), 15, "even", 1).unwrap_err();
    assert!(error.to_string().starts_with("even leaves a site without "), "{error}");
}

#[test]
fn words() {
    for text in ["even", "modality", "dirichlet:0.3", "site:Hospital"] {
        assert_eq!(text.parse::<Partition>().unwrap().to_string(), text);
    }
    for text in ["", "odd", "dirichlet", "dirichlet:0", "dirichlet:x", "site:", "even:2"] {
        assert!(text.parse::<Partition>().is_err(), "{text}");
    }
    for text in ["fedavg", "fedprox:0.01", "fedadam:0.1"] {
        assert_eq!(text.parse::<Method>().unwrap().to_string(), text);
    }
    for text in ["", "fedsgd", "fedavg:1", "fedprox", "fedprox:-1", "fedadam:0", "fedprox:nan"] {
        assert!(text.parse::<Method>().is_err(), "{text}");
    }
}
