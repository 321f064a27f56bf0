//! Networks like those that are exported, their metadata, and the check of a file against its model.

use burn::module::Module;
use burn::nn::transformer::{TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{EmbeddingConfig, LinearConfig};
use burn::tensor::{Device, Int, Tensor, activation};
use synovia_encoders::{ConvNormActConfig, FeatureStatistics, ImageEncoderKind, NormKind};
use synovia_fusion::{
    Absent, Calibrated, EndpointHead, Estimator, FusionKind, Head, ImageTower, Inputs, JointModel, JointModelConfig, Modality, RecordTower,
    Scale, apply_state, collect_state,
};

use super::layers::layer;
use super::{check, compute, record, views};
use crate::{InputArray, ModalityInput, OutputArray, RuntimeError, Session, TraceError, VerifyError, trace, verify};

#[test]
fn a_residual_block() {
    let unit = |relu| ConvNormActConfig { channels_in: 3, channels_out: 3, kernel: 3, stride: 1, relu, norm: NormKind::Batch };
    let init = |device: &Device| vec![unit(true).init(device).unwrap(), unit(false).init(device).unwrap()];
    let trained = init(&Device::flex());
    check(|pass| {
        let x: Tensor<4> = pass.input("x", &[3, 8, 6]);
        let units = layer(pass, init, &trained);
        pass.output("y", activation::relu(units[1].forward(units[0].forward(x.clone())) + x));
    });
}

#[test]
fn a_transformer_of_events() {
    for norm_first in [true, false] {
        let embedding = |device: &Device| EmbeddingConfig::new(11, 8).init(device);
        let encoder = |device: &Device| TransformerEncoderConfig::new(8, 16, 2, 2).with_norm_first(norm_first).init(device);
        let head = |device: &Device| LinearConfig::new(8, 3).init(device);
        let trained = (embedding(&Device::flex()), encoder(&Device::flex()), head(&Device::flex()));
        check(|pass| {
            let codes: Tensor<2, Int> = pass.input_int("codes", &[6], 11);
            let device = pass.device();
            let position = pass.weight([1, 6, 8]);
            let embedded = layer(pass, embedding, &trained.0).forward(codes.clone()) + position;
            let pad = codes.equal_elem(0).bool_and(Tensor::<1, Int>::arange(0..6, &device).greater_elem(0).unsqueeze());
            let hidden = layer(pass, encoder, &trained.1).forward(TransformerEncoderInput::new(embedded).mask_pad(pad));
            let [batch, _, width] = hidden.dims();
            let pooled = hidden.mean_dim(1).reshape([batch, width]);
            pass.output("y", activation::softmax(layer(pass, head, &trained.2).forward(pooled), 1));
        });
    }
}

/// Height and width.
const IMAGE: [usize; 2] = [33, 40];
const N_FEATURES: usize = 3;

/// What a model is made of.
#[derive(Clone, Copy, Debug)]
struct Kind {
    fusion: FusionKind,
    absent: Absent,
    norm: NormKind,
    image: ImageEncoderKind,
    slices: usize,
    record: RecordTower,
}

const PLAIN: Kind = Kind {
    fusion: FusionKind::Gated,
    absent: Absent::Mask,
    norm: NormKind::Batch,
    image: ImageEncoderKind::ResNet18,
    slices: 1,
    record: RecordTower::Table { n_features: N_FEATURES, width: 8, dropout: 0.1 },
};

fn config(kind: Kind) -> JointModelConfig {
    let (channels, slices) = if kind.image == ImageEncoderKind::ResNet18Volume { (kind.slices, 1) } else { (1, kind.slices) };
    JointModelConfig {
        image: Some(ImageTower { kind: kind.image, channels, slices, width: 4 }),
        record: Some(kind.record),
        fusion: kind.fusion,
        absent: kind.absent,
        embedding: 8,
        dropout: 0.1,
        norm: kind.norm,
        endpoints: endpoints(),
        heads: vec![Head { task: "malignant".into(), n_logits: 1 }, Head { task: "stage".into(), n_logits: 4 }],
    }
}

/// An endpoint of each kind.
fn endpoints() -> Vec<EndpointHead> {
    let scale = Scale { mean: 40.0, deviation: 7.0 };
    let estimators = [
        Estimator::Regression(scale),
        Estimator::Survival { edges: vec![30.0, 90.0, 365.0] },
        Estimator::Treatment { scale: None, treated: 0.4 },
        Estimator::Treatment { scale: Some(scale), treated: 0.4 },
    ];
    estimators.into_iter().map(|estimator| EndpointHead { endpoint: String::new(), estimator, base: 1.0 }).collect()
}

fn statistics() -> FeatureStatistics {
    FeatureStatistics { log: vec![0.0, 1.0, 0.0], floor: vec![1.0, 0.1, 1.0], mean: vec![0.5, -1.0, 0.0], std: vec![2.0, 0.5, 1.0] }
}

/// A model one step into training, so that its running statistics are not the initial ones.
fn trained(kind: Kind) -> JointModel {
    let device = Device::flex().autodiff();
    device.seed(3);
    let model = config(kind).init(Some(&statistics()), &device).unwrap();
    let image = Tensor::random([8, kind.slices, IMAGE[0], IMAGE[1]], burn::tensor::Distribution::Uniform(0.0, 1.0), &device);
    let record = Tensor::random([8, N_FEATURES], burn::tensor::Distribution::Normal(0.0, 1.0), &device);
    let present = Tensor::ones([8, 1], &device);
    let inputs = Inputs {
        image: Some(Modality { values: image, present: present.clone(), rows: None }),
        record: Some(Modality { values: record, present, rows: None }),
    };
    model.forward(inputs, 8, &device);
    model.valid()
}

fn outputs(model: &JointModel, image: [Tensor<4>; 1], record: Tensor<2>, present: [Tensor<2>; 2], batch: usize) -> Vec<Tensor<2>> {
    let [image] = image;
    let device = image.device();
    let [image_present, record_present] = present;
    let inputs = Inputs {
        image: Some(Modality { values: image, present: image_present, rows: None }),
        record: Some(Modality { values: record, present: record_present, rows: None }),
    };
    let outputs = model.forward(inputs, batch, &device);
    let malignant = outputs.logits[0].clone();
    let mut logits = outputs.logits;
    let raw = logits.split_off(2);
    let mut all = JointModel::probabilities(logits, &[1.3, 0.8].map(Calibrated::Temperature));
    all.extend(endpoints().iter().zip(raw).map(|(head, raw)| head.estimates(raw)));
    all.push(outputs.embedding);
    // The other ways to calibrate, of the same logits.
    let steps = vec![[0.2, 0.3, 0.3], [0.5, 0.1, 0.4]];
    let others = [
        Calibrated::Line { slope: 0.5, intercept: -1.0 },
        Calibrated::Beta { a: 0.75, b: 1.5, c: 0.25 },
        Calibrated::Steps { first: 0.1, steps },
    ];
    all.extend(others.iter().flat_map(|other| JointModel::probabilities(vec![malignant.clone()], std::slice::from_ref(other))));
    all
}

const OUTPUTS: [&str; 10] = ["malignant", "stage", "number", "survival", "improved", "score", "embedding", "line", "beta", "steps"];

fn export(model: &JointModel, kind: Kind) -> Vec<u8> {
    let state = collect_state(model);
    let graph = trace(|tracer| {
        let blank = config(kind).init(None, tracer.device()).map_err(TraceError::forward)?;
        let model = apply_state(blank, &state).map_err(TraceError::forward)?;
        let image = tracer.input::<4>("image", [kind.slices, IMAGE[0], IMAGE[1]]);
        let image_present = tracer.input::<2>("image_present", [1]);
        let record = tracer.input::<2>("record", [N_FEATURES]);
        let record_present = tracer.input::<2>("record_present", [1]);
        let batch = tracer.batch();
        for (name, output) in OUTPUTS.iter().zip(outputs(&model, [image], record, [image_present, record_present], batch)) {
            tracer.output(name, output);
        }
        Ok(())
    });
    graph.unwrap().to_bytes(&[("seed".into(), "3".into())])
}

fn predict(model: &JointModel, inputs: &[InputArray<'_>]) -> Vec<OutputArray> {
    let device = Device::flex();
    let tensor = |name: &str| {
        let (_, shape, values) = inputs.iter().find(|input| input.0 == name).unwrap();
        burn::tensor::TensorData::new(values.to_vec(), shape.to_vec())
    };
    let present = ["image_present", "record_present"].map(|name| Tensor::<2>::from_data(tensor(name), &device));
    let image = Tensor::<4>::from_data(tensor("image"), &device);
    let batch = image.dims()[0];
    let outputs = outputs(model, [image], Tensor::from_data(tensor("record"), &device), present, batch);
    OUTPUTS
        .iter()
        .zip(outputs)
        .map(|(name, output)| ((*name).into(), output.dims().to_vec(), output.into_data().iter::<f32>().collect()))
        .collect()
}

fn examples(kind: Kind) -> [ModalityInput; 2] {
    let shape = vec![kind.slices, IMAGE[0], IMAGE[1]];
    let image = super::numbers(1, 5 * shape.iter().product::<usize>()).iter().map(|value| value.abs()).collect();
    let record = super::numbers(2, 5 * N_FEATURES).iter().map(|&value| if value > 0.5 { f32::NAN } else { 3.0 * value }).collect();
    [
        ModalityInput { modality: "image".into(), shape, values: image },
        ModalityInput { modality: "record".into(), shape: vec![N_FEATURES], values: record },
    ]
}

#[test]
fn the_joint_model_over_all_patterns() {
    let records = [
        RecordTower::Linear { n_features: N_FEATURES, width: 8 },
        RecordTower::Transformer { n_features: N_FEATURES, width: 8, dropout: 0.1 },
        RecordTower::Cross { n_features: N_FEATURES, width: 8, dropout: 0.1 },
    ];
    let kinds = (FusionKind::ALL.into_iter().map(|fusion| Kind { fusion, ..PLAIN }))
        .chain([Absent::Token, Absent::Reconstruct].map(|absent| Kind { absent, ..PLAIN }))
        .chain([Kind { norm: NormKind::Group, ..PLAIN }, Kind { slices: 3, ..PLAIN }])
        .chain(ImageEncoderKind::ALL[1..].iter().map(|&image| Kind { image, ..PLAIN }))
        .chain([Kind { image: ImageEncoderKind::ResNet18Volume, slices: 5, ..PLAIN }])
        .chain(records.map(|record| Kind { record, ..PLAIN }));
    for kind in kinds {
        let model = trained(kind);
        let before = collect_state(&model);
        let bytes = export(&model, kind);
        assert_eq!(collect_state(&model), before, "the exported model is left as it was");
        let verification = verify(&bytes, |inputs| Ok::<_, RuntimeError>(predict(&model, inputs)), &examples(kind), |_| 1.0);
        let verification = verification.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(verification.n_patterns, 3);
        assert_eq!(verification.outputs.iter().map(|output| output.output.as_str()).collect::<Vec<_>>(), OUTPUTS);
        // Equal models give equal bytes.
        assert_eq!(export(&model, kind), bytes);
    }
}

#[test]
fn another_model_does_not_pass_for_this_one() {
    let kind = PLAIN;
    let model = trained(kind);
    let bytes = export(&model, kind);
    // The answer for an absent record, whatever is given.
    let deaf = |inputs: &[InputArray<'_>]| {
        let inputs: Vec<_> = inputs
            .iter()
            .map(|&(name, shape, values)| (name, shape, if name == "record_present" { &[0.0; 7][..values.len()] } else { values }))
            .collect();
        Ok::<_, RuntimeError>(predict(&model, &inputs))
    };
    let error = verify(&bytes, deaf, &examples(kind), |_| 1.0).unwrap_err();
    assert!(matches!(&error, VerifyError::Differs { present, batch: 1, .. } if present == "record"), "{error}");
    let nan = |inputs: &[InputArray<'_>]| {
        let mut outputs = predict(&model, inputs);
        outputs[1].2[0] = f32::NAN;
        Ok::<_, RuntimeError>(outputs)
    };
    let error = verify(&bytes, nan, &examples(kind), |_| 1.0).unwrap_err();
    assert!(matches!(&error, VerifyError::Differs { output, .. } if output == "stage"), "{error}");
    let fewer = |inputs: &[InputArray<'_>]| Ok::<_, RuntimeError>(predict(&model, inputs)[..2].to_vec());
    assert!(matches!(verify(&bytes, fewer, &examples(kind), |_| 1.0), Err(VerifyError::Outputs { .. })));
}

#[test]
fn metadata_and_boundaries() {
    let graph = record(&|pass: &mut super::Pass<'_>| {
        let x: Tensor<2> = pass.input("x", &[3]);
        let _unused: Tensor<2> = pass.input("y", &[1]);
        // An output that is an input, one that is a constant, and one value under two names.
        let double = x.clone() * 2.0;
        let constant = pass.weight([2, 2]);
        pass.output("same", x);
        pass.output("constant", constant);
        pass.output("double", double.clone());
        pass.output("again", double);
    })
    .unwrap();
    let metadata = [("a".to_owned(), "1".to_owned()), ("µ".to_owned(), "{\"unit\": \"mg/dL\"}\n".to_owned())];
    let mut session = Session::from_bytes(&graph.to_bytes(&metadata), None).unwrap();
    assert_eq!(session.metadata().unwrap(), metadata);
    let inputs: Vec<_> = session.inputs().iter().map(|input| (input.name.as_str(), input.shape.clone())).collect();
    assert_eq!(inputs, [("x", vec![None, Some(3)]), ("y", vec![None, Some(1)])]);
    let outputs: Vec<&str> = session.outputs().iter().map(|output| output.name.as_str()).collect();
    assert_eq!(outputs, ["same", "constant", "double", "again"]);
    let outputs = session.run(&[("y", &[1, 1], &[0.0]), ("x", &[1, 3], &[1.0, 2.0, 3.0])]).unwrap();
    assert_eq!(outputs[0].2, [1.0, 2.0, 3.0]);
    assert_eq!(outputs[2].2, [2.0, 4.0, 6.0]);
    assert_eq!(outputs[2].2, outputs[3].2);
}

#[test]
fn inputs_that_do_not_fit() {
    let forward = |pass: &mut super::Pass<'_>| {
        let x: Tensor<2> = pass.input("x", &[3]);
        let y: Tensor<2> = pass.input("y", &[3]);
        pass.output("z", x + y);
    };
    let bytes = record(&forward).unwrap().to_bytes(&[]);
    let mut session = Session::from_bytes(&bytes, Some(2)).unwrap();
    let mut check = |inputs: &[InputArray<'_>], expected: &str| {
        let error = session.run(inputs).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&[("x", &[1, 3], &[0.0; 3])], "the model's inputs are x, y, got x");
    check(&[("x", &[1, 3], &[0.0; 3]), ("w", &[1, 3], &[0.0; 3])], "got x, w");
    check(&[("x", &[1, 3], &[0.0; 3]), ("y", &[1, 3], &[0.0; 2])], "2 values for the shape [1, 3]");
    check(&[("x", &[2, 3], &[0.0; 6]), ("y", &[1, 3], &[0.0; 3])], "a batch of 1, the inputs before it 2");
    check(&[("x", &[1, 4], &[0.0; 4]), ("y", &[1, 3], &[0.0; 3])], "ONNX Runtime");
    assert!(matches!(Session::from_bytes(b"no model", None), Err(RuntimeError::Ort(_))));
    let (inputs, expected) = compute(4, &forward);
    assert_eq!(session.run(&views(&inputs)).unwrap(), expected);
}
