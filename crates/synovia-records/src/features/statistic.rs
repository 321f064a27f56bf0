//! What becomes of the numbers of one measurement in one window.

use serde::{Deserialize, Serialize};

/// A statistic of a measurement's numbers up to the prediction time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The latest.
    Last,
    /// The earliest.
    First,
    /// The arithmetic mean.
    Mean,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// Slope of the least-squares line through them over time, a day; missing unless two were at different times.
    Slope,
    /// How many there are.
    Count,
    /// Days from the latest to the prediction time.
    TimeSince,
}

/// A number and how long before the prediction it was known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) days: f64,
    pub(super) value: f64,
}

impl Statistic {
    /// All, in the order of their columns.
    pub const ALL: [Self; 8] = [Self::Last, Self::First, Self::Mean, Self::Min, Self::Max, Self::Slope, Self::Count, Self::TimeSince];

    /// Its name in a pipeline.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::First => "first",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Slope => "slope",
            Self::Count => "count",
            Self::TimeSince => "time_since",
        }
    }

    /// UCUM unit of the statistic of numbers in `unit`.
    pub(super) fn unit(self, unit: &str) -> String {
        match self {
            Self::Slope if unit.is_empty() => "/d".to_owned(),
            Self::Slope => format!("{unit}/d"),
            Self::Count => String::new(),
            Self::TimeSince => "d".to_owned(),
            _ => unit.to_owned(),
        }
    }

    /// The unit that numbers are to be had in for a statistic of this unit; `None` for how many there were, and when, which do
    /// not depend on it.
    pub(super) fn unit_of_values(self, unit: &str) -> Option<&str> {
        match self {
            Self::Count | Self::TimeSince => None,
            Self::Slope => Some(unit.strip_suffix("/d").unwrap_or(unit)),
            _ => Some(unit),
        }
    }

    /// The statistic of points in order of time; `None` where there is none.
    pub(super) fn of(self, points: &[Point]) -> Option<f64> {
        let (first, last) = (points.first()?, points.last()?);
        let n = points.len() as f64;
        let mean = |f: fn(&Point) -> f64| points.iter().map(f).sum::<f64>() / n;
        let values = points.iter().map(|p| p.value);
        Some(match self {
            Self::Last => last.value,
            Self::First => first.value,
            Self::Mean => mean(|p| p.value),
            Self::Min => values.fold(f64::INFINITY, f64::min),
            Self::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Self::Count => n,
            Self::TimeSince => last.days,
            Self::Slope => {
                let (mean_t, mean_v) = (mean(|p| -p.days), mean(|p| p.value));
                let both: f64 = points.iter().map(|p| (-p.days - mean_t) * (p.value - mean_v)).sum();
                let spread: f64 = points.iter().map(|p| (-p.days - mean_t).powi(2)).sum();
                if first.days == last.days {
                    return None;
                }
                both / spread
            }
        })
    }
}
