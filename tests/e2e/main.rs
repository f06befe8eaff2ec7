//! The operator, the loader and the server on a real cluster, with the chart, the S3 store, metrics-server and KEDA
//! installed: `make test-e2e`. On another cluster than that: `cargo test --features e2e --test e2e`, with KUBECONFIG and
//! the images that `images.sh` makes within its reach.
//!
//! Every test has a namespace of its own, which enforces the `restricted` Pod Security Standard, and waits for
//! conditions as a user would. Stores, clients and loads run in the cluster; the test reaches them by a port-forward.

mod access;
mod credentials;
mod deletion;
mod graphs;
mod hub;
mod node_cache;
mod pods;
mod rollout;
mod room;
mod scaling;
mod security;
mod sources;
mod support;
mod volumes;
