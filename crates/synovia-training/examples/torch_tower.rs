//! How far an image encoder's embeddings are from torchvision's, of the same weights and images.
//!
//! `torch_tower KIND WIDTH WEIGHTS EMBEDDINGS`, of files by `pipelines/torch/towers.py`; prints the largest difference, once with three
//! channels and once with the stem made one of grey images. Exits with 1 where it is more than 1e-4.

use std::path::Path;
use std::process::ExitCode;

use burn::tensor::{Device, Tensor, TensorData};
use synovia_encoders::{ImageEncoderKind, NormKind};
use synovia_fusion::{ImageTower, NamedTensor, apply_state};
use synovia_training::{Weights, decode_weights, read_pretrained};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, width, weights, embeddings] = arguments.as_slice() else {
        eprintln!("usage: torch_tower KIND WIDTH WEIGHTS EMBEDDINGS");
        return ExitCode::from(2);
    };
    let kind = ImageEncoderKind::ALL.into_iter().find(|k| k.as_str() == kind).expect("a kind of encoder");
    let (known, _) = decode_weights(&std::fs::read(embeddings).expect("the embeddings")).expect("a safetensors file");
    let width = width.parse().expect("a width");
    let of = |image: &str, expected: &str| difference(kind, width, Path::new(weights), &known[image], &known[expected]);
    let (three, one) = (of("x", "y"), of("grey", "y_grey"));
    println!("{}: {three:.2e} with three channels, {one:.2e} with one", kind.as_str());
    if three.max(one) <= 1e-4 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Relative where embeddings are above 1.
fn difference(kind: ImageEncoderKind, width: usize, weights: &Path, image: &NamedTensor, expected: &NamedTensor) -> f32 {
    let device = Device::flex();
    let tower = ImageTower { kind, channels: image.shape[1], slices: 1, width };
    let read = read_pretrained(weights, tower, NormKind::Batch).expect("a checkpoint");
    assert!(read.absent.is_empty(), "{:?}", read.absent);
    let (blank, _) = kind.init(tower.channels, width, NormKind::Batch, &device).expect("a tower");
    let own: Weights = read.weights.into_iter().map(|(name, tensor)| (name.trim_start_matches("image.").to_owned(), tensor)).collect();
    let model = apply_state(blank, &own).expect("weights that fit");
    let values: Vec<f32> = image.values.iter().map(|value| value + 0.5).collect();
    let shape: [usize; 4] = image.shape.clone().try_into().expect("images");
    let said: Vec<f32> =
        model.forward(Tensor::from_data(TensorData::new(values, shape), &device)).into_data().try_to_vec().expect("floats");
    assert_eq!(said.len(), expected.values.len());
    said.iter().zip(&expected.values).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max)
}
