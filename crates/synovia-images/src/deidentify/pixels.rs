//! Pixels that may show who the patient is: blanked outside of declared regions, or the file is withheld.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::tree::{Element, Value};
use super::{put, text_of};
use crate::dicom::{Encoding, may_show_name};
use crate::error::Fault;

/// Looks whether annotation may be burned in, and with `clean` blanks what lies outside of the regions that an ultrasound
/// image declares (PS3.3 §C.8.5.5) and says so (PS3.15 §E.3.1). True when pixels were cleaned. Overlays in unused bits of the
/// pixels go in any case. With `any` it is not asked what the pixels show.
///
/// # Errors
/// [`Fault::BurnedIn`] when pixels may show a name and were not cleaned: the file says so or does not say it clearly, or it is
/// of a kind that often does, and does not say that there is none.
pub(super) fn clean(elements: &mut Vec<Element<'_>>, encoding: Encoding, clean: bool, any: bool) -> Result<bool, Fault> {
    if !elements.iter().any(|element| element.tag.0 == 0x7FE0) {
        return Ok(false);
    }
    drop_overlay_bits(elements, encoding).ok_or(Fault::BurnedIn)?;
    if any || !may_show_name(|tag| find(elements, tag).map(text_of).unwrap_or_default()) {
        return Ok(false);
    }
    if !clean {
        return Err(Fault::BurnedIn);
    }
    blank(elements, encoding).ok_or(Fault::BurnedIn)?;
    put(elements, tags::BURNED_IN_ANNOTATION, *b"CS", b"NO".to_vec());
    Ok(true)
}

fn find<'e, 'a>(elements: &'e [Element<'a>], tag: Tag) -> Option<&'e Element<'a>> {
    elements.iter().find(|element| element.tag == tag)
}

/// Blanks native pixels outside of the regions; `None` when that can't be done, or would blank nothing.
fn blank(elements: &mut [Element<'_>], encoding: Encoding) -> Option<()> {
    let regions = regions(elements, encoding)?;
    let short = |tag| find(elements, tag).and_then(|element| short(element, encoding)).map(usize::from);
    let text = |tag| find(elements, tag).map(text_of).unwrap_or_default();
    let (rows, columns, bits) = (short(tags::ROWS)?, short(tags::COLUMNS)?, short(tags::BITS_ALLOCATED)?);
    let samples = if find(elements, tags::SAMPLES_PER_PIXEL).is_none() { 1 } else { short(tags::SAMPLES_PER_PIXEL)? };
    let planar = short(tags::PLANAR_CONFIGURATION) == Some(1) && samples > 1;
    let frames = Some(text(tags::NUMBER_OF_FRAMES)).filter(|text| !text.is_empty()).map_or(Some(1), |text| text.parse().ok())?;
    // Zero is no black in luma and colour differences.
    if text(tags::PHOTOMETRIC_INTERPRETATION).starts_with("YBR") || !bits.is_multiple_of(8) {
        return None;
    }
    let (cell, planes) = if planar { (bits / 8, samples) } else { (bits / 8 * samples, 1) };
    let plane = cell.checked_mul(columns)?.checked_mul(rows).filter(|&n| n > 0)?;
    let whole = plane.checked_mul(planes)?.checked_mul(frames)?;
    // Compressed pixels can't be blanked where they are.
    let pixels = native_pixels(elements)?;
    if !matches!(pixels.len().checked_sub(whole), Some(0 | 1)) {
        return None;
    }
    let within =
        |x: usize, y: usize| regions.iter().any(|&[x0, y0, x1, y1]| (x0..=x1).contains(&(x as u32)) && (y0..=y1).contains(&(y as u32)));
    let mut n_blanked = 0;
    for plane in pixels.chunks_exact_mut(plane) {
        for (y, line) in plane.chunks_exact_mut(cell * columns).enumerate() {
            for (_, pixel) in line.chunks_exact_mut(cell).enumerate().filter(|&(x, _)| !within(x, y)) {
                pixel.fill(0);
                n_blanked += 1;
            }
        }
    }
    // What is burned into an image that is all region stands in the region.
    (n_blanked > 0).then_some(())
}

/// Zeroes the bits of native pixels that hold no value where an overlay is kept there (PS3.5 §8.1.2); `None` when it can't be.
fn drop_overlay_bits(elements: &mut [Element<'_>], encoding: Encoding) -> Option<()> {
    let position = |e: &&Element<'_>| (0x6000..0x6100).contains(&e.tag.0) && e.tag.1 == 0x0102;
    let holds = |e: &Element<'_>| !matches!(&e.value, Value::Bytes(bytes) if bytes.iter().all(|&byte| byte == 0));
    if !elements.iter().filter(position).any(holds) {
        return Some(());
    }
    let short = |tag| find(elements, tag).and_then(|element| short(element, encoding)).map(u32::from);
    let (allocated, stored, high) = (short(tags::BITS_ALLOCATED)?, short(tags::BITS_STORED)?, short(tags::HIGH_BIT)?);
    if !matches!(allocated, 8 | 16 | 32) || stored == 0 || high >= allocated || high + 1 < stored {
        return None;
    }
    let mask = ((1u64 << stored) - 1) << (high + 1 - stored);
    let n = allocated as usize / 8;
    let mut mask = mask.to_le_bytes()[..n].to_vec();
    if encoding.big_endian {
        mask.reverse();
    }
    let pixels = native_pixels(elements)?;
    pixels.chunks_mut(n).for_each(|cell| cell.iter_mut().zip(&mask).for_each(|(byte, mask)| *byte &= mask));
    Some(())
}

fn native_pixels<'e>(elements: &'e mut [Element<'_>]) -> Option<&'e mut [u8]> {
    match &mut elements.iter_mut().find(|e| e.tag == tags::PIXEL_DATA)?.value {
        Value::Bytes(pixels) => Some(pixels.to_mut()),
        _ => None,
    }
}

/// Rectangles of the image that hold ultrasound: left, top, right, bottom, all within. `None` where there are none, or more
/// than a screen has.
fn regions(elements: &[Element<'_>], encoding: Encoding) -> Option<Vec<[u32; 4]>> {
    let Value::Items(items) = &find(elements, tags::SEQUENCE_OF_ULTRASOUND_REGIONS)?.value else { return None };
    let corners = [tags::REGION_LOCATION_MIN_X0, tags::REGION_LOCATION_MIN_Y0, tags::REGION_LOCATION_MAX_X1, tags::REGION_LOCATION_MAX_Y1];
    let corner = |item: &[Element<'_>], tag| find(item, tag).and_then(|element| long(element, encoding));
    let region = |item: &Vec<Element<'_>>| {
        let [x0, y0, x1, y1] = corners.map(|tag| corner(item, tag));
        Some([x0?, y0?, x1?, y1?])
    };
    let regions: Vec<[u32; 4]> = items.iter().filter_map(region).collect();
    (1..=64).contains(&regions.len()).then_some(regions)
}

/// A US value.
fn short(element: &Element<'_>, encoding: Encoding) -> Option<u16> {
    let Value::Bytes(bytes) = &element.value else { return None };
    Some(encoding.u16(bytes[..].try_into().ok()?))
}

/// A UL value.
fn long(element: &Element<'_>, encoding: Encoding) -> Option<u32> {
    let Value::Bytes(bytes) = &element.value else { return None };
    Some(encoding.u32(bytes[..].try_into().ok()?))
}
