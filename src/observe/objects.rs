//! The parts of Kubernetes' objects that the operator reads. A watch parses each object some ten times in its life, and
//! managed fields, which nobody reads, are a good part of it; the whole types also make the binary a tenth larger.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Everything of the metadata that is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let read = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        generation: read.generation,
        labels: read.labels,
        annotations: read.annotations,
        owner_references: read.owner_references,
        creation_timestamp: read.creation_timestamp,
        deletion_timestamp: read.deletion_timestamp,
        ..Default::default()
    })
}

macro_rules! objects {
    ($($kind:ident = $of:path { $($field:ident: $type:ty),* })+) => { $(
        #[derive(Resource, Clone, Debug, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[resource(inherit = $of)]
        pub struct $kind {
            #[serde(deserialize_with = "metadata")]
            pub metadata: ObjectMeta,
            $(pub $field: Option<$type>,)*
        }
    )+ };
}

objects! {
    ControllerRevision = k8s_openapi::api::apps::v1::ControllerRevision { revision: i64, data: Value }
    ReplicaSet = k8s_openapi::api::apps::v1::ReplicaSet { spec: ReplicaSetSpec, status: ReplicaSetStatus }
    Service = k8s_openapi::api::core::v1::Service { spec: ServiceSpec }
    PodDisruptionBudget = k8s_openapi::api::policy::v1::PodDisruptionBudget {}
    Pod = k8s_openapi::api::core::v1::Pod { spec: PodSpec, status: PodStatus }
    // Of the gateways, what was written is compared whole.
    Deployment = k8s_openapi::api::apps::v1::Deployment { spec: Value, status: DeploymentStatus }
    ServiceAccount = k8s_openapi::api::core::v1::ServiceAccount {}
    Role = k8s_openapi::api::rbac::v1::Role { rules: Value }
    RoleBinding = k8s_openapi::api::rbac::v1::RoleBinding { role_ref: Value, subjects: Value }
    NetworkPolicy = k8s_openapi::api::networking::v1::NetworkPolicy { spec: Value }
    GatewayService = k8s_openapi::api::core::v1::Service { spec: Value }
    GatewayBudget = k8s_openapi::api::policy::v1::PodDisruptionBudget { spec: Value }
}

macro_rules! parts {
    ($($part:ident { $($(#[$meta:meta])* $field:ident: $type:ty),+ $(,)? })+) => { $(
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $part { $($(#[$meta])* pub $field: $type),+ }
    )+ };
}

parts! {
    ReplicaSetSpec { replicas: Option<i32>, template: Template }
    Template { metadata: TemplateMetadata }
    TemplateMetadata { labels: BTreeMap<String, String>, annotations: BTreeMap<String, String> }
    ReplicaSetStatus {
        observed_generation: Option<i64>,
        replicas: i32,
        ready_replicas: i32,
        available_replicas: i32,
        conditions: Vec<Condition>,
    }
    DeploymentStatus {
        observed_generation: Option<i64>,
        replicas: i32,
        updated_replicas: i32,
        available_replicas: i32,
        conditions: Vec<Condition>,
    }
    ServiceSpec { selector: Option<BTreeMap<String, String>>, ports: Vec<ServicePort> }
    ServicePort { name: String }
    PodSpec { containers: Vec<Container> }
    Container { resources: Resources }
    Resources { limits: BTreeMap<String, Quantity> }
    PodStatus {
        phase: String,
        reason: String,
        message: String,
        #[serde(rename = "podIP")]
        pod_ip: Option<String>,
        conditions: Vec<Condition>,
        container_statuses: Vec<ContainerStatus>,
    }
    ContainerStatus {
        name: String,
        restart_count: i32,
        state: ContainerState,
        last_state: ContainerState,
    }
    ContainerState {
        running: Option<Running>,
        waiting: Option<Waiting>,
        terminated: Option<Terminated>,
    }
    Running { started_at: Option<Time> }
    Waiting { reason: String, message: String }
    Terminated { reason: String, message: String, exit_code: i32 }
    Condition {
        #[serde(rename = "type")]
        type_: String,
        status: String,
        reason: String,
        message: String,
        last_transition_time: Option<Time>,
    }
}
