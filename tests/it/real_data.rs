//! Real data that lie outside the project; a test says when it skips.

use std::path::PathBuf;

use crate::synovia::{root, skipped, succeed};

fn shared(name: &str) -> Option<PathBuf> {
    let path = root().join("../shared/data").join(name);
    if !path.is_dir() {
        skipped(format_args!("{} is not there", path.display()));
    }
    path.is_dir().then_some(path)
}

#[test]
fn oasis_is_linked_whole() {
    if shared("oasis1").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("oasis");
    succeed(&format!("cohort pipelines/oasis.toml --quiet --run {}", run.display()));
    for fold in 0..5 {
        let report: serde_json::Value =
            serde_json::from_slice(&std::fs::read(run.join(format!("folds/{fold}/cohort/report.json"))).unwrap()).unwrap();
        let both = report["steps"].as_array().unwrap().iter().find(|s| s[0] == "examples with both").unwrap()[1].clone();
        assert_eq!(both, 196);
        let features: serde_json::Value =
            serde_json::from_slice(&std::fs::read(run.join(format!("folds/{fold}/cohort/manifest.json"))).unwrap()).unwrap();
        let names: Vec<&str> = features["features"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
        assert!(names.iter().all(|n| ["Age", "M/F", "Educ", "SES"].iter().any(|known| n.contains(known))), "{names:?}");
    }
    succeed(&format!("audit {}", run.display()));
}
