//! A TOML document with the place of every value, and `--set` laid over it.

use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, nearest};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
    /// As typed after `--set key=`, where a shell has no kinds of value.
    pub typed: Option<String>,
}

/// TOML's kinds of value, less dates: no setting is one.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    /// An integer that 64 bits cannot hold, as written.
    HugeInteger(String),
    Float(f64),
    Boolean(bool),
    Date(String),
    Array(Vec<Node>),
    Table(Table),
}

/// Keys in the order of the document's text or of `--set`, each with the place of its key.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub entries: Vec<(String, Node)>,
}

impl Value {
    /// What a person calls it.
    pub(super) fn described(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{text}\""),
            Self::Integer(number) => number.to_string(),
            Self::HugeInteger(digits) | Self::Date(digits) => digits.clone(),
            Self::Float(number) => format!("{number:?}"),
            Self::Boolean(flag) => flag.to_string(),
            Self::Array(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }
}

/// Byte offset → line, from 1.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(k, _)| k).collect())
    }

    fn of(&self, offset: usize) -> Place {
        Place::Line(self.0.partition_point(|newline| *newline < offset) + 1)
    }
}

/// Reads a document; what is not TOML is a list of problems with their lines.
pub(super) fn parse(text: &str) -> Result<Table, Vec<Problem>> {
    let lines = Lines::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table(document.get_ref(), &lines));
    }
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| {
            let place = error.span().map_or(Place::File, |span| lines.of(span.start));
            Problem::new(place, format!("not TOML: {}", error.message().replace('\n', ", ")))
        })
        .collect();
    // The parser's recovery may complain about what the first error on a line made of the rest of it.
    problems.dedup_by(|later, first| later.place == first.place);
    Err(problems)
}

fn table(table_: &DeTable<'_>, lines: &Lines) -> Table {
    let mut entries: Vec<(usize, String, Node)> = table_
        .iter()
        .map(|(key, value)| {
            let offset = key.span().start;
            let mut node = node(value.get_ref(), lines.of(value.span().start), lines);
            // A table's own span may be that of its first key; its header's key is what a person looks for.
            if matches!(node.value, Value::Table(_)) {
                node.place = lines.of(offset);
            }
            (offset, key.get_ref().to_string(), node)
        })
        .collect();
    entries.sort_by_key(|(offset, ..)| *offset);
    Table { entries: entries.into_iter().map(|(_, key, node)| (key, node)).collect() }
}

fn node(value: &DeValue<'_>, place: Place, lines: &Lines) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::HugeInteger(digits.to_string()),
        },
        // A float too large for f64 parses as infinity, which every range refuses.
        DeValue::Float(digits) => Value::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| node(item.get_ref(), lines.of(item.span().start), lines)).collect()),
        DeValue::Table(inner) => Value::Table(table(inner, lines)),
    };
    Node { place, value, typed: None }
}

/// Lays `dotted.key=value` over the document. A list's element is named by its position from 0, a task also by its name.
pub(super) fn set(root: &mut Table, override_: &str) -> Result<(), Problem> {
    let Some((path, text)) = override_.split_once('=').map(|(path, text)| (path.trim(), text.trim())) else {
        return Err(Problem::new(Place::set(override_), "expected key=value, such as training.epochs=3".to_owned()));
    };
    let place = Place::set(path);
    let parts: Vec<&str> = path.split('.').map(str::trim).collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(Problem::new(place, "an empty key; write section.key=value, such as training.epochs=3".to_owned()));
    }
    let node = Node { value: override_value(text, &place), place: place.clone(), typed: Some(text.to_owned()) };
    descend(root, &parts, node, &place)
}

/// TOML where it is TOML, a text otherwise, so that a path or a word needs no quotes within the shell's.
fn override_value(text: &str, place: &Place) -> Value {
    let wrapped = format!("v = {text}\n");
    let parsed = match DeTable::parse(&wrapped) {
        Ok(document) if document.get_ref().len() == 1 => {
            document.get_ref().get("v").map(|value| node(value.get_ref(), place.clone(), &Lines::new("")))
        }
        _ => None,
    };
    parsed.map_or_else(|| Value::Text(text.to_owned()), |node| replace_places(node, place).value)
}

fn replace_places(node: Node, place: &Place) -> Node {
    let value = match node.value {
        Value::Array(items) => Value::Array(items.into_iter().map(|item| replace_places(item, place)).collect()),
        Value::Table(inner) => {
            Value::Table(Table { entries: inner.entries.into_iter().map(|(key, node)| (key, replace_places(node, place))).collect() })
        }
        other => other,
    };
    Node { place: place.clone(), value, typed: None }
}

fn descend(table: &mut Table, parts: &[&str], node: Node, place: &Place) -> Result<(), Problem> {
    let [key, rest @ ..] = parts else { return Ok(()) };
    let index = table.entries.iter().position(|(name, _)| name == key);
    if rest.is_empty() {
        match index {
            Some(k) => table.entries[k].1 = node,
            None => table.entries.push(((*key).to_owned(), node)),
        }
        return Ok(());
    }
    let k = index.unwrap_or_else(|| {
        let empty = Node { place: place.clone(), value: Value::Table(Table::default()), typed: None };
        table.entries.push(((*key).to_owned(), empty));
        table.entries.len() - 1
    });
    match &mut table.entries[k].1.value {
        Value::Table(inner) => descend(inner, rest, node, place),
        Value::Array(items) => element(items, key, rest, node, place),
        other => Err(Problem::new(place.clone(), format!("`{key}` is {}, which has no `{}` in it", other.described(), rest.join(".")))),
    }
}

fn element(items: &mut [Node], key: &str, parts: &[&str], node: Node, place: &Place) -> Result<(), Problem> {
    let [wanted, rest @ ..] = parts else { return Ok(()) };
    let names: Vec<String> = items.iter().map(|item| name_of(item).unwrap_or_default().to_owned()).collect();
    let count = items.len();
    let position = wanted.parse().ok().filter(|k: &usize| *k < count).or_else(|| names.iter().position(|name| name == wanted));
    let Some(item) = position.and_then(|k| items.get_mut(k)) else {
        let named: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let meant = nearest(wanted, &named).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        return Err(Problem::new(place.clone(), format!("no `{wanted}` among the {count} of `{key}`, which count from 0{meant}")));
    };
    match (&mut item.value, rest) {
        (_, []) => {
            *item = node;
            Ok(())
        }
        (Value::Table(inner), rest) => descend(inner, rest, node, place),
        (other, rest) => {
            Err(Problem::new(place.clone(), format!("`{key}.{wanted}` is {}, which has no `{}` in it", other.described(), rest.join("."))))
        }
    }
}

fn name_of(node: &Node) -> Option<&str> {
    let Value::Table(table) = &node.value else { return None };
    match &table.get("name")?.value {
        Value::Text(name) => Some(name),
        _ => None,
    }
}
