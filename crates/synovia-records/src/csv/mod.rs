//! Wide tables: a row is what is known of a patient (RFC 4180, with a header).

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use synovia_cohort::{EventKind, EventValue, Patient, StudyLink};

use crate::config::CsvLayout;
use crate::error::{RecordsError, io};
use crate::rows::missing;
use crate::source::{Source, fields, open, split_rows};
use crate::spill::{Body, Origin, Said, Sink, Token};
use crate::time::chart_time;

/// How a column's cells are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cells {
    Numbers,
    Categories,
}

/// A column that is read.
#[derive(Debug)]
struct Column {
    name: Arc<str>,
    index: usize,
    /// Cells of the file that say something, and those of them that are numbers.
    n_cells: u64,
    n_numbers: u64,
    cells: Cells,
}

/// A table whose header was found to have the columns that are asked for.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) delimiter: u8,
    header_line: u64,
    n_fields: usize,
    id: usize,
    image: Option<usize>,
    time: Option<usize>,
    image_names: Vec<String>,
    columns: Vec<Column>,
}

/// What separates the fields of a table: what the pipeline says, else a comma, or a tabulator in a `.tsv`.
pub(crate) fn delimiter(source: &Source, said: Option<char>) -> u8 {
    let tabs = source.name.to_ascii_lowercase().contains(".tsv");
    said.map_or(if tabs { b'\t' } else { b',' }, |c| u8::try_from(c).unwrap_or(b','))
}

/// The column that was probably meant by `name`: one of nearly its spelling.
pub(crate) fn nearest(name: &str, header: &[impl AsRef<str>]) -> Option<String> {
    let name = name.to_lowercase();
    let distances = header.iter().map(AsRef::as_ref).map(|column| (strsim::damerau_levenshtein(&name, &column.to_lowercase()), column));
    let near = distances.filter(|(distance, column)| distance * 3 <= name.chars().count().max(column.chars().count()));
    near.min_by_key(|(distance, _)| *distance).map(|(_, column)| column.to_owned())
}

/// Share of a column's cells that are numbers when the column is one of numbers and the rest are errors.
const NUMBERS_AT_LEAST: f64 = 0.9;

impl Table {
    /// Reads each file once for its header and for which columns hold numbers: the same in all of them.
    pub(crate) fn open_all(sources: &[Source], layout: &CsvLayout, max_row_bytes: usize) -> Result<Vec<Self>, RecordsError> {
        let mut tables: Vec<Self> =
            sources.iter().map(|source| Self::open(source, layout, max_row_bytes)).collect::<Result<_, RecordsError>>()?;
        // Every table has the columns of the layout, in its order.
        let n_columns = tables.first().map_or(0, |table| table.columns.len());
        for k in 0..n_columns {
            let sum = |of: fn(&Column) -> u64| tables.iter().map(|table| of(&table.columns[k])).sum::<u64>();
            let (n_numbers, n_cells) = (sum(|column| column.n_numbers), sum(|column| column.n_cells));
            let numbers = n_cells > 0 && n_numbers as f64 >= NUMBERS_AT_LEAST * n_cells as f64;
            if !numbers || layout.categories.iter().any(|c| **c == *tables[0].columns[k].name) {
                tables.iter_mut().for_each(|table| table.columns[k].cells = Cells::Categories);
            }
        }
        Ok(tables)
    }

    fn open(source: &Source, layout: &CsvLayout, max_row_bytes: usize) -> Result<Self, RecordsError> {
        let delimiter = delimiter(source, layout.delimiter);
        let reader = open(source, &|_| {}).map_err(io(&source.path()))?;
        let mut table: Option<Result<Self, RecordsError>> = None;
        split_rows(reader, max_row_bytes, delimiter, &mut |batch| {
            for piece in &batch.pieces {
                let row = fields(&batch.bytes[piece.range.clone()], delimiter);
                match (&mut table, row) {
                    (None, Ok(row)) => table = Some(Self::from_header(&row, piece.line, delimiter, layout, &source.path())),
                    (None, Err(what)) => table = Some(Err(RecordsError::Header { path: source.path(), what })),
                    (Some(Err(_)), _) => return false,
                    (Some(Ok(table)), Ok(row)) if row.len() == table.n_fields => {
                        for column in &mut table.columns {
                            let cell = &row[column.index];
                            column.n_cells += u64::from(!missing(cell));
                            column.n_numbers += u64::from(!missing(cell) && cell.parse::<f64>().is_ok());
                        }
                    }
                    (Some(Ok(_)), _) => {}
                }
            }
            true
        });
        table.unwrap_or_else(|| Self::from_header(&[], 1, delimiter, layout, &source.path()))
    }

    fn from_header(header: &[Cow<'_, str>], line: u64, delimiter: u8, layout: &CsvLayout, path: &Path) -> Result<Self, RecordsError> {
        let index = |name: &str| {
            header.iter().position(|h| h == name).ok_or_else(|| RecordsError::MissingColumn {
                path: path.to_owned(),
                column: name.to_owned(),
                n_columns: header.len(),
                nearest: nearest(name, header),
            })
        };
        let mut names: Vec<&String> = Vec::new();
        for name in layout.features.iter().chain(&layout.labels) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let columns = names
            .into_iter()
            .map(|name| Ok(Column { name: name.as_str().into(), index: index(name)?, n_cells: 0, n_numbers: 0, cells: Cells::Numbers }));
        Ok(Self {
            delimiter,
            header_line: line,
            n_fields: header.len(),
            id: index(&layout.id)?,
            image: layout.image.as_deref().map(index).transpose()?,
            time: layout.time.as_deref().map(index).transpose()?,
            image_names: if layout.image_names.is_empty() { vec!["{}".to_owned()] } else { layout.image_names.clone() },
            columns: columns.collect::<Result<_, RecordsError>>()?,
        })
    }

    /// Reads one row into `sink`.
    pub(crate) fn read_row(&self, bytes: &[u8], line: u64, sink: &mut Sink) {
        if line == self.header_line {
            return;
        }
        sink.at(line);
        let position = format!("line {line}");
        let row = match fields(bytes, self.delimiter) {
            Ok(row) => row,
            Err(reason) => return sink.trouble(position, reason),
        };
        if row.len() != self.n_fields {
            return sink.trouble(position, format!("{} fields where the header has {}", row.len(), self.n_fields));
        }
        sink.taken("row");
        let id = &*row[self.id];
        if missing(id) {
            return sink.trouble(position, "no patient in the id column");
        }
        let mut time = None;
        if let Some(index) = self.time {
            time = chart_time(&row[index].replace(' ', "T"));
            if time.is_none() {
                let reason = "not a time that a chart can have: expected YYYY-MM-DD or YYYY-MM-DDThh:mm:ss";
                sink.trouble(format!("{position} column {}", index + 1), reason);
            }
        }
        let mut patient = Patient { identifiers: vec![id.to_owned()], ..Patient::default() };
        let mut events = Vec::new();
        for column in &self.columns {
            let cell = &*row[column.index];
            if missing(cell) {
                continue;
            }
            let value = match (column.cells, cell.parse::<f64>()) {
                (Cells::Categories, _) => EventValue::Code(cell.into()),
                (Cells::Numbers, Ok(value)) if value.is_finite() => EventValue::Number { value, unit: "".into() },
                (Cells::Numbers, _) => {
                    sink.trouble(format!("{position} column {}", column.index + 1), "not a finite number in a column of numbers");
                    continue;
                }
            };
            match (self.time, time) {
                (None, _) => patient.facts.push((column.name.clone(), value)),
                (Some(_), Some(time)) => events.push((time, &column.name, value)),
                (Some(_), None) => {}
            }
        }
        sink.push(id, Origin::Row, &Body::Patient(&patient));
        for (time, name, value) in &events {
            let (code, value) = (Token::new("column", name), value.into());
            sink.push(id, Origin::Row, &Body::Event(&Said { time: *time, kind: EventKind::Observation, code, display: name, value }));
        }
        for name in self.images(&row) {
            let link = StudyLink { study_instance_uid: name, accession: String::new(), started: time };
            sink.push(id, Origin::Row, &Body::Study(&link));
        }
    }

    /// Names of a row's pictures, less folder and ending.
    fn images(&self, row: &[Cow<'_, str>]) -> Vec<String> {
        let Some(cell) = self.image.map(|k| &*row[k]).filter(|cell| !missing(cell)) else { return Vec::new() };
        let stem = Path::new(cell).file_name().map_or(cell.into(), |name| name.to_string_lossy());
        let stem = [".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG"].iter().find_map(|e| stem.strip_suffix(e)).unwrap_or(&stem);
        self.image_names.iter().map(|pattern| pattern.replace("{}", stem)).collect()
    }
}
