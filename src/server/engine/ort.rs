//! ONNX Runtime, from a shared library that is found at run time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ort::environment::Environment;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, TensorElementType, ValueType};

use super::raw::SharedSession;
use super::{LoadError, Loaded, Reason, RunError, Runner, explain};
use crate::formats::Dim;
use crate::protocol::{Datatype, Tensor, TensorSpec};
use crate::server::batch::TensorAxes;

/// How a model is to be loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    pub model: PathBuf,
    /// Tried in order; empty: the CPU.
    pub providers: Vec<Provider>,
    pub session_options: Vec<(String, String)>,
    /// CPUs that the process may use.
    pub cpus: usize,
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
    let environment = environment()?;
    let tuning = Tuning::read(&options.session_options)?;
    let gpu = options.providers.iter().any(|p| p.name != ProviderName::Cpu);
    let folder = options.model.parent().unwrap_or(Path::new("")).display().to_string();
    let mut builder = tuning.builder(&environment, options.cpus)?;
    for provider in &options.providers {
        register(provider, &mut builder)?;
    }
    let session = builder
        .commit_from_file(&options.model)
        .map_err(|e| explain::load_error(e.message(), &folder, gpu))?;
    let signature = Signature::read(&session)?;
    let inputs: Vec<String> = signature.inputs.iter().map(|t| t.name.clone()).collect();
    let outputs: Vec<_> = signature.outputs.iter().map(|t| (t.name.clone(), t.datatype)).collect();
    let shared = SharedSession::new(session, &inputs, &outputs).map_err(invalid)?;
    // Only the CPU provider's sessions may be run by several threads at once: see `raw`.
    let count = if gpu { 1 } else { tuning.runners(options.cpus) };
    let runners = (0..count).map(|_| Box::new(OrtRunner(shared.clone())) as Box<dyn Runner>).collect();
    let device = options.providers.first().map_or(ProviderName::Cpu, |p| p.name);
    Ok(Loaded {
        input_axes: signature.input_axes,
        output_axes: signature.output_axes,
        inputs: signature.inputs,
        outputs: signature.outputs,
        runners,
        device: device.name().into(),
        note: signature.note,
    })
}

fn invalid(message: impl Into<String>) -> LoadError {
    LoadError { reason: Reason::ModelInvalid, message: message.into() }
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

struct OrtRunner(Arc<SharedSession>);

impl Runner for OrtRunner {
    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, RunError> {
        self.0.run(inputs, outputs).map_err(|e| explain::run_error(&e))
    }
}

/// `runtime.sessionOptions`, by ONNX Runtime's names.
struct Tuning {
    intra_threads: usize,
    inter_threads: Option<usize>,
    parallel: bool,
    optimization: Option<GraphOptimizationLevel>,
    memory_pattern: Option<bool>,
    /// `session.…` and provider keys.
    entries: Vec<(String, String)>,
}

impl Tuning {
    fn read(options: &[(String, String)]) -> Result<Self, LoadError> {
        let mut tuning = Self {
            intra_threads: 1,
            inter_threads: None,
            parallel: false,
            optimization: None,
            memory_pattern: None,
            entries: Vec::new(),
        };
        for (key, value) in options {
            let bad = |want: &str| invalid(format!("session option {key}={value}: the value must be {want}"));
            let number = || value.parse::<usize>().map_err(|_| bad("a number"));
            let boolean = || match value.as_str() {
                "1" | "true" => Ok(true),
                "0" | "false" => Ok(false),
                _ => Err(bad("0 or 1")),
            };
            match key.as_str() {
                "intra_op_num_threads" => tuning.intra_threads = number()?,
                "inter_op_num_threads" => tuning.inter_threads = Some(number()?),
                "enable_mem_pattern" => tuning.memory_pattern = Some(boolean()?),
                "execution_mode" => {
                    tuning.parallel = match value.as_str() {
                        "0" | "ORT_SEQUENTIAL" => false,
                        "1" | "ORT_PARALLEL" => true,
                        _ => return Err(bad("0 (ORT_SEQUENTIAL) or 1 (ORT_PARALLEL)")),
                    }
                }
                "graph_optimization_level" => {
                    tuning.optimization = Some(match value.as_str() {
                        "0" => GraphOptimizationLevel::Disable,
                        "1" => GraphOptimizationLevel::Level1,
                        "2" => GraphOptimizationLevel::Level2,
                        "3" | "99" => GraphOptimizationLevel::All,
                        _ => return Err(bad("0, 1, 2, 3 or 99")),
                    });
                }
                _ if key.contains('.') => tuning.entries.push((key.clone(), value.clone())),
                _ => {
                    return Err(invalid(format!(
                        "session option {key} is unknown: use intra_op_num_threads, inter_op_num_threads, \
                         execution_mode, graph_optimization_level, enable_mem_pattern, or a key with a dot, such as \
                         session.disable_prepacking"
                    )));
                }
            }
        }
        Ok(tuning)
    }

    /// Threads that run the model: as many as the CPUs feed.
    fn runners(&self, cpus: usize) -> usize {
        match self.intra_threads {
            0 => 1,
            threads => (cpus / threads).max(1),
        }
    }

    fn builder(&self, environment: &Environment, cpus: usize) -> Result<SessionBuilder, LoadError> {
        let failed = |e: ort::Error<SessionBuilder>| invalid(explain::clean(e.message(), ""));
        let intra = if self.intra_threads == 0 { cpus } else { self.intra_threads };
        let builder = Session::builder(environment).map_err(|e| invalid(explain::clean(e.message(), "")))?;
        let builder = builder.with_log_level(LogLevel::Warning).map_err(failed)?;
        let builder = builder.with_intra_threads(intra).map_err(failed)?;
        // With one thread a run there is nobody to spin. Whoever asks for more wants short answers: a third longer
        // without (`session.intra_op.allow_spinning` says otherwise).
        let builder = builder.with_intra_op_spinning(intra > 1).map_err(failed)?;
        let builder = builder.with_inter_op_spinning(false).map_err(failed)?;
        let mut builder = builder.with_parallel_execution(self.parallel).map_err(failed)?;
        if let Some(threads) = self.inter_threads {
            builder = builder.with_inter_threads(threads).map_err(failed)?;
        }
        if let Some(level) = self.optimization {
            builder = builder.with_optimization_level(level).map_err(failed)?;
        }
        if let Some(enable) = self.memory_pattern {
            builder = builder.with_memory_pattern(enable).map_err(failed)?;
        }
        for (key, value) in &self.entries {
            builder = builder.with_config_entry(key, value).map_err(failed)?;
        }
        Ok(builder)
    }
}

/// A model's inputs and outputs, in the protocol's terms.
struct Signature {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    input_axes: Vec<TensorAxes>,
    output_axes: Vec<TensorAxes>,
    note: Option<String>,
}

impl Signature {
    fn read(session: &Session) -> Result<Self, LoadError> {
        let read = |outlet: &Outlet| -> Result<(TensorSpec, TensorAxes), String> {
            let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
                return Err(format!("{:?} is not a tensor", outlet.name()));
            };
            let datatype = datatype(*ty).ok_or_else(|| {
                format!("{:?} has element type {ty}, which the protocol lacks", outlet.name())
            })?;
            let dims = shape.iter().zip(dimension_symbols.iter()).map(|(length, symbol)| match length {
                0.. => Dim::Fixed(*length),
                _ => Dim::Dynamic(symbol.clone()),
            });
            let axes = TensorAxes { name: outlet.name().into(), datatype, dims: dims.collect() };
            Ok((TensorSpec { name: outlet.name().into(), datatype, shape: shape.to_vec() }, axes))
        };
        let inputs = session.inputs().iter().map(read).collect::<Result<Vec<_>, _>>();
        let inputs = inputs.map_err(|e| invalid(format!("input {e}: no request can carry it")))?;
        let (inputs, input_axes) = inputs.into_iter().unzip();
        let (mut outputs, mut output_axes, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        for outlet in session.outputs() {
            match read(outlet) {
                Ok((output, axes)) => {
                    outputs.push(output);
                    output_axes.push(axes);
                }
                Err(e) => left_out.push(e),
            }
        }
        if outputs.is_empty() {
            return Err(invalid(format!(
                "no output is a tensor that the protocol can carry: {}",
                left_out.join("; ")
            )));
        }
        let note = (!left_out.is_empty()).then(|| format!("outputs left out: {}", left_out.join("; ")));
        Ok(Self { inputs, outputs, input_axes, output_axes, note })
    }
}

fn datatype(ty: TensorElementType) -> Option<Datatype> {
    Some(match ty {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}
