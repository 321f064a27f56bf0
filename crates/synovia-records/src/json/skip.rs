//! Passing over an object or an array.

use super::block::marks;

/// Bits that are in a string, by the quotes that open and close one: its opening quote is in it, its closing one is not.
const fn between(quotes: u64) -> u64 {
    let mut x = quotes;
    x ^= x << 1;
    x ^= x << 2;
    x ^= x << 4;
    x ^= x << 8;
    x ^= x << 16;
    x ^ (x << 32)
}

/// Bits 0, 2, 4, …
const EVEN: u64 = 0x5555_5555_5555_5555;

/// Bits that follow an odd run of backslashes (Langdale and Lemire 2019, §3.1.1); `carry` is whether the block's first does,
/// and then whether the next block's first does.
const fn escaped(backslashes: u64, carry: &mut bool) -> u64 {
    if backslashes == 0 {
        let first = *carry as u64;
        *carry = false;
        return first;
    }
    let backslashes = backslashes & !(*carry as u64);
    let follows = backslashes << 1 | *carry as u64;
    let odd_starts = backslashes & !EVEN & !follows;
    let (sum, over) = odd_starts.overflowing_add(backslashes);
    *carry = over;
    (EVEN ^ (sum << 1)) & follows
}

/// The place after the object or array that begins at `bytes[start]`; `None` when it does not end.
pub(super) fn skip(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut in_string, mut carry) = (0u32, 0u64, false);
    let mut at = start;
    loop {
        let rest = bytes.get(at..)?;
        let mut padded = [b' '; 64];
        let block = if let Some(block) = rest.first_chunk::<64>() {
            block
        } else {
            if rest.is_empty() {
                return None;
            }
            padded[..rest.len()].copy_from_slice(rest);
            &padded
        };
        let marks = marks(block);
        let quotes = marks.quotes & !escaped(marks.backslashes, &mut carry);
        let inside = between(quotes) ^ in_string;
        in_string = ((inside.cast_signed()) >> 63).cast_unsigned();
        let (opening, closing) = (marks.opening & !inside, marks.closing & !inside);
        if closing.count_ones() < depth {
            depth = depth + opening.count_ones() - closing.count_ones();
        } else {
            let mut both = opening | closing;
            while both != 0 {
                let k = both.trailing_zeros();
                if opening >> k & 1 == 1 {
                    depth += 1;
                } else {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + k as usize + 1);
                    }
                }
                both &= both - 1;
            }
        }
        at += 64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, end: Option<usize>) {
        assert_eq!(skip(text.as_bytes(), 0), end, "{text}");
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        check(r#"{"a":"}"} "#, Some(9));
        check(r#"["\"]",[{}]],"#, Some(12));
        check(r#"{"a":"\\"}"#, Some(10));
        check(r#"{"a":"\\\"}"}"#, Some(13));
        check(&format!(r#"{{"a":"{}"}}"#, r"\\".repeat(61)), Some(122 + 8));
        check(&format!(r#"{{"a":"{}\"}}"}}x"#, "y".repeat(58)), Some(58 + 11));
        check("[[[", None);
        check(r#"["]"#, None);
        check("", None);
    }

    /// The place where a reader of one byte at a time ends; an error where it meets a backslash outside a string, which is no
    /// JSON, and on which the two need not agree.
    fn slowly(bytes: &[u8]) -> Result<Option<usize>, ()> {
        let (mut depth, mut string, mut escape) = (0, false, false);
        for (k, b) in bytes.iter().enumerate() {
            match (string, b) {
                (true, _) if escape => escape = false,
                (true, b'\\') => escape = true,
                (false, b'\\') => return Err(()),
                (_, b'"') => string = !string,
                (false, b'[' | b'{') => depth += 1,
                (false, b']' | b'}') => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(Some(k + 1));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    proptest! {
        #[test]
        fn as_byte_by_byte(text in r#"[{\[]{3}("[a\\\]}]{0,9}"|[\[\]{}:,x]){0,60}"#) {
            if let Ok(end) = slowly(text.as_bytes()) {
                prop_assert_eq!(skip(text.as_bytes(), 0), end);
            }
        }
    }
}
