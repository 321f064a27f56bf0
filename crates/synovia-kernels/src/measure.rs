//! How fast the kernels are, layer by layer, against what the processor can do at most.

use std::time::Instant;

use rayon::prelude::*;

use crate::finish::{Plain, Statistics, padded};
use crate::images::{Images, UnitShape};
use crate::lanes::{Kernel, Lanes, vectorized};
use crate::shared::Buffer;
use crate::stem::Stem;
use crate::tower::TowerShape;
use crate::unit::{convolve, data_gradient, weight_gradient};

/// One pass through one unit's convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerTime {
    /// The unit.
    pub shape: UnitShape,
    /// Height and width of its input.
    pub input: [usize; 2],
    /// `forward`, `data gradient` or `weight gradient`.
    pub pass: &'static str,
    /// Units of this shape in the tower.
    pub count: usize,
    /// Milliseconds, the best of several.
    pub ms: f64,
    /// Multiplications and additions of the definition, a second, in thousands of millions. The fast algorithm does fewer, so
    /// this may be more than the processor can do.
    pub gflop_per_s: f64,
}

/// Best of at least three runs and 60 ms.
fn best_ms(mut work: impl FnMut()) -> f64 {
    work();
    let (started, mut best, mut n) = (Instant::now(), f64::INFINITY, 0);
    while n < 3 || started.elapsed().as_secs_f64() < 0.06 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
        n += 1;
    }
    best
}

fn numbers(len: usize) -> Buffer {
    let mut buffer = Buffer::new(len);
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    for value in &mut *buffer {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *value = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    }
    buffer
}

/// Times every convolution of the tower, each pass by itself, on made-up numbers.
pub fn layers(tower: &TowerShape, batch: usize, height: usize, width: usize) -> Vec<LayerTime> {
    let mut out = Vec::new();
    let mut of_unit = |shape: UnitShape, images: Images, count: usize, stem: bool| {
        let output = shape.output(images);
        let flop = 2.0 * (output.pixels() * shape.n_weights()) as f64;
        let weight = numbers(shape.n_weights());
        let mut y = Buffer::new(output.pixels() * padded(shape.channels_out));
        let gradient = numbers(y.len());
        let mut push = |pass, ms: f64| {
            let input = [images.height, images.width];
            out.push(LayerTime { shape, input, pass, count, ms, gflop_per_s: flop / ms / 1e6 });
        };
        if stem {
            let image = numbers(images.pixels() * shape.channels_in);
            let stem = Stem::new(shape, &image, images);
            push("forward", best_ms(|| drop(stem.convolve(&weight, Statistics, &mut y))));
            let mut to = vec![0.0; shape.n_weights()];
            push("weight gradient", best_ms(|| stem.weight_gradient(&|_, row| row.copy_from_slice(&gradient[..row.len()]), &mut to)));
            return;
        }
        let x = numbers(images.pixels() * padded(shape.channels_in));
        let mut to = Buffer::new(x.len());
        push("forward", best_ms(|| drop(convolve(shape, Plain(&x), images, &weight, Statistics, &mut y))));
        push("data gradient", best_ms(|| drop(data_gradient(shape, &gradient, images, &weight, crate::finish::AsIs, &mut to))));
        push("weight gradient", best_ms(|| drop(weight_gradient(shape, Plain(&x), images, &gradient))));
    };
    let places = tower.places(Images { batch, height, width });
    for (k, &(unit, images)) in places.iter().enumerate() {
        let shape = tower.units()[unit];
        let same = |&&(other, at): &&(usize, Images)| tower.units()[other] == shape && at == images;
        if !places[..k].iter().any(|place| same(&place)) {
            of_unit(shape, images, places.iter().filter(same).count(), unit == 0);
        }
    }
    out
}

struct Multiply(usize);

impl Kernel for Multiply {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> f32 {
        let mut out = [0.0f32; 8];
        // SAFETY: registers only, and eight numbers of `out`.
        unsafe {
            let (a, b) = (V::splat(std::hint::black_box(0.999)), V::splat(std::hint::black_box(1e-3)));
            let mut sums = [V::splat(1.0); 12];
            for _ in 0..self.0 {
                for sum in &mut sums {
                    *sum = sum.mul_add(a, b);
                }
            }
            let total = sums.into_iter().fold(V::splat(0.0), |x, y| x.add(y));
            total.store(out.as_mut_ptr());
        }
        out.iter().sum()
    }
}

/// What all threads together reach with multiply-adds in registers: the roof that no direct convolution gets above.
pub fn peak_gflop_per_s() -> f64 {
    let threads = rayon::current_num_threads();
    let steps = 2_000_000;
    let ms = best_ms(|| {
        let sum: f32 = (0..threads).into_par_iter().with_max_len(1).map(|_| vectorized(Multiply(steps))).sum();
        std::hint::black_box(sum);
    });
    (threads * steps * 12 * 8 * 2) as f64 / ms / 1e6
}
