//! From a forward pass to a recording of it.

use std::collections::BTreeMap;

use burn::backend::capture::CaptureBackend;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_ir::{OperationIr, TensorId};

use crate::canonical::canonical;
use crate::dim::BATCHES;
use crate::error::TraceError;
use crate::graph::Graph;
use crate::lower;
use crate::program::Program;

/// Declares inputs and outputs of a forward pass while it is recorded.
///
/// Nothing is computed: tensors on [`Tracer::device`] have shapes and no values, so a forward pass that reads a value
/// (`into_scalar`, `into_data`) panics. The model must be made on that device and not moved there: moving leaves the live
/// model's shared state (batch normalisation's running statistics) on the recorder. Make an empty model on the device and load
/// a copy of the weights, for example with `synovia_fusion::collect_state` and `apply_state`.
pub struct Tracer {
    device: Device,
    batch: usize,
    inputs: Vec<(String, TensorId)>,
    outputs: Vec<(String, TensorId)>,
    /// Keeps declared tensors from being overwritten in place.
    alive: Vec<Alive>,
    error: Option<TraceError>,
}

/// A tensor's handle.
type Alive = Box<dyn std::any::Any>;

/// One recording.
pub(crate) struct Recording {
    pub operations: Vec<OperationIr>,
    pub values: BTreeMap<TensorId, TensorData>,
    pub inputs: Vec<(String, TensorId)>,
    pub outputs: Vec<(String, TensorId)>,
}

impl Tracer {
    /// The recording device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The batch size of this trace. The graph's is symbolic.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Declares an input of floats.
    ///
    /// # Shapes
    /// - rest: the sizes after the batch; they are fixed in the graph
    /// - returns `[batch, rest…]`
    pub fn input<const D: usize>(&mut self, name: &str, rest: impl AsRef<[usize]>) -> Tensor<D> {
        let shape = self.shape::<D>(name, rest.as_ref());
        let tensor = Tensor::<D>::from_data(TensorData::zeros::<f32, _>(shape), &self.device);
        let id = tensor.clone().try_into_primitive::<CaptureBackend>().ok().map(|primitive| primitive.id());
        self.declare_input(name, id, Box::new(tensor.clone()));
        tensor
    }

    /// Declares an input of integers (`int64` in the graph).
    ///
    /// # Shapes
    /// See [`Tracer::input`].
    pub fn input_int<const D: usize>(&mut self, name: &str, rest: impl AsRef<[usize]>) -> Tensor<D, Int> {
        let shape = self.shape::<D>(name, rest.as_ref());
        let tensor = Tensor::<D, Int>::from_data(TensorData::zeros::<i64, _>(shape), &self.device);
        let id = tensor.clone().try_into_primitive::<CaptureBackend>().ok().map(|primitive| primitive.id());
        self.declare_input(name, id, Box::new(tensor.clone()));
        tensor
    }

    /// Declares an output.
    pub fn output<const D: usize>(&mut self, name: &str, tensor: Tensor<D>) {
        let id = tensor.clone().try_into_primitive::<CaptureBackend>().ok().map(|primitive| primitive.id());
        self.declare_output(name, id, Box::new(tensor));
    }

    /// Declares an output of integers.
    pub fn output_int<const D: usize>(&mut self, name: &str, tensor: Tensor<D, Int>) {
        let id = tensor.clone().try_into_primitive::<CaptureBackend>().ok().map(|primitive| primitive.id());
        self.declare_output(name, id, Box::new(tensor));
    }

    fn shape<const D: usize>(&mut self, name: &str, rest: &[usize]) -> [usize; D] {
        let mut shape = [1; D];
        if D == rest.len() + 1 {
            shape[0] = self.batch;
            shape[1..].copy_from_slice(rest);
        } else {
            self.error.get_or_insert(TraceError::Rank { name: name.into(), expected: D, got: rest.len() });
        }
        shape
    }

    fn check_name(&mut self, name: &str) {
        let taken = self.inputs.iter().chain(&self.outputs).any(|(other, _)| other == name);
        if name.is_empty() || name.starts_with('/') || taken {
            self.error.get_or_insert(TraceError::Name { name: name.into() });
        }
    }

    fn declare_input(&mut self, name: &str, id: Option<TensorId>, alive: Alive) {
        self.check_name(name);
        self.alive.push(alive);
        match id {
            Some(id) => self.inputs.push((name.into(), id)),
            None => drop(self.error.get_or_insert(TraceError::Device { name: name.into() })),
        }
    }

    fn declare_output(&mut self, name: &str, id: Option<TensorId>, alive: Alive) {
        self.check_name(name);
        self.alive.push(alive);
        match id {
            Some(id) => self.outputs.push((name.into(), id)),
            None => drop(self.error.get_or_insert(TraceError::Device { name: name.into() })),
        }
    }
}

fn record(device: &Device, batch: usize, forward: &impl Fn(&mut Tracer) -> Result<(), TraceError>) -> Result<Recording, TraceError> {
    let mut traced = None;
    let captured = device
        .capture_scope(|scope| {
            let mut tracer =
                Tracer { device: device.clone(), batch, inputs: Vec::new(), outputs: Vec::new(), alive: Vec::new(), error: None };
            let outcome = forward(&mut tracer);
            traced = Some(outcome.and_then(|()| match tracer.error.take() {
                Some(error) => Err(error),
                None => Ok((std::mem::take(&mut tracer.inputs), std::mem::take(&mut tracer.outputs))),
            }));
            // Inputs and outputs are kept by name here: burn's list allows no tensor under two names.
            scope.complete([], [])
        })
        .map_err(TraceError::Capture)?;
    let (inputs, outputs) = traced.ok_or(TraceError::NoOutputs)??;
    if inputs.is_empty() {
        return Err(TraceError::NoInputs);
    }
    if outputs.is_empty() {
        return Err(TraceError::NoOutputs);
    }
    Ok(Recording { operations: canonical(captured.graph.operations), values: captured.values, inputs, outputs })
}

/// Traces `forward` and lowers it to an ONNX graph. All inputs share one symbolic first dimension, `batch`.
///
/// `forward` is run at three batch sizes and must do the same at each: make the model on [`Tracer::device`] with the same
/// weights, declare the inputs, run it, declare the outputs. What differs between the recordings is what follows the batch.
///
/// # Errors
/// [`TraceError`]; among others for an operation that has no lowering, and for a number that follows the batch where ONNX has
/// no words for that.
pub fn trace(forward: impl Fn(&mut Tracer) -> Result<(), TraceError>) -> Result<Graph, TraceError> {
    let device = Device::capture();
    let [first, second, third] = BATCHES;
    let recordings = [record(&device, first, &forward)?, record(&device, second, &forward)?, record(&device, third, &forward)?];
    lower::lower(&Program::align(&recordings)?)
}
