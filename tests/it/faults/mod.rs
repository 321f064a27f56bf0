//! What may happen to a server in a hospital. Each fault has a server of its own, in front of which it happens; afterwards the server
//! has to answer as before, with the memory that it had, and to end well. (More faults, on models worked out by hand, are in
//! `synovia-serving`; docs/serving.md has the table of all.)

mod requests;
mod surroundings;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::serving::{Server, exported};
use crate::synovia::command;

/// Memory that a fault may cost, MiB, beside what a server has and the bodies that it may hold.
const MORE_MB: u64 = 250;

/// A trained model, once for all.
fn models() -> &'static Path {
    static MODELS: OnceLock<PathBuf> = OnceLock::new();
    // What a static holds is never dropped: a folder that the next run clears.
    MODELS.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        exported(&dir).0
    })
}

fn chart() -> Vec<u8> {
    br#"{"resourceType": "Patient", "id": "p", "birthDate": "1950-01-01", "gender": "female"}
{"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}, "recordedDate": "2000-01-01", "code": {"coding": [{"system": "http://snomed.info/sct", "code": "38341003"}]}}
"#
    .to_vec()
}

const PREDICT: &str = "/v1/models/lung/predict";
const NDJSON: &str = "application/fhir+ndjson";

/// A server before and after a fault.
struct Before {
    server: Server,
    dir: tempfile::TempDir,
    answer: Value,
    mb: u64,
}

impl Before {
    fn new(arguments: &[&str]) -> Self {
        let mut server = command();
        server.arg("serve").args(arguments);
        Self::with(server)
    }

    /// Of a program that at last is `synovia serve`.
    fn with(server: Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start_with(models(), &dir.path().join("log"), server);
        let (status, answer) = server.ask("POST", PREDICT, NDJSON, &chart());
        assert_eq!(status, 200, "{answer}");
        let mb = server.most_mb();
        Self { server, dir, answer, mb }
    }

    /// As before, if the fault cost no more than this beside; then it ends.
    #[track_caller]
    fn ends_well(mut self, held_mb: u64) {
        let (status, answer) = self.server.ask("POST", PREDICT, NDJSON, &chart());
        assert_eq!((status, &answer), (200, &self.answer));
        assert_eq!(self.server.ask("GET", "/v2/health/ready", "", b"").0, 200);
        let most = self.server.most_mb();
        assert!(most <= self.mb + MORE_MB + held_mb, "{} MiB before, {most} MiB at most", self.mb);
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        self.server.end();
    }

    fn open(&self) -> TcpStream {
        let socket = TcpStream::connect(&self.server.rest).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }

    /// What is answered to bytes as they are, until the server closes or is silent for a second.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.open();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        // The server may have said no already.
        let _ = socket.write_all(bytes);
        let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(n) = socket.read(&mut chunk) {
            answer.extend_from_slice(&chunk[..n]);
            if n == 0 {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn images(&self, bytes: &[u8]) -> (u16, Value) {
        self.server.ask("POST", PREDICT, "application/dicom", bytes)
    }
}
