//! The feature table: which columns there are is settled on train examples, then any example is a row of them.

mod builder;
mod plan;
mod statistic;

pub use builder::{FeatureConfig, PlanBuilder};
pub(crate) use plan::number_in;
pub use plan::{Feature, FeaturePlan, FeatureSource};
pub use statistic::Statistic;
