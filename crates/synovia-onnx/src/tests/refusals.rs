//! What can't be exported is named.

use burn::tensor::{Distribution, Int, Tensor};

use super::{Pass, record};

#[track_caller]
fn check(forward: impl Fn(&mut Pass<'_>), expected: &str) {
    let error = match record(&forward) {
        Ok(_) => panic!("it was exported"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(expected), "{error}");
}

#[track_caller]
fn refused<const D: usize>(f: impl Fn(Tensor<2>) -> Tensor<D>, expected: &str) {
    check(
        |pass| {
            let x = pass.input("x", &[4]);
            pass.output("y", f(x));
        },
        expected,
    );
}

#[test]
fn operations_without_words() {
    refused(|x| x.clone() + Tensor::random([1, 4], Distribution::Default, &x.device()), "Float::Random");
    refused(|x| x.cumprod(1), "NumericFloat::CumProd");
    refused(|x| x.clone().atan2(x), "Float::ArcTan2");
}

#[test]
fn the_batch_as_a_number() {
    refused(|x| x.clone() / x.dims()[0] as f32, "NumericFloat::DivScalar depends on the batch size");
    refused(
        |x| {
            let half = x.dims()[0] / 2;
            x.narrow(0, 0, half)
        },
        "depends on the batch size by a shape that is not in proportion",
    );
    refused(
        |x| {
            let last = x.dims()[0] as i64 - 1;
            let indices = Tensor::<1, Int>::from_ints([last], &x.device());
            x.select(0, indices)
        },
        "depends on the batch size by its values",
    );
    refused(|x| if x.dims()[0] > 4 { x.exp() } else { x.log() }, "Float::Exp instead of Float::Log");
    check(
        |pass| {
            let [x, y] = ["x", "y"].map(|name| pass.input::<2>(name, &[4]));
            let z = if x.dims()[0] > 4 { x.clone() - y } else { y - x.clone() };
            pass.output("z", z);
        },
        "NumericFloat::Sub of other tensors",
    );
}

#[test]
fn boundaries() {
    check(|pass| pass.output("y", Tensor::<1>::zeros([2], &pass.device())), "no inputs");
    check(|pass| drop(pass.input::<2>("x", &[4])), "no outputs");
    check(
        |pass| {
            let x = pass.input::<2>("x", &[4]);
            pass.output("x", x);
        },
        "name \"x\"",
    );
    check(
        |pass| {
            let x = pass.input::<2>("x", &[4, 4]);
            pass.output("y", x);
        },
        "input x has 2 dimensions",
    );
    check(
        |pass| {
            pass.input::<2>("x", &[4]);
            pass.output("y", Tensor::<1>::zeros([2], &burn::tensor::Device::flex()));
        },
        "tensor y is not on the tracer's device",
    );
}
