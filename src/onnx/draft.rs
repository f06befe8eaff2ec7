//! What the walk has found so far, within bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::error::quote;
use super::{ExternalFile, Model, OnnxError, limits, operators};
use crate::formats::{Dim, TensorSignature};

#[derive(Default)]
pub(super) struct Draft {
    pub ir_version: Option<u64>,
    pub has_graph: bool,
    pub producer: String,
    pub opset: (String, u64),
    opsets: BTreeMap<String, u64>,
    pub value: ValueDraft,
    inputs: Vec<TensorSignature>,
    outputs: Vec<TensorSignature>,
    /// Hashes: a model may have a million initializers, and only inputs of the same name matter.
    initializers: Vec<u64>,
    tensors: usize,
    operators: BTreeSet<(String, String)>,
    functions: BTreeSet<(String, String)>,
    external: BTreeMap<String, ExternalFile>,
    pub nodes: u64,
    quantizes_dynamically: bool,
    pub weight_bytes: u64,
    kept: u64,
}

#[derive(Default)]
pub(super) struct ValueDraft {
    pub name: String,
    pub datatype: String,
    pub shape: Option<Vec<Dim>>,
    pub dim: Option<Dim>,
}

impl Draft {
    /// Accounts for something that stays in memory.
    fn keep(&mut self, bytes: usize) -> Result<(), OnnxError> {
        // The constant stands for the allocations around a short name.
        self.kept += bytes as u64 + 64;
        if self.kept > limits::KEPT {
            let megabytes = limits::KEPT >> 20;
            return Err(OnnxError::Limit(format!("its names alone take more than {megabytes} MiB")));
        }
        Ok(())
    }

    pub fn end_opset(&mut self) -> Result<(), OnnxError> {
        let (domain, version) = std::mem::take(&mut self.opset);
        let domain = standard(domain);
        if version > i64::MAX as u64 {
            return Err(OnnxError::Invalid(format!("the opset of {} is negative", quote(&domain))));
        }
        self.keep(domain.len())?;
        let known = self.opsets.entry(domain).or_default();
        *known = (*known).max(version);
        Ok(())
    }

    pub fn end_node(&mut self, name: String, domain: String) -> Result<(), OnnxError> {
        self.nodes += 1;
        self.quantizes_dynamically |= name.starts_with("DynamicQuantize");
        let operator = (standard(domain), name);
        if operators::is_known(&operator.0, &operator.1) || self.operators.contains(&operator) {
            return Ok(());
        }
        self.keep(operator.0.len() + operator.1.len())?;
        self.operators.insert(operator);
        Ok(())
    }

    pub fn end_function(&mut self, name: String, domain: String) -> Result<(), OnnxError> {
        self.keep(name.len() + domain.len())?;
        self.functions.insert((standard(domain), name));
        Ok(())
    }

    pub fn end_dim(&mut self) -> Result<(), OnnxError> {
        let dim = self.value.dim.take().unwrap_or(Dim::Dynamic(String::new()));
        self.keep(if let Dim::Dynamic(name) = &dim { name.len() } else { 0 })?;
        self.value.shape.get_or_insert_default().push(dim);
        Ok(())
    }

    pub fn end_value(&mut self, is_input: bool) -> Result<(), OnnxError> {
        let value = std::mem::take(&mut self.value);
        self.keep(value.name.len() + value.datatype.len())?;
        let signature = TensorSignature { name: value.name, datatype: value.datatype, shape: value.shape };
        if is_input {
            self.inputs.push(signature)
        } else {
            self.outputs.push(signature)
        }
        Ok(())
    }

    pub fn count_tensor(&mut self) -> Result<(), OnnxError> {
        self.tensors += 1;
        if self.tensors > limits::TENSORS {
            return Err(OnnxError::Limit(format!("it has more than {} tensors", limits::TENSORS)));
        }
        Ok(())
    }

    pub fn initializer(&mut self, name: &str) {
        self.initializers.push(hash(name));
    }

    pub fn external(&mut self, path: String, tensor: String, end: u64, bytes: u64) -> Result<(), OnnxError> {
        self.weight_bytes = self.weight_bytes.saturating_add(bytes);
        if let Some(file) = self.external.get_mut(&path) {
            if end > file.end {
                file.end = end;
                file.last = tensor;
            }
            return Ok(());
        }
        self.keep(path.len() + 2 * tensor.len())?;
        self.external.insert(path, ExternalFile { last: tensor.clone(), tensor, end });
        Ok(())
    }

    pub fn finish(mut self) -> Result<Model, OnnxError> {
        let missing = |what: &str| OnnxError::NotOnnx(format!("it has no {what}"));
        let ir_version = self.ir_version.ok_or_else(|| missing("IR version"))?;
        if !self.has_graph {
            return Err(missing("graph"));
        }
        if self.opsets.is_empty() {
            return Err(OnnxError::Invalid("the model does not say which opset it uses".into()));
        }
        if self.outputs.is_empty() {
            return Err(OnnxError::Invalid("the graph has no outputs".into()));
        }
        self.initializers.sort_unstable();
        let initializers = self.initializers;
        self.inputs.retain(|input| initializers.binary_search(&hash(&input.name)).is_err());
        // Functions may stand after the nodes that call them, so this waits for the end.
        let mut unknown_domains = BTreeMap::new();
        for (domain, name) in self.operators.difference(&self.functions) {
            unknown_domains.entry(domain.clone()).or_insert_with(|| name.clone());
        }
        Ok(Model {
            ir_version,
            opsets: self.opsets,
            producer: self.producer,
            inputs: self.inputs,
            outputs: self.outputs,
            unknown_domains,
            external: self.external,
            nodes: self.nodes,
            quantizes_dynamically: self.quantizes_dynamically,
            weight_bytes: self.weight_bytes,
        })
    }
}

/// The default domain has two names.
fn standard(domain: String) -> String {
    if domain.is_empty() { "ai.onnx".into() } else { domain }
}

/// The same in every process: `DefaultHasher::new` has fixed keys. A chosen collision hides the author's own input.
fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
