//! Sources that are no folder: what is read of them, what is refused, and what is left behind.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use synovia_cohort::RejectedLog;

use super::Object;
use crate::{ImageKind, Login, Places, Preparation, Selection, Server, Source, load};

/// What a scan gives, a line a study or rejection, with the brightest pixel of each study's image.
fn scanned(source: &Source, kind: ImageKind, dir: &Path) -> Result<Vec<String>, String> {
    let copies = dir.join("copies");
    let log_path = dir.join("rejected.jsonl");
    let log = RejectedLog::create(&log_path).unwrap();
    let mut lines = Vec::new();
    let mut studies = Vec::new();
    let places = Places { copies: &copies, scratch: dir };
    let counts = source.scan_into(kind, &Selection::default(), places, &log, &|_| (), &mut |study| {
        studies.push(study);
        Ok(())
    });
    let counts = counts.map_err(|error| error.to_string())?;
    log.finish().unwrap();
    for study in studies {
        let pixels = load(source.root(&copies), &study, &Preparation::grey(2)).unwrap();
        let brightest = pixels.iter().copied().fold(0.0, f32::max);
        lines.push(format!("{} of {} with {} images, {brightest}", study.study_instance_uid, study.patient, study.n_images));
    }
    let rejected = std::fs::read_to_string(log_path).unwrap();
    for line in rejected.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        lines.push(format!("{}: {}", line["source"].as_str().unwrap(), line["reason"].as_str().unwrap()));
    }
    lines.push(format!("{} files, {} images, {} studies", counts.n_files, counts.n_images, counts.n_studies));
    Ok(lines)
}

/// Files in memory are what they are on a disk: studies, pixels, rejections.
#[test]
fn files_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let bad = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bad/dicom");
    std::fs::create_dir(&disk).unwrap();
    for entry in std::fs::read_dir(bad).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), disk.join(entry.file_name())).unwrap();
    }
    image("2.25.10", "2.25.11").write(&disk.join("one"));
    image("2.25.10", "2.25.11").write(&disk.join("the same"));
    for k in 0..7 {
        let place = format!("0\\0\\{k}");
        let slice =
            image("2.25.20", &format!("2.25.2{k}")).text(tags::MODALITY, VR::CS, "CT").text(tags::IMAGE_POSITION_PATIENT, VR::DS, &place);
        slice.text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0").write(&disk.join(format!("slice{k}")));
    }
    let held = || {
        let files = std::fs::read_dir(&disk).unwrap().map(Result::unwrap);
        Source::memory(files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())))
    };
    let of = |source: &Source, slices: usize| {
        let selection = Selection { slices, ..Selection::default() };
        let preparation = Preparation { slices, channels: slices, ..Preparation::grey(4) };
        let path = dir.path().join("rejected.jsonl");
        let log = RejectedLog::create(&path).unwrap();
        let mut studies = Vec::new();
        let places = Places { copies: dir.path(), scratch: dir.path() };
        let counts = source.scan_into(ImageKind::Dicom, &selection, places, &log, &|_| (), &mut |study| {
            studies.push(study);
            Ok(())
        });
        log.finish().unwrap();
        let pixels: Vec<_> =
            studies.iter().map(|study| source.load(dir.path(), study, &preparation).map_err(|rejected| format!("{rejected:?}"))).collect();
        (counts.unwrap(), studies, pixels, std::fs::read_to_string(path).unwrap())
    };
    for slices in [1, 3] {
        let (there, here) = (of(&Source::open(&disk).unwrap(), slices), of(&held(), slices));
        assert_eq!(here, there, "{slices} slices");
        assert!(here.0.n_studies >= 2 && here.3.lines().count() > 5, "{:?} {}", here.0, here.3);
        assert!(here.2.iter().flatten().count() >= 2 && here.2.iter().flatten().all(|pixels| pixels.len() == slices * 16));
    }
    let error = scanned(&held(), ImageKind::Picture, dir.path()).unwrap_err();
    assert!(error.contains("read as DICOM alone"), "{error}");
}

fn image(study: &str, instance: &str) -> Object {
    Object::new().text(tags::STUDY_INSTANCE_UID, VR::UI, study).text(tags::SOP_INSTANCE_UID, VR::UI, instance)
}

#[test]
fn a_dicomdir() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    image("2.25.10", "2.25.11").write(&disk.join("DICOM/A1"));
    // Copied to a system of lower case.
    image("2.25.20", "2.25.21").write(&disk.join("dicom/b1"));
    image("2.25.30", "2.25.31").write(&disk.join("DICOM/UNLISTED"));
    let record = |kind: &str, file: Option<&str>| {
        let item = Object::item().text(tags::DIRECTORY_RECORD_TYPE, VR::CS, kind);
        match file {
            Some(file) => item.text(tags::REFERENCED_FILE_ID, VR::CS, file),
            None => item,
        }
    };
    let records = [None, Some("DICOM\\A1"), Some("DICOM\\B1"), Some("DICOM\\GONE"), Some("..\\secret"), Some("/etc\\passwd")];
    let records = records.map(|file| record(if file.is_none() { "PATIENT" } else { "IMAGE" }, file)).to_vec();
    Object::item()
        .text(tags::SOP_CLASS_UID, VR::UI, uids::MEDIA_STORAGE_DIRECTORY_STORAGE)
        .text(tags::SOP_INSTANCE_UID, VR::UI, "2.25.1")
        .sequence(tags::DIRECTORY_RECORD_SEQUENCE, records)
        .write(&disk.join("DICOMDIR"));
    let source = Source::open(&disk.join("DICOMDIR")).unwrap();
    let expected = [
        "2.25.10 of SECRET-4711 with 1 images, 1",
        "2.25.20 of SECRET-4711 with 1 images, 1",
        "../secret: the DICOMDIR names a file outside of its folder",
        "/etc/passwd: the DICOMDIR names a file outside of its folder",
        "DICOM/GONE: cannot be read: entity not found",
        "3 files, 2 images, 2 studies",
    ];
    assert_eq!(scanned(&source, ImageKind::Dicom, dir.path()).unwrap(), expected);
    assert!(Source::open(&disk.join("DICOM/A1")).unwrap_err().to_string().contains("neither a DICOMDIR nor a zip archive"));
}

/// An entry of a zip archive as its parts may be written: what is said of it, and what it is.
#[derive(Clone)]
struct Entry<'a> {
    name: &'a str,
    method: u16,
    flags: u16,
    body: Vec<u8>,
    said: u32,
    crc: u32,
}

fn stored<'a>(name: &'a str, bytes: &[u8]) -> Entry<'a> {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    Entry { name, method: 0, flags: 0, body: bytes.to_vec(), said: bytes.len() as u32, crc: crc.sum() }
}

fn deflated<'a>(name: &'a str, bytes: &[u8]) -> Entry<'a> {
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflate.write_all(bytes).unwrap();
    Entry { method: 8, body: deflate.finish().unwrap(), ..stored(name, bytes) }
}

/// PKWARE's APPNOTE §4.3: local headers with their content, central directory, its end.
fn zip(entries: &[Entry<'_>], times: u16) -> Vec<u8> {
    let (mut out, mut central) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = out.len() as u32;
        let common = |out: &mut Vec<u8>| {
            out.extend(20u16.to_le_bytes());
            out.extend(entry.flags.to_le_bytes());
            out.extend(entry.method.to_le_bytes());
            out.extend([0; 4]);
            [entry.crc, entry.body.len() as u32, entry.said].iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend((entry.name.len() as u16).to_le_bytes());
            out.extend([0; 2]);
        };
        out.extend(b"PK\x03\x04");
        common(&mut out);
        out.extend(entry.name.as_bytes());
        out.extend(&entry.body);
        central.extend(b"PK\x01\x02\x14\0");
        common(&mut central);
        central.extend([0; 10]);
        central.extend(at.to_le_bytes());
        central.extend(entry.name.as_bytes());
    }
    let (start, n) = (out.len() as u32, entries.len() as u16 * times);
    (0..times).for_each(|_| out.extend(&central));
    out.extend(b"PK\x05\x06\0\0\0\0");
    [n, n].iter().for_each(|n| out.extend(n.to_le_bytes()));
    out.extend((central.len() as u32 * u32::from(times)).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

#[track_caller]
fn check_zip(bytes: &[u8], expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.zip");
    std::fs::write(&path, bytes).unwrap();
    let lines = Source::open(&path).map_err(|e| e.to_string()).and_then(|source| scanned(&source, ImageKind::Dicom, dir.path()));
    let lines = lines.unwrap_or_else(|error| vec![error.replace(&format!("{}: ", path.display()), "")]);
    assert_eq!(lines, expected);
    // What is left of it names nobody.
    for copy in std::fs::read_dir(dir.path().join("copies")).into_iter().flatten() {
        let bytes = std::fs::read(copy.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("SECRET") && !text.contains("Secret") && !text.contains("19611231"));
    }
}

#[test]
fn an_archive() {
    let (first, second) = (
        image("2.25.10", "2.25.11").encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN),
        image("2.25.20", "2.25.21").encoded(uids::IMPLICIT_VR_LITTLE_ENDIAN),
    );
    let whole = zip(&[stored("d/", b""), deflated("d/a", &first), stored("d/b", &second), stored("d/readme.txt", b"read me")], 1);
    let studies = ["2.25.10 of SECRET-4711 with 1 images, 1", "2.25.20 of SECRET-4711 with 1 images, 1"];
    let no_dicom = "d/readme.txt: not a DICOM file: neither the DICM prefix nor a data set that starts with group 0002 or 0008";
    check_zip(&whole, &[studies[0], studies[1], no_dicom, "3 files, 2 images, 2 studies"]);
    check_zip(&zip(&[], 1), &["0 files, 0 images, 0 studies"]);
    let lost = "the end of the zip archive is missing or says what cannot be; copy it again from its source";
    check_zip(&whole[..whole.len() - 1], &[lost]);
    check_zip(&whole[..100], &[lost]);
    let a = deflated("a", &first);
    let refused = |entry: Entry<'_>, what: &str| check_zip(&zip(&[entry], 1), &[&format!("a: {what}"), "1 files, 0 images, 0 studies"]);
    refused(Entry { flags: 1, ..a.clone() }, "the entry is encrypted; unpack the archive");
    refused(Entry { method: 14, ..a.clone() }, "the entry is packed by a method other than deflate; unpack the archive");
    let damaged = "the entry is damaged in the archive; copy it again from its source";
    refused(Entry { crc: 7, ..a.clone() }, damaged);
    refused(Entry { body: a.body[..a.body.len() / 2].to_vec(), ..a.clone() }, damaged);
    refused(Entry { body: vec![0xFF; 40], ..a.clone() }, damaged);
    check_zip(
        &zip(&[a.clone(), Entry { name: "a", ..stored("a", &second) }], 1),
        &[studies[0], "a: another entry of the archive has the same name", "2 files, 1 images, 1 studies"],
    );
}

#[test]
fn bombs() {
    // 20 MiB of zeros in 20 kB.
    let bomb = deflated("a", &vec![0; 20 << 20]);
    let refused =
        |entry: Entry<'_>, what: &str| check_zip(&zip(&[entry], 1), &[&format!("a: the entry is {what}"), "1 files, 0 images, 0 studies"]);
    refused(Entry { said: 1000, ..bomb.clone() }, "larger than the archive says; it is not read");
    refused(Entry { said: (1 << 30) + 1, ..bomb.clone() }, "said to be larger than 1 GiB; unpack the archive");
    // One stream under many entries.
    check_zip(&zip(&[bomb], 50), &["the zip archive's entries overlap: together they are larger than it is; it is not read"]);
}

/// A server of a few lines: paths to answers, and how often each was asked for. An answer is a status line with headers, and a
/// body; `*` in the status is taken off after the first time.
#[derive(Clone, Default)]
struct Answers {
    answers: Arc<Mutex<HashMap<String, Vec<(String, Vec<u8>)>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answers {
    fn put(&self, path: &str, head: &str, body: impl Into<Vec<u8>>) {
        self.answers.lock().unwrap().entry(path.to_owned()).or_default().push((head.to_owned(), body.into()));
    }

    fn json(&self, path: &str, body: &str) {
        self.put(path, "200 OK\r\nContent-Type: application/dicom+json", body);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else { continue };
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                this.asked.lock().unwrap().push(path.clone());
                let (head, body) = match this.answers.lock().unwrap().get_mut(&path) {
                    None => ("404 Not Found".to_owned(), Vec::new()),
                    // The last one stays.
                    Some(answers) if answers.len() > 1 => answers.remove(0),
                    Some(answers) => answers[0].clone(),
                };
                let length = if head.contains("Content-Length") { String::new() } else { format!("\r\nContent-Length: {}", body.len()) };
                let _ = socket.write_all(format!("HTTP/1.1 {head}{length}\r\nConnection: close\r\n\r\n").as_bytes());
                let _ = socket.write_all(&body);
                let _ = socket.shutdown(std::net::Shutdown::Write);
                let _ = socket.read(&mut [0]);
            }
        });
        format!("http://{address}/web")
    }
}

const STUDIES: &str = "/web/studies?includefield=NumberOfStudyRelatedInstances&limit=100&offset=";

fn studies_json(uids: &[&str]) -> String {
    let study = |uid: &&str| format!(r#"{{"0020000D":{{"vr":"UI","Value":["{uid}"]}},"00201208":{{"vr":"IS","Value":[1]}}}}"#);
    format!("[{}]", uids.iter().map(study).collect::<Vec<_>>().join(","))
}

/// A study of one instance, all of it served.
fn put_study(answers: &Answers, study: &str) {
    let (series, instance) = (format!("{study}.1"), format!("{study}.1.1"));
    answers.json(
        &format!("/web/studies/{study}/series?limit=100&offset=0"),
        &format!(r#"[{{"0020000E":{{"vr":"UI","Value":["{series}"]}}}}]"#),
    );
    answers.json(&format!("/web/studies/{study}/series?limit=100&offset=1"), "[]");
    let metadata = format!(
        r#"[{{"0020000D":{{"vr":"UI","Value":["{study}"]}},"00080018":{{"vr":"UI","Value":["{instance}"]}},"00080060":{{"vr":"CS","Value":["DX"]}},
        "00100020":{{"vr":"LO","Value":["SECRET-4711"]}},"00280010":{{"vr":"US","Value":[2]}},"00280011":{{"vr":"US","Value":[2]}},
        "00280100":{{"vr":"US","Value":[8]}},"00280004":{{"vr":"CS","Value":["MONOCHROME2"]}}}}]"#
    );
    answers.json(&format!("/web/studies/{study}/series/{series}/metadata"), &metadata);
    let file = image(study, &instance).text(tags::SERIES_INSTANCE_UID, VR::UI, &series).encoded(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let body = [&b"--b\r\nContent-Type: application/dicom\r\n\r\n"[..], &file, b"\r\n--b--\r\n"].concat();
    let head = "200 OK\r\nContent-Type: multipart/related; type=\"application/dicom\"; boundary=b";
    answers.put(&format!("/web/studies/{study}/series/{series}/instances/{instance}"), head, body);
}

fn web(url: &str, login: Login) -> Source {
    Source::server(Server::new(url, login, Vec::new()).unwrap().with_delay(Duration::from_millis(1)))
}

#[test]
fn a_server_that_leads_elsewhere_is_not_followed() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), Answers::default());
    elsewhere.json("/web/secret", "[]");
    let to = elsewhere.serve();
    let answers = Answers::default();
    answers.put(&format!("{STUDIES}0"), &format!("302 Found\r\nLocation: {to}/secret"), "");
    let login = Login::Bearer("hidden".to_owned());
    let error = scanned(&web(&answers.serve(), login), ImageKind::Dicom, dir.path()).unwrap_err();
    assert!(error.contains("leads elsewhere (302)"), "{error}");
    assert_eq!((answers.asked().len(), elsewhere.asked().len()), (1, 0));
}

#[test]
fn a_server_that_knows_no_keys_is_asked_for_one_study_alone() {
    let (dir, answers) = (tempfile::tempdir().unwrap(), Answers::default());
    let studies = STUDIES.replace('?', "?StudyInstanceUID=1.2.2&");
    answers.json(&format!("{studies}0"), &studies_json(&["1.2.1", "1.2.2"]));
    answers.json(&format!("{studies}2"), "[]");
    ["1.2.1", "1.2.2"].iter().for_each(|study| put_study(&answers, study));
    let server = Server::new(&answers.serve(), Login::None, Vec::new()).unwrap().with_delay(Duration::from_millis(1));
    let expected = ["1.2.2 of SECRET-4711 with 1 images, 1", "1 files, 1 images, 1 studies"];
    assert_eq!(scanned(&Source::server(server.of_study("1.2.2")), ImageKind::Dicom, dir.path()).unwrap(), expected);
    assert!(answers.asked().iter().all(|path| !path.contains("studies/1.2.1")));
}

#[test]
fn a_server_is_given_up_in_time() {
    let (dir, answers) = (tempfile::tempdir().unwrap(), Answers::default());
    answers.put(&format!("{STUDIES}0"), "503 Busy", "");
    let server = Server::new(&answers.serve(), Login::None, Vec::new()).unwrap().until(Instant::now() + Duration::from_millis(300));
    let started = Instant::now();
    assert!(scanned(&Source::server(server), ImageKind::Dicom, dir.path()).is_err());
    assert!(started.elapsed() < Duration::from_secs(1) && answers.asked().len() == 1);
}

#[test]
fn a_server_that_fails_and_serves_again() {
    let dir = tempfile::tempdir().unwrap();
    let answers = Answers::default();
    answers.put(&format!("{STUDIES}0"), "503 Busy", "");
    answers.put(&format!("{STUDIES}0"), "200 OK\r\nContent-Length: 1000", "[{\"cut");
    answers.json(&format!("{STUDIES}0"), &studies_json(&["1.2.1", "1.2.2", "../../etc", "1.2.3"]));
    // The rest of the pages: one study is met twice.
    answers.json(&format!("{STUDIES}4"), &studies_json(&["1.2.4", "1.2.1"]));
    answers.json(&format!("{STUDIES}6"), "[]");
    ["1.2.1", "1.2.2", "1.2.4"].iter().for_each(|study| put_study(&answers, study));
    let url = answers.serve();
    let expected = [
        "1.2.1 of SECRET-4711 with 1 images, 1",
        "1.2.2 of SECRET-4711 with 1 images, 1",
        "1.2.4 of SECRET-4711 with 1 images, 1",
        "1.2.3: the server does not give it: the server answers 404",
        "3 files, 3 images, 3 studies",
    ];
    assert_eq!(scanned(&web(&url, Login::None), ImageKind::Dicom, dir.path()).unwrap(), expected);
    assert!(answers.asked().iter().all(|path| !path.contains("..")));
    // What is there is not fetched again; what was lost of it is.
    let copies: Vec<_> = std::fs::read_dir(dir.path().join("copies")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let copy = copies.iter().find(|path| path.extension().is_some_and(|e| e == "dcm")).unwrap();
    std::fs::remove_file(copy).unwrap();
    assert_eq!(scanned(&web(&url, Login::None), ImageKind::Dicom, dir.path()).unwrap(), expected);
    let asked = answers.asked();
    let times = |part: &str| asked.iter().filter(|path| path.contains(part)).count();
    assert_eq!((times("/metadata"), times("/instances/"), times("1.2.3/series")), (1, 1, 1), "{asked:?}");
    let left = std::fs::read(copy).unwrap();
    assert!(!String::from_utf8_lossy(&left).contains("SECRET"));
}

#[test]
fn a_server_that_does_not_serve() {
    let dir = tempfile::tempdir().unwrap();
    let check = |head: &str, body: &str, login: Login, words: &str| {
        let answers = Answers::default();
        answers.put(&format!("{STUDIES}0"), head, body);
        let url = answers.serve();
        let error = scanned(&web(&url, login), ImageKind::Dicom, dir.path()).unwrap_err();
        assert!(error.starts_with(&format!("{url}: ")) && error.contains(words) && !error.contains("open-sesame"), "{error}");
        answers.asked().len()
    };
    let basic = Login::Basic { user: "me".to_owned(), password: "open-sesame".to_owned() };
    assert_eq!(check("401 No", "", Login::None, "refuses access (401) without a login; name the environment variables"), 1);
    assert_eq!(check("403 No", "", basic, "refuses access (403) with the login that was given"), 1);
    assert_eq!(check("404 Not Found", "", Login::None, "the server answers 404 when it is asked for its studies; is this the address"), 1);
    assert_eq!(check("500 Oh", "", Login::None, "the server fails (500) when it is asked"), 5);
    assert_eq!(check("200 OK", "<html>", Login::None, "not of the form that was asked for"), 5);
    let gone = web("http://127.0.0.1:1/web", Login::None);
    let error = scanned(&gone, ImageKind::Dicom, dir.path()).unwrap_err();
    assert!(error.starts_with("http://127.0.0.1:1/web: does not answer"), "{error}");
    assert!(scanned(&gone, ImageKind::Picture, dir.path()).unwrap_err().contains("has DICOM only"));
}

#[test]
fn addresses() {
    let why = |url: &str, query: &[&str]| {
        let query = query.iter().map(|key| (*key).to_owned()).collect();
        Server::new(url, Login::None, query).map(|server| server.url().to_owned()).map_err(|error| error.to_string())
    };
    assert_eq!(why("https://pacs/dicom-web/", &["ModalitiesInStudy=CT"]).as_deref(), Ok("https://pacs/dicom-web"));
    assert!(why("https://me:secret@pacs/web", &[]).is_err_and(|error| error.contains("holds a login") && !error.contains("secret")));
    assert!(why("http://", &[]).is_err() && why("http:///x", &[]).is_err() && why("http://a/b?c", &[]).is_err());
    assert!(why("http://a/b", &["Modality"]).is_err() && why("http://a/b", &["=CT"]).is_err() && why("http://a/b", &["A=1&B=2"]).is_err());
}
