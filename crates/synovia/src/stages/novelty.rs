//! Where the training's examples lie in a model's eyes, so that a new one that lies elsewhere is noticed.

use synovia_cohort::{CohortReader, ExampleRow, Split};
use synovia_evaluation::{ModalityPattern, NoveltyPattern, NoveltyScore};
use synovia_training::{Asked, Given, Presence};

use super::explain::read;

/// Examples of the train split, and of validation, at most; evenly over the cohort.
const MOST_TRAIN: usize = 2000;
const MOST_VALIDATION: usize = 1000;
/// Examples that are held in memory.
const BATCH: usize = 64;

/// - own: what the model sees
pub fn fit(reader: &CohortReader, asked: &Asked, own: Presence) -> anyhow::Result<NoveltyScore> {
    let mut patterns = Vec::new();
    for pattern in ModalityPattern::ALL {
        let shown = presence(pattern);
        if (shown.image && !own.image) || (shown.record && !own.record) {
            continue;
        }
        let train = embeddings(reader, asked, shown, Split::Train, MOST_TRAIN)?;
        let validation = embeddings(reader, asked, shown, Split::Validation, MOST_VALIDATION)?;
        patterns.extend(NoveltyPattern::fit(pattern, &train, &validation));
    }
    Ok(NoveltyScore { patterns })
}

const fn presence(pattern: ModalityPattern) -> Presence {
    match pattern {
        ModalityPattern::Both => Presence { image: true, record: true },
        ModalityPattern::Image => Presence { image: true, record: false },
        ModalityPattern::Record => Presence { image: false, record: true },
    }
}

/// Of examples that have what is shown, whatever else they have.
fn embeddings(reader: &CohortReader, asked: &Asked, shown: Presence, split: Split, most: usize) -> anyhow::Result<Vec<Vec<f32>>> {
    let has = |row: &&ExampleRow| (!shown.image || row.image_row.is_some()) && (!shown.record || row.record_row.is_some());
    let rows: Vec<&ExampleRow> = reader.rows().iter().filter(|row| row.split == split).filter(has).collect();
    let rows: Vec<&ExampleRow> = rows.iter().step_by(rows.len().div_ceil(most).max(1)).copied().collect();
    let mut out = Vec::with_capacity(rows.len());
    for rows in rows.chunks(BATCH) {
        let given = rows.iter().map(|row| read(reader, row, shown)).collect::<anyhow::Result<Vec<Given>>>()?;
        out.extend(asked.ask(&given.iter().collect::<Vec<_>>()).into_iter().map(|told| told.embedding));
    }
    Ok(out)
}
