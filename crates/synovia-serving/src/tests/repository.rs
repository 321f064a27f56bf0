//! Models that come, change and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::models::{integers, scale, write};
use super::{app, get, post, settings};
use crate::App;

/// x·k of (1, 1, 1) and 1: the factor of the model that answers.
async fn factor(app: &Arc<App>, path: &str) -> f64 {
    let request = json!({"outputs": [{"name": "y"}], "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 1, 1]}, {"name": "k", "datatype": "FP32", "shape": [1, 1], "data": [1]}]});
    post(app, path, request.to_string()).await.ok()["outputs"][0]["data"][0].as_f64().unwrap()
}

/// Name, version and state of each model that is listed.
fn states(index: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    index.as_array().unwrap().iter().map(|line| (text(&line["name"]), text(&line["version"]), text(&line["state"]))).collect()
}

fn state(name: &str, version: &str, state: &str) -> (String, String, String) {
    (name.to_owned(), version.to_owned(), state.to_owned())
}

#[tokio::test]
async fn the_newest_version_answers_unless_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/2/model.onnx", &scale(2.0));
    write(dir.path(), "a/10/model.onnx", &scale(10.0));
    write(dir.path(), "b.onnx", &scale(3.0));
    write(dir.path(), "c/model.onnx", &scale(4.0));
    // No models: a note, a version that is no number, a name that is none.
    write(dir.path(), "note.txt", b"");
    write(dir.path(), "a/old/model.onnx", &scale(9.0));
    write(dir.path(), ".hidden/1/model.onnx", &scale(9.0));
    let app = app(settings(dir.path()));
    for (path, expected) in [("a", 10.0), ("a/versions/2", 2.0), ("a/versions/10", 10.0), ("b", 3.0), ("b/versions/1", 3.0), ("c", 4.0)] {
        assert_eq!(factor(&app, &format!("/v2/models/{path}/infer")).await, expected, "{path}");
    }
    assert_eq!(get(&app, "/v2/models/a").await.ok()["versions"], json!(["2", "10"]));
    let index = post(&app, "/v2/repository/index", "").await.ok();
    let expected = [state("a", "2", "READY"), state("a", "10", "READY"), state("b", "1", "READY"), state("c", "1", "READY")];
    assert_eq!(states(&index), expected);
}

#[tokio::test]
async fn a_model_is_replaced_when_it_is_loaded_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/1/model.onnx", &scale(1.0));
    let app = app(settings(dir.path()));
    let (infer, load) = ("/v2/models/a/infer", "/v2/repository/models/a/load");
    write(dir.path(), "a/1/model.onnx", &scale(5.0));
    assert_eq!(factor(&app, infer).await, 1.0);
    post(&app, load, "{}").await.ok();
    assert_eq!(factor(&app, infer).await, 5.0);
    // Half a file, and one that can't be served: the old one stays, and the index says why.
    for (bytes, words) in [(&scale(6.0)[..100], "version 1"), (&integers(), "`x`")] {
        write(dir.path(), "a/1/model.onnx", bytes);
        post(&app, load, "").await.refused(400, &[words]);
        assert_eq!(factor(&app, infer).await, 5.0);
        let index = post(&app, "/v2/repository/index", "{}").await.ok();
        assert!(index[0]["state"] == "READY" && index[0]["reason"].as_str().unwrap().contains(words), "{index}");
    }
    post(&app, "/v2/repository/models/a/unload", "").await.ok();
    post(&app, infer, "{}").await.refused(503, &["not loaded"]);
    let index = post(&app, "/v2/repository/index", "").await.ok();
    assert_eq!(states(&index), [state("a", "1", "UNAVAILABLE")]);
    assert_eq!(post(&app, "/v2/repository/index", "{\"ready\": true}").await.ok(), json!([]));
    write(dir.path(), "a/1/model.onnx", &scale(7.0));
    post(&app, load, "").await.ok();
    assert_eq!(factor(&app, infer).await, 7.0);
    // A new model of the folder needs no new start.
    write(dir.path(), "b/1/model.onnx", &scale(8.0));
    post(&app, "/v2/repository/models/b/load", "").await.ok();
    assert_eq!(factor(&app, "/v2/models/b/infer").await, 8.0);
    post(&app, load, "{\"parameters\": {\"config\": \"{}\"}}").await.refused(400, &["parameters"]);
    post(&app, "/v2/repository/models/nowhere/load", "").await.refused(404, &[]);
    post(&app, "/v2/repository/models/nowhere/unload", "").await.refused(404, &[]);
}

#[tokio::test]
async fn names_do_not_lead_out_of_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "models/a.onnx", &scale(1.0));
    write(dir.path(), "secret/1/model.onnx", &scale(1.0));
    let app = app(settings(&dir.path().join("models")));
    for name in ["..%2Fsecret", "%2e%2e", ".", "a%00", "a%2F..%2Fa", "%2Fetc", "-a"] {
        let answer = post(&app, &format!("/v2/repository/models/{name}/load"), "").await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{name}: {}", answer.status);
        assert!(get(&app, &format!("/v2/models/{name}")).await.status.is_client_error());
    }
    assert_eq!(states(&post(&app, "/v2/repository/index", "").await.ok()), [state("a", "1", "READY")]);
}

#[tokio::test]
async fn without_any_model_there_is_no_server() {
    let dir = tempfile::tempdir().unwrap();
    let error = App::new(settings(dir.path())).load().unwrap_err().to_string();
    assert!(error.contains("NAME/VERSION/model.onnx"), "{error}");
    write(dir.path(), "a.onnx", b"no model");
    let error = App::new(settings(dir.path())).load().unwrap_err().to_string();
    assert!(error.contains("a: version 1"), "{error}");
    // One that can't be loaded does not keep another from serving.
    write(dir.path(), "b.onnx", &scale(1.0));
    let app = app(settings(dir.path()));
    let index = post(&app, "/v2/repository/index", "").await.ok();
    assert_eq!(states(&index), [state("a", "1", "UNAVAILABLE"), state("b", "1", "READY")]);
}

/// While a model's file is replaced and loaded again and again, every answer is of one model or the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_lost_or_half_new_while_models_change() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/1/model.onnx", &scale(0.0));
    let app = app(settings(dir.path()));
    let over = Arc::new(AtomicBool::new(false));
    let ask = || {
        let (app, over) = (Arc::clone(&app), Arc::clone(&over));
        async move {
            let mut seen = 0u32;
            while !over.load(Ordering::Relaxed) {
                let factor = factor(&app, "/v2/models/a/infer").await;
                assert!(factor.fract() == 0.0 && (0.0..=10.0).contains(&factor), "{factor}");
                seen += 1;
            }
            seen
        }
    };
    let asking: Vec<_> = (0..4).map(|_| tokio::spawn(ask())).collect();
    for k in 1..=10u8 {
        write(dir.path(), "a/1/model.onnx", &scale(f32::from(k)));
        post(&app, "/v2/repository/models/a/load", "").await.ok();
        assert_eq!(factor(&app, "/v2/models/a/infer").await, f64::from(k));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    over.store(true, Ordering::Relaxed);
    for task in asking {
        assert!(task.await.unwrap() > 10);
    }
}
