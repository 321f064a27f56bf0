"""Time of an upload to `synovia serve` against the sum of its parts: `just serving-upload MODEL.onnx IMAGE.dcm CHART.json`.

Needs `cargo build --release --workspace --examples`. A JSON line; see crates/synovia-serving/examples/upload.rs for what is measured.
"""
import subprocess, sys

from serving import ROOT, serving

model, image, chart = sys.argv[1:]
with serving(model) as (server, _):
    subprocess.run([ROOT / "target/release/examples/upload", server.address, "model", model, image, chart, "500"], check=True)
