//! Where the training's examples lie in a model's eyes, so that a new one that lies elsewhere is noticed.

use synovia_cohort::{CohortReader, Split};
use synovia_evaluation::{NoveltyPattern, NoveltyScore};
use synovia_training::{Asked, Presence};

use super::embeddings::Embedded;

/// Examples of the train split, and of validation, at most.
const MOST_TRAIN: usize = 2000;
const MOST_VALIDATION: usize = 1000;

/// - own: what the model sees
pub fn fit(reader: &CohortReader, asked: &Asked, own: Presence) -> anyhow::Result<NoveltyScore> {
    let of = |split, most| Embedded::of_patterns(reader, asked, own, split, most, |_| true);
    let (train, validation) = (of(Split::Train, MOST_TRAIN)?, of(Split::Validation, MOST_VALIDATION)?);
    let pairs = train.iter().zip(&validation);
    let patterns = pairs.filter_map(|((pattern, train), (_, validation))| NoveltyPattern::fit(*pattern, &train.values, &validation.values));
    Ok(NoveltyScore { patterns: patterns.collect() })
}
