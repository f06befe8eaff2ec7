//! What the processes hand to each other: versioned JSON.
//!
//! Servers months old talk to newer operators and gateways, so these formats only grow: a field, once shipped,
//! keeps its meaning, and readers ignore what they do not know. `tests.rs` holds one document of every shipped
//! version and proves that it still reads.
//!
//! ```text
//! operator ── SourceRequest (argument) ──> resolve pod ── ResolveReport (termination message) ──> operator
//! operator ── Assignments (pod annotation, downward-API file) ──> loader and server
//! loader ── LoadStatus (file beside the model) ──> server
//! server ── PodState (GET /modelwright/v1/state) ──> operator
//! server ── Announcement (POST /modelwright/v1/announce) ──> gateway
//! gateway ── GatewayReport (GET /modelwright/v1/stream) ──> operator
//! ```

mod announcement;
mod assignment;
mod gateway;
mod report;
mod source;
mod state;

pub use announcement::Announcement;
pub use assignment::{Assignment, Assignments, Slot};
pub use gateway::{AppliedRoute, Demand, GatewayReport, OutputReport, PastDemand, ShadowReport, Trial};
pub use report::{Dim, GraphSummary, ReportError, ResolveReport, Resolved, TensorSignature};
pub use source::{HubSettings, Pin, PinnedFile, PinnedSource, S3Settings, SourceRequest};
pub use state::{BatchingState, Capacity, LoadPhase, LoadStatus, PodState, RevisionPhase, RevisionState};

/// The version written into every document.
pub const FORMAT_VERSION: u32 = 1;

/// Of the tokens that loaders show to the node cache. The API server's own takes none of them.
pub const NODE_CACHE_AUDIENCE: &str = "modelwright-node-cache";

/// Where the containers of a serving pod find things. Part of the format: a pod's template outlives its operator.
pub mod paths {
    /// The `Assignments` document (downward API; watch the folder's `..data` link, the file itself is replaced).
    pub const ASSIGNMENT: &str = "/etc/modelwright/pod/assignment";
    /// One folder a revision below `revisions/`, one `LoadStatus` a revision below `status/<revision>.json`.
    pub const MODELS: &str = "/models";
    /// The Secret of `model.secretRef`, one file a key; absent when the Secret is.
    pub const STORE_SECRET: &str = "/etc/modelwright/store";
    /// The ConfigMap of `model.caBundleRef`, PEM files.
    pub const CA_BUNDLE: &str = "/etc/modelwright/ca";
    /// The claim of a `pvc://` source, read-only.
    pub const CLAIM: &str = "/mnt/source";
    /// The server's writable scratch space.
    pub const SCRATCH: &str = "/tmp";
    /// Of a gateway: the Secret `modelwright-api-keys`, one file an entry; empty when the Secret is absent.
    pub const API_KEYS: &str = "/etc/modelwright/api-keys";
    /// Of a gateway: the Secret `modelwright-gateway-tls`, `tls.crt` and `tls.key`; empty when the Secret is absent.
    pub const GATEWAY_TLS: &str = "/etc/modelwright/tls";
    /// Of a loader: the pod's token for the node cache.
    pub const NODE_CACHE_TOKEN: &str = "/etc/modelwright/node-cache/token";
    /// What TensorRT compiles; kept while the pod lives.
    pub const CACHE: &str = "/var/cache/modelwright";
}

/// Ports of serving pods and gateways.
pub mod ports {
    /// Open Inference Protocol, REST and gRPC, of the first assignment.
    pub const INFERENCE: u16 = 8080;
    /// Of gateways: the same over TLS, where there is a certificate.
    pub const INFERENCE_TLS: u16 = 8443;
    /// `/healthz`, `/readyz`, `/metrics`, `/modelwright/v1/state`.
    pub const ADMIN: u16 = 8081;
    /// Of gateways: `/modelwright/v1/announce`, for serving pods. Apart, so that a NetworkPolicy can tell who may.
    pub const ANNOUNCE: u16 = 8082;
    /// Of the node cache, for loaders.
    pub const NODE_CACHE: u16 = 8080;
}

#[cfg(test)]
mod tests;
