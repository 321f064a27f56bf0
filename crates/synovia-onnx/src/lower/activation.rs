//! Activations.

use burn_ir::{ActivationOperationIr, OperationIr, ScalarIr};

use super::{Lowering, unsupported};
use crate::builder::{float, int};
use crate::error::TraceError;

impl Lowering<'_> {
    pub(super) fn activation(&mut self, operation: &OperationIr, activation: &ActivationOperationIr) -> Result<(), TraceError> {
        use ActivationOperationIr as Op;
        match activation {
            Op::Relu(op) => self.emit("Relu", &[&op.input], Vec::new(), &op.out),
            Op::Sigmoid(op) => self.emit("Sigmoid", &[&op.input], Vec::new(), &op.out),
            Op::LeakyRelu(op) => self.emit("LeakyRelu", &[&op.lhs], vec![float("alpha", op.rhs.elem())], &op.out),
            Op::PRelu(op) => self.emit("PRelu", &[&op.lhs, &op.rhs], Vec::new(), &op.out),
            Op::HardSigmoid(op) => {
                let attributes = vec![float("alpha", op.alpha.elem()), float("beta", op.beta.elem())];
                self.emit("HardSigmoid", &[&op.tensor], attributes, &op.out)
            }
            Op::Gelu(op) => {
                // x · Φ(x), with the error function; ONNX's own Gelu needs opset 20.
                let dtype = op.input.dtype;
                let x = self.read(&op.input)?;
                let [root, one, half] = [
                    self.builder.scalar(ScalarIr::Float(std::f64::consts::SQRT_2), dtype)?,
                    self.builder.scalar(ScalarIr::Float(1.0), dtype)?,
                    self.builder.scalar(ScalarIr::Float(0.5), dtype)?,
                ];
                let scaled = self.builder.node("Div", &[&x, &root], Vec::new());
                let erf = self.builder.node("Erf", &[&scaled], Vec::new());
                let shifted = self.builder.node("Add", &[&erf, &one], Vec::new());
                let product = self.builder.node("Mul", &[&x, &shifted], Vec::new());
                self.emit_named("Mul", &[&product, &half], Vec::new(), &op.out);
                Ok(())
            }
            Op::LogSigmoid(op) => {
                // ln σ(x) = −softplus(−x)
                let x = self.read(&op.input)?;
                let negative = self.builder.node("Neg", &[&x], Vec::new());
                let softplus = self.builder.node("Softplus", &[&negative], Vec::new());
                self.emit_named("Neg", &[&softplus], Vec::new(), &op.out);
                Ok(())
            }
            Op::Softmax(op) => self.emit("Softmax", &[&op.input], vec![int("axis", op.axis as i64)], &op.out),
            Op::LogSoftmax(op) => self.emit("LogSoftmax", &[&op.input], vec![int("axis", op.axis as i64)], &op.out),
            Op::Softmin(op) => {
                let x = self.read(&op.input)?;
                let negative = self.builder.node("Neg", &[&x], Vec::new());
                self.emit_named("Softmax", &[&negative], vec![int("axis", op.axis as i64)], &op.out);
                Ok(())
            }
            Op::ReluBackward(_) | Op::GeluBackward(_) | Op::SigmoidBackward(_) | Op::LogSigmoidBackward(_) => unsupported(operation, ""),
        }
    }
}
