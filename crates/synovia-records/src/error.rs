//! Why records can't be read at all. What concerns one file, line or resource is a rejection instead.

use std::path::{Path, PathBuf};

/// Why an ingest, or the reading of its result, stopped.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no file of the format.
    #[error("{path}: no {expected} file here; set records.path to the folder or file that has them")]
    NothingToRead {
        /// Where it was looked for.
        path: PathBuf,
        /// Endings that would be read.
        expected: &'static str,
    },
    /// A table lacks a column that the pipeline names.
    #[error("{path}: no column `{column}` among the {n_columns} of the header{}", meant(nearest.as_deref()))]
    MissingColumn {
        /// Which file.
        path: PathBuf,
        /// The column.
        column: String,
        /// How many are there. Their names are not said: where the header is missing they are a patient's row.
        n_columns: usize,
        /// The column that was probably meant, if there is one of nearly that name.
        nearest: Option<String>,
    },
    /// A table whose first line can't be read as a header.
    #[error("{path}: the header can't be read: {what}")]
    Header {
        /// Which file.
        path: PathBuf,
        /// Why.
        what: &'static str,
    },
    /// CSV without a layout.
    #[error("records.format = \"csv\" needs how the table is laid out: the id column and the columns to use, or records.columns")]
    NoLayout,
    /// The store on disk is incomplete or not of this version.
    #[error("{path}: {what}; run the ingest stage again")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Adds the path to an I/O error.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> RecordsError + '_ {
    move |source| RecordsError::Io { path: path.to_owned(), source }
}
