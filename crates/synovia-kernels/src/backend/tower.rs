//! The tower as one operation of burn's `Flex` backend and of its autodiff.
//!
//! burn's own dispatch picks a backend at run time; so does this: tensors that live elsewhere (a GPU, the recorder that the
//! ONNX export uses), or that the kernels are not made for, are given back with `None`, and the caller goes on with burn's own
//! operations.

use std::array;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::{Autodiff, BackendTypes, Flex};
use burn::tensor::{Tensor, TensorData};

use crate::shared::in_pool;
use crate::tower::{Forward, Saved, TowerShape, Unit, UnitStatistics};

/// Autodiff without gradient checkpointing: what `Device::autodiff` gives.
type Recorded = Autodiff<Flex>;
type Values = <Flex as BackendTypes>::FloatTensorPrimitive;
type Node = <Recorded as BackendTypes>::FloatTensorPrimitive;

/// A unit's tensors.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// `[channels_out, channels_in, kernel, kernel]`
    pub weight: Tensor<4>,
    /// `[channels_out]`
    pub gamma: Tensor<1>,
    /// `[channels_out]`
    pub beta: Tensor<1>,
    /// What is added to the variance.
    pub epsilon: f64,
}

/// Places for parents of one operation: the parameters of up to 42 units. What a tower does not need is taken by a constant.
const PARENTS: usize = 128;

/// A unit's numbers.
#[derive(Clone, Debug)]
struct UnitValues {
    weight: Values,
    gamma: Values,
    beta: Values,
    epsilon: f64,
}

impl UnitValues {
    fn new(parts: [Values; 3], epsilon: f64) -> Self {
        // A no-op but for parameters that are views.
        let [weight, gamma, beta] = parts.map(|part| part.to_contiguous());
        Self { weight, gamma, beta, epsilon }
    }

    /// `None` for numbers other than `f32`.
    fn borrow(&self) -> Option<Unit<'_>> {
        let Self { weight, gamma, beta, epsilon } = self;
        Some(Unit { weight: weight.as_slice()?, gamma: gamma.as_slice()?, beta: beta.as_slice()?, epsilon: *epsilon })
    }
}

fn borrow(units: &[UnitValues]) -> Option<Vec<Unit<'_>>> {
    units.iter().map(UnitValues::borrow).collect()
}

fn values(numbers: Vec<f32>, shape: &[usize]) -> Values {
    Values::from_data(TensorData::new(numbers, shape.to_vec()))
}

/// The tower's step in the graph of the backward pass.
#[derive(Debug)]
struct TowerStep;

#[derive(Clone, Debug)]
struct TowerState {
    shape: TowerShape,
    units: Vec<UnitValues>,
    saved: Saved,
}

impl Backward<Flex, PARENTS> for TowerStep {
    type State = TowerState;

    fn backward(self, ops: Ops<TowerState, PARENTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let TowerState { shape, units, saved } = ops.state;
        let (units, gradient) = borrow(&units).zip(gradient.as_slice::<f32>()).expect("numbers are `f32`, as the forward pass found them");
        let computed = in_pool(|| shape.backward(saved, &units, gradient)).expect("shapes are those of the forward pass");
        let mut parents = ops.parents.into_iter();
        for (gradient, unit) in computed.into_iter().zip(shape.units()) {
            let kernel = [unit.channels_out, unit.channels_in, unit.kernel, unit.kernel];
            let channels = [unit.channels_out];
            let parts: [(Vec<f32>, &[usize]); 3] = [(gradient.weight, &kernel), (gradient.gamma, &channels), (gradient.beta, &channels)];
            for (numbers, shape) in parts {
                if let Some(parent) = parents.next().flatten() {
                    grads.register::<Flex>(parent.id, values(numbers, shape));
                }
            }
        }
    }
}

/// The tower in training: normalised by the batch's own statistics, which are returned; part of the graph of the backward pass.
///
/// `None` when the tensors are not `f32` on the CPU's autodiff, when the image itself is part of a graph (its gradient is not
/// computed here), or when shapes do not fit.
///
/// # Shapes
/// - image: `[batch, channels, height, width]`
/// - returns `[batch, width]`
pub fn train_tower(shape: &TowerShape, image: &Tensor<4>, parameters: &[Parameters]) -> Option<(Tensor<2>, Vec<UnitStatistics>)> {
    if 3 * parameters.len() > PARENTS || parameters.len() != shape.units().len() {
        return None;
    }
    let image: Node = image.clone().try_into_primitive::<Recorded>().ok()?;
    if image.is_tracked() {
        return None;
    }
    let mut units = Vec::with_capacity(parameters.len());
    let mut guards: Vec<NodeGuard> = Vec::with_capacity(PARENTS);
    for Parameters { weight, gamma, beta, epsilon } in parameters {
        let nodes: [Node; 3] = [
            weight.clone().try_into_primitive::<Recorded>().ok()?,
            gamma.clone().try_into_primitive::<Recorded>().ok()?,
            beta.clone().try_into_primitive::<Recorded>().ok()?,
        ];
        let parts = nodes.map(|node| {
            let (part, guard) = node.into_parts();
            guards.push(guard);
            part
        });
        units.push(UnitValues::new(parts, *epsilon));
    }
    let image = image.into_primitive().to_contiguous();
    let dims: [usize; 4] = burn::backend::TensorMetadata::shape(&image).dims();
    let (pixels, borrowed) = (image.as_slice()?, borrow(&units)?);
    let Forward { embedding, statistics, saved } = in_pool(|| shape.forward_training(pixels, dims, &borrowed)).ok()?;
    let output = values(embedding, &[dims[0], shape.width()]);
    let constant: Node = Node::new(values(vec![0.0], &[1]));
    let mut guards = guards.into_iter();
    let parents: [NodeGuard; PARENTS] = array::from_fn(|_| guards.next().unwrap_or_else(|| constant.node()));
    let output = match TowerStep.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(TowerState { shape: shape.clone(), units, saved }, output),
        OpsKind::UnTracked(step) => step.finish(output),
    };
    Some((Tensor::from_primitive::<Recorded>(output), statistics))
}

/// What is read of tensors on the CPU without autodiff: pixels, their shape, the units and the statistics of each.
struct Known {
    image: Values,
    dims: [usize; 4],
    units: Vec<UnitValues>,
    statistics: Vec<UnitStatistics>,
}

impl Known {
    /// `None` when the tensors are not on the CPU, or are part of an autodiff device's.
    fn read(image: &Tensor<4>, parameters: &[Parameters], running: &[[Tensor<1>; 2]]) -> Option<Self> {
        let of = |tensor: &Tensor<1>| tensor.clone().try_into_primitive::<Flex>().ok();
        let image = image.clone().try_into_primitive::<Flex>().ok()?.to_contiguous();
        let dims: [usize; 4] = burn::backend::TensorMetadata::shape(&image).dims();
        let mut units = Vec::with_capacity(parameters.len());
        for Parameters { weight, gamma, beta, epsilon } in parameters {
            let weight = weight.clone().try_into_primitive::<Flex>().ok()?;
            units.push(UnitValues::new([weight, of(gamma)?, of(beta)?], *epsilon));
        }
        let numbers = |tensor: &Tensor<1>| Some(of(tensor)?.to_contiguous().as_slice::<f32>()?.to_vec());
        let statistics = running.iter().map(|[mean, variance]| Some(UnitStatistics { mean: numbers(mean)?, variance: numbers(variance)? }));
        let statistics = statistics.collect::<Option<_>>()?;
        Some(Self { image, dims, units, statistics })
    }
}

/// The tower by known statistics, a running mean and variance for each unit.
///
/// `None` when the tensors are not `f32` on the CPU without autodiff, or when shapes do not fit.
///
/// # Shapes
/// See [`train_tower`].
pub fn run_tower(shape: &TowerShape, image: &Tensor<4>, parameters: &[Parameters], running: &[[Tensor<1>; 2]]) -> Option<Tensor<2>> {
    let Known { image, dims, units, statistics } = Known::read(image, parameters, running)?;
    let (pixels, borrowed) = (image.as_slice()?, borrow(&units)?);
    let embedding = in_pool(|| shape.forward(pixels, dims, &borrowed, &statistics)).ok()?;
    Some(Tensor::from_primitive::<Flex>(values(embedding, &[dims[0], shape.width()])))
}

/// A forward pass by known statistics that can be asked what its embedding owes to the image.
#[derive(Debug)]
pub struct Traced {
    shape: TowerShape,
    units: Vec<UnitValues>,
    saved: Saved,
    dims: [usize; 4],
    embedding: Tensor<2>,
}

/// As [`run_tower`], to be asked for gradients.
pub fn trace_tower(shape: &TowerShape, image: &Tensor<4>, parameters: &[Parameters], running: &[[Tensor<1>; 2]]) -> Option<Traced> {
    let Known { image, dims, units, statistics } = Known::read(image, parameters, running)?;
    let (pixels, borrowed) = (image.as_slice()?, borrow(&units)?);
    let Forward { embedding, saved, .. } = in_pool(|| shape.forward_traced(pixels, dims, &borrowed, &statistics)).ok()?;
    let embedding = Tensor::from_primitive::<Flex>(values(embedding, &[dims[0], shape.width()]));
    Some(Traced { shape: shape.clone(), units, saved, dims, embedding })
}

impl Traced {
    /// What was traced.
    pub fn shape(&self) -> &TowerShape {
        &self.shape
    }

    /// `[batch, width]`
    pub fn embedding(&self) -> Tensor<2> {
        self.embedding.clone()
    }

    /// The image's gradient, from the embedding's; `None` where that is of another shape or device.
    ///
    /// # Shapes
    /// - gradient: `[batch, width]`
    /// - returns `[batch, channels, height, width]`
    pub fn image_gradient(self, gradient: &Tensor<2>) -> Option<Tensor<4>> {
        if gradient.dims() != self.embedding.dims() {
            return None;
        }
        let gradient = gradient.clone().try_into_primitive::<Flex>().ok()?.to_contiguous();
        let (numbers, units) = (gradient.as_slice()?, borrow(&self.units)?);
        let computed = in_pool(|| self.shape.image_gradient(self.saved, &units, numbers)).ok()?;
        Some(Tensor::from_primitive::<Flex>(values(computed, &self.dims)))
    }

    /// Each place of the maps after the first `n` blocks times its gradient, summed over the channels; `None` as there, and where there are
    /// not so many blocks.
    ///
    /// # Shapes
    /// - gradient: `[batch, width]`, of the embedding
    /// - returns `[batch, height, width]` of the maps
    pub fn relevance(self, n: usize, gradient: &Tensor<2>) -> Option<Tensor<3>> {
        if gradient.dims() != self.embedding.dims() {
            return None;
        }
        let gradient = gradient.clone().try_into_primitive::<Flex>().ok()?.to_contiguous();
        let (numbers, units) = (gradient.as_slice()?, borrow(&self.units)?);
        let (computed, [height, width]) = in_pool(|| self.shape.relevance(n, self.saved, &units, numbers)).ok()?;
        Some(Tensor::from_primitive::<Flex>(values(computed, &[self.dims[0], height, width])))
    }
}
