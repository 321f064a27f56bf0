//! What all requests share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde_json::json;
use synovia_onnx::TensorInfo;
use tokio::sync::Semaphore;

use crate::audit::AuditLog;
use crate::batch::{Fitting, Output, digest};
use crate::body::{Held, off_thread};
use crate::client::{self, Caller, Rates, Role, Shown};
use crate::error::{Refusal, ServingError};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::queue::Arriving;
use crate::repository::Repository;
use crate::scratch;
use crate::settings::Settings;
use crate::trace::Traces;

/// Studies that are fetched from the image archive and prepared at a time. They wait for the archive more than they work.
const MAX_FETCHES: usize = 16;

/// Output values up to which the audit log has them, and not their digest alone.
const MAX_AUDITED_VALUES: usize = 256;

/// What all requests share: models, settings, counts.
pub struct App {
    pub(crate) settings: Settings,
    pub(crate) repository: Repository,
    pub(crate) metrics: Metrics,
    pub(crate) log: Log,
    pub(crate) traces: Traces,
    audit: OnceLock<AuditLog>,
    rates: Rates,
    is_loaded: AtomicBool,
    is_draining: AtomicBool,
    held: Arc<AtomicUsize>,
    /// Uploads that are prepared at a time, and those that may wait for it.
    pub(crate) preparing: Arc<Semaphore>,
    pub(crate) fetching: Arc<Semaphore>,
    pub(crate) uploads: Arc<Semaphore>,
    /// Predictions that are explained at a time.
    pub(crate) explaining: Semaphore,
}

impl App {
    /// Without a model yet: see [`App::load`].
    pub fn new(settings: Settings) -> Arc<Self> {
        scratch::sweep();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let log = Log { quiet: settings.quiet, access: settings.access_log };
        Arc::new(Self {
            traces: Traces::new(settings.traces.as_deref(), log),
            repository: Repository::new(settings.clone()),
            metrics: Metrics::default(),
            log,
            audit: OnceLock::new(),
            rates: Rates::default(),
            is_loaded: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            held: Arc::default(),
            preparing: Arc::new(Semaphore::new(cores)),
            fetching: Arc::new(Semaphore::new(MAX_FETCHES)),
            uploads: Arc::new(Semaphore::new(settings.max_queue)),
            explaining: Semaphore::new(cores),
            settings,
        })
    }

    /// Loads and warms up all models of the folder, then says that it is ready.
    ///
    /// # Errors
    /// [`ServingError::NoModel`] where none of them can be loaded, [`ServingError::Audit`] where the audit log is no chain or can't be
    /// written.
    pub fn load(&self) -> Result<(), ServingError> {
        if let Some(path) = &self.settings.audit_log {
            let log = AuditLog::open(path).map_err(|source| ServingError::Audit { path: path.clone(), source })?;
            let _ = self.audit.set(log);
        }
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

    /// Who asks, if they may.
    ///
    /// - runs: whether what is asked for costs more than the asking
    pub(crate) fn caller(&self, shown: &Shown<'_>, needs: Role, protocol: &'static str, runs: bool) -> Result<Caller, Refusal> {
        let caller = client::caller(&self.settings.clients, shown, needs, protocol)?;
        if let Some(per_second) = self.settings.rate.filter(|_| runs) {
            self.rates.take(&caller.name, per_second, Instant::now())?;
        }
        Ok(caller)
    }

    /// Runs a model; with an audit log, the answer is given when its line is written.
    ///
    /// - event: what it is called there
    pub(crate) async fn infer(
        self: &Arc<Self>,
        model: &Arc<Model>,
        caller: &Caller,
        event: &'static str,
        inputs: Fitting,
        deadline: Instant,
        arriving: Option<Arriving<'_>>,
    ) -> Result<Vec<Output>, Refusal> {
        let span = caller.span.map(|span| span.within());
        let n = inputs.rows;
        let outcome = self.infer_audited(model, caller, event, inputs, deadline, arriving).await;
        self.traces.end(span, "infer", false, outcome.is_err(), &[("synovia.model", json!(model.name)), ("synovia.examples", json!(n))]);
        outcome
    }

    async fn infer_audited(
        self: &Arc<Self>,
        model: &Arc<Model>,
        caller: &Caller,
        event: &'static str,
        inputs: Fitting,
        deadline: Instant,
        arriving: Option<Arriving<'_>>,
    ) -> Result<Vec<Output>, Refusal> {
        if self.audit.get().is_none() {
            return model.infer(inputs, deadline, arriving).await;
        }
        let (examples, input) = (inputs.rows, inputs.digest());
        let outputs = model.infer(inputs, deadline, arriving).await?;
        let mut event = json!({
            "event": event, "client": *caller.name, "protocol": caller.protocol, "model": model.name, "version": model.version.to_string(),
            "model_sha256": model.sha256, "examples": examples, "input_sha256": input, "output_sha256": digest(&outputs),
        });
        if outputs.iter().map(|output| output.values.len()).sum::<usize>() <= MAX_AUDITED_VALUES {
            let of = |(info, output): (&TensorInfo, &Output)| (info.name.clone(), json!(output.values));
            event["outputs"] = model.outputs.iter().zip(&outputs).map(of).collect::<serde_json::Map<_, _>>().into();
        }
        self.audit(event).await?;
        Ok(outputs)
    }

    /// Adds a line to the audit log, where there is one.
    pub(crate) async fn audit(self: &Arc<Self>, event: serde_json::Value) -> Result<(), Refusal> {
        if self.audit.get().is_none() {
            return Ok(());
        }
        let app = Arc::clone(self);
        let write = move || {
            let Some(log) = app.audit.get() else { return Ok(()) };
            log.append(&event).map_err(|error| {
                app.log.event("audit", json!({ "failure": error.kind().to_string() }));
                Refusal::Unavailable(
                    "the audit log can't be written, and nothing is predicted without it; tell who runs the server".to_owned(),
                )
            })
        };
        off_thread(write).await
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
    pub(crate) fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, Refusal> {
        match self.repository.get(name, version) {
            Err(Refusal::NotFound(_)) if !self.is_loaded.load(Ordering::Acquire) => {
                Err(Refusal::Unavailable("models are still being loaded".to_owned()))
            }
            outcome => outcome,
        }
    }
}
