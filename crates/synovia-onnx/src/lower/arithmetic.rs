//! Arithmetic, comparison and logic, element by element, and matrix products.

use burn::tensor::DType;
use burn_ir::{
    BinaryOpIr, BoolOperationIr, FloatOperationIr, IntOperationIr, NumericOperationIr, OperationIr, ScalarIr, ScalarOpIr, TensorIr,
};

use super::{Lowering, unsupported};
use crate::builder::int;
use crate::error::TraceError;

impl Lowering<'_> {
    fn binary(&mut self, name: &str, op: &BinaryOpIr) -> Result<(), TraceError> {
        self.emit(name, &[&op.lhs, &op.rhs], Vec::new(), &op.out)
    }

    fn with_scalar(&mut self, name: &str, op: &ScalarOpIr) -> Result<(), TraceError> {
        self.emit_scalar(name, &op.lhs, op.rhs, &op.out)
    }

    pub(super) fn numeric(&mut self, operation: &OperationIr, numeric: &NumericOperationIr) -> Result<(), TraceError> {
        use NumericOperationIr as Op;
        match numeric {
            Op::Add(op) => self.binary("Add", op),
            Op::Sub(op) => self.binary("Sub", op),
            Op::Mul(op) => self.binary("Mul", op),
            Op::Div(op) => self.binary("Div", op),
            Op::Powi(op) => self.binary("Pow", op),
            Op::AddScalar(op) => self.with_scalar("Add", op),
            Op::SubScalar(op) => self.with_scalar("Sub", op),
            Op::MulScalar(op) => self.with_scalar("Mul", op),
            Op::DivScalar(op) => self.with_scalar("Div", op),
            Op::PowiScalar(op) => self.with_scalar("Pow", op),
            Op::Rem(op) => {
                let divisor = self.read(&op.rhs)?;
                self.remainder(&op.lhs, &divisor, &op.out)
            }
            Op::RemScalar(op) => {
                let divisor = self.builder.scalar(op.rhs, op.lhs.dtype)?;
                self.remainder(&op.lhs, &divisor, &op.out)
            }
            Op::Abs(op) => self.emit("Abs", &[&op.input], Vec::new(), &op.out),
            Op::Neg(op) => self.emit("Neg", &[&op.input], Vec::new(), &op.out),
            Op::Sign(op) => self.emit("Sign", &[&op.input], Vec::new(), &op.out),
            Op::Greater(op) => self.binary("Greater", op),
            Op::GreaterElem(op) => self.with_scalar("Greater", op),
            Op::GreaterEqual(op) => self.binary("GreaterOrEqual", op),
            Op::GreaterEqualElem(op) => self.with_scalar("GreaterOrEqual", op),
            Op::Lower(op) => self.binary("Less", op),
            Op::LowerElem(op) => self.with_scalar("Less", op),
            Op::LowerEqual(op) => self.binary("LessOrEqual", op),
            Op::LowerEqualElem(op) => self.with_scalar("LessOrEqual", op),
            Op::Clamp(op) => {
                let [min, max] = [self.builder.scalar(op.min, op.tensor.dtype)?, self.builder.scalar(op.max, op.tensor.dtype)?];
                let x = self.read(&op.tensor)?;
                self.emit_named("Clip", &[&x, &min, &max], Vec::new(), &op.out);
                Ok(())
            }
            Op::ClampMin(op) => self.with_scalar("Clip", op),
            Op::ClampMax(op) => {
                let max = self.builder.scalar(op.rhs, op.lhs.dtype)?;
                let x = self.read(&op.lhs)?;
                self.emit_named("Clip", &[&x, "", &max], Vec::new(), &op.out);
                Ok(())
            }
            Op::Full(op) => {
                let out = self.write(&op.out);
                let dims = self.dims(&op.out).to_vec();
                self.builder.fill(op.value, op.out.dtype, &dims, &out)
            }
            _ => self.reduction(operation, numeric),
        }
    }

    /// The remainder with the sign of the divisor, as burn has it.
    fn remainder(&mut self, dividend: &TensorIr, divisor: &str, out: &TensorIr) -> Result<(), TraceError> {
        let x = self.read(dividend)?;
        if !dividend.dtype.is_float() {
            self.emit_named("Mod", &[&x, divisor], vec![int("fmod", 0)], out);
            return Ok(());
        }
        // x − y · ⌊x / y⌋: ONNX's floating Mod has the sign of the dividend.
        let quotient = self.builder.node("Div", &[&x, divisor], Vec::new());
        let floor = self.builder.node("Floor", &[&quotient], Vec::new());
        let whole = self.builder.node("Mul", &[&floor, divisor], Vec::new());
        self.emit_named("Sub", &[&x, &whole], Vec::new(), out);
        Ok(())
    }

    pub(super) fn float(&mut self, operation: &OperationIr, float: &FloatOperationIr) -> Result<(), TraceError> {
        use FloatOperationIr as Op;
        let (name, op) = match float {
            Op::Exp(op) => ("Exp", op),
            Op::Log(op) => ("Log", op),
            Op::Erf(op) => ("Erf", op),
            Op::Sqrt(op) => ("Sqrt", op),
            Op::Cos(op) => ("Cos", op),
            Op::Cosh(op) => ("Cosh", op),
            Op::Sin(op) => ("Sin", op),
            Op::Sinh(op) => ("Sinh", op),
            Op::Tan(op) => ("Tan", op),
            Op::Tanh(op) => ("Tanh", op),
            Op::ArcCos(op) => ("Acos", op),
            Op::ArcCosh(op) => ("Acosh", op),
            Op::ArcSin(op) => ("Asin", op),
            Op::ArcSinh(op) => ("Asinh", op),
            Op::ArcTan(op) => ("Atan", op),
            Op::ArcTanh(op) => ("Atanh", op),
            Op::Round(op) => ("Round", op),
            Op::Floor(op) => ("Floor", op),
            Op::Ceil(op) => ("Ceil", op),
            Op::Recip(op) => ("Reciprocal", op),
            Op::IsNan(op) => ("IsNaN", op),
            Op::IsInf(op) => ("IsInf", op),
            Op::Log1p(op) => {
                // As exact as ln(1 + x) is: within 1e-7 in absolute terms.
                let one = self.builder.scalar(ScalarIr::Float(1.0), op.input.dtype)?;
                let x = self.read(&op.input)?;
                let shifted = self.builder.node("Add", &[&x, &one], Vec::new());
                self.emit_named("Log", &[&shifted], Vec::new(), &op.out);
                return Ok(());
            }
            Op::Trunc(op) => {
                let x = self.read(&op.input)?;
                let [sign, size] = ["Sign", "Abs"].map(|name| self.builder.node(name, &[&x], Vec::new()));
                let floor = self.builder.node("Floor", &[&size], Vec::new());
                self.emit_named("Mul", &[&sign, &floor], Vec::new(), &op.out);
                return Ok(());
            }
            Op::Hypot(op) => {
                let [x, y] = [self.read(&op.lhs)?, self.read(&op.rhs)?];
                let [x, y] = [x, y].map(|side| self.builder.node("Mul", &[&side, &side], Vec::new()));
                let sum = self.builder.node("Add", &[&x, &y], Vec::new());
                self.emit_named("Sqrt", &[&sum], Vec::new(), &op.out);
                return Ok(());
            }
            Op::Powf(op) => return self.binary("Pow", op),
            Op::PowfScalar(op) => return self.with_scalar("Pow", op),
            Op::Matmul(op) => return self.emit("MatMul", &[&op.lhs, &op.rhs], Vec::new(), &op.out),
            Op::IntoInt(op) => {
                let x = self.read(&op.input)?;
                return self.cast(&x, &op.out);
            }
            Op::ArcTan2(_) | Op::Cross(_) | Op::Random(_) | Op::Quantize(_) | Op::Dequantize(_) | Op::GridSample2d(_) => {
                return unsupported(operation, "");
            }
        };
        self.emit(name, &[&op.input], Vec::new(), &op.out)
    }

    pub(super) fn int(&mut self, operation: &OperationIr, int: &IntOperationIr) -> Result<(), TraceError> {
        use IntOperationIr as Op;
        match int {
            Op::IntoFloat(op) => {
                let x = self.read(&op.input)?;
                self.cast(&x, &op.out)
            }
            Op::Matmul(op) if op.lhs.dtype == DType::I32 || op.lhs.dtype == DType::I64 => {
                self.emit("MatMul", &[&op.lhs, &op.rhs], Vec::new(), &op.out)
            }
            Op::BitwiseAnd(op) => self.binary("BitwiseAnd", op),
            Op::BitwiseOr(op) => self.binary("BitwiseOr", op),
            Op::BitwiseXor(op) => self.binary("BitwiseXor", op),
            Op::BitwiseAndScalar(op) => self.with_scalar("BitwiseAnd", op),
            Op::BitwiseOrScalar(op) => self.with_scalar("BitwiseOr", op),
            Op::BitwiseXorScalar(op) => self.with_scalar("BitwiseXor", op),
            Op::BitwiseNot(op) => self.emit("BitwiseNot", &[&op.input], Vec::new(), &op.out),
            _ => unsupported(operation, ""),
        }
    }

    pub(super) fn bool(&mut self, bool: &BoolOperationIr) -> Result<(), TraceError> {
        use BoolOperationIr as Op;
        match bool {
            Op::IntoFloat(op) | Op::IntoInt(op) => {
                let x = self.read(&op.input)?;
                self.cast(&x, &op.out)
            }
            Op::Not(op) => self.emit("Not", &[&op.input], Vec::new(), &op.out),
            Op::And(op) => self.binary("And", op),
            Op::Or(op) => self.binary("Or", op),
            Op::Xor(op) => self.binary("Xor", op),
        }
    }
}
