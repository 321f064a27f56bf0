use super::{distance, numbers};
use crate::gemm::{COLUMNS, ROWS, rows_times_panel};
use crate::lanes::{Found, Kernel, Lanes};
use crate::shared::{Source, Target};

/// One block of six rows by sixteen columns.
struct OneBlock<'a> {
    a: &'a [f32],
    b: &'a [f32],
    c: &'a mut [f32],
}

impl Kernel for OneBlock<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let k = self.b.len() / COLUMNS;
        // SAFETY: six rows of `k` numbers, `k` rows of sixteen, six rows of sixteen.
        unsafe {
            let a: [Source; ROWS] = std::array::from_fn(|r| self.a.as_ptr().add(r * k));
            let start = self.c.as_mut_ptr();
            let c: [Target; ROWS] = std::array::from_fn(|r| start.add(r * COLUMNS));
            rows_times_panel::<V>(ROWS, 1, k, &raw const a, self.b.as_ptr(), &c, false);
        }
    }
}

#[test]
fn all_lanes_compute_the_same_product() {
    let k = 37;
    let (a, b) = (numbers(ROWS * k, 1), numbers(k * COLUMNS, 2));
    let expected: Vec<f64> = (0..ROWS * COLUMNS)
        .map(|place| (0..k).map(|i| f64::from(a[place / COLUMNS * k + i]) * f64::from(b[i * COLUMNS + place % COLUMNS])).sum())
        .collect();
    let product = |lanes: Found| {
        let mut c = vec![0.0; ROWS * COLUMNS];
        lanes.run(OneBlock { a: &a, b: &b, c: &mut c });
        assert!(distance(&c, expected.iter().copied()) < 1e-6, "{lanes:?}");
        c
    };
    // The portable ones may round a product before it is added.
    let fused: Vec<Vec<f32>> = Found::all().into_iter().map(product).skip(1).collect();
    assert!(fused.windows(2).all(|two| two[0] == two[1]), "to the bit");
}

/// Every method on the same eight numbers each of three.
struct EachMethod<'a> {
    numbers: [&'a [f32; 8]; 3],
}

const METHODS: [&str; 13] = [
    "splat",
    "add",
    "sub",
    "mul",
    "mul_add",
    "max",
    "where_positive",
    "where_equal",
    "larger_or_nan",
    "load_bytes",
    "store_bytes",
    "sqrt",
    "div",
];

impl Kernel for EachMethod<'_> {
    type Output = [[f32; 8]; METHODS.len()];

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> Self::Output {
        let mut out = [[0.0; 8]; METHODS.len()];
        // SAFETY: all have eight numbers.
        unsafe {
            let [a, b, c] = self.numbers.map(|numbers| V::load(numbers.as_ptr()));
            let bytes: [u8; 8] = [0, 1, 2, 8, 127, 128, 200, 255];
            let mut stored = [0u8; 8];
            V::load_bytes(bytes.as_ptr()).store_bytes(stored.as_mut_ptr());
            assert_eq!(stored, bytes);
            let results = [
                V::splat(self.numbers[0][3]),
                a.add(b),
                a.sub(b),
                a.mul(b),
                a.mul_add(b, c),
                a.max(b),
                a.where_positive(b),
                a.where_equal(b, c),
                a.larger_or_nan(b, c, a),
                V::load_bytes(bytes.as_ptr()),
                V::load_bytes(stored.as_ptr()),
                a.sqrt(),
                a.div(b),
            ];
            for (result, to) in results.into_iter().zip(&mut out) {
                result.store(to.as_mut_ptr());
            }
        }
        out
    }
}

#[test]
fn each_method_does_the_same_on_all_lanes() {
    // No product of these is rounded: a fused multiply-add gives what two operations do.
    let special = [f32::NAN, 0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1.5, -2.0, 4.0];
    let turned = |by: usize| -> [f32; 8] { std::array::from_fn(|lane| special[(lane + by) % 8]) };
    for (i, j) in (0..8).flat_map(|i| (0..8).map(move |j| (i, j))) {
        let [a, b, c] = [turned(0), turned(i), turned(j)];
        let numbers = [&a, &b, &c];
        let all = Found::all();
        let expected = all[0].run(EachMethod { numbers });
        for lanes in &all[1..] {
            for ((method, got), expected) in METHODS.iter().zip(lanes.run(EachMethod { numbers })).zip(expected) {
                for (got, expected) in got.into_iter().zip(expected) {
                    let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
                    assert!(same, "{lanes:?}, {method} of {a:?}, {b:?}, {c:?}: {got} and {expected}");
                }
            }
        }
    }
}
