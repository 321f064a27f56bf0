//! Segmented palettes (PS3.3 §C.7.9.2): a table as runs, lines and repetitions.

use crate::error::Fault;

/// Expands `words` to at most `limit` entries; `None` when the segments are malformed.
pub(super) fn expand(words: &[u16], limit: usize) -> Option<Vec<u16>> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < words.len() && entries.len() < limit {
        // A single word at the end is padding.
        if words.len() - at < 2 {
            break;
        }
        at = match words[at] {
            2 => {
                let n = words[at + 1];
                let [low, high] = *words.get(at + 2..at + 4)?.first_chunk()?;
                // The offset counts bytes.
                let mut from = (usize::from(high) << 16 | usize::from(low)) / 2;
                for _ in 0..n {
                    from = segment(words, from, &mut entries, limit)?;
                }
                at + 4
            }
            _ => segment(words, at, &mut entries, limit)?,
        };
    }
    Some(entries)
}

/// Appends one discrete or linear segment; returns where the next one starts.
fn segment(words: &[u16], at: usize, entries: &mut Vec<u16>, limit: usize) -> Option<usize> {
    let &[code, n] = words.get(at..at + 2)?.first_chunk()?;
    let n = usize::from(n);
    if entries.len() + n > limit {
        return None;
    }
    match code {
        0 => {
            entries.extend_from_slice(words.get(at + 2..at + 2 + n)?);
            Some(at + 2 + n)
        }
        1 => {
            let first = f64::from(*entries.last()?);
            let last = f64::from(*words.get(at + 2)?);
            entries.extend((1..=n).map(|k| (first + (last - first) * k as f64 / n as f64).round() as u16));
            Some(at + 3)
        }
        _ => None,
    }
}

/// The fault of a table that does not expand.
pub(super) const fn malformed(tag: dicom_core::Tag) -> Fault {
    Fault::Malformed { tag, what: "segments of a palette that do not make a table" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_lines_and_repetitions() {
        // Discrete 10, 20; a line of 4 to 60; both again, from byte 0.
        let words = [0, 2, 10, 20, 1, 4, 60, 2, 2, 0, 0];
        assert_eq!(expand(&words, 100).unwrap(), [10, 20, 30, 40, 50, 60, 10, 20, 30, 40, 50, 60]);
    }

    #[test]
    fn malformed_segments() {
        assert_eq!(expand(&[1, 4, 60], 100), None, "a line without a start");
        assert_eq!(expand(&[0, 9, 1], 100), None, "fewer values than are said");
        assert_eq!(expand(&[3, 1, 1], 100), None, "no such segment");
        assert_eq!(expand(&[0, 1, 5, 1, 65535, 9], 100), None, "more than the table has");
        assert_eq!(expand(&[0, 1, 5, 2, 1, 6, 0], 100), None, "a repetition of a repetition");
    }
}
