//! Layers with weights: convolution, normalisation, dense, embedding, attention.

use burn::tensor::DType;
use burn_ir::{AttentionOpIr, ModuleOperationIr, OperationIr, ScalarIr, TensorIr};

use super::{Lowering, unsupported};
use crate::builder::{float, int, ints};
use crate::error::TraceError;
use crate::proto::{AttributeProto, DataType};

fn attributes(
    stride: &[usize],
    dilation: &[usize],
    groups: usize,
    before: impl IntoIterator<Item = usize>,
    after: impl IntoIterator<Item = usize>,
) -> Vec<AttributeProto> {
    vec![
        ints("strides", stride.iter().copied()),
        ints("dilations", dilation.iter().copied()),
        int("group", groups as i64),
        ints("pads", before.into_iter().chain(after)),
    ]
}

impl Lowering<'_> {
    fn weighted(
        &mut self,
        name: &str,
        x: &TensorIr,
        weight: &TensorIr,
        bias: Option<&TensorIr>,
        attributes: Vec<AttributeProto>,
        out: &TensorIr,
    ) -> Result<(), TraceError> {
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        self.emit(name, &inputs, attributes, out)
    }

    pub(super) fn convolution(&mut self, operation: &OperationIr, module: &ModuleOperationIr) -> Result<(), TraceError> {
        use ModuleOperationIr as Op;
        match module {
            Op::Conv1d(op) => {
                let o = &op.options;
                let pads = (o.padding.map(|pad| pad.0), o.padding.map(|pad| pad.1));
                let attributes = attributes(&o.stride, &o.dilation, o.groups, pads.0, pads.1);
                self.weighted("Conv", &op.x, &op.weight, op.bias.as_ref(), attributes, &op.out)
            }
            Op::Conv2d(op) => {
                let o = &op.options;
                let pads = (o.padding.map(|pad| pad.0), o.padding.map(|pad| pad.1));
                let attributes = attributes(&o.stride, &o.dilation, o.groups, pads.0, pads.1);
                self.weighted("Conv", &op.x, &op.weight, op.bias.as_ref(), attributes, &op.out)
            }
            Op::Conv3d(op) => {
                let o = &op.options;
                let attributes = attributes(&o.stride, &o.dilation, o.groups, o.padding, o.padding);
                self.weighted("Conv", &op.x, &op.weight, op.bias.as_ref(), attributes, &op.out)
            }
            Op::ConvTranspose1d(op) => {
                let o = &op.options;
                let mut attributes = attributes(&o.stride, &o.dilation, o.groups, o.padding, o.padding);
                attributes.push(ints("output_padding", o.padding_out));
                self.weighted("ConvTranspose", &op.x, &op.weight, op.bias.as_ref(), attributes, &op.out)
            }
            Op::ConvTranspose2d(op) => {
                let o = &op.options;
                let mut attributes = attributes(&o.stride, &o.dilation, o.groups, o.padding, o.padding);
                attributes.push(ints("output_padding", o.padding_out));
                self.weighted("ConvTranspose", &op.x, &op.weight, op.bias.as_ref(), attributes, &op.out)
            }
            Op::ConvTranspose3d(op) => {
                let o = &op.options;
                let mut attributes = attributes(&o.stride, &o.dilation, o.groups, o.padding, o.padding);
                attributes.push(ints("output_padding", o.padding_out));
                self.weighted("ConvTranspose", &op.x, &op.weight, op.bias.as_ref(), attributes, &op.out)
            }
            _ => unsupported(operation, ""),
        }
    }

    pub(super) fn layer(&mut self, operation: &OperationIr, module: &ModuleOperationIr) -> Result<(), TraceError> {
        use ModuleOperationIr as Op;
        match module {
            Op::BatchNorm(op) => {
                let inputs = [&op.x, &op.gamma, &op.beta, &op.mean, &op.variance];
                self.emit("BatchNormalization", &inputs, vec![float("epsilon", op.epsilon.elem())], &op.out)
            }
            Op::LayerNorm(op) => {
                let mut inputs = vec![&op.input, &op.gamma];
                inputs.extend(op.beta.as_ref());
                self.emit("LayerNormalization", &inputs, vec![int("axis", -1), float("epsilon", op.epsilon.elem())], &op.out)
            }
            Op::Linear(op) => {
                let Some(bias) = &op.bias else {
                    return self.emit("MatMul", &[&op.x, &op.weight], Vec::new(), &op.out);
                };
                if self.dims(&op.x).len() == 2 {
                    return self.emit("Gemm", &[&op.x, &op.weight, bias], Vec::new(), &op.out);
                }
                let [x, weight, bias] = [self.read(&op.x)?, self.read(&op.weight)?, self.read(bias)?];
                let product = self.builder.node("MatMul", &[&x, &weight], Vec::new());
                self.emit_named("Add", &[&product, &bias], Vec::new(), &op.out);
                Ok(())
            }
            Op::Embedding(op) => self.emit("Gather", &[&op.weights, &op.indices], vec![int("axis", 0)], &op.out),
            Op::Attention(op) => self.attention(operation, op),
            _ => unsupported(operation, ""),
        }
    }

    /// `softmax(Q Kᵀ · scale) V` with burn's order of scale, soft cap, masks and bias, and with its 0 for rows that are masked
    /// whole (ONNX's Softmax would give NaN).
    fn attention(&mut self, operation: &OperationIr, op: &AttentionOpIr) -> Result<(), TraceError> {
        let dtype = op.query.dtype;
        if dtype != DType::F32 {
            return unsupported(operation, "elements other than f32");
        }
        let width = self.fixed(operation, &op.query, 3)?;
        let scale = op.options.scale.unwrap_or(ScalarIr::Float(1.0 / (width as f64).sqrt()));
        let number = |lowering: &mut Self, value: f64| lowering.builder.scalar(ScalarIr::Float(value), dtype);
        let [query, key, value] = [self.read(&op.query)?, self.read(&op.key)?, self.read(&op.value)?];
        let transposed = self.builder.node("Transpose", &[&key], vec![ints("perm", [0, 1, 3, 2])]);
        let product = self.builder.node("MatMul", &[&query, &transposed], Vec::new());
        let scale = self.builder.scalar(scale, dtype)?;
        let mut scores = self.builder.node("Mul", &[&product, &scale], Vec::new());
        if let Some(cap) = op.options.softcap {
            let cap = self.builder.scalar(cap, dtype)?;
            let scaled = self.builder.node("Div", &[&scores, &cap], Vec::new());
            let tanh = self.builder.node("Tanh", &[&scaled], Vec::new());
            scores = self.builder.node("Mul", &[&tanh, &cap], Vec::new());
        }
        let infinity = number(self, f64::NEG_INFINITY)?;
        if let Some(mask) = &op.mask {
            let mask = self.read(mask)?;
            scores = self.builder.node("Where", &[&mask, &infinity, &scores], Vec::new());
        }
        if op.options.is_causal {
            let (n_query, n_key) = (self.fixed(operation, &op.query, 2)?, self.fixed(operation, &op.key, 2)?);
            let later = (0..n_query).flat_map(|row| (0..n_key).map(move |column| u8::from(column + n_query > row + n_key))).collect();
            let later = self.builder.constant(DataType::Bool, vec![n_query as i64, n_key as i64], later);
            scores = self.builder.node("Where", &[&later, &infinity, &scores], Vec::new());
        }
        if let Some(bias) = &op.attn_bias {
            let bias = self.read(bias)?;
            scores = self.builder.node("Add", &[&scores, &bias], Vec::new());
        }
        let axes = self.builder.int64s(&[3]);
        let [least, tiny] = [number(self, f64::from(f32::MIN))?, number(self, f64::from(f32::MIN_POSITIVE))?];
        let greatest = self.builder.node("ReduceMax", &[&scores, &axes], vec![int("keepdims", 1)]);
        let greatest = self.builder.node("Max", &[&greatest, &least], Vec::new());
        let shifted = self.builder.node("Sub", &[&scores, &greatest], Vec::new());
        let exponential = self.builder.node("Exp", &[&shifted], Vec::new());
        let sum = self.builder.node("ReduceSum", &[&exponential, &axes], vec![int("keepdims", 1)]);
        let sum = self.builder.node("Max", &[&sum, &tiny], Vec::new());
        let weights = self.builder.node("Div", &[&exponential, &sum], Vec::new());
        self.emit_named("MatMul", &[&weights, &value], Vec::new(), &op.out);
        Ok(())
    }
}
