//! Reads FHIR records, fits a feature plan on all of them at each patient's last event, and prints what was taken, the
//! reasons of what was not, and the speed.
//!
//! `cargo run --release -p synovia-records --example read_records -- FOLDER`

use std::path::PathBuf;
use std::time::Instant;

use synovia_cohort::{Example, ExampleId, RejectedLog};
use synovia_records::{FeatureConfig, FormatConfig, PlanBuilder, ingest};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(std::env::args().nth(1).ok_or("give the folder of FHIR files")?);
    let spill = tempfile::tempdir()?;
    let log = RejectedLog::counting();
    let start = Instant::now();
    let store = ingest(&path, &FormatConfig::fhir(), spill.path(), &log, &|_| {})?;
    let ingested = start.elapsed().as_secs_f64();
    let mut builder = PlanBuilder::new(FeatureConfig::default());
    let mut n_known = 0;
    for pass in 0..2 {
        let plan = (pass == 1).then(|| std::mem::replace(&mut builder, PlanBuilder::new(FeatureConfig::default())).finish());
        for k in 0..store.n_partitions() {
            for record in store.load(k)? {
                let Some(at) = record.events.last().map(|event| event.time) else { continue };
                let id = ExampleId::of_patient(&record.id, at);
                let example = Example::new(id, record.id.clone(), at, None, Some(&record), None)?;
                if let Some(plan) = &plan {
                    let mut row = vec![0.0; plan.features.len()];
                    n_known += u64::from(plan.row(&example, &record.patient, &mut row));
                } else {
                    builder.observe(&example, &record.patient);
                }
            }
        }
        if let Some(plan) = plan {
            for feature in &plan.features {
                println!("{:?} {} [{}] {}", feature.spec.kind, feature.spec.name, feature.spec.unit, feature.spec.code);
            }
        }
    }
    let all = start.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string_pretty(store.summary())?);
    println!("{}", serde_json::to_string_pretty(&log.finish()?)?);
    let mb = store.summary().n_bytes as f64 / 1e6;
    println!("{n_known} rows; ingest {ingested:.3} s, {:.1} MB/s; with features {all:.3} s, {:.1} MB/s", mb / ingested, mb / all);
    Ok(())
}
