//! The command line: `resolve` in the resolve pod, `fetch` in a serving pod, `cache` in the node cache's.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::{Env, Folders, cache, resolve};
use crate::formats::{ResolveReport, SourceRequest, paths, ports};

/// Brings ONNX models from their stores.
#[derive(Parser)]
#[command(name = "modelwright-loader", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pin a source and read its graph; ends with the report.
    Resolve {
        /// A SourceRequest, JSON.
        #[arg(long)]
        source: String,
        /// Where the report goes.
        #[arg(long, default_value = "/dev/termination-log")]
        report: PathBuf,
        #[command(flatten)]
        mounts: Mounts,
    },
    /// Keep the models that the assignment names in the pod's folder; runs until it is told to stop.
    Fetch {
        /// The Assignments file.
        #[arg(long, default_value = paths::ASSIGNMENT)]
        assignment: PathBuf,
        /// The folder to fill.
        #[arg(long, default_value = paths::MODELS)]
        models: PathBuf,
        /// The node's cache, http://host:port.
        #[arg(long, env = "MODELWRIGHT_NODE_CACHE")]
        node_cache: Option<String>,
        #[arg(long, hide = true, default_value = paths::NODE_CACHE_TOKEN)]
        node_cache_token: PathBuf,
        #[command(flatten)]
        mounts: Mounts,
    },
    /// Keep what the loaders of this node have fetched, for the next; runs until it is told to stop.
    Cache {
        /// Where the files stand.
        #[arg(long, default_value = "/var/cache/modelwright")]
        files: PathBuf,
        /// Of all of them; the least recently used make room.
        #[arg(long)]
        max_bytes: u64,
        /// Of the disk: nothing is kept that would leave less of it free.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(..=100))]
        min_free_percent: u64,
        #[arg(long, hide = true, default_value_t = ports::NODE_CACHE)]
        port: u16,
        #[arg(long, hide = true, default_value_t = ports::ADMIN)]
        admin_port: u16,
        /// Which knows whose token a loader shows. Absent: the cluster's own, as its pods know it.
        #[arg(long)]
        api_server: Option<String>,
        #[arg(long, hide = true, default_value = "/var/run/secrets/kubernetes.io/serviceaccount")]
        service_account: PathBuf,
    },
}

#[derive(Args)]
struct Mounts {
    #[arg(long, hide = true, default_value = paths::STORE_SECRET)]
    secret_dir: PathBuf,
    #[arg(long, hide = true, default_value = paths::CA_BUNDLE)]
    ca_dir: PathBuf,
    #[arg(long, hide = true, default_value = paths::CLAIM)]
    claim_dir: PathBuf,
}

impl Mounts {
    fn env(self) -> Env {
        Env { secret: self.secret_dir, ca: self.ca_dir, claim: self.claim_dir, ..Env::default() }
    }
}

/// Runs a command until it ends or SIGTERM comes.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            error!(error = %e, "can't start");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Resolve { source, report, mounts } => {
                until_told(report_on(source, &report, mounts.env()), ExitCode::FAILURE).await
            }
            Command::Fetch { assignment, models, node_cache, node_cache_token, mounts } => {
                let access = |address| cache::Access { address, token: node_cache_token };
                let env = Env { cache: node_cache.map(access), ..mounts.env() };
                let agent = async {
                    super::fetch(Folders { assignment, models }, env).await;
                    ExitCode::SUCCESS
                };
                until_told(agent, ExitCode::SUCCESS).await
            }
            Command::Cache {
                files,
                max_bytes,
                min_free_percent,
                port,
                admin_port,
                api_server,
                service_account,
            } => {
                let api_server = api_server.unwrap_or_else(cluster);
                let options = cache::Options {
                    files,
                    max_bytes,
                    min_free_percent,
                    port,
                    admin_port,
                    api_server,
                    service_account,
                };
                let serving = async {
                    match cache::run(options, |_, _| {}).await {
                        Ok(()) => ExitCode::SUCCESS,
                        Err(error) => {
                            error!(error, "can't serve");
                            ExitCode::FAILURE
                        }
                    }
                };
                until_told(serving, ExitCode::SUCCESS).await
            }
        }
    });
    // A read of a dead volume must not keep the pod.
    runtime.shutdown_background();
    code
}

/// What every pod is told of its cluster.
fn cluster() -> String {
    let told = |name: &str| std::env::var(name).unwrap_or_default();
    let host = told("KUBERNETES_SERVICE_HOST");
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    format!("https://{host}:{}", told("KUBERNETES_SERVICE_PORT"))
}

/// As process 1 of its container, the loader gets no signal that it does not ask for.
async fn until_told(work: impl Future<Output = ExitCode>, told: ExitCode) -> ExitCode {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return work.await;
    };
    tokio::select! {
        code = work => code,
        _ = term.recv() => told,
        _ = int.recv() => told,
    }
}

async fn report_on(source: String, path: &Path, env: Env) -> ExitCode {
    let start = Instant::now();
    let report = match serde_json::from_str::<SourceRequest>(&source) {
        Err(e) => failed("ModelInvalid", format!("--source is no source request: {e}")),
        Ok(request) => match resolve(&request, &env).await {
            Ok(outcome) => {
                let (requests, bytes) = (outcome.requests, outcome.bytes);
                let seconds = start.elapsed().as_secs_f64();
                info!(uri = request.uri, requests, bytes, seconds, "resolved");
                ResolveReport::Resolved(Box::new(outcome.resolved))
            }
            Err(e) => failed(e.reason(), e.to_string()),
        },
    };
    let (text, mut code) = match report.encode() {
        Ok(text) => (text, if matches!(report, ResolveReport::Resolved(_)) { 0 } else { 1 }),
        Err(e) => (format!("ModelInvalid: {e}"), 1),
    };
    if code != 0 {
        error!(report = text, "not resolved");
    }
    if let Err(e) = tokio::fs::write(path, text).await {
        error!(path = %path.display(), error = %e, "can't write the report");
        code = 1;
    }
    ExitCode::from(code)
}

fn failed(reason: &str, message: String) -> ResolveReport {
    ResolveReport::Failed { reason: reason.into(), message }
}
