//! The audit of runs that the stages themselves made: nothing is named where nothing is wrong.

use crate::synovia::{run, small, succeed};

/// The audit of a simulated cohort: exit code and JSON.
fn audited(seed: u64, more: &str) -> (Option<i32>, serde_json::Value) {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("run"));
    succeed(&format!("simulate --quiet --out {} --patients 220 --seed {seed} {more}", data.display()));
    succeed(&format!("cohort {}", small(&data, &to)));
    let output = run(&format!("audit --json {}", to.display()));
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn nothing_is_named_on_five_clean_simulated_cohorts() {
    for seed in [9101, 9102, 9103, 9104, 9105] {
        let (code, audit) = audited(seed, "--missing-image 0.1 --missing-record 0.1");
        assert!(code == Some(0) && audit["leaks"].as_array().unwrap().is_empty(), "{seed}: {audit:#}");
        assert!(
            audit["images"].as_u64().unwrap() > 150 && audit["headers"] == audit["images"] && audit["patients"].as_u64().unwrap() > 150
        );
    }
}
