//! `synovia export --triton`: the exported model as other servers take it, a Triton model repository and a KServe service.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use synovia_onnx::{Session, TensorInfo};

use crate::failure::print;
use crate::stages::atomic::atomic_file;

/// Examples of a batch, and how long it waits for more of them.
const MAX_BATCH: usize = 32;
const DELAY_MICROSECONDS: usize = 1000;

/// Writes `DIR/NAME/VERSION/model.onnx`, `DIR/NAME/config.pbtxt` and `DIR/NAME.kserve.yaml`; prints the folder of the version, which
/// is one after the last that is there.
///
/// # Errors
/// For a file that is no model or a folder that can't be written.
pub fn write(model: &Path, name: &str, dir: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(model).with_context(|| model.display().to_string())?;
    let session = Session::from_bytes(&bytes, None).with_context(|| model.display().to_string())?;
    let folder = dir.join(name);
    let version = last_version(&folder)? + 1;
    let of_version = folder.join(version.to_string());
    std::fs::create_dir_all(&of_version).with_context(|| of_version.display().to_string())?;
    put(&of_version.join("model.onnx"), &bytes)?;
    put(&folder.join("config.pbtxt"), configuration(name, &session).as_bytes())?;
    put(&dir.join(format!("{name}.kserve.yaml")), service(name).as_bytes())?;
    print(of_version.display())
}

fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    atomic_file(path, |out| out.write_all(bytes).with_context(|| path.display().to_string()))
}

/// The newest version in a model's folder; 0 where there is none.
fn last_version(folder: &Path) -> anyhow::Result<u64> {
    if !folder.exists() {
        return Ok(0);
    }
    let mut last = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry.with_context(|| folder.display().to_string())?.file_name();
        last = last.max(name.to_str().and_then(|name| name.parse().ok()).unwrap_or(0));
    }
    Ok(last)
}

/// Triton's configuration in the text format of protocol buffers. The first size of every tensor is the batch's.
fn configuration(name: &str, session: &Session) -> String {
    let tensors = |kind: &str, infos: &[TensorInfo]| {
        let one = |info: &TensorInfo| {
            let dims = info.shape.iter().skip(1).map(|size| size.map_or(-1, |n| n as i64).to_string()).collect::<Vec<_>>().join(", ");
            format!("  {{\n    name: \"{}\"\n    data_type: TYPE_FP32\n    dims: [ {dims} ]\n  }}", info.name)
        };
        format!("{kind} [\n{}\n]\n", infos.iter().map(one).collect::<Vec<_>>().join(",\n"))
    };
    let mut text = format!("name: \"{name}\"\nplatform: \"onnxruntime_onnx\"\nmax_batch_size: {MAX_BATCH}\n");
    text += &tensors("input", session.inputs());
    text += &tensors("output", session.outputs());
    let _ = writeln!(text, "dynamic_batching {{\n  max_queue_delay_microseconds: {DELAY_MICROSECONDS}\n}}");
    text
}

/// A KServe service on Triton; the address of the storage is for whoever has it to write.
fn service(name: &str) -> String {
    // What Kubernetes takes for a name.
    let label: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    format!(
        "# kubectl apply -f {name}.kserve.yaml, when storageUri is where this folder lies.\n\
         apiVersion: serving.kserve.io/v1beta1\n\
         kind: InferenceService\n\
         metadata:\n  \
           name: {label}\n\
         spec:\n  \
           predictor:\n    \
             model:\n      \
               modelFormat:\n        \
                 name: onnx\n      \
               protocolVersion: v2\n      \
               runtime: kserve-tritonserver\n      \
               storageUri: pvc://models/\n",
        label = label.trim_matches('-')
    )
}
