//! What a namespace's gateways consist of, beside their pods.

use serde_json::{Value, json};

use super::objects::{
    Deployment, DeploymentStatus, GatewayBudget, GatewayService, NetworkPolicy, Role, RoleBinding,
    ServiceAccount,
};
use super::shelf::{Shelf, View};
use super::views::{Meta, PodView};
use crate::api::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The name of every object of a namespace's gateways.
pub const GATEWAY_NAME: &str = "modelwright-gateway";

#[derive(Clone, Debug, PartialEq)]
pub struct GatewayObject {
    pub meta: Meta,
    /// What it says, as text: a tree would take five times the memory.
    said: Box<str>,
    /// Of the Deployment.
    pub rollout: Option<GatewayRollout>,
}

/// How far the Deployment's pods are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayRollout {
    pub wanted: i32,
    pub available: i32,
    /// Every pod is of the newest template, or the Deployment has said that it gives up.
    pub settled: bool,
    /// Why it can't make pods.
    pub failure: Option<String>,
}

impl GatewayObject {
    fn new(object: &ObjectMeta, mut said: Value, rollout: Option<GatewayRollout>) -> Option<Self> {
        let meta = Meta::of_gateway(object)?;
        let owners = object.owner_references.iter().flatten();
        said["metadata"] = json!({
            "labels": object.labels,
            "annotations": object.annotations,
            "ownerReferences": owners.map(|o| json!({
                "apiVersion": o.api_version, "kind": o.kind, "name": o.name, "uid": o.uid,
            })).collect::<Vec<_>>(),
        });
        Some(Self { meta, said: said.to_string().into(), rollout })
    }

    pub fn said(&self) -> Value {
        serde_json::from_str(&self.said).unwrap_or_default()
    }

    pub fn deployment(object: Deployment) -> Option<Self> {
        let status = object.status.unwrap_or_default();
        let wanted = object.spec.as_ref().and_then(|s| s["replicas"].as_i64()).unwrap_or(1);
        let observed = status.observed_generation >= object.metadata.generation;
        let rollout = GatewayRollout::of(status, wanted as i32, observed);
        Self::new(&object.metadata, json!({ "spec": object.spec }), Some(rollout))
    }

    pub fn service_account(object: ServiceAccount) -> Option<Self> {
        Self::new(&object.metadata, json!({}), None)
    }

    pub fn role(object: Role) -> Option<Self> {
        Self::new(&object.metadata, json!({ "rules": object.rules }), None)
    }

    pub fn role_binding(object: RoleBinding) -> Option<Self> {
        Self::new(&object.metadata, json!({ "roleRef": object.role_ref, "subjects": object.subjects }), None)
    }

    pub fn budget(object: GatewayBudget) -> Option<Self> {
        Self::new(&object.metadata, json!({ "spec": object.spec }), None)
    }

    pub fn service(object: GatewayService) -> Option<Self> {
        Self::new(&object.metadata, json!({ "spec": object.spec }), None)
    }

    pub fn network_policy(object: NetworkPolicy) -> Option<Self> {
        Self::new(&object.metadata, json!({ "spec": object.spec }), None)
    }
}

impl GatewayRollout {
    fn of(status: DeploymentStatus, wanted: i32, observed: bool) -> Self {
        let condition = |name: &str| status.conditions.iter().find(|c| c.type_ == name);
        let done = status.updated_replicas >= wanted
            && status.replicas <= status.updated_replicas
            && status.available_replicas >= wanted;
        let gave_up = condition("Progressing").is_some_and(|c| c.reason == "ProgressDeadlineExceeded");
        let refused = condition("ReplicaFailure").filter(|c| c.status == "True");
        Self {
            wanted,
            available: status.available_replicas,
            settled: observed && (done || gave_up),
            failure: refused.map(|c| c.message.clone()),
        }
    }
}

impl View for GatewayObject {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// Of all namespaces. The family of each object is its namespace and no ModelDeployment.
#[derive(Default)]
pub struct GatewayShelves {
    pub deployments: Shelf<GatewayObject>,
    pub service_accounts: Shelf<GatewayObject>,
    pub roles: Shelf<GatewayObject>,
    pub role_bindings: Shelf<GatewayObject>,
    pub budgets: Shelf<GatewayObject>,
    pub policies: Shelf<GatewayObject>,
    pub services: Shelf<GatewayObject>,
    pub pods: Shelf<PodView>,
}

impl GatewayShelves {
    pub fn synced(&self) -> bool {
        self.deployments.synced()
            && self.service_accounts.synced()
            && self.roles.synced()
            && self.role_bindings.synced()
            && self.budgets.synced()
            && self.policies.synced()
            && self.services.synced()
            && self.pods.synced()
    }
}

/// The selector of the gateways' pods, and the labels of everything beside them.
pub fn gateway_labels() -> Value {
    json!({ labels::COMPONENT: labels::GATEWAY })
}
