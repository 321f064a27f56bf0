//! What the input is and how it is laid out.

use serde::{Deserialize, Serialize};

/// Formats of records that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// FHIR R4 JSON: `.ndjson`, `.jsonl`, `.json`, each also with `.gz`.
    Fhir,
    /// Comma-separated text with a header: `.csv`, `.tsv`, each also with `.gz`.
    Csv,
}

/// A format and what reading it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatConfig {
    /// Which format.
    pub format: Format,
    /// How the columns are to be read; needed for [`Format::Csv`] alone.
    #[serde(default)]
    pub csv: Option<CsvLayout>,
    /// A line, Bundle entry or row that is longer is skipped and rejected, bytes. It bounds the memory that one input can ask
    /// for.
    #[serde(default = "default_max_resource_bytes")]
    pub max_resource_bytes: usize,
}

const fn default_max_resource_bytes() -> usize {
    16 << 20
}

impl FormatConfig {
    /// FHIR R4, resources of up to 16 MiB.
    pub fn fhir() -> Self {
        Self { format: Format::Fhir, csv: None, max_resource_bytes: default_max_resource_bytes() }
    }

    /// CSV of this layout.
    pub fn csv(layout: CsvLayout) -> Self {
        Self { format: Format::Csv, csv: Some(layout), max_resource_bytes: default_max_resource_bytes() }
    }
}

/// A wide table: a row a patient (or, with a time column, a row a visit).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CsvLayout {
    /// Column that names the patient.
    pub id: String,
    /// Column that names the patient's picture; its value, less folder and ending, is put into [`CsvLayout::image_names`].
    #[serde(default)]
    pub image: Option<String>,
    /// Names that the pictures of a value have, less folder and ending, `{}` standing for the value: `["{}_a", "{}_c"]`.
    /// Empty stands for `["{}"]`.
    #[serde(default)]
    pub image_names: Vec<String>,
    /// Column with the time of the row (`YYYY-MM-DD`, with or without a time). With it the row's cells become Observation
    /// events of code `column|NAME` at that time; without it they are facts, which hold at any time.
    #[serde(default)]
    pub time: Option<String>,
    /// Columns that may become inputs.
    #[serde(default)]
    pub features: Vec<String>,
    /// Columns that labels are read from. They never become inputs unless they are in [`CsvLayout::features`] as well.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Columns whose numbers are names of categories (`1` = male). Other columns are numbers when nine cells in ten are.
    #[serde(default)]
    pub categories: Vec<String>,
    /// What separates the fields; `,` when absent, or a tabulator in a `.tsv`.
    #[serde(default)]
    pub delimiter: Option<char>,
}
