//! What is estimated rather than told apart: a number, the time to an event, what a treatment changes.

use polars::prelude::{Column, DataFrame, PolarsError};
use serde::{Deserialize, Serialize};

/// An endpoint, as clinical trials call what they measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name: a column, an output of the exported model, a key in the metrics.
    pub name: String,
    /// What kind.
    pub kind: EndpointKind,
}

/// Kinds of endpoint. Each example has two numbers of it, or nobody knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    /// A number; the second is 0.
    Regression,
    /// Days to an event or to the end of what is known, and 1 where it was the event, else 0.
    Survival,
    /// The outcome under one of two treatments, and which: 0 or 1.
    Treatment {
        /// Whether the outcome is 0 or 1 rather than any number.
        binary: bool,
        /// Whether a lower outcome is the better one.
        #[serde(default)]
        lower_is_better: bool,
    },
}

/// The two numbers of an example.
pub type EndpointValue = [f32; 2];

impl EndpointKind {
    /// Its name in a pipeline and in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Survival => "survival",
            Self::Treatment { .. } => "treatment",
        }
    }

    /// What the column of the second number ends in; `None` where there is no such column.
    pub const fn second(self) -> Option<&'static str> {
        match self {
            Self::Regression => None,
            Self::Survival => Some("_event"),
            Self::Treatment { .. } => Some("_treatment"),
        }
    }

    /// Whether an example can have these numbers.
    pub fn holds(self, [first, second]: EndpointValue) -> bool {
        let is_bit = |x: f32| x == 0.0 || x == 1.0;
        first.is_finite()
            && match self {
                Self::Regression => second == 0.0,
                Self::Survival => first >= 0.0 && is_bit(second),
                Self::Treatment { binary, .. } => is_bit(second) && (!binary || is_bit(first)),
            }
    }
}

impl Endpoint {
    /// Names of its columns in the table of examples.
    fn columns(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.name.clone()).chain(self.kind.second().map(|second| format!("{}{second}", self.name)))
    }

    /// Its columns, of an example each.
    pub(crate) fn to_columns(&self, values: &[Option<EndpointValue>]) -> Vec<Column> {
        let column = |(part, name): (usize, String)| {
            Column::new(name.into(), values.iter().map(|value| value.map(|value| value[part])).collect::<Vec<Option<f32>>>())
        };
        self.columns().enumerate().map(column).collect()
    }

    /// The values of its columns, of an example each.
    pub(crate) fn read(&self, frame: &DataFrame) -> Result<Vec<Option<EndpointValue>>, PolarsError> {
        let columns = self.columns().map(|name| Ok(frame.column(&name)?.f32()?.clone())).collect::<Result<Vec<_>, PolarsError>>()?;
        let value = |row: usize| {
            let first = columns[0].get(row)?;
            Some([first, columns.get(1).map_or(Some(0.0), |second| second.get(row))?])
        };
        Ok((0..frame.height()).map(value).collect())
    }
}
