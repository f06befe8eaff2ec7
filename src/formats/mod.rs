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
//! ```

mod assignment;
mod report;
mod source;
mod state;

pub use assignment::{Assignment, Assignments};
pub use report::{Dim, GraphSummary, ReportError, ResolveReport, Resolved, TensorSignature};
pub use source::{HubSettings, Pin, PinnedFile, PinnedSource, S3Settings, SourceRequest};
pub use state::{BatchingState, LoadPhase, LoadStatus, PodState, RevisionPhase, RevisionState};

/// The version written into every document.
pub const FORMAT_VERSION: u32 = 1;

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
    /// What TensorRT compiles; kept while the pod lives.
    pub const CACHE: &str = "/var/cache/modelwright";
}

/// Ports of a serving pod.
pub mod ports {
    /// Open Inference Protocol, REST and gRPC, of the first assignment.
    pub const INFERENCE: u16 = 8080;
    /// `/healthz`, `/readyz`, `/metrics`, `/modelwright/v1/state`.
    pub const ADMIN: u16 = 8081;
}

#[cfg(test)]
mod tests;
