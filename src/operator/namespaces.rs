//! The second reconciler: the gateways of each namespace that has a ModelDeployment.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use kube::runtime::reflector;
use tokio::sync::{mpsc, watch};

use super::{Context, Trigger, gateways};
use crate::api::ModelDeployment;
use crate::apply::{Expectations, WriteError};
use crate::observe::{GATEWAY_NAME, GatewayObject, GatewaySettings, Key, Shelf};
use crate::plan::{self, Kind, Namespace, Write};

/// Between two passes over one namespace: a thousand new ModelDeployments are few lists of owners.
const PAUSE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(2);
const RETRY_REFUSED: Duration = Duration::from_secs(15);
const RESYNC: Duration = Duration::from_secs(600);
const CONCURRENCY: usize = 8;
/// Namespaces whose gateways are exchanged at a time: a broken image must not reach all of them.
const ROLLING: usize = 3;
/// By then the watch has shown that a Deployment rolls.
const RESERVED: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Namespaces {
    inner: Mutex<Inner>,
    /// The first list of ModelDeployments is in the store. The store's own readiness wakes a single waiter, and that is
    /// the controller.
    listed: watch::Sender<bool>,
}

#[derive(Default)]
struct Inner {
    /// By namespace: ModelDeployments that are not being deleted, name and uid.
    members: HashMap<String, BTreeMap<String, String>>,
    /// What the last pass failed at.
    faults: HashMap<String, String>,
    /// Why there are too few gateways, as the ModelDeployments were last told.
    told: HashMap<String, Option<String>>,
    /// Whose gateways were given a new template just now.
    reserved: HashMap<String, Instant>,
    conflicts: HashMap<String, u32>,
}

impl Namespaces {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn listed(&self) {
        self.listed.send_replace(true);
    }

    /// After an event of a ModelDeployment; `present` as the store has it. True: its namespace has another member.
    pub fn seen(&self, object: &ModelDeployment, present: bool, expectations: &Expectations) -> bool {
        let metadata = &object.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let name = metadata.name.clone().unwrap_or_default();
        let uid = metadata.uid.clone().unwrap_or_default();
        let mut inner = self.lock();
        if present && metadata.deletion_timestamp.is_none() {
            inner.members.entry(namespace).or_default().insert(name, uid.clone()) != Some(uid)
        } else {
            if let Some(members) = inner.members.get_mut(&namespace) {
                members.remove(&name);
                if members.is_empty() {
                    inner.members.remove(&namespace);
                    // The garbage collector takes what was made, also between two passes: nothing would show it.
                    expectations.forget(&gateways_of(&namespace));
                }
            }
            false
        }
    }

    fn read(&self, store: &reflector::Store<ModelDeployment>, expectations: &Expectations) {
        self.lock().members.clear();
        for object in store.state() {
            self.seen(&object, true, expectations);
        }
    }

    pub fn names(&self, namespace: &str) -> Vec<String> {
        self.lock().members.get(namespace).map(|m| m.keys().cloned().collect()).unwrap_or_default()
    }

    /// Why there are fewer gateways than wanted.
    pub fn fault(&self, namespace: &str, context: &Context) -> Option<String> {
        let failed = self.lock().faults.get(namespace).cloned();
        failed.or_else(|| gateways::fault(namespace, &context.shelves))
    }

    /// True: the ModelDeployments were told something else.
    fn tell(&self, namespace: &str, fault: Option<String>) -> bool {
        let mut inner = self.lock();
        match fault {
            None => inner.told.remove(namespace).is_some(),
            fault => inner.told.insert(namespace.into(), fault.clone()) != Some(fault),
        }
    }

    /// False: too many namespaces exchange their gateways already.
    fn reserve(&self, namespace: &str, deployments: &Shelf<GatewayObject>) -> bool {
        let mut inner = self.lock();
        inner.reserved.retain(|_, since| since.elapsed() < RESERVED);
        let mut rolling: std::collections::HashSet<String> = inner.reserved.keys().cloned().collect();
        let unsettled = deployments.all().into_iter();
        let unsettled = unsettled.filter(|d| d.rollout.as_ref().is_some_and(|r| !r.settled));
        rolling.extend(unsettled.map(|d| d.meta.family.0.clone()));
        let may = rolling.contains(namespace) || rolling.len() < ROLLING;
        if may {
            inner.reserved.insert(namespace.into(), Instant::now());
        }
        may
    }
}

/// Wakes every ModelDeployment of the namespace.
pub(super) async fn wake_all(context: &Context, trigger: &mpsc::Sender<Trigger>, namespace: &str) {
    for name in context.namespaces.names(namespace) {
        let _ = trigger.send(Trigger::new(&name).within(namespace)).await;
    }
}

/// Runs for ever. `wakes` names namespaces in which something has changed.
pub(super) async fn run(
    context: Arc<Context>,
    settings: GatewaySettings,
    store: reflector::Store<ModelDeployment>,
    mut wakes: mpsc::Receiver<String>,
    trigger: mpsc::Sender<Trigger>,
) {
    if context.namespaces.listed.subscribe().wait_for(|listed| *listed).await.is_err() {
        return; // the process ends
    }
    let mut elections = context.lease.elections().boxed();
    let mut due: HashMap<String, Instant> = HashMap::new();
    let mut last: HashMap<String, Instant> = HashMap::new();
    let mut passes = FuturesUnordered::new();
    let mut running: std::collections::HashSet<String> = Default::default();
    let mut resync = tokio::time::interval(RESYNC);
    loop {
        let now = Instant::now();
        let ready: Vec<String> = due
            .iter()
            .filter(|(name, at)| **at <= now && !running.contains(*name))
            .map(|(name, _)| name.clone())
            .take(CONCURRENCY.saturating_sub(passes.len()))
            .collect();
        for name in ready {
            due.remove(&name);
            running.insert(name.clone());
            let (context, settings, store, trigger) = (&context, &settings, &store, &trigger);
            passes.push(async move {
                let again = pass(context, settings, store, &name).await;
                if context.namespaces.tell(&name, context.namespaces.fault(&name, context)) {
                    wake_all(context, trigger, &name).await;
                }
                (name, again)
            });
        }
        let free = passes.len() < CONCURRENCY;
        let next = due.iter().filter(|(name, _)| free && !running.contains(*name)).map(|(_, at)| *at).min();
        let sleep = next.map_or(RESYNC, |at| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            Some(name) = wakes.recv() => {
                let at = last.get(&name).map_or(Instant::now(), |last| *last + PAUSE);
                let known = due.entry(name).or_insert(at);
                *known = (*known).min(at);
            }
            Some((name, again)) = passes.next(), if !passes.is_empty() => {
                running.remove(&name);
                last.insert(name.clone(), Instant::now());
                if let Some(again) = again {
                    due.entry(name).or_insert(Instant::now() + again);
                }
            }
            // A new leader looks at everything, and everything is looked at now and then.
            Some(()) = elections.next() => all(&context, &store, &mut due, &mut last),
            _ = resync.tick() => all(&context, &store, &mut due, &mut last),
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

fn all(
    context: &Context,
    store: &reflector::Store<ModelDeployment>,
    due: &mut HashMap<String, Instant>,
    last: &mut HashMap<String, Instant>,
) {
    context.namespaces.read(store, &context.expectations);
    let now = Instant::now();
    let names: Vec<String> = context.namespaces.lock().members.keys().cloned().collect();
    due.extend(names.into_iter().map(|name| (name, now)));
    last.retain(|_, at| at.elapsed() < PAUSE);
}

/// Some: look again after this, even if nothing changes.
async fn pass(
    context: &Context,
    settings: &GatewaySettings,
    store: &reflector::Store<ModelDeployment>,
    name: &str,
) -> Option<Duration> {
    if !context.lease.held() {
        return None; // the election wakes all
    }
    if !context.shelves.synced() {
        return Some(Duration::from_millis(100));
    }
    let mut namespace = observe(context, store, name);
    // A busy API server may show what it has taken only seconds later.
    let find = |kind, _: &str| Some(namespace.objects.get(&kind)?.meta.clone());
    if !context.expectations.met(&gateways_of(name), Timestamp::now(), find) {
        return Some(RETRY);
    }
    let mut plan = plan::gateway(&namespace, settings);
    let rolls = |write: &Write| matches!(write, Write::Apply { kind: Kind::Deployment, .. });
    if plan.writes.iter().any(rolls)
        && !context.namespaces.reserve(name, &context.shelves.gateways.deployments)
    {
        namespace.may_roll = false;
        plan = plan::gateway(&namespace, settings);
    }
    for write in &plan.writes {
        match context.writer.send(name, write).await {
            Ok(written) => context.expectations.expect(gateways_of(name), write, written),
            Err(error) => return failed(context, name, &error),
        }
    }
    let mut inner = context.namespaces.lock();
    inner.faults.remove(name);
    inner.conflicts.remove(name);
    plan.waits.then_some(RETRY)
}

/// What a namespace's ModelDeployments share stands, and is expected, under this.
fn gateways_of(namespace: &str) -> Key {
    (namespace.into(), String::new())
}

fn observe(context: &Context, store: &reflector::Store<ModelDeployment>, name: &str) -> Namespace {
    let shelves = &context.shelves.gateways;
    let kinds = [
        (Kind::Deployment, &shelves.deployments),
        (Kind::ServiceAccount, &shelves.service_accounts),
        (Kind::Role, &shelves.roles),
        (Kind::RoleBinding, &shelves.role_bindings),
        (Kind::PodDisruptionBudget, &shelves.budgets),
        (Kind::NetworkPolicy, &shelves.policies),
        (Kind::Service, &shelves.services),
    ];
    let key = gateways_of(name);
    let found = kinds.into_iter().filter_map(|(kind, shelf)| {
        Some((kind, shelf.family(&key).into_iter().find(|object| object.meta.name == GATEWAY_NAME)?))
    });
    let mut owners = context.namespaces.lock().members.get(name).cloned().unwrap_or_default();
    // A deletion that only a new list has shown came without an event.
    owners.retain(|owner, uid| {
        let known = store.get(&Trigger::new(owner).within(name));
        known.is_some_and(|known| known.metadata.uid.as_ref() == Some(uid))
    });
    Namespace { name: name.into(), owners, objects: found.collect(), may_roll: true }
}

fn failed(context: &Context, name: &str, error: &WriteError) -> Option<Duration> {
    let mut inner = context.namespaces.lock();
    let (fault, again) = match error {
        WriteError::NotLeader | WriteError::NamespaceTerminating => return None,
        WriteError::Stale(_) => return Some(RETRY),
        WriteError::NameConflict { kind, .. } => {
            // The first time, the watch may not have shown yet what a leader before us has created, or we, unanswered.
            let times = inner.conflicts.entry(name.into()).or_default();
            *times += 1;
            if *times == 1 {
                return Some(RETRY);
            }
            let fault =
                format!("{kind} {GATEWAY_NAME} exists and is not the operator's: delete or rename it");
            (fault, RETRY_REFUSED)
        }
        WriteError::Refused { code: 400..=428, .. } => (error.to_string(), RETRY_REFUSED),
        other => (other.to_string(), RETRY),
    };
    tracing::warn!(
        namespace = name,
        error = fault,
        "the namespace's gateways can't be made as they should be"
    );
    inner.faults.insert(name.into(), fault);
    Some(again)
}

#[cfg(test)]
mod tests;
