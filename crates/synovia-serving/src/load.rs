//! A file to a model that runs: read once, checked, warmed up, and given a thread.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use synovia_onnx::{OutputArray, RuntimeError, Session, TensorInfo};
use synovia_prediction::{Exported, PredictionError};

use crate::batch::Output;
use crate::error::LoadError;
use crate::model::{Model, Worker};
use crate::queue::Queue;
use crate::settings::Settings;
use crate::statistics::Statistics;

/// Bytes of an example from which on few of them are one batch: running it takes far longer than starting the run.
const LARGE_EXAMPLE_BYTES: usize = 16 << 10;
const LARGE_BATCH: usize = 8;
const SMALL_BATCH: usize = 64;

/// The SHA-256 of a file's bytes, in hexadecimal digits.
pub(crate) fn hash_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The bytes of a version: what happens to the file afterwards does not matter.
pub(crate) fn read(path: &Path, version: u64) -> Result<Vec<u8>, LoadError> {
    std::fs::read(path).map_err(|source| LoadError::Io { version, source })
}

/// How much a model's threads give way to those that read requests: a refusal, or a health check, comes at once while all cores
/// compute. Models alone lose nothing by it.
const NICENESS: i32 = 5;

/// A model from its file's bytes, on a thread of its own.
pub(crate) fn load(bytes: Vec<u8>, name: &str, version: u64, settings: &Settings) -> Result<Model, LoadError> {
    let (tell, told) = std::sync::mpsc::channel();
    let (name, settings) = (name.to_owned(), settings.clone());
    let make_and_run = move || {
        // ONNX Runtime's own threads are begun by this one, and are as nice.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let made = make(&bytes, name, version, &settings);
        drop(bytes);
        match made {
            Ok((model, worker)) => {
                let _ = tell.send(Ok(model));
                worker.run();
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    };
    let io = |source| LoadError::Io { version, source };
    std::thread::Builder::new().name("model".to_owned()).spawn(make_and_run).map_err(io)?;
    told.recv().unwrap_or_else(|_| Err(io(std::io::Error::other("its thread ended while it was loaded"))))
}

/// A model, and what its thread runs.
fn make(bytes: &[u8], name: String, version: u64, settings: &Settings) -> Result<(Model, Worker), LoadError> {
    let runtime = |source| LoadError::Runtime { version, source };
    let mut session = Session::from_bytes(bytes, settings.threads).map_err(runtime)?;
    if let Some(info) = session.inputs().iter().chain(session.outputs()).find(|info| !info.is_f32()) {
        return Err(LoadError::Element { version, tensor: info.name.clone() });
    }
    let exported = match Exported::of(&session) {
        Ok(exported) => Some(exported),
        Err(PredictionError::NotExported) => None,
        Err(source) => return Err(LoadError::Metadata { version, source }),
    };
    let (inputs, outputs) = (session.inputs().to_vec(), session.outputs().to_vec());
    let follows_batch = |info: &TensorInfo| info.shape.first().is_some_and(Option::is_none);
    let mut is_batchable = inputs.iter().chain(&outputs).all(follows_batch);
    let max_batch = settings.max_batch.unwrap_or_else(|| {
        let n_values: usize = inputs.iter().map(|info| info.shape.iter().skip(1).map(|size| size.unwrap_or(1)).product::<usize>()).sum();
        if n_values * 4 < LARGE_EXAMPLE_BYTES { SMALL_BATCH } else { LARGE_BATCH }
    });
    // A size that the model leaves open, other than the batch, has no value that is sure to run.
    if inputs.iter().all(|info| info.shape.iter().skip(1).all(Option::is_some)) {
        // The first runs of a size are the slow ones.
        let sizes: &[usize] = if is_batchable { &[1, 2, max_batch] } else { &[1] };
        for &rows in sizes {
            let outputs = zeros(&mut session, rows).map_err(runtime)?;
            is_batchable &= outputs.iter().all(|(_, shape, _)| shape.first() == Some(&rows));
        }
    }
    let queue = Arc::new(Queue::new(settings.max_queue));
    let statistics = Arc::new(Statistics::default());
    let max_batch = if is_batchable { max_batch } else { 1 };
    let worker = Worker {
        queue: Arc::clone(&queue),
        session,
        names: inputs.iter().map(|info| info.name.clone()).collect(),
        is_batchable,
        max_batch,
        wait: settings.batch_wait,
        statistics: Arc::clone(&statistics),
    };
    let sha256 = hash_of(bytes);
    Ok((Model { name, version, sha256, inputs, outputs, exported, is_batchable, max_batch, queue, statistics }, worker))
}

/// A run on zeros.
fn zeros(session: &mut Session, rows: usize) -> Result<Vec<OutputArray>, RuntimeError> {
    let shape = |info: &TensorInfo| -> Vec<usize> {
        info.shape.iter().enumerate().map(|(k, size)| size.unwrap_or(if k == 0 { rows } else { 1 })).collect()
    };
    let inputs: Vec<(String, Vec<usize>)> = session.inputs().iter().map(|info| (info.name.clone(), shape(info))).collect();
    let values: Vec<Vec<f32>> = inputs.iter().map(|(_, shape)| vec![0.0; shape.iter().product()]).collect();
    let views: Vec<_> =
        inputs.iter().zip(&values).map(|((name, shape), values)| (name.as_str(), shape.as_slice(), values.as_slice())).collect();
    session.run_and_release(&views)
}

/// Outputs of a run as they are answered.
pub(crate) fn outputs_of(arrays: Vec<OutputArray>) -> Vec<Output> {
    arrays.into_iter().map(|(_, shape, values)| Output { shape, values }).collect()
}
