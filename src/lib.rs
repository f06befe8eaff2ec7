//! Modelwright manages the life of ONNX models on Kubernetes.
//!
//! ```text
//! watch ──> observe ──> plan (pure) ──> apply ──> status          the operator
//!    ^      Snapshot      Plan          Applied    one writer
//!    └────────────── watch events, plan.wake_at ──────┘
//!
//! resolve pod:  loader resolve ── reads the graph (onnx), pins the source ──> termination message
//! gateway pod:  watch ──> table ──> choose, hold, pick, forward ──> serving pods
//! serving pod:  loader fetch ──> /models/<revision> ──> server: supervisor ──> one worker per revision
//! ```
//!
//! | module | what it holds |
//! |-|-|
//! | `api` | the custom resource: types, rules, condition and reason names |
//! | `formats` | what the processes hand to each other: versioned JSON |
//! | `onnx` | pure: the graph of a model file, read as a stream |
//! | `observe`, `plan`, `apply`, `status`, `operator` | the operator's pipeline and its wiring |
//! | `loader` | sources, pinning, fetching, verifying; the node cache |
//! | `protocol`, `server` | the Open Inference Protocol and the process that answers it |
//! | `gateway` | the data plane of a namespace |
//! | `listen`, `bodies`, `cgroup` | sockets, request bodies and the container's bounds, for those who serve |
//! | `address` | which addresses a user's word may lead to |
//! | `telemetry` | logs |

#[cfg(any(feature = "operator", feature = "loader"))]
pub mod address;
pub mod formats;
pub mod onnx;
pub mod telemetry;

#[cfg(any(feature = "operator", feature = "gateway"))]
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

#[cfg(any(feature = "server", feature = "gateway"))]
pub mod bodies;
#[cfg(any(feature = "server", feature = "gateway"))]
pub mod cgroup;
#[cfg(any(feature = "server", feature = "gateway", feature = "loader"))]
pub mod listen;
#[cfg(any(feature = "server", feature = "gateway"))]
pub mod protocol;

#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "server")]
pub mod server;
