//! What is said of a patient, borrowed from where it was read.

use std::fmt;

use synovia_cohort::{Event, EventKind, EventValue, Time};

/// A code as `system|code`, or a word without a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// Empty where the source leaves it out; `None` where there is none to leave out.
    pub(crate) system: Option<&'a str>,
    pub(crate) code: &'a str,
}

impl<'a> Token<'a> {
    pub(crate) const fn new(system: &'a str, code: &'a str) -> Self {
        Self { system: Some(system), code }
    }

    pub(crate) const fn bare(code: &'a str) -> Self {
        Self { system: None, code }
    }
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(system) = self.system {
            f.write_str(system)?;
            f.write_str("|")?;
        }
        f.write_str(self.code)
    }
}

/// [`EventValue`], borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    None,
    Number { value: f64, unit: &'a str },
    Code(Token<'a>),
    Text(&'a str),
}

/// [`Event`], borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Said<'a> {
    pub(crate) time: Time,
    pub(crate) kind: EventKind,
    pub(crate) code: Token<'a>,
    pub(crate) display: &'a str,
    pub(crate) value: Value<'a>,
}

impl<'a> From<&'a EventValue> for Value<'a> {
    fn from(value: &'a EventValue) -> Self {
        match value {
            EventValue::None => Self::None,
            EventValue::Number { value, unit } => Self::Number { value: *value, unit },
            EventValue::Code(code) => Self::Code(Token::bare(code)),
            EventValue::Text(text) => Self::Text(text),
        }
    }
}

impl<'a> From<&'a Event> for Said<'a> {
    fn from(event: &'a Event) -> Self {
        let (code, value) = (Token::bare(&event.code), (&event.value).into());
        Self { time: event.time, kind: event.kind, code, display: &event.display, value }
    }
}
