//! Lengths of time as people write them: `365d`, `12h`, `2y`, `6mo`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A whole number of hours, days, weeks, months or years. Written and read as `12h`, `365d`, `4w`, `6mo`, `2y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSpan {
    count: u32,
    unit: TimeUnit,
}

/// Units of a [`TimeSpan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// 3,600 seconds.
    Hour,
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
    /// A twelfth of a year: 30.4375 days.
    Month,
    /// 365.25 days.
    Year,
}

const UNITS: [(&str, TimeUnit, f64); 5] = [
    ("h", TimeUnit::Hour, 1.0 / 24.0),
    ("d", TimeUnit::Day, 1.0),
    ("w", TimeUnit::Week, 7.0),
    ("mo", TimeUnit::Month, 365.25 / 12.0),
    ("y", TimeUnit::Year, 365.25),
];

/// Longer than any record.
const MAX_DAYS: f64 = 200.0 * 365.25;

/// Why a text is not a length of time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TimeSpanError {
    /// No number, or no unit, or neither.
    #[error("which is not a length of time; write a whole number and h, d, w, mo or y, such as \"365d\", \"12h\", \"6mo\" or \"2y\"")]
    Form,
    /// A number without a unit.
    #[error("which has no unit; write h, d, w, mo or y after the number, such as \"365d\"")]
    NoUnit,
    /// Zero or beyond 200 years.
    #[error("which is out of range; allowed: more than 0, at most 200y")]
    Range,
}

impl TimeSpan {
    /// `count` of `unit`; an error when that is zero or beyond 200 years.
    pub fn new(count: u32, unit: TimeUnit) -> Result<Self, TimeSpanError> {
        let span = Self { count, unit };
        if count == 0 || span.days() > MAX_DAYS { Err(TimeSpanError::Range) } else { Ok(span) }
    }

    /// Its length in days of 24 hours.
    pub fn days(self) -> f64 {
        UNITS.iter().find(|(_, unit, _)| *unit == self.unit).map_or(0.0, |(_, _, days)| f64::from(self.count) * days)
    }
}

impl FromStr for TimeSpan {
    type Err = TimeSpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        if digits == 0 {
            return Err(TimeSpanError::Form);
        }
        if unit.is_empty() {
            return Err(TimeSpanError::NoUnit);
        }
        let (_, unit, _) = UNITS.iter().find(|(name, ..)| *name == unit).ok_or(TimeSpanError::Form)?;
        Self::new(number.parse().map_err(|_| TimeSpanError::Range)?, *unit)
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = UNITS.iter().find(|(_, unit, _)| *unit == self.unit).map_or("", |(name, ..)| name);
        write!(f, "{}{name}", self.count)
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &Result<f64, TimeSpanError>) {
        assert_eq!(&text.parse::<TimeSpan>().map(TimeSpan::days), expected, "{text}");
    }

    #[test]
    fn lengths() {
        check("365d", &Ok(365.0));
        check("12h", &Ok(0.5));
        check("2y", &Ok(730.5));
        check("6mo", &Ok(182.625));
        check(" 4 w ", &Ok(28.0));
        check("200y", &Ok(73050.0));
        check("201y", &Err(TimeSpanError::Range));
        check("0d", &Err(TimeSpanError::Range));
        check("99999999999d", &Err(TimeSpanError::Range));
        check("365", &Err(TimeSpanError::NoUnit));
        for form in ["", "d", "1.5y", "-1d", "1m", "1 year", "५d", "1d2h"] {
            check(form, &Err(TimeSpanError::Form));
        }
    }
}
