use proptest::prelude::*;

use super::{distance, numbers};
use crate::direct;
use crate::finish::{Activated, AddTo, Affine, AsIs, Finish, Plain, Statistics, ThroughActivation, padded, total};
use crate::gemm::COLUMNS;
use crate::images::{Images, UnitShape};
use crate::stem::Stem;
use crate::winograd::{self, Tile, Weights};

/// Random numbers of real channels, zeros beyond.
fn tensor(images: Images, channels: usize, seed: u64) -> Vec<f32> {
    let mut out = numbers(images.pixels() * padded(channels), seed);
    for pixel in out.chunks_exact_mut(padded(channels)) {
        pixel[channels..].fill(0.0);
    }
    out
}

/// Output, gradient of the input and gradient of the weights by the definition.
struct Defined {
    y: Vec<f64>,
    dx: Vec<f64>,
    dw: Vec<f64>,
}

fn defined(shape: UnitShape, images: Images, x: &[f32], weight: &[f32], dy: &[f32]) -> Defined {
    let UnitShape { channels_in, channels_out, kernel, stride } = shape;
    let (n_in, n_out, output) = (padded(channels_in), padded(channels_out), shape.output(images));
    let (mut y, mut dx, mut dw) = (vec![0.0; output.pixels() * n_out], vec![0.0; x.len()], vec![0.0; weight.len()]);
    for n in 0..images.batch {
        for (oy, ox) in (0..output.height).flat_map(|oy| (0..output.width).map(move |ox| (oy, ox))) {
            for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                let (iy, ix) = ((oy * stride + ky).wrapping_sub(kernel / 2), (ox * stride + kx).wrapping_sub(kernel / 2));
                if iy >= images.height || ix >= images.width {
                    continue;
                }
                let from = ((n * images.height + iy) * images.width + ix) * n_in;
                let to = ((n * output.height + oy) * output.width + ox) * n_out;
                for o in 0..channels_out {
                    for i in 0..channels_in {
                        let w = ((o * channels_in + i) * kernel + ky) * kernel + kx;
                        y[to + o] += f64::from(x[from + i]) * f64::from(weight[w]);
                        dx[from + i] += f64::from(dy[to + o]) * f64::from(weight[w]);
                        dw[w] += f64::from(dy[to + o]) * f64::from(x[from + i]);
                    }
                }
            }
        }
    }
    Defined { y, dx, dw }
}

#[track_caller]
fn check(shape: UnitShape, images: Images) {
    let output = shape.output(images);
    let x = tensor(images, shape.channels_in, 1);
    let weight = numbers(shape.n_weights(), 2);
    let dy = tensor(output, shape.channels_out, 3);
    let expected = defined(shape, images, &x, &weight, &dy);
    let what = format!("{shape:?} {images:?}");
    let (mut y, mut dx, mut dw) = (vec![f32::NAN; expected.y.len()], vec![0.0; x.len()], vec![f32::NAN; weight.len()]);

    let sums = direct::convolve(shape, &x, images, &weight, Statistics, &mut y);
    assert!(distance(&y, expected.y.iter().copied()) < 1e-5, "{what}");
    check_sums(&sums, &expected.y, padded(shape.channels_out), &what);
    direct::data_gradient(shape, &dy, images, &weight, AsIs, &mut dx);
    assert!(distance(&dx, expected.dx.iter().copied()) < 1e-5, "data gradient, {what}");
    direct::data_gradient(shape, &dy, images, &weight, AddTo, &mut dx);
    assert!(distance(&dx, expected.dx.iter().map(|v| 2.0 * v)) < 1e-5, "added, {what}");
    direct::weight_gradient(shape, &x, images, &dy, &mut dw);
    assert!(distance(&dw, expected.dw.iter().copied()) < 1e-5, "weight gradient, {what}");

    if shape.kernel == 3 && shape.stride == 1 {
        for tile in [Tile::Two, Tile::Three, Tile::Four] {
            check_winograd(tile, shape, images, &x, &weight, &dy, &expected);
        }
    }
}

fn check_sums(partial: &[f32], y: &[f64], channels: usize, what: &str) {
    let [sum, squares] = total(partial, channels);
    for c in 0..channels {
        let of_channel = || y.iter().skip(c).step_by(channels);
        let size = of_channel().map(|v| v.abs()).sum::<f64>();
        assert!((sum[c] - of_channel().sum::<f64>()).abs() <= 1e-4 * size + 1e-9, "sums, {what}");
        let expected = of_channel().map(|v| v * v).sum::<f64>();
        assert!((squares[c] - expected).abs() <= 1e-4 * expected + 1e-9, "squares, {what}");
    }
}

fn check_winograd(tile: Tile, shape: UnitShape, images: Images, x: &[f32], weight: &[f32], dy: &[f32], expected: &Defined) {
    let UnitShape { channels_in, channels_out, .. } = shape;
    let what = format!("{tile:?} {shape:?} {images:?}");
    let weights = |adjoint| Weights { values: weight, channels_in, channels_out, adjoint };
    let (mut y, mut dx, mut dw) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()], vec![f32::NAN; weight.len()]);
    let sums = winograd::convolve(tile, Plain(x), Statistics, images, weights(false), &mut y);
    assert!(distance(&y, expected.y.iter().copied()) < 2e-5, "{what}");
    check_sums(&sums, &expected.y, padded(channels_out), &what);
    winograd::convolve(tile, Plain(dy), AsIs, images, weights(true), &mut dx);
    assert!(distance(&dx, expected.dx.iter().copied()) < 2e-5, "data gradient, {what}");
    winograd::weight_gradient(tile, Plain(x), dy, images, [channels_in, channels_out], &mut dw);
    assert!(distance(&dw, expected.dw.iter().copied()) < 2e-5, "weight gradient, {what}");
}

#[test]
fn odd_sizes_strides_one_channel_and_a_batch_of_one() {
    let images = |batch, height, width| Images { batch, height, width };
    for (channels_in, channels_out, kernel, stride, images) in [
        (1, 1, 3, 1, images(1, 1, 1)),
        (1, 1, 3, 2, images(1, 1, 1)),
        (3, 5, 3, 1, images(2, 7, 9)),
        (16, 32, 3, 1, images(1, 4, 5)),
        (17, 8, 3, 2, images(3, 8, 7)),
        (20, 40, 1, 1, images(2, 3, 5)),
        // More channels than are read where they are.
        (33, 16, 3, 1, images(1, 1, 1)),
        (8, 16, 1, 2, images(2, 7, 6)),
        (2, 3, 5, 3, images(1, 11, 10)),
        (3, 16, 7, 2, images(1, 12, 9)),
        (64, 48, 3, 1, images(3, 13, 10)),
        // Channels so many that the whole batch goes through a panel of them at a time, and so much of it that it is a step at a time.
        (256, 256, 3, 1, images(2, 6, 5)),
        (20, 70, 3, 1, images(3, 5, 4)),
        (256, 256, 3, 1, images(9, 6, 5)),
        (1, 50, 3, 1, images(1, 1, 1)),
        // Tiles so many that the weight gradient takes a second group of them.
        (1, 1, 3, 1, images(1, 190, 190)),
        // More taps than are gone through at a time, and more rows of weights.
        (130, 20, 3, 2, images(2, 9, 8)),
    ] {
        // An interpreter gets through some million operations a minute.
        if cfg!(miri) && images.pixels() * channels_in * channels_out > 20_000 {
            continue;
        }
        check(UnitShape { channels_in, channels_out, kernel, stride }, images);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape(
        channels_in in 1usize..40, channels_out in 1usize..40, kernel in 0usize..3, stride in 1usize..3,
        batch in 1usize..4, height in 1usize..15, width in 1usize..15,
    ) {
        check(UnitShape { channels_in, channels_out, kernel: 2 * kernel + 1, stride }, Images { batch, height, width });
    }

    #[test]
    fn any_stem(channels in 1usize..5, out in 1usize..20, kernel in 0usize..4, stride in 1usize..4, height in 1usize..20, width in 1usize..20) {
        let shape = UnitShape { channels_in: channels, channels_out: out, kernel: 2 * kernel + 1, stride };
        let images = Images { batch: 2, height, width };
        let (output, n_in) = (shape.output(images), padded(channels));
        let x = tensor(images, channels, 4);
        let planes: Vec<f32> = (0..2 * channels * height * width)
            .map(|k| {
                let (n, c, pixel) = (k / (channels * height * width), k / (height * width) % channels, k % (height * width));
                x[(n * height * width + pixel) * n_in + c]
            })
            .collect();
        let (weight, dy) = (numbers(shape.n_weights(), 5), tensor(output, out, 6));
        let expected = defined(shape, images, &x, &weight, &dy);
        let stem = Stem::new(shape, &planes, images);
        prop_assert_eq!(stem.output(), output);
        let mut y = vec![f32::NAN; expected.y.len()];
        let sums = stem.convolve(&weight, Statistics, &mut y);
        prop_assert!(distance(&y, expected.y.iter().copied()) < 1e-5);
        check_sums(&sums, &expected.y, padded(out), "stem");
        let of_row = |row: usize, to: &mut [f32]| {
            let pixels = dy[row * output.width * padded(out)..].chunks_exact(padded(out)).take(output.width);
            for (x, pixel) in pixels.enumerate() {
                for (panel, values) in pixel.chunks_exact(COLUMNS).enumerate() {
                    to[(panel * output.width + x) * COLUMNS..][..COLUMNS].copy_from_slice(values);
                }
            }
        };
        let mut dw = vec![f32::NAN; weight.len()];
        stem.weight_gradient(&of_row, &mut dw);
        prop_assert!(distance(&dw, expected.dw.iter().copied()) < 1e-5);
        let dx = stem.data_gradient(&of_row, &weight);
        let in_planes = (0..planes.len()).map(|k| {
            let (n, c, pixel) = (k / (channels * height * width), k / (height * width) % channels, k % (height * width));
            expected.dx[(n * height * width + pixel) * n_in + c]
        });
        prop_assert!(distance(&dx, in_planes) < 1e-5);
    }
}

#[test]
fn many_channels_make_the_same_bits_for_any_number_of_threads_and_images() {
    let channels = if cfg!(miri) { 16 } else { 256 };
    // Of a few images a panel of channels at a time, of more a step; few channels go by blocks.
    let images = |batch: usize| Images { batch, height: 6, width: 5 };
    let x = tensor(images(8), channels, 1);
    let weight = Weights { values: &numbers(9 * channels * channels, 2), channels_in: channels, channels_out: channels, adjoint: false };
    let run = |batch: usize, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let x = &x[..images(batch).pixels() * channels];
        pool.install(|| {
            let mut y = vec![f32::NAN; x.len()];
            let sums = winograd::convolve(Tile::Four, Plain(x), Statistics, images(batch), weight, &mut y);
            (y, sums)
        })
    };
    let (few, many) = (run(2, 1), run(8, 1));
    assert!(few == run(2, 3) && many == run(8, 3));
    assert!(few.0 == many.0[..few.0.len()]);
}

#[test]
#[should_panic(expected = "fits")]
fn scales_of_other_channels_are_refused() {
    let images = Images { batch: 1, height: 2, width: 2 };
    let (x, values) = (tensor(images, 16, 1), vec![0.0; 9 * 16 * 16]);
    let weights = Weights { values: &values, channels_in: 16, channels_out: 16, adjoint: false };
    let input = Activated { z: &x, scale: &[1.0; 8], shift: &[0.0; 16] };
    winograd::convolve(Tile::Four, input, AsIs, images, weights, &mut vec![0.0; x.len()]);
}

fn convolve<F: Finish>(x: &[f32], images: Images, weights: Weights<'_>, finish: F, y: &mut [f32]) -> Vec<f32> {
    winograd::convolve(Tile::Four, Plain(x), finish, images, weights, y)
}

#[test]
fn what_is_done_on_the_way_in_and_out() {
    let (images, shape) = (Images { batch: 2, height: 6, width: 5 }, UnitShape { channels_in: 16, channels_out: 16, kernel: 3, stride: 1 });
    let (x, weight, z) = (tensor(images, 16, 1), numbers(shape.n_weights(), 2), tensor(images, 16, 3));
    let [scale, shift, mean, inverse_deviation] = [4, 5, 6, 7].map(|seed| numbers(16, seed));
    let per_channel =
        |values: &[f32], f: &dyn Fn(usize, f32) -> f32| values.iter().enumerate().map(|(k, v)| f(k, *v)).collect::<Vec<f32>>();
    let run = |input: &[f32], finish: &dyn Fn(&mut [f32]) -> Vec<f32>| {
        let expected = defined(shape, images, input, &weight, &z).y;
        let mut y = vec![0.0; x.len()];
        (finish(&mut y), y, expected)
    };
    let weights = Weights { values: &weight, channels_in: 16, channels_out: 16, adjoint: false };

    let active = per_channel(&x, &|k, v| (v * scale[k % 16] + shift[k % 16]).max(0.0));
    let input = Activated { z: &x, scale: &scale, shift: &shift };
    let (_, y, expected) = run(&active, &|y| winograd::convolve(Tile::Four, input, AsIs, images, weights, y));
    assert!(distance(&y, expected) < 1e-5, "activated on the way in");

    let affine = Affine { scale: &scale, shift: &shift, residual: Some(&z), relu: true };
    let (_, y, expected) = run(&x, &|y| convolve(&x, images, weights, affine, y));
    let expected =
        expected.iter().enumerate().map(|(k, v)| (v * f64::from(scale[k % 16]) + f64::from(shift[k % 16]) + f64::from(z[k])).max(0.0));
    assert!(distance(&y, expected) < 1e-5, "normalised, added to and activated on the way out");

    let through = ThroughActivation { z: &z, scale: &scale, shift: &shift, mean: &mean, inverse_deviation: &inverse_deviation };
    let (sums, y, expected) = run(&x, &|y| convolve(&x, images, weights, through, y));
    let expected: Vec<f64> =
        expected.iter().enumerate().map(|(k, v)| if z[k] * scale[k % 16] + shift[k % 16] > 0.0 { *v } else { 0.0 }).collect();
    assert!(distance(&y, expected.iter().copied()) < 1e-5, "through the activation");
    let [sum, products] = total(&sums, 16);
    for c in 0..16 {
        let pixels = || (c..z.len()).step_by(16);
        let expected_sum: f64 = pixels().map(|k| expected[k]).sum();
        let expected_product: f64 = pixels().map(|k| expected[k] * f64::from((z[k] - mean[c]) * inverse_deviation[c])).sum();
        assert!((sum[c] - expected_sum).abs() < 1e-4 && (products[c] - expected_product).abs() < 1e-4);
    }
}
