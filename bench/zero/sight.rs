//! What a watch of the namespace has shown, and when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use modelwright::api::{ModelRoute, RouteMode};
use tokio::sync::Notify;

use crate::support::Space;

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
pub struct PodSeen {
    pub created: SystemTime,
    pub scheduled: Option<SystemTime>,
    pub addressed: Option<SystemTime>,
    pub ready: Option<SystemTime>,
    leaving: bool,
    gone: bool,
}

#[derive(Default)]
pub struct State {
    pub mode: RouteMode,
    held: Vec<SystemTime>,
    /// By uid, all there ever were.
    pods: BTreeMap<String, PodSeen>,
}

impl State {
    /// Pods that were not told to go.
    pub fn serving(&self) -> usize {
        self.pods.values().filter(|pod| !pod.leaving && !pod.gone).count()
    }

    pub fn left(&self) -> usize {
        self.pods.values().filter(|pod| !pod.gone).count()
    }
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Clone, Default)]
pub struct Sight(Arc<Inner>);

impl Sight {
    /// Both lists are read when it returns.
    pub async fn start(space: &Space) -> Self {
        let sight = Self::default();
        let config = watcher::Config::default();
        let mut pods = watcher(space.api::<Pod>(), config.clone().labels("modelwright.dev/role=serve"))
            .default_backoff()
            .boxed();
        let mut routes = watcher(space.api::<ModelRoute>(), config).default_backoff().boxed();
        let seeing = sight.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(Ok(event)) = pods.next() => seeing.see_pod(event),
                    Some(Ok(event)) = routes.next() => seeing.see_route(event),
                    else => continue, // one failed, and starts again
                }
                seeing.0.changed.notify_waiters();
            }
        });
        sight.until("a pod", |state| state.serving() > 0).await;
        sight
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic")
    }

    fn see_pod(&self, event: Event<Pod>) {
        let (pod, gone) = match event {
            Event::Apply(pod) | Event::InitApply(pod) => (pod, false),
            Event::Delete(pod) => (pod, true),
            Event::Init | Event::InitDone => return,
        };
        let now = SystemTime::now();
        let status = pod.status.unwrap_or_default();
        let is_ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let mut state = self.lock();
        let seen = state.pods.entry(pod.metadata.uid.unwrap_or_default()).or_insert(PodSeen {
            created: now,
            scheduled: None,
            addressed: None,
            ready: None,
            leaving: false,
            gone: false,
        });
        let first = |at: &mut Option<SystemTime>, is: bool| {
            if is {
                at.get_or_insert(now);
            }
        };
        first(&mut seen.scheduled, pod.spec.is_some_and(|spec| spec.node_name.is_some()));
        first(&mut seen.addressed, status.pod_ip.is_some());
        first(&mut seen.ready, is_ready);
        seen.leaving |= pod.metadata.deletion_timestamp.is_some();
        seen.gone |= gone;
    }

    fn see_route(&self, event: Event<ModelRoute>) {
        let (Event::Apply(route) | Event::InitApply(route)) = event else { return };
        let mut state = self.lock();
        if route.spec.mode == RouteMode::Hold && state.mode != RouteMode::Hold {
            state.held.push(SystemTime::now());
        }
        state.mode = route.spec.mode;
    }

    pub async fn until(&self, what: &str, is: impl Fn(&State) -> bool) {
        let waiting = async {
            loop {
                let changed = self.0.changed.notified();
                if is(&self.lock()) {
                    return;
                }
                // One that came between the look and the wait is seen at the next look.
                let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("never in {PATIENCE:?}: {what}"));
    }

    pub fn held_since(&self, begun: SystemTime) -> bool {
        self.lock().held.iter().any(|at| *at >= begun)
    }

    /// Its uid.
    pub fn pod_made_within(&self, from: SystemTime, to: SystemTime) -> Option<String> {
        let state = self.lock();
        let mut made = state.pods.iter().filter(|(_, pod)| pod.created >= from && pod.created <= to);
        made.next().map(|(uid, _)| uid.clone())
    }

    pub fn pod(&self, uid: &str) -> Option<PodSeen> {
        self.lock().pods.get(uid).copied()
    }
}
