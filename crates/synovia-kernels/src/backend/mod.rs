//! Where burn's tensors enter: the only part that knows burn.

mod adamw;
mod tower;

pub use adamw::{adamw, blend, sum_of_squares};
pub use tower::{Parameters, Traced, run_tower, trace_tower, train_tower};
