//! Hospitals that learn one model together and keep their data.
//!
//! Each site [states](Statement) what it has, in sums; the coordinator [agrees](agree) with all of them on a [`Plan`] and the
//! first weights; in each round a site [trains](fit_round) what it has from the weights that all share, and the coordinator
//! [puts them together](aggregate). What a site lacks it does not train, and for that it does not count.
//!
//! This crate knows no HTTP, no files and no clock: bytes come in and go out, carried by Flower or by a loop. It draws no
//! random number while sites learn but those of their training, so that a federation gives the same bits whatever the order in
//! which updates arrive.

mod aggregate;
mod error;
mod message;
mod partition;
mod plan;
mod site;
mod statement;
#[cfg(test)]
mod tests;

pub use aggregate::{Refusal, RoundReport, ServerState, SiteReport, Unmerged, aggregate};
pub use error::FederationError;
pub use message::{Global, Update, weights_hash};
pub use partition::{Partition, PartitionError, partition};
pub use plan::{Kept, Method, Plan, Terms, agree};
pub use site::{Validated, ValidationSums, fit_round, validate_round};
pub use statement::Statement;
