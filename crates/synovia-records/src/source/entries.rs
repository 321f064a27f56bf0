//! The entries of a Bundle, one by one, without the Bundle ever being in memory.
//!
//! A scanner that knows strings, brackets and the keys of the outermost object is enough to find where an entry begins and
//! ends; whether it is JSON at all is for the entry's own parser to say. So a Bundle of any size costs the memory of its
//! largest entry, an entry that is broken costs that entry alone, and no depth of nesting uses the stack.

use std::io::{BufRead, BufReader, Read};

use super::batch::{Batch, Piece, PieceKind, Pool, fill, read_failure};
use super::files::READ_BYTES;

/// Keys of the outermost object are compared by this many bytes at most.
const MAX_KEY: usize = 64;

/// Which string of the outermost object is being collected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Collect {
    Nothing,
    Key,
    ResourceType,
}

/// Where the scanner is with regard to strings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    Outside,
    Inside,
    /// After a backslash.
    Escape,
}

/// Bytes up to a limit; past it, only that it was passed.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Bounded {
    fn append(&mut self, bytes: &[u8], max_bytes: usize) {
        if self.too_long || self.bytes.len() + bytes.len() > max_bytes {
            *self = Self { bytes: Vec::new(), too_long: true };
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
    }
}

/// Where the scanner is.
struct Scanner {
    max_bytes: usize,
    depth: u32,
    quote: Quote,
    line: u64,
    collect: Collect,
    key: Vec<u8>,
    resource_type: Vec<u8>,
    after_colon: bool,
    /// Depth of the array whose elements are cut, once it is found.
    elements_at: Option<u32>,
    kind: PieceKind,
    /// The element so far, and the line it began on.
    element: Bounded,
    element_line: u64,
    n_elements: u64,
    /// The outermost object so far, as long as it may be a resource of its own.
    whole: Option<Bounded>,
    done: bool,
}

impl Scanner {
    fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            depth: 0,
            quote: Quote::Outside,
            line: 1,
            collect: Collect::Nothing,
            key: Vec::new(),
            resource_type: Vec::new(),
            after_colon: false,
            elements_at: None,
            kind: PieceKind::Entry,
            element: Bounded::default(),
            element_line: 1,
            n_elements: 0,
            whole: Some(Bounded::default()),
            done: false,
        }
    }

    /// Ends the element that began at `start` of `chunk` (or earlier) and ends before `end`.
    fn end_element(&mut self, bytes: &[u8], batch: &mut Batch) {
        self.element.append(bytes, self.max_bytes);
        let blank = !self.element.too_long && self.element.bytes.iter().all(u8::is_ascii_whitespace);
        if !blank {
            self.n_elements += 1;
            if self.element.too_long {
                batch.trouble(format!("entry {}", self.n_elements), format!("an entry longer than {} bytes", self.max_bytes));
            } else {
                batch.push(self.kind, self.n_elements, self.element_line, &self.element.bytes);
            }
        }
        self.element.clear();
        self.element_line = self.line;
    }

    /// Takes a chunk. `Err` when the text can't be JSON.
    fn take(&mut self, chunk: &[u8], batch: &mut Batch) -> Result<(), &'static str> {
        let mut run = 0; // start of what is not yet appended to the element
        let mut k = 0;
        while k < chunk.len() {
            let byte = chunk[k];
            if self.quote != Quote::Outside {
                // The bulk of a Bundle is strings: run over their plain part.
                if self.quote == Quote::Inside && self.collect == Collect::Nothing {
                    k += chunk[k..].iter().position(|&b| b == b'"' || b == b'\\').unwrap_or(chunk.len() - k);
                    let Some(&byte) = chunk.get(k) else { break };
                    self.quote = if byte == b'"' { Quote::Outside } else { Quote::Escape };
                } else {
                    self.string_byte(byte);
                }
                k += 1;
                continue;
            }
            match byte {
                b'\n' => self.line += 1,
                // Indentation comes in runs.
                b' ' => k += chunk[k + 1..].iter().position(|&b| b != b' ').unwrap_or(chunk.len() - k - 1),
                b'\t' | b'\r' => {}
                _ if self.depth == 0 && self.done => return Err("text after the end of the JSON"),
                b'"' if self.depth > 0 => {
                    self.quote = Quote::Inside;
                    if self.depth == 1 && self.elements_at.is_none() {
                        self.collect = match (self.after_colon, self.key.as_slice()) {
                            (false, _) => Collect::Key,
                            (true, b"resourceType") => Collect::ResourceType,
                            _ => Collect::Nothing,
                        };
                        if self.collect == Collect::Key {
                            self.key.clear();
                        }
                    }
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    let outermost_array = self.depth == 1 && byte == b'[';
                    let entries = self.depth == 2
                        && byte == b'['
                        && self.elements_at.is_none()
                        && self.after_colon
                        && self.key == b"entry"
                        && (self.resource_type.is_empty() || self.resource_type == b"Bundle");
                    if outermost_array || entries {
                        self.kind = if entries { PieceKind::Entry } else { PieceKind::Resource };
                        self.elements_at = Some(self.depth);
                        self.whole = None;
                        self.element.clear();
                        self.element_line = self.line;
                        run = k + 1;
                    }
                }
                b'}' | b']' => {
                    if self.depth == 0 {
                        return Err("not JSON");
                    }
                    if self.elements_at == Some(self.depth) {
                        self.end_element(&chunk[run..k], batch);
                        self.elements_at = None;
                    }
                    self.depth -= 1;
                    self.done = self.depth == 0;
                }
                b',' => {
                    if self.elements_at == Some(self.depth) {
                        self.end_element(&chunk[run..k], batch);
                        run = k + 1;
                    } else if self.depth == 1 {
                        self.after_colon = false;
                    }
                }
                b':' if self.depth == 1 => self.after_colon = true,
                _ if self.depth == 0 => return Err("not JSON"),
                _ => {}
            }
            k += 1;
        }
        if self.elements_at.is_some() {
            self.element.append(&chunk[run..], self.max_bytes);
        }
        if let Some(whole) = &mut self.whole {
            whole.append(chunk, self.max_bytes);
        }
        Ok(())
    }

    fn string_byte(&mut self, byte: u8) {
        match (self.quote, byte) {
            (Quote::Escape, _) => self.quote = Quote::Inside,
            (_, b'\\') => self.quote = Quote::Escape,
            (_, b'"') => {
                self.quote = Quote::Outside;
                self.collect = Collect::Nothing;
                return;
            }
            _ => {}
        }
        let into = match self.collect {
            Collect::Nothing => return,
            Collect::Key => &mut self.key,
            Collect::ResourceType => &mut self.resource_type,
        };
        if into.len() < MAX_KEY {
            into.push(byte);
        }
    }
}

/// A JSON file of up to this size goes to a worker whole; of a larger one, and of a compressed one, only entries do.
pub(crate) const WHOLE_FILE_BYTES: u64 = 8 << 20;

/// A small file of about `n_bytes`, uncut. It is read to its end or to the size that it may have, should it have grown since it
/// was found.
pub(crate) fn whole_file(mut reader: impl Read, n_bytes: u64, pool: &Pool, send: &mut dyn FnMut(Batch) -> bool) {
    let mut batch = Batch::default();
    // One more than is there, so that its end is found without growing.
    let mut bytes = pool.take(n_bytes.min(WHOLE_FILE_BYTES) as usize + 1);
    let mut filled = 0;
    let read = loop {
        let read = fill(&mut reader, &mut bytes, &mut filled);
        if read.is_err() || filled < bytes.len() || filled as u64 >= 2 * WHOLE_FILE_BYTES {
            break read;
        }
        bytes.resize(2 * filled, 0);
    };
    if let Err(error) = read {
        batch.trouble("", read_failure(&error));
    } else {
        batch.bytes = bytes;
        batch.pieces.push(Piece { kind: PieceKind::File, place: 1, line: 1, range: 0..filled });
    }
    send(batch);
}

/// The entries of a Bundle, or the one resource that the file is. `send` takes each full batch and says whether to go on.
pub(crate) fn split_entries(reader: impl Read, max_bytes: usize, send: &mut dyn FnMut(Batch) -> bool) {
    let mut reader = BufReader::with_capacity(READ_BYTES, reader);
    let mut scanner = Scanner::new(max_bytes);
    let mut batch = Batch::default();
    let mut first = true;
    let failure = loop {
        let chunk = match reader.fill_buf() {
            Ok([]) => break (scanner.depth > 0).then_some("the JSON ends before it is closed: the entries before were taken"),
            Ok(chunk) => chunk,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => break Some(read_failure(&error)),
        };
        let used = chunk.len();
        let text = if first { chunk.strip_prefix(b"\xef\xbb\xbf").unwrap_or(chunk) } else { chunk };
        first = false;
        if let Err(reason) = scanner.take(text, &mut batch) {
            break Some(reason);
        }
        reader.consume(used);
        if batch.is_full() && !send(std::mem::take(&mut batch)) {
            return;
        }
    };
    match (failure, scanner.whole) {
        (Some(reason), _) => batch.trouble(format!("line {}", scanner.line), reason),
        (None, _) if !scanner.done => batch.trouble("", "an empty file"),
        (None, Some(whole)) if whole.too_long => batch.trouble("", format!("a resource longer than {max_bytes} bytes")),
        (None, Some(whole)) => batch.push(PieceKind::Resource, 1, 1, &whole.bytes),
        (None, None) => {}
    }
    if !batch.is_empty() {
        send(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces as text and troubles as reasons, the reader giving `step` bytes at a time.
    fn split(text: &str, max_bytes: usize) -> (Vec<String>, Vec<String>) {
        let (mut pieces, mut troubles) = (Vec::new(), Vec::new());
        split_entries(text.as_bytes(), max_bytes, &mut |batch| {
            pieces.extend(
                batch.pieces.iter().map(|p| format!("{}:{}", p.place, String::from_utf8_lossy(&batch.bytes[p.range.clone()]).trim())),
            );
            troubles.extend(batch.troubles.iter().map(|t| format!("{}: {}", t.position, t.reason)));
            true
        });
        (pieces, troubles)
    }

    #[track_caller]
    fn check(text: &str, pieces: &[&str], trouble: &str) {
        let (got, troubles) = split(text, 1000);
        assert_eq!(got, pieces);
        assert_eq!(troubles.join("; "), trouble);
    }

    #[test]
    fn entries_are_cut_where_json_ends_them() {
        check(
            r#"{"resourceType":"Bundle","entry":[{"a":"],}\""}, {"b":[1,{"c":2}]} ],"total":2}"#,
            &[r#"1:{"a":"],}\""}"#, r#"2:{"b":[1,{"c":2}]}"#],
            "",
        );
        check(r#"{"link":[{"entry":[1]}],"entry":[{"a":1}],"resourceType":"Bundle"}"#, &[r#"1:{"a":1}"#], "");
        check(r#"{"resourceType":"Bundle","entry":[]}"#, &[], "");
        check(r#"[{"a":1},{"b":2}]"#, &[r#"1:{"a":1}"#, r#"2:{"b":2}"#], "");
    }

    #[test]
    fn a_resource_of_its_own_is_given_whole() {
        check(r#"{"resourceType":"List","entry":[{"item":1}]}"#, &[r#"1:{"resourceType":"List","entry":[{"item":1}]}"#], "");
        check(r#"{"id":"entry","resourceType":"Patient"}"#, &[r#"1:{"id":"entry","resourceType":"Patient"}"#], "");
    }

    #[test]
    fn what_is_broken_is_said_and_what_came_before_kept() {
        check(
            "{\"resourceType\":\"Bundle\",\n\"entry\":[{\"a\":1},\n{\"b\"",
            &[r#"1:{"a":1}"#],
            "line 3: the JSON ends before it is closed: the entries before were taken",
        );
        check("hello", &[], "line 1: not JSON");
        check("", &[], ": an empty file");
        check("{} {}", &[], "line 1: text after the end of the JSON");
    }

    #[test]
    fn an_entry_over_the_limit_costs_only_itself() {
        let text = format!(r#"{{"resourceType":"Bundle","entry":[{{"a":1}},{{"x":"{}"}},{{"b":2}}]}}"#, "y".repeat(2000));
        check(&text, &[r#"1:{"a":1}"#, r#"3:{"b":2}"#], "entry 2: an entry longer than 1000 bytes");
    }

    #[test]
    fn a_gigabyte_entry_is_passed_over_in_bounded_memory() {
        let head = &b"{\"resourceType\":\"Bundle\",\"entry\":[{\"x\":\""[..];
        let reader = head.chain(std::io::repeat(b'y').take(1 << 30)).chain(&b"\"},{\"b\":2}]}"[..]);
        let (mut pieces, mut troubles, mut most) = (0, 0, 0);
        split_entries(reader, 16 << 20, &mut |batch| {
            pieces += batch.pieces.len();
            troubles += batch.troubles.len();
            most = most.max(batch.bytes.capacity());
            true
        });
        assert_eq!((pieces, troubles), (1, 1));
        assert!(most < 1 << 20);
    }
}
