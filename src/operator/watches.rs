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

use super::{Options, Trigger};
use crate::api::labels;
use crate::observe::objects::{ControllerRevision, Pod, PodDisruptionBudget, ReplicaSet, Service};
use crate::observe::{BudgetView, PodView, ReplicaSetView, RevisionView, ServiceView, Shelf, Shelves, View};

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
    fill::<Service, _>(client, options, shelves, trigger, |s| &s.services, ServiceView::of);
    fill::<PodDisruptionBudget, _>(client, options, shelves, trigger, |s| &s.budgets, BudgetView::of);
    fill::<Pod, _>(client, options, shelves, trigger, |s| &s.pods, PodView::of);
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
    let api: Api<K> = match &options.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (shelves, trigger) = (shelves.clone(), trigger.clone());
    let config = watcher::Config::default().labels(labels::DEPLOYMENT).page_size(PAGE);
    let events = watch(api, config).default_backoff();
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
