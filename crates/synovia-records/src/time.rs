//! Times that a chart can have.

use synovia_cohort::Time;

/// 1850 to 2200: outside it a date is a placeholder or an error.
const CHART_TIMES: std::ops::Range<i64> = -3_786_825_600..7_258_118_400;

/// Whether a chart can have it.
pub(crate) fn in_chart(time: Time) -> bool {
    CHART_TIMES.contains(&time.seconds())
}

/// A FHIR date or time, if it is one that a chart can have.
pub(crate) fn chart_time(text: &str) -> Option<Time> {
    Time::parse_fhir(text).ok().filter(|time| in_chart(*time))
}
