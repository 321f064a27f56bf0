//! One program out of recordings at several batch sizes: the same operations, with sizes that may follow the batch.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use burn::tensor::{DType, Shape, Slice, TensorData};
use burn_ir::{BaseOperationIr, IrVisitorMut, OperationIr, ScalarIr, TensorId, TensorIr, TensorStatus};

use crate::dim::Dim;
use crate::error::TraceError;
use crate::lower::operation_name;
use crate::trace::Recording;

/// What is known of a tensor.
pub(crate) struct TensorInfo {
    pub shape: Vec<Dim>,
    pub dtype: DType,
}

/// An operation, as recorded at each batch size. Tensor ids are those of its first recording.
pub(crate) struct Step {
    pub recorded: [OperationIr; 3],
}

impl Step {
    /// The operation, at the first batch size.
    pub fn operation(&self) -> &OperationIr {
        &self.recorded[0]
    }
}

/// The operations that outputs depend on, in order.
pub(crate) struct Program {
    pub steps: Vec<Step>,
    pub tensors: HashMap<TensorId, TensorInfo>,
    /// Values at each batch size.
    pub constants: HashMap<TensorId, [TensorData; 3]>,
    pub inputs: Vec<(String, TensorId)>,
    pub outputs: Vec<(String, TensorId)>,
}

/// Collects the tensors of an operation, in the operation's own order.
#[derive(Default)]
struct Tensors(Vec<(TensorId, Shape, DType)>);

impl IrVisitorMut for Tensors {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        self.0.push((tensor.id, tensor.shape.clone(), tensor.dtype));
    }
}

fn tensors(operation: &OperationIr) -> Vec<(TensorId, Shape, DType)> {
    let mut visitor = Tensors::default();
    operation.clone().visit_mut(&mut visitor);
    visitor.0
}

/// Leaves of an operation only what must be equal at each batch size.
struct Blank;

impl IrVisitorMut for Blank {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        *tensor = TensorIr { id: TensorId::new(0), shape: Shape::from(Vec::<usize>::new()), status: TensorStatus::NotInit, ..*tensor };
    }

    fn visit_scalar_mut(&mut self, scalar: &mut ScalarIr) {
        // NaN is not equal to itself, its bits are.
        if let ScalarIr::Float(value) = scalar {
            *scalar = ScalarIr::UInt(value.to_bits());
        }
    }

    fn visit_range_mut(&mut self, range: &mut Slice) {
        *range = Slice::new(0, None, range.step);
    }
}

fn blank(operation: &OperationIr) -> OperationIr {
    let mut operation = operation.clone();
    if let OperationIr::BaseFloat(base) | OperationIr::BaseInt(base) | OperationIr::BaseBool(base) = &mut operation
        && let BaseOperationIr::RepeatDim(repeat) = base
    {
        repeat.times = 0;
    }
    operation.visit_mut(&mut Blank);
    operation
}

/// The operations that the outputs depend on.
fn live(recording: &Recording) -> Vec<&OperationIr> {
    let mut needed: HashSet<TensorId> = recording.outputs.iter().map(|(_, id)| *id).collect();
    let mut kept = Vec::new();
    for operation in recording.operations.iter().rev() {
        if matches!(operation, OperationIr::Init(_) | OperationIr::Drop(_)) {
            continue;
        }
        if operation.outputs().any(|tensor| needed.contains(&tensor.id)) {
            needed.extend(operation.inputs().map(|tensor| tensor.id));
            kept.push(operation);
        }
    }
    kept.reverse();
    kept
}

impl Program {
    /// Lays the recordings over each other.
    pub fn align(recordings: &[Recording; 3]) -> Result<Self, TraceError> {
        let names = |recording: &Recording| {
            let of = |list: &[(String, TensorId)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            (of(&recording.inputs), of(&recording.outputs))
        };
        let steps = recordings.each_ref().map(live);
        for (recording, other) in recordings.iter().zip(&steps).skip(1) {
            if names(recording) != names(&recordings[0]) {
                return Err(TraceError::Boundary);
            }
            check_equal(&steps[0], other)?;
        }
        let mut program = Self {
            steps: Vec::with_capacity(steps[0].len()),
            tensors: HashMap::new(),
            constants: HashMap::new(),
            inputs: recordings[0].inputs.clone(),
            outputs: recordings[0].outputs.clone(),
        };
        // The same operations may still be wired in another way: each tensor must have one counterpart in each recording.
        let mut counterparts: HashMap<TensorId, [TensorId; 2]> =
            counterparts(recordings, |recording| &recording.inputs).into_iter().collect();
        let inputs: HashSet<TensorId> = counterparts.keys().copied().collect();
        for (position, ((first, second), third)) in steps[0].iter().zip(&steps[1]).zip(&steps[2]).enumerate() {
            let recorded = [first, second, third].map(|operation| (*operation).clone());
            let [first, second, third] = recorded.each_ref().map(tensors);
            for ((first, second), third) in first.iter().zip(&second).zip(&third) {
                let id = first.0;
                if *counterparts.entry(id).or_insert([second.0, third.0]) != [second.0, third.0] {
                    let operation = operation_name(&recorded[0]);
                    return Err(TraceError::Diverges { position, other: format!("{operation} of other tensors"), operation });
                }
                if let Entry::Vacant(entry) = program.tensors.entry(id) {
                    let shape = fit([&first.1, &second.1, &third.1]).ok_or_else(|| TraceError::BatchDependent {
                        operation: operation_name(&recorded[0]),
                        what: format!("a shape that is not in proportion to it ({:?}, {:?}, {:?})", first.1, second.1, third.1),
                    })?;
                    entry.insert(TensorInfo { shape, dtype: first.2 });
                }
                if !inputs.contains(&id)
                    && !program.constants.contains_key(&id)
                    && let Some(values) = values(recordings, [id, second.0, third.0])
                {
                    program.constants.insert(id, values);
                }
            }
            program.steps.push(Step { recorded });
        }
        for (id, others) in self::counterparts(recordings, |recording| &recording.outputs) {
            if counterparts.get(&id).is_some_and(|expected| *expected != others) {
                return Err(TraceError::Boundary);
            }
        }
        program.boundaries(recordings)?;
        Ok(program)
    }

    /// Inputs and outputs that no operation touches: an unused input, an output that is an input or a constant.
    fn boundaries(&mut self, recordings: &[Recording; 3]) -> Result<(), TraceError> {
        let outputs = counterparts(recordings, |recording| &recording.outputs);
        for (id, [second, third]) in counterparts(recordings, |recording| &recording.inputs).into_iter().chain(outputs) {
            if self.tensors.contains_key(&id) {
                continue;
            }
            let Some(values) = values(recordings, [id, second, third]) else {
                return Err(TraceError::Dangling { operation: "output".into() });
            };
            let shape = fit(values.each_ref().map(TensorData::shape)).ok_or(TraceError::Boundary)?;
            self.tensors.insert(id, TensorInfo { shape, dtype: values[0].dtype() });
            if !self.inputs.iter().any(|(_, input)| *input == id) {
                self.constants.insert(id, values);
            }
        }
        Ok(())
    }
}

/// For each tensor of a list its counterparts in the second and third recording.
fn counterparts(recordings: &[Recording; 3], list: impl Fn(&Recording) -> &Vec<(String, TensorId)>) -> Vec<(TensorId, [TensorId; 2])> {
    let [first, second, third] = recordings.each_ref().map(list);
    first.iter().zip(second).zip(third).map(|((first, second), third)| (first.1, [second.1, third.1])).collect()
}

/// The values of a constant in each recording.
fn values(recordings: &[Recording; 3], ids: [TensorId; 3]) -> Option<[TensorData; 3]> {
    let [first, second, third] = [0, 1, 2].map(|trace: usize| recordings[trace].values.get(&ids[trace]));
    Some([first?.clone(), second?.clone(), third?.clone()])
}

fn check_equal(steps: &[&OperationIr], others: &[&OperationIr]) -> Result<(), TraceError> {
    let name = |operation: Option<&&OperationIr>| operation.map_or_else(|| "the end".to_owned(), |operation| operation_name(operation));
    for position in 0..steps.len().max(others.len()) {
        let (operation, other) = (steps.get(position), others.get(position));
        if name(operation) != name(other) {
            return Err(TraceError::Diverges { position, operation: name(operation), other: name(other) });
        }
        if let (Some(operation), Some(other)) = (operation, other)
            && blank(operation) != blank(other)
        {
            return Err(TraceError::BatchDependent { operation: operation_name(operation), what: "a number among its settings".into() });
        }
    }
    Ok(())
}

fn fit(shapes: [&Shape; 3]) -> Option<Vec<Dim>> {
    let [first, second, third] = shapes.map(|shape| shape.iter().copied().collect::<Vec<usize>>());
    if first.len() != second.len() || first.len() != third.len() {
        return None;
    }
    (0..first.len()).map(|axis| Dim::fit([first[axis], second[axis], third[axis]])).collect()
}
