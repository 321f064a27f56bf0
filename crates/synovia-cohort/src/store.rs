//! The aligned cohort on disk: a Parquet table of examples beside fixed-width rows of pixels and features.
//!
//! ```text
//! manifest.json       geometry, features, tasks, number of rows
//! examples.parquet    a row an example: ids, split, time, presence, one column a label, one or two an endpoint
//! pixels-0000.u16     rows of channels × height × width, little endian, 0 = 0.0 and 65535 = 1.0
//! features-0000.f32   rows of n_features, little endian, NaN where missing
//! ```
//!
//! Rows are read where they lie, by position, through the page cache. A memory map would save one copy of a row but needs
//! `unsafe`, counts the whole cohort as the process's own memory, and turns a truncated file into a signal instead of an
//! error.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use polars::prelude::{Column, DataFrame, ParquetReader, ParquetWriter, PolarsError, SerReader};
use serde::{Deserialize, Serialize};

use crate::{Endpoint, EndpointValue, ExampleId, Split, Task, Time};

/// Shape of every image of a cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Channels: 1 for grey.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Geometry {
    /// Number of values in an image.
    pub const fn len(self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether an image has no values.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// One column of the feature table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureSpec {
    /// Its name: a person's words.
    pub name: String,
    /// How its numbers are to be read.
    pub kind: FeatureKind,
    /// `system|code` it comes from; empty for a static fact.
    pub code: String,
    /// UCUM unit; empty where it has none.
    pub unit: String,
}

/// How a feature's numbers are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureKind {
    /// A quantity: imputed and scaled.
    Number,
    /// 0 or 1: NaN where nobody looked.
    Flag,
}

/// What a cohort folder holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub format: u32,
    /// Shape of the images, `None` for a cohort without any.
    pub geometry: Option<Geometry>,
    /// Columns of the feature table.
    pub features: Vec<FeatureSpec>,
    /// Tasks, in the order of [`ExampleRow::labels`].
    pub tasks: Vec<Task>,
    /// Endpoints, in the order of [`ExampleRow::endpoints`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Rows in the pixel shards.
    pub n_images: usize,
    /// Rows in the feature shards.
    pub n_records: usize,
    /// Examples.
    pub n_examples: usize,
}

/// Version of the layout that this code writes and reads.
pub const FORMAT: u32 = 1;
/// Rows in one shard file.
const SHARD_ROWS: usize = 8192;

/// An example as the table holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExampleRow {
    /// Its id.
    pub id: ExampleId,
    /// The patient's pseudonym.
    pub patient: String,
    /// What it is used for.
    pub split: Split,
    /// When the prediction is made.
    pub prediction_time: Time,
    /// Row of its pixels, `None` when it has no image.
    pub image_row: Option<u32>,
    /// Row of its features, `None` when it has no record.
    pub record_row: Option<u32>,
    /// A label a task: 0/1 or the class's index; `None` where unknown.
    pub labels: Vec<Option<f32>>,
    /// What is known of each endpoint; `None` where nothing is.
    pub endpoints: Vec<Option<EndpointValue>>,
}

impl ExampleRow {
    /// Whether anything is known that could be learnt.
    pub fn is_labelled(&self) -> bool {
        self.labels.iter().any(Option::is_some) || self.endpoints.iter().any(Option::is_some)
    }
}

/// Why a cohort can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The table is not one of ours.
    #[error("{path}: {source}")]
    Table {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: PolarsError,
    },
    /// The folder is incomplete, or of another version.
    #[error("{path}: {what}; run the cohort stage again")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError + '_ {
    move |source| StoreError::Io { path: path.to_owned(), source }
}

fn table(path: &Path) -> impl FnOnce(PolarsError) -> StoreError + '_ {
    move |source| StoreError::Table { path: path.to_owned(), source }
}

/// Fixed-width rows over several files.
struct Shards {
    files: Vec<(PathBuf, File)>,
    row_bytes: usize,
}

impl Shards {
    fn path(dir: &Path, stem: &str, ending: &str, shard: usize) -> PathBuf {
        dir.join(format!("{stem}-{shard:04}.{ending}"))
    }

    fn open(dir: &Path, stem: &str, ending: &str, rows: usize, row_bytes: usize, create: bool) -> Result<Self, StoreError> {
        let mut files = Vec::new();
        for shard in 0..rows.div_ceil(SHARD_ROWS) {
            let path = Self::path(dir, stem, ending, shard);
            let file = OpenOptions::new().read(true).write(create).create(create).truncate(create).open(&path).map_err(io(&path))?;
            let bytes = (rows - shard * SHARD_ROWS).min(SHARD_ROWS) as u64 * row_bytes as u64;
            if create {
                file.set_len(bytes).map_err(io(&path))?;
            } else {
                let found = file.metadata().map_err(io(&path))?.len();
                if found != bytes {
                    return Err(StoreError::Damaged { path, what: format!("{found} bytes instead of {bytes}") });
                }
            }
            files.push((path, file));
        }
        Ok(Self { files, row_bytes })
    }

    fn place(&self, row: usize) -> (&Path, &File, u64) {
        let (path, file) = &self.files[row / SHARD_ROWS];
        (path, file, (row % SHARD_ROWS) as u64 * self.row_bytes as u64)
    }

    fn write(&self, row: usize, bytes: &[u8]) -> Result<(), StoreError> {
        let (path, file, offset) = self.place(row);
        file.write_all_at(bytes, offset).map_err(io(path))
    }

    fn read(&self, row: usize, bytes: &mut [u8]) -> Result<(), StoreError> {
        let (path, file, offset) = self.place(row);
        file.read_exact_at(bytes, offset).map_err(io(path))
    }

    /// A row of `f32`.
    fn read_values(&self, row: usize, values: &mut [f32]) -> Result<(), StoreError> {
        if values.is_empty() {
            return Ok(());
        }
        self.read(row, bytemuck::cast_slice_mut(values))?;
        values.iter_mut().for_each(|x| *x = f32::from_bits(u32::from_le(x.to_bits())));
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.files.iter().try_for_each(|(path, file)| file.sync_all().map_err(io(path)))
    }
}

/// Writes a cohort folder. Rows may be written from several threads and in any order.
pub struct CohortWriter {
    dir: PathBuf,
    manifest: Manifest,
    pixels: Option<Shards>,
    features: Shards,
}

impl CohortWriter {
    /// Makes the shard files in `dir`, which exists and is empty. The caller renames the folder when all is done, so that
    /// half a cohort is never taken for a whole one.
    pub fn create(dir: &Path, manifest: Manifest) -> Result<Self, StoreError> {
        let pixels = match manifest.geometry {
            Some(geometry) => Some(Shards::open(dir, "pixels", "u16", manifest.n_images, geometry.len() * 2, true)?),
            None => None,
        };
        let features = Shards::open(dir, "features", "f32", manifest.n_records, manifest.features.len() * 4, true)?;
        Ok(Self { dir: dir.to_owned(), manifest, pixels, features })
    }

    /// Writes an image's row. Values are clamped to [0, 1] and rounded to 1/65535.
    ///
    /// # Shapes
    /// - image: `[channels × height × width]`
    pub fn write_image(&self, row: usize, image: &[f32]) -> Result<(), StoreError> {
        let shards = self.pixels.as_ref().ok_or_else(|| self.damaged("no images in this cohort"))?;
        // Half is added and the rest cut off: `round` is a call a value.
        let words: Vec<u16> = image.iter().map(|&x| (x.clamp(0.0, 1.0) * 65535.0 + 0.5) as i32 as u16).map(u16::to_le).collect();
        if words.len() * 2 != shards.row_bytes {
            return Err(self.damaged(&format!("an image of {} values instead of {}", words.len(), shards.row_bytes / 2)));
        }
        shards.write(row, bytemuck::cast_slice(&words))
    }

    /// Writes a record's row: NaN where a feature is missing.
    ///
    /// # Shapes
    /// - features: `[n_features]`
    pub fn write_record(&self, row: usize, features: &[f32]) -> Result<(), StoreError> {
        if features.len() != self.manifest.features.len() {
            return Err(self.damaged(&format!("{} features instead of {}", features.len(), self.manifest.features.len())));
        }
        let words: Vec<u32> = features.iter().map(|x| x.to_bits().to_le()).collect();
        self.features.write(row, bytemuck::cast_slice(&words))
    }

    /// Reads a record's row back.
    ///
    /// # Shapes
    /// - features: `[n_features]`
    pub fn read_record(&self, row: usize, features: &mut [f32]) -> Result<(), StoreError> {
        self.features.read_values(row, features)
    }

    /// Writes the table and the manifest, and waits until all is on disk.
    pub fn finish(self, rows: &[ExampleRow]) -> Result<(), StoreError> {
        if let Some(pixels) = &self.pixels {
            pixels.sync()?;
        }
        self.features.sync()?;
        let path = self.dir.join("examples.parquet");
        let mut columns = vec![
            Column::new("example_id".into(), rows.iter().map(|r| r.id.as_str()).collect::<Vec<_>>()),
            Column::new("patient_id".into(), rows.iter().map(|r| r.patient.as_str()).collect::<Vec<_>>()),
            Column::new("split".into(), rows.iter().map(|r| r.split.as_str()).collect::<Vec<_>>()),
            Column::new("prediction_time".into(), rows.iter().map(|r| r.prediction_time.to_string()).collect::<Vec<_>>()),
            Column::new("has_image".into(), rows.iter().map(|r| r.image_row.is_some()).collect::<Vec<_>>()),
            Column::new("has_record".into(), rows.iter().map(|r| r.record_row.is_some()).collect::<Vec<_>>()),
        ];
        for (k, task) in self.manifest.tasks.iter().enumerate() {
            columns.push(Column::new(task.name.as_str().into(), rows.iter().map(|r| r.labels[k]).collect::<Vec<_>>()));
        }
        for (k, endpoint) in self.manifest.endpoints.iter().enumerate() {
            columns.extend(endpoint.to_columns(&rows.iter().map(|r| r.endpoints[k]).collect::<Vec<_>>()));
        }
        columns.push(Column::new("prediction_seconds".into(), rows.iter().map(|r| r.prediction_time.seconds()).collect::<Vec<_>>()));
        columns.push(Column::new("image_row".into(), rows.iter().map(|r| r.image_row).collect::<Vec<_>>()));
        columns.push(Column::new("record_row".into(), rows.iter().map(|r| r.record_row).collect::<Vec<_>>()));
        let mut frame = DataFrame::new(rows.len(), columns).map_err(table(&path))?;
        let file = File::create(&path).map_err(io(&path))?;
        ParquetWriter::new(&file).finish(&mut frame).map_err(table(&path))?;
        file.sync_all().map_err(io(&path))?;
        let path = self.dir.join("manifest.json");
        let manifest = Manifest { n_examples: rows.len(), ..self.manifest };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| StoreError::Damaged { path: path.clone(), what: e.to_string() })?;
        let mut file = File::create(&path).map_err(io(&path))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(io(&path))
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { path: self.dir.clone(), what: what.to_owned() }
    }
}

/// A cohort folder, opened for reading: the table is in memory, pixels and features stay on disk.
pub struct CohortReader {
    manifest: Manifest,
    rows: Vec<ExampleRow>,
    pixels: Option<Shards>,
    features: Shards,
}

impl CohortReader {
    /// Opens `dir` and checks that its files are as long as they must be, and that rows and labels are of what there is.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("manifest.json");
        let damaged = |path: &Path, what: String| StoreError::Damaged { path: path.to_owned(), what };
        let text = std::fs::read(&path).map_err(io(&path))?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| damaged(&path, e.to_string()))?;
        if manifest.format != FORMAT {
            return Err(damaged(&path, format!("layout version {} where {FORMAT} is expected", manifest.format)));
        }
        let pixels = match manifest.geometry {
            Some(geometry) => Some(Shards::open(dir, "pixels", "u16", manifest.n_images, geometry.len() * 2, false)?),
            None => None,
        };
        let features = Shards::open(dir, "features", "f32", manifest.n_records, manifest.features.len() * 4, false)?;
        let path = dir.join("examples.parquet");
        let frame = ParquetReader::new(File::open(&path).map_err(io(&path))?).finish().map_err(table(&path))?;
        let rows = Self::rows_of(&frame, &manifest).map_err(table(&path))?;
        let is_class = |label: &f32, task: &Task| label.fract() == 0.0 && (0.0..task.n_logits().max(2) as f32).contains(label);
        let sound = rows.len() == manifest.n_examples
            && rows.iter().all(|r| {
                r.labels.iter().zip(&manifest.tasks).all(|(label, task)| label.is_none_or(|label| is_class(&label, task)))
                    && r.endpoints.iter().zip(&manifest.endpoints).all(|(value, of)| value.is_none_or(|value| of.kind.holds(value)))
                    && r.image_row.is_none_or(|k| (k as usize) < manifest.n_images)
                    && r.record_row.is_none_or(|k| (k as usize) < manifest.n_records)
            });
        if !sound {
            return Err(damaged(&path, "it does not agree with manifest.json".to_owned()));
        }
        Ok(Self { manifest, rows, pixels, features })
    }

    fn rows_of(frame: &DataFrame, manifest: &Manifest) -> Result<Vec<ExampleRow>, PolarsError> {
        let text = |name: &str| frame.column(name).and_then(Column::str);
        let (ids, patients, splits) = (text("example_id")?, text("patient_id")?, text("split")?);
        let times = frame.column("prediction_seconds")?.i64()?;
        let (images, records) = (frame.column("image_row")?.u32()?, frame.column("record_row")?.u32()?);
        let labels = manifest.tasks.iter().map(|t| frame.column(&t.name).and_then(Column::f32)).collect::<Result<Vec<_>, _>>()?;
        let endpoints = manifest.endpoints.iter().map(|endpoint| endpoint.read(frame)).collect::<Result<Vec<_>, _>>()?;
        let missing = || PolarsError::ComputeError("a null where none may be".into());
        (0..frame.height())
            .map(|k| {
                Ok(ExampleRow {
                    id: ExampleId::from_digest(ids.get(k).ok_or_else(missing)?),
                    patient: patients.get(k).ok_or_else(missing)?.to_owned(),
                    split: splits.get(k).and_then(Split::from_name).ok_or_else(missing)?,
                    prediction_time: Time::from_seconds(times.get(k).ok_or_else(missing)?),
                    image_row: images.get(k),
                    record_row: records.get(k),
                    labels: labels.iter().map(|column| column.get(k)).collect(),
                    endpoints: endpoints.iter().map(|values| values[k]).collect(),
                })
            })
            .collect()
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// All rows: for reports; training goes through [`CohortReader::view`].
    pub fn rows(&self) -> &[ExampleRow] {
        &self.rows
    }

    /// The examples of one split, and no others.
    pub fn view<S: SplitKind>(&self) -> View<'_, S> {
        let indices = (0..self.rows.len()).filter(|&k| self.rows[k].split == S::SPLIT).collect();
        View { reader: self, indices, split: PhantomData }
    }

    /// Reads an example's pixels into `image`; `false` (and zeros) when it has none.
    ///
    /// # Shapes
    /// - image: `[channels × height × width]`
    pub fn read_image(&self, row: &ExampleRow, image: &mut [f32]) -> Result<bool, StoreError> {
        let (Some(k), Some(pixels)) = (row.image_row, &self.pixels) else {
            image.fill(0.0);
            return Ok(false);
        };
        let mut words = vec![0u16; pixels.row_bytes / 2];
        pixels.read(k as usize, bytemuck::cast_slice_mut(&mut words))?;
        for (x, word) in image.iter_mut().zip(words) {
            *x = f32::from(u16::from_le(word)) / 65535.0;
        }
        Ok(true)
    }

    /// Reads an example's features into `features`, NaN where missing; `false` (and NaN throughout) when it has no record.
    ///
    /// # Shapes
    /// - features: `[n_features]`
    pub fn read_record(&self, row: &ExampleRow, features: &mut [f32]) -> Result<bool, StoreError> {
        let Some(k) = row.record_row else {
            features.fill(f32::NAN);
            return Ok(false);
        };
        self.features.read_values(k as usize, features)?;
        Ok(true)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A split as a type, so that a function which fits on training data can't be called with test data.
pub trait SplitKind: sealed::Sealed {
    /// The split.
    const SPLIT: Split;
}

macro_rules! split_kind {
    ($($name:ident),*) => {$(
        #[doc = concat!("The ", stringify!($name), " split.")]
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl SplitKind for $name {
            const SPLIT: Split = Split::$name;
        }
    )*};
}
split_kind!(Train, Validation, Test);

/// The examples of split `S`.
pub struct View<'a, S> {
    reader: &'a CohortReader,
    indices: Vec<usize>,
    split: PhantomData<S>,
}

impl<'a, S: SplitKind> View<'a, S> {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether the split is empty.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// What the cohort holds.
    pub fn manifest(&self) -> &'a Manifest {
        &self.reader.manifest
    }

    /// The cohort that it is a view of.
    pub fn reader(&self) -> &'a CohortReader {
        self.reader
    }

    /// The `k`-th example.
    pub fn row(&self, k: usize) -> &'a ExampleRow {
        &self.reader.rows[self.indices[k]]
    }

    /// All its examples.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &'a ExampleRow> + '_ {
        self.indices.iter().map(|&k| &self.reader.rows[k])
    }

    /// Calls `f` with the features of each example that has a record, one row in memory at a time.
    pub fn for_each_record(&self, mut f: impl FnMut(&ExampleRow, &[f32])) -> Result<(), StoreError> {
        let mut features = vec![0.0; self.manifest().features.len()];
        for row in self.rows() {
            if self.reader.read_record(row, &mut features)? {
                f(row, &features);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EndpointKind, PatientId, TaskKind};

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            geometry: Some(Geometry { channels: 1, height: 2, width: 2 }),
            features: vec![
                FeatureSpec { name: "age".into(), kind: FeatureKind::Number, code: String::new(), unit: "a".into() },
                FeatureSpec { name: "smoker".into(), kind: FeatureKind::Flag, code: String::new(), unit: String::new() },
            ],
            tasks: vec![Task { name: "malignant".into(), kind: TaskKind::Binary, classes: vec!["yes".into()] }],
            endpoints: vec![Endpoint { name: "days".into(), kind: EndpointKind::Survival }],
            n_images: 1,
            n_records: 2,
            n_examples: 0,
        }
    }

    fn row(k: usize, split: Split, image: Option<u32>, record: Option<u32>, label: Option<f32>) -> ExampleRow {
        ExampleRow {
            id: ExampleId::of_study(&k.to_string()),
            patient: PatientId::new(&k.to_string()).pseudonym(),
            split,
            prediction_time: Time::from_seconds(k as i64),
            image_row: image,
            record_row: record,
            labels: vec![label],
            endpoints: vec![label.map(|label| [label * 2.5, label])],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let writer = CohortWriter::create(dir.path(), manifest()).unwrap();
        writer.write_image(0, &[0.0, 1.0, 0.5, 7.0]).unwrap();
        writer.write_record(1, &[41.0, f32::NAN]).unwrap();
        writer.write_record(0, &[1.0, 0.0]).unwrap();
        assert!(writer.write_record(0, &[1.0]).is_err());
        let rows = [row(1, Split::Train, Some(0), Some(1), Some(1.0)), row(2, Split::Test, None, Some(0), None)];
        writer.finish(&rows).unwrap();

        let reader = CohortReader::open(dir.path()).unwrap();
        assert_eq!(reader.rows(), rows);
        let (mut image, mut record) = ([9.0; 4], [9.0; 2]);
        assert!(reader.read_image(&rows[0], &mut image).unwrap());
        assert_eq!(image, [0.0, 1.0, 32768.0 / 65535.0, 1.0]);
        assert!(!reader.read_image(&rows[1], &mut image).unwrap());
        assert!(reader.read_record(&rows[0], &mut record).unwrap());
        assert!(record[0] == 41.0 && record[1].is_nan(), "absent is not zero");
        assert_eq!(reader.view::<Train>().len(), 1);
        assert_eq!(reader.view::<Test>().row(0), &rows[1]);
        assert!(reader.view::<Validation>().is_empty());
    }

    #[test]
    fn a_label_is_a_class_of_its_task() {
        let open = |label| {
            let dir = tempfile::tempdir().unwrap();
            CohortWriter::create(dir.path(), manifest()).unwrap().finish(&[row(1, Split::Train, Some(0), Some(1), label)]).unwrap();
            CohortReader::open(dir.path()).is_ok()
        };
        for label in [None, Some(0.0), Some(1.0)] {
            assert!(open(label), "{label:?}");
        }
        for label in [2.0, 0.5, -1.0, f32::NAN, f32::INFINITY] {
            assert!(!open(Some(label)), "{label}");
        }
    }

    #[test]
    fn a_truncated_shard_is_found() {
        let dir = tempfile::tempdir().unwrap();
        CohortWriter::create(dir.path(), manifest()).unwrap().finish(&[row(1, Split::Train, Some(0), Some(1), None)]).unwrap();
        File::options().write(true).open(dir.path().join("pixels-0000.u16")).unwrap().set_len(7).unwrap();
        let error = CohortReader::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("7 bytes instead of 8"), "{error}");
    }
}
