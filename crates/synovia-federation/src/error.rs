//! What can go wrong in a federation.

use synovia_training::TrainingError;

/// Why a federation, or one of its rounds, can't go on.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// A site can't train or be read.
    #[error("site `{site}`: {source}")]
    Site {
        /// Which site.
        site: String,
        /// Why.
        source: TrainingError,
    },
    /// The first weights can't be made.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// A name that is no site's.
    #[error("`{0}` is no name of a site: give one to 64 letters, digits, `-` and `_`")]
    SiteName(String),
    /// Two statements of one site.
    #[error("site `{0}` states what it has twice; give each site a name of its own")]
    SiteTwice(String),
    /// Nobody takes part.
    #[error("no site takes part; give at least one statement")]
    NoSite,
    /// Too few examples.
    #[error("site `{site}` has {got} training examples where {least} are asked for; leave it out or lower --least-examples")]
    TooSmall {
        /// Which site.
        site: String,
        /// What it has.
        got: u64,
        /// What the federation asks for.
        least: u64,
    },
    /// Two sites mean different things.
    #[error(
        "site `{second}` has {what} {theirs} where site `{first}` has {ours}; all sites need the same [model], [training], tasks and list of features"
    )]
    Disagree {
        /// What they disagree on.
        what: String,
        /// A site.
        first: String,
        /// What it has.
        ours: String,
        /// The other site.
        second: String,
        /// What that has.
        theirs: String,
    },
    /// A setting that no federation can keep.
    #[error("{0}")]
    Setting(String),
    /// Bytes that are no weights of ours.
    #[error("{what} can't be read: {why}; send what `synovia federate` wrote, unchanged")]
    Damaged {
        /// What it should be.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Weights of another federation.
    #[error("the weights are of another federation (plan {got}, not {expected}); fetch the plan and the weights again")]
    OtherPlan {
        /// The digest in the weights.
        got: String,
        /// That of the plan.
        expected: String,
    },
    /// A site that the plan does not know.
    #[error("site `{site}` takes no part in this federation; it was agreed by {known}")]
    UnknownSite {
        /// Which.
        site: String,
        /// Those that do.
        known: String,
    },
    /// All rounds are done.
    #[error("round {0} was the last one of the plan")]
    Finished(usize),
    /// Too few updates are left to go on.
    #[error("round {round} has {got} usable updates where {least} are needed{}", reasons(.refused))]
    TooFew {
        /// Which round.
        round: usize,
        /// Updates that can be used.
        got: usize,
        /// Updates that are needed.
        least: usize,
        /// Why the others can't.
        refused: Vec<String>,
    },
}

fn reasons(refused: &[String]) -> String {
    if refused.is_empty() { String::new() } else { format!(": {}", refused.join("; ")) }
}
