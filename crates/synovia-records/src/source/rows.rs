//! Rows of a table, of bounded length, and their fields.

use std::borrow::Cow;
use std::io::Read;

use super::batch::{Batch, PieceKind, read_failure};
use super::lines::{Lines, Next};

/// A quoted field may run over lines, but not over more bytes than this: an unclosed quote would swallow the file.
const MAX_QUOTED_BYTES: usize = 1 << 20;

/// Whether a quoted field is open after `line`, `open` before it (RFC 4180 §2.5–2.7: only a quote that begins a field opens one).
fn quote_open(line: &[u8], delimiter: u8, mut open: bool) -> bool {
    let mut at_start = !open;
    let mut k = 0;
    while k < line.len() {
        let byte = line[k];
        if open {
            if byte == b'"' {
                if line.get(k + 1) == Some(&b'"') {
                    k += 1;
                } else {
                    open = false;
                }
            }
        } else if byte == b'"' && at_start {
            open = true;
        }
        at_start = !open && byte == delimiter;
        k += 1;
    }
    open
}

/// A row a piece, the header included. `send` takes each full batch and says whether to go on.
pub(crate) fn split_rows(reader: impl Read, max_bytes: usize, delimiter: u8, send: &mut dyn FnMut(Batch) -> bool) {
    let mut lines = Lines::new(reader, max_bytes);
    let mut batch = Batch::default();
    let mut row: Vec<u8> = Vec::new();
    let (mut start, mut open) = (1, false);
    loop {
        let line = match lines.next() {
            Ok(Next::Line) => lines.line(),
            Ok(Next::TooLong) => {
                batch.trouble(format!("line {}", lines.number()), format!("a line longer than {max_bytes} bytes"));
                row.clear();
                open = false;
                continue;
            }
            Ok(Next::End) => break,
            Err(error) => {
                batch.trouble(format!("line {}", lines.number()), read_failure(&error));
                open = false;
                break;
            }
        };
        if row.is_empty() {
            start = lines.number();
        } else {
            row.push(b'\n');
        }
        row.extend_from_slice(line);
        open = quote_open(line, delimiter, open);
        if open {
            if row.len() > MAX_QUOTED_BYTES {
                batch.trouble(format!("line {start}"), format!("a quoted field that does not end within {MAX_QUOTED_BYTES} bytes"));
                row.clear();
                open = false;
            }
            continue;
        }
        if !row.iter().all(u8::is_ascii_whitespace) {
            batch.push(PieceKind::Row, start, start, &row);
        }
        row.clear();
        if batch.is_full() && !send(std::mem::take(&mut batch)) {
            return;
        }
    }
    if open {
        batch.trouble(format!("line {start}"), "a quoted field that does not end");
    }
    if !batch.is_empty() {
        send(batch);
    }
}

const NOT_UTF8: &str = "not UTF-8";
const CARRIAGE_RETURN: &str = "a carriage return within the line: lines are to end with \\n or \\r\\n";

/// The fields of a row, trimmed, or why it has none.
pub(crate) fn fields(row: &[u8], delimiter: u8) -> Result<Vec<Cow<'_, str>>, &'static str> {
    if memchr::memchr(b'"', row).is_some() {
        return quoted_fields(row, delimiter);
    }
    let row = std::str::from_utf8(row).map_err(|_| NOT_UTF8)?;
    let row = row.trim_end_matches(['\r', '\n']);
    if row.contains('\r') {
        return Err(CARRIAGE_RETURN);
    }
    Ok(row.split(char::from(delimiter)).map(|field| field.trim().into()).collect())
}

fn quoted_fields(row: &[u8], delimiter: u8) -> Result<Vec<Cow<'_, str>>, &'static str> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .buffer_capacity(row.len().max(64))
        .from_reader(row);
    let mut record = csv::StringRecord::new();
    let there = reader.read_record(&mut record).map_err(|_| NOT_UTF8)?;
    let fields = if there { record.iter().map(|field| field.to_owned().into()).collect() } else { Vec::new() };
    // To the csv crate a carriage return ends a record wherever it stands.
    if there && reader.read_record(&mut record).map_err(|_| NOT_UTF8)? {
        return Err(CARRIAGE_RETURN);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, rows: &[(u64, &[&str])], trouble: &str) {
        let (mut got, mut troubles) = (Vec::new(), Vec::new());
        split_rows(text.as_bytes(), 1000, b',', &mut |batch| {
            let owned = |row: Vec<Cow<'_, str>>| row.into_iter().map(Cow::into_owned).collect();
            got.extend(batch.pieces.iter().map(|p| (p.place, owned(fields(&batch.bytes[p.range.clone()], b',').unwrap()))));
            troubles.extend(batch.troubles.iter().map(|t| format!("{}: {}", t.position, t.reason)));
            true
        });
        let rows: Vec<(u64, Vec<String>)> = rows.iter().map(|(n, f)| (*n, f.iter().map(|&s| s.to_owned()).collect())).collect();
        assert_eq!(got, rows);
        assert_eq!(troubles.join("; "), trouble);
    }

    #[test]
    fn rows_with_quotes_and_line_ends() {
        check(
            "a,b\r\n1,\"x\ny\"\n2,\"say \"\"hi\"\", all\"\n",
            &[(1, &["a", "b"]), (2, &["1", "x\ny"]), (4, &["2", "say \"hi\", all"])],
            "",
        );
        // A quote inside a field that is not quoted opens nothing.
        check("a,5\" pipe\nb,c\n", &[(1, &["a", "5\" pipe"]), (2, &["b", "c"])], "");
        check("a,\"x\ry\"\r\n", &[(1, &["a", "x\ry"])], "");
    }

    #[test]
    fn a_carriage_return_ends_no_row() {
        assert!(fields(b"1,2\r3,4", b',').is_err_and(|reason| reason.starts_with("a carriage return")));
        assert_eq!(fields(b"1,\xff", b','), Err("not UTF-8"));
    }

    #[test]
    fn a_row_that_cannot_be_cut_costs_only_itself() {
        check("a,b\n1,\"open\n", &[(1, &["a", "b"])], "line 2: a quoted field that does not end");
        check(&format!("a,b\n{}\n1,2\n", "x".repeat(2000)), &[(1, &["a", "b"]), (3, &["1", "2"])], "line 2: a line longer than 1000 bytes");
    }
}
