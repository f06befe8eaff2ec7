//! The inference server.
//!
//! ```text
//! modelwright-server supervise            PID 1 of the pod: assignment file in, state and readiness out
//!   └─ modelwright-server worker          one process a revision: a crash stays its own
//!        listen ──> rest | grpc ──> model (one InferRequest) ──> queue (batch) ──> engine, one OS thread a CPU
//! modelwright-server --model FILE         a worker for a laptop
//! ```

mod app;
pub mod batch;
pub mod cli;
pub mod codec;
pub mod console;
mod describe;
pub mod engine;
pub mod grpc;
pub mod metrics;
pub mod model;
pub mod queue;
pub mod report;
pub mod rest;
pub mod statistics;
pub mod supervisor;
pub mod trail;
pub mod warmup;
pub mod worker;
