//! Lines of bounded length from any reader.

use std::io::{BufRead, BufReader, Read};

use super::batch::{BATCH_BYTES, Batch, Piece, PieceKind, Pool, fill, read_failure};
use super::files::READ_BYTES;

/// What [`Lines::next`] found.
#[derive(Debug)]
pub(crate) enum Next {
    /// A line, without its end, is in the buffer.
    Line,
    /// A line longer than allowed went by.
    TooLong,
    /// No more lines.
    End,
}

/// Reads lines into a buffer that never grows past the allowed length: of a longer line only its end is sought.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    max_bytes: usize,
    number: u64,
}

impl<R: Read> Lines<R> {
    /// Lines of up to `max_bytes`.
    pub(crate) fn new(reader: R, max_bytes: usize) -> Self {
        Self { reader: BufReader::with_capacity(READ_BYTES, reader), line: Vec::new(), max_bytes, number: 0 }
    }

    /// The line that [`Next::Line`] told of.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Number of that line, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Goes to the next line. After an error, what was read of the line that it broke is lost.
    pub(crate) fn next(&mut self) -> std::io::Result<Next> {
        self.line.clear();
        self.number += 1;
        let (mut any, mut too_long) = (false, false);
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok(match (any, too_long) {
                    (_, true) => Next::TooLong,
                    (true, _) => Next::Line,
                    (false, _) => Next::End,
                });
            }
            let first = self.number == 1 && !any;
            any = true;
            let end = chunk.iter().position(|&b| b == b'\n');
            let mut text = &chunk[..end.unwrap_or(chunk.len())];
            if first {
                text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
            }
            if too_long || self.line.len() + text.len() > self.max_bytes {
                too_long = true;
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(text);
            }
            let used = end.map_or(chunk.len(), |k| k + 1);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(if too_long { Next::TooLong } else { Next::Line });
            }
        }
    }

    /// Bytes that the buffers hold.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.line.capacity() + self.reader.capacity()
    }
}

/// Lines in batches that end where a line does; [`lines_of`] cuts them, so that the one reader has little to do. `send` takes
/// each batch and says whether to go on.
pub(crate) fn split_lines(mut reader: impl Read, max_bytes: usize, pool: &Pool, send: &mut dyn FnMut(Batch) -> bool) {
    let (mut bytes, mut filled, mut number) = (pool.take(BATCH_BYTES), 0, 1);
    // Whether this is the start of the file, and whether it is in a line that is too long.
    let (mut at_start, mut passing) = (true, false);
    let mut troubles = Batch::default();
    loop {
        let goal = if filled < BATCH_BYTES { BATCH_BYTES } else { filled + BATCH_BYTES };
        if bytes.len() < goal {
            bytes.resize(goal, 0);
        }
        let read = fill(&mut reader, &mut bytes[..goal], &mut filled);
        let at_end = filled < goal;
        let mut start = if std::mem::replace(&mut at_start, false) && bytes[..filled].starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        if passing {
            let end = memchr::memchr(b'\n', &bytes[..filled]);
            if end.is_some() || at_end {
                troubles.trouble(format!("line {number}"), too_long(max_bytes));
                (number, passing) = (number + 1, false);
            }
            start = end.map_or(filled, |end| end + 1);
        }
        let there = &bytes[start..filled];
        let cut = if at_end && read.is_ok() { Some(there.len()) } else { memchr::memrchr(b'\n', there).map(|k| k + 1) };
        match cut {
            None if there.len() > max_bytes => {
                (passing, filled) = (true, 0);
                bytes = pool.take(BATCH_BYTES);
            }
            None => {
                bytes.copy_within(start..filled, 0);
                filled -= start;
            }
            Some(cut) => {
                let rest = &there[cut..];
                let mut next = pool.take(BATCH_BYTES.max(rest.len()));
                next[..rest.len()].copy_from_slice(rest);
                let mut batch = std::mem::take(&mut troubles);
                if cut > 0 {
                    batch.pieces.push(Piece { kind: PieceKind::Lines, place: number, line: number, range: start..start + cut });
                    number += memchr::memchr_iter(b'\n', &there[..cut]).count() as u64;
                }
                filled = rest.len();
                batch.bytes = std::mem::replace(&mut bytes, next);
                if !batch.is_empty() && !send(batch) {
                    return;
                }
            }
        }
        if at_end {
            if let Err(error) = read {
                troubles.trouble(format!("line {number}"), read_failure(&error));
            }
            break;
        }
    }
    if !troubles.is_empty() {
        send(troubles);
    }
}

/// Why a line is passed over.
pub(crate) fn too_long(max_bytes: usize) -> String {
    format!("a line longer than {max_bytes} bytes")
}

/// The lines of a batch that are not blank, with their numbers, the first being `number`.
pub(crate) fn lines_of(bytes: &[u8], number: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', bytes).chain((bytes.last() != Some(&b'\n')).then_some(bytes.len()));
    let lines = ends.map(move |end| &bytes[std::mem::replace(&mut start, end + 1)..end]);
    (number..).zip(lines).filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` bytes of one letter without a line end, made as they are asked for, then `tail`.
    fn endless(n: u64, tail: &'static [u8]) -> impl Read {
        std::io::repeat(b'x').take(n).chain(tail)
    }

    #[test]
    fn a_line_of_a_gigabyte_is_skipped_in_bounded_memory_and_the_next_is_read() {
        let mut lines = Lines::new(b"{}\n".chain(endless(1 << 30, b"\n{\"after\":1}\n")), 16 << 20);
        let (mut seen, mut most) = (Vec::new(), 0);
        loop {
            match lines.next().unwrap() {
                Next::Line => seen.push((lines.number(), String::from_utf8(lines.line().to_vec()).unwrap())),
                Next::TooLong => seen.push((lines.number(), "too long".to_owned())),
                Next::End => break,
            }
            most = most.max(lines.held());
        }
        assert_eq!(seen, [(1, "{}".to_owned()), (2, "too long".to_owned()), (3, "{\"after\":1}".to_owned())]);
        // The line's buffer doubles up to the limit and is dropped when the limit is passed.
        assert!(most <= (32 << 20) + READ_BYTES, "{most} bytes held");
    }

    #[test]
    fn a_last_line_without_an_end_counts_and_empty_lines_keep_the_numbers() {
        let mut got = Vec::new();
        split_lines(&b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"b\":2}"[..], 100, &Pool::default(), &mut |batch| {
            got.extend(lines(&batch));
            true
        });
        assert_eq!(got, [(1, "{\"a\":1}\r".to_owned()), (4, "{\"b\":2}".to_owned())]);
    }

    fn lines(batch: &Batch) -> Vec<(u64, String)> {
        let of = |p: &Piece| lines_of(&batch.bytes[p.range.clone()], p.line).map(|(n, l)| (n, String::from_utf8_lossy(l).into_owned()));
        batch.pieces.iter().flat_map(|p| of(p).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn batches_end_where_lines_do() {
        let line = |k: usize| format!("{k} {}", "y".repeat(k * 977 % 60_000));
        let text: String = (1..200).map(|k| line(k) + "\n").collect();
        let (mut got, mut n_batches) = (Vec::new(), 0);
        split_lines(text.as_bytes(), 100_000, &Pool::default(), &mut |batch| {
            got.extend(lines(&batch));
            n_batches += 1;
            true
        });
        assert_eq!(got, (1..200).map(|k| (k as u64, line(k))).collect::<Vec<_>>());
        assert!(n_batches > 3, "{n_batches}");
    }

    #[test]
    fn a_line_longer_than_a_batch_is_read_or_passed_over() {
        let long = "z".repeat(3 * BATCH_BYTES);
        for (max_bytes, expected) in [(4 * BATCH_BYTES, vec![1, 2, 3]), (2 * BATCH_BYTES, vec![1, 3])] {
            let (mut got, mut troubles) = (Vec::new(), Vec::new());
            split_lines(format!("a\n{long}\nb").as_bytes(), max_bytes, &Pool::default(), &mut |batch| {
                got.extend(lines(&batch).into_iter().map(|(n, _)| n));
                troubles.extend(batch.troubles.iter().map(|t| t.position.clone()));
                true
            });
            assert_eq!(got, expected);
            assert_eq!(troubles.len(), 3 - expected.len());
            assert!(troubles.iter().all(|t| t == "line 2"));
        }
    }

    #[test]
    fn a_gigabyte_without_an_end_is_batched_in_bounded_memory() {
        let (mut most, mut troubles) = (0, Vec::new());
        split_lines(b"{}\n".chain(endless(1 << 30, b"\n{\"after\":1}\n")), 16 << 20, &Pool::default(), &mut |batch| {
            most = most.max(batch.bytes.capacity());
            troubles.extend(batch.troubles.iter().map(|t| t.position.clone()));
            true
        });
        assert_eq!(troubles, ["line 2"]);
        assert!(most <= 2 * BATCH_BYTES, "{most}");
    }
}
