//! `synovia deidentify`: what is written names nobody, lies in OUT, and is not nothing.

use std::path::{Path, PathBuf};

use crate::synovia::{root, run, simulate};

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

/// The exit code, what is printed, and the files of OUT.
fn deidentify(input: &Path, out: &Path, more: &str) -> (Option<i32>, String, Vec<PathBuf>) {
    let output = run(&format!("deidentify {} {} {more}", input.display(), out.display()));
    let mut written = Vec::new();
    if out.is_dir() {
        files(out, &mut written);
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said, written)
}

/// Replaces a text by one of the same length, wherever it stands.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..bytes.len().saturating_sub(from.len())).filter(|&k| bytes[k..].starts_with(from)).collect();
    places.iter().for_each(|&k| bytes[k..k + to.len()].copy_from_slice(to));
    places.len()
}

#[test]
fn a_folder_without_names() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 12, "");
    let out = dir.path().join("clean");
    let (code, said, written) = deidentify(&data.join("dicom"), &out, &format!("--quiet --key {}/key", dir.path().display()));
    assert_eq!(code, Some(0), "{said}");
    let mut read = Vec::new();
    files(&data.join("dicom"), &mut read);
    assert_eq!(written.len(), read.len());
    let mut names = Vec::new();
    for line in std::fs::read_to_string(data.join("fhir/Patient.ndjson")).unwrap().lines() {
        let patient: serde_json::Value = serde_json::from_str(line).unwrap();
        names.extend(patient["name"].as_array().into_iter().flatten().filter_map(|name| name["family"].as_str()).map(str::to_owned));
        names.extend(patient["identifier"].as_array().into_iter().flatten().filter_map(|i| i["value"].as_str()).map(str::to_owned));
    }
    let holds = |paths: &[PathBuf], name: &str| {
        paths.iter().any(|path| {
            let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).to_lowercase();
            text.contains(&name.to_lowercase()) || path.display().to_string().contains(name)
        })
    };
    names.retain(|name| name.len() > 5);
    assert!(names.iter().filter(|name| holds(&read, name)).count() >= 12, "the names are in the files to begin with");
    for name in &names {
        assert!(!holds(&written, name), "a name is in what was written");
    }
}

#[test]
fn nothing_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let withheld = dir.path().join("withheld");
    std::fs::create_dir(&withheld).unwrap();
    std::fs::write(withheld.join("a.txt"), "no image").unwrap();
    let check = |input: &Path, words: &str, makes_out: bool| {
        let (out, key) = (dir.path().join("out"), dir.path().join("key"));
        let (code, said, written) = deidentify(input, &out, &format!("--key {}", key.display()));
        assert_eq!((code, written.len()), (Some(1), 0), "{said}");
        assert!(said.contains(words), "no `{words}` in: {said}");
        assert_eq!((out.exists(), key.exists()), (makes_out, makes_out), "{words}");
    };
    check(&dir.path().join("nowhere"), "nowhere", false);
    check(&root().join("Cargo.toml"), "Cargo.toml", false);
    check(&empty, "no file in it", false);
    check(&withheld, "no file was written", true);
}

#[test]
fn no_uid_leads_out_of_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = simulate(dir.path(), 30, "--missing-record 0.0");
    let mut read = Vec::new();
    files(&data.join("dicom"), &mut read);
    // Study and Series Instance UIDs that are `..`, padded as a UID of that length would be.
    let hostile = dir.path().join("hostile");
    std::fs::create_dir(&hostile).unwrap();
    let mut n_changed = 0;
    for (k, path) in read.iter().enumerate() {
        let mut bytes = std::fs::read(path).unwrap();
        for element in [b"\x20\x00\x0d\x00UI", b"\x20\x00\x0e\x00UI"] {
            let Some(at) = bytes.windows(6).position(|window| window == element) else { continue };
            let length = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
            let uid = bytes[at + 8..at + 8 + length].to_vec();
            let mut dots = b"..".to_vec();
            dots.resize(length, 0);
            n_changed += replace(&mut bytes, &uid, &dots);
        }
        std::fs::write(hostile.join(format!("{k}.dcm")), bytes).unwrap();
    }
    assert!(n_changed >= 20, "{n_changed}");
    let work = dir.path().join("work/deep");
    std::fs::create_dir_all(&work).unwrap();
    let (_, said, _) = deidentify(&hostile, &work.join("out"), "--profile basic+uids");
    let mut everything = Vec::new();
    files(&dir.path().join("work"), &mut everything);
    for path in &everything {
        assert!(path.starts_with(work.join("out")), "{} is outside of OUT: {said}", path.display());
    }
}
