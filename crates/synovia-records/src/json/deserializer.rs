//! A serde deserializer over a buffer.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::block::{blank, ends_plain};
use super::skip::skip;

/// The text is not JSON, or not what was expected, or JSON of a rare kind: `serde_json` will tell which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotPlain;

impl fmt::Display for NotPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not plain JSON of the expected shape")
    }
}

impl std::error::Error for NotPlain {}

impl Error for NotPlain {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// A place in a buffer of JSON.
///
/// An object whose first member is of a name that it was told, with a text that it was told to pass over, is given to a
/// visitor that asked for a map as that text, and passed over whole: one skip instead of one a member.
pub(crate) struct Json<'de> {
    bytes: &'de [u8],
    at: usize,
    passed: (&'static str, fn(&str) -> bool),
}

impl<'de> Json<'de> {
    /// At the start of `bytes`; objects whose first member is `name` with a text for which `pass` holds are passed over.
    pub(crate) fn passing(bytes: &'de [u8], name: &'static str, pass: fn(&str) -> bool) -> Self {
        Self { bytes, at: 0, passed: (name, pass) }
    }

    /// The text of the first member of the object that is next, if the object is one to be passed over.
    fn passed_over(&mut self) -> Option<&'de str> {
        let start = self.at;
        self.at += 1;
        let found = self.first_member();
        self.at = start;
        found
    }

    fn first_member(&mut self) -> Option<&'de str> {
        if self.peek().ok()? != b'"' || self.string().ok()?.ok()? != self.passed.0 {
            return None;
        }
        self.expect(b':').ok()?;
        let text = if self.peek().ok()? == b'"' { self.string().ok()?.ok()? } else { return None };
        (self.passed.1)(text).then_some(text)
    }

    /// That nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), NotPlain> {
        if self.bytes[self.at..].iter().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) { Ok(()) } else { Err(NotPlain) }
    }

    /// Passes white space over; the byte after it, which is not consumed.
    #[inline]
    fn peek(&mut self) -> Result<u8, NotPlain> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n') => {
                    // Indentation comes in runs.
                    self.at += 1;
                    while let Some(block) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<16>) {
                        let n = blank(*block).trailing_ones();
                        self.at += n as usize;
                        if n < 16 {
                            break;
                        }
                    }
                }
                Some(b'\t' | b'\r') => self.at += 1,
                Some(&byte) => return Ok(byte),
                None => return Err(NotPlain),
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotPlain> {
        if self.peek()? != byte {
            return Err(NotPlain);
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), NotPlain> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(NotPlain);
        }
        self.at += word.len();
        Ok(())
    }

    /// The place of what ends a string's plain part, from `at` on.
    #[inline]
    fn plain_end(&self, mut at: usize) -> Result<usize, NotPlain> {
        while let Some(block) = self.bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
            let found = ends_plain(*block);
            if found != 0 {
                return Ok(at + found.trailing_zeros() as usize);
            }
            at += 16;
        }
        let rest = self.bytes.get(at..).ok_or(NotPlain)?;
        rest.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20).map(|k| at + k).ok_or(NotPlain)
    }

    /// A string, its opening quote being the next byte: as it lies there, or `Err` with the place after it when it has escapes.
    #[inline]
    fn string(&mut self) -> Result<Result<&'de str, (usize, usize)>, NotPlain> {
        let start = self.at;
        let mut end = self.plain_end(start + 1)?;
        if self.bytes[end] == b'"' {
            self.at = end + 1;
            return std::str::from_utf8(&self.bytes[start + 1..end]).map(Ok).map_err(|_| NotPlain);
        }
        while self.bytes[end] == b'\\' {
            end = self.plain_end(end + 2)?;
        }
        if self.bytes[end] != b'"' {
            return Err(NotPlain);
        }
        self.at = end + 1;
        Ok(Err((start, end + 1)))
    }

    fn visit_string<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, NotPlain> {
        match self.string()? {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err((start, end)) => visitor.visit_string(serde_json::from_slice(&self.bytes[start..end]).map_err(|_| NotPlain)?),
        }
    }

    /// A number by the grammar of RFC 8259 §6.
    fn number(&mut self) -> Result<(&'de str, bool), NotPlain> {
        let text = &self.bytes[self.at..];
        let digits = |from: usize| text.get(from..).map_or(0, |t| t.iter().take_while(|b| b.is_ascii_digit()).count());
        let start = usize::from(text.first() == Some(&b'-'));
        let whole = digits(start);
        if whole == 0 || whole > 1 && text[start] == b'0' {
            return Err(NotPlain);
        }
        let mut end = start + whole;
        let mut is_integer = true;
        if text.get(end) == Some(&b'.') {
            let n = digits(end + 1);
            if n == 0 {
                return Err(NotPlain);
            }
            end += 1 + n;
            is_integer = false;
        }
        if matches!(text.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
            let n = digits(end + 1 + sign);
            if n == 0 {
                return Err(NotPlain);
            }
            end += 1 + sign + n;
            is_integer = false;
        }
        self.at += end;
        Ok((std::str::from_utf8(&text[..end]).map_err(|_| NotPlain)?, is_integer))
    }

    fn visit_number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, NotPlain> {
        let (text, is_integer) = self.number()?;
        if is_integer && let Ok(integer) = text.parse::<i64>() {
            return visitor.visit_i64(integer);
        }
        // A number beyond the range of f64 is for serde_json to refuse.
        let number: f64 = text.parse().map_err(|_| NotPlain)?;
        if number.is_finite() { visitor.visit_f64(number) } else { Err(NotPlain) }
    }

    /// Passes a value over.
    fn pass(&mut self) -> Result<(), NotPlain> {
        match self.peek()? {
            b'{' | b'[' => self.at = skip(self.bytes, self.at).ok_or(NotPlain)?,
            b'"' => {
                let mut end = self.plain_end(self.at + 1)?;
                while self.bytes[end] == b'\\' {
                    end = self.plain_end(end + 2)?;
                }
                if self.bytes[end] != b'"' {
                    return Err(NotPlain);
                }
                self.at = end + 1;
            }
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => {
                self.number()?;
            }
        }
        Ok(())
    }
}

impl<'de> Deserializer<'de> for &mut Json<'de> {
    type Error = NotPlain;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotPlain> {
        match self.peek()? {
            b'{' => {
                self.at += 1;
                let mut first = true;
                let value = visitor.visit_map(Members { json: self, first: &mut first })?;
                // A visitor that has taken all it wants has still to be at the end.
                self.expect(b'}')?;
                Ok(value)
            }
            b'[' => {
                self.at += 1;
                let mut first = true;
                let value = visitor.visit_seq(Elements { json: self, first: &mut first })?;
                self.expect(b']')?;
                Ok(value)
            }
            b'"' => self.visit_string(visitor),
            b't' => self.word(b"true").and_then(|()| visitor.visit_bool(true)),
            b'f' => self.word(b"false").and_then(|()| visitor.visit_bool(false)),
            b'n' => self.word(b"null").and_then(|()| visitor.visit_unit()),
            _ => self.visit_number(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotPlain> {
        if self.peek()? != b'{' {
            return Err(NotPlain);
        }
        if let Some(text) = self.passed_over() {
            self.pass()?;
            return visitor.visit_borrowed_str(text);
        }
        self.deserialize_any(visitor)
    }

    /// Names are compared as bytes.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotPlain> {
        if self.peek()? != b'"' {
            return Err(NotPlain);
        }
        let start = self.at + 1;
        let end = self.plain_end(start)?;
        if self.bytes[end] != b'"' {
            return self.visit_string(visitor);
        }
        self.at = end + 1;
        visitor.visit_borrowed_bytes(&self.bytes[start..end])
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotPlain> {
        if self.peek()? == b'n' {
            self.word(b"null")?;
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotPlain> {
        self.pass()?;
        visitor.visit_unit()
    }

    /// `serde_json` gives its raw values through this; they are its own affair.
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Result<V::Value, NotPlain> {
        Err(NotPlain)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct struct enum
    }
}

/// The members of an object, after its bracket.
struct Members<'a, 'de> {
    json: &'a mut Json<'de>,
    first: &'a mut bool,
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = NotPlain;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, NotPlain> {
        let mut next = self.json.peek()?;
        if next == b'}' {
            return Ok(None);
        }
        if !std::mem::replace(self.first, false) {
            self.json.expect(b',')?;
            next = self.json.peek()?;
        }
        if next != b'"' {
            return Err(NotPlain);
        }
        seed.deserialize(&mut *self.json).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, NotPlain> {
        self.json.expect(b':')?;
        seed.deserialize(&mut *self.json)
    }
}

/// The elements of an array, after its bracket.
struct Elements<'a, 'de> {
    json: &'a mut Json<'de>,
    first: &'a mut bool,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = NotPlain;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, NotPlain> {
        if self.json.peek()? == b']' {
            return Ok(None);
        }
        if !std::mem::replace(self.first, false) {
            self.json.expect(b',')?;
        }
        seed.deserialize(&mut *self.json).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    fn value(text: &str) -> Result<Value, NotPlain> {
        let mut json = Json::passing(text.as_bytes(), "kind", |_| false);
        let value = Value::deserialize(&mut json)?;
        json.end().map(|()| value)
    }

    #[track_caller]
    fn check(text: &str) {
        assert_eq!(value(text).ok(), serde_json::from_str(text).ok(), "{text}");
    }

    #[test]
    fn what_serde_json_reads() {
        for text in [
            "{}",
            "[]",
            "[1,2.5,-3e2,0,-0.0]",
            r#"{"a":{"b":[true,false,null]},"c":""}"#,
            " \n\t{ \"a\" :\r\n 1 } ",
            r#"["plain","with \"quotes\" and \\ and \u00e9 and \n", "ünïcode"]"#,
            "123",
            "\"a rather long string of more than sixteen bytes\"",
            "",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "[01]",
            "[1.]",
            "[.5]",
            "[1e]",
            "[+1]",
            "[NaN]",
            "[1]]",
            "nul",
            "\"open",
            "[1 2]",
            "[\"a\tb\"]",
            "{\"a\" 1}",
            "-",
            "[\"\\x\"]",
            "[\"\\",
            "[1e999]",
        ] {
            check(text);
        }
    }

    #[test]
    fn objects_of_a_kind_are_passed_over_whole() {
        struct Kind;
        impl<'de> Visitor<'de> for Kind {
            type Value = String;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<String, E> {
                Ok(format!("passed {text}"))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
                let mut n = 0;
                while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {
                    n += 1;
                }
                Ok(format!("read {n}"))
            }
        }
        let read = |text: &str| {
            let mut json = Json::passing(text.as_bytes(), "kind", |kind| kind == "Claim");
            let value = json.deserialize_map(Kind)?;
            json.end().map(|()| value)
        };
        assert_eq!(read(r#" { "kind" : "Claim", "x": [{}, "}"] } "#), Ok("passed Claim".to_owned()));
        assert_eq!(read(r#"{"kind":"Other","x":1}"#), Ok("read 2".to_owned()));
        assert_eq!(read(r#"{"x":1,"kind":"Claim"}"#), Ok("read 2".to_owned()));
        assert_eq!(read(r#"{"kind":7}"#), Ok("read 1".to_owned()));
        for bad in [r#"{"kind":"Claim""#, r#""Claim""#, "[]", r#"{"kind":"Claim"}}"#, r#"{"kind""#] {
            assert_eq!(read(bad), Err(NotPlain), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_edit_gives_what_serde_json_gives(edits in proptest::collection::vec((any::<prop::sample::Index>(), r"[ -~]"), 0..4)) {
            let mut text = r#"{"resourceType":"Observation","value":{"n":-12.5e1,"unit":"mg/dL \u00b5"},"list":[{"a":null},[],"x"],"flag":true}"#.to_owned();
            for (at, with) in edits {
                let k = at.index(text.len());
                text.replace_range(k..=k, &with);
            }
            prop_assert_eq!(value(&text).ok(), serde_json::from_str(&text).ok(), "{}", text);
        }

        /// What is ignored is passed over to the same place.
        #[test]
        fn ignored_values_end_where_they_end(text in r#"\[("[a\]"]{0,3}"|1|\{"k":\[\]\}| ){0,3}\]"#) {
            if let Ok(expected) = serde_json::from_str::<Value>(&text) {
                let wrapped = format!("[{text},7]");
                let mut json = Json::passing(wrapped.as_bytes(), "kind", |_| false);
                let got = <(serde::de::IgnoredAny, u64)>::deserialize(&mut json).map(|(_, n)| n);
                prop_assert_eq!(got, Ok(7), "{}", expected);
            }
        }
    }
}
