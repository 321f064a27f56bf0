//! `effects RUN TRUTH.json TASK`: how far a run's estimated effects of a treatment are from true ones, which are known where outcomes are
//! simulated. The truth is an object of numbers by the records' own ids. A line of JSON: √PEHE and the error of the average effect in sample
//! (train and validation) and out of sample, and which patients that is.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use polars::prelude::{ParquetReader, SerReader};
use synovia_cohort::PatientId;
use synovia_evaluation::{average_effect_error, pehe};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, truth, task] = &arguments[..] else { anyhow::bail!("usage: effects RUN TRUTH.json TASK") };
    let truth: BTreeMap<String, f64> = serde_json::from_slice(&std::fs::read(truth).with_context(|| truth.clone())?)?;
    let known: BTreeMap<String, (&String, f64)> = truth.iter().map(|(id, x)| (PatientId::new(id).pseudonym(), (id, *x))).collect();
    let path = Path::new(run).join("estimates.parquet");
    let frame = ParquetReader::new(File::open(&path).with_context(|| path.display().to_string())?).finish()?;
    let text = |name: &str| frame.column(name).and_then(|column| column.str());
    let (patients, splits, tasks, quantities, variants) =
        (text("patient_id")?, text("split")?, text("task")?, text("quantity")?, text("variant")?);
    let values = frame.column("value")?.f32()?;
    // Of the joint model, or of the only one.
    let variant = if variants.iter().flatten().any(|variant| variant == "joint") { Some("joint") } else { variants.get(0) };
    let mut sides: BTreeMap<bool, (Vec<f64>, Vec<f64>, Vec<&String>)> = BTreeMap::new();
    for row in 0..frame.height() {
        if tasks.get(row) != Some(task) || quantities.get(row) != Some("effect") || variants.get(row) != variant {
            continue;
        }
        let (patient, split) = (patients.get(row).context("no patient")?, splits.get(row).context("no split")?);
        let (id, effect) = known.get(patient).with_context(|| format!("{patient} is not in the truth"))?;
        let side = sides.entry(split == "test").or_default();
        side.0.push(f64::from(values.get(row).context("no value")?));
        side.1.push(*effect);
        side.2.push(id);
    }
    let of =
        |test: bool, what: fn(&[f64], &[f64]) -> Option<f64>| sides.get(&test).and_then(|(estimated, known, _)| what(estimated, known));
    let line = serde_json::json!({
        "in_sample": of(false, pehe), "out_of_sample": of(true, pehe),
        "average_effect_error": of(true, average_effect_error),
        "test": sides.get(&true).map(|side| &side.2),
    });
    println!("{line}");
    Ok(())
}
