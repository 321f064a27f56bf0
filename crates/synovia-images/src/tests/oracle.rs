//! Every file of two public collections against what pydicom 3.0.2 with pylibjpeg decodes (`oracle/decode.py`), and the
//! table of what is read in `docs/images.md`, which this test writes when `UPDATE_EXPECT` is set.

#![allow(clippy::format_push_string, clippy::format_collect, reason = "the page of a test is written once")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::dicom::{stored_values, syntax_name};

/// What pydicom made of a file.
#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    syntax: String,
    #[serde(default)]
    photometric: String,
    #[serde(default)]
    bits: [u32; 2],
    #[serde(default)]
    shape: Vec<usize>,
    crc: Option<u32>,
    step: Option<usize>,
    #[serde(default)]
    values: Vec<f64>,
    error: Option<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The collections that are here, by their names in the reference.
fn collections() -> Vec<(&'static str, PathBuf)> {
    let known = [("data", [".oracle/data", "../shared/data/dicom"]), ("pydicom", [".oracle/pydicom/data/test_files"; 2])];
    let mut found = Vec::new();
    for (name, paths) in known {
        match paths.iter().map(|path| root().join(path)).find(|path| path.is_dir()) {
            Some(path) => found.push((name, path)),
            None => println!("skipped: the files of {name} are not in {}; `just oracle` fetches those of pydicom", paths[0]),
        }
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Equal,
    Different,
    More,
    Refused,
    BothRefuse,
}

fn outcome(path: &Path, reference: &Reference) -> (Outcome, String) {
    match (stored_values(path), &reference.error) {
        (Err(fault), None) => (Outcome::Refused, fault.to_string()),
        (Err(fault), Some(_)) => (Outcome::BothRefuse, fault.to_string()),
        (Ok(_), Some(_)) => (Outcome::More, String::new()),
        (Ok(values), None) => {
            if values.len() != reference.shape.iter().product::<usize>() {
                return (Outcome::Different, format!("{} values instead of {:?}", values.len(), reference.shape));
            }
            if let Some(crc) = reference.crc {
                let mut own = flate2::Crc::new();
                for some in values.chunks(4096) {
                    own.update(&some.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
                }
                return if own.sum() == crc { (Outcome::Equal, String::new()) } else { (Outcome::Different, "checksum".to_owned()) };
            }
            let sampled = values.iter().step_by(reference.step.unwrap_or(1)).zip(&reference.values);
            let worst = sampled.map(|(own, theirs)| (own - theirs).abs()).fold(0.0, f64::max);
            if worst <= 1.0 { (Outcome::Equal, String::new()) } else { (Outcome::Different, format!("by {worst}")) }
        }
    }
}

#[test]
fn every_file_as_pydicom_decodes_it() {
    let references: BTreeMap<String, Reference> = serde_json::from_str(include_str!("../../oracle/pydicom.json")).unwrap();
    let collections = collections();
    let mut wrong = Vec::new();
    let mut rows: BTreeMap<(&str, String, String), BTreeMap<Outcome, u32>> = BTreeMap::new();
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    let mut totals: BTreeMap<Outcome, u32> = BTreeMap::new();
    let (mut more, mut checked) = (Vec::new(), 0);
    for (file, reference) in &references {
        let (name, rest) = file.split_once('/').unwrap();
        let Some((_, folder)) = collections.iter().find(|known| known.0 == name) else { continue };
        checked += 1;
        let (outcome, why) = outcome(&folder.join(rest), reference);
        match outcome {
            Outcome::More => more.push(file.as_str()),
            Outcome::Refused | Outcome::Different => wrong.push(format!("{file}: {outcome:?}: {why}")),
            Outcome::BothRefuse => *reasons.entry(why).or_default() += 1,
            Outcome::Equal => {}
        }
        *totals.entry(outcome).or_default() += 1;
        if reference.bits[0] > 0 && outcome != Outcome::BothRefuse || !matches!(outcome, Outcome::BothRefuse) {
            let photometric = if reference.photometric.is_empty() { "–".to_owned() } else { reference.photometric.clone() };
            let bits = format!("{} / {}", reference.bits[0], reference.bits[1]);
            *rows.entry((syntax_name(&reference.syntax), photometric, bits)).or_default().entry(outcome).or_default() += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
    if collections.len() < 2 {
        println!("skipped: the table needs both collections");
        return;
    }
    let mut table = String::from(
        "| transfer syntax | photometric interpretation | bits allocated / stored | equal | decoded here only |\n|---|---|---|---|---|\n",
    );
    for ((syntax, photometric, bits), counts) in &rows {
        let n = |outcome| counts.get(&outcome).copied().unwrap_or(0);
        table += &format!("| {syntax} | {photometric} | {bits} | {} | {} |\n", n(Outcome::Equal), n(Outcome::More));
    }
    let n = |outcome| totals.get(&outcome).copied().unwrap_or(0);
    table += &format!(
        "\nOf {checked} files pydicom decodes {}, all of them decoded here too; {} more are decoded here only: {}.\n\nNeither reads the others:\n\n",
        n(Outcome::Equal),
        more.len(),
        more.iter().map(|file| format!("`{file}`")).collect::<Vec<_>>().join(", ")
    );
    for (reason, n) in &reasons {
        table += &format!("- {n}: {reason}\n");
    }
    check_table(&table);
}

fn check_table(table: &str) {
    let path = root().join("docs/images.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- formats: written by the test -->\n", "<!-- end of formats -->");
    let (before, rest) = text.split_once(start).expect("docs/images.md has a place for the table");
    let (own, after) = rest.split_once(end).expect("docs/images.md has an end of the table");
    if own != table && std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, format!("{before}{start}{table}{end}{after}")).unwrap();
        return;
    }
    assert!(own == table, "docs/images.md has another table; run with UPDATE_EXPECT=1");
}
