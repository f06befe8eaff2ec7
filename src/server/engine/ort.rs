//! ONNX Runtime, from a shared library that is found at run time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ort::environment::Environment;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session};

use super::assignment::{self, CpuFallback, Node};
use super::cache::{self, CachePlace};
use super::raw::{BoundSession, SharedSession};
use super::signature::Signature;
use super::tuning::Tuning;
use super::{Another, Brake, LoadError, Loaded, Reason, RunError, Runner, explain, invalid};
use crate::protocol::Tensor;

/// How a model is to be loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    pub model: PathBuf,
    /// Tried in order; empty: the CPU.
    pub providers: Vec<Provider>,
    pub session_options: Vec<(String, String)>,
    /// CPUs that the process may use.
    pub cpus: usize,
    pub cpu_fallback: CpuFallback,
    /// Bytes that CUDA's arena may grow to.
    pub gpu_memory_limit: Option<u64>,
    /// None: nothing is kept.
    pub cache: Option<CachePlace>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    pub name: ProviderName,
    /// ONNX Runtime's own options of this provider.
    pub options: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderName {
    Cpu,
    Cuda,
    TensorRt,
}

impl ProviderName {
    /// As in `spec.runtime.executionProviders` and `status.device`.
    pub fn name(self) -> &'static str {
        match self {
            ProviderName::Cpu => "CPU",
            ProviderName::Cuda => "CUDA",
            ProviderName::TensorRt => "TensorRT",
        }
    }
}

/// `NAME[,key=value…]`
impl std::str::FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let name = [ProviderName::Cpu, ProviderName::Cuda, ProviderName::TensorRt]
            .into_iter()
            .find(|p| p.name() == name)
            .ok_or_else(|| format!("{name:?} is not one of CPU, CUDA, TensorRT"))?;
        let option = |part: &str| match part.split_once('=') {
            Some((key, value)) if !key.is_empty() && !part.contains('\0') => {
                Ok((key.to_string(), value.to_string()))
            }
            _ => Err(format!("{part:?} is not key=value")),
        };
        Ok(Self { name, options: parts.map(option).collect::<Result<_, _>>()? })
    }
}

/// Where ONNX Runtime lies: `ORT_DYLIB_PATH`, beside the binary, or `/usr/lib`.
fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        return path.into();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("libonnxruntime.so")));
    beside.filter(|path| path.exists()).unwrap_or_else(|| "/usr/lib/libonnxruntime.so".into())
}

/// One a process, by ONNX Runtime's rule.
fn environment() -> Result<Environment, LoadError> {
    static ENVIRONMENT: OnceLock<Result<Environment, LoadError>> = OnceLock::new();
    let build = || {
        let log = |level: LogLevel, _: &str, _: &str, place: &str, message: &str| match level {
            LogLevel::Fatal | LogLevel::Error => tracing::error!(target: "onnxruntime", place, "{message}"),
            LogLevel::Warning => tracing::warn!(target: "onnxruntime", place, "{message}"),
            _ => tracing::debug!(target: "onnxruntime", place, "{message}"),
        };
        let unavailable = |e: String| LoadError {
            reason: Reason::ExecutionProviderUnavailable,
            message: format!("ONNX Runtime can't be loaded: {e}"),
        };
        let library = library();
        if !library.exists() {
            return Err(unavailable(format!(
                "{} does not exist; ORT_DYLIB_PATH names it",
                library.display()
            )));
        }
        let environment = ort::init_from(library)
            // Only its debug form carries the loader's own words.
            .map_err(|e| unavailable(format!("{e:?}")))?
            .with_name("modelwright")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|e| unavailable(e.to_string()))?;
        // The callback is told everything otherwise, on every run.
        environment.set_log_level(LogLevel::Warning);
        Ok(environment)
    };
    ENVIRONMENT.get_or_init(build).clone()
}

/// Loads a model: one session for all threads on the CPU, one thread for its session elsewhere.
pub fn load(options: &LoadOptions) -> Result<Loaded, LoadError> {
    let maker = SessionMaker::new(options)?;
    let gpu = maker.gpu;
    let profile = std::env::temp_dir().join(format!("modelwright-profile-{}", std::process::id()));
    let profile = Some(profile).filter(|_| gpu && options.cpu_fallback == CpuFallback::ShapeOpsOnly);
    let session = maker.session(profile.as_deref())?;
    let signature = Signature::read(&session)?;
    let inputs: Vec<String> = signature.inputs.iter().map(|t| t.name.clone()).collect();
    let outputs: Vec<_> = signature.outputs.iter().map(|t| (t.name.clone(), t.datatype)).collect();
    let first = SharedSession::new(session, &inputs, &outputs).map_err(invalid)?;

    let wanted = options.providers.first().map_or(ProviderName::Cpu, |p| p.name).name();
    let nodes = match first.nodes() {
        Err(e) if gpu && options.cpu_fallback != CpuFallback::Allow => {
            let message =
                format!("ONNX Runtime does not say what runs on {wanted}: {}", explain::clean(&e, ""));
            return Err(LoadError { reason: Reason::ExecutionProviderUnavailable, message });
        }
        nodes => nodes.unwrap_or_default(),
    };
    let (device, graph_nodes) = (assignment::device(&nodes), assignment::counts(&nodes));
    let count = maker.tuning.runners(options.cpus);
    let mut runners: Vec<Box<dyn Runner>> = Vec::new();
    let (mut another, mut placement) = (None, None);
    if gpu {
        runners.push(bound(first.clone())?);
        let (policy, profiled) = (options.cpu_fallback, profile.map(|_| first));
        placement = Some(Placement { wanted, policy, nodes, profiled });
        // One computes while the tensors of the other are copied. Whoever sets a limit has no memory for a second copy.
        if count > 1 && options.gpu_memory_limit.is_none() {
            let make =
                move || bound(SharedSession::new(maker.session(None)?, &inputs, &outputs).map_err(invalid)?);
            another = Some(Box::new(make) as Another);
        }
    } else {
        // Only the CPU provider's sessions may be run by several threads at once: see `raw`.
        for _ in 0..count {
            runners.push(Box::new(OrtRunner { session: first.clone(), options: run_options()? }));
        }
    }
    Ok(Loaded {
        input_axes: signature.input_axes,
        output_axes: signature.output_axes,
        inputs: signature.inputs,
        outputs: signature.outputs,
        runners,
        another,
        device: device.unwrap_or_else(|| wanted.into()),
        graph_nodes,
        placement,
        note: signature.note,
    })
}

/// Makes sessions of one model.
struct SessionMaker {
    environment: Environment,
    tuning: Tuning,
    providers: Vec<Provider>,
    gpu: bool,
    model: PathBuf,
    cpus: usize,
}

impl SessionMaker {
    fn new(options: &LoadOptions) -> Result<Self, LoadError> {
        Ok(Self {
            environment: environment()?,
            tuning: Tuning::read(&options.session_options)?,
            providers: options.providers.iter().map(|p| prepared(p, options)).collect(),
            gpu: options.providers.iter().any(|p| p.name != ProviderName::Cpu),
            model: options.model.clone(),
            cpus: options.cpus,
        })
    }

    /// `profile`: a file's name without its ending.
    fn session(&self, profile: Option<&Path>) -> Result<Session, LoadError> {
        let mut builder = self.tuning.builder(&self.environment, self.cpus)?;
        for provider in &self.providers {
            register(provider, &mut builder)?;
        }
        if let Some(profile) = profile {
            let failed = |e: ort::Error<SessionBuilder>| invalid(explain::clean(e.message(), ""));
            builder = builder.with_profiling(profile).map_err(failed)?;
        }
        let folder = self.model.parent().unwrap_or(Path::new("")).display().to_string();
        builder.commit_from_file(&self.model).map_err(|e| explain::load_error(e.message(), &folder, self.gpu))
    }
}

/// Where a model that was to run on a GPU really runs.
pub struct Placement {
    wanted: &'static str,
    policy: CpuFallback,
    nodes: Vec<Node>,
    /// Writes a profile until it is told to end.
    profiled: Option<Arc<SharedSession>>,
}

impl Placement {
    /// Right after the first run; `answered`: the model took its inputs.
    ///
    /// # Errors
    /// Nodes are on the CPU against the policy.
    pub fn check(self, answered: bool) -> Result<(), LoadError> {
        let kernels = self.profiled.as_deref().and_then(|session| {
            match read_profile(session) {
                Ok(text) => assignment::kernels(&text).map_err(|e| e.to_string()),
                Err(e) => Err(e),
            }
            .inspect_err(|error| tracing::warn!(error, "what ran on the CPU can't be seen"))
            .ok()
        });
        let kernels = kernels.filter(|_| answered);
        match assignment::complaint(self.wanted, self.policy, &self.nodes, kernels.as_deref()) {
            None => Ok(()),
            Some(message) => Err(LoadError { reason: Reason::ExecutionProviderFallback, message }),
        }
    }
}

fn read_profile(session: &SharedSession) -> Result<String, String> {
    let file = session.end_profiling()?;
    let text = std::fs::read_to_string(&file).map_err(|e| e.to_string());
    let _ = std::fs::remove_file(file); // in a folder for scratch
    text
}

fn bound(session: Arc<SharedSession>) -> Result<Box<dyn Runner>, LoadError> {
    Ok(Box::new(GpuRunner { session: BoundSession::new(session).map_err(invalid)?, options: run_options()? }))
}

fn run_options() -> Result<Arc<RunOptions>, LoadError> {
    RunOptions::new().map(Arc::new).map_err(|e| invalid(explain::clean(e.message(), "")))
}

/// A provider with what the server adds to its options; the user's own go first.
fn prepared(provider: &Provider, options: &LoadOptions) -> Provider {
    let mut prepared = provider.clone();
    let mut add = |key: &str, value: String| {
        if !provider.options.iter().any(|(k, _)| k == key) {
            prepared.options.push((key.into(), value));
        }
    };
    match (provider.name, &options.cache) {
        (ProviderName::Cuda, _) => {
            if let Some(limit) = options.gpu_memory_limit {
                add("gpu_mem_limit", limit.to_string());
            }
        }
        (ProviderName::TensorRt, Some(place)) => {
            let settings = format!("{:?}", provider.options);
            match place.folder(&[provider.name.name(), &settings, ort::info(), &cache::gpus()]) {
                Ok(folder) => {
                    for kind in ["engine", "timing"] {
                        add(&format!("trt_{kind}_cache_enable"), "1".into());
                        add(&format!("trt_{kind}_cache_path"), folder.display().to_string());
                    }
                }
                Err(error) => tracing::warn!(%error, "no cache: TensorRT compiles the model at each load"),
            }
        }
        _ => {}
    }
    prepared
}

/// A provider that was asked for and does not load is an error: never silently the CPU.
fn register(provider: &Provider, builder: &mut SessionBuilder) -> Result<(), LoadError> {
    let dispatch: ExecutionProviderDispatch = match provider.name {
        // ONNX Runtime always has it, last.
        ProviderName::Cpu if provider.options.is_empty() => return Ok(()),
        ProviderName::Cpu => return Err(invalid("execution provider CPU takes no options")),
        ProviderName::Cuda => provider
            .options
            .iter()
            .fold(ep::CUDA::default(), |ep, (k, v)| ep.with_arbitrary_config(k, v))
            .build(),
        ProviderName::TensorRt => provider
            .options
            .iter()
            .fold(ep::TensorRT::default(), |ep, (k, v)| ep.with_arbitrary_config(k, v))
            .build(),
    };
    dispatch.register(builder).map_err(|e| LoadError {
        reason: Reason::ExecutionProviderUnavailable,
        message: format!(
            "execution provider {} did not load: {}",
            provider.name.name(),
            explain::clean(e.message(), "")
        ),
    })
}

/// `options` are one thread's, used for each of its runs: what they terminate is no other thread's.
struct OrtRunner {
    session: Arc<SharedSession>,
    options: Arc<RunOptions>,
}

impl Runner for OrtRunner {
    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, RunError> {
        self.session.run(inputs, outputs, &self.options).map_err(|e| explain::run_error(&e))
    }

    fn brake(&self) -> Option<Arc<dyn Brake>> {
        Some(self.options.clone())
    }
}

struct GpuRunner {
    session: BoundSession,
    options: Arc<RunOptions>,
}

impl Runner for GpuRunner {
    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, RunError> {
        self.session.run(inputs, outputs, &self.options).map_err(|e| explain::run_error(&e))
    }

    fn brake(&self) -> Option<Arc<dyn Brake>> {
        Some(self.options.clone())
    }
}

impl Brake for RunOptions {
    fn put_on(&self) {
        if let Err(error) = self.terminate() {
            tracing::warn!(%error, "a run can't be ended");
        }
    }

    fn release(&self) {
        if let Err(error) = self.unterminate() {
            tracing::error!(%error, "runs can't be begun again");
        }
    }
}
