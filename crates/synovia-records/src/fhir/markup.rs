//! The words of XHTML and HTML, and of base64.

/// Elements whose end is the end of a line.
const LINES: [&str; 14] = ["p", "div", "br", "li", "tr", "table", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6"];
/// Elements whose content is no text.
const SILENT: [&str; 3] = ["script", "style", "head"];

/// The text between the tags, entities resolved, white space joined, block elements on lines of their own. What is no markup
/// passes unchanged: this reads, it does not sanitise.
pub(super) fn plain_text(markup: &str) -> String {
    let mut out = String::with_capacity(markup.len() / 2);
    let mut rest = markup;
    let mut silent: Option<String> = None;
    while let Some(at) = rest.find('<') {
        if silent.is_none() {
            words(&rest[..at], &mut out);
        }
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let Some(end) = rest.find('>') else { break };
        let tag = rest[1..end].trim_end_matches('/').trim();
        let (closing, tag) = tag.strip_prefix('/').map_or((false, tag), |tag| (true, tag));
        let name = tag.split(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default().to_ascii_lowercase();
        if LINES.contains(&name.as_str()) && !out.is_empty() && !out.ends_with('\n') {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        } else if name == "td" || name == "th" {
            words(" ", &mut out);
        }
        match &silent {
            Some(open) if closing && *open == name => silent = None,
            None if !closing && SILENT.contains(&name.as_str()) && !rest[..end].ends_with('/') => silent = Some(name),
            _ => {}
        }
        rest = &rest[end + 1..];
    }
    if silent.is_none() && !rest.starts_with('<') {
        words(rest, &mut out);
    }
    out.truncate(out.trim_end().len());
    out
}

/// An entity with its `&` and `;`: what is longer is none.
const MAX_ENTITY_BYTES: usize = 11;

/// Appends text with its entities resolved and its white space as single spaces.
fn words(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        let mut found = c;
        if c == '&'
            && let Some(end) = rest.bytes().take(MAX_ENTITY_BYTES).position(|b| b == b';')
            && let Some(named) = entity(&rest[1..end])
        {
            (found, used) = (named, end + 1);
        }
        if found.is_whitespace() {
            if !out.is_empty() && !out.ends_with([' ', '\n']) {
                out.push(' ');
            }
        } else {
            out.push(found);
        }
        rest = &rest[used..];
    }
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    })
}

/// RFC 4648 §4, white space passed over; `None` for anything else.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut n_bits) = (0u32, 0);
    let mut padding = false;
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let digit = match byte {
            b'=' => {
                padding = true;
                continue;
            }
            _ if padding => return None,
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            out.push((bits >> n_bits) as u8);
            bits &= (1 << n_bits) - 1;
        }
    }
    // Fewer than six bits may be left over, and they are zero.
    (n_bits < 6 && bits == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(markup: &str, text: &str) {
        assert_eq!(plain_text(markup), text);
    }

    #[test]
    fn words_of_a_narrative() {
        check(
            "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>No  <b>effusion</b>.</p><p>Heart &lt; 50&#160;% &amp; normal</p></div>",
            "No effusion.\nHeart < 50 % & normal",
        );
        check("<table><tr><td>CRP</td><td>5 mg/L</td></tr><tr><td>CEA</td><td>2</td></tr></table>", "CRP 5 mg/L\nCEA 2");
        check("<style>p { a: b }</style>a<!-- <p>not this</p> -->b<br/>c", "ab\nc");
        check("plain & simple; no tags", "plain & simple; no tags");
        check("cut <b", "cut");
        check("&#x001F600;", "\u{1f600}");
        check("&#xZZ; &unknown; &#99999999;", "&#xZZ; &unknown; &#99999999;");
    }

    #[test]
    fn ampersands_without_an_end_are_read_in_one_go() {
        let start = std::time::Instant::now();
        let text = "&".repeat(5 << 20);
        check(&text, &text);
        assert!(start.elapsed().as_secs() < 10);
    }

    #[test]
    fn base64_of_the_rfc() {
        // RFC 4648 §10.
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(coded).as_deref(), Some(plain.as_bytes()), "{coded}");
        }
        for bad in ["Zg=x", "Z", "Zm9v!", "Zh=="] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_words(text in ".{0,200}") {
            plain_text(&text);
        }
    }
}
