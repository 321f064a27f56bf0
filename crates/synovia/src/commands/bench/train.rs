//! `synovia bench train`: training steps on made-up data, with the keys of `train_torch.py`, the same network in PyTorch.

use anyhow::Context as _;
use serde_json::{Value, json};
use synovia_encoders::{Depth, NormKind, ResNetConfig};
use synovia_kernels::measure::{layers, peak_gflop_per_s};
use synovia_training::{BenchSettings, bench as bench_training};

use crate::cli::BenchTrainArgs;
use crate::failure::print;

/// Times training steps and prints how long they took.
pub fn train(args: &BenchTrainArgs) -> anyhow::Result<()> {
    print(measure(args)?)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Peak resident memory of this process in MB, where the system tells.
fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(rounded(kib / 1024.0))
}

fn measure(args: &BenchTrainArgs) -> anyhow::Result<Value> {
    let BenchTrainArgs { batch, size, width, steps, .. } = *args;
    let times = bench_training(BenchSettings { batch, size, width, steps })?;
    let peak_memory_mb = peak_memory_mb();
    let run = json!({
        "layout": "channels_last",
        "compile": false,
        "step_ms": rounded(times.step_ms),
        "images_per_s": rounded(batch as f64 / times.step_ms * 1e3),
        "forward_ms": rounded(times.forward_ms),
        "backward_ms": rounded(times.backward_ms),
        "optimizer_ms": rounded(times.optimizer_ms),
        "evaluation_ms": rounded(times.evaluation_ms),
    });
    let mut out = json!({
        "synovia": env!("CARGO_PKG_VERSION"),
        "batch": batch,
        "size": size,
        "width": width,
        "threads": rayon::current_num_threads(),
        "runs": [run],
        "best": run,
        "peak_memory_mb": peak_memory_mb,
        "loss": times.loss,
    });
    if args.layers {
        let tower =
            ResNetConfig { depth: Depth::Eighteen, channels: 1, width, norm: NormKind::Batch }.tower().context("the tower's shape")?;
        let peak = peak_gflop_per_s();
        let lines: Vec<Value> = layers(&tower, batch, size, size)
            .into_iter()
            .map(|layer| {
                let shape = layer.shape;
                json!({
                    "layer": format!("{0}x{0} s{1} {2}->{3}", shape.kernel, shape.stride, shape.channels_in, shape.channels_out),
                    "input": layer.input,
                    "pass": layer.pass,
                    "count": layer.count,
                    "ms": rounded(layer.ms),
                    "gflop_per_s": rounded(layer.gflop_per_s),
                    "share_of_peak": rounded(layer.gflop_per_s / peak),
                })
            })
            .collect();
        out["peak_gflop_per_s"] = json!(rounded(peak));
        out["layers"] = json!(lines);
    }
    Ok(out)
}
