//! The binary under test, and small cohorts for it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The binary that was built beside this test.
pub fn command() -> Command {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().and_then(Path::parent).unwrap().join("synovia");
    assert!(binary.is_file(), "{} is not built; run `cargo test --workspace`", binary.display());
    Command::new(binary)
}

/// Runs it with these arguments, separated by white space.
pub fn run(arguments: &str) -> Output {
    command().args(arguments.split_whitespace()).current_dir(root()).output().unwrap()
}

/// Runs it and fails when it does.
#[track_caller]
pub fn succeed(arguments: &str) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "synovia {arguments}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A simulated cohort of `n` patients in `dir`.
pub fn simulate(dir: &Path, n: usize, more: &str) -> PathBuf {
    let out = dir.join("data");
    succeed(&format!("simulate --quiet --out {} --patients {n} --seed 3 {more}", out.display()));
    out
}

/// Arguments of a pipeline small enough to train in seconds.
pub fn small(data: &Path, run: &Path) -> String {
    format!(
        "pipelines/lung.toml --quiet --run {} --set images.path={1}/dicom --set records.path={1}/fhir --set images.size=32 --set model.width=4 \
         --set model.embedding=16 --set training.epochs=3 --set training.batch=16",
        run.display(),
        data.display()
    )
}

/// Says that a test skips. To the stream itself: what a passing test prints is captured.
pub fn skipped(why: impl std::fmt::Display) {
    std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

/// Lines of JSON.
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
