//! Fills the shelves from watches, and wakes the ModelDeployments that an event touches.

use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Context, Options, Trigger, namespaces};
use crate::api::{ModelRoute, labels};
use crate::observe::objects::{self, ControllerRevision, Pod, PodDisruptionBudget, ReplicaSet, Service};
use crate::observe::{
    BudgetView, GatewayObject, GatewayShelves, PodView, ReplicaSetView, RevisionView, RouteView, ServiceView,
    Shelf, Shelves, View,
};

/// Of the first list: a page is held whole while it is read, and what it took stays with the allocator.
pub(super) const PAGE: u32 = 100;

pub(super) fn start(
    client: &Client,
    options: &Options,
    shelves: &Arc<Shelves>,
    trigger: &mpsc::Sender<Trigger>,
) {
    fill::<ControllerRevision, _>(client, options, shelves, trigger, |s| &s.revisions, RevisionView::of);
    fill::<ReplicaSet, _>(client, options, shelves, trigger, |s| &s.replica_sets, ReplicaSetView::of);
    fill::<ModelRoute, _>(client, options, shelves, trigger, |s| &s.routes, RouteView::of);
    fill::<Service, _>(client, options, shelves, trigger, |s| &s.services, ServiceView::of);
    fill::<PodDisruptionBudget, _>(client, options, shelves, trigger, |s| &s.budgets, BudgetView::of);
    fill::<Pod, _>(client, options, shelves, trigger, |s| &s.pods, PodView::of);
}

/// Of every namespace's gateways: each event wakes the namespace, and its ModelDeployments where they would decide
/// otherwise.
pub(super) fn start_gateways(
    client: &Client,
    options: &Options,
    context: &Arc<Context>,
    trigger: &mpsc::Sender<Trigger>,
    wake: &mpsc::Sender<String>,
) {
    let watch = (client, options, context, trigger, wake);
    follow::<objects::Deployment, _>(watch, |g| &g.deployments, GatewayObject::deployment);
    follow::<objects::ServiceAccount, _>(watch, |g| &g.service_accounts, GatewayObject::service_account);
    follow::<objects::Role, _>(watch, |g| &g.roles, GatewayObject::role);
    follow::<objects::RoleBinding, _>(watch, |g| &g.role_bindings, GatewayObject::role_binding);
    follow::<objects::GatewayBudget, _>(watch, |g| &g.budgets, GatewayObject::budget);
    follow::<objects::NetworkPolicy, _>(watch, |g| &g.policies, GatewayObject::network_policy);
    follow::<objects::GatewayService, _>(watch, |g| &g.services, GatewayObject::service);
    follow::<Pod, _>(watch, |g| &g.pods, PodView::of_gateway);
}

type Watch<'a> =
    (&'a Client, &'a Options, &'a Arc<Context>, &'a mpsc::Sender<Trigger>, &'a mpsc::Sender<String>);

fn follow<K, V>(
    (client, options, context, trigger, wake): Watch,
    shelf: fn(&GatewayShelves) -> &Shelf<V>,
    view: fn(K) -> Option<V>,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
    V: View,
{
    let (context, trigger, wake) = (context.clone(), trigger.clone(), wake.clone());
    let selector = format!("{}={}", labels::COMPONENT, labels::GATEWAY);
    let config = watcher::Config::default().labels(&selector).page_size(PAGE);
    let events = watch(api::<K>(client, options), config).default_backoff();
    tokio::spawn(events.for_each(move |event| {
        let touched = match event {
            Ok(event) => shelf(&context.shelves.gateways).take(viewed(event, view)),
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch failed, it starts again");
                Vec::new()
            }
        };
        let (context, trigger, wake) = (context.clone(), trigger.clone(), wake.clone());
        async move {
            for (namespace, _) in touched {
                if context.gateways.look(&namespace, &context.shelves) {
                    namespaces::wake_all(&context, &trigger, &namespace).await;
                }
                let _ = wake.send(namespace).await;
            }
        }
    }));
}

fn api<K>(client: &Client, options: &Options) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match &options.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn fill<K, V>(
    client: &Client,
    options: &Options,
    shelves: &Arc<Shelves>,
    trigger: &mpsc::Sender<Trigger>,
    shelf: fn(&Shelves) -> &Shelf<V>,
    view: fn(K) -> Option<V>,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
    V: View,
{
    let (shelves, trigger) = (shelves.clone(), trigger.clone());
    let config = watcher::Config::default().labels(labels::DEPLOYMENT).page_size(PAGE);
    let events = watch(api::<K>(client, options), config).default_backoff();
    tokio::spawn(events.for_each(move |event| {
        let touched = match event {
            Ok(event) => shelf(&shelves).take(viewed(event, view)),
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch failed, it starts again");
                Vec::new()
            }
        };
        let trigger = trigger.clone();
        async move {
            for (namespace, name) in touched {
                // Closed only when the process ends.
                let _ = trigger.send(Trigger::new(&name).within(&namespace)).await;
            }
        }
    }));
}

fn viewed<K, V>(event: Event<K>, view: fn(K) -> Option<V>) -> Event<Option<V>> {
    match event {
        Event::Apply(object) => Event::Apply(view(object)),
        Event::Delete(object) => Event::Delete(view(object)),
        Event::InitApply(object) => Event::InitApply(view(object)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}
