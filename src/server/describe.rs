//! Triton's extensions that describe the model and what it has done.

use super::model::{Identity, Server};
use crate::protocol::grpc::proto::model_version_policy::Latest;
use crate::protocol::grpc::proto::repository_index_response::ModelIndex;
use crate::protocol::grpc::proto::{
    DataType, ModelConfig, ModelDynamicBatching, ModelInput, ModelOutput, ModelStatisticsResponse,
    ModelVersionPolicy,
};
use crate::protocol::{Error, TensorSpec};

impl Server {
    pub fn model_config(&self) -> Result<ModelConfig, Error> {
        let model = self.model()?;
        Ok(config(&self.identity, &model.inputs, &model.outputs, model.queue.max_batch_size()))
    }

    pub fn model_statistics(&self) -> ModelStatisticsResponse {
        let Identity { name, version, .. } = &self.identity;
        ModelStatisticsResponse { model_stats: vec![self.metrics.statistics.report(name, version)] }
    }

    pub fn repository_index(&self, only_ready: bool) -> Vec<ModelIndex> {
        let state = match self.is_ready() {
            true => "READY",
            false if only_ready => return Vec::new(),
            false => "LOADING",
        };
        let Identity { name, version, .. } = self.identity.clone();
        vec![ModelIndex { name, version, state: state.into(), reason: String::new() }]
    }
}

/// `max_batch_size`: the largest batch, where batches are formed along the first axis of every tensor. Triton's clients
/// put that axis before the `dims` they read here, so a model whose batch lies elsewhere says nothing of it.
fn config(
    identity: &Identity,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    max_batch_size: Option<usize>,
) -> ModelConfig {
    let dims = |spec: &TensorSpec| {
        spec.shape[usize::from(max_batch_size.is_some()).min(spec.shape.len())..].to_vec()
    };
    let data_type = |spec: &TensorSpec| DataType::from(spec.datatype).into();
    ModelConfig {
        name: identity.name.clone(),
        platform: "onnxruntime_onnx".into(),
        backend: "onnxruntime".into(),
        version_policy: Some(ModelVersionPolicy { latest: Some(Latest { num_versions: 1 }) }),
        max_batch_size: max_batch_size.map_or(0, |rows| i32::try_from(rows).unwrap_or(i32::MAX)),
        input: inputs
            .iter()
            .map(|spec| ModelInput { name: spec.name.clone(), data_type: data_type(spec), dims: dims(spec) })
            .collect(),
        output: outputs
            .iter()
            .map(|spec| ModelOutput { name: spec.name.clone(), data_type: data_type(spec), dims: dims(spec) })
            .collect(),
        // Without a timer: what is queued when a thread gets free is a batch.
        dynamic_batching: max_batch_size.map(|_| ModelDynamicBatching::default()),
        default_model_filename: "model.onnx".into(),
    }
}

#[cfg(test)]
mod tests;
