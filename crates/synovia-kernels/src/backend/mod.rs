//! Where burn's tensors enter: the only part that knows burn.

mod adamw;
mod tower;

pub use adamw::{adamw, sum_of_squares};
pub use tower::{Parameters, run_tower, train_tower};
