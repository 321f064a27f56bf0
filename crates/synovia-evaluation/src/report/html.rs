//! Text, numbers and tables as HTML.

use crate::Estimate;

/// Text as it may stand in an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters have no place in HTML, escaped or not.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A count with thin spaces between thousands.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A share as a percentage.
pub(super) fn percent(part: usize, whole: usize) -> String {
    if whole == 0 { "–".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// `0.871 (0.842 to 0.898)`, as far as it is known.
pub(super) fn interval_text(estimate: &Estimate) -> String {
    match (estimate.value, estimate.low, estimate.high) {
        (Some(value), Some(low), Some(high)) => format!("{value:.3} ({low:.3} to {high:.3})"),
        (Some(value), ..) => format!("{value:.3}"),
        _ => "–".to_owned(),
    }
}

/// An estimate as a cell: the value, and its interval beneath.
pub(super) fn estimate_cell(estimate: Option<&Estimate>) -> String {
    let Some(estimate) = estimate else { return "<td class=\"n\">–</td>".to_owned() };
    let note = estimate.note.as_ref().map(|note| format!(" title=\"{}\"", escape(note))).unwrap_or_default();
    let mark = if estimate.note.is_some() { "<sup>*</sup>" } else { "" };
    match (estimate.value, estimate.low, estimate.high) {
        (Some(value), Some(low), Some(high)) => {
            format!("<td class=\"n\"{note}>{value:.3}{mark}<small>{low:.3} to {high:.3}</small></td>")
        }
        (Some(value), ..) => format!("<td class=\"n\"{note}>{value:.3}{mark}</td>"),
        _ => format!("<td class=\"n\"{note}>–{mark}</td>"),
    }
}

/// The notes of estimates that are marked in a table, each once: a pointer alone reads them in their cells.
pub(super) fn marks<'a>(estimates: impl Iterator<Item = &'a Estimate>) -> String {
    let all: std::collections::BTreeSet<String> = estimates.filter_map(|e| e.note.as_ref()).map(|note| format!("* {note}")).collect();
    notes(&all.into_iter().collect::<Vec<_>>())
}

/// A table that scrolls by itself on a narrow screen. `head` and `rows` are cells already in HTML.
pub(super) fn table(caption: &str, head: &str, rows: &str) -> String {
    let caption = escape(caption);
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table><caption>{caption}</caption>\
         <thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// Heads of a table: a name starting with `#` is of a column of numbers.
pub(super) fn heads(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| match name.strip_prefix('#') {
            Some(name) => format!("<th scope=\"col\" class=\"n\">{}</th>", escape(name)),
            None => format!("<th scope=\"col\">{}</th>", escape(name)),
        })
        .collect()
}

/// A list of notes, nothing where there are none.
pub(super) fn notes(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let items: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    format!("<ul class=\"notes\">{items}</ul>")
}
