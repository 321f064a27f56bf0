//! ARCHITECTURE.md says which crate may use which; `cargo metadata` says which does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

type Edges = BTreeMap<String, BTreeSet<String>>;

/// The rows of the table: crate in the first column, what it uses in the last ("all" is every other crate).
fn documented() -> Edges {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut edges = Edges::new();
    let mut all = None;
    for line in text.lines().filter(|l| l.starts_with("| `synovia")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`').to_owned();
        let uses = cells.last().unwrap();
        if *uses == "all" {
            all = Some(name.clone());
        }
        let uses = uses.split(',').map(str::trim).filter(|u| !matches!(*u, "–" | "all"));
        edges.insert(name, uses.map(|u| format!("synovia-{u}")).collect());
    }
    if let Some(all) = all {
        let others = edges.keys().filter(|k| **k != all).cloned().collect();
        edges.insert(all, others);
    }
    edges
}

fn actual() -> Edges {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let mut edges = Edges::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if name == "synovia-tests" || !name.starts_with("synovia") {
            continue;
        }
        let normal = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        let ours = normal.filter_map(|d| d["name"].as_str()).filter(|d| d.starts_with("synovia"));
        edges.insert(name.to_owned(), ours.map(str::to_owned).collect());
    }
    edges
}

#[test]
fn the_table_names_every_crate_and_no_other() {
    let (documented, actual) = (documented(), actual());
    assert_eq!(documented.keys().collect::<Vec<_>>(), actual.keys().collect::<Vec<_>>());
}

#[test]
fn no_crate_uses_what_the_table_does_not_allow() {
    let documented = documented();
    for (name, uses) in actual() {
        let extra: Vec<_> = uses.difference(&documented[&name]).collect();
        assert!(extra.is_empty(), "{name} uses {extra:?}, which ARCHITECTURE.md does not say");
    }
}

#[test]
fn nothing_flows_back() {
    let edges = actual();
    let mut done = BTreeSet::new();
    while done.len() < edges.len() {
        let next = edges.iter().find(|(name, uses)| !done.contains(*name) && uses.iter().all(|u| done.contains(u)));
        let (name, _) = next.expect("crates use each other in a circle");
        done.insert(name.clone());
    }
}
