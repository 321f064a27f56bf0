//! An image with what drove the prediction, as a PNG.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use crate::map::Map;
use crate::plan::{GRID, ImageChange, ImageShape};

/// The least width of a picture, pixels: smaller images are enlarged.
const WIDTH: usize = 256;
/// How much of the colour is laid over the strongest place.
const STRONGEST: f64 = 0.6;

/// A prepared image as a PNG, in grey or in its three channels.
///
/// # Shapes
/// - image: `[channels, size, size]`, in `[0, 1]`
pub fn picture(image: &[f32], shape: ImageShape) -> Vec<u8> {
    draw(image, shape, &|_, _| 0.0)
}

/// The same with places that raise the probability in red, and with those that lower it in blue; the strongest place has the strongest
/// colour, whatever it does.
///
/// # Shapes
/// - image: `[channels, size, size]`, in `[0, 1]`
pub fn overlay(image: &[f32], shape: ImageShape, change: &ImageChange) -> Vec<u8> {
    let values: Vec<f32> = change.change.iter().flatten().map(|&change| change as f32).collect();
    overlay_of(image, shape, Map::even(GRID, &values))
}

/// The same of a map with any number of places.
///
/// # Shapes
/// - image: `[channels, size, size]`, in `[0, 1]`
pub fn overlay_of(image: &[f32], shape: ImageShape, map: Map<'_>) -> Vec<u8> {
    let most = map.values.iter().fold(0.0_f64, |most, &value| most.max(f64::from(value.abs())));
    draw(image, shape, &|x, y| if most > 0.0 { map.at(x, y) / most } else { 0.0 })
}

fn draw(image: &[f32], ImageShape { channels, size }: ImageShape, strength: &dyn Fn(f64, f64) -> f64) -> Vec<u8> {
    let times = WIDTH.div_ceil(size.max(1)).max(1);
    let width = size * times;
    let of = |channel: usize, x: usize, y: usize| f64::from(image[(channel * size + y / times) * size + x / times]).clamp(0.0, 1.0);
    let picture = RgbImage::from_fn(width as u32, width as u32, |x, y| {
        let (x, y) = (x as usize, y as usize);
        let strength = strength((x as f64 + 0.5) / width as f64, (y as f64 + 0.5) / width as f64);
        let colour = if strength > 0.0 { [1.0, 0.15, 0.1] } else { [0.15, 0.4, 1.0] };
        let over = strength.abs() * STRONGEST;
        let mix = |k: usize| {
            let grey = of(if channels >= 3 { k } else { 0 }, x, y);
            ((grey * (1.0 - over) + colour[k] * over) * 255.0).round() as u8
        };
        Rgb([mix(0), mix(1), mix(2)])
    });
    let mut bytes = Cursor::new(Vec::new());
    // In memory a picture of any size is written.
    let _ = picture.write_to(&mut bytes, ImageFormat::Png);
    bytes.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_where_it_raises_and_blue_where_it_lowers() {
        let shape = ImageShape { channels: 1, size: 32 };
        let mut change = ImageChange { change: vec![vec![0.0; GRID]; GRID] };
        change.change[1][1] = 0.2;
        change.change[6][6] = -0.1;
        let grey = vec![0.5; 32 * 32];
        let read = |bytes: &[u8]| image::load_from_memory_with_format(bytes, ImageFormat::Png).unwrap().to_rgb8();
        let drawn = read(&overlay(&grey, shape, &change));
        assert_eq!(drawn.dimensions(), (256, 256));
        let at = |place: u32| drawn.get_pixel(place * 32 + 16, place * 32 + 16).0;
        let [red, _, blue] = at(1);
        assert!(red > 180 && blue < 90, "{:?}", at(1));
        let [red, _, blue] = at(6);
        assert!(blue > 140 && red < 128, "{:?}", at(6));
        assert_eq!(at(3), [128; 3]);
        // Nothing that drives it, nothing in colour.
        let flat = ImageChange { change: vec![vec![0.0; GRID]; GRID] };
        assert_eq!(read(&overlay(&grey, shape, &flat)), read(&picture(&grey, shape)));
        // Three channels are colours.
        let colours: Vec<f32> = [1.0, 0.0, 0.5].iter().flat_map(|&value| vec![value; 9]).collect();
        let drawn = read(&picture(&colours, ImageShape { channels: 3, size: 3 }));
        assert_eq!(drawn.get_pixel(0, 0).0, [255, 0, 128]);
    }
}
