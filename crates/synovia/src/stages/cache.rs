//! Which stages are done: a stage whose inputs, settings and code version are unchanged, and whose outputs are as it left
//! them, is not run again.
//!
//! `RUN/stages/NAME.json` is written last, after all outputs are in place, and removed first, before any of them changes:
//! a stage that was killed half-way is never taken for done.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::atomic::{atomic_file, remove};
use super::fingerprint::fingerprint;
use super::run_folder::RunFolder;
use super::{StageError, at};

/// Layout of the records.
const FORMAT: u32 = 1;

/// A stage as it would run now.
#[derive(Clone, Debug)]
pub struct Stage {
    name: String,
    version: u32,
    settings: Value,
    inputs: BTreeMap<String, String>,
}

/// 64 hexadecimal digits that stand for a stage's name, code version, settings and inputs: with these its outputs are
/// settled to the bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(String);

impl Key {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a stage has to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It does not.
    Fresh,
    /// It does: it has not finished in this folder, or began anew and did not finish.
    New,
    /// It does, for this reason, in words that follow "because".
    Stale(String),
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    key: Key,
    package: String,
    version: u32,
    settings: Value,
    inputs: BTreeMap<String, String>,
    /// Fingerprints, by path relative to the run folder.
    outputs: BTreeMap<String, String>,
    /// Seconds since 1970-01-01 UTC.
    finished: u64,
}

impl Stage {
    /// A stage of the given settings. `version` is raised whenever the stage's code gives other outputs for the same
    /// inputs; the package's version counts as well.
    ///
    /// Settings hold what changes the outputs and nothing else: no number of threads.
    pub fn new(name: &str, version: u32, settings: &impl Serialize) -> Result<Self, StageError> {
        let settings = serde_json::to_value(settings).map_err(|source| StageError::Settings { stage: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), version, settings, inputs: BTreeMap::new() })
    }

    /// Adds a file or folder that the stage reads, by its [`fingerprint`].
    pub fn reads(mut self, input: &str, path: &std::path::Path) -> Result<Self, StageError> {
        self.inputs.insert(input.to_owned(), fingerprint(path)?);
        Ok(self)
    }

    /// Adds something else that the stage reads, by a digest of what it holds.
    pub fn holds(mut self, input: &str, digest: String) -> Self {
        self.inputs.insert(input.to_owned(), digest);
        self
    }

    /// Adds a stage whose outputs this one reads: its key settles them.
    pub fn after(mut self, stage: &Self) -> Self {
        self.inputs.insert(stage.name.clone(), stage.key().0);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fingerprints of what it reads, by name.
    pub fn inputs(&self) -> &BTreeMap<String, String> {
        &self.inputs
    }

    /// What stands for it.
    pub fn key(&self) -> Key {
        let parts = serde_json::json!([FORMAT, self.name, env!("CARGO_PKG_VERSION"), self.version, self.settings, self.inputs]);
        Key(hex::encode(Sha256::digest(canonical(&parts))))
    }

    /// Whether it has to run.
    pub fn freshness(&self, run: &RunFolder) -> Result<Freshness, StageError> {
        let stale = |reason: String| Ok(Freshness::Stale(reason));
        let path = run.record(&self.name);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Freshness::New),
            Err(error) => return Err(at(&path)(error)),
        };
        let record: Record = match serde_json::from_slice(&text) {
            Ok(record) => record,
            Err(_) => return stale("its record cannot be read".to_owned()),
        };
        if record.key != self.key() {
            return stale(self.difference(&record));
        }
        for (output, before) in &record.outputs {
            match fingerprint(&run.join(output)) {
                Ok(now) if now == *before => {}
                Ok(_) => return stale(format!("its output {output} was changed since")),
                Err(_) => return stale(format!("its output {output} is gone")),
            }
        }
        Ok(Freshness::Fresh)
    }

    /// What is not as it was.
    fn difference(&self, record: &Record) -> String {
        if record.package != env!("CARGO_PKG_VERSION") || record.version != self.version || record.format != FORMAT {
            return "it was made by another version of the program".to_owned();
        }
        if let Some(setting) = first_difference(&record.settings, &self.settings, String::new()) {
            return format!("the setting {setting} changed");
        }
        let changed = self.inputs.iter().find(|(name, hash)| record.inputs.get(*name) != Some(*hash));
        match changed {
            Some((name, _)) => format!("its input {name} changed"),
            None => "its inputs changed".to_owned(),
        }
    }

    /// Forgets that it was done: to be called before any of its outputs changes.
    pub fn begin(&self, run: &RunFolder) -> Result<(), StageError> {
        remove(&run.record(&self.name))
    }

    /// Notes that it is done and what it wrote, by path relative to the run folder: to be called when all outputs are in
    /// place.
    pub fn finish(&self, run: &RunFolder, outputs: &[&str]) -> Result<(), StageError> {
        let mut fingerprints = BTreeMap::new();
        for output in outputs {
            let path = run.join(output);
            if !path.exists() {
                return Err(StageError::NoOutput { stage: self.name.clone(), path });
            }
            fingerprints.insert((*output).to_owned(), fingerprint(&path)?);
        }
        let finished = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let record = Record {
            format: FORMAT,
            key: self.key(),
            package: env!("CARGO_PKG_VERSION").to_owned(),
            version: self.version,
            settings: self.settings.clone(),
            inputs: self.inputs.clone(),
            outputs: fingerprints,
            finished,
        };
        let text = serde_json::to_vec_pretty(&record).map_err(|source| StageError::Settings { stage: self.name.clone(), source })?;
        let path = run.record(&self.name);
        atomic_file(&path, |out| out.write_all(&text).map_err(at(&path)))
    }
}

/// The value's text with sorted keys: whether `serde_json`'s own maps are sorted depends on a feature that any dependency
/// may turn on.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let entries: Vec<String> =
                sorted.into_iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

/// The dotted key of the first setting that differs.
fn first_difference(before: &Value, now: &Value, path: String) -> Option<String> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (before, now) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter()
                .find_map(|key| first_difference(a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), below(key)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(k, (a, b))| first_difference(a, b, below(&k.to_string())))
        }
        (a, b) => (a != b).then_some(path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    struct World {
        dir: tempfile::TempDir,
        run: RunFolder,
    }

    impl World {
        /// A run folder in which `ingest` read `data/` and `cohort` came after it.
        fn done() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("data")).unwrap();
            fs::write(dir.path().join("data/a.dcm"), "a").unwrap();
            let world = Self { run: RunFolder::open(&dir.path().join("run")).unwrap(), dir };
            for stage in [world.ingest(), world.cohort()] {
                stage.begin(&world.run).unwrap();
                world.write(stage.name());
                stage.finish(&world.run, &[stage.name()]).unwrap();
            }
            world
        }

        fn write(&self, output: &str) {
            fs::create_dir_all(self.run.join(output)).unwrap();
            fs::write(self.run.join(output).join("part"), "x").unwrap();
        }

        fn ingest(&self) -> Stage {
            Stage::new("ingest", 1, &json!({"size": 64, "window": {"center": 40}}))
                .unwrap()
                .reads("images", &self.dir.path().join("data"))
                .unwrap()
        }

        fn cohort(&self) -> Stage {
            Stage::new("cohort", 1, &json!({"seed": 7, "tasks": ["malignant"]})).unwrap().after(&self.ingest())
        }
    }

    /// `fresh`, `new`, or why not.
    #[track_caller]
    fn check(world: &World, stage: &Stage, expected: &str) {
        let found = match stage.freshness(&world.run).unwrap() {
            Freshness::Fresh => "fresh".to_owned(),
            Freshness::New => "new".to_owned(),
            Freshness::Stale(reason) => reason,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_done_stays_done() {
        let world = World::done();
        check(&world, &world.ingest(), "fresh");
        check(&world, &world.cohort(), "fresh");
        let World { dir, run } = world;
        let path = run.path().to_owned();
        drop(run);
        let world = World { run: RunFolder::open(&path).unwrap(), dir };
        check(&world, &world.cohort(), "fresh");
    }

    #[test]
    fn settings_inputs_and_code_count() {
        let world = World::done();
        let again = |version: u32, settings: Value| {
            Stage::new("ingest", version, &settings).unwrap().reads("images", &world.dir.path().join("data"))
        };
        check(&world, &again(1, json!({"window": {"center": 40}, "size": 64})).unwrap(), "fresh");
        check(&world, &again(1, json!({"size": 64, "window": {"center": 50}})).unwrap(), "the setting window.center changed");
        check(&world, &again(1, json!({"size": 64})).unwrap(), "the setting window changed");
        check(&world, &again(1, json!({"size": 64, "window": {"center": 40}, "kind": 1})).unwrap(), "the setting kind changed");
        check(&world, &again(2, json!({"size": 64, "window": {"center": 40}})).unwrap(), "it was made by another version of the program");
        fs::write(world.dir.path().join("data/b.dcm"), "b").unwrap();
        check(&world, &world.ingest(), "its input images changed");
        check(&world, &world.cohort(), "its input ingest changed");
    }

    #[test]
    fn outputs_count() {
        let world = World::done();
        fs::write(world.run.join("ingest/part"), "tampered").unwrap();
        check(&world, &world.ingest(), "its output ingest was changed since");
        check(&world, &world.cohort(), "fresh");
        fs::remove_dir_all(world.run.join("cohort")).unwrap();
        check(&world, &world.cohort(), "its output cohort is gone");
    }

    #[test]
    fn killed_half_way_is_not_done() {
        let world = World::done();
        let stage = world.cohort();
        stage.begin(&world.run).unwrap();
        check(&world, &stage, "new");
        world.write("cohort");
        check(&world, &stage, "new");
        stage.finish(&world.run, &["cohort"]).unwrap();
        check(&world, &stage, "fresh");
    }

    #[test]
    fn a_damaged_record_is_none() {
        let world = World::done();
        let path = world.run.record("cohort");
        let text = fs::read(&path).unwrap();
        for damaged in [&b""[..], b"{", &text[..text.len() / 2], b"[]", b"\xff\xfe"] {
            fs::write(&path, damaged).unwrap();
            check(&world, &world.cohort(), "its record cannot be read");
        }
    }

    #[test]
    fn an_output_that_is_not_there_is_an_error() {
        let world = World::done();
        let error = world.ingest().finish(&world.run, &["ingest", "rejected.jsonl"]).unwrap_err().to_string();
        assert!(error.contains("rejected.jsonl: the stage `ingest` ended without writing it"), "{error}");
    }
}
