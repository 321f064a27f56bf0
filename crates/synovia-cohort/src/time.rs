//! Points in time, in UTC, to the second.

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01T00:00:00Z. Where a source has no time zone, UTC is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(i64);

/// Why a text is not a time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TimeError {
    /// Not a date, or one that no calendar has (`0000-00-00`, `2023-02-30`).
    #[error("not a date or time: expected {expected}")]
    Invalid {
        /// The format that was expected.
        expected: &'static str,
    },
}

const DAY: i64 = 86_400;

impl Time {
    /// From seconds since 1970-01-01T00:00:00Z.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// This time and `days` more.
    pub fn plus_days(self, days: f64) -> Self {
        Self(self.0.saturating_add((days * DAY as f64).round() as i64))
    }

    /// This time and `seconds` more.
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Days from `earlier` to `self`.
    pub fn days_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / DAY as f64
    }

    /// Years of 365.25 days from `earlier` to `self`.
    pub fn years_since(self, earlier: Self) -> f64 {
        self.days_since(earlier) / 365.25
    }

    /// FHIR R4 `date`, `dateTime` or `instant`: `YYYY`, `YYYY-MM`, `YYYY-MM-DD` or with time and zone (R4 §2.24.0.1).
    ///
    /// A partial date stands for its **last** moment: an event "in 2020" may have happened on its last day, so counting it
    /// from an earlier one could let the future into an input.
    pub fn parse_fhir(text: &str) -> Result<Self, TimeError> {
        const EXPECTED: &str = "YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss+zz:zz";
        let invalid = TimeError::Invalid { expected: EXPECTED };
        let text = text.trim();
        if let Some(seconds) = usual(text.as_bytes()) {
            return Ok(Self(seconds));
        }
        if text.contains('T') {
            if let Ok(time) = DateTime::parse_from_rfc3339(text) {
                return Ok(Self(time.timestamp()));
            }
            for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
                if let Ok(time) = NaiveDateTime::parse_from_str(text.trim_end_matches('Z'), format) {
                    return Ok(Self(time.and_utc().timestamp()));
                }
            }
            return Err(invalid);
        }
        if !text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            return Err(invalid);
        }
        let next = match text.len() {
            4 => text.parse().ok().and_then(|year: i32| NaiveDate::from_ymd_opt(year + 1, 1, 1)),
            7 => {
                NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok().and_then(|d| d.checked_add_months(chrono::Months::new(1)))
            }
            10 => NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|d| d.succ_opt()),
            _ => None,
        }
        .ok_or(invalid)?;
        let end = Self(next.and_time(NaiveTime::MIN).and_utc().timestamp() - 1);
        // A year of 0 parses in the proleptic calendar; no clinical date has it.
        if text.starts_with("0000") { Err(TimeError::Invalid { expected: EXPECTED }) } else { Ok(end) }
    }

    /// A birth date: the **first** moment of a full or partial date.
    pub fn parse_birth(text: &str) -> Result<Self, TimeError> {
        let end = Self::parse_fhir(text)?;
        Ok(match text.trim().len() {
            4 => Self(end.0 + 1 - DAY * if leap(&text.trim()[..4]) { 366 } else { 365 }),
            7 => Self::parse_fhir(&format!("{}-01", text.trim()))?.plus_seconds(1 - DAY),
            10 => end.plus_seconds(1 - DAY),
            _ => end,
        })
    }

    /// DICOM DA (`YYYYMMDD`, PS3.5 §6.2) with an optional TM (`HHMMSS.FFFFFF`, its parts optional from the right).
    /// Without a TM the last moment of the day, for the reason that [`Time::parse_fhir`] gives.
    pub fn parse_dicom(date: &str, time: Option<&str>) -> Result<Self, TimeError> {
        const EXPECTED: &str = "a DICOM date YYYYMMDD and time HHMMSS";
        let invalid = || TimeError::Invalid { expected: EXPECTED };
        let date = date.trim_matches([' ', '\0']).replace('.', "");
        if date.starts_with("0000") || date.len() != 8 {
            return Err(invalid());
        }
        let date = NaiveDate::parse_from_str(&date, "%Y%m%d").map_err(|_| invalid())?;
        let time = time.map(|t| t.trim_matches([' ', '\0']).replace(':', "")).filter(|t| !t.is_empty());
        let Some(time) = time else {
            return Ok(Self(date.and_time(NaiveTime::MIN).and_utc().timestamp() + DAY - 1));
        };
        let whole = time.split('.').next().unwrap_or_default();
        if whole.len() > 6 || whole.len() % 2 == 1 || !whole.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let part = |k: usize| whole.get(2 * k..2 * k + 2).map_or(Ok(0), str::parse::<u32>).map_err(|_| invalid());
        // PS3.5 allows 60 for a leap second.
        let time = NaiveTime::from_hms_opt(part(0)?, part(1)?, part(2)?.min(59)).ok_or_else(invalid)?;
        Ok(Self(date.and_time(time).and_utc().timestamp()))
    }
}

/// The two forms that charts are full of, `YYYY-MM-DDThh:mm:ss` with a fraction or none and a zone, and `YYYY-MM-DD`, without
/// what a general parser costs; `None` for any other text, and for what is none of the calendar's.
fn usual(text: &[u8]) -> Option<i64> {
    let digit = |k: usize| text.get(k).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10).map(i64::from);
    let two = |k: usize| Some(10 * digit(k)? + digit(k + 1)?);
    let year = 100 * two(0)? + two(2)?;
    if text.len() < 10 || text[4] != b'-' || text[7] != b'-' || year == 0 {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(year as i32, two(5)? as u32, two(8)? as u32)?;
    let start = i64::from(date.to_epoch_days()) * DAY;
    if text.len() == 10 {
        return Some(start + DAY - 1);
    }
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if text[10] != b'T' || text[13] != b':' || text[16] != b':' || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut zone = 19;
    if text.get(zone) == Some(&b'.') {
        zone += 1;
        digit(zone)?;
        while digit(zone).is_some() {
            zone += 1;
        }
    }
    let offset = match (text.get(zone)?, text.len() - zone) {
        (b'Z', 1) => 0,
        (sign @ (b'+' | b'-'), 6) if text[zone + 3] == b':' => {
            let (hours, minutes) = (two(zone + 1)?, two(zone + 4)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (if *sign == b'+' { 60 } else { -60 }) * (60 * hours + minutes)
        }
        _ => return None,
    };
    Some(start + 3600 * hour + 60 * minute + second - offset)
}

fn leap(year: &str) -> bool {
    year.parse().is_ok_and(|y: i32| NaiveDate::from_ymd_opt(y, 2, 29).is_some())
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp(self.0, 0) {
            Some(time) => write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%SZ")),
            None => write!(f, "{} s", self.0),
        }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(got: Result<Time, TimeError>, expect: &str) {
        assert_eq!(got.map_or_else(|_| "invalid".to_owned(), |t| t.to_string()), expect);
    }

    #[test]
    fn fhir_times() {
        check(Time::parse_fhir("2020-02-28T13:05:00+02:00"), "2020-02-28T11:05:00Z");
        check(Time::parse_fhir("2020-02-28T13:05:00.123Z"), "2020-02-28T13:05:00Z");
        check(Time::parse_fhir("2020-02-28T13:05:00"), "2020-02-28T13:05:00Z");
        check(Time::parse_fhir("2020"), "2020-12-31T23:59:59Z");
        check(Time::parse_fhir("2020-02"), "2020-02-29T23:59:59Z");
        check(Time::parse_fhir("2020-02-28"), "2020-02-28T23:59:59Z");
        for bad in ["0000-00-00", "2023-02-30", "", "n/a", "20200228", "2020-13", "9999999-01-01", "2020-02-28T25:00:00Z"] {
            check(Time::parse_fhir(bad), "invalid");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_usual_forms_are_as_the_calendar_has_them(text in "[12][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,6})?(Z|[+-][0-2][0-9]:[0-6][0-9])") {
            if let Some(seconds) = usual(text.as_bytes()) {
                proptest::prop_assert_eq!(Ok(seconds), DateTime::parse_from_rfc3339(&text).map(|t| t.timestamp()));
            }
            let usual_date = usual(&text.as_bytes()[..10]);
            let date = NaiveDate::parse_from_str(&text[..10], "%Y-%m-%d").ok();
            proptest::prop_assert_eq!(usual_date, date.map(|d| d.and_hms_opt(23, 59, 59).unwrap().and_utc().timestamp()));
        }
    }

    #[test]
    fn births_are_at_the_start() {
        check(Time::parse_birth("1970"), "1970-01-01T00:00:00Z");
        check(Time::parse_birth("1972-02"), "1972-02-01T00:00:00Z");
        check(Time::parse_birth("1972-02-03"), "1972-02-03T00:00:00Z");
    }

    #[test]
    fn dicom_times() {
        check(Time::parse_dicom("20200228", Some("130559.123456")), "2020-02-28T13:05:59Z");
        check(Time::parse_dicom("20200228", Some("13")), "2020-02-28T13:00:00Z");
        check(Time::parse_dicom("20200228", None), "2020-02-28T23:59:59Z");
        check(Time::parse_dicom("2020.02.28", Some("13:05:59")), "2020-02-28T13:05:59Z");
        for bad in ["00000000", "20201301", "", "2020022", "abcdefgh"] {
            check(Time::parse_dicom(bad, None), "invalid");
        }
        check(Time::parse_dicom("20200228", Some("999999")), "invalid");
        check(Time::parse_dicom("20200228", Some("1é")), "invalid");
    }
}
