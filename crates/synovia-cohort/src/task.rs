//! What is to be predicted.

use serde::{Deserialize, Serialize};

/// A prediction task, with its classes settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name: a column, an output of the exported model, a key in the metrics.
    pub name: String,
    /// What kind.
    pub kind: TaskKind,
    /// Names of the classes: of a binary task, the name of the positive one; of others, all in order.
    pub classes: Vec<String>,
}

/// Kinds of task that can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Yes or no; the label is 0 or 1.
    Binary,
    /// One of several; the label is the class's index.
    Multiclass,
    /// One of several that stand in an order, as stages do; the label is the class's index.
    Ordinal,
}

impl Task {
    /// Number of logits of its head: 1 for a binary task, else the number of classes.
    pub fn n_logits(&self) -> usize {
        match self.kind {
            TaskKind::Binary => 1,
            TaskKind::Multiclass | TaskKind::Ordinal => self.classes.len(),
        }
    }

    /// Number of probabilities in predictions and in the exported model: as [`Task::n_logits`].
    pub fn n_outputs(&self) -> usize {
        self.n_logits()
    }
}
