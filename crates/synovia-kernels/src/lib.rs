//! Fused CPU kernels: a whole image tower, forward and backward, channels last, as one operation of burn's autodiff; AdamW in
//! one pass.
//!
//! Convolutions are made of inner products in registers (`gemm`): by the definition, wherever a tap finds its pixels (`direct`; `stem` over
//! images), or, for 3 × 3 of stride 1, with a quarter to less than a half of the multiplications (`winograd`). Normalisation, activation,
//! residual sums and their masks are done where a convolution reads and writes anyway (`finish`, `norm`, `pool`).
//! Results are the same bits for any number of threads: work and sums are cut by the shapes alone.
//!
//! This crate alone has `unsafe`. It knows no medicine, no files and no model but the kind of tower it computes.

// Without burn there is nobody to call them but tests: that is how Miri and other processors' emulators get to them in a minute.
#![cfg_attr(not(feature = "burn"), allow(dead_code))]

mod adamw;
#[cfg(feature = "burn")]
mod backend;
mod direct;
mod finish;
mod gemm;
mod images;
mod lanes;
pub mod measure;
mod norm;
mod pool;
mod shared;
mod stem;
#[cfg(test)]
mod tests;
mod tower;
mod unit;
mod winograd;

pub use adamw::AdamWStep;
#[cfg(feature = "burn")]
pub use backend::{Parameters, Traced, adamw, blend, run_tower, sum_of_squares, trace_tower, train_tower};
pub use images::UnitShape;
pub use shared::{in_pool, release_buffers};
pub use tower::{BlockShape, Forward, Saved, TowerError, TowerShape, Unit, UnitGradient, UnitStatistics};
