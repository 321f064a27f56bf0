//! The first part of a multipart answer (RFC 2046 §5.1, PS3.18 §8.7.1), as it comes.

use std::io::{self, BufRead, Read, Write};

use memchr::memmem;

const MAX_HEADER_BYTES: u64 = 64 << 10;

/// Copies the first part of `from` to `out`, or all of it when `content_type` names no parts.
///
/// # Errors
/// The answer ends before the part does, has more than `limit` bytes, or is not of this form.
pub(super) fn first_part(content_type: &str, mut from: impl BufRead, out: &mut impl Write, limit: u64) -> io::Result<()> {
    if !content_type.trim_start().to_ascii_lowercase().starts_with("multipart/") {
        let n = io::copy(&mut from.take(limit + 1), out)?;
        return if n > limit { Err(too_large()) } else { Ok(()) };
    }
    let boundary =
        boundary(content_type).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a multipart answer without boundary"))?;
    let opening = format!("--{boundary}");
    let mut head = (&mut from).take(MAX_HEADER_BYTES);
    let mut within = false;
    loop {
        let mut line = Vec::new();
        if head.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_ascii_end();
        match within {
            true if line.is_empty() => break,
            true => {}
            false => within = line == opening.as_bytes(),
        }
    }
    let closing = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(closing.as_bytes());
    let (mut held, mut chunk, mut n) = (Vec::new(), vec![0; 64 << 10], 0u64);
    loop {
        let k = from.read(&mut chunk)?;
        if k == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        held.extend_from_slice(&chunk[..k]);
        let end = finder.find(&held);
        let sure = end.unwrap_or_else(|| held.len().saturating_sub(closing.len()));
        n += sure as u64;
        if n > limit {
            return Err(too_large());
        }
        out.write_all(&held[..sure])?;
        held.drain(..sure);
        if end.is_some() {
            return Ok(());
        }
    }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "larger than 1 GiB")
}

fn boundary(content_type: &str) -> Option<&str> {
    let at = content_type.to_ascii_lowercase().find("boundary=")? + "boundary=".len();
    let rest = &content_type[at..];
    let boundary = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split([';', ' ']).next()?,
    };
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content_type: &str, body: &[u8], expected: Result<&[u8], io::ErrorKind>) {
        // However the network cuts it.
        for capacity in [1, 7, 4096] {
            let mut out = Vec::new();
            let result = first_part(content_type, io::BufReader::with_capacity(capacity, body), &mut out, 100);
            assert_eq!(result.map(|()| &out[..]).map_err(|error| error.kind()), expected);
        }
    }

    #[test]
    fn parts() {
        let body = b"ignored\r\n--b1\r\nContent-Type: application/dicom\r\n\r\nDICM\r\n--\r\n\r\n-\r\n--b1--\r\n";
        check("multipart/related; type=\"application/dicom\"; boundary=b1", body, Ok(b"DICM\r\n--\r\n\r\n-"));
        check("Multipart/Related;Boundary=\"b1\";x=y", body, Ok(b"DICM\r\n--\r\n\r\n-"));
        check("application/dicom", b"DICM", Ok(b"DICM"));
        check("multipart/related; boundary=b1", &body[..body.len() - 8], Err(io::ErrorKind::UnexpectedEof));
        check("multipart/related; boundary=b2", body, Err(io::ErrorKind::UnexpectedEof));
        check("multipart/related", body, Err(io::ErrorKind::InvalidData));
        check("application/dicom", &[7; 101], Err(io::ErrorKind::InvalidData));
        let long = [&b"--b1\r\n\r\n"[..], &[7; 200], b"\r\n--b1--"].concat();
        check("multipart/related; boundary=b1", &long, Err(io::ErrorKind::InvalidData));
    }
}
