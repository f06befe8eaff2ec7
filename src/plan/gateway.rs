//! The gateways of one namespace. All its ModelDeployments own them together, so that the last one takes them along.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube_quantity::ParsedQuantity;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::children::{container_security, pod_security};
use super::write::{Kind, Write};
use crate::api::{GROUP, annotations, labels};
use crate::formats::{paths, ports};
use crate::observe::{GATEWAY_NAME, GatewayObject, GatewaySettings, gateway_labels};

/// The kubelet kills what runs still; the gateway itself ends sooner, and says what it gave up.
const KILL_AFTER_GRACE_SECONDS: i64 = 10;

/// Volumes: what gateways read where it is there. No component has a verb on Secrets.
const SECRETS: [(&str, &str, &str); 2] = [
    ("api-keys", "modelwright-api-keys", paths::API_KEYS),
    ("tls", "modelwright-gateway-tls", paths::GATEWAY_TLS),
];

/// What is known of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    pub name: String,
    /// ModelDeployments that are not being deleted: name and uid.
    pub owners: BTreeMap<String, String>,
    pub objects: BTreeMap<Kind, Arc<GatewayObject>>,
    /// Not too many other namespaces exchange their gateways just now.
    pub may_roll: bool,
}

/// What to write, in order.
#[derive(Clone, Debug, Default)]
pub struct GatewayPlan {
    pub writes: Vec<Write>,
    /// New pods are to come, and it is not this namespace's turn.
    pub waits: bool,
}

pub fn gateway(namespace: &Namespace, settings: &GatewaySettings) -> GatewayPlan {
    let mut plan = GatewayPlan::default();
    if namespace.owners.is_empty() {
        return plan; // the garbage collector takes them
    }
    for (kind, api_version, content) in contents(namespace, settings) {
        let wanted = body(namespace, kind, api_version, content);
        let Some(existing) = namespace.objects.get(&kind) else {
            plan.writes.push(Write::Create { kind, name: GATEWAY_NAME.into(), body: wanted });
            continue;
        };
        let said = existing.said();
        if existing.meta.deleting || covers(&said, &wanted) {
            continue;
        }
        let mark = |body: &Value| body["metadata"]["annotations"][annotations::APPLIED].clone();
        if kind == Kind::Deployment && !namespace.may_roll && mark(&said) != mark(&wanted) {
            plan.waits = true;
            continue;
        }
        let mut body = wanted;
        body["metadata"]["uid"] = json!(existing.meta.uid);
        plan.writes.push(Write::Apply { kind, name: GATEWAY_NAME.into(), body });
    }
    plan
}

/// The ServiceAccount first and the Deployment last: its pods need the others.
fn contents(namespace: &Namespace, settings: &GatewaySettings) -> [(Kind, &'static str, Value); 7] {
    let selector = json!({ "matchLabels": gateway_labels() });
    [
        (Kind::ServiceAccount, "v1", json!({})),
        (
            Kind::Role,
            "rbac.authorization.k8s.io/v1",
            json!({ "rules": [
                { "apiGroups": [GROUP], "resources": ["modelroutes"], "verbs": ["list", "watch"] },
                { "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] },
            ] }),
        ),
        (
            Kind::RoleBinding,
            "rbac.authorization.k8s.io/v1",
            json!({
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": GATEWAY_NAME },
                "subjects": [
                    { "kind": "ServiceAccount", "name": GATEWAY_NAME, "namespace": namespace.name },
                ],
            }),
        ),
        (
            Kind::NetworkPolicy,
            "networking.k8s.io/v1",
            // Requests from anybody; the operator and Prometheus may be in any namespace. Only serving pods of this one
            // have something to announce. Egress stays free: a policy can't name the API server.
            json!({ "spec": {
                "podSelector": selector,
                "policyTypes": ["Ingress"],
                "ingress": [
                    { "ports": [
                        { "port": ports::INFERENCE, "protocol": "TCP" },
                        { "port": ports::INFERENCE_TLS, "protocol": "TCP" },
                        { "port": ports::ADMIN, "protocol": "TCP" },
                    ] },
                    {
                        "from": [{ "podSelector": { "matchLabels": { labels::ROLE: "serve" } } }],
                        "ports": [{ "port": ports::ANNOUNCE, "protocol": "TCP" }],
                    },
                ],
            } }),
        ),
        (
            Kind::Service,
            "v1",
            // Without an address of its own: the name has the addresses of all, and each must be told.
            json!({ "spec": {
                "clusterIP": "None",
                "selector": gateway_labels(),
                "ports": [{ "name": "announce", "port": ports::ANNOUNCE, "targetPort": ports::ANNOUNCE,
                    "protocol": "TCP" }],
            } }),
        ),
        (
            Kind::PodDisruptionBudget,
            "policy/v1",
            json!({ "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": selector,
            } }),
        ),
        (Kind::Deployment, "apps/v1", json!({ "spec": deployment(settings) })),
    ]
}

fn deployment(settings: &GatewaySettings) -> Value {
    let mut labels = gateway_labels();
    labels["app.kubernetes.io/name"] = json!(GATEWAY_NAME);
    labels["app.kubernetes.io/managed-by"] = json!("modelwright");
    labels["sidecar.istio.io/inject"] = json!("false");
    let mut pod = json!({
        "serviceAccountName": GATEWAY_NAME,
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": settings.grace_seconds + KILL_AFTER_GRACE_SECONDS,
        "securityContext": pod_security(),
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": gateway_labels() },
        }],
        "containers": [{
            "name": "gateway",
            "image": settings.image,
            "imagePullPolicy": settings.image_pull_policy,
            "command": ["/modelwright-gateway"],
            "args": [format!("--grace-seconds={}", settings.grace_seconds)],
            "env": [{
                "name": "POD_NAMESPACE",
                "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } },
            }],
            "ports": [
                { "name": "http", "containerPort": ports::INFERENCE, "protocol": "TCP" },
                { "name": "https", "containerPort": ports::INFERENCE_TLS, "protocol": "TCP" },
                { "name": "admin", "containerPort": ports::ADMIN, "protocol": "TCP" },
                { "name": "announce", "containerPort": ports::ANNOUNCE, "protocol": "TCP" },
            ],
            "readinessProbe": { "httpGet": { "path": "/readyz", "port": "admin" },
                "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 2 },
            // Lenient: a gateway that is killed loses what it holds.
            "livenessProbe": { "httpGet": { "path": "/healthz", "port": "admin" },
                "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6 },
            "resources": settings.resources,
            "securityContext": container_security(),
            "volumeMounts": SECRETS.map(|(volume, _, path)| {
                json!({ "name": volume, "mountPath": path, "readOnly": true })
            }),
        }],
        // From the start, so that one that comes later restarts no gateway; the kubelet delivers them.
        "volumes": SECRETS.map(|(volume, secret, _)| {
            json!({ "name": volume, "secret": { "secretName": secret, "optional": true } })
        }),
    });
    if !settings.image_pull_secrets.is_empty() {
        let secrets = settings.image_pull_secrets.iter().map(|name| json!({ "name": name }));
        pod["imagePullSecrets"] = secrets.collect();
    }
    json!({
        "replicas": settings.replicas,
        "revisionHistoryLimit": 1,
        // A new one is ready before an old one leaves.
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
        "selector": { "matchLabels": gateway_labels() },
        "template": { "metadata": { "labels": labels }, "spec": pod },
    })
}

fn body(namespace: &Namespace, kind: Kind, api_version: &str, content: Value) -> Value {
    // Also notices what is no longer said, which a comparison with the live object can't.
    let mark = Sha256::digest(content.to_string());
    let mark: String = mark.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut body = content;
    body["apiVersion"] = json!(api_version);
    body["kind"] = json!(kind.as_str());
    body["metadata"] = json!({
        "name": GATEWAY_NAME,
        "namespace": namespace.name,
        "labels": {
            labels::COMPONENT: labels::GATEWAY,
            "app.kubernetes.io/name": GATEWAY_NAME,
            "app.kubernetes.io/managed-by": "modelwright",
        },
        "annotations": { annotations::APPLIED: mark },
        // No controller among them: there can be only one.
        "ownerReferences": namespace.owners.iter().map(|(name, uid)| json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "ModelDeployment", "name": name, "uid": uid,
        })).collect::<Vec<_>>(),
    });
    body
}

/// The live object says all that we would. What it says beyond that is defaults of the API server, and owners that the
/// garbage collector drops by itself.
fn covers(said: &Value, wanted: &Value) -> bool {
    let Value::Object(parts) = wanted else { return false };
    parts.iter().all(|(key, part)| match key.as_str() {
        "apiVersion" | "kind" => true,
        "metadata" => {
            let (said, owners) = (&said["metadata"], &said["metadata"]["ownerReferences"]);
            let owners = owners.as_array().map(Vec::as_slice).unwrap_or_default();
            let wanted_owners = part["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
            let known: std::collections::HashSet<&str> =
                owners.iter().filter_map(|o| o["uid"].as_str()).collect();
            wanted_owners.iter().filter_map(|o| o["uid"].as_str()).all(|uid| known.contains(uid))
                && within(&said["labels"], &part["labels"])
                && within(&said["annotations"], &part["annotations"])
        }
        _ => within(&said[key], part),
    })
}

fn within(said: &Value, wanted: &Value) -> bool {
    match (said, wanted) {
        (Value::Object(said), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| said.get(key).is_some_and(|said| within(said, value)))
        }
        (Value::Array(said), Value::Array(wanted)) => {
            said.len() == wanted.len() && said.iter().zip(wanted).all(|(said, wanted)| within(said, wanted))
        }
        // The API server writes 0.5 of a processor as 500m.
        (Value::String(said), Value::String(wanted)) => said == wanted || same_quantity(said, wanted),
        _ => said == wanted,
    }
}

fn same_quantity(one: &str, other: &str) -> bool {
    let parse = |text: &str| ParsedQuantity::try_from(&Quantity(text.into())).ok();
    parse(one).is_some_and(|one| parse(other) == Some(one))
}

#[cfg(test)]
mod tests;
