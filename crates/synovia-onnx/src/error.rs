//! Why there is no graph.

use burn::tensor::CaptureError;

/// Why a model can't be made an ONNX graph.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// burn could not record the forward pass.
    #[error("the forward pass could not be recorded: {0}")]
    Capture(CaptureError),
    /// An operation that has no lowering.
    #[error("operation {operation} can't be written as ONNX yet: replace it in the model, or add it to synovia-onnx")]
    Unsupported {
        /// burn's name of the operation, with what is special about it.
        operation: String,
    },
    /// An operation whose settings follow the batch in a way that ONNX has no words for.
    #[error(
        "operation {operation} depends on the batch size by {what}: the exported model would be right for one batch size only; compute it from the inputs' shapes alone"
    )]
    BatchDependent {
        /// burn's name of the operation.
        operation: String,
        /// What differs.
        what: String,
    },
    /// The forward pass takes another way at another batch size.
    #[error("at another batch size operation {position} is {other} instead of {operation}: the forward pass branches on the batch")]
    Diverges {
        /// Position among the operations that matter.
        position: usize,
        /// At the first batch size.
        operation: String,
        /// At another one.
        other: String,
    },
    /// An element type that ONNX or this crate lacks.
    #[error("elements of type {element} can't be written as ONNX yet")]
    Element {
        /// burn's name of it.
        element: String,
    },
    /// A tensor that was not made on the tracer's device.
    #[error("tensor {name} is not on the tracer's device: make the model and its inputs on `Tracer::device`")]
    Device {
        /// Name of the input or output.
        name: String,
    },
    /// A value read by the graph that nothing computes.
    #[error("operation {operation} reads a tensor from outside of the trace")]
    Dangling {
        /// burn's name of the operation.
        operation: String,
    },
    /// Inputs or outputs can't be told apart.
    #[error("input or output name {name:?} is empty, starts with a slash or is used twice")]
    Name {
        /// The name.
        name: String,
    },
    /// An input with another number of dimensions than its shape says.
    #[error("input {name} has {expected} dimensions (batch included), but its shape lists {got} besides the batch")]
    Rank {
        /// Name of the input.
        name: String,
        /// Dimensions of the tensor.
        expected: usize,
        /// Sizes given.
        got: usize,
    },
    /// No inputs.
    #[error("the model has no inputs")]
    NoInputs,
    /// No outputs.
    #[error("the model has no outputs")]
    NoOutputs,
    /// Another set of names at another batch size.
    #[error("names or order of inputs and outputs change with the batch")]
    Boundary,
    /// The closure's own error.
    #[error("the forward pass failed: {0}")]
    Forward(Box<dyn std::error::Error + Send + Sync>),
}

impl TraceError {
    /// Wraps an error of the closure that [`crate::trace`] runs.
    pub fn forward(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Forward(error.into())
    }
}
