//! The process: from the first list to the last answer.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::pod::now;
use super::{Certificate, Keys, Proxy, Table, Tls, admin, announcements, follow, watches};
use crate::cgroup::Cgroup;
use crate::listen::{self, Patience, Phase};

pub struct Options {
    pub namespace: String,
    pub port: u16,
    pub tls_port: u16,
    pub admin_port: u16,
    pub announce_port: u16,
    /// Mounted Secrets; either may be missing.
    pub api_keys: PathBuf,
    pub tls: PathBuf,
    /// After SIGTERM, connections are still accepted for so long: until every node has forgotten this pod.
    pub drain: Duration,
    /// After SIGTERM, for all of it.
    pub grace: Duration,
    pub connection_age: Duration,
    pub connections: usize,
    /// Of request bodies in memory. None: half of what the container may use.
    pub body_bytes: Option<usize>,
}

/// Without a limit of the container.
const BODY_BYTES: u64 = 1 << 30;
/// A watch without news ends after 290 s by its own; one whose API server has vanished must not be waited for.
const API_SILENCE: Duration = Duration::from_secs(300);
const API_CONNECT: Duration = Duration::from_secs(10);
const SWEEP: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// A port can't be listened on, or there is no way to the API server.
pub async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Each connection is a file; the usual soft limit is for programs that count them in a bitmap.
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    let memory = Cgroup::default().memory_limit().map_or(BODY_BYTES, |memory| memory / 2);
    let table =
        Table::new(options.body_bytes.unwrap_or_else(|| usize::try_from(memory).unwrap_or(usize::MAX)));
    let (ready, readiness) = watch::channel(false);
    let (phase, phases) = watch::channel(Phase::Serving);

    let listener = listen::bind(options.admin_port)
        .await
        .map_err(|e| format!("admin port {} can't be listened on: {e}", options.admin_port))?;
    let router = admin(table.clone(), readiness, phases.clone());
    // Its streams never end: they end with the process.
    let (_serving, always) = watch::channel(Phase::Serving);
    tokio::spawn(listen::serve(listener, router, always, Patience::default()));
    let listener = listen::bind(options.announce_port)
        .await
        .map_err(|e| format!("port {} for announcements can't be listened on: {e}", options.announce_port))?;
    tokio::spawn(announcements(listener, table.clone()));
    let settling = table.clone();
    tokio::spawn(async move { settling.settle().await });
    let sweeping = table.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            sweeping.sweep(now());
        }
    });

    let keyed = table.clone();
    tokio::spawn(follow(options.api_keys, move |folder| keyed.keys.store(Arc::new(Keys::read(folder)))));
    let certificate = Certificate::new();
    let certified = certificate.clone();
    tokio::spawn(follow(options.tls, move |folder| certified.read(folder)));

    let mut config = Config::infer().await?;
    config.connect_timeout = Some(API_CONNECT);
    config.read_timeout = Some(API_SILENCE);
    let client = Client::try_from(config)?;
    tokio::select! {
        () = watches::start(client, &options.namespace, &table) => {}
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    let listener = listen::bind(options.port)
        .await
        .map_err(|e| format!("port {} can't be listened on: {e}", options.port))?;
    ready.send_replace(true);
    tracing::info!(namespace = options.namespace, port = options.port, routes = table.all().len(), "serving");
    let patience = Patience {
        age: Some(options.connection_age),
        connections: options.connections,
        ..Patience::default()
    };
    let secure = certificate.acceptor()?;
    let secure =
        serve_secure(certificate, secure, options.tls_port, Proxy(table.clone()), phases.clone(), patience);
    let plain = listen::serve(listener, Proxy(table.clone()), phases, patience);
    let mut serving = pin!(async { tokio::join!(plain, secure) });
    tokio::select! {
        _ = &mut serving => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    let drained = async {
        let _ = phase.send(Phase::Draining);
        let _ = tokio::time::timeout(options.drain, &mut serving).await;
        let _ = phase.send(Phase::Closing);
        serving.await;
    };
    if tokio::time::timeout(options.grace, drained).await.is_err() {
        tracing::warn!("requests were still held or running at the end of the grace period");
    }
    Ok(())
}

/// Over TLS, from when there is a certificate.
async fn serve_secure(
    certificate: Arc<Certificate>,
    secure: Tls,
    port: u16,
    app: Proxy,
    mut phases: watch::Receiver<Phase>,
    patience: Patience,
) {
    tokio::select! {
        () = certificate.came() => {}
        // Nobody was told of the port.
        _ = phases.wait_for(|phase| *phase > Phase::Serving) => return,
    }
    match listen::bind(port).await {
        Ok(listener) => {
            tracing::info!(port, "serving over TLS");
            listen::serve_over(listener, secure, app, phases, patience).await;
        }
        Err(error) => tracing::error!(port, %error, "the TLS port can't be listened on"),
    }
}
