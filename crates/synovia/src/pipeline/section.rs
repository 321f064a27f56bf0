//! One section being read: each getter checks a value's kind and range, and names what is allowed.

use std::cell::RefCell;
use std::ops::{Bound, RangeBounds};

use super::problem::{Place, Problem, nearest, quoted};
use super::span::TimeSpan;
use super::tree::{Node, Table, Value};

/// Problems as they are found; the reading goes on, so that one run of the program shows them all.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn push(&self, place: &Place, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem::new(place.clone(), message.into()));
    }

    /// All of them: those of the file by line, then those of the command line.
    pub(super) fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.0.into_inner();
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        problems.dedup();
        problems
    }
}

/// A table of the document with the keys that it may have.
pub(super) struct Section<'a> {
    /// `[model]`, as the file writes it; empty for the top level.
    pub label: String,
    pub place: Place,
    pub problems: &'a Problems,
    table: Option<&'a Table>,
}

impl<'a> Section<'a> {
    /// Opens a table and reports the keys that it may not have.
    pub(super) fn new(label: &str, place: Place, table: Option<&'a Table>, known: &[&str], problems: &'a Problems) -> Self {
        let section = Self { label: label.to_owned(), place, problems, table };
        for (key, node) in table.into_iter().flat_map(|table| &table.entries) {
            if known.contains(&key.as_str()) {
                continue;
            }
            let known_here = if section.label.is_empty() { "a pipeline has".to_owned() } else { format!("{} has", section.label) };
            let inside = if section.label.is_empty() { String::new() } else { format!(" in {}", section.label) };
            let advice = match nearest(key, known) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("{known_here} {}", quoted(known)),
            };
            problems.push(&node.place, format!("unknown key `{key}`{inside}; {advice}"));
        }
        section
    }

    /// A table under `key`; `None` (and perhaps a problem) when there is none.
    pub(super) fn table(&self, key: &str) -> Option<(&'a Table, Place)> {
        let node = self.get(key)?;
        match &node.value {
            Value::Table(table) => Some((table, node.place.clone())),
            other => {
                self.problems.push(&node.place, format!("{} must be a table, not {}", self.name(key), other.described()));
                None
            }
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.table?.get(key)
    }

    /// The place of a key, or of the section where the key is not written.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.get(key).map_or_else(|| self.place.clone(), |node| node.place.clone())
    }

    /// How messages name a key: `` `width` in [model] ``.
    pub(super) fn name(&self, key: &str) -> String {
        if self.label.is_empty() { format!("`{key}`") } else { format!("`{key}` in {}", self.label) }
    }

    pub(super) fn wrong(&self, key: &str, message: impl Into<String>) {
        self.problems.push(&self.place_of(key), message);
    }

    pub(super) fn missing(&self, key: &str, advice: &str) {
        let who = if self.label.is_empty() { "the pipeline".to_owned() } else { self.label.clone() };
        self.problems.push(&self.place, format!("{who} has no `{key}`; {advice}"));
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        let node = self.get(key)?;
        match (&node.value, &node.typed) {
            (Value::Text(text), _) => Some(text.clone()),
            // `--set name=0x10`, to the letter.
            (Value::Integer(_) | Value::HugeInteger(_) | Value::Float(_) | Value::Boolean(_) | Value::Date(_), Some(typed)) => {
                Some(typed.clone())
            }
            (other, _) => {
                self.problems.push(&node.place, format!("{} must be a text in quotes, not {}", self.name(key), other.described()));
                None
            }
        }
    }

    /// A text that is not empty.
    pub(super) fn word(&self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        if text.trim().is_empty() {
            self.wrong(key, format!("{} is empty", self.name(key)));
            return None;
        }
        Some(text)
    }

    /// One of a few words. `later` are words that other versions of the program will take, with the reason why this one does not.
    pub(super) fn choice<T: Copy>(&self, key: &str, allowed: &[(&str, T)], later: &[(&str, &str)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, value)) = allowed.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = allowed.iter().map(|(word, _)| *word).collect();
        let later =
            later.iter().find(|(word, _)| *word == text).map(|(_, reason)| format!("{key} = \"{text}\" {reason}: {}", words.join(", ")));
        let message = later.unwrap_or_else(|| {
            let meant = nearest(&text, &words).map(|word| format!("; did you mean \"{word}\"?")).unwrap_or_default();
            format!("{} is \"{text}\"; allowed: {}{meant}", self.name(key), words.join(", "))
        });
        self.wrong(key, message);
        None
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        match &node.value {
            Value::Boolean(flag) => Some(*flag),
            other => {
                self.problems.push(&node.place, format!("{} must be true or false, not {}", self.name(key), other.described()));
                None
            }
        }
    }

    /// A whole number in a range.
    pub(super) fn integer(&self, key: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let node = self.get(key)?;
        let message = match &node.value {
            Value::Integer(number) if range.contains(number) => return Some(*number),
            Value::Integer(_) | Value::HugeInteger(_) => "is out of range",
            _ => "is not a whole number",
        };
        let got = node.value.described();
        let limits =
            if *range.end() == i64::MAX { format!("{} or more", range.start()) } else { format!("{} to {}", range.start(), range.end()) };
        self.problems.push(&node.place, format!("{} is {got}, which {message}; allowed: {limits}", self.name(key)));
        None
    }

    pub(super) fn count(&self, key: &str, range: std::ops::RangeInclusive<usize>) -> Option<usize> {
        let number = self.integer(key, *range.start() as i64..=(*range.end()).min(i64::MAX as usize) as i64)?;
        usize::try_from(number).ok()
    }

    /// A number in a range; whole numbers count as numbers.
    pub(super) fn number(&self, key: &str, range: impl RangeBounds<f64>) -> Option<f64> {
        let node = self.get(key)?;
        let number = match &node.value {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            _ => None,
        };
        let got = node.value.described();
        let message = match number {
            Some(number) if number.is_finite() && range.contains(&number) => return Some(number),
            Some(_) => format!("{} is {got}, which is out of range; allowed: {}", self.name(key), limits(&range)),
            None => format!("{} must be a number, not {got}", self.name(key)),
        };
        self.problems.push(&node.place, message);
        None
    }

    pub(super) fn span(&self, key: &str) -> Option<TimeSpan> {
        let text = self.text(key)?;
        match text.parse() {
            Ok(span) => Some(span),
            Err(error) => {
                self.wrong(key, format!("{} is \"{text}\", {error}", self.name(key)));
                None
            }
        }
    }

    /// A list of different texts, none of them empty.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let node = self.get(key)?;
        let Value::Array(items) = &node.value else {
            let got = node.value.described();
            self.problems.push(&node.place, format!("{} must be a list of texts such as [\"a\", \"b\"], not {got}", self.name(key)));
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(text) if texts.contains(text) => {
                    self.problems.push(&item.place, format!("{} has \"{text}\" twice", self.name(key)));
                }
                Value::Text(text) if !text.trim().is_empty() => texts.push(text.clone()),
                Value::Text(_) => self.problems.push(&item.place, format!("{} has an empty text", self.name(key))),
                other => {
                    let got = other.described();
                    self.problems.push(&item.place, format!("{} must hold texts in quotes, not {got}", self.name(key)));
                }
            }
        }
        if texts.is_empty() && items.is_empty() {
            self.wrong(key, format!("{} is empty", self.name(key)));
        }
        (texts.len() == items.len() && !texts.is_empty()).then_some(texts)
    }
}

fn limits(range: &impl RangeBounds<f64>) -> String {
    let low = match range.start_bound() {
        Bound::Included(low) => Some(format!("{low} or more")),
        Bound::Excluded(low) => Some(format!("more than {low}")),
        Bound::Unbounded => None,
    };
    let high = match range.end_bound() {
        Bound::Included(high) => Some(format!("at most {high}")),
        Bound::Excluded(high) => Some(format!("less than {high}")),
        Bound::Unbounded => None,
    };
    [low, high].into_iter().flatten().collect::<Vec<_>>().join(" and ")
}
