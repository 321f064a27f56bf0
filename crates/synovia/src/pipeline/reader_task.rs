//! `[[task]]`: what is predicted, and where its label comes from.

use std::ops::Bound;

use synovia_cohort::TaskKind;

use super::reader::{check_column, is_token};
use super::reader_endpoint::{self, Asked};
use super::section::Section;
use super::settings::{Classes, ColumnRule, EndpointSettings, Label, TaskSettings, Tasks};
use super::tree::Value;

/// What labels can come from.
pub(super) enum Source<'a> {
    /// Records with times: FHIR, MEDS, OMOP, a long table.
    Events,
    Csv {
        features: &'a [String],
        /// The table's columns, where its header could be read.
        columns: Option<Vec<String>>,
    },
    /// The records section is wrong itself: what follows from it is not checked.
    Unknown,
}

/// Columns of the cohort's and the predictions' tables, and outputs of the exported model, that a task's would collide with.
const RESERVED: [&str; 15] = [
    "example_id",
    "patient_id",
    "split",
    "prediction_time",
    "prediction_seconds",
    "has_image",
    "has_record",
    "image_row",
    "record_row",
    "embedding",
    "image",
    "record",
    "image_present",
    "record_present",
    "batch",
];

/// What a task is asked for.
#[derive(Clone, Copy)]
enum Kind {
    Classes(TaskKind),
    /// Several yes or no questions of one source.
    Labels,
    Endpoint(Asked),
}

enum Read {
    Classes(TaskSettings),
    Endpoint(EndpointSettings),
}

const KINDS: [(&str, Kind); 7] = [
    ("binary", Kind::Classes(TaskKind::Binary)),
    ("multiclass", Kind::Classes(TaskKind::Multiclass)),
    ("ordinal", Kind::Classes(TaskKind::Ordinal)),
    ("multilabel", Kind::Labels),
    ("regression", Kind::Endpoint(Asked::Regression)),
    ("survival", Kind::Endpoint(Asked::Survival)),
    ("treatment", Kind::Endpoint(Asked::Treatment)),
];

pub(super) fn read_tasks(top: &Section<'_>, source: &Source<'_>) -> Option<Tasks> {
    let advice = "add [[task]] with name, kind and label";
    let Some(node) = top.get("task") else {
        top.missing("task", advice);
        return None;
    };
    let Value::Array(items) = &node.value else {
        top.problems.push(&node.place, "`task` must be a list: write [[task]], in two pairs of brackets");
        return None;
    };
    if items.is_empty() {
        top.problems.push(&node.place, format!("`task` is empty; {advice}"));
    }
    let mut tasks = Tasks::default();
    // Names of columns in the table of examples, with the task whose they are.
    let mut columns: Vec<(String, String)> = Vec::new();
    for item in items {
        let Value::Table(table) = &item.value else {
            top.problems.push(&item.place, "each `task` must be a table: write [[task]]");
            continue;
        };
        let section = Section::new("[[task]]", item.place.clone(), Some(table), &["name", "kind", "label", "labelled"], top.problems);
        let read = read_task(&section, source).unwrap_or_default();
        let written = if read.is_empty() { None } else { section.word("name") };
        for task in read {
            let (name, second) = match &task {
                Read::Classes(task) => (&task.name, None),
                Read::Endpoint(endpoint) => (&endpoint.name, endpoint.kind.second()),
            };
            for column in std::iter::once(name.clone()).chain(second.map(|second| format!("{name}{second}"))) {
                match columns.iter().find(|(taken, _)| *taken == column) {
                    Some(_) if written.as_ref() != Some(name) => {
                        section.wrong("label", format!("a label makes a task `{name}`, which there is already; choose other `names`"));
                    }
                    Some((_, by)) if by == name => section.wrong("name", format!("two tasks are named \"{name}\"; give each its own name")),
                    Some((_, by)) => {
                        section.wrong("name", format!("\"{name}\" and \"{by}\" would both make a column `{column}`; choose other names"));
                    }
                    None => columns.push((column, name.clone())),
                }
            }
            match task {
                Read::Classes(task) => tasks.classes.push(task),
                Read::Endpoint(endpoint) => tasks.endpoints.push(endpoint),
            }
        }
    }
    Some(tasks)
}

/// One task, or one a label.
fn read_task(section: &Section<'_>, source: &Source<'_>) -> Option<Vec<Read>> {
    let name = read_name(section);
    let kind = section.choice("kind", &KINDS, &[]);
    if !section.has("kind") {
        section.missing("kind", "write kind = \"binary\", or another of those that docs/guide.md lists");
    }
    if !section.has("label") {
        let advice = match kind {
            Some(Kind::Labels) => "write label = { conditions = [\"system|code\"], names = [\"a-name\"], within = \"180d\" }",
            _ => "write label = { condition = \"system|code\", within = \"180d\" }",
        };
        section.missing("label", advice);
        return None;
    }
    let labelled = section.number("labelled", (Bound::Excluded(0.0), Bound::Included(1.0)));
    let (table, place) = section.table("label")?;
    let open = |known: &[&str]| Section::new("label", place.clone(), Some(table), known, section.problems);
    match kind? {
        Kind::Classes(kind) => {
            let label =
                open(&["condition", "observation", "report", "column", "conclusion", "within", "classes", "names", "above", "equals"]);
            let label = read_label(&label, kind, source);
            Some(vec![Read::Classes(TaskSettings { name: name?, kind, label: label?, labelled })])
        }
        Kind::Labels => {
            let labels =
                read_labels(&open(&["conditions", "report", "conclusions", "columns", "names", "within", "above", "equals"]), source);
            let (name, kind) = (name?, TaskKind::Binary);
            let task = |(of, label)| Read::Classes(TaskSettings { name: format!("{name}-{of}"), kind, label, labelled });
            Some(labels?.into_iter().map(task).collect())
        }
        Kind::Endpoint(asked) => {
            let (kind, label) = reader_endpoint::read(&open(&asked.keys()), asked, source)?;
            Some(vec![Read::Endpoint(EndpointSettings { name: name?, kind, label, labelled })])
        }
    }
}

fn read_name(section: &Section<'_>) -> Option<String> {
    if !section.has("name") {
        section.missing("name", "write one such as name = \"malignant\"");
    }
    let name = section.word("name")?;
    if !(name.starts_with(|c: char| c.is_ascii_alphabetic()) && is_word(&name)) {
        let advice = "it names a column and a model's output, so write a letter, then letters, digits, `_` or `-`";
        section.wrong("name", format!("{} is \"{name}\"; {advice}", section.name("name")));
        return None;
    }
    if RESERVED.contains(&name.as_str()) {
        section.wrong(
            "name",
            format!("{} is \"{name}\", which names a column or a model's tensor already; choose another", section.name("name")),
        );
        return None;
    }
    Some(name)
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Which of these keys is written, if it is one.
fn one_of<'k>(label: &Section<'_>, of: &[&'k str], what: &str) -> Option<&'k str> {
    let given: Vec<&str> = of.iter().copied().filter(|key| label.has(key)).collect();
    if let [key] = given[..] {
        return Some(key);
    }
    let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
    label.problems.push(&label.place, format!("{what}; found {found}"));
    None
}

/// That of the keys which go with some source none is written that does not go with this one.
fn refuse_others(label: &Section<'_>, key: &str, others: &[&str], allowed: &[&str]) {
    for other in others.iter().filter(|other| label.has(other) && !allowed.contains(other)) {
        label.wrong(other, format!("`{other}` does not go with `{key}`, which takes {}", allowed.join(", ")));
    }
}

/// The labels of a multilabel task, each with its name.
fn read_labels(label: &Section<'_>, source: &Source<'_>) -> Option<Vec<(String, Label)>> {
    let key =
        one_of(label, &["conditions", "conclusions", "columns"], "several labels come from one of conditions, conclusions and columns")?;
    match (key, source) {
        ("columns", Source::Events) => {
            label.wrong(key, "`columns` are for format = \"csv\"; of events labels are conditions or a report's conclusions");
            return None;
        }
        ("conditions" | "conclusions", Source::Csv { .. }) => {
            label.wrong(
                key,
                format!("`{key}` are for events (FHIR, MEDS, OMOP, `columns`); of a table with a row a patient labels are columns"),
            );
            return None;
        }
        _ => {}
    }
    let allowed: &[&str] = match key {
        "conditions" => &["within"],
        "conclusions" => &["report", "within"],
        _ => &["above", "equals"],
    };
    refuse_others(label, key, &["report", "within", "above", "equals"], allowed);
    let asked = label.texts(key)?;
    let names = if label.has("names") { label.texts("names")? } else { asked.clone() };
    if names.len() != asked.len() {
        label.wrong(
            "names",
            format!("`names` has {} texts for {} labels; write a name for each, in the same order", names.len(), asked.len()),
        );
        return None;
    }
    if let Some(name) = names.iter().find(|name| !is_word(name)) {
        let advice = "each label is a task and a column: give `names` of letters, digits, `_` and `-`";
        label.wrong(if label.has("names") { "names" } else { key }, format!("a label is named \"{name}\"; {advice}"));
        return None;
    }
    if key != "columns"
        && let Some(code) = asked.iter().find(|code| !is_token(code))
    {
        label.wrong(key, format!("`{key}` has \"{code}\"; write system|code, such as \"http://snomed.info/sct|363358000\""));
        return None;
    }
    let labels: Option<Vec<Label>> = match key {
        "conditions" => {
            let within = read_within(label)?;
            Some(asked.into_iter().map(|condition| Label::Condition { condition, within }).collect())
        }
        "conclusions" => {
            if !label.has("report") {
                label.missing("report", "say whose conclusions they are, such as report = \"http://loinc.org|36643-5\"");
            }
            let (report, within) = (read_code(label, "report"), read_within(label));
            let (report, within) = (report?, within?);
            Some(asked.into_iter().map(|conclusion| Label::Conclusion { report: report.clone(), conclusion, within }).collect())
        }
        _ => {
            let rule = match (label.has("above"), label.has("equals")) {
                (true, false) => ColumnRule::Above { above: label.number("above", ..)? },
                (false, true) => ColumnRule::Equals { equals: label.word("equals")? },
                _ => {
                    label.problems.push(&label.place, "columns become labels by one of above and equals, such as equals = \"1\"");
                    return None;
                }
            };
            let each = asked.into_iter().map(|column| {
                check_own_column(label, key, &column, source);
                Label::Column { column, rule: rule.clone() }
            });
            Some(each.collect())
        }
    };
    Some(names.into_iter().zip(labels?).collect())
}

pub(super) fn read_label(label: &Section<'_>, kind: TaskKind, source: &Source<'_>) -> Option<Label> {
    let of = ["condition", "observation", "report", "column"];
    let key = one_of(label, &of, "a label comes from one of condition, observation, report and column")?;
    match (key, source) {
        ("column", Source::Events) => {
            label.wrong(key, "`column` is for format = \"csv\"; of events a label is a condition, an observation or a report");
            return None;
        }
        ("condition" | "observation" | "report", Source::Csv { .. }) => {
            label.wrong(
                key,
                format!("`{key}` is for events (FHIR, MEDS, OMOP, `columns`); of a table with a row a patient a label is a column"),
            );
            return None;
        }
        _ => {}
    }
    let allowed: &[&str] = match key {
        "condition" => &["within"],
        "observation" => &["within", "classes", "names"],
        "report" => &["within", "conclusion"],
        _ => &["classes", "names", "above", "equals"],
    };
    refuse_others(label, key, &["within", "conclusion", "classes", "names", "above", "equals"], allowed);
    match key {
        "column" => read_column(label, kind, source),
        "condition" => {
            let (code, within) = (read_code(label, key), read_within(label));
            if kind != TaskKind::Binary {
                label.wrong(key, "a condition is there or not: write kind = \"binary\", or an observation with classes");
            }
            Some(Label::Condition { condition: code?, within: within? })
        }
        "report" => {
            let (code, within) = (read_code(label, key), read_within(label));
            if kind != TaskKind::Binary {
                label.wrong(key, "a conclusion is there or not: write kind = \"binary\"");
            }
            if !label.has("conclusion") {
                label.missing("conclusion", "say which is looked for, such as conclusion = \"http://snomed.info/sct|60046008\"");
            }
            Some(Label::Conclusion { report: code?, conclusion: read_code(label, "conclusion")?, within: within? })
        }
        _ => {
            let (code, within, answers) = (read_code(label, key), read_within(label), read_classes(label, kind));
            for answer in answers.iter().flat_map(|answers| &answers.classes).filter(|answer| !is_token(answer)) {
                let advice = "write each answer as system|code, such as \"http://snomed.info/sct|258215001\"";
                label.wrong("classes", format!("`classes` has \"{answer}\"; {advice}"));
            }
            Some(Label::Observation { observation: code?, within: within?, answers: answers? })
        }
    }
}

pub(super) fn read_code(label: &Section<'_>, key: &str) -> Option<String> {
    let code = label.word(key)?;
    if is_token(&code) {
        return Some(code);
    }
    label.wrong(key, format!("`{key}` is \"{code}\"; write system|code, such as \"http://snomed.info/sct|363358000\""));
    None
}

pub(super) fn read_within(label: &Section<'_>) -> Option<super::TimeSpan> {
    if !label.has("within") {
        label.missing("within", "say how long after the prediction time it counts, such as within = \"180d\"");
    }
    label.span("within")
}

fn read_classes(label: &Section<'_>, kind: TaskKind) -> Option<Classes> {
    if !label.has("classes") {
        label.missing("classes", "list the answers in the order of the classes");
        return None;
    }
    let classes = label.texts("classes")?;
    let names = label.texts("names");
    if let Some(names) = names.as_ref().filter(|names| names.len() != classes.len()) {
        label.wrong(
            "names",
            format!("`names` has {} texts for {} classes; write a name for each, in the same order", names.len(), classes.len()),
        );
    }
    match kind {
        TaskKind::Binary if classes.len() != 2 => {
            let advice = "a binary task takes two, the negative one first; more are kind = \"multiclass\"";
            label.wrong("classes", format!("`classes` has {}; {advice}", classes.len()));
        }
        TaskKind::Ordinal if classes.len() < 2 || classes.len() > 100 => {
            label.wrong("classes", format!("`classes` has {}; allowed in an order: 2 to 100", classes.len()));
        }
        TaskKind::Multiclass | TaskKind::Ordinal if classes.len() < 2 || classes.len() > 1000 => {
            label.wrong("classes", format!("`classes` has {}; allowed: 2 to 1000", classes.len()));
        }
        _ => {}
    }
    Some(Classes { classes, names })
}

/// A column of the table that is not a feature.
pub(super) fn read_own_column(label: &Section<'_>, key: &str, source: &Source<'_>) -> Option<String> {
    let column = label.word(key)?;
    check_own_column(label, key, &column, source);
    Some(column)
}

fn check_own_column(label: &Section<'_>, key: &str, column: &str, source: &Source<'_>) {
    if let Source::Csv { features, columns } = source {
        if features.iter().any(|feature| feature == column) {
            label.wrong(key, format!("`{column}` is a feature too, so that the answer would be an input: remove it from `features`"));
        }
        if let Some(columns) = columns {
            check_column(label, key, column, &columns.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

fn read_column(label: &Section<'_>, kind: TaskKind, source: &Source<'_>) -> Option<Label> {
    let column = read_own_column(label, "column", source)?;
    let rules: Vec<&str> = ["above", "equals", "classes"].into_iter().filter(|key| label.has(key)).collect();
    let rule = match (rules.as_slice(), kind) {
        (["classes"], _) => ColumnRule::Classes(read_classes(label, kind)?),
        (["above"], TaskKind::Binary) => ColumnRule::Above { above: label.number("above", ..)? },
        (["equals"], TaskKind::Binary) => ColumnRule::Equals { equals: label.word("equals")? },
        ([key @ ("above" | "equals")], TaskKind::Multiclass | TaskKind::Ordinal) => {
            label.wrong(key, format!("`{key}` makes a binary label; a task of several classes takes `classes`"));
            return None;
        }
        (found, _) => {
            let found = if found.is_empty() { "none".to_owned() } else { found.join(" and ") };
            label.problems.push(&label.place, format!("a column becomes a label by one of above, equals and classes; found {found}"));
            return None;
        }
    };
    if label.has("names") && !label.has("classes") {
        label.wrong("names", "`names` are those of `classes`: write these, or remove `names`");
    }
    Some(Label::Column { column, rule })
}
