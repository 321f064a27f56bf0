# A recipe is a line; logic is in Rust. `just --list` shows what there is.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Built with the workspace's features: `cargo run -p` would build burn and polars once more with fewer of them.
synovia := "target/release/synovia"
demo_settings := "--set name=demo --set images.path=data/demo/dicom --set records.path=data/demo/fhir --set training.epochs=20"

# The program
build:
    cargo build --release --workspace --locked

# Lints, formatting and every test
test: lint onnxruntime
    cargo test --release --workspace --no-fail-fast

# A simulated cohort from files to the report, in data/demo and runs/demo, with a prediction by the exported model
demo: onnxruntime
    rm -rf data/demo
    {{synovia}} simulate --out data/demo --patients 1500 --seed 1
    {{synovia}} run pipelines/lung.toml --run runs/demo {{demo_settings}} > /dev/null
    {{synovia}} predict --quiet --model runs/demo/model.onnx --images data/demo/dicom --records data/demo/fhir | head -n 1
    {{synovia}} run pipelines/lung.toml --run runs/demo {{demo_settings}}

# All stages up to trained models
train PIPELINE *ARGS: build
    {{synovia}} train {{PIPELINE}} {{ARGS}}

# All stages up to the report
evaluate PIPELINE *ARGS: build
    {{synovia}} evaluate {{PIPELINE}} {{ARGS}}

# Formatting and clippy, warnings as errors
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings

# ONNX Runtime, out of its Python package, checked by hash
onnxruntime: build
    {{synovia}} install-onnxruntime

# All stages up to the exported model
export PIPELINE *ARGS: onnxruntime
    {{synovia}} export {{PIPELINE}} {{ARGS}}

# A JSON line an example, from an exported model
predict *ARGS: onnxruntime
    {{synovia}} predict {{ARGS}}

# Speed on made-up data, such as `just bench train --batch 16 --size 224 --width 64 --layers`
bench *ARGS: build
    {{synovia}} bench {{ARGS}}

# Collections and tables of others that the images' tests compare with, into .oracle
oracle:
    python3 -m venv .oracle/venv && .oracle/venv/bin/pip install --quiet --no-deps --target .oracle pydicom==3.0.2 dicom-anonymizer==2.1.0

# A million mutated DICOM files of FOLDER, read in every way
mutate FOLDER N="1000000":
    cargo build --release --workspace --examples && ulimit -v 2000000 && target/release/examples/mutate_files {{FOLDER}} {{N}}

# The API's documentation
docs:
    cargo doc --release --workspace --no-deps

# What CI runs
ci:
    bash .ci/run

# Seconds to evaluate 100,000 predictions with 2,000 bootstrap resamples
evaluation-speed *ARGS:
    cargo build --release --workspace --examples && target/release/examples/evaluation_speed {{ARGS}}

# How often intervals and prediction sets hold the truth, over simulated test sets
evaluation-coverage *ARGS:
    cargo build --release --workspace --examples && target/release/examples/coverage_study {{ARGS}}

# Ray in an environment of its own, for the test of shards on it (`pipelines/scale/ray_cohort.py`)
ray:
    python3 -m venv .ray/venv && .ray/venv/bin/pip install --quiet ray==2.60.0
