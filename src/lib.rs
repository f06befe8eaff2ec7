//! Modelwright manages the life of ONNX models on Kubernetes.
//!
//! ```text
//! watch ──> observe ──> plan (pure) ──> apply ──> status          the operator
//!    ^      Snapshot      Plan          Applied    one writer
//!    └────────────── watch events, plan.wake_at ──────┘
//!
//! resolve pod:  loader resolve ── reads the graph (onnx), pins the source ──> termination message
//! serving pod:  loader fetch ──> /models/<revision> ──> server: supervisor ──> one worker per revision
//! ```
//!
//! | module | what it holds |
//! |-|-|
//! | `api` | the custom resource: types, rules, condition and reason names |
//! | `formats` | what the processes hand to each other: versioned JSON |
//! | `onnx` | pure: the graph of a model file, read as a stream |
//! | `observe`, `plan`, `apply`, `status`, `operator` | the operator's pipeline and its wiring |
//! | `loader` | sources, pinning, fetching, verifying |
//! | `protocol`, `server` | the Open Inference Protocol and the process that answers it |
//! | `telemetry` | logs |

pub mod formats;
pub mod onnx;
pub mod telemetry;

#[cfg(feature = "operator")]
pub mod api;
#[cfg(feature = "operator")]
pub mod apply;
#[cfg(feature = "operator")]
pub mod observe;
#[cfg(feature = "operator")]
pub mod operator;
#[cfg(feature = "operator")]
pub mod plan;
#[cfg(feature = "operator")]
pub mod status;

#[cfg(feature = "loader")]
pub mod loader;

#[cfg(feature = "server")]
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
