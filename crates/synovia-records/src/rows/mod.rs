//! Rows of tables with named columns, from text or from Parquet: MEDS, OMOP and long CSV.
//!
//! Knows nothing of FHIR beyond the systems that its codes have.

mod cell;
mod long;
mod omop;
mod parquet;
mod statement;
mod vocabulary;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use self::cell::Cell;
pub(crate) use self::cell::missing;
use self::long::{CodeEntry, Long};
pub(crate) use self::omop::table_of;
use self::omop::{Concepts, OmopTable};
use self::parquet::{Chunk, ParquetFile};
pub(crate) use self::statement::Remembered;
use crate::config::{Format, FormatConfig};
use crate::csv::{Table, nearest};
use crate::error::{RecordsError, io};
use crate::source::{Layout, Source, fields, open, split_rows};
use crate::spill::Sink;

/// A column by any of its names.
#[derive(Clone, Debug)]
struct Wanted {
    names: Vec<String>,
    needed: bool,
}

impl Wanted {
    fn new(names: &[impl AsRef<str>], needed: bool) -> Self {
        Self { names: names.iter().map(|name| name.as_ref().to_owned()).collect(), needed }
    }

    const fn none() -> Self {
        Self { names: Vec::new(), needed: false }
    }

    fn find(&self, header: &[String]) -> Option<usize> {
        let same = |exact: bool| {
            let is = |h: &String| self.names.iter().any(|n| if exact { n == h } else { !n.is_empty() && n.eq_ignore_ascii_case(h) });
            header.iter().position(is)
        };
        same(true).or_else(|| same(false))
    }
}

/// What the rows of a file mean.
#[derive(Clone, Debug)]
enum What {
    Long(Long),
    Splits,
    Omop(OmopTable, Arc<Concepts>),
    /// Read before the others: nothing of it is an event.
    Metadata,
}

/// Where the rows of a file lie.
#[derive(Debug)]
enum Lie {
    Text { delimiter: u8, header_line: u64, n_fields: usize },
    Parquet(Box<ParquetFile>),
}

/// A file of rows, its columns found.
#[derive(Debug)]
pub(crate) struct Named {
    lie: Lie,
    /// Place in the file of each column that is wanted.
    columns: Vec<Option<usize>>,
    what: What,
}

/// How the rows of one file are read.
#[derive(Debug)]
pub(crate) enum Rows {
    Wide(Table),
    Named(Named),
    /// A file that can't be read, and why.
    Broken(&'static str),
}

/// One row, its cells in the order of the columns that are wanted.
struct Row<'a> {
    cells: Cells<'a>,
    number: u64,
}

enum Cells<'a> {
    Text(&'a [Cow<'a, str>], &'a [Option<usize>]),
    Parquet(&'a Chunk, usize),
}

impl Row<'_> {
    fn cell(&self, column: usize) -> Cell<'_> {
        match self.cells {
            Cells::Text(fields, columns) => {
                columns.get(column).copied().flatten().and_then(|k| fields.get(k)).map_or(Cell::Absent, |text| Cell::of_text(text))
            }
            Cells::Parquet(chunk, row) => chunk.cell(column, row),
        }
    }

    /// The only text of a cell that is a list; in a table of text there are none.
    fn only_text(&self, column: usize) -> Option<String> {
        match self.cells {
            Cells::Text(..) => None,
            Cells::Parquet(chunk, row) => chunk.only_text(column, row),
        }
    }

    fn position(&self) -> String {
        let unit = if matches!(self.cells, Cells::Text(..)) { "line" } else { "row" };
        format!("{unit} {}", self.number)
    }
}

/// Larger tables of concepts are read for the concepts alone that other tables name, which costs a look at those.
const MAX_CONCEPT_BYTES: u64 = 48 << 20;

impl Rows {
    /// Finds the columns of each file, and reads what describes the others: `codes.parquet`, the table of concepts. `log` takes
    /// a file's index, position and reason for what of that can't be read.
    pub(crate) fn open_all(
        sources: &[Source],
        config: &FormatConfig,
        log: &mut dyn FnMut(usize, String, &str),
    ) -> Result<Vec<Self>, RecordsError> {
        let max_bytes = config.max_resource_bytes;
        match (config.format, &config.csv, &config.long) {
            (Format::Fhir, ..) => Ok(Vec::new()),
            (Format::Csv, Some(layout), _) => Ok(Table::open_all(sources, layout, max_bytes)?.into_iter().map(Self::Wide).collect()),
            (Format::Csv, None, None) => Err(RecordsError::NoLayout),
            (Format::Csv, None, Some(layout)) => {
                let what = What::Long(Long { default_system: "local", codes: Arc::default() });
                let one = |source| Self::open(source, &long::columns(layout), layout.delimiter, what.clone(), max_bytes);
                sources.iter().map(one).collect()
            }
            (Format::Meds, ..) => Self::open_meds(sources, max_bytes, log),
            (Format::Omop, ..) => Self::open_omop(sources, max_bytes, log),
        }
    }

    fn open_meds(sources: &[Source], max_bytes: usize, log: &mut dyn FnMut(usize, String, &str)) -> Result<Vec<Self>, RecordsError> {
        let mut codes: HashMap<String, CodeEntry> = HashMap::new();
        for (k, source) in sources.iter().enumerate().filter(|(_, source)| is_metadata(&source.name, "codes")) {
            let rows = Self::open(source, &long::code_columns(), None, What::Metadata, max_bytes)?;
            rows.each(
                source,
                max_bytes,
                &mut |row| {
                    long::add_code(row, &mut codes);
                    Ok(())
                },
                &mut |position, reason| log(k, position, reason),
            )?;
        }
        let long = What::Long(Long { default_system: "meds", codes: Arc::new(codes) });
        let one = |source: &Source| {
            if is_metadata(&source.name, "codes") {
                Self::open(source, &long::code_columns(), None, What::Metadata, max_bytes)
            } else if is_metadata(&source.name, "subject_splits") {
                Self::open(source, &long::split_columns(), None, What::Splits, max_bytes)
            } else {
                Self::open(source, &long::meds_columns(), None, long.clone(), max_bytes)
            }
        };
        sources.iter().map(one).collect()
    }

    fn open_omop(sources: &[Source], max_bytes: usize, log: &mut dyn FnMut(usize, String, &str)) -> Result<Vec<Self>, RecordsError> {
        let table = |source: &Source| table_of(&source.name).unwrap_or(OmopTable::Concept);
        let open = |source: &Source, what: What| Self::open(source, &table(source).columns(), None, what, max_bytes);
        let of_concepts = |source: &Source| matches!(table(source), OmopTable::Concept);
        let mut wanted = None;
        if sources.iter().filter(|s| of_concepts(s)).map(|s| s.n_bytes).sum::<u64>() > MAX_CONCEPT_BYTES {
            let mut named = HashSet::new();
            for source in sources.iter().filter(|source| table(source).names_concepts()) {
                let note = &mut |row: &Row<'_>| {
                    omop::note_concepts(row, &mut named);
                    Ok(())
                };
                // What can't be read here can't be read again, and is rejected then.
                open(source, What::Metadata)?.each(source, max_bytes, note, &mut |_, _| {})?;
            }
            wanted = Some(named);
        }
        let mut concepts = Concepts::default();
        for (k, source) in sources.iter().enumerate().filter(|(_, source)| of_concepts(source)) {
            let rows = open(source, What::Metadata)?;
            rows.each(source, max_bytes, &mut |row| concepts.add(row, wanted.as_ref()), &mut |position, reason| log(k, position, reason))?;
        }
        let concepts = Arc::new(concepts);
        let one = |source: &Source| {
            let what = if of_concepts(source) { What::Metadata } else { What::Omop(table(source), concepts.clone()) };
            open(source, what)
        };
        sources.iter().map(one).collect()
    }

    fn open(source: &Source, wanted: &[Wanted], delimiter: Option<char>, what: What, max_bytes: usize) -> Result<Self, RecordsError> {
        let (names, lie) = if source.layout == Layout::Parquet {
            match ParquetFile::open(&source.path()) {
                Ok(file) => (file.names(), Lie::Parquet(Box::new(file))),
                Err(reason) => return Ok(Self::Broken(reason)),
            }
        } else {
            let delimiter = crate::csv::delimiter(source, delimiter);
            let (names, header_line) = header(source, delimiter, max_bytes)?;
            if names.is_empty() {
                return Ok(Self::Broken("an empty file: expected a header"));
            }
            let n_fields = names.len();
            (names, Lie::Text { delimiter, header_line, n_fields })
        };
        let columns = wanted.iter().map(|column| match column.find(&names) {
            None if column.needed => Err(missing_column(&source.path(), &column.names, &names)),
            found => Ok(found),
        });
        Ok(Self::Named(Named { columns: columns.collect::<Result<_, _>>()?, lie, what }))
    }

    /// What separates the fields of a table of text.
    pub(crate) fn delimiter(&self) -> u8 {
        match self {
            Self::Wide(table) => table.delimiter,
            Self::Named(Named { lie: Lie::Text { delimiter, .. }, .. }) => *delimiter,
            _ => b',',
        }
    }

    /// Whether its rows are no events.
    pub(crate) const fn is_metadata(&self) -> bool {
        matches!(self, Self::Named(Named { what: What::Metadata, .. }))
    }

    /// Whether nothing of it can be read.
    pub(crate) const fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_))
    }

    /// The stretches of a Parquet file to read one by one, with the compressed bytes of each; or why there are none.
    pub(crate) fn stretches(&self) -> Result<Vec<(usize, Range<usize>, u64, u64)>, &'static str> {
        match self {
            Self::Named(Named { lie: Lie::Parquet(file), .. }) => {
                let stretches = file.stretches().into_iter();
                Ok(stretches
                    .map(|(k, rows, first)| (k, rows.clone(), first, if rows.start == 0 { file.group_bytes(k) } else { 0 }))
                    .collect())
            }
            Self::Broken(reason) => Err(reason),
            _ => Ok(Vec::new()),
        }
    }

    /// Reads a stretch of a Parquet file.
    pub(crate) fn read_stretch(&self, group: usize, rows: &Range<usize>, first: u64, remembered: &mut Remembered, sink: &mut Sink) {
        let Self::Named(Named { lie: Lie::Parquet(file), columns, what }) = self else { return };
        match file.read(group, rows, columns) {
            Ok(chunk) => {
                for row in 0..rows.len() {
                    let number = first + row as u64;
                    sink.at(number);
                    what.read(&Row { cells: Cells::Parquet(&chunk, row), number }, remembered, sink);
                }
            }
            Err(reason) => sink.trouble(format!("rows {first} to {}", first + rows.len() as u64 - 1), reason),
        }
    }

    /// Reads a row of text.
    pub(crate) fn read_row(&self, bytes: &[u8], line: u64, remembered: &mut Remembered, sink: &mut Sink) {
        match self {
            Self::Wide(table) => table.read_row(bytes, line, sink),
            Self::Named(named) => {
                sink.at(line);
                match named.fields(bytes, line) {
                    Some(Ok(fields)) => {
                        named.what.read(&Row { cells: Cells::Text(&fields, &named.columns), number: line }, remembered, sink);
                    }
                    Some(Err(reason)) => sink.trouble(format!("line {line}"), reason),
                    None => {}
                }
            }
            Self::Broken(_) => {}
        }
    }

    /// Calls `take` with each row, in order, on this thread; `log` with what can't be read.
    fn each(
        &self,
        source: &Source,
        max_bytes: usize,
        take: &mut dyn FnMut(&Row<'_>) -> Result<(), &'static str>,
        log: &mut dyn FnMut(String, &str),
    ) -> Result<(), RecordsError> {
        let Self::Named(named) = self else { return Ok(()) };
        let mut taken = |row: &Row<'_>, log: &mut dyn FnMut(String, &str)| {
            if let Err(reason) = take(row) {
                log(row.position(), reason);
            }
        };
        if let Lie::Parquet(file) = &named.lie {
            for (group, rows, first) in file.stretches() {
                match file.read(group, &rows, &named.columns) {
                    Ok(chunk) => {
                        for row in 0..rows.len() {
                            taken(&Row { cells: Cells::Parquet(&chunk, row), number: first + row as u64 }, log);
                        }
                    }
                    Err(reason) => log(format!("rows {first} to {}", first + rows.len() as u64 - 1), reason),
                }
            }
            return Ok(());
        }
        let reader = open(source, &|_| {}).map_err(io(&source.path()))?;
        split_rows(reader, max_bytes, self.delimiter(), &mut |batch| {
            batch.troubles.iter().for_each(|trouble| log(trouble.position.clone(), &trouble.reason));
            for piece in &batch.pieces {
                match named.fields(&batch.bytes[piece.range.clone()], piece.line) {
                    Some(Ok(fields)) => taken(&Row { cells: Cells::Text(&fields, &named.columns), number: piece.line }, log),
                    Some(Err(reason)) => log(format!("line {}", piece.line), &reason),
                    None => {}
                }
            }
            true
        });
        Ok(())
    }
}

impl Named {
    /// The fields of a row of text; `None` for the header.
    fn fields<'r>(&self, bytes: &'r [u8], line: u64) -> Option<Result<Vec<Cow<'r, str>>, Cow<'static, str>>> {
        let Lie::Text { delimiter, header_line, n_fields } = self.lie else { return None };
        if line == header_line {
            return None;
        }
        Some(match fields(bytes, delimiter) {
            Ok(row) if row.len() == n_fields => Ok(row),
            Ok(row) => Err(format!("{} fields where the header has {n_fields}", row.len()).into()),
            Err(reason) => Err(reason.into()),
        })
    }
}

impl What {
    fn read(&self, row: &Row<'_>, remembered: &mut Remembered, sink: &mut Sink) {
        match self {
            Self::Long(long) => long.read(row, remembered, sink),
            Self::Splits => long::read_split(row, sink),
            Self::Omop(table, concepts) => omop::read(*table, concepts, row, sink),
            Self::Metadata => {}
        }
    }
}

/// Whether a file of MEDS is this one of its metadata.
fn is_metadata(name: &str, stem: &str) -> bool {
    let mut parts = name.rsplit(['/', '\\']);
    let is = parts.next().is_some_and(|file| file.strip_suffix(".parquet") == Some(stem));
    is && parts.next().is_none_or(|folder| folder == "metadata")
}

/// A file of MEDS: a shard or metadata that is read (`true`), or metadata that nothing is taken of (`false`).
pub(crate) fn in_meds(name: &str) -> Option<bool> {
    let folder = name.split(['/', '\\']).rev().nth(1).unwrap_or_default();
    match (folder, name.ends_with(".parquet")) {
        ("metadata", true) => Some(is_metadata(name, "codes") || is_metadata(name, "subject_splits")),
        ("metadata", false) if name.ends_with("dataset.json") => Some(false),
        (_, true) => Some(true),
        _ => None,
    }
}

/// The first row of a table of text, and its line.
fn header(source: &Source, delimiter: u8, max_bytes: usize) -> Result<(Vec<String>, u64), RecordsError> {
    let reader = open(source, &|_| {}).map_err(io(&source.path()))?;
    let mut found = Ok((Vec::new(), 1));
    split_rows(reader, max_bytes, delimiter, &mut |batch| {
        let Some(piece) = batch.pieces.first() else { return true };
        found = match fields(&batch.bytes[piece.range.clone()], delimiter) {
            Ok(row) => Ok((row.into_iter().map(Cow::into_owned).collect(), piece.line)),
            Err(what) => Err(RecordsError::Header { path: source.path(), what }),
        };
        false
    });
    found
}

fn missing_column(path: &Path, names: &[String], header: &[String]) -> RecordsError {
    let column = names.first().cloned().unwrap_or_default();
    RecordsError::MissingColumn { path: path.to_owned(), nearest: nearest(&column, header), column, n_columns: header.len() }
}
