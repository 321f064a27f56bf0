//! `policy RUN COHORT TASK`: what a run's choice of treatment is worth on a simulated cohort, where the chance of a good outcome under either
//! is known: by each model's estimated effects, by the best choice, by giving all the same, and as was given. Of the test examples. A line of
//! JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use polars::prelude::{DataFrame, ParquetReader, SerReader};

/// Chances of a good outcome, and the treatment that was given.
#[derive(Clone, Copy)]
struct Known {
    risk: [f64; 2],
    given: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, cohort, task] = &arguments[..] else { anyhow::bail!("usage: policy RUN COHORT TASK") };
    let open = |path: &Path| -> anyhow::Result<DataFrame> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        Ok(ParquetReader::new(file).finish()?)
    };
    let (estimates, truth) = (open(&Path::new(run).join("estimates.parquet"))?, open(&Path::new(cohort).join("truth.parquet"))?);
    let (examples, of) = (truth.column("example_id")?.str()?, truth.column("treatment")?.u32()?);
    let risks = [truth.column("risk_0")?.f64()?, truth.column("risk_1")?.f64()?];
    let known: BTreeMap<&str, Known> = (0..truth.height())
        .filter_map(|row| {
            let risk = [risks[0].get(row)?, risks[1].get(row)?];
            Some((examples.get(row)?, Known { risk, given: of.get(row)? > 0 }))
        })
        .collect();
    let text = |name: &str| estimates.column(name).and_then(|column| column.str());
    let (examples, splits, tasks, quantities, variants) =
        (text("example_id")?, text("split")?, text("task")?, text("quantity")?, text("variant")?);
    let values = estimates.column("value")?.f32()?;
    let mut said: BTreeMap<&str, Vec<(f32, Known)>> = BTreeMap::new();
    for row in 0..estimates.height() {
        if tasks.get(row) == Some(task) && quantities.get(row) == Some("effect") && splits.get(row) == Some("test") {
            let (example, variant) = (examples.get(row).context("no example")?, variants.get(row).context("no variant")?);
            let known = known.get(example).with_context(|| format!("{example} is not in truth.parquet"))?;
            said.entry(variant).or_default().push((values.get(row).context("no value")?, *known));
        }
    }
    let mean = |of: &[(f32, Known)], second: &dyn Fn(f32, Known) -> bool| {
        of.iter().map(|(effect, known)| known.risk[usize::from(second(*effect, *known))]).sum::<f64>() / of.len() as f64
    };
    let root = |of: &[(f32, Known)]| {
        let squares = of.iter().map(|(effect, known)| (f64::from(*effect) - (known.risk[1] - known.risk[0])).powi(2)).sum::<f64>();
        (squares / of.len() as f64).sqrt()
    };
    let of_variant = |of: &Vec<(f32, Known)>| {
        serde_json::json!({
            "n": of.len(), "model": mean(of, &|effect, _| effect > 0.0), "oracle": mean(of, &|_, known| known.risk[1] > known.risk[0]),
            "first": mean(of, &|_, _| false), "second": mean(of, &|_, _| true), "as_given": mean(of, &|_, known| known.given), "pehe": root(of),
        })
    };
    let line: BTreeMap<&str, serde_json::Value> = said.iter().map(|(variant, of)| (*variant, of_variant(of))).collect();
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}
