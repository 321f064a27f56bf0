//! Weights of an image encoder from a checkpoint of another library, by torchvision's names: those of torchvision itself, of timm and of
//! TorchXRayVision, as `.pth` or safetensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::Device;
use pytorch_reader::{DType, PytorchReader};
use safetensors::{Dtype, SafeTensors};
use synovia_encoders::NormKind;
use synovia_fusion::{ImageTower, NamedTensor, collect_state};

use crate::{TrainingError, Weights};

/// What a checkpoint gives to an image tower.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pretrained {
    /// By the names that the joint model has for them.
    pub weights: Weights,
    /// Parameters and buffers of the tower that the checkpoint lacks: they begin at random.
    pub absent: Vec<String>,
    /// Tensors of the checkpoint that the tower has no place for, such as a classifier's.
    pub unused: Vec<String>,
    /// Channels of the checkpoint's images, where the tower's have another number.
    pub adapted: Option<usize>,
    /// What stood before torchvision's names.
    pub prefix: String,
}

/// The weights of `path` for such a tower. A stem of other channels is made to say of a grey image, the same in all channels, what the
/// checkpoint's says: its weights are summed over channels and shared out evenly. Images here are in [0, 1] less ½, where such
/// checkpoints were mostly trained on standardised channels; the first normalisation over the batch evens that out in training. `ConvNeXt` has
/// none: contrasts of its stem are some four times too low until its weights have learnt.
///
/// # Errors
/// [`TrainingError::Io`] where the file can't be read, [`TrainingError::Checkpoint`] where it is damaged, has no tensor for the tower, or one
/// of another shape or that is not finite.
pub fn read_pretrained(path: &Path, tower: ImageTower, norm: NormKind) -> Result<Pretrained, TrainingError> {
    let (model, _) = tower.kind.init(tower.channels, tower.width, norm, &Device::flex()).map_err(synovia_fusion::ModelError::from)?;
    let ours: BTreeMap<String, NamedTensor> = collect_state(&model);
    let named: Vec<(&String, String)> = ours.keys().filter_map(|name| Some((name, tower.kind.torch_name(name)?))).collect();
    let refused = |why: String| TrainingError::Checkpoint(format!("{}: {why}", path.display()));
    let file = File::open(path)?;
    let prefix = prefix(&file, &named);
    let (mut out, mut used) = (Pretrained { prefix: prefix.clone(), ..Pretrained::default() }, BTreeSet::new());
    for (name, theirs) in &named {
        let theirs = format!("{prefix}{theirs}");
        let Some(tensor) = file.tensor(&theirs).map_err(&refused)? else { continue };
        if let Some(value) = tensor.values.iter().find(|value| !value.is_finite()) {
            return Err(refused(format!("`{theirs}` has the value {value}: what was saved had diverged")));
        }
        let tensor = if tower.kind.is_transposed(name) { transposed(tensor) } else { tensor };
        let wanted = &ours[*name].shape;
        let tensor = match (tensor.shape.as_slice(), wanted.as_slice()) {
            (had, wanted) if had == wanted => tensor,
            // A number a channel, which torchvision has with a height and a width of 1.
            (&[n, 1, 1], &[m]) if n == m => NamedTensor { shape: vec![n], values: tensor.values },
            (&[n, had, ref kernel @ ..], &[m, wanted, ref ours @ ..])
                if n == m && kernel == ours && had > 0 && tower.kind.is_stem(name) =>
            {
                out.adapted = Some(had);
                let values = shared(&tensor.values, [n, had, kernel.iter().product()], wanted);
                NamedTensor { shape: [&[n, wanted], kernel].concat(), values }
            }
            (had, wanted) => {
                return Err(refused(format!(
                    "`{theirs}` has shape {had:?} where a {} of width {} needs {wanted:?}; set `image` and `width` in [model] to what the \
                     checkpoint is of (published networks have width = 64, ConvNeXt 96)",
                    tower.kind.as_str(),
                    tower.width
                )));
            }
        };
        used.insert(theirs);
        out.weights.insert(format!("image.{name}"), tensor);
    }
    if out.weights.is_empty() {
        let some: Vec<&str> = file.names.values().take(3).map(String::as_str).collect();
        return Err(refused(format!(
            "none of its {} tensors ({} …) has a name that torchvision gives to a {}",
            file.names.len(),
            some.join(", "),
            tower.kind.as_str()
        )));
    }
    out.absent = ours.into_keys().filter(|name| !out.weights.contains_key(&format!("image.{name}"))).collect();
    let is_unused = |(modern, _): &(String, String)| !used.contains(modern) && !modern.ends_with("num_batches_tracked");
    out.unused = file.names.into_iter().filter(is_unused).map(|(_, name)| name).collect();
    Ok(out)
}

/// What stands before torchvision's names, `module.` or `model.` or nothing: what most of them are found with, the shortest of equals.
fn prefix(file: &File, named: &[(&String, String)]) -> String {
    let found = |prefix: &str| named.iter().filter(|(_, theirs)| file.names.contains_key(&format!("{prefix}{theirs}"))).count();
    let of_first = |(_, theirs): &(&String, String)| -> BTreeSet<String> {
        file.names.keys().filter_map(|name| name.strip_suffix(theirs.as_str())).map(str::to_owned).collect()
    };
    let candidates = named.first().map(of_first).unwrap_or_default();
    let best = candidates.into_iter().max_by_key(|prefix| (found(prefix), std::cmp::Reverse(prefix.len())));
    best.unwrap_or_default()
}

/// A matrix the other way round; anything else as it is, for whoever looks at its shape.
fn transposed(tensor: NamedTensor) -> NamedTensor {
    let &[rows, columns] = tensor.shape.as_slice() else { return tensor };
    let values = (0..columns).flat_map(|column| tensor.values.iter().skip(column).step_by(columns).copied()).collect();
    NamedTensor { shape: vec![columns, rows], values }
}

/// Weights `[n, had, places]` as `[n, wanted, places]`: of each channel the sum over all, by their number.
fn shared(values: &[f32], [n, had, places]: [usize; 3], wanted: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(n * wanted * places);
    for filter in values.chunks_exact(had * places) {
        let of_place = |p: usize| (0..had).map(|c| f64::from(filter[c * places + p])).sum::<f64>() / wanted as f64;
        let sums: Vec<f32> = (0..places).map(|p| of_place(p) as f32).collect();
        (0..wanted).for_each(|_| out.extend_from_slice(&sums));
    }
    out
}

/// A checkpoint whose tensors are read when they are asked for: beside the weights there may be an optimizer's state.
struct File {
    /// Names as torchvision has them today, and as they stand in the file.
    names: BTreeMap<String, String>,
    kind: Kind,
}

enum Kind {
    Safetensors(Vec<u8>),
    Torch(PytorchReader),
}

impl File {
    fn open(path: &Path) -> Result<Self, TrainingError> {
        let unreadable = |source| TrainingError::Io { path: path.to_owned(), source };
        let damaged = |why: &dyn std::fmt::Display| TrainingError::Checkpoint(format!("{}: it cannot be read: {why}", path.display()));
        let (names, kind): (Vec<String>, Kind) = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
            let bytes = std::fs::read(path).map_err(unreadable)?;
            let names = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error))?.names().into_iter().map(str::to_owned).collect();
            (names, Kind::Safetensors(bytes))
        } else {
            std::fs::metadata(path).map_err(unreadable)?;
            let file = PytorchReader::new(path).map_err(|error| damaged(&error))?;
            (file.keys(), Kind::Torch(file))
        };
        Ok(Self { names: names.into_iter().map(|name| (modern(&name), name)).collect(), kind })
    }

    /// `None` of a tensor that is not there, or not of floats.
    fn tensor(&self, modern: &str) -> Result<Option<NamedTensor>, String> {
        let Some(name) = self.names.get(modern) else { return Ok(None) };
        let (kind, shape, bytes) = match &self.kind {
            Kind::Safetensors(bytes) => {
                let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
                let view = file.tensor(name).map_err(|error| error.to_string())?;
                let kind = match view.dtype() {
                    Dtype::F32 => DType::F32,
                    Dtype::F64 => DType::F64,
                    Dtype::F16 => DType::F16,
                    Dtype::BF16 => DType::BF16,
                    _ => return Ok(None),
                };
                return Ok(floats(kind, view.data()).map(|values| NamedTensor { shape: view.shape().to_vec(), values }));
            }
            Kind::Torch(file) => {
                let Some(tensor) = file.get(name) else { return Ok(None) };
                // A view may say that it is far larger than what it is of; no part of an encoder is.
                if tensor.byte_len() > MOST_BYTES {
                    return Err(format!("`{name}` has {} bytes, more than any part of an encoder", tensor.byte_len()));
                }
                (tensor.dtype(), tensor.shape().to_vec(), tensor.read().map_err(|error| error.to_string())?)
            }
        };
        Ok(floats(kind, &bytes).map(|values| NamedTensor { shape, values }))
    }
}

/// The largest part of a published encoder has a few million numbers.
const MOST_BYTES: usize = 1 << 28;

/// Densely connected networks were saved with `norm.1` for `norm1` once, and still are.
fn modern(name: &str) -> String {
    ["norm", "conv"].into_iter().fold(name.to_owned(), |name, part| {
        [1, 2].into_iter().fold(name, |name, k| name.replace(&format!(".{part}.{k}."), &format!(".{part}{k}.")))
    })
}

fn floats(kind: DType, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match kind {
        DType::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        DType::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        DType::F16 => bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        DType::BF16 => bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorData};
    use synovia_encoders::ImageEncoderKind;
    use synovia_fusion::apply_state;

    use super::*;
    use crate::decode_weights;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/torch").join(name)
    }

    fn known(kind: ImageEncoderKind) -> Weights {
        decode_weights(&std::fs::read(fixture(&format!("{}.safetensors", kind.as_str()))).unwrap()).unwrap().0
    }

    /// What the tower makes of images with the weights of a checkpoint.
    fn embeddings(kind: ImageEncoderKind, weights: &Weights, width: usize, image: &NamedTensor) -> Vec<f32> {
        let device = Device::flex();
        let (blank, _) = kind.init(image.shape[1], width, NormKind::Batch, &device).unwrap();
        let own: Weights = weights.iter().map(|(name, tensor)| (name.strip_prefix("image.").unwrap().to_owned(), tensor.clone())).collect();
        // The towers take ½ off, which torchvision's do not.
        let values: Vec<f32> = image.values.iter().map(|value| value + 0.5).collect();
        let shape: [usize; 4] = image.shape.clone().try_into().unwrap();
        apply_state(blank, &own)
            .unwrap()
            .forward(Tensor::from_data(TensorData::new(values, shape), &device))
            .into_data()
            .try_to_vec()
            .unwrap()
    }

    /// Against torchvision's own embeddings (`pipelines/torch/towers.py --small`), with the stem as it is and made one of grey images.
    #[track_caller]
    fn check(kind: ImageEncoderKind, width: usize, file: &str) {
        let known = known(kind);
        for (image, expected, adapted) in [("x", "y", None), ("grey", "y_grey", Some(3))] {
            let tower = ImageTower { kind, channels: known[image].shape[1], slices: 1, width };
            let read = read_pretrained(&fixture(file), tower, NormKind::Batch).unwrap();
            // A volume is grey in any case.
            let adapted = if kind.stem_channels(3) == 3 { adapted } else { Some(3) };
            assert_eq!((read.absent.as_slice(), read.adapted), (&[] as &[String], adapted));
            let classifier = match kind {
                ImageEncoderKind::DenseNet121 => "classifier",
                ImageEncoderKind::ConvNeXtTiny => "classifier.2",
                _ => "fc",
            };
            assert_eq!(read.unused, [format!("{classifier}.bias"), format!("{classifier}.weight")]);
            let said = embeddings(kind, &read.weights, width, &known[image]);
            let far = said.iter().zip(&known[expected].values).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
            assert!(said.len() == known[expected].values.len() && far < 1e-4, "{image}: {far}");
        }
    }

    #[test]
    fn torchvisions_weights_give_torchvisions_embeddings() {
        // Weights are drawn, if only to be replaced: not while others count on their draws.
        let _alone = crate::tests::alone();
        check(ImageEncoderKind::ResNet18, 4, "resnet18.pth");
        check(ImageEncoderKind::ResNet50, 2, "resnet50.pth");
        check(ImageEncoderKind::DenseNet121, 4, "densenet121-weights.safetensors");
        check(ImageEncoderKind::ConvNeXtTiny, 4, "convnext-tiny.pth");
        check(ImageEncoderKind::ResNet18Volume, 2, "resnet18-3d.pth");
    }

    #[test]
    fn every_parameter_has_a_name_in_torchvision() {
        // Weights are drawn, if only to be replaced: not while others count on their draws.
        let _alone = crate::tests::alone();
        for kind in ImageEncoderKind::ALL {
            let (model, _) = kind.init(1, 4, NormKind::Batch, &Device::flex()).unwrap();
            let names: Vec<String> = collect_state(&model).into_keys().collect();
            if kind == ImageEncoderKind::ViTTiny {
                assert!(names.iter().all(|name| kind.torch_name(name).is_none()));
                continue;
            }
            let theirs: BTreeSet<String> = names.iter().map(|name| kind.torch_name(name).unwrap_or_else(|| panic!("{name}"))).collect();
            assert_eq!(theirs.len(), names.len());
            assert_eq!(names.iter().filter(|name| kind.is_stem(name)).count(), 1);
            assert!(
                [
                    "head.weight",
                    "ResNet.blocks.99.first.conv.weight",
                    "DenseNet.layers.99.first.conv.weight",
                    "ConvNeXt.downs.3.conv.bias",
                    ""
                ]
                .iter()
                .all(|name| kind.torch_name(name).is_none())
            );
        }
        let resnet34 = |name| ImageEncoderKind::ResNet34.torch_name(name).unwrap();
        assert_eq!(resnet34("ResNet.blocks.3.shortcut.norm.batch.running_var"), "layer2.0.downsample.1.running_var");
        assert_eq!(resnet34("ResNet.blocks.15.second.conv.weight"), "layer4.2.conv2.weight");
    }

    #[test]
    fn names_may_be_older_or_have_something_before_them() {
        // Weights are drawn, if only to be replaced: not while others count on their draws.
        let _alone = crate::tests::alone();
        let dir = tempfile::tempdir().unwrap();
        let tower = ImageTower { kind: ImageEncoderKind::DenseNet121, channels: 3, slices: 1, width: 4 };
        let plain = read_pretrained(&fixture("densenet121-weights.safetensors"), tower, NormKind::Batch).unwrap();
        let bytes = std::fs::read(fixture("densenet121-weights.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let older = |name: &str| format!("model.{}", name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."));
        let tensors: Vec<_> = file.iter().map(|(name, view)| (older(name), view)).collect();
        let path = dir.path().join("older.safetensors");
        std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let read = read_pretrained(&path, tower, NormKind::Batch).unwrap();
        assert!(read.weights == plain.weights && read.absent.is_empty());
        assert_eq!(read.unused, ["model.classifier.bias", "model.classifier.weight"]);
        // A tower that normalises within examples takes the convolutions alone.
        let group = read_pretrained(&path, tower, NormKind::Group).unwrap();
        assert!(group.weights.len() == 120 && group.weights.keys().all(|name| name.ends_with("conv.weight")), "{}", group.weights.len());
        assert!(group.absent.iter().all(|name| name.contains("norm.group")) && group.absent.len() == 242, "{:?}", group.absent.len());
        assert_eq!((read.prefix.as_str(), plain.prefix.as_str()), ("model.", ""));
        // A stem of no channels, which a file may say that it has, is of another shape.
        let empty = path.with_file_name("empty.safetensors");
        let of = |shape: Vec<usize>| safetensors::tensor::TensorView::new(Dtype::F32, shape, &[]).unwrap();
        std::fs::write(&empty, safetensors::serialize([("features.conv0.weight", of(vec![4, 0, 7, 7]))], None).unwrap()).unwrap();
        assert!(read_pretrained(&empty, tower, NormKind::Batch).unwrap_err().to_string().contains("[4, 0, 7, 7]"));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        // Weights are drawn, if only to be replaced: not while others count on their draws.
        let _alone = crate::tests::alone();
        let dir = tempfile::tempdir().unwrap();
        let tower = ImageTower { kind: ImageEncoderKind::ResNet18, channels: 1, slices: 1, width: 8 };
        let why = |path: &Path, tower| read_pretrained(path, tower, NormKind::Batch).unwrap_err().to_string();
        let narrow = why(&fixture("resnet18.pth"), tower);
        assert!(narrow.contains("has shape [4") && narrow.contains("needs [8") && narrow.contains("width = 64"), "{narrow}");
        let other = why(&fixture("densenet121-weights.safetensors"), tower);
        assert!(other.contains("densenet121-weights") && other.contains("resnet18"), "{other}");
        let damaged = dir.path().join("damaged.pth");
        let bytes = std::fs::read(fixture("resnet18.pth")).unwrap();
        for cut in [0, 10, 1000, bytes.len() / 2, bytes.len() - 30] {
            std::fs::write(&damaged, &bytes[..cut]).unwrap();
            assert!(why(&damaged, tower).contains("damaged.pth"), "cut at {cut}");
        }
        assert!(why(&dir.path().join("none.pth"), tower).contains("none.pth"));
        // Deeper than the checkpoint: what is more begins at random.
        let deeper = ImageTower { kind: ImageEncoderKind::ResNet34, channels: 3, slices: 1, width: 4 };
        let read = read_pretrained(&fixture("resnet18.pth"), deeper, NormKind::Batch).unwrap();
        assert!(read.absent.iter().any(|name| name == "ResNet.blocks.2.first.conv.weight"), "{:?}", read.absent);
    }
}
