//! `pointing_game RUN COHORT`: how often Grad-CAM is highest on the lesion (Zhang et al. 2016), over the test images of a run on a
//! simulated cohort, and how often that of a model with shuffled weights is. A line of JSON a task and label.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use polars::prelude::{ParquetReader, SerReader};
use synovia_evaluation::{Explanations, Peak};

/// Rows and columns of a simulated frontal image, in whose pixels the truth is.
const SIDE: f64 = 128.0;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, cohort] = &arguments[..] else { anyhow::bail!("usage: pointing_game RUN COHORT") };
    let explanations: Explanations = serde_json::from_slice(&std::fs::read(Path::new(run).join("explanations.json"))?)?;
    let truth = ParquetReader::new(File::open(Path::new(cohort).join("truth.parquet"))?).finish()?;
    let (examples, places) = (truth.column("example_id")?.str()?, ["lesion_x", "lesion_y", "lesion_radius"]);
    let places = places.map(|name| truth.column(name).and_then(|column| column.f32().cloned()));
    let [x, y, radius] = places;
    let (x, y, radius) = (x?, y?, radius?);
    let mut lesions: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    for (((example, x), y), radius) in examples.iter().zip(x.iter()).zip(y.iter()).zip(radius.iter()) {
        if let (Some(example), Some(x), Some(y), Some(radius)) = (example, x, y, radius) {
            lesions.insert(example, [x, y, radius].map(f64::from));
        }
    }
    for task in &explanations.tasks {
        let mut by_label: BTreeMap<i64, Vec<&Peak>> = BTreeMap::new();
        task.peaks.iter().for_each(|peak| by_label.entry(peak.label as i64).or_default().push(peak));
        for (label, peaks) in by_label {
            let share = |of: fn(&Peak) -> Option<(f64, f64)>| {
                let hits = peaks.iter().filter(|peak| {
                    of(peak).zip(lesions.get(peak.example.as_str())).is_some_and(|((px, py), [x, y, radius])| {
                        // A pixel's number is its middle.
                        (px * SIDE - 0.5 - x).hypot(py * SIDE - 0.5 - y) <= *radius
                    })
                });
                hits.count() as f64 / peaks.len() as f64
            };
            let line = serde_json::json!({ "task": task.task, "label": label, "images": peaks.len(),
                "on_lesion": share(|peak| peak.peak), "on_lesion_shuffled": share(|peak| peak.shuffled) });
            println!("{line}");
        }
    }
    Ok(())
}
