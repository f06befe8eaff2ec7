//! Keeps the table as the API server has it. When that is gone, the table stays as it was.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::table::{PodView, RouteView, Table};
use super::trial::TrialView;
use crate::api::{
    Backend, DrainedPod, INTERVAL_SECONDS, ModelRoute, RouteLimits, RouteMode, RouteShadow, labels,
};
use crate::formats::Slot;

/// Of a list: it is held whole while it is read.
const PAGE: u32 = 100;

/// Fills `table` until the process ends; returns when both lists were read once.
pub async fn start(client: Client, namespace: &str, table: &Arc<Table>) {
    let routes = {
        let table = table.clone();
        let mut listing = Listing::default();
        follow(Api::namespaced(client.clone(), namespace), watcher::Config::default(), move |event| {
            take(event, &mut listing, route, |name, view| match view {
                Some(view) => table.set_route(view),
                None => table.remove_route(name),
            })
        })
    };
    let pods = {
        let table = table.clone();
        let mut listing = Listing::default();
        let mut families: BTreeMap<String, String> = BTreeMap::new();
        let config =
            watcher::Config::default().labels(&format!("{},{}=serve", labels::DEPLOYMENT, labels::ROLE));
        follow(Api::namespaced(client, namespace), config, move |event| {
            take(event, &mut listing, pod, |name, view: Option<PodView>| match view {
                Some(view) => {
                    families.insert(name.into(), view.deployment.clone());
                    table.set_pod(view);
                }
                None => {
                    if let Some(deployment) = families.remove(name) {
                        table.remove_pod(&deployment, name);
                    }
                }
            })
        })
    };
    tokio::join!(routes, pods);
}

/// What a list, while it is read, has shown so far, and what is known.
#[derive(Default)]
struct Listing {
    shown: HashSet<String>,
    known: HashSet<String>,
}

/// Hands each change to `tell`: an object's name, and what is kept of it, none when it is gone. What can't be read
/// changes nothing: what was known of it stays. True: a list was read to its end.
fn take<K: Resource<DynamicType = ()>, V>(
    event: Event<DeserializeGuard<K>>,
    listing: &mut Listing,
    view: fn(K) -> Option<V>,
    mut tell: impl FnMut(&str, Option<V>),
) -> bool {
    let mut apply = |DeserializeGuard(object): DeserializeGuard<K>, name: &str| match object {
        Ok(object) => tell(name, view(object)),
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), name, %error, "an object can't be read, what was known of it stays");
        }
    };
    match event {
        Event::Init => listing.shown.clear(),
        Event::Apply(object) => {
            let name = object.meta().name.clone().unwrap_or_default();
            apply(object, &name);
            listing.known.insert(name);
        }
        Event::InitApply(object) => {
            let name = object.meta().name.clone().unwrap_or_default();
            apply(object, &name);
            listing.shown.insert(name.clone());
            listing.known.insert(name);
        }
        Event::Delete(object) => {
            let name = object.meta().name.clone().unwrap_or_default();
            tell(&name, None);
            listing.known.remove(&name);
        }
        Event::InitDone => {
            let shown = std::mem::take(&mut listing.shown);
            let known = std::mem::replace(&mut listing.known, shown);
            known.difference(&listing.known).for_each(|name| tell(name, None));
            return true;
        }
    }
    false
}

async fn follow<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    mut take: impl FnMut(Event<DeserializeGuard<K>>) -> bool + Send + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // Without a resource version: the list is no older than this moment.
    let config = config.page_size(PAGE);
    let (done, read) = tokio::sync::oneshot::channel();
    let mut done = Some(done);
    tokio::spawn(async move {
        let mut events = std::pin::pin!(watch(api, config).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if take(event)
                        && let Some(done) = done.take()
                    {
                        // Nobody waits for it any more: the process ends.
                        let _ = done.send(());
                    }
                }
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "a watch failed, it starts again; routes stay as they are");
                }
            }
        }
    });
    let _ = read.await;
}

/// The parts of a ModelRoute that are read. Of the rollout's record few are: a newer operator may write what this
/// gateway doesn't know.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = ModelRoute)]
struct Route {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    spec: RouteSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RouteSpec {
    mode: RouteMode,
    backends: Vec<Backend>,
    limits: RouteLimits,
    shadow: Option<RouteShadow>,
    drained: Option<DrainedPod>,
    rollout: Rollout,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rollout {
    stable: Option<i64>,
    candidate: Option<i64>,
    attempt: i64,
    aborted: Option<IgnoredAny>,
    analysis: Option<Analysis>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Analysis {
    interval_seconds: Option<i64>,
}

fn route(object: Route) -> Option<RouteView> {
    let (trial, sole) = (trial(&object.spec), sole(&object.spec));
    Some(RouteView {
        name: object.metadata.name?,
        uid: object.metadata.uid?,
        generation: object.metadata.generation?,
        mode: object.spec.mode,
        backends: object.spec.backends,
        limits: object.spec.limits,
        sole,
        shadow: object.spec.shadow,
        drained: object.spec.drained,
        trial,
    })
}

/// The stable revision, where no request is for another.
fn sole(spec: &RouteSpec) -> Option<i64> {
    let stable = spec.rollout.stable.filter(|_| spec.rollout.candidate.is_none())?;
    spec.backends.iter().all(|backend| backend.revision == stable || backend.weight == 0).then_some(stable)
}

fn trial(spec: &RouteSpec) -> Option<TrialView> {
    let rollout = &spec.rollout;
    let analysis = rollout.analysis.as_ref().filter(|_| rollout.aborted.is_none());
    if analysis.is_none() && spec.shadow.is_none() {
        return None;
    }
    let interval = analysis.and_then(|analysis| analysis.interval_seconds).unwrap_or(INTERVAL_SECONDS);
    Some(TrialView {
        stable: rollout.stable?,
        candidate: rollout.candidate?,
        attempt: rollout.attempt,
        interval: Duration::from_secs(u64::try_from(interval).unwrap_or(1)),
    })
}

/// The parts of a pod that are read.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = k8s_openapi::api::core::v1::Pod)]
struct Pod {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(rename = "podIP")]
    pod_ip: Option<IpAddr>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        name: Option<String>,
        uid: Option<String>,
        generation: Option<i64>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        deletion_timestamp: Option<Time>,
    }
    let read = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: read.name,
        uid: read.uid,
        generation: read.generation,
        resource_version: read.resource_version,
        labels: read.labels,
        annotations: read.annotations,
        deletion_timestamp: read.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

fn pod(object: Pod) -> Option<PodView> {
    let given = object.metadata.labels?;
    let assigned = Slot::assigned(&given, &object.metadata.annotations.unwrap_or_default());
    if assigned.is_empty() {
        return None;
    }
    let serving = Slot::serving(&given, &assigned).into_iter();
    let serving = serving.filter_map(|slot| Some((i64::try_from(slot.revision).ok()?, slot.port)));
    let serving: Vec<(i64, u16)> = serving.collect();
    let at = |ip| serving.iter().map(|&(revision, port)| (revision, SocketAddr::new(ip, port))).collect();
    let slots = object.status.pod_ip.map(at);
    let ready = object.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True");
    let stays = object.metadata.deletion_timestamp.is_none();
    let sole = (serving.len() == 1).then(|| serving[0]);
    Some(PodView {
        deployment: given.get(labels::DEPLOYMENT)?.clone(),
        name: object.metadata.name?,
        uid: object.metadata.uid?,
        starting: sole.filter(|_| stays && !ready),
        slots: slots.unwrap_or_default(),
        ready: ready && stays,
    })
}

#[cfg(test)]
mod tests;
