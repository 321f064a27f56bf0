use super::{distance, numbers};
use crate::images::UnitShape;
use crate::tower::{BlockShape, TowerError, TowerShape, Unit};

pub(super) fn unit(channels_in: usize, channels_out: usize, kernel: usize, stride: usize) -> UnitShape {
    UnitShape { channels_in, channels_out, kernel, stride }
}

/// A stem and one block.
pub(super) fn tower(channels: usize, width: usize, out: usize, stride: usize) -> TowerShape {
    let mut units = vec![unit(channels, width, 7, 2), unit(width, out, 3, stride), unit(out, out, 3, 1)];
    let shortcut = (stride != 1 || out != width).then(|| {
        units.push(unit(width, out, 1, stride));
        3
    });
    TowerShape::new(units, vec![BlockShape { first: 1, second: 2, shortcut }]).unwrap()
}

pub(super) struct Numbers {
    pub(super) weight: Vec<f32>,
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
}

pub(super) fn parameters(shape: &TowerShape) -> Vec<Numbers> {
    let of_unit = |(k, unit): (usize, &UnitShape)| {
        let seed = 10 * k as u64;
        let gamma = numbers(unit.channels_out, seed + 2).iter().map(|g| g + 1.0).collect();
        Numbers { weight: numbers(unit.n_weights(), seed + 1), gamma, beta: numbers(unit.channels_out, seed + 3) }
    };
    shape.units().iter().enumerate().map(of_unit).collect()
}

pub(super) fn units(numbers: &[Numbers]) -> Vec<Unit<'_>> {
    numbers.iter().map(|n| Unit { weight: &n.weight, gamma: &n.gamma, beta: &n.beta, epsilon: 1e-5 }).collect()
}

/// A tower of [`tower`]'s kind by its definition, in double precision: `toward · embedding`.
fn defined(shape: &TowerShape, image: &[f32], dims: [usize; 4], numbers: &[[Vec<f64>; 3]], toward: &[f32]) -> f64 {
    let [batch, channels, height, width] = dims;
    let image: Vec<f64> = image.iter().map(|v| f64::from(*v)).collect();
    let z = normalised(shape.units()[0], &Planes { values: image, dims: [batch, channels, height, width] }, &numbers[0]);
    let x = pooled(&z.map(|v| v.max(0.0)));
    let h = normalised(shape.units()[1], &x, &numbers[1]).map(|v| v.max(0.0));
    let z = normalised(shape.units()[2], &h, &numbers[2]);
    let shortcut = if shape.units().len() > 3 { normalised(shape.units()[3], &x, &numbers[3]) } else { x };
    let [_, _, height, width] = z.dims;
    let y = z.values.iter().zip(&shortcut.values).map(|(a, b)| (a + b).max(0.0));
    y.enumerate().map(|(k, v)| v * f64::from(toward[k / (height * width)])).sum::<f64>() / (height * width) as f64
}

/// `[batch, channels, height, width]`.
struct Planes {
    values: Vec<f64>,
    dims: [usize; 4],
}

impl Planes {
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { values: self.values.into_iter().map(f).collect(), dims: self.dims }
    }

    /// 0 outside of the image, whose first pixel is at 1 · `pad`.
    fn at(&self, n: usize, c: usize, y: usize, x: usize, pad: usize) -> Option<f64> {
        let [_, channels, height, width] = self.dims;
        let inside = (pad..pad + height).contains(&y) && (pad..pad + width).contains(&x);
        inside.then(|| self.values[((n * channels + c) * height + y - pad) * width + x - pad])
    }
}

/// Convolution and normalisation by the batch's statistics.
fn normalised(unit: UnitShape, x: &Planes, [weight, gamma, beta]: &[Vec<f64>; 3]) -> Planes {
    let UnitShape { channels_in, channels_out, kernel, stride } = unit;
    let [batch, _, height, width] = x.dims;
    let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    let mut values = vec![0.0; batch * channels_out * rows * columns];
    for (place, value) in values.iter_mut().enumerate() {
        let (n, o, y0, x0) =
            (place / (columns * rows * channels_out), place / (columns * rows) % channels_out, place / columns % rows, place % columns);
        for (i, ky, kx) in (0..channels_in).flat_map(|i| (0..kernel * kernel).map(move |tap| (i, tap / kernel, tap % kernel))) {
            let pixel = x.at(n, i, y0 * stride + ky, x0 * stride + kx, kernel / 2).unwrap_or(0.0);
            *value += pixel * weight[((o * channels_in + i) * kernel + ky) * kernel + kx];
        }
    }
    let of_channel = |c: usize| move |(place, _): &(usize, &f64)| place / (rows * columns) % channels_out == c;
    let count = (batch * rows * columns) as f64;
    for c in 0..channels_out {
        let mean = values.iter().enumerate().filter(of_channel(c)).map(|(_, v)| v).sum::<f64>() / count;
        let variance = values.iter().enumerate().filter(of_channel(c)).map(|(_, v)| (v - mean).powi(2)).sum::<f64>() / count;
        for place in (0..values.len()).filter(|place| place / (rows * columns) % channels_out == c) {
            values[place] = (values[place] - mean) / (variance + 1e-5).sqrt() * gamma[c] + beta[c];
        }
    }
    Planes { values, dims: [batch, channels_out, rows, columns] }
}

/// The largest of 3 × 3, every second one.
fn pooled(x: &Planes) -> Planes {
    let [batch, channels, height, width] = x.dims;
    let dims = [batch, channels, height.div_ceil(2), width.div_ceil(2)];
    let largest = |place: usize| {
        let (plane, y0, x0) = (place / (dims[2] * dims[3]), place / dims[3] % dims[2], place % dims[3]);
        let window = (0..9).filter_map(|tap| x.at(plane / channels, plane % channels, 2 * y0 + tap / 3, 2 * x0 + tap % 3, 1));
        window.fold(f64::NEG_INFINITY, f64::max)
    };
    Planes { values: (0..dims.iter().product()).map(largest).collect(), dims }
}

/// Every number of the gradient against central differences of [`defined`].
#[track_caller]
fn check_differences(shape: &TowerShape, dims: [usize; 4]) {
    let image = numbers(dims.iter().product(), 5);
    let parameters = parameters(shape);
    let toward = numbers(dims[0] * shape.width(), 6);
    let forward = shape.forward_training(&image, dims, &units(&parameters)).unwrap();
    let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let mut exact: Vec<[Vec<f64>; 3]> = parameters.iter().map(|n| [wide(&n.weight), wide(&n.gamma), wide(&n.beta)]).collect();
    let loss: f64 = forward.embedding.iter().zip(&toward).map(|(e, t)| f64::from(*e) * f64::from(*t)).sum();
    let expected = defined(shape, &image, dims, &exact, &toward);
    assert!((loss - expected).abs() < 1e-5 * expected.abs().max(1.0), "{loss} instead of {expected}");
    let gradients = shape.backward(forward.saved, &units(&parameters), &toward).unwrap();
    if cfg!(miri) {
        return; // which looks for accesses out of bounds, and would take hours over a thousand towers
    }
    for (unit, gradient) in gradients.iter().enumerate() {
        for (part, got) in [&gradient.weight, &gradient.gamma, &gradient.beta].into_iter().enumerate() {
            // So small that no ReLU opens or closes and no other pixel becomes the largest.
            let step = 1e-7;
            let differences: Vec<f64> = (0..got.len())
                .map(|k| {
                    let mut at = |by: f64| {
                        let before = exact[unit][part][k];
                        exact[unit][part][k] += by;
                        let loss = defined(shape, &image, dims, &exact, &toward);
                        exact[unit][part][k] = before;
                        loss
                    };
                    (at(step) - at(-step)) / (2.0 * step)
                })
                .collect();
            let error = distance(got, differences);
            assert!(error < 1e-4, "{dims:?} unit {unit} part {part}: {error}");
        }
    }
}

#[test]
fn gradients_are_differences() {
    check_differences(&tower(1, 4, 8, 2), [2, 1, 24, 20]);
    check_differences(&tower(2, 3, 3, 1), [3, 2, 17, 21]);
    check_differences(&tower(1, 1, 1, 1), [1, 1, 31, 29]);
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let (shape, dims) = if cfg!(miri) { (tower(1, 16, 16, 2), [2, 1, 17, 15]) } else { (tower(1, 32, 64, 2), [7, 1, 61, 83]) };
    let image = numbers(dims.iter().product(), 7);
    let parameters = parameters(&shape);
    let toward = numbers(dims[0] * shape.width(), 8);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let forward = shape.forward_training(&image, dims, &units(&parameters)).unwrap();
            let given = forward.statistics.clone();
            let traced = || shape.forward_traced(&image, dims, &units(&parameters), &given).unwrap().saved;
            let of_image = shape.image_gradient(traced(), &units(&parameters), &toward).unwrap();
            let of_maps = shape.relevance(1, traced(), &units(&parameters), &toward).unwrap();
            let gradients = shape.backward(forward.saved, &units(&parameters), &toward).unwrap();
            (forward.embedding, forward.statistics, gradients, of_image, of_maps)
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
