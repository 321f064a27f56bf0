//! `[[task]]` whose answer is a number: where it comes from.

use synovia_cohort::{EndpointKind, EventKind, EventPattern, TaskKind};

use super::reader::is_token;
use super::reader_cohort::read_events;
use super::reader_task::{Source, read_code, read_label, read_own_column, read_within};
use super::section::Section;
use super::settings::{Better, EVENT_KEYS, EndpointLabel, Events, Label, OutcomeLabel};
use super::tree::Value;

/// Which kind of endpoint is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Regression,
    Survival,
    Treatment,
}

/// What makes an outcome of two classes.
const RULES: [&str; 3] = ["above", "equals", "classes"];

impl Asked {
    /// Keys of its label.
    pub(super) fn keys(self) -> Vec<&'static str> {
        match self {
            Self::Regression => vec!["observation", "unit", "within", "column"],
            Self::Survival => EVENT_KEYS.iter().map(|(key, _)| *key).chain(["death", "within", "column", "event"]).collect(),
            Self::Treatment => {
                let outcome =
                    ["condition", "observation", "report", "column", "conclusion", "within", "classes", "names", "above", "equals"];
                outcome.into_iter().chain(["unit", "treatment", "started", "better"]).collect()
            }
        }
    }
}

/// Kind and label; `None` only after a problem was noted.
pub(super) fn read(label: &Section<'_>, asked: Asked, source: &Source<'_>) -> Option<(EndpointKind, EndpointLabel)> {
    match asked {
        Asked::Regression => Some((EndpointKind::Regression, read_regression(label, source)?)),
        Asked::Survival => Some((EndpointKind::Survival, read_survival(label, source)?)),
        Asked::Treatment => {
            let read = read_treatment(label, source)?;
            let (EndpointLabel::Treated { outcome, better, .. } | EndpointLabel::TreatedColumn { outcome, better, .. }) = &read else {
                return None;
            };
            let (binary, lower_is_better) = (matches!(outcome, OutcomeLabel::Binary(_)), *better == Better::Lower);
            Some((EndpointKind::Treatment { binary, lower_is_better }, read))
        }
    }
}

/// Whether a label is of a table with a row a patient; `None` after a problem was noted.
fn is_table(label: &Section<'_>, source: &Source<'_>, of_events: &str) -> Option<bool> {
    match (label.has("column"), source) {
        (true, Source::Events) => {
            label.wrong("column", format!("`column` is for format = \"csv\"; of events it is {of_events}"));
            None
        }
        (false, Source::Csv { .. }) => {
            label.problems.push(&label.place, "of a table with a row a patient a label is a column: write column = \"…\"");
            None
        }
        (is_column, _) => Some(is_column),
    }
}

/// Notes keys that do not go with another.
fn refuse(label: &Section<'_>, keys: &[&str], with: &str) {
    for key in keys.iter().filter(|key| label.has(key)) {
        label.wrong(key, format!("`{key}` does not go with {with}"));
    }
}

/// Notes a column that is to be two things.
fn refuse_twice(label: &Section<'_>, key: &str, first: Option<&str>, second: Option<&str>) {
    if let (Some(first), Some(second)) = (first, second)
        && first == second
    {
        label.wrong(key, format!("`{key}` is `{second}`, and so is `column`: name another"));
    }
}

fn read_regression(label: &Section<'_>, source: &Source<'_>) -> Option<EndpointLabel> {
    if is_table(label, source, "an observation")? {
        refuse(label, &["observation", "unit", "within"], "`column`");
        return Some(EndpointLabel::Column { column: read_own_column(label, "column", source)? });
    }
    if !label.has("observation") {
        label.missing("observation", "say which number is predicted, such as observation = \"http://loinc.org|4548-4\"");
    }
    if !label.has("unit") {
        label.missing("unit", "say in which unit the number is wanted, by UCUM, such as unit = \"g/dL\", or \"\" for one without");
    }
    let (observation, unit, within) = (read_code(label, "observation"), label.text("unit"), read_within(label));
    Some(EndpointLabel::Observation { observation: observation?, unit: unit?, within: within? })
}

fn read_survival(label: &Section<'_>, source: &Source<'_>) -> Option<EndpointLabel> {
    let of_events: Vec<&str> = EVENT_KEYS.iter().map(|(key, _)| *key).chain(["death"]).collect();
    if is_table(label, source, "one of condition, encounter, death and the like")? {
        refuse(label, &[of_events.as_slice(), &["within"]].concat(), "`column`");
        if !label.has("event") {
            label.missing("event", "say which column is 1 where the days end with the event, and 0 where the patient was only last seen");
        }
        let (column, event) = (read_own_column(label, "column", source), read_own_column(label, "event", source));
        refuse_twice(label, "event", column.as_deref(), event.as_deref());
        return Some(EndpointLabel::Columns { column: column?, event: event? });
    }
    refuse(label, &["event"], "events: it names a column");
    let given: Vec<&str> = of_events.iter().copied().filter(|key| label.has(key)).collect();
    let [key] = given[..] else {
        let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        label.problems.push(&label.place, format!("survival is the time to one of {}; found {found}", of_events.join(", ")));
        return None;
    };
    let event = if key == "death" {
        if label.flag("death") == Some(false) {
            label.wrong("death", "write death = true");
        }
        Some(Events(EventPattern { kind: EventKind::Death, code: String::new() }))
    } else {
        read_events(label, key)
    };
    let within = read_within(label);
    Some(EndpointLabel::Event { event: event?, within: within? })
}

fn read_treatment(label: &Section<'_>, source: &Source<'_>) -> Option<EndpointLabel> {
    let table = is_table(label, source, "a condition, an observation or a report")?;
    let is_binary = RULES.iter().any(|key| label.has(key)) || label.has("condition") || label.has("report");
    let outcome = if is_binary {
        refuse(label, &["unit"], "an outcome that is yes or no");
        read_label(label, TaskKind::Binary, source).map(OutcomeLabel::Binary)
    } else {
        refuse(label, &["names", "conclusion"], "an outcome that is a number");
        match read_regression(label, source) {
            Some(EndpointLabel::Observation { observation, unit, within }) => Some(OutcomeLabel::Observation { observation, unit, within }),
            Some(EndpointLabel::Column { column }) => Some(OutcomeLabel::Column { column }),
            _ => None,
        }
    };
    if !label.has("treatment") {
        let advice = if table {
            "say which column is 0 or 1 by treatment, such as treatment = \"treated\""
        } else {
            "name both, such as treatment = [\"http://www.nlm.nih.gov/research/umls/rxnorm|18631\", \"http://www.nlm.nih.gov/research/umls/rxnorm|8640\"]"
        };
        label.missing("treatment", advice);
        return None;
    }
    let better = label.choice("better", &[("higher", Better::Higher), ("lower", Better::Lower)], &[]).unwrap_or(Better::Higher);
    if table {
        refuse(label, &["started"], "`column`");
        let treatment = read_own_column(label, "treatment", source);
        let of_outcome = match &outcome {
            Some(OutcomeLabel::Binary(Label::Column { column, .. }) | OutcomeLabel::Column { column }) => Some(column.as_str()),
            _ => None,
        };
        refuse_twice(label, "treatment", of_outcome, treatment.as_deref());
        return Some(EndpointLabel::TreatedColumn { treatment: treatment?, outcome: outcome?, better });
    }
    if !label.has("started") {
        label.missing("started", "say within which time after the prediction a treatment begins, such as started = \"30d\"");
    }
    let started = label.span("started");
    let codes = match label.get("treatment").map(|node| &node.value) {
        Some(Value::Array(_)) => label.texts("treatment")?,
        _ => Vec::new(),
    };
    let Ok(treatment) = <[String; 2]>::try_from(codes) else {
        label.wrong("treatment", "`treatment` takes two: [\"system|code\", \"system|code\"]");
        return None;
    };
    for code in treatment.iter().filter(|code| !is_token(code)) {
        label.wrong("treatment", format!("`treatment` has \"{code}\"; write system|code"));
    }
    Some(EndpointLabel::Treated { outcome: outcome?, treatment, started: started?, better })
}
