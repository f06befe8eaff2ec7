//! One process, one model: loads it, proves it, answers until told to stop.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::app;
use super::batch::{BatchWish, Limits};
use super::engine::assignment::CpuFallback;
use super::engine::cache::CachePlace;
use super::engine::ort::{self, LoadOptions, Provider, ProviderName};
use super::engine::{LoadError, Reason, RunError};
use super::metrics::Metrics;
use super::model::{Identity, Model, Server};
use super::queue::Queue;
use super::report::{Report, Reporter};
use super::trail::Observer;
use super::warmup::{WarmUp, add_session, prove_batching, warm_up};
use crate::cgroup::Cgroup;
use crate::formats::{BatchingState, Capacity, RevisionPhase};
use crate::listen::{self, Patience, Phase};
use crate::onnx::{MAX_READ, Walk};

#[derive(Clone, Debug)]
pub struct WorkerOptions {
    pub model: PathBuf,
    pub identity: Identity,
    pub port: u16,
    pub providers: Vec<Provider>,
    pub session_options: Vec<(String, String)>,
    pub cpus: usize,
    pub cpu_fallback: CpuFallback,
    pub gpu_memory_limit: Option<u64>,
    /// What providers compile is kept here, for models whose digest is known.
    pub cache_dir: Option<PathBuf>,
    /// Bytes of data (RLIMIT_DATA); None: no cap.
    pub memory_limit: Option<u64>,
    pub queue: Limits,
    pub batching: BatchWish,
    pub max_request_bytes: usize,
    pub request_timeout: Duration,
    pub drain: Duration,
    pub grace: Duration,
}

/// The model can't be served; the report says why.
pub const EXIT_LOAD_FAILED: u8 = 3;
/// Only a new process helps.
pub const EXIT_POISONED: u8 = 4;

/// Serves until SIGTERM, SIGINT, or the supervisor's end; the exit code of the process.
pub async fn run(
    options: WorkerOptions,
    reporter: Arc<Reporter>,
    observer: Option<Arc<Observer>>,
) -> std::io::Result<u8> {
    // Before anything is loaded, and inherited by nobody: the model's own allocation fails, with an error that can be
    // reported, before the container's limit is reached and the kernel kills what it likes.
    if let Some(limit) = options.memory_limit {
        setrlimit(Resource::Data, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    let (drain, grace) = (options.drain, options.grace);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let metrics = Metrics::new(options.identity.revision.as_deref().unwrap_or(&options.identity.name));
    let server = Arc::new(Server::new(
        options.identity.clone(),
        options.request_timeout,
        options.max_request_bytes,
        Cgroup::default().memory_limit(),
        metrics.clone(),
    ));
    let listener = match listen::bind(options.port).await {
        Ok(listener) => listener,
        Err(e) => {
            let message = format!("port {} can't be listened on: {e}", options.port);
            fail(&reporter, LoadError { reason: Reason::CrashLooping, message });
            return Ok(EXIT_LOAD_FAILED);
        }
    };
    let (phase, phases) = watch::channel(Phase::Serving);
    let router = app::router(server.clone(), phases.clone(), observer);
    let mut serving = pin!(listen::serve(listener, router, phases, Patience::default()));
    let mut gone = pin!(reporter.gone());
    let mut loading = {
        let (reporter, metrics) = (reporter.clone(), metrics.clone());
        tokio::task::spawn_blocking(move || load(&options, &reporter, metrics))
    };
    let mut proven: Option<Report> = None;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let drain = loop {
        tokio::select! {
            () = &mut serving => return Ok(0),
            _ = terminate.recv() => break drain,
            // Whoever says so knows that nobody sends anything any more.
            _ = interrupt.recv() => break Duration::ZERO,
            _ = &mut gone => break drain,
            loaded = &mut loading, if proven.is_none() => {
                let loaded = loaded.unwrap_or_else(|panic| {
                    Err(LoadError { reason: Reason::CrashLooping, message: format!("loading failed: {panic}") })
                });
                match loaded {
                    Ok((model, report)) => {
                        server.publish(model);
                        reporter.serving(&server, &report);
                        proven = Some(report);
                    }
                    Err(error) => {
                        fail(&reporter, error);
                        return Ok(EXIT_LOAD_FAILED);
                    }
                }
            }
            _ = tick.tick() => {
                reporter.stir();
                if let (Some(report), Ok(model)) = (&mut proven, server.model()) {
                    model.queue.end_overlong();
                    tell_batching(report, model.queue.row_limit(), &reporter, &metrics);
                    tell_capacity(report, model.queue.capacity(), &reporter);
                }
            }
            () = server.poisoned.notified() => {
                let message = "the session is beyond use after an error of its execution provider".into();
                fail(&reporter, LoadError { reason: Reason::CrashLooping, message });
                let _ = phase.send(Phase::Closing);
                let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
                return Ok(EXIT_POISONED);
            }
        }
    };

    // A model that is still loading has no requests to finish, and can't be interrupted.
    if proven.is_none() {
        return Ok(0);
    }
    tracing::info!("draining");
    reporter.send(&Report::new(RevisionPhase::Draining));
    let drained = async {
        let _ = phase.send(Phase::Draining);
        let _ = tokio::time::timeout(drain, &mut serving).await;
        let _ = phase.send(Phase::Closing);
        serving.await;
    };
    if tokio::time::timeout(grace, drained).await.is_err() {
        tracing::warn!("requests were still running at the end of the grace period");
    }
    Ok(0)
}

/// Says what the measured curve allows, whenever that has changed.
fn tell_batching(report: &mut Report, limit: Option<usize>, reporter: &Reporter, metrics: &Metrics) {
    metrics.row_limit(limit.unwrap_or(0));
    let Some(batching) = report.batching.as_mut().filter(|b| b.on && b.max_rows != limit) else { return };
    batching.max_rows = limit;
    if limit.is_none() {
        batching.on = false;
        batching.reason = Some("an output of the model does not follow its inputs".into());
    }
    reporter.send(report);
}

/// Says what the pod takes, whenever that has changed by a good deal: each time somebody decides anew.
fn tell_capacity(report: &mut Report, capacity: Option<Capacity>, reporter: &Reporter) {
    const NEWS: f64 = 1.2;
    let Some(now) = capacity else { return };
    let same = |told: Capacity| {
        now.per_second < NEWS * told.per_second
            && told.per_second < NEWS * now.per_second
            && now.concurrency < NEWS * told.concurrency
            && told.concurrency < NEWS * now.concurrency
    };
    if !report.capacity.is_some_and(same) {
        report.capacity = capacity;
        reporter.send(report);
    }
}

/// Loads and proves the model; blocks.
fn load(
    options: &WorkerOptions,
    reporter: &Reporter,
    metrics: Metrics,
) -> Result<(Model, Report), LoadError> {
    let mut report = Report::new(RevisionPhase::Loading);
    reporter.send(&report);
    let timed = |phase: &'static str, since: Instant, report: &mut Report| {
        let seconds = since.elapsed().as_secs_f64();
        metrics.loaded(phase, seconds);
        report.seconds.insert(phase.into(), seconds);
    };

    let (started, before) = (Instant::now(), MemoryUse::now());
    let cache = options.cache_dir.clone().zip(options.identity.digest.clone());
    let mut loaded = ort::load(&LoadOptions {
        model: options.model.clone(),
        providers: options.providers.clone(),
        session_options: options.session_options.clone(),
        cpus: options.cpus,
        cpu_fallback: options.cpu_fallback,
        gpu_memory_limit: options.gpu_memory_limit,
        cache: cache.map(|(root, digest)| CachePlace { root, digest }),
    })?;
    timed("load", started, &mut report);
    report.phase = RevisionPhase::WarmingUp;
    report.device = Some(loaded.device.clone());
    report.graph_nodes = loaded.graph_nodes.clone();
    reporter.send(&report);

    let started = Instant::now();
    let warm = warm_up(&mut loaded).map_err(|e| {
        let reason = match (&e, loaded.device == ProviderName::Cpu.name()) {
            (RunError::OutOfMemory(_), true) => Reason::OutOfMemory,
            (RunError::OutOfMemory(_), false) => Reason::InsufficientGpuMemory,
            _ => Reason::ExecutionProviderUnavailable,
        };
        LoadError { reason, message: format!("the first run failed: {e}") }
    })?;
    if let Some(placement) = loaded.placement.take() {
        placement.check(matches!(warm, WarmUp::Answered(_)))?;
    }
    // Not asked for where the answer would change nothing.
    let quantizes = options.batching.max_rows.is_none() && quantizes_dynamically(&options.model);
    let batching = prove_batching(&mut loaded, &warm, &options.batching, quantizes);
    add_session(&mut loaded, &warm)?;
    timed("warmup", started, &mut report);
    MemoryUse::now().tell_growth(&before, &metrics);
    report.phase = RevisionPhase::Proven;
    report.batching = Some(match &batching {
        Ok(_) => BatchingState { on: true, reason: None, max_rows: None },
        Err(why) => BatchingState { on: false, reason: Some(why.clone()), max_rows: None },
    });
    let refusal = match warm {
        WarmUp::Answered(_) => None,
        WarmUp::Refused(message) => Some(message),
    };
    report.message = [loaded.note, refusal].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"));

    let queue = Queue::start(loaded.runners, batching.ok(), options.queue, metrics).map_err(|e| {
        LoadError { reason: Reason::OutOfMemory, message: format!("a thread can't be started: {e}") }
    })?;
    Ok((Model { inputs: loaded.inputs, outputs: loaded.outputs, queue }, report))
}

/// Memory in use; None: not known here.
struct MemoryUse {
    process: Option<u64>,
    container: Option<u64>,
}

impl MemoryUse {
    fn now() -> Self {
        Self { process: resident(), container: Cgroup::default().memory_used() }
    }

    /// What came since `before`. Two workers that load at once count each other's share of the container.
    fn tell_growth(&self, before: &Self, metrics: &Metrics) {
        for (scope, now, then) in
            [("process", self.process, before.process), ("container", self.container, before.container)]
        {
            if let Some((now, then)) = now.zip(then) {
                metrics.session_memory(scope, now.saturating_sub(then));
            }
        }
    }
}

/// Bytes of this process in memory, mapped weights included.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}

/// Whether the graph has an operator whose scale depends on all rows of a run. A file that can't be read here is ONNX
/// Runtime's to complain about.
fn quantizes_dynamically(model: &Path) -> bool {
    let read = || -> Option<bool> {
        let mut file = File::open(model).ok()?;
        let mut walk = Walk::new(file.metadata().ok()?.len()).ok()?;
        let mut buffer = [0; MAX_READ];
        while let Some(range) = walk.wanted().ok()? {
            file.seek(SeekFrom::Start(range.offset)).ok()?;
            let count = file.read(buffer.get_mut(..range.len)?).ok()?;
            if count == 0 {
                return None;
            }
            walk.supply(buffer.get(..count)?).ok()?;
        }
        Some(walk.finish().ok()?.quantizes_dynamically)
    };
    read().unwrap_or(false)
}

fn fail(reporter: &Reporter, error: LoadError) {
    let mut report = Report::new(RevisionPhase::Failed);
    report.reason = Some(error.reason.name().into());
    report.message = Some(error.message);
    reporter.send(&report);
}
