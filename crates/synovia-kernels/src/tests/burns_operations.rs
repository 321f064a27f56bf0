//! Towers against burn's own operations.

use burn::nn::PaddingConfig2d;
use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::towers::{Numbers, parameters, tower, units};
use super::{distance, numbers};
use crate::images::UnitShape;
use crate::tower::TowerShape;

/// The same by burn's operations, differentiated by burn.
fn by_burn(shape: &TowerShape, image: &[f32], dims: [usize; 4], numbers: &[Numbers], toward: &[f32]) -> (Vec<f32>, Vec<[Vec<f32>; 3]>) {
    let device = Device::flex().autodiff();
    let tensors: Vec<(Tensor<4>, Tensor<1>, Tensor<1>)> = numbers
        .iter()
        .zip(shape.units())
        .map(|(n, u)| {
            let kernel = [u.channels_out, u.channels_in, u.kernel, u.kernel];
            let row = |values: &Vec<f32>| Tensor::<1>::from_data(TensorData::new(values.clone(), [u.channels_out]), &device).require_grad();
            (Tensor::<4>::from_data(TensorData::new(n.weight.clone(), kernel), &device).require_grad(), row(&n.gamma), row(&n.beta))
        })
        .collect();
    let run = |x: Tensor<4>, unit: usize| {
        let (weight, gamma, beta) = tensors[unit].clone();
        let UnitShape { kernel, stride, channels_out, .. } = shape.units()[unit];
        let options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1; 2], 1);
        let z = conv2d(x, weight, None, options);
        let mean = z.clone().mean_dim(0).mean_dim(2).mean_dim(3);
        let centred = z - mean;
        let variance = centred.clone().square().mean_dim(0).mean_dim(2).mean_dim(3);
        let wide = |row: Tensor<1>| row.reshape([1, channels_out, 1, 1]);
        centred / (variance + 1e-5).sqrt() * wide(gamma) + wide(beta)
    };
    let x = Tensor::<4>::from_data(TensorData::new(image.to_vec(), dims), &device);
    let pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init();
    let x = pool.forward(activation::relu(run(x, 0)));
    let shortcut = if shape.units().len() > 3 { run(x.clone(), 3) } else { x.clone() };
    let y = activation::relu(run(activation::relu(run(x, 1)), 2) + shortcut);
    let [batch, channels, height, width] = y.dims();
    let embedding = y.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels]);
    let target = Tensor::<2>::from_data(TensorData::new(toward.to_vec(), [batch, channels]), &device);
    let grads = (embedding.clone() * target).sum().backward();
    let gradients = tensors
        .iter()
        .map(|(w, g, b)| {
            let row = |t: &Tensor<1>| t.grad(&grads).unwrap().into_data().try_to_vec().unwrap();
            [w.grad(&grads).unwrap().into_data().try_to_vec().unwrap(), row(g), row(b)]
        })
        .collect();
    (embedding.into_data().try_to_vec().unwrap(), gradients)
}

#[track_caller]
fn check(shape: &TowerShape, dims: [usize; 4]) {
    let image = numbers(dims.iter().product(), 77);
    let parameters = parameters(shape);
    let toward = numbers(dims[0] * shape.width(), 78);
    let (embedding, expected) = by_burn(shape, &image, dims, &parameters, &toward);
    let forward = shape.forward_training(&image, dims, &units(&parameters)).unwrap();
    assert!(distance(&forward.embedding, embedding.iter().map(|v| f64::from(*v))) < 1e-5);
    let evaluated = shape.forward(&image, dims, &units(&parameters), &forward.statistics).unwrap();
    assert!(distance(&evaluated, embedding.iter().map(|v| f64::from(*v))) < 1e-4, "by the same statistics");
    let gradients = shape.backward(forward.saved, &units(&parameters), &toward).unwrap();
    for (k, (gradient, expected)) in gradients.iter().zip(expected).enumerate() {
        for (what, got, expected) in
            [("weight", &gradient.weight, &expected[0]), ("gamma", &gradient.gamma, &expected[1]), ("beta", &gradient.beta, &expected[2])]
        {
            // Where all of a block's ReLUs are open, normalisation leaves no gradient but rounding: hence the second term.
            let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let error = distance(got, expected.iter().map(|v| f64::from(*v))) * norm(expected);
            assert!(error < 1e-4 * norm(expected) + 1e-5 * norm(&toward), "{dims:?} unit {k} {what}: {error} of {}", norm(expected));
        }
    }
}

#[test]
fn gradients_are_those_of_burns_operations() {
    check(&tower(1, 16, 16, 1), [3, 1, 40, 40]);
    check(&tower(1, 16, 32, 2), [3, 1, 40, 40]);
    check(&tower(3, 5, 5, 1), [2, 3, 33, 21]);
    check(&tower(2, 20, 7, 2), [2, 2, 17, 30]);
    check(&tower(1, 1, 1, 1), [1, 1, 31, 29]);
    check(&tower(1, 8, 12, 1), [1, 1, 24, 24]);
}
