//! Dense layers, recognised.
//!
//! burn writes `x W + b` in one of two ways, whichever it expects to be faster at the sizes at hand, the batch among them:
//! with the leading dimensions folded into the rows, or with weights that are given leading dimensions of size 1. Recordings at
//! several batch sizes can only be laid over each other once both are what they stand for.

use std::collections::HashMap;

use burn_ir::{BaseOperationIr, BinaryOpIr, LinearOpIr, MatmulOpIr, ModuleOperationIr, NumericOperationIr, OperationIr, ShapeOpIr};
use burn_ir::{FloatOperationIr, TensorId, TensorIr};

/// Operations so far, found by what they compute.
struct Operations {
    list: Vec<OperationIr>,
    producers: HashMap<TensorId, usize>,
}

impl Operations {
    fn producer(&self, tensor: &TensorIr) -> Option<&OperationIr> {
        self.producers.get(&tensor.id).map(|&index| &self.list[index])
    }

    fn reshape(&self, tensor: &TensorIr) -> Option<&ShapeOpIr> {
        match self.producer(tensor)? {
            OperationIr::BaseFloat(BaseOperationIr::Reshape(op)) => Some(op),
            _ => None,
        }
    }

    fn add(&self, tensor: &TensorIr) -> Option<&BinaryOpIr> {
        match self.producer(tensor)? {
            OperationIr::NumericFloat(_, NumericOperationIr::Add(op)) => Some(op),
            _ => None,
        }
    }

    fn matmul(&self, tensor: &TensorIr) -> Option<&MatmulOpIr> {
        match self.producer(tensor)? {
            OperationIr::Float(_, FloatOperationIr::Matmul(op)) => Some(op),
            _ => None,
        }
    }

    /// The tensor of rank `rank` that `tensor` is, with dimensions of size 1 put in front.
    fn widened(&self, tensor: &TensorIr, rank: usize) -> Option<TensorIr> {
        let op = self.reshape(tensor)?;
        let (from, to) = (sizes(&op.input), sizes(&op.out));
        let (front, back) = to.split_at_checked(to.len().checked_sub(rank)?)?;
        (back == from && front.iter().all(|&size| size == 1)).then(|| op.input.clone())
    }

    /// `x · [1, …, 1, W]`
    fn batched(&self, op: &MatmulOpIr) -> Option<LinearOpIr> {
        let weight = self.widened(&op.rhs, 2)?;
        (sizes(&op.lhs).len() == sizes(&op.rhs).len()).then(|| LinearOpIr { x: op.lhs.clone(), weight, bias: None, out: op.out.clone() })
    }

    /// `reshape(reshape(x) · W + [1, b])`, with or without the bias.
    fn folded(&self, op: &ShapeOpIr) -> Option<LinearOpIr> {
        let (product, bias) = match self.add(&op.input) {
            Some(add) => (self.matmul(&add.lhs)?, Some(self.widened(&add.rhs, 1)?)),
            None => (self.matmul(&op.input)?, None),
        };
        let rows = self.reshape(&product.lhs)?;
        let (x, out) = (sizes(&rows.input), sizes(&op.out));
        let (width, leading) = x.split_last()?;
        let (width_out, leading_out) = out.split_last()?;
        let fits = sizes(&product.rhs) == [*width, *width_out] && sizes(&product.lhs).len() == 2 && leading == leading_out;
        fits.then(|| LinearOpIr { x: rows.input.clone(), weight: product.rhs.clone(), bias, out: op.out.clone() })
    }

    /// `(x W) + [1, …, 1, b]`
    fn biased(&self, op: &BinaryOpIr) -> Option<LinearOpIr> {
        let Some(OperationIr::Module(ModuleOperationIr::Linear(linear))) = self.producer(&op.lhs) else {
            return None;
        };
        let bias = self.widened(&op.rhs, 1)?;
        let fits = linear.bias.is_none() && sizes(&op.lhs) == sizes(&op.out) && sizes(&bias).last() == sizes(&op.out).last();
        fits.then(|| LinearOpIr { bias: Some(bias), out: op.out.clone(), ..linear.clone() })
    }
}

fn sizes(tensor: &TensorIr) -> Vec<usize> {
    tensor.shape.iter().copied().collect()
}

/// The same operations with dense layers as one operation each. What they were made of stays and is dead where nothing else
/// reads it.
pub(crate) fn canonical(operations: Vec<OperationIr>) -> Vec<OperationIr> {
    let mut seen = Operations { list: Vec::with_capacity(operations.len()), producers: HashMap::new() };
    for operation in operations {
        let linear = match &operation {
            OperationIr::Float(_, FloatOperationIr::Matmul(op)) => seen.batched(op),
            OperationIr::BaseFloat(BaseOperationIr::Reshape(op)) => seen.folded(op),
            OperationIr::NumericFloat(_, NumericOperationIr::Add(op)) => seen.biased(op),
            _ => None,
        };
        let operation = linear.map_or(operation, |linear| OperationIr::Module(ModuleOperationIr::Linear(linear)));
        for out in operation.outputs() {
            seen.producers.insert(out.id, seen.list.len());
        }
        seen.list.push(operation);
    }
    seen.list
}
