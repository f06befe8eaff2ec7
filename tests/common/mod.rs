//! The cluster without kubelets in which the operator is tested and measured: a real API server with the built-in
//! controllers, and a fake kubelet that makes pods ready at once. `make test-operator` and `make bench` start it and
//! run their programs in its network, where pod addresses lead to the fake kubelet.
#![allow(dead_code, unused_imports)] // every program uses its part

mod audit;
mod cluster;
mod crashes;
mod objects;
mod operator;
mod place;
mod ports;
mod state;

pub use audit::{Audit, Request};
pub use cluster::{Cluster, Identity};
pub use crashes::{
    Abort, LONG_STILL, MOMENTS, STILL, number, panic_text, settled_writes, shorten_drain, shuffle,
};
pub use objects::{condition, deployment, ready, uri};
pub use operator::{Operator, OperatorOptions};
pub use place::Place;
pub use state::{State, difference, state};

use std::time::{Duration, Instant};

/// Long enough for a machine whose cores are shared; a test that waits for it has failed.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Asks until the answer is `Ok`. The last refusal says what is missing.
pub async fn wait<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(missing) => {
                assert!(start.elapsed() < DEADLINE, "no {what} after {DEADLINE:?}: {missing}");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
