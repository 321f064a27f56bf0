//! ONNX files for the tests.

use std::path::Path;

use prost::Message as _;
use serde_json::json;
use synovia_onnx::proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use synovia_onnx::{IR_VERSION, OPSET};

fn value(name: &str, sizes: &[i64], element: DataType) -> ValueInfoProto {
    let batch = DimensionProto { value: Some(DimensionValue::Symbol("batch".to_owned())) };
    let fixed = sizes.iter().map(|&size| DimensionProto { value: Some(DimensionValue::Size(size)) });
    let shape = TensorShapeProto { dim: std::iter::once(batch).chain(fixed).collect() };
    let tensor_type = TensorTypeProto { elem_type: element.into(), shape: Some(shape) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        name: output.to_owned(),
        op_type: op.to_owned(),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        attribute,
    }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { dims: dims.to_vec(), data_type: DataType::Float.into(), name: name.to_owned(), raw_data }
}

fn model(graph: GraphProto, metadata: &[(&str, String)]) -> Vec<u8> {
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "test".to_owned(),
        graph: Some(GraphProto { name: "test".to_owned(), ..graph }),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: (*key).to_owned(), value: value.clone() })
            .collect(),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// `x` `[batch, 3]` and `k` `[batch, 1]` to `y` = x·k·`factor` and `z` = x + x.
pub(super) fn scale(factor: f32) -> Vec<u8> {
    let graph = GraphProto {
        node: vec![
            node("Mul", &["x", "k"], "xk", Vec::new()),
            node("Mul", &["xk", "factor"], "y", Vec::new()),
            node("Add", &["x", "x"], "z", Vec::new()),
        ],
        initializer: vec![floats("factor", &[1], &[factor])],
        input: vec![value("x", &[3], DataType::Float), value("k", &[1], DataType::Float)],
        output: vec![value("y", &[3], DataType::Float), value("z", &[3], DataType::Float)],
        ..GraphProto::default()
    };
    model(graph, &[])
}

/// Side of the matrices of [`slow`].
pub(super) const N: usize = 384;

/// `x` `[batch, 1, 1]` to `y` = x / [`N`] by way of so many products of large unit matrices, some milliseconds each.
pub(super) fn slow(n_products: usize) -> Vec<u8> {
    let mut unit = vec![0.0f32; N * N];
    (0..N).for_each(|k| unit[k * N + k] = 1.0);
    let mut nodes = vec![node("Mul", &["x", "unit"], "h0", Vec::new())];
    for k in 0..n_products {
        nodes.push(node("MatMul", &[&format!("h{k}"), "unit"], &format!("h{}", k + 1), Vec::new()));
    }
    nodes.push(node("ReduceMean", &[&format!("h{n_products}"), "axes"], "y", Vec::new()));
    let axes = [1i64, 2].iter().flat_map(|axis| axis.to_le_bytes()).collect();
    let axes = TensorProto { dims: vec![2], data_type: DataType::Int64.into(), name: "axes".to_owned(), raw_data: axes };
    let graph = GraphProto {
        node: nodes,
        initializer: vec![floats("unit", &[N as i64, N as i64], &unit), axes],
        input: vec![value("x", &[1, 1], DataType::Float)],
        output: vec![value("y", &[1, 1], DataType::Float)],
        ..GraphProto::default()
    };
    model(graph, &[])
}

/// A model of integers, which are not served.
pub(super) fn integers() -> Vec<u8> {
    let graph = GraphProto {
        node: vec![node("Add", &["x", "x"], "y", Vec::new())],
        input: vec![value("x", &[3], DataType::Int64)],
        output: vec![value("y", &[3], DataType::Int64)],
        ..GraphProto::default()
    };
    model(graph, &[])
}

/// A model as ours are, of a record whose one feature is the age: the probability of `sick` is the sigmoid of a hundredth of it, and
/// of 0 where there is no record.
pub(super) fn age() -> Vec<u8> {
    let to_float = AttributeProto {
        name: "to".to_owned(),
        i: Some(i32::from(DataType::Float).into()),
        r#type: AttributeType::Int.into(),
        ..AttributeProto::default()
    };
    let graph = GraphProto {
        node: vec![
            node("IsNaN", &["record"], "missing", Vec::new()),
            node("Where", &["missing", "zero", "record"], "known", Vec::new()),
            node("Mul", &["known", "hundredth"], "scaled", Vec::new()),
            node("Mul", &["scaled", "record_present"], "logit", Vec::new()),
            node("Sigmoid", &["logit"], "sick", Vec::new()),
            node("Cast", &["missing"], "embedding", vec![to_float]),
        ],
        initializer: vec![floats("zero", &[1], &[0.0]), floats("hundredth", &[1], &[0.01])],
        input: vec![value("record", &[1], DataType::Float), value("record_present", &[1], DataType::Float)],
        output: vec![value("sick", &[1], DataType::Float), value("embedding", &[1], DataType::Float)],
        ..GraphProto::default()
    };
    let feature = json!({"spec": {"name": "age", "kind": "number", "code": "", "unit": "a"}, "source": "age"});
    let exported = json!({
        "name": "test", "version": "0", "commit": "unknown", "seed": 0, "weights": "", "cohort": "",
        "tasks": [{"name": "sick", "kind": "binary", "classes": ["sick"]}], "preparation": null, "image_kind": null,
        "records": {"format": "fhir"}, "features": {"features": [feature]}, "feature_ranges": [[18.0, 40.0]], "history_days": 365.0,
        "metrics": {}, "intended_use": "Tests.",
        // Its embedding is 0 where there is a record: two deviations from the mean, where 199 others are half of one.
        "novelty": {"patterns": [{"pattern": "record", "n": 9, "mean": "AAAAQA==", "whitening": "AACAPw==",
            "distances": format!("{}AAAAPw==", "AAAAPwAAAD8AAAA/".repeat(66))}]},
        "conformal": [{"coverage": 0.9, "variant": "record", "patterns": [
            {"pattern": "record", "n": 99, "quantile": 0.5, "n_by_class": [50, 49], "by_class": [0.9, 0.5]}]}],
    });
    model(graph, &[("synovia", exported.to_string())])
}

/// Writes a file below a folder, with what is above it.
pub(super) fn write(folder: &Path, path: &str, bytes: &[u8]) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}
