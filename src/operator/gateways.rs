//! What the leader hears of the gateways: one stream to each of them, held open. A gateway has no right to write to the
//! API server, so this is how it acknowledges a route.

mod demand;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::trials::Trials;
use super::{Lease, Trigger};
use crate::formats::{AppliedRoute, Demand, GatewayReport, ports};
use crate::observe::{Counts, GatewayView, Gateways, Key, PodPhase, PodView, RouteView, Shelves};
pub(super) use demand::Asked;
use demand::{Counted, Past};

/// A gateway says something each second.
const SILENCE: Duration = Duration::from_secs(5);
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The leader may have changed without an event.
const EVERY: Duration = Duration::from_secs(1);
/// Of one line: some ten thousand routes.
const LINE_LIMIT: usize = 4 << 20;
/// Longer than any request may take: whoever is gone for so long is forgotten.
const MEMORY: Duration = Duration::from_secs(3600);

/// By gateway, what it has said last.
#[derive(Default)]
pub(crate) struct GatewayStreams {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// By pod UID.
    heard: HashMap<String, Heard>,
    /// By pod UID: a stream to it has ended, or never began.
    tried: HashSet<String>,
    /// By namespace and pod UID: the gateways as the last event showed them.
    seen: HashMap<String, BTreeMap<String, Arc<PodView>>>,
    /// By pod UID: since when one that runs has not been ready.
    unready: HashMap<String, Instant>,
    /// By namespace: gone, but nobody saw them end. Requests may be under way in them.
    gone: HashMap<String, Vec<Gone>>,
    /// What all gateways together have counted since we listen.
    counted: HashMap<Key, Counted>,
    /// Whose count has grown since somebody looked.
    news: HashSet<Key>,
    trials: Trials,
}

#[derive(Default)]
struct Heard {
    connected: bool,
    routes: HashMap<String, AppliedRoute>,
    held: HashMap<String, u64>,
    /// None: a gateway that does not count.
    demand: Option<HashMap<String, Demand>>,
    /// What it said of the time before, and when.
    past: Option<Past>,
}

struct Gone {
    name: String,
    since: Instant,
    routes: HashMap<String, AppliedRoute>,
}

impl GatewayStreams {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gateways as one ModelDeployment sees them, and when the next one is gone for long enough.
    pub fn of(
        &self,
        (namespace, name): &Key,
        route: Option<&str>,
        timeout: Duration,
        shelves: &Shelves,
    ) -> (Gateways, Option<Duration>) {
        let mut inner = self.lock();
        let applied = |routes: &HashMap<String, AppliedRoute>| {
            routes.get(name).filter(|a| Some(a.uid.as_str()) == route).map(|a| a.generation)
        };
        let mut gateways = Gateways::default();
        let mut again: Option<Duration> = None;
        let mut wake = |left: Duration| again = Some(again.map_or(left, |other| other.min(left)));
        for pod in shelves.gateways.pods.family(&(namespace.clone(), String::new())) {
            if !is_alive(&pod) {
                continue;
            }
            let heard = inner.heard.get(&pod.meta.uid);
            let ready = pod.ready && !pod.meta.deleting;
            let connected = heard.is_some_and(|h| h.connected);
            // Connections that stand reach also one that is not ready.
            let unready = inner.unready.get(&pod.meta.uid).map_or(Duration::ZERO, Instant::elapsed);
            let may_forward = !ready && !has_ended(&pod) && unready < timeout;
            if may_forward && !pod.meta.deleting && !connected {
                wake(timeout.saturating_sub(unready));
            }
            gateways.pods.push(GatewayView {
                name: pod.meta.name.clone(),
                ready,
                leaving: !ready && (pod.meta.deleting || connected || may_forward),
                applied: heard.and_then(|h| applied(&h.routes)),
                held: heard.and_then(|h| h.held.get(name).copied()).unwrap_or(0),
            });
        }
        if let Some(gone) = inner.gone.get_mut(namespace) {
            gone.retain(|gone| gone.since.elapsed() < MEMORY);
            for gone in gone.iter().filter(|gone| gone.since.elapsed() < timeout) {
                wake(timeout.saturating_sub(gone.since.elapsed()));
                gateways.pods.push(GatewayView {
                    name: gone.name.clone(),
                    ready: false,
                    leaving: true,
                    applied: applied(&gone.routes),
                    held: 0,
                });
            }
        }
        (gateways, again)
    }

    /// A ready gateway has not had the time to say anything: status would say for a moment that it acknowledges nothing.
    pub fn is_unheard(&self, namespace: &str, shelves: &Shelves) -> bool {
        let inner = self.lock();
        let pods = shelves.gateways.pods.family(&(namespace.to_string(), String::new()));
        let is_followed = |pod: &&Arc<PodView>| is_alive(pod) && pod.ip.is_some();
        let mut ready = pods.iter().filter(is_followed).filter(|pod| pod.ready && !pod.meta.deleting);
        ready.any(|pod| !inner.heard.contains_key(&pod.meta.uid) && !inner.tried.contains(&pod.meta.uid))
    }

    /// What they have counted of the route's candidate.
    pub fn counts(&self, route: &RouteView) -> Counts {
        let record = &route.spec.rollout;
        let Some(candidate) =
            record.candidate.filter(|_| record.analysis.is_some() || route.spec.shadow.is_some())
        else {
            return Counts::default();
        };
        self.lock().trials.counts(&route.meta.uid, candidate, record.attempt)
    }

    /// After an event of the namespace's gateways. True: a ModelDeployment may decide otherwise now.
    pub fn look(&self, namespace: &str, shelves: &Shelves) -> bool {
        let pods = shelves.gateways.pods.family(&(namespace.to_string(), String::new()));
        let now: BTreeMap<String, Arc<PodView>> =
            pods.into_iter().map(|pod| (pod.meta.uid.clone(), pod)).collect();
        let mut inner = self.lock();
        let before = inner.seen.insert(namespace.to_string(), now.clone()).unwrap_or_default();
        let state = |pods: &BTreeMap<String, Arc<PodView>>| -> Vec<(String, bool, bool)> {
            let alive = pods.iter().filter(|(_, pod)| is_alive(pod));
            alive.map(|(uid, pod)| (uid.clone(), pod.ready, pod.meta.deleting)).collect()
        };
        for (uid, pod) in before.iter().filter(|(_, pod)| is_alive(pod)) {
            let after = now.get(uid);
            if after.is_some_and(|after| is_alive(after)) {
                continue;
            }
            let heard = inner.heard.remove(uid);
            inner.unready.remove(uid);
            // Its node said that the process had ended; or it never took a request.
            let ended = after.is_some_and(|after| has_ended(after));
            if !ended && (pod.ready || pod.meta.deleting || heard.is_some()) {
                let routes = heard.map(|heard| heard.routes).unwrap_or_default();
                let gone = Gone { name: pod.meta.name.clone(), since: Instant::now(), routes };
                inner.gone.entry(namespace.to_string()).or_default().push(gone);
            }
        }
        for (uid, pod) in now.iter().filter(|(_, pod)| is_alive(pod)) {
            if pod.ready {
                inner.unready.remove(uid);
            } else {
                inner.unready.entry(uid.clone()).or_insert_with(Instant::now);
            }
        }
        let differs = state(&before) != state(&now);
        if now.is_empty() {
            inner.seen.remove(namespace);
        }
        drop(inner);
        if differs {
            self.changed.notify_one();
        }
        differs
    }

    /// Holds a stream to every gateway for as long as we lead.
    pub(super) async fn run(
        self: Arc<Self>,
        shelves: Arc<Shelves>,
        lease: Arc<Lease>,
        trigger: mpsc::Sender<Trigger>,
    ) {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(SILENCE));
        connector.set_nodelay(true);
        let client: HttpClient =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let mut followed: HashMap<(String, String), Task> = HashMap::new();
        let mut ticks = tokio::time::interval(EVERY);
        let mut elections = lease.elections().boxed();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.changed.notified() => {}
                Some(()) = elections.next() => {}
            }
            if !lease.held() {
                followed.clear();
                continue;
            }
            self.forget_trials(&shelves);
            let pods = shelves.gateways.pods.all().into_iter().filter(|pod| is_alive(pod));
            let pods: Vec<_> =
                pods.filter_map(|pod| Some(((pod.meta.uid.clone(), pod.ip.clone()?), pod))).collect();
            let wanted: HashSet<&(String, String)> = pods.iter().map(|(place, _)| place).collect();
            followed.retain(|place, _| wanted.contains(place));
            self.lock().tried.retain(|uid| wanted.iter().any(|(other, _)| other == uid));
            for (place, pod) in pods {
                followed.entry(place).or_insert_with(|| {
                    let (streams, client, trigger) = (self.clone(), client.clone(), trigger.clone());
                    Task(tokio::spawn(async move { streams.follow(&client, &pod, &trigger).await }))
                });
            }
        }
    }

    fn forget_trials(&self, shelves: &Shelves) {
        if self.lock().trials.is_empty() {
            return;
        }
        let routes = shelves.routes.all();
        let analysed = routes
            .iter()
            .filter(|route| route.spec.rollout.analysis.is_some() || route.spec.shadow.is_some());
        let analysed: HashSet<&str> = analysed.map(|route| route.meta.uid.as_str()).collect();
        self.lock().trials.retain(|route| analysed.contains(route));
    }

    async fn follow(&self, client: &HttpClient, pod: &PodView, trigger: &mpsc::Sender<Trigger>) {
        let _connected = Connected { streams: self, uid: &pod.meta.uid };
        let mut pause = AGAIN.0;
        loop {
            let mut lines = 0;
            let ended = self.listen(client, pod, trigger, &mut lines).await;
            self.disconnected(&pod.meta.uid);
            self.lock().tried.insert(pod.meta.uid.clone());
            pause = if lines > 0 { AGAIN.0 } else { (pause * 2).min(AGAIN.1) };
            tracing::debug!(gateway = pod.meta.name, reason = ended, "a gateway's stream ended");
            tokio::time::sleep(pause).await;
        }
    }

    /// Says why it ended.
    async fn listen(
        &self,
        client: &HttpClient,
        pod: &PodView,
        trigger: &mpsc::Sender<Trigger>,
        lines: &mut u64,
    ) -> String {
        let Some(ip) = pod.ip.as_deref() else { return "no address".into() };
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
        let uri = format!("http://{host}:{}/modelwright/v1/stream", ports::ADMIN);
        let Ok(uri) = uri.parse() else { return format!("{uri} is no address") };
        let answer = match tokio::time::timeout(SILENCE, client.get(uri)).await {
            Err(_) => return "no answer".into(),
            Ok(Err(error)) => return error.to_string(),
            Ok(Ok(answer)) if !answer.status().is_success() => return answer.status().to_string(),
            Ok(Ok(answer)) => answer,
        };
        let (mut body, mut buffer) = (answer.into_body(), Vec::new());
        loop {
            let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
                Err(_) => return "silence".into(),
                Ok(None) => return "it ended".into(),
                Ok(Some(Err(error))) => return error.to_string(),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            if buffer.len() > LINE_LIMIT {
                return "a line is too long".into();
            }
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let report = match serde_json::from_slice::<GatewayReport>(&line) {
                    Ok(report) => report,
                    Err(error) => return format!("not a report: {error}"),
                };
                let touched = self.hear(&pod.meta.family.0, &pod.meta.uid, report, *lines == 0);
                *lines += 1;
                for name in touched {
                    // Closed only when the process ends.
                    let _ = trigger.send(Trigger::new(&name).within(&pod.meta.family.0)).await;
                }
            }
        }
    }

    /// Names the ModelDeployments to which it says something new.
    pub(super) fn hear(&self, namespace: &str, uid: &str, report: GatewayReport, first: bool) -> Vec<String> {
        let inner = &mut *self.lock();
        let mut touched: HashSet<String> = HashSet::new();
        for (name, trial) in report.trials {
            inner.trials.hear(uid, trial);
            touched.insert(name);
        }
        let heard = inner.heard.entry(uid.to_string()).or_default();
        heard.connected = true;
        if first {
            let gone = heard.routes.keys().filter(|name| !report.routes.contains_key(*name));
            touched.extend(gone.cloned());
            heard.routes.retain(|name, _| report.routes.contains_key(name));
            heard.held.clear();
        }
        let (demand, past) = (report.demand, (report.past_seconds, report.past));
        if let Some(demand) = demand {
            demand::count(inner, (namespace, uid), demand, first.then_some(past));
        }
        let heard = inner.heard.entry(uid.to_string()).or_default();
        for name in report.removed {
            heard.routes.remove(&name);
            if let Some(demand) = &mut heard.demand {
                demand.remove(&name);
            }
            inner.counted.remove(&(namespace.to_string(), name.clone()));
            touched.insert(name);
        }
        for (name, route) in report.routes {
            if heard.routes.get(&name) != Some(&route) {
                heard.routes.insert(name.clone(), route);
                touched.insert(name);
            }
        }
        for (name, count) in report.held {
            // The first that waits and the last that goes decide something; the numbers between are for people.
            let before =
                if count == 0 { heard.held.remove(&name) } else { heard.held.insert(name.clone(), count) };
            if (before.unwrap_or(0) == 0) != (count == 0) {
                touched.insert(name);
            }
        }
        touched.into_iter().collect()
    }

    fn disconnected(&self, uid: &str) {
        if let Some(heard) = self.lock().heard.get_mut(uid) {
            heard.connected = false;
        }
    }
}

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// Ends with its value.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Connected<'a> {
    streams: &'a GatewayStreams,
    uid: &'a str,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.streams.disconnected(self.uid);
    }
}

/// It may be forwarding.
fn is_alive(pod: &PodView) -> bool {
    pod.phase == PodPhase::Running && !(pod.meta.deleting && has_ended(pod))
}

/// Its node says that no container of it runs.
fn has_ended(pod: &PodView) -> bool {
    match pod.phase {
        PodPhase::Succeeded => true,
        PodPhase::Pending => false,
        PodPhase::Running | PodPhase::Failed => {
            !pod.containers.is_empty() && pod.containers.iter().all(|c| c.started_at.is_none())
        }
    }
}

/// Why a namespace has fewer gateways than it should.
pub(super) fn fault(namespace: &str, shelves: &Shelves) -> Option<String> {
    let key = (namespace.to_string(), String::new());
    let deployment = shelves.gateways.deployments.family(&key).into_iter().next()?;
    let rollout = deployment.rollout.as_ref()?;
    if rollout.available >= rollout.wanted {
        return None;
    }
    let pods = shelves.gateways.pods.family(&key);
    let of_pod = |pod: &Arc<PodView>| {
        let name = &pod.meta.name;
        if let Some(message) = &pod.unschedulable {
            return Some(format!("gateway pod {name} has no room: {message}"));
        }
        if let Some(message) = &pod.failure {
            return Some(format!("gateway pod {name} failed: {message}"));
        }
        let waiting = pod.containers.iter().find_map(|c| c.waiting.as_ref());
        let (reason, message) = waiting
            .filter(|(reason, _)| !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing"))?;
        let colon = if message.is_empty() { "" } else { ": " };
        Some(format!("gateway pod {name} does not start: {reason}{colon}{message}"))
    };
    let refused = || rollout.failure.as_ref().map(|m| format!("gateway pods are refused: {m}"));
    pods.iter().find_map(of_pod).or_else(refused)
}

#[cfg(test)]
mod tests;
