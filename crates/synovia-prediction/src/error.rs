//! Why nothing can be predicted. What is wrong with one file or resource is a rejection instead.

use std::path::PathBuf;

use synovia_images::ImagesError;
use synovia_onnx::RuntimeError;
use synovia_records::RecordsError;

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub enum PredictionError {
    /// A model of somebody else.
    #[error("not exported by synovia: its metadata has no `synovia`; give a model.onnx that `synovia export` wrote")]
    NotExported,
    /// Metadata of another version.
    #[error("metadata `synovia` can't be read: {0}; export the model again with this version")]
    Metadata(#[source] serde_json::Error),
    /// Metadata that lack what images need.
    #[error("the model's metadata do not say what its images are; export it again")]
    NoImageKind,
    /// The model can't be asked.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Images that can't be read at all.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// Records that can't be read at all.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl PredictionError {
    /// Whether there was no room to put something aside, which is nobody's fault who asks.
    pub fn is_full(&self) -> bool {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(cause) = error {
            if cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull) {
                return true;
            }
            error = cause.source();
        }
        false
    }
}
