//! A pipeline file → checked settings, before any work.
//!
//! Knows the keys, their ranges and each other's conditions, and says them in the words of the crates that a stage calls;
//! knows nothing of what a stage does with them.

mod problem;
mod reader;
mod reader_cohort;
mod reader_endpoint;
mod reader_images;
mod reader_model;
mod reader_task;
mod section;
mod settings;
mod settings_cohort;
mod settings_task;
mod span;
#[cfg(test)]
mod tests;
mod translation;
mod tree;

use std::fmt::Write;
use std::path::Path;

pub use problem::{PipelineError, Place, Problem};
pub use settings::{
    Access, Augmentation, Classes, Cohort, ColumnRule, Competing, Date, Device, EndpointLabel, EndpointSettings, Events, Features, History,
    ImageEncoder, ImageKind, ImageLink, Images, IndexEvent, Label, Model, Named, Offset, OutcomeLabel, Pipeline, Question, RecordEncoder,
    RecordFormat, Records, ReportSettings, Rule, Sampling, SplitSettings, Start, TaskSettings, Tasks, Training, Unheard, Unit,
};
pub use span::{TimeSpan, TimeSpanError, TimeUnit};
pub use translation::address;

/// Section of a resolved file that says how it came to be; read back, it is ignored.
const PROVENANCE: &str = "provenance";

impl Pipeline {
    /// Reads a file, lays the overrides (`key=value`, dotted) and the seed over it, and checks the result.
    ///
    /// # Errors
    /// Every problem that was found, each with its line or override.
    pub fn read(path: &Path, overrides: &[String], seed: Option<u64>) -> Result<Self, PipelineError> {
        let text = std::fs::read_to_string(path).map_err(|source| PipelineError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, overrides, seed).map_err(|problems| PipelineError::Wrong { path: path.to_owned(), problems })
    }

    /// As [`Pipeline::read`], from a text. The paths in it are looked at.
    pub fn parse(text: &str, overrides: &[String], seed: Option<u64>) -> Result<Self, Vec<Problem>> {
        let mut document = tree::parse(text)?;
        let seed = seed.map(|seed| format!("seed={seed}"));
        let problems: Vec<Problem> = overrides.iter().chain(&seed).filter_map(|set| tree::set(&mut document, set).err()).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        reader::read(&document)
    }

    /// The pipeline as a file in which nothing is left to a default, and how it came to be (versions, hashes of the
    /// inputs) under `[provenance]`. Reading it gives the same pipeline.
    pub fn resolved_toml(&self, provenance: &[(&str, String)]) -> Result<String, toml::ser::Error> {
        let mut text = toml::to_string(self)?;
        if !provenance.is_empty() {
            let table: toml::Table =
                provenance.iter().map(|(key, value)| ((*key).to_owned(), toml::Value::String(value.clone()))).collect();
            let _ = write!(text, "\n[{PROVENANCE}]\n{}", toml::to_string(&table)?);
        }
        Ok(text)
    }
}
