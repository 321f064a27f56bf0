//! Residual networks of 18, 34 and 50 layers (He et al. 2016, "Deep Residual Learning for Image Recognition", table 1).

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::{Device, Tensor, activation};
use synovia_kernels::{BlockShape, Parameters, TowerError, TowerShape, Traced, run_tower, trace_tower, train_tower};

use crate::image::torch_norm;
use crate::{ConvNormAct, ConvNormActConfig, EncoderError, NormKind};

/// How many layers have weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// 18: two blocks a stage.
    #[default]
    Eighteen,
    /// 34: three, four, six and three blocks.
    ThirtyFour,
    /// 50: as many blocks, each through a bottleneck, with strides at its 3 × 3 convolution as torchvision has them.
    Fifty,
}

impl Depth {
    /// Blocks of each stage.
    const fn blocks(self) -> [usize; 4] {
        match self {
            Self::Eighteen => [2, 2, 2, 2],
            Self::ThirtyFour | Self::Fifty => [3, 4, 6, 3],
        }
    }

    /// How much wider a block's output is than its 3 × 3 convolution.
    const fn expansion(self) -> usize {
        match self {
            Self::Eighteen | Self::ThirtyFour => 1,
            Self::Fifty => 4,
        }
    }
}

impl Depth {
    /// What torchvision calls a parameter or buffer of [`ResNet`].
    pub(crate) fn torch_name(self, name: &str) -> Option<String> {
        let part = |conv: &str, norm: &str, rest: &str| match rest.split_once('.')? {
            ("conv", "weight") => Some(format!("{conv}.weight")),
            ("norm", rest) => Some(format!("{norm}.{}", torch_norm(rest)?)),
            _ => None,
        };
        if let Some(rest) = name.strip_prefix("stem.") {
            return part("conv1", "bn1", rest);
        }
        let (block, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
        let (mut stage, mut block) = (0, block.parse::<usize>().ok()?);
        while block >= *self.blocks().get(stage)? {
            block -= self.blocks()[stage];
            stage += 1;
        }
        let (unit, rest) = rest.split_once('.')?;
        let inner = match unit {
            "first" => part("conv1", "bn1", rest)?,
            "second" => part("conv2", "bn2", rest)?,
            "third" => part("conv3", "bn3", rest)?,
            "shortcut" => part("downsample.0", "downsample.1", rest)?,
            _ => return None,
        };
        Some(format!("layer{}.{block}.{inner}", stage + 1))
    }
}

/// Settings of a [`ResNet`].
#[derive(Clone, Copy, Debug)]
pub struct ResNetConfig {
    /// Its layers.
    pub depth: Depth,
    /// Channels of the image: 1 for grey.
    pub channels: usize,
    /// Channels of the first stage's 3 × 3 convolutions; those of the next ones have 2, 4 and 8 times as many. 64 in the paper.
    pub width: usize,
    /// What activations are normalised over; the batch in the paper.
    pub norm: NormKind,
}

/// Two 3 × 3 units, or a 3 × 3 one between two of 1 × 1, and a shortcut, projected where the shape changes.
#[derive(Module, Debug)]
pub struct Block {
    first: ConvNormAct,
    second: ConvNormAct,
    third: Option<ConvNormAct>,
    shortcut: Option<ConvNormAct>,
}

/// The tower: stem, four stages of blocks, global average.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: ConvNormAct,
    pool: MaxPool2d,
    blocks: Vec<Block>,
    #[module(skip)]
    depth: Depth,
}

impl ResNetConfig {
    /// Width of the embedding.
    pub const fn embedding(&self) -> usize {
        self.width * 8 * self.depth.expansion()
    }

    /// Its convolutions, for measurements.
    ///
    /// # Errors
    /// [`EncoderError`] for a size that no tower can have.
    pub fn tower(&self) -> Result<TowerShape, EncoderError> {
        Ok(self.init(&Device::flex())?.shape()?)
    }

    /// Makes the tower on `device`.
    ///
    /// # Errors
    /// [`EncoderError::Zero`] for a width or a number of channels of 0.
    pub fn init(&self, device: &Device) -> Result<ResNet, EncoderError> {
        let unit = |channels_in, channels_out, kernel, stride, relu| {
            ConvNormActConfig { channels_in, channels_out, kernel, stride, relu, norm: self.norm }.init(device)
        };
        let stem = unit(self.channels, self.width, 7, 2, true)?;
        let mut blocks = Vec::new();
        let mut channels_in = self.width;
        for (stage, n_blocks) in self.depth.blocks().into_iter().enumerate() {
            let inner = self.width << stage;
            let channels_out = inner * self.depth.expansion();
            for block in 0..n_blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let projected = stride != 1 || channels_in != channels_out;
                let shortcut = if projected { Some(unit(channels_in, channels_out, 1, stride, false)?) } else { None };
                blocks.push(match self.depth {
                    Depth::Eighteen | Depth::ThirtyFour => Block {
                        first: unit(channels_in, inner, 3, stride, true)?,
                        second: unit(inner, inner, 3, 1, false)?,
                        third: None,
                        shortcut,
                    },
                    Depth::Fifty => Block {
                        first: unit(channels_in, inner, 1, 1, true)?,
                        second: unit(inner, inner, 3, stride, true)?,
                        third: Some(unit(inner, channels_out, 1, 1, false)?),
                        shortcut,
                    },
                });
                channels_in = channels_out;
            }
        }
        let pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init();
        Ok(ResNet { stem, pool, blocks, depth: self.depth })
    }
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = self.shortcut.as_ref().map_or_else(|| x.clone(), |unit| unit.forward(x.clone()));
        let inner = self.second.forward(self.first.forward(x));
        let inner = self.third.as_ref().map_or_else(|| inner.clone(), |unit| unit.forward(inner.clone()));
        activation::relu(inner + shortcut)
    }
}

impl ResNet {
    /// Stages that have feature maps.
    pub const STAGES: usize = 4;

    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]
    /// - returns `[batch, 8 × width]`, of 50 layers four times as much
    pub fn forward(&self, image: Tensor<4>) -> Tensor<2> {
        // Pixels in [0, 1] are centred; the stem's normalisation takes care of the scale.
        let x = image.sub_scalar(0.5);
        self.fused(&x).unwrap_or_else(|| self.composed(x))
    }

    /// Feature maps after a stage, by burn's own operations.
    ///
    /// # Shapes
    /// - image: `[batch, channels, height, width]`, values in [0, 1]
    /// - stage: 1 to [`ResNet::STAGES`]; its maps have a 2^(stage + 1)th of the image's rows and columns
    /// - returns `[batch, 2^(stage − 1) × width, …]`, of 50 layers four times as many channels
    pub fn maps(&self, image: Tensor<4>, stage: usize) -> Tensor<4> {
        self.maps_of(image.sub_scalar(0.5), stage)
    }

    /// What a unit after a stage looks at, in pixels: the standard deviation of its field where all weights are alike. Fields are
    /// near Gaussian, and far narrower than all that they could see (Luo et al. 2016): a convolution over k places that lie j pixels
    /// apart adds (k² − 1) j² / 12 to the variance, one after the other.
    pub fn field(&self, stage: usize) -> f64 {
        let convolution = |k: f64, j: f64| (k * k - 1.0) * j * j / 12.0;
        // Of each block the 3 × 3 convolutions, the first of a stage over the places of the one before.
        let each = if self.depth.expansion() == 1 { 2 } else { 1 };
        let of_stage = |s: usize| {
            let j = (2 << s) as f64;
            let first = if s == 1 { j } else { j / 2.0 };
            convolution(3.0, first) + (each * self.depth.blocks()[s - 1] - 1) as f64 * convolution(3.0, j)
        };
        (convolution(7.0, 1.0) + convolution(3.0, 2.0) + (1..=stage).map(of_stage).sum::<f64>()).sqrt()
    }

    /// Blocks of the first stages.
    fn n_blocks(&self, stages: usize) -> usize {
        self.depth.blocks().iter().take(stages).sum()
    }

    /// The embedding of [`ResNet::maps`] of the same stage.
    ///
    /// # Shapes
    /// - returns as [`ResNet::forward`]
    pub fn embed(&self, maps: Tensor<4>, stage: usize) -> Tensor<2> {
        let x = self.blocks.iter().skip(self.n_blocks(stage)).fold(maps, |x, block| block.forward(x));
        let [batch, channels, height, width] = x.dims();
        x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels])
    }

    fn maps_of(&self, x: Tensor<4>, stage: usize) -> Tensor<4> {
        let x = self.pool.forward(self.stem.forward(x));
        self.blocks.iter().take(self.n_blocks(stage)).fold(x, |x, block| block.forward(x))
    }

    /// By burn's own operations.
    fn composed(&self, x: Tensor<4>) -> Tensor<2> {
        self.embed(self.maps_of(x, Self::STAGES), Self::STAGES)
    }

    /// Units in the order of [`ResNet::shape`].
    fn units(&self) -> Vec<&ConvNormAct> {
        let mut units = vec![&self.stem];
        for block in &self.blocks {
            units.extend([&block.first, &block.second]);
            units.extend(block.third.iter().chain(&block.shortcut));
        }
        units
    }

    /// What the kernels know of it; an error where they are not made for its sizes.
    fn shape(&self) -> Result<TowerShape, TowerError> {
        if self.blocks.iter().any(|block| block.third.is_some()) {
            return Err(TowerError::Chain { unit: 3, why: "the kernels know blocks of two units, and no bottlenecks" });
        }
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let mut first = 1;
        for block in &self.blocks {
            blocks.push(BlockShape { first, second: first + 1, shortcut: block.shortcut.as_ref().map(|_| first + 2) });
            first += 2 + usize::from(block.shortcut.is_some());
        }
        TowerShape::new(self.units().into_iter().map(ConvNormAct::shape).collect(), blocks)
    }

    fn running(&self) -> Option<Vec<[Tensor<1>; 2]>> {
        self.units().iter().map(|unit| unit.running()).collect()
    }

    /// The forward pass of a trained tower, in whose gradients nothing but the image moves: its statistics are the running ones. `None`
    /// where the kernels do not compute it.
    ///
    /// # Shapes
    /// As [`ResNet::forward`].
    pub fn trace(&self, image: Tensor<4>) -> Option<Traced> {
        let unit = |unit: &ConvNormAct| {
            let Parameters { weight, gamma, beta, epsilon } = unit.parameters()?;
            Some(Parameters { weight: weight.inner(), gamma: gamma.inner(), beta: beta.inner(), epsilon })
        };
        let parameters: Vec<_> = self.units().into_iter().map(unit).collect::<Option<_>>()?;
        let running: Vec<_> = self.running()?.into_iter().map(|of_unit| of_unit.map(Tensor::inner)).collect();
        trace_tower(&self.shape().ok()?, &image.inner().sub_scalar(0.5), &parameters, &running)
    }

    /// Each place of [`ResNet::maps`] times its gradient, summed over the channels, from the embedding's gradient. `None` where `traced` is of
    /// another tower, or the gradient of another shape or device.
    ///
    /// # Shapes
    /// - gradient: `[batch, width of the embedding]`
    /// - stage: 1 to [`ResNet::STAGES`]
    /// - returns `[batch, rows, columns]`
    pub fn relevance(&self, traced: Traced, gradient: &Tensor<2>, stage: usize) -> Option<Tensor<3>> {
        (self.shape().ok().as_ref() == Some(traced.shape())).then(|| traced.relevance(self.n_blocks(stage), gradient))?
    }

    /// As one operation, where the tensors are on the CPU.
    fn fused(&self, x: &Tensor<4>) -> Option<Tensor<2>> {
        let (units, shape) = (self.units(), self.shape().ok()?);
        let parameters: Vec<_> = units.iter().map(|unit| unit.parameters()).collect::<Option<_>>()?;
        let device = x.device();
        if !device.is_autodiff() {
            return run_tower(&shape, x, &parameters, &self.running()?);
        }
        if units.iter().any(|unit| !unit.is_trained()) {
            return None;
        }
        let (embedding, statistics) = train_tower(&shape, x, &parameters)?;
        for (unit, statistics) in units.iter().zip(&statistics) {
            unit.update_running(statistics, &device);
        }
        Some(embedding)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::module::{ModuleMapper, ModuleVisitor, Param};
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn as_many_parameters_as_torchvision() {
        // torchvision.models.resnet18 has 11 689 512; without fc (512 × 1000 + 1000) and with one input channel instead of
        // three (2 × 64 × 49 fewer) 11 170 240. Running statistics (two a channel of each of the 20 norms: 9 600) are
        // buffers there and visited as parameters here.
        let model = ResNetConfig { depth: Depth::Eighteen, channels: 1, width: 64, norm: NormKind::Batch }.init(&Device::flex()).unwrap();
        assert_eq!(model.num_params(), 11_170_240 + 9_600);
        // resnet34: 21 797 672, 36 norms of 17 024 buffers; resnet50: 25 557 032, fc of 2048 × 1000 + 1000, 53 norms of 53 120.
        let n = |depth| ResNetConfig { depth, channels: 3, width: 64, norm: NormKind::Batch }.init(&Device::flex()).unwrap().num_params();
        assert_eq!(n(Depth::ThirtyFour), 21_797_672 - 513_000 + 17_024);
        assert_eq!(n(Depth::Fifty), 25_557_032 - 2_049_000 + 53_120);
    }

    /// 4 of the stem, 8/3 of the pooling, and of each of four convolutions over places four pixels apart 32/3.
    #[test]
    fn later_units_look_at_more() {
        let model = ResNetConfig { depth: Depth::Eighteen, channels: 1, width: 4, norm: NormKind::Batch }.init(&Device::flex()).unwrap();
        assert!((model.field(1) - (4.0_f64 + 8.0 / 3.0 + 4.0 * 32.0 / 3.0).sqrt()).abs() < 1e-12);
        // The second stage's first convolution is over the first one's places.
        assert!((model.field(2).powi(2) - model.field(1).powi(2) - 32.0 / 3.0 - 3.0 * 128.0 / 3.0).abs() < 1e-9);
    }

    type Step = (Vec<f32>, f32, BTreeMap<String, Vec<f32>>);

    struct Gradients<'a> {
        path: Vec<String>,
        of: &'a burn::tensor::Gradients,
        out: BTreeMap<String, Vec<f32>>,
    }

    impl ModuleVisitor for Gradients<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = param.val().grad(self.of) {
                self.out.insert(self.path.join("."), grad.into_data().try_to_vec().unwrap());
            }
        }
    }

    /// Embedding, and gradients of a random linear function of it.
    fn step(model: &ResNet, image: &Tensor<4>, toward: &Tensor<2>, fused: bool) -> Step {
        let x = image.clone().sub_scalar(0.5);
        let embedding = if fused { model.fused(&x).unwrap() } else { model.composed(x) };
        let loss = (embedding.clone() * toward.clone()).sum();
        let value = loss.clone().into_scalar::<f32>();
        let grads = loss.backward();
        let mut visitor = Gradients { path: Vec::new(), of: &grads, out: BTreeMap::new() };
        model.visit(&mut visitor);
        (embedding.into_data().try_to_vec().unwrap(), value, visitor.out)
    }

    fn norm(values: &[f32]) -> f64 {
        values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(b).max(1e-12)
    }

    /// Numbers in [-1, 1) that depend on nothing but `name`: burn's generator is one a process, and other tests draw from it.
    fn numbers<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
        let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| draw()).collect();
        Tensor::from_data(TensorData::new(values, dims), device)
    }

    /// Gives every ReLU of the tower an input far from 0, above it in even channels and below it in odd ones. Where inputs are
    /// near 0, rounding alone opens and closes some, and gradients through twenty layers then differ by percents.
    struct Decide {
        path: Vec<String>,
        device: Device,
    }

    impl ModuleMapper for Decide {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = self.path.join(".");
            let (id, tensor, mapper) = param.consume();
            let dims = tensor.dims();
            let wanted = tensor.is_require_grad();
            // Standardised values are hardly ever beyond 5. A shortcut is up to five blocks' sum.
            let alternating = |open: f32, closed: f32| {
                let values: Vec<f32> = (0..dims[0]).map(|channel| if channel % 2 == 0 { open } else { closed }).collect();
                Tensor::<D>::from_data(TensorData::new(values, dims), &self.device)
            };
            let tensor = match name.rsplit_once("norm.") {
                Some((unit, "beta")) if unit.ends_with("second.") => alternating(16.0, -400.0),
                Some((unit, "beta")) if !unit.ends_with("shortcut.") => alternating(8.0, -8.0),
                None => numbers(&name, dims, &self.device).mul_scalar((6.0 / dims[1..].iter().product::<usize>() as f64).sqrt()),
                _ => tensor,
            };
            Param::from_mapped_value(id, tensor.set_require_grad(wanted), mapper)
        }
    }

    /// The fused tower against burn's own operations: embedding, gradients, running statistics, evaluation.
    #[track_caller]
    fn check(depth: Depth, width: usize, [batch, channels, height, side]: [usize; 4]) {
        let device = Device::flex().autodiff();
        let config = ResNetConfig { depth, channels, width, norm: NormKind::Batch };
        let one = config.init(&device).unwrap().map(&mut Decide { path: Vec::new(), device: device.clone() });
        let other = config.init(&device).unwrap().load_record(one.clone().into_record());
        let image = numbers("image", [batch, channels, height, side], &device).mul_scalar(0.5).add_scalar(0.5);
        let toward = numbers("toward", [batch, config.embedding()], &device);
        let (a, _, grads) = step(&one, &image, &toward, true);
        let (b, _, expected) = step(&other, &image, &toward, false);
        assert!(distance(&a, &b) < 1e-4, "embedding {}", distance(&a, &b));
        assert_eq!(grads.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert_eq!(grads.len(), if depth == Depth::Eighteen { 60 } else { 108 });
        for (name, grad) in &grads {
            // What the next normalisation subtracts leaves a shift's gradient nearly 0: it is measured by the scale's.
            let size = norm(&expected[name]).max(norm(&expected[&name.replace("beta", "gamma")]));
            let distance = distance(grad, &expected[name]) * norm(&expected[name]) / size;
            assert!(distance < 2e-3, "{name} {distance}");
        }
        let running = |model: &ResNet| {
            model.valid().blocks.last().unwrap().second.running().unwrap().map(|t| t.into_data().try_to_vec::<f32>().unwrap())
        };
        for (a, b) in running(&one).iter().zip(running(&other)) {
            assert!(distance(a, &b) < 1e-4, "running statistics {}", distance(a, &b));
        }
        let (valid, image) = (one.valid(), image.inner().sub_scalar(0.5));
        let fused = valid.fused(&image).unwrap().into_data().try_to_vec::<f32>().unwrap();
        let composed = valid.composed(image).into_data().try_to_vec::<f32>().unwrap();
        assert!(distance(&fused, &composed) < 1e-4, "evaluation {}", distance(&fused, &composed));
    }

    #[test]
    fn fused_is_what_the_operations_are() {
        check(Depth::Eighteen, 16, [6, 1, 64, 64]);
        check(Depth::Eighteen, 8, [5, 3, 67, 45]);
        check(Depth::Eighteen, 20, [9, 2, 33, 70]);
        check(Depth::ThirtyFour, 8, [6, 1, 64, 48]);
    }

    #[test]
    fn elsewhere_it_falls_back() {
        let device = Device::flex().autodiff();
        let model = ResNetConfig { depth: Depth::Eighteen, channels: 1, width: 4, norm: NormKind::Batch }.init(&device).unwrap();
        let image = Tensor::<4>::zeros([2, 1, 32, 32], &device);
        assert!(model.fused(&image).is_some());
        assert!(model.fused(&image.clone().require_grad()).is_none(), "an image whose gradient is wanted");
        assert!(model.clone().freeze().fused(&image).is_none(), "frozen: statistics are the running ones");
        assert!(model.fused(&image.inner()).is_none(), "a model under autodiff, an image that is not");
    }

    /// A trained tower's gradients against burn's own operations: of the image, and of the maps after each stage.
    #[test]
    fn what_an_embedding_owes_to_its_image() {
        let device = Device::flex().autodiff();
        let config = ResNetConfig { depth: Depth::Eighteen, channels: 2, width: 4, norm: NormKind::Batch };
        let model = config.init(&device).unwrap();
        // Running statistics of its own.
        model.forward(numbers("seen", [4, 2, 45, 38], &device));
        let model = model.freeze();
        let image = numbers("image", [3, 2, 45, 38], &device);
        let toward = numbers("toward", [3, 32], &device);
        let values = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap();
        let tracked = image.clone().require_grad();
        let embedding = model.composed(tracked.clone().sub_scalar(0.5));
        let expected = tracked.grad(&(embedding.clone() * toward.clone()).sum().backward()).unwrap();
        let traced = || model.trace(image.clone()).unwrap();
        assert!(distance(&values(traced().embedding().reshape([-1])), &values(embedding.inner().reshape([-1]))) < 1e-5);
        let gradient = traced().image_gradient(&toward.clone().inner()).unwrap();
        assert_eq!(gradient.dims(), image.dims());
        assert!(distance(&values(gradient.reshape([-1])), &values(expected.reshape([-1]))) < 1e-4);
        for stage in 1..=ResNet::STAGES {
            let maps = model.maps(image.clone(), stage).detach().require_grad();
            let gradients = (model.embed(maps.clone(), stage) * toward.clone()).sum().backward();
            let expected = (maps.clone().inner() * maps.grad(&gradients).unwrap()).sum_dim(1);
            let [n, _, rows, columns] = expected.dims();
            let relevance = model.relevance(traced(), &toward.clone().inner(), stage).unwrap();
            assert_eq!(relevance.dims(), [n, rows, columns]);
            assert!(distance(&values(relevance.reshape([-1])), &values(expected.reshape([-1]))) < 1e-4, "stage {stage}");
        }
        assert!(traced().image_gradient(&toward.inner().narrow(0, 0, 2)).is_none());
    }

    #[test]
    fn odd_sizes_and_small_batches() {
        let device = Device::flex();
        let model = ResNetConfig { depth: Depth::Eighteen, channels: 2, width: 4, norm: NormKind::Batch }.init(&device).unwrap();
        for (batch, side) in [(1, 33), (3, 64)] {
            let image = numbers("image", [batch, 2, side, side + 7], &device);
            let (fused, composed) = (model.fused(&image).unwrap(), model.composed(image));
            assert_eq!(fused.dims(), [batch, 32]);
            let [fused, composed] = [fused, composed].map(|t| t.into_data().try_to_vec::<f32>().unwrap());
            assert!(distance(&fused, &composed) < 1e-4, "batch of {batch}: {}", distance(&fused, &composed));
        }
    }

    #[test]
    fn what_is_wrong_with_its_sizes_is_said() {
        let why = |channels, width| ResNetConfig { depth: Depth::Eighteen, channels, width, norm: NormKind::Batch }.tower().unwrap_err();
        assert_eq!(why(1, 0), EncoderError::Zero { what: "channels out" });
        assert_eq!(why(2000, 1).to_string(), "unit 0: row of the kernel is 14000, not within 1..=8192");
    }
}
