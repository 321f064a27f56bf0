//! Cohorts through the binary: rules, index events and splits on simulated patients, and the same bytes by shards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use polars::prelude::{ParquetReader, SerReader};

use crate::synovia::{command, root, run, simulate, skipped, small, succeed};

/// The table of examples: patient, split, prediction time.
fn examples(run: &Path) -> Vec<(String, String, String)> {
    let table = ParquetReader::new(std::fs::File::open(run.join("cohort/examples.parquet")).unwrap()).finish().unwrap();
    let text = |name: &str| table.column(name).unwrap().str().unwrap().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>();
    text("patient_id").into_iter().zip(text("split")).zip(text("prediction_time")).map(|((a, b), c)| (a, b, c)).collect()
}

fn report(run: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(run.join("cohort/report.json")).unwrap()).unwrap()
}

/// `[cohort]` of the lung pipeline replaced by this.
fn pipeline(dir: &Path, cohort: &str) -> PathBuf {
    let lung = std::fs::read_to_string(root().join("pipelines/lung.toml")).unwrap();
    let (start, rest) = (lung.split("[cohort]").next().unwrap(), &lung[lung.find("# Is lung cancer").unwrap()..]);
    let path = dir.join("pipeline.toml");
    std::fs::write(&path, format!("{start}[cohort]\n{cohort}\n{rest}")).unwrap();
    path
}

fn cohort(dir: &Path, data: &Path, name: &str, cohort: &str) -> PathBuf {
    let to = dir.join(name);
    let pipeline = pipeline(dir, cohort);
    succeed(&format!("cohort {}", small(data, &to).replace("pipelines/lung.toml", &pipeline.display().to_string())));
    to
}

#[test]
fn every_step_is_counted_and_every_rule_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 200, "--missing-image 0.2");
    let rules = "gap = \"1d\"\n[[cohort.include]]\nname = \"from 50 years\"\nage = { at_least = 50 }\n\
                 [[cohort.include]]\nhas = \"image\"\n[[cohort.exclude]]\nsex = \"male\"\n[[cohort.competing]]\ndeath = true\ncounts_as = \"negative\"";
    let to = cohort(dir.path(), &data, "rules", rules);
    let report = report(&to);
    let flow = report["flow"].as_array().unwrap();
    let names: Vec<&str> = flow.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["patients in the records", "with an imaging study", "from 50 years", "with an image", "not: male"]);
    let count = |step: &serde_json::Value, of: &str| step[of].as_u64().unwrap();
    for pair in flow.windows(2) {
        assert_eq!(count(&pair[0], "patients"), count(&pair[1], "patients") + count(&pair[1]["left_out"], "patients"));
    }
    for pair in flow[1..].windows(2) {
        assert_eq!(count(&pair[0], "examples"), count(&pair[1], "examples") + count(&pair[1]["left_out"], "examples"));
        assert!(count(&pair[1]["left_out"], "examples") > 0, "each rule leaves somebody out");
    }
    // The last step is the table, and the splits are its parts; every patient of it is in the charts and meets the rules.
    let table = examples(&to);
    let sides = report["sides"].as_array().unwrap();
    let patients: BTreeSet<&String> = table.iter().map(|(patient, ..)| patient).collect();
    let last = &flow[flow.len() - 1];
    assert_eq!((count(last, "examples"), count(last, "patients")), (table.len() as u64, patients.len() as u64));
    for (of, n) in [("examples", table.len()), ("patients", patients.len())] {
        assert_eq!(sides.iter().map(|side| count(side, of)).sum::<u64>(), n as u64);
    }
    let charts = std::fs::read_to_string(data.join("fhir/Patient.ndjson")).unwrap();
    let women = charts.lines().filter(|line| line.contains("\"female\"")).count();
    assert!(patients.len() <= women && patients.len() > women / 4);
}

#[test]
fn labels_left_out_are_those_of_training_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 200, "");
    let known = |name: &str, more: &str| {
        let to = dir.path().join(name);
        succeed(&format!("cohort {}{more}", small(&data, &to)));
        let table = ParquetReader::new(std::fs::File::open(to.join("cohort/examples.parquet")).unwrap()).finish().unwrap();
        let split: Vec<String> = table.column("split").unwrap().str().unwrap().iter().map(|text| text.unwrap().to_owned()).collect();
        let known = table.column("malignant").unwrap().is_not_null();
        let mut counts = BTreeMap::new();
        split
            .into_iter()
            .zip(known.iter())
            .for_each(|(split, known)| *counts.entry(split).or_insert(0) += usize::from(known == Some(true)));
        (counts, report(&to)["unknown_labels"]["malignant"]["left out by `labelled`"].as_u64())
    };
    let (all, none) = known("all", "");
    let (few, left_out) = known("few", " --set task.malignant.labelled=0.3");
    assert_eq!((none, left_out), (None, Some((all["train"] - few["train"]) as u64)));
    assert!(few["train"] < all["train"] / 2);
    assert_eq!((few["validation"], few["test"]), (all["validation"], all["test"]));
}

#[test]
fn predictions_at_encounters_and_splits_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 150, "");
    let every = cohort(dir.path(), &data, "every", "unit = \"encounter\"\nsplit = { stratify = true }");
    let times: BTreeSet<String> = examples(&every).into_iter().map(|(_, _, time)| time).collect();
    let first = cohort(
        dir.path(),
        &data,
        "first",
        "index = { encounter = \"any\" }\nprediction = \"24h after index\"\nsplit = { stratify = true }",
    );
    let (every, first) = (examples(&every), examples(&first));
    let patients = |rows: &[(String, String, String)]| rows.iter().map(|(patient, ..)| patient.clone()).collect::<BTreeSet<_>>();
    assert!(every.len() > first.len() && patients(&every) == patients(&first) && first.len() == patients(&first).len());

    // Train before, test after; who has examples on both sides is trained on, and the later ones are left over.
    let median = times.iter().nth(times.len() / 2).unwrap()[..10].to_owned();
    let split = format!("unit = \"encounter\"\nsplit = {{ by = \"time\", test_from = \"{median}\" }}");
    let to = cohort(dir.path(), &data, "time", &split);
    let rows = examples(&to);
    for (_, split, time) in &rows {
        assert_eq!(split == "test", time.as_str() >= median.as_str(), "{split} at {time}, the test begins {median}");
    }
    let report = report(&to);
    let last = report["flow"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["examples"].as_u64().unwrap(), rows.len() as u64);
    assert_eq!(last["left_out"]["examples"].as_u64().unwrap(), (every.len() - rows.len()) as u64);
}

/// Every file of a cohort by its name.
fn bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())
    };
    let files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(folder).unwrap().map(read).collect();
    assert!(files.len() >= 8, "{:?}", files.keys());
    files
}

/// A simulated cohort beside hostile files, some of which are refused when their pixels are read.
fn with_hostile_files(dir: &Path) -> PathBuf {
    let data = simulate(dir, 120, "--missing-image 0.1");
    for entry in std::fs::read_dir(root().join("fixtures/bad/dicom")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), data.join("dicom").join(entry.file_name())).unwrap();
    }
    let mut files = Vec::new();
    crate::runs::files(&data.join("dicom"), &mut files);
    files.sort();
    // Pixels that are cut off are found out only when they are read.
    for path in files.iter().filter(|path| path.metadata().unwrap().len() > 4000).step_by(9).take(5) {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
    }
    data
}

#[test]
fn shards_make_the_bytes_of_one_machine() {
    let dir = tempfile::tempdir().unwrap();
    let data = with_hostile_files(dir.path());
    let (whole, parts, alone) = (dir.path().join("whole"), dir.path().join("parts"), dir.path().join("alone"));
    succeed(&format!("cohort {}", small(&data, &whole)));
    // In any order, beside each other, with the ingest of the run.
    succeed(&format!("ingest {}", small(&data, &parts)));
    let begin = |k: usize| {
        let arguments = format!("cohort {} --shard {k}/3", small(&data, &parts));
        command().args(arguments.split_whitespace()).current_dir(root()).spawn().unwrap()
    };
    let missing = run(&format!("merge {}", small(&data, &parts)));
    assert_eq!(missing.status.code(), Some(1));
    for mut child in [2, 0, 1].map(begin) {
        assert!(child.wait().unwrap().success());
    }
    succeed(&format!("merge {}", small(&data, &parts)));
    let expected = bytes(&whole.join("cohort"));
    assert!(expected == bytes(&parts.join("cohort")), "three shards");
    assert_eq!(std::fs::read(whole.join("rejected.jsonl")).unwrap(), std::fs::read(parts.join("rejected.jsonl")).unwrap());
    // What comes after goes on as if it had been one machine.
    let said = String::from_utf8(run(&format!("cohort {}", small(&data, &parts).replace("--quiet", ""))).stderr).unwrap();
    assert_eq!(said.matches("unchanged, skipped").count(), 2, "{said}");
    succeed(&format!("audit {}", parts.display()));

    // A shard that finds no ingest makes its own. A shard of other settings is refused, and so is a missing one.
    succeed(&format!("cohort {} --shard 0/2", small(&data, &alone)));
    let merge = |more: &str| {
        let output = run(&format!("merge {} {more}", small(&data, &alone)));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = merge("");
    assert!(code == Some(1) && said.contains("shard 1/2 is not there"), "{said}");
    succeed(&format!("cohort {} --shard 1/2 --set images.size=40", small(&data, &alone)));
    let (code, said) = merge("");
    assert!(code == Some(1) && said.contains("other inputs or settings"), "{said}");
    succeed(&format!("cohort {} --shard 1/2", small(&data, &alone)));
    assert_eq!(merge("").0, Some(0));
    assert!(expected == bytes(&alone.join("cohort")), "two shards");
}

/// A real Ray: made by `just ray`, in an environment of its own.
#[test]
fn shards_on_ray_make_the_bytes_of_one_machine() {
    let python = root().join(".ray/venv/bin/python");
    if !python.is_file() {
        skipped("no Ray in .ray/venv; run `just ray` first");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = with_hostile_files(dir.path());
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    succeed(&format!("cohort {}", small(&data, &whole)));
    let arguments = small(&data, &parts).replace("--quiet ", "");
    let binary = command().get_program().to_owned();
    let output = Command::new(python)
        .arg("pipelines/scale/ray_cohort.py")
        .args(arguments.split_whitespace())
        .args(["--shards", "4", "--synovia"])
        .arg(binary)
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches("is done").count(), 4, "{said}");
    assert!(bytes(&whole.join("cohort")) == bytes(&parts.join("cohort")), "on Ray");
}
