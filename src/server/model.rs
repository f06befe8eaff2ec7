//! A served model: the one way from an `InferRequest` to an `InferResponse`, for REST and gRPC alike.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::engine::RunError;
use super::metrics::Metrics;
use super::queue::{self, Deadline, Queue};
use super::trail;
use crate::bodies::Bodies;
use crate::protocol::{
    Error, InferRequest, InferResponse, Kind, ModelMetadata, ServerMetadata, Tensor, TensorSpec,
};

/// The longest name of a model in a URL: a Kubernetes name has at most 253 characters.
const NAME_LIMIT: usize = 253;

/// What the process serves: one model, known by name before it is in memory.
pub struct Server {
    pub identity: Identity,
    pub request_timeout: Duration,
    pub max_request_bytes: usize,
    pub bodies: Arc<Bodies>,
    pub metrics: Metrics,
    model: OnceLock<Model>,
    ready: watch::Sender<bool>,
    /// Told when the model can't answer any more: the process must be replaced.
    pub poisoned: Arc<Notify>,
}

/// How the model is called; the last two are answered in headers.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub version: String,
    pub revision: Option<String>,
    pub digest: Option<String>,
}

/// A model that has been loaded and warmed up.
pub struct Model {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub queue: Queue,
}

impl Server {
    /// `memory`: bytes that the container may use.
    pub fn new(
        identity: Identity,
        request_timeout: Duration,
        max_request_bytes: usize,
        memory: Option<u64>,
        metrics: Metrics,
    ) -> Self {
        let (model, ready, poisoned) = (OnceLock::new(), watch::Sender::new(false), Arc::default());
        let bodies = Bodies::new(max_request_bytes, memory);
        Self { identity, request_timeout, max_request_bytes, bodies, metrics, model, ready, poisoned }
    }

    /// Serves `model` from now on.
    pub fn publish(&self, model: Model) {
        // A second model is never loaded into a process.
        let _ = self.model.set(model);
        self.ready.send_replace(true);
    }

    /// `is_ready`, now and when it changes.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    pub fn is_ready(&self) -> bool {
        self.model.get().is_some()
    }

    pub fn metadata(&self) -> ServerMetadata {
        ServerMetadata {
            name: "modelwright".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: crate::protocol::EXTENSIONS.iter().map(|e| e.to_string()).collect(),
        }
    }

    /// # Errors
    /// `NotFound` for another name or version, `Invalid` for what can't be a name.
    pub fn check_name(&self, name: &str, version: Option<&str>) -> Result<(), Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME_LIMIT || !name.chars().all(plain) || name.starts_with('.') {
            return Err(Error::invalid("not a model name: letters, digits, '-', '_' and '.', at most 253"));
        }
        if name != self.identity.name {
            return Err(Error::not_found(format!(
                "unknown model {name:?}: this server has {:?}",
                self.identity.name
            )));
        }
        match version.filter(|v| !v.is_empty() && *v != self.identity.version) {
            None => Ok(()),
            Some(version) => Err(Error::not_found(format!(
                "model {name:?} has no version {:?}: this server has {:?}",
                version.chars().take(64).collect::<String>(),
                self.identity.version
            ))),
        }
    }

    /// The model, once it is ready.
    pub fn model(&self) -> Result<&Model, Error> {
        self.model.get().ok_or_else(|| Error::new(Kind::Unavailable, "the model is still loading"))
    }

    pub fn model_metadata(&self) -> Result<ModelMetadata, Error> {
        let model = self.model()?;
        Ok(ModelMetadata {
            name: self.identity.name.clone(),
            versions: vec![self.identity.version.clone()],
            platform: "onnxruntime_onnx".into(),
            inputs: model.inputs.clone(),
            outputs: model.outputs.clone(),
        })
    }

    /// How long a request may take that says how long its client waits.
    pub fn allowed(&self, timeout: Option<Duration>) -> Duration {
        timeout.map_or(self.request_timeout, |timeout| timeout.min(self.request_timeout))
    }

    /// Answers a request, whose name and version were checked, before `deadline`.
    pub async fn infer(
        &self,
        request: &mut InferRequest,
        deadline: Deadline,
    ) -> Result<InferResponse, Error> {
        trail::names(&request.id);
        let model = self.model()?;
        let inputs = arrange(&model.inputs, std::mem::take(&mut request.inputs))?;
        let outputs = choose(&model.outputs, request)?;
        let asked = bytes(&inputs);
        let job = queue::Request {
            inputs,
            outputs,
            priority: request.priority.unwrap_or(DEFAULT_PRIORITY),
            deadline,
        };
        let outputs = match model.queue.run(job).await? {
            Ok(outputs) => outputs,
            Err(RunError::Refused(message)) => return Err(Error::invalid(message)),
            Err(RunError::Failed(message) | RunError::OutOfMemory(message)) => {
                return Err(Error::new(Kind::Internal, message));
            }
            Err(RunError::Poisoned(message)) => {
                tracing::error!(%message, "the session is beyond use");
                self.poisoned.notify_one();
                return Err(Error::new(Kind::Unavailable, message));
            }
        };
        self.metrics.tensors(asked, bytes(&outputs));
        Ok(InferResponse {
            model_name: self.identity.name.clone(),
            model_version: self.identity.version.clone(),
            id: request.id.clone(),
            outputs,
        })
    }
}

fn bytes(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|tensor| tensor.data().len()).sum()
}

/// Of a request that names none: some may go before it, some may wait.
const DEFAULT_PRIORITY: u8 = 5;

/// The inputs in the model's order: each once, of its type and shape.
pub fn arrange(specs: &[TensorSpec], inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    // Most clients send them in the order that they read in the metadata.
    if inputs.len() == specs.len() && inputs.iter().zip(specs).all(|(tensor, spec)| tensor.name == spec.name)
    {
        for (tensor, spec) in inputs.iter().zip(specs) {
            fits(tensor, spec)?;
        }
        return Ok(inputs);
    }
    let mut given: HashMap<String, Tensor> = HashMap::with_capacity(inputs.len());
    for tensor in inputs {
        if let Some(twice) = given.insert(tensor.name.clone(), tensor) {
            return Err(Error::invalid(format!("input {:?} is given twice", twice.name)));
        }
    }
    let mut arranged = Vec::with_capacity(specs.len());
    for spec in specs {
        let name = &spec.name;
        let Some(tensor) = given.remove(name) else {
            return Err(Error::invalid(format!("input {name:?} is missing: the model expects {spec}")));
        };
        fits(&tensor, spec)?;
        arranged.push(tensor);
    }
    match given.into_keys().min() {
        None => Ok(arranged),
        Some(name) => Err(Error::invalid(format!("unknown input {name:?}: the model has {}", names(specs)))),
    }
}

fn fits(tensor: &Tensor, spec: &TensorSpec) -> Result<(), Error> {
    if tensor.datatype == spec.datatype && spec.accepts(&tensor.shape) {
        return Ok(());
    }
    let got = TensorSpec { name: String::new(), datatype: tensor.datatype, shape: tensor.shape.clone() };
    Err(Error::invalid(format!("input {:?} is {got}, the model expects {spec}", spec.name)))
}

/// The indices of the outputs that the request asks for; all, when it names none.
pub fn choose(specs: &[TensorSpec], request: &InferRequest) -> Result<Vec<usize>, Error> {
    if request.outputs.is_empty() {
        return Ok((0..specs.len()).collect());
    }
    let mut chosen = Vec::with_capacity(request.outputs.len().min(specs.len()));
    for output in &request.outputs {
        let name = &output.name;
        let Some(index) = specs.iter().position(|s| s.name == *name) else {
            return Err(Error::invalid(format!("unknown output {name:?}: the model has {}", names(specs))));
        };
        if chosen.contains(&index) {
            return Err(Error::invalid(format!("output {name:?} is asked for twice")));
        }
        chosen.push(index);
    }
    Ok(chosen)
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs.iter().map(|s| format!("{:?} {s}", s.name)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
