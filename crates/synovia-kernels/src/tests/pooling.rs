use crate::images::Images;
use crate::norm::Norm;
use crate::pool::{max_pool, max_pool_kept};

/// Pools one 3 × 3 image of these numbers; the window of its middle output sees all of them.
#[track_caller]
fn check(pixels: [f32; 9], largest: f32, tap: u8) {
    let (images, channels) = (Images { batch: 1, height: 5, width: 5 }, 16);
    let mut z = vec![100.0; images.pixels() * channels];
    for (k, value) in pixels.into_iter().enumerate() {
        let pixel = (k / 3 + 1) * 5 + k % 3 + 1;
        z[pixel * channels..][..channels].fill(value);
    }
    let norm = Norm::new(&[0.0; 16], &[1.0; 16], &[1.0; 16], &[0.0; 16], 0.0, channels);
    let (mut out, mut kept) = (vec![0.0; 9 * channels], vec![0.0; 9 * channels]);
    max_pool(&z, &norm, images, &mut out);
    let kept_of = max_pool_kept(&z, &norm, images, &mut kept);
    assert!(out.iter().zip(&kept).all(|(a, b)| a.to_bits() == b.to_bits()));
    for (value, at) in out[4 * channels..].iter().zip(&kept_of.place[4 * channels..]).take(channels) {
        assert!(*value == largest || (value.is_nan() && largest.is_nan()), "{value} of {pixels:?}");
        assert_eq!(*at, tap, "{pixels:?}");
    }
}

#[test]
fn the_first_of_the_largest_wins_and_a_nan_always() {
    check([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], 9.0, 8);
    check([1.0, 7.0, 3.0, 7.0, 5.0, 6.0, 7.0, -8.0, 0.0], 7.0, 1);
    check([-1.0, -2.0, -3.0, -4.0, -0.5, -6.0, -7.0, -8.0, -9.0], 0.0, 4);
    for tap in 0..9u8 {
        let mut pixels = [1.0, 2.0, 3.0, 9.0, 5.0, 6.0, 7.0, f32::INFINITY, 4.0];
        pixels[usize::from(tap)] = f32::NAN;
        check(pixels, f32::NAN, tap);
    }
}

#[test]
fn a_nan_is_no_variance_of_zero() {
    let mut sums = [0.0; 32];
    (sums[3], sums[16 + 3]) = (1.0, f32::NAN);
    let norm = Norm::of_batch(&sums, 4, &[1.0; 16], &[0.0; 16], 1e-5, 16);
    assert!(norm.variance[3].is_nan() && norm.variance[4] == 0.0);
}
