//! A session's options, in ONNX Runtime's words.

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::{LoadError, explain, invalid};

/// `runtime.sessionOptions`, by ONNX Runtime's names.
pub(super) struct Tuning {
    intra_threads: usize,
    inter_threads: Option<usize>,
    parallel: bool,
    optimization: Option<GraphOptimizationLevel>,
    memory_pattern: Option<bool>,
    /// `session.…` and provider keys.
    entries: Vec<(String, String)>,
}

impl Tuning {
    pub fn read(options: &[(String, String)]) -> Result<Self, LoadError> {
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
    pub fn runners(&self, cpus: usize) -> usize {
        match self.intra_threads {
            0 => 1,
            threads => (cpus / threads).max(1),
        }
    }

    pub fn builder(&self, environment: &Environment, cpus: usize) -> Result<SessionBuilder, LoadError> {
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
        builder.with_config_entry("session.record_ep_graph_assignment_info", "1").map_err(failed)
    }
}
