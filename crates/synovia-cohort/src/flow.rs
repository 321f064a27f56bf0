//! How patients become a cohort, step by step, as a CONSORT diagram counts it.

use serde::{Deserialize, Serialize};

/// Who is there after a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounts {
    /// What they are: `adults`, `train`.
    pub name: String,
    /// Patients with at least one example left; before there are examples, patients.
    pub patients: u64,
    /// Examples; `None` before there are any.
    pub examples: Option<u64>,
    /// Who is not there any more, since the step before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// Who a step left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Why.
    pub reason: String,
    /// Patients of whom no example is left.
    pub patients: u64,
    /// Examples; `None` before there are any.
    pub examples: Option<u64>,
}

impl FlowCounts {
    /// The step after `before` in which so many remain.
    pub fn after(before: &Self, name: impl Into<String>, patients: u64, examples: u64, reason: impl Into<String>) -> Self {
        let left_out = LeftOut {
            reason: reason.into(),
            patients: before.patients.saturating_sub(patients),
            examples: before.examples.map(|n| n.saturating_sub(examples)),
        };
        Self { name: name.into(), patients, examples: Some(examples), left_out: Some(left_out) }
    }
}
