//! The resolve Job. The kubelet restarts its container with back-off for as long as it fails, so a store that comes
//! back or a Secret that appears is found without the operator.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::resolve::CONTAINER;
use super::super::revision::{resolve_at, source_request};
use super::{common_labels, metadata, template};
use crate::api::{PodOptions, labels};
use crate::observe::Snapshot;

/// Long enough to read its log, short enough not to pile up.
const FINISHED_JOB_KEPT_SECONDS: i32 = 120;

/// One name a question: source, credentials' names, the verb's value; and whatever else the pod is made of, since a
/// Job's template never changes, and a policy or a registry may have refused the first.
pub(in crate::plan) fn resolve_job_name(snapshot: &Snapshot) -> String {
    let spec = &snapshot.deployment.spec;
    let mut question = json!([source_request(&spec.model), spec.service_account_name, resolve_at(snapshot)]);
    if let (Some(PodOptions { labels, annotations, tolerations, image_pull_secrets, .. }), Some(parts)) =
        (&spec.pod, question.as_array_mut())
    {
        parts.push(json!([labels, annotations, tolerations, image_pull_secrets]));
    }
    let hash = Sha256::digest(question.to_string());
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-resolve-{hash}", snapshot.name())
}

pub(in crate::plan) fn resolve_job(snapshot: &Snapshot, name: &str) -> Value {
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
    // The user's come first: none of ours can be overwritten.
    let options = spec.pod.clone().unwrap_or_default();
    let mut labels = json!(options.labels);
    for (key, value) in common_labels(snapshot).as_object().into_iter().flatten() {
        labels[key] = value.clone();
    }
    labels[labels::ROLE] = json!("resolve");
    labels["sidecar.istio.io/inject"] = json!("false");
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(snapshot, name, None, None),
        "spec": {
            "ttlSecondsAfterFinished": FINISHED_JOB_KEPT_SECONDS,
            "backoffLimit": 1_000_000,
            "template": { "metadata": { "labels": labels, "annotations": options.annotations }, "spec": pod },
        },
    })
}
