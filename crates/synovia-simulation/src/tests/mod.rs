//! From outside: posteriors against frequencies and brute force, files against their standards and against the truth.

mod chart;
mod files;
mod posteriors;

use std::fs::File;
use std::path::Path;

use polars::prelude::{DataFrame, ParquetReader, SerReader};
use serde_json::Value;

use crate::{SimulationConfig, Summary, simulate};

fn config(n_patients: usize) -> SimulationConfig {
    SimulationConfig { n_patients, seed: 11, missing_image: 0.0, missing_record: 0.0, noise: None }
}

/// A cohort in a folder of its own.
fn cohort(config: &SimulationConfig) -> (tempfile::TempDir, Summary) {
    let dir = tempfile::tempdir().unwrap();
    let summary = simulate(config, dir.path(), &|_| ()).unwrap();
    (dir, summary)
}

fn ndjson(dir: &Path, resource_type: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join(format!("fhir/{resource_type}.ndjson"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn truth(dir: &Path) -> DataFrame {
    ParquetReader::new(File::open(dir.join("truth.parquet")).unwrap()).finish().unwrap()
}

fn numbers(frame: &DataFrame, column: &str) -> Vec<Option<f64>> {
    frame.column(column).unwrap().f64().unwrap().iter().collect()
}

fn texts(frame: &DataFrame, column: &str) -> Vec<String> {
    frame.column(column).unwrap().str().unwrap().iter().map(|x| x.unwrap().to_owned()).collect()
}
