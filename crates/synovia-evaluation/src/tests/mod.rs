//! What can be checked from outside: other people's implementations, hand-computed values, invariants and simulations.

mod baseline;
mod calibrated;
mod calibrator;
mod conformal;
mod endpoints;
mod gain;
mod groups;
mod intervals;
mod measures;
pub(crate) mod references;
mod report;
mod simulated;
mod thresholds;
mod validation;
