//! From files to the report and the exported model, and what must hold of every run.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use polars::prelude::{ParquetReader, SerReader};

use crate::synovia::{command, json_lines, root, run, simulate, small, succeed};

pub fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

/// All texts of a Parquet table.
fn texts_of_table(path: &Path) -> String {
    let table = ParquetReader::new(File::open(path).unwrap()).finish().unwrap();
    let texts = table.columns().iter().filter_map(|column| column.str().ok());
    let texts: Vec<&str> = texts.flat_map(|column| column.iter().flatten().collect::<Vec<_>>()).collect();
    assert!(!texts.is_empty(), "{}", path.display());
    texts.join("\n")
}

/// `predict`, asked about what the run was trained on, answers with what the run's joint model said: each image beside its
/// own record, and each example that was evaluated.
pub fn the_same_as_evaluated(lines: &[serde_json::Value], run: &Path) {
    let table = ParquetReader::new(File::open(run.join("predictions.parquet")).unwrap()).finish().unwrap();
    let text = |name: &str| table.column(name).unwrap().str().unwrap().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>();
    let (examples, tasks, classes, variants) = (text("example_id"), text("task"), text("class"), text("variant"));
    let probabilities = table.column("probability").unwrap().f32().unwrap();
    let by_example: BTreeMap<&str, &serde_json::Value> = lines.iter().map(|line| (line["example"].as_str().unwrap(), line)).collect();
    assert_eq!(by_example.len(), lines.len(), "an example is answered twice");
    let mut n_compared = 0;
    for k in (0..table.height()).filter(|&k| variants[k] == "joint") {
        let line = by_example.get(examples[k].as_str()).unwrap_or_else(|| panic!("no answer for {}", examples[k]));
        let predicted = line["probabilities"][&tasks[k]][&classes[k]].as_f64().unwrap();
        let evaluated = f64::from(probabilities.get(k).unwrap());
        assert!((predicted - evaluated).abs() < 1e-5, "{} {}: {predicted}, not {evaluated}", examples[k], classes[k]);
        n_compared += 1;
    }
    assert!(n_compared >= 80, "{n_compared}");
}

/// Weights by file name.
fn weights(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &str| (name.to_owned(), std::fs::read(run.join("model").join(name)).unwrap());
    ["joint.safetensors", "image.safetensors", "record.safetensors"].into_iter().map(read).collect()
}

#[test]
fn the_whole_way_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 150, "--missing-image 0.1 --missing-record 0.1");
    let to = dir.path().join("run");
    succeed(&format!("run {}", small(&data, &to)));
    for name in ["pipeline.toml", "rejected.jsonl", "cohort/examples.parquet", "cohort/report.json", "history.jsonl", "predictions.parquet"]
    {
        assert!(to.join(name).is_file(), "{name}");
    }
    let metrics: serde_json::Value = serde_json::from_slice(&std::fs::read(to.join("metrics.json")).unwrap()).unwrap();
    for task in ["malignant", "stage"] {
        for variant in
            ["joint", "image", "record", "joint-image", "joint-record", "logistic-image", "logistic-record", "forest-record", "late-fusion"]
        {
            let auroc = metrics["tasks"][task]["variants"][variant]["auroc"]["value"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&auroc), "{task} {variant}");
        }
        assert!(metrics["tasks"][task]["gain"]["verdict"].is_string());
        assert!(metrics["tasks"][task]["over_baselines"]["verdict"].is_string());
        let branches = metrics["tasks"][task]["branches"].as_array().unwrap();
        let pairs: Vec<[&str; 2]> = branches.iter().map(|c| ["of", "against"].map(|key| c[key].as_str().unwrap())).collect();
        assert_eq!(pairs, [["joint-image", "image"], ["joint-record", "record"]]);
        let columns: Vec<&str> =
            metrics["tasks"][task]["subgroups"].as_array().unwrap().iter().filter_map(|group| group["column"].as_str()).collect();
        assert!(columns.contains(&"sex") && columns.contains(&"age"), "{columns:?}");
    }
    succeed(&format!("audit {}", to.display()));
    explained(&to);
    robust(&to);

    // The exported file is enough to predict from, with either modality left out.
    let model = to.join("model.onnx");
    for (inputs, image, record) in [
        (format!("--images {0}/dicom --records {0}/fhir", data.display()), true, true),
        (format!("--images {}/dicom", data.display()), true, false),
        (format!("--records {}/fhir", data.display()), false, true),
    ] {
        let out = succeed(&format!("predict --quiet --model {} {inputs}", model.display()));
        let lines = json_lines(&out);
        if image && record {
            the_same_as_evaluated(&lines, &to);
        }
        assert!(lines.iter().any(|l| l["present"]["image"] == image && l["present"]["record"] == record), "{inputs}");
        for line in &lines {
            let p = line["probabilities"]["malignant"]["malignant"].as_f64().unwrap();
            let stages = line["probabilities"]["stage"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum::<f64>();
            assert!((0.0..=1.0).contains(&p) && (stages - 1.0).abs() < 1e-5, "{line}");
            let set = &line["prediction_sets"]["malignant"];
            assert_eq!(set["coverage"], 0.9, "{line}");
            let classes: Vec<&str> = set["classes"].as_array().unwrap().iter().filter_map(|class| class.as_str()).collect();
            assert!(classes.iter().all(|class| ["malignant", "not malignant"].contains(class)), "{line}");
        }
    }

    // Whoever reads the answers may have enough of them.
    let arguments = format!("predict --quiet --model {} --images {}/dicom", model.display(), data.display());
    let mut child =
        command().args(arguments.split_whitespace()).current_dir(root()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));

    // Invariant: no identifier of a patient in anything that leaves the run. The store of records is what they are read
    // into, and stays where the data are.
    let patients = std::fs::read_to_string(data.join("fhir/Patient.ndjson")).unwrap();
    let mut identifiers = Vec::new();
    for patient in patients.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        identifiers.push(patient["id"].as_str().unwrap().to_owned());
        identifiers.extend(patient["identifier"].as_array().into_iter().flatten().filter_map(|i| i["value"].as_str()).map(str::to_owned));
        identifiers.extend(patient["name"].as_array().into_iter().flatten().filter_map(|n| n["family"].as_str()).map(str::to_owned));
    }
    for line in std::fs::read_to_string(data.join("fhir/ImagingStudy.ndjson")).unwrap().lines() {
        let study: serde_json::Value = serde_json::from_str(line).unwrap();
        identifiers.extend(
            study["identifier"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|i| i["value"].as_str())
                .map(|uid| uid.trim_start_matches("urn:oid:").to_owned()),
        );
    }
    identifiers.retain(|identifier| identifier.len() > 5);
    assert!(identifiers.len() > 300, "{}", identifiers.len());
    let mut written = Vec::new();
    files(&to, &mut written);
    for path in written.iter().filter(|path| !path.starts_with(to.join("ingest"))) {
        let bytes = std::fs::read(path).unwrap();
        // Weights are searched as bytes; so is text. Tables are compressed.
        let text = if path.extension().is_some_and(|ending| ending == "parquet") {
            texts_of_table(path)
        } else {
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|ending| ending == "u16" || ending == "f32") {
            continue;
        }
        for identifier in &identifiers {
            assert!(!text.contains(identifier.as_str()), "{name} holds an identifier");
        }
    }

    // Nothing changed: nothing runs.
    let started = Instant::now();
    let again = run(&format!("run {}", small(&data, &to).replace("--quiet", "")));
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success() && said.matches("unchanged, skipped").count() == 7, "{said}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn same_bits_for_any_number_of_threads_and_after_a_kill() {
    // Enough for a kill after each of some.
    const EPOCHS: &str = "--set training.epochs=8";
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 120, "");
    let train = |name: &str, threads: usize| {
        let to = dir.path().join(name);
        succeed(&format!("train {} {EPOCHS} --threads {threads}", small(&data, &to)));
        weights(&to)
    };
    let undisturbed = train("two", 2);
    assert_eq!(undisturbed, train("one", 1), "one and two threads");

    // The three are trained at once. Killed before the first checkpoint of any, and some time after a checkpoint of each; then run again
    // to the end, some of them sooner than others.
    let to = dir.path().join("killed");
    let arguments = format!("train {} {EPOCHS} --threads 2", small(&data, &to));
    for (model, after, milliseconds) in [
        ("joint", "", 0),
        ("record", "checkpoint.safetensors", 0),
        ("joint", "checkpoint.safetensors", 30),
        ("image", "checkpoint.safetensors", 0),
        ("joint", "checkpoint.safetensors", 0),
    ] {
        let sign = to.join(".training").join(model).join(after);
        let written = || std::fs::metadata(&sign).and_then(|it| it.modified()).ok();
        let before = written();
        let mut child = command().args(arguments.split_whitespace()).current_dir(root()).spawn().unwrap();
        while written() == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended before {} was written", sign.display());
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!to.join("model").exists(), "killed before the stage was done");
    }
    succeed(&arguments);
    assert_eq!(undisturbed, weights(&to), "killed and resumed");
}

#[test]
fn wrong_use_says_what_and_where() {
    let check = |arguments: &str, code: i32, words: &[&str]| {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "synovia {arguments}\n{said}");
        for word in words {
            assert!(said.contains(word), "synovia {arguments}\nno `{word}` in: {said}");
        }
    };
    check("", 2, &["Usage"]);
    check("run nowhere.toml", 2, &["nowhere.toml"]);
    check("run pipelines/lung.toml --set model.fussion=gated", 2, &["fussion", "fusion"]);
    check("run pipelines/lung.toml --set images.path=nowhere", 2, &["nowhere"]);
    check("predict --model nowhere.onnx --records fixtures", 1, &["nowhere.onnx"]);
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 20, "");
    check(&format!("simulate --out {} --patients 3", data.display()), 1, &["not empty"]);
    // A run folder below a file can't be made, by whoever asks.
    let below = data.join("truth.parquet/run");
    check(&format!("cohort {}", small(&data, &below)), 1, &["truth.parquet"]);
}

#[test]
fn hostile_files_beside_good_ones_cost_only_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 60, "");
    for (from, to) in [("dicom", "dicom"), ("fhir", "fhir")] {
        let bad = root().join("fixtures/bad").join(from);
        for entry in std::fs::read_dir(&bad).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), data.join(to).join(format!("bad-{}", entry.file_name().to_string_lossy()))).unwrap();
        }
    }
    let to = dir.path().join("run");
    succeed(&format!("cohort {}", small(&data, &to)));
    let rejected = std::fs::read_to_string(to.join("rejected.jsonl")).unwrap();
    for name in ["truncated", "absurd", "no-pixel-data", "broken.ndjson", "nan.ndjson"] {
        assert!(rejected.contains(name), "no rejection names {name}");
    }
    let clean = dir.path().join("clean");
    let other = tempfile::tempdir().unwrap();
    let good = simulate(other.path(), 60, "");
    succeed(&format!("cohort {}", small(&good, &clean)));
    let count = |run: &Path| {
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("cohort/report.json")).unwrap()).unwrap();
        let steps = report["steps"].as_array().unwrap();
        steps.iter().find(|s| s[0] == "examples with both").unwrap()[1].as_u64().unwrap()
    };
    assert_eq!(count(&to), count(&clean), "good input beside bad input is all taken");
}

/// What is left when inputs get worse: at nothing worse what `metrics.json` has, and with a modality gone what it has of the joint model
/// that sees the other alone.
fn robust(run: &Path) {
    let read = |name: &str| -> serde_json::Value { serde_json::from_slice(&std::fs::read(run.join(name)).unwrap()).unwrap() };
    let (robustness, metrics) = (read("robustness.json"), read("metrics.json"));
    let said = File::open(run.join("predictions.parquet")).map(|file| ParquetReader::new(file).finish().unwrap()).unwrap();
    let text = |name: &str| said.column(name).unwrap().str().unwrap().iter().flatten().map(str::to_owned).collect::<Vec<String>>();
    let (examples, tasks, splits, variants) = (text("example_id"), text("task"), text("split"), text("variant"));
    let (labels, p) = (said.column("label").unwrap().f32().unwrap(), said.column("probability").unwrap().f32().unwrap());
    // AUROC of a variant on test examples that have both modalities, by counting pairs.
    let on_both = |of: &str| {
        let chosen = |variant: &str| -> BTreeMap<&str, (f32, f32)> {
            let is_wanted = |k: &usize| tasks[*k] == "malignant" && splits[*k] == "test" && variants[*k] == variant;
            let of_row = |k: usize| Some((examples[k].as_str(), (labels.get(k)?, p.get(k)?)));
            (0..examples.len()).filter(is_wanted).filter_map(of_row).collect()
        };
        let (own, image, record) = (chosen(of), chosen("image"), chosen("record"));
        let both: Vec<(f32, f32)> =
            own.iter().filter(|(example, _)| image.contains_key(*example) && record.contains_key(*example)).map(|(_, row)| *row).collect();
        let (mut pairs, mut right) = (0.0, 0.0);
        for (positive, p) in &both {
            for (_, q) in both.iter().filter(|(label, _)| *positive == 1.0 && *label == 0.0) {
                pairs += 1.0;
                right += if p > q {
                    1.0
                } else if p == q {
                    0.5
                } else {
                    0.0
                };
            }
        }
        right / pairs
    };
    for task in robustness["tasks"].as_array().unwrap() {
        let measured = &metrics["tasks"][task["task"].as_str().unwrap()]["variants"];
        let curves = task["curves"].as_array().unwrap();
        assert_eq!(curves.len(), 7, "{task}");
        let same = |point: &serde_json::Value, variant: &str, known: f64| {
            let worse = point["auroc"][variant]["value"].as_f64().unwrap();
            assert!((worse - known).abs() < 1e-4, "{variant} has {worse}, not {known}");
        };
        let known = |variant: &str| measured[variant]["auroc"]["value"].as_f64().unwrap();
        for curve in curves {
            let points = curve["points"].as_array().unwrap();
            let worst = points.last().unwrap();
            let what = curve["what"].as_str().unwrap();
            match what {
                "missing_images" | "missing_records" if task["task"] == "malignant" => {
                    same(&points[0], "joint", on_both("joint"));
                    same(worst, "joint", on_both(if what == "missing_images" { "joint-record" } else { "joint-image" }));
                }
                "missing_images" | "missing_records" => {}
                _ => {
                    ["joint", "image", "record"].iter().for_each(|variant| same(&points[0], variant, known(variant)));
                    // Whoever does not see it is as good as before.
                    let blind = if matches!(what, "missing_values" | "shifted_units") { "image" } else { "record" };
                    same(worst, blind, known(blind));
                }
            }
            assert!((0.0..=1.0).contains(&curve["relative"]["joint"].as_f64().unwrap()), "{curve}");
        }
    }
    assert!(std::fs::read_to_string(run.join("report.html")).unwrap().contains("id=\"robustness\""));
}

/// What drives the answers: shares that add up, parts that add up, and a report that shows it.
fn explained(run: &Path) {
    let explanations: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join("explanations.json")).unwrap()).unwrap();
    let (map, tasks) = (&explanations["embedding"], explanations["tasks"].as_array().unwrap());
    let explained: Vec<f64> = map["explained"].as_array().unwrap().iter().map(|share| share.as_f64().unwrap()).collect();
    assert!(explained[0] >= explained[1] && explained.iter().sum::<f64>() <= 1.0 + 1e-9, "{explained:?}");
    let points = map["points"].as_array().unwrap();
    assert!(points.iter().all(|point| point["tsne"].as_array().is_some_and(|at| at.len() == 2)) && !points.is_empty());
    assert_eq!(tasks.iter().map(|task| task["task"].as_str().unwrap()).collect::<Vec<_>>(), ["malignant", "stage"]);
    for task in tasks {
        // Issue: completeness within a hundredth.
        assert!(task["integrated"]["worst"].as_f64().unwrap() <= 0.01, "{}", task["integrated"]);
        let (cases, peaks) = (task["cases"].as_array().unwrap(), task["peaks"].as_array().unwrap());
        assert!(task["neighbours"]["n"].as_u64().unwrap() > 0 && task["neighbours"]["more"]["value"].is_number(), "{}", task["neighbours"]);
        assert!(!cases.is_empty() && !peaks.is_empty());
        // A model that has learnt nothing looks elsewhere.
        assert!(peaks.iter().any(|peak| peak["peak"] != peak["shuffled"]), "{peaks:?}");
        for place in peaks.iter().filter_map(|peak| peak["peak"].as_array()) {
            assert!(place.iter().all(|at| (0.0..=1.0).contains(&at.as_f64().unwrap())), "{place:?}");
        }
        for case in cases {
            let neighbours = case["neighbours"].as_array().unwrap();
            assert!(neighbours.len() == 5 && neighbours.is_sorted_by_key(|n| n["distance"].as_f64().unwrap()), "{neighbours:?}");
            let shares: f64 = case["shares"].as_array().unwrap().iter().map(|share| share[1].as_f64().unwrap()).sum();
            assert!((shares - case["probability"].as_f64().unwrap()).abs() < 1e-5, "{}", case["shares"]);
        }
    }
    let report = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(report.contains("id=\"explanation\"") && report.contains("data:image/png;base64,") && report.contains("img-src data:"));
}
