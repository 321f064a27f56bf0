//! A finished ONNX graph.

use prost::Message;

use crate::proto::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};

/// The operator set: LayerNormalization and reductions by input are in it, and every runtime since early 2023 has it.
pub const OPSET: i64 = 18;
/// The format version that goes with [`OPSET`].
pub const IR_VERSION: i64 = 8;

/// A finished ONNX graph.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) graph: GraphProto,
}

impl Graph {
    /// The file, with free text by key. Equal graphs and metadata give equal bytes.
    pub fn to_bytes(&self, metadata: &[(String, String)]) -> Vec<u8> {
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "synovia".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph.clone()),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            metadata_props: metadata.iter().map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() }).collect(),
        }
        .encode_to_vec()
    }

    /// Operators in their order, for those who look whether a graph is what they think.
    pub fn operators(&self) -> impl Iterator<Item = &str> {
        self.graph.node.iter().map(|node| node.op_type.as_str())
    }

    /// Names of the inputs.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.graph.input.iter().map(|input| input.name.as_str())
    }

    /// Names of the outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.graph.output.iter().map(|output| output.name.as_str())
    }
}
