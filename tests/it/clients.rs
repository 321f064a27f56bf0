//! Clients that are not ours, of the server of a trained model: those that the guide shows, a browser, EHRs, and curl with certificates.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::runs::files;
use crate::serving::{Server, exported};
use crate::sources::installed;
use crate::synovia::{command, json_lines, root, skipped};

/// A trained model, and of one of its patients the image that stands for a study and the chart.
struct Ward {
    dir: tempfile::TempDir,
    models: PathBuf,
    image: PathBuf,
    chart: PathBuf,
    resources: Vec<Value>,
}

impl Ward {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (models, data) = exported(dir.path());
        let mut images = Vec::new();
        files(&data.join("dicom"), &mut images);
        let mut lines = Vec::new();
        let mut of_fhir = Vec::new();
        files(&data.join("fhir"), &mut of_fhir);
        of_fhir.iter().for_each(|path| lines.extend(json_lines(&std::fs::read_to_string(path).unwrap())));
        let uid = |study: &Value| study["identifier"][0]["value"].as_str().unwrap().trim_start_matches("urn:oid:").to_owned();
        let has = |path: &Path, text: &str| std::fs::read(path).unwrap().windows(text.len()).any(|bytes| bytes == text.as_bytes());
        let studies: Vec<&Value> = lines.iter().filter(|line| line["resourceType"] == "ImagingStudy").collect();
        for study in &studies {
            let patient = study["subject"]["reference"].as_str().unwrap();
            let is_only = studies.iter().filter(|other| other["subject"]["reference"] == patient).count() == 1;
            let of_study: Vec<&PathBuf> = images.iter().filter(|path| has(path, &uid(study))).collect();
            // The largest of a study is the frontal one.
            let Some(image) = of_study.into_iter().max_by_key(|path| path.metadata().unwrap().len()).filter(|_| is_only) else { continue };
            let id = patient.trim_start_matches("Patient/");
            let names = |line: &&Value| {
                line["resourceType"] == "Patient" && line["id"] == id
                    || line["subject"]["reference"] == patient
                    || line["patient"]["reference"] == patient
            };
            let resources: Vec<Value> = lines.iter().filter(names).cloned().collect();
            if resources.len() < 10 {
                continue;
            }
            let entries: Vec<Value> = resources.iter().map(|resource| json!({ "resource": resource })).collect();
            let chart = dir.path().join("chart.json");
            std::fs::write(&chart, json!({"resourceType": "Bundle", "type": "collection", "entry": entries}).to_string()).unwrap();
            let to = dir.path().join("chest.dcm");
            std::fs::copy(image, &to).unwrap();
            return Self { models, image: to, chart, resources, dir };
        }
        panic!("no patient of the cohort has one study with an image");
    }

    fn serve(&self, arguments: &[&str]) -> Server {
        let mut server = command();
        server.arg("serve").args(arguments);
        Server::start_with(&self.models, &self.dir.path().join("log"), server)
    }

    fn predict(&self, server: &Server, fields: &[(&str, &str)]) -> Value {
        let (status, answer) = server.predict_with(fields, std::slice::from_ref(&self.image), std::slice::from_ref(&self.chart));
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Python of the environment that `just serving-clients` makes.
fn python() -> Option<PathBuf> {
    let python = root().join(".triton/venv/bin/python");
    if !python.exists() {
        skipped("the clients of serving are not installed; run `just serving-clients`");
    }
    python.exists().then_some(python)
}

/// Blocks of a language in the guide that have a word.
fn blocks(language: &str, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/serving.md")).unwrap();
    let blocks = text.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)).filter(|block| block.contains(word)).map(str::to_owned).collect()
}

#[test]
fn the_examples_of_the_guide_run() {
    let ward = Ward::new();
    let server = ward.serve(&[]);
    let here = |text: &str| text.replace("127.0.0.1:8000", &server.rest);
    let expected = ward.predict(&server, &[])["predictions"][0]["probabilities"].clone();
    let is_it = |text: &str| {
        let p: Value = serde_json::from_str(&text.replace('\'', "\"")).unwrap();
        assert_eq!(p, expected);
    };
    let mut n = 0;
    if installed(&["curl"]) {
        for block in blocks("sh", "curl -F images") {
            let answer: Value = serde_json::from_str(&said(
                &Command::new("bash").args(["-c", &here(&block)]).current_dir(ward.dir.path()).output().unwrap(),
            ))
            .unwrap();
            is_it(&answer["predictions"][0]["probabilities"].to_string());
            n += 1;
        }
        assert_eq!(n, 1);
    }
    let Some(python) = python() else { return };
    for (word, is_clinical) in [("requests.post", true), ("tritonclient", false)] {
        let [block] = &blocks("python", word)[..] else { panic!("{word} is in one example") };
        let output = said(&Command::new(&python).args(["-c", &here(block)]).current_dir(ward.dir.path()).output().unwrap());
        if is_clinical {
            is_it(&output);
        } else {
            assert!(output.starts_with("[["), "{output}");
        }
    }
}

/// What drove a prediction adds up, and is the same each time.
#[test]
fn an_explanation_adds_up() {
    let ward = Ward::new();
    let server = ward.serve(&[]);
    let answer = ward.predict(&server, &[("explain", "true")]);
    assert_eq!(answer, ward.predict(&server, &[("explain", "true")]));
    let prediction = &answer["predictions"][0];
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value}"));
    let tasks = prediction["explanation"]["tasks"].as_object().unwrap();
    assert_eq!(tasks.len(), 2);
    for (task, explained) in tasks {
        let class = explained["class"].as_str().unwrap();
        let p = number(&explained["probability"]);
        assert!((p - number(&prediction["probabilities"][task][class])).abs() < 1e-6);
        let of = |key: &str| number(&explained["modalities"][key]);
        assert!((of("neither") + of("image_share") + of("record_share") - p).abs() < 1e-9, "{explained}");
        // Each alone is what is predicted without the other.
        for (key, images, records) in [("image_alone", true, false), ("record_alone", false, true)] {
            let (image, chart) = ([ward.image.clone()], [ward.chart.clone()]);
            let alone = server.predict_with(&[], if images { &image } else { &[] }, if records { &chart } else { &[] }).1;
            assert!((of(key) - number(&alone["predictions"][0]["probabilities"][task][class])).abs() < 1e-5, "{key}: {alone}");
        }
        assert!(explained["features"].as_array().unwrap().len() > 3);
        let grid = explained["image"]["change"].as_array().unwrap();
        assert!(grid.len() == 8 && grid.iter().all(|row| row.as_array().unwrap().len() == 8));
        assert!(prediction["explanation"]["overlay_png"][task].as_str().unwrap().starts_with("iVBOR"), "no PNG");
    }
    let two = [ward.image.clone()];
    let other = ward.dir.path().join("other.ndjson");
    std::fs::write(&other, r#"{"resourceType": "Patient", "id": "q", "birthDate": "1950-01-01"}
{"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/q"}, "recordedDate": "2000-01-01", "code": {"coding": [{"system": "http://snomed.info/sct", "code": "38341003"}]}}"#).unwrap();
    let (status, refused) = server.predict_with(&[("explain", "true")], &two, &[ward.chart.clone(), other]);
    assert!(status == 400 && refused["error"].as_str().unwrap().contains("one prediction at a time"), "{refused}");
}

#[test]
fn an_ehr_gets_cards() {
    let ward = Ward::new();
    let audit = ward.dir.path().join("audit.jsonl");
    let server = ward.serve(&["--audit-log", &audit.display().to_string()]);
    let services = server.ask("GET", "/cds-services", "", b"").1["services"].clone();
    let told: Vec<(&str, &str)> =
        services.as_array().unwrap().iter().map(|of| (of["id"].as_str().unwrap(), of["hook"].as_str().unwrap())).collect();
    assert_eq!(told, [("lung", "patient-view"), ("lung-order-select", "order-select")]);
    // As an EHR does it: a search for each query.
    let mut prefetch = serde_json::Map::new();
    for (key, query) in services[0]["prefetch"].as_object().unwrap() {
        let kind = query.as_str().unwrap().split(['/', '?']).next().unwrap();
        let mut found: Vec<Value> = ward.resources.iter().filter(|resource| resource["resourceType"] == kind).cloned().collect();
        let value = match key.as_str() {
            "patient" => found.remove(0),
            "procedures" => Value::Null,
            _ => {
                let outcome = json!({"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}});
                let entries = found.into_iter().map(|resource| json!({"resource": resource, "search": {"mode": "match"}}));
                json!({"resourceType": "Bundle", "type": "searchset", "entry": entries.chain([outcome]).collect::<Vec<_>>()})
            }
        };
        prefetch.insert(key.clone(), value);
    }
    let id = prefetch["patient"]["id"].as_str().unwrap().to_owned();
    let call_of = |patient: &str, service: &str, hook: &str, prefetch: &serde_json::Map<String, Value>| {
        let body = json!({"hook": hook, "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea", "context": {"userId": "Practitioner/1", "patientId": patient}, "prefetch": prefetch});
        server.ask("POST", &format!("/cds-services/{service}"), "application/json", body.to_string().as_bytes())
    };
    let call = |service: &str, hook: &str, prefetch: &serde_json::Map<String, Value>| call_of(&id, service, hook, prefetch);
    let (status, answer) = call("lung", "patient-view", &prefetch);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(call("lung-order-select", "order-select", &prefetch), (status, answer.clone()));
    let cards = answer["cards"].as_array().unwrap();
    assert_eq!(cards.len(), 2);
    // Of the chart as it is: not as it was at its study.
    let chart = ward.dir.path().join("without-studies.ndjson");
    let lines: Vec<String> =
        ward.resources.iter().filter(|resource| resource["resourceType"] != "ImagingStudy").map(Value::to_string).collect();
    std::fs::write(&chart, lines.join("\n")).unwrap();
    let alone = server.predict_with(&[], &[], &[chart]).1;
    let p = alone["predictions"][0]["probabilities"]["malignant"]["malignant"].as_f64().unwrap();
    assert!(cards[0]["summary"].as_str().unwrap().starts_with(&format!("malignant {:.1} %", 100.0 * p)), "{answer} {alone}");
    for card in cards {
        assert!(card["summary"].as_str().unwrap().chars().count() < 140 && !card["source"]["label"].as_str().unwrap().is_empty());
        assert!(["info", "warning", "critical"].contains(&card["indicator"].as_str().unwrap()));
        assert!(card["detail"].as_str().unwrap().contains("without an image"));
    }
    let text = answer.to_string();
    let patient = &prefetch["patient"];
    for name in [&patient["id"], &patient["name"][0]["family"], &patient["birthDate"]] {
        assert!(!text.contains(name.as_str().unwrap()), "a card names somebody");
    }
    // What is missing is said by its status.
    let mut without = prefetch.clone();
    without.insert("patient".to_owned(), Value::Null);
    assert_eq!(call("lung", "patient-view", &without).0, 412);
    let patient_alone = prefetch.iter().filter(|(key, _)| *key == "patient").map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(call("lung", "patient-view", &patient_alone).0, 412);
    assert_eq!(call("lung", "order-select", &prefetch).0, 400);
    assert_eq!(call("none", "patient-view", &prefetch).0, 404);
    // Nobody gets another patient's card, whoever is mixed up.
    let others = [
        ("patient-1", prefetch.clone(), 412),
        (
            id.as_str(),
            {
                let mut mixed = prefetch.clone();
                mixed["conditions"]["entry"][0]["resource"]["subject"]["reference"] = json!("Patient/somebody-else");
                mixed
            },
            400,
        ),
    ];
    for (patient, prefetch, expected) in others {
        assert_eq!(call_of(patient, "lung", "patient-view", &prefetch).0, expected);
    }
    let with_study: serde_json::Map<String, Value> = {
        let study = ward.resources.iter().find(|resource| resource["resourceType"] == "ImagingStudy").unwrap();
        prefetch.clone().into_iter().chain([("studies".to_owned(), study.clone())]).collect()
    };
    assert_eq!(call("lung", "patient-view", &with_study).1, answer);
    // What became of a card is in the audit log.
    let feedback = |outcome: &str| {
        let body = json!({"feedback": [{"card": cards[0]["uuid"], "outcome": outcome, "outcomeTimestamp": "2026-01-01T00:00:00Z"}]});
        server.ask("POST", "/cds-services/lung/feedback", "application/json", body.to_string().as_bytes()).0
    };
    assert_eq!((feedback("forgotten"), feedback("accepted")), (400, 200));
    let lines = json_lines(&std::fs::read_to_string(&audit).unwrap());
    assert!(lines.last().unwrap()["event"] == "feedback" && lines.last().unwrap()["card"] == cards[0]["uuid"], "{lines:?}");
}

#[test]
fn answers_in_fhir_are_fhir() {
    let ward = Ward::new();
    let server = ward.serve(&[]);
    if !installed(&["curl"]) {
        return;
    }
    let ask = |more: &[&str]| {
        let at = format!("http://{}/v1/models/lung/predict", server.rest);
        let output = Command::new("curl")
            .args(["-sS", "-H", "Accept: application/fhir+json", "-F", "images=@chest.dcm", "-F", "records=@chart.json"])
            .args(more)
            .arg(at)
            .current_dir(ward.dir.path())
            .output()
            .unwrap();
        serde_json::from_str::<Value>(&said(&output)).unwrap()
    };
    let plain = ward.predict(&server, &[])["predictions"][0].clone();
    let bundle = ask(&["-F", "subject=Patient/pat-7"]);
    let risks: Vec<&Value> = bundle["entry"].as_array().unwrap().iter().map(|entry| &entry["resource"]).collect();
    assert_eq!(risks.len(), 2);
    for risk in &risks {
        assert_eq!(risk["subject"]["reference"], "Patient/pat-7");
        let task = risk["code"]["text"].as_str().unwrap();
        let told = risk["prediction"].as_array().unwrap();
        let expected = plain["probabilities"][task].as_object().unwrap();
        assert_eq!(told.len(), expected.len());
        for (told, (class, p)) in told.iter().zip(expected) {
            // Per cent, as FHIR has it.
            assert!((told["probabilityDecimal"].as_f64().unwrap() - 100.0 * p.as_f64().unwrap()).abs() < 1e-3);
            assert!(told["outcome"]["text"].as_str().unwrap().ends_with(class.as_str()));
        }
    }
    assert!(ask(&[])["entry"][0]["resource"]["subject"]["reference"].is_null());
    assert!(ask(&["-F", "subject=http://elsewhere/Patient/1"])["error"].as_str().unwrap().contains("Patient/123"));
    assert!(ask(&["-F", "explain=true"])["error"].as_str().unwrap().contains("explanation"));
    // One subject of many predictions would be somebody else, too.
    std::fs::write(ward.dir.path().join("other.dcm"), "no DICOM").unwrap();
    let other = ward.resources.iter().map(|resource| resource.to_string().replace("pat-", "tap-")).collect::<Vec<_>>().join("\n");
    std::fs::write(ward.dir.path().join("other.ndjson"), other).unwrap();
    assert!(ask(&["-F", "records=@other.ndjson", "-F", "subject=Patient/pat-7"])["error"].as_str().unwrap().contains("one prediction"));
    // What was not taken is in it.
    let bundle = ask(&["-F", "images=@other.dcm", "-F", "subject=Patient/pat-7"]);
    assert_eq!(bundle["entry"][2]["resource"]["resourceType"], "OperationOutcome", "{bundle}");
    let Some(python) = python() else { return };
    let file = ward.dir.path().join("bundle.json");
    std::fs::write(&file, bundle.to_string()).unwrap();
    let n = said(&Command::new(python).arg(root().join("tests/it/fhir_answer.py")).arg(file).output().unwrap());
    assert_eq!(n.trim(), "2");
}

/// The page by keyboard, at two widths, with axe; pictures of it in `SYNOVIA_PICTURES`.
#[test]
fn the_page_in_a_browser() {
    let modules = root().join(".browser/node_modules");
    if !modules.exists() || !installed(&["chromium", "node"]) {
        skipped("a browser is not installed; run `just browser`, and install Debian's chromium");
        return;
    }
    let ward = Ward::new();
    let server = ward.serve(&[]);
    let pictures = std::env::var_os("SYNOVIA_PICTURES").map_or(ward.dir.path().to_owned(), PathBuf::from);
    let script = root().join("tests/it/page.js");
    let output = Command::new("node")
        .arg(script)
        .arg(modules)
        .args([server.rest.as_str(), "lung"])
        .args([&ward.image, &ward.chart, &pictures])
        .output()
        .unwrap();
    let told: Value = serde_json::from_str(said(&output).trim()).unwrap();
    let expected = ward.predict(&server, &[]);
    let p = expected["predictions"][0]["probabilities"]["malignant"]["malignant"].as_f64().unwrap();
    for width in ["phone", "desk"] {
        let seen = &told[width];
        let text = seen["text"].as_str().unwrap();
        assert!(
            text.contains(&format!("{:.1} %", 100.0 * p))
                && text.contains("The image alone")
                && text.contains("Made of an image and a record"),
            "{text}"
        );
        assert!(seen["status"].as_str().unwrap().contains("Not a medical device"));
        assert!(seen["picture"].as_array().unwrap().iter().all(|width| width.as_u64() >= Some(256)));
        assert!(seen["axe"].as_u64().unwrap() > 20);
    }
    let log = std::fs::read_to_string(ward.dir.path().join("log")).unwrap();
    assert!(!log.contains("Mustermann") && !log.contains("chest.dcm"), "{log}");
}

/// HTTPS with a certificate that is renewed, and clients that show theirs.
#[test]
fn https_with_certificates() {
    if !installed(&["curl", "openssl"]) {
        return;
    }
    let ward = Ward::new();
    let dir = ward.dir.path();
    let openssl = |script: &str| said(&Command::new("bash").args(["-euc", script]).current_dir(dir).output().unwrap());
    openssl(
        "new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key -out $1.csr -subj /CN=$1 2>&1
                 printf 'basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1' > $1.ext
                 openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $1.ext -out $1.pem 2>&1; }
         for ca in ca other; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $ca.key -out $ca.pem -days 2 -subj /CN=$ca 2>&1; done
         new server; new renewed; new ward; new stranger
         openssl x509 -req -in stranger.csr -CA other.pem -CAkey other.key -CAcreateserial -days 2 -out stranger.pem 2>&1
         cp server.pem now.pem; cp server.key now.key",
    );
    let fingerprint = |name: &str| {
        let text = openssl(&format!("openssl x509 -in {name}.pem -noout -fingerprint -sha256"));
        text.trim().split('=').nth(1).unwrap().to_owned()
    };
    std::fs::write(dir.join("clients"), format!("sha256:{} ward predict\nsecret operator admin\n", fingerprint("ward"))).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let mut server = command();
    server.args([
        "serve",
        "--tls-certificate",
        &path("now.pem"),
        "--tls-key",
        &path("now.key"),
        "--client-ca",
        &path("ca.pem"),
        "--token-file",
        &path("clients"),
        "--audit-log",
        &path("audit.jsonl"),
        "--rate",
        "4",
    ]);
    let server = Server::start_unready(&ward.models, &dir.join("log"), server);
    let curl = |arguments: &str| {
        let script = format!(
            "curl -sS --retry 20 --retry-delay 1 --retry-connrefused -o body -w '%{{http_code}} %{{http_version}}' {}",
            arguments.replace("URL", &format!("https://{}", server.rest))
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(dir).output().unwrap();
        let code = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), code, std::fs::read_to_string(dir.join("body")).unwrap_or_default())
    };
    let as_ward = "--cacert ca.pem --cert ward.pem --key ward.key";
    let predict = format!("{as_ward} -F images=@chest.dcm -F records=@chart.json URL/v1/models/lung/predict");
    // The first one waits for the models.
    assert_eq!(curl(&format!("{as_ward} URL/v2/health/ready")).1, "200 2");
    let (_, code, body) = curl(&predict);
    assert!(code == "200 2" && body.contains("probabilities"), "{code} {body}");
    assert_eq!(json_lines(&std::fs::read_to_string(dir.join("audit.jsonl")).unwrap())[0]["client"], "ward");
    // A client of this name may predict, and that is all; a token beside the certificate may more.
    assert_eq!(curl(&format!("{as_ward} -X POST URL/v2/repository/models/lung/load")).1, "403 2");
    assert_eq!(curl("--http1.1 --cacert ca.pem --cert renewed.pem --key renewed.key -H 'Authorization: Bearer secret' -X POST URL/v2/repository/models/lung/load").1, "200 1.1");
    assert_eq!(curl("--cacert ca.pem --cert renewed.pem --key renewed.key URL/v2").1, "401 2");
    // Without a certificate, with a stranger's, with another authority, and without HTTPS at all there is no answer.
    for arguments in [
        "--retry 0 --cacert ca.pem URL/v2",
        "--retry 0 --cacert ca.pem --cert stranger.pem --key stranger.key URL/v2",
        &format!("--retry 0 {} URL/v2", as_ward.replace("ca.pem", "other.pem")),
        &format!("--retry 0 http://{}/v2", server.rest),
    ] {
        let (is_well, code, _) = curl(arguments);
        assert!(!is_well && code.starts_with("000"), "{arguments}: {code}");
    }
    // A token that is shown is what counts, whatever certificate is beside it.
    assert_eq!(curl(&format!("{as_ward} -H 'Authorization: Bearer wrong' URL/v2")).1, "401 2");
    // More than four at once are too many, and said to be.
    let model = "URL/v2/models/lung/infer";
    let parallel =
        format!("{as_ward} --retry 0 --parallel --parallel-immediate --parallel-max 40 -d '{{}}' {}", [model; 40].join(" -o /dev/null "));
    let codes = curl(&parallel).1;
    assert!(codes.contains("400") && codes.contains("429"), "{codes}");
    // A renewed certificate is shown after SIGHUP; a broken one is not.
    let shown = || {
        openssl(&format!(
            "echo | openssl s_client -connect {} -cert ward.pem -key ward.key 2>/dev/null | openssl x509 -noout -fingerprint -sha256",
            server.rest
        ))
        .trim()
        .split('=')
        .nth(1)
        .unwrap()
        .to_owned()
    };
    assert_eq!(shown(), fingerprint("server"));
    let renew = |certificate: &str, key: &str, event: &str| {
        openssl(&format!("{certificate}; {key}; kill -HUP {}", server.id()));
        let started = std::time::Instant::now();
        while !std::fs::read_to_string(dir.join("log")).unwrap().contains(event) {
            assert!(started.elapsed().as_secs() < 60);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    renew("cp renewed.pem now.pem", "cp renewed.key now.key", "{\"event\":\"certificate\",\"failure\":null");
    assert_eq!(shown(), fingerprint("renewed"));
    renew("echo nothing > now.pem", "true", "\"failure\":\"");
    assert_eq!(shown(), fingerprint("renewed"));
    let log = std::fs::read_to_string(dir.join("log")).unwrap();
    assert!(!log.contains("secret") && !log.contains("PRIVATE"), "{log}");
}

/// A collector of traces: the bodies that were sent to it.
fn collector() -> (String, std::sync::mpsc::Receiver<Value>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut reader = BufReader::new(socket.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = n.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").unwrap();
            if tell.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (address, told)
}

/// Where a request's time goes is in its client's trace; and neither there nor in log, metrics and errors is anybody.
#[test]
fn traces_name_nobody() {
    let ward = Ward::new();
    let (collector, told) = collector();
    let mut server = ward.serve(&["--traces", &collector]);
    let expected = ward.predict(&server, &[]);
    let mut texts = vec![expected.to_string()];
    if installed(&["curl"]) {
        let given = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let at = format!("http://{}/v1/models/lung/predict", server.rest);
        let files = ["-F", "images=@chest.dcm", "-F", "records=@chart.json"];
        said(&Command::new("curl").args(["-sS", "-H", given]).args(files).arg(at).current_dir(ward.dir.path()).output().unwrap());
    }
    // What goes wrong, too: a patient that is no FHIR any more, and one in the place of an image.
    let patient = ward.resources.iter().find(|resource| resource["resourceType"] == "Patient").unwrap().to_string();
    for (kind, body) in
        [("application/fhir+json", &patient[..patient.len() - 1]), ("application/dicom", &patient), ("application/fhir+json", &patient)]
    {
        texts.push(server.ask("POST", "/v1/models/lung/predict", kind, body.as_bytes()).1.to_string());
    }
    let name = ward.resources.iter().find_map(|resource| resource["name"][0]["family"].as_str()).unwrap();
    texts.push(server.ask_for_text("GET", "/metrics"));
    // An address is said back to whoever asks, and to nobody else.
    server.ask("POST", &format!("/v2/models/{name}/infer?{name}"), "application/json", b"{}");
    texts.push(server.ask_for_text("GET", "/metrics"));
    server.end();
    texts.push(std::fs::read_to_string(ward.dir.path().join("log")).unwrap());
    let messages: Vec<Value> = told.try_iter().collect();
    let spans: Vec<&Value> =
        messages.iter().flat_map(|message| message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap()).collect();
    texts.extend(messages.iter().map(ToString::to_string));
    let of_client: Vec<&&Value> = spans.iter().filter(|span| span["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736").collect();
    if installed(&["curl"]) {
        let whole = of_client.iter().find(|span| span["name"] == "POST /v1/models/{model}/predict").unwrap();
        assert_eq!((&whole["parentSpanId"], &whole["kind"]), (&json!("00f067aa0ba902b7"), &json!(2)));
        let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
        for name in ["prepare", "infer"] {
            let part = of_client.iter().find(|span| span["name"] == name).unwrap();
            assert_eq!(part["parentSpanId"], whole["spanId"], "{name}");
            assert!(
                time(part, "startTimeUnixNano") >= time(whole, "startTimeUnixNano")
                    && time(part, "endTimeUnixNano") <= time(whole, "endTimeUnixNano")
            );
        }
        assert_eq!(of_client.len(), 3);
    }
    assert!(spans.len() >= 9, "{}", spans.len());
    let identifying = |resource: &Value| {
        let texts = [
            &resource["id"],
            &resource["identifier"][0]["value"],
            &resource["name"][0]["family"],
            &resource["name"][0]["given"][0],
            &resource["birthDate"],
        ];
        texts.into_iter().filter_map(Value::as_str).filter(|text| text.len() > 3).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut n = 0;
    for word in ward.resources.iter().flat_map(identifying).chain([name.to_owned()]) {
        n += 1;
        assert!(texts.iter().all(|text| !text.contains(&word)), "a name, an identifier or a date is said");
    }
    assert!(n > 20, "{n}");
    let Some(python) = python() else { return };
    // As OpenTelemetry's own definitions have it.
    let script = "import json, sys\nfrom google.protobuf.json_format import ParseDict\nfrom opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as Request\nprint(sum(len(ParseDict(message, Request()).resource_spans[0].scope_spans[0].spans) for message in json.load(open(sys.argv[1]))))";
    let file = ward.dir.path().join("traces.json");
    std::fs::write(&file, json!(messages).to_string()).unwrap();
    assert_eq!(said(&Command::new(python).args(["-c", script]).arg(file).output().unwrap()).trim(), spans.len().to_string());
}

/// Settings of a file, with what is said beside it before it.
#[test]
fn settings_of_a_file() {
    let ward = Ward::new();
    let file = ward.dir.path().join("serve.toml");
    let text = format!(
        "models = \"{}\"\naudit-log = \"{}\"\nrate = 1000\nmax-body = 1\naccess-log = false\n",
        ward.models.display(),
        ward.dir.path().join("audit.jsonl").display()
    );
    std::fs::write(&file, text).unwrap();
    let server = ward.serve(&["--config", &file.display().to_string()]);
    ward.predict(&server, &[]);
    assert_eq!(json_lines(&std::fs::read_to_string(ward.dir.path().join("audit.jsonl")).unwrap()).len(), 1);
    let large = vec![b' '; 1_500_000];
    assert_eq!(server.ask("POST", "/v1/models/lung/predict", "application/dicom", &large).0, 413);
    drop(server);
    let server = ward.serve(&["--max-body", "2", "--config", &file.display().to_string()]);
    assert_eq!(server.ask("POST", "/v1/models/lung/predict", "application/dicom", &large).0, 400);
    drop(server);
    for (text, words) in [
        ("modells = \"a\"", "--modells"),
        ("rate = [1]", "`rate` is neither"),
        ("rate = \"often\"", "often"),
        ("rate", "serve.toml"),
        ("rate = 1", "no models"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = crate::synovia::run(&format!("serve --config {}", file.display()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(words), "{text}: {said}");
    }
}

/// What is in the files for operators is what there is.
#[test]
fn files_for_operators_hold() {
    let help = crate::synovia::succeed("serve --help");
    let is_option = |option: &str| {
        let there = [" ", "\n"].iter().any(|end| help.contains(&format!("--{option}{end}")));
        assert!(there, "--{option} is no option of `serve`");
    };
    let folder = root().join("pipelines/serving");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let mut n = 0;
    for line in read("serve.toml").lines() {
        // A remark, or a setting behind one.
        let setting = line.trim_start_matches("# ");
        if let Some((key, _)) = setting.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            is_option(key);
            n += 1;
        }
    }
    for name in ["Dockerfile", "kubernetes.yaml"] {
        let text: String =
            read(name).lines().filter(|line| !line.starts_with('#') && *line != "---").map(|line| line.to_owned() + "\n").collect();
        for word in text.split(|c: char| c.is_whitespace() || "\"',[]()".contains(c)) {
            let known = ["release", "workspace", "locked", "from", "to", "system", "uid"];
            let option = word.strip_prefix("--").map(|option| option.split('=').next().unwrap());
            if let Some(option) = option.filter(|option| !option.is_empty() && !known.iter().any(|of_others| of_others == option)) {
                is_option(option);
                n += 1;
            }
        }
    }
    assert!(n > 20, "{n}");
    if installed(&["systemd-analyze"]) {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("synovia.service");
        let program = command().get_program().to_owned();
        std::fs::write(&unit, read("synovia.service").replace("/usr/local/bin/synovia", &program.to_string_lossy())).unwrap();
        let output = Command::new("systemd-analyze").arg("verify").arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("synovia.service"), "{said}");
    }
}
