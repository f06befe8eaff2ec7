//! Asks serving pods what they hold, until they are proven. A pod has no way to write to the API server (it has no
//! token), so the leader asks; a pod that is ready and was heard is not asked again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{Lease, Metrics, Scaling, Trigger};
use crate::formats::{PodState, RevisionPhase, Slot, ports};
use crate::observe::{Key, PodPhase, PodView, Shelves};

const EVERY: Duration = Duration::from_millis(250);
/// Of a pod that is ready, where its capacity decides something: it learns from live requests.
const LEARNS: Duration = Duration::from_secs(15);
/// Between two questions to one pod.
const AGAIN: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 32;
const STATE_LIMIT: usize = 1 << 20;

#[derive(Default)]
pub struct PodStates {
    heard: Mutex<HashMap<String, Heard>>,
}

#[derive(Default)]
struct Heard {
    state: Option<Arc<PodState>>,
    /// What the pod was to hold when it was asked.
    slots: Vec<Slot>,
    asked: Option<Instant>,
    failures: u32,
    /// Its start was counted.
    counted: bool,
}

impl PodStates {
    /// By pod UID, for the pods given.
    pub fn of(&self, pods: &[Arc<PodView>]) -> HashMap<String, Arc<PodState>> {
        let heard = self.lock();
        let known = |pod: &Arc<PodView>| {
            // What it said before it was assigned anew says nothing of now.
            let known = heard.get(&pod.meta.uid).filter(|known| known.slots == pod.slots)?;
            Some((pod.meta.uid.clone(), known.state.clone()?))
        };
        pods.iter().filter_map(known).collect()
    }

    /// A ready pod was not asked yet: status would forget what it runs on.
    pub fn incomplete(&self, pods: &[Arc<PodView>]) -> bool {
        let heard = self.lock();
        let mut ready = pods.iter().filter(|pod| pod.ready && !pod.slots.is_empty() && !pod.meta.deleting);
        ready.any(|pod| heard.get(&pod.meta.uid).is_none_or(|h| h.asked.is_none()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn poll(
        self: Arc<Self>,
        shelves: Arc<Shelves>,
        lease: Arc<Lease>,
        scaling: Arc<Scaling>,
        metrics: Arc<Metrics>,
        trigger: mpsc::Sender<Trigger>,
    ) {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(DEADLINE));
        let client: Client<_, Empty<Bytes>> =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let mut ticks = tokio::time::interval(EVERY);
        let mut leads_since = None;
        loop {
            ticks.tick().await;
            if !lease.held() {
                leads_since = None;
                continue;
            }
            let pods = shelves.pods.all();
            for phases in self.starts(&pods, *leads_since.get_or_insert_with(Timestamp::now)) {
                metrics.started(&phases);
            }
            let due = self.due(pods, &scaling);
            let answers = futures::stream::iter(due).map(|pod| {
                let client = client.clone();
                async move {
                    let state = tokio::time::timeout(DEADLINE, ask(&client, &pod)).await.ok().flatten();
                    (pod, state)
                }
            });
            let mut answers = answers.buffer_unordered(AT_ONCE);
            while let Some((pod, state)) = answers.next().await {
                if let Some((namespace, name)) = self.hear(&pod, state) {
                    let _ = trigger.send(Trigger::new(&name).within(&namespace)).await;
                }
            }
        }
    }

    /// The phases of each start that came to its end, once. Of pods that are older than `since` another leader told.
    fn starts(&self, pods: &[Arc<PodView>], since: Timestamp) -> Vec<Vec<(String, f64)>> {
        let mut heard = self.lock();
        let fresh = |pod: &&Arc<PodView>| {
            pod.ready && pod.meta.created >= since && pod.containers.iter().all(|c| c.restarts == 0)
        };
        let counted = pods.iter().filter(fresh).filter_map(|pod| {
            let known = heard.get_mut(&pod.meta.uid).filter(|known| !known.counted)?;
            // A second revision in a pod is no start of one.
            let [revision] = &known.state.as_ref()?.revisions[..] else { return None };
            if revision.phase != RevisionPhase::Proven {
                return None;
            }
            let own = pod.started().into_iter().map(|(phase, seconds)| (phase.to_string(), seconds));
            let phases = own.chain(revision.seconds.clone()).collect();
            known.counted = true;
            Some(phases)
        });
        counted.collect()
    }

    fn due(&self, pods: Vec<Arc<PodView>>, scaling: &Scaling) -> Vec<Arc<PodView>> {
        let now = Instant::now();
        let mut heard = self.lock();
        let alive: HashSet<&str> = pods.iter().map(|pod| pod.meta.uid.as_str()).collect();
        heard.retain(|uid, _| alive.contains(uid.as_str()));
        let due = |pod: &&Arc<PodView>| {
            let serving = !pod.slots.is_empty() && pod.phase == PodPhase::Running;
            if !serving || pod.ip.is_none() || pod.meta.deleting {
                return false;
            }
            let Some(known) = heard.get(&pod.meta.uid) else { return true };
            // One with two revisions is asked for as long as it has them: either may fail alone.
            let settled = pod.ready
                && pod.slots.len() == 1
                && known.slots == pod.slots
                && known
                    .state
                    .as_ref()
                    .is_some_and(|s| s.ready && s.revisions.iter().all(|r| r.phase == RevisionPhase::Proven));
            // A ready pod that can't be asked (a NetworkPolicy, say) is left alone more and more.
            let patience = if pod.ready { AGAIN * (1 << known.failures.min(6)) } else { AGAIN };
            let since = known.asked.map(|asked| now.duration_since(asked));
            match settled {
                true => since.is_some_and(|since| since >= LEARNS) && scaling.measures(&pod.meta.family),
                false => since.is_none_or(|since| since >= patience),
            }
        };
        pods.iter().filter(due).cloned().collect()
    }

    /// Some: it says something new.
    fn hear(&self, pod: &PodView, state: Option<PodState>) -> Option<Key> {
        let mut heard = self.lock();
        let known = heard.entry(pod.meta.uid.clone()).or_default();
        let first = known.asked.replace(Instant::now()).is_none();
        match state {
            None => known.failures += 1,
            Some(state) if known.state.as_deref() == Some(&state) && known.slots == pod.slots => {
                known.failures = 0;
            }
            Some(state) => {
                known.state = Some(Arc::new(state));
                known.slots = pod.slots.clone();
                known.failures = 0;
                return Some(pod.meta.family.clone());
            }
        }
        first.then(|| pod.meta.family.clone())
    }
}

async fn ask(client: &Client<HttpConnector, Empty<Bytes>>, pod: &PodView) -> Option<PodState> {
    let ip = pod.ip.as_deref()?;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
    let uri = format!("http://{host}:{}/modelwright/v1/state", ports::ADMIN).parse().ok()?;
    let answer = client.get(uri).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let body = Limited::new(answer.into_body(), STATE_LIMIT).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}

#[cfg(test)]
mod tests;
