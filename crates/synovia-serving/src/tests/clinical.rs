//! Records as they are, to a model whose probabilities are worked out by hand.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::models::{age, scale, write};
use super::{Answer, app, get, post, send, settings};
use crate::App;

const PREDICT: &str = "/v1/models/age/predict";

fn model() -> (tempfile::TempDir, Arc<App>) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "age/3/model.onnx", &age());
    write(dir.path(), "scale.onnx", &scale(1.0));
    let app = app(settings(dir.path()));
    (dir, app)
}

/// A patient born in `year`, seen on the first day of 2000.
fn resources(id: &str, year: u32) -> [Value; 2] {
    [
        json!({"resourceType": "Patient", "id": id, "birthDate": format!("{year}-01-01"), "name": [{"family": "Mustermann"}]}),
        json!({"resourceType": "Condition", "id": format!("c-{id}"), "subject": {"reference": format!("Patient/{id}")},
            "recordedDate": "2000-01-01T00:00:00Z", "code": {"coding": [{"system": "http://snomed.info/sct", "code": "38341003"}]}}),
    ]
}

fn bundle(id: &str, year: u32) -> String {
    let entries: Vec<Value> = resources(id, year).into_iter().map(|resource| json!({ "resource": resource })).collect();
    json!({"resourceType": "Bundle", "type": "collection", "entry": entries}).to_string()
}

async fn send_as(app: &Arc<App>, content_type: &str, body: impl Into<Body>) -> Answer {
    send(app, Request::post(PREDICT).header("content-type", content_type).body(body.into()).unwrap()).await
}

/// A form of parts (field, content).
fn form(parts: &[(&str, &str)]) -> Vec<u8> {
    let part = |(field, content): &(&str, &str)| {
        format!("--frontier\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"Mustermann.json\"\r\n\r\n{content}\r\n")
    };
    let body: String = parts.iter().map(part).collect();
    (body + "--frontier--\r\n").into_bytes()
}

const FORM: &str = "multipart/form-data; boundary=frontier";

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[tokio::test]
async fn a_chart_gets_its_probability() {
    let (_dir, app) = model();
    // 18,262 days of 365.25 to a year.
    let expected = sigmoid(18_262.0 / 365.25 / 100.0);
    let ndjson = resources("p-1", 1950).map(|resource| resource.to_string() + "\n").concat();
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&bundle("p-1", 1950)).unwrap()).unwrap();
    let answers = [
        send_as(&app, "application/fhir+json", bundle("p-1", 1950)).await.ok(),
        send_as(&app, "application/fhir+json; fhirVersion=4.0", pretty).await.ok(),
        send_as(&app, "application/fhir+ndjson", ndjson.clone()).await.ok(),
        send_as(&app, FORM, form(&[("records", &bundle("p-1", 1950))])).await.ok(),
        send_as(&app, FORM, form(&[("records", &ndjson)])).await.ok(),
    ];
    for answer in &answers {
        assert_eq!((&answer["model"]["name"], &answer["model"]["version"], &answer["rejected"]), (&json!("age"), &json!("3"), &json!([])));
        assert_eq!(answer["model"]["sha256"].as_str().unwrap().len(), 64);
        let [prediction] = &answer["predictions"].as_array().unwrap()[..] else { panic!("{answer}") };
        let p = prediction["probabilities"]["sick"]["sick"].as_f64().unwrap();
        assert!((p - expected).abs() < 1e-6, "{p}, not {expected}");
        assert_eq!(prediction["present"], json!({"image": false, "record": true}));
        // 1 - p is below 0.5, p's class in; that of health, whose score is p, is not.
        assert_eq!(prediction["prediction_sets"]["sick"]["classes"], json!(["sick"]));
        assert_eq!(prediction["prediction_sets"]["sick"]["classes_by_class"], json!(["not sick", "sick"]));
        let [outside] = &prediction["out_of_range"].as_array().unwrap()[..] else { panic!("{prediction}") };
        assert!(outside["feature"] == "age" && outside["range"] == json!([18.0, 40.0]) && outside["value"].as_f64().unwrap() > 49.9);
        assert_eq!(prediction["novelty"], json!({"distance": 2.0, "p": 0.005, "is_novel": true}));
        let text = answer.to_string();
        assert!(!text.contains("Mustermann") && !text.contains("p-1"), "{text}");
        assert_eq!(answer["predictions"], answers[0]["predictions"]);
    }
    // Two at a time, and one whose age is in range.
    let both = form(&[("records", &bundle("p-1", 1950)), ("records", &bundle("p-2", 1980))]);
    let answer = send_as(&app, FORM, both).await.ok();
    let mut ages: Vec<f64> =
        answer["predictions"].as_array().unwrap().iter().map(|p| p["probabilities"]["sick"]["sick"].as_f64().unwrap()).collect();
    ages.sort_by(f64::total_cmp);
    assert!((ages[0] - sigmoid(7305.0 / 365.25 / 100.0)).abs() < 1e-6 && (ages[1] - expected).abs() < 1e-6, "{ages:?}");
    assert!(answer["predictions"].as_array().unwrap().iter().any(|p| p["out_of_range"] == json!([])));
    let described = get(&app, "/v1/models/age").await.ok();
    assert_eq!(
        (&described["tasks"][0]["name"], &described["record"][0]["unit"], &described["image"]),
        (&json!("sick"), &json!("a"), &Value::Null)
    );
}

#[tokio::test]
async fn what_can_t_be_predicted_on_is_said() {
    let (_dir, app) = model();
    let check = async |content_type: &str, body: Vec<u8>, status: u16, words: &[&str]| {
        let answer = send_as(&app, content_type, body).await;
        answer.refused(status, words);
        let text = String::from_utf8_lossy(&answer.body);
        assert!(!text.contains("Mustermann") && !text.contains("/tmp"), "{text}");
        answer.json()
    };
    check("text/plain", b"a".to_vec(), 415, &["images", "records"]).await;
    check(FORM, form(&[]), 400, &["images"]).await;
    check(FORM, form(&[("pictures", "a")]), 400, &["none of"]).await;
    check(FORM, form(&[("images", "DICM")]), 400, &["records only"]).await;
    check(FORM, b"--frontier\r\nContent-Disposition: form-data; name=\"records\"\r\n\r\n{".to_vec(), 400, &["before its end"]).await;
    check(FORM, b"no form".to_vec(), 400, &[]).await;
    check("multipart/form-data", b"".to_vec(), 400, &["boundary"]).await;
    let rejected =
        check("application/fhir+json", b"{\"resourceType\": \"Patient\", \"id\": \"Mustermann".to_vec(), 400, &["rejected"]).await;
    assert!(!rejected["rejected"].as_array().unwrap().is_empty());
    check("application/fhir+json", b"".to_vec(), 400, &[]).await;
    // A chart of nobody: nothing is known.
    let nobody = json!({"resourceType": "Patient", "id": "Mustermann"}).to_string().into_bytes();
    check("application/fhir+json", nobody, 400, &["rejected"]).await;
    post(&app, "/v1/models/scale/predict", "{}").await.refused(400, &["not exported by synovia"]);
    post(&app, "/v1/models/none/predict", "{}").await.refused(404, &[]);
}
