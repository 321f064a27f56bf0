//! What the input is and how it is laid out.

use serde::{Deserialize, Serialize};

/// Formats of records that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// FHIR R4 JSON: `.ndjson`, `.jsonl`, `.json`, each also with `.gz`.
    Fhir,
    /// MEDS: Parquet shards under `data/`, one statement a row, and what `metadata/` says of them.
    Meds,
    /// OMOP CDM 5.4: a file (or a folder of files) a table, CSV or Parquet.
    Omop,
    /// Comma-separated text with a header: `.csv`, `.tsv`, each also with `.gz`.
    Csv,
}

/// A format and what reading it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatConfig {
    /// Which format.
    pub format: Format,
    /// How the columns of a wide table are to be read; [`Format::Csv`] needs this or [`FormatConfig::long`].
    #[serde(default)]
    pub csv: Option<CsvLayout>,
    /// How the columns of a long table are to be read.
    #[serde(default)]
    pub long: Option<LongLayout>,
    /// A line, Bundle entry or row that is longer is skipped and rejected, bytes. It bounds the memory that one input can ask
    /// for.
    #[serde(default = "default_max_resource_bytes")]
    pub max_resource_bytes: usize,
}

const fn default_max_resource_bytes() -> usize {
    16 << 20
}

impl FormatConfig {
    const fn of(format: Format) -> Self {
        Self { format, csv: None, long: None, max_resource_bytes: default_max_resource_bytes() }
    }

    /// FHIR R4, resources of up to 16 MiB.
    pub const fn fhir() -> Self {
        Self::of(Format::Fhir)
    }

    /// MEDS.
    pub const fn meds() -> Self {
        Self::of(Format::Meds)
    }

    /// OMOP CDM 5.4.
    pub const fn omop() -> Self {
        Self::of(Format::Omop)
    }

    /// A wide CSV of this layout.
    pub fn csv(layout: CsvLayout) -> Self {
        Self { csv: Some(layout), ..Self::of(Format::Csv) }
    }

    /// A long CSV of this layout.
    pub fn long(layout: LongLayout) -> Self {
        Self { long: Some(layout), ..Self::of(Format::Csv) }
    }

    /// Whether the records are facts that hold at any time: a wide table without a column of times.
    pub fn is_timeless(&self) -> bool {
        self.csv.as_ref().is_some_and(|layout| layout.time.is_none())
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

/// A long table: a statement a row. Only the first three columns are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongLayout {
    /// Column that names the patient.
    pub patient: String,
    /// Column with the time of the statement: `YYYY`, `YYYY-MM`, `YYYY-MM-DD`, with or without a time and a zone. Empty for what
    /// holds at any time.
    pub time: String,
    /// Column with the code: `system|code`, `VOCABULARY//code` or, with [`LongLayout::system`], the code alone. `birth`, `death`,
    /// `sex` and `identifier` are what they say.
    pub code: String,
    /// Column with the code's system: its address or the name of a vocabulary (`LOINC`).
    #[serde(default)]
    pub system: Option<String>,
    /// Column with the name that people give the code.
    #[serde(default)]
    pub name: Option<String>,
    /// Column with the kind of the statement: `observation`, `condition`, `medication`, …
    #[serde(default)]
    pub kind: Option<String>,
    /// Column with the value: a number, a code, or words.
    #[serde(default)]
    pub value: Option<String>,
    /// Column with the number's unit (UCUM).
    #[serde(default)]
    pub unit: Option<String>,
    /// Column with words: of a report, or of a value that is no number.
    #[serde(default)]
    pub text: Option<String>,
    /// What separates the fields; `,` when absent, or a tabulator in a `.tsv`.
    #[serde(default)]
    pub delimiter: Option<char>,
}
