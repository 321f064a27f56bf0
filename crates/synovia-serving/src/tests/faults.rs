//! What clients do wrong, and more of them than there is room for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::sync::oneshot;

use super::models::{N, scale, slow, write};
use super::{Answer, app, get, post, send, settings};
use crate::{App, Client, Role, Settings, serve};

const INFER: &str = "/v2/models/slow/infer";

fn slowly(change: impl FnOnce(&mut Settings)) -> (tempfile::TempDir, Arc<App>) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "slow.onnx", &slow(8));
    write(dir.path(), "scale.onnx", &scale(1.0));
    let mut settings = Settings { max_batch: Some(4), ..settings(dir.path()) };
    change(&mut settings);
    let app = app(settings);
    (dir, app)
}

fn one(x: f32) -> String {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1, 1], "data": [N as f32 * x]}]}).to_string()
}

fn runs(app: &App) -> u64 {
    app.repository.get("slow", None).unwrap().statistics.counts().execution_count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_place_is_told_at_once() {
    let (_dir, app) = slowly(|settings| (settings.max_queue, settings.max_batch) = (3, Some(1)));
    let ask = |k: usize| {
        let app = Arc::clone(&app);
        async move {
            let started = Instant::now();
            (k, post(&app, INFER, one(k as f32)).await, started.elapsed())
        }
    };
    let asked: Vec<_> = (0..30).map(|k| tokio::spawn(ask(k))).collect();
    let (mut answered, mut refused) = (0, 0);
    let mut answers: Vec<(usize, Answer, Duration)> = Vec::new();
    for task in asked {
        answers.push(task.await.unwrap());
    }
    let slowest = answers.iter().map(|answer| answer.2).max().unwrap();
    for (k, answer, time) in answers {
        if answer.status.as_u16() == 200 {
            assert_eq!(answer.json()["outputs"][0]["data"], json!([k as f32]));
            answered += 1;
        } else {
            answer.refused(429, &["try again"]);
            assert_eq!(answer.headers["retry-after"], "1");
            assert!(time < slowest / 2, "{time:?} to be refused, {slowest:?} to be answered");
            refused += 1;
        }
    }
    assert!(answered >= 3 && refused >= 10, "{answered} answered, {refused} refused");
    post(&app, INFER, one(1.0)).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_is_late_and_gone_is_not_run() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "slow.onnx", &slow(40));
    let app = app(Settings { max_batch: Some(1), ..settings(dir.path()) });
    let before = runs(&app);
    let busy = tokio::spawn({
        let app = Arc::clone(&app);
        async move { post(&app, INFER, one(1.0)).await.status.as_u16() }
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    // A request that may take a tenth of a millisecond, behind one that takes tens of them.
    let mut hasty: serde_json::Value = serde_json::from_str(&one(2.0)).unwrap();
    hasty["parameters"] = json!({"timeout": 100});
    post(&app, INFER, hasty.to_string()).await.refused(503, &["time"]);
    // A client that goes while it waits.
    let gone = tokio::time::timeout(Duration::from_millis(1), post(&app, INFER, one(3.0))).await;
    assert!(gone.is_err());
    assert_eq!(busy.await.unwrap(), 200);
    post(&app, INFER, one(4.0)).await.ok();
    assert_eq!(runs(&app) - before, 2, "only the first and the last were run");
}

#[tokio::test]
async fn bodies_stay_within_bounds() {
    let (_dir, app) = slowly(|settings| (settings.max_body_bytes, settings.max_held_bytes) = (10_000, 25_000));
    let path = "/v2/models/scale/infer";
    post(&app, path, vec![b' '; 10_001]).await.refused(413, &["10000"]);
    // By what it claims alone, before a byte of it comes.
    let claimed = Request::post(path).header("content-length", "1000000000000").body(Body::from("{")).unwrap();
    send(&app, claimed).await.refused(413, &[]);
    // Of a length that nobody said.
    let chunks = (0..20).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1000])));
    post(&app, path, Body::from_stream(futures_util::stream::iter(chunks))).await.refused(413, &[]);
    let broken =
        (0..3).map(|k| if k < 2 { Ok(Bytes::from_static(b"{")) } else { Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)) });
    post(&app, path, Body::from_stream(futures_util::stream::iter(broken))).await.refused(400, &["before its end"]);
    // A megabyte of nothing in a kilobyte.
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![b' '; 1_000_000]).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 2000);
    let of = |encoding: &str, body: Vec<u8>| Request::post(path).header("content-encoding", encoding).body(Body::from(body)).unwrap();
    send(&app, of("gzip", packed.clone())).await.refused(413, &[]);
    send(&app, of("deflate", packed.clone())).await.refused(400, &["Content-Encoding"]);
    send(&app, of("br", packed)).await.refused(415, &["gzip"]);
    let good = json!({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}, {"name": "k", "datatype": "FP32", "shape": [1, 1], "data": [1]}]});
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(good.to_string().as_bytes()).unwrap();
    send(&app, of("gzip", packed.finish().unwrap())).await.ok();
    // Room that others hold.
    let mut others = app.hold();
    others.add(20_000).unwrap();
    post(&app, path, vec![b' '; 6000]).await.refused(429, &[]);
    drop(others);
    assert_eq!(app.held_bytes(), 0);
}

#[tokio::test]
async fn nothing_without_the_token() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "scale.onnx", &scale(1.0));
    let app = app(Settings { clients: vec![Client::new("client", Role::Admin, "a long secret")], ..settings(dir.path()) });
    let gets = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/models/scale", "/v2/models/scale/ready"];
    let gets = gets.iter().chain(&[
        "/v2/models/scale/config",
        "/v2/models/scale/stats",
        "/v1/models/scale",
        "/metrics",
        "/openapi.json",
        "/",
        "/page.js",
        "/cds-services",
        "/none",
    ]);
    let posts = ["/v2/repository/index", "/v2/repository/models/scale/load", "/v2/repository/models/scale/unload"];
    let posts =
        posts.iter().chain(&["/v2/models/scale/infer", "/v1/models/scale/predict", "/cds-services/scale", "/cds-services/scale/feedback"]);
    let requests: Vec<(&str, &str)> = gets.map(|path| ("GET", *path)).chain(posts.map(|path| ("POST", *path))).collect();
    for (method, path) in requests {
        let with = |authorization: Option<&str>| {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            request.body(Body::empty()).unwrap()
        };
        for wrong in [
            None,
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer a long secre"),
            Some("Bearer a long secrets"),
            Some("Basic a long secret"),
            // `client:a long secre`, `a long secret` and `a long secret:` in base64.
            Some("Basic Y2xpZW50OmEgbG9uZyBzZWNyZQ=="),
            Some("Basic YSBsb25nIHNlY3JldA=="),
            Some("Basic YSBsb25nIHNlY3JldDo="),
        ] {
            let answer = send(&app, with(wrong)).await;
            answer.refused(401, &["Bearer"]);
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            // A browser asks its user where it can show something.
            let asks = answer.headers.get_all("www-authenticate").iter().any(|value| value.as_bytes().starts_with(b"Basic"));
            assert_eq!(asks, path == "/" || path.starts_with("/page"), "{path}");
        }
        // `anybody:a long secret` in base64.
        for right in ["Bearer a long secret", "bearer a long secret", "Basic YW55Ym9keTphIGxvbmcgc2VjcmV0"] {
            assert_ne!(send(&app, with(Some(right))).await.status.as_u16(), 401, "{path}");
        }
    }
}

/// A server on a port of its own: where it is, what ends it, and its end.
async fn listening(settings: Settings) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<bool>) {
    let (end, ended) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel();
    let settings = Settings { address: "127.0.0.1:0".to_owned(), ..settings };
    let task = tokio::spawn(async move {
        let end = async { ended.await.unwrap_or(()) };
        serve(settings, end, |at| tell.send(at.rest).unwrap()).await.is_ok()
    });
    let at = told.await.unwrap();
    let ready = move || {
        let mut socket = TcpStream::connect(at).unwrap();
        socket.write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text.starts_with("HTTP/1.1 200")
    };
    while !tokio::task::spawn_blocking(ready).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (at, end, task)
}

fn head(path: &str, n: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {n}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_answers_what_it_has_taken() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "slow.onnx", &slow(8));
    let (at, end, task) = listening(Settings { max_batch: Some(1), ..settings(dir.path()) }).await;
    let ask = move |k: usize| {
        let body = one(k as f32);
        let mut socket = TcpStream::connect(at).unwrap();
        socket.write_all((head(INFER, body.len()) + &body).as_bytes()).unwrap();
        let mut text = String::new();
        // The connection is closed after the answer, since the server ends.
        socket.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.contains(&format!("[{k}.0]")), "{text}");
    };
    let asking: Vec<_> = (1..6).map(|k| tokio::task::spawn_blocking(move || ask(k))).collect();
    // All are there, and some still wait.
    tokio::time::sleep(Duration::from_millis(60)).await;
    end.send(()).unwrap();
    for task in asking {
        task.await.unwrap();
    }
    assert!(task.await.unwrap());
    assert!(TcpStream::connect(at).is_err(), "it still listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_requests_cost_nobody_else_anything() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "slow.onnx", &slow(8));
    write(dir.path(), "scale.onnx", &scale(1.0));
    let (at, end, task) = listening(Settings { timeout: Duration::from_secs(1), max_batch: Some(4), ..settings(dir.path()) }).await;
    let checks = tokio::task::spawn_blocking(move || {
        let open = |text: &str| {
            let mut socket = TcpStream::connect(at).unwrap();
            socket.write_all(text.as_bytes()).unwrap();
            socket
        };
        // Half a head, half a body, and clients that go right after they asked.
        let halves: Vec<TcpStream> = (0..50).map(|_| open("POST /v2/mod")).collect();
        let bodies: Vec<TcpStream> = (0..50).map(|_| open(&(head("/v2/models/scale/infer", 1000) + "{"))).collect();
        (0..50).for_each(|_| drop(open(&(head(INFER, one(1.0).len()) + &one(1.0)))));
        (0..50).for_each(|_| drop(open(&(head(INFER, 10_000) + "{\"inputs"))));
        drop(open("\x16\x03\x01 this is no HTTP\r\n\r\n"));
        let mut good = open("GET /v2/models/scale HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let mut text = String::new();
        good.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        // A body that does not come is not waited for longer than a request may take.
        for mut socket in bodies {
            let mut text = [0; 12];
            socket.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"HTTP/1.1 503");
        }
        drop(halves);
    });
    checks.await.unwrap();
    end.send(()).unwrap();
    assert!(task.await.unwrap());
}

#[tokio::test]
async fn what_is_asked_for_is_not_in_the_metrics() {
    let (_dir, app) = slowly(|_| ());
    post(&app, "/v2/models/Mustermann-19700101/infer?patient=Mustermann", "{\"id\": \"Mustermann\"}").await.refused(404, &[]);
    get(&app, "/Mustermann").await.refused(404, &[]);
    let text = String::from_utf8(get(&app, "/metrics").await.body).unwrap();
    assert!(text.contains("route=\"none\"") && !text.contains("Mustermann"), "{text}");
}

/// What a browser would send for a page of another site is not done.
#[tokio::test]
async fn pages_of_other_sites_may_not_ask() {
    let (_dir, app) = slowly(|_| ());
    for (site, status) in
        [(None, 200), (Some("same-origin"), 200), (Some("none"), 200), (Some("same-site"), 403), (Some("cross-site"), 403)]
    {
        let mut request = Request::post("/v2/repository/index");
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        assert_eq!(send(&app, request.body(Body::empty()).unwrap()).await.status.as_u16(), status, "{site:?}");
    }
    // Without HTTPS browsers say the page's origin alone; where anyone may ask, a name may be made to lead here.
    for (host, origin, status) in [
        ("127.0.0.1:8000", "http://127.0.0.1:8000", 200),
        ("localhost:8000", "http://localhost:8000", 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("127.0.0.1:8000", "http://127.0.0.1:8001", 403),
        ("127.0.0.1:8000", "http://evil.example", 403),
        ("127.0.0.1:8000", "null", 403),
        ("evil.example:8000", "http://evil.example:8000", 403),
    ] {
        let request = Request::post("/v2/repository/index").header("host", host).header("origin", origin);
        assert_eq!(send(&app, request.body(Body::empty()).unwrap()).await.status.as_u16(), status, "{origin} at {host}");
    }
    // The page itself says that it may be in no other, and loads nothing from elsewhere.
    let page = get(&app, "/").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
}

/// As often as it may, a client is answered; in front of that nobody else is.
#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_again() {
    let clients = || vec![Client::new("a", Role::Predict, "one"), Client::new("b", Role::Predict, "two")];
    let (_dir, app) = slowly(|settings| (settings.rate, settings.clients) = (Some(5), clients()));
    let ask = async |token: &str, path: &str| {
        let request = if path.contains("/health/") { Request::get(path) } else { Request::post(path) };
        send(&app, request.header("authorization", format!("Bearer {token}")).body(Body::from("{}")).unwrap()).await
    };
    let (infer, index, ready) = ("/v2/models/scale/infer", "/v2/repository/index", "/v2/health/ready");
    for _ in 0..5 {
        ask("one", infer).await.refused(400, &[]);
    }
    let answer = ask("one", infer).await;
    answer.refused(429, &["more often", "1 s"]);
    assert_eq!(answer.headers["retry-after"], "1");
    // Others, and what runs nothing, are not counted.
    ask("two", infer).await.refused(400, &[]);
    for _ in 0..20 {
        ask("one", ready).await.ok();
        ask("one", index).await.ok();
    }
    tokio::time::sleep(Duration::from_millis(450)).await;
    ask("one", infer).await.refused(400, &[]);
}
