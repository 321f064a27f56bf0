//! Huffman codes and the bits that they are in (T.81 annexes C and F).

use super::DAMAGED;
use crate::error::Fault;

/// Bits that are looked up at once: 12 hold nearly every code of a photograph, in a table that fits the first cache.
pub(super) const QUICK: u32 = 12;

/// The entropy-coded segment of a scan, its stuffed bytes taken out as they come.
#[derive(Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, from the most significant.
    held: u64,
    /// How many of `held` are there; below zero once more were taken than there are.
    n_held: i32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, n_held: 0 }
    }

    /// Makes sure that 32 bits are there, unless the segment ends.
    #[inline]
    pub(super) fn fill(&mut self) {
        if self.n_held >= 32 {
            return;
        }
        if let Some(&next) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>())
            && self.n_held >= 0
        {
            let word = u64::from_be_bytes(next);
            // Whether a byte of the eight is 0xFF: the same as a zero byte of the complement.
            let inverse = !word;
            if inverse.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 == 0 {
                // Bits of the byte that fits in part are put there again, unchanged, by the next call.
                self.held |= word >> self.n_held;
                let n = (64 - self.n_held) >> 3;
                self.at += n as usize;
                self.n_held += 8 * n;
                return;
            }
        }
        self.fill_slowly();
    }

    #[cold]
    fn fill_slowly(&mut self) {
        while (0..=56).contains(&self.n_held) {
            let Some(&byte) = self.bytes.get(self.at) else { return };
            if byte == 0xFF {
                // §F.1.2.3: 0xFF is followed by a stuffed zero; anything else is a marker.
                if self.bytes.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.held |= u64::from(byte) << (56 - self.n_held);
            self.at += 1;
            self.n_held += 8;
        }
    }

    #[inline]
    pub(super) const fn peek(&self, n: u32) -> usize {
        (self.held >> (64 - n)) as usize
    }

    #[inline]
    pub(super) const fn skip(&mut self, n: u32) {
        self.held <<= n;
        self.n_held -= n as i32;
    }

    /// `n` more bits as a signed difference (§F.2.2.1, RECEIVE and EXTEND); `n` from 1 to 16.
    #[inline]
    pub(super) const fn difference(&mut self, n: u32) -> i32 {
        let value = self.peek(n) as i32;
        self.skip(n);
        if value >> (n - 1) == 0 { value - (1 << n) + 1 } else { value }
    }

    /// Whether more bits were taken than there are.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.n_held < 0 { Err(DAMAGED) } else { Ok(()) }
    }

    /// Goes behind a restart marker; what is left of the last byte is padding.
    pub(super) fn restart(&mut self) -> Result<(), Fault> {
        self.check()?;
        self.at = self.marker();
        match self.bytes.get(self.at..self.at + 2) {
            Some([0xFF, 0xD0..=0xD7]) => self.at += 2,
            _ => return Err(DAMAGED),
        }
        (self.held, self.n_held) = (0, 0);
        Ok(())
    }

    /// Bytes up to the marker that ends the segment.
    pub(super) fn marker(&self) -> usize {
        // Bytes that were taken in but not used may hold no marker: looking goes on from there.
        let mut at = self.at;
        while at + 1 < self.bytes.len() && !(self.bytes[at] == 0xFF && self.bytes[at + 1] != 0) {
            at += 1;
        }
        at.min(self.bytes.len())
    }
}

/// One Huffman table (annex C).
pub(super) struct Table {
    /// For the next [`QUICK`] bits: length of the code << 8 | symbol, 0 for a longer code.
    quick: Vec<u16>,
    /// For each length above, in `max_code`: the first code that is longer, left-aligned in 16 bits, and what to add to
    /// a code for its symbol's index.
    longer: [(u32, i32); 17],
    symbols: Vec<u8>,
}

impl Table {
    /// Of the number of codes of each length from 1, and the symbols in order.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut quick = vec![0u16; 1 << QUICK];
        let mut longer = [(0, 0); 17];
        let (mut code, mut k) = (0u32, 0usize);
        for length in 1..=16u32 {
            let n = u32::from(counts[length as usize - 1]);
            longer[length as usize].1 = k as i32 - code as i32;
            if code + n > 1 << length {
                return None;
            }
            if length <= QUICK {
                for j in 0..n {
                    let start = ((code + j) << (QUICK - length)) as usize;
                    let entry = (length << 8) as u16 | u16::from(*symbols.get(k + j as usize)?);
                    quick[start..start + (1 << (QUICK - length))].fill(entry);
                }
            }
            code += n;
            k += n as usize;
            longer[length as usize].0 = code << (16 - length);
            code <<= 1;
        }
        Some(Self { quick, longer, symbols: symbols.to_owned() })
    }

    /// The next symbol; at least 16 bits are held, or the segment ends.
    #[inline]
    pub(super) fn decode(&self, bits: &mut Bits<'_>) -> Result<u8, Fault> {
        let entry = self.quick[bits.peek(QUICK)];
        if entry != 0 {
            bits.skip(u32::from(entry >> 8));
            return Ok(entry as u8);
        }
        let next = bits.peek(16) as u32;
        for length in QUICK + 1..=16 {
            let (end, offset) = self.longer[length as usize];
            if next < end {
                bits.skip(length);
                let index = (next >> (16 - length)) as i32 + offset;
                return self.symbols.get(index as usize).copied().ok_or(DAMAGED);
            }
        }
        Err(DAMAGED)
    }

    /// The code and the difference that follows it in one look: for the next [`QUICK`] bits, bits taken << 16 | difference,
    /// 0 where both together are longer. For lossless frames, whose symbols are the number of bits of a difference.
    pub(super) fn differences(&self) -> Vec<u32> {
        let fused = |(bits, &entry): (usize, &u16)| {
            let (length, n) = (u32::from(entry >> 8), u32::from(entry & 0xFF));
            if entry == 0 || n > 15 || length + n > QUICK {
                return 0;
            }
            let value = (bits as u32 >> (QUICK - length - n)) & ((1 << n) - 1);
            let difference = if n > 0 && value >> (n - 1) == 0 { value as i32 - (1 << n) + 1 } else { value as i32 };
            (length + n) << 16 | u32::from(difference as u16)
        };
        self.quick.iter().enumerate().map(fused).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_around_stuffed_bytes_and_the_marker() {
        let stream = [0xAB, 0xFF, 0x00, 0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE, 0xF0, 0x11, 0xFF, 0x00, 0xFF, 0xD9];
        let plain = [0xAB, 0xFF, 0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE, 0xF0, 0x11, 0xFF];
        for width in [1, 3, 8, 12, 16] {
            let mut bits = Bits::new(&stream);
            let total = 8 * plain.len() as u32;
            let mut at = 0;
            while at + width <= total {
                bits.fill();
                let expected = (at..at + width).fold(0, |x, k| x << 1 | (plain[k as usize / 8] >> (7 - k % 8) & 1) as usize);
                assert_eq!(bits.peek(width), expected, "{width} bits at {at}");
                bits.skip(width);
                at += width;
                bits.check().unwrap();
            }
            assert_eq!(bits.marker(), 14);
            bits.fill();
            bits.skip(16);
            assert!(bits.check().is_err(), "more bits than there are");
        }
    }

    #[test]
    fn codes_of_every_length() {
        // One code of each length from 1 to 16: 0, 10, 110, ...
        let symbols: Vec<u8> = (1..=16).collect();
        let table = Table::new(&[1; 16], &symbols).unwrap();
        for &symbol in &symbols {
            let code = u32::MAX << (33 - u32::from(symbol)).min(31) & if symbol == 1 { 0 } else { u32::MAX };
            let bytes: Vec<u8> = code.to_be_bytes().iter().flat_map(|&b| if b == 0xFF { vec![0xFF, 0] } else { vec![b] }).collect();
            let mut bits = Bits::new(&bytes);
            bits.fill();
            assert_eq!(table.decode(&mut bits).unwrap(), symbol);
        }
        assert!(Table::new(&[3; 16], &[0; 48]).is_none(), "three codes of one bit");
        assert!(Table::new(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0]).is_none(), "a symbol is missing");
    }
}
