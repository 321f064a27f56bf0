//! Where a model's stages write: the run folder, or one fold of it.

use std::path::PathBuf;

use super::run_folder::RunFolder;

/// The run folder itself, or `folds/K` in it.
#[derive(Clone, Debug)]
pub struct Place {
    fold: Option<usize>,
}

impl Place {
    /// Every place of a pipeline: one, or one a fold.
    pub fn all(folds: Option<usize>) -> Vec<Self> {
        match folds {
            None => vec![Self { fold: None }],
            Some(folds) => (0..folds).map(|k| Self { fold: Some(k) }).collect(),
        }
    }

    /// The fold that is tested on, from 0.
    pub fn fold(&self) -> Option<usize> {
        self.fold
    }

    /// A path relative to the run folder, as the stage cache wants it.
    pub fn relative(&self, name: &str) -> String {
        match self.fold {
            None => name.to_owned(),
            Some(k) => format!("folds/{k}/{name}"),
        }
    }

    /// A path in the file system.
    pub fn path(&self, run: &RunFolder, name: &str) -> PathBuf {
        run.join(self.relative(name))
    }

    /// A stage's name here.
    pub fn stage(&self, name: &str) -> String {
        match self.fold {
            None => name.to_owned(),
            Some(k) => format!("{name}-fold-{}", k + 1),
        }
    }
}
