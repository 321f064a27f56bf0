# A recipe is a line; logic is in Rust. `just --list` shows what there is.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Built with the workspace's features: `cargo run -p` would build burn and polars once more with fewer of them.
synovia := "target/release/synovia"
kernels_alone := "cargo test --release -p synovia-kernels --no-default-features --lib"
demo_settings := "--set name=demo --set images.path=data/demo/dicom --set records.path=data/demo/fhir --set training.epochs=20"

federation_settings := "pipelines/lung.toml --run runs/federation --set name=federation --set images.path=data/federation/dicom --set records.path=data/federation/fhir --set images.size=64"

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

# A server of the exported model, and of all others in runs
serve PIPELINE *ARGS: (export PIPELINE)
    {{synovia}} serve --models runs {{ARGS}}

# Triton's and KServe's clients, and a reader of FHIR, in an environment of their own, for the tests of serving
serving-clients:
    python3 -m venv .triton/venv && .triton/venv/bin/pip install --quiet "tritonclient[http,grpc]==2.73.*" "kserve==0.21.*" numpy requests "fhir.resources==8.*" opentelemetry-proto || { rm -rf .triton; exit 1; }

# schemathesis in an environment of its own, for the test of the server's OpenAPI document
schemathesis:
    python3 -m venv .schemathesis/venv && .schemathesis/venv/bin/pip install --quiet "schemathesis==4.32.*" || { rm -rf .schemathesis; exit 1; }

# Requests of schemathesis' making, EXAMPLES an address twice
serving-cases EXAMPLES="450": schemathesis
    SYNOVIA_CASES={{EXAMPLES}} cargo test --release --workspace --test it -- --nocapture made_up_requests

# Requests per second of MODELS served here and by PEERS/serve_fastapi.py, in turn; PYTHON has what the peer asks for
serving-throughput PEERS PYTHON *MODELS: onnxruntime
    cargo build --release --workspace --examples && {{PYTHON}} tests/peers/serving.py {{PEERS}}/serve_fastapi.py {{MODELS}}

# An upload's time against that of its parts, on a model, for IMAGE (DICOM) and CHART (FHIR) of one patient
serving-upload MODEL IMAGE CHART: onnxruntime
    cargo build --release --workspace --examples && python3 tests/peers/upload.py {{MODEL}} {{IMAGE}} {{CHART}}

# Known advisories, licences and origins of all dependencies; needs `cargo install cargo-deny --locked`, and the advisories from github.com
deny *CHECKS:
    cargo deny check {{CHECKS}}

# What drives Debian's chromium, and looks for what keeps people out, into .browser, for the test of the server's page
browser:
    npm install --silent --no-audit --no-fund --prefix .browser playwright-core@1 axe-core@4 || { rm -rf .browser; exit 1; }

# Ten times the requests that a server can answer, for a minute, on each of MODELS
serving-overload *MODELS: onnxruntime
    cargo build --release --workspace --examples && python3 tests/peers/overload.py {{MODELS}}

# Speed on made-up data, such as `just bench train --batch 16 --size 224 --width 64 --layers`
bench *ARGS: build
    {{synovia}} bench {{ARGS}}

# Collections and tables of others that the images' tests compare with, into .oracle
oracle:
    python3 -m venv .oracle/venv && .oracle/venv/bin/pip install --quiet --no-deps --target .oracle pydicom==3.0.2 dicom-anonymizer==2.1.0

# A million mutated DICOM files of FOLDER, read in every way
mutate FOLDER N="1000000":
    cargo build --release --workspace --examples && target/release/examples/mutate_files {{FOLDER}} {{N}}

# Training and evaluation in turn with PEERS/train_torch.py; PYTHON has torch and torchvision
against-torch PEERS PYTHON="python3":
    {{PYTHON}} tests/peers/training.py {{PEERS}}/train_torch.py

# `synovia run` against the chain of peers, from files to ONNX; PYTHON has what PEERS/*.py ask for, and onnx
files-to-onnx PEERS PYTHON="python3": onnxruntime
    {{PYTHON}} tests/peers/files_to_onnx.py {{PEERS}} --patients 1560

# Step time against batch and image size, drawn in docs/step-time.svg
step-time: build
    python3 tests/peers/step_time.py

# AUROC with the kernels and with burn's own operations, five seeds
kernels-accuracy: build
    python3 tests/peers/kernels_accuracy.py

# The kernels without burn under the address sanitizer, on the portable lanes and on this processor's
asan:
    for lanes in portable avx2 widest; do SYNOVIA_LANES=$lanes RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address {{kernels_alone}} --target x86_64-unknown-linux-gnu --target-dir target/asan; done

# The kernels without burn, on the portable lanes, in an interpreter that sees every wrong access; needs `rustup component add miri rust-src --toolchain nightly`
miri:
    SYNOVIA_LANES=portable MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-ignore-leaks" cargo +nightly miri test -p synovia-kernels --no-default-features --lib --target-dir target/miri -- --skip any_

# The kernels without burn on an emulated aarch64; needs `rustup target add aarch64-unknown-linux-gnu` and Debian's qemu-user and gcc-aarch64-linux-gnu
neon:
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" {{kernels_alone}} --target aarch64-unknown-linux-gnu --target-dir target/neon

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
    python3 -m venv .ray/venv && .ray/venv/bin/pip install --quiet ray==2.60.0 || { rm -rf .ray; exit 1; }

# Flower in an environment of its own, for `just federation` and the test of the app on it (`pipelines/federation`)
flower:
    python3 -m venv .flower/venv && .flower/venv/bin/pip install --quiet flwr==1.41.0 safetensors==0.6.2 || { rm -rf .flower; exit 1; }

# Heart disease at four hospitals (the folder has the `processed.*.data` files of UCI and `split.csv`), five seeds, against published figures
heart FOLDER *ARGS: build
    python3 pipelines/heart/study.py {{FOLDER}} {{ARGS}}

# Three hospitals on this machine: simulated in one process, then through a real SuperLink and SuperNodes with TLS, to the same weights
federation: build flower
    rm -rf data/federation runs/federation
    {{synovia}} simulate --out data/federation --patients 1500 --seed 1
    {{synovia}} federate simulate {{federation_settings}} --sites 3 --partition dirichlet:0.5 --rounds 10 --central
    .flower/venv/bin/python pipelines/federation/run_local.py --sites runs/federation/federation/sites --out runs/federation/flower --rounds 10 --tls
    cmp runs/federation/federation/together/*/round-00010.safetensors runs/federation/flower/round-00010.safetensors && echo "Flower and the simulation made the same weights"

# What modalities learn from each other where few labels are known, over SEEDS; three quarters of an hour
branches SEEDS="8201-8205": build
    python3 pipelines/studies/branches.py --seeds {{SEEDS}}

# Each fusion, complete and with a share of the images or records missing, over SEEDS; an hour and a half on two cores
fusions SEEDS="8311-8315": build
    cargo build --release --workspace --examples --locked && python3 pipelines/studies/fusions.py --seeds {{SEEDS}}

# Five tasks at once against five models of one each, over SEEDS; an hour on two cores
tasks SEEDS="8411-8415": build
    cargo build --release --workspace --examples --locked && python3 pipelines/studies/tasks.py --seeds {{SEEDS}}

# A diagnosis with a tenth of its labels beside other tasks, against 30 % of them alone, over SEEDS; an hour on two cores
labels SEEDS="8611-8615": build
    python3 pipelines/studies/labels.py --seeds {{SEEDS}}

# OASIS-1, five-fold over SEEDS; a quarter of an hour
oasis SEEDS="1-5" *ARGS: build
    python3 pipelines/studies/oasis.py --seeds {{SEEDS}} {{ARGS}}

# Effects of a treatment against known ones (the folder has the ten replications of IHDP), over SEEDS of split and training; a quarter of a minute a seed
ihdp FOLDER SEEDS="21-23" *ARGS: build
    cargo build --release --workspace --examples --locked && python3 pipelines/ihdp/study.py {{FOLDER}} --seeds {{SEEDS}} {{ARGS}}

# What a choice of treatment by estimated effects is worth, over SEEDS of simulated cohorts; half an hour
response SEEDS="8501-8505": build
    cargo build --release --workspace --examples --locked && python3 pipelines/studies/response.py --seeds {{SEEDS}}

# Tables about joint learning: on simulated cohorts that no setting was chosen on, and on OASIS-1; hours
results: fusions tasks branches labels response oasis

# Image encoders with torchvision's own architectures and random weights against torchvision; downloads torch
torch-towers: build
    test -d .torch/venv || { python3 -m venv .torch/venv && .torch/venv/bin/pip install --quiet torch torchvision safetensors numpy; } || { rm -rf .torch; exit 1; }
    .torch/venv/bin/python pipelines/torch/towers.py .torch/towers
    cargo build --release --workspace --examples --locked
    for kind in resnet18:64 resnet34:64 resnet50:64 densenet121:64 convnext-tiny:96 resnet18-3d:64; do target/release/examples/torch_tower ${kind%:*} ${kind#*:} .torch/towers/${kind%:*}.pth .torch/towers/${kind%:*}.safetensors; done

# How often the verdict is right over SEEDS, where both modalities matter and where one is noise; hours
verdicts SEEDS="9601-9700": build
    python3 pipelines/studies/verdicts.py --seeds {{SEEDS}}

# Whether Grad-CAM points at the lesion in a run on a simulated cohort
pointing-game RUN COHORT:
    cargo build --release --workspace --examples && target/release/examples/pointing_game {{RUN}} {{COHORT}}
