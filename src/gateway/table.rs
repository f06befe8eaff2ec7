//! Everything that requests go by. Readers take no lock; changes come one at a time.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::deployment::Deployment;
use super::keys::Keys;
use super::metrics::Metrics;
use super::mirror::{Mirror, Shadow};
use super::pod::{Pod, now};
use super::route::{Arm, Route};
use super::trial::{Trial, TrialView};
use crate::api::{Backend, DrainedPod, RouteLimits, RouteMode, RouteShadow};
use crate::bodies::Bodies;
use crate::formats::{self, AppliedRoute, Demand, PastDemand};

/// What is kept of a ModelRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteView {
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub mode: RouteMode,
    pub backends: Vec<Backend>,
    pub limits: RouteLimits,
    /// The revision that every request is for, and that was proven before; none while another is rolled out.
    pub sole: Option<i64>,
    pub shadow: Option<RouteShadow>,
    pub drained: Option<DrainedPod>,
    pub trial: Option<TrialView>,
}

/// What is kept of a serving pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    pub deployment: String,
    pub name: String,
    pub uid: String,
    /// The revisions that it serves, each at an address of its own; none while the pod's is not known.
    pub slots: Vec<(i64, SocketAddr)>,
    /// And not being deleted.
    pub ready: bool,
    /// Its only revision, and that worker's port, where the API server does not call it ready: it may announce itself.
    pub starting: Option<(i64, u16)>,
}

/// Of all request bodies, the part that one deployment may have.
const PART: usize = 2;
/// And the part that requests may have besides which are mirrored: they wait for no client.
const MIRRORED_PART: usize = 8;
/// What a pod has said of itself is forgotten after this, if the API server has not called it ready by then.
const BELIEVED: Duration = Duration::from_secs(30);

pub struct Table {
    deployments: ArcSwap<HashMap<String, Arc<Deployment>>>,
    control: Mutex<Control>,
    /// Of all requests together.
    pub bodies: Arc<Bodies>,
    mirrored: Arc<Bodies>,
    body_bytes: usize,
    largest: AtomicUsize,
    pub metrics: Metrics,
    pub keys: ArcSwap<Keys>,
    /// A retired route has sent its last request.
    sent: Arc<Notify>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Control {
    routes: HashMap<String, RouteView>,
    /// By deployment and name, whether it has a route or not.
    pods: HashMap<String, BTreeMap<String, Known>>,
    /// Retired routes that still send.
    retired: HashMap<String, Vec<Arc<Route>>>,
    /// What new requests go by, and no request goes by anything older.
    applied: BTreeMap<String, AppliedRoute>,
}

struct Known {
    view: PodView,
    /// One a revision that may get requests.
    pods: Vec<Arc<Pod>>,
    /// Set: `pods` is where the pod itself says that it is, and since when.
    announced: Option<Duration>,
    /// The API server has called it ready: from then on it alone is asked.
    was_ready: bool,
}

impl Known {
    /// Those that may get requests by this route. One that nobody but itself calls ready gets them where its revision is
    /// the only one: where it is rolled out, readiness is what the operator counts.
    fn usable(&self, route: &RouteView) -> &[Arc<Pod>] {
        let sole = |pod: &Arc<Pod>| route.sole == Some(pod.revision);
        match self.announced.is_none() || self.pods.iter().all(sole) {
            true => &self.pods,
            false => &[],
        }
    }
}

impl Table {
    /// `body_bytes`: of all requests together.
    pub fn new(body_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            deployments: ArcSwap::default(),
            control: Mutex::default(),
            bodies: Bodies::within(body_bytes),
            mirrored: Bodies::within(body_bytes / MIRRORED_PART),
            body_bytes,
            largest: AtomicUsize::new(0),
            metrics: Metrics::default(),
            keys: ArcSwap::default(),
            sent: Arc::default(),
            changes: watch::Sender::new(()),
        })
    }

    pub fn get(&self, name: &str) -> Option<Arc<Deployment>> {
        self.deployments.load().get(name).cloned()
    }

    pub fn all(&self) -> Arc<HashMap<String, Arc<Deployment>>> {
        self.deployments.load_full()
    }

    /// The largest request that any deployment takes.
    pub fn largest(&self) -> usize {
        self.largest.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_route(&self, view: RouteView) {
        let mut control = self.lock();
        // A watch that begins again may show older states first.
        let known = control.routes.get(&view.name);
        if known.is_some_and(|known| {
            *known == view || (known.uid == view.uid && known.generation > view.generation)
        }) {
            return;
        }
        let name = view.name.clone();
        control.routes.insert(name.clone(), view);
        self.measure(&control);
        self.renew(&mut control, &name);
    }

    pub fn remove_route(&self, name: &str) {
        let mut control = self.lock();
        if control.routes.remove(name).is_none() {
            return;
        }
        self.measure(&control);
        let mut deployments = HashMap::clone(&self.deployments.load());
        let Some(deployment) = deployments.remove(name) else { return };
        self.deployments.store(Arc::new(deployments));
        let last = deployment.route();
        let mut gone = Route::new(
            last.uid.clone(),
            last.generation,
            last.mode,
            last.limits.clone(),
            Vec::new(),
            None,
            self.sent.clone(),
        );
        gone.gone = true;
        let old = deployment.replace(gone);
        old.arms.iter().for_each(|arm| arm.metrics.forget());
        self.metrics.forget(name);
        control.retired.entry(name.into()).or_default().push(old);
        self.settle_one(&mut control, name);
    }

    pub fn set_pod(&self, view: PodView) {
        let mut control = self.lock();
        let pods = control.pods.entry(view.deployment.clone()).or_default();
        let known = pods.get(&view.name);
        if known.is_some_and(|known| known.view == view) {
            return;
        }
        let former = pods.remove(&view.name);
        let same = former.as_ref().filter(|known| known.view.uid == view.uid);
        let was_ready = view.ready || same.is_some_and(|known| known.was_ready);
        let announced = same.filter(|_| !was_ready).and_then(|known| {
            let pod = known.pods.first()?;
            // Its own word stands until the API server names another address, or assigns it anew.
            let stands = view.starting == Some((pod.revision, pod.address.port()))
                && view.slots.iter().all(|(_, address)| *address == pod.address);
            Some((known.announced.filter(|_| stands)?, (pod.revision, pod.address)))
        });
        let mut before = former.map(|known| known.pods).unwrap_or_default();
        let usable = view.slots.iter().filter(|_| view.ready);
        let usable = usable.chain(announced.iter().map(|(_, slot)| slot));
        let now = usable.map(|&(revision, address)| {
            let same =
                |pod: &Arc<Pod>| pod.uid == view.uid && pod.address == address && pod.revision == revision;
            match before.iter().position(same) {
                Some(index) => before.swap_remove(index),
                None => Pod::new(view.uid.clone(), revision, address),
            }
        });
        let now = now.collect();
        let deployment = view.deployment.clone();
        let announced = announced.map(|(since, _)| since);
        pods.insert(view.name.clone(), Known { view, pods: now, announced, was_ready });
        self.renew(&mut control, &deployment);
        // After the route has let go of them.
        before.iter().for_each(|pod| pod.close());
    }

    /// A pod says that it is proven, from this address. False: it is not believed.
    pub fn announce(&self, name: &str, uid: &str, ip: IpAddr) -> bool {
        let mut control = self.lock();
        let mut families = control.pods.iter_mut();
        let found = families.find_map(|(deployment, pods)| Some((deployment.clone(), pods.get_mut(name)?)));
        let Some((deployment, known)) = found.filter(|(_, known)| known.view.uid == uid) else {
            return false;
        };
        let Some((revision, port)) = known.view.starting.filter(|_| !known.was_ready) else { return false };
        let address = SocketAddr::new(ip, port);
        // Who has said so first stays, and the API server's word stands against any other.
        let others = known.view.slots.iter().map(|(_, address)| *address);
        if others.chain(known.pods.iter().map(|pod| pod.address)).any(|other| other != address) {
            return false;
        }
        if known.announced.is_none() {
            known.announced = Some(now());
            known.pods = vec![Pod::new(uid.into(), revision, address)];
            tracing::debug!(pod = name, %address, "announced");
            self.renew(&mut control, &deployment);
        }
        true
    }

    pub fn remove_pod(&self, deployment: &str, name: &str) {
        let mut control = self.lock();
        let Some(pods) = control.pods.get_mut(deployment) else { return };
        let closed = pods.remove(name).map(|known| known.pods).unwrap_or_default();
        if pods.is_empty() {
            control.pods.remove(deployment);
        }
        if !closed.is_empty() {
            self.renew(&mut control, deployment);
            closed.iter().for_each(|pod| pod.close());
        }
    }

    /// Makes the route again of what is known now.
    fn renew(&self, control: &mut Control, name: &str) {
        let Some(view) = control.routes.get(name) else { return };
        let deployment = self.get(name);
        let old = deployment.as_ref().map(|deployment| deployment.route());
        let former = old.as_ref().and_then(|old| old.trial());
        let trial = view.trial.as_ref().map(|trial| Trial::of(trial, &view.uid, former, now()));
        let arms = view.backends.iter().map(|backend| {
            let before = old.iter().flat_map(|old| &old.arms).find(|arm| arm.revision == backend.revision);
            Arm {
                revision: backend.revision,
                weight: u32::try_from(backend.weight).unwrap_or(0),
                pods: usable(control, view, backend.revision),
                metrics: match before {
                    Some(arm) => arm.metrics.clone(),
                    None => self.metrics.arm(name, backend.revision),
                },
                part: trial.as_ref().and_then(|trial| trial.part(backend.revision)),
            }
        });
        let arms: Vec<Arm> = arms.collect();
        let leaves = |arm: &&Arm| arms.iter().all(|new| new.revision != arm.revision);
        old.iter().flat_map(|old| &old.arms).filter(leaves).for_each(|arm| arm.metrics.forget());
        let route = Route::new(
            view.uid.clone(),
            view.generation,
            view.mode,
            view.limits.clone(),
            arms,
            self.shadow(control, view, old.as_deref()),
            self.sent.clone(),
        );
        match deployment {
            Some(deployment) => {
                let old = deployment.replace(route);
                control.retired.entry(name.into()).or_default().push(old);
            }
            None => {
                let bodies = Bodies::within(self.body_bytes / PART);
                let deployment = Deployment::new(name, route, bodies, self.changes.clone());
                let mut deployments = HashMap::clone(&self.deployments.load());
                deployments.insert(name.into(), deployment);
                self.metrics.routes(deployments.len());
                self.deployments.store(Arc::new(deployments));
            }
        }
        self.settle_one(control, name);
    }

    fn shadow(&self, control: &Control, view: &RouteView, old: Option<&Route>) -> Option<Shadow> {
        let wanted = view.shadow.as_ref()?;
        let same = |mirror: &Mirror| (mirror.revision, mirror.attempt) == (wanted.revision, wanted.attempt);
        let before = old.filter(|old| old.uid == view.uid).and_then(|old| old.shadow.as_ref());
        let mirror = match before.filter(|shadow| same(&shadow.mirror)) {
            Some(shadow) => shadow.mirror.clone(),
            None => Mirror::start(&view.name, wanted, self.mirrored.clone(), &self.metrics),
        };
        mirror.set_pods(usable(control, view, wanted.revision));
        Some(Shadow { percent: u32::try_from(wanted.percent).unwrap_or(0), mirror })
    }

    fn measure(&self, control: &Control) {
        let largest = control.routes.values().map(|view| view.limits.max_request_bytes).max();
        let largest = largest.and_then(|largest| usize::try_from(largest).ok()).unwrap_or(0);
        self.largest.store(largest, Ordering::Relaxed);
        self.metrics.routes(control.routes.len());
    }

    /// Says that a route is applied once no request goes by an older one.
    fn settle_one(&self, control: &mut Control, name: &str) {
        if let Some(retired) = control.retired.get_mut(name) {
            retired.retain(|route| !route.is_sent());
            if !retired.is_empty() {
                return;
            }
            control.retired.remove(name);
        }
        let now =
            control.routes.get(name).map(|v| AppliedRoute { uid: v.uid.clone(), generation: v.generation });
        if control.applied.get(name) == now.as_ref() {
            return;
        }
        match now {
            Some(now) => control.applied.insert(name.into(), now),
            None => control.applied.remove(name),
        };
        self.changes.send_replace(());
    }

    /// Runs as long as the gateway: acknowledges what could not be at once.
    pub async fn settle(&self) {
        loop {
            self.sent.notified().await;
            let mut control = self.lock();
            let names: Vec<String> = control.retired.keys().cloned().collect();
            for name in names {
                self.settle_one(&mut control, &name);
            }
        }
    }

    /// When `applied` or `held` may have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub fn applied(&self) -> BTreeMap<String, AppliedRoute> {
        self.lock().applied.clone()
    }

    /// Deployments with requests that wait.
    pub fn held(&self) -> BTreeMap<String, u64> {
        let deployments = self.deployments.load();
        let held = deployments.values().map(|d| (d.name.clone(), d.held() as u64));
        held.filter(|(_, held)| *held > 0).collect()
    }

    /// Deployments that were ever asked for something.
    pub fn demand(&self) -> BTreeMap<String, Demand> {
        let deployments = self.deployments.load();
        let demand = deployments.values().map(|d| (d.name.clone(), d.demand()));
        demand.filter(|(_, demand)| demand.arrivals > 0).collect()
    }

    /// Deployments that were asked for something in the last ten minutes.
    pub fn past(&self) -> BTreeMap<String, Vec<PastDemand>> {
        let deployments = self.deployments.load();
        let past = deployments.values().map(|d| (d.name.clone(), d.past()));
        past.filter(|(_, past)| !past.is_empty()).collect()
    }

    /// What was counted and compared of candidates.
    pub fn trials(&self) -> BTreeMap<String, formats::Trial> {
        let deployments = self.deployments.load();
        let trials = deployments.values().filter_map(|deployment| {
            let route = deployment.route();
            let shadow = route.shadow.as_ref().map(|shadow| shadow.mirror.report());
            Some((deployment.name.clone(), formats::Trial { shadow, ..route.trial()?.report(now()) }))
        });
        trials.collect()
    }

    /// Closes connections that nobody has used for long, and forgets what pods said that the API server never did.
    pub fn sweep(&self, now: Duration) {
        let mut control = self.lock();
        let mut changed = Vec::new();
        for (deployment, pods) in &mut control.pods {
            for known in pods.values_mut() {
                if known.announced.is_some_and(|since| now.saturating_sub(since) >= BELIEVED) {
                    known.announced = None;
                    changed.push((deployment.clone(), std::mem::take(&mut known.pods)));
                }
            }
        }
        for (deployment, closed) in changed {
            self.renew(&mut control, &deployment);
            closed.iter().for_each(|pod| pod.close());
        }
        control
            .pods
            .values()
            .flat_map(|pods| pods.values())
            .flat_map(|known| &known.pods)
            .for_each(|pod| pod.sweep());
    }
}

/// The pods that may get requests for a revision.
fn usable(control: &Control, view: &RouteView, revision: i64) -> Vec<Arc<Pod>> {
    let drained = view.drained.as_ref().filter(|drained| drained.revision == revision);
    let pods = control.pods.get(&view.name).into_iter().flatten();
    let pods = pods.filter(|(name, _)| drained.is_none_or(|drained| drained.pod != **name));
    pods.flat_map(|(_, known)| known.usable(view)).filter(|pod| pod.revision == revision).cloned().collect()
}
