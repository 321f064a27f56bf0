//! What is written, held against validators that are not ours. A test says when it skips.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::synovia::{root, run, simulate, skipped};

/// Transfer syntax of deflated data sets.
const DEFLATED: &[u8] = b"1.2.840.10008.1.2.1.99";

/// dciodvfy (Debian's `dicom3tools`) checks an object against its information object definition (DICOM PS3.3).
#[test]
fn simulated_images_are_valid_dicom() {
    if Command::new("dciodvfy").arg("-version").output().is_err() {
        skipped("dciodvfy is not installed; it is in Debian's dicom3tools");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 12, "--missing-record 0.3");
    let mut folders = vec![data.join("dicom")];
    let mut n_checked = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Debian's dicom3tools are built without zlib.
            let head = std::fs::read(&path).unwrap();
            if head[..400].windows(DEFLATED.len()).any(|w| w == DEFLATED) {
                continue;
            }
            let output = Command::new("dciodvfy").arg(&path).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("DXImageForPresentation"), "not taken for an image: {said}");
            assert!(!said.contains("Error"), "{said}");
            n_checked += 1;
        }
    }
    assert!(n_checked >= 12, "{n_checked} files");
}

/// What dciodvfy calls an error in a file, each as often as it does.
fn errors(path: &Path) -> BTreeMap<String, usize> {
    let output = Command::new("dciodvfy").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let mut errors = BTreeMap::new();
    for line in said.lines().filter(|line| line.starts_with("Error")) {
        // UIDs, some of which are just 0, are others by intention.
        let uid = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let line: Vec<&str> = line.split(['<', '>', ' ']).map(|part| if uid(part) { "UID" } else { part }).collect();
        *errors.entry(line.join(" ")).or_default() += 1;
    }
    errors
}

/// De-identified, a file is as valid as it was: no error that its source does not have.
#[test]
fn deidentified_files_are_as_valid_as_their_sources() {
    if Command::new("dciodvfy").arg("-version").output().is_err() {
        skipped("dciodvfy is not installed; it is in Debian's dicom3tools");
        return;
    }
    let folders = [".oracle/pydicom/data/test_files", "../shared/data/dicom"].map(|folder| root().join(folder));
    let mut files = Vec::new();
    for folder in folders {
        match std::fs::read_dir(&folder) {
            Ok(entries) => files.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file())),
            Err(_) => skipped(format!("{} is not there; `just oracle` fetches pydicom's files", folder.display())),
        }
    }
    files.sort();
    let (mut n_checked, mut wrong) = (0, Vec::new());
    for file in &files {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir(&from).unwrap();
        std::fs::copy(file, from.join("a.dcm")).unwrap();
        // What names the patient in its pixels, and what is no DICOM, is withheld.
        let output = run(&format!("deidentify {} {} --quiet", from.display(), to.display()));
        if !output.status.success() {
            continue;
        }
        let mut written = vec![to];
        while let Some(folder) = written.pop().filter(|path| path.is_dir()) {
            written.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
            n_checked += written.iter().filter(|path| path.is_file()).count();
            for path in written.iter().filter(|path| path.is_file()) {
                let before = errors(&from.join("a.dcm"));
                let more = errors(path).into_iter().filter(|(error, n)| *n > before.get(error).copied().unwrap_or(0));
                more.for_each(|(error, _)| wrong.push(format!("{}: {error}", file.display())));
            }
        }
    }
    assert!(wrong.is_empty(), "{n_checked} files\n{}", wrong.join("\n"));
    assert!(files.is_empty() || n_checked >= 20, "{n_checked} of {}", files.len());
}
