//! From an aligned program to ONNX operators.
//!
//! One file a family of operations, as burn groups them. An operation that is not listed is an error with its name.

mod activation;
mod arithmetic;
mod layer;
mod layout;
mod pooling;
mod reduction;
mod selection;

use std::collections::HashMap;

use burn::tensor::TensorData;
use burn_ir::{ModuleOperationIr, OperationIr, ScalarIr, TensorId, TensorIr};

use crate::builder::{GraphBuilder, data_type, int};
use crate::dim::{BATCHES, Dim};
use crate::error::TraceError;
use crate::graph::Graph;
use crate::program::{Program, Step};
use crate::proto::{
    AttributeProto, DimensionProto, DimensionValue, GraphProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// burn's name of an operation: its family and its own.
pub(crate) fn operation_name(operation: &OperationIr) -> String {
    if let OperationIr::Custom(custom) = operation {
        return format!("Custom::{}", custom.id);
    }
    // "Family(Name(Fields {", with an element type in front of some names.
    let text = format!("{operation:?}");
    let mut parts = text.split('(');
    let family = parts.next().unwrap_or_default();
    let name = parts.next().and_then(|part| part.rsplit(", ").next()).unwrap_or_default();
    format!("{family}::{name}")
}

/// The error for an operation, or a setting of it, that has no lowering.
fn unsupported<T>(operation: &OperationIr, special: &str) -> Result<T, TraceError> {
    let name = operation_name(operation);
    Err(TraceError::Unsupported { operation: if special.is_empty() { name } else { format!("{name} with {special}") } })
}

struct Lowering<'a> {
    program: &'a Program,
    builder: GraphBuilder,
    names: HashMap<TensorId, String>,
    /// Outputs that an operation can write under their own names.
    reserved: HashMap<TensorId, String>,
}

/// Lowers a program.
pub(crate) fn lower(program: &Program) -> Result<Graph, TraceError> {
    let mut lowering = Lowering {
        program,
        builder: GraphBuilder::new(program.inputs.first().map(|(name, _)| name.clone())),
        names: program.inputs.iter().map(|(name, id)| (*id, name.clone())).collect(),
        reserved: HashMap::new(),
    };
    for (name, id) in &program.outputs {
        lowering.reserved.entry(*id).or_insert_with(|| name.clone());
    }
    for step in &program.steps {
        lowering.step(step)?;
    }
    for (name, id) in &program.outputs {
        let value = lowering.value(*id, "output")?;
        if value != *name {
            lowering.builder.node_into("Identity", &[&value], Vec::new(), &[name]);
        }
    }
    Ok(Graph {
        graph: GraphProto {
            name: "synovia".into(),
            input: lowering.boundary(&program.inputs)?,
            output: lowering.boundary(&program.outputs)?,
            node: lowering.builder.nodes,
            initializer: lowering.builder.initializers,
        },
    })
}

impl Lowering<'_> {
    fn boundary(&self, list: &[(String, TensorId)]) -> Result<Vec<ValueInfoProto>, TraceError> {
        list.iter()
            .map(|(name, id)| {
                let info = &self.program.tensors[id];
                let dim = info
                    .shape
                    .iter()
                    .map(|dim| DimensionProto {
                        value: Some(dim.fixed().map_or_else(|| DimensionValue::Symbol(dim.to_string()), DimensionValue::Size)),
                    })
                    .collect();
                let tensor = TensorTypeProto { elem_type: data_type(info.dtype)?.into(), shape: Some(TensorShapeProto { dim }) };
                Ok(ValueInfoProto { name: name.clone(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) })
            })
            .collect()
    }

    fn step(&mut self, step: &Step) -> Result<(), TraceError> {
        let operation = step.operation();
        match operation {
            OperationIr::BaseFloat(base) | OperationIr::BaseInt(base) | OperationIr::BaseBool(base) => self.base(step, base),
            OperationIr::NumericFloat(_, numeric) | OperationIr::NumericInt(_, numeric) => self.numeric(operation, numeric),
            OperationIr::Float(_, float) => self.float(operation, float),
            OperationIr::Int(int) => self.int(operation, int),
            OperationIr::Bool(bool) => self.bool(bool),
            OperationIr::Activation(activation) => self.activation(operation, activation),
            OperationIr::Module(module) => self.module(operation, module),
            OperationIr::Init(_) | OperationIr::Drop(_) => Ok(()),
            OperationIr::Custom(_) | OperationIr::Distributed(_) => unsupported(operation, ""),
        }
    }

    fn module(&mut self, operation: &OperationIr, module: &ModuleOperationIr) -> Result<(), TraceError> {
        use ModuleOperationIr as Op;
        match module {
            Op::Conv1d(_) | Op::Conv2d(_) | Op::Conv3d(_) | Op::ConvTranspose1d(_) | Op::ConvTranspose2d(_) | Op::ConvTranspose3d(_) => {
                self.convolution(operation, module)
            }
            Op::BatchNorm(_) | Op::LayerNorm(_) | Op::Linear(_) | Op::Embedding(_) | Op::Attention(_) => self.layer(operation, module),
            _ => self.pooling(operation, module),
        }
    }

    /// The sizes of a tensor.
    fn dims(&self, tensor: &TensorIr) -> &[Dim] {
        &self.program.tensors[&tensor.id].shape
    }

    /// The size of a dimension that may not follow the batch here.
    fn fixed(&self, operation: &OperationIr, tensor: &TensorIr, axis: usize) -> Result<usize, TraceError> {
        match self.dims(tensor)[axis].fixed() {
            Some(size) => Ok(size as usize),
            None => Err(TraceError::BatchDependent {
                operation: operation_name(operation),
                what: format!("the size {} of dimension {axis}", self.dims(tensor)[axis]),
            }),
        }
    }

    /// The name under which a tensor can be read.
    fn value(&mut self, id: TensorId, reader: &str) -> Result<String, TraceError> {
        if let Some(name) = self.names.get(&id) {
            return Ok(name.clone());
        }
        let Some(seen) = self.program.constants.get(&id) else {
            return Err(TraceError::Dangling { operation: reader.into() });
        };
        let name = if seen[0] == seen[1] && seen[0] == seen[2] { self.builder.data(&seen[0])? } else { self.following(id, seen, reader)? };
        self.names.insert(id, name.clone());
        Ok(name)
    }

    /// The name under which a tensor can be read.
    fn read(&mut self, tensor: &TensorIr) -> Result<String, TraceError> {
        self.value(tensor.id, "of a later step")
    }

    /// The name under which a tensor is to be written.
    fn write(&mut self, tensor: &TensorIr) -> String {
        let name = self.reserved.get(&tensor.id).cloned().unwrap_or_else(|| self.builder.fresh());
        self.names.insert(tensor.id, name.clone());
        name
    }

    /// One node from tensors to a tensor.
    fn emit(&mut self, op: &str, inputs: &[&TensorIr], attributes: Vec<AttributeProto>, out: &TensorIr) -> Result<(), TraceError> {
        let inputs = inputs.iter().map(|tensor| self.read(tensor)).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.emit_named(op, &inputs, attributes, out);
        Ok(())
    }

    /// One node from names to a tensor.
    fn emit_named(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, out: &TensorIr) {
        let out = self.write(out);
        self.builder.node_into(op, inputs, attributes, &[&out]);
    }

    /// A node from a tensor and a scalar of the same element.
    fn emit_scalar(&mut self, op: &str, tensor: &TensorIr, scalar: ScalarIr, out: &TensorIr) -> Result<(), TraceError> {
        let scalar = self.builder.scalar(scalar, tensor.dtype)?;
        let input = self.read(tensor)?;
        self.emit_named(op, &[&input, &scalar], Vec::new(), out);
        Ok(())
    }

    /// Conversion to the element of `out`.
    fn cast(&mut self, input: &str, out: &TensorIr) -> Result<(), TraceError> {
        let element = data_type(out.dtype)?;
        self.emit_named("Cast", &[input], vec![int("to", i32::from(element).into())], out);
        Ok(())
    }

    /// A constant whose size follows the batch: 0, 1, 2, …, or one row repeated.
    fn following(&mut self, id: TensorId, seen: &[TensorData; 3], reader: &str) -> Result<String, TraceError> {
        let dims = &self.program.tensors[&id].shape;
        let error = |what: &str| TraceError::BatchDependent { operation: format!("constant {reader}"), what: what.into() };
        if dims.as_slice() == [Dim::BATCH]
            && seen.iter().zip(BATCHES).all(|(data, batch)| data.dtype().is_int() && data.iter::<i64>().eq(0..batch as i64))
        {
            let end = self.builder.shape(&[Dim::BATCH])?;
            let end = self.builder.node("Squeeze", &[&end], Vec::new());
            let element = data_type(seen[0].dtype())?;
            let range = [ScalarIr::Int(0), ScalarIr::Int(1)].map(|value| self.builder.scalar(value, burn::tensor::DType::I64));
            let [start, step] = range;
            let range = self.builder.node("Range", &[&start?, &end, &step?], Vec::new());
            return Ok(self.builder.node("Cast", &[&range], vec![int("to", i32::from(element).into())]));
        }
        let Some(axis) = dims.iter().position(|dim| dim.fixed().is_none()) else {
            return Err(error("its values"));
        };
        let rows = seen.each_ref().map(|data| repeated_row(data, axis));
        let [Some(row), Some(second), Some(third)] = rows else {
            return Err(error("values that differ along it"));
        };
        if row != second || row != third || dims.iter().filter(|dim| dim.fixed().is_none()).count() > 1 {
            return Err(error("its values"));
        }
        let element = data_type(seen[0].dtype())?;
        let sizes = dims.iter().map(|dim| dim.fixed().unwrap_or(1)).collect();
        let row = self.builder.constant(element, sizes, row);
        let shape = self.builder.shape(dims)?;
        Ok(self.builder.node("Expand", &[&row, &shape], Vec::new()))
    }
}

/// The bytes of `data` with one entry along `axis`, if all entries along it are equal.
fn repeated_row(data: &TensorData, axis: usize) -> Option<Vec<u8>> {
    // Booleans may take four bytes, constants of them that follow the batch are not worth a conversion.
    if data.dtype().is_bool() && data.dtype().size() != 1 {
        return None;
    }
    let shape = data.shape();
    let inner = shape.iter().skip(axis + 1).product::<usize>() * data.dtype().size();
    let size = shape[axis];
    let mut row = Vec::with_capacity(data.as_bytes().len() / size.max(1));
    for block in data.as_bytes().chunks(inner * size) {
        let first = &block[..inner];
        if block.chunks(inner).any(|other| other != first) {
            return None;
        }
        row.extend_from_slice(first);
    }
    Some(row)
}
