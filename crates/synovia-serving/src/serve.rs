//! Listening, and ending without losing what was accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::App;
use crate::error::ServingError;
use crate::log::Log;
use crate::settings::Settings;
use crate::tls::{PeerCertificate, Tls};
use crate::{grpc, rest};

/// How long a client may take over the head of a request.
const HEAD_SECONDS: u64 = 10;
/// What a stream of HTTP/2 may send before it is read: most images at once.
const WINDOW_BYTES: u32 = 4 << 20;
/// How long accepting stops when the system has no more files to give.
const BREATH: Duration = Duration::from_millis(50);
/// How often it is looked whether certificates were written.
const RENEW: Duration = Duration::from_secs(30);

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// REST.
    pub rest: SocketAddr,
    /// gRPC.
    pub grpc: Option<SocketAddr>,
}

async fn listen(address: &str) -> Result<TcpListener, ServingError> {
    TcpListener::bind(address).await.map_err(|source| ServingError::Listen { address: address.to_owned(), source })
}

/// Serves until `end` is done (a signal), then answers what it has and returns. `listening` is called when it can be connected to;
/// it is ready when all models are loaded, which `/v2/health/ready` says.
///
/// # Errors
/// Where it can't listen, or no model can be loaded.
pub async fn serve(
    settings: Settings,
    end: impl Future<Output = ()> + Send,
    listening: impl FnOnce(Listening),
) -> Result<(), ServingError> {
    let addressed = |source| ServingError::System { what: "the address that it listens on", source };
    let rest_listener = listen(&settings.address).await?;
    let grpc_listener = match &settings.grpc_address {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let tls_files = settings.tls.clone();
    let tls = |protocols: &[&[u8]]| tls_files.as_ref().map(|files| Tls::open(files, protocols).map(Arc::new)).transpose();
    // An address is one protocol's, or both of HTTP's.
    let (rest_tls, grpc_tls) = (tls(&[b"h2", b"http/1.1"])?, if grpc_listener.is_some() { tls(&[b"h2"])? } else { None });
    let app = App::new(settings);
    let grpc_address = grpc_listener.as_ref().map(TcpListener::local_addr).transpose().map_err(addressed)?;
    listening(Listening { rest: rest_listener.local_addr().map_err(addressed)?, grpc: grpc_address });

    let (stop, stopped) = watch::channel(false);
    let timeout = app.settings.timeout;
    let certificates: Vec<Arc<Tls>> = rest_tls.iter().chain(&grpc_tls).cloned().collect();
    let mut accepting = vec![tokio::spawn(accept(rest_listener, rest_tls, rest(Arc::clone(&app)), stopped.clone(), timeout))];
    if let Some(listener) = grpc_listener {
        accepting.push(tokio::spawn(accept(listener, grpc_tls, grpc(Arc::clone(&app)), stopped.clone(), timeout)));
    }
    // Without certificates, too: a server that is told to read them again is not to end.
    accepting.push(tokio::spawn(renew(certificates, app.log, stopped)));
    let load = Arc::clone(&app);
    let mut loading = tokio::task::spawn_blocking(move || load.load());
    tokio::pin!(end);
    let outcome = tokio::select! {
        loaded = &mut loading => match loaded {
            Ok(Ok(())) => {
                app.log.event("ready", serde_json::json!({}));
                end.as_mut().await;
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(error) => Err(ServingError::System { what: "loading the models", source: std::io::Error::other(error) }),
        },
        () = &mut end => Ok(()),
    };
    app.drain();
    app.log.event("drain", serde_json::json!({}));
    // Whoever accepts also ends, and then nobody listens.
    let _ = stop.send(true);
    for task in accepting {
        let _ = task.await;
    }
    let traces = Arc::clone(&app);
    let _ = tokio::task::spawn_blocking(move || traces.traces.close()).await;
    app.log.event("end", serde_json::json!({}));
    outcome
}

/// Reads certificates again when they were written, or when the process is told to (SIGHUP).
async fn renew(certificates: Vec<Arc<Tls>>, log: Log, mut stopped: watch::Receiver<bool>) {
    let Ok(mut told) = signal(SignalKind::hangup()) else { return };
    loop {
        let is_told = tokio::select! {
            _ = told.recv() => true,
            () = tokio::time::sleep(RENEW) => false,
            _ = stopped.changed() => return,
        };
        for tls in &certificates {
            if is_told || tls.is_old() {
                let failure = tls.reload().err().map(|error| error.to_string());
                log.event("certificate", serde_json::json!({ "failure": failure }));
            }
        }
    }
}

/// Accepts until it is stopped; then waits for what is under way, as long as a request may take.
async fn accept(listener: TcpListener, tls: Option<Arc<Tls>>, router: Router, mut stopped: watch::Receiver<bool>, timeout: Duration) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(HEAD_SECONDS));
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .keep_alive_interval(Duration::from_mins(1));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        // Answers are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let (watcher, builder, router, tls) = (graceful.watcher(), builder.clone(), router.clone(), tls.clone());
        tokio::spawn(async move {
            // Clients go whenever they want to.
            let Some(tls) = tls else {
                let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
                let _ = watcher.watch(connection).await;
                return;
            };
            let hello = tokio::time::timeout(Duration::from_secs(HEAD_SECONDS), tls.acceptor.accept(stream));
            let Ok(Ok(stream)) = hello.await else { return };
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(PeerCertificate::of);
            let router = shown.map_or(router.clone(), |certificate| router.layer(Extension(certificate)));
            let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
            let _ = watcher.watch(connection).await;
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(timeout, graceful.shutdown()).await;
}

/// [`serve`] on threads of its own until the process is told to end (SIGTERM, SIGINT).
///
/// # Errors
/// As [`serve`], and where the system gives no threads.
pub fn run(settings: Settings, listening: impl FnOnce(Listening)) -> Result<(), ServingError> {
    let threads = |source| ServingError::System { what: "threads for the server", source };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(64).build().map_err(threads)?;
    let outcome = runtime.block_on(async {
        let signals = |source| ServingError::System { what: "being told of signals", source };
        let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve(settings, end, listening).await
    });
    // What is still being prepared for somebody who has gone is of no use.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}
