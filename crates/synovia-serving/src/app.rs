//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::body::Held;
use crate::error::{Refusal, ServingError};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::repository::Repository;
use crate::settings::Settings;

/// Studies that are fetched from the image archive and prepared at a time. They wait for the archive more than they work.
const MAX_FETCHES: usize = 16;

/// What all requests share: models, settings, counts.
pub struct App {
    pub(crate) settings: Settings,
    pub(crate) repository: Repository,
    pub(crate) metrics: Metrics,
    pub(crate) log: Log,
    token: Option<[u8; 32]>,
    is_loaded: AtomicBool,
    is_draining: AtomicBool,
    held: Arc<AtomicUsize>,
    /// Uploads that are prepared at a time, and those that may wait for it.
    pub(crate) preparing: Arc<Semaphore>,
    pub(crate) fetching: Arc<Semaphore>,
    pub(crate) uploads: Arc<Semaphore>,
}

impl App {
    /// Without a model yet: see [`App::load`].
    pub fn new(settings: Settings) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            repository: Repository::new(settings.clone()),
            metrics: Metrics::default(),
            log: Log { quiet: settings.quiet, access: settings.access_log },
            token: settings.token.as_ref().map(|token| Sha256::digest(token).into()),
            is_loaded: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            held: Arc::default(),
            preparing: Arc::new(Semaphore::new(cores)),
            fetching: Arc::new(Semaphore::new(MAX_FETCHES)),
            uploads: Arc::new(Semaphore::new(settings.max_queue)),
            settings,
        })
    }

    /// Loads and warms up all models of the folder, then says that it is ready.
    ///
    /// # Errors
    /// [`ServingError::NoModel`] where none of them can be loaded.
    pub fn load(&self) -> Result<(), ServingError> {
        let outcome = self.repository.load_all();
        for listed in self.repository.index() {
            let more = serde_json::json!({"model": listed.name, "version": listed.version, "state": listed.state, "reason": listed.reason});
            self.log.event("model", more);
        }
        outcome.map_err(|reason| ServingError::NoModel { folder: self.settings.models.clone(), reason })?;
        self.is_loaded.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire) && !self.is_draining.load(Ordering::Acquire)
    }

    /// No more is ready, so that nobody sends more; what comes all the same is answered.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Whether `Authorization` shows the token. Digests are compared, so that the time it takes tells nothing of the token.
    pub(crate) fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let Some(expected) = self.token else { return true };
        let shown = authorization.and_then(|value| {
            let (scheme, token) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        shown.is_some_and(|token| <[u8; 32]>::from(Sha256::digest(token)) == expected)
    }

    /// When a request that comes now has to be answered.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    /// Room for a body, which is given back when it is dropped.
    pub(crate) fn hold(&self) -> Held {
        Held::new(Arc::clone(&self.held), self.settings.max_held_bytes)
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// A loaded model; 503 while models are still being loaded.
    pub(crate) fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<crate::model::Model>, Refusal> {
        match self.repository.get(name, version) {
            Err(Refusal::NotFound(_)) if !self.is_loaded.load(Ordering::Acquire) => {
                Err(Refusal::Unavailable("models are still being loaded".to_owned()))
            }
            outcome => outcome,
        }
    }
}
