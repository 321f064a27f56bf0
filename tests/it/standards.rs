//! What is written, held against validators that are not ours. A test says when it skips.

use std::process::Command;

use crate::synovia::{simulate, skipped};

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
