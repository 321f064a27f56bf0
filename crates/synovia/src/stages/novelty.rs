//! Where the training's examples lie in a model's eyes, so that a new one that lies elsewhere is noticed.

use synovia_cohort::{CohortReader, Split};
use synovia_evaluation::{NoveltyPattern, NoveltyScore};
use synovia_training::{Asked, Presence};

use super::embeddings::{Embedded, patterns};

/// Examples of the train split, and of validation, at most.
const MOST_TRAIN: usize = 2000;
const MOST_VALIDATION: usize = 1000;

/// - own: what the model sees
pub fn fit(reader: &CohortReader, asked: &Asked, own: Presence) -> anyhow::Result<NoveltyScore> {
    let mut fitted = Vec::new();
    for (pattern, shown) in patterns(own) {
        let train = Embedded::of(reader, asked, shown, Split::Train, MOST_TRAIN, |_| true)?;
        let validation = Embedded::of(reader, asked, shown, Split::Validation, MOST_VALIDATION, |_| true)?;
        fitted.extend(NoveltyPattern::fit(pattern, &train.values, &validation.values));
    }
    Ok(NoveltyScore { patterns: fitted })
}
