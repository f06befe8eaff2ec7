//! The command line of `modelwright-server`.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::batch::{BatchWish, Limits};
use super::console::Console;
use super::engine::assignment::CpuFallback;
use super::engine::ort::{Provider, ProviderName};
use super::model::Identity;
use super::report::Reporter;
use super::supervisor::{self, Announcer, SupervisorOptions};
use super::trail::Observer;
use super::worker::{self, WorkerOptions};
use crate::cgroup::Cgroup;
use crate::formats::{paths, ports};

/// Serves an ONNX model by the Open Inference Protocol, version 2: REST and gRPC on one port.
///
/// For example: modelwright-server --model resnet50.onnx, then curl localhost:8000/v2/models/resnet50
#[derive(Debug, Parser)]
#[command(
    name = "modelwright-server",
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    override_usage = "modelwright-server --model FILE [OPTIONS]"
)]
pub struct Cli {
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The main process of a serving pod: runs one worker for each assigned revision.
    #[command(hide = true)]
    Supervise(Supervise),
    /// One model, under a supervisor.
    #[command(hide = true)]
    Worker(Worker),
}

/// How models are run and requests are bounded; the supervisor passes it on to its workers.
#[derive(Debug, Args)]
struct Runtime {
    /// CPU, CUDA or TensorRT, with ONNX Runtime's options for it; repeatable, tried in order. One that does not load
    /// is an error. None given: CPU.
    #[arg(long = "execution-provider", value_name = "NAME[,KEY=VALUE…]")]
    execution_providers: Vec<String>,
    /// ONNX Runtime's session options by their own names; repeatable.
    #[arg(long = "session-option", value_name = "KEY=VALUE")]
    session_options: Vec<String>,
    /// What a model that was to run on a GPU may leave to the CPU: Forbid, ShapeOpsOnly (what computes shapes), Allow.
    #[arg(long, value_name = "POLICY", default_value = CpuFallback::default().name())]
    cpu_fallback: CpuFallback,
    /// Most of the GPU's memory that CUDA may allocate for the model. Absent: what it needs, twice, since two threads
    /// have a copy each.
    #[arg(long, value_name = "BYTES")]
    gpu_memory_limit: Option<u64>,
    /// Largest request body, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    max_request_bytes: usize,
    /// Requests that may wait for a thread; more are refused with 503.
    #[arg(long, value_name = "REQUESTS", default_value_t = 1000)]
    max_queued_requests: usize,
    /// Bytes of inputs that may wait for a thread; more are refused with 503.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    max_queued_bytes: usize,
    /// Rows that requests may share a run with. Absent: as many as pay, by measurement, where it is proven that answers
    /// don't depend on neighbours. 1: never.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_batch_size: Option<u32>,
    /// How long an idle thread waits for a fuller batch. 0: not at all.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    max_queue_delay_microseconds: u64,
    /// The batch axis of an input or output, where the model's signature does not tell it; repeatable.
    #[arg(long = "batch-axis", value_name = "TENSOR=AXIS")]
    batch_axes: Vec<String>,
    /// A request that takes longer is answered with 504.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    request_timeout_seconds: u64,
    /// Write a JSON line for each request to standard output. Traces: set OTEL_EXPORTER_OTLP_ENDPOINT.
    #[arg(long, env = "MODELWRIGHT_ACCESS_LOG")]
    access_log: bool,
}

impl Runtime {
    fn providers(&self) -> Result<Vec<Provider>, String> {
        let parse = |text: &String| text.parse().map_err(|e| format!("--execution-provider {text}: {e}"));
        let providers =
            self.execution_providers.iter().map(parse).collect::<Result<Vec<Provider>, String>>()?;
        if self.gpu_memory_limit.is_some() && providers.iter().all(|p| p.name != ProviderName::Cuda) {
            return Err("--gpu-memory-limit bounds CUDA, which is not among the execution providers".into());
        }
        Ok(providers)
    }

    fn session_options(&self) -> Result<Vec<(String, String)>, String> {
        let parse = |text: &String| match text.split_once('=') {
            Some((key, value)) if !text.contains('\0') => Ok((key.to_string(), value.to_string())),
            _ => Err(format!("--session-option {text}: not key=value")),
        };
        self.session_options.iter().map(parse).collect()
    }

    fn batching(&self) -> Result<BatchWish, String> {
        let parse = |text: &String| match text.rsplit_once('=').map(|(name, axis)| (name, axis.parse())) {
            Some((name, Ok(axis))) if !name.is_empty() => Ok((name.to_string(), axis)),
            _ => Err(format!("--batch-axis {text}: not tensor=axis")),
        };
        Ok(BatchWish {
            max_rows: self.max_batch_size.map(|rows| rows as usize),
            delay: Duration::from_micros(self.max_queue_delay_microseconds),
            axes: self.batch_axes.iter().map(parse).collect::<Result<_, _>>()?,
        })
    }

    fn queue(&self) -> Limits {
        Limits { requests: self.max_queued_requests, bytes: self.max_queued_bytes }
    }

    /// These settings again, as arguments.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--max-request-bytes={}", self.max_request_bytes),
            format!("--max-queued-requests={}", self.max_queued_requests),
            format!("--max-queued-bytes={}", self.max_queued_bytes),
            format!("--max-queue-delay-microseconds={}", self.max_queue_delay_microseconds),
            format!("--request-timeout-seconds={}", self.request_timeout_seconds),
        ];
        arguments.push(format!("--cpu-fallback={}", self.cpu_fallback.name()));
        arguments.extend(self.gpu_memory_limit.map(|bytes| format!("--gpu-memory-limit={bytes}")));
        arguments.extend(self.execution_providers.iter().map(|p| format!("--execution-provider={p}")));
        arguments.extend(self.session_options.iter().map(|o| format!("--session-option={o}")));
        arguments.extend(self.max_batch_size.map(|rows| format!("--max-batch-size={rows}")));
        arguments.extend(self.batch_axes.iter().map(|axis| format!("--batch-axis={axis}")));
        arguments.extend(self.access_log.then(|| "--access-log".to_string()));
        arguments
    }
}

/// The way out.
#[derive(Debug, Args)]
struct Stop {
    /// After SIGTERM, requests are accepted this long: it takes a while until every client's node knows.
    #[arg(long, default_value_t = 5)]
    drain_seconds: u64,
    /// After SIGTERM, everything is over by then (the pod's terminationGracePeriodSeconds).
    #[arg(long, default_value_t = 30)]
    grace_seconds: u64,
}

impl Stop {
    /// Two seconds are kept for what still runs.
    fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds.min(self.grace_seconds.saturating_sub(2)))
    }

    /// The supervisor needs one second to see its workers end.
    fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds.saturating_sub(1).max(1))
    }
}

#[derive(Debug, Args)]
struct Serve {
    /// An ONNX file; external data lies beside it.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The model's name in requests; default: the file's name without its ending.
    #[arg(long)]
    name: Option<String>,
    #[arg(long, default_value_t = 8000)]
    port: u16,
    #[command(flatten)]
    runtime: Runtime,
}

#[derive(Debug, Args)]
struct Supervise {
    /// The assignments, a downward-API file.
    #[arg(long, default_value = paths::ASSIGNMENT)]
    assignment: PathBuf,
    /// Where the loader puts models.
    #[arg(long, default_value = paths::MODELS)]
    models: PathBuf,
    /// /healthz, /readyz, /metrics, /modelwright/v1/state.
    #[arg(long, default_value_t = ports::ADMIN)]
    admin_port: u16,
    /// A worker that is not ready by then is replaced.
    #[arg(long, default_value_t = 900)]
    startup_timeout_seconds: u64,
    /// A worker that gives no sign of life for so long is replaced.
    #[arg(long, default_value_t = 20)]
    hang_timeout_seconds: u64,
    /// What TensorRT compiles is kept here for the next load.
    #[arg(long)]
    cache_dir: Option<PathBuf>,
    /// A host name with the addresses of the gateways that are told when the pod is ready; only with the pod's own names.
    #[arg(long, value_name = "HOST:PORT", env = "MODELWRIGHT_GATEWAYS")]
    gateways: Option<String>,
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    #[arg(long, env = "POD_UID")]
    pod_uid: Option<String>,
    #[arg(long, env = "POD_IP")]
    pod_ip: Option<String>,
    #[command(flatten)]
    runtime: Runtime,
    #[command(flatten)]
    stop: Stop,
}

impl Supervise {
    fn announcer(&self) -> Option<Announcer> {
        Some(Announcer {
            gateways: self.gateways.clone()?,
            pod: self.pod_name.clone()?,
            uid: self.pod_uid.clone()?,
            ip: self.pod_ip.as_ref()?.parse().ok()?,
        })
    }
}

#[derive(Debug, Args)]
struct Worker {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    name: String,
    #[arg(long)]
    model_version: String,
    #[arg(long)]
    port: u16,
    /// Answered in the header modelwright-revision.
    #[arg(long)]
    revision: Option<String>,
    /// Answered in the header modelwright-digest.
    #[arg(long)]
    digest: Option<String>,
    /// Bytes of data the process may allocate.
    #[arg(long)]
    memory_limit: Option<u64>,
    /// What TensorRT compiles is kept here for the next load.
    #[arg(long)]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    runtime: Runtime,
    #[command(flatten)]
    stop: Stop,
}

/// Runs the command; the process's exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let by_hand = cli.command.is_none() && Console::is_wanted();
    crate::telemetry::init_at(if by_hand { "warn" } else { "info" });
    let ended = silence_onnxruntime().and_then(|()| match cli.command {
        Some(Command::Supervise(arguments)) => supervise(arguments),
        Some(Command::Worker(arguments)) => work(arguments),
        None => serve(cli.serve, by_hand),
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::from(2)
        }
    }
}

/// From 1.29 on, ONNX Runtime's official builds report to Microsoft, and write a device id to disk, as soon as their
/// environment is made (onnxruntime#27379). Only this variable, set before, keeps them from it, and a process can't set
/// its own safely: so it starts over, once, with the same arguments and process id.
fn silence_onnxruntime() -> Result<(), String> {
    const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(VARIABLE).is_some_and(|value| value == "1") {
        return Ok(());
    }
    let binary = std::env::current_exe().map_err(|e| format!("the binary can't be found: {e}"))?;
    let error =
        std::process::Command::new(binary).args(std::env::args_os().skip(1)).env(VARIABLE, "1").exec();
    Err(format!("the process can't start over: {error}"))
}

fn supervise(arguments: Supervise) -> Result<u8, String> {
    let providers = arguments.runtime.providers()?;
    arguments.runtime.session_options()?;
    arguments.runtime.batching()?;
    let announcer = arguments.announcer();
    let mut worker_arguments = arguments.runtime.arguments();
    worker_arguments.push(format!("--drain-seconds={}", arguments.stop.drain_seconds));
    worker_arguments.extend(arguments.cache_dir.map(|dir| format!("--cache-dir={}", dir.display())));
    // Workers end before the supervisor would have to kill them.
    worker_arguments.push(format!("--grace-seconds={}", arguments.stop.grace_seconds.saturating_sub(1)));
    let options = SupervisorOptions {
        assignment: arguments.assignment,
        models: arguments.models,
        admin_port: arguments.admin_port,
        startup_timeout: Duration::from_secs(arguments.startup_timeout_seconds),
        hang_timeout: Duration::from_secs(arguments.hang_timeout_seconds),
        grace: arguments.stop.grace(),
        cap_memory: providers.iter().all(|p| p.name == ProviderName::Cpu),
        announcer,
        worker_arguments,
    };
    // Files, children and probes: one thread is plenty.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("the runtime can't be started: {e}"))?;
    runtime.block_on(supervisor::run(options)).map_err(|e| e.to_string())
}

fn work(arguments: Worker) -> Result<u8, String> {
    let (drain, grace) = (arguments.stop.drain(), arguments.stop.grace());
    let options = WorkerOptions {
        model: arguments.model,
        identity: Identity {
            name: arguments.name,
            version: arguments.model_version,
            revision: arguments.revision,
            digest: arguments.digest,
        },
        port: arguments.port,
        providers: arguments.runtime.providers()?,
        session_options: arguments.runtime.session_options()?,
        cpus: Cgroup::default().cpus(),
        cpu_fallback: arguments.runtime.cpu_fallback,
        gpu_memory_limit: arguments.runtime.gpu_memory_limit,
        cache_dir: arguments.cache_dir,
        memory_limit: arguments.memory_limit,
        queue: arguments.runtime.queue(),
        batching: arguments.runtime.batching()?,
        max_request_bytes: arguments.runtime.max_request_bytes,
        request_timeout: Duration::from_secs(arguments.runtime.request_timeout_seconds),
        drain,
        grace,
    };
    let reporter = Reporter::supervisor().map_err(|e| format!("no supervisor: {e}"))?;
    start_worker(options, reporter, arguments.runtime.access_log)
}

fn serve(arguments: Serve, by_hand: bool) -> Result<u8, String> {
    let Some(model) = arguments.model else {
        return Err("--model names the file to serve; --help says more".into());
    };
    if !model.is_file() {
        return Err(format!("{} is not a file", model.display()));
    }
    let stem = || model.file_stem().map(|s| s.to_string_lossy().into_owned());
    let name = arguments.name.clone().or_else(stem).unwrap_or_else(|| "model".into());
    let reporter = match by_hand {
        true => Reporter::Console(Console::start(&model, arguments.port)),
        false => Reporter::Log,
    };
    let options = WorkerOptions {
        identity: Identity { name, version: "1".into(), revision: None, digest: None },
        port: arguments.port,
        providers: arguments.runtime.providers()?,
        session_options: arguments.runtime.session_options()?,
        cpus: Cgroup::default().cpus(),
        cpu_fallback: arguments.runtime.cpu_fallback,
        gpu_memory_limit: arguments.runtime.gpu_memory_limit,
        cache_dir: None, // a file that may change has no digest
        memory_limit: None,
        queue: arguments.runtime.queue(),
        batching: arguments.runtime.batching()?,
        max_request_bytes: arguments.runtime.max_request_bytes,
        request_timeout: Duration::from_secs(arguments.runtime.request_timeout_seconds),
        // Nothing routes to a laptop: whoever pressed Ctrl-C waits for running requests only.
        drain: Duration::ZERO,
        grace: Duration::from_secs(10),
        model,
    };
    start_worker(options, reporter, arguments.runtime.access_log)
}

fn start_worker(options: WorkerOptions, reporter: Reporter, access_log: bool) -> Result<u8, String> {
    // Sockets and JSON only; the model has threads of its own.
    let threads = options.cpus.div_ceil(4).min(4);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.map_err(|e| format!("the runtime can't be started: {e}"))?;
    let ended = runtime.block_on(async {
        let observer = Observer::start(options.identity.clone(), access_log);
        let ended = worker::run(options, Arc::new(reporter), observer.clone()).await;
        if let Some(observer) = observer {
            observer.end().await;
        }
        ended.map_err(|e| e.to_string())
    });
    // A model that is still loading can't be interrupted, and is not waited for.
    runtime.shutdown_background();
    ended
}
