//! RLE Lossless (PS3.5 annex G).

use crate::error::Fault;

const DAMAGED: Fault = Fault::Codec { codec: "RLE" };

/// Decodes a frame of `planes` byte planes of `plane_bytes` bytes each: in order of sample, and of a sample from its most
/// significant byte (§G.2).
///
/// # Shapes
/// - result: `[planes, plane_bytes]`
pub(super) fn decode(frame: &[u8], planes: usize, plane_bytes: usize) -> Result<Vec<u8>, Fault> {
    // §G.5: 16 words, the number of segments and 15 offsets.
    let header = frame.first_chunk::<64>().ok_or(DAMAGED)?;
    let words: Vec<usize> = header.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word) as usize).collect();
    if words[0] < planes || words[0] > 15 {
        return Err(DAMAGED);
    }
    let mut result = Vec::with_capacity(planes * plane_bytes);
    for plane in 0..planes {
        let start = words[1 + plane];
        let end = if plane + 1 < words[0] { words[2 + plane] } else { frame.len() };
        let segment = frame.get(start..end).ok_or(DAMAGED)?;
        unpack(segment, &mut result, (plane + 1) * plane_bytes)?;
    }
    Ok(result)
}

/// §G.3.2: runs until `result` has `until` bytes. What a segment holds beyond is its padding.
fn unpack(mut segment: &[u8], result: &mut Vec<u8>, until: usize) -> Result<(), Fault> {
    while result.len() < until {
        let (&n, rest) = segment.split_first().ok_or(DAMAGED)?;
        let left = until - result.len();
        segment = match n {
            0..=127 => {
                let (literal, rest) = rest.split_at_checked(usize::from(n) + 1).ok_or(DAMAGED)?;
                result.extend_from_slice(&literal[..literal.len().min(left)]);
                rest
            }
            128 => rest,
            129..=255 => {
                let (&byte, rest) = rest.split_first().ok_or(DAMAGED)?;
                result.resize(result.len() + (257 - usize::from(n)).min(left), byte);
                rest
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut words = vec![segments.len() as u32];
        let mut offset = 64;
        for segment in segments {
            words.push(offset);
            offset += segment.len() as u32;
        }
        words.resize(16, 0);
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(segments.concat());
        bytes
    }

    #[test]
    fn literals_runs_and_padding() {
        // -2 repeats three times, 3 is four literals, -128 does nothing; the zero at the end is padding.
        let segment = [0xFE, 0xAA, 0x03, 0x80, 0x00, 0x2A, 0x22, 0x80, 0xFF, 0x07, 0x00];
        assert_eq!(decode(&frame(&[&segment]), 1, 9).unwrap(), [0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0x22, 7, 7]);
    }

    #[test]
    fn planes_in_order() {
        assert_eq!(decode(&frame(&[&[0xFF, 1], &[0xFF, 2]]), 2, 2).unwrap(), [1, 1, 2, 2]);
    }

    #[test]
    fn damage_is_an_error() {
        let good = frame(&[&[0xFD, 9]]);
        assert_eq!(decode(&good, 1, 4).unwrap(), [9; 4]);
        for n in 0..good.len() {
            assert!(decode(&good[..n], 1, 4).is_err(), "cut at {n}");
        }
        assert!(decode(&good, 2, 4).is_err(), "too few segments");
        let mut many = good;
        many[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode(&many, 1, 4).is_err(), "more segments than a header has room for");
    }
}
