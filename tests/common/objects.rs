//! Objects that tests send, and what they look for in answers.

use modelwright::api::{ModelDeployment, StatusCondition};
use serde_json::{Value, json};

/// A source of its own for each name and version.
pub fn uri(name: &str, version: u32) -> String {
    format!("s3://models/{name}/v{version}/model.onnx")
}

/// The ten lines of a user.
pub fn deployment(name: &str) -> ModelDeployment {
    from(json!({ "uri": uri(name, 1), "digest": digest(name) }), name)
}

fn from(model: Value, name: &str) -> ModelDeployment {
    serde_json::from_value(json!({
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": { "name": name },
        "spec": { "model": model },
    }))
    .expect("a ModelDeployment")
}

/// Any 64 digits will do: the fake resolver never reads a byte.
fn digest(seed: &str) -> String {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest(seed).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

pub fn condition<'a>(deployment: &'a ModelDeployment, kind: &str) -> Option<&'a StatusCondition> {
    deployment.status.as_ref()?.conditions.iter().find(|c| c.type_ == kind)
}

/// Ready, and said so of the newest spec.
pub fn ready(deployment: &ModelDeployment) -> bool {
    let generation = deployment.metadata.generation;
    condition(deployment, "Ready").is_some_and(|c| c.status == "True" && c.observed_generation == generation)
}
