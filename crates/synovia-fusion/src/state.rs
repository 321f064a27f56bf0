//! A module's numbers by name: how weights leave a model and come back.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

/// A tensor's shape and values.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// Why numbers do not fit a module.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StateError {
    /// The module has a parameter that the numbers lack.
    #[error("no values for parameter `{0}`")]
    Missing(String),
    /// The numbers hold something that the module has no place for.
    #[error("the model has no parameter `{0}`")]
    Unknown(String),
    /// Shapes differ.
    #[error("parameter `{name}` has shape {got:?} where the model needs {expected:?}")]
    Shape {
        /// Which parameter.
        name: String,
        /// Shape given.
        got: Vec<usize>,
        /// Shape needed.
        expected: Vec<usize>,
    },
}

struct Visit<F> {
    path: Vec<String>,
    take: F,
}

impl<F: FnMut(String, Vec<usize>, Tensor<1>)> ModuleVisitor for Visit<F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let values = tensor.reshape([shape.iter().product::<usize>()]);
        (self.take)(self.path.join("."), shape, values);
    }
}

impl NamedTensor {
    /// Of a tensor of this shape whose values lie in a row.
    pub fn new(shape: Vec<usize>, values: Tensor<1>) -> Self {
        Self { shape, values: values.into_data().convert::<f32>().try_to_vec().unwrap_or_default() }
    }
}

/// Gives every parameter and buffer of `module` to `take`, running statistics included, as they are at this moment: its path,
/// its shape, and its values in a row.
pub fn visit_state<M: Module>(module: &M, take: impl FnMut(String, Vec<usize>, Tensor<1>)) {
    // Running statistics of a module in training are spread over threads until they are asked for; `valid` gathers them.
    module.valid().visit(&mut Visit { path: Vec::new(), take });
}

/// What [`visit_state`] gives, by path.
pub fn collect_state<M: Module>(module: &M) -> BTreeMap<String, NamedTensor> {
    let mut state = BTreeMap::new();
    visit_state(module, |path, shape, values| {
        state.insert(path, NamedTensor::new(shape, values));
    });
    state
}

struct Apply<'a> {
    path: Vec<String>,
    state: &'a BTreeMap<String, NamedTensor>,
    used: usize,
    error: Option<StateError>,
}

impl ModuleMapper for Apply<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(named) = self.state.get(&name) else {
            self.error.get_or_insert(StateError::Missing(name));
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        if tensor.dims().as_slice() != named.shape.as_slice() {
            let expected = tensor.dims().to_vec();
            self.error.get_or_insert(StateError::Shape { name, got: named.shape.clone(), expected });
            return Param::from_mapped_value(id, tensor, mapper);
        }
        self.used += 1;
        let require_grad = tensor.is_require_grad();
        let data = TensorData::new(named.values.clone(), named.shape.clone());
        let loaded = Tensor::<D>::from_data(data, &tensor.device()).set_require_grad(require_grad);
        Param::from_mapped_value(id, loaded, mapper)
    }
}

/// `module` with every number replaced.
///
/// # Errors
/// [`StateError`] when names or shapes differ; nothing is half applied then.
pub fn apply_state<M: Module>(module: M, state: &BTreeMap<String, NamedTensor>) -> Result<M, StateError> {
    let mut mapper = Apply { path: Vec::new(), state, used: 0, error: None };
    let module = module.map(&mut mapper);
    if let Some(error) = mapper.error {
        return Err(error);
    }
    if mapper.used != state.len() {
        let known = collect_state(&module);
        let unknown = state.keys().find(|name| !known.contains_key(*name)).cloned().unwrap_or_default();
        return Err(StateError::Unknown(unknown));
    }
    Ok(module)
}

#[cfg(test)]
mod tests {
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn running_statistics_travel_too() {
        let device = Device::flex().autodiff();
        let trained: BatchNorm = BatchNormConfig::new(2).init(&device);
        trained.forward(Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 6.0]], &device));
        let state = collect_state(&trained);
        assert_eq!(state.keys().collect::<Vec<_>>(), ["beta", "gamma", "running_mean", "running_var"]);
        assert_eq!(state["running_mean"].values, [0.2, 0.4]);
        let fresh = apply_state(BatchNormConfig::new(2).init(&device), &state).unwrap();
        assert_eq!(collect_state(&fresh), state);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let module = || BatchNormConfig::new(2).init(&Device::flex());
        let state = collect_state(&module());
        let mut short = state.clone();
        short.remove("beta");
        assert_eq!(apply_state(module(), &short).unwrap_err(), StateError::Missing("beta".into()));
        let mut long = state.clone();
        long.insert("delta".into(), state["beta"].clone());
        assert_eq!(apply_state(module(), &long).unwrap_err(), StateError::Unknown("delta".into()));
        let other = apply_state(BatchNormConfig::new(3).init(&Device::flex()), &state).unwrap_err();
        assert!(matches!(other, StateError::Shape { .. }), "{other}");
    }
}
