//! A cell of a table, from text or from Parquet.

use std::borrow::Cow;

use synovia_cohort::Time;

use crate::time::{chart_time, in_chart};

const DAY: i64 = 86_400;

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Absent,
    Text(&'a str),
    Int(i64),
    Number(f64),
    /// Seconds since 1970 in UTC.
    Moment(i64),
    /// Days since 1970.
    Day(i64),
}

/// A cell is not of the type that its column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongType;

/// A text that says nothing, in any of the ways that tables say it.
pub(crate) fn missing(text: &str) -> bool {
    text.is_empty() || ["na", "n/a", "nan", "null", "none", "?", "."].iter().any(|m| text.eq_ignore_ascii_case(m))
}

impl<'a> Cell<'a> {
    /// A cell of a text table, trimmed.
    pub(crate) fn of_text(text: &'a str) -> Self {
        if text.is_empty() { Self::Absent } else { Self::Text(text) }
    }

    /// Whether it says nothing.
    pub(crate) fn is_absent(self) -> bool {
        match self {
            Self::Absent => true,
            Self::Text(text) => missing(text.trim()),
            Self::Number(x) => x.is_nan(),
            _ => false,
        }
    }

    /// Its words; empty where absent.
    pub(crate) fn text(self) -> Cow<'a, str> {
        match self {
            Self::Absent => "".into(),
            Self::Text(text) => text.trim().into(),
            Self::Int(x) | Self::Day(x) => x.to_string().into(),
            Self::Number(x) => x.to_string().into(),
            Self::Moment(seconds) => Time::from_seconds(seconds).to_string().into(),
        }
    }

    /// Its number, which may be infinite.
    pub(crate) fn number(self) -> Result<Option<f64>, WrongType> {
        match self {
            _ if self.is_absent() => Ok(None),
            Self::Text(text) => text.trim().parse().map(Some).map_err(|_| WrongType),
            Self::Int(x) => Ok(Some(x as f64)),
            Self::Number(x) => Ok(Some(x)),
            _ => Err(WrongType),
        }
    }

    /// Its whole number.
    pub(crate) fn integer(self) -> Result<Option<i64>, WrongType> {
        match self {
            _ if self.is_absent() => Ok(None),
            Self::Int(x) => Ok(Some(x)),
            Self::Text(text) if text.trim().parse::<i64>().is_ok() => Ok(text.trim().parse().ok()),
            // Tables that pass through pandas have whole numbers with a full stop where a column has empty cells.
            _ => match self.number()? {
                Some(x) if x.fract() == 0.0 && x.abs() < 9e15 => Ok(Some(x as i64)),
                _ => Err(WrongType),
            },
        }
    }

    /// Its time, and whether that is more than a date: a date stands for its last moment.
    pub(crate) fn time(self) -> Result<Option<(Time, bool)>, WrongType> {
        let time = match self {
            _ if self.is_absent() => return Ok(None),
            Self::Text(text) => {
                let text = iso(text.trim());
                return chart_time(&text).map(|time| Some((time, text.contains('T')))).ok_or(WrongType);
            }
            Self::Moment(seconds) => (Time::from_seconds(seconds), true),
            Self::Day(day) => (Time::from_seconds(day.saturating_mul(DAY).saturating_add(DAY - 1)), false),
            Self::Int(_) | Self::Number(_) | Self::Absent => return Err(WrongType),
        };
        if in_chart(time.0) { Ok(Some(time)) } else { Err(WrongType) }
    }

    /// The start of the day of birth that it says.
    pub(crate) fn birth(self) -> Result<Option<Time>, WrongType> {
        match self {
            Self::Text(text) if !self.is_absent() => {
                let text = iso(text.trim());
                let date = text.split('T').next().unwrap_or_default();
                self.time()?;
                Time::parse_birth(date).map(Some).map_err(|_| WrongType)
            }
            _ => Ok(self.time()?.map(|(time, _)| Time::from_seconds(time.seconds().div_euclid(DAY) * DAY))),
        }
    }
}

/// A time as FHIR writes it: with a `T`, and with hyphens in `YYYYMMDD`.
fn iso(text: &str) -> Cow<'_, str> {
    if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) {
        return format!("{}-{}-{}", &text[..4], &text[4..6], &text[6..]).into();
    }
    if text.as_bytes().get(10) == Some(&b' ') { text.replacen(' ', "T", 1).into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (cell, expected) in [
            (Cell::Text("2020-05-04"), Ok(Some(("2020-05-04T23:59:59Z", false)))),
            (Cell::Text("20200504"), Ok(Some(("2020-05-04T23:59:59Z", false)))),
            (Cell::Text("2020-05-04 10:00:00"), Ok(Some(("2020-05-04T10:00:00Z", true)))),
            (Cell::Text("2020-05-04T10:00:00+02:00"), Ok(Some(("2020-05-04T08:00:00Z", true)))),
            (Cell::Text("2020"), Ok(Some(("2020-12-31T23:59:59Z", false)))),
            (Cell::Text("null"), Ok(None)),
            (Cell::Text("soon"), Err(WrongType)),
            (Cell::Text("2020-05-04é"), Err(WrongType)),
            (Cell::Moment(0), Ok(Some(("1970-01-01T00:00:00Z", true)))),
            (Cell::Moment(i64::MAX), Err(WrongType)),
            (Cell::Day(1), Ok(Some(("1970-01-02T23:59:59Z", false)))),
            (Cell::Day(i64::MAX), Err(WrongType)),
            (Cell::Int(3), Err(WrongType)),
        ] {
            assert_eq!(
                cell.time().map(|time| time.map(|(t, exact)| (t.to_string(), exact))),
                expected.map(|e| e.map(|(t, x)| (t.to_owned(), x))),
                "{cell:?}"
            );
        }
    }

    #[test]
    fn numbers() {
        for (cell, number, integer) in [
            (Cell::Text("1.5"), Ok(Some(1.5)), Err(WrongType)),
            (Cell::Text("12.0"), Ok(Some(12.0)), Ok(Some(12))),
            (Cell::Text("x"), Err(WrongType), Err(WrongType)),
            (Cell::Number(f64::NAN), Ok(None), Ok(None)),
            (Cell::Int(7), Ok(Some(7.0)), Ok(Some(7))),
            (Cell::Text(" NA"), Ok(None), Ok(None)),
        ] {
            assert_eq!((cell.number(), cell.integer()), (number, integer), "{cell:?}");
        }
    }
}
