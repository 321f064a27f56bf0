use burn::nn::PaddingConfig2d;
use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::{distance, numbers};
use crate::images::UnitShape;
use crate::tower::{BlockShape, TowerError, TowerShape, Unit};

fn unit(channels_in: usize, channels_out: usize, kernel: usize, stride: usize) -> UnitShape {
    UnitShape { channels_in, channels_out, kernel, stride }
}

/// A stem and one block.
fn tower(channels: usize, width: usize, out: usize, stride: usize) -> TowerShape {
    let mut units = vec![unit(channels, width, 7, 2), unit(width, out, 3, stride), unit(out, out, 3, 1)];
    let shortcut = (stride != 1 || out != width).then(|| {
        units.push(unit(width, out, 1, stride));
        3
    });
    TowerShape::new(units, vec![BlockShape { first: 1, second: 2, shortcut }]).unwrap()
}

struct Numbers {
    weight: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

fn parameters(shape: &TowerShape) -> Vec<Numbers> {
    let of_unit = |(k, unit): (usize, &UnitShape)| {
        let seed = 10 * k as u64;
        let gamma = numbers(unit.channels_out, seed + 2).iter().map(|g| g + 1.0).collect();
        Numbers { weight: numbers(unit.n_weights(), seed + 1), gamma, beta: numbers(unit.channels_out, seed + 3) }
    };
    shape.units().iter().enumerate().map(of_unit).collect()
}

fn units(numbers: &[Numbers]) -> Vec<Unit<'_>> {
    numbers.iter().map(|n| Unit { weight: &n.weight, gamma: &n.gamma, beta: &n.beta, epsilon: 1e-5 }).collect()
}

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

#[test]
fn gradients_are_differences() {
    let (shape, dims) = (tower(1, 4, 8, 2), [2, 1, 24, 20]);
    let image = numbers(dims.iter().product(), 5);
    let mut parameters = parameters(&shape);
    let toward = numbers(dims[0] * shape.width(), 6);
    let loss = |parameters: &[Numbers]| -> f64 {
        let embedding = shape.forward_training(&image, dims, &units(parameters)).unwrap().embedding;
        embedding.iter().zip(&toward).map(|(e, t)| f64::from(*e) * f64::from(*t)).sum()
    };
    let saved = shape.forward_training(&image, dims, &units(&parameters)).unwrap().saved;
    let gradients = shape.backward(saved, &units(&parameters), &toward).unwrap();
    // Along the gradient itself: the change of the loss is its square's norm, whatever the noise of one number.
    for unit in 0..shape.units().len() {
        let gradient = gradients[unit].weight.clone();
        let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
        let step = 2e-3 / square.sqrt();
        let mut at = |sign: f64| {
            let moved = parameters[unit].weight.iter().zip(&gradient).map(|(w, g)| w + (sign * step) as f32 * g).collect();
            let before = std::mem::replace(&mut parameters[unit].weight, moved);
            let loss = loss(&parameters);
            parameters[unit].weight = before;
            loss
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
        assert!((slope / square - 1.0).abs() < 0.02, "unit {unit}: {slope} instead of {square}");
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let (shape, dims) = (tower(1, 32, 64, 2), [7, 1, 61, 83]);
    let image = numbers(dims.iter().product(), 7);
    let parameters = parameters(&shape);
    let toward = numbers(dims[0] * shape.width(), 8);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let forward = shape.forward_training(&image, dims, &units(&parameters)).unwrap();
            let gradients = shape.backward(forward.saved, &units(&parameters), &toward).unwrap();
            (forward.embedding, forward.statistics, gradients)
        })
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let stem = unit(1, 8, 7, 2);
    let block = |first, second, shortcut| vec![BlockShape { first, second, shortcut }];
    let why = |units: Vec<UnitShape>, blocks| TowerShape::new(units, blocks).unwrap_err().to_string();
    assert_eq!(why(vec![], vec![]), "unit 0 does not fit: it is missing");
    assert_eq!(why(vec![unit(1, 8, 4, 2)], vec![]), "unit 0 does not fit: kernels have an odd side and overlap");
    assert_eq!(why(vec![unit(1, 0, 7, 2)], vec![]), "unit 0: channels out is 0, not within 1..=8192");
    assert_eq!(why(vec![stem, unit(8, 8, 3, 1), unit(8, 8, 3, 1)], block(1, 3, None)), "unit 3 does not fit: it is missing");
    let changed = vec![stem, unit(8, 16, 3, 2), unit(16, 16, 3, 1)];
    assert_eq!(why(changed, block(1, 2, None)), "unit 2 does not fit: a change of shape needs a shortcut");
    let three = vec![stem, unit(8, 8, 3, 1), unit(8, 8, 3, 1)];
    assert_eq!(why(three.clone(), block(1, 1, None)), "unit 1 does not fit: it has a place already");
    assert_eq!(why(three.clone(), [block(1, 2, None), block(2, 1, None)].concat()), "unit 2 does not fit: it has a place already");
    assert_eq!(why(three, vec![]), "unit 1 does not fit: it has no place");
    let shape = TowerShape::new(vec![stem], vec![]).unwrap();
    let parameters = parameters(&shape);
    let error = shape.forward_training(&[0.0; 99], [1, 1, 10, 10], &units(&parameters)).unwrap_err();
    assert_eq!(error, TowerError::Length { what: "images", got: 99, expected: 100 });
    let error = shape.forward_training(&[], [1 << 32, 1, 1 << 32, 1], &units(&parameters)).unwrap_err();
    assert_eq!(error, TowerError::Length { what: "images", got: 0, expected: usize::MAX });
}

#[test]
fn what_another_tower_has_saved_is_refused() {
    let dims = [2, 1, 20, 20];
    let image = numbers(dims.iter().product(), 1);
    let (small, large) = (tower(1, 8, 8, 1), tower(1, 32, 8, 1));
    let (of_small, of_large) = (parameters(&small), parameters(&large));
    let saved = || small.forward_training(&image, dims, &units(&of_small)).unwrap().saved;
    let toward = numbers(dims[0] * small.width(), 2);
    assert_eq!(large.backward(saved(), &units(&of_large), &toward).unwrap_err(), TowerError::OtherTower);
    let error = small.backward(saved(), &units(&of_large[..3]), &toward).unwrap_err();
    assert_eq!(error, TowerError::Length { what: "weights", got: 32 * 49, expected: 8 * 49 });
    let error = small.backward(saved(), &units(&of_small[..2]), &toward).unwrap_err();
    assert_eq!(error, TowerError::Length { what: "the number of units", got: 2, expected: 3 });
    let error = small.backward(saved(), &units(&of_small), &toward[1..]).unwrap_err();
    assert_eq!(error, TowerError::Length { what: "the embedding's gradient", got: 15, expected: 16 });
}
