//! Tensors as a client gives them to tensors as a model takes them.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use synovia_onnx::TensorInfo;

use crate::error::Refusal;

/// The one element that is served, by the protocol's name.
pub(crate) const FP32: &str = "FP32";
/// Characters of a client's text that are said back.
const MAX_SHOWN: usize = 64;

/// Values of a tensor, row by row.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    Floats(Vec<f32>),
    /// Little-endian, a multiple of four.
    Bytes(Bytes),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Bytes(bytes) => bytes.len() / 4,
        }
    }

    fn add_to(&self, hash: &mut Sha256) {
        match self {
            Self::Floats(values) => values.iter().for_each(|value| hash.update(value.to_le_bytes())),
            Self::Bytes(bytes) => hash.update(bytes),
        }
    }

    pub(crate) fn append_to(&self, out: &mut Vec<f32>) {
        match self {
            Self::Floats(values) => out.extend_from_slice(values),
            Self::Bytes(bytes) => out.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        }
    }
}

/// An input as a client gives it.
#[derive(Debug)]
pub(crate) struct Given {
    pub name: String,
    pub datatype: String,
    pub shape: Vec<i64>,
    pub values: Values,
}

/// Inputs in the model's order, found to fit it.
#[derive(Clone, Debug)]
pub(crate) struct Fitting {
    /// Examples: the first size of the inputs; of a model that takes no batches, 1 for all that it is given.
    pub rows: usize,
    /// Sizes of each input.
    pub shapes: Vec<Vec<usize>>,
    pub values: Vec<Values>,
}

impl Fitting {
    /// SHA-256 of sizes and values of the inputs, in the model's order: 64-bit integers and 32-bit floats, little-endian, each
    /// input's sizes after their number.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (shape, values) in self.shapes.iter().zip(&self.values) {
            add_shape(shape, &mut hash);
            values.add_to(&mut hash);
        }
        hex::encode(hash.finalize())
    }

    /// Whether the two can be rows of one batch.
    pub(crate) fn goes_with(&self, other: &Self) -> bool {
        self.shapes.iter().zip(&other.shapes).all(|(a, b)| a.get(1..) == b.get(1..))
    }
}

/// An output: sizes, and values row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Output {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

fn add_shape(shape: &[usize], hash: &mut Sha256) {
    hash.update((shape.len() as u64).to_le_bytes());
    shape.iter().for_each(|&size| hash.update((size as u64).to_le_bytes()));
}

/// SHA-256 of sizes and values, as that of inputs.
pub(crate) fn digest(outputs: &[Output]) -> String {
    let mut hash = Sha256::new();
    for output in outputs {
        add_shape(&output.shape, &mut hash);
        output.values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    hex::encode(hash.finalize())
}

impl Output {
    /// Little-endian.
    pub(crate) fn to_bytes(&self, out: &mut Vec<u8>) {
        out.reserve(self.values.len() * 4);
        self.values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
}

/// A client's text as it is said back: short, without line breaks.
pub(crate) fn shown(text: &str) -> String {
    let short: String = text.chars().take(MAX_SHOWN).collect();
    format!("`{}`", short.escape_debug())
}

/// A shape as the protocol has it.
pub(crate) fn shape_of(info: &TensorInfo) -> Vec<i64> {
    info.shape.iter().map(|size| size.map_or(-1, |size| size as i64)).collect()
}

/// What a client gives, held against what the model takes.
///
/// - is_batchable: whether the first size is the batch, and so the same for all inputs
pub(crate) fn fit(inputs: &[TensorInfo], is_batchable: bool, given: Vec<Given>) -> Result<Fitting, Refusal> {
    let names = || inputs.iter().map(|info| info.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut slots: Vec<Option<Values>> = inputs.iter().map(|_| None).collect();
    let mut shapes = vec![Vec::new(); inputs.len()];
    let mut rows = None;
    for tensor in given {
        let Some(k) = inputs.iter().position(|info| info.name == tensor.name) else {
            return Err(Refusal::bad(format!("the model has no input {}; its inputs are {}", shown(&tensor.name), names())));
        };
        let name = &inputs[k].name;
        if slots[k].is_some() {
            return Err(Refusal::bad(format!("input `{name}` is given twice")));
        }
        if tensor.datatype != FP32 {
            return Err(Refusal::bad(format!("input `{name}` is of {}, the model takes {FP32}", shown(&tensor.datatype))));
        }
        let expected = &inputs[k].shape;
        let sizes: Option<Vec<usize>> = tensor.shape.iter().map(|&size| usize::try_from(size).ok().filter(|&size| size > 0)).collect();
        let fits = |sizes: &Vec<usize>| {
            sizes.len() == expected.len() && sizes.iter().zip(expected).all(|(got, expected)| expected.is_none_or(|size| size == *got))
        };
        let Some(sizes) = sizes.filter(fits) else {
            let expected = shape_of(&inputs[k]);
            return Err(Refusal::bad(format!(
                "input `{name}` has the shape {:?}, the model takes {expected:?}, -1 being any size",
                first(&tensor.shape)
            )));
        };
        let n = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if n != Some(tensor.values.len()) {
            return Err(Refusal::bad(format!(
                "input `{name}` holds {} values, its shape {sizes:?} asks for another number",
                tensor.values.len()
            )));
        }
        if let Some(&size) = sizes.first().filter(|_| is_batchable) {
            let of_others = *rows.get_or_insert(size);
            if of_others != size {
                return Err(Refusal::bad(format!("input `{name}` has {size} rows, the inputs before it {of_others}")));
            }
        }
        shapes[k] = sizes;
        slots[k] = Some(tensor.values);
    }
    let missing = slots.iter().zip(inputs).find(|(values, _)| values.is_none());
    if let Some((_, info)) = missing {
        return Err(Refusal::bad(format!("input `{}` is missing; the model's inputs are {}", info.name, names())));
    }
    Ok(Fitting { rows: rows.unwrap_or(1), shapes, values: slots.into_iter().flatten().collect() })
}

/// A shape as it is said back: what is longer than any model's is cut.
fn first(shape: &[i64]) -> &[i64] {
    &shape[..shape.len().min(8)]
}
