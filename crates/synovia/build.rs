//! Tells the program which commit it was built from, so that an exported model can say what trained it.

use std::path::Path;
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

fn main() {
    // Sources without a repository, as a released crate has them, are known by their version alone.
    let commit = git(&["rev-parse", "HEAD"]);
    println!("cargo::rerun-if-changed=build.rs");
    let mut named = commit.clone().unwrap_or_else(|| "unknown".to_owned());
    if commit.is_some() {
        for source in ["..", "../../Cargo.toml", "../../Cargo.lock"] {
            println!("cargo::rerun-if-changed={source}");
        }
        if git(&["diff", "--quiet", "HEAD", "--", ":/crates", ":/Cargo.toml", ":/Cargo.lock"]).is_none() {
            named.push_str("-dirty");
        }
    }
    println!("cargo::rustc-env=SYNOVIA_COMMIT={named}");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
}
