//! Shapes, order of dimensions, slices and copies: what moves elements and computes none.

use burn::tensor::Slice;
use burn_ir::{BaseOperationIr, OperationIr, PadModeIr, PadOpIr, ScalarIr, ShapeOpIr, SliceAssignOpIr, TensorIr};

use super::{Lowering, operation_name, unsupported};
use crate::builder::{int, ints, text};
use crate::dim::{BATCHES, Dim};
use crate::error::TraceError;
use crate::program::Step;

/// A bound that is the same at each batch size, counted from the start or from the end of its dimension.
fn bound(seen: [usize; 3], sizes: [usize; 3]) -> Option<i64> {
    let to_end = [0, 1, 2].map(|trace: usize| sizes[trace].saturating_sub(seen[trace]));
    if to_end == [0; 3] {
        return Some(i64::MAX);
    }
    if seen[0] == seen[1] && seen[0] == seen[2] {
        return Some(seen[0] as i64);
    }
    (to_end[0] == to_end[1] && to_end[0] == to_end[2]).then(|| -(to_end[0] as i64))
}

/// ONNX's `starts` and `ends` of one dimension; `None` when all of it is taken as it is.
fn slice_bounds(slices: [Slice; 3], sizes: [usize; 3]) -> Option<Result<(i64, i64), &'static str>> {
    let ranges = [0, 1, 2].map(|trace: usize| slices[trace].to_range(sizes[trace]));
    let step = slices[0].step;
    if step == 1 && ranges.iter().zip(sizes).all(|(range, size)| range.start == 0 && range.end >= size) {
        return None;
    }
    let start = bound(ranges.each_ref().map(|range| range.start), sizes);
    let end = bound(ranges.each_ref().map(|range| range.end), sizes);
    let (Some(start), Some(end)) = (start, end) else {
        return Some(Err("bounds of the slice"));
    };
    if step > 0 {
        return Some(Ok((start, end)));
    }
    // burn walks from the last element of the range down to its start; ONNX names the first element taken and the one before
    // the last, for which "before the first" needs a number below any index.
    let first = if end == i64::MAX { i64::MAX } else { end - 1 };
    let before = if start == 0 { i64::MIN } else { start - 1 };
    Some(Ok((first, before)))
}

impl Lowering<'_> {
    pub(super) fn base(&mut self, step: &Step, base: &BaseOperationIr) -> Result<(), TraceError> {
        use BaseOperationIr as Op;
        let operation = step.operation();
        match base {
            Op::Reshape(op) => self.reshape(op),
            Op::Expand(op) => {
                // Where the size is there already, 1 says "as it is", which often makes the shape a constant.
                let (from, to) = (self.dims(&op.input).to_vec(), self.dims(&op.out).to_vec());
                let added = to.len() - from.len();
                let shape: Vec<Dim> = to
                    .iter()
                    .enumerate()
                    .map(|(axis, &dim)| if axis >= added && from[axis - added] == dim { Dim::constant(1) } else { dim })
                    .collect();
                let x = self.read(&op.input)?;
                let shape = self.builder.shape(&shape)?;
                self.emit_named("Expand", &[&x, &shape], Vec::new(), &op.out);
                Ok(())
            }
            Op::SwapDims(op) => {
                let mut axes: Vec<usize> = (0..self.dims(&op.input).len()).collect();
                axes.swap(op.dim1, op.dim2);
                self.emit("Transpose", &[&op.input], vec![ints("perm", axes)], &op.out)
            }
            Op::Permute(op) => self.emit("Transpose", &[&op.input], vec![ints("perm", op.axes.clone())], &op.out),
            Op::Flip(op) => {
                let n = op.axes.len();
                let axes: Vec<i64> = op.axes.iter().map(|&axis| axis as i64).collect();
                let x = self.read(&op.input)?;
                self.slice(&x, &vec![i64::MAX; n], &vec![i64::MIN; n], &axes, &vec![-1; n], &op.out);
                Ok(())
            }
            Op::Slice(op) => self.slices(step, &op.tensor, &op.out),
            Op::SliceAssign(op) => self.slice_assign(operation, op),
            Op::RepeatDim(op) => {
                let times = step.recorded.each_ref().map(|recorded| match recorded {
                    OperationIr::BaseFloat(Op::RepeatDim(op))
                    | OperationIr::BaseInt(Op::RepeatDim(op))
                    | OperationIr::BaseBool(Op::RepeatDim(op)) => op.times,
                    _ => 1,
                });
                let times = Dim::fit(times).ok_or_else(|| TraceError::BatchDependent {
                    operation: operation_name(operation),
                    what: "a number of repeats that is not in proportion to it".into(),
                })?;
                let mut repeats = vec![Dim::constant(1); self.dims(&op.tensor).len()];
                repeats[op.dim] = times;
                let x = self.read(&op.tensor)?;
                let repeats = self.builder.shape(&repeats)?;
                self.emit_named("Tile", &[&x, &repeats], Vec::new(), &op.out);
                Ok(())
            }
            Op::Cat(op) => {
                let tensors: Vec<&TensorIr> = op.tensors.iter().collect();
                self.emit("Concat", &tensors, vec![int("axis", op.dim as i64)], &op.out)
            }
            Op::Cast(op) => {
                let x = self.read(&op.input)?;
                self.cast(&x, &op.out)
            }
            Op::Empty(op) | Op::Zeros(op) => self.filled(&op.out, 0),
            Op::Ones(op) => self.filled(&op.out, 1),
            _ => self.selection(operation, base),
        }
    }

    fn filled(&mut self, out: &TensorIr, value: i64) -> Result<(), TraceError> {
        let name = self.write(out);
        let dims = self.dims(out).to_vec();
        let value = if out.dtype.is_bool() { ScalarIr::Bool(value == 1) } else { ScalarIr::Int(value) };
        self.builder.fill(value, out.dtype, &dims, &name)
    }

    fn reshape(&mut self, op: &ShapeOpIr) -> Result<(), TraceError> {
        let dims = self.dims(&op.out).to_vec();
        let n_following = dims.iter().filter(|dim| dim.fixed().is_none()).count();
        let empty = dims.iter().any(|dim| dim.fixed() == Some(0));
        let shape = if n_following == 1 && !empty {
            // -1: what is left over.
            let sizes: Vec<i64> = dims.iter().map(|dim| dim.fixed().unwrap_or(-1)).collect();
            self.builder.int64s(&sizes)
        } else {
            self.builder.shape(&dims)?
        };
        let x = self.read(&op.input)?;
        let attributes = if empty { vec![int("allowzero", 1)] } else { Vec::new() };
        self.emit_named("Reshape", &[&x, &shape], attributes, &op.out);
        Ok(())
    }

    fn slice(&mut self, x: &str, starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64], out: &TensorIr) {
        let [starts, ends, axes, steps] = [starts, ends, axes, steps].map(|values| self.builder.int64s(values));
        self.emit_named("Slice", &[x, &starts, &ends, &axes, &steps], Vec::new(), out);
    }

    fn sizes(&self, tensor: &TensorIr, axis: usize) -> [usize; 3] {
        let dim = self.dims(tensor)[axis];
        BATCHES.map(|batch| (dim.per_batch * batch as i64 + dim.offset) as usize)
    }

    fn slices(&mut self, step: &Step, tensor: &TensorIr, out: &TensorIr) -> Result<(), TraceError> {
        let ranges = step.recorded.each_ref().map(|recorded| match recorded {
            OperationIr::BaseFloat(BaseOperationIr::Slice(op))
            | OperationIr::BaseInt(BaseOperationIr::Slice(op))
            | OperationIr::BaseBool(BaseOperationIr::Slice(op)) => op.ranges.clone(),
            _ => Vec::new(),
        });
        let (mut starts, mut ends, mut axes, mut steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for axis in 0..ranges[0].len() {
            let seen = ranges.each_ref().map(|ranges| ranges[axis]);
            match slice_bounds(seen, self.sizes(tensor, axis)) {
                None => {}
                Some(Err(what)) => {
                    return Err(TraceError::BatchDependent { operation: operation_name(step.operation()), what: what.into() });
                }
                Some(Ok((start, end))) => {
                    starts.push(start);
                    ends.push(end);
                    axes.push(axis as i64);
                    steps.push(seen[0].step as i64);
                }
            }
        }
        if axes.is_empty() {
            return self.emit("Identity", &[tensor], Vec::new(), out);
        }
        let x = self.read(tensor)?;
        self.slice(&x, &starts, &ends, &axes, &steps, out);
        Ok(())
    }

    /// A block replaced: what is before it, the new block, what is after it.
    fn slice_assign(&mut self, operation: &OperationIr, op: &SliceAssignOpIr) -> Result<(), TraceError> {
        let mut replaced = Vec::new();
        for (axis, slice) in op.ranges.iter().enumerate() {
            if slice.step != 1 {
                return unsupported(operation, "a step");
            }
            let [size, ..] = self.sizes(&op.tensor, axis);
            let range = slice.to_range(size);
            if range != (0..size) {
                replaced.push((axis, range, self.fixed(operation, &op.tensor, axis)?));
            }
        }
        let value = self.read(&op.value)?;
        match replaced.as_slice() {
            [] => {
                self.emit_named("Identity", &[&value], Vec::new(), &op.out);
                Ok(())
            }
            [(axis, range, size)] => {
                let x = self.read(&op.tensor)?;
                let axis = *axis as i64;
                let mut parts = vec![value];
                let mut part = |from: usize, to: usize| {
                    let [from, to, axes] = [from as i64, to as i64, axis].map(|value| self.builder.int64s(&[value]));
                    self.builder.node("Slice", &[&x, &from, &to, &axes], Vec::new())
                };
                if range.start > 0 {
                    parts.insert(0, part(0, range.start));
                }
                if range.end < *size {
                    parts.push(part(range.end, *size));
                }
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.emit_named("Concat", &parts, vec![int("axis", axis)], &op.out);
                Ok(())
            }
            _ => unsupported(operation, "more than one dimension that is not taken whole"),
        }
    }

    pub(super) fn pad(&mut self, op: &PadOpIr) -> Result<(), TraceError> {
        let (before, after): (Vec<i64>, Vec<i64>) = op.padding.iter().map(|&(before, after)| (before as i64, after as i64)).unzip();
        let pads = self.builder.int64s(&[before, after].concat());
        let x = self.read(&op.input)?;
        let (mode, value) = match op.mode {
            PadModeIr::Constant(value) => ("constant", Some(self.builder.scalar(value, op.input.dtype)?)),
            PadModeIr::Reflect => ("reflect", None),
            PadModeIr::Edge => ("edge", None),
        };
        let mut inputs = vec![x.as_str(), pads.as_str()];
        inputs.extend(value.as_deref());
        self.emit_named("Pad", &inputs, vec![text("mode", mode)], &op.out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(slices: [Slice; 3], sizes: [usize; 3], expected: Option<Result<(i64, i64), &'static str>>) {
        assert_eq!(slice_bounds(slices, sizes), expected);
    }

    #[test]
    fn bounds_of_slices() {
        let every = |slice: Slice| [slice; 3];
        check(every(Slice::new(0, None, 1)), [3, 5, 11], None);
        check(every(Slice::new(1, Some(3), 1)), [4; 3], Some(Ok((1, 3))));
        check(every(Slice::new(1, None, 1)), [3, 5, 11], Some(Ok((1, i64::MAX))));
        check(every(Slice::new(0, Some(-1), 1)), [3, 5, 11], Some(Ok((0, -1))));
        check(every(Slice::new(0, None, -1)), [3, 5, 11], Some(Ok((i64::MAX, i64::MIN))));
        check(every(Slice::new(2, Some(8), -2)), [9; 3], Some(Ok((7, 1))));
        let half = BATCHES.map(|batch| Slice::new(0, Some((batch / 2) as isize), 1));
        check(half, BATCHES, Some(Err("bounds of the slice")));
    }
}
