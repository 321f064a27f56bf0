//! Operations one by one.

use burn::tensor::{Int, Tensor, activation, s};

use super::{Pass, check};

/// A function of one `[batch, 3, 4]`.
#[track_caller]
fn unary<const D: usize>(f: impl Fn(Tensor<3>) -> Tensor<D>) {
    check(|pass: &mut Pass<'_>| {
        let x = pass.input("x", &[3, 4]);
        pass.output("y", f(x));
    });
}

/// A function of one `[batch, 3, 4]` of positive numbers.
#[track_caller]
fn positive(f: impl Fn(Tensor<3>) -> Tensor<3>) {
    unary(|x| f(x.abs().add_scalar(0.1)));
}

/// A function of two, the second broadcast.
#[track_caller]
fn binary<const D: usize>(f: impl Fn(Tensor<3>, Tensor<3>) -> Tensor<D>) {
    check(|pass: &mut Pass<'_>| {
        let x = pass.input("x", &[3, 4]);
        let y = pass.input("y", &[1, 4]);
        pass.output("z", f(x, y));
    });
}

/// A function of integers, `[batch, 5]` in 0..9.
#[track_caller]
fn integer<const D: usize>(f: impl Fn(Tensor<2, Int>) -> Tensor<D, Int>) {
    check(|pass: &mut Pass<'_>| {
        let x = pass.input_int("x", &[5], 9);
        pass.output_int("y", f(x));
    });
}

#[test]
fn arithmetic() {
    binary(|x, y| x + y);
    binary(|x, y| x - y);
    binary(|x, y| x * y);
    binary(|x, y| x / (y.abs() + 0.5));
    binary(|x, y| x.abs().powf(y));
    binary(|x, y| x.remainder(y.abs() + 0.3));
    unary(|x| x + 1.5);
    unary(|x| x - 1.5);
    unary(|x| x * 1.5);
    unary(|x| x / 1.5);
    unary(|x| x.remainder_scalar(0.7));
    unary(Tensor::neg);
    unary(Tensor::abs);
    unary(Tensor::sign);
    unary(|x| x.powi_scalar(3));
    unary(|x| x.powf_scalar(2.0));
    unary(|x| x.clone().square() - x);
    unary(|x| x.clamp(-0.5, 0.75));
    unary(|x| x.clamp_min(-0.5));
    unary(|x| x.clamp_max(0.5));
    integer(|x| x.add_scalar(3).mul_scalar(2).sub_scalar(7));
    integer(|x| x.sub_scalar(4).div_scalar(3));
    integer(|x| x.sub_scalar(4).remainder_scalar(3));
    integer(|x| x.clone().mul(x).clamp(2, 40));
    integer(|x| x.bitwise_and_scalar(3));
}

#[test]
fn functions() {
    unary(Tensor::exp);
    positive(Tensor::log);
    positive(Tensor::log1p);
    positive(Tensor::sqrt);
    positive(Tensor::recip);
    unary(Tensor::erf);
    unary(Tensor::tanh);
    unary(Tensor::sin);
    unary(Tensor::cos);
    unary(Tensor::atan);
    unary(Tensor::sinh);
    unary(Tensor::cosh);
    unary(|x| x.mul_scalar(3.0).round());
    unary(|x| x.mul_scalar(3.0).floor());
    unary(|x| x.mul_scalar(3.0).ceil());
    unary(|x| x.mul_scalar(3.0).trunc());
}

#[test]
fn activations() {
    unary(activation::relu);
    unary(activation::sigmoid);
    unary(activation::gelu);
    unary(activation::gelu_approximate);
    unary(activation::silu);
    unary(activation::mish);
    unary(activation::tanh);
    unary(activation::log_sigmoid);
    unary(|x| activation::leaky_relu(x, 0.1));
    unary(|x| activation::hard_sigmoid(x, 0.2, 0.5));
    unary(|x| activation::softplus(x, 1.0));
    unary(|x| activation::softmax(x, 2));
    unary(|x| activation::softmax(x, 1));
    unary(|x| activation::log_softmax(x, 2));
    unary(|x| activation::softmin(x, 2));
    unary(|x| activation::quiet_softmax(x, 2));
    check(|pass| {
        let x: Tensor<3> = pass.input("x", &[3, 4]);
        let alpha = pass.weight([3]);
        pass.output("y", activation::prelu(x, alpha));
    });
}

#[test]
fn comparisons_and_logic() {
    binary(|x, y| {
        let y = y.expand(x.dims());
        x.greater(y).float()
    });
    binary(|x, y| {
        let y = y.expand(x.dims());
        x.lower_equal(y).float()
    });
    for limit in [-0.5, 0.0] {
        unary(|x| x.greater_elem(limit).float());
        unary(|x| x.greater_equal_elem(limit).float());
        unary(|x| x.lower_elem(limit).float());
        unary(|x| x.lower_equal_elem(limit).float());
        unary(|x| x.clamp_min(limit).equal_elem(limit).float());
        unary(|x| x.clamp_min(limit).not_equal_elem(limit).float());
    }
    unary(|x| x.clone().greater_elem(0.5).bool_or(x.lower_elem(-0.5)).float());
    unary(|x| x.clone().greater_elem(-0.5).bool_and(x.lower_elem(0.5)).float());
    unary(|x| x.clone().greater_elem(-0.5).bool_xor(x.lower_elem(0.5)).bool_not().float());
    unary(|x| x.clone().round().equal(x.floor()).float());
    unary(|x| x.greater_elem(0.0).int().float());
    unary(|x| x.lower_elem(1.5).all_dim(1).float());
    unary(|x| x.greater_elem(1.5).any_dim(2).float());
    unary(|x| x.greater_elem(9.5).any().float());
}

#[test]
fn masks_and_missing_values() {
    let holes = |pass: &mut Pass<'_>| pass.input_of::<2>("x", &[5], |value| if value > 0.2 { f32::NAN } else { value });
    check(|pass| {
        let x = holes(pass);
        let missing = x.clone().is_nan();
        pass.output("flag", missing.clone().float());
        pass.output("y", x.mask_fill(missing, 0.25));
    });
    check(|pass| {
        let x = holes(pass);
        let mean = pass.weight([1, 5]).expand(x.dims());
        pass.output("y", x.clone().mask_where(x.is_nan(), mean));
    });
    unary(|x| x.clone().mask_fill(x.greater_elem(0.0), f32::NEG_INFINITY));
}

#[test]
fn reductions() {
    for axis in [0, 1, 2] {
        unary(|x| x.sum_dim(axis));
        unary(|x| x.mean_dim(axis));
        unary(|x| x.max_dim(axis));
        unary(|x| x.min_dim(axis));
        unary(|x| x.prod_dim(axis));
        unary(|x| x.argmax(axis).float());
        unary(|x| x.argmin(axis).float());
    }
    unary(|x| x.var(2));
    unary(|x| x.max_abs_dim(1));
    unary(Tensor::sum);
    unary(Tensor::mean);
    unary(Tensor::max);
    unary(Tensor::min);
    unary(|x| x.sum_dims(&[1, 2]));
    unary(|x| x.max_dim_with_indices(2).1.float());
    unary(|x| x.topk(2, 2));
    unary(|x| x.sort(2));
    unary(|x| x.sort_descending(1));
    unary(|x| x.argsort(2).float());
    unary(|x| x.cumsum(2));
    integer(|x| x.sum_dim(1));
    integer(|x| x.max_dim(1));
}

#[test]
fn shapes() {
    unary(|x| {
        let [batch, rows, columns] = x.dims();
        x.reshape([batch, rows * columns])
    });
    // The batch within a product, in the middle, and twice.
    unary(|x| {
        let [batch, rows, columns] = x.dims();
        x.reshape([batch * rows, columns])
    });
    unary(|x| {
        let [batch, ..] = x.dims();
        x.reshape([3, batch, 4]).swap_dims(0, 1).reshape([2, batch, 6])
    });
    unary(|x| x.flatten::<2>(1, 2));
    unary(|x| x.unsqueeze_dim::<4>(1).squeeze_dim::<3>(1));
    unary(Tensor::transpose);
    unary(|x| x.permute([2, 0, 1]));
    unary(|x| x.flip([1, 2]));
    unary(|x| x.repeat_dim(1, 3));
    unary(|x| x.repeat_dim(0, 2));
    unary(|x| x.slice(s![.., 1..3, ..-1]));
    unary(|x| x.slice(s![.., .., 0..4;2]));
    unary(|x| x.slice(s![.., .., 1..4;-2]));
    unary(|x| x.narrow(2, 1, 2));
    unary(|x| x.slice(s![0..1, .., ..]).mean_dim(1));
    unary(|x| x.clone().slice_assign(s![.., 1..2, ..], x.slice(s![.., 0..1, ..]).mul_scalar(9.0)));
    unary(|x| x.pad((1, 2, 0, 1), burn::tensor::ops::PadMode::Constant(7.0)));
    unary(|x| Tensor::cat(x.chunk(2, 2).into_iter().rev().collect(), 2));
    unary(|x| Tensor::stack::<4>(vec![x.clone(), x], 1));
}

#[test]
fn constants_of_any_size() {
    // One row an example, from the example count alone.
    unary(|x| Tensor::<3>::zeros(x.dims(), &x.device()));
    unary(|x| Tensor::<2>::ones([x.dims()[0], 2], &x.device()));
    unary(|x| Tensor::<2>::full([x.dims()[0] * 2, 2], 0.5, &x.device()));
    unary(|x| Tensor::<1, Int>::arange(0..x.dims()[0] as i64, &x.device()).float());
    unary(|x| Tensor::<1>::from_floats(vec![2.5; x.dims()[0]].as_slice(), &x.device()));
    check(|pass| {
        let x: Tensor<3> = pass.input("x", &[3, 4]);
        let token = pass.weight([1, 1, 4]).expand([x.dims()[0], 1, 4]);
        pass.output("y", Tensor::cat(vec![token, x], 1));
    });
    check(|pass| {
        let x: Tensor<3> = pass.input("x", &[3, 4]);
        let row = pass.weight([1, 3, 4]).repeat_dim(0, x.dims()[0]);
        pass.output("y", x + row);
    });
}

#[test]
fn products() {
    check(|pass| {
        let x: Tensor<2> = pass.input("x", &[4]);
        let weight = pass.weight([4, 3]);
        pass.output("y", x.matmul(weight));
    });
    check(|pass| {
        let x: Tensor<4> = pass.input("x", &[2, 3, 4]);
        pass.output("y", x.clone().matmul(x.transpose()));
    });
    check(|pass| {
        let x: Tensor<3> = pass.input("x", &[3, 4]);
        let y: Tensor<3> = pass.input("y", &[4, 2]);
        pass.output("z", x.matmul(y));
    });
}

#[test]
fn choices_by_index() {
    check(|pass| {
        let x: Tensor<3> = pass.input("x", &[6, 4]);
        let indices = Tensor::<1, Int>::from_ints([5, 0, 0, 2], &x.device());
        pass.output("y", x.select(1, indices));
    });
    check(|pass| {
        let x: Tensor<2> = pass.input("x", &[6]);
        let indices: Tensor<2, Int> = pass.input_int("indices", &[3], 6);
        pass.output("y", x.gather(1, indices));
    });
    check(|pass| {
        let codes: Tensor<2, Int> = pass.input_int("codes", &[3], 5);
        // One-hot without reading a value.
        let classes = Tensor::<1, Int>::arange(0..5, &pass.device()).reshape([1, 1, 5]);
        let [batch, n] = codes.dims();
        pass.output("y", codes.reshape([batch, n, 1]).expand([batch, n, 5]).equal(classes.expand([batch, n, 5])).float());
    });
}
