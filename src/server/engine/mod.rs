//! What runs a model: ONNX Runtime, or a stand-in in tests.

pub mod assignment;
pub mod cache;
pub mod explain;
#[cfg(test)]
pub mod fake;
pub mod ort;
#[allow(unsafe_code)]
mod raw;
mod signature;
mod tuning;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::TensorAxes;
use crate::protocol::{Tensor, TensorSpec};

/// Runs one model on one thread at a time; a server has several.
pub trait Runner: Send {
    /// `inputs`: all of the model's, in its order, already checked against its signature. `outputs`: indices into the
    /// model's outputs.
    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, RunError>;

    /// Ends its runs, from another thread. None: nothing does.
    fn brake(&self) -> Option<Arc<dyn Brake>> {
        None
    }
}

/// Put on, it ends the run at the next operator, and each further one at once.
pub trait Brake: Send + Sync {
    fn put_on(&self);
    fn release(&self);
}

/// Makes a runner with a session of its own.
pub type Another = Box<dyn FnOnce() -> Result<Box<dyn Runner>, LoadError>>;

/// A model in memory.
pub struct Loaded {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// The same tensors, with the names of their axes.
    pub input_axes: Vec<TensorAxes>,
    pub output_axes: Vec<TensorAxes>,
    /// One a thread.
    pub runners: Vec<Box<dyn Runner>>,
    /// Where each thread has a session of its own: one more, if there is memory for it.
    pub another: Option<Another>,
    /// The execution provider with most of the graph: `CPU`, `CUDA`, `TensorRT`.
    pub device: String,
    /// Nodes of the graph by execution provider, counted before late fusions. Empty: not known.
    pub graph_nodes: BTreeMap<String, u64>,
    /// To be checked after the first run.
    pub placement: Option<ort::Placement>,
    /// What the user should know, though the model serves.
    pub note: Option<String>,
}

/// A model that can't be served: a reason of the condition table, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct LoadError {
    pub reason: Reason,
    pub message: String,
}

fn invalid(message: impl Into<String>) -> LoadError {
    LoadError { reason: Reason::ModelInvalid, message: message.into() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    ModelInvalid,
    OpsetUnsupported,
    ExecutionProviderUnavailable,
    ExecutionProviderFallback,
    OutOfMemory,
    InsufficientGpuMemory,
    /// The process ended, or never got ready, for no cause that has a name of its own.
    CrashLooping,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::ModelInvalid => "ModelInvalid",
            Reason::OpsetUnsupported => "OpsetUnsupported",
            Reason::ExecutionProviderUnavailable => "ExecutionProviderUnavailable",
            Reason::ExecutionProviderFallback => "ExecutionProviderFallback",
            Reason::OutOfMemory => "OutOfMemory",
            Reason::InsufficientGpuMemory => "InsufficientGPUMemory",
            Reason::CrashLooping => "CrashLooping",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One inference that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The request's shapes or values are at fault.
    #[error("{0}")]
    Refused(String),
    /// This run failed; the next may not.
    #[error("{0}")]
    Failed(String),
    /// The request, or the model itself, is too large for the memory there is.
    #[error("{0}")]
    OutOfMemory(String),
    /// The session is beyond use (a CUDA context stays poisoned): only a new process helps.
    #[error("{0}")]
    Poisoned(String),
}
