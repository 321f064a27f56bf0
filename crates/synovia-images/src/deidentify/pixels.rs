//! Pixels that may show who the patient is: blanked outside of declared regions, or the file is withheld.

use dicom_dictionary_std::{tags, uids};

use super::text_of;
use super::tree::{Element, Value};
use crate::dicom::Encoding;
use crate::error::Fault;

/// Looks whether annotation may be burned in, and with `clean` blanks what lies outside of the regions that an ultrasound
/// image declares (PS3.3 §C.8.5.5). True when pixels were cleaned.
///
/// # Errors
/// [`Fault::BurnedIn`] when pixels may show a name and were not cleaned: the file says so, or it is a secondary capture or an
/// ultrasound image that does not say that there is none.
pub(super) fn clean(elements: &mut [Element<'_>], encoding: Encoding, clean: bool) -> Result<bool, Fault> {
    let text = |tag| elements.iter().find(|e| e.tag == tag).map(text_of).unwrap_or_default();
    let class = text(tags::SOP_CLASS_UID);
    let captured = class.starts_with(uids::SECONDARY_CAPTURE_IMAGE_STORAGE);
    let suspect = match text(tags::BURNED_IN_ANNOTATION).as_str() {
        "NO" => false,
        "YES" => true,
        _ => captured || text(tags::MODALITY) == "US",
    };
    if !suspect {
        return Ok(false);
    }
    let regions = regions(elements, encoding);
    if !clean || regions.is_empty() {
        return Err(Fault::BurnedIn);
    }
    let number = |tag| elements.iter().find(|e| e.tag == tag).and_then(|e| number(e, encoding)).unwrap_or(0) as usize;
    let (rows, columns) = (number(tags::ROWS), number(tags::COLUMNS));
    let (samples, bits) = (number(tags::SAMPLES_PER_PIXEL).max(1), number(tags::BITS_ALLOCATED));
    let planar = number(tags::PLANAR_CONFIGURATION) == 1 && samples > 1;
    // Zero is no black in luma and colour differences.
    if text(tags::PHOTOMETRIC_INTERPRETATION).starts_with("YBR") || bits == 0 || bits % 8 != 0 || rows * columns == 0 {
        return Err(Fault::BurnedIn);
    }
    let Some(Element { value: Value::Bytes(pixels), .. }) = elements.iter_mut().find(|e| e.tag == tags::PIXEL_DATA) else {
        // Compressed pixels can't be blanked where they are.
        return Err(Fault::BurnedIn);
    };
    let cell = if planar { bits / 8 } else { bits / 8 * samples };
    for plane in pixels.to_mut().chunks_exact_mut(cell * columns * rows) {
        for (y, line) in plane.chunks_exact_mut(cell * columns).enumerate() {
            for (x, pixel) in line.chunks_exact_mut(cell).enumerate() {
                if !regions.iter().any(|&[x0, y0, x1, y1]| (x0..=x1).contains(&(x as u32)) && (y0..=y1).contains(&(y as u32))) {
                    pixel.fill(0);
                }
            }
        }
    }
    Ok(true)
}

/// Rectangles of the image that hold ultrasound: left, top, right, bottom, all within.
fn regions(elements: &[Element<'_>], encoding: Encoding) -> Vec<[u32; 4]> {
    let Some(Value::Items(items)) = elements.iter().find(|e| e.tag == tags::SEQUENCE_OF_ULTRASOUND_REGIONS).map(|e| &e.value) else {
        return Vec::new();
    };
    let corners = [tags::REGION_LOCATION_MIN_X0, tags::REGION_LOCATION_MIN_Y0, tags::REGION_LOCATION_MAX_X1, tags::REGION_LOCATION_MAX_Y1];
    let corner = |item: &[Element<'_>], tag| item.iter().find(|e| e.tag == tag).and_then(|e| number(e, encoding));
    let region = |item: &Vec<Element<'_>>| {
        let [x0, y0, x1, y1] = corners.map(|tag| corner(item, tag));
        Some([x0?, y0?, x1?, y1?])
    };
    items.iter().filter_map(region).collect()
}

/// An unsigned number (US or UL).
fn number(element: &Element<'_>, encoding: Encoding) -> Option<u32> {
    let Value::Bytes(bytes) = &element.value else { return None };
    match bytes[..] {
        [a, b] => Some(encoding.u16([a, b]).into()),
        [a, b, c, d] => Some(encoding.u32([a, b, c, d])),
        _ => None,
    }
}
