use serde_json::Value;

use crate::observe::Meta;

/// What the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ModelDeployment,
    ControllerRevision,
    ReplicaSet,
    ModelRoute,
    Service,
    PodDisruptionBudget,
    Pod,
    Event,
    Deployment,
    ServiceAccount,
    Role,
    RoleBinding,
    NetworkPolicy,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ModelDeployment => "ModelDeployment",
            Kind::ControllerRevision => "ControllerRevision",
            Kind::ReplicaSet => "ReplicaSet",
            Kind::ModelRoute => "ModelRoute",
            Kind::Service => "Service",
            Kind::PodDisruptionBudget => "PodDisruptionBudget",
            Kind::Pod => "Pod",
            Kind::Event => "Event",
            Kind::Deployment => "Deployment",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Role => "Role",
            Kind::RoleBinding => "RoleBinding",
            Kind::NetworkPolicy => "NetworkPolicy",
        }
    }
}

/// One request to the API server, in one namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// POST. An object of that name that is not ours is `NameConflict`, never adopted.
    Create { kind: Kind, name: String, body: Value },
    /// Server-side apply. The body carries `metadata.uid`: the API server refuses it when the object is gone or another.
    Apply { kind: Kind, name: String, body: Value },
    /// With UID and resourceVersion: what changed since it was seen stays.
    Delete { kind: Kind, name: String, uid: String, resource_version: u64 },
}

impl Write {
    pub fn delete(kind: Kind, meta: &Meta) -> Self {
        Write::Delete {
            kind,
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Write::Create { kind, .. } | Write::Apply { kind, .. } | Write::Delete { kind, .. } => *kind,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Write::Create { name, .. } | Write::Apply { name, .. } | Write::Delete { name, .. } => name,
        }
    }

    pub fn verb(&self) -> &'static str {
        match self {
            Write::Create { .. } => "create",
            Write::Apply { .. } => "apply",
            Write::Delete { .. } => "delete",
        }
    }
}
