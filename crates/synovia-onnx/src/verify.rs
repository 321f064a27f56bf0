//! What is exported is what was trained: the file against the model, over all that can be absent.

use crate::runtime::{InputArray, OutputArray, RuntimeError, Session};

/// Largest difference that passes: rounding of 32-bit floats in another order. It is absolute up to values of 1, which
/// probabilities never exceed, and relative above, where a 32-bit float itself is no finer.
pub const TOLERANCE: f32 = 1e-5;

/// Batch sizes of the check.
pub const BATCHES: [usize; 3] = [1, 2, 7];

/// Name of the input that says whether a modality is present: 1 or 0, `[batch, 1]`.
pub fn presence_input(modality: &str) -> String {
    format!("{modality}_present")
}

/// A modality's input, for some examples.
#[derive(Clone, Debug)]
pub struct ModalityInput {
    /// Name of the modality, which is the name of its input.
    pub modality: String,
    /// Sizes of one example, without the batch.
    pub shape: Vec<usize>,
    /// Values of at least one example, row by row; they are taken in turn to fill a batch.
    pub values: Vec<f32>,
}

/// The largest difference of an output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputDifference {
    /// Name.
    pub output: String,
    /// Largest difference between the file's and the model's values, in units of [`TOLERANCE`]'s.
    pub difference: f32,
}

/// What was compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// Sets of present modalities that were tried: 2^M − 1.
    pub n_patterns: usize,
    /// By output, in the file's order.
    pub outputs: Vec<OutputDifference>,
}

/// Why a file does not stand for its model.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It can't be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// It says something else.
    #[error(
        "output {output} of the exported file differs from the trained model by {difference:e} (allowed {TOLERANCE:e}) with {present} present and a batch of {batch}"
    )]
    Differs {
        /// Name of the output.
        output: String,
        /// Largest absolute difference; NaN where only one of them is a number.
        difference: f32,
        /// Modalities present.
        present: String,
        /// Batch size.
        batch: usize,
    },
    /// Other names or shapes.
    #[error("the exported file has the outputs {got}, the trained model {expected}")]
    Outputs {
        /// Names and shapes of the model's outputs.
        expected: String,
        /// Names and shapes of the file's.
        got: String,
    },
    /// Nothing to compare on.
    #[error("{modality}: {n_values} values are not a whole number of examples of {shape:?}, or none")]
    Input {
        /// Modality.
        modality: String,
        /// Number of values.
        n_values: usize,
        /// Shape of an example.
        shape: Vec<usize>,
    },
    /// The trained model can't be run.
    #[error("the trained model failed: {0}")]
    Model(Box<dyn std::error::Error + Send + Sync>),
}

/// One batch's inputs, held.
struct Batch(Vec<OutputArray>);

impl Batch {
    fn new(examples: &[ModalityInput], present: usize, size: usize) -> Self {
        let mut inputs = Vec::with_capacity(2 * examples.len());
        for (index, example) in examples.iter().enumerate() {
            let length = example.shape.iter().product::<usize>();
            // Each size starts at another example, so that not all batches begin alike.
            let values = example.values.chunks_exact(length).cycle().skip(size - 1).take(size).flatten().copied().collect();
            inputs.push((example.modality.clone(), [&[size], example.shape.as_slice()].concat(), values));
            let flag = f32::from(u8::from(present >> index & 1 == 1));
            inputs.push((presence_input(&example.modality), vec![size, 1], vec![flag; size]));
        }
        Self(inputs)
    }

    fn views(&self) -> Vec<InputArray<'_>> {
        self.0.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice())).collect()
    }
}

fn outline(outputs: &[OutputArray]) -> String {
    outputs.iter().map(|(name, shape, _)| format!("{name} {shape:?}")).collect::<Vec<_>>().join(", ")
}

/// The largest difference, relative to values above `scale` and to that otherwise; NaN where one side alone is NaN or infinite.
fn difference(left: &[f32], right: &[f32], scale: f32) -> f32 {
    left.iter().zip(right).fold(0.0, |worst: f32, (&left, &right)| {
        let same = left == right || (left.is_nan() && right.is_nan());
        let distance = if same { 0.0 } else { (left - right).abs() / right.abs().max(scale) };
        // `max` would forget a NaN.
        if worst.is_nan() || distance.is_nan() { f32::NAN } else { worst.max(distance) }
    })
}

/// Runs the file and the model over all 2^M − 1 sets of present modalities and batches of [`BATCHES`].
///
/// - bytes: the ONNX file
/// - expected: the trained model; it gets the inputs of one batch (for each modality its values and its presence) and returns
///   the outputs of the file, in the file's order
/// - examples: the modalities' inputs; what an absent one holds must not matter, so real values are left in place
/// - scale: for an output's name how large its values are, in units in which differences are told: 1 for probabilities
///
/// # Errors
/// [`VerifyError::Differs`] where an output differs by more than [`TOLERANCE`] anywhere.
pub fn verify<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    bytes: &[u8],
    expected: impl Fn(&[InputArray<'_>]) -> Result<Vec<OutputArray>, E>,
    examples: &[ModalityInput],
    scale: impl Fn(&str) -> f32,
) -> Result<Verification, VerifyError> {
    for example in examples {
        let length = example.shape.iter().product::<usize>();
        if length == 0 || example.values.is_empty() || !example.values.len().is_multiple_of(length) {
            return Err(VerifyError::Input {
                modality: example.modality.clone(),
                n_values: example.values.len(),
                shape: example.shape.clone(),
            });
        }
    }
    let mut session = Session::from_bytes(bytes, None)?;
    let mut outputs: Vec<OutputDifference> =
        session.outputs().iter().map(|output| OutputDifference { output: output.name.clone(), difference: 0.0 }).collect();
    let n_patterns = (1 << examples.len()) - 1;
    for present in 1..=n_patterns {
        for size in BATCHES {
            let batch = Batch::new(examples, present, size);
            let inputs = batch.views();
            let got = session.run(&inputs)?;
            let wanted = expected(&inputs).map_err(|error| VerifyError::Model(error.into()))?;
            if outline(&got) != outline(&wanted) {
                return Err(VerifyError::Outputs { expected: outline(&wanted), got: outline(&got) });
            }
            for ((output, got), wanted) in outputs.iter_mut().zip(&got).zip(&wanted) {
                let difference = difference(&got.2, &wanted.2, scale(&output.output));
                if difference.is_nan() || difference > TOLERANCE {
                    let names = examples.iter().enumerate().filter(|(index, _)| present >> index & 1 == 1);
                    let present = names.map(|(_, example)| example.modality.as_str()).collect::<Vec<_>>().join(" and ");
                    return Err(VerifyError::Differs { output: output.output.clone(), difference, present, batch: size });
                }
                output.difference = output.difference.max(difference);
            }
        }
    }
    Ok(Verification { n_patterns, outputs })
}
