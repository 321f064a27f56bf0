//! What clients are answered: those of the guide, EHRs, readers of FHIR, people.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{Ward, python, said};
use crate::sources::installed;
use crate::synovia::{json_lines, root, skipped};

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
