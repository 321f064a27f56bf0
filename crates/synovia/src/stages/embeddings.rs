//! Examples of a cohort as a model sees them.

use synovia_cohort::{CohortReader, ExampleRow, Split};
use synovia_evaluation::ModalityPattern;
use synovia_training::{Asked, Given, Presence};

use super::explain::read;

/// Examples that are held in memory.
const BATCH: usize = 64;

/// Some examples and their embeddings.
pub struct Embedded<'r> {
    /// Which.
    pub rows: Vec<&'r ExampleRow>,
    /// Shape: `[n][d]`.
    pub values: Vec<Vec<f32>>,
}

impl<'r> Embedded<'r> {
    /// At most `most` examples of a split, evenly over the cohort, that are wanted and have all of `shown`, whatever else they have.
    pub fn of(
        reader: &'r CohortReader,
        asked: &Asked,
        shown: Presence,
        split: Split,
        most: usize,
        is_wanted: fn(&ExampleRow) -> bool,
    ) -> anyhow::Result<Self> {
        let has = |row: &ExampleRow| (!shown.image || row.image_row.is_some()) && (!shown.record || row.record_row.is_some());
        let rows: Vec<&ExampleRow> = reader.rows().iter().filter(|row| row.split == split && has(row) && is_wanted(row)).collect();
        let rows: Vec<&ExampleRow> = rows.iter().step_by(rows.len().div_ceil(most).max(1)).copied().collect();
        let mut values = Vec::with_capacity(rows.len());
        for rows in rows.chunks(BATCH) {
            let given = rows.iter().map(|row| read(reader, row, shown)).collect::<anyhow::Result<Vec<Given>>>()?;
            values.extend(asked.ask(&given.iter().collect::<Vec<_>>()).into_iter().map(|told| told.embedding));
        }
        Ok(Self { rows, values })
    }

    /// The embeddings, to be looked at.
    pub fn views(&self) -> Vec<&[f32]> {
        self.values.iter().map(Vec::as_slice).collect()
    }
}

/// What a model of `own` can be shown, all of it first.
pub fn patterns(own: Presence) -> impl Iterator<Item = (ModalityPattern, Presence)> {
    let shown = |pattern| match pattern {
        ModalityPattern::Both => Presence { image: true, record: true },
        ModalityPattern::Image => Presence { image: true, record: false },
        ModalityPattern::Record => Presence { image: false, record: true },
    };
    let pairs = ModalityPattern::ALL.into_iter().map(move |pattern| (pattern, shown(pattern)));
    pairs.filter(move |(_, shown)| (own.image || !shown.image) && (own.record || !shown.record))
}
