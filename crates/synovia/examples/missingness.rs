//! `missingness RUN COHORT TASK [SINGLES]`: what a joint model of a run on a simulated cohort keeps where a share of the images or of the records
//! is taken away from the test examples that have both, beside the models of one modality (those of the run SINGLES, where RUN trained
//! none), and the ceiling: the AUROC of the generator's own posterior. Of a binary task. A line of JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use polars::prelude::{DataFrame, ParquetReader, SerReader};
use synovia_evaluation::auroc;

/// Shares that are taken away.
const RATES: [f64; 4] = [0.2, 0.5, 0.8, 1.0];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, cohort, task, singles @ ..] = &arguments[..] else { anyhow::bail!("usage: missingness RUN COHORT TASK [SINGLES]") };
    let open = |path: &Path| -> anyhow::Result<DataFrame> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        Ok(ParquetReader::new(file).finish()?)
    };
    let (mut of_run, truth) = (open(&Path::new(run).join("predictions.parquet"))?, open(&Path::new(cohort).join("truth.parquet"))?);
    if let [singles] = singles {
        // What RUN says comes last, and stands.
        of_run = open(&Path::new(singles).join("predictions.parquet"))?.vstack(&of_run)?;
    }

    let mut ceilings: BTreeMap<&str, f64> = BTreeMap::new();
    let [examples, tasks] = ["example_id", "task"].map(|name| truth.column(name).and_then(|column| column.str()));
    let (examples, tasks, p) = (examples?, tasks?, truth.column("p_joint")?.f64()?);
    for ((example, of_task), p) in examples.iter().zip(tasks.iter()).zip(p.iter()) {
        if let (Some(example), Some(p), true) = (example, p, of_task == Some(task)) {
            ceilings.insert(example, p);
        }
    }
    let mut said: BTreeMap<&str, (Option<bool>, BTreeMap<&str, f64>)> = BTreeMap::new();
    let columns = ["example_id", "task", "split", "variant"].map(|name| of_run.column(name).and_then(|column| column.str()));
    let [examples, tasks, splits, variants] = columns;
    let (examples, tasks, splits, variants) = (examples?, tasks?, splits?, variants?);
    let (labels, p) = (of_run.column("label")?, of_run.column("probability")?);
    for row in 0..of_run.height() {
        if tasks.get(row) != Some(task) || splits.get(row) != Some("test") {
            continue;
        }
        let (Some(example), Some(variant)) = (examples.get(row), variants.get(row)) else { continue };
        let label: Option<f64> = labels.get(row)?.try_extract().ok();
        let of_example = said.entry(example).or_default();
        of_example.0 = label.map(|label| label > 0.5);
        of_example.1.insert(variant, p.get(row)?.try_extract()?);
    }
    let complete: Vec<_> = (said.iter())
        .filter_map(|(example, (label, said))| {
            let of = ["joint", "joint-image", "joint-record", "image", "record"].map(|variant| said.get(variant).copied());
            let [Some(joint), Some(joint_image), Some(joint_record), Some(image), Some(record)] = of else { return None };
            Some((*example, (*label)?, [joint, joint_image, joint_record, image, record]))
        })
        .collect();
    let labels: Vec<bool> = complete.iter().map(|(_, label, _)| *label).collect();
    let of = |value: &dyn Fn(usize) -> f64| auroc(&(0..complete.len()).map(value).collect::<Vec<f64>>(), &labels);
    // Ids are digests, so that their first digits are a number drawn evenly; who lacks something at one rate does at higher ones.
    let of_id = |example: &&str| {
        let digits = example.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        Ok(f64::from(digits.with_context(|| format!("{example} is no digest"))?) / f64::from(u32::MAX))
    };
    let draws = complete.iter().map(|(example, ..)| of_id(example)).collect::<anyhow::Result<Vec<f64>>>()?;
    let drawn = |i: usize| draws[i];
    let mean = |k: usize| complete.iter().map(|(_, _, p)| p[k]).sum::<f64>() / complete.len() as f64;
    let means = [3, 4].map(mean);
    let curve = |hidden_image: bool| -> Vec<serde_json::Value> {
        let at = |rate: f64| {
            let joint = |i: usize| if drawn(i) >= rate { complete[i].2[0] } else { complete[i].2[if hidden_image { 2 } else { 1 }] };
            // A model whose modality is missing can say no more than what it says on the average.
            let single = |k: usize| move |p: &[f64; 5], gone: bool| if gone { means[k - 3] } else { p[k] };
            let image = |i: usize| single(3)(&complete[i].2, hidden_image && drawn(i) < rate);
            let record = |i: usize| single(4)(&complete[i].2, !hidden_image && drawn(i) < rate);
            serde_json::json!({ "rate": rate, "joint": of(&joint), "image": of(&image), "record": of(&record) })
        };
        RATES.into_iter().map(at).collect()
    };
    let ceiling_of = |example: &&str| ceilings.get(example).copied().with_context(|| format!("{example} is not in truth.parquet"));
    let posteriors = complete.iter().map(|(example, ..)| ceiling_of(example)).collect::<anyhow::Result<Vec<f64>>>()?;
    let [joint, image, record] = [0, 3, 4].map(|k| of(&|i| complete[i].2[k]));
    let line = serde_json::json!({
        "task": task, "n": complete.len(), "positive": labels.iter().filter(|label| **label).count(),
        "ceiling": of(&|i| posteriors[i]),
        "complete": { "joint": joint, "image": image, "record": record },
        "missing_image": curve(true), "missing_record": curve(false),
    });
    println!("{line}");
    Ok(())
}
