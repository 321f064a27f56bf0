//! A trained model behind `synovia serve`: what is uploaded gets the answer of `synovia predict`, and Triton's client works
//! unchanged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::runs::files;
use crate::sources::{Orthanc, installed, orthanc};
use crate::synovia::{command, json_lines, root, run, simulate, skipped, small, succeed};

/// A server, ended with the test however that ends.
pub struct Server {
    child: Child,
    /// Where REST listens.
    pub rest: String,
    grpc: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Of a folder of models, on ports of its own, when it is ready.
    fn start(models: &Path, log: &Path) -> Self {
        let mut command = command();
        command.arg("serve");
        Self::start_with(models, log, command)
    }

    /// The same of a program that at last is `synovia serve`.
    pub fn start_with(models: &Path, log: &Path, command: Command) -> Self {
        let server = Self::start_unready(models, log, command);
        let started = Instant::now();
        while server.ask("GET", "/v2/health/ready", "", &[]).0 != 200 {
            assert!(started.elapsed() < Duration::from_secs(30), "{}", std::fs::read_to_string(log).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// The same as soon as it listens.
    pub fn start_unready(models: &Path, log: &Path, mut command: Command) -> Self {
        command.args(["--address", "127.0.0.1:0", "--grpc-address", "127.0.0.1:0", "--access-log", "--models"]).arg(models);
        command.current_dir(root()).env_remove("SYNOVIA_TOKEN").stdout(Stdio::piped()).stderr(std::fs::File::create(log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(log).unwrap()));
        let text = |key: &str| said[key].as_str().unwrap().to_owned();
        Self { child, rest: text("listening"), grpc: text("grpc") }
    }

    /// Status and body of the answer.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
        self.try_ask(method, path, content_type, body).unwrap()
    }

    /// The answer as it is.
    pub fn ask_for_text(&self, method: &str, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.rest).unwrap();
        write!(socket, "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Nothing where there is no answer.
    pub fn try_ask(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Option<(u16, Value)> {
        let mut socket = TcpStream::connect(&self.rest).ok()?;
        let n = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {n}\r\n\r\n"
        );
        // It may say no before it has read all.
        let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body));
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head[9..12].parse().ok()?, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had, MiB.
    pub fn most_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }

    /// Its end, for which it was told already.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Tells it to end, and waits for a good end.
    #[track_caller]
    pub fn end(&mut self) {
        assert!(Command::new("kill").arg(self.id().to_string()).status().unwrap().success());
        assert!(self.wait().success());
    }

    /// Uploads images and records to the model `lung`.
    #[track_caller]
    fn predict(&self, images: &[PathBuf], records: &[PathBuf]) -> Value {
        let (status, answer) = self.predict_with(&[], images, records);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The same with other fields.
    pub fn predict_with(&self, fields: &[(&str, &str)], images: &[PathBuf], records: &[PathBuf]) -> (u16, Value) {
        let mut body = Vec::new();
        for (field, text) in fields {
            write!(body, "--frontier\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{text}\r\n").unwrap();
        }
        for (field, path) in images.iter().map(|path| ("images", path)).chain(records.iter().map(|path| ("records", path))) {
            let name = path.file_name().unwrap().to_string_lossy();
            write!(body, "--frontier\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\r\n").unwrap();
            body.extend(std::fs::read(path).unwrap());
            body.extend(b"\r\n");
        }
        body.extend(b"--frontier--\r\n");
        self.ask("POST", "/v1/models/lung/predict", "multipart/form-data; boundary=frontier", &body)
    }
}

/// A trained and exported model in `DIR/models/lung/1`, and the data that it was trained on.
pub fn exported(dir: &Path) -> (PathBuf, PathBuf) {
    let data = simulate(dir, 120, "--missing-image 0.1 --missing-record 0.1");
    let to = dir.join("run");
    let models = dir.join("models");
    succeed(&format!("export {} --set training.epochs=1 --triton {}", small(&data, &to), models.display()));
    assert_eq!(std::fs::read(to.join("model.onnx")).unwrap(), std::fs::read(models.join("lung/1/model.onnx")).unwrap());
    (models, data)
}

/// What each example is said to have and to be, by its name; the rest must be equal as it is.
fn by_example(lines: &[Value]) -> BTreeMap<String, Value> {
    lines.iter().map(|line| (line["example"].as_str().unwrap().to_owned(), line.clone())).collect()
}

fn the_same(served: &Value, predicted: &[Value]) {
    let (served, predicted) = (by_example(served["predictions"].as_array().unwrap()), by_example(predicted));
    assert_eq!(served.keys().collect::<Vec<_>>(), predicted.keys().collect::<Vec<_>>());
    for (served, predicted) in served.values().zip(predicted.values()) {
        assert_eq!(served["present"], predicted["present"]);
        for (task, classes) in predicted["probabilities"].as_object().unwrap() {
            for (class, p) in classes.as_object().unwrap() {
                let difference = (served["probabilities"][task][class].as_f64().unwrap() - p.as_f64().unwrap()).abs();
                assert!(difference < 1e-5, "{task} {class}: {served} {predicted}");
            }
            assert_eq!(served["prediction_sets"][task]["calibrated_on"], predicted["prediction_sets"][task]["calibrated_on"]);
        }
    }
}

#[test]
fn an_upload_gets_the_answer_of_predict_and_triton_s_client_works() {
    let dir = tempfile::tempdir().unwrap();
    let (models, data) = exported(dir.path());
    let log = dir.path().join("log");
    let server = Server::start(&models, &log);
    let (mut images, mut records) = (Vec::new(), Vec::new());
    files(&data.join("dicom"), &mut images);
    files(&data.join("fhir"), &mut records);

    let model = models.join("lung/1/model.onnx");
    let mut answers = Vec::new();
    for (arguments, images, records) in [
        (format!("--images {0}/dicom --records {0}/fhir", data.display()), &images[..], &records[..]),
        (format!("--images {}/dicom", data.display()), &images[..], &records[..0]),
        (format!("--records {}/fhir", data.display()), &images[..0], &records[..]),
    ] {
        let served = server.predict(images, records);
        let predicted = json_lines(&succeed(&format!("predict --quiet --model {} {arguments}", model.display())));
        assert!(predicted.len() >= 40);
        the_same(&served, &predicted);
        assert_eq!(served["model"]["sha256"], predicted[0]["model"]);
        answers.push(served);
    }
    // Files in one zip archive are the files; the names that they have in it are not said, a wrong one's neither.
    let zip = dir.path().join("study.zip");
    let picked = dir.path().join("Mustermann");
    std::fs::create_dir(&picked).unwrap();
    std::fs::write(picked.join("Erika.dcm"), "no DICOM").unwrap();
    for (k, image) in images[..8].iter().enumerate() {
        std::fs::copy(image, picked.join(format!("{k}.dcm"))).unwrap();
    }
    let zipped = Command::new("python3").args(["-m", "zipfile", "-c"]).args([&zip, &picked]).status().unwrap();
    assert!(zipped.success());
    let (of_zip, of_files) = (server.predict(&[zip], &[]), server.predict(&images[..8], &[]));
    assert_eq!(by_example(of_zip["predictions"].as_array().unwrap()), by_example(of_files["predictions"].as_array().unwrap()));
    assert!(of_zip["rejected"].to_string().contains("0001.zip") && !of_zip.to_string().contains("Mustermann"), "{of_zip}");

    let ranged = answers[2]["predictions"].as_array().unwrap().iter().filter(|p| p["out_of_range"] == Value::Array(Vec::new())).count();
    assert!(ranged > 10, "of 120 patients of the training's own distribution most are in range");

    let python = root().join(".triton/venv/bin/python");
    if python.exists() {
        let folder = models.display().to_string();
        for (script, arguments) in [
            ("kserve_client.py", vec![server.rest.as_str(), &server.grpc, "lung"]),
            ("triton_client.py", vec![&server.rest, &server.grpc, "lung"]),
            ("triton_repository.py", vec![&folder, "lung"]),
        ] {
            let script = root().join("tests/it").join(script);
            let output = Command::new(&python).arg(script).args(arguments).output().unwrap();
            assert!(output.status.success() && output.stdout.ends_with(b"ok\n"), "{}", String::from_utf8_lossy(&output.stderr));
        }
    } else {
        skipped("Triton's and KServe's clients are not installed; run `just serving-clients`");
    }

    // It ends well when it is told to.
    let mut server = server;
    server.end();

    // Neither the answers nor the log name anybody.
    let patients = std::fs::read_to_string(data.join("fhir/Patient.ndjson")).unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.lines().count() > 5 && said.contains("\"route\":\"/v1/models/{model}/predict\""), "{said}");
    let texts: Vec<String> = answers.iter().map(ToString::to_string).chain([said]).collect();
    let mut n_looked_for = 0;
    for patient in json_lines(&patients) {
        let identifiers = patient["identifier"].as_array().into_iter().flatten().filter_map(|i| i["value"].as_str());
        let families = patient["name"].as_array().into_iter().flatten().filter_map(|name| name["family"].as_str());
        for name in identifiers.chain(families).chain(patient["id"].as_str()).filter(|name| name.len() > 5) {
            n_looked_for += 1;
            assert!(texts.iter().all(|text| !text.contains(name)), "an identifier is said");
        }
    }
    assert!(n_looked_for > 60, "{n_looked_for}");
}

/// A study that is in an archive, by its UID; and back into the archive what is said of it.
#[test]
fn a_study_of_an_archive_is_predicted_and_the_result_stored_beside_it() {
    if !Orthanc::is_installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (models, data) = exported(dir.path());
    let archive = orthanc(dir.path(), &data.join("dicom"));
    let log = dir.path().join("log");
    let start = |stores: &[&str]| {
        let mut command = command();
        command.args(["serve", "--pacs", &archive.url]).args(stores);
        command.env("SYNOVIA_PACS_USER", "reader").env("SYNOVIA_PACS_PASSWORD", "test-password");
        Server::start_with(&models, &log, command)
    };
    let server = start(&["--pacs-store"]);
    let (mut images, mut records) = (Vec::new(), Vec::new());
    files(&data.join("dicom"), &mut images);
    files(&data.join("fhir"), &mut records);
    let uploaded = by_example(server.predict(&images, &records)["predictions"].as_array().unwrap());
    let listed: Value = serde_json::from_slice(&archive.get("/dicom-web/studies?limit=6", "application/dicom+json")).unwrap();
    let value = |object: &Value, tag: &str| object[tag]["Value"][0].clone();
    let uid = |study: &Value| value(study, "0020000D").as_str().unwrap().to_owned();
    let with_image = |answer: &Value| {
        let of = answer["predictions"].as_array().unwrap().iter().filter(|p| p["present"]["image"] == true).cloned();
        of.collect::<Vec<Value>>()
    };
    let mut n_same = 0;
    for study in listed.as_array().unwrap() {
        let (status, answer) = server.predict_with(&[("study", &uid(study))], &[], &records);
        assert_eq!(status, 200, "{answer}");
        let [found] = &with_image(&answer)[..] else { panic!("{answer}") };
        // Some studies have a patient whose chart knows nothing of them.
        if let Some(expected) = uploaded.get(found["example"].as_str().unwrap()) {
            assert_eq!((&found["probabilities"], &found["present"]), (&expected["probabilities"], &expected["present"]));
            n_same += 1;
        }
    }
    assert!(n_same >= 4, "{n_same}");

    // Stored: twice the same report, which a reader of DICOM understands.
    let study = &listed[0];
    let stored = [(); 2].map(|()| {
        let (status, answer) = server.predict_with(&[("study", &uid(study)), ("store", "true")], &[], &[]);
        assert_eq!(status, 200, "{answer}");
        with_image(&answer).remove(0)
    });
    assert_eq!(stored[0], stored[1]);
    let [of_series, of_report] =
        ["series_instance_uid", "sop_instance_uid"].map(|key| stored[0]["stored"][key].as_str().unwrap().to_owned());
    let path = format!("/dicom-web/studies/{}/series/{of_series}/instances/{of_report}/metadata", uid(study));
    let read: Value = serde_json::from_slice(&archive.get(&path, "application/dicom+json")).unwrap();
    let report = &read[0];
    // Patient and study are those of the images.
    for tag in ["00100010", "00100020", "00100030", "00100040", "0020000D", "00080020", "00080030", "00200010"] {
        assert_eq!(value(report, tag), value(study, tag), "{tag}");
    }
    assert_eq!((value(report, "00080060"), value(report, "0040A493")), ("SR".into(), "UNVERIFIED".into()));
    let mut told = BTreeMap::new();
    let content = |item: &Value| item["0040A730"]["Value"].as_array().cloned().unwrap_or_default();
    for number in content(report).iter().flat_map(content).filter(|item| value(item, "0040A040") == "NUM") {
        let name = value(&value(&number, "0040A043"), "00080104").as_str().unwrap().to_owned();
        told.insert(name, value(&value(&number, "0040A300"), "0040A30A").as_f64().unwrap());
    }
    let mut n_told = 0;
    for (task, classes) in stored[0]["probabilities"].as_object().unwrap() {
        for (class, p) in classes.as_object().unwrap() {
            n_told += 1;
            assert!((told[&format!("{task}: {class}")] - p.as_f64().unwrap()).abs() < 1e-6, "{task} {class}: {told:?}");
        }
    }
    assert_eq!(n_told, told.len());
    if installed(&["dciodvfy"]) {
        let instances: Value = serde_json::from_slice(&archive.get("/instances?expand", "application/json")).unwrap();
        let is_it = |instance: &&Value| instance["MainDicomTags"]["SOPInstanceUID"] == of_report.as_str();
        let id = instances.as_array().unwrap().iter().find(is_it).unwrap()["ID"].as_str().unwrap().to_owned();
        let file = dir.path().join("report.dcm");
        std::fs::write(&file, archive.get(&format!("/instances/{id}/file"), "application/dicom")).unwrap();
        let output = Command::new("dciodvfy").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("EnhancedSR") && !said.contains("Error"), "{said}");
    }

    let check = |server: &Server, fields: &[(&str, &str)], images: &[PathBuf], expected: u16, words: &str| {
        let (status, answer) = server.predict_with(fields, images, &[]);
        assert!(status == expected && answer["error"].as_str().unwrap().contains(words), "{fields:?}: {status} {answer}");
    };
    let known = uid(study);
    check(&server, &[("study", "1.2.3.4")], &[], 400, "no image");
    for wrong in ["../../instances", "1.2&limit=1", "1.2/series", "http://127.0.0.1/", "1.2\r\nHost: b", "", &"1.".repeat(40)] {
        check(&server, &[("study", wrong)], &[], 400, "one Study Instance UID");
    }
    check(&server, &[("study", &known), ("study", &known)], &[], 400, "one Study Instance UID");
    check(&server, &[("study", &known)], &images[..1], 400, "not both");
    check(&server, &[("store", "true")], &images[..1], 400, "image archive");
    check(&server, &[("study", &known), ("store", "yes")], &[], 400, "true or false");
    drop(server);
    let server = start(&[]);
    check(&server, &[("study", &known), ("store", "true")], &[], 400, "--pacs-store");
    archive.end();
    check(&server, &[("study", &known)], &[], 503, "image archive");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("\"event\":\"archive\"") && said.contains("does not answer") && !said.contains(&known), "{said}");
    drop(server);
    let server = Server::start(&models, &log);
    check(&server, &[("study", &known)], &[], 400, "--pacs");
}

/// Where the audit log has no room nothing is predicted, and what was is in it.
#[test]
fn a_full_disk_under_the_audit_log_stops_predictions() {
    let dir = tempfile::tempdir().unwrap();
    let (models, _) = exported(dir.path());
    let log = dir.path().join("audit.jsonl");
    let start = |limit: &str| {
        let mut command = Command::new("bash");
        let program = crate::synovia::command().get_program().to_owned();
        // A file may not grow beyond 4 KiB, as on a full disk.
        command.args(["-c", &format!("trap '' XFSZ; {limit} exec \"$0\" serve \"$@\"")]).arg(program).arg("--audit-log").arg(&log);
        Server::start_with(&models, &dir.path().join("log"), command)
    };
    let chart = br#"{"resourceType": "Patient", "id": "p", "birthDate": "1950-01-01", "gender": "female"}
{"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}, "recordedDate": "2000-01-01", "code": {"coding": [{"system": "http://snomed.info/sct", "code": "38341003"}]}}
"#;
    let ask = |server: &Server| server.ask("POST", "/v1/models/lung/predict", "application/fhir+ndjson", chart);
    let server = start("ulimit -f 4;");
    let mut n_answered = 0;
    let refused = loop {
        match ask(&server) {
            (200, _) => n_answered += 1,
            (status, answer) => break (status, answer),
        }
        assert!(n_answered < 100);
    };
    assert!(refused.0 == 503 && refused.1["error"].as_str().unwrap().contains("audit log"), "{refused:?}");
    assert_eq!(ask(&server).0, 503);
    assert_eq!(server.ask("GET", "/v2/health/live", "", b"").0, 200);
    drop(server);
    let whole = |n: usize| {
        let said: Value = serde_json::from_str(&succeed(&format!("verify-log {}", log.display()))).unwrap();
        assert_eq!((&said["lines"], &said["unfinished_bytes"]), (&n.into(), &0.into()));
        said["sha256"].as_str().unwrap().to_owned()
    };
    let kept = whole(n_answered);
    // With room it goes on.
    let server = start("");
    assert_eq!(ask(&server).0, 200);
    drop(server);
    whole(n_answered + 1);
    succeed(&format!("verify-log {} --holds {kept}", log.display()));
    let broken = |more: &str, words: &str| {
        let output = run(&format!("verify-log {} {more}", log.display()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(words), "{said}");
    };
    broken(&format!("--holds {}", "0".repeat(64)), "no line has the digest");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replacen("lung", "lang", 1)).unwrap();
    broken("", "line 1");
}

/// `just serving-cases` asks more.
/// `just serving-cases` asks more.
#[test]
fn made_up_requests_get_documented_answers() {
    let python = root().join(".schemathesis/venv/bin/python");
    if !python.exists() {
        skipped("schemathesis is not installed; run `just schemathesis`");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (models, _) = exported(dir.path());
    let server = Server::start(&models, &dir.path().join("log"));
    let examples = std::env::var("SYNOVIA_CASES").unwrap_or_else(|_| "20".to_owned());
    let script = root().join("tests/it/cases.py");
    let output = Command::new(&python).arg(script).args([&server.rest, &examples, "lung"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let n: usize = said.trim().parse().unwrap();
    println!("{n} made-up requests");
    assert!(n > 1000, "{said}");
}

#[test]
fn a_server_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let check = |arguments: &str, code: i32, words: &[&str]| {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    let models = dir.path().display();
    check(&format!("serve --models {models} --address 127.0.0.1:0"), 1, &["no model could be loaded", "NAME/VERSION/model.onnx"]);
    check(&format!("serve --models {models} --address 0.0.0.0:0"), 2, &["SYNOVIA_TOKEN", "--without-token"]);
    check(&format!("serve --models {models} --token-file {models}/none"), 1, &["token"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    check(&format!("serve --models {models} --address {}", taken.local_addr().unwrap()), 1, &["cannot listen there"]);
}
