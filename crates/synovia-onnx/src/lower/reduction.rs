//! Sums, means, extremes, sorts and running sums along dimensions.

use burn::tensor::DType;
use burn_ir::{NumericOperationIr, OperationIr, ReduceDimOpIr, ReduceOpIr, ScalarIr, TensorIr};

use super::{Lowering, unsupported};
use crate::builder::{data_type, int};
use crate::dim::Dim;
use crate::error::TraceError;
use crate::proto::DataType;

impl Lowering<'_> {
    pub(super) fn reduction(&mut self, operation: &OperationIr, numeric: &NumericOperationIr) -> Result<(), TraceError> {
        use NumericOperationIr as Op;
        match numeric {
            Op::SumDim(op) => self.reduce("ReduceSum", op),
            Op::MeanDim(op) => self.reduce("ReduceMean", op),
            Op::ProdDim(op) => self.reduce("ReduceProd", op),
            Op::MaxDim(op) => self.reduce("ReduceMax", op),
            Op::MinDim(op) => self.reduce("ReduceMin", op),
            Op::MaxAbsDim(op) => {
                let x = self.read(&op.input)?;
                let size = self.builder.node("Abs", &[&x], Vec::new());
                self.reduce_named("ReduceMax", &size, &[op.axis], &op.out);
                Ok(())
            }
            Op::SumDims(op) => {
                let x = self.read(&op.input)?;
                self.reduce_named("ReduceSum", &x, &op.axes, &op.out);
                Ok(())
            }
            Op::Sum(op) => self.reduce_all("ReduceSum", op),
            Op::Mean(op) => self.reduce_all("ReduceMean", op),
            Op::Prod(op) => self.reduce_all("ReduceProd", op),
            Op::Max(op) => self.reduce_all("ReduceMax", op),
            Op::Min(op) => self.reduce_all("ReduceMin", op),
            Op::MaxAbs(op) => {
                let x = self.read(&op.input)?;
                let size = self.builder.node("Abs", &[&x], Vec::new());
                self.reduce_all_named("ReduceMax", &size, &op.out)
            }
            Op::ArgMax(op) => self.position("ArgMax", &op.input, op.axis, &op.out),
            Op::ArgMin(op) => self.position("ArgMin", &op.input, op.axis, &op.out),
            Op::MaxDimWithIndices(op) => {
                let x = self.read(&op.tensor)?;
                self.reduce_named("ReduceMax", &x, &[op.dim], &op.out);
                self.position("ArgMax", &op.tensor, op.dim, &op.out_indices)
            }
            Op::MinDimWithIndices(op) => {
                let x = self.read(&op.tensor)?;
                self.reduce_named("ReduceMin", &x, &[op.dim], &op.out);
                self.position("ArgMin", &op.tensor, op.dim, &op.out_indices)
            }
            Op::TopK(op) => self.top(&op.input, op.axis, Dim::constant(op.accumulator_len), true, Some(&op.out), None),
            Op::ArgTopK(op) => self.top(&op.input, op.axis, Dim::constant(op.accumulator_len), true, None, Some(&op.out)),
            Op::TopKWithIndices(op) => self.top(&op.tensor, op.dim, Dim::constant(op.k), true, Some(&op.out), Some(&op.out_indices)),
            Op::Sort(op) => {
                let all = self.dims(&op.input)[op.dim];
                self.top(&op.input, op.dim, all, op.descending, Some(&op.out), None)
            }
            Op::ArgSort(op) => {
                let all = self.dims(&op.input)[op.dim];
                self.top(&op.input, op.dim, all, op.descending, None, Some(&op.out))
            }
            Op::SortWithIndices(op) => {
                let all = self.dims(&op.input)[op.dim];
                self.top(&op.input, op.dim, all, op.descending, Some(&op.out), Some(&op.out_indices))
            }
            Op::CumSum(op) => {
                let axis = self.builder.scalar(ScalarIr::Int(op.axis as i64), DType::I64)?;
                let x = self.read(&op.input)?;
                self.emit_named("CumSum", &[&x, &axis], Vec::new(), &op.out);
                Ok(())
            }
            Op::Pad(op) => self.pad(op),
            _ => unsupported(operation, ""),
        }
    }

    fn reduce(&mut self, name: &str, op: &ReduceDimOpIr) -> Result<(), TraceError> {
        let x = self.read(&op.input)?;
        self.reduce_named(name, &x, &[op.axis], &op.out);
        Ok(())
    }

    /// Keeps the dimension, with size 1.
    pub(super) fn reduce_named(&mut self, name: &str, x: &str, axes: &[usize], out: &TensorIr) {
        let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
        let axes = self.builder.int64s(&axes);
        self.emit_named(name, &[x, &axes], vec![int("keepdims", 1)], out);
    }

    fn reduce_all(&mut self, name: &str, op: &ReduceOpIr) -> Result<(), TraceError> {
        let x = self.read(&op.input)?;
        self.reduce_all_named(name, &x, &op.out)
    }

    pub(super) fn reduce_all_named(&mut self, name: &str, x: &str, out: &TensorIr) -> Result<(), TraceError> {
        let scalar = self.builder.node(name, &[x], vec![int("keepdims", 0)]);
        // burn's scalars have one dimension of size 1.
        let dims = self.dims(out).to_vec();
        let shape = self.builder.shape(&dims)?;
        self.emit_named("Reshape", &[&scalar, &shape], Vec::new(), out);
        Ok(())
    }

    /// Whether all or any are true: the least or greatest of 0 and 1.
    pub(super) fn quantifier(&mut self, name: &str, input: &TensorIr, axis: Option<usize>, out: &TensorIr) -> Result<(), TraceError> {
        let x = self.read(input)?;
        let to = |element: DataType| vec![int("to", i32::from(element).into())];
        let truth = self.builder.node("Cast", &[&x], to(DataType::Bool));
        let number = self.builder.node("Cast", &[&truth], to(DataType::Int32));
        let reduced = if let Some(axis) = axis {
            let axes = self.builder.int64s(&[axis as i64]);
            self.builder.node(name, &[&number, &axes], vec![int("keepdims", 1)])
        } else {
            let scalar = self.builder.node(name, &[&number], vec![int("keepdims", 0)]);
            let one = self.builder.int64s(&[1]);
            self.builder.node("Reshape", &[&scalar, &one], Vec::new())
        };
        self.cast(&reduced, out)
    }

    fn position(&mut self, name: &str, input: &TensorIr, axis: usize, out: &TensorIr) -> Result<(), TraceError> {
        let x = self.read(input)?;
        let position = self.builder.node(name, &[&x], vec![int("axis", axis as i64), int("keepdims", 1)]);
        self.cast(&position, out)
    }

    fn top(
        &mut self,
        input: &TensorIr,
        axis: usize,
        k: Dim,
        largest: bool,
        values: Option<&TensorIr>,
        positions: Option<&TensorIr>,
    ) -> Result<(), TraceError> {
        let x = self.read(input)?;
        let k = self.builder.shape(&[k])?;
        let value = match values {
            Some(values) => self.write(values),
            None => self.builder.fresh(),
        };
        let position = self.builder.fresh();
        let attributes = vec![int("axis", axis as i64), int("largest", largest.into()), int("sorted", 1)];
        self.builder.node_into("TopK", &[&x, &k], attributes, &[&value, &position]);
        match positions {
            Some(out) if data_type(out.dtype)? == DataType::Int64 => {
                self.emit_named("Identity", &[&position], Vec::new(), out);
                Ok(())
            }
            Some(out) => self.cast(&position, out),
            None => Ok(()),
        }
    }
}
