//! What can be checked from outside: other people's implementations, hand-computed values, invariants and simulations.

mod baseline;
mod gain;
mod intervals;
mod measures;
mod report;
mod simulated;
mod temperature;
mod validation;
