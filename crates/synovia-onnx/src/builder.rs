//! A graph under construction: nodes, constants without duplicates, and shapes that follow the batch.

use std::collections::HashMap;

use burn::tensor::{DType, TensorData};
use burn_ir::ScalarIr;

use crate::dim::Dim;
use crate::error::TraceError;
use crate::proto::{AttributeProto, AttributeType, DataType, NodeProto, TensorProto};

/// ONNX's element of a burn element.
pub(crate) fn data_type(dtype: DType) -> Result<DataType, TraceError> {
    Ok(match dtype {
        DType::F32 | DType::Flex32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::I64 => DataType::Int64,
        DType::I32 => DataType::Int32,
        DType::I16 => DataType::Int16,
        DType::I8 => DataType::Int8,
        DType::U8 => DataType::Uint8,
        DType::Bool(_) => DataType::Bool,
        other => return Err(TraceError::Element { element: format!("{other:?}") }),
    })
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(value), r#type: AttributeType::Int.into(), ..AttributeProto::default() }
}

pub(crate) fn float(name: &str, value: f64) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(value as f32), r#type: AttributeType::Float.into(), ..AttributeProto::default() }
}

pub(crate) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { name: name.into(), s: Some(value.into()), r#type: AttributeType::String.into(), ..AttributeProto::default() }
}

pub(crate) fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> AttributeProto {
    let ints = values.into_iter().map(|value| value as i64).collect();
    AttributeProto { name: name.into(), ints, r#type: AttributeType::Ints.into(), ..AttributeProto::default() }
}

fn tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { name: name.into(), t: Some(value), r#type: AttributeType::Tensor.into(), ..AttributeProto::default() }
}

fn scalar_bytes(value: ScalarIr, element: DataType) -> Vec<u8> {
    match element {
        DataType::Float => value.elem::<f32>().to_le_bytes().to_vec(),
        DataType::Double => value.elem::<f64>().to_le_bytes().to_vec(),
        DataType::Int64 => value.elem::<i64>().to_le_bytes().to_vec(),
        DataType::Int32 => value.elem::<i32>().to_le_bytes().to_vec(),
        DataType::Int16 => value.elem::<i16>().to_le_bytes().to_vec(),
        DataType::Int8 => value.elem::<i8>().to_le_bytes().to_vec(),
        DataType::Uint8 => vec![value.elem::<u8>()],
        DataType::Bool | DataType::Undefined => vec![u8::from(value.elem::<bool>())],
    }
}

/// Nodes and constants; values go by name.
pub(crate) struct GraphBuilder {
    pub nodes: Vec<NodeProto>,
    pub initializers: Vec<TensorProto>,
    by_content: HashMap<(i32, Vec<i64>, Vec<u8>), String>,
    sizes: HashMap<Dim, String>,
    /// Name of the input whose first dimension is the batch.
    batch_source: Option<String>,
    n_values: usize,
}

impl GraphBuilder {
    /// An empty graph, whose batch is the first size of the input `batch_source`.
    pub fn new(batch_source: Option<String>) -> Self {
        Self { nodes: Vec::new(), initializers: Vec::new(), by_content: HashMap::new(), sizes: HashMap::new(), batch_source, n_values: 0 }
    }

    /// A name that no input or output has: those can't start with a slash.
    pub fn fresh(&mut self) -> String {
        self.n_values += 1;
        format!("/{}", self.n_values)
    }

    /// Adds a node with the given outputs.
    pub fn node_into(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, outputs: &[&str]) {
        self.nodes.push(NodeProto {
            name: format!("/{op}_{}", self.nodes.len()),
            op_type: op.into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: outputs.iter().map(ToString::to_string).collect(),
            attribute: attributes,
        });
    }

    /// Adds a node of one output, whose name it returns.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh();
        self.node_into(op, inputs, attributes, &[&output]);
        output
    }

    /// A constant; equal ones are one.
    pub fn constant(&mut self, element: DataType, dims: Vec<i64>, raw_data: Vec<u8>) -> String {
        let key = (element.into(), dims, raw_data);
        if let Some(name) = self.by_content.get(&key) {
            return name.clone();
        }
        let name = format!("/constant_{}", self.initializers.len());
        self.initializers.push(TensorProto { dims: key.1.clone(), data_type: key.0, name: name.clone(), raw_data: key.2.clone() });
        self.by_content.insert(key, name.clone());
        name
    }

    /// A constant with captured values.
    pub fn data(&mut self, data: &TensorData) -> Result<String, TraceError> {
        let element = data_type(data.dtype())?;
        let raw = match element {
            // burn keeps booleans in one or four bytes; ONNX in one.
            DataType::Bool => data.iter::<bool>().map(u8::from).collect(),
            _ => data.as_bytes().to_vec(),
        };
        let dims = data.shape().iter().map(|&size| size as i64).collect();
        Ok(self.constant(element, dims, raw))
    }

    /// A one-dimensional constant of integers.
    pub fn int64s(&mut self, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(DataType::Int64, vec![values.len() as i64], raw)
    }

    /// A constant of floats.
    pub fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(DataType::Float, dims.iter().map(|&size| size as i64).collect(), raw)
    }

    /// A constant without dimensions.
    pub fn scalar(&mut self, value: ScalarIr, dtype: DType) -> Result<String, TraceError> {
        let element = data_type(dtype)?;
        Ok(self.constant(element, Vec::new(), scalar_bytes(value, element)))
    }

    /// `value`, repeated to `shape`, into `output`.
    pub fn fill(&mut self, value: ScalarIr, dtype: DType, shape: &[Dim], output: &str) -> Result<(), TraceError> {
        let element = data_type(dtype)?;
        let shape = self.shape(shape)?;
        let value = TensorProto { dims: vec![1], data_type: element.into(), name: String::new(), raw_data: scalar_bytes(value, element) };
        self.node_into("ConstantOfShape", &[&shape], vec![tensor("value", value)], &[output]);
        Ok(())
    }

    /// The name of an `int64 [1]` with a size.
    fn size(&mut self, dim: Dim) -> Result<String, TraceError> {
        if let Some(fixed) = dim.fixed() {
            return Ok(self.int64s(&[fixed]));
        }
        if let Some(name) = self.sizes.get(&dim) {
            return Ok(name.clone());
        }
        let name = if dim == Dim::BATCH {
            let source = self.batch_source.clone().ok_or(TraceError::NoInputs)?;
            self.node("Shape", &[&source], vec![int("start", 0), int("end", 1)])
        } else {
            let mut name = self.size(Dim::BATCH)?;
            if dim.per_batch != 1 {
                let factor = self.int64s(&[dim.per_batch]);
                name = self.node("Mul", &[&name, &factor], Vec::new());
            }
            if dim.offset != 0 {
                let offset = self.int64s(&[dim.offset]);
                name = self.node("Add", &[&name, &offset], Vec::new());
            }
            name
        };
        self.sizes.insert(dim, name.clone());
        Ok(name)
    }

    /// The name of an `int64 [rank]` with a shape: a constant where no size follows the batch.
    pub fn shape(&mut self, dims: &[Dim]) -> Result<String, TraceError> {
        if let Some(fixed) = dims.iter().map(|dim| dim.fixed()).collect::<Option<Vec<_>>>() {
            return Ok(self.int64s(&fixed));
        }
        let parts = dims.iter().map(|&dim| self.size(dim)).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(self.node("Concat", &parts, vec![int("axis", 0)]))
    }
}
