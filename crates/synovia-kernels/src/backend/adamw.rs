//! AdamW, and averages of weights, on burn's tensors in their own memory.

use burn::backend::{BackendTypes, Flex};
use burn::tensor::Tensor;

use crate::adamw::{AdamWStep, blend_slices, step_slices, sum_of_squares_slice};

type Values = <Flex as BackendTypes>::FloatTensorPrimitive;

/// The tensor's memory, if it is `f32`, the CPU's, and the whole of what it lies in.
fn memory(tensor: Tensor<1>) -> Option<Values> {
    let values = tensor.try_into_primitive::<Flex>().ok()?;
    let len = values.as_slice::<f32>()?.len();
    (values.storage::<f32>().len() == len).then_some(values)
}

/// Sum of squares, for the gradient's norm. `None` for a tensor that is not `f32` in the CPU's memory.
pub fn sum_of_squares(values: &Tensor<1>) -> Option<f64> {
    let values = memory(values.clone())?;
    Some(sum_of_squares_slice(values.as_slice()?))
}

/// One step, in place where nobody else holds the memory. Returns whether it was made: not with tensors that are other than
/// `f32` in the CPU's memory or not of one length, which are left as they are.
///
/// # Shapes
/// All are of one length; `mean` and `square` are those of the gradient, zeros at first.
pub fn adamw(by: AdamWStep, value: &mut Tensor<1>, gradient: &Tensor<1>, mean: &mut Tensor<1>, square: &mut Tensor<1>) -> bool {
    let len = value.dims();
    if [&*value, gradient, mean, square].into_iter().any(|part| part.dims() != len || memory(part.clone()).is_none()) {
        return false;
    }
    // Taken out, so that no second handle makes a write copy.
    let taken = [&mut *value, &mut *mean, &mut *square].map(|part| {
        let device = part.device();
        memory(std::mem::replace(part, Tensor::empty([0], &device)))
    });
    let ([Some(mut new), Some(mut new_mean), Some(mut new_square)], Some(gradient)) = (taken, memory(gradient.clone())) else {
        return false;
    };
    step_slices(by, new.storage_mut(), gradient.storage(), new_mean.storage_mut(), new_square.storage_mut());
    for (part, new) in [(value, new), (mean, new_mean), (square, new_square)] {
        *part = Tensor::from_primitive::<Flex>(new);
    }
    true
}

/// `mean = keep · mean + (1 − keep) · value`, in place where nobody else holds the memory. Returns whether it was done, as [`adamw`].
pub fn blend(keep: f64, mean: &mut Tensor<1>, value: &Tensor<1>) -> bool {
    if mean.dims() != value.dims() || memory(mean.clone()).is_none() {
        return false;
    }
    let Some(value) = memory(value.clone()) else { return false };
    let device = mean.device();
    // Taken out, so that no second handle makes a write copy.
    let Some(mut new) = memory(std::mem::replace(mean, Tensor::empty([0], &device))) else { return false };
    blend_slices(keep, new.storage_mut(), value.storage());
    *mean = Tensor::from_primitive::<Flex>(new);
    true
}
