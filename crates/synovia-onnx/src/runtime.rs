//! Runs an ONNX file with ONNX Runtime.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{RunOptions, Session as OrtSession, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, TensorRef, ValueType};

/// Why a file can't be run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no library.
    #[error(
        "ONNX Runtime is not installed (looked at {looked}): run `synovia install-onnxruntime` or `just onnxruntime`, or set ORT_DYLIB_PATH to libonnxruntime"
    )]
    Missing {
        /// Where it was looked for.
        looked: String,
    },
    /// The library can't be loaded.
    #[error("{path} can't be loaded as ONNX Runtime 1.24 or later: {reason}; run `synovia install-onnxruntime` or `just onnxruntime`")]
    Load {
        /// The library.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// ONNX Runtime refused something.
    #[error("ONNX Runtime: {0}")]
    Ort(#[from] ort::Error),
    /// An input that the model lacks or that is not given.
    #[error("the model's inputs are {expected}, got {got}")]
    Inputs {
        /// Names that the model has.
        expected: String,
        /// Names given.
        got: String,
    },
    /// Values that don't fill their shape.
    #[error("input {name}: {got} values for the shape {shape:?}")]
    Shape {
        /// Name of the input.
        name: String,
        /// Shape.
        shape: Vec<usize>,
        /// Number of values.
        got: usize,
    },
    /// A batch that differs between inputs.
    #[error("input {name} has a batch of {got}, the inputs before it {expected}")]
    Batch {
        /// Name of the input.
        name: String,
        /// Its batch.
        got: usize,
        /// The others'.
        expected: usize,
    },
    /// An element that this crate does not pass on.
    #[error("{name} has elements of type {element}, which are not supported")]
    Element {
        /// Name of the input or output.
        name: String,
        /// ONNX Runtime's name of the element.
        element: String,
    },
}

/// An input as ONNX Runtime takes it: name, shape, values row by row.
pub type InputArray<'a> = (&'a str, &'a [usize], &'a [f32]);

/// An output: name, shape, values row by row. Integers and booleans come as floats.
pub type OutputArray = (String, Vec<usize>, Vec<f32>);

/// What a model's input or output looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Sizes; `None` where the size follows the batch.
    pub shape: Vec<Option<usize>>,
    element: TensorElementType,
}

impl TensorInfo {
    fn of(outlet: &Outlet) -> Result<Self, RuntimeError> {
        match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } => {
                Ok(Self { name: outlet.name().into(), shape: shape.iter().map(|&size| usize::try_from(size).ok()).collect(), element: *ty })
            }
            other => Err(RuntimeError::Element { name: outlet.name().into(), element: format!("{other:?}") }),
        }
    }

    /// Whether its elements are 32-bit floats, as they come and go: others are converted.
    pub fn is_f32(&self) -> bool {
        self.element == TensorElementType::Float32
    }
}

/// A model, loaded.
#[derive(Debug)]
pub struct Session {
    loaded: OrtSession,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
}

/// File names that the library has, by platform.
fn is_library(name: &str) -> bool {
    name.strip_prefix("libonnxruntime.").is_some_and(|rest| rest.starts_with("so") || rest.split('.').next_back() == Some("dylib"))
}

/// The library in a folder, newest version last.
pub(crate) fn library_in(folder: &Path) -> Option<PathBuf> {
    let names = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()));
    names.filter(|name| is_library(name)).max().map(|name| folder.join(name))
}

/// Where ONNX Runtime's library is: `ORT_DYLIB_PATH`, else `.onnxruntime/` in the working folder or in the program's, or in any
/// folder above these.
///
/// # Errors
/// [`RuntimeError::Missing`], with the recipe that installs it.
pub fn find_runtime() -> Result<PathBuf, RuntimeError> {
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned))];
    find(std::env::var_os("ORT_DYLIB_PATH"), &starts.into_iter().flatten().collect::<Vec<_>>())
}

fn find(variable: Option<OsString>, starts: &[PathBuf]) -> Result<PathBuf, RuntimeError> {
    if let Some(path) = variable.filter(|path| !path.is_empty()).map(PathBuf::from) {
        // A wrong path is an error: another library than the one asked for would be a surprise.
        return if path.is_file() { Ok(path) } else { Err(RuntimeError::Missing { looked: format!("ORT_DYLIB_PATH={}", path.display()) }) };
    }
    let found = starts.iter().flat_map(|start| start.ancestors()).find_map(|folder| library_in(&folder.join(".onnxruntime")));
    found.ok_or_else(|| {
        let looked = starts.iter().map(|start| start.join(".onnxruntime").display().to_string()).collect::<Vec<_>>();
        RuntimeError::Missing { looked: format!("{} and the folders above", looked.join(", ")) }
    })
}

/// The process's one environment: ONNX Runtime allows no second, and it must outlive all sessions.
fn environment() -> Result<Environment, RuntimeError> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*environment {
        return Ok(environment.clone());
    }
    let path = find_runtime()?;
    let builder = ort::init_from(&path).map_err(|error| RuntimeError::Load { path, reason: error.to_string() })?;
    Ok(environment.insert(builder.with_telemetry(false).build()?).clone())
}

fn input_value<'a>(info: &TensorInfo, shape: &[usize], values: &'a [f32]) -> Result<SessionInputValue<'a>, RuntimeError> {
    let shape = shape.to_vec();
    Ok(match info.element {
        TensorElementType::Float32 => TensorRef::from_array_view((shape, values))?.into(),
        // Exact up to 2²⁴.
        TensorElementType::Int64 => Tensor::from_array((shape, values.iter().map(|&value| value as i64).collect::<Vec<_>>()))?.into(),
        TensorElementType::Bool => Tensor::from_array((shape, values.iter().map(|&value| value != 0.0).collect::<Vec<_>>()))?.into(),
        other => return Err(RuntimeError::Element { name: info.name.clone(), element: format!("{other:?}") }),
    })
}

fn output_array(name: &str, value: &DynValue) -> Result<OutputArray, RuntimeError> {
    let sizes = |shape: &[i64]| shape.iter().map(|&size| size as usize).collect();
    Ok(if let Ok((shape, values)) = value.try_extract_tensor::<f32>() {
        (name.into(), sizes(shape), values.to_vec())
    } else if let Ok((shape, values)) = value.try_extract_tensor::<i64>() {
        (name.into(), sizes(shape), values.iter().map(|&value| value as f32).collect())
    } else if let Ok((shape, values)) = value.try_extract_tensor::<bool>() {
        (name.into(), sizes(shape), values.iter().map(|&value| f32::from(u8::from(value))).collect())
    } else {
        return Err(RuntimeError::Element { name: name.into(), element: format!("{:?}", value.dtype()) });
    })
}

impl Session {
    /// Loads a model from its bytes.
    ///
    /// - threads: those of one run; `None` leaves it to ONNX Runtime (one a physical core)
    ///
    /// # Errors
    /// [`RuntimeError`] where the library is missing or the bytes are no model.
    pub fn from_bytes(bytes: &[u8], threads: Option<usize>) -> Result<Self, RuntimeError> {
        let mut builder =
            OrtSession::builder(&environment()?)?.with_optimization_level(GraphOptimizationLevel::All).map_err(ort::Error::<()>::from)?;
        // Threads that spin between runs take the cores from whoever prepares the next one.
        builder = builder.with_intra_op_spinning(false).map_err(ort::Error::<()>::from)?;
        if let Some(threads) = threads {
            builder = builder.with_intra_threads(threads).map_err(ort::Error::<()>::from)?;
        }
        let session = builder.commit_from_memory(bytes)?;
        let inputs = session.inputs().iter().map(TensorInfo::of).collect::<Result<_, _>>()?;
        let outputs = session.outputs().iter().map(TensorInfo::of).collect::<Result<_, _>>()?;
        Ok(Self { loaded: session, inputs, outputs })
    }

    /// The model's inputs, in its order.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// The model's outputs, in its order.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// The model's free text by key, sorted by key.
    ///
    /// # Errors
    /// [`RuntimeError::Ort`].
    pub fn metadata(&self) -> Result<Vec<(String, String)>, RuntimeError> {
        let metadata = self.loaded.metadata()?;
        let mut pairs: Vec<_> =
            metadata.custom_keys()?.into_iter().map(|key| (key.clone(), metadata.custom(&key).unwrap_or_default())).collect();
        pairs.sort();
        Ok(pairs)
    }

    /// Runs the model on one batch.
    ///
    /// # Shapes
    /// Each input as [`Session::inputs`] says, with one batch size for all; outputs in the model's order.
    ///
    /// # Errors
    /// [`RuntimeError`] where names, shapes or batches don't fit, or ONNX Runtime fails.
    pub fn run(&mut self, inputs: &[InputArray<'_>]) -> Result<Vec<OutputArray>, RuntimeError> {
        self.run_by(inputs, &RunOptions::new()?)
    }

    /// [`Session::run`], after which the memory that it worked in goes back to the system: for a run that nobody knows when will be
    /// followed by another.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_and_release(&mut self, inputs: &[InputArray<'_>]) -> Result<Vec<OutputArray>, RuntimeError> {
        let mut options = RunOptions::new()?;
        options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        self.run_by(inputs, &options)
    }

    fn run_by(&mut self, inputs: &[InputArray<'_>], options: &RunOptions) -> Result<Vec<OutputArray>, RuntimeError> {
        let names = |names: Vec<&str>| names.join(", ");
        let mut values = Vec::with_capacity(inputs.len());
        let mut batch: Option<usize> = None;
        for info in &self.inputs {
            let given = inputs.iter().find(|(name, ..)| *name == info.name);
            let (Some((name, shape, data)), true) = (given, inputs.len() == self.inputs.len()) else {
                return Err(RuntimeError::Inputs {
                    expected: names(self.inputs.iter().map(|input| input.name.as_str()).collect()),
                    got: names(inputs.iter().map(|(name, ..)| *name).collect()),
                });
            };
            if shape.iter().product::<usize>() != data.len() || shape.len() != info.shape.len() {
                return Err(RuntimeError::Shape { name: (*name).into(), shape: shape.to_vec(), got: data.len() });
            }
            // ONNX Runtime itself lets batches differ and broadcasts them where it can.
            if let Some(&got) = shape.first() {
                let expected = *batch.get_or_insert(got);
                if got != expected {
                    return Err(RuntimeError::Batch { name: (*name).into(), got, expected });
                }
            }
            values.push((info.name.clone(), input_value(info, shape, data)?));
        }
        let outputs = self.loaded.run_with_options(values, options)?;
        self.outputs
            .iter()
            .map(|info| match outputs.get(&info.name) {
                Some(value) => output_array(&info.name, value),
                None => Err(RuntimeError::Element { name: info.name.clone(), element: "none".into() }),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_above_and_its_recipe_named_where_there_is_none() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("target/release");
        let folder = root.path().join(".onnxruntime");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        let starts = [deep];
        // Half an installation is none.
        std::fs::create_dir(folder.join("download-1")).unwrap();
        std::fs::write(folder.join("libonnxruntime_providers_shared.so"), b"").unwrap();
        let error = find(None, &starts).unwrap_err().to_string();
        assert!(error.contains("synovia install-onnxruntime"), "{error}");
        let library = folder.join("libonnxruntime.so.1.24.4");
        std::fs::write(&library, b"").unwrap();
        assert_eq!(find(None, &starts).unwrap(), library);
        assert_eq!(find(Some("".into()), &starts).unwrap(), library);
        let elsewhere = find(Some(root.path().join("nowhere.so").into()), &starts).unwrap_err().to_string();
        assert!(elsewhere.contains("ORT_DYLIB_PATH") && elsewhere.contains("synovia install-onnxruntime"), "{elsewhere}");
    }
}
