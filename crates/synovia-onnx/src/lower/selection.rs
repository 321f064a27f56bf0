//! Choosing elements by index, by mask or by comparison.

use burn_ir::{BaseOperationIr, OperationIr};

use super::{Lowering, unsupported};
use crate::builder::int;
use crate::error::TraceError;

impl Lowering<'_> {
    pub(super) fn selection(&mut self, operation: &OperationIr, base: &BaseOperationIr) -> Result<(), TraceError> {
        use BaseOperationIr as Op;
        match base {
            Op::Select(op) => self.emit("Gather", &[&op.tensor, &op.indices], vec![int("axis", op.dim as i64)], &op.out),
            Op::Gather(op) => self.emit("GatherElements", &[&op.tensor, &op.indices], vec![int("axis", op.dim as i64)], &op.out),
            Op::GatherNd(op) => self.emit("GatherND", &[&op.data, &op.indices], Vec::new(), &op.out),
            // burn: `value` where the mask is set.
            Op::MaskWhere(op) => self.emit("Where", &[&op.mask, &op.value, &op.tensor], Vec::new(), &op.out),
            Op::MaskFill(op) => {
                let value = self.builder.scalar(op.value, op.tensor.dtype)?;
                let [mask, x] = [self.read(&op.mask)?, self.read(&op.tensor)?];
                self.emit_named("Where", &[&mask, &value, &x], Vec::new(), &op.out);
                Ok(())
            }
            Op::Equal(op) => self.emit("Equal", &[&op.lhs, &op.rhs], Vec::new(), &op.out),
            Op::EqualElem(op) => self.emit_scalar("Equal", &op.lhs, op.rhs, &op.out),
            Op::NotEqual(op) => {
                let [lhs, rhs] = [self.read(&op.lhs)?, self.read(&op.rhs)?];
                let equal = self.builder.node("Equal", &[&lhs, &rhs], Vec::new());
                self.emit_named("Not", &[&equal], Vec::new(), &op.out);
                Ok(())
            }
            Op::NotEqualElem(op) => {
                let scalar = self.builder.scalar(op.rhs, op.lhs.dtype)?;
                let lhs = self.read(&op.lhs)?;
                let equal = self.builder.node("Equal", &[&lhs, &scalar], Vec::new());
                self.emit_named("Not", &[&equal], Vec::new(), &op.out);
                Ok(())
            }
            Op::All(op) => self.quantifier("ReduceMin", &op.input, None, &op.out),
            Op::Any(op) => self.quantifier("ReduceMax", &op.input, None, &op.out),
            Op::AllDim(op) => self.quantifier("ReduceMin", &op.input, Some(op.axis), &op.out),
            Op::AnyDim(op) => self.quantifier("ReduceMax", &op.input, Some(op.axis), &op.out),
            _ => unsupported(operation, ""),
        }
    }
}
