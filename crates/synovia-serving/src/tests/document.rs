//! The OpenAPI document against the server that it comes from.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use super::models::{age, scale, write};
use super::{app, get, send, settings};

/// All texts under `$ref`.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| match value {
            Value::String(to) if key == "$ref" => drop(found.insert(to.clone())),
            value => references(value, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_address_is_as_the_document_says() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "age/3/model.onnx", &age());
    write(dir.path(), "scale.onnx", &scale(1.0));
    let app = app(settings(dir.path()));
    let document = get(&app, "/openapi.json").await.ok();
    assert_eq!((document["openapi"].as_str(), document["info"]["title"].as_str()), (Some("3.1.0"), Some("synovia")));
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 15, "{found:?}");
    for reference in found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} is nowhere");
    }
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 27, "{:?}", paths.keys());
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let named = path.matches('{').count();
            assert_eq!(operation["parameters"].as_array().map_or(0, Vec::len), named, "{path}");
            let at = path.replace("{model}", "age").replace("{version}", "3");
            let ask = |at: &str| Request::builder().method(method.to_uppercase().as_str()).uri(at).body(Body::empty()).unwrap();
            let answer = send(&app, ask(&at)).await;
            let told = &operation["responses"][answer.status.as_str()];
            assert!(told.is_object(), "{method} {at}: {} is not told of", answer.status);
            let content_type = answer.headers["content-type"].to_str().unwrap();
            let essence = content_type.split(';').next().unwrap();
            assert!(told["content"][essence].is_object(), "{method} {at}: {essence} is not told of");
            if named > 0 {
                let none = send(&app, ask(&path.replace("{model}", "none").replace("{version}", "3"))).await;
                assert!(matches!(none.status.as_u16(), 404 | 415), "{method} {path}: {}", none.status);
                assert!(operation["responses"]["404"].is_object());
            }
        }
    }
}
