//! What tests of crashes share: where the operator may die, and in which order that is tried.

use std::any::Any;
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams};
use modelwright::api::ModelRoute;
use serde_json::json;

use super::{Operator, wait};

/// Before a write is sent, after it was sent (the answer is lost), and after the answer (nothing is done with it yet).
pub const MOMENTS: [&str; 3] = ["before", "sent", "answered"];
/// Long past: what waits for the drain after a move goes on at once.
const LONG_AGO: &str = "2020-01-01T00:00:00Z";
/// A last status may follow the Ready one.
pub const STILL: Duration = Duration::from_secs(2);
/// For what others are compared with: what is tried again after a pause shall be in it, on a slow machine too.
pub const LONG_STILL: Duration = Duration::from_secs(6);

/// The previous revision stays for half a minute after it lost the traffic: says that this was long ago.
pub async fn shorten_drain(routes: Api<ModelRoute>, name: &str) {
    let patch = json!({ "spec": { "rollout": { "previous": { "movedAt": LONG_AGO } } } });
    loop {
        let route = routes.get_opt(name).await.ok().flatten();
        let moved = route.and_then(|route| route.spec.rollout.previous).map(|p| p.moved_at.0.to_string());
        if moved.is_some_and(|at| at != LONG_AGO) {
            let _ = routes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// A task that ends with its value.
pub struct Abort(pub tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The operator's writes, once their count has stood still; what there were when it ended, if it does.
pub async fn settled_writes(operator: &mut Operator, still: Duration) -> usize {
    let mut known = (0, Instant::now());
    wait("still count of writes", async || {
        if operator.ended().is_some() {
            return Ok(());
        }
        let now = operator.writes().await.ok_or("no answer")?;
        if now != known.0 {
            known = (now, Instant::now());
        }
        if known.1.elapsed() > still { Ok(()) } else { Err(format!("{now} writes")) }
    })
    .await;
    known.0
}

/// Fisher and Yates with a linear congruence: the same order for the same seed, everywhere.
pub fn shuffle<T>(plans: &mut [T], seed: usize) {
    let mut state = seed as u64;
    for i in (1..plans.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        plans.swap(i, (state >> 33) as usize % (i + 1));
    }
}

pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
}

/// From the environment.
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: want a number")))
}
