//! What an operator may set.

use std::path::PathBuf;
use std::time::Duration;

use synovia_pacs::Archive;

use crate::client::Client;
use crate::tls::TlsFiles;

/// An image archive that studies are taken from by their UIDs.
#[derive(Clone, Debug)]
pub struct Pacs {
    /// Where it is.
    pub archive: Archive,
    /// Whether it is given results.
    pub stores: bool,
}

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the models: `NAME/VERSION/model.onnx`, `NAME/model.onnx` or `NAME.onnx`.
    pub models: PathBuf,
    /// Where REST listens; port 0 for any that is free.
    pub address: String,
    /// Where gRPC listens; `None` for nowhere.
    pub grpc_address: Option<String>,
    /// HTTPS, for REST and gRPC; `None` for HTTP.
    pub tls: Option<TlsFiles>,
    /// Requests that a client may begin in a second, and at once, but for those that run nothing; `None` for any number.
    pub rate: Option<u32>,
    /// Who may ask; where it is nobody, anyone may.
    pub clients: Vec<Client>,
    /// Whether the operator says that nobody has to, by whatever name the server is reached.
    pub without_token: bool,
    /// File that each prediction and each change of models has a line in, before it is answered.
    pub audit_log: Option<PathBuf>,
    /// Bytes of one request's body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are held at a time; more is answered 429.
    pub max_held_bytes: usize,
    /// How long a request may take from its head to its answer.
    pub timeout: Duration,
    /// Requests that may wait for a model; more are answered 429.
    pub max_queue: usize,
    /// Examples that a model is run on at a time; `None` for 64 small ones or 8 of 16 KiB and more.
    pub max_batch: Option<usize>,
    /// How long a batch waits for requests that are being read.
    pub batch_wait: Duration,
    /// Threads of one run of a model; `None` leaves it to ONNX Runtime.
    pub threads: Option<usize>,
    /// The image archive; `None` where studies come by upload alone.
    pub pacs: Option<Pacs>,
    /// Where spans of requests go: a collector's address of OTLP over HTTP; `None` for nowhere.
    pub traces: Option<String>,
    /// Whether each request has a line in the log, or only those that failed by the server's fault.
    pub access_log: bool,
    /// Whether nothing is logged at all.
    pub quiet: bool,
}

impl Settings {
    /// For a folder of models, on the loopback interface alone.
    pub fn new(models: impl Into<PathBuf>) -> Self {
        Self {
            models: models.into(),
            address: "127.0.0.1:8000".to_owned(),
            grpc_address: None,
            tls: None,
            rate: None,
            clients: Vec::new(),
            without_token: false,
            audit_log: None,
            max_body_bytes: 256 << 20,
            max_held_bytes: 1 << 30,
            timeout: Duration::from_secs(30),
            max_queue: 256,
            max_batch: None,
            batch_wait: Duration::from_millis(1),
            threads: None,
            pacs: None,
            traces: None,
            access_log: false,
            quiet: false,
        }
    }
}
