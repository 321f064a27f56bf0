//! The Open Inference Protocol, by its text and by numbers worked out by hand.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::models::{N, scale, slow, write};
use super::{Answer, app, get, post, send, settings};
use crate::{App, Client, Role, Settings, grpc};

const INFER: &str = "/v2/models/scale/infer";

fn scaling() -> (tempfile::TempDir, Arc<App>) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "scale/1/model.onnx", &scale(1.0));
    let app = app(settings(dir.path()));
    (dir, app)
}

/// Two rows: x = (1, 2, 3), (4, 5, 6) and k = 2, 10.
fn two_rows() -> Value {
    json!({"id": "a", "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]},
        {"name": "k", "datatype": "FP32", "shape": [2, 1], "data": [2, 10]},
    ]})
}

/// The body of the binary extension: JSON, then tensors.
fn binary(app: &Arc<App>, header: &Value, tensors: &[f32], more: &[u8]) -> impl Future<Output = Answer> {
    let mut body = header.to_string().into_bytes();
    let n = body.len();
    tensors.iter().for_each(|value| body.extend(value.to_le_bytes()));
    body.extend_from_slice(more);
    let request = Request::post(INFER).header("Inference-Header-Content-Length", n.to_string()).body(Body::from(body)).unwrap();
    let app = Arc::clone(app);
    async move { send(&app, request).await }
}

#[tokio::test]
async fn the_server_and_its_models_describe_themselves() {
    let (_dir, app) = scaling();
    let server = get(&app, "/v2").await.ok();
    assert_eq!(
        (&server["name"], server["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data"))),
        (&json!("synovia"), true)
    );
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/scale/ready", "/v2/models/scale/versions/1/ready"] {
        get(&app, path).await.ok();
    }
    let tensor = |name: &str, sizes: &[i64]| json!({"name": name, "datatype": "FP32", "shape": sizes});
    assert_eq!(
        get(&app, "/v2/models/scale").await.ok(),
        json!({"name": "scale", "versions": ["1"], "platform": "onnxruntime_onnx",
            "inputs": [tensor("x", &[-1, 3]), tensor("k", &[-1, 1])], "outputs": [tensor("y", &[-1, 3]), tensor("z", &[-1, 3])]})
    );
    let config = get(&app, "/v2/models/scale/config").await.ok();
    assert_eq!(
        (&config["max_batch_size"], &config["input"][0]["dims"], &config["input"][0]["data_type"]),
        (&json!(64), &json!([3]), &json!("TYPE_FP32"))
    );
    get(&app, "/v2/models/other").await.refused(404, &["other"]);
    get(&app, "/v2/models/scale/versions/7/ready").await.refused(404, &["7"]);
    get(&app, "/v3").await.refused(404, &[]);
    get(&app, INFER).await.refused(405, &[]);
    // Not ready before the models are loaded.
    let (dir, _) = scaling();
    let early = App::new(settings(dir.path()));
    assert_eq!(get(&early, "/v2/health/ready").await.status.as_u16(), 503);
    get(&early, "/v2/health/live").await.ok();
    get(&early, "/v2/models/scale/ready").await.refused(503, &["being loaded"]);
}

#[tokio::test]
async fn json_in_json_out() {
    let (_dir, app) = scaling();
    let output = |name: &str, data: Value| json!({"name": name, "datatype": "FP32", "shape": [2, 3], "data": data});
    let y = json!([2.0, 4.0, 6.0, 40.0, 50.0, 60.0]);
    let both = json!({"model_name": "scale", "model_version": "1", "id": "a", "outputs": [output("y", y.clone()), output("z", json!([2.0, 4.0, 6.0, 8.0, 10.0, 12.0]))]});
    assert_eq!(post(&app, INFER, two_rows().to_string()).await.ok(), both);
    let mut nested = two_rows();
    nested["inputs"][0]["data"] = json!([[1, 2, 3], [4.0, 5.0, 6.0]]);
    nested["outputs"] = json!([{"name": "y"}]);
    assert_eq!(post(&app, INFER, nested.to_string()).await.ok()["outputs"], json!([output("y", y)]));
    // A missing number is null, both ways.
    let mut missing = two_rows();
    missing["inputs"][0]["data"][1] = Value::Null;
    let answer = post(&app, INFER, missing.to_string()).await.ok();
    assert_eq!(answer["outputs"][1]["data"], json!([2.0, null, 6.0, 8.0, 10.0, 12.0]));
    // More rows than a batch has, in one request.
    let n = 1000;
    let x: Vec<f32> = (0..3 * n).map(|k| k as f32).collect();
    let many = json!({"inputs": [
        {"name": "k", "datatype": "FP32", "shape": [n, 1], "data": vec![3.0; n]},
        {"name": "x", "datatype": "FP32", "shape": [n, 3], "data": x},
    ]});
    let answer = post(&app, INFER, many.to_string()).await.ok();
    let y: Vec<f32> = serde_json::from_value(answer["outputs"][0]["data"].clone()).unwrap();
    assert!(answer["outputs"][0]["shape"] == json!([n, 3]) && y.iter().zip(&x).all(|(y, x)| *y == 3.0 * x));
}

#[tokio::test]
async fn binary_in_binary_out() {
    let (_dir, app) = scaling();
    let header = json!({"parameters": {"binary_data_output": true}, "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}},
        {"name": "k", "datatype": "FP32", "shape": [2, 1], "parameters": {"binary_data_size": 8}},
    ]});
    let tensors = [1.0, 2.0, 3.0, 4.0, 5.0, f32::NAN, 2.0, 10.0];
    let answer = binary(&app, &header, &tensors, &[]).await;
    assert_eq!(answer.status.as_u16(), 200);
    let n: usize = answer.headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let described: Value = serde_json::from_slice(&answer.body[..n]).unwrap();
    assert_eq!(described["outputs"][0]["parameters"]["binary_data_size"], 24);
    let floats: Vec<f32> = answer.body[n..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(floats[..5], [2.0, 4.0, 6.0, 40.0, 50.0]);
    assert!(floats[5].is_nan() && floats[6..11] == [2.0, 4.0, 6.0, 8.0, 10.0] && floats.len() == 12);
    // One input in JSON, one output as it is asked for.
    let mixed = json!({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}},
        {"name": "k", "datatype": "FP32", "shape": [1, 1], "data": [2]}],
        "outputs": [{"name": "z", "parameters": {"binary_data": true}}, {"name": "y", "parameters": {"binary_data": false}}]});
    let answer = binary(&app, &mixed, &tensors[..3], &[]).await;
    let n: usize = answer.headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let described: Value = serde_json::from_slice(&answer.body[..n]).unwrap();
    assert_eq!((&described["outputs"][1]["data"], answer.body.len() - n), (&json!([2.0, 4.0, 6.0]), 12));

    binary(&app, &header, &tensors, &[0]).await.refused(400, &["1 bytes follow"]);
    binary(&app, &header, &tensors[..7], &[]).await.refused(400, &["`k`", "8 bytes", "4 left"]);
    let mut odd = header.clone();
    odd["inputs"][1]["parameters"]["binary_data_size"] = json!(7);
    binary(&app, &odd, &tensors[..6], &[0; 7]).await.refused(400, &["`k`", "7 bytes"]);
    let beyond = Request::post(INFER).header("Inference-Header-Content-Length", "9").body(Body::from("{}")).unwrap();
    send(&app, beyond).await.refused(400, &["9 bytes"]);
    let unread = Request::post(INFER).header("Inference-Header-Content-Length", "-1").body(Body::from("{}")).unwrap();
    send(&app, unread).await.refused(400, &["not a number"]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_in_words() {
    let (_dir, app) = scaling();
    let check = async |path: &str, value: Value, words: &[&str]| {
        let mut request = two_rows();
        *request.pointer_mut(path).unwrap() = value;
        post(&app, INFER, request.to_string()).await.refused(400, words);
    };
    check("/inputs/0/name", json!("w"), &["no input `w`", "x, k"]).await;
    check("/inputs/0/name", json!("k"), &["`k`", "shape"]).await;
    check("/inputs/0/datatype", json!("INT64"), &["`x`", "INT64", "FP32"]).await;
    check("/inputs/0/shape", json!([3, 2]), &["`x`", "[3, 2]", "[-1, 3]"]).await;
    check("/inputs/0/shape", json!([6]), &["[6]"]).await;
    check("/inputs/0/shape", json!([-2, -3]), &["[-2, -3]"]).await;
    check("/inputs/0/shape", json!([0, 3]), &["[0, 3]"]).await;
    check("/inputs/0/shape", json!([i64::MAX, 3]), &["values"]).await;
    check("/inputs/0/shape", json!([3, 3]), &["6 values"]).await;
    check("/inputs/0/data", json!(["1", 2]), &["line 1"]).await;
    check("/inputs/0/data", json!({"a": 1}), &["line 1"]).await;
    check("/inputs/0/data", json!([]), &["0 values"]).await;
    check("/inputs", json!([]), &["`x` is missing"]).await;
    check("/inputs/1", json!({"name": "k", "datatype": "FP32", "shape": [1, 1], "data": [1]}), &["`k` has 1 rows", "2"]).await;
    check("/inputs/1", json!({"name": "k", "datatype": "FP32", "shape": [2, 1]}), &["`k`", "binary_data_size"]).await;
    check(
        "/inputs/1",
        json!({"name": "k", "datatype": "FP32", "shape": [2, 1], "parameters": {"shared_memory_region": "r"}}),
        &["shared memory"],
    )
    .await;
    check("/id", json!(7), &["line 1"]).await;
    let mut other = two_rows();
    other["outputs"] = json!([{"name": "w"}]);
    post(&app, INFER, other.to_string()).await.refused(400, &["no output `w`", "y, z"]);
    post(&app, INFER, "{").await.refused(400, &["too early"]);
    post(&app, INFER, "").await.refused(400, &[]);
    post(&app, INFER, "[".repeat(100_000)).await.refused(400, &[]);
    post(&app, INFER, vec![0xFF; 100]).await.refused(400, &[]);
    // A long name is not said back in full.
    let mut long = two_rows();
    long["inputs"][0]["name"] = json!("n".repeat(10_000));
    assert!(post(&app, INFER, long.to_string()).await.body.len() < 300);
}

#[tokio::test]
async fn statistics_and_metrics_count_what_happened() {
    let (_dir, app) = scaling();
    for _ in 0..3 {
        post(&app, INFER, two_rows().to_string()).await.ok();
    }
    let stats = get(&app, "/v2/models/scale/stats").await.ok();
    let of = &stats["model_stats"][0];
    assert_eq!(
        (&of["inference_count"], &of["execution_count"], &of["inference_stats"]["success"]["count"]),
        (&json!(6), &json!(3), &json!(3))
    );
    assert_eq!((&of["batch_stats"][0]["batch_size"], &of["batch_stats"][0]["compute_infer"]["count"]), (&json!(2), &json!(3)));
    assert_eq!(get(&app, "/v2/models/stats").await.ok()["model_stats"].as_array().unwrap().len(), 1);
    post(&app, INFER, "{").await.refused(400, &[]);
    let metrics = get(&app, "/metrics").await;
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        "synovia_request_seconds_count{protocol=\"rest\",route=\"/v2/models/{model}/infer\",status=\"200\"} 3",
        "synovia_request_seconds_count{protocol=\"rest\",route=\"/v2/models/{model}/infer\",status=\"400\"} 1",
        "synovia_model_examples_total{model=\"scale\",version=\"1\"} 6",
        "synovia_held_bytes 0",
        "synovia_ready 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    // Each name has its help and type, and each line is a name, labels and a number.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, number) = line.rsplit_once(' ').unwrap();
        let name = name.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(number.parse::<f64>().is_ok() && text.contains(&format!("# TYPE {base} ")), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_become_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "slow.onnx", &slow(8));
    let app = app(Settings { max_batch: Some(8), ..settings(dir.path()) });
    let ask = |k: usize| {
        let app = Arc::clone(&app);
        async move {
            let request = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1, 1], "data": [N * k]}]});
            let answer = post(&app, "/v2/models/slow/infer", request.to_string()).await.ok();
            assert_eq!(answer["outputs"][0]["data"], json!([k as f32]));
        }
    };
    let asked: Vec<_> = (0..24).map(|k| tokio::spawn(ask(k))).collect();
    for task in asked {
        task.await.unwrap();
    }
    let stats = get(&app, "/v2/models/slow/stats").await.ok();
    let of = &stats["model_stats"][0];
    let (examples, runs) = (of["inference_count"].as_u64().unwrap(), of["execution_count"].as_u64().unwrap());
    assert!(examples == 24 && runs <= 12, "{runs} runs");
}

/// A call of gRPC, as bytes: code and message.
async fn call(app: &Arc<App>, name: &str, message: &[u8], headers: &[(&str, &str)]) -> (String, Vec<u8>) {
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    let mut request = Request::post(format!("/inference.GRPCInferenceService/{name}")).header("content-type", "application/grpc");
    for (key, value) in headers {
        request = request.header(*key, *value);
    }
    let response = grpc(Arc::clone(app)).oneshot(request.body(Body::from(framed)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let of = |headers: &axum::http::HeaderMap| headers.get("grpc-status").map(|value| value.to_str().unwrap().to_owned());
    let status = of(&parts.headers).or_else(|| collected.trailers().and_then(of)).unwrap();
    (status, collected.to_bytes().to_vec())
}

#[tokio::test]
async fn grpc_frames_and_codes() {
    let (dir, app) = scaling();
    // ServerLiveResponse { live: true } is field 1, varint 1.
    assert_eq!(call(&app, "ServerLive", &[], &[]).await, ("0".to_owned(), vec![0, 0, 0, 0, 2, 8, 1]));
    // ModelReadyRequest { name: "scale" } is field 1, 5 bytes.
    assert_eq!(call(&app, "ModelReady", b"\x0a\x05scale", &[]).await.1, [0, 0, 0, 0, 2, 8, 1]);
    // ModelInferRequest without inputs: INVALID_ARGUMENT; of another model: NOT_FOUND; not a message: INTERNAL; no call: UNIMPLEMENTED.
    assert_eq!(call(&app, "ModelInfer", b"\x0a\x05scale", &[]).await.0, "3");
    assert_eq!(call(&app, "ModelInfer", b"\x0a\x05other", &[]).await.0, "5");
    assert_eq!(call(&app, "ModelInfer", b"\x0a\x7f", &[]).await.0, "13");
    assert_eq!(call(&app, "TraceSetting", &[], &[]).await.0, "12");
    // A time that is over before it begins: DEADLINE_EXCEEDED.
    assert_eq!(call(&app, "ModelInfer", b"\x0a\x05scale", &[("grpc-timeout", "1n")]).await.0, "4");
    let guarded = super::app(Settings { clients: vec![Client::new("client", Role::Admin, "secret")], ..settings(dir.path()) });
    assert_eq!(call(&guarded, "ServerLive", &[], &[]).await.0, "16");
    assert_eq!(call(&guarded, "ServerLive", &[], &[("authorization", "Bearer secret")]).await.0, "0");
    // Who may predict and no more: PERMISSION_DENIED. RepositoryModelUnloadRequest { model_name: "scale" } is field 2.
    let ward = super::app(Settings { clients: vec![Client::new("ward", Role::Predict, "secret")], ..settings(dir.path()) });
    for name in ["RepositoryModelLoad", "RepositoryModelUnload"] {
        assert_eq!(call(&ward, name, b"\x12\x05scale", &[("authorization", "Bearer secret")]).await.0, "7");
        assert_eq!(call(&guarded, name, b"\x12\x05scale", &[("authorization", "Bearer secret")]).await.0, "0");
    }
}
