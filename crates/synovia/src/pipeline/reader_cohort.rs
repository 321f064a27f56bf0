//! `[cohort]`: rules, index event, windows and splits.

use synovia_cohort::{ANY_CODE, Bounds, EventKind, EventPattern, Fractions, Modality, Sex, Time, Which};

use super::reader::{check_column, is_token};
use super::reader_task::Source;
use super::section::Section;
use super::settings::{
    Cohort, Competing, Date, EVENT_KEYS, Events, IndexEvent, Named, Offset, Question, Rule, SplitSettings, Unheard, Unit,
};
use super::tree::{Node, Value};

/// Keys of `[cohort]`.
pub(super) const KEYS: [&str; 11] =
    ["unit", "index", "prediction", "image_within", "gap", "censored", "competing", "include", "exclude", "folds", "split"];
const SHARE: f64 = 0.125;

pub(super) fn read(section: &Section<'_>, images: bool, source: &Source<'_>) -> Cohort {
    let units = [("study", Unit::Study), ("patient", Unit::Patient), ("encounter", Unit::Encounter)];
    let unit = section.choice("unit", &units, &[]);
    let index = section.table("index").and_then(|(table, place)| {
        let known: Vec<&str> = EVENT_KEYS.iter().map(|(key, _)| *key).chain(["which"]).collect();
        read_index(&Section::new("cohort.index", place, Some(table), &known, section.problems))
    });
    // A resolved pipeline has both.
    if unit.is_some_and(|unit| unit != Unit::Patient) && section.has("index") {
        section.wrong("unit", "`unit` and `index` both say what an example is: keep one of them");
    }
    let folds = section.count("folds", 2..=50);
    let cohort = Cohort {
        unit: unit.unwrap_or(if images && index.is_none() { Unit::Study } else { Unit::Patient }),
        index,
        prediction: read_prediction(section).unwrap_or(Offset::At),
        image_within: section.span("image_within"),
        gap: section.span("gap"),
        censored: section
            .choice("censored", &[("unknown", Unheard::Unknown), ("negative", Unheard::Negative)], &[])
            .unwrap_or(Unheard::Unknown),
        competing: tables(section, "competing", &competing_keys(), read_competing),
        include: tables(section, "include", &rule_keys(), read_rule),
        exclude: tables(section, "exclude", &rule_keys(), read_rule),
        folds,
        split: read_split(section, folds.is_some()),
    };
    if cohort.image_within.is_some() && cohort.index().is_none() {
        section.wrong("image_within", "`image_within` goes with `index`: of unit = \"study\" the image is the study's");
    }
    check_source(section, &cohort, source);
    cohort
}

/// What a table without times, or a chart with them, can't answer.
fn check_source(section: &Section<'_>, cohort: &Cohort, source: &Source<'_>) {
    match source {
        Source::Unknown => {}
        Source::Csv { columns, .. } => {
            let timed = ["index", "prediction", "image_within", "gap", "censored", "competing"];
            for key in timed.into_iter().filter(|key| section.has(key)) {
                section.wrong(key, format!("`{key}` needs times, which a table with a row a patient does not have: remove it"));
            }
            if matches!(cohort.split, SplitSettings::Time { .. }) {
                section.wrong("split", "a split by time needs times, which a table with a row a patient does not have");
            }
            for (key, rules) in [("include", &cohort.include), ("exclude", &cohort.exclude)] {
                if rules.iter().any(|rule| !matches!(rule.question, Question::Column { .. } | Question::Has { has: Modality::Image })) {
                    section.wrong(key, format!("`{key}`: of a table a rule asks for a `column`, or has = \"image\""));
                }
            }
            let others = [cohort.split.group(), cohort.split.site()].into_iter().flatten();
            if others.into_iter().any(|named| !matches!(named, Named::Column { .. })) {
                section.wrong("split", "of a table a group or site is a `column`");
            }
            if let Some(columns) = columns {
                let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                let key_of = |name: &str| {
                    let of =
                        |rules: &[Rule]| rules.iter().any(|r| matches!(&r.question, Question::Column { column, .. } if column == name));
                    if of(&cohort.include) {
                        "include"
                    } else if of(&cohort.exclude) {
                        "exclude"
                    } else {
                        "split"
                    }
                };
                cohort.columns().for_each(|name| check_column(section, key_of(name), name, &columns));
            }
        }
        Source::Events => {
            if let Some(name) = cohort.columns().next() {
                let advice = "of a chart a rule asks for an event, and a group or site is an `identifier` or an `observation`";
                section.wrong("include", format!("`column` (\"{name}\") is for format = \"csv\"; {advice}"));
            }
        }
    }
}

/// Each table of a list under `key`.
fn tables<T>(section: &Section<'_>, key: &str, known: &[&str], read: fn(&Section<'_>) -> Option<T>) -> Vec<T> {
    let Some(node) = section.get(key) else { return Vec::new() };
    let Value::Array(items) = &node.value else {
        section.wrong(key, format!("`{key}` must be a list: write [[cohort.{key}]], in two pairs of brackets"));
        return Vec::new();
    };
    let open = |item: &Node| {
        let Value::Table(table) = &item.value else {
            section.problems.push(&item.place, format!("each `{key}` must be a table: write [[cohort.{key}]]"));
            return None;
        };
        read(&Section::new(&format!("cohort.{key}"), item.place.clone(), Some(table), known, section.problems))
    };
    items.iter().filter_map(open).collect()
}

fn rule_keys() -> Vec<&'static str> {
    let more = ["name", "age", "sex", "has", "history", "column", "value", "equals", "within", "times"];
    EVENT_KEYS.iter().map(|(key, _)| *key).chain(more).collect()
}

fn competing_keys() -> Vec<&'static str> {
    EVENT_KEYS.iter().map(|(key, _)| *key).chain(["death", "counts_as"]).collect()
}

/// The one of these keys that is there; a problem when there is none, or more.
fn one_of<'k>(section: &Section<'_>, keys: &[&'k str]) -> Option<&'k str> {
    let given: Vec<&str> = keys.iter().copied().filter(|key| section.has(key)).collect();
    if let [key] = given[..] {
        return Some(key);
    }
    let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
    section.problems.push(&section.place, format!("{} takes one of {}; found {found}", section.label, keys.join(", ")));
    None
}

pub(super) fn read_events(section: &Section<'_>, key: &str) -> Option<Events> {
    let kind = EVENT_KEYS.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)?;
    let code = section.word(key)?;
    if code != ANY_CODE && !is_token(&code) {
        let advice = "write system|code, system|code* for all that begin so, or any";
        section.wrong(key, format!("{} is \"{code}\"; {advice}", section.name(key)));
        return None;
    }
    Some(Events(EventPattern { kind, code }))
}

fn read_index(section: &Section<'_>) -> Option<IndexEvent> {
    let keys: Vec<&str> = EVENT_KEYS.iter().map(|(key, _)| *key).collect();
    let which = [("first", Which::First), ("last", Which::Last), ("every", Which::Every)];
    let which = section.choice("which", &which, &[]).unwrap_or(Which::First);
    Some(IndexEvent { event: read_events(section, one_of(section, &keys)?)?, which })
}

fn read_prediction(section: &Section<'_>) -> Option<Offset> {
    let text = section.text("prediction")?;
    let offset = Offset::parse(&text);
    if offset.is_none() {
        let advice = "write \"at index\", \"24h after index\" or \"7d before index\"";
        section.wrong("prediction", format!("{} is \"{text}\"; {advice}", section.name("prediction")));
    }
    offset
}

fn read_competing(section: &Section<'_>) -> Option<Competing> {
    let keys: Vec<&str> = EVENT_KEYS.iter().map(|(key, _)| *key).chain(["death"]).collect();
    let key = one_of(section, &keys)?;
    let event = if key == "death" {
        if section.flag("death") == Some(false) {
            section.wrong("death", "write death = true, or leave the entry out");
        }
        Events(EventPattern { kind: EventKind::Death, code: String::new() })
    } else {
        read_events(section, key)?
    };
    let counts_as = section.choice("counts_as", &[("unknown", Unheard::Unknown), ("negative", Unheard::Negative)], &[]);
    Some(Competing { event, counts_as: counts_as.unwrap_or(Unheard::Unknown) })
}

fn read_bounds(section: &Section<'_>, key: &str) -> Option<Bounds> {
    let (table, place) = section.table(key)?;
    let known = ["at_least", "above", "at_most", "below"];
    let inner = Section::new(&format!("{}.{key}", section.label), place, Some(table), &known, section.problems);
    let bounds = Bounds {
        at_least: inner.number("at_least", ..),
        above: inner.number("above", ..),
        at_most: inner.number("at_most", ..),
        below: inner.number("below", ..),
    };
    if table.entries.is_empty() || !bounds.is_satisfiable() {
        let what = if table.entries.is_empty() { "has no bound" } else { "leaves no number" };
        section.wrong(key, format!("{} {what}; write such as {{ at_least = 18, below = 90 }}", section.name(key)));
    }
    Some(bounds)
}

fn read_rule(section: &Section<'_>) -> Option<Rule> {
    let keys: Vec<&str> = EVENT_KEYS.iter().map(|(key, _)| *key).chain(["age", "sex", "has", "history", "column"]).collect();
    let key = one_of(section, &keys)?;
    let is_event = EVENT_KEYS.iter().any(|(name, _)| *name == key);
    for other in ["value", "equals", "within", "times"].into_iter().filter(|other| section.has(other)) {
        if !(is_event || key == "column" && matches!(other, "value" | "equals")) {
            section.wrong(other, format!("`{other}` does not go with `{key}`"));
        }
    }
    let question = match key {
        "age" => Question::Age { age: read_bounds(section, "age")? },
        "sex" => {
            let sexes = [("female", Sex::Female), ("male", Sex::Male), ("other", Sex::Other)];
            Question::Sex { sex: section.choice("sex", &sexes, &[])? }
        }
        "has" => Question::Has { has: section.choice("has", &[("image", Modality::Image), ("record", Modality::Record)], &[])? },
        "history" => Question::History { history: section.span("history")? },
        "column" => {
            if !section.has("value") && !section.has("equals") {
                section.wrong("column", "a column is compared: write value = { above = 0 } or equals = \"x\"");
            }
            Question::Column { column: section.word("column")?, value: read_bounds(section, "value"), equals: section.word("equals") }
        }
        _ => Question::Events {
            events: read_events(section, key)?,
            value: read_bounds(section, "value"),
            equals: section.word("equals"),
            within: section.span("within"),
            times: section.count("times", 1..=1000).unwrap_or(1),
        },
    };
    Some(Rule { name: section.word("name"), question })
}

fn read_named(section: &Section<'_>, key: &str) -> Option<Named> {
    let (table, place) = section.table(key)?;
    let known = ["column", "identifier", "observation"];
    let inner = Section::new(&format!("{}.{key}", section.label), place, Some(table), &known, section.problems);
    Some(match one_of(&inner, &known)? {
        "column" => Named::Column { column: inner.word("column")? },
        "identifier" => Named::Identifier { identifier: inner.word("identifier")? },
        _ => {
            let observation = inner.word("observation")?;
            if !is_token(&observation) {
                inner.wrong("observation", format!("{} is \"{observation}\"; write system|code", inner.name("observation")));
            }
            Named::Observation { observation }
        }
    })
}

fn read_date(section: &Section<'_>, key: &str) -> Option<Date> {
    let text = match &section.get(key)?.value {
        Value::Date(text) => text.clone(),
        _ => section.text(key)?,
    };
    let start = Time::parse_birth(&text).ok();
    if start.is_none() {
        section.wrong(key, format!("{} is \"{text}\"; write a date such as \"2019-07-01\"", section.name(key)));
    }
    Some(Date { text, start: start? })
}

/// A share of the patients that would train.
fn read_share(section: &Section<'_>, other: &str) -> Option<f64> {
    if section.has(other) {
        if section.has("validation") {
            section.wrong("validation", format!("`validation` and `{other}` both say who validates: keep one"));
        }
        return None;
    }
    let share = section.number("validation", (std::ops::Bound::Excluded(0.0), std::ops::Bound::Excluded(1.0)));
    Some(share.unwrap_or(SHARE))
}

fn read_split(cohort: &Section<'_>, folds: bool) -> SplitSettings {
    let shares =
        if folds { Fractions { train: 0.85, validation: 0.15, test: 0.0 } } else { Fractions { train: 0.7, validation: 0.1, test: 0.2 } };
    let default = SplitSettings::Patient { shares, stratify: folds, group: None };
    let Some((table, place)) = cohort.table("split") else { return default };
    let open = |known: &[&str]| Section::new("cohort.split", place.clone(), Some(table), known, cohort.problems);
    let of_patients = ["by", "train", "validation", "test", "stratify", "group"];
    let of_time = ["by", "test_from", "validation_from", "validation", "group"];
    let of_site = ["by", "site", "test_sites", "validation_sites", "validation", "group"];
    // Which keys are known depends on `by`, so that it is read by itself first.
    let by = match table.get("by").map(|node| &node.value) {
        Some(Value::Text(text)) => text.as_str(),
        _ => "patient",
    };
    match by {
        "time" | "site" if folds => {
            let known: &[&str] = if by == "time" { &of_time } else { &of_site };
            let section = open(known);
            section.wrong("by", format!("`folds` tests on everybody once: remove it, or by = \"{by}\""));
            default
        }
        "time" => read_by_time(&open(&of_time)).unwrap_or(default),
        "site" => read_by_site(&open(&of_site)).unwrap_or(default),
        _ => {
            let section = open(&of_patients);
            section.choice("by", &[("patient", ()), ("time", ()), ("site", ())], &[]);
            SplitSettings::Patient {
                shares: read_shares(&section, folds, shares),
                stratify: section.flag("stratify").unwrap_or(folds),
                group: read_named(&section, "group"),
            }
        }
    }
}

fn read_by_time(section: &Section<'_>) -> Option<SplitSettings> {
    if !section.has("test_from") {
        section.missing("test_from", "say when the test split begins, such as test_from = \"2019-07-01\"");
    }
    let (test_from, validation_from) = (read_date(section, "test_from"), read_date(section, "validation_from"));
    if let (Some(test), Some(validation)) = (&test_from, &validation_from)
        && validation.start >= test.start
    {
        section.wrong("validation_from", "`validation_from` must be before `test_from`");
    }
    let validation = read_share(section, "validation_from");
    Some(SplitSettings::Time { test_from: test_from?, validation_from, validation, group: read_named(section, "group") })
}

fn read_by_site(section: &Section<'_>) -> Option<SplitSettings> {
    for (key, advice) in [
        ("site", "say where a patient's site is written, such as site = { column = \"Hospital\" }"),
        ("test_sites", "name the sites that are tested on, such as test_sites = [\"North\"]"),
    ] {
        if !section.has(key) {
            section.missing(key, advice);
        }
    }
    let (site, test_sites) = (read_named(section, "site"), section.texts("test_sites"));
    let validation_sites = section.texts("validation_sites").unwrap_or_default();
    if let Some(both) = test_sites.iter().flatten().find(|site| validation_sites.contains(site)) {
        section.wrong("validation_sites", format!("\"{both}\" is among `test_sites` too: a site is on one side"));
    }
    let validation = read_share(section, "validation_sites");
    Some(SplitSettings::Site { site: site?, test_sites: test_sites?, validation_sites, validation, group: read_named(section, "group") })
}

fn read_shares(split: &Section<'_>, folds: bool, default: Fractions) -> Fractions {
    let share = |key: &str| split.number(key, 0.0..=1.0);
    let required = if folds { &["train", "validation"][..] } else { &["train", "validation", "test"] };
    if !["train", "validation", "test"].iter().any(|key| split.has(key)) && ["by", "stratify", "group"].iter().any(|key| split.has(key)) {
        return default;
    }
    for key in required.iter().filter(|key| !split.has(key)) {
        split.missing(key, "write all shares; they sum to 1");
    }
    let (Some(train), Some(validation)) = (share("train"), share("validation")) else { return default };
    let test = share("test");
    if folds && test.is_some_and(|test| test > 0.0) {
        split.wrong("test", "with `folds` each fold is the test set once: remove `test`, and let train and validation sum to 1");
        return default;
    }
    let Some(test) = test.or(folds.then_some(0.0)) else { return default };
    let fractions = Fractions { train, validation, test };
    if validation == 0.0 {
        split.wrong("validation", "validation is 0; early stopping and calibration are fitted on it: give it a share such as 0.1");
    }
    if !folds && test == 0.0 {
        split.wrong("test", "test is 0, so that nothing could be measured; give it a share such as 0.2, or use `folds`");
    }
    fractions.checked().unwrap_or_else(|_| {
        let sum = train + validation + test;
        let advice = if train > 0.0 { "they must sum to 1" } else { "train must be more than 0, and all sum to 1" };
        split.problems.push(&split.place, format!("the shares of {} sum to {}; {advice}", split.label, (sum * 1e6).round() / 1e6));
        default
    })
}
