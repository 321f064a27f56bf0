//! What a user types.

pub mod federate;

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use synovia_serving::TlsFiles;

use crate::commands::tune::Vary;
use crate::failure::UsageError;
use crate::pipeline::{Pipeline, PipelineError};
use crate::stages::cohort::shard::Shard;

/// Joint learning for medical images and health records
#[derive(Debug, Parser)]
#[command(
    name = "synovia",
    version,
    max_term_width = 110,
    after_help = "Example: synovia simulate --out data --patients 300 --seed 1 && synovia run pipelines/lung.toml"
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// For machines: progress and errors as JSON lines on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Threads to use; results do not depend on it [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub threads: Option<usize>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a paired DICOM and FHIR cohort whose best possible AUROC is known
    #[command(after_help = "Example: synovia simulate --out data --patients 3000 --seed 1 --missing-image 0.1")]
    Simulate(SimulateArgs),
    /// Run all stages of a pipeline, skipping those whose inputs, settings and version are unchanged
    #[command(after_help = "Example: synovia run pipelines/lung.toml --run runs/short --set training.epochs=3")]
    Run(PipelineArgs),
    /// Read images and records; list what was not taken and why
    #[command(after_help = "Example: synovia ingest pipelines/lung.toml")]
    Ingest(PipelineArgs),
    /// Align patients, images and records into examples, and split them by patient
    #[command(after_help = "Example: synovia cohort pipelines/lung.toml --shard 0/4")]
    Cohort(CohortArgs),
    /// Put the shards of a cohort together: the same bytes as one machine writes
    #[command(after_help = "Example: synovia merge pipelines/lung.toml")]
    Merge(PipelineArgs),
    /// Train the joint model and those of one modality
    #[command(after_help = "Example: synovia train pipelines/lung.toml --set training.epochs=3 --threads 2")]
    Train(PipelineArgs),
    /// Search settings of the joint model by its validation loss; the test split is not looked at
    #[command(
        after_help = "Example: synovia tune pipelines/lung.toml --vary training.learning_rate=log:1e-4..1e-2 --vary model.dropout=0.3,0.5"
    )]
    Tune(TuneArgs),
    /// Say what drives the joint model's answers on test examples, and check that it holds
    #[command(after_help = "Example: synovia explain pipelines/lung.toml")]
    Explain(PipelineArgs),
    /// Measure the models on the test split and write the report
    #[command(after_help = "Example: synovia evaluate pipelines/lung.toml")]
    Evaluate(PipelineArgs),
    /// Write the joint model as ONNX, and check it with ONNX Runtime
    #[command(after_help = "Example: synovia export pipelines/lung.toml --triton models")]
    Export(ExportArgs),
    /// Look for leaks in a run: patients, images or labels that training should not have seen
    #[command(after_help = "Example: synovia audit runs/lung")]
    Audit(AuditArgs),
    /// Put the measures of several runs side by side
    #[command(after_help = "Example: synovia compare runs/lung runs/short")]
    Compare(CompareArgs),
    /// Predict with an exported model; a JSON line an example
    #[command(after_help = "Example: synovia predict --model runs/lung/model.onnx --images new/dicom --records new/fhir")]
    Predict(PredictArgs),
    /// Serve exported models: tensors by the Open Inference Protocol, and DICOM with FHIR as they are
    #[command(after_help = "Example: synovia serve --models models --address 127.0.0.1:8000 --grpc-address 127.0.0.1:8001")]
    Serve(ServeArgs),
    /// Tell whether an audit log of the server is whole: no line changed, taken out, put in or moved
    #[command(after_help = "Example: synovia verify-log audit.jsonl")]
    VerifyLog(VerifyLogArgs),
    /// Write copies of DICOM files that name no patient (PS3.15 Annex E)
    #[command(after_help = "Example: synovia deidentify data/dicom clean --profile basic+dates --key secret.key")]
    Deidentify(DeidentifyArgs),
    /// Receive DICOM instances that other systems send (C-STORE) into a folder, until it is ended
    #[command(after_help = "Example: synovia receive --out data/dicom --address 0.0.0.0:11112 --title SYNOVIA")]
    Receive(ReceiveArgs),
    /// Fetch the ONNX Runtime library that export and predict need, checked by its hash
    #[command(after_help = "Example: synovia install-onnxruntime --to .onnxruntime")]
    InstallOnnxruntime(InstallOnnxruntimeArgs),
    /// Hospitals that learn together and keep their data: a site's part, the coordinator's, or a simulation of all
    #[command(after_help = "Example: synovia federate simulate pipelines/lung.toml --sites 3 --partition dirichlet:0.3")]
    Federate(federate::FederateArgs),
    /// Measure speed; one JSON line
    #[command(after_help = "Example: synovia bench train --batch 16 --size 224 --width 64 --steps 12 --threads 2")]
    Bench(BenchArgs),
}

/// `synovia simulate`
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// Folder to write; it must be new or empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number of patients
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000_000))]
    pub patients: usize,
    /// Seed: the same cohort, byte for byte, for the same seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Share of studies without an image
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    pub missing_image: f64,
    /// Share of patients without a record
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    pub missing_record: f64,
    /// A modality that tells nothing of the labels [default: both tell]
    #[arg(long, value_name = "MODALITY")]
    pub noise: Option<Noise>,
}

/// A modality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Noise {
    /// Images.
    Image,
    /// Records.
    Record,
}

/// A pipeline, and what to change in it.
#[derive(Args, Clone, Debug)]
pub struct PipelineArgs {
    /// Pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub pipeline: PathBuf,
    /// Run folder [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Override a setting, such as training.epochs=3 or task.0.name=cancer; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Override the pipeline's seed
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
}

impl PipelineArgs {
    /// Reads and checks the pipeline with the overrides.
    pub fn read(&self) -> Result<Pipeline, PipelineError> {
        Pipeline::read(&self.pipeline, &self.set, self.seed)
    }

    /// The run folder: as given, or `runs/NAME`.
    pub fn run_folder(&self, pipeline: &Pipeline) -> PathBuf {
        self.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(&pipeline.name))
    }
}

/// `synovia cohort`
#[derive(Args, Clone, Debug)]
pub struct CohortArgs {
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Make one part of the rows only, from 0, in RUN/shards/I-of-N; `synovia merge` puts all together
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

/// `synovia tune`
#[derive(Args, Clone, Debug)]
pub struct TuneArgs {
    /// The pipeline; with its own epochs the last trials are trained.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// A setting of [model] or [training] and what it may be: KEY=VALUE,VALUE or KEY=LOW..HIGH (4..8 whole numbers, 0.0..0.5 others) or KEY=log:LOW..HIGH; may be repeated
    #[arg(long, value_name = "KEY=VALUES", required = true)]
    pub vary: Vec<Vary>,
    /// Settings that are tried, the pipeline's own among them
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = RangedU64ValueParser::<usize>::new().range(2..=10_000))]
    pub trials: usize,
    /// Rounds: each has a third of the trials before and three times the epochs
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=8))]
    pub rounds: usize,
}

/// `synovia audit`
#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// Run folder
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
}

/// `synovia bench records`
#[derive(Args, Clone, Debug)]
pub struct BenchRecordsArgs {
    /// FHIR file, or folder of them
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub jobs: usize,
    /// Write the table of features here, as Parquet [default: a file that is removed]
    #[arg(long, value_name = "FILE.parquet")]
    pub out: Option<PathBuf>,
}

/// `synovia compare`
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Run folders
    #[arg(value_name = "RUN", required = true, num_args = 1..)]
    pub runs: Vec<PathBuf>,
    /// Instead of a table: by how much a model of the first run is better than one of the second, on the test examples of both; a line of
    /// JSON a task of classes
    #[arg(long, value_name = "MODEL,MODEL", num_args = 1, value_delimiter = ',')]
    pub between: Vec<String>,
}

/// `synovia export`
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Write it to this folder too as Triton and KServe take it: a new version in a model repository
    #[arg(long, value_name = "DIR")]
    pub triton: Option<PathBuf>,
}

/// `synovia predict`
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("input").args(["images", "records"]).required(true).multiple(true))]
pub struct PredictArgs {
    /// Exported model
    #[arg(long, value_name = "FILE.onnx")]
    pub model: PathBuf,
    /// Image, folder of images, DICOMDIR, zip archive, or DICOMweb address
    #[arg(long, value_name = "PATH")]
    pub images: Option<PathBuf>,
    /// Records in the format that the model was trained on: a file, or a folder of them
    #[arg(long, value_name = "PATH")]
    pub records: Option<PathBuf>,
}

/// `synovia serve`
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// File of these settings by their names, such as `rate = 20`; what is said here as well counts
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Folder with NAME/VERSION/model.onnx, NAME/model.onnx or NAME.onnx
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    pub models: Option<PathBuf>,
    /// Where REST listens; port 0 for any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub address: String,
    /// Where gRPC listens [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub grpc_address: Option<String>,
    /// HTTPS.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Requests a second, and at once, that a client may have run [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// File of bearer tokens that clients have to show, a line each: the token (or `sha256:` and the digest of the client's
    /// certificate), the client's name, and `predict` or `admin`; a token alone is an admin's [default: the environment's
    /// SYNOVIA_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Listen beyond this machine without a token
    #[arg(long, conflicts_with = "token_file")]
    pub without_token: bool,
    /// Largest body of a request, MiB
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub max_body: usize,
    /// Bodies held at a time, MiB; more are answered 429
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_048_576))]
    pub max_held: usize,
    /// Seconds that a request may take
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Requests that may wait for a model; more are answered 429
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub queue: usize,
    /// Examples that a model is run on at a time [default: 64, or 8 where an example has 16 KiB or more]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub max_batch: Option<usize>,
    /// Microseconds that a batch waits for requests that are being read
    #[arg(long, value_name = "US", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub batch_wait: u64,
    /// File that each prediction and each change of models has a line in, before it is answered; `synovia verify-log` tells whether
    /// it is whole
    #[arg(long, value_name = "FILE.jsonl")]
    pub audit_log: Option<PathBuf>,
    /// DICOMweb service of an image archive, such as https://pacs.example/dicom-web, that studies are taken from by their UIDs; it is
    /// logged in to by the environment's SYNOVIA_PACS_USER and SYNOVIA_PACS_PASSWORD, or SYNOVIA_PACS_TOKEN
    #[arg(long, value_name = "URL")]
    pub pacs: Option<String>,
    /// Give the archive a DICOM structured report of a result where a client asks for it
    #[arg(long)]
    pub pacs_store: bool,
    /// Collector of OpenTelemetry that spans of requests go to by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces [default: the
    /// environment's OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, else nowhere]
    #[arg(long, value_name = "URL")]
    pub traces: Option<String>,
    /// A log line for every request, not only those that failed by the server's fault
    #[arg(long)]
    pub access_log: bool,
}

/// `synovia verify-log`
#[derive(Args, Clone, Debug)]
pub struct VerifyLogArgs {
    /// An audit log of `synovia serve`
    #[arg(value_name = "FILE.jsonl")]
    pub file: PathBuf,
    /// Digest of a line that the log had at its end before; one that was cut off behind it shows
    #[arg(long, value_name = "SHA256")]
    pub holds: Option<String>,
}

/// `synovia deidentify`
#[derive(Args, Clone, Debug)]
pub struct DeidentifyArgs {
    /// Folder of DICOM files
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Folder to write; it must be new or empty
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// `basic`, and options after `+`: pixels, descriptors, dates, device, uids, private
    #[arg(long, value_name = "P", default_value = "basic")]
    pub profile: synovia_images::Profile,
    /// File of the secret that UIDs, pseudonyms and dates follow from; made when it is not there [default: a new secret]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Write a line for each file that was not written; file names may identify
    #[arg(long, value_name = "FILE.jsonl")]
    pub rejected: Option<PathBuf>,
}

/// TLS of `synovia serve` and of `synovia receive`.
#[derive(Args, Clone, Debug)]
pub struct TlsArgs {
    /// TLS (of `serve` for REST and gRPC) with this certificate in PEM and those that it is signed by; `serve` reads it again when it
    /// changes [default: in the clear]
    #[arg(long, value_name = "FILE.pem")]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE.pem")]
    pub tls_key: Option<PathBuf>,
    /// Certificates in PEM by which those of clients have to be signed; who shows none is not answered
    #[arg(long, value_name = "FILE.pem")]
    pub client_ca: Option<PathBuf>,
}

impl TlsArgs {
    /// The files that TLS is to be made from; `None` where it is not asked for.
    ///
    /// # Errors
    /// One of them without another that it needs.
    pub fn files(&self) -> Result<Option<TlsFiles>, UsageError> {
        let Self { tls_certificate, tls_key, client_ca } = self;
        for (is_given, option, needs, is_there) in [
            (tls_certificate.is_some(), "--tls-certificate", "--tls-key", tls_key.is_some()),
            (tls_key.is_some(), "--tls-key", "--tls-certificate", tls_certificate.is_some()),
            (client_ca.is_some(), "--client-ca", "--tls-certificate", tls_certificate.is_some()),
        ] {
            if is_given && !is_there {
                return Err(UsageError(format!("{option} needs {needs}")));
            }
        }
        let files = tls_certificate.clone().zip(tls_key.clone());
        Ok(files.map(|(certificate, key)| TlsFiles { certificate, key, client_ca: client_ca.clone() }))
    }
}

/// `synovia receive`
#[derive(Args, Clone, Debug)]
pub struct ReceiveArgs {
    /// Folder to write into, as STUDY/SERIES/INSTANCE.dcm
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Where to listen; port 0 for any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:11112")]
    pub address: String,
    /// Application entity title that senders have to call; empty for any
    #[arg(long, value_name = "AE", default_value = "SYNOVIA")]
    pub title: String,
    /// Associations at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub associations: usize,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// `synovia bench ingest`
#[derive(Args, Clone, Debug)]
pub struct BenchIngestArgs {
    /// Folder of DICOM files
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Side of the square that every image becomes, in pixels
    #[arg(long, value_name = "N", default_value_t = 224, value_parser = RangedU64ValueParser::<usize>::new().range(16..=1024))]
    pub size: usize,
}

/// `synovia install-onnxruntime`
#[derive(Args, Clone, Debug)]
pub struct InstallOnnxruntimeArgs {
    /// Folder to put it in
    #[arg(long, value_name = "DIR", default_value = ".onnxruntime")]
    pub to: PathBuf,
}

/// `synovia bench`
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    pub what: BenchCommand,
}

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Training steps of the joint model: forward, losses, backward, AdamW
    #[command(after_help = "Example: synovia bench train --batch 16 --size 224 --width 64 --steps 12")]
    Train(BenchTrainArgs),
    /// From DICOM files to the pixels of a cohort
    #[command(after_help = "Example: synovia bench ingest data/dicom --size 224")]
    Ingest(BenchIngestArgs),
    /// From FHIR to one feature row a patient
    #[command(after_help = "Example: synovia bench records data/fhir --jobs 2")]
    Records(BenchRecordsArgs),
}

/// `synovia bench train`
#[derive(Args, Clone, Debug)]
pub struct BenchTrainArgs {
    /// Examples in a batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(2..=4096))]
    pub batch: usize,
    /// Side of the images, in pixels
    #[arg(long, value_name = "N", default_value_t = 224, value_parser = RangedU64ValueParser::<usize>::new().range(8..=4096))]
    pub size: usize,
    /// Channels of the image tower's first stage
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub width: usize,
    /// Steps to time, after three to warm up
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub steps: usize,
    /// Time each convolution of the image tower as well
    #[arg(long)]
    pub layers: bool,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
        _ => Err("a probability is a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[track_caller]
    fn has_examples(command: &clap::Command, path: &str) {
        for command in command.get_subcommands() {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.strip_prefix("Example: ").unwrap_or_else(|| panic!("{path} has no example"));
            assert!(example.starts_with(&path), "{example}");
            Cli::try_parse_from(example.split_whitespace()).unwrap();
            assert!(command.get_about().is_some());
            has_examples(command, &path);
        }
    }

    #[test]
    fn every_command_has_an_example_that_parses() {
        has_examples(&Cli::command(), "synovia");
    }

    /// What a line parses to, or the first line of the error and the exit code.
    #[track_caller]
    fn check(line: &str, expect: &Expect) {
        let text = match Cli::try_parse_from(line.split_whitespace()) {
            Ok(cli) => format!("{:?}", cli.command),
            Err(error) => format!("{} (exit {})", error.to_string().lines().next().unwrap_or_default(), error.exit_code()),
        };
        expect.assert_eq(&text);
    }

    #[test]
    fn arguments() {
        check(
            "synovia simulate --out d --patients 3",
            &expect![[
                r#"Simulate(SimulateArgs { out: "d", patients: 3, seed: 0, missing_image: 0.0, missing_record: 0.0, noise: None })"#
            ]],
        );
        check(
            "synovia run p.toml --set a=1 --set b=2 --seed 7 --run r --quiet",
            &expect![[r#"Run(PipelineArgs { pipeline: "p.toml", run: Some("r"), set: ["a=1", "b=2"], seed: Some(7) })"#]],
        );
        check(
            "synovia predict --model m.onnx --records r",
            &expect![[r#"Predict(PredictArgs { model: "m.onnx", images: None, records: Some("r") })"#]],
        );
        check("synovia predict --model m.onnx", &expect!["error: the following required arguments were not provided: (exit 2)"]);
        check(
            "synovia simulate --out d --patients 3 --missing-image 1.5",
            &expect!["error: invalid value '1.5' for '--missing-image <P>': a probability is a number from 0 to 1 (exit 2)"],
        );
        check(
            "synovia simulate --out d --patients 0",
            &expect!["error: invalid value '0' for '--patients <N>': 0 is not in 1..=100000000 (exit 2)"],
        );
        check("synovia run p.toml --seed -1", &expect!["error: unexpected argument '-1' found (exit 2)"]);
        check("synovia run", &expect!["error: the following required arguments were not provided: (exit 2)"]);
        check("synovia trian p.toml", &expect!["error: unrecognized subcommand 'trian' (exit 2)"]);
        check("synovia train p.toml --threads 0", &expect!["error: invalid value '0' for '--threads <N>': 0 is not in 1..=1024 (exit 2)"]);
    }

    #[test]
    fn help_is_no_error() {
        let error = Cli::try_parse_from(["synovia", "run", "--help"]).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
        assert!(error.to_string().contains("Example: synovia run"));
    }
}
