//! Each closure is run twice: recorded, lowered and run by ONNX Runtime, and computed by burn. Both must agree at any batch.

mod layers;
mod networks;
mod operations;
mod refusals;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{InputArray, OutputArray, Session, TraceError, Tracer, trace};

/// A forward pass being recorded or computed.
pub(crate) enum Pass<'a> {
    Record { tracer: &'a mut Tracer, n_drawn: u64 },
    Compute { batch: usize, device: Device, inputs: Vec<OutputArray>, outputs: Vec<OutputArray>, n_drawn: u64 },
}

/// Numbers in (−1, 1) from a position: a multiplicative hash, the same at each run.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    (0..n as u64)
        .map(|index| {
            let hash = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(seed.wrapping_mul(0xD1B5_4A32_D192_ED03));
            let hash = (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (hash >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

impl Pass<'_> {
    pub fn device(&self) -> Device {
        match self {
            Self::Record { tracer, .. } => tracer.device().clone(),
            Self::Compute { device, .. } => device.clone(),
        }
    }

    fn drawn(&mut self) -> u64 {
        let (Self::Record { n_drawn, .. } | Self::Compute { n_drawn, .. }) = self;
        *n_drawn += 1;
        *n_drawn
    }

    /// The same numbers in both passes.
    pub fn weight<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let values = numbers(1000 + self.drawn(), shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), &self.device())
    }

    /// Numbers in (−2, 2).
    pub fn input<const D: usize>(&mut self, name: &str, rest: &[usize]) -> Tensor<D> {
        self.input_of(name, rest, |value| 2.0 * value)
    }

    pub fn input_of<const D: usize>(&mut self, name: &str, rest: &[usize], value: impl Fn(f32) -> f32) -> Tensor<D> {
        match self {
            Self::Record { tracer, .. } => tracer.input(name, rest),
            Self::Compute { batch, device, inputs, .. } => {
                let shape = [&[*batch], rest].concat();
                let seed = (*batch * 31 + inputs.len()) as u64;
                let values: Vec<f32> = numbers(seed, shape.iter().product()).into_iter().map(value).collect();
                inputs.push((name.into(), shape.clone(), values.clone()));
                Tensor::from_data(TensorData::new(values, shape), &*device)
            }
        }
    }

    /// Integers in `0..end`.
    pub fn input_int<const D: usize>(&mut self, name: &str, rest: &[usize], end: i64) -> Tensor<D, Int> {
        match self {
            Self::Record { tracer, .. } => tracer.input_int(name, rest),
            Self::Compute { batch, device, inputs, .. } => {
                let shape = [&[*batch], rest].concat();
                let seed = (*batch * 31 + inputs.len()) as u64;
                let values: Vec<i64> =
                    numbers(seed, shape.iter().product()).iter().map(|value| ((value + 1.0) * 1000.0) as i64 % end).collect();
                inputs.push((name.into(), shape.clone(), values.iter().map(|&value| value as f32).collect()));
                Tensor::from_data(TensorData::new(values, shape), &*device)
            }
        }
    }

    pub fn output<const D: usize>(&mut self, name: &str, tensor: Tensor<D>) {
        match self {
            Self::Record { tracer, .. } => tracer.output(name, tensor),
            Self::Compute { outputs, .. } => {
                let shape = tensor.dims().to_vec();
                outputs.push((name.into(), shape, tensor.into_data().iter::<f32>().collect()));
            }
        }
    }

    pub fn output_int<const D: usize>(&mut self, name: &str, tensor: Tensor<D, Int>) {
        match self {
            Self::Record { tracer, .. } => tracer.output_int(name, tensor),
            Self::Compute { outputs, .. } => {
                let shape = tensor.dims().to_vec();
                outputs.push((name.into(), shape, tensor.into_data().iter::<f32>().collect()));
            }
        }
    }
}

/// Records a closure.
pub(crate) fn record(forward: &impl Fn(&mut Pass<'_>)) -> Result<crate::Graph, TraceError> {
    trace(|tracer| {
        forward(&mut Pass::Record { tracer, n_drawn: 0 });
        Ok(())
    })
}

fn compute(batch: usize, forward: &impl Fn(&mut Pass<'_>)) -> (Vec<OutputArray>, Vec<OutputArray>) {
    let mut pass = Pass::Compute { batch, device: Device::flex(), inputs: Vec::new(), outputs: Vec::new(), n_drawn: 0 };
    forward(&mut pass);
    match pass {
        Pass::Compute { inputs, outputs, .. } => (inputs, outputs),
        Pass::Record { .. } => unreachable!("it was made as the other one"),
    }
}

fn views(arrays: &[OutputArray]) -> Vec<InputArray<'_>> {
    arrays.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice())).collect()
}

/// Recorded and computed must agree, at batches of 1, 2 and 7.
#[track_caller]
pub(crate) fn check(forward: impl Fn(&mut Pass<'_>)) {
    let graph = record(&forward).unwrap_or_else(|error| panic!("{error}"));
    let bytes = graph.to_bytes(&[]);
    let mut session = Session::from_bytes(&bytes, Some(1)).unwrap_or_else(|error| panic!("{error}"));
    for batch in crate::BATCHES {
        let (inputs, expected) = compute(batch, &forward);
        let got = session.run(&views(&inputs)).unwrap_or_else(|error| panic!("batch {batch}: {error}"));
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!((&got.0, &got.1), (&expected.0, &expected.1), "batch {batch}");
            for (position, (left, right)) in got.2.iter().zip(&expected.2).enumerate() {
                let same = left == right || (left.is_nan() && right.is_nan());
                let near = (left - right).abs() <= crate::TOLERANCE * right.abs().max(1.0);
                assert!(same || near, "output {} at {position}, batch {batch}: {left} by ONNX Runtime, {right} by burn", got.0);
            }
        }
    }
}
