//! The latent world: factors, outcomes and their exact posteriors. Knows no file format and no pixel.

mod factors;
mod outcomes;
mod population;
mod posterior;
mod quadrature;
mod risk;

pub(crate) use factors::{ImageFactors, Lab, LabState, RecordFactors, Smoking, Texture};
pub(crate) use outcomes::Outcomes;
pub(crate) use population::{FIRST_AGE_YEARS, GAP_DAYS, P_PLANNED, Population};
pub(crate) use posterior::{ImageBelief, Posterior, RecordBelief};
