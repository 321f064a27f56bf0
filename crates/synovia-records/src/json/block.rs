//! Sixteen and sixty-four bytes at a time: which of them are a certain one, as the bits of a number.

use wide::u8x16;

/// Bits of the bytes of `block` that are `byte`, the first byte lowest.
#[inline]
pub(super) fn eq16(block: [u8; 16], byte: u8) -> u32 {
    u8x16::new(block).simd_eq(u8x16::splat(byte)).to_bitmask()
}

/// Bits of the bytes that are a space or the end of a line.
#[inline]
pub(super) fn blank(block: [u8; 16]) -> u32 {
    let bytes = u8x16::new(block);
    (bytes.simd_eq(u8x16::splat(b' ')) | bytes.simd_eq(u8x16::splat(b'\n'))).to_bitmask()
}

/// Bits of the bytes that end the plain part of a string: a quote, a backslash, a control character (RFC 8259 §7).
#[inline]
pub(super) fn ends_plain(block: [u8; 16]) -> u32 {
    let bytes = u8x16::new(block);
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    (bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\')) | control).to_bitmask()
}

/// What [`skip`](super::skip::skip) looks for in sixty-four bytes.
pub(super) struct Marks {
    pub(super) quotes: u64,
    pub(super) backslashes: u64,
    pub(super) opening: u64,
    pub(super) closing: u64,
}

/// The marks of a block. `[` and `{` differ in one bit, as `]` and `}` do, and no other byte shares the rest.
#[inline]
pub(super) fn marks(block: &[u8; 64]) -> Marks {
    let mut found = Marks { quotes: 0, backslashes: 0, opening: 0, closing: 0 };
    let (quarters, _) = block.as_chunks::<16>();
    for (k, quarter) in quarters.iter().enumerate() {
        let at = 16 * k;
        let folded = (u8x16::new(*quarter) | u8x16::splat(0x20)).to_array();
        found.quotes |= u64::from(eq16(*quarter, b'"')) << at;
        found.backslashes |= u64::from(eq16(*quarter, b'\\')) << at;
        found.opening |= u64::from(eq16(folded, b'{')) << at;
        found.closing |= u64::from(eq16(folded, b'}')) << at;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_bytes(bytes in proptest::collection::vec(any::<u8>(), 64)) {
            let block: &[u8; 64] = bytes.as_slice().try_into().unwrap();
            let bits = |f: fn(u8) -> bool| block.iter().enumerate().fold(0u64, |bits, (k, b)| bits | u64::from(f(*b)) << k);
            let marks = marks(block);
            prop_assert_eq!(marks.quotes, bits(|b| b == b'"'));
            prop_assert_eq!(marks.backslashes, bits(|b| b == b'\\'));
            prop_assert_eq!(marks.opening, bits(|b| b == b'{' || b == b'['));
            prop_assert_eq!(marks.closing, bits(|b| b == b'}' || b == b']'));
            let plain = block.as_chunks::<16>().0[0];
            prop_assert_eq!(u64::from(ends_plain(plain)), bits(|b| b == b'"' || b == b'\\' || b < 0x20) & 0xffff);
        }
    }
}
