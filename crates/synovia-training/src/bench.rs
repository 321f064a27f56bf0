//! Training steps of a joint model on made-up data, timed.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use synovia_encoders::{ImageEncoderKind, NormKind};
use synovia_fusion::{
    Absent, FusionKind, Head, ImageTower, Inputs, JointModel, JointModelConfig, Modality, RecordTower, binary_loss, multiclass_loss,
};

use crate::together::in_pool_of;
use crate::{AdamW, AdamWSettings, TrainingError};

/// What is timed: ResNet-18 of one channel, a table of 64 features, gated fusion to 128, a binary task and one of five classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchSettings {
    /// Examples in a batch.
    pub batch: usize,
    /// Side of the images.
    pub size: usize,
    /// Channels of the image tower's first stage.
    pub width: usize,
    /// Steps that are timed; three more come first.
    pub steps: usize,
}

/// Medians, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BenchTimes {
    /// A step of training.
    pub step_ms: f64,
    /// Its forward pass with the losses.
    pub forward_ms: f64,
    /// Its backward pass.
    pub backward_ms: f64,
    /// The optimizer.
    pub optimizer_ms: f64,
    /// The forward pass of the model in evaluation.
    pub evaluation_ms: f64,
    /// Loss of the last step.
    pub loss: f32,
}

const FEATURES: usize = 64;
const EMBEDDING: usize = 128;
const CLASSES: usize = 5;
const WARM_UP: usize = 3;

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { f64::NAN } else { f64::midpoint(values[(n - 1) / 2], values[n / 2]) }
}

struct Data {
    image: Tensor<4>,
    record: Tensor<2>,
    binary: Tensor<2>,
    classes: Tensor<2>,
}

impl Data {
    fn new(settings: BenchSettings, device: &Device) -> Self {
        let BenchSettings { batch, size, .. } = settings;
        Self {
            image: Tensor::random([batch, 1, size, size], Distribution::Default, device),
            record: Tensor::random([batch, FEATURES], Distribution::Default, device),
            binary: Tensor::<2>::random([batch, 1], Distribution::Default, device).greater_elem(0.5).float(),
            classes: Tensor::<2>::eye(batch.max(CLASSES), device).slice([0..batch, 0..CLASSES]),
        }
    }

    fn inputs(&self, device: &Device) -> Inputs {
        let present = Tensor::ones([self.image.dims()[0], 1], device);
        Inputs {
            image: Some(Modality { values: self.image.clone(), present: present.clone(), rows: None }),
            record: Some(Modality { values: self.record.clone(), present, rows: None }),
        }
    }

    fn loss(&self, model: &JointModel, device: &Device) -> Tensor<1> {
        let batch = self.image.dims()[0];
        let known = Tensor::ones([batch, 1], device);
        let mut logits = model.forward(self.inputs(device), batch, device).logits.into_iter();
        let binary = logits.next().map(|z| binary_loss(z, self.binary.clone(), known.clone()));
        let classes = logits.next().map(|z| multiclass_loss(z, self.classes.clone(), known));
        binary.into_iter().chain(classes).reduce(|a, b| a + b).unwrap_or_else(|| Tensor::zeros([1], device))
    }
}

/// Times steps of training, and the forward pass of evaluation.
///
/// # Errors
/// [`TrainingError`] where there is no such model.
pub fn bench(settings: BenchSettings) -> Result<BenchTimes, TrainingError> {
    in_pool_of(rayon::current_num_threads(), || timed(settings))
}

fn timed(settings: BenchSettings) -> Result<BenchTimes, TrainingError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let config = JointModelConfig {
        image: Some(ImageTower { kind: ImageEncoderKind::ResNet18, channels: 1, slices: 1, width: settings.width }),
        record: Some(RecordTower::Table { n_features: FEATURES, width: EMBEDDING, dropout: 0.0 }),
        fusion: FusionKind::Gated,
        absent: Absent::Mask,
        embedding: EMBEDDING,
        dropout: 0.0,
        norm: NormKind::Batch,
        endpoints: Vec::new(),
        heads: vec![Head { task: "binary".into(), n_logits: 1 }, Head { task: "multi".into(), n_logits: CLASSES }],
    };
    let mut model = config.init(None, &device)?;
    let mut optimizer = AdamW::new(AdamWSettings { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.01, clip: 1e9 });
    let data = Data::new(settings, &device);
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let mut times = Vec::with_capacity(settings.steps);
    let mut last = f32::NAN;
    for step in 0..settings.steps + WARM_UP {
        let start = Instant::now();
        let loss = data.loss(&model, &device);
        last = loss.clone().into_scalar::<f32>();
        let forward = ms(start);
        let grads = loss.backward();
        let backward = ms(start);
        (model, _) = optimizer.step(model, grads, 1e-3);
        let whole = ms(start);
        if step >= WARM_UP {
            times.push([whole, forward, backward - forward, whole - backward]);
        }
    }
    let (model, device) = (model.valid(), Device::flex());
    let data = Data::new(settings, &device);
    let evaluation = (0..settings.steps + WARM_UP).map(|_| {
        let start = Instant::now();
        let loss = data.loss(&model, &device).into_scalar::<f32>();
        std::hint::black_box(loss);
        ms(start)
    });
    let of = |part: usize| median(times.iter().map(|t| t[part]));
    Ok(BenchTimes {
        step_ms: of(0),
        forward_ms: of(1),
        backward_ms: of(2),
        optimizer_ms: of(3),
        evaluation_ms: median(evaluation.skip(WARM_UP)),
        loss: last,
    })
}
