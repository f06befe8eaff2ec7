//! The pod template of a revision. Rendered once, stored in the ControllerRevision, never rendered again.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube_quantity::ParsedQuantity;
use serde_json::{Value, json};

use super::super::revision::RevisionSpec;
use super::{common_labels, revision_name};
use crate::api::{PodOptions, ProviderName, labels};
use crate::formats::{Assignment, Assignments, NODE_CACHE_AUDIENCE, Resolved, SourceRequest, paths, ports};
use crate::observe::{GATEWAY_NAME, Settings, Snapshot};

impl RevisionSpec {
    /// Whose memory nobody measures.
    pub fn uses_gpu(&self) -> bool {
        asked(self, ProviderName::CUDA) || asked(self, ProviderName::TensorRT)
    }
}

pub(in crate::plan) const SERVER: &str = "server";
/// Of the server, where the user gives none: enough for a model of 100 MB.
pub(in crate::plan) const DEFAULT_MEMORY: &str = "512Mi";
/// Of a container that ends badly, for the status: few users may read logs, and the next start erases them.
const LAST_WORDS: &str = "FallbackToLogsOnError";
const DEFAULT_CPU: &str = "100m";
const DEFAULT_GRACE_SECONDS: i64 = 60;
/// After SIGTERM, the server accepts for so long.
const ACCEPTING_SECONDS: i64 = 10;
/// Of the grace period, beyond the longest request.
const GRACE_BEYOND_REQUEST: i64 = 30;
const DEFAULT_STARTUP_SECONDS: i32 = 600;

/// The server's image for a spec, and the runtime version in it.
pub fn image_for(settings: &Settings, spec: &RevisionSpec) -> (String, String) {
    let runtime = spec.runtime.clone().unwrap_or_default();
    let version = runtime.version.unwrap_or_else(|| settings.runtime_version.clone());
    let (flavour, suffix) = if asked(spec, ProviderName::TensorRT) {
        ("tensorrt", "-tensorrt")
    } else if asked(spec, ProviderName::CUDA) {
        ("cuda", "-cuda")
    } else {
        ("cpu", "")
    };
    let repository = &settings.server_image;
    let digest = settings.server_digests.get(flavour).filter(|_| version == settings.runtime_version);
    let image = match digest {
        Some(digest) => format!("{repository}@{digest}"),
        None => format!("{repository}:{version}{suffix}"),
    };
    (image, version)
}

fn asked(spec: &RevisionSpec, name: ProviderName) -> bool {
    spec.runtime.iter().flat_map(|runtime| &runtime.execution_providers).any(|provider| provider.name == name)
}

pub(super) fn pod_template(
    snapshot: &Snapshot,
    number: u64,
    spec: &RevisionSpec,
    resolved: &Resolved,
    image: &str,
) -> Value {
    let settings = &snapshot.settings;
    let assignments = Assignments::new(vec![Assignment {
        deployment: snapshot.name().into(),
        revision: revision_name(snapshot, number),
        model_version: number.to_string(),
        port: ports::INFERENCE,
        source: resolved.source.clone(),
    }]);
    let options = spec.pod.clone().unwrap_or_default();
    let mut annotations = json!(options.annotations);
    annotations[Assignments::ANNOTATION] = json!(serde_json::to_string(&assignments).unwrap_or_default());
    // Workload identity is the pod's; its webhooks are told to leave the server out.
    annotations["eks.amazonaws.com/skip-containers"] = json!(SERVER);
    annotations["azure.workload.identity/skip-containers"] = json!(SERVER);

    let mut pod_labels = json!(options.labels);
    for (key, value) in common_labels(snapshot).as_object().into_iter().flatten() {
        pod_labels[key] = value.clone();
    }
    pod_labels[labels::SET] = json!(format!("r{number}"));
    pod_labels[labels::ROLE] = json!("serve");
    // The gateway and clients reach pods by their address: a sidecar's mTLS would refuse them.
    pod_labels["sidecar.istio.io/inject"] = json!("false");

    let (mut volumes, mut mounts) = source_volumes(&resolved.source.request);
    let is_remote = !resolved.source.request.uri.starts_with("pvc://");
    let node_cache = settings.node_cache.as_ref().filter(|_| is_remote);
    if node_cache.is_some() {
        volumes.push(json!({ "name": "node-cache", "projected": { "sources": [{ "serviceAccountToken": {
            "audience": NODE_CACHE_AUDIENCE, "path": "token",
        } }] } }));
        let folder = paths::NODE_CACHE_TOKEN.trim_end_matches("/token");
        mounts.push(json!({ "name": "node-cache", "mountPath": folder, "readOnly": true }));
    }
    // Two models for a while, when a version is swapped inside the pod.
    let size = 2 * resolved.source.size() / (1 << 20) + 64;
    volumes.extend([
        json!({ "name": "models", "emptyDir": { "sizeLimit": format!("{size}Mi") } }),
        json!({ "name": "scratch", "emptyDir": { "sizeLimit": "256Mi" } }),
        json!({ "name": "assignment", "downwardAPI": { "items": [{
            "path": "assignment",
            "fieldRef": { "fieldPath": format!("metadata.annotations['{}']", Assignments::ANNOTATION) },
        }] } }),
    ]);
    let assignment = json!({ "name": "assignment", "mountPath": "/etc/modelwright/pod", "readOnly": true });
    mounts.extend([json!({ "name": "models", "mountPath": paths::MODELS }), assignment.clone()]);
    let mut server_mounts = vec![
        json!({ "name": "models", "mountPath": paths::MODELS, "readOnly": true }),
        assignment,
        json!({ "name": "scratch", "mountPath": paths::SCRATCH }),
    ];
    if asked(spec, ProviderName::TensorRT) {
        // Engines are about as large as their model; an emptyDir that outgrows its limit is the end of its pod.
        let size = 2 * resolved.source.size() / (1 << 20) + 4096;
        volumes.push(json!({ "name": "cache", "emptyDir": { "sizeLimit": format!("{size}Mi") } }));
        server_mounts.push(json!({ "name": "cache", "mountPath": paths::CACHE }));
    }

    let timeout = super::super::route::limits(&snapshot.deployment.spec, None).request_timeout_seconds;
    let grace = spec
        .termination_grace_period_seconds
        .unwrap_or_else(|| DEFAULT_GRACE_SECONDS.max(timeout + GRACE_BEYOND_REQUEST));
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace,
        "securityContext": pod_security(),
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": super::selector(snapshot, &format!("r{number}")) },
        }],
        "containers": [
            {
                // First, so that it fetches while the server's image, gigabytes on GPUs, is still pulled.
                "name": "loader",
                "image": settings.loader_image,
                "imagePullPolicy": settings.image_pull_policy,
                "command": ["/modelwright-loader", "fetch"],
                "terminationMessagePolicy": LAST_WORDS,
                "resources": loader_resources(),
                "securityContext": container_security(),
                "volumeMounts": mounts,
            },
            {
                "name": SERVER,
                "image": image,
                "imagePullPolicy": settings.image_pull_policy,
                "args": server_arguments(spec, grace),
                "ports": [
                    { "name": "http", "containerPort": ports::INFERENCE, "protocol": "TCP" },
                    { "name": "admin", "containerPort": ports::ADMIN, "protocol": "TCP" },
                ],
                // The first probe runs at once; no startup probe, which costs up to a second to Ready.
                "readinessProbe": { "httpGet": { "path": "/readyz", "port": "admin" },
                    "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 2 },
                "livenessProbe": { "httpGet": { "path": "/healthz", "port": "admin" },
                    "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 },
                "terminationMessagePolicy": LAST_WORDS,
                "resources": server_resources(spec),
                "securityContext": container_security(),
                "volumeMounts": server_mounts,
            },
        ],
        "volumes": volumes,
    });
    if let Some(address) = node_cache {
        pod["containers"][0]["env"] = json!([{ "name": "MODELWRIGHT_NODE_CACHE", "value": address }]);
    }
    pod["containers"][1]["env"] = json!(server_environment(&settings.server_environment));
    place(&mut pod, snapshot, spec.service_account_name.as_deref(), spec.pod.as_ref(), true);
    json!({ "metadata": { "labels": pod_labels, "annotations": annotations }, "spec": pod })
}

fn server_arguments(spec: &RevisionSpec, grace: i64) -> Vec<String> {
    let runtime = spec.runtime.clone().unwrap_or_default();
    let startup = runtime.startup_timeout_seconds.unwrap_or(DEFAULT_STARTUP_SECONDS);
    let mut arguments = vec![
        "supervise".to_string(),
        format!("--startup-timeout-seconds={startup}"),
        format!("--grace-seconds={grace}"),
        // A pod that is told to go accepts for ten seconds more, and answers what it has accepted. Shorter time-outs,
        // which apply to running pods, are the gateways'.
        format!("--request-timeout-seconds={}", (grace - ACCEPTING_SECONDS).max(1)),
    ];
    for provider in &runtime.execution_providers {
        let options = provider.options.iter().map(|(key, value)| format!(",{key}={value}"));
        arguments.push(format!(
            "--execution-provider={}{}",
            provider.name.as_str(),
            options.collect::<String>()
        ));
    }
    for (key, value) in &runtime.session_options {
        arguments.push(format!("--session-option={key}={value}"));
    }
    arguments.extend(runtime.cpu_fallback.map(|policy| format!("--cpu-fallback={}", policy.as_str())));
    let limit = runtime.gpu_memory_limit.as_ref().and_then(bytes);
    arguments.extend(limit.map(|bytes| format!("--gpu-memory-limit={bytes}")));
    if asked(spec, ProviderName::TensorRT) {
        arguments.push(format!("--cache-dir={}", paths::CACHE));
    }
    let batching = spec.batching.clone().unwrap_or_default();
    arguments.extend(batching.max_batch_size.map(|rows| format!("--max-batch-size={rows}")));
    let delay = batching.max_queue_delay_microseconds;
    arguments.extend(delay.map(|delay| format!("--max-queue-delay-microseconds={delay}")));
    arguments.extend(batching.axes.iter().map(|(tensor, axis)| format!("--batch-axis={tensor}={axis}")));
    arguments
}

/// None: not an amount, which the schema refuses.
fn bytes(quantity: &Quantity) -> Option<u64> {
    ParsedQuantity::try_from(quantity).ok()?.to_bytes_f64().map(|bytes| bytes as u64)
}

/// The pod's own names first, so that what the administrator sets can use them: `k8s.pod.name=$(POD_NAME)`. Variables,
/// since a server of an older version would refuse an argument that it does not know.
fn server_environment(set: &[(String, String)]) -> Vec<Value> {
    let names = [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_UID", "metadata.uid"),
        ("POD_IP", "status.podIP"),
    ];
    let names = names.map(|(name, path)| {
        (name, json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } }))
    });
    let gateways = format!("{GATEWAY_NAME}:{}", ports::ANNOUNCE);
    let gateways = ("MODELWRIGHT_GATEWAYS", json!({ "name": "MODELWRIGHT_GATEWAYS", "value": gateways }));
    let ours = names.into_iter().chain([gateways]);
    let ours = ours.filter(|(name, _)| set.iter().all(|(other, _)| other != name)).map(|(_, value)| value);
    let set = set.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    ours.chain(set).collect()
}

fn server_resources(spec: &RevisionSpec) -> Value {
    let resources = spec.resources.clone().unwrap_or_default();
    let mut rendered = json!({ "requests": resources.requests, "limits": resources.limits });
    if !resources.limits.contains_key("memory") {
        rendered["limits"]["memory"] =
            resources.requests.get("memory").map_or(json!(DEFAULT_MEMORY), |q| json!(q));
    }
    if !resources.requests.contains_key("memory") {
        rendered["requests"]["memory"] = rendered["limits"]["memory"].clone();
    }
    if !resources.requests.contains_key("cpu") {
        rendered["requests"]["cpu"] = resources.limits.get("cpu").map_or(json!(DEFAULT_CPU), |q| json!(q));
    }
    rendered
}

/// The loader streams: its memory does not grow with the model.
pub(super) fn loader_resources() -> Value {
    json!({ "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "cpu": "1", "memory": "256Mi" } })
}

/// `restricted`, and no fixed user: OpenShift picks one. Loader and server share the image's user, so no fsGroup.
pub(in crate::plan) fn pod_security() -> Value {
    json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } })
}

pub(in crate::plan) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

/// Credentials, authorities and claim of a source. Secret and ConfigMap are optional, so that the loader starts,
/// names what is missing, and recovers when it appears.
pub(super) fn source_volumes(request: &SourceRequest) -> (Vec<Value>, Vec<Value>) {
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    let mut add = |name: &str, path: &str, source: Value| {
        let mut volume = source;
        volume["name"] = json!(name);
        volumes.push(volume);
        mounts.push(json!({ "name": name, "mountPath": path, "readOnly": true }));
    };
    if let Some(secret) = &request.secret_name {
        add("store", paths::STORE_SECRET, json!({ "secret": { "secretName": secret, "optional": true } }));
    }
    if let Some(bundle) = &request.ca_bundle_name {
        add("ca", paths::CA_BUNDLE, json!({ "configMap": { "name": bundle, "optional": true } }));
    }
    let claim = request.uri.strip_prefix("pvc://").and_then(|rest| rest.split('/').next());
    if let Some(claim) = claim {
        let source = json!({ "persistentVolumeClaim": { "claimName": claim, "readOnly": true } });
        add("source", paths::CLAIM, source);
    }
    (volumes, mounts)
}

/// Where the pod runs. The resolver needs no GPU, so it does not wait for a GPU node.
pub(super) fn place(
    pod: &mut Value,
    snapshot: &Snapshot,
    service_account: Option<&str>,
    options: Option<&PodOptions>,
    serving: bool,
) {
    let options = options.cloned().unwrap_or_default();
    if let Some(name) = service_account {
        pod["serviceAccountName"] = json!(name);
    }
    let ours = snapshot.settings.image_pull_secrets.iter().map(|name| json!({ "name": name }));
    let secrets: Vec<Value> = options.image_pull_secrets.iter().map(|s| json!(s)).chain(ours).collect();
    if !secrets.is_empty() {
        pod["imagePullSecrets"] = json!(secrets);
    }
    if !options.tolerations.is_empty() {
        pod["tolerations"] = json!(options.tolerations);
    }
    if !serving {
        return;
    }
    if !options.node_selector.is_empty() {
        pod["nodeSelector"] = json!(options.node_selector);
    }
    if let Some(class) = options.runtime_class_name {
        pod["runtimeClassName"] = json!(class);
    }
    if let Some(class) = options.priority_class_name {
        pod["priorityClassName"] = json!(class);
    }
}
