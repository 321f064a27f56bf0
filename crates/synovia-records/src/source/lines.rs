//! Lines of bounded length from any reader.

use std::io::{BufRead, BufReader, Read};

use super::batch::{Batch, PieceKind, read_failure};
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

/// A resource a line. `send` takes each full batch and says whether to go on.
pub(crate) fn split_lines(reader: impl Read, max_bytes: usize, send: &mut dyn FnMut(Batch) -> bool) {
    let mut lines = Lines::new(reader, max_bytes);
    let mut batch = Batch::default();
    loop {
        match lines.next() {
            Ok(Next::Line) => {
                if !lines.line().iter().all(u8::is_ascii_whitespace) {
                    batch.push(PieceKind::Resource, lines.number(), lines.number(), lines.line());
                }
            }
            Ok(Next::TooLong) => {
                batch.trouble(format!("line {}", lines.number()), format!("a line longer than {max_bytes} bytes"));
            }
            Ok(Next::End) => break,
            Err(error) => {
                batch.trouble(format!("line {}", lines.number()), read_failure(&error));
                break;
            }
        }
        if batch.is_full() && !send(std::mem::take(&mut batch)) {
            return;
        }
    }
    if !batch.is_empty() {
        send(batch);
    }
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
        split_lines(&b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"b\":2}"[..], 100, &mut |batch| {
            got.extend(batch.pieces.iter().map(|p| (p.place, String::from_utf8_lossy(&batch.bytes[p.range.clone()]).into_owned())));
            true
        });
        assert_eq!(got, [(1, "{\"a\":1}\r".to_owned()), (4, "{\"b\":2}".to_owned())]);
    }
}
