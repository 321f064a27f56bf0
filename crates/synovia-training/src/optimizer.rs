//! AdamW with a limit on the gradient's global norm, its state kept by parameter name.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use synovia_fusion::NamedTensor;
use synovia_kernels::{AdamWStep, adamw, in_pool, sum_of_squares};

use crate::Weights;

/// Constants of [`AdamW`].
#[derive(Clone, Copy, Debug)]
pub struct AdamWSettings {
    /// Decay of the gradient's mean.
    pub beta_1: f64,
    /// Decay of the squared gradient's mean.
    pub beta_2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled weight decay, of parameters with two or more dimensions only: biases and norms are not shrunk.
    pub weight_decay: f64,
    /// Largest global norm of the gradient.
    pub clip: f64,
}

/// AdamW (Loshchilov & Hutter 2019).
///
/// burn's own keys its state by random parameter ids and clips each tensor by itself; here the state has the parameters'
/// names, so that a checkpoint can be read by another process, and the norm is that of all gradients together.
pub struct AdamW {
    settings: AdamWSettings,
    step: u64,
    moments: BTreeMap<String, (Tensor<1>, Tensor<1>)>,
    proximal: Option<Proximal>,
    control: Option<Control>,
    /// Parameters that learn at a share of the rate.
    slower: Option<(BTreeSet<String>, f64)>,
}

/// What is added to each gradient against the drift of a site (Karimireddy et al. 2020, `SCAFFOLD`), and the sum of the gradients
/// without it.
struct Control {
    shift: BTreeMap<String, Tensor<1>>,
    sums: BTreeMap<String, Tensor<1>>,
    steps: u64,
}

/// What holds the weights near others: `μ/2 · |w − anchor|²` is added to the loss (Li et al. 2020, `FedProx`).
struct Proximal {
    mu: f64,
    anchor: BTreeMap<String, Tensor<1>>,
}

/// Gradients by name.
struct Collect<'a> {
    path: Vec<String>,
    grads: &'a mut Gradients,
    out: BTreeMap<String, Tensor<1>>,
}

/// Adds a [`Proximal`]'s slope.
struct Pull<'a> {
    path: Vec<String>,
    proximal: &'a Proximal,
    grads: &'a mut BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        if let Some(grad) = param.val().grad_remove(self.grads) {
            let n = grad.shape().num_elements();
            self.out.insert(self.path.join("."), grad.reshape([n]));
        }
    }
}

impl ModuleVisitor for Pull<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        if let Some(anchor) = self.proximal.anchor.get(&name)
            && let Some(grad) = self.grads.remove(&name)
        {
            let value = param.val().inner();
            let n = value.shape().num_elements();
            self.grads.insert(name, grad + (value.reshape([n]) - anchor.clone()).mul_scalar(self.proximal.mu));
        }
    }
}

/// The gradients of a module's parameters by name, taken out of `grads`.
pub(crate) fn gradients<M: Module>(module: &M, grads: &mut Gradients) -> BTreeMap<String, Tensor<1>> {
    let mut collect = Collect { path: Vec::new(), grads, out: BTreeMap::new() };
    module.visit(&mut collect);
    collect.out
}

/// Gradients of several batches, by parameter.
#[derive(Default)]
pub(crate) struct Gathered {
    sums: BTreeMap<String, Tensor<1>>,
    n: usize,
}

impl Gathered {
    /// Takes in those of one more batch.
    pub(crate) fn add(&mut self, grads: BTreeMap<String, Tensor<1>>) {
        self.n += 1;
        for (name, grad) in grads {
            let sum = match self.sums.remove(&name) {
                Some(sum) => sum + grad,
                None => grad,
            };
            self.sums.insert(name, sum);
        }
    }

    /// Number of batches.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// The mean over the batches; of one, to the bit.
    pub(crate) fn mean(self) -> BTreeMap<String, Tensor<1>> {
        let n = self.n;
        let mean = |sum: Tensor<1>| if n > 1 { sum.div_scalar(n as f64) } else { sum };
        self.sums.into_iter().map(|(name, sum)| (name, mean(sum))).collect()
    }
}

/// Euclidean norm of all gradients together, in double precision and in the order of the names: the same for any number of
/// threads.
pub(crate) fn norm(grads: &BTreeMap<String, Tensor<1>>) -> f64 {
    let squares = |g: &Tensor<1>| sum_of_squares(g).unwrap_or_else(|| f64::from(g.clone().square().sum().into_scalar::<f32>()));
    grads.values().map(squares).sum::<f64>().sqrt()
}

struct Update<'a> {
    path: Vec<String>,
    optimizer: &'a mut AdamW,
    grads: BTreeMap<String, Tensor<1>>,
    scale: f64,
    rate: f64,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(grad) = self.grads.remove(&name) else {
            return param;
        };
        let share = self.optimizer.slower.as_ref().filter(|(names, _)| names.contains(&name)).map_or(1.0, |(_, share)| *share);
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.shape();
        let decay = if D >= 2 { self.optimizer.settings.weight_decay } else { 0.0 };
        let value = tensor.inner().reshape([shape.num_elements()]);
        let value = self.optimizer.update(name, value, grad, self.scale, self.rate * share, decay);
        let tensor = Tensor::from_inner(value.reshape(shape)).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

impl AdamW {
    /// Without any history.
    pub fn new(settings: AdamWSettings) -> Self {
        Self { settings, step: 0, moments: BTreeMap::new(), proximal: None, control: None, slower: None }
    }

    /// With a pull of strength `mu` towards `anchor`; the limit on the gradient's norm is that of both together.
    pub fn with_proximal(mut self, mu: f64, anchor: &Weights, device: &Device) -> Self {
        let tensor = |t: &NamedTensor| Tensor::<1>::from_data(TensorData::new(t.values.clone(), [t.values.len()]), device);
        let anchor = anchor.iter().map(|(name, values)| (name.clone(), tensor(values))).collect();
        self.proximal = (mu > 0.0).then_some(Proximal { mu, anchor });
        self
    }

    /// With a learning rate of `share` of the others' for the named parameters; of 0 they stay as they are.
    pub(crate) fn with_slower(mut self, names: BTreeSet<String>, share: f64) -> Self {
        self.slower = (share < 1.0).then_some((names, share));
        self
    }

    /// Whether a parameter stays as it is.
    pub(crate) fn is_frozen(&self, name: &str) -> bool {
        self.slower.as_ref().is_some_and(|(names, share)| *share == 0.0 && names.contains(name))
    }

    /// With `shift` added to each gradient after it was clipped.
    pub(crate) fn with_control(mut self, shift: &Weights, device: &Device) -> Self {
        let tensor = |t: &NamedTensor| Tensor::<1>::from_data(TensorData::new(t.values.clone(), [t.values.len()]), device);
        let shift = shift.iter().map(|(name, values)| (name.clone(), tensor(values))).collect();
        self.control = Some(Control { shift, sums: BTreeMap::new(), steps: 0 });
        self
    }

    /// Means over the steps of the clipped gradients, without the shift of [`AdamW::with_control`]; none without it.
    pub(crate) fn mean_gradients(&self) -> Weights {
        let Some(control) = &self.control else { return Weights::new() };
        let mean = |sum: &Tensor<1>| sum.clone().div_scalar(control.steps.max(1) as f64);
        control.sums.iter().map(|(name, sum)| (name.clone(), NamedTensor::new(sum.dims().to_vec(), mean(sum)))).collect()
    }

    /// One step at learning rate `rate`; returns the module and the gradient's norm before clipping.
    pub fn step<M: Module>(&mut self, module: M, mut grads: Gradients, rate: f64) -> (M, f64) {
        let grads = gradients(&module, &mut grads);
        self.apply(module, grads, rate)
    }

    /// As [`AdamW::step`], by gradients that are known by name.
    pub(crate) fn apply<M: Module>(&mut self, module: M, grads: BTreeMap<String, Tensor<1>>, rate: f64) -> (M, f64) {
        // There are two loops a parameter, most of them short.
        in_pool(|| self.apply_here(module, grads, rate))
    }

    fn apply_here<M: Module>(&mut self, module: M, mut grads: BTreeMap<String, Tensor<1>>, rate: f64) -> (M, f64) {
        // What is not moved has no part in how far the rest may go.
        grads.retain(|name, _| !self.is_frozen(name));
        if let Some(proximal) = &self.proximal {
            module.visit(&mut Pull { path: Vec::new(), proximal, grads: &mut grads });
        }
        let norm = norm(&grads);
        let scale = if norm > self.settings.clip { self.settings.clip / norm } else { 1.0 };
        if let Some(control) = &mut self.control {
            control.steps += 1;
            for (name, grad) in &mut grads {
                let clipped = grad.clone().mul_scalar(scale);
                let sum = match control.sums.remove(name) {
                    Some(sum) => sum + clipped,
                    None => clipped,
                };
                control.sums.insert(name.clone(), sum);
                if let Some(shift) = control.shift.get(name) {
                    // It is scaled with the gradient below. Of a shift of 0 no bit changes.
                    *grad = grad.clone() + shift.clone().div_scalar(scale);
                }
            }
        }
        self.step += 1;
        let mut update = Update { path: Vec::new(), optimizer: self, grads, scale, rate };
        (module.map(&mut update), norm)
    }

    fn update(&mut self, name: String, mut value: Tensor<1>, grad: Tensor<1>, scale: f64, rate: f64, decay: f64) -> Tensor<1> {
        let AdamWSettings { beta_1, beta_2, epsilon, .. } = self.settings;
        let (mut mean, mut square) = self.moments.remove(&name).unwrap_or_else(|| (grad.zeros_like(), grad.zeros_like()));
        let by = AdamWStep { scale, beta_1, beta_2, epsilon, rate, decay, step: self.step };
        if !adamw(by, &mut value, &grad, &mut mean, &mut square) {
            let grad = if scale < 1.0 { grad.mul_scalar(scale) } else { grad };
            square = square.mul_scalar(beta_2) + grad.clone().square().mul_scalar(1.0 - beta_2);
            mean = mean.mul_scalar(beta_1) + grad.mul_scalar(1.0 - beta_1);
            let (correct_1, correct_2) = (1.0 - beta_1.powf(self.step as f64), 1.0 - beta_2.powf(self.step as f64));
            let denominator = square.clone().div_scalar(correct_2).sqrt().add_scalar(epsilon);
            value = value.mul_scalar(1.0 - rate * decay) - mean.clone().div_scalar(correct_1).mul_scalar(rate) / denominator;
        }
        self.moments.insert(name, (mean, square));
        value
    }

    /// Its history: the number of steps, and `mean.<name>` and `square.<name>` for each parameter.
    pub fn state(&self) -> (u64, Weights) {
        let named = |tensor: &Tensor<1>| NamedTensor::new(tensor.dims().to_vec(), tensor.clone());
        let both = |(name, (mean, square)): (&String, &(Tensor<1>, Tensor<1>))| {
            [(format!("mean.{name}"), named(mean)), (format!("square.{name}"), named(square))]
        };
        (self.step, self.moments.iter().flat_map(both).collect())
    }

    /// The optimizer with that history.
    pub fn with_state(mut self, step: u64, state: &Weights, device: &Device) -> Self {
        self.step = step;
        for (key, mean) in state {
            if let Some(name) = key.strip_prefix("mean.")
                && let Some(square) = state.get(&format!("square.{name}"))
            {
                let tensor = |t: &NamedTensor| Tensor::<1>::from_data(TensorData::new(t.values.clone(), [t.values.len()]), device);
                self.moments.insert(name.to_owned(), (tensor(mean), tensor(square)));
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use synovia_fusion::{apply_state, collect_state};

    use super::*;

    /// AdamW by hand, in double precision, for y = w·x with one weight and no bias.
    fn by_hand(weight: f64, xs: &[f64], rate: f64, s: &AdamWSettings) -> f64 {
        let (mut w, mut m, mut v) = (weight, 0.0, 0.0);
        for (k, x) in xs.iter().enumerate() {
            let grad = x.clamp(-s.clip, s.clip);
            m = s.beta_1 * m + (1.0 - s.beta_1) * grad;
            v = s.beta_2 * v + (1.0 - s.beta_2) * grad * grad;
            let t = (k + 1) as i32;
            let step = (m / (1.0 - s.beta_1.powi(t))) / ((v / (1.0 - s.beta_2.powi(t))).sqrt() + s.epsilon);
            w = w * (1.0 - rate * s.weight_decay) - rate * step;
        }
        w
    }

    /// What is not the whole of its memory, such as a part of another tensor, goes through burn's own operations.
    #[test]
    fn a_view_is_updated_as_its_copy_is() {
        let device = Device::flex();
        let settings = AdamWSettings { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.1, clip: 2.0 };
        let row = |values: [f32; 3]| Tensor::<1>::from_floats(values, &device);
        let view = Tensor::<1>::from_floats([0.5, -2.0, 7.0, 0.1], &device).narrow(0, 0, 3);
        assert_eq!(sum_of_squares(&view), None, "not taken by the kernels");
        let run = |grad: Tensor<1>| {
            let (mut optimizer, mut value) = (AdamW::new(settings), row([0.3, 0.0, -1.0]));
            for scale in [0.5, 1.0] {
                optimizer.step += 1;
                value = optimizer.update("w".to_owned(), value, grad.clone(), scale, 0.01, 0.1);
            }
            let (mean, square) = optimizer.moments.remove("w").unwrap();
            [value, mean, square].map(|tensor| tensor.into_data().try_to_vec::<f32>().unwrap())
        };
        for (got, expected) in run(view).concat().into_iter().zip(run(row([0.5, -2.0, 7.0])).concat()) {
            assert!((got - expected).abs() <= 1e-5 * expected.abs(), "{got} instead of {expected}");
        }
    }

    /// One step of y = w·x is at the gradient x + μ(w − anchor); with β₁ = β₂ = 0 and a large ε it is nearly plain descent.
    #[test]
    fn a_proximal_term_pulls_towards_its_anchor() {
        let _alone = crate::tests::alone();
        let device = Device::flex().autodiff();
        let settings = AdamWSettings { beta_1: 0.0, beta_2: 0.0, epsilon: 1e6, weight_decay: 0.0, clip: 1e9 };
        let weight = |value: f32| Weights::from([("weight".to_owned(), NamedTensor { shape: vec![1, 1], values: vec![value] })]);
        let stepped = |mu: f64| {
            let module: Linear = LinearConfig::new(1, 1).with_bias(false).init(&device);
            let module = apply_state(module, &weight(3.0)).unwrap();
            let loss = module.forward(Tensor::<2>::from_floats([[2.0]], &device)).sum();
            let mut optimizer = AdamW::new(settings).with_proximal(mu, &weight(1.0), &Device::flex());
            let (module, norm) = optimizer.step(module, loss.backward(), 1e5);
            (collect_state(&module)["weight"].values[0], norm)
        };
        // 3 − 0.1 · (2 + μ · (3 − 1))
        for (mu, expected, slope) in [(0.0, 2.8, 2.0), (0.5, 2.7, 3.0), (4.0, 2.0, 10.0)] {
            let (value, norm) = stepped(mu);
            assert!((value - expected).abs() < 1e-4 && (norm - slope).abs() < 1e-5, "μ = {mu}: {value}, {norm}");
        }
    }

    #[test]
    fn agrees_with_the_paper_and_survives_a_restart() {
        let _alone = crate::tests::alone();
        let device = Device::flex().autodiff();
        let settings = AdamWSettings { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.1, clip: 2.0 };
        let start: Linear = LinearConfig::new(1, 1).with_bias(false).init(&device);
        let weight = |m: &Linear| f64::from(collect_state(m)["weight"].values[0]);
        let initial = weight(&start);
        let xs = [0.5, -1.5, 3.0, 0.25];
        let step = |(module, mut optimizer): (Linear, AdamW), x: f64| {
            let loss = module.forward(Tensor::<2>::from_floats([[x as f32]], &device)).sum();
            let (module, _) = optimizer.step(module, loss.backward(), 0.01);
            (module, optimizer)
        };
        let (module, _) = xs.iter().fold((start.clone(), AdamW::new(settings)), |s, &x| step(s, x));
        assert!((weight(&module) - by_hand(initial, &xs, 0.01, &settings)).abs() < 1e-6);

        let (half, optimizer) = xs[..2].iter().fold((start, AdamW::new(settings)), |s, &x| step(s, x));
        let (n, moments) = optimizer.state();
        let fresh: Linear = LinearConfig::new(1, 1).with_bias(false).init(&device);
        let again = apply_state(fresh, &collect_state(&half)).unwrap();
        let optimizer = AdamW::new(settings).with_state(n, &moments, &Device::flex());
        let (resumed, _) = xs[2..].iter().fold((again, optimizer), |s, &x| step(s, x));
        assert_eq!(collect_state(&resumed)["weight"].values, collect_state(&module)["weight"].values, "bit for bit");
    }
}
