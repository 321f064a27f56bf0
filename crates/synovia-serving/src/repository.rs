//! The folder of models, and which of them are loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Serialize;
use utoipa::ToSchema;

use crate::batch::shown;
use crate::error::{LoadError, Refusal};
use crate::load::{hash_of, load, read};
use crate::model::Model;
use crate::settings::Settings;

const FILE: &str = "model.onnx";

/// The folder of models, and which of them are loaded.
pub(crate) struct Repository {
    settings: Settings,
    models: RwLock<BTreeMap<String, Entry>>,
    /// Held while a model is loaded: two loads of one model would race for its place.
    loading: Mutex<()>,
}

/// What is known of a model that was loaded once, or tried to be.
#[derive(Clone, Default)]
struct Entry {
    versions: BTreeMap<u64, Arc<Model>>,
    /// Why the last load failed.
    failure: Option<String>,
}

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Listed {
    pub name: String,
    pub version: String,
    /// READY, LOADING, UNAVAILABLE or empty for one that was never loaded.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: String,
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

impl Repository {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, models: RwLock::default(), loading: Mutex::default() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.settings.models
    }

    fn entries<T>(&self, f: impl FnOnce(&BTreeMap<String, Entry>) -> T) -> T {
        f(&self.models.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, f: impl FnOnce(&mut BTreeMap<String, Entry>)) {
        f(&mut self.models.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Names in the folder.
    fn names(&self) -> std::io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(self.folder())? {
            let path = entry?.path();
            let name =
                if path.is_dir() { path.file_name() } else { path.file_stem().filter(|_| path.extension().is_some_and(|e| e == "onnx")) };
            names.extend(name.and_then(|name| name.to_str()).filter(|name| is_name(name)).map(str::to_owned));
        }
        names.retain(|name| !self.files(name).is_empty());
        Ok(names)
    }

    /// The versions of a model that the folder has, and their files. One without a version is version 1.
    fn files(&self, name: &str) -> BTreeMap<u64, PathBuf> {
        let folder = self.folder().join(name);
        let mut files = BTreeMap::new();
        for path in [self.folder().join(format!("{name}.onnx")), folder.join(FILE)] {
            if path.is_file() {
                files.insert(1, path);
            }
        }
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let version =
                entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok().filter(|version| version.to_string() == name));
            let path = entry.path().join(FILE);
            if let Some(version) = version.filter(|_| path.is_file()) {
                files.insert(version, path);
            }
        }
        files
    }

    /// Loads all that the folder has. Failures are in the index; the first is returned where nothing could be loaded.
    pub(crate) fn load_all(&self) -> Result<(), String> {
        let mut failure = String::from("it holds none");
        let mut n_loaded = 0;
        for name in self.names().map_err(|error| error.to_string())? {
            match self.load(&name) {
                Ok(()) => n_loaded += 1,
                Err(error) if n_loaded == 0 => failure = format!("{name}: {error}"),
                Err(_) => {}
            }
        }
        if n_loaded > 0 { Ok(()) } else { Err(failure) }
    }

    /// Loads all versions of a model, or those that changed, beside those that answer; then they take their place at once. When one
    /// fails all stays as it is.
    pub(crate) fn load(&self, name: &str) -> Result<(), LoadError> {
        if !is_name(name) {
            return Err(LoadError::Name);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.entries(|models| models.get(name).cloned().unwrap_or_default());
        let files = self.files(name);
        if files.is_empty() {
            return Err(LoadError::Absent);
        }
        let one = |(version, path): (u64, PathBuf)| -> Result<(u64, Arc<Model>), LoadError> {
            let bytes = read(&path, version)?;
            let same = before.versions.get(&version).filter(|model| model.sha256 == hash_of(&bytes));
            let model = same.map_or_else(|| load(bytes, name, version, &self.settings).map(Arc::new), |model| Ok(Arc::clone(model)))?;
            Ok((version, model))
        };
        let loaded: Result<BTreeMap<u64, Arc<Model>>, LoadError> = files.into_iter().map(one).collect();
        let failure = loaded.as_ref().err().map(ToString::to_string);
        self.change(|models| {
            let entry = models.entry(name.to_owned()).or_default();
            entry.failure = failure;
            if let Ok(versions) = &loaded {
                entry.versions.clone_from(versions);
            }
        });
        loaded.map(drop)
    }

    /// Takes a model out of service; requests that it has are still answered.
    pub(crate) fn unload(&self, name: &str) -> Result<(), Refusal> {
        let mut known = false;
        self.change(|models| {
            if let Some(entry) = models.get_mut(name) {
                known = true;
                *entry = Entry::default();
            }
        });
        if known { Ok(()) } else { Err(unknown(name)) }
    }

    /// A loaded model: of the version, or the newest.
    pub(crate) fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, Refusal> {
        self.entries(|models| {
            let entry = models.get(name).ok_or_else(|| unknown(name))?;
            let newest = entry.versions.last_key_value();
            let Some(version) = version.filter(|version| !version.is_empty()) else {
                return newest
                    .map(|(_, model)| Arc::clone(model))
                    .ok_or_else(|| Refusal::Unavailable(format!("model `{name}` is not loaded")));
            };
            let found = version.parse().ok().and_then(|version: u64| entry.versions.get(&version));
            found
                .map(Arc::clone)
                .ok_or_else(|| Refusal::NotFound(format!("model `{name}` has no version {} that is loaded", shown(version))))
        })
    }

    /// Versions of a model that are loaded.
    pub(crate) fn versions(&self, name: &str) -> Vec<String> {
        self.entries(|models| models.get(name).map(|entry| entry.versions.keys().map(ToString::to_string).collect()).unwrap_or_default())
    }

    /// All loaded models.
    pub(crate) fn loaded(&self) -> Vec<Arc<Model>> {
        self.entries(|models| models.values().flat_map(|entry| entry.versions.values().cloned()).collect())
    }

    /// What the folder has and what is loaded.
    pub(crate) fn index(&self) -> Vec<Listed> {
        let on_disk = self.names().unwrap_or_default();
        self.entries(|models| {
            let names: BTreeSet<&String> = on_disk.iter().chain(models.keys()).collect();
            let mut listed = Vec::new();
            for name in names {
                let entry = models.get(name);
                let mut versions: BTreeSet<u64> = self.files(name).into_keys().collect();
                versions.extend(entry.into_iter().flat_map(|entry| entry.versions.keys().copied()));
                for version in versions {
                    let is_ready = entry.is_some_and(|entry| entry.versions.contains_key(&version));
                    let failure = entry.and_then(|entry| entry.failure.clone());
                    let (state, reason) = match (is_ready, failure) {
                        (true, failure) => ("READY", failure.map(|reason| format!("the last load failed: {reason}")).unwrap_or_default()),
                        (false, Some(reason)) => ("UNAVAILABLE", reason),
                        (false, None) => ("UNAVAILABLE", "unloaded".to_owned()),
                    };
                    listed.push(Listed { name: name.clone(), version: version.to_string(), state, reason });
                }
            }
            listed
        })
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal::NotFound(format!("there is no model {}; see /v2/repository/index", shown(name)))
}
