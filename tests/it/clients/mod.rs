//! Clients that are not ours, of the server of a trained model: those that the guide shows, a browser, EHRs, and curl with certificates.

mod answers;
mod operation;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::runs::files;
use crate::serving::{Server, exported};
use crate::synovia::{command, json_lines, root, skipped};

/// A trained model, and of one of its patients the image that stands for a study and the chart.
struct Ward {
    dir: tempfile::TempDir,
    models: PathBuf,
    image: PathBuf,
    chart: PathBuf,
    resources: Vec<Value>,
}

impl Ward {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (models, data) = exported(dir.path());
        let mut images = Vec::new();
        files(&data.join("dicom"), &mut images);
        let mut lines = Vec::new();
        let mut of_fhir = Vec::new();
        files(&data.join("fhir"), &mut of_fhir);
        of_fhir.iter().for_each(|path| lines.extend(json_lines(&std::fs::read_to_string(path).unwrap())));
        let uid = |study: &Value| study["identifier"][0]["value"].as_str().unwrap().trim_start_matches("urn:oid:").to_owned();
        let has = |path: &Path, text: &str| std::fs::read(path).unwrap().windows(text.len()).any(|bytes| bytes == text.as_bytes());
        let studies: Vec<&Value> = lines.iter().filter(|line| line["resourceType"] == "ImagingStudy").collect();
        for study in &studies {
            let patient = study["subject"]["reference"].as_str().unwrap();
            let is_only = studies.iter().filter(|other| other["subject"]["reference"] == patient).count() == 1;
            let of_study: Vec<&PathBuf> = images.iter().filter(|path| has(path, &uid(study))).collect();
            // The largest of a study is the frontal one.
            let Some(image) = of_study.into_iter().max_by_key(|path| path.metadata().unwrap().len()).filter(|_| is_only) else { continue };
            let id = patient.trim_start_matches("Patient/");
            let names = |line: &&Value| {
                line["resourceType"] == "Patient" && line["id"] == id
                    || line["subject"]["reference"] == patient
                    || line["patient"]["reference"] == patient
            };
            let resources: Vec<Value> = lines.iter().filter(names).cloned().collect();
            if resources.len() < 10 {
                continue;
            }
            let entries: Vec<Value> = resources.iter().map(|resource| json!({ "resource": resource })).collect();
            let chart = dir.path().join("chart.json");
            std::fs::write(&chart, json!({"resourceType": "Bundle", "type": "collection", "entry": entries}).to_string()).unwrap();
            let to = dir.path().join("chest.dcm");
            std::fs::copy(image, &to).unwrap();
            return Self { models, image: to, chart, resources, dir };
        }
        panic!("no patient of the cohort has one study with an image");
    }

    fn serve(&self, arguments: &[&str]) -> Server {
        let mut server = command();
        server.arg("serve").args(arguments);
        Server::start_with(&self.models, &self.dir.path().join("log"), server)
    }

    fn predict(&self, server: &Server, fields: &[(&str, &str)]) -> Value {
        let (status, answer) = server.predict_with(fields, std::slice::from_ref(&self.image), std::slice::from_ref(&self.chart));
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Python of the environment that `just serving-clients` makes.
fn python() -> Option<PathBuf> {
    let python = root().join(".triton/venv/bin/python");
    if !python.exists() {
        skipped("the clients of serving are not installed; run `just serving-clients`");
    }
    python.exists().then_some(python)
}
