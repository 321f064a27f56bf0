# A recipe is a line; logic is in Rust. `just --list` shows what there is.

synovia := "cargo run --release --quiet --package synovia --"

# Lints, formatting and every test
test: lint onnxruntime
    cargo test --release --workspace

# A simulated cohort from files to the report, in data/demo and runs/demo
demo: onnxruntime
    cargo build --release --package synovia
    rm -rf data/demo
    {{synovia}} simulate --out data/demo --patients 1500 --seed 1
    {{synovia}} run pipelines/lung.toml --run runs/demo --set name=demo --set images.path=data/demo/dicom --set records.path=data/demo/fhir --set training.epochs=20
    {{synovia}} predict --quiet --model runs/demo/model.onnx --images data/demo/dicom --records data/demo/fhir 2>/dev/null | head -n 1

# All stages up to trained models
train PIPELINE *ARGS:
    {{synovia}} train {{PIPELINE}} {{ARGS}}

# All stages up to the report
evaluate PIPELINE *ARGS:
    {{synovia}} evaluate {{PIPELINE}} {{ARGS}}

# Formatting and clippy, warnings as errors
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings

# ONNX Runtime, out of its Python package, checked by hash
onnxruntime:
    {{synovia}} install-onnxruntime

# All stages up to the exported model
export PIPELINE *ARGS: onnxruntime
    {{synovia}} export {{PIPELINE}} {{ARGS}}

# A JSON line an example, from an exported model
predict *ARGS: onnxruntime
    {{synovia}} predict {{ARGS}}

# The API's documentation
docs:
    cargo doc --release --workspace --no-deps

# What CI runs
ci:
    bash .ci/run

# Seconds to evaluate 100,000 predictions with 2,000 bootstrap resamples
evaluation-speed *ARGS:
    cargo run --release --quiet --package synovia-evaluation --example evaluation_speed -- {{ARGS}}

# How often intervals and prediction sets hold the truth, over simulated test sets
evaluation-coverage *ARGS:
    cargo run --release --quiet --package synovia-evaluation --example coverage_study -- {{ARGS}}
