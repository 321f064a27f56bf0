//! Columns of a Parquet file, a stretch of a row group at a time.
//!
//! Knows nothing of what the columns mean. Types are Parquet's own: what another program noted beside them (Arrow's schema) is
//! not needed, so that dictionaries and extension types are read as what they hold.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use polars_arrow::array::{Array, BinaryViewArray, BooleanArray, ListArray, PrimitiveArray, StaticArray, Utf8ViewArray};
use polars_arrow::datatypes::{ArrowDataType, ArrowSchema, TimeUnit};
use polars_arrow::types::NativeType;
use polars_parquet::read::schema::parquet_to_arrow_schema;
use polars_parquet::read::{
    BasicDecompressor, ColumnChunkMetadata, FileMetadata, Filter, PageReader, column_iter_to_arrays, read_metadata,
};

use super::cell::Cell;

/// Rows that are decoded at once, at most: a row group may have millions.
pub(crate) const ROWS_AT_ONCE: usize = 1 << 18;
/// Decompressed pages and headers of more bytes than this are no sound file's.
const MAX_PAGE_BYTES: usize = 256 << 20;

pub(crate) const NOT_PARQUET: &str = "not Parquet, or damaged";
const DAMAGED: &str = "damaged Parquet: these rows can't be read";

/// A file whose footer was read.
pub(crate) struct ParquetFile {
    path: PathBuf,
    n_bytes: u64,
    metadata: FileMetadata,
    schema: ArrowSchema,
}

impl std::fmt::Debug for ParquetFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetFile").field("n_rows", &self.metadata.num_rows).finish_non_exhaustive()
    }
}

/// Runs what reads bytes that may be anything: the decoder checks most of them, and panics on some of the rest.
fn guarded<T>(read: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

impl ParquetFile {
    /// Reads the footer.
    pub(crate) fn open(path: &Path) -> Result<Self, &'static str> {
        let mut file = File::open(path).map_err(|_| "not readable")?;
        let n_bytes = file.metadata().map_err(|_| "not readable")?.len();
        guarded(|| {
            let metadata = read_metadata(&mut file).ok()?;
            let schema = parquet_to_arrow_schema(metadata.schema().fields());
            Some(Self { path: path.to_owned(), n_bytes, metadata, schema })
        })
        .ok_or(NOT_PARQUET)
    }

    /// Names of the columns.
    pub(crate) fn names(&self) -> Vec<String> {
        self.schema.iter_names().map(ToString::to_string).collect()
    }

    /// The stretches to read one by one: row group, rows in it, number of the first row in the file from 1.
    pub(crate) fn stretches(&self) -> Vec<(usize, Range<usize>, u64)> {
        let mut found = Vec::new();
        let mut first = 1;
        for (group, metadata) in self.metadata.row_groups.iter().enumerate() {
            let n_rows = metadata.num_rows();
            // A footer may claim any number; no more rows are there than values take bytes a thousandfold.
            let n_rows = n_rows.min((self.n_bytes as usize).saturating_mul(10_000));
            for start in (0..n_rows).step_by(ROWS_AT_ONCE) {
                let end = n_rows.min(start + ROWS_AT_ONCE);
                found.push((group, start..end, first + start as u64));
            }
            first += n_rows as u64;
        }
        found
    }

    /// Compressed bytes of a row group.
    pub(crate) fn group_bytes(&self, group: usize) -> u64 {
        self.metadata.row_groups.get(group).map_or(0, |g| g.compressed_size() as u64).min(self.n_bytes)
    }

    /// Rows of a row group, the columns of these places in [`ParquetFile::names`].
    pub(crate) fn read(&self, group: usize, rows: &Range<usize>, wanted: &[Option<usize>]) -> Result<Chunk, &'static str> {
        let mut file = File::open(&self.path).map_err(|_| "not readable")?;
        let columns = wanted.iter().map(|column| match column {
            None => Ok(None),
            Some(k) => guarded(|| self.column(&mut file, group, rows, *k)).map(Some).ok_or(DAMAGED),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let complete = columns.iter().flatten().all(|parts| parts.iter().map(Column::len).sum::<usize>() == rows.len());
        if complete { Ok(Chunk { columns }) } else { Err(DAMAGED) }
    }

    fn column(&self, file: &mut File, group: usize, rows: &Range<usize>, k: usize) -> Option<Vec<Column>> {
        let group = self.metadata.row_groups.get(group)?;
        let (name, field) = self.schema.get_at_index(k)?;
        let mut pages = Vec::new();
        let mut types = Vec::new();
        for chunk in group.columns_under_root_iter(name)? {
            pages.push(self.pages(file, chunk)?);
            types.push(&chunk.descriptor().descriptor.primitive_type);
        }
        let whole = *rows == (0..group.num_rows());
        let filter = (!whole).then(|| Filter::new_ranged(rows.start, rows.end));
        let (arrays, _) = column_iter_to_arrays(pages, types, field.clone(), filter).ok()?;
        arrays.iter().map(|array| Column::of(array.as_ref())).collect()
    }

    fn pages(&self, file: &mut File, chunk: &ColumnChunkMetadata) -> Option<BasicDecompressor> {
        let range = chunk.byte_range();
        let n_bytes = range.end.checked_sub(range.start)?;
        if range.end > self.n_bytes {
            return None;
        }
        let mut bytes = vec![0; n_bytes as usize];
        file.seek(SeekFrom::Start(range.start)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        let reader = PageReader::new(Cursor::new(bytes.into()), chunk, Vec::new(), MAX_PAGE_BYTES);
        Some(BasicDecompressor::new(reader, Vec::new()))
    }
}

/// Seconds of a unit of time, and units of a second: one of the two is 1.
const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// An array of one of the types that tables of records have.
enum Column {
    Texts(Utf8ViewArray),
    Bytes(BinaryViewArray),
    Flags(BooleanArray),
    Ints(Box<dyn Array>, fn(&dyn Array, usize) -> Option<i64>),
    Singles(PrimitiveArray<f32>),
    Doubles(PrimitiveArray<f64>),
    Decimals(PrimitiveArray<i128>, i32),
    Days(PrimitiveArray<i32>),
    Moments(PrimitiveArray<i64>, i64),
    Lists(ListArray<i64>),
    /// Of a type that nothing here reads: absent.
    Other(usize),
}

fn primitive<T: NativeType>(array: &dyn Array) -> Option<PrimitiveArray<T>> {
    array.as_any().downcast_ref::<PrimitiveArray<T>>().cloned()
}

fn int<T: NativeType + TryInto<i64>>(array: &dyn Array, row: usize) -> Option<i64> {
    array.as_any().downcast_ref::<PrimitiveArray<T>>()?.get(row)?.try_into().ok()
}

impl Column {
    fn of(array: &dyn Array) -> Option<Self> {
        use ArrowDataType as Type;
        let ints = |get: fn(&dyn Array, usize) -> Option<i64>| Some(Self::Ints(array.to_boxed(), get));
        match array.dtype() {
            Type::Utf8View => array.as_any().downcast_ref().cloned().map(Self::Texts),
            Type::BinaryView => array.as_any().downcast_ref().cloned().map(Self::Bytes),
            Type::Boolean => array.as_any().downcast_ref().cloned().map(Self::Flags),
            Type::Int8 => ints(int::<i8>),
            Type::Int16 => ints(int::<i16>),
            Type::Int32 => ints(int::<i32>),
            Type::Int64 => ints(int::<i64>),
            Type::UInt8 => ints(int::<u8>),
            Type::UInt16 => ints(int::<u16>),
            Type::UInt32 => ints(int::<u32>),
            Type::UInt64 => ints(int::<u64>),
            Type::Float32 => primitive(array).map(Self::Singles),
            Type::Float64 => primitive(array).map(Self::Doubles),
            Type::Decimal(_, scale) => Some(Self::Decimals(primitive(array)?, *scale as i32)),
            Type::Date32 => primitive(array).map(Self::Days),
            Type::Timestamp(unit, _) => Some(Self::Moments(primitive(array)?, per_second(*unit))),
            Type::LargeList(_) => array.as_any().downcast_ref().cloned().map(Self::Lists),
            _ => Some(Self::Other(array.len())),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Texts(a) => a.len(),
            Self::Bytes(a) => a.len(),
            Self::Flags(a) => a.len(),
            Self::Ints(a, _) => a.len(),
            Self::Singles(a) => a.len(),
            Self::Doubles(a) => a.len(),
            Self::Decimals(a, _) => a.len(),
            Self::Days(a) => a.len(),
            Self::Moments(a, _) => a.len(),
            Self::Lists(a) => a.len(),
            Self::Other(n) => *n,
        }
    }

    fn cell(&self, row: usize) -> Cell<'_> {
        match self {
            Self::Texts(a) => a.get(row).map(Cell::of_text),
            Self::Bytes(a) => a.get(row).and_then(|bytes| std::str::from_utf8(bytes).ok()).map(Cell::of_text),
            Self::Flags(a) => a.get(row).map(|flag| Cell::Int(flag.into())),
            Self::Ints(a, get) => get(a.as_ref(), row).map(Cell::Int),
            Self::Singles(a) => a.get(row).map(|x| Cell::Number(as_written(x))),
            Self::Doubles(a) => a.get(row).map(Cell::Number),
            Self::Decimals(a, scale) => a.get(row).map(|x| Cell::Number(x as f64 / 10f64.powi(*scale))),
            Self::Days(a) => a.get(row).map(|day| Cell::Day(day.into())),
            Self::Moments(a, per_second) => a.get(row).map(|x| Cell::Moment(x.div_euclid(*per_second))),
            Self::Lists(_) | Self::Other(_) => None,
        }
        .unwrap_or(Cell::Absent)
    }

    /// The only text of a list; `None` where it has none or several.
    fn only_text(&self, row: usize) -> Option<String> {
        let Self::Lists(lists) = self else { return None };
        let list = lists.get(row)?;
        let texts = list.as_any().downcast_ref::<Utf8ViewArray>().filter(|texts| texts.len() == 1)?;
        texts.get(0).map(str::to_owned)
    }
}

/// A single-precision number as the decimal that it was written from: the shortest that gives the same bits. 5.1 stays 5.1 and
/// does not become 5.099999904632568.
fn as_written(x: f32) -> f64 {
    if x.is_finite() { x.to_string().parse().unwrap_or_else(|_| x.into()) } else { x.into() }
}

/// Rows of some columns.
pub(crate) struct Chunk {
    columns: Vec<Option<Vec<Column>>>,
}

impl Chunk {
    fn find(&self, column: usize, mut row: usize) -> Option<(&Column, usize)> {
        for part in self.columns.get(column)?.as_ref()? {
            if row < part.len() {
                return Some((part, row));
            }
            row -= part.len();
        }
        None
    }

    /// A cell of a column that was wanted; absent where the file has no such column.
    pub(crate) fn cell(&self, column: usize, row: usize) -> Cell<'_> {
        self.find(column, row).map_or(Cell::Absent, |(part, row)| part.cell(row))
    }

    /// The only text of a cell that is a list.
    pub(crate) fn only_text(&self, column: usize, row: usize) -> Option<String> {
        self.find(column, row).and_then(|(part, row)| part.only_text(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_is_the_decimal_that_it_was_written_from() {
        for text in ["5.1", "98.6", "0.001", "-3", "123456", "1e30"] {
            let (single, double): (f32, f64) = (text.parse().unwrap(), text.parse().unwrap());
            assert_eq!(as_written(single).to_bits(), double.to_bits(), "{text}");
        }
        assert!(as_written(f32::NAN).is_nan());
        assert!(as_written(f32::INFINITY).is_infinite());
    }
}
