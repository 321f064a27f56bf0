//! Who may what, and the line that each prediction leaves.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::models::{age, scale, write};
use super::{Answer, app, post, send, settings};
use crate::{App, AuditError, Client, Role, ServingError, Settings, verify};

fn served() -> (tempfile::TempDir, PathBuf, Settings) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "models/scale.onnx", &scale(10.0));
    write(dir.path(), "models/age.onnx", &age());
    let log = dir.path().join("audit.jsonl");
    let clients = Client::read("# who\n\nsesame ward-3 predict\nmaster\toperator admin\n").unwrap();
    let settings = Settings { clients, audit_log: Some(log.clone()), ..settings(&dir.path().join("models")) };
    (dir, log, settings)
}

async fn post_as(app: &Arc<App>, token: &str, path: &str, body: &str) -> Answer {
    let request = Request::post(path).header("authorization", format!("Bearer {token}")).header("content-type", "application/json");
    send(app, request.body(Body::from(body.to_owned())).unwrap()).await
}

fn lines(log: &Path) -> Vec<Value> {
    std::fs::read_to_string(log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const INFER: &str = "/v2/models/scale/infer";
const BODY: &str = r#"{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]},
    {"name": "k", "shape": [1, 1], "datatype": "FP32", "data": [2]}]}"#;

#[tokio::test]
async fn a_prediction_leaves_a_line_and_a_refusal_none() {
    let (_dir, log, settings) = served();
    let app = app(settings);
    post_as(&app, "sesame", INFER, BODY).await.ok();
    post_as(&app, "sesame", INFER, "{}").await.refused(400, &[]);
    post_as(&app, "nobody", INFER, BODY).await.refused(401, &[]);
    post(&app, INFER, BODY).await.refused(401, &[]);
    let patient = json!({"resourceType": "Patient", "id": "p", "birthDate": "1950-01-01", "name": [{"family": "Mustermann"}]});
    let condition = json!({"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}, "recordedDate": "2000-01-01",
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "38341003"}]}});
    let bundle = json!({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": patient}, {"resource": condition}]});
    let answer = post_as(&app, "master", "/v1/models/age/predict", &bundle.to_string()).await.ok();
    let [first, second] = &lines(&log)[..] else { panic!("{:?}", lines(&log)) };
    // By hand: two sizes, 1 and 3, and three numbers; two sizes, 1 and 1, and one number.
    let mut input = Sha256::new();
    for (shape, values) in [(vec![1u64, 3], vec![1f32, 2.0, 3.0]), (vec![1, 1], vec![2.0])] {
        input.update(2u64.to_le_bytes());
        shape.iter().for_each(|size| input.update(size.to_le_bytes()));
        values.iter().for_each(|value| input.update(value.to_le_bytes()));
    }
    let expected = json!({"event": "prediction", "client": "ward-3", "protocol": "rest", "model": "scale", "version": "1", "examples": 1,
        "n": 1, "previous": "0".repeat(64), "input_sha256": hex::encode(input.finalize()), "outputs": {"y": [20.0, 40.0, 60.0], "z": [2.0, 4.0, 6.0]}});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(first[key], *value, "{key}");
    }
    assert_eq!((&second["client"], &second["n"], &second["previous"]), (&json!("operator"), &json!(2), &first["sha256"]));
    assert_eq!(second["model_sha256"], answer["model"]["sha256"]);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("Mustermann") && !text.contains("sesame") && !text.contains("master\""), "{text}");
}

#[tokio::test]
async fn predicting_is_not_ruling() {
    let (_dir, log, settings) = served();
    let app = app(settings);
    for what in ["load", "unload"] {
        let path = format!("/v2/repository/models/scale/{what}");
        post_as(&app, "sesame", &path, "").await.refused(403, &["admin"]);
        post_as(&app, "master", &path, "").await.ok();
    }
    let told: Vec<(Value, Value)> = lines(&log).iter().map(|line| (line["event"].clone(), line["client"].clone())).collect();
    assert_eq!(told, ["load", "unload"].map(|event| (json!(event), json!("operator"))));
    post_as(&app, "sesame", "/v2/repository/index", "").await.ok();
}

/// A log of four lines, and what it has as text.
async fn of_four(settings: &Settings, log: &Path) -> Vec<String> {
    let app = app(settings.clone());
    for _ in 0..4 {
        post_as(&app, "sesame", INFER, BODY).await.ok();
    }
    std::fs::read_to_string(log).unwrap().split_inclusive('\n').map(str::to_owned).collect()
}

#[tokio::test]
async fn what_was_changed_shows() {
    let (_dir, log, settings) = served();
    let lines = of_four(&settings, &log).await;
    let check = |lines: &[String]| match verify(lines.concat().as_bytes(), &mut |_| ()) {
        Ok(chain) => Ok(chain.lines),
        Err(AuditError::Broken { line, .. }) => Err(line),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(check(&lines), Ok(4));
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        check(&lines)
    };
    assert_eq!(with(&|lines| lines[1] = lines[1].replace("ward-3", "ward-4")), Err(2));
    assert_eq!(with(&|lines| lines[2] = lines[2].replace("40.0", "41.0")), Err(3));
    assert_eq!(with(&|lines| drop(lines.remove(1))), Err(2));
    assert_eq!(with(&|lines| lines.insert(2, lines[1].clone())), Err(3));
    assert_eq!(with(&|lines| lines.swap(1, 2)), Err(2));
    assert_eq!(with(&|lines| drop(lines.remove(0))), Err(1));
    assert_eq!(with(&|lines| lines.insert(0, "{}\n".to_owned())), Err(1));
    // What was cut off behind does not, but by a digest that somebody kept.
    assert_eq!(with(&|lines| drop(lines.pop())), Ok(3));
    let last = serde_json::from_str::<Value>(&lines[3]).unwrap()["sha256"].clone();
    let holds = |lines: &[String]| {
        let mut seen = false;
        verify(lines.concat().as_bytes(), &mut |digest| seen |= digest == last).unwrap();
        seen
    };
    assert!(holds(&lines) && !holds(&lines[..3]));
    // Somebody who can compute a digest can't put a line in all the same.
    let forged = lines[1].split(",\"sha256\"").next().unwrap().replace("ward-3", "ward-4");
    let forged = format!("{forged},\"sha256\":\"{}\"}}\n", hex::encode(Sha256::digest(&forged)));
    assert_eq!(with(&|lines| lines[1].clone_from(&forged)), Err(3));
}

#[tokio::test]
async fn a_log_goes_on_and_a_broken_one_does_not() {
    let (_dir, log, settings) = served();
    of_four(&settings, &log).await;
    // A server that was ended in the middle of a line had answered nobody by it.
    OpenOptions::new().append(true).open(&log).unwrap().write_all(b"{\"n\":5,\"ti").unwrap();
    let app = app(settings.clone());
    post_as(&app, "sesame", INFER, BODY).await.ok();
    assert_eq!(verify(std::fs::File::open(&log).unwrap(), &mut |_| ()).unwrap().lines, 5);
    // Two servers would break each other's chain.
    let other = App::new(settings.clone()).load().unwrap_err();
    assert!(matches!(&other, ServingError::Audit { source: AuditError::InUse, .. }), "{other}");
    drop(app);
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replacen("ward-3", "ward-4", 1)).unwrap();
    let error = App::new(settings).load().unwrap_err().to_string();
    assert!(error.contains("audit.jsonl") && error.contains("line 1") && error.contains("new file"), "{error}");
    assert!(std::fs::read_to_string(&log).unwrap().contains("ward-4"), "it is kept");
}

#[test]
fn files_of_clients() {
    let check = |text: &str, expected: Result<&str, &str>| {
        let found = Client::read(text).map(|clients| format!("{clients:?}"));
        match (found, expected) {
            (Ok(found), Ok(words)) | (Err(found), Err(words)) => assert!(found.contains(words) && !found.contains("secret"), "{found}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    };
    check("secret\n", Ok("Client { name: \"client\", role: Admin"));
    check("secret ward\n", Ok("Client { name: \"ward\", role: Admin"));
    check("secret ward predict", Ok("Client { name: \"ward\", role: Predict"));
    let digest = "AB:".repeat(31) + "AB";
    check(&format!("sha256:{digest} ward predict\n"), Ok("name: \"ward\", role: Predict"));
    check("sha256:abc ward predict\n", Err("64 hexadecimal digits"));
    check(&format!("sha256:{digest} a\nsha256:{} b\n", digest.to_lowercase()), Err("line 2"));
    check("# nobody\n", Err("no line has a token"));
    check("secret ward root\n", Err("line 1"));
    check("other a\nsecret b\nsecret c\n", Err("line 3"));
    assert!(Role::Predict < Role::Admin);
}
