//! The resolve pod. The kubelet restarts its container with back-off for as long as it fails, so a store that comes
//! back or a Secret that appears is found without the operator. A Job around it would add nothing but writes and events,
//! and would hide why a pod was refused.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::resolve::CONTAINER;
use super::super::revision::{resolve_at, source_request};
use super::{metadata, template};
use crate::api::labels;
use crate::observe::Snapshot;

/// Its name, and the pod. One name a question: the hash is over the verb's value and everything that the pod is made
/// of, since a pod never changes, and a policy or a registry may have refused the first.
pub(in crate::plan) fn resolve_pod(snapshot: &Snapshot) -> (String, Value) {
    let spec = &snapshot.deployment.spec;
    let request = source_request(&spec.model);
    let (volumes, mounts) = template::source_volumes(&request);
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 5,
        "securityContext": template::pod_security(),
        "containers": [{
            "name": CONTAINER,
            "image": snapshot.settings.loader_image,
            "imagePullPolicy": snapshot.settings.image_pull_policy,
            "command": ["/modelwright-loader", "resolve"],
            "args": ["--source", serde_json::to_string(&request).unwrap_or_default()],
            "resources": template::loader_resources(),
            "securityContext": template::container_security(),
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    });
    template::place(&mut pod, snapshot, spec.service_account_name.as_deref(), spec.pod.as_ref(), false);
    let options = spec.pod.clone().unwrap_or_default();
    let question = json!([pod, options.labels, options.annotations, resolve_at(snapshot)]);
    let hash = Sha256::digest(question.to_string());
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{}-resolve-{hash}", snapshot.name());

    let mut metadata = metadata(snapshot, &name, None, None);
    // The user's labels come first: none of ours can be overwritten.
    let mut labels = json!(options.labels);
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        labels[key] = value.clone();
    }
    labels[labels::ROLE] = json!("resolve");
    labels["sidecar.istio.io/inject"] = json!("false");
    metadata["labels"] = labels;
    metadata["annotations"] = json!(options.annotations);
    // The autoscaler does not know that the operator makes another: one that fails for weeks would hold its node.
    metadata["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] = json!("true");
    (name, json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod }))
}
