//! What is wrong with a pipeline, where, and what to write instead.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line of the file, from 1.
    Line(usize),
    /// An override on the command line: its key.
    Set(String),
}

impl Place {
    pub(super) fn set(key: &str) -> Self {
        Self::Set(key.to_owned())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what to do about it.
    pub message: String,
}

impl Problem {
    pub(super) fn new(place: Place, message: String) -> Self {
        Self { place, message }
    }
}

/// Why a pipeline cannot be run. Wrong usage: nothing was done yet.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The file itself cannot be read.
    #[error("{path}: {source}; give the path of a pipeline such as pipelines/lung.toml", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its settings are wrong: all that was found, in the order of the file's lines.
    #[error("{}", Listed { path, problems })]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
    },
}

/// One line a problem: `pipelines/lung.toml:12: unknown key …`.
struct Listed<'a> {
    path: &'a PathBuf,
    problems: &'a [Problem],
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (k, Problem { place, message }) in self.problems.iter().enumerate() {
            if k > 0 {
                f.write_str("\n")?;
            }
            match place {
                Place::File => write!(f, "{path}: {message}")?,
                Place::Line(line) => write!(f, "{path}:{line}: {message}")?,
                Place::Set(key) => write!(f, "--set {key}: {message}")?,
            }
        }
        Ok(())
    }
}

/// The candidate that `word` was probably meant to be: close in spelling, or one within the other.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| {
            let length = word.chars().count().max(candidate.chars().count());
            let within = word.len() >= 3 && (candidate.to_lowercase().starts_with(&word) || word.starts_with(&candidate.to_lowercase()));
            *distance * 5 <= length * 2 || within
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `a, b, c` of names, each in back quotes.
pub(super) fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
